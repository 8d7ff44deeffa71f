"""A progress bar in the terminal for downloads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lstm_np.data.download import Progress


@contextmanager
def download_bars(quiet: bool = False) -> Iterator[Progress | None]:
    """Gives the `progress` function for `fetch`: one bar on stderr for each file, with size, speed and time left.

    None where `quiet`; nothing is drawn where stderr is not a terminal, whatever FORCE_COLOR says: a bar is drawn by
    moving the cursor.
    """
    if quiet:
        yield None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    tasks: dict[str, rich.TaskID] = {}
    with rich.Progress(*columns, console=console, disable=not sys.stderr.isatty()) as bars:

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield show
