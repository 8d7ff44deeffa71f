"""Tables: of training epochs as lines of text, and of anything as HTML for notebooks."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple, TextIO

Pair = tuple[float, float]  # a mean loss, and the number beside it, such as an accuracy from 0 to 1
ACCURACY = "accuracy"
SHORT = {"mean_absolute_error": "abs error"}  # names of numbers, where they head a column

SECONDS_BETWEEN_DRAWINGS = 0.1
LONGEST_LOSS = 8  # characters: 999.9999; columns of tables have one more


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    """An HTML table for a notebook, all texts escaped: a caption above, the first column left, the others right."""

    def row(tag: str, entries: Sequence[str]) -> str:
        sides = ["left", *["right"] * (len(entries) - 1)]
        cells = (
            f'<{tag} style="text-align:{side}">{escape(entry)}</{tag}>'
            for side, entry in zip(sides, entries, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    top = f"<p><code>{escape(caption)}</code></p>" if caption else ""
    bottom = f"<p>{escape(note)}</p>" if note else ""
    body = "".join(row("td", entries) for entries in rows)
    return f"<div>{top}<table><thead>{row('th', head)}</thead><tbody>{body}</tbody></table>{bottom}</div>"


def loss_in_words(loss: float) -> str:
    """A loss with four decimals, or, where those make it too long for a column, as a power of ten.

    >>> loss_in_words(0.12345), loss_in_words(1.5e30)
    ('0.1235', '1.50e+30')
    """
    text = f"{loss:.4f}"
    return text if len(text) <= LONGEST_LOSS else f"{loss:.2e}"


def score_name(second: str) -> str:
    """What the number beside the loss is called where there is little room."""
    return SHORT.get(second, second)


def score_in_words(second: str, score: float) -> str:
    """The number beside the loss; an accuracy in percent.

    >>> score_in_words("accuracy", 0.5), score_in_words("mean_absolute_error", 0.5)
    ('50.00%', '0.5000')
    """
    return f"{score:.2%}" if second == ACCURACY else loss_in_words(score)


class EpochRow(NamedTuple):
    """One line of the table of epochs.

    number      of the epoch, from 1
    train       loss and accuracy in training; None: not measured
    validation  likewise on what was held out
    steps       made so far
    seconds     of training
    share       of the epoch's batches that were trained on
    second      which number stands beside the loss
    """

    number: int
    train: Pair | None
    validation: Pair | None
    steps: int
    seconds: float
    share: float = 1.0
    second: str = ACCURACY

    def entries(self, held: bool) -> list[str]:
        """The columns as texts; `held`: with those of what was held out."""
        pairs = (self.train, self.validation) if held else (self.train,)
        measured = [text for pair in pairs for text in _pair(pair, self.second)]
        return [str(self.number), *measured, f"{self.steps:,}", f"{self.seconds:.2f}"]

    def line(self, held: bool) -> str:
        """The line of text."""
        number, *entries = self.entries(held)
        cut = "" if self.share == 1.0 else f"   {self.share:.0%} of an epoch"
        return f"{number:>5}{''.join(f'{entry:>10}' for entry in entries)}{cut}"


def epoch_columns(held: bool, second: str = ACCURACY) -> list[str]:
    """What the columns of the table of epochs are called."""
    return ["epoch", *["loss", score_name(second)] * (2 if held else 1), "steps", "seconds"]


def epoch_head(held: bool, second: str = ACCURACY) -> list[str]:
    """The two lines above the table of epochs; `held`: with the columns of what was held out."""
    first, *others = epoch_columns(held, second)
    return [
        f"{'':5}{'train':>17}{'validation' if held else '':>20}".rstrip(),
        f"{first}{''.join(f'{name:>10}' for name in others)}",
    ]


def _pair(pair: Pair | None, second: str) -> tuple[str, str]:
    return ("-", "-") if pair is None else (loss_in_words(pair[0]), score_in_words(second, pair[1]))


class EpochTable:
    """The table of epochs, one line written at the end of each, and below it the progress of the current epoch.

    held    with the columns of what was held out
    live    show the progress of the current epoch in a line that is overwritten; for terminals
    second  which number stands beside the loss
    stream  None: standard output as it is now

    If the stream can no longer be written, nothing more is written, and training continues.
    """

    def __init__(self, *, held: bool, live: bool, stream: TextIO | None = None, second: str = ACCURACY) -> None:
        self._stream: TextIO | None = sys.stdout if stream is None else stream
        self._held, self._live, self._drawn, self._length = held, live, 0.0, 0
        self._write("".join(f"{line}\n" for line in epoch_head(held, second)))

    def step(self, describe: Callable[[], str]) -> None:
        """A step was made; `describe` gives the progress of the epoch and is called a few times a second at most."""
        now = time.perf_counter()
        if self._live and now - self._drawn >= SECONDS_BETWEEN_DRAWINGS:
            text = describe()
            self._write(f"\r{text:<{self._length}}")
            self._drawn, self._length = time.perf_counter(), len(text)

    def epoch(self, row: EpochRow) -> None:
        """An epoch ended."""
        self.clear()
        self._write(f"{row.line(self._held)}\n")

    def clear(self) -> None:
        """Erase the progress line."""
        if self._length:
            self._write(f"\r{'':<{self._length}}\r")
            self._length = 0

    def _write(self, text: str) -> None:
        if self._stream is None:  # pythonw has no standard output
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: it was closed
            self._stream, self._live = None, False


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether the stream (None: standard output) is a terminal."""
    stream = sys.stdout if stream is None else stream
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return stream.isatty()
    return False


def is_notebook() -> bool:
    """Whether standard output leads to a notebook."""
    return type(sys.stdout).__module__.startswith("ipykernel")
