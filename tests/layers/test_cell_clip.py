"""The option cell_clip: c is kept within two limits after every step, and no gradient goes through it where it was."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.kernels import LayerSpec, choose_kernel
from lstm_np.layers import GRU, LAYERS, LSTM, RNN, Recurrent
from lstm_np.model import SequenceClassifier
from lstm_np.optimizers import SGD
from lstm_np.options import OptionError
from lstm_np.training import load_recipe
from tests.strict_backend import STRICT, to_host

LIMIT = 0.35


def layer_of(limit=LIMIT, **more):
    """A layer whose cell state leaves [-limit, limit] about as often as not."""
    layer = LSTM(3, 4, **{"dtype": "float64", "cell_clip": limit, "seed": 1, **more})
    rng = np.random.default_rng(0)
    for name, array in layer.params.items():
        layer.params[name] = array + (0.7 if name.endswith("b") else 0.3) * rng.standard_normal(array.shape)
    return layer


def batch(B=3, T=6, D=3, H=4, rows=1):
    """x, (h_0, c_0), and weights of the outputs and of the final state."""
    rng = np.random.default_rng(2)
    return (
        rng.standard_normal((B, T, D)),
        (0.5 * rng.standard_normal((rows, B, H)), rng.standard_normal((rows, B, H))),
        rng.standard_normal((B, T, H)),
        (rng.standard_normal((rows, B, H)), rng.standard_normal((rows, B, H))),
    )


def by_hand(W, U, b, x, h, c, limit):
    """(outputs (B, T, H), h_T, c_T, every c before it was clipped) from x (B, T, D), in a loop as in a textbook."""

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    outputs, before = [], []
    for t in range(x.shape[1]):
        a_i, a_f, a_o, a_g = np.split(x[:, t] @ W.T + h @ U.T + b, 4, axis=1)
        c = sigmoid(a_f) * c + sigmoid(a_i) * np.tanh(a_g)
        before.append(c)
        c = np.where(c.real > limit, limit, np.where(c.real < -limit, -limit, c))
        h = sigmoid(a_o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1), h, c, np.stack(before)


def test_outputs_states_and_gradients_are_those_of_a_loop_by_hand():
    layer = layer_of()
    x, (h_0, c_0), dy, (dh_n, dc_n) = batch()
    y, (h_n, c_n), cache = layer.forward(x, (h_0, c_0))
    values = {**{name: layer.params[f"layer0.{name}"] for name in "WUb"}, "x": x, "h": h_0[0], "c": c_0[0]}
    outputs, h, c, before = by_hand(**values, limit=LIMIT)
    np.testing.assert_allclose(y, outputs, rtol=1e-13)
    np.testing.assert_allclose(h_n[0], h, rtol=1e-13)
    np.testing.assert_allclose(c_n[0], c, rtol=1e-13)
    clipped = np.abs(before) > LIMIT
    assert 0.2 < clipped.mean() < 0.8, "for this test to mean anything"
    assert np.abs(np.abs(before) - LIMIT).min() > 1e-4, "no value at a kink"
    assert np.abs(c_n).max() == LIMIT

    def loss(**changed):
        outputs, h, c, _ = by_hand(**{**values, **changed}, limit=LIMIT)
        return (outputs * dy).sum() + (h * dh_n[0]).sum() + (c * dc_n[0]).sum()

    dx, (dh_0, dc_0), grads = layer.backward(cache, dy, (dh_n, dc_n))
    found = {**{name: grads[f"layer0.{name}"] for name in "WUb"}, "x": dx, "h": dh_0[0], "c": dc_0[0]}
    for name, value in values.items():
        exact = np.empty(value.shape)
        for where in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[where] += 1e-30j
            exact[where] = loss(**{name: moved}).imag / 1e-30
        np.testing.assert_allclose(found[name], exact, rtol=0, atol=1e-13 * np.abs(exact).max())


@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True}, {"bias": "double"}, {"bias": False}, {"forget_bias_at": "run"}],
)
def test_the_gradient_check_of_a_layer(options):
    report = lstm_np.gradcheck(layer_of(**options), batch_size=2, steps=4, seed=3)
    assert report.ok, str(report)


@pytest.mark.parametrize("cell_clip", [0.02, 0.2])
def test_the_gradient_check_of_a_model(cell_clip):
    model = SequenceClassifier(3, 4, 5, cell_clip=cell_clip, num_layers=2, input_projection=6)
    report = lstm_np.gradcheck(model, batch_size=3, steps=5)
    assert report.ok, str(report)


def test_the_check_sees_a_gradient_that_goes_through_a_clipped_state(monkeypatch):
    from lstm_np.kernels.reference import ReferenceKernel

    monkeypatch.setattr(ReferenceKernel, "_undo_clip", lambda self, edit, within: edit)
    assert not lstm_np.gradcheck(layer_of(), batch_size=2, steps=4, seed=3).ok


def test_where_c_is_always_clipped_only_the_output_gate_learns():
    layer = layer_of(1e-6)
    x, state, dy, _ = batch()
    dx, (dh_0, dc_0), grads = layer.backward(layer.forward(x, state)[2], dy)
    i_f, o, g = np.split(grads["layer0.W"], (8, 12))
    assert (i_f == 0).all()
    assert (g == 0).all()
    assert (o != 0).all()
    assert (dc_0 == 0).all()
    assert (dx != 0).any()
    assert (dh_0 != 0).any()


def test_a_state_at_the_limit_is_not_clipped():
    """As in TensorFlow 1: what is beyond the limit is."""
    layer = LSTM(1, 1, dtype="float64", cell_clip=0.5)
    layer.params.flat[:] = 0.0
    layer.params["layer0.b"] = np.array([-50.0, 50.0, 0.0, 0.0])  # c_t = c_{t-1}
    for c, passes in ((0.5, True), (-0.5, True), (0.5 + 1e-15, False), (-1.0, False)):
        _, (_, c_n), cache = layer.forward(np.ones((1, 1, 1)), (np.zeros((1, 1, 1)), np.full((1, 1, 1), c)))
        assert c_n.item() == np.clip(c, -0.5, 0.5)
        _, (_, dc_0), _ = layer.backward(cache, None, (None, np.ones((1, 1, 1))))
        assert (dc_0.item() > 0.99) is passes
        assert passes or dc_0.item() == 0


def test_without_a_limit_or_far_from_it_nothing_changes():
    x, state, dy, dstate = batch()
    results = []
    for limit, kernel in ((None, "reference"), (1e6, "auto"), (None, "auto")):
        layer = layer_of(limit, kernel=kernel)
        y, final, cache = layer.forward(x, state)
        dx, dstate_0, grads = layer.backward(cache, dy, dstate)
        results.append([y, *final, dx, *dstate_0, *grads.values()])
        assert layer.kernel_names == ("fused" if (limit, kernel) == (None, "auto") else "reference",)
    for plain, far, fused in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, far)
        np.testing.assert_allclose(fused, plain, rtol=1e-10, atol=1e-13)


def test_what_is_not_a_number_stays_one():
    x, state, _, _ = batch()
    x[1, 2, 0] = np.nan
    y, _, _ = layer_of().forward(x, state)
    assert np.isnan(y[1, 2:]).all()
    assert np.isfinite(y[[0, 2]]).all()


# ---- who has it, and who refuses it


def test_kernels_that_do_not_know_it_refuse_it_and_auto_takes_the_reference():
    assert LSTM(3, 4, cell_clip=1.0).kernel_names == ("reference",)
    assert LSTM(3, 4).kernel_names == ("fused",)
    for kernel in ("fused", "lean"):
        line = f"kernel '{kernel}' does not run a lstm layer of 4 units in float32, cell_clip 1.0 on the numpy backend"
        with pytest.raises(ValueError, match=line):
            LSTM(3, 4, cell_clip=1, kernel=kernel)
    assert "reference" in SequenceClassifier(3, 4, 2, cell_clip=1.0).summary()


def test_other_cells_refuse_it_in_words():
    for cell in set(LAYERS) - {"lstm"}:
        with pytest.raises(OptionError, match=rf"cell_clip is 1\.0, but {cell} layers have no cell_clip"):
            SequenceClassifier(3, 4, 2, cell=cell, cell_clip=1.0)
        with pytest.raises(ValueError, match=rf"no kernel runs a {cell} layer of 4 units in float32, cell_clip 1\.0"):
            Recurrent(3, 4, cell=cell, cell_clip=1.0)
    for layer in (GRU, RNN):
        with pytest.raises(TypeError, match="unexpected keyword argument 'cell_clip'"):
            layer(3, 4, cell_clip=1.0)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (0, "cell_clip must be above 0, found 0"),
        (-1.5, "cell_clip must be above 0, found -1.5"),
        (np.nan, "cell_clip must be finite, found nan"),
        ("3", "cell_clip must be a number or None, found '3'"),
        (True, "cell_clip must be a number or None, found True"),
    ],
)
def test_bad_limits(value, line):
    with pytest.raises(OptionError, match=line):
        LSTM(3, 4, cell_clip=value)


def test_a_cell_of_ones_own_has_it_where_it_has_a_cell_state():
    class Own:
        GATES, STATE, VALUES = lstm_np.cells.lstm.GATES, lstm_np.cells.lstm.STATE, lstm_np.cells.lstm.VALUES
        forward, backward = staticmethod(lstm_np.cells.lstm.forward), staticmethod(lstm_np.cells.lstm.backward)

    lstm_np.register_cell("own_for_cell_clip", Own)
    try:
        x, state, _, _ = batch()
        own = Recurrent(3, 4, cell="own_for_cell_clip", cell_clip=LIMIT, dtype="float64", seed=1)
        assert own.kernel_names == ("reference",)
        np.testing.assert_array_equal(
            own.forward(x, state)[1][1], LSTM(3, 4, cell_clip=LIMIT, dtype="float64", seed=1).forward(x, state)[1][1]
        )
    finally:
        del lstm_np.cells.CELLS["own_for_cell_clip"]


def test_a_reference_kernel_for_a_cell_without_a_cell_state_does_not_run_it():
    spec = LayerSpec(lstm_np.cells.get_cell("gru"), 3, 4, True, "float32", {"cell_clip": 1.0})
    with pytest.raises(ValueError, match="kernel 'reference' does not run a gru layer"):
        choose_kernel("reference", spec, lstm_np.get_backend("numpy"))


# ---- where it is said


def test_in_a_recipe(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "T"\ndescription = "D"\n[model]\ncell_clip = 3\n')
    assert load_recipe(str(path)).model.cell_clip == 3.0
    assert load_recipe().model.cell_clip is None


def test_in_a_weights_file(tmp_path):
    model = SequenceClassifier(3, 4, 2, cell_clip=np.float32(0.5))
    model.save(tmp_path / "w")
    loaded = SequenceClassifier.load(tmp_path / "w")
    assert loaded.config["cell_clip"] == 0.5
    x = 3 * np.random.default_rng(4).standard_normal((5, 8, 3))
    np.testing.assert_array_equal(loaded.logits(x), model.logits(x))
    assert not np.array_equal(loaded.copy(cell_clip=None).logits(x), model.logits(x))


def test_training_on_a_strict_device_equals_numpy_bit_for_bit():
    rng = np.random.default_rng(8)
    x, labels = rng.standard_normal((12, 4, 5)).astype("float32"), rng.integers(0, 3, 12)
    trained = []
    for backend in ("numpy", STRICT):
        model = SequenceClassifier(5, 4, 3, backend=backend, cell_clip=0.1, seed=7, num_layers=2)
        model.fit(x, labels, epochs=3, batch_size=6, optimizer=SGD(model.params, lr=0.1, momentum=0.9))
        trained.append(to_host(model.params.flat))
    np.testing.assert_array_equal(*trained)
