"""The line between two processes: every message arrives once, in order, asleep or awake, on every kind of processor."""

import mmap
import os
import socket
import threading
import time

import pytest

from lstm_np.workers import channel, process


@pytest.fixture(params=[True, False], ids=["x86", "other processors"])
def ends(request, monkeypatch):
    monkeypatch.setattr(channel, "ORDERED", request.param)
    monkeypatch.setattr(channel, "WATCHFUL", 2e-4)
    sockets, memory = socket.socketpair(), mmap.mmap(-1, channel.SIZE)
    yield (
        channel.Channel(sockets[0], memory, channel.PARENT),
        channel.Channel(sockets[1], memory, channel.WORKER),
        sockets,
    )
    for each in sockets:
        each.close()


def echo(end, pauses):
    """Answer until the line ends, slowly or at once."""
    try:
        for pause in pauses:
            message = end.receive()
            time.sleep(pause)
            end.send({"heard": message["say"]})
    except OSError:
        pass


def test_messages_come_once_and_in_order_whoever_sleeps(ends):
    parent, worker, _ = ends
    pauses = [0, 0, 1e-3, 0, 2e-4, 1e-4] * 40
    thread = threading.Thread(target=echo, args=(worker, pauses))
    thread.start()
    for number, pause in enumerate(reversed(pauses)):
        time.sleep(pause)
        parent.send({"say": [number] * (number % 7)})
        assert parent.receive() == {"heard": [number] * (number % 7)}
    thread.join(10)
    assert not thread.is_alive()


def test_descriptors_come_with_their_message(ends):
    parent, worker, _ = ends
    descriptor, memory = process.shared_memory(100)
    memory[:5] = b"hello"
    parent.send({"open": 1}, [descriptor])
    os.close(descriptor)
    assert worker.receive() == {"open": 1}
    found = worker.take_descriptor()
    with mmap.mmap(found, 0) as mapped:
        assert mapped[:5] == b"hello"
    os.close(found)


def test_the_end_of_the_line_is_noticed(ends):
    parent, worker, sockets = ends
    sockets[1].close()
    with pytest.raises(OSError, match=r"gone|Broken pipe|reset"):
        parent.receive()
    with pytest.raises(OSError, match=r"closed|Bad file"):
        worker.receive()


def test_a_message_that_does_not_fit_is_refused_whole(ends):
    parent, worker, _ = ends
    with pytest.raises(ValueError, match="at most"):
        parent.send({"say": "x" * channel.SIZE})
    parent.send({"say": "short"})
    assert worker.receive() == {"say": "short"}


def test_an_answer_that_nobody_has_read_is_not_taken_for_the_next():
    assert process.can_start(1)
    (worker,) = process.get_workers(1)
    with process.lock:
        worker.start({"do": "nothing"})  # as if an exception had come before `finish`
        time.sleep(0.05)
        worker.start({"do": "forward", "part": -1, "with": []})
        with pytest.raises(process.WorkerError, match="KeyError"):
            worker.finish()
        worker.start({"do": "nothing"})
        worker.finish()
