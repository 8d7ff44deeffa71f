"""The helpers for sequences of unequal length, and the indices that lengths and masks become."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.backends import get_backend
from lstm_np.packing import Packing

pytestmark = pytest.mark.quick
SEQUENCES = [np.arange(2.0 * n).reshape(n, 2) + 10 * k for k, n in enumerate((3, 0, 5, 3))]
LENGTHS = [3, 0, 5, 3]
HOST = get_backend("numpy")


def test_pad_and_unpad_are_each_other_s_way_back():
    x, lengths = lstm_np.pad(SEQUENCES, value=-1.0)
    assert x.shape == (4, 5, 2)
    assert lengths.tolist() == LENGTHS
    assert (x[0, 3:] == -1).all()
    for found, expected in zip(lstm_np.unpad(x, lengths), SEQUENCES, strict=True):
        np.testing.assert_array_equal(found, expected)
    left, _ = lstm_np.pad(SEQUENCES, left=True, steps=6)
    assert left.shape == (4, 6, 2)
    for found, expected in zip(lstm_np.unpad(left, mask=np.arange(6) >= 6 - lengths[:, None]), SEQUENCES, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_pack_is_pytorch_s_form():
    packed = lstm_np.pack(SEQUENCES)
    assert packed.batch_sizes == (3, 3, 3, 1, 1)
    assert packed.order.tolist() == [2, 0, 3, 1]
    np.testing.assert_array_equal(packed.data[:4], [SEQUENCES[2][0], SEQUENCES[0][0], SEQUENCES[3][0], SEQUENCES[2][1]])
    x, lengths = lstm_np.pad(packed)
    np.testing.assert_array_equal(x, lstm_np.pad(SEQUENCES)[0])
    assert lengths.tolist() == LENGTHS
    by_mask = lstm_np.pack(x, mask=np.arange(5) < lengths[:, None])
    np.testing.assert_array_equal(by_mask.data, packed.data)


def test_pack_as_pytorch():
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "lstm_np[peers]"')
    sequences = [one for one in SEQUENCES if len(one)]
    theirs = torch.nn.utils.rnn.pack_sequence([torch.from_numpy(one) for one in sequences], enforce_sorted=False)
    ours = lstm_np.pack(sequences)
    np.testing.assert_array_equal(ours.data, theirs.data.numpy())
    assert list(ours.batch_sizes) == theirs.batch_sizes.tolist()
    assert ours.order.tolist() == theirs.sorted_indices.tolist()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: lstm_np.pad([]), "a list of arrays"),
        (lambda: lstm_np.pad(np.ones((2, 3))), "a list of arrays"),
        (lambda: lstm_np.pad([np.ones(3)]), "sequence 0 is"),
        (lambda: lstm_np.pad([np.ones((2, 3)), np.ones((2, 4))]), "sequence 1 is"),
        (lambda: lstm_np.pad([np.ones((5, 3))], steps=4), "sequence 0 has 5 steps, more than steps=4"),
        (lambda: lstm_np.unpad(np.ones((2, 3, 4))), "lengths .* or a mask"),
        (lambda: lstm_np.unpad(np.ones((2, 3, 4)), [1, 4]), "0 ... 3"),
        (lambda: lstm_np.unpad(np.ones(3), [1]), "must have shape"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def packings():
    mask = np.random.default_rng(0).random((5, 6)) < 0.5
    mask[1], mask[2] = False, True
    for real in (np.array([2, 6, 0, 6, 3]), np.array([6, 4, 3, 3, 0]), mask):
        packing = Packing.of(real, 5, 6, HOST)
        assert packing is not None
        yield packing
        yield packing.reversed


@pytest.mark.parametrize("packing", list(packings()))
def test_packing_moves_each_step_and_nothing_else(packing):
    x = np.random.default_rng(1).random((2, 6, 5))
    packed = packing.pack(x)
    for column, sample in enumerate(packing.order):
        own = x[:, packing.real[:, sample], sample]
        own = own[:, ::-1] if packing.reverse else own
        n = packing.lengths[sample]
        np.testing.assert_array_equal(packed[:, :n, column], own)
        assert sum(size > column for size in packing.batch_sizes) == n
        assert [packing.step_of(t, column)[1] for t in range(n)] == [sample] * n
    np.testing.assert_array_equal(packing.unpack(packed), x)
    h = x[:, 0]
    np.testing.assert_array_equal(packing.samples(packing.columns(h)), h)
    assert packing.reversed.reversed.steps.tolist() == packing.steps.tolist()


@pytest.mark.parametrize("packing", list(packings()))
def test_last_steps_mirrored_and_cleaned(packing):
    x = np.random.default_rng(1).random((2, 6, 5))
    real = packing.real
    expected = np.array([x[:, real[:, b], b][:, -1] if real[:, b].any() else np.zeros(2) for b in range(5)]).T
    np.testing.assert_array_equal(packing.at_last(x), expected)
    spread = packing.from_last(expected)
    np.testing.assert_array_equal(spread.sum(axis=1), expected)
    np.testing.assert_array_equal(packing.at_last(spread), expected)
    mirrored = packing.mirrored(x)
    for b in range(5):
        np.testing.assert_array_equal(mirrored[:, real[:, b], b], x[:, real[:, b], b][:, ::-1])
    cleaned = packing.cleaned(np.where(real, x, np.nan))
    np.testing.assert_array_equal(cleaned, np.where(real, x, 0))


def test_all_steps_are_no_packing():
    assert Packing.of(None, 3, 4, HOST) is None
    assert Packing.of(np.full(3, 4), 3, 4, HOST) is None
    assert Packing.of(np.ones((3, 4), bool), 3, 4, HOST) is None
