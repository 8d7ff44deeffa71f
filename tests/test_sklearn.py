"""The estimators for scikit-learn: its checks, what they take and refuse, and that they are the models they make."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lstm_np

PAGE = Path(lstm_np.__file__).parents[1] / "docs" / "sklearn.md"
SKIPPED = {"check_array_api_input"}  # by scikit-learn itself, unless SCIPY_ARRAY_API is set


@pytest.fixture(scope="module", autouse=True)
def _sklearn():
    """Loaded by the first test here, not by everybody who collects tests."""
    global BEGIN, ConvergenceWarning, GridSearchCV, LSTMClassifier, LSTMRegressor, NotFittedError, SequenceScaler
    global StandardScaler, TransformedTargetRegressor, checked, clone, counted, cross_val_predict, cross_val_score
    global from_aeon, get_tags, joblib, listed, make_pipeline, sklearn
    import joblib
    import sklearn
    from sklearn.base import clone
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.exceptions import ConvergenceWarning, NotFittedError
    from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import get_tags

    from lstm_np.sklearn import LSTMClassifier, LSTMRegressor, SequenceScaler, from_aeon
    from tests.sklearn_checks import BEGIN, checked, counted, listed


def classifier(hidden_size=6, **parameters):
    """A small one that makes all of its epochs."""
    return LSTMClassifier(hidden_size, **{"max_iter": 8, "n_iter_no_change": None, "random_state": 3, **parameters})


def regressor(hidden_size=6, **parameters):
    return LSTMRegressor(hidden_size, **{"max_iter": 8, "n_iter_no_change": None, "random_state": 3, **parameters})


def sequences(N=40, T=5, D=3, seed=0):
    """(N, T, D) and text labels, which stand in the third step."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((N, T, D)), rng.integers(0, 2, N)
    x[:, 2, 0] += 4 * y
    return x, np.array(["no", "yes"])[y]


def unequal(N=40, D=3, seed=1):
    """A list of (T_i, D), and numbers: the sums of their first features."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((length, D)) for length in rng.integers(2, 8, N)]
    return x, np.array([one[:, 0].sum() for one in x])


X, Y = sequences()
LISTED, NUMBERS = unequal()
SIGNS = np.where(NUMBERS > 0, "up", "down")


# ---- scikit-learn's own checks


@pytest.mark.parametrize("name", ["LSTMClassifier", "LSTMRegressor", "SequenceScaler"])
def test_scikit_learns_checks_pass_and_are_those_of_the_list(name):
    results = checked(getattr(lstm_np.sklearn, name))
    assert not {one["check_name"]: one["exception"] for one in results if one["status"] == "failed"}
    assert {one["check_name"] for one in results if one["status"] != "passed"} <= SKIPPED
    assert len(results) >= 47
    page = PAGE.read_text(encoding="utf-8")
    if f"{BEGIN}\nscikit-learn {sklearn.__version__}," in page:  # other versions have other checks
        assert listed(page)[f"{name}()"] == counted(results)


def test_the_tags_say_what_they_take():
    tags = [get_tags(one) for one in (LSTMClassifier(), LSTMRegressor(), SequenceScaler())]
    assert [one.estimator_type for one in tags[:2]] == ["classifier", "regressor"]
    assert tags[2].transformer_tags is not None
    assert all(one.input_tags.three_d_array and one.input_tags.two_d_array for one in tags)
    assert not any(one.input_tags.sparse or one.input_tags.allow_nan for one in tags)
    assert [one.target_tags.multi_output for one in tags] == [False, True, False]
    assert tags[0].classifier_tags.multi_label


# ---- what they take


def test_one_set_of_sequences_in_many_forms():
    """An array, a list, nested lists, an object array: the same bits."""
    expected = classifier().fit(X, Y).predict_proba(X)
    boxed = np.empty(len(X), object)
    boxed[:] = list(X)
    for form in (list(X), tuple(X), X.tolist(), boxed, [one.tolist() for one in X], np.asfortranarray(X)):
        np.testing.assert_array_equal(classifier().fit(form, Y).predict_proba(form), expected)


def test_a_table_is_sequences_of_one_feature():
    table = X[:, :, 0]
    of_table, of_sequences = classifier().fit(table, Y), classifier().fit(X[:, :, :1], Y)
    expected = of_sequences.predict_proba(X[:, :, :1])
    np.testing.assert_array_equal(of_table.predict_proba(table), expected)
    assert (of_table.n_features_in_, of_sequences.n_features_in_) == (5, 1)
    assert of_table.model_.input_size == 1
    # who was fitted on the one takes the other
    np.testing.assert_array_equal(of_table.predict_proba(X[:, :, :1]), expected)
    np.testing.assert_array_equal(of_sequences.predict_proba(table), expected)


def test_sequences_of_unequal_length_are_read_to_their_own_ends():
    fitted = classifier().fit(LISTED, SIGNS)
    alone = np.concatenate([fitted.predict_proba([one]) for one in LISTED])
    np.testing.assert_allclose(fitted.predict_proba(LISTED), alone, rtol=0, atol=1e-12)
    padded, lengths = lstm_np.pad(LISTED)
    theirs = fitted.model_.predict_proba(padded, lengths=lengths)
    np.testing.assert_allclose(fitted.predict_proba(LISTED), theirs, rtol=0, atol=1e-12)
    assert fitted.n_features_in_ == 3
    np.testing.assert_allclose(fitted.predict_proba(X), fitted.model_.predict_proba(X), rtol=0, atol=1e-12)


def test_many_sequences_are_classified_in_parts(monkeypatch):
    fitted = classifier().fit(LISTED, SIGNS)
    whole = fitted.decision_function(LISTED)
    monkeypatch.setattr("lstm_np.sklearn.BATCH", 7)
    np.testing.assert_allclose(fitted.decision_function(LISTED), whole, rtol=0, atol=1e-12)


def test_names_of_columns_are_kept_and_compared():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[:, :, 0], columns=[f"t{t}" for t in range(5)])
    fitted = classifier().fit(frame, Y)
    assert fitted.feature_names_in_.tolist() == list(frame.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame[frame.columns[::-1]])
    assert not hasattr(fitted.fit(X, Y), "feature_names_in_")  # the columns are none of these sequences
    expected = classifier().fit([frame.to_numpy()[:, :2]] * 2, ["a", "b"])
    listed = classifier().fit([frame[["t0", "t1"]]] * 2, ["a", "b"])  # frames (T_i, D), as sktime's df-list
    np.testing.assert_array_equal(listed.predict_proba(X[:, :, :2]), expected.predict_proba(X[:, :, :2]))


@pytest.mark.parametrize(("dtype", "given", "expected"), [
    (None, np.float32, "float32"), (None, np.float64, "float64"), (None, np.int32, "float64"),
    ("float32", np.float64, "float32"), ("float64", np.float32, "float64"),
])  # fmt: skip
def test_the_dtype_is_that_of_x_unless_one_is_asked_for(dtype, given, expected):
    fitted = classifier(max_iter=1, dtype=dtype).fit((10 * X).astype(given), Y)
    assert fitted.model_.dtype == expected
    assert fitted.predict_proba((10 * X).astype(given)).dtype == expected


NAN = X.copy()
NAN[3, 1, 2] = np.nan


@pytest.mark.parametrize(("x", "error", "words"), [
    (NAN, ValueError, "Input X contains NaN"),
    ([NAN[3, :4], X[0]], ValueError, "Input X contains NaN"),
    (X + 1j, ValueError, "Complex data not supported"),
    ([X[0] + 1j, X[1]], ValueError, "Complex data not supported"),
    (X[:, :0], ValueError, r"found \(40, 0, 3\)"),
    (X[None], ValueError, r"found \(1, 40, 5, 3\)"),
    (X[:, 0, 0], ValueError, "Reshape your data"),
    ([X[0], X[1, :, :2]], ValueError, r"sequence 1 is \(5, 2\)"),
    ([X[0], X[1, 0]], ValueError, r"sequence 1 is \(3,\)"),
    ([np.ones(3), np.ones(4)], ValueError, r"make each \(T_i, 1\)"),
    ([np.ones((0, 3))] * 2, ValueError, "none has a step"),
    ([np.ones((4, 0))] * 2, ValueError, r"arrays \(T_i, D\)"),
], ids=str)  # fmt: skip
def test_sequences_that_do_not_fit_are_refused(x, error, words):
    with pytest.raises(error, match=words):
        classifier().fit(x, np.arange(len(x)) % 2)


def test_a_nested_frame_is_refused():
    pandas = pytest.importorskip("pandas")
    nested = pandas.DataFrame({"channel": [pandas.Series([1.0, 2.0]), pandas.Series([3.0])]})
    for refuse in (lambda: classifier().fit(nested, [0, 1]), lambda: from_aeon(nested)):
        with pytest.raises(ValueError, match="nested frame"):
            refuse()


def test_other_sequences_than_those_of_fit_are_refused():
    fitted = classifier().fit(X, Y)
    with pytest.raises(ValueError, match="X has 2 features in each step, but LSTMClassifier is expecting 3"):
        fitted.predict(X[:, :, :2])
    with pytest.raises(ValueError, match="X is a table"):
        fitted.predict(X[:, :, 0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples: 40 and 39"):
        fitted.fit(X, Y[1:])
    with pytest.raises(NotFittedError):
        classifier().predict(X)


@pytest.mark.parametrize(("parameters", "words"), [
    ({"hidden_size": 0}, "hidden_size must be at least 1"),
    ({"cell": "lstn"}, "unknown cell 'lstn'"),
    ({"read_out": "each_step"}, "one y for each sequence"),
    ({"solver": "lbfgs"}, "unknown solver 'lbfgs'"),
    ({"max_iter": 0}, "max_iter must be at least 1"),
    ({"n_iter_no_change": 0}, "n_iter_no_change must be at least 1"),
    ({"learning_rate_init": -1.0}, "learning_rate_init must be at least 0"),
    ({"tol": -1.0}, "tol must be at least 0"),
    ({"early_stopping": True, "validation_fraction": 1.0}, "validation_fraction must be"),
    ({"class_weight": "equal"}, "class_weight must be"),
    ({"class_weight": {"no": -1.0}}, "class_weight must be 0 or more"),
    ({"model_options": {"seed": 1}}, "model_options has seed"),
    ({"model_options": {"num_layers": 2}}, "model_options has num_layers"),
])  # fmt: skip
def test_parameters_are_checked_in_fit(parameters, words):
    estimator = classifier(**parameters)  # says nothing yet
    with pytest.raises(ValueError, match=words):
        estimator.fit(X, Y)


def test_options_by_name_must_be_options_by_name():
    for name in ("model_options", "solver_options"):
        with pytest.raises(TypeError, match=f"{name} must be"):
            classifier(**{name: "forget_bias"}).fit(X, Y)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="only one class, 'a'"):
        classifier().fit(X, ["a"] * len(X))


# ---- they are the models that they make


def test_the_classifier_is_the_model_it_makes():
    """The same bits as by hand, and its file has the labels."""
    fitted = classifier(num_layers=2, bidirectional=True, model_options={"forget_bias": 1.0}).fit(X, Y)
    model = lstm_np.SequenceClassifier(
        3, 6, 2, num_layers=2, bidirectional=True, forget_bias=1.0, dtype="float64", seed=3
    )
    optimizer = lstm_np.Adam(model.params, lr=0.01)
    history = model.fit(X, (Y == "yes").astype(int), epochs=8, optimizer=optimizer, clip_norm=1.0)
    np.testing.assert_array_equal(fitted.model_.params.flat, model.params.flat)
    assert fitted.history_ == history
    assert fitted.loss_curve_ == [epoch.train.loss for epoch in history]
    assert (fitted.loss_, fitted.n_iter_) == (fitted.loss_curve_[-1], 8)
    assert fitted.model_.notes["classes"] == ["no", "yes"]


def test_the_models_file_has_the_labels(tmp_path):
    fitted = classifier(max_iter=60).fit(X, Y)
    fitted.model_.save(tmp_path / "model.safetensors")
    again = lstm_np.load(tmp_path / "model.safetensors")
    labels = np.array(again.notes["classes"])[again.predict(X)]
    np.testing.assert_array_equal(labels, fitted.predict(X))
    assert fitted.score(X, Y) > 0.9


def test_the_regressor_is_the_model_it_makes():
    fitted = regressor(loss="huber", huber_delta=0.5, cell="gru").fit(LISTED, NUMBERS)
    model = lstm_np.SequenceRegressor(3, 6, loss="huber", huber_delta=0.5, cell="gru", dtype="float64", seed=3)
    optimizer = lstm_np.Adam(model.params, lr=0.01)
    model.fit(LISTED, NUMBERS, epochs=8, optimizer=optimizer, clip_norm=1.0)
    np.testing.assert_array_equal(fitted.model_.params.flat, model.params.flat)
    np.testing.assert_array_equal(fitted.predict(LISTED), model.predict(LISTED)[:, 0])


@pytest.mark.parametrize("shape", [(), (1,), (2,)])
def test_predictions_have_the_shape_of_y(shape):
    y = NUMBERS if not shape else np.stack([NUMBERS, -NUMBERS][: shape[0]], axis=1)
    fitted = regressor(max_iter=2).fit(LISTED, y)
    assert fitted.predict(LISTED).shape == y.shape == (40, *shape)
    assert fitted.n_outputs_ == (shape or (1,))[0]


def test_the_regressor_learns():
    fitted = regressor(16, max_iter=80, batch_size=20).fit(LISTED, NUMBERS)
    assert fitted.score(LISTED, NUMBERS) > 0.9
    scaled = TransformedTargetRegressor(regressor(16, max_iter=80, batch_size=20), transformer=StandardScaler())
    assert scaled.fit(LISTED, 1e4 + 1e3 * NUMBERS).score(LISTED, 1e4 + 1e3 * NUMBERS) > 0.9


def test_probabilities_logits_and_labels_say_the_same():
    y = np.arange(len(X)) % 3
    two, three = classifier().fit(X, Y), classifier().fit(X, y)
    p, z = three.predict_proba(X), three.decision_function(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=0, atol=1e-15)
    np.testing.assert_allclose(np.log(p), three.predict_log_proba(X), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(p.argmax(axis=1), three.predict(X))
    np.testing.assert_array_equal(z.argmax(axis=1), three.predict(X))
    odds = two.predict_log_proba(X)
    np.testing.assert_allclose(odds[:, 1] - odds[:, 0], two.decision_function(X), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(two.decision_function(X) > 0, two.predict(X) == "yes")
    two.model_.params["readout.b"] = [0.0, 900.0]  # the probability of "no" is below the smallest number
    assert (two.predict_proba(X)[:, 0] == 0).all()
    assert np.isfinite(two.predict_log_proba(X)).all()


@pytest.mark.parametrize("labels", [["a", "b", "c"], [-1, 5, 100], [False, True], [0.0, 1.0, 2.0]], ids=str)
def test_labels_of_every_kind_come_back(labels):
    y = np.array(labels)[np.arange(len(X)) % len(labels)]
    fitted = classifier(max_iter=1).fit(X, y)
    assert fitted.classes_.tolist() == labels
    assert fitted.predict(X).dtype == y.dtype


def test_labels_that_can_hold_together_are_a_binary_model():
    marks = np.stack([Y == "yes", X[:, 4, 1] > 0], axis=1).astype(int)
    fitted = classifier(max_iter=60).fit(X, marks)
    model = lstm_np.SequenceClassifier(3, 6, 2, loss="binary", dtype="float64", seed=3)
    optimizer = lstm_np.Adam(model.params, lr=0.01)
    model.fit(X, marks, epochs=60, optimizer=optimizer, clip_norm=1.0)
    np.testing.assert_array_equal(fitted.model_.params.flat, model.params.flat)
    np.testing.assert_allclose(fitted.predict_proba(X), model.predict_proba(X), rtol=1e-12)
    np.testing.assert_array_equal(fitted.predict(X), model.predict(X))
    np.testing.assert_array_equal(fitted.decision_function(X) > 0, fitted.predict(X) == 1)
    assert (fitted.predict(X) == marks).mean() > 0.75
    held = classifier(early_stopping=True, validation_fraction=0.25).fit(X, marks)  # no class to keep the share of
    assert len(held.validation_scores_) == held.n_iter_
    with pytest.raises(ValueError, match=r"y must be \(N, 2\) as before"):
        fitted.partial_fit(X, np.eye(40, 3, dtype=int))
    with pytest.raises(ValueError, match="one label"):
        fitted.partial_fit(X, np.arange(40) % 2)
    with pytest.raises(ValueError, match="sequences of one label each"):
        classifier(class_weight="balanced").fit(X, marks)


# ---- repeatable


def test_a_random_state_gives_the_same_bits():
    def fit(state):
        return classifier(max_iter=3, dropout=0.3, num_layers=2, random_state=state).fit(X, Y).model_.params.flat

    np.testing.assert_array_equal(fit(5), fit(5))
    np.testing.assert_array_equal(fit(np.random.RandomState(5)), fit(np.random.RandomState(5)))
    assert (fit(5) != fit(6)).any()
    assert (fit(None) != fit(None)).any()


def test_estimators_are_cloned_pickled_and_kept_by_joblib(tmp_path):
    fitted = make_pipeline(SequenceScaler(), classifier()).fit(LISTED, SIGNS)
    expected = fitted.predict_proba(LISTED)
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    for again in (pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "fitted.joblib")):
        np.testing.assert_array_equal(again.predict_proba(LISTED), expected)
        more, same = (one[-1].set_params(warm_start=True, max_iter=2) for one in (again, clone_of(fitted)))
        np.testing.assert_array_equal(
            more.fit(LISTED, SIGNS).model_.params.flat, same.fit(LISTED, SIGNS).model_.params.flat
        )
    unfitted = clone(fitted)
    assert unfitted.get_params().keys() == fitted.get_params().keys()
    assert not hasattr(unfitted[-1], "model_")
    np.testing.assert_array_equal(unfitted.fit(LISTED, SIGNS).predict_proba(LISTED), expected)


def clone_of(fitted):
    return pickle.loads(pickle.dumps(fitted))


# ---- in scikit-learn's tools


@pytest.mark.parametrize("x", [X, list(X)], ids=["array", "list"])
def test_a_grid_search_over_a_pipeline(x):
    pipeline = make_pipeline(SequenceScaler(), classifier(max_iter=40))
    grid = {"lstmclassifier__hidden_size": [2, 6], "sequencescaler__kind": ["robust"]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(x, Y)
    assert search.best_score_ > 0.8
    assert search.predict(x).shape == (40,)


def test_cross_validation_of_lists():
    scores = cross_val_score(regressor(8, max_iter=40), LISTED, NUMBERS, cv=2, error_score="raise")
    assert scores.shape == (2,)
    assert scores.mean() > 0.3
    assert cross_val_predict(classifier(), LISTED, SIGNS, cv=2, method="predict_proba").shape == (40, 2)


# ---- weights


@pytest.mark.parametrize(("make", "y"), [(classifier, SIGNS), (regressor, NUMBERS)], ids=["classifier", "regressor"])
def test_a_weight_of_two_is_the_sample_twice(make, y):
    weights = np.resize([2.0, 1.0, 0.0, 3.0], len(y))
    estimator = make(shuffle=False)
    weighted = clone(estimator).fit(LISTED, y, sample_weight=weights)
    times = weights.astype(int)
    listed = [LISTED[row] for row in np.arange(len(y)).repeat(times)]
    repeated = clone(estimator).fit(listed, y.repeat(times))
    scale = np.abs(repeated.model_.params.flat).max()
    np.testing.assert_allclose(weighted.model_.params.flat, repeated.model_.params.flat, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-12)
    without = clone(estimator).fit(LISTED, y)
    assert np.abs(weighted.model_.params.flat - without.model_.params.flat).max() > 1e-3


def test_class_weights_are_weights_of_their_samples():
    y = np.where(np.arange(len(X)) % 4 == 0, "rare", "often")
    weights = np.where(y == "rare", 5.0, 1.0)
    given = classifier(class_weight={"rare": 5.0}).fit(X, y)
    by_hand = classifier().fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(given.model_.params.flat, by_hand.model_.params.flat)
    own = np.resize([1.0, 2.0, 3.0], len(X))
    both = classifier(class_weight={"rare": 5.0}).fit(X, y, sample_weight=own)
    product = classifier().fit(X, y, sample_weight=own * weights)
    np.testing.assert_array_equal(both.model_.params.flat, product.model_.params.flat)


def test_balanced_classes_count_the_same():
    y = np.where(np.arange(len(X)) % 4 == 0, "rare", "often")
    balanced = classifier(class_weight="balanced").fit(X, y)
    by_hand = classifier(class_weight={"rare": 2.0, "often": 2 / 3}).fit(X, y)  # 40 / (2 * 10), 40 / (2 * 30)
    np.testing.assert_allclose(balanced.model_.params.flat, by_hand.model_.params.flat, rtol=0, atol=1e-12)
    twice = classifier(class_weight="balanced", shuffle=False).fit(X, y, sample_weight=np.where(y == "rare", 3, 1))
    same = classifier(shuffle=False).fit(X, y, sample_weight=np.where(y == "rare", 3, 1))
    np.testing.assert_allclose(twice.model_.params.flat, same.model_.params.flat, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("weights", "words"), [
    (np.ones(39), r"shape \(40,\)"), (np.ones((40, 2)), r"shape \(40,\)"), (-np.ones(40), "0 or more"),
    (np.zeros(40), "not zero"), (np.full(40, np.nan), "contains NaN"),
], ids=str)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(weights, words):
    with pytest.raises(ValueError, match=words):
        classifier().fit(X, Y, sample_weight=weights)


def test_classes_that_count_nothing_leave_nothing():
    with pytest.raises(ValueError, match="together are zero"):
        classifier(class_weight={"no": 0.0}).fit(X, Y, sample_weight=(Y == "no").astype(float))


# ---- when training ends, and how it goes on


def test_training_ends_when_the_loss_no_longer_falls():
    slow = {"tol": 10.0, "n_iter_no_change": 3, "max_iter": 50}
    assert classifier(**slow).fit(X, Y).n_iter_ == 4  # the first epoch is better than nothing
    with pytest.warns(ConvergenceWarning, match="all 5 epochs were made"):
        classifier(max_iter=5, n_iter_no_change=10).fit(X, Y)
    assert classifier(max_iter=5, n_iter_no_change=None).fit(X, Y).n_iter_ == 5  # without a word


@pytest.mark.parametrize(("make", "y"), [(classifier, SIGNS), (regressor, NUMBERS)], ids=["classifier", "regressor"])
def test_early_stopping_holds_a_part_out_and_keeps_the_best_epoch(make, y):
    stopping = {"early_stopping": True, "validation_fraction": 0.25, "learning_rate_init": 0.1, "max_iter": 60}
    fitted = make(16, **stopping, n_iter_no_change=4).fit(LISTED, y)
    losses = [epoch.validation.loss for epoch in fitted.history_]
    assert fitted.history_[0].validation.count == 10
    assert fitted.history_[0].train.count == 30
    assert len(losses) == fitted.n_iter_ < 60
    assert losses.index(min(losses)) <= len(losses) - 4
    assert len(fitted.validation_scores_) == fitted.n_iter_
    best = fitted.validation_scores_[losses.index(min(losses))]
    rows = held_out_rows(fitted, y)
    assert fitted.score([LISTED[row] for row in rows], y[rows]) == pytest.approx(best, abs=1e-9)
    assert make(max_iter=2).fit(LISTED, y).validation_scores_ is None


def held_out_rows(fitted, y):
    from sklearn.model_selection import train_test_split

    classes = y if y.dtype.kind == "U" else None
    return train_test_split(np.arange(40), test_size=0.25, random_state=fitted.random_state, stratify=classes)[1]


def test_weights_count_in_the_part_held_out():
    weights = np.resize([3.0, 1.0], len(NUMBERS))
    fitted = regressor(early_stopping=True, validation_fraction=0.25).fit(LISTED, NUMBERS, sample_weight=weights)
    rows = held_out_rows(fitted, NUMBERS)
    best = min((epoch.validation for epoch in fitted.history_), key=lambda metrics: metrics.loss)
    score = fitted.score([LISTED[row] for row in rows], NUMBERS[rows], sample_weight=weights[rows])
    assert score == pytest.approx(best.r2, abs=1e-9)


def test_a_warm_start_goes_on():
    once = classifier(max_iter=6).fit(X, Y)
    fitted = classifier(max_iter=3, warm_start=True).fit(X, Y)
    model = fitted.model_
    np.testing.assert_array_equal(fitted.loss_curve_, once.loss_curve_[:3])
    fitted.fit(X, Y)
    assert fitted.model_ is model
    assert (fitted.n_iter_, len(fitted.loss_curve_)) == (6, 6)
    with pytest.raises(ValueError, match="not among the classes"):
        fitted.fit(X, np.where(Y == "no", "never", Y))
    assert classifier(max_iter=3).fit(X, Y).fit(X, Y).n_iter_ == 3  # a cold one


def test_parts_of_the_data_one_epoch_at_a_time():
    """As one call that makes as many epochs: the optimizer goes on too."""
    parts = classifier()
    for _ in range(3):
        parts.partial_fit(X, Y, classes=["no", "yes"])
    np.testing.assert_array_equal(parts.model_.params.flat, classifier(max_iter=3).fit(X, Y).model_.params.flat)
    assert parts.n_iter_ == 3
    parts.partial_fit(X[:5], ["no"] * 5)  # a part need not have all classes
    numbers = regressor()
    for _ in range(3):
        numbers.partial_fit(LISTED, NUMBERS)
    whole = regressor(max_iter=3).fit(LISTED, NUMBERS)
    np.testing.assert_array_equal(numbers.model_.params.flat, whole.model_.params.flat)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        classifier().partial_fit(X, Y)
    fitted = classifier().partial_fit(X, Y, classes=["no", "yes", "perhaps"])
    with pytest.raises(ValueError, match="not among the classes"):
        fitted.partial_fit(X, np.where(Y == "no", "never", Y))
    with pytest.raises(ValueError, match="classes must be those"):
        fitted.partial_fit(X, Y, classes=["no", "yes"])
    with pytest.raises(ValueError, match="early_stopping must be False"):
        classifier(early_stopping=True).partial_fit(X, Y, classes=["no", "yes"])
    with pytest.raises(ValueError, match="needs all of it"):
        classifier(class_weight="balanced").partial_fit(X, Y, classes=["no", "yes"])
    with pytest.raises(ValueError, match=r"y must be \(N, 1\) as before"):
        regressor().partial_fit(LISTED, NUMBERS).partial_fit(LISTED, np.stack([NUMBERS] * 2, axis=1))


def test_verbose_shows_the_epochs(capsys):
    classifier(max_iter=2).fit(X, Y)
    assert capsys.readouterr().out == ""
    classifier(max_iter=2, verbose=True).fit(X, Y)
    assert "loss" in capsys.readouterr().out


# ---- the scaler, and arrays of others


def test_the_scaler_is_that_of_lstm_np():
    scaler, own = SequenceScaler("robust"), lstm_np.data.SequenceScaler("robust")
    for ours, theirs in zip(scaler.fit_transform(LISTED), own.fit_transform(LISTED), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for back, one in zip(scaler.inverse_transform(scaler.transform(LISTED)), LISTED, strict=True):
        np.testing.assert_allclose(back, one, rtol=0, atol=1e-14)
    assert scaler.transform(X).shape == X.shape  # another form of the same features
    with pytest.raises(ValueError, match="kind must be one of"):
        SequenceScaler("none").fit(X)
    with pytest.raises(ValueError, match="is expecting 3"):
        scaler.transform(X[:, :, :2])


def test_a_table_has_one_scale():
    table = X[:, :, 0] + 100 * np.arange(5)
    scaled = SequenceScaler().fit_transform(table)
    np.testing.assert_allclose(scaled, (table - table.mean()) / table.std(), rtol=0, atol=1e-12)


def test_a_scaled_frame_stays_a_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[:, :, 0], columns=[f"t{t}" for t in range(5)])
    scaled = SequenceScaler().set_output(transform="pandas").fit_transform(frame)
    assert list(scaled.columns) == list(frame.columns)


def test_axes_of_aeon_are_turned():
    turned = from_aeon(X.swapaxes(1, 2))
    np.testing.assert_array_equal(turned, X)
    assert np.shares_memory(turned, from_aeon(turned.swapaxes(1, 2)))
    for one, expected in zip(from_aeon([one.T for one in LISTED]), LISTED, strict=True):
        np.testing.assert_array_equal(one, expected)
    np.testing.assert_array_equal(from_aeon(X[:, :, 0]), X[:, :, :1])
    for wrong, words in ((X[0, 0], r"found an array \(3,\)"), ([X[0, 0]], "expected .D, T_i.")):
        with pytest.raises(ValueError, match=words):
            from_aeon(wrong)
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="steps as rows already"):
        from_aeon([pandas.DataFrame(X[0])])


# ---- where scikit-learn is not


def test_a_missing_package_is_named(monkeypatch):
    def load():
        spec = importlib.util.spec_from_file_location("again", lstm_np.sklearn.__file__)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

    with monkeypatch.context() as patched:
        patched.delattr("sklearn.utils.validation.validate_data")
        with pytest.raises(lstm_np.MissingPackageError, match=r"1\.6 or newer"):
            load()
    monkeypatch.setitem(sys.modules, "sklearn.utils.validation", None)
    words = r'estimators need scikit-learn, which is not installed: pip install "lstm_np\[sklearn\]"'
    with pytest.raises(lstm_np.MissingPackageError, match=words):
        load()


def test_lstm_np_itself_does_not_import_scikit_learn():
    script = "import sys, lstm_np; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
