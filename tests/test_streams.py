"""Random streams: pinned values, independence of what was drawn before, and what a key may be."""

from __future__ import annotations

import numpy as np
import pytest

from lstm_np import streams

pytestmark = pytest.mark.quick

PINNED_RAW = [12866132677665184710, 10921664237816233935, 10698319962956910343]
PINNED_ORDER = [7, 8, 9, 6, 2, 1, 0, 5, 4, 3]


def test_pinned_words():
    assert streams.raw(3, 0, "shuffle", 0).tolist() == PINNED_RAW
    assert streams.permutation(10, 0, "shuffle", 0).tolist() == PINNED_ORDER


def test_a_permutation_holds_every_number_once():
    assert sorted(streams.permutation(1000, 1, "a").tolist()) == list(range(1000))


def test_every_part_of_the_key_counts():
    keys = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), ("0", "a"), (0, "", "a"), ("0a",), (-1, "a")]
    drawn = {tuple(streams.raw(2, *key).tolist()) for key in keys}
    assert len(drawn) == len(keys)


def test_a_mask_keeps_the_share_it_should():
    mask = streams.keep_mask((100, 7, 31), 0.7, 3, "dropout")
    assert mask.shape == (100, 7, 31)
    assert abs(mask.mean() - 0.7) < 4 * (0.21 / mask.size) ** 0.5
    assert streams.keep_mask((5, 3), 1.0, 0).all()
    assert not streams.keep_mask((500,), 1e-9, 0).any()
    assert not streams.keep_mask((500,), 1e-12, 0).any()  # less than one of the words that are drawn
    assert streams.keep_mask((2, 3), 1e-12, 0).shape == (2, 3)


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1, float("nan")])
def test_a_probability_outside_its_range_is_refused(keep):
    with pytest.raises(ValueError, match=r"must be in \(0, 1\], found"):
        streams.keep_mask((3,), keep, 0)


@pytest.mark.parametrize("part", [1.5, True, None, b"a"])
def test_other_key_parts_are_refused(part):
    with pytest.raises(TypeError, match="made of integers and strings"):
        streams.raw(1, part)


def test_numpy_integers_are_integers():
    assert (streams.raw(2, np.int64(5)) == streams.raw(2, 5)).all()
