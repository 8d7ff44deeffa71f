"""A run that is left at any position and entered again from what was kept is the unbroken run, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.data import Batches
from lstm_np.loop import Position, train
from lstm_np.model import SequenceClassifier
from lstm_np.training.augmentation import Augmented
from lstm_np.training.schedules import rate_of
from tests.plain import through_files

SAMPLES, BATCH, EPOCHS = 45, 2, 2  # 23 batches, the last of one sample: looks are taken at every second one
STEPS = EPOCHS * 23

OPTIMIZERS = {
    "sgd": lambda p: lstm_np.SGD(p, lr=0.1),
    "momentum": lambda p: lstm_np.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: lstm_np.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: lstm_np.Adam(p, lr=0.01),
    "adam hat": lambda p: lstm_np.Adam(p, lr=0.01, form="hat"),
    "rmsprop torch": lambda p: lstm_np.RMSProp(p, lr=0.01, momentum=0.5),
    "rmsprop keras": lambda p: lstm_np.RMSProp(p, lr=0.01, form="keras"),
    "rmsprop tf1": lambda p: lstm_np.RMSProp(p, lr=0.01, form="tf1", momentum=0.5),
}


def images():
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (SAMPLES, 6, 6)).astype(np.uint8), rng.integers(0, 3, SAMPLES)


def begin(optimizer, seed=1):
    """A model with dropout, and steps over moved images with a warm-up, a schedule and clipping."""
    batches = Augmented(Batches(*images(), BATCH, seed=5, scale=1 / 255), 1, 10.0, 0.1, seed=5)
    model = SequenceClassifier(6, 4, 3, num_layers=2, dropout=0.4, seed=seed)
    rate = rate_of("cosine", 5, STEPS)
    return model, model.training_steps(OPTIMIZERS[optimizer](model.params), batches, clip_norm=0.5, rate=rate)


def left_at_every_position(model, steps):
    """The history of the whole run, and at each position what has to be kept: parameters, state, position."""
    kept = []

    def keep(_=None):
        kept.append((model.params.flat.copy(), through_files(steps.state()), model.position))

    keep()
    history = train(steps, epochs=EPOCHS, validate=lambda: model.evaluate(*images()), on_step=keep, on_epoch=keep)
    return history, kept


def vectors(model, steps):
    return {"parameters": model.params.flat, **steps.optimizer.slots}


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_every_position_of_a_run(optimizer):
    whole, steps = begin(optimizer)
    history, kept = left_at_every_position(whole, steps)
    expected = vectors(whole, steps)
    positions = [position for _, _, position in kept]
    assert positions[0] == Position(0, 0, 0)
    assert positions[23:25] == [Position(0, 23, 23), Position(1, 0, 23)]  # before and after the epoch is measured
    assert positions[-1] == Position(2, 0, STEPS)
    assert len(positions) == 1 + STEPS + EPOCHS
    for parameters, state, position in kept:
        model, again = begin(optimizer, seed=1)
        model.params.flat[...] = parameters
        again.restore(state)
        rest = train(again, position, epochs=EPOCHS, validate=lambda model=model: model.evaluate(*images()))
        for name, vector in vectors(model, again).items():
            np.testing.assert_array_equal(vector, expected[name], err_msg=f"{name} from {position}")
        assert rest == history[position.epoch :], f"from {position}"
        assert (again.optimizer.steps, again.optimizer.lr) == (STEPS, steps.optimizer.lr)
        assert model.position == whole.position


def test_the_run_learns_and_draws_at_random():
    """Otherwise its resumption would show nothing: masks, augmentation, order and rate differ from step to step."""
    model, steps = begin("sgd")
    before, seen = model.params.flat.copy(), []
    gradients = steps.gradients

    def spy(batch, number):
        seen.append((batch[0].copy(), steps.optimizer.lr))
        return gradients(batch, number)

    steps.gradients = spy
    train(steps, epochs=EPOCHS)
    assert (model.params.flat != before).all()
    assert len({x.tobytes() for x, _ in seen}) == STEPS
    assert len({rate for _, rate in seen}) > STEPS - 3


def test_a_run_begins_where_it_is_told_without_what_came_before():
    """Order, masks, augmentation and rate of the steps from a position on are functions of the position alone."""
    position, seen = Position(1, 20, 43), {}
    for start in (Position(), position):
        _, steps = begin("sgd")
        told = seen[start] = []
        gradients = steps.gradients

        def spy(batch, number, told=told, steps=steps, gradients=gradients):
            told.append((number, steps.optimizer.lr, batch[0].tobytes(), batch[1].tobytes()))
            return gradients(batch, number)

        steps.gradients = spy
        train(steps, start, epochs=EPOCHS)
    assert len(seen[position]) == 3
    assert seen[position] == seen[Position()][-3:]
