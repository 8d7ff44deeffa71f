"""The processor, and how many of its cores to use: all that this process may, unless the user says how many."""

from __future__ import annotations

import math
import os
import platform
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lstm_np.backends import cgroups
from lstm_np.backends.blas_threads import allowed_threads

# what people and schedulers set for the linear algebra libraries, which all the work here goes through
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


BY_USER = "the user"


class Cores(NamedTuple):
    """A number of cores to use, and what decided it, in words."""

    number: int
    decided_by: str


def usable_cores(root: Path = cgroups.ROOT, environment: Mapping[str, str] = os.environ) -> Cores:
    """The smallest of all that bounds this process: affinity, CPU quota, thread variables, threads that BLAS may use.

    `root` is where /proc and /sys/fs/cgroup are looked for.  A quota of 1.5 cores counts as two.
    """
    if not can_start_processes():
        return Cores(1, "this Python cannot start worker processes")
    return min(_bounds(root, environment), key=lambda cores: cores.number)


def cpu_name() -> str:
    """The processor's name as the system gives it, with its family and model where it does: names can be vague."""
    try:
        pairs = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines())
        told = {name.strip(): value.strip() for name, _, value in pairs}
    except OSError:
        told = {}
    name = told.get("model name") or platform.processor() or platform.machine()
    family, model = told.get("cpu family"), told.get("model")
    return name if family is None or model is None else f"{name} (family {family}, model {model})"


def can_start_processes() -> bool:
    """Whether this Python can start another one: not in a browser, nor from within a frozen application.

    There `sys.executable` is the application itself, which would start itself without end.
    """
    return sys.platform not in ("emscripten", "wasi") and not getattr(sys, "frozen", False) and bool(sys.executable)


def can_share_with_processes() -> bool:
    """Whether worker processes can be had: they need a socket that carries file descriptors, as Windows' cannot."""
    return can_start_processes() and hasattr(socket, "send_fds")


def _bounds(root: Path, environment: Mapping[str, str]) -> Iterator[Cores]:
    if hasattr(os, "sched_getaffinity"):
        yield Cores(len(os.sched_getaffinity(0)), "the cores that this process may run on")
    else:
        yield Cores(os.cpu_count() or 1, "the cores of this machine")
    quota = cgroups.cpu_quota(root)
    if quota is not None:
        yield Cores(max(1, math.ceil(quota)), f"a CPU quota of {quota:g} cores")
    for name in VARIABLES:
        first = environment.get(name, "").split(",")[0].strip()  # one number for each level of nesting
        if first.isdecimal() and int(first) > 0:
            yield Cores(int(first), name)
    threads = allowed_threads()
    if threads is not None:
        yield Cores(threads, "the threads that the linear algebra library may use")
