"""Features on one scale: what is taken away from each and what it is divided by, from the steps that sequences have.

A feature in thousands beside one in thousandths is all that a network would see, and large values saturate its gates.
The scaler is fitted on the training sequences alone, so that nothing of the others enters the training, and goes into
the model's file (`state`), so that whatever the model is given later is scaled in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lstm_np.backends import as_array
from lstm_np.packing import as_mask, check

KINDS = ("standard", "minmax", "robust")
VALUES_AT_ONCE = 1 << 20  # that are converted together, so that arrays on disk may be larger than memory

Sequences = npt.ArrayLike | Sequence[npt.ArrayLike]  # (N, T, D), or a list of (T_i, D)
Before = Callable[[np.ndarray, np.ndarray | None], np.ndarray]  # (n, T, D) and lengths (n,) -> (n, T, D)


class SequenceScaler:
    """Subtracts from each feature its `offset` and divides it by its `scale`, both (D,).

    kind   offset and scale of a feature, over all steps of all sequences
             standard   its mean and standard deviation (of the population, as in scikit-learn's StandardScaler)
             minmax     its minimum and its range: what it was fitted on becomes 0 ... 1
             robust     its median and the distance between its quartiles: values far out have no effect

    A feature without spread (which is constant) keeps scale 1.  Sequences are an array (N, T, D), with `lengths` (N,)
    where they have fewer than T steps, or a list of arrays (T_i, D).  Sums are float64, whatever the dtype, over some
    sequences at a time, so a memory-mapped array may be larger than memory (a robust scaler needs one feature of it in
    memory).  `transform` gives new arrays of the same floating-point dtype, float64 for whole numbers.

    >>> x = np.array([[[1.0, 5.0], [3.0, 5.0]], [[5.0, 5.0], [7.0, 5.0]]])
    >>> scaler = lstm_np.data.SequenceScaler().fit(x)
    >>> scaler.offset, scaler.scale.round(3)
    (array([4., 5.]), array([2.236, 1.   ]))
    >>> scaler.transform(x)[0].round(3).tolist()
    [[-1.342, 0.0], [-0.447, 0.0]]
    >>> again = lstm_np.data.SequenceScaler.from_state(scaler.state())
    >>> (again.inverse_transform(again.transform(x)) == x).all()
    np.True_

    Raises ValueError for another kind, for sequences of another form or number of features, for values that are not
    finite, and where it is used before `fit`.
    """

    def __init__(self, kind: str = "standard") -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, found {kind!r}")
        self.kind = kind
        self.offset: np.ndarray | None = None
        self.scale: np.ndarray | None = None

    def __repr__(self) -> str:
        fitted = "" if self.offset is None else f" fitted on {len(self.offset)} features"
        return f"<SequenceScaler {self.kind}{fitted}>"

    def __eq__(self, other: object) -> bool:
        return self.state() == other.state() if isinstance(other, SequenceScaler) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes with fit

    def fit(
        self,
        x: Sequences,
        lengths: npt.ArrayLike | None = None,
        *,
        samples: npt.ArrayLike | None = None,
        before: Before | None = None,
    ) -> Self:
        """Learn offset and scale from sequences (N, T, D) or a list of (T_i, D).

        samples  the indices of those that count; None: all
        before   what is done with some sequences of an array, and their lengths, before they are looked at

        Raises ValueError as the class.
        """
        sequences, counts = _entered(x, lengths)
        chosen = np.arange(len(sequences)) if samples is None else np.asarray(samples, dtype=np.int64)
        features = _features(sequences)
        low, high, total, count = np.full(features, np.inf), np.full(features, -np.inf), np.zeros(features), 0
        blocks = partial(_blocks, sequences, counts, chosen, before)
        for block in blocks():
            if not np.isfinite(block).all():
                raise ValueError(
                    "x has values that are not finite (NaN or infinity); fill them or leave them out first"
                )
            low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
            with np.errstate(over="ignore"):
                total += block.sum(axis=0)
            count += len(block)
        if count == 0:
            raise ValueError("found no step of any sequence to fit a scaler on, expected at least 1")
        with np.errstate(over="ignore", invalid="ignore"):
            offset, scale = self._fitted(blocks, low, high, total / count, count)
        if not (np.isfinite(offset).all() and np.isfinite(scale).all()):
            raise ValueError("x has values too large to be scaled (their sums or squares are infinite in float64)")
        constant = (high == low) | (scale == 0)
        self.offset = np.where(high == low, low, offset)
        self.scale = np.where(constant, 1.0, scale)
        return self

    def _fitted(
        self,
        blocks: Callable[[], Iterator[np.ndarray]],
        low: np.ndarray,
        high: np.ndarray,
        mean: np.ndarray,
        count: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Offset and scale of the kind, before features without spread are seen to."""
        if self.kind == "minmax":
            return low, high - low
        if self.kind == "standard":  # a second pass: squares of values would lose what squares of deviations keep
            squares = np.zeros_like(mean)
            for block in blocks():
                squares += np.square(block - mean).sum(axis=0)
            return mean, np.sqrt(squares / count)
        quartiles = np.empty((3, len(mean)))
        for feature in range(len(mean)):
            parts = [block[:, feature].copy() for block in blocks()]
            quartiles[:, feature] = np.percentile(np.concatenate(parts), (25, 50, 75))
        return quartiles[1], quartiles[2] - quartiles[0]

    def fit_transform(self, x: Sequences, lengths: npt.ArrayLike | None = None) -> Any:
        """`fit`, then `transform` of the same sequences."""
        return self.fit(x, lengths).transform(x)

    def transform(self, x: Sequences) -> Any:
        """(x - offset) / scale, an array (N, T, D) or a list of (T_i, D) as x is; one sequence (T, D) is taken too.

        Steps behind a sequence's length are transformed like the others.  Raises ValueError as the class.
        """
        return self._each(x, lambda block, offset, scale: (block - offset) / scale)

    def inverse_transform(self, x: Sequences) -> Any:
        """x * scale + offset, which undoes `transform`; forms and errors as there."""
        return self._each(x, lambda block, offset, scale: block * scale + offset)

    def _each(self, x: Sequences, change: Any) -> Any:
        if self.offset is None or self.scale is None:
            raise ValueError("this scaler has not been fitted; call fit with the training sequences first")
        one = _is_one(x)
        sequences, _ = _entered([x] if one else x, None)
        if _features(sequences) != len(self.offset):
            raise ValueError(f"found {_features(sequences)} features, this scaler was fitted on {len(self.offset)}")
        if isinstance(sequences, list):
            changed = [_changed(part, change, self.offset, self.scale) for part in sequences]
            return changed[0] if one else changed
        return _changed(sequences, change, self.offset, self.scale)

    def state(self) -> dict[str, Any]:
        """As plain values: {"kind": ..., "offset": [...], "scale": [...]}, both None before `fit`."""
        as_list = [None if array is None else array.tolist() for array in (self.offset, self.scale)]
        return {"kind": self.kind, "offset": as_list[0], "scale": as_list[1]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The scaler that gave this state.  Raises ValueError for one that no scaler gives."""
        try:
            scaler, offset, scale = cls(state["kind"]), state["offset"], state["scale"]
            if offset is not None or scale is not None:
                scaler.offset, scaler.scale = np.array(offset, np.float64), np.array(scale, np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"found no state of a scaler ({type(error).__name__}: {error})") from None
        if scaler.offset is not None and scaler.scale is not None:
            fits = scaler.offset.ndim == 1 and scaler.offset.shape == scaler.scale.shape
            if not fits or not np.isfinite([scaler.offset, scaler.scale]).all() or (scaler.scale == 0).any():
                raise ValueError("found no state of a scaler: offset and scale must be finite, as many, and no scale 0")
        return scaler


def _is_one(x: Any) -> bool:
    """Whether x is one sequence (T, D)."""
    return getattr(x, "ndim", None) == 2


def _entered(x: Any, lengths: npt.ArrayLike | None) -> tuple[np.ndarray | list[np.ndarray], np.ndarray | None]:
    """An array (N, T, D), or a list of (T_i, D), and the lengths of the array's, checked."""
    if isinstance(x, (list, tuple)) and any(hasattr(part, "ndim") for part in x):
        if lengths is not None:
            raise ValueError("a list of sequences has its lengths; leave out lengths, or pass an array (N, T, D)")
        parts = [as_array(part, f"sequence {index}") for index, part in enumerate(x)]
        for index, part in enumerate(parts):
            if part.ndim != 2 or part.dtype.kind not in "uifb" or part.shape[1] != parts[0].shape[1]:
                found = f"sequence {index} is {part.dtype} {part.shape}"
                raise ValueError(f"{found}, expected real numbers (T, D), with one D for all sequences")
        return parts, None
    array = as_array(x, "x")
    if array.ndim != 3 or array.dtype.kind not in "uifb":
        raise ValueError(f"x is {array.dtype} {array.shape}, expected real numbers (N, T, D) or a list of (T, D)")
    if lengths is None:
        return array, None
    counts = as_array(lengths, "lengths")
    check(counts, *array.shape[:2])
    return array, counts


def _features(sequences: np.ndarray | list[np.ndarray]) -> int:
    if isinstance(sequences, list):
        return int(sequences[0].shape[1])
    return int(sequences.shape[2])


def _blocks(
    sequences: np.ndarray | list[np.ndarray],
    counts: np.ndarray | None,
    chosen: np.ndarray,
    before: Before | None,
) -> Iterator[np.ndarray]:
    """The steps of the chosen sequences, (n, D) float64, some sequences at a time."""
    if isinstance(sequences, list):
        waiting: list[np.ndarray] = []
        values = 0
        for index in chosen.tolist():
            waiting.append(sequences[index])
            values += sequences[index].size
            if values >= VALUES_AT_ONCE:
                yield np.concatenate(waiting).astype(np.float64, copy=False)
                waiting, values = [], 0
        if values:
            yield np.concatenate(waiting).astype(np.float64, copy=False)
        return
    T, D = sequences.shape[1:]
    if T * D == 0:
        return
    rows = max(1, VALUES_AT_ONCE // (T * D))
    for start in range(0, len(chosen), rows):
        which = chosen[start : start + rows]
        part = sequences[which].astype(np.float64, copy=False)
        if before is not None:
            part = before(part, None if counts is None else counts[which])
        if counts is None:
            yield part.reshape(-1, D)
        elif (real := as_mask(counts[which], T)).any():
            yield part[real]


def _changed(array: np.ndarray, change: Any, offset: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A new array of the same shape, computed in float64 some rows at a time."""
    result = np.empty(array.shape, array.dtype if array.dtype.kind == "f" else np.float64)
    rows = max(1, VALUES_AT_ONCE // max(1, array[:1].size))
    for start in range(0, len(array), rows):
        block = array[start : start + rows].astype(np.float64, copy=False)
        with np.errstate(over="ignore"):  # infinite in a narrow dtype: who uses it says that values are not finite
            result[start : start + rows] = change(block, offset, scale)
    return result
