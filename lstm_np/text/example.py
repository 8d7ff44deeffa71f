"""A text that is generated: small programs of a made-up language, with brackets, blocks and names that come back.

What makes them predictable lies at different distances: a keyword's letters follow one another, a bracket that was
opened is closed some characters later, indentation is as deep as the blocks around it, and a block ends with the name
that it began with, lines before.  The text is a function of its seed.
"""

from __future__ import annotations

from collections.abc import Sequence

from lstm_np import streams
from lstm_np.options import check_count

LENGTH = 200_000  # characters of the example that the command takes
NAMES = ("alpha", "beta", "count", "delta", "index", "limit", "total", "value", "width", "x", "y", "z")
BLOCKS = ("build", "check", "filter", "merge", "reset", "scan", "sort", "split", "update", "walk")
OPERATORS = ("+", "-", "*", "/")
COMPARISONS = ("<", ">", "==", "!=")
DEEPEST = 3  # blocks within blocks
BLOCK = 4096  # random words that are drawn together


def example(length: int = LENGTH, seed: int = 0) -> str:
    """The first `length` characters of the example with this seed.

    >>> print(lstm_np.text.example(51))
    begin filter(limit, y)
        limit = count
    end filter

    Raises OptionError for a length below 1.
    """
    check_count("length", length, 1)
    writer, parts, written = _Writer(seed), list[str](), 0
    while written < length:
        parts.append(writer.block())
        written += len(parts[-1])
    return "".join(parts)[:length]


class _Writer:
    """Writes block after block; every choice is a random word of the seed's stream."""

    def __init__(self, seed: int) -> None:
        self._seed, self._block, self._words = seed, 0, list[int]()

    def block(self) -> str:
        """A named block and an empty line."""
        name, arguments = self._one_of(BLOCKS), ", ".join(self._one_of(NAMES) for _ in range(self._below(4)))
        lines = [f"begin {name}({arguments})", *self._body(1), f"end {name}"]
        return "\n".join([*lines, "", ""])

    def _body(self, depth: int) -> list[str]:
        return [line for _ in range(1 + self._below(4)) for line in self._statement(depth)]

    def _statement(self, depth: int) -> list[str]:
        margin, kind = "    " * depth, self._below(6 if depth < DEEPEST else 4)
        if kind == 0:
            return [f"{margin}print {self._value(0)}"]
        if kind < 4:
            return [f"{margin}{self._one_of(NAMES)} = {self._value(0)}"]
        if kind == 4:
            condition = f"{self._one_of(NAMES)} {self._one_of(COMPARISONS)} {self._below(100)}"
            return [f"{margin}if {condition}", *self._body(depth + 1), f"{margin}end if"]
        return [f"{margin}repeat {2 + self._below(8)} times", *self._body(depth + 1), f"{margin}end repeat"]

    def _value(self, depth: int) -> str:
        kind = self._below(6 if depth < DEEPEST else 2)
        if kind == 0:
            return self._one_of(NAMES)
        if kind == 1:
            return str(self._below(100))
        if kind < 4:
            return f"{self._one_of(NAMES)} {self._one_of(OPERATORS)} {self._below(100)}"
        if kind == 4:
            return f"({self._value(depth + 1)}) {self._one_of(OPERATORS)} {self._value(depth + 1)}"
        return f"[{', '.join(self._value(depth + 1) for _ in range(1 + self._below(3)))}]"

    def _one_of(self, words: Sequence[str]) -> str:
        return words[self._below(len(words))]

    def _below(self, n: int) -> int:
        """A number in 0 ... n-1."""
        if not self._words:
            self._words = streams.raw(BLOCK, self._seed, "example text", self._block).tolist()[::-1]
            self._block += 1
        return self._words.pop() % n
