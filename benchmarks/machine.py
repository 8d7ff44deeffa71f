"""What a result file says about where and when it was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import ROOT
from lstm_np.backends.blas_threads import libraries
from lstm_np.backends.cores import cpu_name

FORMAT = "lstm_np benchmark 2"


def commit() -> dict[str, Any]:
    """{"commit": the revision, "changed": whether files differ from it}; "unknown" without git or a repository."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", "lstm_np"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": "unknown", "changed": None}


def unchanged(commit: str) -> bool:
    """Whether lstm_np is, in the files here, what it was at that commit; False where that cannot be known."""
    command = ["git", "diff", "--quiet", commit, "--", "lstm_np"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class CpuTimes:
    """What the cores that this process may use have done so far, in core-seconds.

    busy    by any program here
    stolen  kept from this machine by its host, where it is a virtual one
    """

    busy: float
    stolen: float


def cpu_times() -> CpuTimes | None:
    """Read them; None where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    wanted = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    try:
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        rows = [[int(value) for value in fields[1:9]] for fields in lines if fields and fields[0] in wanted]
    except (OSError, ValueError):
        return None
    if len(rows) != len(wanted) or any(len(row) < 8 for row in rows):
        return None
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _, _, irq, softirq, steal = (sum(column) / tick for column in zip(*rows, strict=True))
    return CpuTimes(user + nice + system + irq + softirq, steal)


def version_of(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def header(kind: str, threads: int) -> dict[str, Any]:
    """The head of a result file."""
    return {
        "format": FORMAT,
        "kind": kind,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **commit(),
        "threads": threads,
        "machine": {
            "cpu": cpu_name(),
            "cores": available_cores(),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "numpy": np.__version__,
            "blas": _blas(),
            "blas_forced": os.environ.get("OPENBLAS_CORETYPE"),
            "load_at_start": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        },
    }


def in_words(document: dict[str, Any]) -> str:
    """When and where the results of a file with such a head were measured."""
    machine = document["machine"]
    cores = f"{document['threads']} core" + ("" if document["threads"] == 1 else "s")
    return f"{document['date'][:10]}, {machine['cpu']}, {cores}, float32, commit {document['commit'][:9]}."


def _blas() -> str:
    dependency = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    name = f"{dependency.get('name', 'unknown')} {dependency.get('version', '')}".strip()
    kernels = next((getattr(library, "architecture", None) for library in libraries()), None)
    return name if kernels is None else f"{name}, {kernels} kernels"
