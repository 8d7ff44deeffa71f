"""The equations as data are those of the cells, and their derivatives are right."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.gradcheck.own_cell.equations import forward_sequence, forward_steps, known_cells, run_sequence, run_steps
from lstm_np.gradcheck.own_cell.mistakes import all_mistakes

T, B, D, H = 4, 3, 5, 6
CELLS = [cell for G in (1, 3, 4) for cell in known_cells(G)]
NAMES = [f"{cell.name} {cell.variant or cell.note}".strip() for cell in CELLS]
STEP = 1e-30


def random_arguments(cell, biases=("b",)):
    rng = np.random.default_rng(7)
    G = len(cell.gates)
    shapes = {"W": (G, H, D), "U": (G, H, H), "b": (G, H), "b2": (G, H)}
    parameters = {name: 0.5 * rng.standard_normal(shapes[name]) for name in ("W", "U", *biases)}
    state = {"x": rng.standard_normal((T, D, B)), "h": rng.standard_normal((H, B)), "c": rng.standard_normal((H, B))}
    return parameters, state, rng.standard_normal((T, H, B)), rng.standard_normal((H, B))


def loss(cell, parameters, state, dh, dc):
    values = forward_sequence(cell, parameters, state["x"], state["h"], state["c"]).arrays
    total = (values["h"] * dh).sum()
    return total + (values["c"][-1] * dc).sum() if "c" in values else total


@pytest.mark.parametrize("cell", CELLS, ids=NAMES)
def test_the_plan_of_a_sequence_is_the_derivative_of_its_forward_pass(cell):
    parameters, state, dh, dc = random_arguments(cell, ("b", "b2") if cell.name == "gru" else ("b",))
    values = forward_sequence(cell, parameters, state["x"], state["h"], state["c"])
    found = run_sequence(cell.plan, parameters, values, dh, dc)
    arguments = {**parameters, **{name: state[name] for name in ("x", "h", *cell.state[1:])}}
    for name, array in arguments.items():
        exact = np.empty(array.shape)
        for where in np.ndindex(array.shape):
            moved = array.astype(complex)
            moved[where] += 1j * STEP
            changed = {**arguments, name: moved}
            given = {key: changed.get(key, state.get(key)) for key in ("x", "h", "c")}
            exact[where] = loss(cell, {key: changed[key] for key in parameters}, given, dh, dc).imag / STEP
        total = found[name].sum(axis=0) if name in parameters else found[name].reshape(array.shape)
        np.testing.assert_allclose(total, exact, rtol=0, atol=1e-12 * np.abs(exact).max(), err_msg=name)


@pytest.mark.parametrize("name", ["lstm", "gru", "gru_reset_before", "rnn", "rnn_relu"])
def test_forward_and_backward_are_those_of_the_layers(name):
    """The first cell of each file of lstm_np/cells, against the reference kernel in float64."""
    cell = next(cell for cell in CELLS if cell.file == f"cells/{name}.py")
    parameters, state, dh, dc = random_arguments(cell)
    layer = lstm_np.Recurrent(D, H, cell=name, kernel="reference", dtype="float64")
    shapes = {key: array.shape for key, array in layer.params.items()}
    inner = "layer0.b_n" in shapes  # of the GRU with the reset gate after the product: the second bias of n alone
    if inner:
        parameters["b2"] = np.zeros((3, H))
        parameters["b2"][2] = 0.5
        layer.params["layer0.b_n"] = parameters["b2"][2]
    shapes = {key: shapes[key] for key in ("layer0.W", "layer0.U", "layer0.b")}
    assert set(layer.params) == {*shapes, *(("layer0.b_n",) if inner else ())}
    layer.params.update({key: parameters[key[-1]].reshape(shape) for key, shape in shapes.items()})
    start = tuple(state[part].T[None] for part in cell.state)
    y, _, cache = layer.forward(state["x"].transpose(2, 0, 1), start if len(start) > 1 else start[0])
    values = forward_sequence(cell, parameters, state["x"], state["h"], state["c"])
    np.testing.assert_allclose(values.arrays["h"].transpose(2, 0, 1), y, rtol=0, atol=1e-13)
    last = (np.zeros((1, B, H)), dc.T[None]) if len(start) > 1 else np.zeros((1, B, H))
    dx, dstart, grads = layer.backward(cache, dh.transpose(2, 0, 1), last)
    found = run_sequence(cell.plan, parameters, values, dh, dc)
    for key, shape in shapes.items():
        np.testing.assert_allclose(found[key[-1]].sum(axis=0).reshape(shape), grads[key], rtol=0, atol=1e-12)
    if inner:
        np.testing.assert_allclose(found["b2"].sum(axis=0)[2], grads["layer0.b_n"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["x"].transpose(2, 0, 1), dx, rtol=0, atol=1e-12)
    for part, array in zip(cell.state, dstart if len(start) > 1 else (dstart,), strict=True):
        np.testing.assert_allclose(found[part][0].T, array[0], rtol=0, atol=1e-12)


def test_steps_side_by_side_are_sequences_of_one_step():
    cell = known_cells(4)[0]
    parameters, state, dh, _ = random_arguments(cell)
    rng = np.random.default_rng(1)
    h, c, dc = (rng.standard_normal((T, H, B)) for _ in range(3))
    together = run_steps(cell.plan, parameters, forward_steps(cell, parameters, state["x"], h, c), dh, dc)
    for t in range(T):
        values = forward_sequence(cell, parameters, state["x"][t : t + 1], h[t], c[t])
        alone = run_sequence(cell.plan, parameters, values, dh[t : t + 1], dc[t])
        for name in ("x", "h", "c", "W", "U", "b"):
            np.testing.assert_allclose(together[name][t], alone[name][0], rtol=0, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("cell", [known_cells(1)[0], known_cells(3)[0], known_cells(3)[1], known_cells(4)[0]])
@pytest.mark.parametrize("sequence", [True, False])
def test_every_mistake_changes_something_or_says_that_it_has_no_place(cell, sequence):
    mistakes = all_mistakes(cell, sequence, cell.gates)
    assert len({mistake.key for mistake in mistakes}) == len(mistakes)
    changed = [mistake.change(cell.plan) for mistake in mistakes]
    assert all(plan is None or plan != cell.plan for plan in changed)
    assert sum(plan is not None for plan in changed) > 50
