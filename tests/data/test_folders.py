"""Folders as archives unpack them: names, layouts, and the relatives of MNIST that are read in their own way."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from lstm_np.data import Batches, IDXError, load_mnist, sequence_view
from lstm_np.data.folders import PARTS, find_set
from tests.data.conftest import NAMES


def write(path, array, pack=False):
    """An IDX file; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = {"uint8": 8, "int32": 12}[array.dtype.name]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    data = header + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(data) if pack else data)


def loaded(folder):
    dataset = load_mnist(folder)
    return [dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels]


DOTTED = [name.replace("-idx", ".idx") for name in NAMES]
LAYOUTS = {
    "plain and packed by turns": [NAMES[0], f"{NAMES[1]}.gz", NAMES[2], f"{NAMES[3]}.gz"],
    "dotted and packed by turns": [f"{DOTTED[0]}.gz", DOTTED[1], NAMES[2], f"{NAMES[3]}.gz"],
    "a folder for each": [f"{name}/{name}" for name in NAMES],
    "a dotted folder for each": [f"{dotted}/{name}" for dotted, name in zip(DOTTED, NAMES, strict=True)],
    "folders that keep the packing's name": [f"{name}.gz/{name}" for name in NAMES],
    "some in folders": [f"{NAMES[0]}/{NAMES[0]}", NAMES[1], f"{NAMES[2]}/{NAMES[2]}.gz", DOTTED[3]],
    "underscores": [name.replace("-", "_") for name in NAMES],
    "no dashes": [name.replace("-", "") for name in NAMES],
    "spaces and capitals": [name.replace("-", " ").upper() for name in NAMES],
    "test for t10k": [name.replace("t10k", "test") for name in NAMES],
    "a name of its own": [f"kmnist-{name}.gz" for name in NAMES],
    "a name of its own with a dash in it": [f"Fashion-MNIST_{name}" for name in NAMES],
    "torchvision's folders": [f"FashionMNIST/raw/{name}" for name in NAMES],
    "a folder within": [f"raw/{name}.gz" for name in NAMES],
    "folders within folders": [f"archive/{name}/{name}" for name in NAMES],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, small_arrays, layout):
    for name, array in zip(LAYOUTS[layout], small_arrays, strict=True):
        write(tmp_path / name, array, pack=name.endswith(".gz"))
    (tmp_path / "mnist_train.csv").write_text("label,1x1\n")
    for ours, theirs in zip(loaded(tmp_path), small_arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_file_beside_its_folder_is_read_and_the_packed_one_first(tmp_path, small_arrays):
    for name, array in zip(NAMES, small_arrays, strict=True):
        write(tmp_path / name / name, 255 - array if array.ndim == 3 else array)
        write(tmp_path / name.replace("-idx", ".idx"), array)
    np.testing.assert_array_equal(loaded(tmp_path)[0], small_arrays[0])
    write(tmp_path / f"{NAMES[0]}.gz", small_arrays[0] // 2, pack=True)
    np.testing.assert_array_equal(loaded(tmp_path)[0], small_arrays[0] // 2)


def write_set(folder, prefix, arrays, parts=NAMES):
    for name, array in zip(parts, arrays, strict=True):
        write(folder / f"{prefix}{name}.gz", array, pack=True)


def test_several_sets_in_a_folder_are_told_apart_by_name(tmp_path, small_arrays):
    others = [255 - array if array.ndim == 3 else array for array in small_arrays]
    write_set(tmp_path / "gzip", "emnist-digits-", small_arrays)
    write_set(tmp_path / "gzip", "emnist-mnist-", others)
    for folder in (tmp_path, tmp_path / "gzip"):
        with pytest.raises(IDXError) as caught:
            load_mnist(folder)
        assert "found several sets: emnist-digits, emnist-mnist, expected one" in str(caught.value)
        assert f"name one of them: {folder}/emnist-digits" in str(caught.value)
        np.testing.assert_array_equal(loaded(folder / "emnist-mnist")[0], others[0].transpose(0, 2, 1))
    with pytest.raises(IDXError, match="found no such folder"):
        load_mnist(tmp_path / "gzip" / "emnist-letters")
    write_set(tmp_path / "gzip", "", small_arrays)  # what has no name of its own is what the folder is about
    np.testing.assert_array_equal(loaded(tmp_path / "gzip")[0], small_arrays[0])


def test_two_folders_with_a_set_each(tmp_path, small_arrays):
    write_set(tmp_path / "a b", "", small_arrays)
    write_set(tmp_path / "c", "", small_arrays)
    with pytest.raises(IDXError, match=f"several sets: a b, c, expected one; name one of them: '{tmp_path}/a b'"):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("part", "classes", "lowest"),
    [("letters", 26, 1), ("balanced", 47, 0), ("byclass", 62, 0), ("bymerge", 47, 0), ("digits", 10, 0)],
)
def test_emnist_stands_upright_and_counts_from_0(tmp_path, small_arrays, part, classes, lowest):
    small_arrays[1][:2] = lowest, classes - 1 + lowest
    small_arrays[1][2:] = np.maximum(small_arrays[1][2:], lowest)
    small_arrays[3][:] = np.maximum(small_arrays[3], lowest)
    parts = [name.replace("t10k", "test") for name in NAMES]
    write_set(tmp_path, f"emnist-{part}-", small_arrays, parts)
    (tmp_path / f"emnist-{part}-mapping.txt").write_text("0 48\n")
    dataset = load_mnist(tmp_path)
    np.testing.assert_array_equal(dataset.train_images, small_arrays[0].transpose(0, 2, 1))
    np.testing.assert_array_equal(dataset.test_images, small_arrays[2].transpose(0, 2, 1))
    assert dataset.train_labels[:2].tolist() == [0, classes - 1]
    assert (dataset.num_classes, dataset.name, dataset.verified) == (classes, "custom", False)
    assert f"(emnist-{part}: images transposed, {classes} classes" in dataset.source
    batch, _ = next(Batches(sequence_view(dataset.train_images), dataset.train_labels, 12, shuffle=False).epoch(0))
    np.testing.assert_array_equal(batch, small_arrays[0].transpose(0, 2, 1))


@pytest.mark.parametrize(("label", "offset"), [(0, 8 + 3), (27, 8 + 3)])
def test_a_label_that_emnist_letters_do_not_have(tmp_path, small_arrays, label, offset):
    small_arrays[1][:], small_arrays[3][:] = 1, 1
    small_arrays[1][3] = label
    write_set(tmp_path, "emnist-letters-", small_arrays)
    with pytest.raises(IDXError, match=f"found label {label}, expected 1 to 26") as caught:
        load_mnist(tmp_path)
    assert caught.value.offset == offset


def test_letters_under_other_names_are_refused_and_it_is_said_why(tmp_path, small_arrays):
    small_arrays[1][5] = 26
    write_set(tmp_path / "a", "", small_arrays)
    with pytest.raises(IDXError, match=r"found label 26, expected 0 to 9; .*emnist-letters-train-images-idx3-ubyte"):
        load_mnist(tmp_path / "a")
    write_set(tmp_path / "b", "emnist-", small_arrays)
    with pytest.raises(IDXError, match=r"found files called emnist-\.\.\., expected emnist-balanced or .*sides"):
        load_mnist(tmp_path / "b")


QMNIST = ("train-images-idx3-ubyte", "train-labels-idx2-int", "test-images-idx3-ubyte", "test-labels-idx2-int")


def test_the_labels_of_qmnist(tmp_path, small_arrays):
    rng = np.random.default_rng(0)
    rows = [np.column_stack([labels, rng.integers(0, 4000, (len(labels), 7))]) for labels in small_arrays[1::2]]
    arrays = [small_arrays[0], rows[0].astype(np.int32), small_arrays[2], rows[1].astype(np.int32)]
    write_set(tmp_path, "qmnist-", arrays, QMNIST)
    for ours, theirs in zip(loaded(tmp_path), small_arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded(tmp_path)[1].dtype == np.int64
    arrays[1][4, 0] = -1
    write_set(tmp_path, "qmnist-", arrays, QMNIST)
    with pytest.raises(IDXError, match="found label -1, expected 0 to 9") as caught:
        load_mnist(tmp_path)
    assert caught.value.offset == 12 + 4 * 8 * 4


@pytest.mark.parametrize("shape", [(12, 7), (12, 8, 1)])
def test_other_rows_of_labels_are_refused(tmp_path, small_arrays, shape):
    small_arrays[1] = np.zeros(shape, np.int32)
    write_set(tmp_path, "", small_arrays)
    with pytest.raises(IDXError, match="found type int32, expected uint8"):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], "found an empty folder, expected train-images-idx3-ubyte.gz and three more, packed or plain; python -m"),
        (["mnist.npz", "b", "c", "d"], "found a folder with b, c, d ..., expected train-images"),
        (["a.txt", "archive.zip"], "found archive.zip, an archive, expected .*; unpack it first"),
        (["a.txt", "qmnist.tar.gz"], "found qmnist.tar.gz, an archive, expected .*; unpack it first"),
    ],
)
def test_folders_without_a_set(tmp_path, names, text):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(IDXError, match=text) as caught:
        load_mnist(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("layout", ["a folder for each", "underscores", "a name of its own", "a folder within"])
def test_a_set_that_is_not_whole(tmp_path, small_arrays, layout, part):
    for name, array in zip(LAYOUTS[layout], small_arrays, strict=True):
        write(tmp_path / name, array)
    (tmp_path / LAYOUTS[layout][part]).unlink()
    if layout == "a folder for each":
        (tmp_path / PARTS[part]).rmdir()
    with pytest.raises(IDXError, match=f"{PARTS[part]}.gz: byte 0: found no such file, expected it, or {PARTS[part]}"):
        find_set(str(tmp_path))


def test_folders_deep_down_hidden_or_unreadable_are_not_searched(tmp_path, small_arrays):
    write_set(tmp_path / "a" / "b" / "c", "", small_arrays)
    write_set(tmp_path / ".cache", "", small_arrays)
    with pytest.raises(IDXError, match=r"found a folder with \.cache, a, expected"):
        load_mnist(tmp_path)


def test_a_set_in_a_folder_of_the_current_folder_is_found_by_name(tmp_path, small_arrays, monkeypatch):
    write_set(tmp_path, "emnist-digits-", small_arrays)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(loaded("emnist-digits")[1], small_arrays[1])
