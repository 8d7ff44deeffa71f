"""The other end of the pipe: contestants in processes of their own, on the same cores, in a pinned environment."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class ContestantError(RuntimeError):
    """A contestant could not do what it was asked; one line: who, what, why."""


def cores(threads: int) -> list[int]:
    """The first `threads` cores that this process may use.  Raises ValueError when there are fewer."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(min(threads, os.cpu_count() or 1)))
    available = sorted(os.sched_getaffinity(0))
    if threads > len(available):
        raise ValueError(f"--threads {threads}: this machine lets a process use {len(available)} cores")
    return available[:threads]


def python_path() -> str:
    """This repository first, then where this process's own packages may lie."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def environment(threads: int, gpu: bool = False) -> dict[str, str]:
    """This process's environment with the thread counts of every library pinned.

    Waiting threads keep the libraries' own policy: OMP_WAIT_POLICY=passive makes PyTorch's step nearly twice as slow.
    """
    number = str(threads)
    pinned = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NPROC",
         "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), number,
    )  # fmt: skip
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "PYTHONUNBUFFERED": "1"}
    # JAX would take most of the device's memory for itself
    off = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if gpu else {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    return {**kept, **pinned, **quiet, **off, "PYTHONPATH": python_path()}


class Racer:
    """A contestant's process, which starts at once.  Use as a context manager.

    patience  seconds for an answer; a process that needs longer is ended

    Raises ContestantError where the process ends, does not answer in time, or reports an error.
    """

    def __init__(
        self, name: str, threads: int, python: str = sys.executable, *, gpu: bool = False, patience: float = 600.0
    ) -> None:
        self.name, self._patience = name, patience
        pinned = cores(threads) if not gpu else None

        def pin() -> None:
            if pinned is not None and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, pinned)

        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.contestant", name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(threads, gpu),
            preexec_fn=pin,
        )
        self._pending = b""

    def __enter__(self) -> Racer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, timeout: float | None = None, **arguments: Any) -> dict[str, Any]:
        """The answer to one command, in `timeout` seconds (None: as patient as always)."""
        self.tell(do, **arguments)
        return self.answer(do, timeout)

    def tell(self, do: str, **arguments: Any) -> None:
        """Hand over a command, whose `answer` is read later."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise ContestantError(f"{self.name}: its process has ended ({self._process.poll()})") from None

    def answer(self, do: str, timeout: float | None = None) -> dict[str, Any]:
        """The answer to a command that was handed over."""
        answer = json.loads(self._read_line(do, self._patience if timeout is None else timeout))
        if "error" in answer:
            raise ContestantError(f"{self.name}: {do}: {answer['error']}")
        return answer

    def _read_line(self, do: str, timeout: float) -> bytes:
        assert self._process.stdout is not None
        pipe, deadline = self._process.stdout.fileno(), time.monotonic() + timeout
        while b"\n" not in self._pending:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._process.kill()
                raise ContestantError(f"{self.name}: no answer to {do} within {timeout:.0f} s; ended")
            part = os.read(pipe, 1 << 16)
            if not part:
                raise ContestantError(f"{self.name}: its process ended during {do} (status {self._process.wait()})")
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def busy_seconds(self) -> float | None:
        """CPU time of all its threads so far; None where the system does not tell."""
        folder = Path(f"/proc/{self._process.pid}/task")
        try:
            return sum(int((task / "schedstat").read_text().split()[0]) for task in folder.iterdir()) / 1e9
        except (OSError, ValueError, IndexError):
            return None

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(b'{"do": "quit"}\n')
                self._process.stdin.close()
                self._process.wait(timeout=5)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except OSError:
                    continue
