"""What campaigns share: forked processes, a tap on the system calls that write files, and the record of a campaign."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CALLS = ("open", "write", "fsync", "close", "chmod", "replace", "unlink")  # through which files are written
FAILED = 99  # exit status of a forked process that raised


@dataclass
class Campaign:
    """What is asked of a campaign and what came of it.

    budget    how many trials
    seed      of everything that is drawn at random
    folder    an empty one, to work in
    counts    of what happened, in words
    failures  one line for each trial that did not come out as it must
    """

    budget: int
    seed: int
    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    measured: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def check(self, holds: bool, line: str) -> bool:
        """Count a failure unless it holds."""
        if not holds:
            self.failures.append(line)
        return holds

    def largest(self, what: str, value: float) -> None:
        """Keep the largest of what is measured."""
        self.measured[what] = round(max(value, self.measured.get(what, 0.0)), 4)


def fork(body: Callable[[], int | None]) -> int:
    """Run `body` in a forked process, which ends with its result as exit status; the process's number.

    The interpreter and all that is loaded need not start again: that is what takes the time of a command.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status: int | None = FAILED
    try:
        try:
            status = body()
        except Exception:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    finally:
        os._exit(status or 0)


def wait(pid: int, limit: float = 60.0) -> int:
    """The exit status of a forked process, 128 + n where signal n ended it; killed after `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -1
        time.sleep(0.0005)


class Tap:
    """While it is entered, `hook(call, file, when)` is called around each system call on files under a folder.

    when  "before", "after"; "half": of a write, after half of it was written
    file  what kind of file: "checkpoint", "config.json", "metrics.csv" ..., "folder"

    What the hook raises is raised instead of the call; what it returns, unless None, is the result of a write.
    """

    def __init__(self, folder: Path, hook: Callable[[str, str, str], Any]) -> None:
        self._folder, self._hook = str(folder.absolute()), hook
        self._real = {name: getattr(os, name) for name in CALLS}
        self._files: dict[int, str] = {}

    def __enter__(self) -> Tap:
        for name in CALLS:
            setattr(os, name, getattr(self, f"_{name}"))
        return self

    def __exit__(self, *_: object) -> None:
        for name, call in self._real.items():
            setattr(os, name, call)

    def _kind(self, path: Any) -> str | None:
        if isinstance(path, int):
            return self._files.get(path)
        whole = os.path.abspath(os.fspath(path))
        if isinstance(whole, bytes) or not whole.startswith(self._folder):
            return None
        name = os.path.basename(whole).removeprefix(".")
        if os.path.isdir(whole):
            return "folder"
        for kind in ("config.json", "metrics.csv", "metrics.jsonl", "weights.safetensors", "best.safetensors", "lock"):
            if name.startswith(kind):
                return kind
        return "checkpoint" if name.startswith("step-") else "other"

    def _around(self, call: str, path: Any, *arguments: Any, **more: Any) -> Any:
        kind = self._kind(path)
        if kind is None:
            return self._real[call](path, *arguments, **more)
        result = self._hook(call, kind, "before")
        result = self._real[call](path, *arguments, **more) if result is None else result
        self._hook(call, kind, "after")
        return result

    def _open(self, path: Any, *arguments: Any, **more: Any) -> int:
        handle = self._around("open", path, *arguments, **more)
        kind = self._kind(path)
        if kind is not None:
            self._files[handle] = kind
        return handle

    def _write(self, handle: int, content: Any) -> int:
        kind = self._files.get(handle)
        if kind is None:
            return self._real["write"](handle, content)
        wanted = self._hook("write", kind, "before")
        whole = memoryview(content)
        half = self._real["write"](handle, whole[: (len(whole) + 1) // 2])
        if wanted == "short":
            return half
        self._hook("write", kind, "half")
        written = half + (self._real["write"](handle, whole[half:]) if half < len(whole) else 0)
        self._hook("write", kind, "after")
        return written

    def _close(self, handle: int) -> None:
        kind = self._files.get(handle)
        if kind is None:
            self._real["close"](handle)
            return
        self._hook("close", kind, "before")
        self._real["close"](handle)
        self._files.pop(handle, None)
        self._hook("close", kind, "after")

    def _fsync(self, handle: int) -> None:
        self._around("fsync", handle)

    def _chmod(self, path: Any, *arguments: Any, **more: Any) -> None:
        self._around("chmod", path, *arguments, **more)

    def _replace(self, path: Any, *arguments: Any, **more: Any) -> None:
        self._around("replace", path, *arguments, **more)

    def _unlink(self, path: Any, *arguments: Any, **more: Any) -> None:
        self._around("unlink", path, *arguments, **more)
