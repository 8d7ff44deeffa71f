"""The gate math of one GRU or RNN step, against Python's math module, complex steps, and the strict array API."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest

from lstm_np.cells import CELLS, get_cell, gru, gru_reset_before, rnn, rnn_relu
from lstm_np.gradcheck import gradcheck
from lstm_np.kernels import reference
from lstm_np.layers import GRU, RNN
from tests.faults import with_fault

OTHERS = [name for name in CELLS if name != "lstm"]


def random_step(cell, H=3, B=2, dtype="float64", seed=0):
    """(a, state, U_n): pre-activations, a state and the matrix of the inner product."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((len(cell.gates) * H, B)).astype(dtype)
    state = tuple(rng.standard_normal((H, B)).astype(dtype) for _ in cell.state)
    return a, state, rng.standard_normal((H, H)).astype(dtype)


def products(cell, U_n):
    """What a kernel hands to forward and to backward: the inner product and what undoes it, where the cell asks."""
    return ((lambda q: U_n @ q,), (lambda dm: U_n.T @ dm,)) if cell.products else ((), ())


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


def test_the_gru_is_the_textbook_with_reset_after_and_before():
    for module, after in ((gru, True), (gru_reset_before, False)):
        cell = get_cell(module.__name__.rpartition(".")[2])
        a, (h_before,), U_n = random_step(cell)
        (h,), _ = cell.forward(np, a, (h_before,), *products(cell, U_n)[0])
        for sample in range(2):
            old = h_before[:, sample]
            r = [sigmoid(v) for v in a[:3, sample]]
            for unit in range(3):
                z = sigmoid(a[3 + unit, sample])
                if after:
                    m = r[unit] * sum(U_n[unit, k] * old[k] for k in range(3))
                else:
                    m = sum(U_n[unit, k] * r[k] * old[k] for k in range(3))
                n = math.tanh(a[6 + unit, sample] + m)
                assert h[unit, sample] == pytest.approx((1 - z) * n + z * old[unit], rel=1e-14)


def test_the_plain_cells_are_the_textbook():
    a = np.array([[-2.0, 0.0, 0.5]])
    assert rnn.forward(np, a, (a,))[0][0][0].tolist() == pytest.approx([math.tanh(v) for v in a[0]], rel=1e-15)
    assert rnn_relu.forward(np, a, (a,))[0][0].tolist() == [[0.0, 0.0, 0.5]]


@pytest.mark.parametrize("name", OTHERS)
def test_backward_is_the_derivative_of_forward(name):
    cell = get_cell(name)
    a, (h_before,), U_n = random_step(cell)
    forward, backward = products(cell, U_n)
    dh = np.random.default_rng(1).standard_normal((3, 2))
    _, values = cell.forward(np, a, (h_before,), *forward)
    da, (dh_before,), _ = cell.backward(np, (dh,), (h_before,), values, *backward)
    dh_before = dh_before + np.zeros_like(h_before)

    def slope(a, h_before):
        (h,), _ = cell.forward(np, a, (h_before,), *forward)
        return (h * dh).sum().imag / 1e-30

    for found, value, moved_loss in (
        (da, a, lambda moved: slope(moved, h_before)),
        (dh_before, h_before, lambda moved: slope(a, moved)),
    ):
        for where in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[where] += 1e-30j
            assert found[where] == pytest.approx(moved_loss(moved), rel=1e-13, abs=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("name", OTHERS)
def test_it_keeps_the_dtype_and_runs_under_the_strict_array_api(name, dtype):
    cell, xp = get_cell(name), array_api_strict
    a, state, U_n = random_step(cell, dtype=dtype)
    dstate = random_step(cell, dtype=dtype, seed=5)[1]
    results = []
    for module in (np, xp):
        forward, backward = products(cell, module.asarray(U_n))
        given = tuple(map(module.asarray, state))
        after, values = cell.forward(module, module.asarray(a), given, *forward)
        da, before, gradients = cell.backward(module, tuple(map(module.asarray, dstate)), given, values, *backward)
        arrays = (*after, *values.values(), da, *before, *gradients.values())
        results.append([np.asarray(array) for array in arrays])
        if module is np:
            assert {array.dtype for array in arrays if not isinstance(array, int)} == {np.dtype(dtype)}
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_overflows_at_any_size(name):
    cell = get_cell(name)
    with np.errstate(all="raise", under="ignore"):
        for size in (1e4, 1e30, 1e300 if name == "rnn_relu" else np.inf):
            a = np.full((len(cell.gates) * 2, 3), size)
            a[:, 1] = -size
            forward, backward = products(cell, np.zeros((2, 2)))
            state = (np.ones((2, 3)),)
            (h,), values = cell.forward(np, a, state, *forward)
            da, _, _ = cell.backward(np, state, state, values, *backward)
            assert np.isfinite(h).all()
            assert np.isfinite(da).all()


FAULTS = {
    "gru": {
        "z keeps the new state": ("(1 - z) * n + z * h_before)", "z * n + (1 - z) * h_before)"),
        "dz with the wrong sign": ("dh * (h_before - n)", "dh * (n - h_before)"),
        "dn through z": ('hold("n", dh * (1 - z))', 'hold("n", dh * z)'),
        "the old state's direct path lost": (", dh * z  #", ", 0 * dh  #"),
        "candidate's derivative": ("dn * (1 - n * n)", "dn * (1 - n)"),
        "dm without the reset gate": ("da_n * r)", "da_n)"),
        "dr with the candidate": ("da_n * m)", "da_n * n)"),
        "the inner product not undone": ("dh_before + undo_inner(dm)", "dh_before + 0 * undo_inner(dm)"),
        "reset gate's derivative": ("da_r, da_z = dr * r * (1 - r)", "da_r, da_z = dr * r"),
        "update gate's derivative": (", dz * z * (1 - z)  #", ", dz * (1 - z)  #"),
        "gates swapped": ("(da_r, da_z, da_n), axis", "(da_z, da_r, da_n), axis"),
    },
    "gru_reset_before": {
        "the reset gate forgotten in ds": ("dh_before + ds * r", "dh_before + ds"),
        "dr with the state after": ("ds * h_before)", "ds * n)"),
        "undone with the gate": ("undo_inner(dm))", "undo_inner(dm * r))"),
        "reset gate's derivative": ("da_r, da_z = dr * r * (1 - r)", "da_r, da_z = dr * (1 - r)"),
    },
    "rnn": {"tanh's derivative": ("(1 - h * h)", "(1 - h)")},
    "rnn_relu": {"the rectifier's derivative": ("xp.real(h) > 0", "xp.real(dh) > 0")},
}
LAYER_OF = {
    "gru": GRU,
    "gru_reset_before": lambda *sizes, **settings: GRU(*sizes, reset="before", **settings),
    "rnn": RNN,
    "rnn_relu": lambda *sizes, **settings: RNN(*sizes, nonlinearity="relu", **settings),
}


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for name in FAULTS for fault in FAULTS[name]])
def test_a_fault_inserted_in_the_cell_fails_its_check(name, fault, monkeypatch):
    monkeypatch.setitem(CELLS, name, with_fault(CELLS[name], *FAULTS[name][fault]))
    assert not gradcheck(LAYER_OF[name](3, 4, kernel="reference"), entries=8).ok


KERNEL_FAULTS = {
    "the factors of dU_n from different steps": (
        "[share.dms[k] for share in shares]",
        "[share.dms[k] for share in shares[::-1]]",
    ),
    "the inner product not transposed back": ("U_n.T, None))", "U_n, None))"),
    "dU_n missing": ('(grads["U"][:rows, :], dU_n,', '(grads["U"][:rows, :], 0 * dU_n,'),
    "db_n missing": ("grads[product.bias] = xp.sum", "grads[product.bias] = 0 * xp.sum"),
}


@pytest.mark.parametrize("fault", list(KERNEL_FAULTS))
def test_a_fault_inserted_in_the_inner_product_fails_the_check(fault, monkeypatch):
    broken = with_fault(reference, *KERNEL_FAULTS[fault])
    monkeypatch.setattr(reference, "ReferenceKernel", broken.ReferenceKernel)
    assert not gradcheck(GRU(3, 4, kernel="reference"), entries=8).ok


@pytest.mark.parametrize("kernel", ["reference", "fused", "lean"])
@pytest.mark.parametrize("name", list(LAYER_OF))
def test_without_a_fault_the_same_layers_are_green(name, kernel):
    report = gradcheck(LAYER_OF[name](3, 4, kernel=kernel), entries=8)
    assert report.ok, str(report)


# samples as columns, as rows, and some steps more than a product of the weight gradient takes
SHAPES = [(5, 3, 2, 4), (4, 64, 3, 3), (3, 7, 26, 3), (2, 4, 130, 5), (6, 5, 2, 200)]


@pytest.mark.parametrize("bias", [True, False, "double"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kernel", ["fused", "lean"])
@pytest.mark.parametrize("name", list(LAYER_OF))
def test_the_fused_kernels_gradients_against_complex_steps(name, kernel, shape, bias):
    D, H, B, T = shape
    layer = LAYER_OF[name](D, H, kernel=kernel, bias=bias, bidirectional=B == 2, num_layers=2 if T == 4 else 1)
    report = gradcheck(layer, batch_size=B, steps=T, entries=4)
    assert report.ok, str(report)
