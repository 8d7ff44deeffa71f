"""Targets of every kind: how they are entered, what they count, predictions, metrics, and what is refused."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_np
from lstm_np.data import Batches
from lstm_np.options import OptionError
from tests.model.cases import LENGTHS, LOSSES, PAIRS, REGRESSION, B, D, H, K, T, inputs, make, targets

pytestmark = pytest.mark.quick

N = 10
MANY = np.array([5, 1, 3, 4, 2, 5, 3, 1, 4, 2])


def as_list(array, lengths=MANY):
    return [row[:length] for row, length in zip(array, lengths, strict=True)]


@pytest.mark.parametrize(("kind", "read_out"), PAIRS)
def test_arrays_with_lengths_and_lists_are_the_same(kind, read_out):
    """In gradients, training with buckets, evaluation and predictions; what lies behind a sequence is not read."""
    each = read_out == "each_step"
    x, y = inputs(N), targets(kind, each, N)
    model, other = make(kind, read_out=read_out), make(kind, read_out=read_out)
    spoilt = x.copy()
    spoilt[np.arange(T) >= MANY[:, None]] = np.nan
    behind = y
    if each:
        behind = y.copy()
        behind[np.arange(T) >= MANY[:, None]] = 77
    own_y = as_list(y) if each else y
    weights = np.linspace(0.5, 2, N)
    history = model.fit(
        spoilt, behind, lengths=MANY, sample_weight=weights, epochs=2, batch_size=3, bucket=2,
        validation_data=(spoilt, behind, MANY, weights),
    )  # fmt: skip
    again = other.fit(
        as_list(x), own_y, sample_weight=weights, epochs=2, batch_size=3, bucket=2,
        validation_data=(as_list(x), own_y, None, weights),
    )  # fmt: skip
    assert history == again
    np.testing.assert_array_equal(model.params.flat, other.params.flat)
    metrics = model.evaluate(spoilt, behind, lengths=MANY, sample_weight=weights, batch_size=4)
    assert metrics == other.evaluate(as_list(x), own_y, sample_weight=weights, batch_size=4)
    assert metrics == history[-1].validation or metrics.loss == pytest.approx(history[-1].validation.loss, rel=1e-12)
    found, parts = model.predict(spoilt, lengths=MANY, batch_size=4), other.predict(as_list(x), batch_size=4)
    if not each:
        np.testing.assert_array_equal(found, parts)
        return
    assert [len(part) for part in parts] == MANY.tolist()
    for row, part in zip(found, parts, strict=True):
        np.testing.assert_array_equal(row[: len(part)], part)
        rest = row[len(part) :]
        assert np.isnan(rest).all() if kind in REGRESSION else (rest == -1).all()


@pytest.mark.parametrize(("kind", "read_out"), PAIRS)
def test_a_sequence_counts_as_if_it_were_alone(kind, read_out):
    """The loss of a batch is a weighted mean of its sequences' own, and that of an evaluation is that of one batch."""
    each = read_out == "each_step"
    x, y, s = inputs(), targets(kind, each), np.array([0.5, 2.0, 1.0, 0.25])
    model = make(kind, read_out=read_out)
    loss, grads = model.loss_and_gradients(x, y, lengths=LENGTHS, sample_weight=s)
    totals, weights = 0.0, []
    for b in range(B):
        alone = x[b : b + 1, : LENGTHS[b]]
        own = model.loss_and_gradients(alone, y[b : b + 1, : LENGTHS[b]] if each else y[b : b + 1])
        weights.append(s[b] * counts(model, y[b : b + 1], LENGTHS[b]))
        totals = totals + weights[-1] * np.array([own[0], *own[1].flat])
    np.testing.assert_allclose([loss, *grads.flat], totals / sum(weights), rtol=1e-11, atol=1e-14)
    for size in (1, 3, 512):
        found = model.evaluate(x, y, lengths=LENGTHS, sample_weight=s, batch_size=size)
        assert found.loss == pytest.approx(loss, rel=1e-12)


def counts(model, y, length):
    """What the targets of a sequence weigh in a mean."""
    y = y[:, :length] if model.read_out == "each_step" else y
    w = np.array(model.config.get("class_weights") or [1.0] * K)
    if isinstance(model, lstm_np.SequenceRegressor):
        return y[..., 0].size
    if model.config["loss"] == "binary":
        return (y != 5).sum()
    if y.dtype.kind == "f":
        return y[..., 0].size
    return w[y[y >= 0]].sum()


# ---- metrics


def test_accuracy_counts_answers_that_count():
    model = make("softmax, class weights, smoothed, ignored", read_out="each_step")
    x, y = inputs(N), targets("softmax", True, N)
    y[2, 1:] = -7
    real = (np.arange(T) < MANY[:, None]) & (y != -7)
    metrics = model.evaluate(x, y, lengths=MANY, batch_size=3)
    hits = (model.predict(x, lengths=MANY) == y) & real
    assert (metrics.count, metrics.correct) == (real.sum(), hits.sum())
    assert metrics.accuracy == pytest.approx(hits.sum() / real.sum())
    s = np.linspace(1, 3, N)
    weighted = model.evaluate(x, y, lengths=MANY, batch_size=3, sample_weight=s)
    assert weighted.accuracy == pytest.approx((hits * s[:, None]).sum() / (real * s[:, None]).sum())
    assert (weighted.count, weighted.correct) == (metrics.count, metrics.correct)
    binary = make("binary")
    y = targets("binary", False, N)
    metrics = binary.evaluate(x, y)
    assert metrics.count == (y != 5).sum() == 3 * N - 1
    assert metrics.correct == ((binary.predict(x) == y) & (y != 5)).sum()
    assert ((binary.predict_proba(x) >= 0.5) == binary.predict(x)).all()


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_metrics_of_a_regressor_are_their_definitions(offset):
    model = lstm_np.SequenceRegressor(D, H, 2, dtype="float64", loss="absolute")
    model.params["readout.b"] = offset
    x, y = inputs(N), offset + targets("squared", False, N)[:, :2]
    for s in (None, np.linspace(0.0, 3, N)):
        metrics = model.evaluate(x, y, sample_weight=s, batch_size=3)
        w = np.ones(N) if s is None else s
        d = model.predict(x) - y
        mean = (w[:, None] * y).sum(axis=0) / w.sum()
        r2 = 1 - (w[:, None] * d**2).sum(axis=0) / (w[:, None] * (y - mean) ** 2).sum(axis=0)
        assert metrics.count == N
        assert metrics.r2 == pytest.approx(r2.mean(), rel=1e-9)
        assert metrics.mean_squared_error == pytest.approx((w[:, None] * d**2).sum() / (2 * w.sum()), rel=1e-12)
        assert metrics.mean_absolute_error == pytest.approx((w[:, None] * abs(d)).sum() / (2 * w.sum()), rel=1e-12)
        assert metrics.loss == pytest.approx(metrics.mean_absolute_error, rel=1e-12)
    assert np.isnan(model.evaluate(x, np.ones((N, 2))).r2)
    assert set(metrics.as_dict()) == {"loss", "mean_squared_error", "mean_absolute_error", "r2", "count", "weight"}


def test_an_epochs_mean_is_that_of_all_its_samples():
    """With weights too: the sums of a `fit` that changes nothing are an evaluation, and the looks are parts of it."""
    x, y, s = inputs(N), targets("squared", False, N), np.linspace(0.1, 2, N)
    for model, wanted in ((make("squared"), y), (make("softmax"), targets("softmax", False, N))):
        epoch = model.fit(x, wanted, sample_weight=s, batch_size=3, optimizer=lstm_np.SGD(model.params, lr=1e-300))[0]
        metrics = model.evaluate(x, wanted, sample_weight=s)
        assert epoch.train.loss == pytest.approx(metrics.loss, rel=1e-12)
        assert epoch.train.score == pytest.approx(metrics.score, rel=1e-12)
        assert len(epoch.looks) == 3
        assert sum(loss for loss, _ in epoch.looks) > 0
    assert epoch.train.as_dict().keys() == {"loss", "accuracy", "count", "correct", "weights"}


def test_a_history_of_a_regressor_shows_saves_and_draws():
    model, x, y = make("huber"), inputs(N), targets("huber", False, N)
    history = model.fit(x, y, epochs=2, validation_split=0.5)
    assert "abs error" in repr(history)
    assert "abs error" in history._repr_html_()
    assert lstm_np.History.from_state(history.state()) == history
    assert history.plot().axes[1].get_title(loc="left") == "mean absolute error"


# ---- storage


@pytest.mark.parametrize("kind", ["squared", "binary", "softmax, class weights, smoothed, ignored"])
def test_every_kind_is_saved_loaded_copied_and_pickled(kind, tmp_path):
    model, x = make(kind, read_out="max"), inputs()
    model.notes = {"classes": ["a", "b"], "targets": ["t"]}
    model.save(tmp_path / "model")
    for other in (
        lstm_np.load(tmp_path / "model"), type(model).load(tmp_path / "model"), model.copy(), copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ):  # fmt: skip
        assert type(other) is type(model)
        assert repr(other) == repr(model)
        assert other.notes == model.notes
        np.testing.assert_array_equal(other.predict(x), model.predict(x))
    wrong = lstm_np.SequenceClassifier if kind == "squared" else lstm_np.SequenceRegressor
    with pytest.raises(lstm_np.WeightsError, match=f"is of a {type(model).__name__}, not of a {wrong.__name__}"):
        wrong.load(tmp_path / "model")


@pytest.mark.parametrize("kind", ["squared", "softmax, class weights, smoothed, ignored"])
def test_a_training_that_was_cut_short_goes_on_with_the_same_bits(kind, tmp_path):
    x, y, s = inputs(N), targets(kind, True, N), np.linspace(0.1, 2, N)
    settings = {"lengths": MANY, "sample_weight": s, "epochs": 3, "batch_size": 3, "validation_data": (x, y, MANY)}
    whole = make(kind, read_out="each_step")
    expected = whole.fit(x, y, **settings)

    class Cut(Exception):
        pass

    class CutShort(lstm_np.Adam):
        def step(self, grads):
            if self.steps == 6:
                raise Cut
            super().step(grads)

    class Adam(CutShort):
        def step(self, grads):
            lstm_np.Adam.step(self, grads)

    Adam.__name__ = CutShort.__name__ = "Adam"
    model = make(kind, read_out="each_step")
    saved = {"checkpoints": tmp_path / "kept", "checkpoint_every": "1"}
    with pytest.raises(Cut):
        model.fit(x, y, **settings, **saved, optimizer=CutShort(model.params))
    again = type(model).resume(tmp_path / "kept")
    assert again.position == lstm_np.Position(1, 2, 6)
    assert again.fit(x, y, **settings, **saved) == expected
    np.testing.assert_array_equal(again.params.flat, whole.params.flat)


# ---- callbacks, streams


def test_callbacks_look_at_the_numbers_of_the_model():
    model, x, y = make("squared"), inputs(N), targets("squared", False, N)
    for monitor, margin in (("validation_r2", 1e9), ("train_mean_squared_error", 1e9), ("auto", 1e9)):
        stopping = lstm_np.EarlyStopping(model.params, patience=1, min_delta=margin, monitor=monitor)
        assert len(model.fit(x, y, epochs=5, validation_data=(x, y), callbacks=[stopping])) == 2
    stopping = lstm_np.EarlyStopping(model.params, monitor="train_r2", patience=1, restore_best=False)
    model.fit(x, y, epochs=3, callbacks=[stopping])
    assert stopping.best_epoch == 9  # the larger the better
    accuracy = lstm_np.EarlyStopping(model.params, monitor="train_accuracy")
    with pytest.raises(ValueError, match="monitors train_accuracy, but the metrics of this model are loss, mean_squ"):
        model.fit(x, y, callbacks=[accuracy])


def test_streams_give_what_the_model_reads_after_each_step():
    x = inputs()
    for kind in ("squared", "binary"):
        model = make(kind, read_out="each_step")
        stream = model.stream(batch_size=B)
        steps = np.stack([stream.step(x[:, t]) for t in range(T)], axis=1)
        np.testing.assert_allclose(steps, model.logits(x), rtol=1e-10)
    stream.reset()
    np.testing.assert_allclose(stream.predict_proba(x[:, 0]), model.predict_proba(x)[:, 0], rtol=1e-10)
    assert not hasattr(make("squared").stream(), "predict_proba")
    with pytest.raises(ValueError, match="this model reads the mean over all steps"):
        make("squared", read_out="mean").stream()


# ---- what is refused

X = inputs()
REFUSED = {
    "labels must be integers (4, 5) or one-hot (4, 5, 3), found int64 (4,); this model reads each step (read_out)":
        ("softmax", "each_step", np.zeros(4, int)),
    'labels must be integers (4,) or one-hot (4, 3), found int64 (4, 5); a model with read_out="each_step" has':
        ("softmax", "final_state", np.zeros((4, 5), int)),
    "labels must be 0 ... 2, found 3 ... 3": ("softmax", "each_step", np.full((4, 5), 3)),
    "labels with an axis of 3 classes must be one-hot or probabilities, and sum to 1 in each row":
        ("softmax", "final_state", np.full((4, 3), 0.5)),
    "one-hot labels need exactly one 1 and 2 zeros in each row": ("softmax", "final_state", np.ones((4, 3), int)),
    "labels must be 0 or 1, (4, 3), found int64 (4,)": ("binary", "final_state", np.zeros(4, int)),
    "labels must be 0 or 1 (or between, of a probability), found 0 ... 2":
        ("binary", "final_state", np.arange(12).reshape(4, 3) % 3),
    "y must be numbers (4, 3), found float64 (4,)": ("squared", "final_state", np.zeros(4)),
    "y must be numbers (4, 5, 3), found float64 (4, 3)": ("squared", "each_step", np.zeros((4, 3))),
    "y has values that are not finite in float64 ([1, 2] is nan)":
        ("squared", "final_state", np.where(np.arange(12).reshape(4, 3) == 5, np.nan, 0.0)),
    "labels of sequence 2 are of 4 steps, but it has 5, each with a target":
        ("softmax", "each_step", [[0] * 5, [0] * 5, [0] * 4, [0] * 5]),
    "y must be numbers, found text": ("squared", "final_state", np.array(["a"] * 4)),
}  # fmt: skip


@pytest.mark.parametrize("message", list(REFUSED))
def test_targets_that_are_refused(message):
    kind, read_out, y = REFUSED[message]
    model = make(kind, read_out=read_out)
    for call in (model.fit, model.evaluate, model.loss_and_gradients):
        with pytest.raises(ValueError) as refused:
            call(X, y)
        assert str(refused.value).startswith(message)
        assert "\n" not in str(refused.value)
    assert model.position == lstm_np.Position()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"sample_weight must be numbers \(4,\), found float64 \(3,\)"),
        (np.ones((4, 5)), r"sample_weight must be numbers \(4,\), found float64 \(4, 5\)"),
        (np.array([1, 1, 1, -1]), "sample_weight must be finite numbers of at least 0"),
        (np.array([1, 1, 1, np.nan]), "sample_weight must be finite numbers of at least 0"),
        (["a"] * 4, "sample_weight must be numbers, found text"),
    ],
)
def test_weights_that_are_refused(weights, message):
    model = make("squared")
    for call in (model.fit, model.evaluate, model.loss_and_gradients):
        with pytest.raises(ValueError, match=message):
            call(X, targets("squared", False), sample_weight=weights)


def test_options_that_do_not_go_together():
    for options, message in (
        ({"class_weights": [1.0, 2.0]}, "class_weights are 2 numbers, for 3 classes"),
        ({"class_weights": [1.0, 2.0], "loss": "binary"}, "class_weights are 2 numbers, for 3 labels"),
        ({"class_weights": [1.0, -2.0, 1.0]}, "class_weights must be at least 0, found -2.0"),
        ({"class_weights": 3.0}, "class_weights must be a list of numbers or None, found 3.0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, found 1.0"),
        ({"loss": "squared"}, "unknown loss 'squared'; there are: softmax, softmax_twice, binary"),
    ):
        with pytest.raises(OptionError, match=message):
            lstm_np.SequenceClassifier(D, H, K, **options)
    with pytest.raises(
        OptionError, match='num_classes must be at least 2, found 1; a single label of 0 or 1 is loss="'
    ):
        lstm_np.SequenceClassifier(D, H, 1)
    with pytest.raises(OptionError, match="unknown loss 'softmax'; there are: squared, absolute, huber"):
        lstm_np.SequenceRegressor(D, H, loss="softmax")
    one = lstm_np.SequenceClassifier(D, H, 1, loss="binary")
    one.fit(X, [0, 1, 1, 0])
    assert one.predict(X).shape == (B, 1)
    assert lstm_np.SequenceClassifier(D, H, K, class_weights=np.array([1, 2, 3])).config["class_weights"] == [1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_targets_of_any_shape_and_kind_are_taken_or_refused_in_a_line(data):
    kind = data.draw(st.sampled_from(list(LOSSES)))
    read_out = data.draw(st.sampled_from(("last_output", "each_step")))
    shape = data.draw(st.lists(st.sampled_from([1, 3, 4, 5]), min_size=0, max_size=4))
    dtype = data.draw(st.sampled_from(["int64", "uint8", "float32", "bool", "complex128", "U1"]))
    values = data.draw(st.sampled_from([[0], [0, 1], [-7, 2], [np.nan], [np.inf, 0], [5, 0], [1e300]]))
    with np.errstate(all="ignore"):
        y = np.resize(np.array(values), shape).astype(np.float64)
        y = np.nan_to_num(y, posinf=9, neginf=0).astype(dtype) if dtype not in ("float32", "U1") else y.astype(dtype)
    y = y.tolist() if data.draw(st.booleans()) else y
    model = make(kind, read_out=read_out)
    said, metrics = "", None
    try:
        metrics = model.evaluate(X, y)
    except ValueError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 200
    assert metrics is None or metrics.count == 0 or np.isfinite(metrics.loss)


# ---- batches, devices


def test_batches_carry_targets_and_weights_of_any_shape():
    x, y, s = inputs(N), targets("squared", True, N), np.linspace(0, 1, N)
    batches = Batches(x, as_list(y), 4, lengths=MANY, weights=s, bucket=2, dtype="float64", reuse=True)
    assert not batches.plain
    seen = 0.0
    for number, (own, wanted, lengths, weights) in enumerate(batches.epoch(1)):
        where = batches.indices(len(batches) + number)
        np.testing.assert_array_equal(own, x[where])
        np.testing.assert_array_equal(lengths, MANY[where])
        np.testing.assert_array_equal(weights, s[where])
        mask = np.arange(T) < lengths[:, None]
        np.testing.assert_array_equal(wanted[mask], y[where][mask])
        assert (wanted[~mask] == 0).all()
        seen += weights.sum()
    assert seen == pytest.approx(s.sum())
    x, y, real, weights = next(iter(Batches(x, np.arange(N), 4, weights=s).epoch(0)))
    assert (real, weights.shape, y.dtype) == (None, (4,), np.int64)
    with pytest.raises(ValueError, match="found weights"):
        Batches(inputs(N), np.arange(N), 4, weights=s[1:])
