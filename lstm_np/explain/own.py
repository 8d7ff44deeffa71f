"""Sequences of one's own that a view is about: as the model reads them, and as their file has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstm_np.data import DatasetError, Sequences
from lstm_np.explain.export import TEST_STEPS
from lstm_np.explain.samples import SEQUENCES, Sample
from lstm_np.model import SequenceClassifier
from lstm_np.training.own_model import OwnModel, test_part
from lstm_np.training.trained import Trained


def trained_of(own: OwnModel, steps: int) -> Trained:
    """The model with the names of its classes and features, for sequences of so many steps.

    Raises ValueError for one that predicts numbers.
    """
    if not isinstance(own.model, SequenceClassifier):
        raise ValueError(
            f"{own.path}: this model predicts numbers, and what is shown here is one class, read at the end of a "
            "sequence; lstm_np.trace has all values of any model"
        )
    names = tuple(map(str, own.notes["features"]))
    return Trained(own.path, own.model, SEQUENCES, "rows", (steps, len(names)), 1, tuple(map(str, own.classes)), names)


def read(
    own: OwnModel, file: str | None, changes: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Sequences, str]:
    """(the sequences of a file, or the run's test part, where they are from); `say` is told why there are no labels.

    Raises DatasetError or RunFolderError, as `OwnModel.read` and `test_part`.
    """
    if file is None:
        data, _ = test_part(own.path, changes)
        return data, f"{Path(data.source).name}, the test part of the run"
    try:
        data = own.read(file, targets=True, **changes)
    except DatasetError as error:
        try:
            data = own.read(file, targets=False, **changes)
        except DatasetError:
            raise error from None
        say(f"explain: {error}; so there are no labels, and no gradients")
    return data, Path(file).name


def samples_of(own: OwnModel, data: Sequences, source: str, indices: Sequence[int]) -> list[Sample]:
    """Sequences by number, from 0; `source` says where they are from.

    Raises ValueError for a number out of range, DatasetError for missing values that are refused.
    """
    found = []
    for index in indices:
        if not 0 <= index < len(data):
            raise ValueError(f"--index must be 0 to {len(data) - 1}, the sequences of {source}; found {index}")
        one, steps = data.take([index]), int(data.counts()[index])
        x = np.asarray(own.preparation.apply(one).x[0])[:steps]
        label = None if data.targets is None else int(data.targets[index])
        raw = np.asarray(one.x[0], np.float64)[:steps]
        found.append(Sample(f"sequence {data.ids[index]}", x.astype(own.model.dtype), label, index, raw))
    return found


def many(own: OwnModel, data: Sequences, steps: int) -> tuple[np.ndarray, np.ndarray] | None:
    """x (N, T, D) as the model reads it and labels (N,) of the first sequences of so many steps; None without labels.

    Raises DatasetError for missing values that are refused.
    """
    if data.targets is None:
        return None
    chosen = np.flatnonzero(data.counts() == steps)[: max(1, TEST_STEPS // steps)]
    x = own.preparation.apply(data.take(chosen)).x
    return np.stack([np.asarray(one)[:steps] for one in x]).astype(own.model.dtype), np.asarray(data.targets)[chosen]


def page_steps(source: str, samples: Sequence[Sample]) -> int:
    """The steps that all samples of a page have.  Raises ValueError where they have not the same number."""
    steps = [len(sample.image) for sample in samples]
    other = next((k for k, count in enumerate(steps) if count != steps[0]), None)
    if other is not None:
        raise ValueError(
            f"--index {samples[0].index} {samples[other].index}: these sequences of {source} have {steps[0]} and "
            f"{steps[other]} steps, a page has one time axis; name those of one length, or make a page for each"
        )
    return steps[0]
