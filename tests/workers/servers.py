"""What worker processes do in the tests of their lives."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from lstm_np.workers import Overtaken
from lstm_np.workers.serve import Request


class Small:
    """Sleeps, fails, or tells about itself in a shared memory."""

    def __init__(self) -> None:
        self.memories = {}
        self.commands = {"sleep": self.sleep, "fail": self.fail, "tell": self.tell, "end": self.end, "work": self.work}

    @staticmethod
    def describe():
        return {"example": 1}

    def forget(self, key: int) -> None:
        self.memories.pop(key, None)

    def sleep(self, request: Request) -> None:
        time.sleep(request.arguments["seconds"])

    def fail(self, request: Request) -> None:
        raise ValueError(f"as told\n{request.arguments}")

    def end(self, request: Request) -> None:
        os._exit(7)

    def work(self, request: Request) -> None:
        """Until the result is not wanted any more."""
        while not request.overtaken():
            time.sleep(1e-3)
        raise Overtaken

    def tell(self, request: Request) -> None:
        """Write what this process is, as JSON, to a memory that is sent the first time."""
        import random  # a module that anybody may have beside their own files

        key = request.arguments["key"]
        if key not in self.memories:
            self.memories[key] = request.memories.pop()
        text = json.dumps(
            {
                "engine": sys.modules["lstm_np.workers.serve"].__file__,
                "random": random.__file__,
                "numpy": sys.modules["numpy"].__file__,
                "folder": str(Path.cwd()),
                "known": sorted(self.memories),
                "optimize": sys.flags.optimize,
                "pid": os.getpid(),
            }
        ).encode()
        self.memories[key][: len(text)] = text


class Different(Small):
    """Has another opinion of what must be the same."""

    @staticmethod
    def describe():
        return {"example": 2}


class Broken(Small):
    """Cannot be made."""

    def __init__(self) -> None:
        raise ImportError("no such library")
