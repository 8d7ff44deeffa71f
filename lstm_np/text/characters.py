"""From a file to characters, and from characters to the integers that a model reads."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable, Sequence

import numpy as np

from lstm_np.errors import LstmNpError
from lstm_np.files import expand

MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}  # what such a file begins with
SHOWN = 5  # unknown characters that an error names


class TextError(LstmNpError, ValueError):
    """A file that is no text to learn from; one line: which, what was found, what to do."""


class VocabularyError(LstmNpError, ValueError):
    """Characters that a vocabulary does not have, or a vocabulary that cannot be; one line."""


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file: without the byte order mark that it may begin with, its line ends \\n.

    Raises TextError for a file that is empty or not UTF-8, and says at which byte; OSError where it cannot be read.
    """
    return _decoded(expand(path).read_bytes(), str(path))


def read_standard_input() -> str:
    """The text on standard input, to its end; as `read_text`."""
    if sys.stdin is None:
        raise TextError("standard input: is closed; name a file")
    content = sys.stdin.buffer.read()
    if not content:
        raise TextError("standard input: is empty; give it a text to learn from")
    return _decoded(content, "standard input")


def _decoded(content: bytes, source: str) -> str:
    start = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    try:
        text = content[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        at = start + error.start
        line = content.count(b"\n", 0, at) + 1
        encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), None)
        cure = "convert it, or name another file" if encoding is None else f"it begins as {encoding} does: convert it"
        raise TextError(
            f"{source}: not UTF-8: byte 0x{content[at]:02X} at offset {at:,} (line {line:,}) belongs to no character; "
            f"{cure}"
        ) from None
    if not text:
        raise TextError(f"{source}: the file is empty; name a text to learn from")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Vocabulary:
    """The characters that a model knows, in the order of their numbers: 0 is that with the smallest code point.

    >>> vocabulary = lstm_np.text.Vocabulary.of("banana")
    >>> vocabulary.characters, vocabulary.size
    (('a', 'b', 'n'), 3)
    >>> vocabulary.encode("nab")
    array([2, 0, 1], dtype=int32)
    >>> vocabulary.decode([2, 0, 1])
    'nab'

    Raises VocabularyError unless there are at least two characters, each once and one character long.
    """

    def __init__(self, characters: Sequence[str]) -> None:
        if not all(isinstance(one, str) and len(one) == 1 for one in characters):
            raise VocabularyError("a vocabulary consists of single characters")
        self.characters = tuple(sorted(set(characters)))
        if len(self.characters) < len(characters):
            raise VocabularyError("a vocabulary has each of its characters once")
        if self.size < 2:
            found = repr(self.characters[0]) if self.characters else "none"
            raise VocabularyError(f"a vocabulary needs at least two different characters, found {found}")
        points = _points("".join(self.characters))
        self._table = np.full(int(points[-1]) + 2, -1, np.int32)  # the last entry stands for all code points beyond
        self._table[points] = np.arange(self.size)

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """That of a text.  Raises VocabularyError where it has fewer than two different characters."""
        return cls([chr(point) for point in np.unique(_points(text))])

    @property
    def size(self) -> int:
        """How many characters."""
        return len(self.characters)

    def __contains__(self, character: object) -> bool:
        return character in self.characters

    def encode(self, text: str) -> np.ndarray:
        """The numbers of the characters of a text, int32 (len(text),).

        Raises VocabularyError, with the position of each, counted from 1, for characters that it does not have.
        """
        points = _points(text)
        codes: np.ndarray = self._table[np.minimum(points, len(self._table) - 1)]
        if (codes < 0).any():
            unknown: dict[str, int] = {}
            for k in np.flatnonzero(codes < 0):
                unknown.setdefault(text[k], int(k) + 1)
            named = [f"{one!r} (U+{ord(one):04X}) at position {at:,}" for one, at in unknown.items()]
            more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
            raise VocabularyError(
                f"the vocabulary of {self.size} characters lacks {', '.join(named[:SHOWN])}{more}; leave them out"
            )
        return codes

    def decode(self, codes: Iterable[int]) -> str:
        """The text of such numbers.  Raises IndexError for a number that no character has."""
        return "".join(self.characters[code] for code in codes)


def _points(text: str) -> np.ndarray:
    """The code points of a text, uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def printable(text: str) -> str:
    """A text as a terminal can show it: control characters but line feeds and tabs are escaped."""
    return "".join(one if one in "\n\t" or one.isprintable() else repr(one)[1:-1] for one in text)
