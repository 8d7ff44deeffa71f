"""From a data set and a recipe's settings to the batches for training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lstm_np.data import Batches, Dataset, DatasetError, sequence_view
from lstm_np.data.sequences.preparation import MappedBatches
from lstm_np.training.augmentation import MOVABLE, Augmented
from lstm_np.training.recipes import Recipe

MEASURING_BATCH = 500  # images at a time where nothing is learnt; a divisor of 10,000, so that no batch is short


@dataclass(frozen=True)
class Material:
    """Batches to train on, to measure each epoch on (`held_out`: "validation" or "test"), and to test on; None: there
    are none."""

    train: Batches | Augmented | MappedBatches
    held_out: str
    measured: Batches | MappedBatches | None
    test: Batches | MappedBatches | None
    sequence: tuple[int, int]  # T, D


def prepare(dataset: Dataset, recipe: Recipe) -> Material:
    """Split, limit, view and cut a data set as a recipe says.  Raises DatasetError where it has too few images."""
    data, split = recipe.data, dataset.split(recipe.data.validation)
    images, labels = split.train_images[: data.limit_train], split.train_labels[: data.limit_train]
    sequences = sequence_view(images, data.view)
    batches = Batches(
        sequences,
        labels,
        recipe.train.batch_size,
        seed=recipe.train.seed,
        scale=dataset.scale,
        dtype=recipe.model.dtype,
        order=data.order,
        reuse=recipe.train.accumulate == 1,
    )
    train: Batches | Augmented = batches
    if data.shift or data.rotate or data.zoom:
        if data.view not in MOVABLE:
            raise DatasetError(f"images read as {data.view} cannot be moved; set shift, rotate and zoom to 0")
        train = Augmented(batches, data.shift, data.rotate, data.zoom, recipe.train.seed)
    test = in_order(dataset.test_images, dataset.test_labels, dataset.scale, data.view, recipe.model.dtype)
    measured = test
    if data.validation:
        measured = in_order(
            split.validation_images, split.validation_labels, dataset.scale, data.view, recipe.model.dtype
        )
    return Material(train, "validation" if data.validation else "test", measured, test, sequences.shape[1:])


def in_order(
    images: np.ndarray, labels: np.ndarray, scale: float, view: str, dtype: str, batch_size: int = MEASURING_BATCH
) -> Batches:
    """Batches of images in their order, for evaluation."""
    sequences = sequence_view(images, view)
    return Batches(sequences, labels, batch_size, scale=scale, dtype=dtype, order="sequential", reuse=True)
