"""Splits: exact, deterministic, stratified; groups whole; in time no overlap; and what they are a function of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.data import DatasetError, SequenceImputer, SequenceScaler, read_sequences
from lstm_np.data.sequences import splits

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(2)
SHARES = st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.5, 0.0), (0.8, 0.0, 0.2), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)])


@settings(max_examples=60, deadline=None)
@given(shares=SHARES, seed=st.integers(0, 5), counts=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_at_random_each_class_is_split_by_itself(shares, seed, counts):
    classes = np.repeat(np.arange(len(counts)), counts)
    found = splits.at_random(classes, shares, seed)
    assert (found == splits.at_random(classes, shares, seed)).all()
    for k, count in enumerate(counts):
        parts = np.bincount(found[classes == k], minlength=3)
        assert parts[0] >= 1
        assert (np.abs(parts - np.array(shares) * count) <= 2.01).all()
    total = np.bincount(found, minlength=3)
    assert (np.abs(total - np.array(shares) * len(classes)) <= len(counts) + 1).all()
    assert ((total == 0) | (np.array(shares) > 0)).all()


@settings(max_examples=60, deadline=None)
@given(shares=SHARES, seed=st.integers(0, 5), sizes=st.lists(st.integers(1, 9), min_size=3, max_size=12))
def test_a_group_is_never_torn(shares, seed, sizes):
    groups = np.repeat([f"g{k}" for k in range(len(sizes))], sizes).tolist()
    found = splits.by_group(groups, shares, seed)
    for name in set(groups):
        assert len({found[k] for k in range(len(groups)) if groups[k] == name}) == 1
    for part in range(3):
        assert (found == part).any() == (shares[part] > 0)


@settings(max_examples=60, deadline=None)
@given(shares=SHARES, length=st.integers(1, 9), stride=st.integers(1, 5), series=st.integers(1, 3))
def test_in_time_no_two_parts_overlap(shares, length, stride, series):
    starts = np.tile(np.arange(0, 120, stride, dtype=float), series)
    spans = np.stack((starts, starts + length - 1), axis=1)
    found = splits.by_time(spans, shares)
    last = -np.inf
    for part in range(3):
        inside = spans[found == part]
        assert len(inside) > 0 or shares[part] == 0
        if len(inside):
            assert inside[:, 0].min() > last
            last = inside[:, 1].max()
    share = (found == 0).sum() / len(found)
    assert abs(share - shares[0]) <= 0.1 + length / 40


def test_what_is_refused():
    data = read_sequences(RNG.standard_normal((4, 3, 2)), targets=[0, 1, 0, 1])
    for fractions in ((0.5, 0.5), (0.5, 0.4, 0.2), (0.0, 0.5, 0.5), (1.2, -0.2, 0.0), "half"):
        with pytest.raises(DatasetError, match="a split must be three shares, train above 0, validation and test"):
            data.split(fractions)
    with pytest.raises(DatasetError, match="the test part of a split random is empty: 4 sequences are too few"):
        data.split((0.7, 0.15, 0.15))
    with pytest.raises(DatasetError, match="no column of groups to split by"):
        data.split(by="group")
    with pytest.raises(DatasetError, match="no times to split by"):
        data.split(by="time")
    with pytest.raises(DatasetError, match="by must be one of random, group, time, found 'order'"):
        data.split(by="order")
    with pytest.raises(DatasetError, match="found 2 groups, too few for 3 parts"):
        splits.by_group(["a", "b", "a"], (0.4, 0.3, 0.3), 0)


def test_what_is_the_default(tmp_path):
    """By group where there are groups, by time for windows, else at random; overlapping windows never at random."""
    x, groups = RNG.standard_normal((12, 8, 1)), np.repeat(["p", "q", "r"], 4)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(12) % 2, groups=groups)
    data = read_sequences(tmp_path / "a.npz")
    assert data.default_split == "group"
    assert "group 'groups'" in data.recognized
    shares = (0.4, 0.3, 0.3)
    parts = data.split(shares)
    assert [len(set(part.groups)) for part in parts.values()] == [1, 1, 1]
    assert read_sequences(tmp_path / "a.npz", window=4, stride=2).default_split == "group"
    windows = read_sequences(x, targets=np.arange(12) % 2, window=2, stride=1)
    assert windows.default_split == "time"
    parts = windows.split((0.5, 0.0, 0.5))
    assert parts["train"].spans[:, 1].max() < parts["test"].spans[:, 0].min()
    line = "x: windows of 2 steps, one each 1, overlap: split at random, parts would have the same steps; *"
    with pytest.raises(DatasetError, match=line.replace("*", ".*")):
        windows.split((0.5, 0.0, 0.5), by="random")
    assert len(windows.split((1.0, 0.0, 0.0), by="random")["train"]) == len(windows)
    assert read_sequences(x, window=4).split((0.5, 0.0, 0.5), by="random")
    assert read_sequences(x).default_split == "random"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 5), counts=st.lists(st.integers(1, 30), min_size=1, max_size=4), share=st.floats(0.1, 1))
def test_a_limit_draws_each_class_with_its_share(seed, counts, share):
    classes = np.repeat(np.arange(len(counts)), counts)
    n = max(1, round(share * len(classes)))
    found = splits.drawn(classes, n, seed)
    assert len(found) == n
    assert (np.diff(found) > 0).all()
    off = np.bincount(classes[found], minlength=len(counts)) - n * np.array(counts) / len(classes)
    assert (np.abs(off) <= 0.5 + len(counts) / 2 + 1e-9).all()
    assert len(splits.drawn(classes, len(classes) + 5, seed)) == len(classes)


def test_nothing_of_other_parts_is_in_what_is_fitted_on_the_training_part():
    """Change every value of validation and test: split, scaler and filled values keep all their bits."""
    x = RNG.standard_normal((30, 6, 2))
    x[RNG.random(x.shape) < 0.1] = np.nan
    x[:, -1] = 1.0
    targets = RNG.integers(0, 2, 30)
    first = read_sequences(x, targets=targets)
    parts = first.split_indices((0.6, 0.2, 0.2), seed=3)
    changed = x.copy()
    for name in ("validation", "test"):
        changed[parts[name]] = 1e6 * RNG.standard_normal((len(parts[name]), 6, 2))
    second = read_sequences(changed, targets=targets)
    for name, indices in second.split_indices((0.6, 0.2, 0.2), seed=3).items():
        assert (indices == parts[name]).all()
    found = []
    for data in (first, second):
        imputer = SequenceImputer("mean").fit(data, parts["train"])
        filled = imputer.transform(data)
        scaler = SequenceScaler().fit(filled.x, samples=parts["train"])
        found.append((imputer.state(), scaler.state(), scaler.transform(filled.x[parts["train"]]).tobytes()))
    assert found[0] == found[1]
    assert SequenceScaler().fit(imputer.transform(second).x).state() != found[0][1]


@pytest.mark.parametrize("how", ["zero", "mean", "forward", "linear"])
def test_filling_in(how):
    nan = np.nan
    x = [np.array([[nan, 1.0], [2.0, nan], [nan, 3.0], [nan, nan], [8.0, nan]]), np.array([[nan, 5.0]])]
    expected = {
        "zero": [[[0, 1], [2, 0], [0, 3], [0, 0], [8, 0]], [[0, 5]]],
        "mean": [[[5, 1], [2, 3], [5, 3], [5, 3], [8, 3]], [[5, 5]]],
        "forward": [[[5, 1], [2, 1], [2, 3], [2, 3], [8, 3]], [[5, 5]]],
        "linear": [[[2, 1], [2, 2], [4, 3], [6, 3], [8, 3]], [[5, 5]]],
    }[how]
    data = read_sequences(x)
    imputer = SequenceImputer(how).fit(data)
    assert [one.tolist() for one in imputer.transform(data).x] == expected
    again = SequenceImputer.from_state(imputer.state())
    assert [one.tolist() for one in again.transform(data).x] == expected
    padded = np.full((2, 5, 2), nan)
    padded[0], padded[1, :1] = x
    rows = again.filled_rows(padded, np.array([5, 1]))
    assert rows[0].tolist() == expected[0]
    assert rows[1, :1].tolist() == expected[1]
    assert np.isnan(rows[1, 1:]).all()


def test_filling_in_is_refused():
    x = np.full((2, 3, 2), np.nan)
    x[..., 0] = 1
    with pytest.raises(DatasetError, match="no training sequence has a value of 'x1'; leave this feature out"):
        SequenceImputer("forward").fit(read_sequences(x))
    with pytest.raises(DatasetError, match="the ways are refuse, zero, mean, forward, linear; found 'median'"):
        SequenceImputer("median")
    with pytest.raises(DatasetError, match="before fit has seen the training sequences"):
        SequenceImputer("mean").transform(read_sequences(x))
    with pytest.raises(DatasetError, match="found no state of an imputer"):
        SequenceImputer.from_state({"how": "mean"})
