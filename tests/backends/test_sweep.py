"""The CPU backend's sweep over an optimizer's vectors: the same bits, every value once; aligned vectors."""

import numpy as np
import pytest

import lstm_np
from lstm_np.backends import get_backend, numpy_backend
from lstm_np.layers import Parameters

SIZE = 1000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(numpy_backend, "PIECE", 64)


def trained(make):
    rng = np.random.default_rng(0)
    backend = get_backend("numpy")
    params = Parameters.from_host(backend, {"a": rng.normal(size=(10, 90)), "b": rng.normal(size=100)}, "float32")
    optimizer = make(params)
    for _ in range(5):
        optimizer.step(params.like(rng.normal(size=SIZE).astype("float32")))
    return params.flat


@pytest.mark.parametrize(
    "make",
    [
        lstm_np.Adam,
        lambda params: lstm_np.AdamW(params, weight_decay=0.1),
        lambda params: lstm_np.SGD(params, 0.1, momentum=0.9, nesterov=True),
        lambda params: lstm_np.RMSProp(params, momentum=0.5, form="tf1"),
    ],
    ids=["adam", "adamw", "sgd", "rmsprop"],
)
def test_pieces_change_no_bit(make, monkeypatch):
    in_pieces = trained(make)
    monkeypatch.setattr(numpy_backend, "PIECE", SIZE)
    assert np.array_equal(trained(make), in_pieces)


@pytest.mark.parametrize("size", [1, 63, 64, 65, SIZE])
def test_every_value_is_visited_once_with_scratch_and_constants_to_fit(size):
    count, other = np.zeros(size, "float32"), np.arange(size, dtype="float32")
    seen = []

    def update(constants, scratch, piece, more):
        assert len(scratch) == len(piece) == len(more) <= 64
        assert scratch.dtype == piece.dtype
        assert [(c.dtype, c.item()) for c in constants] == [(piece.dtype, 0.5), (piece.dtype, 2.0)]
        scratch[...] = 7  # may be written anywhere
        piece += 1
        seen.extend(more)

    get_backend("numpy").sweep(update, (0.5, 2), count, other)
    assert (count == 1).all()
    assert seen == list(range(size))


def test_parameters_gradients_and_moments_start_at_a_cache_line():
    params = lstm_np.SequenceClassifier(3, 5, 2).params
    vectors = [params.flat, params.copy().flat, params.empty_like().flat, *lstm_np.Adam(params).slots.values()]
    assert [vector.ctypes.data % 64 for vector in vectors] == [0] * 5
