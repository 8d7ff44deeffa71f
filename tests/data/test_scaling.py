"""SequenceScaler: per feature, over the steps that sequences have, and nothing else."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.data import SequenceScaler, scaling

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(5)
X = RNG.standard_normal((7, 5, 3)) * [1.0, 100.0, 1e-3] + [0.0, -50.0, 7.0]
LENGTHS = np.array([5, 1, 3, 2, 5, 4, 1])
PARTS = [sequence[:length] for sequence, length in zip(X, LENGTHS, strict=True)]
STEPS = np.concatenate(PARTS)


@pytest.mark.parametrize("kind", scaling.KINDS)
@pytest.mark.parametrize("few_at_once", [False, True])
def test_offset_and_scale_are_scikit_learns(kind, few_at_once, monkeypatch):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    if few_at_once:
        monkeypatch.setattr(scaling, "VALUES_AT_ONCE", 20)
    theirs = {
        "standard": preprocessing.StandardScaler,
        "minmax": preprocessing.MinMaxScaler,
        "robust": preprocessing.RobustScaler,
    }[kind]().fit(STEPS)
    padded = X.copy()
    padded[np.arange(5) >= LENGTHS[:, None]] = np.nan  # steps that no sequence has are not read
    for scaler in (SequenceScaler(kind).fit(PARTS), SequenceScaler(kind).fit(padded, LENGTHS)):
        np.testing.assert_allclose(np.concatenate(scaler.transform(PARTS)), theirs.transform(STEPS), rtol=1e-12)


@pytest.mark.parametrize("kind", scaling.KINDS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_inverse_transform_undoes_transform(kind, data):
    D = data.draw(st.integers(1, 3))
    numbers = st.floats(-1e6, 1e6, allow_nan=False)
    sequence = st.lists(st.lists(numbers, min_size=D, max_size=D), min_size=1, max_size=4)
    parts = [np.array(part) for part in data.draw(st.lists(sequence, min_size=1, max_size=4))]
    scaler = SequenceScaler.from_state(json.loads(json.dumps(SequenceScaler(kind).fit(parts).state())))
    assert scaler == SequenceScaler(kind).fit(parts)
    for before, after in zip(parts, scaler.inverse_transform(scaler.transform(parts)), strict=True):
        size = np.abs(before).max() + np.abs(scaler.offset)
        assert (np.abs(before - after) <= 1e-14 * size + 1e-300).all()


def test_a_feature_without_spread_keeps_its_scale():
    x = np.full((3, 7, 2), 0.1)  # whose mean is not 0.1, by rounding
    x[..., 1] = np.arange(21).reshape(3, 7)
    for kind in scaling.KINDS:
        scaler = SequenceScaler(kind).fit(x)
        assert (scaler.offset[0], scaler.scale[0]) == (0.1, 1.0)
        assert (scaler.transform(x)[..., 0] == 0).all()
        assert scaler.scale[1] > 1


def test_dtypes_and_forms():
    scaler = SequenceScaler().fit(X)
    assert scaler.transform(X.astype(np.float32)).dtype == np.float32
    assert scaler.transform(np.ones((2, 5, 3), np.int8)).dtype == np.float64
    assert (scaler.transform(X[0]) == scaler.transform(X)[0]).all()
    assert scaler.transform(X.tolist()).shape == X.shape
    assert [part.shape for part in scaler.fit_transform(PARTS)] == [part.shape for part in PARTS]


def test_only_the_chosen_samples_count():
    others = X.copy()
    others[[0, 6]] = np.nan
    assert SequenceScaler().fit(others, samples=range(1, 6)) == SequenceScaler().fit(X, samples=range(1, 6))
    assert SequenceScaler().fit(X, samples=range(1, 6)) == SequenceScaler().fit(X[1:6])
    assert SequenceScaler().fit(PARTS, samples=[2, 3]) == SequenceScaler().fit(PARTS[2:4])


def test_a_memory_mapped_array_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "VALUES_AT_ONCE", 20)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert SequenceScaler("robust").fit(mapped) == SequenceScaler("robust").fit(X)
    assert (SequenceScaler().fit(X).transform(mapped) == SequenceScaler().fit(X).transform(X)).all()


REFUSED = {
    "kind must be one of standard, minmax, robust, found 'max'": lambda: SequenceScaler("max"),
    "x is float64 (5, 3), expected real numbers (N, T, D) or a list of (T, D)": lambda: SequenceScaler().fit(X[0]),
    "sequence 1 is float64 (5, 2), expected real numbers (T, D)": lambda: SequenceScaler().fit([X[0], X[1, :, :2]]),
    "x has values that are not finite": lambda: SequenceScaler().fit(np.full((2, 2, 2), np.nan)),
    "x has values too large to be scaled": lambda: SequenceScaler().fit(np.array([[[1e308], [-1e308]]])),
    "found no step of any sequence": lambda: SequenceScaler().fit(np.zeros((0, 3, 2))),
    "this scaler has not been fitted": lambda: SequenceScaler().transform(X),
    "found 2 features, this scaler was fitted on 3": lambda: SequenceScaler().fit(X).transform(X[..., :2]),
    "a list of sequences has its lengths": lambda: SequenceScaler().fit(PARTS, LENGTHS),
    "found no state of a scaler (KeyError": lambda: SequenceScaler.from_state({"kind": "standard"}),
    "offset and scale must be finite": lambda: SequenceScaler.from_state(
        {"kind": "minmax", "offset": [1], "scale": [0]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message):
    with pytest.raises(ValueError) as caught:
        REFUSED[message]()
    assert str(caught.value).startswith(message) or message in str(caught.value)
    assert "\n" not in str(caught.value)
