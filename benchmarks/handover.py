"""How long a value takes from one core to another and back.

A library that hands work to its threads many times in a step pays that time as often.  Cores that share a cache
answer within 100 ns, cores that do not need several times as long, up to a microsecond; in a virtual machine the host
decides which cores its two are, and may do so anew every second.  A race between a system that hands over often and one
that does so rarely then has more than one outcome.  `Nearness` tells when the cores are near.

It needs the system's C compiler (`cc`), since Python's own time would hide what is measured.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.processes import ContestantError

SOURCE = Path(__file__).with_suffix(".c")
FAR = 1.6  # times the shortest handover seen: beyond it the cores are far apart


def can_be_measured() -> bool:
    """Whether there is a compiler that makes the program, which needs Linux's calls."""
    with tempfile.TemporaryDirectory() as folder:
        return _make(Path(folder) / "handover")


def _make(program: Path) -> bool:
    command = ["cc", "-O2", "-pthread", str(SOURCE), "-o", str(program)]
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


class Nearness:
    """Measures handovers between two cores; use as a context manager.  `best` is the shortest so far, in seconds.

    Raises ContestantError where its program cannot be made, or has ended.
    """

    def __init__(self, cores: tuple[int, int]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        program = Path(self._folder.name) / "handover"
        if not _make(program):
            self._folder.cleanup()
            raise ContestantError(f"handover: cc could not make {SOURCE.name}")
        self._process = subprocess.Popen(
            [program, *map(str, cores)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.best = math.inf
        self._busy = 0.0

    def __enter__(self) -> Nearness:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._folder.cleanup()

    def measure(self) -> float:
        """Seconds of a handover to the other core and back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        started = time.perf_counter()
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            seconds = float(self._process.stdout.readline()) / 1e9
        except (OSError, ValueError):
            raise ContestantError(f"handover: its process has ended ({self._process.poll()})") from None
        self._busy += 2 * (time.perf_counter() - started)
        self.best = min(self.best, seconds)
        return seconds

    def near(self, seconds: float) -> bool:
        """Whether a handover is about as short as the shortest so far."""
        return seconds <= FAR * self.best

    def wait(self, patience: float) -> float:
        """The last handover when the cores are near each other, or after `patience` seconds.

        Both cores work meanwhile: the host of a virtual machine brings together those that do.
        """
        ends = time.monotonic() + patience
        while True:
            seconds = self.measure()
            if self.near(seconds) or time.monotonic() >= ends:
                return seconds

    def look(self, seconds: float) -> None:
        """Measure for so long, to know how near the cores can be."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.measure()

    def busy_seconds(self) -> float:
        """CPU time on both cores since the last call, about."""
        busy, self._busy = self._busy, 0.0
        return busy
