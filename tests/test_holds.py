"""Values of a cell that are held: where, at what, and the gradient of what is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstm_np
from lstm_np import Hold, HoldError
from tests.strict_backend import STRICT, to_host

D, H, K, T, B = 3, 4, 3, 5, 2
EPS = 1e-30


def make_model(**settings: Any) -> lstm_np.SequenceClassifier:
    model = lstm_np.SequenceClassifier(D, H, K, **{"dtype": "float64", "seed": 1, **settings})
    rng = np.random.default_rng(0)
    model.params.flat[:] += (0.4 * rng.standard_normal(model.params.flat.shape)).astype(model.dtype)
    return model


def batch(n: int = B) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.standard_normal((n, T, D)), rng.integers(0, K, n)


HOLDS: dict[str, tuple[dict[str, Any], Any]] = {
    "the forget gate": ({}, {"f": 1.0}),
    "two values": ({}, {"f": 0.9, "o": 0.3}),
    "from a step on": ({}, Hold("f", 1.0, steps=slice(2, None))),
    "a unit of a sample": ({}, [Hold("c", -0.4, units=1, samples=0)]),
    "units by number and by booleans": (
        {},
        [Hold("i", 0.2, units=[0, -1]), Hold("i", 0.8, units=[False, True, True, False])],
    ),
    "by an array": ({}, Hold("g", np.linspace(-1, 1, B * T * H).reshape(B, T, H), steps=[1, 3])),
    "one for each unit": ({}, Hold("h", np.linspace(-0.5, 0.5, H), steps=3)),
    "tanh c": ({}, {"tanh_c": 0.25}),
    "c, clipped": ({"cell_clip": 0.3}, Hold("c", 0.7, units=slice(2))),
    "a layer of two": ({"num_layers": 2}, Hold("f", 0.5, layer=1)),
    "one direction": ({"bidirectional": True}, Hold("f", 0.5, reverse=True, steps=slice(0, 2))),
    "the update gate": ({"cell": "gru"}, {"z": 0.0}),
    "the product of a GRU": ({"cell": "gru"}, Hold("m", 0.3, units=0)),
    "the reset gate before": ({"cell": "gru_reset_before"}, {"r": 1.0}),
    "the rnn's state": ({"cell": "rnn", "bidirectional": True, "num_layers": 2}, Hold("h", 0.1, layer=0, units=2)),
    "with projection and two biases": ({"input_projection": 5, "bias": "double"}, {"i": 0.5}),
}  # fmt: skip


@pytest.mark.parametrize("case", list(HOLDS))
def test_gradients_through_a_hold_are_those_of_the_complex_step(case):
    settings, hold = HOLDS[case]
    model, (x, labels) = make_model(**settings), batch()
    _, grads = model.loss_and_gradients(x, labels, hold=hold)
    exact = model.copy(dtype="complex128", kernel="reference")
    entered = x.astype(complex).transpose(2, 1, 0)
    for name, array in exact.params.items():
        expected = np.empty(array.shape)
        for where in np.ndindex(array.shape):
            kept = array[where]
            array[where] += EPS * 1j
            logits, _, _ = exact.run(entered, save=False, holds=exact.read_holds(hold))
            expected[where] = exact.loss(np, logits, labels)[0].imag / EPS
            array[where] = kept
        assert np.abs(grads[name] - expected).max() <= 1e-12 * max(np.abs(expected).max(), 1e-3), name


def test_a_fault_in_what_stops_gradients_is_found(monkeypatch):
    import lstm_np.layers.recurrent as module

    model, (x, labels) = make_model(), batch()
    right, edits_of = model.loss_and_gradients(x, labels, hold={"f": 0.5})[1], module.edits_of
    monkeypatch.setattr(module, "edits_of", lambda *args: (edits_of(*args)[0], lambda t, name, gradient: gradient))
    wrong = model.loss_and_gradients(x, labels, hold={"f": 0.5})[1]
    assert np.abs(right["layer0.W"] - wrong["layer0.W"]).max() > 1e-6


def test_it_is_held_where_it_says_and_nowhere_else():
    model, (x, labels) = make_model(), batch()
    plain = lstm_np.trace(model, x, labels)
    held = lstm_np.trace(model, x, labels, hold=Hold("f", 1.0, units=[1, 3], steps=slice(2, 4), samples=1))
    f, chosen = held.gate("f"), np.zeros((B, T, H), bool)
    chosen[1, 2:4, [1, 3]] = True
    assert (f[chosen] == 1).all()
    assert (f[~chosen] != 1).all()
    np.testing.assert_array_equal(f[0], plain.gate("f")[0])
    np.testing.assert_array_equal(f[1, :2], plain.gate("f")[1, :2])
    np.testing.assert_array_equal(held.value("c")[1, :2], plain.value("c")[1, :2])
    assert (held.value("c")[1, 2:, [1, 3]] != plain.value("c")[1, 2:, [1, 3]]).all()
    assert (held.pre_activation_gradient("f")[chosen] == 0).all()
    assert (held.gradient("f")[chosen] != 0).all()
    assert held.about["held"]
    assert not plain.about["held"]
    assert "values are held" in held.summary()


def test_steps_are_those_of_the_sequence_whichever_way_it_is_read():
    model, (x, _) = make_model(bidirectional=True), batch()
    trace = lstm_np.trace(model, x, hold=Hold("o", 0.5, steps=[0, 1]))
    for reverse in (False, True):
        o = trace.gate("o", reverse=reverse)
        assert (o[:, :2] == 0.5).all()
        assert (o[:, 2:] != 0.5).all()


def test_later_holds_win():
    model, (x, _) = make_model(), batch()
    trace = lstm_np.trace(model, x, hold=[Hold("f", 0.5), Hold("f", 0.75, steps=1)])
    assert (trace.gate("f")[:, 1] == 0.75).all()
    assert (trace.gate("f")[:, [0, 2]] == 0.5).all()


def test_forward_logits_and_evaluate_hold_the_same():
    model, (x, labels) = make_model(), batch(7)
    hold = Hold("f", np.linspace(0, 1, 7 * T).reshape(7, T, 1), samples=[0, 2, 5, 6])
    logits = model.logits(x, hold=hold)
    np.testing.assert_array_equal(logits, lstm_np.trace(model, x, hold=hold).logits)
    y, _, cache = model.recurrent.forward(x, hold=hold)
    np.testing.assert_array_equal(y[:, -1] @ model.params["readout.W"].T + model.params["readout.b"], logits)
    model.recurrent.backward(cache, y)
    whole = model.evaluate(x, labels, hold=hold)
    assert whole.accuracy == (logits.argmax(axis=1) == labels).mean()
    for size in (1, 3, 7):  # each batch holds its own samples
        assert model.evaluate(x, labels, batch_size=size, hold=hold).loss == pytest.approx(whole.loss, rel=1e-12)
    assert model.evaluate(x, labels).loss != pytest.approx(whole.loss, rel=1e-3)
    np.testing.assert_array_equal(model.logits(x, hold=None), model.logits(x))


def test_a_held_pass_leaves_the_layers_kernel_alone():
    layer = lstm_np.LSTM(D, H)
    x, _ = batch()
    before = layer.forward(x)[0]
    layer.forward(x, hold={"f": 0.0})
    assert layer.kernel_names == ("fused",)
    np.testing.assert_array_equal(layer.forward(x)[0], before)


def test_on_a_strict_device_it_is_the_same_to_the_bit():
    model, (x, labels) = make_model(dtype="float32", bidirectional=True), batch()
    hold = [Hold("f", 0.5, units=[1]), Hold("c", np.full((B, 1, H), 0.2), reverse=True, steps=slice(1, 3))]
    found = []
    for backend in ("numpy", STRICT):
        loss, grads = model.copy(backend=backend).loss_and_gradients(x, labels, hold=hold)
        found.append((loss, to_host(grads.flat)))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


BAD: dict[str, Any] = {
    r"a lstm cell has no value 'q' to hold; there are: i, f, o, g, c, tanh_c, h": {"q": 1.0},
    r'hold must be a dict like \{"f": 1.0\} or a list of lstm_np.Hold, found 1.0': 1.0,
    r"hold must be a dict like .* found 'f'": ["f"],
    r"layer of a hold must be 0 \.\.\. 0, found 1": Hold("f", 1.0, layer=1),
    r"reverse is True in a hold, but the layers read in one direction": Hold("f", 1.0, reverse=True),
    r"units of the hold of 'f' must be whole numbers or a slice within 0 \.\.\. 3, or 4 booleans; found 4": Hold(
        "f", 1.0, units=4
    ),
    r"steps of the hold of 'f' .* within 0 \.\.\. 4, or 5 booleans; found \[True, False\]": Hold(
        "f", 1.0, steps=[True, False]
    ),
    r"samples of the hold of 'f' .* found 0.5": Hold("f", 1.0, samples=0.5),
    r"'f' must be held at a number or an array like \(2, 5, 4\), found shape \(3,\)": Hold("f", np.ones(3)),
    r"'f' must be held at a number or an array like \(2, 5, 4\), found 'open'": {"f": "open"},
    r"'f' must be held at finite numbers, found nan": {"f": float("nan")},
    r"'f' must be held at real numbers in a layer that is float64, found complex ones": {"f": 1j},
}


@pytest.mark.parametrize("line", list(BAD))
def test_what_cannot_be_held_is_said_in_a_line(line):
    model, (x, labels) = make_model(), batch()
    for call in (
        lambda: model.logits(x, hold=BAD[line]),
        lambda: model.recurrent.forward(x, hold=BAD[line]),
        lambda: model.evaluate(x, labels, hold=BAD[line]),
        lambda: model.loss_and_gradients(x, labels, hold=BAD[line]),
        lambda: lstm_np.trace(model, x, labels, hold=BAD[line]),
    ):
        with pytest.raises(HoldError, match=line):
            call()


# ---- the option: a model that is made, trained and kept so


@pytest.mark.parametrize(
    ("settings", "hold"),
    [
        ({}, {"f": 1.0}),
        ({"cell_clip": 0.3, "bidirectional": True}, {"c": 0.25, "o": 0.5}),
        ({"cell": "gru", "num_layers": 2}, {"z": 0.0}),
        ({"cell": "rnn"}, {"h": 0.2}),
    ],
)
def test_a_model_that_holds_values_equals_one_whose_values_are_held(settings, hold):
    model, (x, labels) = make_model(hold=hold, **settings), batch()
    loss, grads = model.loss_and_gradients(x, labels)
    plain_loss, plain = make_model(**settings).loss_and_gradients(x, labels, hold=hold)
    assert loss == plain_loss
    np.testing.assert_array_equal(grads.flat, plain.flat)
    assert set(model.recurrent.kernel_names) == {"reference"}
    report = lstm_np.gradcheck(model, entries=6)
    assert report.ok, str(report)


def test_a_call_may_hold_what_the_model_holds_at_another_value():
    model, (x, _) = make_model(hold={"f": 1.0}), batch()
    np.testing.assert_array_equal(
        lstm_np.trace(model, x, hold=Hold("f", 0.5, steps=1)).gate("f")[0, :, 0], [1, 0.5, 1, 1, 1]
    )


def test_it_is_trained_and_kept_so(tmp_path):
    model, (x, labels) = make_model(hold={"f": 1}, dtype="float32"), batch(20)
    before = {name: array.copy() for name, array in model.params.items()}
    model.fit(x, labels, epochs=2, batch_size=5)
    rows = slice(H, 2 * H)
    assert (model.params["layer0.W"][rows] == before["layer0.W"][rows]).all()
    assert (model.params["layer0.W"][:H] != before["layer0.W"][:H]).all()
    model.save(tmp_path / "w")
    loaded = lstm_np.SequenceClassifier.load(tmp_path / "w")
    assert loaded.config["hold"] == {"f": 1.0}
    np.testing.assert_array_equal(loaded.logits(x), model.logits(x))
    assert not np.array_equal(loaded.copy(hold=None).logits(x), model.logits(x))


def test_fast_kernels_refuse_it():
    with pytest.raises(ValueError, match=r"kernel 'fused' does not run a lstm layer of 4 units in float32, hold"):
        lstm_np.LSTM(D, H, hold={"f": 1.0}, kernel="fused")


@pytest.mark.parametrize(("cell", "name"), [("lstm", "z"), ("gru", "f"), ("rnn", "c")])
def test_a_value_that_the_cell_does_not_have(cell, name):
    with pytest.raises(HoldError, match=f"a {cell} cell has no value '{name}' to hold; there are: "):
        lstm_np.SequenceClassifier(D, H, K, cell=cell, hold={name: 1.0})
