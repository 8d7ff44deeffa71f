"""How good a model is: metrics of classification and of regression, and the sums over batches that they are made of.

Sums stay where they are computed and are read only when someone looks, so that a GPU is not waited for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends import Backend


@dataclass(frozen=True)
class Metrics:
    """Mean loss and accuracy over `count` answers, of which `correct` were right.

    An answer is a sequence's class; of a model that reads each step, a step's class; with loss="binary", one label of
    it.  With sample weights, loss and accuracy are weighted means, and `weights` is what the two were divided by (None:
    both by `count`).  Where nothing counts they are nan.

    >>> lstm_np.Metrics(loss=0.25, accuracy=0.9, count=10, correct=9)
    Metrics(loss=0.25, accuracy=0.9, count=10, correct=9)
    """

    second: ClassVar[str] = "accuracy"  # the number that stands beside the loss in tables and curves

    loss: float
    accuracy: float
    count: int
    correct: int
    weights: tuple[float, float] | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, as plain values."""
        return _plain(self)

    @property
    def score(self) -> float:
        """The number called `second`."""
        return self.accuracy

    @property
    def divisor(self) -> float:
        """What the mean loss was divided by; 0: nothing counted."""
        return self._divisors[0]

    @property
    def _divisors(self) -> tuple[float, float]:
        return (self.count, self.count) if self.weights is None else self.weights

    def since(self, seen: AnyMetrics | None) -> tuple[float, float]:
        """(loss, accuracy) of the answers that came after those of `seen`, which are among these."""
        if not isinstance(seen, Metrics) or not seen.count:
            return self.loss, self.accuracy
        now, before = self._divisors, seen._divisors
        if self.weights is None and seen.weights is None:
            count = self.count - seen.count
            return (self.loss * self.count - seen.loss * seen.count) / count, (self.correct - seen.correct) / count
        pairs = ((self.loss, seen.loss), (self.accuracy, seen.accuracy))
        loss, accuracy = (_after(*pair, a, b) for pair, a, b in zip(pairs, now, before, strict=True))
        return loss, accuracy


@dataclass(frozen=True)
class RegressionMetrics:
    """Mean loss and errors over `count` sequences, or steps of a model that reads each step.

    mean_squared_error, mean_absolute_error   over all targets
    r2   1 - sum (y - t)^2 / sum (t - mean t)^2, the mean over the targets (nan where all of a target are equal)

    With sample weights all of them are weighted, and `weight` is the sum of the weights (None: `count`).  Where nothing
    counts they are nan.

    >>> metrics = lstm_np.SequenceRegressor(3, 8).evaluate(np.ones((4, 5, 3)), [0.0, 1.0, 2.0, 3.0])
    >>> sorted(metrics.as_dict()), metrics.count
    (['count', 'loss', 'mean_absolute_error', 'mean_squared_error', 'r2'], 4)
    """

    second: ClassVar[str] = "mean_absolute_error"

    loss: float
    mean_squared_error: float
    mean_absolute_error: float
    r2: float
    count: int
    weight: float | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, as plain values."""
        return _plain(self)

    @property
    def score(self) -> float:
        """The number called `second`."""
        return self.mean_absolute_error

    @property
    def divisor(self) -> float:
        """As `Metrics.divisor`."""
        return self.count if self.weight is None else self.weight

    def since(self, seen: AnyMetrics | None) -> tuple[float, float]:
        """(loss, mean absolute error) of what came after that of `seen`, which is among these."""
        if not isinstance(seen, RegressionMetrics):
            return self.loss, self.mean_absolute_error
        pairs = ((self.loss, seen.loss), (self.mean_absolute_error, seen.mean_absolute_error))
        loss, error = (_after(*pair, self.divisor, seen.divisor) for pair in pairs)
        return loss, error


AnyMetrics = Metrics | RegressionMetrics


def names_of_means(kind: type[AnyMetrics]) -> tuple[str, ...]:
    """The names of the means among metrics, which callbacks may look at; the others are counts.

    >>> from lstm_np.metrics import names_of_means
    >>> names_of_means(lstm_np.Metrics)
    ('loss', 'accuracy')
    """
    return tuple(item.name for item in fields(kind) if item.type == "float")


def _after(now: float, before: float, weight_now: float, weight_before: float) -> float:
    """The mean of what lies between two means, from these and their weights; nan where nothing does."""
    if not weight_before:  # the mean of nothing is nan
        return now
    weight = weight_now - weight_before
    return (now * weight_now - before * weight_before) / weight if weight else math.nan


def _plain(metrics: AnyMetrics) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(metrics).items() if v is not None}


def from_dict(values: Mapping[str, Any]) -> AnyMetrics:
    """The metrics that gave these values by `as_dict`."""
    if "mean_squared_error" in values:
        return RegressionMetrics(**values)
    weights = values.get("weights")
    return Metrics(**{**values, "weights": None if weights is None else tuple(weights)})


def mean_of(loss_sum: float, correct: int, count: int) -> Metrics:
    """Metrics from sums over `count` answers; nan for none."""
    if count == 0:
        return Metrics(math.nan, math.nan, 0, 0)
    return Metrics(loss_sum / count, correct / count, count, correct)


# ---- sums over batches


class Answers(NamedTuple):
    """Of a batch of a classifier in which not every sequence counts once and as much as the others.

    answers  how many there are that count
    weight   what the mean loss was divided by
    total    the sum of the sample weights of the answers that count
    right    that of the right ones, 0-dimensional, of the backend
    """

    answers: int
    weight: float
    total: float
    right: Array


class Errors(NamedTuple):
    """Of a batch of a regressor, with M targets.

    answers  sequences or steps
    weight   the sum of their weights
    squared  (M,) the weighted sums of the squared errors, of the backend
    mean     (M,) the weighted means of the targets, NumPy float64
    spread   (M,) the weighted sums of (target - mean)^2, NumPy float64
    """

    answers: int
    weight: float
    squared: Array
    mean: np.ndarray
    spread: np.ndarray


class Running:
    """Sums of loss and correct answers of a classifier, as arrays of a backend.

    count  answers so far
    """

    def __init__(self, backend: Backend) -> None:
        self._backend, self.count = backend, 0
        self._loss: Array = 0.0
        self._correct: Array = 0
        self._right: Array = 0
        self._weights: tuple[float, float] = (0, 0)

    def add(self, loss: Array, correct: Array, count: int, of: Answers | None = None) -> None:
        """Add a batch: its mean loss and number of correct answers, both 0-dimensional, and `count` sequences.

        of  what its answers count, where that is not 1 for each sequence
        """
        answers, weight, total = (count, count, count) if of is None else of[:3]
        self._loss = self._loss + loss.astype("float64") * float(weight)
        self._correct = self._correct + correct
        self._right = self._right + (correct if of is None else of.right.astype("float64"))
        self.count += answers
        self._weights = self._weights[0] + weight, self._weights[1] + total

    def read(self) -> Metrics:
        """The means so far; may wait for a device.  nan before the first batch."""
        state = self.state()
        weights = state.get("weights")
        if weights is None:
            return mean_of(state["loss"], state["correct"], state["count"])
        parts = zip((state["loss"], state["right"]), weights, strict=True)
        loss, accuracy = (part / weight if weight else math.nan for part, weight in parts)
        return Metrics(loss, accuracy, state["count"], state["correct"], (weights[0], weights[1]))

    def reset(self) -> None:
        """Begin anew."""
        self.restore({"loss": 0.0, "correct": 0, "count": 0})

    def state(self) -> dict[str, Any]:
        """{"loss": float, "correct": int, "count": int}, and where they would be others "right" and "weights"."""
        loss, correct, right = (float(self._backend.to_host(v)) for v in (self._loss, self._correct, self._right))
        simple = {"loss": loss, "correct": int(correct), "count": self.count}
        same = self._weights == (self.count, self.count) and right == correct  # weights may sum to the count
        return simple if same else {**simple, "right": right, "weights": list(self._weights)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._loss = state["loss"]
        self._correct = state["correct"]
        self._right = state.get("right", state["correct"])
        self.count = state["count"]
        first, second = state.get("weights", (self.count, self.count))
        self._weights = first, second


class RunningErrors:
    """Sums of loss and errors of a regressor; the targets' mean and spread are merged batch by batch.

    The merging is that of Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979: nothing is lost where the targets are large and near each other.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend, self.count, self._weight = backend, 0, 0.0
        self._loss: Array = 0.0
        self._absolute: Array = 0.0
        self._squared: Array = 0.0
        self._mean = self._spread = np.zeros(1)

    def add(self, loss: Array, absolute: Array, count: int, of: Errors) -> None:
        """Add a batch: its mean loss, and the weighted sum of its absolute errors (the mean over the targets)."""
        self.count += of.answers
        if not of.weight:
            return
        self._loss = self._loss + loss.astype("float64") * of.weight
        self._absolute = self._absolute + absolute.astype("float64")
        self._squared = self._squared + of.squared.astype("float64")
        if not self._weight:
            self._weight, self._mean, self._spread = of.weight, of.mean, of.spread
            return
        total = self._weight + of.weight
        apart = of.mean - self._mean
        self._spread = self._spread + of.spread + apart * apart * (self._weight * of.weight / total)
        self._mean = self._mean + apart * (of.weight / total)
        self._weight = total

    def read(self) -> RegressionMetrics:
        """As `Running.read`."""
        state = self.state()
        weight, squared, spread = state["weight"], np.array(state["squared"]), np.array(state["spread"])
        if not weight:
            return RegressionMetrics(math.nan, math.nan, math.nan, math.nan, self.count, weight)
        varied = spread > 0
        r2 = float((1.0 - squared / np.where(varied, spread, 1.0)).mean()) if varied.all() else math.nan
        loss, absolute = state["loss"] / weight, state["absolute"] / weight
        own = None if weight == self.count else weight
        return RegressionMetrics(loss, float(squared.mean()) / weight, absolute, r2, self.count, own)

    def reset(self) -> None:
        """Begin anew."""
        nothing = {"loss": 0.0, "absolute": 0.0, "squared": [0.0], "mean": [0.0], "spread": [0.0]}
        self.restore({**nothing, "count": 0, "weight": 0.0})

    def state(self) -> dict[str, Any]:
        """The sums as plain values."""
        to_host = self._backend.to_host
        return {
            "loss": float(to_host(self._loss)),
            "absolute": float(to_host(self._absolute)),
            "squared": np.asarray(to_host(self._squared)).tolist(),
            "mean": self._mean.tolist(),
            "spread": self._spread.tolist(),
            "count": self.count,
            "weight": self._weight,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._loss = state["loss"]
        self._absolute = state["absolute"]
        self._squared = self._backend.from_host(np.array(state["squared"], np.float64))
        self._mean, self._spread = np.array(state["mean"], np.float64), np.array(state["spread"], np.float64)
        self.count = state["count"]
        self._weight = state["weight"]


def moments(values: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(M,) means and (M,) sums of squared distances from them, float64, of values (M, N) with weights (N,)."""
    values = values.astype(np.float64)
    s = np.ones(values.shape[1]) if weights is None else weights.astype(np.float64)
    mean = (values * s).sum(axis=1) / max(float(s.sum()), np.finfo(np.float64).tiny)
    apart = values - mean[:, None]
    return mean, (apart * apart * s).sum(axis=1)
