"""A text cut into streams and windows: every character once, in its order, one-hot, the next one as its label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.text import TextBatches, TextError

pytestmark = pytest.mark.quick


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 40), st.integers(2, 7))
@settings(max_examples=60, deadline=None)
def test_each_stream_is_read_from_its_beginning_to_its_end(B, T, more, V):
    codes = np.random.default_rng(0).integers(0, V, B * T + 1 + more)
    batches = TextBatches(codes, V, B, T)
    L = (len(codes) - 1) // B
    for _ in range(2):  # the second time memory is used again
        read, wanted = [], []
        for x, labels in batches.epoch(0):
            assert x.transpose(2, 1, 0).flags.c_contiguous
            assert x.dtype == np.float32
            assert labels.dtype == np.int64
            np.testing.assert_array_equal(x.sum(axis=2), 1)
            np.testing.assert_array_equal(x.max(axis=2), 1)
            read.append(x.argmax(axis=2))
            wanted.append(labels.copy())
        assert len(read) == len(batches)
        assert {part.shape[1] for part in read} == set(batches.sizes)
        for k in range(B):
            stream = codes[k * L : (k + 1) * L + 1]
            np.testing.assert_array_equal(np.concatenate(read, axis=1)[k], stream[:-1])
            np.testing.assert_array_equal(np.concatenate(wanted, axis=1)[k], stream[1:])


def test_an_epoch_can_be_entered_anywhere():
    batches = TextBatches(np.arange(50) % 4, 4, 3, 5, dtype="float64")
    whole = [(x.copy(), labels) for x, labels in batches.epoch(0)]
    for start in range(len(batches) + 1):
        rest = [(x.copy(), labels) for x, labels in batches.epoch(3, start, step=9)]
        assert len(rest) == len(whole) - start
        for (x, labels), (same, likewise) in zip(rest, whole[start:], strict=True):
            np.testing.assert_array_equal(x, same)
            np.testing.assert_array_equal(labels, likewise)


def test_a_text_that_is_too_short():
    with pytest.raises(TextError, match=r"^a text of 6 characters is too short for batches of 2 x 3 .* need 7$"):
        TextBatches(np.zeros(6, int), 2, 2, 3)
    assert len(TextBatches(np.zeros(7, int), 2, 2, 3)) == 1
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        TextBatches(np.zeros(7, int), 2, 0, 3)
