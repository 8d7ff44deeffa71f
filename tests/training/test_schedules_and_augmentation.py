"""Learning rates along a run, and images moved a little: functions of the step, whatever came before."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.data import Batches, DatasetError, load_digits
from lstm_np.model import SequenceClassifier
from lstm_np.optimizers import SGD
from lstm_np.training import load_recipe
from lstm_np.training.augmentation import Augmented
from lstm_np.training.material import prepare
from lstm_np.training.schedules import factor, rate_of


def test_the_shapes_of_the_schedules():
    assert [factor("constant", 0, 10, k) for k in (1, 5, 10, 11)] == [1, 1, 1, 1]
    assert [factor("linear", 0, 4, k) for k in (1, 2, 3, 4)] == [1, 0.75, 0.5, 0.25]
    assert [factor("cosine", 0, 4, k) for k in (1, 3)] == pytest.approx([1, 0.5])
    assert factor("cosine", 0, 4, 2) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert [factor("linear", 2, 6, k) for k in (1, 2, 3, 4, 5, 6)] == [0.5, 1, 1, 0.75, 0.5, 0.25]
    assert factor("linear", 0, 4, 9) == 0


@settings(max_examples=40, deadline=None)
@given(
    schedule=st.sampled_from(["constant", "linear", "cosine"]), warmup=st.integers(0, 30), steps=st.integers(1, 40),
)  # fmt: skip
def test_a_rate_grows_then_falls_and_never_leaves_0_to_1(schedule, warmup, steps):
    rates = [factor(schedule, warmup, steps, number) for number in range(1, steps + 1)]
    assert all(0 < rate <= 1 for rate in rates)
    top = min(warmup, steps)
    assert all(a < b for a, b in pairwise(rates[:top]))
    assert all(a >= b for a, b in pairwise(rates[top:]))


def test_the_rate_is_set_before_each_step():
    model = SequenceClassifier(3, 4, 2)
    optimizer, seen = SGD(model.params, lr=0.4), []
    steps = model.training_steps(optimizer, rate=rate_of("linear", 0, 4))
    batch = np.ones((5, 2, 3)), np.arange(5) % 2
    for number in (1, 2, 3, 4, 2):  # step 2 entered again: the same rate as the first time
        steps.step(batch, number)
        seen.append(round(optimizer.lr, 12))
    assert seen == [0.4, 0.3, 0.2, 0.1, 0.3]


def test_a_constant_rate_leaves_the_learning_rate_to_others():
    assert rate_of("constant", 0, 10) is None
    model = SequenceClassifier(3, 4, 2)
    optimizer = SGD(model.params, lr=0.4)
    steps = model.training_steps(optimizer)
    optimizer.lr = 0.05
    steps.step((np.ones((5, 2, 3)), np.arange(5) % 2), 1)
    assert optimizer.lr == 0.05


def batches(order="sequential"):
    digits = load_digits()
    return Batches(digits.train_images, digits.train_labels, 32, scale=digits.scale, order=order)


def test_nothing_asked_changes_nothing():
    plain = [(x.copy(), labels.copy()) for x, labels in batches().epoch(0)]
    for (x, labels), (expected, expected_labels) in zip(
        Augmented(batches(), 0, 0.0, 0.0, 1).epoch(0), plain, strict=True
    ):
        np.testing.assert_allclose(x, expected, atol=1e-6)
        np.testing.assert_array_equal(labels, expected_labels)
        assert x.dtype == np.float32
        assert x.transpose(2, 1, 0).flags.c_contiguous


def test_a_shift_moves_by_whole_pixels_in_all_directions():
    plain = np.concatenate([x.copy() for x, _ in batches().epoch(0)])
    moved = np.concatenate([x for x, _ in Augmented(batches(), 1, 0.0, 0.0, 1).epoch(0)])
    framed = np.zeros((len(plain), 10, 10))
    framed[:, 1:-1, 1:-1] = plain
    counts = {}
    for k in range(len(plain)):
        fits = [
            (i, j)
            for i in range(3)
            for j in range(3)
            if np.allclose(framed[k, i : i + 8, j : j + 8], moved[k], atol=1e-5)
        ]
        assert fits, f"image {k} is no shift of the original"
        counts[fits[0]] = counts.get(fits[0], 0) + 1
    assert set(counts) == {(i, j) for i in range(3) for j in range(3)}
    assert min(counts.values()) > len(plain) / 9 * 0.7


def test_turning_and_zooming_keep_the_middle_and_the_ink():
    image = np.zeros((1, 9, 9), np.uint8)
    image[0, 3:6, 3:6] = 255
    images = np.repeat(image, 200, axis=0)
    source = Batches(images, np.zeros(200, np.int64), 200, scale=1 / 255, order="sequential")
    (turned, _), (zoomed, _) = (next(Augmented(source, 0, *how, 0).epoch(0)) for how in ((45.0, 0.0), (0.0, 0.3)))
    np.testing.assert_allclose(turned[:, 4, 4], 1, atol=1e-5)
    np.testing.assert_allclose(turned.sum(axis=(1, 2)), 9, rtol=0.12)
    ink = zoomed.sum(axis=(1, 2))
    assert 9 * 0.7**2 * 0.8 < ink.min() < 6.5
    assert 12 < ink.max() < 9 * 1.3**2 * 1.1
    np.testing.assert_allclose(zoomed, zoomed[:, ::-1, ::-1], atol=1e-5)  # about the middle
    np.testing.assert_allclose(zoomed, zoomed.transpose(0, 2, 1), atol=1e-5)


def test_any_batch_can_be_re_entered():
    source = Augmented(batches("shuffle"), 2, 20.0, 0.2, 7)
    whole = [x.copy() for x, _ in source.epoch(3)]
    late = [x.copy() for x, _ in Augmented(batches("shuffle"), 2, 20.0, 0.2, 7).epoch(3, 38)]
    for x, expected in zip(late, whole[38:], strict=True):
        np.testing.assert_array_equal(x, expected)
    at_another_step = next(Augmented(batches("shuffle"), 2, 20.0, 0.2, 7).epoch(3, step=5))[0]
    assert not np.array_equal(at_another_step, whole[0])
    other = next(Augmented(batches("shuffle"), 2, 20.0, 0.2, 8).epoch(3))[0]
    assert not np.array_equal(other, whole[0])


def test_pixels_cannot_be_moved():
    recipe = load_recipe().changed({"data": {"view": "pixels", "shift": 1}})
    with pytest.raises(DatasetError, match="images read as pixels cannot be moved; set shift, rotate and zoom to 0"):
        prepare(load_digits(), recipe)
