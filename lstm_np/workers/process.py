"""Worker processes on the other cores: how they start, are talked to, found dead or late, replaced and ended.

A worker is a Python process that this process starts when it first has use for it and keeps until it ends itself.  Its
arrays travel in shared memory (`memory.py`), its requests over a channel (`channel.py`), and what it does is a class
that it loads (`serve.py`).  Nothing here waits for a worker longer than it is told to, and nobody depends on one: who
sends a request must be able to do the work itself.  A worker whose parent is gone ends, however that died.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from lstm_np.workers import channel
from lstm_np.workers.identity import PACKAGE, difference, identity
from lstm_np.workers.memory import SharedMemory

START_LIMIT = 60.0  # seconds until a worker that has not said that it is ready is given up
FIRST_WAIT = 2.0  # seconds that the first use waits for workers to be ready; afterwards nobody waits for a start
BRIEF = 1e-2  # seconds to wait for an answer where nothing is to be done
END_LIMIT = 1.0  # seconds for workers to end by themselves
UNREADY = 3  # workers in a row that end before they are ready; then no more are started
PAUSE, LONGEST_PAUSE = 0.5, 300.0  # seconds until the next start when one was of no use, doubled each time
SHORTEST_REST, LONGEST_REST = 0.02, 4.0  # seconds until a late worker is asked again, doubled where its core is wanted
QUEUED = 0.01  # of the time between two looks: how long a worker waits for its core if no other program wants that
FORGIVENESS = 0.9  # what one answer in time leaves of the next rest
MOST_FORGOTTEN = 500  # of what a worker need not keep, in one request; a message has its limits
BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

_log = logging.getLogger(__name__)


class Worker:
    """A worker process; at most one request is under way.  Only one thread at a time may use it.

    ended     why it is not to be used any more, in words; None while it is
    ready     what it said of itself when it was ready; None before
    admitted  whether that was found to be the same as here
    done      the number of the last request that it has done
    waked     whether it slept when the request under way was sent, so that it begins late
    useful    whether it has answered any request

    A worker that is late costs its parent the time of waiting: it rests for a while.  If another program had its core,
    the rest grows the more often it was late among its last answers: in time it would take the core from the other
    program, which then takes the parent's.
    """

    def __init__(self, target: str) -> None:
        memory = SharedMemory(channel.SIZE)
        if not memory.shareable:
            raise OSError("no memory can be shared")
        ours, theirs = socket.socketpair()
        try:
            self.process = subprocess.Popen(
                _command(target, theirs.fileno(), memory.descriptor),
                env={**os.environ, **dict.fromkeys(BLAS_VARIABLES, "1")},
                pass_fds=[theirs.fileno(), memory.descriptor],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # what a terminal sends is for the parent, with which a worker ends
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket, self._channel = ours, channel.Channel(ours, memory.mapping, channel.PARENT)
        self._forgotten: SimpleQueue[int] = SimpleQueue()
        self._waiting, self._until = True, time.perf_counter() + START_LIMIT
        self._brief, self._rest, self._rests_until = False, 0.0, 0.0
        self._queue_at = time.perf_counter(), 0.0  # when that was read, and how long it had waited for a core by then
        self._unjudged = False  # whether it was late and nobody has looked why
        self._contended = False  # whether another program had its core then
        self.ended: str | None = None
        self.ready: Mapping[str, Any] | None = None
        self.admitted = self.useful = self.waked = False
        self.done = 0

    @property
    def idle(self) -> bool:
        """Whether it can take a request."""
        return self.ended is None and not self._waiting

    @property
    def awake(self) -> bool:
        """Whether it can take a request and is looking for one, as it does for a while after the last."""
        return self.idle and not self._channel.other_sleeps()

    @property
    def rests(self) -> bool:
        """Whether it was late a short time ago, so that it had better not be asked.

        Asked after a rest, it finds out why the worker was late, which may make the rest longer.
        """
        if self._unjudged and time.perf_counter() >= self._rests_until:
            self._judge()
        return self.late and time.perf_counter() < self._rests_until

    @property
    def late(self) -> bool:
        """Whether it was late among the last times that it was asked."""
        return self._rest > 0.0

    @property
    def slow_to_begin(self) -> bool:
        """Whether it slept when it got the request under way, and no other program is known to want its core."""
        return self.waked and not self._contended

    def was_late(self) -> None:
        """It did not answer in time: for as long as it has to rest at least nobody asks it."""
        self._rest = min(LONGEST_REST, max(SHORTEST_REST, self._rest))
        self._rests_until, self._unjudged = time.perf_counter() + self._rest, True

    def _judge(self) -> None:
        """It has rested: twice as long if it was late since another program had its core.

        Linux counts how long a process waits for a core, at the end of each wait.
        """
        self._unjudged = False
        (then, before), self._queue_at = self._queue_at, (time.perf_counter(), seconds_in_queue(self.process.pid))
        now, queued = self._queue_at
        self._contended = not queued - before <= QUEUED * (now - then)  # NaN, where it is not known, counts as one
        if self._contended:
            self._rests_until += min(LONGEST_REST, 2 * self._rest) - self._rest
            self._rest = min(LONGEST_REST, 2 * self._rest)

    def was_in_time(self) -> None:
        """It did."""
        self._rest *= FORGIVENESS
        if self._rest < SHORTEST_REST / 2:
            self._rest, self._contended = 0.0, False

    def request(
        self, do: str | None, arguments: Mapping[str, object], memories: Sequence[SharedMemory] = (), *, limit: float
    ) -> int:
        """Send a request to an idle worker; its number.  After `limit` seconds without an answer `look` gives it up.

        `do` None: only what it need not keep any more is said.
        """
        forget: tuple[int, ...] = ()
        while not self._forgotten.empty() and len(forget) < MOST_FORGOTTEN:
            forget += (self._forgotten.get(),)
        text = _text_of_request(do, tuple(arguments.items()), forget, len(memories))
        self._waiting, self._until, self._brief = True, time.perf_counter() + limit, do is None
        number = self._channel.sent + 1
        self.waked = self._channel.other_sleeps()
        try:
            self._channel.send(text, [memory.descriptor for memory in memories])
        except OSError:
            self._has_ended()
        return number

    def look(self, seconds: float = 0.0) -> None:
        """Take the answer to the request under way if it has come; waits for it at most so long, and never longer than
        until the request's limit.
        """
        if self.ended is not None or not self._waiting:
            return
        answer = self._take(min(seconds, max(0.0, self._until - time.perf_counter())) if seconds else 0.0)
        if answer is None:
            if self.ended is None and time.perf_counter() >= self._until:
                self.end("has not answered for too long")
            return
        self._waiting = False
        if "error" in answer:
            self.end(f"has failed ({answer['error']})")
        elif self.ready is None:
            self.ready = answer["identity"]
        else:
            self.useful = True
            if "overtaken" not in answer:
                self.done = self._channel.sent

    def _take(self, seconds: float) -> channel.Message | None:
        """The answer under way, if it comes within that time; notices the end of the process."""
        try:
            answer = self._channel.receive(seconds)
            if answer is None:
                self._channel.check()
            return answer
        except OSError:
            if self.has_answered():  # the last that it did
                return self._channel.receive(0.0)
            self._has_ended()
            return None

    def settle(self) -> None:
        """As `look`, and waits a little where the request takes no time; notices also that an idle one has ended."""
        if not self.idle:
            self.look(BRIEF if self._brief else 0.0)
            return
        try:
            self._channel.check()
        except OSError:
            self._has_ended()

    def busy_with(self, number: int) -> bool:
        """Whether this request is still under way, as far as the last `look` has seen."""
        return self.ended is None and self._waiting and self._channel.sent == number

    def has_answered(self) -> bool:
        """Whether an answer is there to be taken.  Costs next to nothing."""
        try:
            return self._channel.arrived()
        except OSError:
            return False

    def refuse(self) -> None:
        """The result of the request under way is not wanted any more: the worker may stop early."""
        self._channel.refuse(self._channel.sent)

    def forget(self, key: int) -> None:
        """What the worker calls so is not needed any more; it hears of it with the next request."""
        self._forgotten.put(key)

    @property
    def has_something_to_forget(self) -> bool:
        """Whether a next request would tell it to forget something."""
        return not self._forgotten.empty()

    def end(self, why: str) -> None:
        """End the process at once."""
        if self.ended is None:
            self.ended = why
            self._socket.close()
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_LIMIT)

    def _has_ended(self) -> None:
        """The other end of the channel is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_LIMIT)
        status = self.process.returncode
        how = "" if status is None else f" (signal {-status})" if status < 0 else f" (exit status {status})"
        self.end(f"has ended{how}")

    def hang_up(self) -> None:
        """Tell the process to end when it has done what it does; `end` it later."""
        if self.ended is None:
            self.ended = "is not needed any more"
            self._socket.close()

    def leave_to_parent(self) -> None:
        """In a forked child: the process and the conversation with it are the parent's."""
        self.ended = "is another process's"
        self._socket.close()
        self.process.returncode = 0  # not a child of this process, so nothing to wait for


def seconds_in_queue(pid: int) -> float:
    """How long in all a process has waited for a core that another program had; inf where Linux does not tell."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return math.inf


class Turn:
    """Within the block nobody else uses the team; it gives `Team.available`."""

    def __init__(self, team: Team, number: int) -> None:
        self._team, self._number = team, number

    def __enter__(self) -> Sequence[Worker | None]:
        self._team.lock.acquire()
        try:
            return self._team.available(self._number)
        except BaseException:
            self._team.lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._team.lock.release()


class Team:
    """The worker processes that do what one class says.

    target    that class, as "module:class"
    describe  what must be the same here and in a worker, as plain values; compared before a worker gets its first
              request
    lock      hold it to use a worker
    """

    def __init__(self, target: str, describe: Callable[[], Mapping[str, object]]) -> None:
        self._target, self._describe = target, describe
        self._workers: list[Worker] = []
        self._identity: Mapping[str, Any] | None = None
        self._may_start, self._unready, self._useless, self._not_before = True, 0, 0, 0.0
        self.lock = threading.Lock()
        _teams.add(self)

    def turn(self, number: int) -> Turn:
        """A block in which so many workers can be asked."""
        return Turn(self, number)

    def available(self, number: int) -> Sequence[Worker | None]:
        """So many workers, None for each that is not ready for a request or rests; starts and replaces them.

        Hold `lock`.  The first use waits a little for workers to be ready.  Who has ended, or not answered within the
        time limit of its request, costs one line in the log.
        """
        asked = self._workers[:number]
        if len(asked) == number and all(worker.admitted and worker.idle and not worker.late for worker in asked):
            return asked
        first = not self._workers
        for worker in self._workers:
            worker.settle()
        for worker in [worker for worker in self._workers if worker.ended is not None]:
            self._lost(worker)
        self._start(number - len(self._workers))
        if first:
            end = time.perf_counter() + FIRST_WAIT
            for worker in self._workers:
                worker.look(max(0.0, end - time.perf_counter()))
        self._compare()
        ready = [worker if worker.idle and not worker.rests else None for worker in self._workers[:number]]
        return ready + [None] * (number - len(ready))

    def _start(self, number: int) -> None:
        try:
            for _ in range(number if self._may_start and time.monotonic() >= self._not_before else 0):
                self._workers.append(Worker(self._target))
        except OSError as error:
            self._give_up(f"no worker process could be started ({error})")

    def _lost(self, worker: Worker) -> None:
        """Take note of a worker that has ended."""
        self._workers.remove(worker)
        self._unready = 0 if worker.ready is not None else self._unready + 1
        self._useless = 0 if worker.useful else self._useless + 1
        if self._useless:
            self._not_before = time.monotonic() + min(LONGEST_PAUSE, PAUSE * 2.0 ** (self._useless - 1))
        if self._may_start and self._unready >= UNREADY:
            self._give_up(f"{UNREADY} worker processes in a row were never ready; the last one {worker.ended}")
        elif self._may_start:
            _log.warning("a worker process %s; its work is done here, and another one is started", worker.ended)

    def _compare(self) -> None:
        """Refuse workers that do not run this process's code."""
        for worker in list(self._workers):
            if worker.ready is not None and not worker.admitted:
                self._identity = self._identity or identity(self._describe())
                different = difference(self._identity, worker.ready)
                worker.admitted = different is None
                if different is not None:
                    self._workers.remove(worker)
                    worker.end("runs other code")
                    self._give_up(f"a worker process would not compute the same ({different})")

    def _give_up(self, why: str) -> None:
        if self._may_start:
            self._may_start = False
            _log.warning("working on one core: %s", why)

    def forget(self, worker: Worker, key: int) -> None:
        """The worker hears with its next request, or now if nobody is talking, that it need not keep this."""
        worker.forget(key)
        if self.lock.acquire(blocking=False):
            try:
                worker.look()
                if worker.idle and worker.has_something_to_forget:
                    worker.request(None, {}, limit=START_LIMIT)
            finally:
                self.lock.release()

    def close(self) -> None:
        """End all workers.  A later use starts new ones."""
        ending, self._workers = self._workers, []
        for worker in ending:
            worker.hang_up()
        end = time.monotonic() + END_LIMIT
        for worker in ending:
            try:
                worker.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._may_start, self._unready, self._useless, self._not_before = True, 0, 0, 0.0

    def leave_to_parent(self) -> None:
        """In a forked child: the workers are the parent's."""
        self.lock = threading.Lock()
        while self._workers:
            self._workers.pop().leave_to_parent()


_teams: weakref.WeakSet[Team] = weakref.WeakSet()


@lru_cache(maxsize=64)
def _text_of_request(do: str | None, arguments: tuple, forget: tuple[int, ...], memories: int) -> bytes:
    return channel.encode({"do": do, "with": dict(arguments), "forget": forget, "memories": memories})


def _command(target: str, connection: int, memory: int) -> list[str]:
    """How to start a worker that runs this process's code."""
    flags = ["-I", "-S", *["-O"] * sys.flags.optimize]
    ours = Path(np.__file__).parents[1]  # before what has come onto the path since
    start = {
        "package": str(PACKAGE),
        "path": [str(ours), *(entry for entry in sys.path if os.path.isabs(entry))],
        "target": target,
        "connection": connection,
        "memory": memory,
        "bytecode": not sys.dont_write_bytecode,
    }
    return [sys.executable, *flags, str(Path(__file__).with_name("boot.py")), json.dumps(start)]


def _close_all() -> None:
    for team in list(_teams):
        team.close()


def _leave_all_to_parent() -> None:
    for team in list(_teams):
        team.leave_to_parent()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
