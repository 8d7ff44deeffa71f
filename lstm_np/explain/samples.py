"""What a view is about: test images, or sequences that are no images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstm_np.data import Dataset, sequence_view
from lstm_np.trace import Trace, trace
from lstm_np.training.trained import Trained

STEPS = {"rows": "row", "columns": "column", "pixels": "pixel"}  # what a time step is called, by view
SEQUENCES = "sequences"  # the data set of what is no image, but (T, D) as it is


@dataclass(frozen=True)
class Sample:
    """What a model reads, what it is called, and its label.

    image  (rows, columns) with values 0 ... 1; of what is no image (T, D), as the model reads it
    index  in the test set
    raw    (T, D) as the file has it, where that is something else; NaN where a value was missing
    """

    name: str
    image: np.ndarray
    label: int | None = None
    index: int | None = None
    raw: np.ndarray | None = None


def step_of(trained: Trained) -> str:
    """What a time step is called."""
    return "step" if trained.dataset == SEQUENCES else STEPS.get(trained.view, "step")


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
