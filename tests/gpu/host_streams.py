"""Streams of the stand-in: work is queued, and done in an order that only waiting settles.

Each stream is a queue.  Nothing in it needs to happen before somebody waits for that stream, and what lies in another
queue may happen before or after: `Runtime` draws it from a seed.  With the first of its four habits other streams do
nothing until they are waited for; with the others they get ahead by chance.  So work that should have waited for
another stream meets memory that is not written yet, or written too late.
"""

from __future__ import annotations

import random
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.gpu.host_memory import Allocation, DeviceArray, KernelFaultError, arrays_in, plain

# how likely another stream's work is done while one is waited for, and any stream's when work is queued
HABITS = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.0, 0.9))


@dataclass
class Work:
    """One entry of a queue; it waits for an event where it has one."""

    number: int
    run: Callable[[], None]
    event: Event | None = None


class Stream:
    """A stream as CuPy has it; the null stream and all that are not `non_blocking` wait for each other."""

    def __init__(self, runtime: Runtime, *, null: bool = False, non_blocking: bool = False) -> None:
        self.runtime, self.null, self.non_blocking, self.device = runtime, null, non_blocking, runtime.current
        self.queue: deque[Work] = deque()
        self.ptr = 0 if null else 77 + len(runtime.streams)
        self._outer: list[Stream] = []
        runtime.streams.append(self)

    def __enter__(self) -> Stream:
        self._outer.append(self.runtime.stream)
        self.runtime.stream = self
        return self

    def __exit__(self, *_: Any) -> None:
        self.runtime.stream = self._outer.pop()

    def begin_capture(self) -> None:
        """From here on work is recorded."""
        assert self.non_blocking
        self.runtime.capture = (self, [])

    def end_capture(self) -> Graph:
        """What was recorded."""
        capture, self.runtime.capture = self.runtime.capture, None
        assert capture is not None
        return Graph(self.runtime, capture[1])

    def synchronize(self) -> None:
        """Wait until its queue is empty."""
        self.runtime.refuse_while_capturing("synchronisation")
        self.runtime.drain(self)

    def record(self, event: Event | None = None) -> Event:
        """An event that happens when what is queued so far is done."""
        event = event or Event(self.runtime)
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """What is queued from here on waits for the event."""
        self.runtime.enqueue(lambda: None, self, event)


class Graph:
    """Recorded work."""

    def __init__(self, runtime: Runtime, recorded: list[Callable[[], None]]) -> None:
        self._runtime, self._recorded = runtime, recorded

    def launch(self, stream: Stream | None = None) -> None:
        """Queue all of it."""
        for work in self._recorded:
            self._runtime.enqueue(work, stream)

    def upload(self, stream: Stream | None = None) -> None:
        """Nothing to do here."""


class Event:
    """A point in a stream, and when it was reached."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self.done, self.seconds = runtime, True, 0.0
        self.stream: Stream = runtime.null

    def record(self, stream: Stream | None = None) -> None:
        """It happens when the stream has done what is queued so far."""
        self.stream, self.done = stream or self._runtime.stream, False
        self._runtime.enqueue(self._reach, self.stream)

    def _reach(self) -> None:
        self.done, self.seconds = True, time.perf_counter()

    def synchronize(self) -> None:
        """Wait for it."""
        while not self.done:
            self._runtime.advance(self.stream)


class Runtime:
    """What a process knows of its devices: the current one, streams and their queues, what is being captured.

    history_bytes  of an element of memory, see `Allocation`
    """

    def __init__(self, devices: tuple[Any, ...], history_bytes: int) -> None:
        self.devices, self.current, self.history_bytes = devices, devices[0], history_bytes
        self.streams: list[Stream] = []
        self.null = self.stream = Stream(self, null=True)
        self.capture: tuple[Stream, list[Callable[[], None]]] | None = None
        self._random = random.Random(devices[0].seed)
        self._others, self._at_once = HABITS[devices[0].seed % len(HABITS)]
        self._queued = 0
        self._allocations: weakref.WeakSet[Allocation] = weakref.WeakSet()
        self.page_locked: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # by address

    def live(self) -> list[Allocation]:
        """All allocations that somebody still has."""
        return list(self._allocations)

    # ---- queues

    def enqueue(self, run: Callable[[], None], stream: Stream | None = None, event: Event | None = None) -> None:
        """Hand work to a stream, by default the current one."""
        stream = stream or self.stream
        if self.capture is not None:
            if stream is not self.capture[0]:
                raise RuntimeError("work for another stream while a stream captures")
            self.capture[1].append(run)
            return
        if not stream.null and stream.device is not self.current:
            raise RuntimeError("cudaErrorInvalidResourceHandle: a stream of another device")
        self._queued += 1
        stream.queue.append(Work(self._queued, run, event))
        if self._random.random() < self._at_once:
            self.advance(self._random.choice([other for other in self.streams if other.queue]))

    def drain(self, stream: Stream) -> None:
        """Do all that is queued there, and by chance something of others."""
        while stream.queue:
            others = [other for other in self.streams if other is not stream and other.queue]
            chance = others and self._random.random() < self._others
            self.advance(self._random.choice(others) if chance else stream)

    def advance(self, stream: Stream) -> None:
        """Do the next work of a stream, or first what it waits for."""
        first = stream.queue[0]
        if first.event is not None and not first.event.done:
            self.advance(first.event.stream)
            return
        if not stream.non_blocking:
            for other in self.streams:
                ordered = (stream.null or other.null) and not other.non_blocking
                if ordered and other.queue and other.queue[0].number < first.number:
                    self.advance(other)
                    return
        stream.queue.popleft().run()

    def refuse_while_capturing(self, what: str) -> None:
        """Raises RuntimeError for what a capture does not allow."""
        if self.capture is not None:
            raise RuntimeError(f"{what} while a stream captures")

    # ---- memory and what is computed in it

    def allocate(self, shape: Any, dtype: Any, *, sparse: bool = False) -> DeviceArray:
        """An array whose memory nobody has written."""
        self.refuse_while_capturing("allocation")
        shape = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)
        dtype, count = np.dtype(dtype), int(np.prod(shape, dtype=np.int64))
        memory = Allocation(count, dtype.itemsize, self.current, self.history_bytes, self.stream, sparse=sparse)
        self._allocations.add(memory)
        values = memory.raw[memory.offset : memory.offset + memory.nbytes].view(dtype).reshape(shape)
        return DeviceArray(self, memory, values)

    def hold(self, memory: Allocation, stream: Stream | None = None) -> Callable[[], Allocation]:
        """The memory when work runs that is queued now.

        It is kept until then only where a pool would not give it to others: on the stream that it was made on, and
        not for a graph.  KernelFaultError where it has been dropped.
        """
        if self.capture is None and memory.stream is (stream or self.stream):
            return lambda: memory
        found = weakref.ref(memory)

        def find() -> Allocation:
            kept = found()
            if kept is None:
                raise KernelFaultError("memory is used after its array was dropped: it may be another array's by then")
            return kept

        return find

    def put(self, values: Any) -> DeviceArray:
        """An array with a copy of host values, which may change at once."""
        kept = np.array(values)
        array = self.allocate(kept.shape, kept.dtype)
        self._write(array, lambda: kept, ())
        return array

    def read(self, array: Any) -> np.ndarray:
        """A NumPy copy of an array; waits for the current stream and no other."""
        if not isinstance(array, DeviceArray):
            return np.array(array)
        self.refuse_while_capturing("reading back")
        found: list[np.ndarray] = []

        def copy() -> None:
            array.refuse_unwritten()
            found.append(np.array(array.values))

        self.enqueue(copy)
        self.drain(self.stream)
        return found[0]

    def compute(self, function: Callable[..., Any], *args: Any, out: DeviceArray | None = None, **kwargs: Any) -> Any:
        """function(*args, **kwargs) with NumPy values in the place of arrays, done in the current stream."""
        with np.errstate(all="ignore"):
            # what memory holds now says shape and dtype, not values
            sample = function(*plain(args), **{name: plain(value) for name, value in kwargs.items()})
        if isinstance(sample, (tuple, list)):
            return [
                self.compute(lambda *a, _k=k, **n: function(*a, **n)[_k], *args, **kwargs) for k in range(len(sample))
            ]
        if out is None:
            sample = np.asarray(sample)
            out = self.allocate(sample.shape, sample.dtype)
        else:
            np.broadcast_to(sample, out.shape)  # what does not fit is refused at once

        def now() -> Any:
            with np.errstate(all="ignore"):
                return function(*plain(args), **{name: plain(value) for name, value in kwargs.items()})

        self._write(out, now, arrays_in((args, kwargs)))
        return out

    def _write(self, out: DeviceArray, values: Callable[[], Any], inputs: Any) -> None:
        if any(array.device is not self.current for array in (*inputs, out)):
            raise KernelFaultError("an array of another device")

        def run() -> None:
            for array in inputs:
                array.refuse_unwritten()
            out.values[...] = values()
            out.note_written()

        self.enqueue(run)
