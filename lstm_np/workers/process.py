"""Worker processes on the other cores.

A worker is a Python process that this process starts when it first has use for it and keeps until it ends itself.  The
arrays travel in shared memory; a line of JSON says what to do with them, and one comes back when it is done
(`channel.py`).  A worker whose other end of the line is gone ends, so no process outlives its parent, however
that died.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from queue import SimpleQueue
from typing import Any

from lstm_np.errors import LstmNpError
from lstm_np.workers import channel

START_LIMIT = 60  # seconds until a worker that has not said that it is ready is given up
BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class WorkerError(LstmNpError, RuntimeError):
    """A worker process failed or ended; the message says how."""


# ---- the parent's side


class Worker:
    """A worker process.  Only one thread at a time may talk to it: hold `lock`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        descriptor, memory = shared_memory(channel.SIZE)
        command = f"from lstm_np.kernels.cpu.part import serve; serve({theirs.fileno()}, {descriptor})"
        path = os.pathsep.join(filter(None, sys.path))
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", command],
                env={**os.environ, **dict.fromkeys(BLAS_VARIABLES, "1"), "PYTHONPATH": path},
                pass_fds=[theirs.fileno(), descriptor],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent, with which a worker ends
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(descriptor)
        self._socket, self._channel = ours, channel.Channel(ours, memory, channel.PARENT)
        self._to_close: SimpleQueue[int] = SimpleQueue()
        self.open, self._waiting, self._number = True, False, 0
        self._socket.settimeout(START_LIMIT)
        self.finish()
        self._socket.settimeout(None)

    def start(self, request: dict[str, Any], memory: int | None = None) -> None:
        """Send a request, with the file descriptor of a shared memory if it needs one."""
        ended = []
        self._number += 1
        while not self._to_close.empty():
            ended.append(self._to_close.get())
        try:
            self._channel.send({**request, "number": self._number, "close": ended}, [] if memory is None else [memory])
        except OSError as error:
            raise self._ended() from error
        self._waiting = True

    def finish(self) -> None:
        """Wait until the last request is done.  Raises WorkerError where it failed or the worker has ended."""
        try:
            # an interruption may have left an older answer unread
            while (answer := self._channel.receive())["number"] != self._number:
                pass
        except OSError as error:
            raise self._ended() from error
        self._waiting = False
        if "error" in answer:
            raise WorkerError(f"in a worker process: {answer['error']}")

    def drain(self) -> None:
        """After an exception elsewhere: wait for an answer that is under way, and end the worker if that fails."""
        if self._waiting and self.open:
            try:
                with contextlib.suppress(WorkerError):
                    self.finish()
            except BaseException:
                self.close()
                raise

    def forget(self, part: int) -> None:
        """The part is not needed any more; it hears of it with the next request, or now if nobody is talking."""
        self._to_close.put(part)
        if lock.acquire(blocking=False):
            try:
                if self.open and not self._to_close.empty():
                    with contextlib.suppress(WorkerError):
                        self.start({"do": "nothing"})
                        self.finish()
            finally:
                lock.release()

    def _ended(self) -> WorkerError:
        self.close()
        return WorkerError(
            f"a worker process has ended (exit status {self.process.returncode}); call forward again or use --threads 1"
        )

    def close(self) -> None:
        """End the process."""
        self.open = False
        self._socket.close()
        with contextlib.suppress(ValueError):
            _workers.remove(self)
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def leave_to_parent(self) -> None:
        """In a forked child: the process and the conversation with it are the parent's."""
        self.open = False
        self._socket.close()
        self.process.returncode = 0  # not a child of this process, so nothing to wait for


_workers: list[Worker] = []
_can_start = hasattr(socket, "send_fds") and bool(sys.executable)
lock = threading.Lock()


def startable() -> bool:
    """Whether worker processes can be started here, as far as is known."""
    return _can_start


def can_start(number: int) -> bool:
    """Whether that many workers run; starts them if need be, and warns once where they do not start."""
    global _can_start
    with lock:
        try:
            while _can_start and len(_workers) < number:
                _workers.append(Worker())
        except (OSError, WorkerError) as error:
            _can_start = False
            warnings.warn(f"working on one core: no worker process could be started ({error})", stacklevel=4)
    return _can_start


def get_workers(number: int) -> list[Worker]:
    """The first `number` workers, which `can_start` has started.  Hold `lock`."""
    if len(_workers) < number:
        raise WorkerError("a worker process has ended; call again, or use --threads 1")
    return _workers[:number]


def close() -> None:
    """End all workers.  A later use starts new ones."""
    while _workers:
        _workers[-1].close()


def _leave_to_parent() -> None:
    global lock
    lock = threading.Lock()
    while _workers:
        _workers.pop().leave_to_parent()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def shared_memory(size: int) -> tuple[int, mmap.mmap]:
    """(file descriptor, mapping) of memory that no name leads to, so that it is gone with its last user."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("lstm_np")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor, mmap.mmap(descriptor, size)
