"""Splits, sequence views and the embedded digits."""

import sys

import numpy as np
import pytest

from lstm_np.data import Dataset, DatasetError, load_digits, sequence_view
from lstm_np.data import digits as embedded

pytestmark = pytest.mark.quick


@pytest.fixture
def dataset():
    images = np.arange(6 * 2 * 3, dtype=np.uint8).reshape(6, 2, 3)
    labels = np.arange(6)
    return Dataset("small", images, labels, images[:2], labels[:2], 6, 40, "made up", False)


def test_split_takes_the_first_samples_for_validation_without_a_copy(dataset):
    split = dataset.split(2)
    assert split.validation_labels.tolist() == [0, 1]
    assert split.train_labels.tolist() == [2, 3, 4, 5]
    np.testing.assert_array_equal(split.train_images, dataset.train_images[2:])
    np.testing.assert_array_equal(split.validation_images, dataset.train_images[:2])
    assert all(np.shares_memory(part, dataset.train_images) for part in (split.train_images, split.validation_images))


@pytest.mark.parametrize("nothing", [None, 0])
def test_split_of_nothing_keeps_all(dataset, nothing):
    split = dataset.split(nothing)
    assert len(split.train_labels) == 6
    assert split.validation_images.shape == (0, 2, 3)


@pytest.mark.parametrize("count", [-1, 6, 7])
def test_split_that_leaves_nothing_to_train_on(dataset, count):
    with pytest.raises(DatasetError, match=f"validation set of {count} samples, expected 0 to 5"):
        dataset.split(count)


def test_dataset_is_frozen_and_says_what_it_is(dataset):
    with pytest.raises(AttributeError):
        dataset.name = "other"
    assert dataset.scale == 1 / 40
    assert dataset.image_shape == (2, 3)
    assert "small" in repr(dataset)
    assert "array" not in repr(dataset)


def test_views_read_the_image_in_the_order_they_say(dataset):
    images = dataset.train_images
    assert sequence_view(images, "rows")[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert sequence_view(images, "columns")[0].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert sequence_view(images, "pixels")[0].tolist() == [[0], [1], [2], [3], [4], [5]]
    assert sorted(sequence_view(images, "permuted")[0, :, 0].tolist()) == [0, 1, 2, 3, 4, 5]
    for view in ("rows", "columns", "pixels"):
        assert np.shares_memory(sequence_view(images, view), images)


def test_permuted_view_is_one_fixed_order():
    image = (np.arange(784) % 256).astype(np.uint8).reshape(1, 28, 28)
    wide = np.arange(784, dtype=np.int32).reshape(1, 28, 28)
    order = sequence_view(wide, "permuted")[0, :, 0]
    assert order[:8].tolist() == PERMUTED_MNIST
    assert sorted(order) == list(range(784))
    np.testing.assert_array_equal(sequence_view(image, "permuted")[0, :, 0], image.reshape(-1)[order])


PERMUTED_MNIST = [165, 83, 99, 589, 309, 449, 759, 191]


@pytest.mark.parametrize(("shape", "view"), [((2, 3, 4), "diagonal"), ((2, 12), "rows"), ((2, 3, 4, 1), "pixels")])
def test_unknown_view_or_shape(shape, view):
    with pytest.raises(DatasetError):
        sequence_view(np.zeros(shape, np.uint8), view)


class TestDigits:
    def test_all_of_them_once_and_stratified(self):
        sklearn = pytest.importorskip("sklearn.datasets", reason="scikit-learn (extra `data`) is missing")
        digits = load_digits()
        assert digits.train_images.shape == (1297, 8, 8)
        assert digits.test_images.shape == (500, 8, 8)
        assert digits.train_images.dtype == np.uint8
        assert digits.train_images.max() == digits.pixel_max == 16
        images, labels = sklearn.load_digits(return_X_y=True)
        both = np.concatenate([digits.train_images, digits.test_images]).reshape(-1, 64)
        rows = np.concatenate([both, np.concatenate([digits.train_labels, digits.test_labels])[:, None]], axis=1)
        original = np.concatenate([images, labels[:, None]], axis=1)
        assert sorted(map(tuple, rows.astype(int))) == sorted(map(tuple, original.astype(int)))
        share = np.bincount(digits.test_labels) - np.bincount(labels) * 500 / 1797
        assert np.abs(share).max() < 1

    def test_split_is_pinned_and_not_sorted(self):
        pytest.importorskip("sklearn.datasets", reason="scikit-learn (extra `data`) is missing")
        digits = load_digits()
        assert digits.train_labels[:10].tolist() == DIGITS_TRAIN
        assert digits.test_labels[:10].tolist() == DIGITS_TEST

    def test_from_the_file_or_by_the_package_they_are_the_same(self):
        pytest.importorskip("sklearn.datasets", reason="scikit-learn (extra `data`) is missing")
        for ours, theirs in zip(embedded._from_file(), embedded._from_package(), strict=True):
            assert np.array_equal(ours, theirs)

    def test_only_the_file_is_read(self, monkeypatch):
        pytest.importorskip("sklearn", reason="scikit-learn (extra `data`) is missing")
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        assert len(load_digits().train_images) == 1297

    def test_without_scikit_learn_one_line_names_the_extra(self, monkeypatch):
        for name in ("sklearn", "sklearn.datasets"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(DatasetError, match=r'pip install "lstm_np\[data\]"') as caught:
            load_digits()
        assert len(str(caught.value).splitlines()) == 1


DIGITS_TRAIN = [9, 4, 3, 4, 5, 0, 7, 4, 6, 3]
DIGITS_TEST = [4, 3, 6, 0, 4, 9, 3, 4, 2, 5]
