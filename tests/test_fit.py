"""`fit` goes on where the model stands, keeps its own optimizer, and refuses bad arguments before any work."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import lstm_np
from lstm_np import Position, SequenceClassifier
from lstm_np.data import Batches
from lstm_np.loop import train

pytestmark = pytest.mark.quick


def data(n=30, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4, 3)), rng.integers(0, 3, n)


def made(**settings):
    return SequenceClassifier(3, 5, 3, num_layers=2, dropout=0.5, seed=2, **settings)


@pytest.mark.parametrize("given", [True, False], ids=["an optimizer", "the model's own"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ten_calls_are_one_call_of_ten_epochs(shuffle, given):
    histories, models = [], []
    for calls, epochs in ((1, 10), (10, 1), (4, 3)):
        model = made()
        optimizer = lstm_np.RMSProp(model.params, momentum=0.5) if given else None
        settings = {"batch_size": 8, "optimizer": optimizer, "shuffle": shuffle, "clip_norm": 0.5}
        parts = [
            model.fit(*data(), epochs=min(epochs, 10 - call * epochs), validation_data=data(7, 1), **settings)
            for call in range(calls)
        ]
        histories.append(list(itertools.chain(*parts)))
        models.append(model)
    for model, history in zip(models[1:], histories[1:], strict=True):
        np.testing.assert_array_equal(model.params.flat, models[0].params.flat)
        assert history == histories[0]
        assert model.position == models[0].position == Position(10, 0, 40)
    assert [epoch.number for epoch in histories[1]] == list(range(1, 11))


def test_masks_and_orders_are_new_in_each_call():
    """What a model that starts from the same weights would learn in its next epoch differs from call to call."""
    model, seen = made(), []
    for _ in range(3):
        before = model.params.flat.copy()
        model.fit(*data(), batch_size=30, shuffle=False, optimizer=lstm_np.SGD(model.params, lr=0.1))
        seen.append(model.params.flat - before)
        model.params.flat[...] = before
    assert (seen[0] != seen[1]).any()
    assert (seen[1] != seen[2]).any()


def test_the_model_keeps_its_own_optimizer():
    model, once = made(), made()
    model.fit(*data(), epochs=2)
    model.fit(*data(), epochs=2)
    adam = lstm_np.Adam(once.params)
    once.fit(*data(), epochs=4, optimizer=adam)
    np.testing.assert_array_equal(model.params.flat, once.params.flat)
    model.fit(*data(), optimizer=lstm_np.SGD(model.params))
    model.fit(*data())
    once.fit(*data(), optimizer=lstm_np.SGD(once.params))
    once.fit(*data(), optimizer=adam)
    np.testing.assert_array_equal(model.params.flat, once.params.flat)


def test_it_goes_on_after_an_epoch_that_was_left():
    """At the first batch of the next epoch, and the step counts on."""
    model = made()

    class ImpatientError(Exception):
        pass

    def leave(step):
        if step.number == 3:
            raise ImpatientError

    steps = model.training_steps(lstm_np.Adam(model.params), Batches(*data(), 8, seed=2))
    with pytest.raises(ImpatientError):
        train(steps, epochs=1, on_step=leave)
    assert model.position == Position(0, 3, 3)
    (epoch,) = model.fit(*data(), batch_size=8)
    assert (epoch.number, epoch.steps) == (2, 7)
    assert model.position == Position(2, 0, 7)


def test_other_data_may_follow():
    model = made()
    model.fit(*data(30), epochs=2, batch_size=8)
    model.fit(*data(50, 1), epochs=1, batch_size=25)
    assert model.position == Position(3, 0, 10)


def test_a_copy_goes_on_as_the_model_does():
    model = made()
    model.fit(*data(), epochs=2, batch_size=8)
    copy = model.copy()
    assert copy.position == model.position == Position(2, 0, 8)
    for one in (model, copy):
        one.fit(*data(), batch_size=8)
    np.testing.assert_array_equal(copy.params.flat, model.params.flat)
    assert copy.params is not model.params


def test_a_copy_made_in_a_callback_stands_where_the_model_stood():
    model, copies = made(), []
    model.fit(*data(), epochs=3, batch_size=8, on_epoch=lambda epoch: copies.append(model.copy()))
    assert [copy.position for copy in copies] == [Position(n, 0, 4 * n) for n in (1, 2, 3)]
    copies[0].fit(*data(), epochs=2, batch_size=8)
    np.testing.assert_array_equal(copies[0].params.flat, model.params.flat)


def test_a_loaded_model_starts_anew(tmp_path):
    model = made()
    model.fit(*data(), epochs=2, batch_size=8)
    model.save(tmp_path / "weights.safetensors")
    loaded = SequenceClassifier.load(tmp_path / "weights.safetensors")
    assert loaded.position == Position(0, 0, 0)
    fresh = made()
    fresh.params = model.params
    loaded.fit(*data(), batch_size=8)
    fresh.fit(*data(), batch_size=8)
    np.testing.assert_array_equal(loaded.params.flat, fresh.params.flat)


# ---- whose parameters


def test_an_optimizer_of_another_model_is_refused(tmp_path):
    model = made()
    optimizer = lstm_np.Adam(model.params)
    model.save(tmp_path / "weights.safetensors")
    loaded, copy = SequenceClassifier.load(tmp_path / "weights.safetensors"), model.copy()
    for other in (loaded, copy, made(dtype="float64")):
        before = other.params.flat.copy()
        with pytest.raises(ValueError, match="this optimizer updates other parameters than this model's") as refused:
            other.fit(*data(), optimizer=optimizer)
        assert "\n" not in str(refused.value)
        np.testing.assert_array_equal(other.params.flat, before)
    model.fit(*data(), optimizer=optimizer)


def test_assigned_parameters_are_taken_by_all_of_the_model():
    model = made()
    optimizer = lstm_np.Adam(model.params)
    best = model.params.copy()
    model.fit(*data(), epochs=2, optimizer=optimizer)
    expected = made().predict_proba(data()[0])
    assert (model.predict_proba(data()[0]) != expected).any()
    arrays = model.params
    model.params = best
    assert model.params is arrays
    np.testing.assert_array_equal(model.predict_proba(data()[0]), expected)
    best["readout.b"] += 1  # it stays the caller's
    np.testing.assert_array_equal(model.predict_proba(data()[0]), expected)
    model.fit(*data(), optimizer=optimizer)
    assert (model.predict_proba(data()[0]) != expected).any()
    model.params = dict(best)
    np.testing.assert_array_equal(model.params.flat, best.flat)


def test_assigned_parameters_must_be_the_models():
    model = made()
    before = model.params.flat.copy()
    wrong = dict(model.params.copy())
    wrong["readout.b"] = np.zeros(4, np.float32)
    wrong["layer0.W"] = wrong["layer0.W"] + 1
    with pytest.raises(ValueError, match=r"readout.b has shape \(3,\), found \(4,\)"):
        model.params = wrong
    del wrong["readout.b"]
    with pytest.raises(ValueError, match=r"the parameters are layer0.W, .*, readout.b; found layer0.W, .*, readout.W$"):
        model.params = wrong
    np.testing.assert_array_equal(model.params.flat, before)


# ---- what is refused

X, LABELS = data(20)
BAD = {
    "epochs must be at least 1, found 0": {"epochs": 0},
    "epochs must be a whole number, found 2.5": {"epochs": 2.5},
    "batch_size must be at least 1, found 0": {"batch_size": 0},
    "batch_size must be at least 1, found -1": {"batch_size": -1},
    "clip_norm must be a finite number above 0, or None for no clipping; found -1": {"clip_norm": -1},
    "clip_norm must be a finite number above 0, or None for no clipping; found 0": {"clip_norm": 0},
    "clip_norm must be a finite number above 0, or None for no clipping; found nan": {"clip_norm": float("nan")},
    r"x must have shape \(B, T, 3\) with B, T >= 1, found \(0, 4, 3\)": {"x": X[:0], "y": LABELS[:0]},
    r"validation_data must be \(x, y\[, lengths or mask or None\[, sample weights\]\]\), found ndarray": {
        "validation_data": X
    },
    r"validation_data must be \(x, y\[, .*, found a tuple of 5": {"validation_data": (X, LABELS, None, None, None)},
    r"validation_data must be .*, found floating-point numbers as its third part; sample weights are the fourth: \(x": {
        "validation_data": (X, LABELS, np.ones(20))
    },
    r"validation_data: x must have shape \(B, T, 3\) .*, found \(20, 4, 2\)": {"validation_data": (X[..., :2], LABELS)},
    r"validation_data: labels must be 0 ... 2, found . ... 7": {"validation_data": (X, LABELS + 5)},
    r"validation_data: labels must be integers \(20,\) .*, found int64 \(19,\)": {"validation_data": (X, LABELS[1:])},
    r"validation_data: x has values that are not finite": {"validation_data": (X * np.inf, LABELS)},
    r"labels must be integers \(20,\) or one-hot \(20, 3\), found float64 \(20,\)": {"y": LABELS * 1.0},
    r"labels must be integers \(20,\) or one-hot \(20, 3\), found int64 \(21,\)": {"y": np.zeros(21, int)},
    "labels must be 0 ... 2, found . ... 3": {"y": LABELS + 1},
    "x has values beyond the range of float32, the model's dtype": {"x": np.where(X[3, 1, 2] == X, -1.7e308, X)},
    "found sequences complex128": {"x": X * 1j},
}


@pytest.mark.parametrize("message", list(BAD))
def test_a_bad_argument_of_fit_is_refused_before_any_work(message, monkeypatch):
    model = made()
    monkeypatch.setattr(model, "backpropagate", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=message) as refused:
        model.fit(**{"x": X, "y": LABELS, **BAD[message]})
    assert "\n" not in str(refused.value)
    assert model.position == Position()


def test_a_mark_for_missing_data_is_found_wherever_it_is(monkeypatch):
    monkeypatch.setattr(lstm_np.model.inputs, "CHECKED_AT_ONCE", 24)  # two sequences at a time
    for k in range(len(X)):
        x = X.copy()
        x[k, 3, 2] = 1.7e308
        with pytest.raises(ValueError, match="beyond the range of float32"):
            made().fit(x, LABELS)
        made(dtype="float64").fit(np.where(x > 1e300, 1e30, x), LABELS)


@pytest.mark.parametrize("method", ["loss_and_gradients", "evaluate", "logits", "predict", "predict_proba"])
def test_x_is_checked_in_the_models_dtype(method):
    arguments = (LABELS,) if method in ("loss_and_gradients", "evaluate") else ()
    x = np.where(X[3, 1, 2] == X, -1.7e308, X)
    with pytest.raises(ValueError, match="x has values beyond the range of float32, the model's dtype"):
        getattr(made(), method)(x, *arguments)
    getattr(made(dtype="float64"), method)(np.where(X[3, 1, 2] == X, -1e30, X), *arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.evaluate(X, LABELS, batch_size=-1), "batch_size must be at least 1, found -1"),
        (lambda m: m.predict(X, batch_size=0), "batch_size must be at least 1, found 0"),
        (lambda m: m.evaluate(X[:0], LABELS[:0]), r"x must have shape \(B, T, 3\) with B, T >= 1, found \(0, 4, 3\)"),
        (lambda m: m.evaluate_batches([(X, LABELS + 5)]), "labels must be 0 ... 2, found 5 ... 7"),
        (lambda m: m.evaluate_batches([(X, LABELS - 100)]), "labels must be 0 ... 2, found -100 ... -98"),
        (lambda m: m.evaluate_batches([(X, LABELS[:7])]), r"labels must be integers \(20,\) .* found int64 \(7,\)"),
        (lambda m: m.evaluate_batches([(X, LABELS * 1.0)]), "labels must be integers .* found float64"),
    ],
)
def test_every_way_to_measure_checks_what_it_is_given(call, message):
    with pytest.raises(ValueError, match=message):
        call(made())


def test_plain_lists_one_hot_labels_and_booleans_are_welcome():
    expected = made()
    expected.fit(X, LABELS, validation_data=(X, LABELS))
    model = made()
    model.fit(X.tolist(), np.eye(3)[LABELS].tolist(), epochs=np.int64(1), validation_data=[X.tolist(), LABELS.tolist()])
    np.testing.assert_array_equal(model.params.flat, expected.params.flat)
    assert model.evaluate(X.tolist(), LABELS.tolist()) == expected.evaluate(X, LABELS)
    assert model.evaluate_batches([(X, np.eye(3)[LABELS])]) == expected.evaluate(X, LABELS)
    made().fit(X > 0, LABELS)
