"""The other end of the pipe: contestants in processes of their own, on the same cores, in a pinned environment.

What a contestant's process and all processes that it starts have used together (CPU time, page faults, memory) is read
from /proc; on a system without it these are None.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# variables of the C library: as it comes, and with memory that is freed being kept instead of given back, which spares
# whoever allocates in every step the page faults of getting it again
ALLOCATORS = {
    "default": {},
    "tuned": {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)},
}
# what would change the default allocator, or how waiting threads wait, from outside
LEFT_OUT = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GLIBC_TUNABLES")


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


def python_path(tree: Path = ROOT) -> str:
    """This repository, or another tree of it, first; then where this process's own packages may lie."""
    return os.pathsep.join([str(tree), *filter(None, [os.environ.get("PYTHONPATH")])])


def environment(threads: int, gpu: bool = False, allocator: str = "default") -> dict[str, str]:
    """This process's environment with the thread counts of every library pinned, and one of ALLOCATORS.

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
    kept = {
        name: value for name, value in os.environ.items() if name not in LEFT_OUT and not name.startswith("MALLOC_")
    }
    return {**kept, **pinned, **quiet, **off, **ALLOCATORS[allocator], "PYTHONPATH": python_path()}


def family(pid: int) -> list[int]:
    """A process and all that descend from it and still run; where /proc does not tell, the process alone."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for known in found:
        found += children.get(known, [])
    return found


class Racer:
    """A contestant's process, which starts at once.  Use as a context manager.

    threads    how many the contestant is told to use
    on         the number of cores that it is limited to (default: as many)
    allocator  one of ALLOCATORS
    tree       the folder whose `benchmarks` it runs, and whose packages come first (default: this one)
    patience   seconds for an answer; a process that needs longer is ended

    Raises ContestantError where the process ends, does not answer in time, or reports an error.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        python: str = sys.executable,
        *,
        gpu: bool = False,
        on: int | None = None,
        allocator: str = "default",
        tree: Path = ROOT,
        patience: float = 600.0,
    ) -> None:
        self.name, self._patience = name, patience
        pinned = cores(on or threads) if not gpu else None

        def pin() -> None:
            if pinned is not None and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, pinned)

        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.contestant", name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=tree,
            env={**environment(threads, gpu, allocator), "PYTHONPATH": python_path(tree)},
            preexec_fn=pin,
        )
        self._pending = b""
        self.pids = [self._process.pid]

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

    def look_for_workers(self) -> None:
        """Find the processes that it has started, which count as its own from now on."""
        self.pids = family(self._process.pid)

    def busy_seconds(self) -> float | None:
        """CPU time of all threads of all its processes so far; None where the system does not tell."""
        try:
            tasks = [task for pid in self.pids for task in Path(f"/proc/{pid}/task").iterdir()]
            return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
        except (OSError, ValueError, IndexError):
            return None

    def page_faults(self) -> int | None:
        """Page faults of all its processes so far, with and without the disk; None where the system does not tell."""
        try:
            texts = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.pids]
            return sum(int(fields[7]) + int(fields[9]) for fields in texts)
        except (OSError, ValueError, IndexError):
            return None

    def memory(self) -> int | None:
        """Bytes of memory of all its processes now, shared pages counted once (the sum of Pss); None as above."""
        try:
            return sum(_pss(pid) for pid in self.pids)
        except (OSError, ValueError, IndexError):
            return None

    def peak_memory(self, seconds: float) -> tuple[int | None, int]:
        """(the most memory seen while it makes steps for that long, how often was looked).

        Values that live from the forward to the backward pass are there most of that time, so looking often sees them.
        """
        seen: list[int] = []
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                now = self.memory()
                if now is None:
                    return
                seen.append(now)
                done.wait(0.001)

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            self.ask("run", seconds=seconds)
        finally:
            done.set()
            watcher.join()
        return max(seen, default=None), len(seen)

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


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no line Pss")
