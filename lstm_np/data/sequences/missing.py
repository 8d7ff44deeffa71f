"""Missing values: refused with the place where they stand, or filled in, with what the training sequences say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np

from lstm_np.data.dataset import DatasetError
from lstm_np.data.scaling import VALUES_AT_ONCE
from lstm_np.data.sequences.record import Sequences

WAYS = ("refuse", "zero", "mean", "forward", "linear")


class SequenceImputer:
    """Fills in missing values (NaN), each feature by itself.

    how   zero      with 0
          mean      with the mean of the feature over all steps of the sequences that it was fitted on (`means` (D,))
          forward   with the value before it in its sequence
          linear    on a straight line between the values before and behind it, step by step; beyond the first and the
                    last one with that value
          refuse    not at all: DatasetError with the place of the first

    Where a sequence has no value before it (forward), or none at all (linear), it is the mean.

    >>> x = np.array([[[1.0], [np.nan], [3.0]], [[np.nan], [4.0], [6.0]]])
    >>> data = lstm_np.data.read_sequences(x)
    >>> lstm_np.data.SequenceImputer("linear").fit(data).transform(data).x[..., 0].tolist()
    [[1.0, 2.0, 3.0], [4.0, 4.0, 6.0]]
    >>> lstm_np.data.SequenceImputer("refuse").transform(data)
    Traceback (most recent call last):
    lstm_np.data.dataset.DatasetError: ...sequence 0, step 1, feature 'value': the value is missing...

    Raises DatasetError for another way.
    """

    def __init__(self, how: str = "refuse") -> None:
        if how not in WAYS:
            raise DatasetError(f"missing values: the ways are {', '.join(WAYS)}; found {how!r}")
        self.how = how
        self.means: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"<SequenceImputer {self.how}>"

    def fit(self, data: Sequences, samples: Any = None) -> Self:
        """Learn the means of the features from sequences, of `samples` (indices) alone where they are given.

        Raises DatasetError for a feature that none of them has a value of, where its mean is needed.
        """
        if self.how in ("refuse", "zero"):
            return self
        D = len(data.names)
        sums, known = np.zeros(D), np.zeros(D, np.int64)
        for _, steps in steps_of(data, samples):
            present = ~np.isnan(steps)
            sums += np.where(present, steps, 0).sum(axis=0)
            known += present.sum(axis=0)
        if (known == 0).any():
            name = data.names[int(np.argmax(known == 0))]
            raise DatasetError(f"{data.source}: no training sequence has a value of {name!r}; leave this feature out")
        self.means = sums / known
        return self

    def transform(self, data: Sequences) -> Sequences:
        """The sequences with their missing values filled in; those of an array on disk are seen to as they are read.

        Raises DatasetError for the first missing value where it is to be refused, and before `fit`.
        """
        if self.how == "refuse":
            refuse_missing(data)
            return data
        if isinstance(data.x, list):
            return replace(data, x=[self.filled(sequence) for sequence in data.x])
        return replace(data, x=self.filled_rows(np.asarray(data.x), data.lengths))

    def filled_rows(self, rows: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """(n, T, D) filled in; steps behind a sequence's length stay as they are."""
        missing = np.isnan(rows) if rows.dtype.kind == "f" else None
        if missing is None or not missing.any():
            return rows
        found = rows.copy()
        for n in np.flatnonzero(missing.any(axis=(1, 2))).tolist():
            end = None if lengths is None else int(lengths[n])
            found[n, :end] = self.filled(rows[n, :end])
        return found

    def filled(self, sequence: np.ndarray) -> np.ndarray:
        """One sequence (T, D) filled in.  Raises DatasetError before `fit`."""
        missing = np.isnan(sequence)
        if not missing.any():
            return sequence
        if self.how == "zero":
            return np.where(missing, 0, sequence)
        if self.means is None:
            raise DatasetError(
                f"missing values cannot be filled by {self.how} before fit has seen the training sequences"
            )
        found = sequence.copy()
        steps = np.arange(len(sequence))
        for d in np.flatnonzero(missing.any(axis=0)).tolist():
            gone = missing[:, d]
            if self.how == "mean" or gone.all():
                found[gone, d] = self.means[d]
            elif self.how == "linear":
                found[gone, d] = np.interp(steps[gone], steps[~gone], sequence[~gone, d])
            else:
                last = np.maximum.accumulate(np.where(gone, -1, steps))
                found[gone, d] = np.where(last[gone] < 0, self.means[d], sequence[np.maximum(last[gone], 0), d])
        return found

    def state(self) -> dict[str, Any]:
        """As plain values: {"how": ..., "means": [...] or None}."""
        return {"how": self.how, "means": None if self.means is None else self.means.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The one that gave this state.  Raises DatasetError for a state that none gives."""
        try:
            imputer, means = cls(state["how"]), state["means"]
            imputer.means = None if means is None else np.array(means, np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"found no state of an imputer ({type(error).__name__}: {error})") from None
        return imputer


def refuse_missing(data: Sequences) -> None:
    """Raises DatasetError with the place of the first missing value, where there is one."""
    first, count = None, 0
    for index, steps in steps_of(data):
        missing = np.isnan(steps)
        if missing.any():
            count += int(missing.sum())
            if first is None:
                first = _place(data, index, steps)
    if first is not None:
        others = "" if count == 1 else f", and {count - 1:,} others are"
        ways = ", ".join(WAYS[1:-1])
        raise DatasetError(
            f"{first}: the value is missing{others}; fill them in ({ways} or {WAYS[-1]}), or leave them out"
        )


def steps_of(data: Sequences, samples: Any = None) -> Iterator[tuple[int, np.ndarray]]:
    """(index of the first sequence, all steps (n, D) of some sequences), until all, or all `samples`, have been given.

    Steps behind the length of a sequence are left out.
    """
    chosen = np.arange(len(data)) if samples is None else np.asarray(samples, dtype=np.int64)
    counts = data.counts()
    at_once = max(1, VALUES_AT_ONCE // max(1, int(counts.max()) * len(data.names)))
    for start in range(0, len(chosen), at_once):
        which = chosen[start : start + at_once]
        if isinstance(data.x, list):
            yield start, np.concatenate([data.x[index] for index in which.tolist()])
        else:
            rows = np.asarray(data.x[which])
            yield start, rows[np.arange(rows.shape[1]) < counts[which][:, None]]


def _place(data: Sequences, index: int, steps: np.ndarray) -> str:
    """Where the first missing value of these steps stands, which begin with a sequence's first."""
    row, d = np.unravel_index(int(np.argmax(np.isnan(steps))), steps.shape)
    ends = np.cumsum(data.counts()[index:])
    n = int(np.searchsorted(ends, row, side="right"))
    return data.place(index + n, int(row) - (int(ends[n - 1]) if n else 0), int(d))
