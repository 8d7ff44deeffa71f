"""What the tutorial systems ask of layers and model: a gradient check of all of it, and what each option means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_np
from lstm_np import losses, options
from lstm_np.layers import GRU, LAYERS, LSTM, RNN
from lstm_np.model import SequenceClassifier
from lstm_np.optimizers import SGD
from tests.strict_backend import STRICT, to_host

CELLS = tuple(LAYERS)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("case", range(8))
def test_gradient_check_of_random_layers(cell, case):
    rng = np.random.default_rng([case, len(cell)])
    D, H = rng.choice(np.arange(1, 7), 2, replace=False).tolist()
    settings = {
        "num_layers": int(rng.integers(1, 4)),
        "bias": (True, False, "double")[case % 3],
        "bidirectional": bool(case & 1),
        "dropout": 0.4 if case & 2 else 0.0,
        "dropout_outputs": str(rng.choice(["between", "all"])),
        "dropout_mask": str(rng.choice(["step", "sequence"])),
        "initializer": ("keras", "torch", "tf1")[case // 3],
        "seed": case,
    }
    if cell == "lstm" and case % 3 != 1 and case & 4:
        settings["forget_bias_at"] = "run"
    with options.silent():
        layer = LAYERS[cell](D, H, **settings)
    report = lstm_np.gradcheck(layer, batch_size=2, steps=3, seed=case, entries=8, dropout_key=(case,))
    assert report.ok, str(report)


MODELS = {
    "projection": {"input_projection": 6},
    "projection, double bias": {"input_projection": 2, "bias": "double", "num_layers": 2},
    "run-time forget bias": {"forget_bias_at": "run", "initializer": "tf1"},
    "softmax twice": {"loss": "softmax_twice"},
    "softmax twice, projection": {"loss": "softmax_twice", "input_projection": 3, "bidirectional": True},
    "dropout on the top": {"num_layers": 3, "dropout": 0.5, "dropout_outputs": "all", "read_out": "last_output"},
    "both directions, last output": {"bidirectional": True, "read_out": "last_output", "num_layers": 2},
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", list(MODELS))
def test_gradient_check_of_models(cell, name):
    given = MODELS[name] if cell == "lstm" else {k: v for k, v in MODELS[name].items() if k != "forget_bias_at"}
    model = SequenceClassifier(4, 3, 5, cell=cell, **given)
    report = lstm_np.gradcheck(model, batch_size=3, steps=3, entries=10, dropout_key=(1,))
    assert report.ok, str(report)
    assert [tensor.name for tensor in report.tensors] == list(model.params)


def test_the_parameters_stand_in_the_order_recurrent_projection_readout():
    model = SequenceClassifier(4, 3, 5, input_projection=6, bias="double")
    assert list(model.params) == [
        "layer0.W", "layer0.U", "layer0.b", "layer0.b_h",
        "input_projection.W", "input_projection.b", "readout.W", "readout.b",
    ]  # fmt: skip
    assert model.params.shapes["input_projection.W"] == (6, 4)
    assert model.params.shapes["layer0.W"] == (12, 6)
    assert np.shares_memory(model.params.flat, model.recurrent.params["layer0.b_h"])


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"input_projection": 128, "initializer": "tf1"}, 136_586),
        ({}, 81_674),
        ({"hidden_size": 100}, 52_610),
        ({"bias": "double"}, 82_186),
        ({"cell": "gru_reset_before", "hidden_size": 200, "num_layers": 3}, 620_610),
    ],
)
def test_parameter_counts_of_the_tutorial_systems(options, count):
    model = SequenceClassifier(**{"input_size": 28, "hidden_size": 128, "num_classes": 10, **options})
    assert model.params.flat.size == count
    assert f"{count:,} parameters" in model.summary()


def test_the_projection_is_a_dense_layer_over_every_step():
    rng = np.random.default_rng(0)
    model = SequenceClassifier(4, 3, 5, input_projection=6, dtype="float64", input_projection_bias=0.1)
    plain = SequenceClassifier(6, 3, 5, dtype="float64")
    for name in plain.params:
        plain.params[name] = model.params[name]
    x = rng.standard_normal((2, 7, 4))
    projected = x @ model.params["input_projection.W"].T + 0.1
    np.testing.assert_allclose(model.logits(x), plain.logits(projected), rtol=1e-13)


def test_the_forget_bias_added_at_run_time_trains_like_one_in_the_bias():
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((8, 5, 3)), rng.integers(0, 2, 8)
    models = [
        SequenceClassifier(3, 4, 2, dtype="float64", initializer="tf1", forget_bias=2.0, forget_bias_at=at)
        for at in ("init", "run")
    ]
    for model in models:
        optimizer = SGD(model.params, lr=0.5)
        for _ in range(5):
            optimizer.step(model.loss_and_gradients(x, labels)[1])
    stored, run = (model.params["layer0.b"] for model in models)
    np.testing.assert_allclose(stored - run, np.repeat([0, 2, 0, 0], 4), atol=1e-13)
    np.testing.assert_allclose(models[0].params["layer0.W"], models[1].params["layer0.W"], rtol=1e-12)


def test_a_gru_reads_one_sequence_in_two_halves():
    rng = np.random.default_rng(2)
    for layer in (GRU(3, 4, num_layers=2, dtype="float64"), RNN(3, 4, dtype="float64")):
        x = rng.standard_normal((2, 6, 3))
        whole, final, _ = layer.forward(x)
        first, state, _ = layer.forward(x[:, :2])
        second, last, _ = layer.forward(x[:, 2:], state)
        np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-13)
        np.testing.assert_allclose(last, final, rtol=1e-13)


@settings(max_examples=15, deadline=None)
@given(
    B=st.integers(1, 4), T=st.integers(1, 4), D=st.integers(1, 4), H=st.integers(1, 4),
    L=st.integers(1, 2), both=st.booleans(), reset=st.sampled_from(["after", "before"]),
)  # fmt: skip
def test_shapes_of_a_gru(B, T, D, H, L, both, reset):
    layer = GRU(D, H, num_layers=L, bidirectional=both, reset=reset)
    rows = L * (2 if both else 1)
    y, h_n, cache = layer.forward(np.ones((B, T, D)), np.ones((rows, B, H)))
    dx, dh_0, grads = layer.backward(cache, None, np.ones_like(h_n))
    assert (y.shape, h_n.shape) == ((B, T, layer.output_size), (rows, B, H))
    assert (dx.shape, dh_0.shape) == ((B, T, D), (rows, B, H))
    assert {name: grad.shape for name, grad in grads.items()} == layer.params.shapes
    assert {array.dtype for array in (y, h_n, dx, dh_0, *grads.values())} == {np.dtype("float32")}


def test_a_backward_pass_can_be_repeated():
    layer = GRU(3, 4)
    y, _, cache = layer.forward(np.random.default_rng(3).standard_normal((2, 5, 3)))
    first, again = (layer.backward(cache, np.ones_like(y))[2] for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])


def test_auto_takes_the_fused_kernel_for_every_cell_and_the_reference_where_that_cannot():
    for cell in CELLS:
        model = SequenceClassifier(28, 8, 10, cell=cell)
        assert model.recurrent.kernel_names == ("fused",)
        assert "fused" in model.summary()
        assert SequenceClassifier(28, 8, 10, cell=cell, dtype="complex128").recurrent.kernel_names == ("reference",)
    with pytest.raises(ValueError, match="kernel 'fused' does not run a gru layer"):
        GRU(28, 8, kernel="fused", dtype="complex128")


def test_softmax_twice_cannot_fall_below_its_floor_and_flattens_the_gradient():
    logits = np.zeros((10, 1))
    logits[3] = 50.0
    loss, _, correct = losses.softmax_twice(np, logits, np.array([3]))
    assert float(loss) == pytest.approx(math.log(1 + 9 / math.e), rel=1e-14)
    assert correct == 1
    assert np.abs(losses.softmax_twice(np, logits, np.array([4]))[1]).max() < 1e-15  # sure and wrong: nothing to learn
    assert np.abs(losses.softmax_cross_entropy(np, logits, np.array([4]))[1]).max() > 0.9
    uniform, _, _ = losses.softmax_twice(np, np.zeros((10, 4)), np.arange(4))
    assert float(uniform) == pytest.approx(math.log(10), rel=1e-14)


def test_a_model_is_measured_by_its_own_loss():
    rng = np.random.default_rng(6)
    x, labels = rng.standard_normal((9, 4, 3)), rng.integers(0, 5, 9)
    plain, twice = (SequenceClassifier(3, 4, 5, dtype="float64", loss=loss) for loss in losses.LOSSES)
    for model in (plain, twice):
        assert model.evaluate(x, labels).loss == pytest.approx(model.loss_and_gradients(x, labels)[0], rel=1e-12)
    assert twice.evaluate(x, labels).loss != pytest.approx(plain.evaluate(x, labels).loss, rel=1e-3)


def test_softmax_twice_is_pytorchs():
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "lstm_np[peers]"')
    rng = np.random.default_rng(4)
    logits, labels = 3 * rng.standard_normal((10, 6)), rng.integers(0, 10, 6)
    theirs = torch.from_numpy(logits.T.copy()).requires_grad_()
    expected = torch.nn.functional.cross_entropy(theirs.softmax(dim=1), torch.from_numpy(labels))
    expected.backward()
    loss, dlogits, _ = losses.softmax_twice(np, logits, labels)
    assert float(loss) == pytest.approx(expected.item(), rel=1e-14)
    np.testing.assert_allclose(dlogits.T, theirs.grad.numpy(), atol=1e-16)


def test_a_model_with_every_option_is_stored_whole(tmp_path):
    model = SequenceClassifier(
        4, 3, 5, input_projection=6, input_projection_initializer="normal", input_projection_bias=0.1, bias="double",
        readout_initializer="truncated_normal", readout_bias=0.2, loss="softmax_twice", initializer="tf1",
        forget_bias_at="run", forget_bias=0.5, num_layers=2, dropout=0.2,
    )  # fmt: skip
    x = np.random.default_rng(5).standard_normal((3, 4, 4))
    model.save(tmp_path / "m.safetensors")
    loaded = SequenceClassifier.load(tmp_path / "m.safetensors")
    assert loaded.config == {**model.config, "kernel": "auto"}
    np.testing.assert_array_equal(loaded.logits(x), model.logits(x))
    assert loaded.evaluate(x, np.arange(3)) == model.evaluate(x, np.arange(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "gru", "kernel": "fast"}, "unknown kernel 'fast'"),
        ({"cell": "peephole"}, "unknown cell 'peephole'; there are: lstm, gru, gru_reset_before, rnn, rnn_relu"),
        ({"input_projection": 0}, "input_projection must be at least 1, found 0"),
        ({"input_projection": 2.0}, "input_projection must be a whole number or None, found 2.0"),
        ({"loss": "hinge"}, "unknown loss 'hinge'; there are: softmax, softmax_twice"),
        ({"forget_bias_at": "train"}, "unknown forget_bias_at 'train'; there are: init, run"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(4, 3, 5, **options)


def test_bad_layer_options():
    with pytest.raises(ValueError, match="unknown reset 'never'; there are: after, before"):
        GRU(3, 4, reset="never")
    with pytest.raises(ValueError, match="bias must be true, false or \"double\", found 'both'"):
        LSTM(3, 4, bias="both")
    with pytest.raises(ValueError, match="a forget bias added at run time needs a layer with a bias"):
        LSTM(3, 4, bias=False, forget_bias_at="run")
    with pytest.raises(ValueError, match=r"forget_bias is 2\.0, but the layer has no bias"):
        LSTM(3, 4, bias=False, forget_bias=2)
    with pytest.raises(ValueError, match="unknown nonlinearity 'elu'; there are: tanh, relu"):
        RNN(3, 4, nonlinearity="elu")
    with pytest.raises(ValueError, match="the state has the parts h; found 2 of them"):
        GRU(3, 4).forward(np.ones((1, 2, 3)), (np.ones((1, 1, 4)), np.ones((1, 1, 4))))
    assert LSTM(3, 4, bias=False).config["bias"] is False


def test_dropout_leaves_the_state_alone():
    """TensorFlow 1's DropoutWrapper(output_keep_prob): outputs are dropped, states are not."""
    layer = GRU(3, 6, dropout=0.5, dropout_outputs="all", reset="before")
    x = np.random.default_rng(7).standard_normal((2, 5, 3))
    y, h_n, cache = layer.forward(x, dropout_key=(1,))
    plain, plain_h_n, _ = layer.forward(x)
    np.testing.assert_array_equal(h_n, plain_h_n)
    np.testing.assert_allclose(y, plain * cache["masks"][0].transpose(2, 1, 0), rtol=1e-6)
    assert (y[:, -1] != h_n[0]).any()


DEVICE = {
    "gru": {"cell": "gru", "num_layers": 2, "bidirectional": True, "bias": "double"},
    "gru, reset before": {
        "cell": "gru_reset_before",
        "dropout": 0.3,
        "dropout_outputs": "all",
        "read_out": "last_output",
    },
    "rnn": {"cell": "rnn_relu", "input_projection": 3},
    "lstm": {"forget_bias_at": "run", "bias": "double", "input_projection": 6, "loss": "softmax_twice"},
}


@pytest.mark.parametrize("name", list(DEVICE))
def test_training_on_a_strict_device_equals_numpy_bit_for_bit(name):
    rng = np.random.default_rng(8)
    x, labels = rng.standard_normal((12, 4, 5)).astype("float32"), rng.integers(0, 3, 12)
    trained = []
    for backend in ("numpy", STRICT):
        model = SequenceClassifier(5, 4, 3, backend=backend, kernel="reference", seed=7, **DEVICE[name])
        step = model.training_steps(SGD(model.params, lr=0.1, momentum=0.9), clip_norm=0.5).step
        for number in range(1, 4):
            step((x, labels), number)
        trained.append(to_host(model.params.flat))
    np.testing.assert_array_equal(*trained)
