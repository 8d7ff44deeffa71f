"""A trace has every number of a pass: those of the reference kernel, bit for bit, and gradients that are exact."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest

import lstm_np
from lstm_np import options
from lstm_np.cells import get_cell, register_cell_file
from lstm_np.holds import Hold
from lstm_np.kernels.reference import Saved
from lstm_np.layers import dense, recurrent
from tests.cells.own_cells import CIFG, PEEPHOLE, TWO_PRODUCTS
from tests.faults import with_fault
from tests.gpu.host_cupy import FakeDevice, make_backend, make_cupy
from tests.gpu.support import needs_compiler
from tests.strict_backend import STRICT

MODULE = importlib.import_module("lstm_np.trace")  # `lstm_np.trace` is the function
D, H, K, T, B = 3, 4, 3, 4, 2
EPS = 1e-30
LIMIT = 1e-12

# how a model is made, and what is given to `trace`
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lstm": ({}, {}),
    "gru": ({"cell": "gru"}, {}),
    "gru, reset before": ({"cell": "gru_reset_before"}, {}),
    "rnn": ({"cell": "rnn"}, {}),
    "rnn, relu": ({"cell": "rnn_relu"}, {}),
    "stacked": ({"num_layers": 2}, {"target": 1}),
    "both directions": ({"bidirectional": True}, {}),
    "both directions, two layers of GRU": (
        {"cell": "gru", "num_layers": 2, "bidirectional": True, "read_out": "last_output", "bias": "double"},
        {"target": [2, 0]},
    ),
    "input projection": ({"input_projection": 5, "bidirectional": True}, {}),
    "clipped": ({"cell_clip": 0.3}, {}),
    "two biases": ({"bias": "double"}, {}),
    "no bias": ({"bias": False}, {}),
    "a bias at run time": ({"forget_bias_at": "run", "forget_bias": 0.7}, {}),
    "dropout": ({"num_layers": 2, "dropout": 0.4, "dropout_outputs": "all", "read_out": "last_output"}, {"key": (3,)}),
    "dropout of both final states": (
        {"bidirectional": True, "dropout": 0.4, "dropout_outputs": "all"},
        {"key": (4,)},
    ),
    "held": ({}, {"hold": [Hold("f", 0.6, units=[0, 2], steps=slice(1, 3)), Hold("c", 0.3, samples=1, steps=2)]}),
    "held in a stack": (
        {"num_layers": 2, "bidirectional": True},
        {"hold": [Hold("o", 0.4, layer=0, reverse=True, steps=-1), Hold("h", 0.2, layer=1, units=1)]},
    ),
    "held in a GRU": ({"cell": "gru"}, {"hold": {"z": 0.4}}),
    "held throughout": ({"hold": {"f": 0.8}, "cell_clip": 0.3}, {"hold": Hold("f", 0.1, steps=1, units=2)}),
}


def make_model(dtype: str = "float64", **settings: Any) -> lstm_np.SequenceClassifier:
    """Everything random and not zero."""
    with options.silent():
        model = lstm_np.SequenceClassifier(D, H, K, dtype=dtype, seed=1, **settings)
    rng = np.random.default_rng(0)
    model.params.flat[:] += (0.4 * rng.standard_normal(model.params.flat.shape)).astype(dtype)
    return model


def batch(seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((B, T, D)), rng.integers(0, K, B)


def take(model: Any, given: dict[str, Any], x: Any = None) -> Any:
    """The trace of a case."""
    about = {"hold": given.get("hold"), "dropout_key": given.get("key")}
    own, labels = batch()
    x = own if x is None else x
    if "target" in given:
        return lstm_np.trace(model, x, target=given["target"], **about)
    return lstm_np.trace(model, x, labels, **about)


def exact_loss(model: Any, given: dict[str, Any], x: np.ndarray, more: tuple[Hold, ...] = ()) -> complex:
    """What the gradients are of, in complex128, by the forward pass alone; `more` is held as well."""
    holds = (*model.read_holds(given.get("hold")), *more)
    entered = x.astype(complex).transpose(2, 1, 0)
    logits, _, _ = model.run(entered, save=False, dropout_key=given.get("key"), holds=holds)
    if "target" in given:
        return logits[np.broadcast_to(given["target"], B), np.arange(B)].sum()
    return model.loss(np, logits, batch()[1])[0]


def worst_error(model: Any, given: dict[str, Any]) -> float:
    """Of all gradients of values and of x, relative to each array's largest."""
    trace, (x, _), worst = take(model, given), batch(), 0.0
    exact = model.copy(dtype="complex128", kernel="reference")
    for layer, reverse in trace.layers:
        for name in trace.values:
            value, found = (of(name, layer=layer, reverse=reverse) for of in (trace.value, trace.gradient))
            expected = np.empty(found.shape)
            for s, t, u in np.ndindex(found.shape):
                moved = Hold(name, value[s, t, u] + EPS * 1j, layer, reverse, units=u, steps=t, samples=s)
                expected[s, t, u] = exact_loss(exact, given, x, (moved,)).imag / EPS
            worst = max(worst, np.abs(found - expected).max() / np.abs(expected).max())
    expected = np.empty(x.shape)
    for where in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[where] += EPS * 1j
        expected[where] = exact_loss(exact, given, moved).imag / EPS
    return max(worst, np.abs(trace.dx() - expected).max() / np.abs(expected).max())


def compare(model: Any, given: dict[str, Any]) -> None:
    """Everything else that a trace says, against the equations, and shares against the gradients of training."""
    trace, (x, labels) = take(model, given), batch()
    cell, params = model.recurrent.cell, model.params
    close = {"rtol": 1e-12, "atol": 1e-14}
    np.testing.assert_array_equal(trace.x(), x)
    for one in model.recurrent.singles:
        layer, reverse = int(one.name[5]), one.reverse
        where = {"layer": layer, "reverse": reverse}
        weights, read = one.kernel_params(), trace.x(layer)
        h = trace.state("h", **where)
        assert h.shape == (B, T + 1, H)
        before, after = (h[:, 1:], h[:, :-1]) if reverse else (h[:, :-1], h[:, 1:])
        assert (h[:, -1 if reverse else 0] == 0).all()
        np.testing.assert_array_equal(after, trace.value("h", **where))
        dh = trace.state_gradient("h", **where)
        np.testing.assert_array_equal(dh[:, :-1] if reverse else dh[:, 1:], trace.gradient("h", **where))
        own = {product.gate for product in cell.products}
        for k, gate in enumerate(cell.gates):
            rows = slice(k * H, (k + 1) * H)
            a = read @ weights["W"][rows].T + (weights["b"][rows] if "b" in weights else 0)
            a = a if gate in own else a + before @ weights["U"][rows].T
            np.testing.assert_allclose(trace.pre_activation(gate, **where), a, **close)
        check_pre_activation_gradients(trace, where)
        if layer > 0 and given.get("key") is None:
            np.testing.assert_array_equal(read, np.concatenate(outputs(trace, layer - 1), axis=2))
    hold, key = given.get("hold"), given.get("key")
    if "target" not in given:
        loss, grads = model.copy(kernel="reference").loss_and_gradients(x, labels, hold=hold, dropout_key=key)
        assert trace.loss == loss
        for one in model.recurrent.singles:
            where = {"layer": int(one.name[5]), "reverse": one.reverse}
            for name in one.params:
                found, wanted = trace.share(name, **where), grads[f"{one.name}.{name}"]
                assert found.shape == wanted.shape
                np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14 + 1e-13 * np.abs(wanted).max())
                parts = [trace.share(name, sample=s, t=t, **where) for s in range(B) for t in range(T)]
                np.testing.assert_allclose(sum(parts), found, rtol=0, atol=1e-14 + 1e-13 * np.abs(wanted).max())
    check_probabilities(model, trace, x, given)
    assert params is model.params


def outputs(trace: Any, layer: int) -> list[np.ndarray]:
    """h of each direction of a layer."""
    return [trace.value("h", layer=layer, reverse=reverse) for one, reverse in trace.layers if one == layer]


def check_pre_activation_gradients(trace: Any, where: dict[str, Any]) -> None:
    """da by the cells' equations, (2') and (3'), from gradients and values that are exact; where nothing is held."""
    if trace.about["held"]:
        return
    for gate in trace.gates:
        value, gradient = trace.gate(gate, **where), trace.gradient(gate, **where)
        derivative = value * (1 - value) if gate in "ifozr" else 1 - value * value
        if trace.about["cell"] == "rnn_relu":
            derivative = value > 0
        found = trace.pre_activation_gradient(gate, **where)
        np.testing.assert_allclose(found, gradient * derivative, rtol=1e-12, atol=1e-15)


def check_probabilities(model: Any, trace: Any, x: np.ndarray, given: dict[str, Any]) -> None:
    """After every step what the read-out makes of what it would have read there."""
    h = outputs(trace, trace.about["layers"] - 1)
    if model.read_out == "final_state" and len(h) == 2:
        h[1] = h[1][:, ::-1]
    read = np.concatenate(h, axis=2)
    if given.get("key") is not None:
        return  # compared with the masked outputs in a test of its own
    logits = read @ model.params["readout.W"].T + model.params["readout.b"]
    np.testing.assert_allclose(trace.step_logits, logits, rtol=1e-11, atol=1e-13)
    p = np.exp(logits - logits.max(axis=2, keepdims=True))
    np.testing.assert_allclose(trace.probabilities, p / p.sum(axis=2, keepdims=True), rtol=1e-11)


def check_all(model: Any, given: dict[str, Any]) -> None:
    compare(model, given)
    assert worst_error(model, given) <= LIMIT


@pytest.mark.parametrize("case", list(CASES))
def test_the_gradient_of_every_value_is_exact(case):
    settings, given = CASES[case]
    assert worst_error(make_model(**settings), given) <= LIMIT


@pytest.mark.parametrize("case", list(CASES))
def test_everything_else_agrees_with_the_equations_and_with_training(case):
    settings, given = CASES[case]
    compare(make_model(**settings), given)


# a text of the recorder, and what breaks it; "of" is a case in which it must be noticed
MUTATIONS = {
    "a layer that reads backwards is not turned": ("both directions", "host[::-1] if reverse else host", "host"),
    "backward steps in the order in which they came": ("lstm", "steps = steps_back[::-1]", "steps = list(steps_back)"),
    "the rows of the next gate": ("lstm", "a[k * H : (k + 1) * H, :]", "a[(k + 1) % 4 * H :, :][:H, :]"),
    "the gradient of another value": ("lstm", "step.gradients[value] for", 'step.gradients["i"] for'),
    "the values of the step before": (
        "gru",
        "[values[value] for values in saved.values]",
        "[values[value] for values in saved.values[:1] + saved.values[:-1]]",
    ),
    "the states one step early": ("rnn", "(*saved.states, final)", "(*saved.states[1:], final, final)"),
    "the gradients of states one step late": (
        "lstm",
        "[steps[0].dstate[k], *after]",
        "[steps[0].dstate[k], *after[:1], *after[:-1]]",
    ),
    "h_t for h_{t-1} in the share of U": (
        "stacked and of the loss",
        "h[:, 1:] if reverse else h[:, :-1]",
        "h[:, :-1] if reverse else h[:, 1:]",
    ),
    "h for x in the share of W": (
        "input projection",
        'self.x(layer) if parameter == "W"',
        'self._before(layer, reverse) if parameter == "W"',
    ),
    "the state for what a product multiplied": (
        "gru, reset before",
        "[operands[k] for operands in saved.operands]",
        "[state[0] for state in saved.states]",
    ),
    "one direction's part of dx": ("both directions", "parts[0] + parts[1]", "parts[0]"),
    "samples exchanged": ("lstm", ".transpose(2, 0, 1))", ".transpose(2, 0, 1)[::-1])"),
    "the gradient of the gate for that of its product": (
        "gru",
        "[step.own.dms[k] for step in steps]",
        "[step.da[-self.units :, :] for step in steps]",
    ),
}  # fmt: skip
CASES_OF_MUTATIONS = {**CASES, "stacked and of the loss": ({"num_layers": 2}, {})}


@pytest.mark.parametrize("mutation", list(MUTATIONS))
def test_a_fault_inserted_in_the_recorder_is_found(mutation, monkeypatch):
    case, text, fault = MUTATIONS[mutation]
    settings, given = CASES_OF_MUTATIONS[case]
    compare(make_model(**settings), given)
    monkeypatch.setattr(recurrent, "Trace", with_fault(MODULE, text, fault).Trace)
    model = make_model(**settings)
    with pytest.raises((AssertionError, ValueError)):
        check_all(model, given)


# ---- the bits


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trace_is_a_pass_of_the_reference_kernel_bit_for_bit(case, dtype):
    settings, given = CASES[case]
    model, (x, _) = make_model(dtype, **settings), batch()
    about = {"hold": given.get("hold"), "dropout_key": given.get("key")}
    reference = model.copy(kernel="reference").recurrent
    x = np.tile(x, (1, 1, 2))[:, :, : reference.input_size]  # with an input projection the layer reads more features
    y, final, cache = reference.forward(x, **about)
    traced_y, traced_final, traced_cache = model.recurrent.forward(x, trace=True, **about)
    np.testing.assert_array_equal(traced_y, y)
    np.testing.assert_array_equal(traced_final, final)
    rng = np.random.default_rng(8)
    dy = rng.standard_normal(y.shape).astype(dtype)
    for one, other in zip(model.recurrent.backward(traced_cache, dy), reference.backward(cache, dy), strict=True):
        for a, b in zip(
            *(list(each.values()) if isinstance(each, dict) else each for each in (one, other)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    trace, top = traced_cache["trace"], model.recurrent.num_layers - 1
    if given.get("key") is None:
        np.testing.assert_array_equal(np.concatenate(outputs(trace, top), axis=2), y)
    np.testing.assert_array_equal(trace.dx(), reference.backward(cache, dy)[0])
    assert all(array.dtype == dtype for array in trace.arrays.values())


@pytest.mark.parametrize("case", [case for case, (_, given) in CASES.items() if "key" not in given])
def test_the_logits_of_a_trace_are_those_of_the_reference_kernel(case):
    settings, given = CASES[case]
    model, (x, _) = make_model("float32", **settings), batch()
    trace = take(model, given)
    expected = model.copy(kernel="reference").logits(x, hold=given.get("hold"))
    np.testing.assert_array_equal(trace.logits, expected)
    np.testing.assert_array_equal(trace.step_logits[:, -1], expected)


@pytest.mark.parametrize("settings", [{}, {"num_layers": 2, "bidirectional": True}, {"cell": "gru"}])
def test_it_says_how_far_the_kernel_that_trains_is(settings):
    model = lstm_np.SequenceClassifier(28, 64, 10, seed=2, **settings)
    x = np.random.default_rng(0).random((8, 28, 28))
    trace = lstm_np.trace(model, x)
    assert 0 <= trace.difference <= 1e-6
    assert (trace.difference == 0) == (set(model.recurrent.kernel_names) == {"reference"})
    assert lstm_np.trace(model.copy(kernel="reference"), x).difference == 0
    assert lstm_np.trace(model, x, hold={model.recurrent.cell.values[0]: 0.5}).difference is None


def test_a_kernel_that_computes_something_else_shows(monkeypatch):
    model, (x, _) = make_model(), batch()
    right = model.recurrent.singles[0].kernel.forward

    def wrong(params, x, state, **flags):
        y, final, saved = right(params, x, state, **flags)
        return y, (final[0] + 1e-3, *final[1:]), saved

    monkeypatch.setattr(model.recurrent.singles[0].kernel, "forward", wrong)
    assert 0.9e-3 < lstm_np.trace(model, x).difference < 1.1e-3


def test_training_in_a_trace_is_training():
    """With a step's dropout key the masks, the loss and the shares are those of that step."""
    model, (x, labels) = make_model(num_layers=2, dropout=0.5), batch()
    traces = [lstm_np.trace(model, x, labels, dropout_key=key) for key in (None, (1,), (2,))]
    losses = [
        model.copy(kernel="reference").loss_and_gradients(x, labels, dropout_key=key)[0] for key in (None, (1,), (2,))
    ]
    assert [trace.loss for trace in traces] == losses
    assert len(set(losses)) == 3
    masked = traces[1].x(1)
    assert (masked == 0).any()
    np.testing.assert_array_equal(masked[masked != 0], 2 * traces[1].value("h")[masked != 0])


def test_final_states_are_read_after_their_dropout():
    settings, given = CASES["dropout of both final states"]
    model, (x, labels) = make_model(**settings), batch()
    trace = take(model, given)
    assert trace.loss == model.copy(kernel="reference").loss_and_gradients(x, labels, dropout_key=given["key"])[0]
    assert trace.difference < 1e-14
    mask = model.recurrent.last_mask((2 * H, B), given["key"])
    read = np.concatenate([trace.value("h"), trace.value("h", reverse=True)[:, ::-1]], axis=2) * mask.T[:, None]
    expected = read @ model.params["readout.W"].T + model.params["readout.b"]
    np.testing.assert_allclose(trace.step_logits, expected, rtol=1e-11, atol=1e-13)


def test_the_last_output_is_read_after_its_dropout():
    settings, given = CASES["dropout"]
    model = make_model(**settings)
    trace = take(model, given)
    _, _, cache = model.recurrent.forward(batch()[0], dropout_key=given["key"])
    read = trace.value("h", layer=1) * cache["masks"][1].transpose(2, 1, 0)
    expected = read @ model.params["readout.W"].T + model.params["readout.b"]
    np.testing.assert_allclose(trace.step_logits, expected, rtol=1e-11, atol=1e-13)


# ---- layers, other cells, other backends


def test_a_layer_is_traced_with_the_gradients_that_backward_gives():
    layer, (x, _) = lstm_np.GRU(D, H, dtype="float64", bidirectional=True), batch()
    y, _, cache = layer.forward(x, trace=True)
    trace = cache["trace"]
    with pytest.raises(lstm_np.TraceError, match=r"no gradients: take it with labels or a target, or call backward"):
        trace.gradient("z")
    with pytest.raises(lstm_np.TraceError, match="the trace of a layer, which has no probabilities"):
        _ = trace.probabilities
    assert trace.logits is None
    assert not trace.has_gradients
    dy = np.random.default_rng(1).standard_normal(y.shape)
    dx, dh_0, grads = layer.backward(cache, dy)
    np.testing.assert_array_equal(trace.dx(), dx)
    np.testing.assert_array_equal(trace.state_gradient("h")[:, 0], dh_0[0])
    np.testing.assert_array_equal(trace.state_gradient("h", reverse=True)[:, T], dh_0[1])
    for reverse, name in ((False, "layer0"), (True, "layer0_reverse")):
        np.testing.assert_allclose(trace.share("U", reverse=reverse), grads[f"{name}.U"], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(trace.share("b_n", reverse=reverse), grads[f"{name}.b_n"], rtol=1e-12)
    layer.backward(cache, 2 * dy)  # a second backward takes the place of the first
    np.testing.assert_allclose(trace.dx(), 2 * dx, rtol=1e-12)
    assert trace.about["gradients_of"] == "outputs"


@pytest.fixture
def own_cell(tmp_path):
    """Register a cell from its text; it is forgotten with the test."""
    names = []

    def register(name: str, text: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        names.append(register_cell_file(path).name)
        return names[-1]

    yield register
    for name in names:
        del lstm_np.cells.CELLS[name]
        del lstm_np.cells.FILES[name]


@pytest.mark.parametrize("text", [CIFG, PEEPHOLE, TWO_PRODUCTS], ids=["cifg", "peephole", "two products"])
@pytest.mark.parametrize("more", [{}, {"num_layers": 2, "bidirectional": True, "bias": "double"}])
def test_cells_of_ones_own(text, more, own_cell):
    model, (x, labels) = make_model(cell=own_cell("own_for_trace", text), **more), batch()
    trace = lstm_np.trace(model, x, labels)
    _, grads = model.loss_and_gradients(x, labels)
    assert trace.difference == 0
    for one in model.recurrent.singles:
        where = {"layer": int(one.name[5]), "reverse": one.reverse}
        assert all(trace.value(name, **where).shape == (B, T, H) for name in trace.values)
        for name in one.params:
            wanted = grads[f"{one.name}.{name}"]
            np.testing.assert_allclose(trace.share(name, **where), wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())
    if get_cell("own_for_trace").holds:
        assert worst_error(model, {}) <= LIMIT
    else:
        with pytest.raises(lstm_np.HoldError, match="can be held: its functions take no `hold`"):
            lstm_np.trace(model, x, hold={trace.values[0]: 1.0})


@pytest.mark.parametrize("case", ["lstm", "both directions, two layers of GRU", "input projection", "dropout", "held"])
def test_on_a_strict_device_it_is_the_same_to_the_bit(case):
    settings, given = CASES[case]
    model = make_model("float32", **settings)
    expected, found = take(model, given), take(model.copy(backend=STRICT), given)
    assert found.about["backend"] == "strict"
    assert list(found.arrays) == list(expected.arrays)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)


@needs_compiler
@pytest.mark.parametrize("given", [{}, {"hold": {"f": 0.5}}], ids=["as computed", "held"])
def test_on_the_stand_in_for_a_gpu(given):
    backend = make_backend(make_cupy(FakeDevice(multiprocessors=4)))
    model = make_model("float32")
    expected, found = take(model, given), take(model.copy(backend=backend), given)
    assert found.about["kernels"] != ["reference"]
    assert given or 0 < found.difference <= 1e-6
    for name, array in expected.arrays.items():
        assert type(found.arrays[name]) is np.ndarray
        np.testing.assert_allclose(found.arrays[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


# ---- what costs nothing, and what belongs to whom


def test_without_a_trace_nothing_is_kept_for_one(monkeypatch):
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a trace was begun")

    monkeypatch.setattr(recurrent.Trace, "of_layers", refuse)
    model, (x, labels) = make_model(kernel="reference"), batch()
    model.loss_and_gradients(x, labels)
    _, _, cache = model.recurrent.forward(x)
    assert isinstance(cache["saved"][0], Saved)
    assert cache["saved"][0].pre_activations == []
    assert "trace" not in cache
    with pytest.raises(AssertionError, match="a trace was begun"):
        lstm_np.trace(model, x)


def test_arrays_are_read_only_and_nobody_elses():
    model, (x, labels) = make_model(), batch()
    x = x.copy()
    trace = lstm_np.trace(model, x, labels)
    before = {name: array.copy() for name, array in trace.arrays.items()}
    x[...] = np.nan
    model.params.flat[:] = np.nan
    for name, array in trace.arrays.items():
        np.testing.assert_array_equal(array, before[name])
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_what_is_seen_is_what_is_there():
    model, (x, labels) = make_model(), batch()
    trace = lstm_np.trace(model, x, labels)
    f = trace.gate("f", layer=0, reverse=False)
    assert f.shape == (B, T, H)
    W, U, b = (model.params[f"layer0.{name}"][H : 2 * H] for name in "WUb")
    a = W[2] @ x[1, 3] + U[2] @ trace.value("h")[1, 2] + b[2]
    assert abs(trace.pre_activation("f")[1, 3, 2] - a) < 1e-14
    assert abs(f[1, 3, 2] - 1 / (1 + np.exp(-a))) < 1e-14
    left, right = trace.factors("W", "f")
    np.testing.assert_array_equal(left, trace.pre_activation_gradient("f"))
    np.testing.assert_array_equal(right, x)
    np.testing.assert_array_equal(trace.share("W", "f", sample=1, t=3), np.outer(left[1, 3], x[1, 3]))
    np.testing.assert_array_equal(trace.share("b", "f", sample=1, t=3), left[1, 3])
    assert trace.about["classes"] == labels.tolist()
    assert (trace.gates, trace.states) == (("i", "f", "o", "g"), ("h", "c"))
    assert (trace.samples, trace.steps, trace.units) == (B, T, H)


def test_a_trace_of_a_step_alone_and_of_many_samples():
    model = make_model()
    x = np.random.default_rng(3).standard_normal((5, 1, D))
    trace = lstm_np.trace(model, x, [0, 1, 2, 1, 0])
    assert trace.state("c").shape == (5, 2, H)
    np.testing.assert_array_equal(trace.probabilities[:, -1], trace.probabilities[:, 0])


# ---- bad input


BAD = {
    r"a lstm cell has no gate 'q'; there are: i, f, o, g": lambda trace: trace.gate("q"),
    r"a lstm cell has no gate 'c'; there are: i, f, o, g": lambda trace: trace.gate("c"),
    r"a lstm cell has no 'q' here; there are: i, f, o, g, c, tanh_c, h": lambda trace: trace.gradient("q"),
    r"a lstm cell has no 'f' here; there are: h, c": lambda trace: trace.state("f"),
    r"no layer 1 with reverse=False; there are layers 0 \.\.\. 0, one direction": lambda trace: trace.gate(
        "f", layer=1
    ),
    r"no layer 0 with reverse=True": lambda trace: trace.gate("f", reverse=True),
    r"no layer -1 with reverse=False": lambda trace: trace.x(-1),
    r"layer0 has no parameter 'V'; there are: W, U, b": lambda trace: trace.share("V"),
    r"a lstm cell has no gate 'q'": lambda trace: trace.share("W", "q"),
}


@pytest.mark.parametrize("line", list(BAD))
def test_what_is_not_there_is_said_in_a_line(line):
    model, (x, labels) = make_model(), batch()
    with pytest.raises(lstm_np.TraceError, match=line):
        BAD[line](lstm_np.trace(model, x, labels))


def test_a_product_of_the_cells_own_has_factors_of_its_own():
    model, (x, labels) = make_model(cell="gru"), batch()
    trace = lstm_np.trace(model, x, labels)
    with pytest.raises(lstm_np.TraceError, match="U's rows of gate n have other factors: name a gate"):
        trace.factors("U")
    np.testing.assert_array_equal(trace.factors("U", "n")[0], trace.gradient("m"))
    np.testing.assert_array_equal(trace.factors("U", "z")[0], trace.pre_activation_gradient("z"))


@pytest.mark.parametrize("target", [3, -1, 1.0, [0], [0, 3], "one"])
def test_a_target_that_is_no_class(target):
    with pytest.raises(ValueError, match=r"target must be a class, 0 \.\.\. 2, or one for each of 2 samples; found"):
        lstm_np.trace(make_model(), batch()[0], target=target)


def test_other_bad_arguments():
    model, (x, labels) = make_model(), batch()
    with pytest.raises(ValueError, match="either of the loss of labels or of the logit of a target; found both"):
        lstm_np.trace(model, x, labels, 1)
    with pytest.raises(ValueError, match=r"x must have shape \(B, T, 3\)"):
        lstm_np.trace(model, x[0], labels)
    with pytest.raises(ValueError, match=r"labels must be 0 \.\.\. 2"):
        lstm_np.trace(model, x, labels + 3)
    with pytest.raises(
        TypeError,
        match=r"takes a SequenceClassifier or SequenceRegressor, found LSTM; a layer is traced by layer\.forward",
    ):
        lstm_np.trace(model.recurrent, x)


# ---- in words, and in files


@pytest.mark.parametrize("case", ["lstm", "both directions, two layers of GRU", "rnn", "held"])
def test_the_summary_is_a_table_of_all_values(case):
    settings, given = CASES[case]
    trace = take(make_model(**settings), given)
    lines = trace.summary().splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert len(lines) == 6 + len(trace.layers) * len(trace.values)
    assert trace.about["cell"] in lines[0]
    assert trace._repr_html_().count("<tr>") == 1 + len(trace.layers) * len(trace.values)
    assert repr(trace).startswith("<Trace of 2 samples, 4 steps: ")


def test_the_numbers_of_the_summary():
    model, (x, labels) = make_model(), batch()
    trace = lstm_np.trace(model, x, labels)
    row = next(line for line in trace.summary().splitlines() if line.split()[1:2] == ["f"]).split()
    f = trace.gate("f")
    assert row[2:5] == [f"{f.min():.4f}", f"{f.mean():.4f}", f"{f.max():.4f}"]
    assert row[5:7] == [f"{(f < 0.1).mean():.1%}", f"{(f > 0.9).mean():.1%}"]
    assert float(row[7]) == pytest.approx(np.linalg.norm(trace.gradient("f")), rel=1e-3)


def test_a_cells_name_in_html_is_text():
    trace = lstm_np.trace(make_model(), batch()[0])
    trace.about["cell"] = "<script>"
    assert "<script>" not in trace._repr_html_()


@pytest.mark.parametrize("case", list(CASES))
def test_a_file_gives_the_same_trace(case, tmp_path):
    settings, given = CASES[case]
    trace = take(make_model(**settings), given)
    trace.save(tmp_path / "t.safetensors")
    first = (tmp_path / "t.safetensors").read_bytes()
    trace.save(tmp_path / "t.safetensors")
    assert (tmp_path / "t.safetensors").read_bytes() == first
    read = lstm_np.Trace.load(tmp_path / "t.safetensors")
    assert read.about == trace.about
    assert read.summary() == trace.summary()
    assert read.arrays.keys() == trace.arrays.keys()
    for name, array in trace.arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)
        assert not read.arrays[name].flags.writeable
    assert json.dumps(read.about)


def test_npz_is_written_for_others_and_not_read(tmp_path):
    trace = take(make_model("float32"), {})
    trace.save(tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz", allow_pickle=False) as read:
        assert json.loads(str(read["about"])) == trace.about
        assert set(read.files) == {"about", *trace.arrays}
        np.testing.assert_array_equal(read["layer0.gradient.f"], trace.gradient("f"))
    with pytest.raises(lstm_np.WeightsError, match="not a safetensors file"):
        lstm_np.Trace.load(tmp_path / "t.npz")


def test_files_that_are_no_trace(tmp_path):
    model = make_model("float32")
    model.save(tmp_path / "w.safetensors")
    with pytest.raises(lstm_np.WeightsError, match="a weights file, expected a trace file"):
        lstm_np.Trace.load(tmp_path / "w.safetensors")
    with pytest.raises(lstm_np.WeightsError, match=r"no such trace file; lstm_np\.Trace\.save writes one"):
        lstm_np.Trace.load(tmp_path / "none.safetensors")
    trace = take(model, {})
    trace.save(tmp_path / "t.safetensors")
    content = bytearray((tmp_path / "t.safetensors").read_bytes())
    content[-3] ^= 1
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(lstm_np.WeightsError, match="its SHA-256 is another"):
        lstm_np.Trace.load(tmp_path / "t.safetensors")
    trace.save(tmp_path / "t.safetensors")
    with pytest.raises(lstm_np.WeightsError, match="a trace file, expected a weights file"):
        lstm_np.SequenceClassifier.load(tmp_path / "t.safetensors")
    del trace.about["held"]
    trace.save(tmp_path / "t.safetensors")
    with pytest.raises(lstm_np.WeightsError, match="not a trace of this version"):
        lstm_np.Trace.load(tmp_path / "t.safetensors")


def test_complex_numbers_are_not_written(tmp_path):
    trace = lstm_np.trace(make_model("complex128"), batch()[0])
    with pytest.raises(ValueError, match="complex128; expected float32, float64"):
        trace.save(tmp_path / "t")


def test_a_dense_layer_makes_the_logits():
    """What `check_probabilities` uses is the read-out of the engine."""
    model = make_model()
    h = np.random.default_rng(0).standard_normal((H, 2))
    expected = model.params["readout.W"] @ h + model.params["readout.b"][:, None]
    np.testing.assert_array_equal(dense.forward(model.params.section("readout"), h), expected)
