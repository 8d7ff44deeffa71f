"""The request loop of a worker process, whatever it serves."""

from __future__ import annotations

import importlib
import mmap
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from lstm_np.workers import Overtaken
from lstm_np.workers.channel import WORKER, Channel, Message
from lstm_np.workers.identity import identity
from lstm_np.workers.memory import map_memory


class Request(NamedTuple):
    """What a command gets.

    arguments  plain values by name
    memories   the shared memories that were sent along, in order
    overtaken  whether the result is not wanted any more; a command may look, and raise `Overtaken`
    """

    arguments: Mapping[str, Any]
    memories: list[mmap.mmap]
    overtaken: Callable[[], bool]


class Server(Protocol):
    """What a worker does: made once in its process, without arguments."""

    commands: Mapping[str, Callable[[Request], None]]

    def describe(self) -> Mapping[str, object]:
        """What must be the same in the parent, as plain values."""
        ...

    def forget(self, key: int) -> None:
        """The parent has no more use for what it calls so; unknown names are ignored."""
        ...


def serve(connection: int, memory: int, target: str) -> None:
    """Answer requests over these file descriptors, by an object of `target` ("module:class"), until the parent is gone.

    Each request is answered once: by nothing, or with "error", or with "overtaken".
    """
    with socket.socket(fileno=connection) as end, suppress(ConnectionError):
        channel = Channel(end, map_memory(memory), WORKER)
        try:
            server = load(target)
            channel.send({"identity": identity(server.describe())})
        except Exception as error:
            channel.send({"error": in_words(error)})
            return
        while True:
            message = channel.receive()
            assert message is not None  # there was no time limit
            channel.send(answer(server, message, channel))


def load(target: str) -> Server:
    """An object of the class that is called "module:class"."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)()


def answer(server: Server, message: Message, channel: Channel) -> Message:
    """Do what a message asks for."""
    number = channel.received
    try:
        memories = [map_memory(channel.take_descriptor()) for _ in range(message["memories"])]
        for key in message["forget"]:
            server.forget(key)
        if message["do"] is not None:
            request = Request(message["with"], memories, lambda: channel.refused() == number)
            server.commands[message["do"]](request)
    except Overtaken:
        return {"overtaken": True}
    except Exception as error:
        return {"error": in_words(error)}
    return {}


def in_words(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:1000]
