"""The channel between two processes: every message arrives once, in order, asleep or awake, on every processor."""

import mmap
import socket
import threading
import time

import pytest

from lstm_np.workers import channel
from lstm_np.workers.memory import SharedMemory, map_memory


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
    """Answer until the channel ends, slowly or at once."""
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
    memory = SharedMemory(100)
    memory.mapping[:5] = b"hello"
    parent.send({"open": 1}, [memory.descriptor])
    del memory
    assert worker.receive() == {"open": 1}
    with map_memory(worker.take_descriptor()) as mapped:
        assert mapped[:5] == b"hello"


def test_the_end_of_the_channel_is_noticed(ends):
    parent, worker, sockets = ends
    sockets[1].close()
    with pytest.raises(OSError, match=r"gone|Broken pipe|reset"):
        parent.check()
    with pytest.raises(OSError, match=r"gone|Broken pipe|reset"):
        parent.receive()
    with pytest.raises(OSError, match=r"closed|Bad file|negative"):
        worker.receive()


def test_bytes_that_nobody_needed_do_not_gather(ends):
    """They come late, when the message has been seen already; a full socket would stop who sends."""
    parent, worker, sockets = ends
    if not channel.ORDERED:
        pytest.skip("there each message needs its byte")
    for _ in range(3):
        sockets[0].send(b"!" * 100)
        assert worker.receive(0) is None
        with pytest.raises(BlockingIOError):
            sockets[1].recv(1, socket.MSG_DONTWAIT)
    parent.send({"say": 1})
    assert worker.receive() == {"say": 1}


def test_messages_have_numbers(ends):
    parent, worker, _ = ends
    for number in (1, 2):
        parent.send(channel.encode({"say": "the same"}))
        assert worker.receive() == {"say": "the same"}
        assert (parent.sent, worker.received, worker.sent) == (number, number, 0)


@pytest.mark.parametrize("seconds", [0, 1e-4, 5e-3])
def test_waiting_ends_with_the_time_that_it_is_given(ends, seconds):
    parent, worker, _ = ends
    for number in range(3):
        began = time.perf_counter()
        assert worker.receive(seconds) is None
        assert time.perf_counter() - began >= seconds
        assert not worker.arrived()
        parent.send({"say": number})
        assert worker.receive() == {"say": number}


def test_an_answer_that_is_not_wanted_any_more_is_said_so(ends):
    parent, worker, _ = ends
    assert worker.refused() == 0
    parent.refuse(7)
    assert worker.refused() == 7


def test_a_message_that_does_not_fit_is_refused_whole(ends):
    parent, worker, _ = ends
    with pytest.raises(ValueError, match="at most"):
        parent.send({"say": "x" * channel.SIZE})
    parent.send({"say": "short"})
    assert worker.receive() == {"say": "short"}
