"""Batches: layout, order, re-entry."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.data import Batches, DatasetError, sequence_view

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (23, 4, 3), dtype=np.uint8)
LABELS = np.arange(23)


def batches(batch_size=5, images=IMAGES, **keywords):
    return Batches(images, LABELS[: len(images)], batch_size, **keywords)


def drawn(iterator):
    """The labels (which are sample numbers here) of each batch."""
    return [labels.tolist() for _, labels in iterator]


def flat(groups):
    return [sample for group in groups for sample in group]


@pytest.mark.parametrize("view", ["rows", "columns", "pixels", "permuted"])
@pytest.mark.parametrize("order", ["shuffle", "sequential", "tf1"])
@pytest.mark.parametrize(("dtype", "images_dtype"), [("float32", "u1"), ("float64", "u1"), ("float32", "f8")])
def test_x_holds_the_scaled_samples_and_is_feature_major(view, order, dtype, images_dtype):
    sequences = sequence_view(IMAGES.astype(images_dtype), view)
    count = 0
    for x, labels in batches(images=sequences, scale=1 / 255, dtype=dtype, order=order).epoch(0):
        expected = np.multiply(sequences[labels], np.dtype(dtype).type(1 / 255)).astype(dtype)
        np.testing.assert_array_equal(x, expected)
        assert x.dtype == dtype
        assert labels.dtype == np.int64
        assert x.transpose(2, 1, 0).flags.c_contiguous
        count += 1
    assert count == (4 if order == "tf1" else 5)


@pytest.mark.parametrize("view", ["rows", "columns"])
@pytest.mark.parametrize("order", ["shuffle", "sequential"])
def test_with_lengths_x_holds_the_scaled_samples_and_is_contiguous(view, order):
    sequences = sequence_view(IMAGES, view)
    lengths = np.arange(len(sequences)) % sequences.shape[1] + 1
    for x, labels, found in batches(images=sequences, scale=1 / 255, order=order, lengths=lengths, reuse=True).epoch(0):
        np.testing.assert_array_equal(x, (sequences[labels] * np.float32(1 / 255)).astype("float32"))
        np.testing.assert_array_equal(found, lengths[labels])
        assert x.flags.c_contiguous


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [({}, (5, 3)), ({"batch_size": 23}, (23,)), ({"batch_size": 40}, (23,)), ({"drop_last": True}, (5,)),
     ({"order": "tf1"}, (5,))],
)  # fmt: skip
def test_the_sizes_of_batches(arguments, sizes):
    made = batches(**arguments)
    assert made.sizes == sizes
    assert {len(labels) for _, labels in made.epoch(1)} == set(sizes)


def test_buffers_are_reused_where_that_is_asked_for():
    first, second = (x for x, _ in batches(reuse=True).steps(0, 2))
    assert np.shares_memory(first, second)
    kept = list(batches().epoch(0))
    assert not any(np.shares_memory(a[0], b[0]) or np.shares_memory(a[1], b[1]) for a, b in pairwise(kept))
    for (kept_x, kept_labels), (x, labels) in zip(kept, batches(reuse=True).epoch(0), strict=True):
        np.testing.assert_array_equal(kept_x, x)
        np.testing.assert_array_equal(kept_labels, labels)


def test_caller_may_write_to_a_batch_without_harm_to_the_data():
    images = IMAGES.copy()
    for order in ("shuffle", "sequential", "tf1"):
        ours = Batches(images, LABELS.copy(), 5, order=order)
        for x, labels in ours.epoch(0):
            x[...] = -1
            labels[...] = -1
        assert sorted(flat(drawn(ours.epoch(0))))[0] == 0
    np.testing.assert_array_equal(images, IMAGES)


@settings(deadline=None, max_examples=60)
@given(samples=st.integers(1, 23), batch_size=st.integers(1, 30), epoch=st.integers(0, 5), seed=st.integers(0, 9))
def test_every_sample_exactly_once_an_epoch(samples, batch_size, epoch, seed):
    ours = batches(batch_size, images=IMAGES[:samples], seed=seed)
    groups = drawn(ours.epoch(epoch))
    assert len(groups) == len(ours) == -(-samples // batch_size)
    assert all(len(group) == min(batch_size, samples) for group in groups[:-1])
    assert sorted(flat(groups)) == list(range(samples))


def test_drop_last_leaves_out_only_the_short_batch():
    assert drawn(batches(drop_last=True).epoch(1)) == drawn(batches().epoch(1))[:4]
    assert len(batches(drop_last=True)) == 4


def test_golden_order():
    assert flat(drawn(batches(seed=0).epoch(0))) == GOLDEN_0_0
    assert flat(drawn(batches(seed=0).epoch(1))) == GOLDEN_0_1
    assert flat(drawn(batches(seed=7).epoch(0))) == GOLDEN_7_0


GOLDEN_0_0 = [21, 12, 7, 8, 16, 19, 10, 13, 20, 9, 6, 2, 1, 11, 14, 18, 22, 0, 15, 5, 4, 3, 17]
GOLDEN_0_1 = [18, 7, 14, 2, 22, 4, 3, 5, 17, 8, 12, 9, 10, 15, 19, 20, 0, 13, 21, 1, 16, 11, 6]
GOLDEN_7_0 = [20, 19, 18, 6, 9, 15, 10, 1, 11, 22, 2, 7, 17, 21, 16, 13, 12, 14, 3, 0, 5, 8, 4]


def test_sequential_order():
    assert flat(drawn(batches(shuffle=False).epoch(3))) == list(range(23))
    assert flat(drawn(batches(order="sequential").epoch(0))) == list(range(23))


@pytest.mark.parametrize("order", ["shuffle", "sequential", "tf1"])
def test_any_point_can_be_reentered(order):
    unbroken = drawn(batches(order=order).steps(0, 40))
    ours = batches(order=order)
    for step in range(40):
        assert drawn(batches(order=order).steps(step, 40)) == unbroken[step:]
        assert drawn(ours.steps(39 - step, 40 - step)) == [unbroken[39 - step]]
    count = len(ours)
    for epoch in range(3):
        for start in range(count + 1):
            assert drawn(ours.epoch(epoch, start)) == unbroken[epoch * count + start : (epoch + 1) * count]


def next_batch_of_tensorflow_1(permutations, batch_size, steps):
    """The order of TensorFlow 1's DataSet.next_batch, told step by step as its state machine goes."""
    order, epoch, position = permutations(0), 0, 0
    for _ in range(steps):
        if position + batch_size > len(order):
            rest = order[position:]
            epoch += 1
            order = permutations(epoch)
            position = batch_size - len(rest)
            yield [*rest, *order[:position]]
        else:
            position += batch_size
            yield list(order[position - batch_size : position])


@pytest.mark.parametrize("batch_size", [1, 4, 5, 22, 23])
@pytest.mark.parametrize("samples", [23, 20])
def test_tf1_order_joins_the_rest_with_the_next_head(batch_size, samples):
    batch_size = min(batch_size, samples)
    ours = batches(batch_size, images=IMAGES[:samples], order="tf1", seed=2)
    shuffled = batches(samples, images=IMAGES[:samples], seed=2)
    expected = next_batch_of_tensorflow_1(lambda epoch: drawn(shuffled.epoch(epoch))[0], batch_size, 70)
    assert drawn(ours.steps(0, 70)) == list(expected)
    assert len(ours) == samples // batch_size


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"images": IMAGES[0]}, "expected real numbers"),
        ({"images": IMAGES.astype(complex)}, "expected real numbers"),
        ({"labels": LABELS[:-1]}, "expected integers"),
        ({"labels": LABELS.astype(complex)}, "expected integers"),
        ({"batch_size": 0}, "batch size 0"),
        ({"order": "random"}, "unknown order 'random'"),
        ({"dtype": "int32"}, "floating-point"),
        ({"batch_size": 24, "drop_last": True}, "too few for one batch of 24"),
        ({"batch_size": 24, "order": "tf1"}, "too few for one batch of 24"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "found 0 samples"),
    ],
)
def test_bad_arguments(arguments, text):
    given_arguments = {"images": IMAGES, "labels": LABELS, "batch_size": 5} | arguments
    with pytest.raises(DatasetError, match=text):
        Batches(**given_arguments)


@pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (0, -1), (0, 6)])
def test_a_place_outside_the_epoch(epoch, start):
    with pytest.raises(DatasetError, match="expected epoch >= 0 and a batch from 0 to 5"):
        batches().epoch(epoch, start)


def test_a_negative_step():
    with pytest.raises(DatasetError, match="found step -1"):
        batches().steps(-1, 3)


class TestUnequalLengths:
    LENGTHS = np.random.default_rng(5).integers(0, 5, 23)
    MASK = np.random.default_rng(6).random((23, 4)) < 0.5

    @pytest.mark.parametrize("order", ["shuffle", "sequential", "tf1"])
    @pytest.mark.parametrize("real", ["lengths", "mask"])
    def test_a_batch_has_those_of_its_samples(self, order, real):
        all_of = {"lengths": self.LENGTHS, "mask": self.MASK}[real]
        for x, labels, own in batches(order=order, reuse=True, **{real: all_of}).epoch(1):
            np.testing.assert_array_equal(own, all_of[labels])
            np.testing.assert_array_equal(x, IMAGES[labels])

    def test_a_list_has_its_own(self):
        sequences = [image[:n].astype("float32") for image, n in zip(IMAGES, self.LENGTHS, strict=True)]
        for x, labels, lengths in Batches(sequences, LABELS, 5).epoch(0):
            assert lengths.tolist() == self.LENGTHS[labels].tolist()
            for row, label, n in zip(x, labels, lengths, strict=True):
                np.testing.assert_array_equal(row[:n], IMAGES[label, :n])
                assert not row[n:].any()

    @pytest.mark.parametrize("order", ["shuffle", "sequential"])
    @pytest.mark.parametrize("bucket", [1, 2, 100])
    def test_buckets_are_an_order_of_the_epoch(self, bucket, order):
        made = batches(batch_size=4, lengths=self.LENGTHS, bucket=bucket, order=order)
        epochs = [[labels.tolist() for _, labels, _ in made.epoch(epoch)] for epoch in range(3)]
        for epoch in epochs:
            assert sorted(flat(epoch)) == list(range(23))
            assert [len(batch) for batch in epoch] == [4] * 5 + [3]
            for batch in epoch:
                assert self.LENGTHS[batch].tolist() == sorted(self.LENGTHS[batch])
        assert (epochs[0] == epochs[1]) is (order == "sequential")
        again = batches(batch_size=4, lengths=self.LENGTHS, bucket=bucket, order=order)
        assert [labels.tolist() for _, labels, _ in again.epoch(2, start=3)] == epochs[2][3:]
        assert again.indices(13).tolist() == epochs[2][1]

    def test_the_larger_the_bucket_the_less_lengths_differ(self):
        lengths = np.random.default_rng(0).integers(1, 100, 1000)

        def spread(bucket):
            made = Batches(np.ones((1000, 99, 1)), np.zeros(1000, int), 10, lengths=lengths, bucket=bucket)
            return np.mean([np.ptp(own) for _, _, own in made.epoch(0)])

        assert spread(None) > spread(5) > spread(100)
        assert spread(100) < 3

    def test_what_does_not_fit_is_refused(self):
        for arguments, words in (
            ({"lengths": [1, 2]}, "lengths must have shape"),
            ({"lengths": self.LENGTHS, "bucket": 0}, "bucket 0"),
            ({"lengths": self.LENGTHS, "bucket": True}, "bucket True"),
            ({"bucket": 3}, "bucket 3 needs lengths or a mask"),
            ({"lengths": self.LENGTHS, "bucket": 3, "order": "tf1"}, "bucket 3 needs order shuffle or sequential"),
        ):
            with pytest.raises(DatasetError, match=words):
                batches(**arguments)
