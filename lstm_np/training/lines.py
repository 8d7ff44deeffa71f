"""Lines on a text stream and, below them, a progress bar where the stream is a terminal: what reporters write with."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lstm_np.files import discard_buffered
from lstm_np.loop import Epoch, Step

SECONDS_BETWEEN_DRAWINGS = 0.1
WIDTH, MARGIN = 80, 8
BAR_WIDTH = 13  # so that 80 columns hold all numbers and the ^C that a terminal writes behind them


class RunReporter:
    """What every run reports; this one prints only necessary notes, and is the base class of the others."""

    def note(self, text: str) -> None:
        """Something the user should know though nothing failed; on stderr, if that can be written."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            print(text, file=sys.stderr, flush=True)

    def step(self, step: Step) -> None:
        """A step was made."""

    def measuring(self) -> None:
        """The training of an epoch is over; what was held out is looked at."""

    def epoch(self, record: Epoch) -> None:
        """An epoch ended."""

    def close(self) -> None:
        """No more steps will come, for whatever reason."""


class Lines:
    """What a reporter writes to a stream; a stream that cannot be written any more is no error.

    stream  where the lines go
    note    is told, in a line, of a stream that has failed: work goes on without a reader
    """

    def __init__(self, stream: TextIO, note: Callable[[str], None]) -> None:
        self._stream, self._note = stream, note
        self._console = Console(file=stream, highlight=False)
        self._bar: Progress | None = None
        self._listening = True

    def line(self, text: str, style: str | None = None) -> None:
        """One line, unless the stream can no longer be written."""
        if self._console.is_terminal:
            self._show(lambda: self._console.print(text, style=style, markup=False, soft_wrap=True))
        else:
            self._show(lambda: print(text, file=self._stream, flush=True))

    def parts(self, head: str, parts: Sequence[str], between: str = ", ") -> None:
        """Parts behind a head, with commas between them, on as many lines as they need."""
        lines = textwrap.wrap(between.join(parts), WIDTH - MARGIN)
        for k, line in enumerate(lines):
            self.line(f"{head if k == 0 else '':<{MARGIN}}{line}")

    def begin_bar(self, total: int) -> None:
        """A bar of `total` steps from now on, where the stream is a terminal."""
        if self._console.is_terminal and self._stream.isatty():  # with FORCE_COLOR rich takes a file for a terminal
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=BAR_WIDTH),
                TextColumn("{task.fields[numbers]}"),
            )
            self._bar = Progress(
                *columns,
                console=self._console,
                auto_refresh=False,  # drawn by hand, so no thread takes time from training
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.add_task("", total=total, numbers="")
            self._show(self._bar.start)

    @property
    def has_bar(self) -> bool:
        """Whether there is a bar to draw."""
        return self._bar is not None

    def draw(self, description: str, numbers: str, done: int) -> None:
        """Draw the bar, if there is one: words before it, words behind it, and how many of its steps are done."""
        if self._bar is not None and self._listening:
            bar = self._bar
            bar.update(bar.task_ids[0], description=description, completed=done, numbers=numbers)
            self._show(bar.refresh)

    def end_bar(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._show(self._bar.stop)
            self._bar = None

    def _show(self, write: Callable[[], object]) -> None:
        """Write, unless that has failed before: training goes on without a reader.

        A closed pipe, as by `head`, is no error; a full disk behind `>` or a closed terminal is reported once.
        """
        if not self._listening:
            return
        try:
            write()
        except BrokenPipeError:
            self._stop_listening()
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self._stop_listening()
            reason = getattr(error, "strerror", None) or str(error)
            self._note(f"the lines about this run cannot be written ({reason}); it goes on without them")

    def _stop_listening(self) -> None:
        self._listening = False
        discard_buffered(self._stream)


def counted(number: int, thing: str) -> str:
    """1 step, 2 steps, 1,000 steps."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def clock(seconds: float) -> str:
    """9.4 s, 1:35, 1:02:07."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
