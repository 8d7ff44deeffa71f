"""The public API of the recurrent layers: shapes, state, dtypes, parameters, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_np
from lstm_np.options import OptionWarning

pytestmark = pytest.mark.quick

sizes = st.integers(1, 5)


@settings(max_examples=25, deadline=None)
@given(
    B=sizes,
    T=sizes,
    D=sizes,
    H=sizes,
    L=st.integers(1, 3),
    both=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_shapes_and_dtypes_of_the_api(B, T, D, H, L, both, dtype):
    layer = lstm_np.LSTM(D, H, num_layers=L, bidirectional=both, dtype=dtype)
    rows, width = L * (2 if both else 1), H * (2 if both else 1)
    y, (h_n, c_n), cache = layer.forward(np.ones((B, T, D), np.uint8))
    assert (y.shape, h_n.shape, c_n.shape) == ((B, T, width), (rows, B, H), (rows, B, H))
    dx, (dh_0, dc_0), grads = layer.backward(cache, np.ones_like(y), (None, np.ones_like(c_n)))
    assert (dx.shape, dh_0.shape, dc_0.shape) == ((B, T, D), (rows, B, H), (rows, B, H))
    assert {name: grad.shape for name, grad in grads.items()} == layer.params.shapes
    assert list(grads) == list(layer.params)
    assert {array.dtype for array in (y, h_n, c_n, dx, dh_0, dc_0, *grads.values())} == {np.dtype(dtype)}


def test_a_sequence_in_two_halves_is_the_sequence():
    rng = np.random.default_rng(0)
    layer, x = lstm_np.LSTM(3, 4, num_layers=2, dtype="float64"), rng.standard_normal((2, 6, 3))
    whole, final, _ = layer.forward(x)
    first, state, _ = layer.forward(x[:, :2])
    second, last, _ = layer.forward(x[:, 2:], state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-13)
    np.testing.assert_allclose(last, final, rtol=1e-13)


def test_a_backward_layer_is_a_forward_layer_on_the_reversed_sequence():
    rng = np.random.default_rng(1)
    both = lstm_np.LSTM(3, 4, bidirectional=True, dtype="float64")
    one = lstm_np.LSTM(3, 4, dtype="float64")
    for name in ("W", "U", "b"):
        one.params[f"layer0.{name}"] = both.params[f"layer0_reverse.{name}"]
    x = rng.standard_normal((2, 5, 3))
    np.testing.assert_array_equal(both.forward(x)[0][:, :, 4:], one.forward(x[:, ::-1])[0][:, ::-1])


def test_a_sample_does_not_depend_on_its_batch_mates():
    rng = np.random.default_rng(2)
    layer, x = lstm_np.LSTM(3, 4, dtype="float64"), rng.standard_normal((5, 4, 3))
    alone = np.concatenate([layer.forward(x[k : k + 1])[0] for k in range(5)])
    np.testing.assert_allclose(layer.forward(x)[0], alone, rtol=1e-13)


def test_two_forwards_before_their_backwards_do_not_mix():
    rng = np.random.default_rng(3)
    layer, x = lstm_np.LSTM(3, 4), rng.standard_normal((2, 2, 4, 3))
    dy = rng.standard_normal((2, 4, 4))
    alone = []
    for part in x:
        cache = layer.forward(part)[2]
        alone.append(layer.backward(cache, dy)[2]["layer0.U"])
    caches = [layer.forward(part)[2] for part in x]
    for cache, expected in zip(caches, alone, strict=True):
        np.testing.assert_array_equal(layer.backward(cache, dy)[2]["layer0.U"], expected)


@pytest.mark.parametrize("make", [lstm_np.LSTM, lstm_np.GRU, lstm_np.RNN])
@pytest.mark.parametrize(
    "settings",
    [
        {"bias": "double"},
        {"bias": "double", "kernel": "reference"},
        {"bias": "double", "num_layers": 2, "bidirectional": True, "dropout": 0.5, "dropout_outputs": "all"},
        {"bias": False, "dtype": "complex128"},
    ],
)
def test_no_two_results_share_memory(make, settings):
    """Nor any with what was passed in or with the parameters: whoever scales one in place changes that one."""
    layer, rng = make(3, 4, **{"dtype": "float64", **settings}), np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 3)).astype(layer.dtype)
    shape = len(layer.singles), 2, 4
    state = tuple(rng.standard_normal(shape).astype(layer.dtype) for _ in layer.cell.state)
    given = state if len(state) > 1 else state[0]
    y, final, cache = layer.forward(x, given, dropout_key=(1,))
    dy = rng.standard_normal(y.shape).astype(layer.dtype)
    dx, dstate, grads = layer.backward(cache, dy, given)
    whole = [part if isinstance(part, tuple) else (part,) for part in (final, dstate)]
    results = [y, *whole[0], dx, *whole[1], *grads.values()]
    others = [x, *state, dy, layer.params.flat]
    for k, array in enumerate(results):
        for other in results[k + 1 :] + others:
            assert not np.shares_memory(array, other)


def test_outputs_belong_to_the_caller():
    rng = np.random.default_rng(4)
    layer, x = lstm_np.LSTM(3, 4), rng.standard_normal((2, 2, 4, 3))
    y, (h, c), cache = layer.forward(x[0])
    dx, (dh, dc), grads = layer.backward(cache, np.ones_like(y))
    kept = [array.copy() for array in (y, h, c, dx, dh, dc, *grads.values())]
    layer.backward(layer.forward(x[1])[2], np.ones_like(y))
    for array, before in zip((y, h, c, dx, dh, dc, *grads.values()), kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_dropout_masks_are_a_function_of_the_key():
    x = np.random.default_rng(5).standard_normal((4, 6, 3))
    layer = lstm_np.LSTM(3, 8, num_layers=2, dropout=0.5, seed=1)
    first, again, other = (layer.forward(x, dropout_key=(step,))[0] for step in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, layer.forward(x)[0])
    plain = lstm_np.LSTM(3, 8, num_layers=2, seed=1)
    np.testing.assert_array_equal(layer.forward(x)[0], plain.forward(x)[0])


def test_dropout_where_and_how_often():
    x = np.random.default_rng(6).standard_normal((3, 5, 3))
    with pytest.warns(OptionWarning):
        between = lstm_np.LSTM(3, 8, dropout=0.5, dropout_outputs="between")
    np.testing.assert_array_equal(between.forward(x, dropout_key=(1,))[0], between.forward(x)[0])
    every = lstm_np.LSTM(3, 8, dropout=0.5, dropout_outputs="all", dropout_mask="sequence")
    y, plain = every.forward(x, dropout_key=(1,))[0], every.forward(x)[0]
    dropped = y == 0
    assert 0.2 < dropped.mean() < 0.8
    assert (dropped == dropped[:, :1]).all()
    np.testing.assert_allclose(y[~dropped], 2 * plain[~dropped], rtol=1e-6)
    per_step = lstm_np.LSTM(3, 8, dropout=0.5, dropout_outputs="all").forward(x, dropout_key=(1,))[0] == 0
    assert not (per_step == per_step[:, :1]).all()


def test_parameters_are_written_through_and_keep_their_shape():
    layer = lstm_np.LSTM(3, 4)
    view = layer.params["layer0.b"]
    layer.params["layer0.b"] = np.arange(16.0, dtype=np.float32)
    assert view is layer.params["layer0.b"]
    assert (view == np.arange(16)).all()
    assert np.shares_memory(view, layer.params.flat)
    with pytest.raises(ValueError, match=r"'layer0.b' has shape \(16,\), found \(3,\)"):
        layer.params["layer0.b"] = np.zeros(3)
    with pytest.raises(KeyError, match=r"no parameter 'layer0\.V'"):
        layer.params["layer0.V"] = np.zeros(3)
    for change in (lambda p: p.pop("layer0.b"), lambda p: p.clear(), lambda p: p.__delitem__("layer0.b")):
        with pytest.raises(TypeError, match="names of a layer's parameters are fixed"):
            change(layer.params)


def test_initial_weights_are_a_function_of_the_seed():
    first, again, other = (lstm_np.LSTM(3, 4, seed=seed).params.flat for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_forget_bias_starts_at_one_unless_told_otherwise():
    assert (lstm_np.LSTM(3, 4).params["layer0.b"] == np.repeat([0, 1, 0, 0], 4)).all()
    assert (lstm_np.LSTM(3, 4, forget_bias=3.0).params["layer0.b"] == np.repeat([0, 3, 0, 0], 4)).all()
    assert (lstm_np.LSTM(3, 4, initializer="torch").params["layer0.b"] != 1).all()


BAD_ARGUMENTS = {
    "hidden_size must be at least 1, found 0": {"hidden_size": 0},
    "hidden_size must be a whole number, found 2.5": {"hidden_size": 2.5},
    "input_size must be at least 1, found -1": {"input_size": -1},
    "num_layers must be a whole number, found True": {"num_layers": True},
    "dropout must be at least 0 and below 1, found 1.0": {"dropout": 1.0},
    "dropout must be finite, found nan": {"dropout": float("nan")},
    "unknown dtype 'float16'; there are: float32, float64, complex128": {"dtype": "float16"},
    "unknown kernel 'fast'; there are: auto, ": {"kernel": "fast"},
    "unknown backend 'torch'; there are: numpy, cupy": {"backend": "torch"},
    "unknown initializer 'zeros'; there are: ": {"initializer": "zeros"},
    "unknown dropout_mask 'often'; there are: step, sequence": {"dropout_mask": "often"},
}


@pytest.mark.parametrize("message", list(BAD_ARGUMENTS))
def test_bad_arguments_are_refused_in_one_line(message):
    arguments = {"input_size": 3, "hidden_size": 4} | BAD_ARGUMENTS[message]
    with pytest.raises(ValueError) as refused:
        lstm_np.LSTM(**arguments)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_shapes_that_do_not_fit_are_refused():
    layer = lstm_np.LSTM(3, 4)
    for x in (np.ones(3), np.ones((2, 5, 4)), np.ones((2, 0, 3)), np.ones((0, 5, 3))):
        with pytest.raises(ValueError, match=r"x must have shape \(B, T, 3\)"):
            layer.forward(x)
    x = np.ones((2, 5, 3))
    with pytest.raises(ValueError, match=r"state part h must have shape \(1, 2, 4\), found \(2, 4\)"):
        layer.forward(x, (np.ones((2, 4)), np.ones((2, 4))))
    with pytest.raises(ValueError, match="the state has the parts h, c; found 1"):
        layer.forward(x, np.ones((1, 2, 4)))
    with pytest.raises(ValueError, match="x is complex, the layer is float32"):
        layer.forward(x * 1j)
    cache = layer.forward(x)[2]
    with pytest.raises(ValueError, match=r"dy must have shape \(2, 5, 4\), found \(2, 4\)"):
        layer.backward(cache, np.ones((2, 4)))
