"""load_mnist: arrays like MNIST's load, all others are refused, only the published bytes are "verified"."""

import gzip
import os
import time

import numpy as np
import pytest

from lstm_np.data import IDXError, load_mnist
from lstm_np.data.mnist import FILES

NAMES = tuple(file.name.removesuffix(".gz") for file in FILES)
DOTTED = tuple(name.replace("-idx", ".idx") for name in NAMES)


@pytest.mark.parametrize("names", [NAMES, DOTTED], ids=["dashed", "dotted"])
@pytest.mark.parametrize("pack", [True, False], ids=["packed", "plain"])
def test_own_set_loads_but_is_not_called_mnist(write_set, small_arrays, names, pack):
    dataset = load_mnist(write_set(small_arrays, names, pack))
    loaded = [dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels]
    for ours, theirs in zip(loaded, small_arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [array.dtype for array in loaded] == [np.uint8, np.int64, np.uint8, np.int64]
    assert (dataset.name, dataset.verified, dataset.num_classes, dataset.pixel_max) == ("custom", False, 10, 255)
    assert "not the published MNIST" in dataset.source


def test_verified_only_while_every_byte_is_the_pinned_one(write_set, small_arrays, pin):
    folder = write_set(small_arrays)
    table = pin(folder)
    dataset = load_mnist(folder, table)
    assert (dataset.name, dataset.verified) == ("mnist", True)
    small_arrays[2][4, 27, 27] ^= 1
    changed = folder / f"{NAMES[2]}.gz"
    changed.write_bytes(gzip.compress(gzip.decompress(changed.read_bytes())[:-1] + small_arrays[2].tobytes()[-1:]))
    dataset = load_mnist(folder, table)
    assert (dataset.name, dataset.verified) == ("custom", False)
    assert NAMES[2] in dataset.source
    assert NAMES[0] not in dataset.source


def zeros(*shape):
    return np.zeros(shape, np.uint8)


def label(index, value):
    labels = zeros(12)
    labels[index] = value
    return labels


# name: (what to put in place of which of the four arrays, index of the file at fault, offset, text)
BREACHES = {
    "label 10": ({1: label(7, 10)}, 1, 15, "found label 10, expected 0 to 9"),
    "label 255, first": ({1: label(0, 255)}, 1, 8, "label of image 0"),
    "label 10 in the test set": ({3: np.array([1, 2, 3, 4, 10], np.uint8)}, 3, 12, "found label 10"),
    "a label too few": ({1: zeros(11)}, 1, 4, "found 11 labels, expected 12"),
    "a label too many": ({1: zeros(13)}, 1, 4, "found 13 labels, expected 12"),
    "test labels of another count": ({3: zeros(12)}, 3, 4, "do not belong together"),
    "images and labels swapped": ({0: zeros(12), 1: zeros(12, 28, 28)}, 0, 3, "images and labels files are swapped"),
    "only labels": ({0: zeros(12)}, 0, 3, "found 1 dimensions, expected 3 (images)"),
    "images where labels are due": ({1: zeros(12, 28, 28)}, 1, 3, "images and labels files are swapped"),
    "images of 27 x 28": ({0: zeros(12, 27, 28)}, 0, 8, "found images of 27 x 28"),
    "images of 8 x 8": ({0: zeros(12, 8, 8)}, 0, 8, "found images of 8 x 8"),
    "images flattened": ({0: zeros(12, 784)}, 0, 3, "found 2 dimensions"),
    "images with a channel": ({0: zeros(12, 1, 28, 28)}, 0, 3, "found 4 dimensions"),
    "one-hot labels": ({1: zeros(12, 10)}, 1, 3, "found 2 dimensions, expected 1 (labels)"),
    "no training samples": ({0: zeros(0, 28, 28), 1: zeros(0)}, 0, 4, "the set is empty"),
    "no test samples": ({2: zeros(0, 28, 28), 3: zeros(0)}, 2, 4, "the set is empty"),
    "signed images": ({0: b"\0\0\x09\3\0\0\0\1\0\0\0\x1c\0\0\0\x1c" + bytes(784)}, 0, 2, "type int8"),
    "labels of 32 bits": ({1: b"\0\0\x0c\1\0\0\0\1\0\0\0\1"}, 1, 2, "type int32"),
    "labels as floats": ({1: b"\0\0\x0d\1\0\0\0\1\0\0\0\1"}, 1, 2, "type float32"),
    "a web page": ({2: b"<html>quota exceeded</html>"}, 2, 0, "this is a web page"),
    "an empty file": ({3: b""}, 3, 0, "the file is empty"),
}


@pytest.mark.parametrize("breach", BREACHES)
@pytest.mark.parametrize("pack", [True, False], ids=["packed", "plain"])
def test_breach_of_the_contract(write_set, small_arrays, breach, pack):
    changes, at_fault, offset, text = BREACHES[breach]
    for index, array in changes.items():
        small_arrays[index] = array
    folder = write_set(small_arrays, pack=pack)
    with pytest.raises(IDXError) as caught:
        load_mnist(folder)
    assert text in str(caught.value)
    assert caught.value.offset == offset
    assert os.path.basename(caught.value.file).removesuffix(".gz") == NAMES[at_fault]
    assert len(str(caught.value).splitlines()) == 1


def test_swapped_splits(write_set):
    arrays = [zeros(10_000, 28, 28), zeros(10_000), zeros(60_000, 28, 28), zeros(60_000)]
    with pytest.raises(IDXError, match="the train and t10k files are swapped"):
        load_mnist(write_set(arrays, pack=False))


def test_header_bit_flips_are_all_refused(write_set, small_arrays):
    folder = write_set(small_arrays, pack=False)
    for name, size in ((NAMES[0], 16), (NAMES[1], 8)):
        path = folder / name
        good = path.read_bytes()
        for bit in range(8 * size):
            flipped = bytearray(good)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(IDXError):
                load_mnist(folder)
        path.write_bytes(good)
    load_mnist(folder)


@pytest.mark.parametrize("missing", NAMES)
def test_missing_file_names_it_and_the_way_to_get_it(write_set, small_arrays, missing):
    folder = write_set(small_arrays)
    (folder / f"{missing}.gz").unlink()
    with pytest.raises(IDXError, match=f"{missing}.gz.*no such file.*python -m lstm_np.data --data-dir"):
        load_mnist(folder)


def test_missing_folder_and_file_for_a_folder(tmp_path):
    with pytest.raises(IDXError, match=r"found no such folder.*python -m lstm_np.data"):
        load_mnist(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(IDXError, match="found a file, expected a folder"):
        load_mnist(tmp_path / "file")


def test_folder_in_the_place_of_a_file(write_set, small_arrays):
    folder = write_set(small_arrays)
    (folder / f"{NAMES[0]}.gz").unlink()
    (folder / f"{NAMES[0]}.gz").mkdir()
    with pytest.raises(IDXError, match="found a folder"):
        load_mnist(folder)


@pytest.mark.skipif(not os.environ.get("LSTM_NP_DATA"), reason="LSTM_NP_DATA names no folder with the real MNIST")
def test_real_mnist():
    start = time.perf_counter()
    dataset = load_mnist(os.environ["LSTM_NP_DATA"])
    assert time.perf_counter() - start < 5
    assert dataset.verified
    assert dataset.train_images.shape == (60_000, 28, 28)
    assert dataset.test_images.shape == (10_000, 28, 28)
    assert dataset.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert dataset.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(dataset.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert round(float(dataset.train_images.mean()) / 255, 4) == 0.1307
    assert [len(labels) for labels in dataset.split(5000)[1::2]] == [55_000, 5_000]
