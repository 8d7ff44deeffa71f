"""A data set of images in memory, its splits, and the ways to read an image as a sequence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lstm_np import streams
from lstm_np.errors import LstmNpError

VIEWS = ("rows", "columns", "pixels", "permuted")


class DatasetError(LstmNpError, ValueError):
    """A data set, split or view that cannot be given; `str()` is one line that says what is asked for instead.

    >>> lstm_np.data.load_dataset("cifar")
    Traceback (most recent call last):
    lstm_np.data.dataset.DatasetError: unknown data set 'cifar', expected one of: mnist, digits
    """


class Split(NamedTuple):
    """Images uint8 (N, rows, columns) and labels int64 (N,) for training and for validation (N = 0 where not asked).

    >>> split = lstm_np.data.load_digits().split(validation=97)
    >>> len(split.train_labels), len(split.validation_labels)
    (1200, 97)
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Dataset:
    """Grayscale images with labels.

    Images are uint8 (N, rows, columns) with values 0 ... `pixel_max`, labels int64 (N,) with values 0 ...
    `num_classes` - 1.  `source` says where they come from; `verified` is True only where their SHA-256 sums equal those
    of the published set of that name.

    >>> digits = lstm_np.data.load_digits()
    >>> digits.name, digits.train_images.shape, digits.test_images.shape, digits.num_classes
    ('digits', (1297, 8, 8), (500, 8, 8), 10)
    """

    name: str
    train_images: np.ndarray = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    test_images: np.ndarray = field(repr=False)
    test_labels: np.ndarray = field(repr=False)
    num_classes: int
    pixel_max: int
    source: str
    verified: bool

    @property
    def scale(self) -> float:
        """The factor that takes a pixel to 0 ... 1."""
        return 1.0 / self.pixel_max

    @property
    def image_shape(self) -> tuple[int, int]:
        """(rows, columns) of one image."""
        return self.train_images.shape[1:]

    def split(self, validation: int | None = None) -> Split:
        """The training set without its first `validation` samples, and those samples, as views (nothing is copied).

        The first samples are taken, unshuffled, as TensorFlow 1's `read_data_sets` did: on MNIST 5,000 gives
        55,000/5,000.  None and 0 keep the whole training set.

        >>> train_images, train_labels, images, labels = lstm_np.data.load_digits().split(97)
        >>> train_images.shape, images.shape
        ((1200, 8, 8), (97, 8, 8))

        Raises DatasetError where no training sample would be left.
        """
        count = 0 if validation is None else validation
        total = len(self.train_labels)
        if not 0 <= count < total:
            raise DatasetError(
                f"found a validation set of {count} samples, expected 0 to {total - 1}: "
                f"{self.name} has {total} training samples"
            )
        return Split(
            self.train_images[count:], self.train_labels[count:], self.train_images[:count], self.train_labels[:count]
        )


def sequence_view(images: np.ndarray, view: str = "rows") -> np.ndarray:
    """Images (N, rows, columns) read as sequences (N, T, D) of the same dtype.

    `rows`: T = rows, D = columns, the images as they are.  `columns`: T = columns, D = rows.  `pixels`: T = rows *
    columns, D = 1, row after row.  `permuted`: the pixels in one fixed random order, the same for every set, run and
    seed (the "permuted sequential MNIST" of Le, Jaitly and Hinton, arXiv:1504.00941).  Only `permuted` copies; the
    others are views of contiguous images.

    >>> images = np.zeros((5, 28, 20), np.uint8)
    >>> [lstm_np.data.sequence_view(images, view).shape for view in ("rows", "columns", "pixels")]
    [(5, 28, 20), (5, 20, 28), (5, 560, 1)]

    Raises DatasetError for another view or shape.
    """
    if images.ndim != 3:
        raise DatasetError(f"found images of shape {images.shape}, expected (N, rows, columns)")
    count, rows, columns = images.shape
    if view == "rows":
        return images
    if view == "columns":
        return images.transpose(0, 2, 1)
    if view == "pixels":
        return images.reshape(count, rows * columns, 1)
    if view == "permuted":
        order = streams.permutation(rows * columns, "permuted-mnist")
        return images.reshape(count, rows * columns)[:, order, np.newaxis]
    raise DatasetError(f"unknown view {view!r}, expected one of: {', '.join(VIEWS)}")
