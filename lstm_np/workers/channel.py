"""The channel between two processes: one message at a time each way, in memory that both share.

Who waits looks at a counter in that memory for a while; then it says that it sleeps, and waits for a byte on a socket.
Who sends writes the text, then the counter, and sends the byte to one who sleeps.  Waking a process costs as much as
some steps of a small layer, looking does not.  The socket also carries file descriptors, and its end is the end of the
channel.  Beside its messages each end has a word with the number of a message whose answer it has no more use for.

Another processor sees the text before the counter on x86, which keeps the order of stores; elsewhere every message goes
with a byte.  Between one's own store and a look at the other's there must be a fence on every processor: locking
and unlocking is one.  A byte may come too late or too often; it only means "look again".

Messages are numbered from 1 in each direction.  Most of them say the same again and again, so a text is made and read
once: who gets a message must not change it.
"""

from __future__ import annotations

import json
import mmap
import platform
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

SIZE = 1 << 14  # bytes of shared memory
PARENT, WORKER = 0, 1
WATCHFUL = 1e-3  # seconds of looking before one sleeps
ORDERED = platform.machine().lower() in ("x86_64", "amd64")

_WAY = SIZE // 2  # bytes of each direction: four words, a cache line each, then the text
_LINE = 64
_WORDS = 4
_COUNT, _ASLEEP, _LENGTH, _UNWANTED = (word * _LINE // 8 for word in range(_WORDS))
_TEXT = _WORDS * _LINE
_MOST = _WAY - _TEXT

Message = Mapping[str, Any]  # plain values by name


def encode(message: Message) -> bytes:
    """The text of a message."""
    return json.dumps(message).encode()


@lru_cache(maxsize=64)
def decode(text: bytes) -> Message:
    """The message of a text."""
    return json.loads(text)


class Channel:
    """One end, `side` PARENT or WORKER.  Only one thread at a time may use it.

    Its methods raise OSError (ConnectionError among them) where the other end is gone.
    """

    def __init__(self, connection: socket.socket, memory: mmap.mmap, side: int) -> None:
        whole = memoryview(memory)
        out, back = whole[side * _WAY :][:_WAY], whole[(1 - side) * _WAY :][:_WAY]
        self._socket = connection
        self._out_text, self._back_text = out[_TEXT:], back[_TEXT:]
        self._out, self._back = out[:_TEXT].cast("q"), back[:_TEXT].cast("q")
        self._fence = threading.Lock()
        self.sent = self.received = 0  # numbers of the last messages
        self._bytes = 0
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self.descriptors: deque[int] = deque()  # that have come

    def send(self, message: Message | bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message, or its text, once the one before has been answered."""
        text = message if isinstance(message, bytes) else encode(message)
        if len(text) > _MOST:
            raise ValueError(f"a message of {len(text)} bytes, at most {_MOST} fit")
        words = self._out
        self._out_text[: len(text)] = text
        words[_LENGTH] = len(text)
        self.sent += 1
        words[_COUNT] = self.sent
        with self._fence:
            pass
        if descriptors or words[_ASLEEP] or not ORDERED:
            socket.send_fds(self._socket, [b"!"], list(descriptors))

    def other_sleeps(self) -> bool:
        """Whether the other end has said that it sleeps, so that a message takes its time."""
        return self._out[_ASLEEP] != 0

    def arrived(self) -> bool:
        """Whether a message is there.  Does not wait."""
        if ORDERED:
            return self._back[_COUNT] != self.received
        self._take_bytes()
        return self._bytes != self.received

    def receive(self, seconds: float | None = None) -> Message | None:
        """The next message; waits for it, at most so long if a time is given: then None where none has come."""
        end = None if seconds is None else time.perf_counter() + seconds
        watched = time.perf_counter() + (WATCHFUL if seconds is None else min(seconds, WATCHFUL))
        there = self.arrived()
        while not there and time.perf_counter() < watched:
            there = self.arrived()
        if not there and not self._sleep(end):
            return None
        self.received += 1
        return decode(bytes(self._back_text[: self._back[_LENGTH]]))

    def _sleep(self, end: float | None) -> bool:
        """Wait for a message until a time, or without limit; whether one has come."""
        self._take_bytes()  # those of earlier messages, of which there could be many in the end
        self._back[_ASLEEP] = 1
        with self._fence:
            pass
        try:
            while not self.arrived():
                left = None if end is None else 1e3 * (end - time.perf_counter())
                if left is not None and left <= 0:
                    return False
                if self._poll.poll(left):
                    self._take_bytes()
            return True
        finally:
            self._back[_ASLEEP] = 0

    def check(self) -> None:
        """Raise ConnectionError if the other end is gone.  Does not wait."""
        self._take_bytes()

    def _take_bytes(self) -> None:
        """Take the bytes that are there, with the descriptors that come with them.  Does not wait."""
        while self._poll.poll(0):
            found, descriptors, _, _ = socket.recv_fds(self._socket, 1, 8)
            self.descriptors.extend(descriptors)
            self._bytes += len(found)
            if not found:
                raise ConnectionError("the other end of the channel is gone")

    def take_descriptor(self) -> int:
        """The next file descriptor that was sent; waits until it is here."""
        while not self.descriptors:
            self._poll.poll()
            self._take_bytes()
        return self.descriptors.popleft()

    def refuse(self, number: int) -> None:
        """Say that the answer to this message is not wanted any more."""
        self._out[_UNWANTED] = number

    def refused(self) -> int:
        """The number that the other end has said last, 0 if none."""
        return self._back[_UNWANTED]
