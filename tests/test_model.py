"""The sequence classifier: learning, evaluating, predicting, saving, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.cells import get_cell
from lstm_np.kernels import KERNELS, LayerSpec, kernel_class


def toy(n=200, seed=0):
    """Sequences whose class is the position (0, 1 or 2) of their largest first feature."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (n, 3, 4))
    labels = rng.integers(0, 3, n)
    x[np.arange(n), labels, 0] += 2
    return x, labels


def test_it_learns():
    x, labels = toy()
    model = lstm_np.SequenceClassifier(4, 16, 3)
    before = model.evaluate(x, labels)
    epochs = model.fit(x, labels, epochs=15, batch_size=20, optimizer=lstm_np.Adam(model.params, lr=1e-2))
    after = model.evaluate(*toy(seed=1))
    assert before.accuracy < 0.7
    assert after.accuracy > 0.95
    assert len(epochs) == 15
    assert epochs[-1].train.loss < epochs[0].train.loss
    assert epochs[-1].steps == 150


def test_training_is_repeatable_to_the_bit():
    x, labels = toy()
    runs = []
    for _ in range(2):
        model = lstm_np.SequenceClassifier(4, 8, 3, num_layers=2, dropout=0.3, seed=5)
        model.fit(x, labels, epochs=2, clip_norm=1.0)
        runs.append(model.params.flat.copy())
    np.testing.assert_array_equal(*runs)


def test_one_hot_labels_are_integer_labels():
    x, labels = toy(20)
    model = lstm_np.SequenceClassifier(4, 5, 3)
    loss, grads = model.loss_and_gradients(x, labels)
    again, same = model.loss_and_gradients(x, np.eye(3)[labels])
    assert loss == again
    np.testing.assert_array_equal(grads.flat, same.flat)


def test_gradients_belong_to_the_caller():
    x, labels = toy(20)
    model = lstm_np.SequenceClassifier(4, 5, 3)
    _, grads = model.loss_and_gradients(x, labels)
    before = grads.flat.copy()
    model.loss_and_gradients(*toy(20, seed=2))
    np.testing.assert_array_equal(grads.flat, before)


def test_evaluate_is_the_mean_over_samples_whatever_the_batches():
    x, labels = toy(50)
    model = lstm_np.SequenceClassifier(4, 5, 3, dtype="float64")
    whole, cut = model.evaluate(x, labels), model.evaluate(x, labels, batch_size=7)
    assert whole.loss == pytest.approx(model.loss_and_gradients(x, labels)[0], rel=1e-12)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-12)
    assert (cut.correct, cut.count) == (whole.correct, 50)
    assert whole.accuracy == (model.predict(x) == labels).mean()


def test_probabilities_are_the_softmax_of_the_logits():
    x, _ = toy(9)
    model = lstm_np.SequenceClassifier(4, 5, 3, dtype="float64", num_layers=2, bidirectional=True)
    p = model.predict_proba(x, batch_size=4)
    z = model.logits(x)
    np.testing.assert_allclose(p, np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_array_equal(model.predict(x), z.argmax(axis=1))


def test_the_two_read_outs_differ_only_where_they_should():
    x, labels = toy(6)
    arguments = {"dtype": "float64", "num_layers": 2}
    for both in (False, True):
        final, last = (
            lstm_np.SequenceClassifier(4, 5, 3, read_out=r, bidirectional=both, **arguments)
            for r in ("final_state", "last_output")
        )
        same = np.allclose(final.logits(x), last.logits(x), rtol=1e-12)
        assert same is not both
        if not both:
            np.testing.assert_allclose(
                final.loss_and_gradients(x, labels)[1].flat, last.loss_and_gradients(x, labels)[1].flat, rtol=1e-9
            )


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("mask", ["step", "sequence"])
@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_of_all_outputs_drops_what_is_read(layers, mask, both):
    """The states that the default read-out takes are outputs: they are dropped, and scaled up, as the others are."""
    x, labels = toy(400)
    settings = {"num_layers": layers, "bidirectional": both, "dropout": 0.4, "dropout_mask": mask, "dtype": "float64"}
    model = lstm_np.SequenceClassifier(4, 50, 3, dropout_outputs="all", **settings)
    inside = x.transpose(2, 1, 0).astype("float64")
    plain, read = (model.run(inside, save=False, dropout_key=key)[1] for key in (None, (3,)))
    dropped = read == 0
    assert dropped.mean() == pytest.approx(0.4, abs=0.02)
    if layers == 1:
        np.testing.assert_allclose(read[~dropped], plain[~dropped] / 0.6)
    assert (model.run(inside, save=False, dropout_key=(4,))[1] != read).any()
    np.testing.assert_array_equal(model.run(inside, save=False, dropout_key=(3,))[1], read)
    assert lstm_np.gradcheck(model, batch_size=3, steps=4, entries=6, dropout_key=(3,)).ok
    assert model.loss_and_gradients(x, labels, dropout_key=(1,))[0] != model.loss_and_gradients(x, labels)[0]


def test_a_mask_of_a_whole_sequence_is_the_same_for_both_read_outs():
    x, labels = toy(6)
    settings = {"dropout": 0.5, "dropout_outputs": "all", "dropout_mask": "sequence", "dtype": "float64"}
    final, last = (lstm_np.SequenceClassifier(4, 5, 3, read_out=r, **settings) for r in ("final_state", "last_output"))
    found, expected = (model.loss_and_gradients(x, labels, dropout_key=(2,)) for model in (final, last))
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(found[1].flat, expected[1].flat, rtol=1e-9)


def test_between_layers_the_read_out_is_left_alone():
    x, _ = toy(6)
    model = lstm_np.SequenceClassifier(4, 5, 3, num_layers=2, dropout=0.5)
    assert (model.run(x.transpose(2, 1, 0).astype("float32"), save=False, dropout_key=(1,))[1] != 0).all()


@pytest.mark.parametrize("name", list(KERNELS))
def test_every_kernel_says_how_much_memory_it_takes(name):
    """`train` asks before it begins."""
    spec = LayerSpec(get_cell("lstm"), 3, 4, True, "float32")
    kernel = kernel_class(name)
    host = name in lstm_np.get_backend("numpy").kernels
    if host:
        made = kernel(spec, lstm_np.get_backend("numpy"))
        assert sum(made.host_values(20, 30)) > sum(made.host_values(10, 30)) > sum(made.host_values(10, 10)) > 0
    assert callable(kernel.host_values)


def test_a_saved_model_comes_back(tmp_path):
    x, labels = toy(30)
    model = lstm_np.SequenceClassifier(4, 5, 3, num_layers=2, bidirectional=True, read_out="last_output", seed=3)
    model.fit(x, labels)
    model.notes = {"view": "rows"}
    model.save(tmp_path / "weights.safetensors")
    again = lstm_np.SequenceClassifier.load(tmp_path / "weights.safetensors")
    assert again.config == model.config
    assert again.notes == {"view": "rows"}
    np.testing.assert_array_equal(again.logits(x), model.logits(x))


def test_the_summary_counts_every_parameter():
    model = lstm_np.SequenceClassifier(28, 128, 10, kernel="reference")
    text = model.summary()
    assert "80,384" in text
    assert "1,290" in text
    assert text.endswith("81,674 parameters, float32, numpy backend")
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_loss_that_is_not_finite_stops_before_the_parameters_change():
    x, labels = toy(40)
    model = lstm_np.SequenceClassifier(4, 5, 3)
    model.params["readout.b"] = np.full(3, np.nan, np.float32)
    before = model.params.flat.copy()
    message = (
        r"^training diverged at step 1: the loss is nan since readout.b was not finite already \(\[0\] is nan\); param"
    )
    with pytest.raises(lstm_np.TrainingDivergedError, match=message):
        model.fit(x, labels)
    np.testing.assert_array_equal(model.params.flat, before)


BAD_INPUT = {
    r"x must have shape \(B, T, 4\) with B, T >= 1, found \(20, 3, 5\)": lambda x, y: (np.ones((20, 3, 5)), y),
    r"x must have shape \(B, T, 4\) with B, T >= 1, found \(20, 12\)": lambda x, y: (x.reshape(20, 12), y),
    r"x has values that are not finite": lambda x, y: (np.where(x == x[3, 1, 2], np.nan, x), y),
    r"labels must be 0 ... 2, found 0 ... 3": lambda x, y: (x, np.arange(20) % 4),
    r"labels must be 0 ... 2, found -1 ... ": lambda x, y: (x, y - 1),
    r"labels must be integers \(20,\) or one-hot \(20, 3\), found int64 \(19,\)": lambda x, y: (x, y[:19]),
    r"labels must be integers \(20,\) or one-hot \(20, 3\), found float64 \(20,\)": lambda x, y: (x, y * 1.0),
    r"one-hot labels need exactly one 1 and 2 zeros in each row": lambda x, y: (x, np.ones((20, 3), int)),
}


@pytest.mark.parametrize("message", list(BAD_INPUT))
@pytest.mark.parametrize("method", ["loss_and_gradients", "evaluate", "fit"])
def test_bad_input_is_refused_in_one_line(method, message):
    x, labels = toy(20)
    labels[:3] = [0, 1, 2]
    x, labels = BAD_INPUT[message](x, labels)
    with pytest.raises(ValueError, match=message) as refused:
        getattr(lstm_np.SequenceClassifier(4, 5, 3), method)(x, labels)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2, found 1"),
        ({"cell": "qrnn"}, "unknown cell 'qrnn'; there are: lstm"),
        ({"read_out": "first"}, "unknown read_out 'first'; there are: final_state, last_output"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, found 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lstm_np.SequenceClassifier(**({"input_size": 4, "hidden_size": 5, "num_classes": 3} | arguments))


def test_an_empty_prediction_is_refused():
    with pytest.raises(ValueError, match=r"with B, T >= 1, found \(0, 3, 4\)"):
        lstm_np.SequenceClassifier(4, 5, 3).predict(np.ones((0, 3, 4)))
