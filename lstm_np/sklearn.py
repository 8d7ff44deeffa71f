"""Estimators for scikit-learn: `LSTMClassifier`, `LSTMRegressor`, `SequenceScaler`; `from_aeon` turns arrays of aeon.

An estimator makes a model of lstm_np, which is its `model_` afterwards, and has the interface that pipelines, grid
searches and cross-validation expect.  Sequences are one of

    (N, T, D)            N sequences of T steps with D features each
    a list of (T_i, D)   sequences of unequal length
    (N, T)               a table or a frame: N sequences of T steps with one feature, in the order of the columns

and are told apart by their axes alone, never by their sizes.

>>> from sklearn.pipeline import make_pipeline
>>> from lstm_np.sklearn import LSTMClassifier, SequenceScaler
>>> rng = np.random.default_rng(0)
>>> x = [rng.standard_normal((length, 3)) for length in rng.integers(2, 9, 60)]
>>> y = np.where([one[-1, 0] > 0 for one in x], "up", "down")  # the answer stands in the last step
>>> pipeline = make_pipeline(SequenceScaler(), LSTMClassifier(16, max_iter=30, n_iter_no_change=None, random_state=0))
>>> pipeline.fit(x, y).score(x, y) > 0.9
True

Importing this module raises MissingPackageError where scikit-learn is missing or too old.
"""

# ruff: noqa: E402  scikit-learn is imported where it is known to be there

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Integral, Number
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lstm_np import extras
from lstm_np.backends import Backend
from lstm_np.callbacks import EarlyStopping
from lstm_np.data import scaling
from lstm_np.loop import History
from lstm_np.losses import log_softmax
from lstm_np.model import SequenceClassifier, SequenceModel, SequenceRegressor
from lstm_np.optimizers import OPTIMIZERS
from lstm_np.options import Dtype, Option, check_bool, check_count

_NEEDED = ("sklearn", "estimators need", "scikit-learn")  # the extra, the error's sentence, and what pip calls it
if not hasattr(extras.load("sklearn.utils.validation", *_NEEDED), "validate_data"):
    raise extras.MissingPackageError(
        'estimators need scikit-learn 1.6 or newer, which is not installed: pip install "lstm_np[sklearn]"'
    )

# isort: split

from sklearn.base import BaseEstimator, ClassifierMixin, OneToOneFeatureMixin, RegressorMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["LSTMClassifier", "LSTMRegressor", "SequenceScaler", "from_aeon"]

BATCH = 512  # sequences that are classified at a time
FLOATS = (np.float64, np.float32)  # what x may be; anything else becomes the first
# options of a model that an estimator sets itself, or that have no meaning where each sequence has a y of its own
OWN = {"input_size", "num_classes", "num_targets", "loss", "class_weights", "stateful", "seed"}

Sequences = npt.NDArray[Any] | list[npt.NDArray[Any]]  # (N, T, D), or a list of (T_i, D)


def from_aeon(X: Any) -> Sequences:
    """Sequences as lstm_np has them from those of aeon and sktime, whose features come first and whose steps last.

    X  an array (N, D, T) or (N, T), or a list of arrays (D, T_i)

    The result is (N, T, D), a view of X, or a list of views (T_i, D).

    >>> from lstm_np.sklearn import from_aeon
    >>> from_aeon(np.ones((10, 3, 50))).shape, from_aeon([np.ones((3, 50)), np.ones((3, 20))])[1].shape
    ((10, 50, 3), (20, 3))

    Raises ValueError for anything else, a nested frame among it.
    """
    _refuse_nested_frame(X)
    if isinstance(X, (list, tuple)):
        if any(hasattr(one, "iloc") for one in X):
            raise ValueError("a list of frames has its steps as rows already: pass it to the estimator as it is")
        parts = [np.asarray(one) for one in X]
        for index, part in enumerate(parts):
            if part.ndim != 2:
                raise ValueError(f"sequence {index} is {part.shape}, expected (D, T_i), features first as in aeon")
        return [part.T for part in parts]
    array = np.asarray(X)
    if array.ndim not in (2, 3):
        raise ValueError(f"found an array {array.shape}, expected (N, D, T) as in aeon, (N, T), or a list of (D, T_i)")
    return array[:, :, None] if array.ndim == 2 else array.swapaxes(1, 2)


# ---- what comes in


class _Reader(BaseEstimator):
    """What reads sequences, and remembers what they were like when it was fitted."""

    n_features_in_: int  # features of a step, D; of a table its columns
    _on_table: bool

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _enter(self, X: Any, *, fitting: bool) -> Sequences:
        """X as (N, T, D) or a list of (T_i, D), float32 or float64 and finite.

        Raises ValueError or TypeError, in scikit-learn's words where it has some; unless `fitting`, also where X is not
        like what it was fitted on.
        """
        _refuse_nested_frame(X)
        parts = _parts(X)
        if parts is None and _is_table(X):
            return self._enter_table(X, fitting)[:, :, None]
        flags = {"dtype": FLOATS, "estimator": self, "input_name": "X"}
        if parts is None:
            x = check_array(X, allow_nd=True, **flags)
            if x.ndim != 3 or 0 in x.shape:
                raise ValueError(
                    f"X must be sequences (N, T, D), a list of (T_i, D) or a table (N, T), found {x.shape}"
                )
            features = x.shape[2]
        else:
            features = parts[0].shape[1]
            steps = check_array(np.concatenate(parts), ensure_min_samples=0, **flags)
            x = np.split(steps, np.cumsum([len(part) for part in parts])[:-1])
        if fitting:
            self._on_table, self.n_features_in_ = False, features
            if hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        elif features != (expected := 1 if self._on_table else self.n_features_in_):
            raise ValueError(
                f"X has {features} features in each step, but {type(self).__name__} is expecting {expected}"
            )
        return x

    def _enter_table(self, X: Any, fitting: bool) -> np.ndarray:
        """A table (N, F), checked."""
        if fitting or self._on_table:
            table: np.ndarray = validate_data(self, X, dtype=FLOATS, reset=fitting)
            self._on_table = True
            return table
        table = check_array(X, dtype=FLOATS, estimator=self, input_name="X")
        if self.n_features_in_ != 1:
            raise ValueError(
                f"X is a table {table.shape}, which is read as sequences of one feature, but {type(self).__name__} was "
                f"fitted on sequences of {self.n_features_in_}: pass (N, T, {self.n_features_in_}) or a list"
            )
        return table


def _parts(X: Any) -> list[np.ndarray] | None:
    """The arrays (T_i, D) of a list of sequences; None for what is one array, in whatever form.

    Raises ValueError where they are not of one D, or have no axis for it.
    """
    listed = isinstance(X, (list, tuple)) or (isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1)
    if not listed or len(X) == 0:
        return None
    axes = [_axes(one) for one in X]
    if set(axes) == {1} and len({len(one) for one in X}) > 1:
        raise ValueError("X is a list of sequences of unequal length without an axis for features: make each (T_i, 1)")
    if 2 not in axes:
        return None
    parts = [np.asarray(one) for one in X]
    for index, part in enumerate(parts):
        if part.ndim != 2 or part.shape[1] != parts[0].shape[-1] or part.shape[1] == 0:
            raise ValueError(
                f"X is a list of sequences, which must be arrays (T_i, D) of the same D; sequence 0 is "
                f"{parts[0].shape}, sequence {index} is {part.shape}"
            )
    if not any(len(part) for part in parts):
        raise ValueError("X is a list of sequences, of which none has a step")
    return parts


def _is_table(X: Any) -> bool:
    """Whether it is read as a table, if it is no list of sequences; scikit-learn refuses what is none."""
    return getattr(X, "ndim", 2) < 3


def _axes(one: Any) -> int:
    """How many axes an entry of a list has, as far as it matters here: 0, 1 or 2."""
    if hasattr(one, "ndim"):
        return int(one.ndim)
    if not isinstance(one, (list, tuple)):
        return 0
    return 1 + min(1, _axes(one[0])) if one else 1


def _refuse_nested_frame(X: Any) -> None:
    """Raises ValueError for a frame whose cells are whole series, as sktime once had them."""
    if hasattr(X, "iloc") and hasattr(X, "columns") and len(X):
        cells = [X.iloc[0, column] for column in range(X.shape[1])]
        if any(hasattr(cell, "__len__") and not isinstance(cell, (str, bytes)) for cell in cells):
            raise ValueError(
                "X is a frame whose cells are series (a nested frame); pass an array (N, T, D) or a list of arrays "
                "(T_i, D): sktime's convert_to(X, 'df-list') gives such a list, and 'numpy3D' what from_aeon takes"
            )


def _enter_weights(sample_weight: Any, N: int) -> np.ndarray | None:
    """Weights (N,), float64, checked; None where all samples count the same."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Number):
        sample_weight = np.full(N, sample_weight)
    weights: np.ndarray = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.shape != (N,):
        raise ValueError(f"sample_weight must have shape ({N},), one for each sample of X, found {weights.shape}")
    if (weights < 0).any():
        raise ValueError(f"sample_weight must be 0 or more, found {weights.min():g}")
    if not weights.any():
        raise ValueError("sample_weight must have at least one weight that is not zero")
    return weights


def _chosen(x: Sequences, indices: np.ndarray) -> Sequences:
    return [x[index] for index in indices] if isinstance(x, list) else x[indices]


# ---- what is trained


class _Estimator(_Reader):
    """What the classifier and the regressor share: parameters, training and its record."""

    # parameters, as the constructors have them
    cell: str
    hidden_size: Any
    num_layers: int
    bidirectional: bool
    dropout: float
    read_out: str
    solver: str
    learning_rate_init: float
    weight_decay: float
    clip_norm: float | None
    max_iter: int
    batch_size: int
    shuffle: bool
    tol: float
    n_iter_no_change: int | None
    early_stopping: bool
    validation_fraction: float
    warm_start: bool
    random_state: Any
    verbose: int | bool
    dtype: Dtype | None
    backend: str | Backend
    model_options: Mapping[str, Any] | None
    solver_options: Mapping[str, Any] | None

    model_: Any
    history_: History

    def _keep(self, given: Mapping[str, Any]) -> None:
        """The parameters, among the `locals()` of a constructor, as they are: they are checked in `fit`."""
        for name, value in given.items():
            if name != "self":
                setattr(self, name, value)

    def _targets(self, y: Any, *, known: bool) -> np.ndarray:
        """Targets as the model takes them, (N,) or (N, M); `known`: what they are like is known.  Raises ValueError."""
        raise NotImplementedError

    def _new_model(self, options: dict[str, Any]) -> SequenceModel:
        """The model, of the options that do not depend on the targets."""
        raise NotImplementedError

    def _weights_of(self, y: np.ndarray, weights: np.ndarray | None, *, partial: bool) -> np.ndarray | None:
        """What the samples count, of what they were given."""
        return weights

    def _stratified(self, y: np.ndarray) -> np.ndarray | None:
        """Classes whose shares the validation sequences keep."""
        return None

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, partial: bool) -> Self:
        """Train on X and y: until it stops, or, where it is `partial`, for one more epoch."""
        going_on = hasattr(self, "model_") and (partial or check_bool("warm_start", self.warm_start))
        if partial and self.early_stopping:
            raise ValueError("partial_fit sees a part of the data: early_stopping must be False")
        x = self._enter(X, fitting=not going_on)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        targets = self._targets(y, known=going_on or partial)
        if len(targets) != len(x):
            raise ValueError(f"X and y have inconsistent numbers of samples: {len(x)} and {len(targets)}")
        weights = self._weights_of(targets, _enter_weights(sample_weight, len(x)), partial=partial)
        if weights is not None and not weights.all():  # what counts nothing must not take a place in a batch
            counted = np.flatnonzero(weights)
            if len(counted) == 0:
                raise ValueError("sample_weight and class_weight together are zero for all samples")
            x, targets, weights = _chosen(x, counted), targets[counted], weights[counted]
        seed = self._seed()
        if not going_on:
            self.model_ = self._new_model(self._options(x, seed))
            self.history_ = History()
        if not partial or not hasattr(self, "_optimizer"):
            self._optimizer = self._new_optimizer()
        made, stopped = self._train(x, targets, weights, seed, epochs=1 if partial else None)
        self.history_ += made
        self.n_iter_, self.loss_curve_ = len(self.history_), [epoch.train.loss for epoch in self.history_]
        self.loss_ = self.loss_curve_[-1]
        held = [epoch.validation for epoch in self.history_ if epoch.validation is not None]
        self.validation_scores_ = [self._score_of(metrics) for metrics in held] or None
        if not (partial or stopped or self.n_iter_no_change is None):
            warnings.warn(
                f"all {self.max_iter} epochs were made and the loss still fell: raise max_iter, or say with "
                "n_iter_no_change=None that this is their number",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _score_of(self, metrics: Any) -> float:
        """What `score` would be on the validation sequences."""
        raise NotImplementedError

    def _options(self, x: Sequences, seed: int) -> dict[str, Any]:
        """Options of the model, but for its number of outputs."""
        own = {name: getattr(self, name) for name in ("cell", "hidden_size", "num_layers", "bidirectional", "dropout",
                                                      "read_out", "backend")}  # fmt: skip
        if self.read_out == "each_step":
            raise ValueError(
                'read_out "each_step" gives every step an answer, but scikit-learn has one y for each sequence; '
                "lstm_np's models have it themselves"
            )
        more = {} if self.model_options is None else self.model_options
        if not isinstance(more, Mapping):
            raise TypeError(f"model_options must be options by name, found {more!r}")
        if taken := sorted((OWN | self.get_params(deep=False).keys()) & more.keys()):
            raise ValueError(
                f"model_options has {', '.join(taken)}, which {type(self).__name__} has a parameter for or sets itself "
                "(the seed is random_state)"
            )
        dtype = x[0].dtype.name if self.dtype is None else self.dtype
        return {**own, **more, "input_size": x[0].shape[1], "dtype": dtype, "seed": seed}

    def _seed(self) -> int:
        """`random_state` where that is a number, else one that it draws."""
        state = check_random_state(self.random_state)
        return int(self.random_state) if isinstance(self.random_state, Integral) else int(state.randint(2**31 - 1))

    def _new_optimizer(self) -> Any:
        solver = Option("solver", "", str, choices=tuple(OPTIMIZERS)).check(self.solver)
        more = {} if self.solver_options is None else self.solver_options
        if not isinstance(more, Mapping):
            raise TypeError(f"solver_options must be arguments of the optimizer by name, found {more!r}")
        rate = Option("learning_rate_init", "", float, at_least=0).check(self.learning_rate_init)
        given = {"lr": rate, "weight_decay": self.weight_decay}
        return OPTIMIZERS[solver](self.model_.params, **{**given, **more})

    def _train(
        self, x: Sequences, y: np.ndarray, weights: np.ndarray | None, seed: int, *, epochs: int | None
    ) -> tuple[History, bool]:
        """What was made, and whether it stopped by itself."""
        limit = check_count("max_iter", self.max_iter, 1) if epochs is None else epochs
        flags: dict[str, Any] = {"shuffle": self.shuffle, "clip_norm": self.clip_norm, "verbose": self.verbose}
        if check_bool("early_stopping", self.early_stopping):
            x, y, weights, flags["validation_data"] = self._held_out(x, y, weights, seed)
        if weights is not None:
            flags["sample_weight"] = weights
        patience = self.n_iter_no_change
        patience = limit if patience is None else check_count("n_iter_no_change", patience, 1)
        tol = Option("tol", "", float, at_least=0).check(self.tol)
        stopping = EarlyStopping(self.model_.params, patience, tol, restore_best=self.early_stopping)
        callbacks = [stopping] if epochs is None else []
        history = self.model_.fit(
            x, y, epochs=limit, batch_size=self.batch_size, optimizer=self._optimizer, callbacks=callbacks, **flags
        )
        return history, stopping.bad_epochs >= patience

    def _held_out(self, x: Sequences, y: np.ndarray, weights: np.ndarray | None, seed: int) -> tuple[Any, ...]:
        """x, y and weights to train on, and those to measure each epoch on."""
        selection = extras.load("sklearn.model_selection", *_NEEDED)
        share = Option("validation_fraction", "", float, above=0, below=1).check(self.validation_fraction)
        kept, held = selection.train_test_split(
            np.arange(len(x)), test_size=share, random_state=seed, stratify=self._stratified(y)
        )
        x_held, y_held = _chosen(x, held), y[held]
        if weights is None:
            return _chosen(x, kept), y[kept], None, (x_held, y_held)
        return _chosen(x, kept), y[kept], weights[kept], (x_held, y_held, None, weights[held])


class LSTMClassifier(ClassifierMixin, _Estimator):
    """A classifier of sequences for scikit-learn: an LSTM (GRU, RNN), a dense read-out, softmax cross-entropy.

    hidden_size          units of a layer; a list has those of each layer
    cell                 "lstm", "gru", "rnn", or a cell of your own that is registered
    num_layers, bidirectional, dropout, read_out    as for `lstm_np.SequenceClassifier`
    class_weight         what a class counts: {class: weight}, "balanced" (inversely to how often it is there), None: 1
    solver               "adam", "adamw", "rmsprop" or "sgd"
    learning_rate_init   its learning rate
    weight_decay         see `lstm_np.optimizers`
    clip_norm            upper bound of the norm of all gradients together; None: none
    max_iter             epochs at most
    batch_size           sequences of a batch
    shuffle              whether each epoch has an order of its own
    tol, n_iter_no_change   training ends when the loss has not fallen by tol for so many epochs in a row; None: all
                         max_iter epochs are made
    early_stopping       whether that is the loss of a part held out, validation_fraction of the sequences, with the
                         classes' shares; the parameters are then those of its best epoch
    warm_start           whether `fit` goes on with the model that is there, by a new optimizer
    random_state         of initial weights, order, dropout and the part held out; a number is the model's seed
    verbose              0 (or False): nothing is printed; 1: a line per epoch
    dtype                "float32" or "float64"; None: that of X, float64 for whole numbers
    backend              "numpy", "cupy" or a `lstm_np.Backend`
    model_options        further options of `lstm_np.SequenceClassifier` by name, such as {"forget_bias": 1.0}
    solver_options       further arguments of the optimizer, such as {"betas": (0.9, 0.99)}

    After `fit`:

    model_               the `lstm_np.SequenceClassifier`: save it, trace it, explain it; its notes have the classes
    classes_             the labels, in the order of the probabilities' columns
    history_             the epochs, a `lstm_np.History`, of earlier calls too where this one went on
    n_iter_, loss_curve_, loss_   the number of epochs, the training loss of each, and of the last
    validation_scores_   the accuracy on the part held out, per epoch (of several labels the share of right ones); None
                         without early_stopping
    n_features_in_       features of a step, D; of a table its columns
    feature_names_in_    names of a frame's columns

    A sample of weight 0 is left out, and where all samples are one batch a weight of 2 is the sample twice.

    >>> from sklearn.model_selection import cross_val_score
    >>> from lstm_np.sklearn import LSTMClassifier
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((80, 8, 2)), rng.integers(0, 2, 80)
    >>> x[:, 3, 0] += 6 * y
    >>> scores = cross_val_score(LSTMClassifier(8, max_iter=60, n_iter_no_change=None, random_state=0), x, y, cv=2)
    >>> scores.mean() > 0.8
    np.True_

    `fit` raises ValueError for sequences, targets, weights or parameters that do not fit, TypeError for sparse X,
    TrainingDivergedError as `lstm_np.SequenceClassifier.fit`; a ConvergenceWarning says that max_iter ended it.
    """

    class_weight: Mapping[Any, float] | str | None

    classes_: np.ndarray
    _several: bool  # whether labels can hold together, so that y is (N, K) of 0 and 1

    def __init__(
        self,
        hidden_size: Any = 32,
        *,
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        read_out: str = "final_state",
        class_weight: Mapping[Any, float] | str | None = None,
        solver: str = "adam",
        learning_rate_init: float = 0.01,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        max_iter: int = 100,
        batch_size: int = 128,
        shuffle: bool = True,
        tol: float = 1e-4,
        n_iter_no_change: int | None = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int | bool = 0,
        dtype: Dtype | None = None,
        backend: str | Backend = "numpy",
        model_options: Mapping[str, Any] | None = None,
        solver_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._keep(locals())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on sequences X (see the module) and their labels y (N,), numbers or text; sample_weight (N,) or None.

        y may also be (N, K), whether each of K labels holds, 0 or 1: several can, and the loss is binary cross-entropy.

        Raises as the class.
        """
        return self._fit(X, y, sample_weight, partial=False)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One more epoch, on X and y; `classes`, all labels that may come, are needed in the first call.

        >>> from lstm_np.sklearn import LSTMClassifier
        >>> classifier, rng = LSTMClassifier(8), np.random.default_rng(0)
        >>> for _ in range(3):
        ...     classifier = classifier.partial_fit(rng.standard_normal((20, 5, 2)), np.arange(20) % 2, classes=[0, 1])
        >>> classifier.n_iter_
        3

        Raises ValueError as `fit`, for labels that are not among the classes, and where these are missing or change.
        """
        given = None if classes is None else unique_labels(classes)
        if not hasattr(self, "model_"):
            if given is None:
                raise ValueError("classes must be passed on the first call to partial_fit")
            self.classes_ = given
        elif given is not None and not np.array_equal(given, self.classes_):
            raise ValueError(f"classes must be those of the calls before, {self.classes_}, found {given}")
        return self._fit(X, y, sample_weight, partial=True)

    def _targets(self, y: Any, *, known: bool) -> np.ndarray:
        y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
        several = type_of_target(y, input_name="y") == "multilabel-indicator"
        if known and hasattr(self, "model_") and several != self._several:
            raise ValueError("y must be as before: (N, K) of 0 and 1 where it was that, and one label (N,) elsewhere")
        self._several = several
        if several:
            if not known:
                self.classes_ = np.arange(y.shape[1])
            elif y.shape[1] != len(self.classes_):
                raise ValueError(f"y must be (N, {len(self.classes_)}) as before, found {y.shape}")
            return np.asarray(y, np.int64)
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        if not known:
            self.classes_ = np.unique(labels)
        elif unknown := sorted(set(labels.tolist()) - set(self.classes_.tolist()), key=str):
            raise ValueError(f"y has labels that are not among the classes {self.classes_}: {unknown}")
        if len(self.classes_) < 2:
            raise ValueError(f"y has only one class, {self.classes_.tolist()[0]!r}; a classifier needs two or more")
        return np.searchsorted(self.classes_, labels)

    def _weights_of(self, y: np.ndarray, weights: np.ndarray | None, *, partial: bool) -> np.ndarray | None:
        if self.class_weight is None:
            return weights
        if self._several:
            raise ValueError("class_weight is for sequences of one label each; give sample_weight")
        given = np.ones(len(y)) if weights is None else weights
        if isinstance(self.class_weight, Mapping):
            of_class = compute_class_weight(dict(self.class_weight), classes=self.classes_, y=self.classes_[y])
        elif isinstance(self.class_weight, str) and self.class_weight == "balanced":
            if partial:
                raise ValueError('partial_fit sees a part of y: class_weight "balanced" needs all of it')
            found = np.bincount(y, given, len(self.classes_))  # scikit-learn's, where a weight of 2 is two samples
            of_class = given.sum() / (len(self.classes_) * np.where(found > 0, found, 1.0))
        else:
            raise ValueError(f'class_weight must be {{class: weight}}, "balanced" or None, found {self.class_weight!r}')
        if (of_class < 0).any():
            raise ValueError(f"class_weight must be 0 or more, found {of_class.min():g}")
        return given * of_class[y]

    def _new_model(self, options: dict[str, Any]) -> SequenceClassifier:
        loss = "binary" if self._several else "softmax"
        model = SequenceClassifier(**options, num_classes=len(self.classes_), loss=loss)
        model.notes["classes"] = self.classes_.tolist()
        return model

    def _stratified(self, y: np.ndarray) -> np.ndarray | None:
        return None if self._several else y

    def _score_of(self, metrics: Any) -> float:
        return float(metrics.accuracy)

    def _logits(self, X: Any) -> np.ndarray:
        """(N, K).  Raises NotFittedError before `fit`."""
        check_is_fitted(self, "model_")
        x, model = self._enter(X, fitting=False), self.model_
        parts = [model.backend.to_host(model.logits(x[start : start + BATCH])) for start in range(0, len(x), BATCH)]
        return np.concatenate(parts)

    def decision_function(self, X: Any) -> np.ndarray:
        """The logits (N, K); of two classes how far the second's is above the first's, (N,).  Above 0: a label holds.

        Raises ValueError or TypeError where X does not fit, NotFittedError before `fit`; so do the others.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 and not self._several else logits

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`, finite where a probability is too small for a number."""
        logits = self._logits(X)
        return -np.logaddexp(0, -logits) if self._several else log_softmax(np, logits.T).T

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, (N, K), in the order of `classes_`, or that each label holds."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each sequence, (N,); (N, K) of 0 and 1 where y was that."""
        logits = self._logits(X)
        return (logits > 0).astype(np.int64) if self._several else self.classes_[logits.argmax(axis=1)]


class LSTMRegressor(RegressorMixin, _Estimator):
    """A regressor of sequences for scikit-learn: an LSTM (GRU, RNN) and a dense read-out of one or several numbers.

    loss                 "squared", "absolute" or "huber": what is minimized, the mean over all targets
    huber_delta          up to which distance "huber" is a squared error

    All other parameters are those of `LSTMClassifier`, which has class_weight besides; so are the attributes after
    `fit`, with these differences:

    model_               a `lstm_np.SequenceRegressor`
    n_outputs_           the number of targets, M
    validation_scores_   R^2 on the part held out, per epoch

    y is (N,), or (N, M) for several targets at once.  Targets are learned as they are: where they are far from 0 or
    their spread is far from 1, put the estimator into scikit-learn's TransformedTargetRegressor.

    >>> from sklearn.compose import TransformedTargetRegressor
    >>> from sklearn.preprocessing import StandardScaler
    >>> from lstm_np.sklearn import LSTMRegressor
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((200, 6, 2))
    >>> y = 1000 + 50 * x[:, :, 0].sum(axis=1)
    >>> regressor = LSTMRegressor(16, max_iter=60, n_iter_no_change=None, batch_size=50, random_state=0)
    >>> TransformedTargetRegressor(regressor, transformer=StandardScaler()).fit(x, y).score(x, y) > 0.9
    True

    Raises as `LSTMClassifier`.
    """

    loss: str
    huber_delta: float

    n_outputs_: int
    _shape: tuple[int, ...]

    def __init__(
        self,
        hidden_size: Any = 32,
        *,
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        read_out: str = "final_state",
        loss: str = "squared",
        huber_delta: float = 1.0,
        solver: str = "adam",
        learning_rate_init: float = 0.01,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        max_iter: int = 100,
        batch_size: int = 128,
        shuffle: bool = True,
        tol: float = 1e-4,
        n_iter_no_change: int | None = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int | bool = 0,
        dtype: Dtype | None = None,
        backend: str | Backend = "numpy",
        model_options: Mapping[str, Any] | None = None,
        solver_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._keep(locals())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on sequences X (see the module) and numbers y, (N,) or (N, M); sample_weight (N,) or None.

        Raises as the class.
        """
        return self._fit(X, y, sample_weight, partial=False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One more epoch, on X and y.  Raises as `fit`."""
        return self._fit(X, y, sample_weight, partial=True)

    def _targets(self, y: Any, *, known: bool) -> np.ndarray:
        numbers: np.ndarray = check_array(y, ensure_2d=False, dtype=FLOATS, input_name="y")
        shape = numbers.shape[1:]
        if known and hasattr(self, "n_outputs_") and shape != self._shape:
            raise ValueError(f"y must be (N, {self.n_outputs_}) as before, found {numbers.shape}")
        self._shape, self.n_outputs_ = shape, shape[0] if shape else 1
        return numbers

    def _new_model(self, options: dict[str, Any]) -> SequenceRegressor:
        own: dict[str, Any] = {"num_targets": self.n_outputs_, "loss": self.loss, "huber_delta": self.huber_delta}
        return SequenceRegressor(**options, **own)

    def _score_of(self, metrics: Any) -> float:
        return float(metrics.r2)

    def predict(self, X: Any) -> np.ndarray:
        """The numbers of each sequence, (N,) or (N, M) as y was.

        Raises ValueError or TypeError where X does not fit, NotFittedError before `fit`.
        """
        check_is_fitted(self, "model_")
        predicted: np.ndarray = self.model_.predict(self._enter(X, fitting=False), batch_size=BATCH)
        return predicted.reshape(-1, *self._shape)


# ---- what is scaled


class SequenceScaler(OneToOneFeatureMixin, TransformerMixin, _Reader):
    """Features on one scale, over all steps of all sequences: `lstm_np.data.SequenceScaler` as a transformer.

    kind                 "standard", "minmax" or "robust", see there

    After `fit`:

    scaler_              the `lstm_np.data.SequenceScaler`, with its offset and scale (D,)
    n_features_in_       features of a step, D; of a table its columns
    feature_names_in_    names of a frame's columns

    `transform` gives an array (N, T, D) or a list as X is.  A table is N sequences of one feature, so all of its
    columns get the same scale: scikit-learn's StandardScaler, which scales each column by itself, would make every step
    of a sequence another feature.

    >>> from lstm_np.sklearn import SequenceScaler
    >>> x = [np.array([[1.0, 10.0], [3.0, 30.0]]), np.array([[5.0, 50.0]])]
    >>> [one.round(2).tolist() for one in SequenceScaler().fit_transform(x)]
    [[[-1.22, -1.22], [0.0, 0.0]], [[1.22, 1.22]]]

    Raises ValueError for sequences that do not fit, or another kind; TypeError for sparse X.
    """

    def __init__(self, kind: str = "standard") -> None:
        self.kind = kind

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn offset and scale from sequences X; y is not looked at.  Raises as the class."""
        self.scaler_ = scaling.SequenceScaler(self.kind).fit(self._enter(X, fitting=True))
        return self

    def transform(self, X: Any) -> Any:
        """X with each feature scaled: a table (N, F), an array (N, T, D) or a list of (T_i, D), as X is.

        Raises as the class, and NotFittedError before `fit`.
        """
        return self._changed(X, "transform")

    def inverse_transform(self, X: Any) -> Any:
        """The sequences that `transform` makes X of; as there."""
        return self._changed(X, "inverse_transform")

    def _changed(self, X: Any, method: str) -> Any:
        check_is_fitted(self, "scaler_")
        x = self._enter(X, fitting=False)
        changed = getattr(self.scaler_, method)(x)
        return changed[:, :, 0] if _parts(X) is None and _is_table(X) else changed
