"""Small training steps under NVIDIA's compute-sanitizer, where it is installed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, python_path

TOOLS = ("memcheck", "racecheck", "synccheck")
LIMIT = 60.0  # seconds for one tool: it makes kernels many times slower


def find() -> str | None:
    """The path of compute-sanitizer: on the path, in a toolkit, or from the wheel; None where there is none."""
    found = shutil.which("compute-sanitizer")
    if found:
        return found
    spec = importlib.util.find_spec("nvidia")
    places = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    candidates = [*Path("/usr/local").glob("cuda*/bin/compute-sanitizer"),
                  *(path for place in places for path in place.glob("*/bin/compute-sanitizer"))]  # fmt: skip
    return next((str(path) for path in candidates if os.access(path, os.X_OK)), None)


def runs(budget: float, arguments: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """A record per tool: how many errors it found, and its first lines.

    arguments  of the process that makes the steps, such as --small
    """
    tool_path = find()
    if tool_path is None:
        yield {"skipped": "compute-sanitizer is not installed (pip install nvidia-cuda-sanitizer-api)"}
        return
    ends = time.monotonic() + budget
    for number, tool in enumerate(TOOLS):
        limit = min(LIMIT, (ends - time.monotonic()) / (len(TOOLS) - number))  # what one leaves, the next ones have
        command = [tool_path, "--tool", tool, "--print-limit", "5", "--error-exitcode", "9",
                   sys.executable, "-m", "benchmarks.gpu", "--part", "checked_steps", *arguments]  # fmt: skip
        yield {"tool": tool, **_run(command, limit)} if limit > 5 else {"tool": tool, "skipped": "no time left"}


def _run(command: Sequence[str], limit: float) -> dict[str, Any]:
    environment, started = {**os.environ, "PYTHONPATH": python_path()}, time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False, cwd=ROOT, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"not over within {limit:.0f} s"}
    seconds = time.monotonic() - started
    summary = re.search(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", done.stdout)
    errors = int(summary[1] or summary[2]) if summary else None
    record: dict[str, Any] = {"errors": errors, "seconds": seconds, "ok": done.returncode == 0 and errors == 0}
    if not record["ok"]:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("=====")]
        record["said"] = lines[:30] or (done.stdout + done.stderr).splitlines()[-10:]
    return record
