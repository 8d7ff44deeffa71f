"""Copies and pickles of what lives on a GPU: through host arrays, and back onto the device."""

from __future__ import annotations

import copy
import pickle
import sys

import numpy as np
import pytest

import lstm_np
from tests.gpu.host_cupy import FakeDevice, make_cupy
from tests.gpu.support import needs_compiler

pytestmark = needs_compiler
RNG = np.random.default_rng(0)
X, LABELS = RNG.standard_normal((12, 4, 3)), RNG.integers(0, 3, 12)
WAYS = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in where `get_backend("cupy")` looks for CuPy."""
    module = make_cupy(FakeDevice())
    module.__spec__ = object()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.mark.parametrize("way", list(WAYS))
def test_a_model_and_its_optimizer_on_the_device(cupy, way):
    model = lstm_np.SequenceClassifier(3, 5, 3, seed=1, backend="cupy")
    optimizer = lstm_np.Adam(model.params)
    model.fit(X, LABELS, batch_size=4, optimizer=optimizer)
    assert repr(model) == "SequenceClassifier(3, 5, 3, seed=1, backend='cupy')"
    other, others = WAYS[way]((model, optimizer)) if way != "copy" else (copy.copy(model), None)
    assert other.backend.name == "cupy"
    assert isinstance(other.params.flat, cupy.ndarray)
    to_host = model.backend.to_host
    np.testing.assert_array_equal(to_host(other.params.flat), to_host(model.params.flat))
    assert other.position == model.position
    if others is not None:
        for one, its in ((model, optimizer), (other, others)):
            one.fit(X, LABELS, batch_size=4, optimizer=its)
        np.testing.assert_array_equal(to_host(other.params.flat), to_host(model.params.flat))
    before = to_host(model.params.flat)
    other.params.flat[...] = 0
    np.testing.assert_array_equal(to_host(model.params.flat), before)


@pytest.mark.parametrize("way", list(WAYS))
def test_a_layer_on_the_device(cupy, way):
    layer = lstm_np.GRU(3, 5, backend="cupy")
    other = WAYS[way](layer)
    to_host = layer.backend.to_host
    np.testing.assert_array_equal(to_host(other(X)[0]), to_host(layer(X)[0]))


def test_lists_reach_the_device(cupy):
    layer = lstm_np.LSTM(3, 5, backend="cupy", kernel="reference")
    y, _ = layer(X.tolist())
    assert isinstance(y, cupy.ndarray)
    layer.params["layer0.b"] = [1.0] * 20
    layer.params["layer0.b"] = 0.5
    assert (layer.backend.to_host(layer.params["layer0.b"]) == 0.5).all()
