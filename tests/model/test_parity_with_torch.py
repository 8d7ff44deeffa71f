"""Losses, gradients and ten steps of models against PyTorch in float64, by `tests.model.heads_with_peers`."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np import losses
from tests.model.cases import PAIRS
from tests.model.heads_with_peers import KINDS, LIMIT, Torch, errors_of
from tests.peers import needs_torch

pytestmark = needs_torch


@pytest.mark.parametrize(("kind", "read_out"), [pair for pair in PAIRS if pair[0] in KINDS])
def test_loss_gradients_and_ten_steps_agree(kind, read_out):
    assert max(errors_of(Torch, kind, read_out=read_out)) <= LIMIT


@pytest.mark.parametrize("read_out", ["final_state", "max"])
def test_they_agree_for_two_layers_in_both_directions(read_out):
    assert max(errors_of(Torch, "squared", read_out=read_out, bidirectional=True, num_layers=2)) <= LIMIT


def test_another_loss_is_found(monkeypatch):
    right = losses.ERRORS["huber"]
    monkeypatch.setitem(losses.ERRORS, "huber", lambda *given, **more: right(*given, **{**more, "delta": 0.7 + 1e-9}))
    assert max(errors_of(Torch, "huber", read_out="mean")) > LIMIT


def test_accumulated_batches_are_one_batch():
    """Of unequal sizes and weights, in `fit`, and in the metrics; the last step of an epoch has what is left."""
    rng = np.random.default_rng(0)
    x, y, s = rng.standard_normal((23, 4, 3)), rng.standard_normal(23), rng.random(23)
    settings = {"epochs": 3, "shuffle": False, "clip_norm": 0.5, "sample_weight": s}
    whole, parts = (lstm_np.SequenceRegressor(3, 5, dtype="float64", kernel="reference") for _ in range(2))
    expected = whole.fit(x, y, batch_size=12, **settings)
    found = parts.fit(x, y, batch_size=4, accumulate=3, **settings)
    np.testing.assert_allclose(parts.params.flat, whole.params.flat, rtol=1e-11, atol=1e-14)
    assert parts.position == whole.position == lstm_np.Position(3, 0, 6)
    for one, other in zip(found, expected, strict=True):
        assert one.train.r2 == pytest.approx(other.train.r2, rel=1e-10)
        assert (one.train.count, one.steps) == (23, other.steps)
    with pytest.raises(ValueError, match="accumulate must be at least 1, found 0"):
        parts.fit(x, y, accumulate=0)
    stateful = lstm_np.SequenceRegressor(3, 5, stateful=True)
    with pytest.raises(ValueError, match="each batch of a stateful model goes on from"):
        stateful.fit(x[:20], y[:20], batch_size=4, shuffle=False, accumulate=2)


def test_accumulated_batches_have_dropout_masks_of_their_own():
    x, y = np.ones((2, 6, 3)), np.zeros((2, 1))
    model = lstm_np.SequenceRegressor(3, 8, dropout=0.5, dropout_outputs="all", dtype="float64")
    steps = model.training_steps(lstm_np.SGD(model.params, lr=0.0), accumulate=2)
    both, _, samples = steps.step([(x, y), (x, y)], 1)
    alone = model.training_steps(lstm_np.SGD(model.params, lr=0.0)).step((x, y), 1)[0]
    assert samples == 4
    assert abs(both - alone) > 1e-6


def test_where_a_batch_among_several_diverges_its_samples_are_named():
    x, y = np.ones((12, 4, 3)), np.zeros(12)
    model = lstm_np.SequenceRegressor(3, 5)
    batches = lstm_np.data.Batches(x, y, 2, shuffle=False)
    batches.sequences[7] = np.inf
    steps = model.training_steps(lstm_np.Adam(model.params), batches, accumulate=3)
    before = model.params.flat.copy()
    model.position = lstm_np.Position(0, 1, 1)
    group = next(iter(steps.batches(model.position)))
    with pytest.raises(lstm_np.TrainingDivergedError, match=r"x has values that are not finite in float32 \(sample 7,"):
        steps.step(group, 2)
    np.testing.assert_array_equal(model.params.flat, before)
    reused = lstm_np.data.Batches(x, y, 2, reuse=True)
    with pytest.raises(ValueError, match="needs arrays of their own"):
        model.training_steps(lstm_np.Adam(model.params), reused, accumulate=3)
