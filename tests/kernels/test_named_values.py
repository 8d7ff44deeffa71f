"""Every value that a cell names, and the gradient of the loss with respect to each, as the reference kernel has them.

The gradient of a value at a step is compared with the complex step: the forward pass alone, in complex128, with that
value moved by i eps where it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lstm_np.backends import get_backend
from lstm_np.cells import BUILT_IN, CELLS, Cell, get_cell
from lstm_np.kernels import LayerSpec, reference
from tests.faults import with_fault

D, H, T, B = 3, 4, 5, 2
EPS = 1e-30
LIMIT = 1e-12
HOST = get_backend("numpy")


@dataclass
class Case:
    """A layer with everything random and not zero, and a loss: outputs and final state weighted with random numbers."""

    cell: Cell
    kernel: Any
    exact: Any
    params: dict[str, np.ndarray]
    x: np.ndarray
    state: tuple[np.ndarray, ...]
    dy: np.ndarray
    dstate: tuple[np.ndarray, ...]

    def loss(self, edit: Any = None, **changed: Any) -> complex:
        """By the forward pass in complex128; `changed`: other params, x or state."""
        values = {"params": self.params, "x": self.x, "state": self.state, **changed}
        params = {name: array.astype(complex) for name, array in values["params"].items()}
        state = tuple(part.astype(complex) for part in values["state"])
        y, final, _ = self.exact.forward(params, values["x"].astype(complex), state, save=False, edit=edit)
        return (y * self.dy).sum() + sum((part * d).sum() for part, d in zip(final, self.dstate, strict=True))

    def steps_back(self) -> list[Any]:
        _, _, saved = self.kernel.forward(self.params, self.x, self.state)
        return list(self.kernel.steps_back(self.params, saved, self.dy, self.dstate))


def make_case(name: str, seed: int = 0, kernel_class: Any = reference.ReferenceKernel) -> Case:
    cell, rng = get_cell(name), np.random.default_rng(seed)
    rows = len(cell.gates) * H
    params = {"W": rng.normal(size=(rows, D)), "U": rng.normal(size=(rows, H)) / 2, "b": rng.normal(size=rows)}
    params |= {parameter.name: rng.normal(size=H) for parameter in cell.parameters}
    real, exact = (kernel_class(LayerSpec(cell, D, H, True, dtype), HOST) for dtype in ("float64", "complex128"))
    state, dstate = (tuple(rng.normal(size=(H, B)) for _ in cell.state) for _ in range(2))
    x, dy = rng.normal(size=(D, T, B)), rng.normal(size=(H, T, B))
    return Case(cell, real, exact, params, x, state, dy, dstate)


def worst_error(case: Case) -> float:
    """Over all values and steps, relative to the largest gradient of that value at that step."""
    steps = case.steps_back()
    worst = 0.0
    for step in steps:
        assert set(step.gradients) == set(case.cell.values)
        for name, found in step.gradients.items():
            expected = np.empty((H, B))
            for where in np.ndindex(H, B):

                def moved(t: int, value: str, array: Any, name=name, where=where, at=step.t) -> Any:
                    if (t, value) != (at, name):
                        return array
                    array = array.copy()
                    array[where] += EPS * 1j
                    return array

                expected[where] = case.loss(moved).imag / EPS
            worst = max(worst, np.abs(found - expected).max() / np.abs(expected).max())
    return worst


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_gradient_of_every_named_value_is_exact(name):
    assert worst_error(make_case(name)) <= LIMIT


def test_the_lstm_names_every_value_of_its_equations():
    assert make_case("lstm").cell.values == ("i", "f", "o", "g", "c", "tanh_c", "h")
    assert make_case("gru").cell.values == ("r", "z", "m", "n", "h")
    assert make_case("gru_reset_before").cell.values == ("r", "z", "s", "m", "n", "h")


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_values_are_those_of_the_equations(name):
    """With the values of a pass at hand, each equation holds, and what the kernel returns is among them."""
    case = make_case(name)
    y, final, saved = case.kernel.forward(case.params, case.x, case.state)
    for t, (v, state) in enumerate(zip(saved.values, saved.states, strict=True)):
        np.testing.assert_array_equal(v["h"], y[:, t])
        np.testing.assert_array_equal(saved.inputs[t], np.concatenate([case.x[:, t], state[0], np.ones((1, B))]))
        if "c" in v:
            np.testing.assert_array_equal(v["c"], v["f"] * state[1] + v["i"] * v["g"])
            np.testing.assert_array_equal(v["tanh_c"], np.tanh(v["c"]))
            np.testing.assert_array_equal(v["h"], v["o"] * v["tanh_c"])
        if "n" in v:
            np.testing.assert_array_equal(v["h"], (1 - v["z"]) * v["n"] + v["z"] * state[0])
    for part, letter in zip(final, case.cell.state, strict=True):
        np.testing.assert_array_equal(part, saved.values[-1][letter])


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_shares_of_the_steps_add_up_to_the_gradients(name):
    case = make_case(name)
    _, _, saved = case.kernel.forward(case.params, case.x, case.state)
    dx, dstate_0, grads = case.kernel.backward(case.params, saved, case.dy, case.dstate)
    steps = case.steps_back()
    assert [step.t for step in steps] == [4, 3, 2, 1, 0]
    total = sum(step.da @ step.inputs.T for step in steps)
    dW, dU, db = total[:, :D], total[:, D : D + H].copy(), total[:, -1]
    for k, product in enumerate(case.cell.products):
        dU[-H:] = sum(step.own.dms[k] @ step.own.qs[k].T for step in steps)
        if product.bias is not None:
            np.testing.assert_allclose(sum(step.own.dms[k].sum(axis=1) for step in steps), grads[product.bias])
    for found, expected in ((dW, grads["W"]), (dU, grads["U"]), (db, grads["b"])):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    for step in steps:
        np.testing.assert_array_equal(step.dx, dx[:, step.t])
    for part, expected in zip(steps[-1].dstate, dstate_0, strict=True):
        np.testing.assert_array_equal(part, expected)


RECORD_FAULTS = {
    "lstm": {
        "di and df swapped": ('{"i": di, "f": df,', '{"i": df, "f": di,'),
        "do of the pre-activation": ('"o": do,', '"o": da_o,'),
        "dc without what comes through h": ('"c": dc,', '"c": dstate[1],'),
        "dc after the forget gate": ('"c": dc,', '"c": dc * f,'),
        "dtanh_c is dh": ('"tanh_c": dtanh_c', '"tanh_c": dh'),
        "dg of the pre-activation": ('"g": dg,', '"g": da_g,'),
        "dh missing": ('"h": dh}\n', '"h": 0 * dh}\n'),
    },
    "gru": {
        "dm and dr swapped": ('{"r": dr, "z": dz, "m": dm,', '{"r": dm, "z": dz, "m": dr,'),
        "dn of the pre-activation": ('"n": dn,', '"n": da_n,'),
        "dz missing": ('"z": dz,', '"z": 0 * dz,'),
    },
    "gru_reset_before": {"ds is dm": ('"s": ds,', '"s": dm,'), "dm through r": ('"m": dm,', '"m": dm * r,')},
    "rnn": {"dh of the pre-activation": ('{"h": dh}', '{"h": dh * (1 - h * h)}')},
    "rnn_relu": {"dh missing": ('{"h": dh}', '{"h": 0 * dh}')},
}


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for name in RECORD_FAULTS for fault in RECORD_FAULTS[name]])
def test_a_fault_in_the_record_of_a_cell_is_found(name, fault, monkeypatch):
    monkeypatch.setitem(CELLS, name, with_fault(CELLS[name], *RECORD_FAULTS[name][fault]))
    assert not worst_error(make_case(name)) <= LIMIT


KERNEL_FAULTS = {
    "the step before": ("yield StepBack(t,", "yield StepBack((t - 1) % len(saved.inputs),"),
    "dy forgotten": ("arriving = (arriving[0] + dy[:, t, :n], *arriving[1:])", "pass"),
    "dy of the step after": ("dy[:, t, :n]", "dy[:, t - 1, :n]"),
    "nothing through U": ("before[0] + own.U.T @ da", "before[0] + 0 * own.U.T @ da"),
    "the values of the step before": ("saved.states[t], saved.values[t]", "saved.states[t], saved.values[t - 1]"),
    "the last state's gradient forgotten": ("nothing if part is None else part", "nothing"),
}


@pytest.mark.parametrize("fault", list(KERNEL_FAULTS))
def test_a_fault_in_the_backward_pass_is_found(fault):
    broken = with_fault(reference, *KERNEL_FAULTS[fault]).ReferenceKernel
    assert not worst_error(make_case("lstm", kernel_class=broken)) <= LIMIT


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BUILT_IN for value in get_cell(name).values])
def test_the_gradient_through_a_held_value_is_exact(name, value):
    """Some units of some steps are held at 0.7: what the loss still depends on, and nothing of what it does not."""
    case = make_case(name, seed=1)
    held = np.random.default_rng(2).random((T, H, B)) < 0.5

    def put(t: int, found: str, array: Any) -> Any:
        return np.where(held[t], 0.7, array) if found == value else array

    def stop(t: int, found: str, gradient: Any) -> Any:
        return np.where(held[t], 0.0, gradient) if found == value else gradient

    _, _, saved = case.kernel.forward(case.params, case.x, case.state, edit=put)
    assert all((saved.values[t][value][held[t]] == 0.7).all() for t in range(T))
    dx, dstate_0, grads = case.kernel.backward(case.params, saved, case.dy, case.dstate, edit=stop)
    tensors = {**case.params, "x": case.x, **{f"{k}": part for k, part in enumerate(case.state)}}
    found = {**grads, "x": dx, **{f"{k}": part for k, part in enumerate(dstate_0)}}
    for name_of, tensor in tensors.items():
        expected = np.empty(tensor.shape)
        for where in np.ndindex(tensor.shape):
            moved = tensor.astype(complex)
            moved[where] += EPS * 1j
            everything = {**tensors, name_of: moved}
            changed = {
                "params": {key: everything[key] for key in case.params},
                "x": everything["x"],
                "state": tuple(everything[f"{k}"] for k, _ in enumerate(case.state)),
            }
            expected[where] = case.loss(put, **changed).imag / EPS
        scale = np.abs(expected).max()
        assert np.abs(found[name_of] - expected).max() <= LIMIT * max(scale, 1e-3), name_of


def test_a_held_value_still_has_a_gradient_of_its_own():
    """What the loss would change by if the held value were another one: the gradients handed out are not stopped."""
    case = make_case("lstm")

    def put(t: int, name: str, array: Any) -> Any:
        return np.full_like(array, 0.5) if name == "f" else array

    def stop(t: int, name: str, gradient: Any) -> Any:
        return 0 * gradient if name == "f" else gradient

    _, _, saved = case.kernel.forward(case.params, case.x, case.state, edit=put)
    steps = list(case.kernel.steps_back(case.params, saved, case.dy, case.dstate, edit=stop))
    for step in steps:
        assert (step.gradients["f"] != 0).all()
        assert (step.da[H : 2 * H] == 0).all()


def test_the_cache_keeps_no_view_of_what_the_caller_owns():
    for name in BUILT_IN:
        case = make_case(name)
        expected = case.kernel.backward(
            case.params, case.kernel.forward(case.params, case.x, case.state)[2], case.dy, case.dstate
        )
        x, state = case.x.copy(), tuple(part.copy() for part in case.state)
        y, final, saved = case.kernel.forward(case.params, x, state)
        for array in (x, *state, y, *final):
            array[...] = np.nan
        found = case.kernel.backward(case.params, saved, case.dy, case.dstate)
        for one, other in zip(
            (found[0], *found[1], *found[2].values()), (expected[0], *expected[1], *expected[2].values()), strict=True
        ):
            np.testing.assert_array_equal(one, other)
