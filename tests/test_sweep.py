"""The CPU backend's sweep over an optimiser's vectors: the same bits in pieces and threads, and no failure is lost."""

import threading

import numpy as np
import pytest

import lstm_np
from lstm_np.backends import get_backend, numpy_backend
from lstm_np.layers import Parameters

SIZE = 1000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(numpy_backend, "PIECE", 64)
    monkeypatch.setattr(numpy_backend, "WORTH_A_THREAD", 2)


def trained(threads, make):
    rng = np.random.default_rng(0)
    backend = get_backend("numpy", threads=threads)
    params = Parameters.from_host(backend, {"a": rng.normal(size=(10, 90)), "b": rng.normal(size=100)}, "float32")
    optimizer = make(params)
    for _ in range(5):
        optimizer.step(params.like(rng.normal(size=SIZE).astype("float32")))
    return params.flat


@pytest.mark.parametrize(
    "make",
    [
        lstm_np.Adam,
        lambda params: lstm_np.SGD(params, 0.1, momentum=0.9, nesterov=True),
        lambda params: lstm_np.RMSProp(params, momentum=0.5, form="tf1"),
    ],
    ids=["adam", "sgd", "rmsprop"],
)
def test_pieces_and_threads_change_no_bit(make, monkeypatch):
    in_pieces = [trained(threads, make) for threads in (1, 2, 5)]
    monkeypatch.setattr(numpy_backend, "PIECE", SIZE)
    whole = trained(1, make)
    assert all(np.array_equal(whole, found) for found in in_pieces)


@pytest.mark.parametrize("threads", [1, 2, 3, 100])
def test_every_value_is_visited_once_by_at_most_so_many_threads(threads):
    count, workers = np.zeros(SIZE), set()

    def update(constants, room, piece):
        assert len(room) == len(piece)
        workers.add(threading.get_ident())
        piece += 1

    numpy_backend.sweep(threads, update, (), count)
    assert (count == 1).all()
    assert len(workers) <= threads


def test_a_failure_in_any_thread_reaches_the_caller():
    def update(constants, room, piece):
        if piece[0] == SIZE - SIZE % 64:  # the last piece
            raise FloatingPointError("planted")

    with pytest.raises(FloatingPointError, match="planted"):
        numpy_backend.sweep(2, update, (), np.arange(float(SIZE)))


def test_the_callers_error_handling_holds_in_every_thread():
    def update(constants, room, piece):
        np.multiply(piece, 1e300, piece)

    with np.errstate(over="ignore"):
        numpy_backend.sweep(3, update, (), np.full(SIZE, 1e300))
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        numpy_backend.sweep(3, update, (), np.full(SIZE, 1e300))
