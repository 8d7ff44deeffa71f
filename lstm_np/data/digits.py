"""scikit-learn's embedded digits: 1,797 real handwritten digits of 8 x 8 pixels, there without any download."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from lstm_np import streams
from lstm_np.data.dataset import Dataset, DatasetError
from lstm_np.extras import MissingPackageError, load

TEST_SAMPLES = 500
PIXEL_MAX = 16


def load_digits() -> Dataset:
    """The test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI), as scikit-learn ships it.

    Images uint8 (N, 8, 8) with values 0 ... 16, split once and for all into 1,297 training and 500 test samples, each
    digit with its share in both.

    >>> lstm_np.data.load_digits().train_images.shape
    (1297, 8, 8)

    Raises DatasetError where scikit-learn is missing, or broken and without the file.
    """
    images, labels = _from_file() or _from_package()
    images = images.reshape(-1, 8, 8).astype(np.uint8)
    labels = labels.astype(np.int64)
    train, test = _stratified_split(labels)
    return Dataset(
        name="digits",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        num_classes=10,
        pixel_max=PIXEL_MAX,
        source="scikit-learn's embedded 8x8 digits",
        verified=False,
    )


def _from_file() -> tuple[np.ndarray, np.ndarray] | None:
    """Pixels (N, 64) and labels (N,) from the file of the installed package, whose import takes a second; None if it is
    not where it has been for ten years."""
    try:
        spec = importlib.util.find_spec("sklearn")
        folders = (spec and spec.submodule_search_locations) or ()
        with gzip.open(Path(next(iter(folders)), "datasets", "data", "digits.csv.gz")) as file:
            table = np.loadtxt(file, delimiter=",")
    except (ImportError, ValueError, OSError, StopIteration):
        return None
    return (table[:, :-1], table[:, -1]) if table.shape == (1797, 65) else None


def _from_package() -> tuple[np.ndarray, np.ndarray]:
    try:
        datasets = load("sklearn.datasets", "data", "the 8x8 digits need", "scikit-learn")
    except MissingPackageError as error:
        raise DatasetError(str(error)) from None
    images, labels = datasets.load_digits(return_X_y=True)
    return images, labels


def _stratified_split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training and test indices, both in random order, with each class's share to within one sample.

    The shuffled samples are sorted by class, and the test set is every (N / TEST_SAMPLES)-th of them.
    """
    order = streams.permutation(len(labels), "digits-split")
    by_class = np.argsort(labels[order], kind="stable")
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[by_class[(2 * np.arange(TEST_SAMPLES) + 1) * len(labels) // (2 * TEST_SAMPLES)]] = True
    return order[~chosen], order[chosen]
