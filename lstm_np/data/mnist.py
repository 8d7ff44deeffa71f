"""MNIST: the four published files, and what any set under their names must be like.

Two variants are recognized by their names.  EMNIST's images lie on their sides, the labels of its
letters begin at 1 (Cohen, Afshar, Tapson and van Schaik, "EMNIST", arXiv:1702.05373); QMNIST's labels are rows of eight
numbers, the first of which is the digit (Yadav and Bottou, "Cold case: the lost MNIST digits", arXiv:1905.10498).
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lstm_np.data.dataset import Dataset
from lstm_np.data.folders import find_set
from lstm_np.data.idx import IDXError, read_idx
from lstm_np.files import expand

NUM_CLASSES = 10
PIXEL_MAX = 255
IMAGE_SHAPE = (28, 28)
QMNIST_COLUMNS = 8
EMNIST = {  # its parts: (classes, the lowest label)
    "emnist-balanced": (47, 0),
    "emnist-byclass": (62, 0),
    "emnist-bymerge": (47, 0),
    "emnist-digits": (10, 0),
    "emnist-letters": (26, 1),
    "emnist-mnist": (10, 0),
}


class PinnedFile(NamedTuple):
    """A published file: its name, and the length in bytes and SHA-256 (hex) of it packed and of what it unpacks to."""

    name: str
    size: int
    sha256: str
    unpacked_size: int
    unpacked_sha256: str


FILES = (
    PinnedFile(
        "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    PinnedFile(
        "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    PinnedFile(
        "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    PinnedFile(
        "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


def load_mnist(folder: str | os.PathLike[str], files: tuple[PinnedFile, ...] = FILES) -> Dataset:
    """The Dataset in the four files of a folder, packed or plain, under the names that `lstm_np.data.folders` knows.

    Any set under these names loads if its arrays are like MNIST's: images uint8 (N, 28, 28), as many labels, each
    0 ... 9, at least one sample in each split.  Where the content of all four equals the published MNIST (SHA-256,
    computed each time: a damaged file does not pass as the real one) the result is named "mnist" and `verified`;
    otherwise "custom", and `source` says what differs.

    Of QMNIST's labels (N, 8) the first column is taken.  A set called emnist-PART (emnist-letters-train-images...)
    has its images transposed, so that they stand upright, and its labels counted from 0; it has the classes of that
    part.

    >>> def write(name, array):  # as an IDX file
    ...     sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    ...     with open(name, "wb") as file:
    ...         _ = file.write(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    >>> for part in ("train", "t10k"):
    ...     write(f"{part}-images-idx3-ubyte", np.zeros((3, 28, 28), np.uint8))
    ...     write(f"{part}-labels-idx1-ubyte", np.array([7, 2, 1], np.uint8))
    >>> dataset = lstm_np.data.load_mnist(".")
    >>> dataset.name, dataset.train_labels.tolist(), dataset.verified
    ('custom', [7, 2, 1], False)

    Raises IDXError for a missing folder or file and for arrays of any other kind.
    """
    root = str(expand(folder))
    found = find_set(root)
    classes, lowest = _classes(root, found.name)
    train_images, train_labels, test_images, test_labels = arrays = [read_idx(path) for path in found.paths]
    _check_kinds(found.paths, arrays)
    if len(train_labels) == 10_000 and len(test_labels) == 60_000:
        hint = "the train and t10k files are swapped: rename them"
        raise IDXError(found.paths[1], 4, "10000 training and 60000 test labels", "60000 and 10000", hint)
    _check_split(found.paths[:2], train_images, train_labels, classes, lowest)
    _check_split(found.paths[2:], test_images, test_labels, classes, lowest)
    strange = [
        pinned.name.removesuffix(".gz")
        for pinned, array in zip(files, arrays, strict=True)
        if not is_published(array, pinned)
    ]
    differs = f"not the published MNIST: {', '.join(strange)} differ" if strange else "SHA-256 verified"
    if found.name in EMNIST:
        train_images, test_images = train_images.transpose(0, 2, 1), test_images.transpose(0, 2, 1)
        differs = f"{found.name}: images transposed, {classes} classes" + (", label 1 is class 0" if lowest else "")
    return Dataset(
        name="custom" if strange else "mnist",
        train_images=train_images,
        train_labels=_digits(train_labels).astype(np.int64) - lowest,
        test_images=test_images,
        test_labels=_digits(test_labels).astype(np.int64) - lowest,
        num_classes=classes,
        pixel_max=PIXEL_MAX,
        source=f"{root} ({differs})",
        verified=not strange,
    )


def _classes(root: str, name: str) -> tuple[int, int]:
    """How many classes a set of this name has, and its lowest label."""
    if name in EMNIST:
        return EMNIST[name]
    if name.startswith("emnist"):
        hint = "its images would lie on their sides: give the files the names that EMNIST gave them"
        raise IDXError(root, 0, f"files called {name}-...", " or ".join(EMNIST), hint)
    return NUM_CLASSES, 0


def _digits(labels: np.ndarray) -> np.ndarray:
    """Labels (N,) from labels (N,) or QMNIST's (N, 8)."""
    return labels if labels.ndim == 1 else labels[:, 0]


def _check_kinds(paths: Sequence[str], arrays: list[np.ndarray]) -> None:
    """Refuse a file that holds labels where images are due, or neither."""
    for index, (path, array) in enumerate(zip(paths, arrays, strict=True)):
        images = index % 2 == 0
        if not images and array.dtype == np.int32 and array.shape[1:] == (QMNIST_COLUMNS,):
            continue
        if array.dtype != np.uint8:
            hint = "this is an IDX file, but not of a set like MNIST"
            raise IDXError(path, 2, f"type {array.dtype}", "uint8", hint)
        if array.ndim != (3 if images else 1):
            found, expected = f"{array.ndim} dimensions", "3 (images)" if images else "1 (labels)"
            hint = "this is an IDX file, but not of a set like MNIST"
            if array.ndim == (1 if images else 3):
                hint = "the images and labels files are swapped: rename them"
            raise IDXError(path, 3, found, expected, hint)
        if images and array.shape[1:] != IMAGE_SHAPE:
            found = f"images of {array.shape[1]} x {array.shape[2]}"
            raise IDXError(path, 8, found, "28 x 28", "scale the images first")


def _check_split(paths: Sequence[str], images: np.ndarray, labels: np.ndarray, classes: int, lowest: int) -> None:
    """Refuse an empty split, a count of labels other than that of images, and a label of no class."""
    images_path, labels_path = paths
    if len(images) == 0:
        raise IDXError(images_path, 4, "0 images", "at least 1", "the set is empty")
    if len(labels) != len(images):
        hint = f"{os.path.basename(images_path)} holds {len(images)} images: the two files do not belong together"
        raise IDXError(labels_path, 4, f"{len(labels)} labels", f"{len(images)}", hint)
    digits = _digits(labels)
    strange = (digits < lowest) | (digits >= lowest + classes)
    if strange.any():
        index = int(np.argmax(strange))
        hint = f"the label of image {index} is damaged, or the set has other classes"
        if lowest == 0 and classes == NUM_CLASSES:
            hint = (
                f"the label of image {index} is damaged, or the set has more than 10 classes "
                "(EMNIST's parts load under their own names: emnist-letters-train-images-idx3-ubyte)"
            )
        offset = 4 + 4 * labels.ndim + index * labels[0].nbytes
        raise IDXError(labels_path, offset, f"label {digits[index]}", f"{lowest} to {lowest + classes - 1}", hint)


def is_published(array: np.ndarray, pinned: PinnedFile) -> bool:
    """True where this array, written as a plain IDX file, has the pinned length and SHA-256."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape)
    if len(header) + array.nbytes != pinned.unpacked_size:
        return False
    digest = hashlib.sha256(header)
    digest.update(array.data)
    return digest.hexdigest() == pinned.unpacked_sha256
