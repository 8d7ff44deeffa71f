"""How much memory new arrays on the host may take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lstm_np.backends import cgroups


def available_memory(root: Path = cgroups.ROOT) -> int | None:
    """Bytes that this process can still take before the machine or its control group is full; None: not known.

    `root` is where /proc and /sys/fs/cgroup are looked for.
    """
    return min(_bounds(root), default=None)


def _bounds(root: Path) -> Iterator[int]:
    lines = (line.split() for line in cgroups.read(root / "proc/meminfo").splitlines())
    available = next((words[1] for words in lines if words[:1] == ["MemAvailable:"] and len(words) > 1), "")
    if available.isdecimal():
        yield int(available) << 10
    else:
        with suppress(AttributeError, ValueError, OSError):  # Windows; a system that does not say
            yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = cgroups.free_memory(root)
    if group is not None:
        yield group
