"""MNIST: the four published files, and the contract that any set under their names must keep."""

from __future__ import annotations

import hashlib
import os
import struct
from typing import NamedTuple

import numpy as np

from lstm_np.data.dataset import Dataset
from lstm_np.data.idx import IDXError, read_idx
from lstm_np.files import expand

NUM_CLASSES = 10
PIXEL_MAX = 255
IMAGE_SHAPE = (28, 28)


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
    """The Dataset in the four files of a folder, packed or plain.

    A file may be named `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, each with or without `.gz`.
    Any set under these names loads, if it keeps the contract: images uint8 (N, 28, 28), as many labels, each 0 ... 9,
    at least one sample in each split.  Where the content of all four equals the published MNIST (SHA-256, computed each
    time: a damaged file does not pass as the real one) the result is named "mnist" and `verified`; otherwise "custom",
    and `source` says what differs.  Raises IDXError for a missing folder or file and for every breach of the contract.
    """
    root = str(expand(folder))
    if not os.path.isdir(root):
        found = "a file" if os.path.exists(root) else "no such folder"
        raise IDXError(root, 0, found, "a folder with the four MNIST files", f"python data_fetch.py --data-dir {root}")
    paths = [find_file(root, pinned) for pinned in files]
    train_images, train_labels, test_images, test_labels = arrays = [read_idx(path) for path in paths]
    _check_kinds(paths, arrays)
    if len(train_labels) == 10_000 and len(test_labels) == 60_000:
        hint = "the train and t10k files are swapped: rename them"
        raise IDXError(paths[1], 4, "10000 training and 60000 test labels", "60000 and 10000", hint)
    _check_split(paths[:2], train_images, train_labels)
    _check_split(paths[2:], test_images, test_labels)
    strange = [
        pinned.name.removesuffix(".gz")
        for pinned, array in zip(files, arrays, strict=True)
        if not _is_published(array, pinned)
    ]
    differs = f"not the published MNIST: {', '.join(strange)} differ" if strange else "SHA-256 verified"
    return Dataset(
        name="custom" if strange else "mnist",
        train_images=train_images,
        train_labels=train_labels.astype(np.int64),
        test_images=test_images,
        test_labels=test_labels.astype(np.int64),
        num_classes=NUM_CLASSES,
        pixel_max=PIXEL_MAX,
        source=f"{root} ({differs})",
        verified=not strange,
    )


def find_file(folder: str, pinned: PinnedFile) -> str:
    """The path of a file of the set under one of the names in use; IDXError where there is none."""
    plain = pinned.name.removesuffix(".gz")
    dotted = plain.replace("-idx", ".idx")  # as some unpackers rename it
    for name in (pinned.name, plain, f"{dotted}.gz", dotted):
        path = os.path.join(folder, name)
        if os.path.lexists(path):
            return path
    path = os.path.join(folder, pinned.name)
    raise IDXError(path, 0, "no such file", f"it, or {plain}", f"python data_fetch.py --data-dir {folder}")


def _check_kinds(paths: list[str], arrays: list[np.ndarray]) -> None:
    """Refuse a file that holds labels where images are due, or neither."""
    for index, (path, array) in enumerate(zip(paths, arrays, strict=True)):
        images = index % 2 == 0
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


def _check_split(paths: list[str], images: np.ndarray, labels: np.ndarray) -> None:
    """Refuse an empty split, a count of labels other than that of images, and a label above 9."""
    images_path, labels_path = paths
    if len(images) == 0:
        raise IDXError(images_path, 4, "0 images", "at least 1", "the set is empty")
    if len(labels) != len(images):
        hint = f"{os.path.basename(images_path)} holds {len(images)} images: the two files do not belong together"
        raise IDXError(labels_path, 4, f"{len(labels)} labels", f"{len(images)}", hint)
    if labels.max() >= NUM_CLASSES:
        index = int(np.argmax(labels >= NUM_CLASSES))
        hint = f"the label of image {index} is damaged, or the set has more than 10 classes"
        raise IDXError(labels_path, 8 + index, f"label {labels[index]}", "0 to 9", hint)


def _is_published(array: np.ndarray, pinned: PinnedFile) -> bool:
    """True where this array, written as a plain IDX file, has the pinned length and SHA-256."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape)
    if len(header) + array.nbytes != pinned.unpacked_size:
        return False
    digest = hashlib.sha256(header)
    digest.update(array.data)
    return digest.hexdigest() == pinned.unpacked_sha256
