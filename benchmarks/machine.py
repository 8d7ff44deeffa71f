"""What a result file says about where and when it was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import ROOT
from lstm_np.backends.blas_threads import libraries

FORMAT = "lstm_np benchmark 1"


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


def commit() -> dict[str, Any]:
    """{"commit": the revision, "changed": whether files differ from it}; "unknown" without git or a repository."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", "lstm_np"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": "unknown", "changed": None}


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def _blas() -> str:
    dependency = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    name = f"{dependency.get('name', 'unknown')} {dependency.get('version', '')}".strip()
    kernels = next((getattr(library, "architecture", None) for library in libraries()), None)
    return name if kernels is None else f"{name}, {kernels} kernels"
