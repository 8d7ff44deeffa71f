"""Control groups of Linux: what a container or a batch system lets this process have of cores and memory.

A process is in one group of each hierarchy, and the limits of every group around it hold as well.  Version 2 has one
hierarchy, version 1 one for each controller; both may be mounted at once.  Where a file is missing there is no limit.
Format of the files: the kernel's documentation, admin-guide/cgroup-v2.rst and admin-guide/cgroup-v1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path("/")  # tests read another tree


class Group(NamedTuple):
    """The folder of a group of this process, and the version of its hierarchy: 1 or 2."""

    folder: Path
    version: int

    def number(self, name: str, field: int = 0) -> int | None:
        """An integer in a file of this folder; None where there is none, as where it says "max"."""
        return _integer(read(self.folder / name).split()[field : field + 1])

    def entry(self, name: str, key: str) -> int:
        """The integer after `key` in a file of lines "key value"; 0 where there is none."""
        values = (line.split()[1:2] for line in read(self.folder / name).splitlines() if line.split()[:1] == [key])
        return _integer(next(values, [])) or 0


def read(path: Path) -> str:
    """A file's text; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def groups(controller: str, root: Path = ROOT) -> Iterator[Group]:
    """The groups of this process that may limit what `controller` ("cpu", "memory") gives out, innermost first."""
    paths = dict(_memberships(root))
    for line in read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        mount, kind = before.split(), after.split()
        if len(mount) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        if version == 1 and controller not in kind[2].split(","):
            continue
        path = paths.get("" if version == 2 else controller)
        if path is not None:
            top = root / _unescaped(mount[4]).lstrip("/")
            inside = _inside(path, _unescaped(mount[3]))
            for folder in (inside, *inside.parents):
                yield Group(top / folder, version)


def cpu_quota(root: Path = ROOT) -> float | None:
    """How many cores' time this process and its group may use, e.g. 1.5; None: no limit is known."""
    found = []
    for group in groups("cpu", root):
        if group.version == 2:
            quota, period = group.number("cpu.max"), group.number("cpu.max", 1)
        else:
            quota, period = group.number("cpu.cfs_quota_us"), group.number("cpu.cfs_period_us")
        if quota is not None and period and quota > 0:
            found.append(quota / period)
    return min(found, default=None)


def free_memory(root: Path = ROOT) -> int | None:
    """Bytes that this process's group may still take; None: no limit is known.

    Pages of files that were read once count as free: the kernel drops them when it needs the memory.
    """
    found = []
    for group in groups("memory", root):
        if group.version == 2:
            limit, used, idle = group.number("memory.max"), group.number("memory.current"), "inactive_file"
        else:
            limit, used = group.number("memory.limit_in_bytes"), group.number("memory.usage_in_bytes")
            idle = "total_inactive_file"
        if limit is not None:
            found.append(max(0, limit - max(0, (used or 0) - group.entry("memory.stat", idle))))
    return min(found, default=None)


def _memberships(root: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """(controller, path of this process's group); the controller of version 2 is ""."""
    for line in read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if separator:
            for controller in controllers.split(","):
                yield controller, PurePosixPath(path)


def _inside(path: PurePosixPath, mounted: str) -> Path:
    """Where a group lies below a mount that shows the tree from `mounted` on; its top where that does not show it."""
    try:
        inside = path.relative_to(mounted)
    except ValueError:
        return Path()
    return Path() if ".." in inside.parts else Path(inside)


def _unescaped(text: str) -> str:
    """mountinfo writes a space, a tab, a line feed and a backslash as three octal digits."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text


def _integer(words: list[str]) -> int | None:
    try:
        return int(words[0])
    except (IndexError, ValueError):
        return None
