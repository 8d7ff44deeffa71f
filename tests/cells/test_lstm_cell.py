"""The gate math of one LSTM step, against numbers worked out with Python's math module and against complex steps."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest

from lstm_np.cells import lstm

pytestmark = pytest.mark.quick


def plain_step(a, c_before):
    """One unit, one sample, in Python floats: the equations (2) to (5) with exp instead of tanh."""
    i, f, o = (1 / (1 + math.exp(-v)) for v in a[:3])
    g = (math.exp(a[3]) - math.exp(-a[3])) / (math.exp(a[3]) + math.exp(-a[3]))
    c = f * c_before + i * g
    return o * math.tanh(c), c


def random_step(H=3, B=2, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((4 * H, B)).astype(dtype), tuple(rng.standard_normal((2, H, B)).astype(dtype))


def test_forward_is_the_textbook():
    a, state = random_step()
    (h, c), _ = lstm.forward(np, a, state)
    for unit in range(3):
        for sample in range(2):
            expected = plain_step(a[unit::3, sample], state[1][unit, sample])
            assert (h[unit, sample], c[unit, sample]) == pytest.approx(expected, rel=1e-14)


def test_backward_is_the_derivative_of_forward():
    a, (h_before, c_before) = random_step()
    dh, dc = np.random.default_rng(1).standard_normal((2, 3, 2))
    _, values = lstm.forward(np, a, (h_before, c_before))
    da, (dh_before, dc_before), _ = lstm.backward(np, (dh, dc), (h_before, c_before), values)

    def loss(a, c_before):
        (h, c), _ = lstm.forward(np, a, (h_before, c_before))
        return (h * dh + c * dc).sum().imag / 1e-30

    for where in np.ndindex(a.shape):
        moved = a.astype(complex)
        moved[where] += 1e-30j
        assert da[where] == pytest.approx(loss(moved, c_before), rel=1e-13, abs=1e-16)
    for where in np.ndindex(c_before.shape):
        moved = c_before.astype(complex)
        moved[where] += 1e-30j
        assert dc_before[where] == pytest.approx(loss(a, moved), rel=1e-13, abs=1e-16)
    assert dh_before == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_the_dtype_is_kept(dtype):
    a, state = random_step(dtype=dtype)
    after, values = lstm.forward(np, a, state)
    da, (_, dc), gradients = lstm.backward(np, after, state, values)
    arrays = (*after, *values.values(), da, dc, *gradients.values())
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_it_runs_under_the_strict_array_api(dtype):
    a, state = random_step(dtype=dtype)
    dstate = random_step(dtype=dtype, seed=5)[1]
    results = []
    for xp in (np, array_api_strict):
        before = tuple(map(xp.asarray, state))
        after, values = lstm.forward(xp, xp.asarray(a), before)
        da, (_, dc), gradients = lstm.backward(xp, tuple(map(xp.asarray, dstate)), before, values)
        results.append((*after, *values.values(), da, dc, *gradients.values()))
    for expected, found in zip(*results, strict=True):
        np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_overflows_at_any_size(dtype):
    with np.errstate(all="raise", under="ignore"):
        for size in (1e4, 1e30, np.inf):
            a = np.full((8, 3), size, dtype)
            a[:, 1] = -size
            state = (np.ones((2, 3), dtype), np.ones((2, 3), dtype))
            (h, c), values = lstm.forward(np, a, state)
            da, _, _ = lstm.backward(np, (h, c), state, values)
            assert np.isfinite(h).all()
            assert np.isfinite(c).all()
            assert np.isfinite(da).all()


def test_sigmoid_is_exact_to_rounding():
    a = np.linspace(-30, 30, 2001)
    exact = np.array([math.exp(v) / (1 + math.exp(v)) if v < 0 else 1 / (1 + math.exp(-v)) for v in a])
    assert np.abs(lstm.sigmoid(np, a) - exact).max() < 2.3e-16
