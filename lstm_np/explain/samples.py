"""The test images that a view is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstm_np.data import Dataset, sequence_view
from lstm_np.trace import Trace, trace
from lstm_np.training.trained import Trained

STEPS = {"rows": "row", "columns": "column", "pixels": "pixel"}  # what a time step is called, by view


@dataclass(frozen=True)
class Sample:
    """An image (rows, columns) with values 0 ... 1, what it is called, and its label; `index` in the test set."""

    name: str
    image: np.ndarray
    label: int | None = None
    index: int | None = None


def samples_of(dataset: Dataset, indices: Sequence[int]) -> list[Sample]:
    """Test images by number, from 0.  Raises ValueError for a number out of range."""
    count = len(dataset.test_labels)
    for index in indices:
        if not 0 <= index < count:
            raise ValueError(f"--index must be 0 to {count - 1}, the test images of {dataset.name}; found {index}")
    images, labels = dataset.test_images, dataset.test_labels
    return [
        Sample(f"test image {index}", images[index] * dataset.scale, int(labels[index]), index) for index in indices
    ]


def trace_of(trained: Trained, sample: Sample) -> Trace:
    """The trace of one sample alone, with the gradients of its own loss where its label is known."""
    x = sequence_view(sample.image[np.newaxis], trained.view)
    return trace(trained.model, x, None if sample.label is None else np.array([sample.label]))
