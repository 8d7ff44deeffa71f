"""The clock of a GPU's multiprocessors while something runs on it, from the driver's own library (NVML)."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from benchmarks.figures import quantile

SM = 1  # NVML_CLOCK_SM
EVERY = 0.25  # seconds


def _read_by_nvml() -> Callable[[], int | None]:
    """A function that gives the clock of the first visible GPU in MHz.  Raises OSError where there is no NVML."""
    library: Any = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    device = ctypes.c_void_p()
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    index = int(first) if first.isdecimal() else 0
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)):
        raise OSError("NVML cannot be used")

    def read() -> int | None:
        clock = ctypes.c_uint()
        return None if library.nvmlDeviceGetClockInfo(device, SM, ctypes.byref(clock)) else clock.value

    return read


class ClockLog:
    """Reads the clock all the time, from when it is made until `close`; says nothing where there is none."""

    def __init__(self, read: Callable[[], int | None] | None = None) -> None:
        self._samples: list[int] = []
        self._over = threading.Event()
        try:
            self._read = read or _read_by_nvml()
        except (OSError, AttributeError):
            return
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._over.wait(EVERY):
            clock = self._read()
            if clock is not None:
                self._samples.append(clock)

    @property
    def now(self) -> int | None:
        """What was read last, in MHz; None for nothing."""
        return self._samples[-1] if self._samples else None

    def since_last(self) -> dict[str, int] | None:
        """{"median", "least", "most"} in MHz of what was read since this was asked before; None for nothing."""
        samples, self._samples = self._samples, []
        if not samples:
            return None
        return {"median": int(quantile(samples, 0.5)), "least": min(samples), "most": max(samples)}

    def close(self) -> None:
        """Read no more."""
        self._over.set()
