"""What a model predicts: the targets that it is given, entered and checked, its loss, its predictions and its metrics.

A head knows nothing of recurrent layers.  It is given outputs, what the dense read-out gives of what is read: (K, B), a
column a sequence, or (K, T, B) of a model that reads each step.  What people pass stands batch-first, as x does:

             for each sequence                                 for each step
    Classes  integers (N,), one-hot or probabilities (N, K)    (N, T), (N, T, K), a list of (T_i,) or (T_i, K)
    Labels   0 or 1, several at once, (N, K)                   (N, T, K), a list of (T_i, K)
    Numbers  (N, M), or (N,) where M is 1                      (N, T, M) or (N, T), a list of (T_i, M) or (T_i,)

`read` checks a whole data set, or a batch, and gives one NumPy array, which `lstm_np.data.Batches` cuts; `enter` turns
a batch of it into `Targets` on the backend.  What an array holds at steps that a sequence does not have is not read.
Whether floating-point targets of classes are one-hot or probabilities (soft labels) is decided for a whole data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lstm_np import losses
from lstm_np.arrays import Array, Namespace
from lstm_np.backends import Backend, as_array
from lstm_np.metrics import (
    Answers,
    Errors,
    Metrics,
    RegressionMetrics,
    Running,
    RunningErrors,
    moments,
    names_of_means,
)
from lstm_np.options import OptionError
from lstm_np.packing import Real, as_mask, targets_of_steps

NO_LABEL = -1  # what is predicted at steps that a sequence does not have
SUMS_TO_1 = 1e-4  # how far probabilities may be from it
IGNORED_BY_PYTORCH = -100  # the default of ignore_index


class Targets(NamedTuple):
    """Of a batch, on the backend.

    values   integers (B,) or (T, B); otherwise (K, B) or (K, T, B)
    weights  what each counts, of the shape of the values without classes, or of all of them; None: 1 each
    answers  which count at all, booleans of the same shape; None: all
    about    of a classifier what its answers count, without what is right of them; of a regressor the same of its
             errors, without the errors; None where each sequence counts 1
    """

    values: Array
    weights: Array | None = None
    answers: Array | None = None
    about: Any = None

    def sample(self, k: int) -> Targets:
        """Those of one sequence alone, for its own loss; what it counts in metrics is as before."""
        one = [None if array is None else array[..., k : k + 1] for array in self[:3]]
        return self._replace(values=one[0], weights=one[1], answers=one[2])


class Loss(NamedTuple):
    """Of a batch.

    loss      the mean, 0-dimensional
    gradient  of the outputs, of their shape
    correct   right answers; of a regressor the weighted sum of the absolute errors (the mean over its targets)
    of        what else its sums are made of (`lstm_np.metrics`); None where each sequence counts 1
    """

    loss: Array
    gradient: Array
    correct: Array
    of: Any = None


class Head:
    """What all heads share.

    size      outputs of a sequence or step: classes K, labels K, targets M
    per_step  whether each step has outputs
    dtype     of the model
    """

    running: type[Running] | type[RunningErrors] = Running
    monitored = names_of_means(Metrics)
    monitored_second = Metrics.second  # the one that stands beside the loss in tables
    classifies = True
    called = "labels"  # what errors call the targets
    letter = "K"  # what `size` is called
    on_device = False  # whether `lstm_np.device` knows it

    def __init__(self, config: Mapping[str, Any], size: int, backend: Backend) -> None:
        self.name: str = config["loss"]
        self.size, self.per_step, self.backend = size, config["read_out"] == "each_step", backend
        self.dtype: str = "float64" if config["dtype"] == "complex128" else config["dtype"]

    # ---- what comes in

    def read(self, y: Any, N: int, T: int, real: Real | None, *, whole: bool = True) -> np.ndarray:
        """The targets of N sequences of T steps as one NumPy array, checked.  Raises ValueError.

        whole  whether they are a whole data set, not a batch of one that is larger
        """
        raise NotImplementedError

    def enter(self, host: np.ndarray, T: int, real: Real | None, weights: np.ndarray | None) -> Targets:
        """Targets on the backend from what `read` gave of a batch, and the weights that `read_weights` gave."""
        raise NotImplementedError

    def read_weights(self, weights: Any, N: int, T: int) -> np.ndarray | None:
        """What each sequence counts, (N,), or each step, (N, T), float64.  Raises ValueError."""
        if weights is None:
            return None
        found = np.asarray(self.backend.to_host(as_array(weights, "sample_weight")))
        shapes = [(N,), (N, T)] if self.per_step else [(N,)]
        if found.shape not in shapes or found.dtype.kind not in "buif":
            expected = " or ".join(map(str, shapes))
            raise ValueError(f"sample_weight must be numbers {expected}, found {found.dtype} {found.shape}")
        found = found.astype(np.float64)
        if not np.isfinite(found).all() or (found < 0).any():
            raise ValueError("sample_weight must be finite numbers of at least 0")
        return found

    def _array(self, y: Any, N: int, T: int, real: Real | None) -> np.ndarray:
        """What people pass, as one NumPy array, of a list with the targets for each step too."""
        to_host = self.backend.to_host
        y = targets_of_steps(y, N, T, real, self.called, to_host=to_host) if self.per_step else y
        return np.asarray(to_host(as_array(y, self.called)))

    def _real(self, N: int, T: int, real: Real | None) -> np.ndarray | None:
        """(N, T) booleans where each step has a target and not all are real."""
        return as_mask(real, T) if self.per_step and real is not None else None

    def _place(self, N: int, T: int) -> tuple[int, ...]:
        return (N, T) if self.per_step else (N,)

    def _turned(self, array: np.ndarray) -> np.ndarray:
        """(B, T, K) as (K, T, B), (B, T) as (T, B), (B,) as it is."""
        return np.ascontiguousarray(array.transpose(*reversed(range(array.ndim))))

    def _spread(self, weights: np.ndarray | None, B: int, T: int) -> np.ndarray | None:
        """Weights (B,) or (B, T) as those of what has a target, (B,) or (T, B)."""
        if weights is None or not self.per_step:
            return weights
        return np.ascontiguousarray(np.broadcast_to(weights if weights.ndim == 2 else weights[:, None], (B, T)).T)

    # ---- loss, predictions

    def loss(self, xp: Namespace, outputs: Array, targets: Any) -> Loss:
        """Mean loss and gradient of outputs (K, B) or (K, T, B); targets as `enter` gives them."""
        raise NotImplementedError

    def probabilities(self, xp: Namespace, outputs: Array) -> Array | None:
        """What a classifier makes of its outputs; None of a regressor."""
        return None

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """What a classifier predicts from NumPy's probabilities (..., K)."""
        raise NotImplementedError

    def drawn(self, rng: np.random.Generator, N: int, T: int) -> np.ndarray:
        """Targets at random, as `read` gives them."""
        raise NotImplementedError

    def sums(self) -> Any:
        """Of metrics over batches, before the first one."""
        return self.running(self.backend)


# ---- classes


class Classes(Head):
    """One of K classes: softmax cross-entropy (`lstm_np.losses`)."""

    on_device = True

    def __init__(self, config: Mapping[str, Any], size: int, backend: Backend) -> None:
        super().__init__(config, size, backend)
        self.smoothing: float = config["label_smoothing"]
        self.ignored: int | None = config["ignored_label"]
        given = config["class_weights"]
        if given is not None and len(given) != size:
            raise OptionError(f"class_weights are {len(given)} numbers, for {size} classes")
        self.class_weights = None if given is None else np.array(given, np.float64)
        self._class_weights = None if given is None else backend.from_host(np.array(given, self.dtype))
        self._plain: Callable[..., Any] = losses.LOSSES[self.name]

    def read(self, y: Any, N: int, T: int, real: Real | None, *, whole: bool = True) -> np.ndarray:
        """As `Head.read`: integers (N,) or (N, T), or probabilities (N, K) or (N, T, K).

        One-hot targets become integers; floating-point ones only if all of a data set are one-hot.  In a batch they
        stay probabilities where the two are not the same loss, which class weights and ignored labels make of them.
        """
        K, host, place = self.size, self._array(y, N, T, real), self._place(N, T)
        mask = self._real(N, T, real)
        if host.shape == (*place, K):
            own = host if mask is None else host[mask]
            ones = own == 1
            floating, alike = host.dtype.kind == "f", self.class_weights is None and self.ignored is None
            if (whole or alike or not floating) and ((own == 0) | ones).all() and (ones.sum(axis=-1) == 1).all():
                host = host.argmax(axis=-1)
            elif floating:
                return self._probabilities(host, mask)
            else:
                raise ValueError(f"one-hot {self.called} need exactly one 1 and {K - 1} zeros in each row")
        if host.shape != place or host.dtype.kind not in "iub":
            words = f"{self.called} must be integers {place} or one-hot {(*place, K)}"
            raise ValueError(f"{words}, found {host.dtype} {host.shape}{self._advice(host, N)}")
        integers = host.astype(np.int64, copy=False)
        counted = None if self.ignored is None else integers != self.ignored
        counted = mask if counted is None else counted if mask is None else counted & mask
        own = integers if counted is None else integers[counted]
        if own.size and own.view(np.uint64).max() >= K:  # a negative one is large then
            found = f"{self.called} must be 0 ... {K - 1}, found {own.min()} ... {own.max()}"
            raise ValueError(found + _ignoring(own, self.ignored))
        return integers if mask is None else np.where(mask, integers, 0)

    def _advice(self, host: np.ndarray, N: int) -> str:
        if self.per_step and host.shape == (N,):
            return "; this model reads each step (read_out), and needs a label for each"
        if not self.per_step and host.ndim == 2 and host.shape[0] == N and host.dtype.kind in "iub":
            return '; a model with read_out="each_step" has a label for each step'
        return ""

    def _probabilities(self, host: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        own = host if mask is None else host[mask]
        if not ((own >= 0) & (own <= 1)).all() or (np.abs(own.sum(axis=-1) - 1) > SUMS_TO_1).any():
            raise ValueError(
                f"{self.called} with an axis of {self.size} classes must be one-hot or probabilities, and sum to 1 in "
                "each row"
            )
        return host if mask is None else np.where(mask[..., None], host, 0)

    def enter(self, host: np.ndarray, T: int, real: Real | None, weights: np.ndarray | None) -> Targets:
        """As `Head.enter`."""
        put, B, given = self.backend.from_host, len(host), host.dtype.kind == "f"
        mask = self._real(B, T, real)
        if not given and weights is None and self.class_weights is None and self.ignored is None and mask is None:
            about = Answers(host.size, host.size, host.size, 0) if self.per_step else None
            return Targets(put(self._turned(host)), about=about)
        counted = np.ones(self._place(B, T), bool) if mask is None else mask
        if self.ignored is not None and not given:
            counted = counted & (host != self.ignored)
        counted, s = counted.T, self._spread(weights, B, T)
        share = counted.astype(np.float64) if s is None else np.where(counted, s, 0.0)
        values = self._turned(host) if given else np.where(counted, host.T, NO_LABEL)
        normalizer = share
        if self.class_weights is not None and not given:
            normalizer = share * self.class_weights[np.where(counted, values, 0)]
        about = Answers(int(counted.sum()), float(normalizer.sum()), float(share.sum()), 0)
        return Targets(
            put(np.ascontiguousarray(values.astype(self.dtype) if given else values)),
            None if s is None and not given else put(share.astype(self.dtype)),
            put(np.ascontiguousarray(counted)),
            about,
        )

    def loss(self, xp: Namespace, outputs: Array, targets: Any) -> Loss:
        """As `Head.loss`; targets may be integers (B,) too."""
        targets = targets if isinstance(targets, Targets) else Targets(targets)
        labels, about = targets.values, targets.about
        if about is None and not self.smoothing:
            return Loss(*self._plain(xp, outputs, labels))
        loss, gradient = self._weighed(xp, outputs, targets)
        truth = labels if labels.ndim < outputs.ndim else xp.argmax(labels, axis=0)
        hits = xp.argmax(xp.real(outputs), axis=0) == truth
        hits = hits if targets.answers is None else hits & targets.answers
        correct = xp.sum(hits)
        if about is None:
            return Loss(loss, gradient, correct)
        right = correct if targets.weights is None else xp.sum(xp.where(hits, targets.weights, 0.0))
        return Loss(loss, gradient, correct, about._replace(right=right))

    def _weighed(self, xp: Namespace, outputs: Array, targets: Targets) -> tuple[Array, Array]:
        given = targets.values.ndim == outputs.ndim
        settings: dict[str, Any] = {
            "class_weights": self._class_weights,
            "sample_weights": targets.weights,
            "label_smoothing": self.smoothing,
            "ignored": None if given else NO_LABEL,
        }
        if self.name == "softmax":
            return losses.cross_entropy(xp, outputs, targets.values, **settings)
        p = xp.exp(losses.log_softmax(xp, outputs))  # softmax_twice, see `lstm_np.losses`
        loss, dp = losses.cross_entropy(xp, p, targets.values, **settings)
        return loss, p * (dp - xp.sum(p * dp, axis=0))

    def drawn(self, rng: np.random.Generator, N: int, T: int) -> np.ndarray:
        """As `Head.drawn`."""
        return rng.integers(0, self.size, self._place(N, T))

    def probabilities(self, xp: Namespace, outputs: Array) -> Array:
        """Of each class, of the shape of the outputs."""
        return xp.exp(losses.log_softmax(xp, outputs))

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """The most probable class of NumPy's (..., K); NO_LABEL where the probabilities are NaN."""
        found: np.ndarray = probabilities.argmax(axis=-1)
        return np.where(np.isnan(probabilities[..., 0]), NO_LABEL, found) if self.per_step else found


class Labels(Head):
    """K labels, each 0 or 1 by itself (multi-label): binary cross-entropy from logits (`lstm_np.losses`)."""

    def __init__(self, config: Mapping[str, Any], size: int, backend: Backend) -> None:
        super().__init__(config, size, backend)
        self.smoothing: float = config["label_smoothing"]
        self.ignored: int | None = config["ignored_label"]
        given = config["class_weights"]
        if given is not None and len(given) != size:
            raise OptionError(f"class_weights are {len(given)} numbers, for {size} labels")
        self._positive = None if given is None else backend.from_host(np.array(given, self.dtype))

    def read(self, y: Any, N: int, T: int, real: Real | None, *, whole: bool = True) -> np.ndarray:
        """As `Head.read`: (N, K) or (N, T, K), integers, or numbers from 0 to 1."""
        K, host, place = self.size, self._array(y, N, T, real), self._place(N, T)
        mask = self._real(N, T, real)
        host = host[..., None] if K == 1 and host.shape == place else host
        if host.shape != (*place, K) or host.dtype.kind not in "iubf":
            raise ValueError(f"{self.called} must be 0 or 1, {(*place, K)}, found {host.dtype} {host.shape}")
        host = host.astype(np.int64) if host.dtype.kind in "iub" else host
        counted = np.ones(host.shape, bool) if self.ignored is None else host != self.ignored
        counted = counted if mask is None else counted & mask[..., None]
        own = host[counted]
        if not ((own >= 0) & (own <= 1)).all():
            found = f"{self.called} must be 0 or 1 (or between, of a probability), found {own.min()} ... {own.max()}"
            raise ValueError(found + _ignoring(own, self.ignored))
        return host if mask is None else np.where(mask[..., None], host, 0)

    def enter(self, host: np.ndarray, T: int, real: Real | None, weights: np.ndarray | None) -> Targets:
        """As `Head.enter`; each label for each sequence or step is an answer."""
        put, B = self.backend.from_host, len(host)
        mask = self._real(B, T, real)
        counted = np.ones(host.shape, bool) if self.ignored is None else host != self.ignored
        counted = self._turned(counted if mask is None else counted & mask[..., None])
        s = self._spread(weights, B, T)
        share = np.where(counted, 1.0 if s is None else s[None], 0.0)
        total = float(share.sum())
        values = np.where(counted, self._turned(host), 0).astype(self.dtype)
        about = Answers(int(counted.sum()), total, total, 0)
        return Targets(put(values), put(share.astype(self.dtype)), put(counted), about)

    def loss(self, xp: Namespace, outputs: Array, targets: Any) -> Loss:
        """As `Head.loss`."""
        values, e = targets.values, self.smoothing
        positive = self._positive
        positive = None if positive is None else positive.reshape(self.size, *(1,) * (outputs.ndim - 1))
        smooth = values * (1.0 - e) + 0.5 * e if e else values
        loss, gradient = losses.binary_cross_entropy(
            xp, outputs, smooth, positive_weights=positive, weights=targets.weights
        )
        hits = ((xp.real(outputs) >= 0) == (values >= 0.5)) & targets.answers
        right = xp.sum(xp.where(hits, targets.weights, 0.0))
        return Loss(loss, gradient, xp.sum(hits), targets.about._replace(right=right))

    def drawn(self, rng: np.random.Generator, N: int, T: int) -> np.ndarray:
        """As `Head.drawn`."""
        return rng.integers(0, 2, (*self._place(N, T), self.size))

    def probabilities(self, xp: Namespace, outputs: Array) -> Array:
        """That each label is 1, of the shape of the outputs."""
        small = xp.exp(-xp.abs(outputs))
        return xp.where(outputs >= 0, 1.0, small) / (1.0 + small)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """1 where NumPy's (..., K) are at least 1/2, else 0; NO_LABEL where they are NaN."""
        found = (probabilities >= 0.5).astype(np.int64)
        return np.where(np.isnan(probabilities), NO_LABEL, found) if self.per_step else found


def _ignoring(labels: np.ndarray, ignored: int | None) -> str:
    """What to say of labels that PyTorch ignores by default, where nothing is ignored here."""
    there = ignored is None and (labels == IGNORED_BY_PYTORCH).any()
    return f"; labels of {IGNORED_BY_PYTORCH} count nothing with ignored_label={IGNORED_BY_PYTORCH}" if there else ""


# ---- numbers


@dataclass(frozen=True)
class _OfErrors:
    """`lstm_np.metrics.Errors` of a batch, without its errors."""

    answers: int
    weight: float
    mean: np.ndarray
    spread: np.ndarray


class Numbers(Head):
    """M numbers: squared, absolute or Huber error (`lstm_np.losses`)."""

    running = RunningErrors
    classifies = False
    called = "y"
    letter = "M"
    monitored_second = RegressionMetrics.second
    monitored = names_of_means(RegressionMetrics)

    def __init__(self, config: Mapping[str, Any], size: int, backend: Backend) -> None:
        super().__init__(config, size, backend)
        settings = {"delta": config["huber_delta"]} if self.name == "huber" else {}
        functions: Mapping[str, Callable[..., Any]] = losses.ERRORS
        self._function, self._settings = functions[self.name], settings

    def read(self, y: Any, N: int, T: int, real: Real | None, *, whole: bool = True) -> np.ndarray:
        """As `Head.read`: floating-point numbers (N, M) or (N, T, M)."""
        M, host, place = self.size, self._array(y, N, T, real), self._place(N, T)
        host = host[..., None] if M == 1 and host.shape == place else host
        if host.shape != (*place, M) or host.dtype.kind not in "iubf":
            shapes = f"{place} or {(*place, M)}" if M == 1 else f"{(*place, M)}"
            raise ValueError(f"{self.called} must be numbers {shapes}, found {host.dtype} {host.shape}")
        host = host if host.dtype.kind == "f" else host.astype(np.float64)
        mask = self._real(N, T, real)
        if mask is not None:
            host = np.where(mask[..., None], host, 0)
        with np.errstate(over="ignore"):
            finite = bool(np.isfinite(host.astype(self.dtype, copy=False)).all())
        if not finite:
            where = tuple(int(k) for k in np.argwhere(~np.isfinite(host.astype(self.dtype)))[0])
            raise ValueError(
                f"{self.called} has values that are not finite in {self.dtype} ([{', '.join(map(str, where))}] is "
                f"{host[where]:g}); scale or clean the targets before they enter"
            )
        return host

    def enter(self, host: np.ndarray, T: int, real: Real | None, weights: np.ndarray | None) -> Targets:
        """As `Head.enter`."""
        put, B = self.backend.from_host, len(host)
        mask, s, values = self._real(B, T, real), self._spread(weights, B, T), self._turned(host)
        share = s if mask is None else mask.T.astype(np.float64) if s is None else np.where(mask.T, s, 0.0)
        places = values.size // self.size
        flat = None if share is None else share.reshape(-1)
        count = places if mask is None else int(mask.sum())
        mean, spread = moments(values.reshape(self.size, -1), flat)
        about = _OfErrors(count, float(places) if flat is None else float(flat.sum()), mean, spread)
        on_backend = None
        if share is not None:
            on_backend = put(np.ascontiguousarray(np.broadcast_to(share.astype(self.dtype), values.shape)))
        return Targets(put(values.astype(self.dtype, copy=False)), on_backend, None, about)

    def loss(self, xp: Namespace, outputs: Array, targets: Any) -> Loss:
        """As `Head.loss`."""
        t, weights, about = targets.values, targets.weights, targets.about
        loss, gradient = self._function(xp, outputs, t, weights=weights, **self._settings)
        apart = xp.real(outputs) - t
        size, squared = xp.abs(apart), apart * apart
        if weights is not None:
            size, squared = size * weights, squared * weights
        sums = xp.sum(xp.reshape(squared, (self.size, -1)), axis=1)
        of = Errors(about.answers, about.weight, sums, about.mean, about.spread)
        return Loss(loss, gradient, xp.sum(size) / self.size, of)

    def drawn(self, rng: np.random.Generator, N: int, T: int) -> np.ndarray:
        """As `Head.drawn`."""
        return rng.standard_normal((*self._place(N, T), self.size))
