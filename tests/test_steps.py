"""A training step's four stages, gradients -> reduce -> check -> apply, and what is checked before anything changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import lstm_np
from lstm_np.data import Batches
from lstm_np.loop import Position, TrainingDivergedError, train
from lstm_np.optimizers import clip_by_global_norm
from lstm_np.steps import ModelSteps
from tests.strict_backend import STRICT, to_host

pytestmark = pytest.mark.quick


def batch(B=12, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((B, 4, 3)).astype(dtype), rng.integers(0, 2, B)


def made(steps_class=ModelSteps, clip_norm=None, make=lstm_np.Adam, **settings):
    model = lstm_np.SequenceClassifier(3, 5, 2, **settings)
    return model, steps_class(model, make(model.params), clip_norm=clip_norm)


def everything(model, steps):
    """Copies of all that a step changes."""
    state = steps.state()
    slots = [array for slot in state["optimizer"]["slots"].values() for array in slot.values()]
    return [to_host(model.params.flat).copy(), *slots, np.array(state["optimizer"]["steps"]), state["sums"]]


def assert_unchanged(before, after):
    *arrays, sums = before
    for a, b in zip(arrays, after[:-1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert sums == after[-1]


# ---- the stages


def test_the_stages_come_in_order_and_hand_on_what_they_made():
    told = []

    class Telling(ModelSteps):
        def gradients(self, batch, number):
            told.append(("gradients", number))
            return super().gradients(batch, number)

        def reduce(self, made):
            told.append(("reduce", made.samples))
            return super().reduce(made)

        def check(self, made, batch, number):
            told.append(("check", number))
            return super().check(made, batch, number)

        def apply(self, made):
            told.append(("apply", made.grads.shapes == self.model.params.shapes))
            super().apply(made)

    _, steps = made(Telling)
    loss, correct, samples = steps.step(batch(), 3)
    assert told == [("gradients", 3), ("reduce", 12), ("check", 3), ("apply", True)]
    assert steps.sums.read() == lstm_np.Metrics(float(loss), int(correct) / 12, 12, int(correct))
    assert samples == 12


def test_reduce_can_sum_over_machines():
    """Two halves of a batch, their flat gradients averaged before check and apply, make the step of the whole batch."""
    x, labels = batch()
    whole, steps = made(clip_norm=0.1, dtype="float64")
    steps.step((x, labels), 1)
    other = lstm_np.SequenceClassifier(3, 5, 2, dtype="float64")

    class Half(ModelSteps):
        def reduce(self, made):
            theirs = other.batch_gradients((x[6:], labels[6:]), 1, other.params.empty_like())
            made.grads.flat[...] = (made.grads.flat + theirs.grads.flat) / 2
            return replace(made, loss=(made.loss + theirs.loss) / 2, correct=made.correct + theirs.correct, samples=12)

    model, halves = made(Half, clip_norm=0.1, dtype="float64")
    loss, _, samples = halves.step((x[:6], labels[:6]), 1)
    np.testing.assert_allclose(model.params.flat, whole.params.flat, rtol=1e-12)
    assert (float(loss), samples) == (pytest.approx(steps.sums.read().loss, rel=1e-12), 12)


def test_a_source_is_asked_by_the_position():
    """Its order is keyed by the epoch, and what is drawn for a batch by the steps made, whatever the epoch's length."""
    asked = []

    class Source:
        def __len__(self):
            return 4

        def epoch(self, epoch, start=0, *, step=None):
            asked.append((epoch, start, step))
            return [batch(seed=k) for k in range(start, 4)]

    model = lstm_np.SequenceClassifier(3, 5, 2)
    train(model.training_steps(lstm_np.Adam(model.params), Source()), Position(2, 1, 50), epochs=4)
    assert asked == [(2, 1, 50), (3, 0, 53)]


def test_dropout_is_keyed_by_the_number_of_the_step():
    changed = []
    for number in (1, 2, 2):
        model, steps = made(num_layers=2, dropout=0.5, make=lambda p: lstm_np.SGD(p, lr=0.1))
        steps.step(batch(), number)
        changed.append(model.params.flat.copy())
    assert (changed[0] != changed[1]).any()
    np.testing.assert_array_equal(changed[1], changed[2])
    by_hand = lstm_np.SequenceClassifier(3, 5, 2, num_layers=2, dropout=0.5)
    _, grads = by_hand.loss_and_gradients(*batch(), dropout_key=(2,))
    lstm_np.SGD(by_hand.params, lr=0.1).step(grads)
    np.testing.assert_array_equal(by_hand.params.flat, changed[1])


# ---- the check


def diverging_loss(model):
    model.params["readout.b"][...] = 3e38, -3e38
    return batch()


def diverging_gradient(model):
    """A ReLU that grows tenfold at each of 40 steps: logits of 1e4, and a gradient of W beyond float32."""
    for name, value in {"layer0.W": 1e-37, "layer0.U": 0.0, "layer0.b": 0.0, "readout.W": 0.0}.items():
        model.params[name][...] = value
    np.fill_diagonal(model.params["layer0.U"], 10.0)
    model.params["readout.W"][0] = 1e-28
    x = np.zeros((12, 40, 3), np.float32)
    x[:, 0] = 1e30
    return x, np.ones(12, int)


def marked_as_missing(model):
    x, labels = batch()
    x[3, 1, 2] = -1.7e308  # "no data"; finite in float64 alone
    return x, labels


def not_finite_already(model):
    model.params["layer0.U"][0, 0] = np.inf
    return batch()


DIVERGING = {
    "loss": (
        diverging_loss, {},
        r"the loss is inf; the first value that is not finite is the loss, in samples 0, .* of the batch; .*; lower "
        r"the learning rate \(now 0.001\) or clip",
    ),
    "gradient": (
        diverging_gradient, {"cell": "rnn_relu"},
        r"the loss is \S+ but the gradient norm is (inf|nan); .*; lower the learning rate \(now 0.001\) or clip",
    ),
    "x": (marked_as_missing, {}, r"the gradient norm is nan since x has values that are not finite in float32 "
        r"\(sample 3 of the batch, first at time step 1, feature 2, where it is -inf\); "),
    "parameter": (
        not_finite_already, {}, r"is nan since layer0.U was not finite already \(\[0, 0\], in gate i, is inf\); ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("name", list(DIVERGING))
def test_nothing_changes_when_a_step_diverges(name, clip_norm):
    spoil, settings, message = DIVERGING[name]
    model, steps = made(clip_norm=clip_norm, **settings)
    steps.step(batch(), 1)
    diverging = spoil(model)
    before = everything(model, steps)
    with pytest.raises(TrainingDivergedError, match=f"^training diverged at step 2: .*{message}") as error:
        steps.step(diverging, 2)
    assert "parameters and optimizer are as before this step" in str(error.value)
    assert "\n" not in str(error.value)
    assert_unchanged(before, everything(model, steps))


def test_the_old_name_of_the_error_is_the_same_error():
    assert lstm_np.NonFiniteLossError is lstm_np.TrainingDivergedError is TrainingDivergedError


def large_gradient(model):
    """Finite, but its squares are not in float32."""
    model.params["readout.W"][...] = 1e-22
    model.params["layer0.U"][...] = 0.0
    model.params["layer0.W"][...] = 1e-5
    return np.full((12, 4, 3), 1e26, np.float32), np.ones(12, int)


def test_a_finite_gradient_whose_squares_overflow_is_clipped_by_its_true_norm():
    model, steps = made(clip_norm=2.0, cell="rnn_relu", make=lambda p: lstm_np.SGD(p, lr=1.0))
    large = large_gradient(model)
    expected = model.batch_gradients(large, 1, model.params.empty_like()).grads.flat.astype("float64")
    norm = np.linalg.norm(expected)
    assert 2e19 < norm < 1e35
    before = model.params.flat.copy()
    steps.step(large, 1)
    moved = (before - model.params.flat).astype("float64")
    np.testing.assert_allclose(moved, 2.0 / norm * expected, atol=1e-6)
    assert np.linalg.norm(moved) == pytest.approx(2.0, rel=1e-6)


def test_and_is_refused_where_it_is_not_clipped():
    model, steps = made(cell="rnn_relu")
    large = large_gradient(model)
    before = everything(model, steps)
    with pytest.raises(TrainingDivergedError, match=r"the loss is \S+ but the gradient norm is \d\S*e\+\d\d; "):
        steps.step(large, 1)
    assert_unchanged(before, everything(model, steps))


@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_clipping_uses_the_norm_of_the_check(clip_norm, monkeypatch):
    model, steps = made(clip_norm=clip_norm, make=lambda p: lstm_np.SGD(p, lr=0.1))
    by_hand, optimizer = made(make=lambda p: lstm_np.SGD(p, lr=0.1))[0], None
    _, grads = by_hand.loss_and_gradients(*batch())
    clip_by_global_norm(grads, clip_norm)
    optimizer = lstm_np.SGD(by_hand.params, lr=0.1)
    optimizer.step(grads)
    asked = []
    whole = type(model.backend).squared_norm
    monkeypatch.setattr(type(model.backend), "squared_norm", lambda self, v: asked.append(v.size) or whole(self, v))
    steps.step(batch(), 1)
    assert asked == [model.params.flat.size]
    np.testing.assert_array_equal(model.params.flat, by_hand.params.flat)


# ---- a device


def test_a_device_is_waited_for_at_looks_alone():
    """The strict device refuses to become a host value unasked, and `to_host` is only called by `look`."""
    model = lstm_np.SequenceClassifier(3, 5, 2, backend=STRICT, kernel="reference")
    read = []
    counting = replace(STRICT, to_host=lambda array: read.append(array) or to_host(array))
    model.backend = model.head.backend = counting
    steps = model.training_steps(lstm_np.Adam(model.params), clip_norm=0.5)
    read.clear()
    steps.step(batch(), 1)
    assert [type(array) for array in read] == [np.ndarray]  # the labels, which came from the host
    assert steps.look().count == 12
    assert len(read) > 1


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda model: model.params["readout.b"].__setitem__(0, float("nan")), "nan, the parameters are not finite"),
        (lambda model: model.params["layer0.U"].__setitem__((0, 0), float("inf")), "parameters are not finite"),
    ],
)
def test_a_device_finds_at_a_look_that_training_has_diverged(spoil, found):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((60, 4, 3)), rng.integers(0, 2, 60)
    model = lstm_np.SequenceClassifier(3, 5, 2, backend=STRICT, kernel="reference")
    steps = model.training_steps(lstm_np.Adam(model.params), Batches(x, labels, 1, dtype="float32"))
    with pytest.raises(TrainingDivergedError, match=rf"^training diverged by step 30: .*{found}"):
        train(steps, epochs=1, on_step=lambda step: spoil(model) if step.number == 29 else None)  # 3 steps a look


def test_parameters_that_are_not_finite_are_found_though_the_loss_is():
    """The update of an epoch's last step: no loss has seen it."""
    model = lstm_np.SequenceClassifier(3, 5, 2, backend=STRICT, kernel="reference")
    steps = model.training_steps(lstm_np.Adam(model.params))
    steps.step(batch(), 1)
    model.position = Position(0, 1, 1)
    model.params["layer0.U"][0, 0] = float("inf")
    with pytest.raises(
        TrainingDivergedError, match=r"by step 1: the mean loss of the epoch is 0\.\d+, the parameters are"
    ):
        steps.look()


# ---- what does not fit

BAD_BATCHES = {
    r"labels must be 0 ... 1, found 0 ... 7": lambda x, y: (x, np.where(np.arange(12) == 5, 7, y)),
    r"labels must be 0 ... 1, found -100 ... ": lambda x, y: (x, np.where(np.arange(12) == 5, -100, y)),
    r"labels must be integers \(12,\) or one-hot \(12, 2\), found float64 \(12,\)": lambda x, y: (x, y * 1.0),
    r"labels must be integers \(12,\) or one-hot \(12, 2\), found int64 \(11,\)": lambda x, y: (x, y[:11]),
    r"x must have shape \(B, T, 3\) with B, T >= 1, found \(12, 4, 2\)": lambda x, y: (x[..., :2], y),
}


@pytest.mark.parametrize("message", list(BAD_BATCHES))
def test_a_batch_that_does_not_fit_is_refused_and_nothing_changes(message):
    model, steps = made()
    before = everything(model, steps)
    x, labels = batch()
    labels[:2] = 0, 1
    with pytest.raises(ValueError, match=message):
        steps.step(BAD_BATCHES[message](x, labels), 1)
    assert_unchanged(before, everything(model, steps))


@pytest.mark.parametrize("clip_norm", [-1, 0, float("nan"), float("inf"), "1"])
def test_a_clip_norm_is_a_finite_number_above_zero(clip_norm):
    model = lstm_np.SequenceClassifier(3, 5, 2)
    message = f"clip_norm must be a finite number above 0, or None for no clipping; found {clip_norm!r}"
    with pytest.raises(ValueError, match=message):
        model.training_steps(lstm_np.Adam(model.params), clip_norm=clip_norm)


def test_another_models_optimizer_is_refused():
    model = lstm_np.SequenceClassifier(3, 5, 2)
    for other in (lstm_np.SequenceClassifier(3, 5, 2), model.copy()):
        with pytest.raises(
            ValueError, match=r"this optimizer updates other parameters .*: make it anew, Adam\(model\.par"
        ):
            model.training_steps(lstm_np.Adam(other.params))
