"""What is done to sequences before a model sees them, fitted on the training part alone and kept with the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from lstm_np.data.batches import Batches
from lstm_np.data.dataset import DatasetError
from lstm_np.data.scaling import SequenceScaler
from lstm_np.data.sequences.missing import SequenceImputer
from lstm_np.data.sequences.record import Sequences


@dataclass(frozen=True, eq=False)
class Preparation:
    """Missing values, then the scale of the features; and the scale of targets that are numbers.

    scaler, target_scaler  None: as they are
    """

    imputer: SequenceImputer
    scaler: SequenceScaler | None = None
    target_scaler: SequenceScaler | None = None

    @classmethod
    def fit(
        cls, data: Sequences, samples: np.ndarray, *, missing: str, scale: str | None, scale_targets: str | None
    ) -> Self:
        """Fitted on the sequences `samples` (indices) of `data` alone.

        missing                a way of `SequenceImputer`
        scale, scale_targets   kinds of `SequenceScaler`, None for none; targets that are classes are left alone

        Raises DatasetError for missing values that are refused, or cannot be filled in.
        """
        imputer = SequenceImputer(missing).fit(data, samples)
        filled = data if isinstance(data.x, np.memmap) and missing != "refuse" else imputer.transform(data)
        scaler = target_scaler = None
        if scale is not None:
            before = imputer.filled_rows if filled is data and missing != "refuse" else None
            scaler = SequenceScaler(scale).fit(filled.x, filled.lengths, samples=samples, before=before)
        if scale_targets is not None and data.task == "regress":
            target_scaler = SequenceScaler(scale_targets).fit(
                _as_sequences(data.targets), data.target_lengths, samples=samples
            )
        return cls(imputer, scaler, target_scaler)

    def apply(self, data: Sequences) -> Sequences:
        """Sequences and targets as the model takes them.  Raises DatasetError for missing values that are refused."""
        filled = self.imputer.transform(data)
        x = filled.x if self.scaler is None else self.scaler.transform(filled.x)
        return replace(filled, x=x, targets=self.scaled_targets(data.targets))

    def rows(self, rows: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """Some sequences (n, T, D) of an array as the model takes them; NaN, behind their lengths, as 0."""
        filled = self.imputer.filled_rows(rows, lengths)
        scaled = filled if self.scaler is None else self.scaler.transform(filled)
        return (
            scaled
            if lengths is None
            else np.where(np.arange(rows.shape[1])[:, None] < lengths[:, None, None], scaled, 0)
        )

    def scaled_targets(self, targets: Any) -> Any:
        """Targets as the model is trained on them."""
        if self.target_scaler is None or targets is None:
            return targets
        return _as_before(self.target_scaler.transform(_as_sequences(targets)), targets)

    def numbers(self, predictions: Any) -> Any:
        """Predicted numbers in the unit of the targets."""
        if self.target_scaler is None:
            return predictions
        return _as_before(self.target_scaler.inverse_transform(_as_sequences(predictions)), predictions)

    def batches(
        self,
        data: Sequences,
        indices: np.ndarray,
        batch_size: int,
        *,
        dtype: str,
        order: str = "sequential",
        seed: int = 0,
        reuse: bool = True,
    ) -> Batches | MappedBatches:
        """Batches of the sequences `indices`, as the model takes them; arguments and errors as of `Batches`."""
        if isinstance(data.x, np.memmap):
            return MappedBatches(self, data, indices, batch_size, dtype=dtype, order=order, seed=seed)
        part = self.apply(data.take(indices))
        targets: Any = np.zeros(len(part), np.int64) if part.targets is None else part.targets
        return Batches(
            part.x, targets, batch_size, dtype=dtype, order=order, seed=seed, reuse=reuse, lengths=part.lengths
        )

    def state(self) -> dict[str, Any]:
        """As plain values."""
        scalers = {"scaler": self.scaler, "target_scaler": self.target_scaler}
        return {
            "missing": self.imputer.state(),
            **{name: None if scaler is None else scaler.state() for name, scaler in scalers.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The one that gave this state.  Raises ValueError for anything else."""
        try:
            scalers = [state[name] for name in ("scaler", "target_scaler")]
            imputer = SequenceImputer.from_state(state["missing"])
        except (KeyError, TypeError) as error:
            raise DatasetError(f"found no state of a preparation ({type(error).__name__}: {error})") from None
        return cls(imputer, *(None if one is None else SequenceScaler.from_state(one) for one in scalers))


def _as_sequences(targets: Any) -> Any:
    """Targets (N, M) as (N, 1, M); those of steps as they are."""
    return targets[:, None, :] if isinstance(targets, np.ndarray) and targets.ndim == 2 else targets


def _as_before(values: Any, targets: Any) -> Any:
    return values[:, 0, :] if isinstance(targets, np.ndarray) and targets.ndim == 2 else values


class MappedBatches:
    """Batches (x, targets), or (x, targets, lengths), of an array on disk: what a batch needs is read when it is due.

    Orders are those of `lstm_np.data.Batches`, of which this has what training and evaluation use.
    """

    plain = False  # nothing is kept on a device

    def __init__(
        self,
        preparation: Preparation,
        data: Sequences,
        indices: np.ndarray,
        batch_size: int,
        *,
        dtype: str,
        order: str,
        seed: int,
    ) -> None:
        self._preparation, self._data, self._indices, self._dtype = preparation, data, indices, dtype
        # a batch's labels are the places of its sequences among the indices
        places = np.arange(len(indices))
        self._places = Batches(np.zeros((len(indices), 1, 1), np.uint8), places, batch_size, order=order, seed=seed)
        self.samples, self.sizes = self._places.samples, self._places.sizes
        targets = preparation.scaled_targets(data.targets)
        self._targets = np.zeros(len(data), np.int64) if targets is None else targets

    def __len__(self) -> int:
        return len(self._places)

    def epoch(self, epoch: int, start: int = 0, *, step: int | None = None) -> Iterator[tuple[np.ndarray, ...]]:
        """The batches of an epoch from batch `start` on, as `lstm_np.data.Batches.epoch`."""
        for _, places in self._places.epoch(epoch, start, step=step):
            which = self._indices[places]
            lengths = None if self._data.lengths is None else self._data.lengths[which]
            rows = np.asarray(self._data.x[which])
            x = self._preparation.rows(rows, lengths).astype(self._dtype)
            yield (x, self._targets[which]) if lengths is None else (x, self._targets[which], lengths)
