"""The training loop: counting, stopping, records."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lstm_np import Metrics, get_backend
from lstm_np.loop import Running, train


class Counting:
    """A batch source whose batches are their own numbers."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def epoch(self, epoch: int, start: int = 0):
        return iter(range(epoch * self.batches + start, (epoch + 1) * self.batches))


def run(batches=4, **settings):
    seen = []

    def step(batch, number):
        seen.append((batch, number))
        return np.float64(batch), 1, 2

    return seen, train(step, Counting(batches), get_backend("numpy"), **settings)


def test_every_batch_of_every_epoch_once():
    seen, epochs = run(epochs=3)
    assert seen == [(k, k + 1) for k in range(12)]
    assert [(e.number, e.steps, e.complete) for e in epochs] == [(1, 4, True), (2, 8, True), (3, 12, True)]
    assert epochs[1].train == Metrics(loss=5.5, accuracy=0.5, count=8, correct=4)


def test_the_step_limit_cuts_an_epoch_and_says_so():
    seen, epochs = run(epochs=3, max_steps=6)
    assert len(seen) == 6
    assert [(e.steps, e.complete) for e in epochs] == [(4, True), (6, False)]


def test_a_limit_at_an_epochs_end_leaves_no_empty_record():
    _, epochs = run(epochs=3, max_steps=4)
    assert [(e.steps, e.complete) for e in epochs] == [(4, True)]


def test_stop_is_asked_before_each_step():
    answers = iter([False] * 5 + [True])
    seen, epochs = run(epochs=3, stop=lambda: next(answers))
    assert len(seen) == 5
    assert epochs[-1].complete is False


def test_callbacks_see_steps_and_epochs():
    steps, records = [], []
    _, epochs = run(
        epochs=2,
        validate=lambda: Metrics(1.0, 0.25, 4, 1),
        on_step=lambda s: steps.append((s.number, s.epoch, s.running.count)),
        on_epoch=records.append,
    )
    assert steps == [(1, 0, 2), (2, 0, 4), (3, 0, 6), (4, 0, 8), (5, 1, 2), (6, 1, 4), (7, 1, 6), (8, 1, 8)]
    assert records == epochs
    assert epochs[0].validation == Metrics(1.0, 0.25, 4, 1)


def test_an_error_of_a_step_passes_through():
    def step(batch, number):
        raise ArithmeticError("no")

    with pytest.raises(ArithmeticError, match="no"):
        train(step, Counting(1), get_backend("numpy"), epochs=1)


def test_nothing_seen_is_nan():
    metrics = Running(get_backend("numpy")).read()
    assert math.isnan(metrics.loss)
    assert metrics.count == 0
