"""Targets that are lists beside masks, are decided for a whole data set, or count in unequal shares; and hints."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import lstm_np
from lstm_np import callbacks, losses
from lstm_np.data import Batches, DatasetError
from lstm_np.loop import train
from lstm_np.metrics import Answers, Running, RunningErrors
from tests.model.cases import B, D, H, K, T, inputs, make, targets

pytestmark = pytest.mark.quick

N = 8
LEFT = np.arange(T) >= T - np.array([5, 1, 3, 4, 2, 5, 3, 1])[:, None]
HOLES = np.random.default_rng(4).random((N, T)) < 0.6
HOLES[2] = False  # a sequence without steps
W = [0.5, 2.0, 1.25]


def standing(model):
    """An optimizer that changes no parameter."""
    return lstm_np.SGD(model.params, lr=1e-300)


# ---- lists of targets


@pytest.mark.parametrize("mask", [LEFT, HOLES, np.arange(T) < 3], ids=["padded on the left", "holes", "equal lengths"])
@pytest.mark.parametrize("kind", ["softmax", "softmax, probabilities", "binary", "squared"])
def test_a_list_of_targets_stands_where_the_mask_has_steps(kind, mask):
    mask = np.broadcast_to(mask, (N, T))
    model, other = make(kind, read_out="each_step"), make(kind, read_out="each_step")
    x, y = inputs(N), targets(kind, True, N)
    listed = [row[own].tolist() for row, own in zip(y, mask, strict=True)]
    assert model.evaluate(x, listed, mask=mask) == model.evaluate(x, y, mask=mask)
    loss, grads = model.loss_and_gradients(x, listed, mask=mask)
    expected, same = model.loss_and_gradients(x, y, mask=mask)
    assert loss == expected
    np.testing.assert_array_equal(grads.flat, same.flat)
    history = model.fit(x, listed, mask=mask, batch_size=3)
    assert history == other.fit(x, y, mask=mask, batch_size=3)
    np.testing.assert_array_equal(model.params.flat, other.params.flat)


def test_lists_of_equal_length_are_taken_as_unequal_ones_are():
    model, x, y = make("softmax", read_out="each_step"), inputs(N), targets("softmax", True, N)
    three = [row[:3] for row in y]
    assert model.evaluate(x, three, lengths=[3] * N) == model.evaluate(x, y, lengths=[3] * N)
    for _, labels, lengths in Batches(x, three, 4, lengths=[3] * N, shuffle=False).epoch(0):
        assert (labels.shape, lengths.tolist()) == ((4, T), [3] * 4)
        assert (labels[:, 3:] == 0).all()
    with pytest.raises(ValueError, match="labels of sequence 0 are of 3 steps, but it has 4, each with a target"):
        model.evaluate(x, three, lengths=[4] * N)
    numbers, other = make("squared", read_out="each_step"), [np.ones((3, 2 if k == 1 else K)) for k in range(N)]
    with pytest.raises(ValueError, match=r"y of sequence 1 have shape \(3, 2\), those of sequence 0 \(3, 3\); they m"):
        numbers.evaluate(x, other, lengths=[3] * N)


def test_batches_compare_each_list_of_targets_with_its_sequence():
    x, y = inputs(N), targets("squared", True, N)
    sequences = [row[own] for row, own in zip(x, LEFT, strict=True)]
    listed = [row[own] for row, own in zip(y, LEFT, strict=True)]
    for found, (_, wanted, lengths) in enumerate(Batches(sequences, listed, 1, shuffle=False).epoch(0)):
        np.testing.assert_array_equal(wanted[0, : lengths[0]], listed[found])
    for found, (_, wanted, mask) in enumerate(Batches(x, listed, 1, mask=LEFT, shuffle=False).epoch(0)):
        np.testing.assert_array_equal(wanted[mask], listed[found])
        assert not wanted[~mask].any()
    with pytest.raises(DatasetError, match="labels of sequence 3 are of 3 steps, but it has 4, each with a target"):
        Batches(sequences, [*listed[:3], listed[3][:3], *listed[4:]], 2)
    with pytest.raises(DatasetError, match="labels of sequence 1 are of 1 steps, but it has 5, each with a target"):
        Batches(x, listed, 2)  # without lengths all sequences have all steps
    vectors = Batches(x, np.eye(3)[np.arange(N) % 3].tolist(), 2, shuffle=False)
    assert vectors.labels.shape == (N, 3)


# ---- one-hot or probabilities


def soft(first):
    """(N, K) probabilities, of which half the rows are one-hot: the first half or the last."""
    one_hot, p = np.eye(K)[np.arange(N // 2) % K], targets("softmax, probabilities", False, N // 2)
    return np.concatenate((one_hot, p) if first else (p, one_hot))


def by_hand(model, x, p):
    return float(losses.cross_entropy(np, model.logits(x).T, p.T, class_weights=np.array(W))[0])


@pytest.mark.parametrize("first", [True, False])
def test_whether_targets_are_probabilities_is_decided_for_the_whole_data_set(first):
    """A batch or a part in which all happen to be one-hot counts as the others do."""
    model, x, p = make("softmax, probabilities"), inputs(N), soft(first)
    expected = by_hand(model, x, p)
    for size in (1, 2, 4, 512):
        assert model.evaluate(x, p, batch_size=size).loss == pytest.approx(expected, rel=1e-12)
    halves = [(x[:4], p[:4]), (x[4:], p[4:])]
    assert model.evaluate_batches(halves).loss == pytest.approx(expected, rel=1e-12)
    for size in (1, 4):
        (epoch,) = model.fit(x, p, batch_size=size, shuffle=False, optimizer=standing(model))
        assert epoch.train.loss == pytest.approx(expected, rel=1e-12)
    (epoch,) = model.fit(x, p, validation_split=0.5, optimizer=standing(model))
    assert epoch.train.loss == pytest.approx(by_hand(model, x[:4], p[:4]), rel=1e-12)
    assert epoch.validation.loss == pytest.approx(by_hand(model, x[4:], p[4:]), rel=1e-12)


def test_a_data_set_that_is_one_hot_is_one_of_classes():
    labels = np.arange(N) % K
    model, other = make("softmax, probabilities"), make("softmax, probabilities")
    assert model.fit(inputs(N), np.eye(K)[labels], batch_size=3) == other.fit(inputs(N), labels, batch_size=3)
    np.testing.assert_array_equal(model.params.flat, other.params.flat)


# ---- weights


def test_weights_that_sum_to_the_count_are_weights():
    """In evaluation, in the looks of an epoch, and in one that is gone on with in its middle."""
    model, x, s = make("softmax"), inputs(N), np.array([0.5, 1.5] * 4)
    y = model.predict(x)
    y[1::2] = (y[1::2] + 1) % K  # right where the weights are small
    metrics = model.evaluate(x, y, sample_weight=s)
    assert (metrics.accuracy, metrics.correct, metrics.count) == (0.25, 4, N)
    batches = Batches(x, y, 2, weights=s, shuffle=False, dtype="float64")
    other = model.copy()
    steps, again = (one.training_steps(standing(one), batches) for one in (model, other))
    train(steps, epochs=1, max_steps=3)
    again.restore(steps.state())
    (expected,), (epoch,) = train(steps, epochs=1), train(again, lstm_np.Position(0, 3, 3), epochs=1)
    assert epoch == expected
    assert epoch.train.accuracy == 0.25
    assert [accuracy for _, accuracy in epoch.looks] == [0.25] * len(epoch.looks)


def test_metrics_since_others_of_which_one_side_alone_has_weights():
    now, seen = lstm_np.Metrics(0.75, 0.5, 4, 2, (6.0, 6.0)), lstm_np.Metrics(0.5, 1.0, 2, 2)
    assert now.since(seen) == pytest.approx(((0.75 * 6 - 0.5 * 2) / 4, (0.5 * 6 - 1.0 * 2) / 4))
    now, seen = lstm_np.Metrics(0.75, 0.5, 8, 4), lstm_np.Metrics(0.5, 1.0, 2, 2, (3.0, 3.0))
    assert now.since(seen) == pytest.approx(((0.75 * 8 - 0.5 * 3) / 5, (0.5 * 8 - 1.0 * 3) / 5))


def test_the_weights_of_right_answers_are_summed_in_float64():
    sums, large = Running(lstm_np.get_backend("numpy")), 2.0**24
    for weight in (large, 1.0, 1.0):
        sums.add(np.float32(0.5), np.int64(1), 1, Answers(1, weight, weight, np.float32(weight)))
    assert sums.state()["right"] == large + 2
    assert sums.read().accuracy == 1.0


# ---- where nothing counts


@pytest.mark.parametrize("kind", ["softmax", "squared"])
def test_an_epoch_in_which_nothing_counts_has_a_record(kind):
    model, x = make(kind, read_out="each_step"), inputs(N)
    y, none = targets(kind, True, N), np.zeros(N)
    history = model.fit(x, y, sample_weight=none, epochs=2, batch_size=2)
    assert [(one.number, one.steps, one.complete, one.looks) for one in history] == [(1, 4, True, ()), (2, 8, True, ())]
    assert math.isnan(history[0].train.loss)
    assert history[0].train.divisor == 0
    assert repr(history).splitlines()[-1].split()[:3] == ["2", "-", "-"]
    with pytest.raises(ValueError, match="there is no epoch to draw"):
        history.plot()


def test_an_epoch_whose_labels_are_all_ignored_has_a_record():
    model = make("softmax, class weights, smoothed, ignored")
    (epoch,) = model.fit(inputs(N), np.full(N, -7), batch_size=2)
    assert (epoch.train.count, epoch.steps, epoch.looks) == (0, 4, ())
    assert math.isnan(epoch.train.loss)


@pytest.mark.parametrize("kind", ["softmax, class weights, smoothed, ignored", "squared"])
def test_nothing_counted_yet_is_no_divergence_where_reads_are_not_free(kind):
    x, y, s = inputs(N), targets(kind, False, N), np.array([0.0] * 4 + [1.0] * 4)
    if kind != "squared":
        y[:4], s = -7, None
        y[4:] = [0, 1, 2, 1]
    pretended = replace(lstm_np.get_backend("numpy"), reads_are_free=False)
    model = make(kind, backend=pretended)
    (epoch,) = model.fit(x, y, sample_weight=s, batch_size=1, shuffle=False, optimizer=standing(model))
    plain = make(kind)
    expected = plain.evaluate(x[4:], y[4:]).loss
    assert epoch.train.loss == pytest.approx(expected, rel=1e-12)
    assert len(epoch.looks) == 3  # of the last four batches: two, and two together
    model.params["readout.b"] = np.nan
    with pytest.raises(lstm_np.TrainingDivergedError):
        model.fit(x, y, sample_weight=s, batch_size=1, shuffle=False, optimizer=standing(model))


# ---- what is said


def test_predictions_of_a_list_are_a_list_whatever_its_lengths():
    x, y = inputs(N), targets("softmax", True, N)
    for kind, shape in (("softmax", (T,)), ("squared", (T, K))):
        model = make(kind, read_out="each_step")
        whole = model.predict(x)
        for given in (list(x), x.tolist(), lstm_np.pack(list(x))):
            found = model.predict(given)
            assert isinstance(found, list)
            assert [one.shape for one in found] == [shape] * N
            np.testing.assert_allclose(np.stack(found), whole, rtol=1e-12)
    model = make("softmax", read_out="each_step")
    assert [one.shape for one in model.predict_proba(list(x))] == [(T, K)] * N
    assert model.evaluate(list(x), list(y)) == model.evaluate(x, y)


@pytest.mark.parametrize("kind", ["softmax", "softmax, probabilities", "squared", "binary"])
@pytest.mark.parametrize("each", [True, False])
def test_a_trace_has_its_targets_batch_first(kind, each):
    y = targets(kind, each)
    y = np.where(y == 5, 1, y) if kind == "binary" else y
    model = make(kind, read_out="each_step" if each else "final_state")
    np.testing.assert_array_equal(lstm_np.trace(model, inputs(), y).about["classes"], y)
    assert lstm_np.trace(model, inputs(), target=1).about["classes"] == [1] * B


def test_a_label_that_pytorch_ignores_is_recognized():
    for loss, labels in (("softmax", np.array([0, -100, 1, 2])), ("binary", np.full((4, K), -100))):
        model = lstm_np.SequenceClassifier(D, H, K, loss=loss)
        with pytest.raises(ValueError, match=r"found -100 \.\.\. .*; labels of -100 count nothing with ignored_label="):
            model.fit(inputs(), labels)
    with pytest.raises(ValueError, match=r"found -1 \.\.\. 2$"):
        make("softmax").fit(inputs(), np.array([0, -1, 1, 2]))
    lstm_np.SequenceClassifier(D, H, K, ignored_label=-100).fit(inputs(), np.array([0, -100, 1, 2]))


def test_a_step_of_several_batches_wants_a_list_of_them():
    model, batch = make("softmax"), (inputs(), targets("softmax", False))
    steps = model.training_steps(lstm_np.Adam(model.params), accumulate=2)
    for wrong, found in ((batch, "a tuple"), (list(batch), "a list of other things")):
        with pytest.raises(ValueError, match=rf"with accumulate=2 a step is made of a list of .*; found {found}"):
            steps.step(wrong, 1)
    assert steps.step([batch, batch], 1)[2] == 2 * B


def test_an_output_of_a_regressor_is_no_class():
    with pytest.raises(ValueError, match=r"target must be an output, 0 \.\.\. 2, or one for each of 4 samples; f"):
        lstm_np.trace(make("squared"), inputs(), target=7)


def test_a_delta_of_another_loss_than_hubers_is_said_once():
    with pytest.warns(lstm_np.OptionWarning, match="huber_delta 0.5 changes nothing: the loss is absolute") as caught:
        model = lstm_np.SequenceRegressor(D, H, loss="absolute", huber_delta=0.5)
    assert [warning.filename for warning in caught] == [__file__]
    model.copy()
    lstm_np.SequenceRegressor(D, H, loss="huber", huber_delta=0.5)


def test_callbacks_may_look_at_all_means():
    assert (
        "auto", *(f"{part}_{name}" for part in ("train", "validation") for name in (
            "loss", "accuracy", "mean_squared_error", "mean_absolute_error", "r2"
        )),
    ) == callbacks.MONITORS  # fmt: skip
    assert (make("softmax").head.monitored, len(make("squared").head.monitored)) == (("loss", "accuracy"), 4)
    assert {make("softmax").head.running, make("squared").head.running} == {Running, RunningErrors}
