"""What the tests of the data package share: small sets in the MNIST form, written without the code under test."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from lstm_np.data.mnist import PinnedFile

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_of(array):
    """A uint8 array as the bytes of a plain IDX file."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def small_arrays():
    """Training images and labels, test images and labels of a set of 12 + 5 samples in the MNIST form."""
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 256, (12, 28, 28), dtype=np.uint8),
        rng.integers(0, 10, 12, dtype=np.uint8),
        rng.integers(0, 256, (5, 28, 28), dtype=np.uint8),
        rng.integers(0, 10, 5, dtype=np.uint8),
    ]


@pytest.fixture
def write_set(tmp_path):
    """write_set(arrays, names=..., pack=True) writes four files into a new folder and returns it."""

    def write(arrays, names=NAMES, pack=True):
        folder = tmp_path / "set"
        folder.mkdir()
        for name, array in zip(names, arrays, strict=True):
            data = array if isinstance(array, bytes) else idx_of(array)
            (folder / (f"{name}.gz" if pack else name)).write_bytes(gzip.compress(data) if pack else data)
        return folder

    return write


@pytest.fixture
def pin():
    """pin(folder) is the table of the four files in a folder as if they were the published ones."""

    def table(folder):
        rows = []
        for name in NAMES:
            packed = (folder / f"{name}.gz").read_bytes()
            plain = gzip.decompress(packed)
            sums = [hashlib.sha256(data).hexdigest() for data in (packed, plain)]
            rows.append(PinnedFile(f"{name}.gz", len(packed), sums[0], len(plain), sums[1]))
        return tuple(rows)

    return table
