"""Preparation: fitted on the training part alone; an array on disk gives the batches that one in memory gives."""

from dataclasses import replace

import numpy as np
import pytest

from lstm_np.data import DatasetError, read_sequences
from lstm_np.data.sequences import arrays
from lstm_np.data.sequences.preparation import MappedBatches, Preparation

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(4)
X = RNG.standard_normal((20, 5, 2)) * 100
TRAIN = np.arange(0, 20, 2)


def fitted(data, **settings):
    return Preparation.fit(
        data, TRAIN, **{"missing": "refuse", "scale": "standard", "scale_targets": "standard"} | settings
    )


def test_what_is_fitted_is_the_training_part():
    y = RNG.standard_normal((20, 2))
    data = read_sequences(X, targets=y)
    found = fitted(data)
    np.testing.assert_allclose(found.scaler.offset, X[TRAIN].mean(axis=(0, 1)))
    np.testing.assert_allclose(found.target_scaler.offset, y[TRAIN].mean(axis=0))
    applied = found.apply(data)
    np.testing.assert_allclose(applied.targets[TRAIN].std(axis=0), 1)
    np.testing.assert_allclose(found.numbers(applied.targets), y)
    again = Preparation.from_state(found.state())
    assert (again.apply(data).x == applied.x).all()
    assert fitted(read_sequences(X, targets=RNG.integers(0, 2, 20))).target_scaler is None
    with pytest.raises(DatasetError, match="found no state of a preparation"):
        Preparation.from_state({})


@pytest.mark.parametrize("missing", ["refuse", "mean", "linear"])
@pytest.mark.parametrize("lengths", [None, RNG.integers(1, 6, 20)])
def test_batches_of_an_array_on_disk(tmp_path, monkeypatch, missing, lengths):
    x, y = X.copy(), RNG.standard_normal((20, 1))
    if missing != "refuse":
        x[RNG.random(x.shape) < 0.2] = np.nan
        x[:, 0] = 1.0
    if lengths is not None:
        x[np.arange(5) >= lengths[:, None]] = 7.0  # steps that no sequence has
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    monkeypatch.setattr(arrays, "available_memory", lambda: 0)
    mapped = read_sequences(tmp_path / "x.npy")
    if lengths is not None:
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
        mapped = arrays.from_arrays(x, arrays.Reading(), targets={"y": y}, source="x", lengths=lengths)
    held = replace(mapped, x=np.array(mapped.x))
    assert isinstance(mapped.x, np.memmap)
    one, other = fitted(mapped, missing=missing), fitted(held, missing=missing)
    np.testing.assert_allclose(one.scaler.offset, other.scaler.offset, rtol=1e-12)
    settings = {"dtype": "float64", "order": "shuffle", "seed": 3}
    lazy, whole = (data.batches(of, TRAIN, 4, **settings) for data, of in ((one, mapped), (one, held)))
    assert isinstance(lazy, MappedBatches)
    assert (len(lazy), lazy.samples, lazy.sizes) == (len(whole), whole.samples, whole.sizes)
    for epoch, start in ((0, 0), (1, 2)):
        for (x1, y1, *n1), (x2, y2, *n2) in zip(lazy.epoch(epoch, start), whole.epoch(epoch, start), strict=True):
            real = np.arange(5) < (n1[0][:, None] if n1 else 5)
            assert (x1 == x2)[np.broadcast_to(real, x1.shape[:2])].all()
            assert (y1 == y2).all()
            assert all((a == b).all() for a, b in zip(n1, n2, strict=True))


def test_missing_values_on_disk_are_refused_with_their_place(tmp_path, monkeypatch):
    x = X.copy()
    x[13, 2, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr(arrays, "available_memory", lambda: 0)
    monkeypatch.setattr("lstm_np.data.sequences.missing.VALUES_AT_ONCE", 40)
    with pytest.raises(DatasetError, match="sequence 13, step 2, feature 'x1': the value is missing"):
        fitted(read_sequences(tmp_path / "x.npy"))
