"""Early stopping and plateaus: PyTorch's arithmetic, in `fit`, and with the same bits when a training is resumed."""

from __future__ import annotations

import math
import shutil
from itertools import pairwise

import numpy as np
import pytest

import lstm_np
from lstm_np import EarlyStopping, Epoch, Metrics, ReduceLROnPlateau, SequenceClassifier

pytestmark = pytest.mark.quick


def model_and_optimizer(lr=0.1):
    model = SequenceClassifier(3, 4, 2, dtype="float64")
    return model, lstm_np.Adam(model.params, lr=lr)


def epoch(number, loss, accuracy=0.5, validation=None):
    held = None if validation is None else Metrics(*validation, 10, 5)
    return Epoch(number, number, Metrics(loss, accuracy, 10, 5), held, seconds=0.1)


LOSSES = [
    1.0,
    0.8,
    0.79999,
    0.9,
    0.85,
    0.7,
    0.75,
    0.71,
    0.7,
    0.699,
    0.9,
    0.9,
    0.9,
    0.9,
    0.5,
    0.6,
    0.6,
    0.6,
    0.6,
    math.nan,
]
PLATEAUS = {
    "defaults, patience 1": {"patience": 1},
    "at once": {"patience": 0, "factor": 0.5},
    "absolute": {"patience": 1, "threshold": 0.05, "threshold_mode": "abs"},
    "a large share": {"patience": 1, "threshold": 0.1},
    "cooldown": {"patience": 0, "cooldown": 2, "factor": 0.3},
    "a lowest rate": {"patience": 0, "factor": 0.1, "min_lr": 0.003},
    "no fall below eps": {"patience": 0, "factor": 0.5, "eps": 0.01},
}
# PyTorch 2.13.0, ReduceLROnPlateau: the epochs of `LOSSES` at which the rate falls, and where it ends
FALLS = {
    "defaults, patience 1": ([4, 8, 12, 14, 17, 19], 1.0000000000000005e-07),
    "at once": ([3, 4, 5, 7, 8, 9, 11, 12, 13, 14, 16, 17, 18, 19, 20], 3.0517578125e-06),
    "absolute": ([4, 8, 10, 12, 14, 17, 19], 1.0000000000000005e-08),
    "a large share": ([4, 8, 10, 12, 14, 17, 19], 1.0000000000000005e-08),
    "cooldown": ([3, 7, 11, 14, 17, 20], 7.289999999999998e-05),
    "a lowest rate": ([3, 4], 0.003),
    "no fall below eps": ([3, 4, 5], 0.0125),
}


def rates(settings, monitor):
    """The learning rate after each epoch, by a loss or by an accuracy that is 1 minus that loss."""
    _, optimizer = model_and_optimizer()
    plateau = ReduceLROnPlateau(optimizer, **settings, monitor=monitor)
    found = []
    for number, value in enumerate(LOSSES, 1):
        plateau(epoch(number, value, 1 - value))
        found.append(optimizer.lr)
    return found


@pytest.mark.parametrize("name", list(PLATEAUS))
def test_the_rate_falls_where_pytorchs_fell(name):
    found = rates(PLATEAUS[name], "train_loss")
    falls = [number for number, (before, rate) in enumerate(pairwise([0.1, *found]), 1) if rate < before]
    assert (falls, found[-1]) == FALLS[name]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("name", list(PLATEAUS))
def test_the_rate_falls_where_pytorchs_falls(name, mode):
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "lstm_np[peers]"')
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, mode, **{"factor": 0.1, **PLATEAUS[name]})
    theirs.step()
    expected = []
    for value in LOSSES:
        scheduler.step(value if mode == "min" else 1 - value)
        expected.append(theirs.param_groups[0]["lr"])
    assert rates(PLATEAUS[name], "train_loss" if mode == "min" else "train_accuracy") == expected


def test_early_stopping_counts_epochs_in_a_row_and_takes_back_the_best():
    model, optimizer = model_and_optimizer()
    stopping = EarlyStopping(model.params, patience=2, min_delta=0.1)
    stopping.check(optimizer, validated=False)
    said = []
    for number, loss in enumerate([1.0, 0.95, 0.85, 0.8, math.nan], 1):  # 0.85 is better by more than 0.1
        model.params.flat[...] = number
        said.append(stopping(epoch(number, loss)))
    assert said == [False, False, False, False, True]
    assert (stopping.best, stopping.best_epoch) == (0.85, 3)
    assert stopping.news == "stopped early: train_loss has not improved for 2 epochs"
    stopping.finish()
    assert (model.params.flat == 3).all()
    assert stopping.news == "the parameters are those of epoch 3, train_loss 0.85"


def test_what_is_monitored():
    model, optimizer = model_and_optimizer()
    one = epoch(1, 0.5, 0.6, (0.7, 0.8))
    names = {"train_loss": 0.5, "train_accuracy": 0.6, "validation_loss": 0.7, "validation_accuracy": 0.8, "auto": 0.7}
    for name, value in names.items():
        stopping = EarlyStopping(model.params, monitor=name)
        stopping.check(optimizer, validated=True)
        assert stopping.value(one) == value
    stopping.check(optimizer, validated=False)
    assert stopping.value(one) == 0.5  # auto, where nothing is held out
    better = EarlyStopping(model.params, 1, monitor="train_accuracy")
    assert [better(epoch(n, 1.0, accuracy)) for n, accuracy in enumerate([0.5, 0.6, 0.6], 1)] == [False, False, True]


def test_a_callback_says_what_it_is():
    model, optimizer = model_and_optimizer()
    assert repr(EarlyStopping(model.params, 3)) == (
        "EarlyStopping(patience=3, min_delta=0.0, monitor='auto', restore_best=True)"
    )
    assert repr(ReduceLROnPlateau(optimizer)).startswith(
        "ReduceLROnPlateau(factor=0.1, patience=10, threshold=0.0001, "
    )


def data(n=48):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 5, 3)), rng.integers(0, 2, n)


def trained(callbacks=(), restore=True, **settings):
    """A training whose validation loss soon gets worse: labels are noise."""
    model = SequenceClassifier(3, 8, 2)
    optimizer = lstm_np.Adam(model.params, lr=0.05)
    kept = [
        ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=2),
        EarlyStopping(model.params, patience=6, restore_best=restore),
    ]
    settings = {"epochs": 40, "batch_size": 16, "validation_split": 0.5, **settings}
    history = model.fit(*data(), optimizer=optimizer, callbacks=[*kept, *callbacks], **settings)
    return model, optimizer, kept, history


def test_fit_ends_early_with_the_best_parameters():
    model, optimizer, (_, stopping), history = trained()
    losses = [one.validation.loss for one in history]
    assert len(history) == int(np.argmin(losses)) + 1 + 6 < 40
    assert optimizer.lr < 0.05
    assert stopping.best_epoch == int(np.argmin(losses)) + 1
    x, labels = data()
    assert model.evaluate(x[24:], labels[24:]).loss == min(losses)
    last, _, _, again = trained(restore=False)
    assert again == history
    assert last.evaluate(x[24:], labels[24:]).loss == losses[-1]


def test_a_function_that_returns_true_ends_training_and_others_do_not():
    model = SequenceClassifier(3, 4, 2)
    seen = []
    history = model.fit(
        *data(), epochs=9, callbacks=[seen.append, lambda one: 1, lambda one: np.True_ if one.number == 3 else None]
    )
    assert len(history) == 3
    assert seen == history
    assert model.position.epoch == 3
    assert len(model.fit(*data(), epochs=2)) == 2


def test_a_training_that_is_resumed_anywhere_has_the_same_bits(tmp_path):
    """From every checkpoint of the whole training: at each step, after each epoch, and when it was over."""
    model, optimizer, (plateau, stopping), history = trained(
        checkpoints=tmp_path / "whole", checkpoint_every="1", keep_checkpoints=1000
    )
    files = sorted((tmp_path / "whole").glob("step-*"))
    assert len(files) > 2 * len(history)
    for file in [*files[::5], files[-1]]:
        folder = tmp_path / file.stem
        folder.mkdir()
        shutil.copy(file, folder)
        again = SequenceClassifier.resume(folder)
        other = lstm_np.Adam(again.params, lr=0.05)
        own = [ReduceLROnPlateau(other, factor=0.5, patience=1, cooldown=2), EarlyStopping(again.params, patience=6)]
        made = again.fit(
            *data(), epochs=40, batch_size=16, validation_split=0.5, optimizer=other, callbacks=own, checkpoints=folder
        )
        assert made == history, file.stem
        np.testing.assert_array_equal(again.params.flat, model.params.flat)
        assert other.lr == optimizer.lr
        assert (own[0].best, own[0].cooling, own[1].best) == (plateau.best, plateau.cooling, stopping.best)


def test_other_callbacks_than_those_of_the_call_that_was_cut_short_are_refused(tmp_path):
    trained(checkpoints=tmp_path, epochs=2)
    again = SequenceClassifier.resume(tmp_path)
    with pytest.raises(ValueError, match="with the same arguments; callbacks: None, before "):
        again.fit(*data(), epochs=4, batch_size=16, validation_split=0.5, optimizer=lstm_np.Adam(again.params, lr=0.05))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m, o: EarlyStopping(m.params, 0), "patience must be at least 1, found 0"),
        (lambda m, o: EarlyStopping(m.params, min_delta=-1), "min_delta must be at least 0, found -1"),
        (lambda m, o: EarlyStopping(m.params, monitor="val_loss"), "unknown monitor 'val_loss'; there are: auto"),
        (lambda m, o: EarlyStopping(m.params, restore_best=1), "restore_best must be true or false, found 1"),
        (lambda m, o: EarlyStopping(m), "EarlyStopping takes model.params, found SequenceClassifier"),
        (lambda m, o: ReduceLROnPlateau(o, 1.0), "factor must be above 0 and below 1, found 1.0"),
        (lambda m, o: ReduceLROnPlateau(o, patience=-1), "patience must be at least 0, found -1"),
        (lambda m, o: ReduceLROnPlateau(o, threshold_mode="relative"), "unknown threshold_mode 'relative'"),
        (lambda m, o: ReduceLROnPlateau(m.params), "ReduceLROnPlateau takes an optimizer, found Parameters"),
    ],
)  # fmt: skip
def test_bad_arguments(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(*model_and_optimizer())


def test_callbacks_that_do_not_fit_are_refused_before_any_work():
    model, optimizer = model_and_optimizer()
    other, others = model_and_optimizer()
    for callbacks, message in (
        (print, "callbacks must be a list of functions of an Epoch, found <built-in function print>"),
        ([3], "callbacks must be a list of functions"),
        ([EarlyStopping(other.params)], "over other parameters than this model's: pass model.params"),
        ([ReduceLROnPlateau(others)], "for another optimizer than the one that trains"),
        (
            [EarlyStopping(model.params, monitor="validation_loss")],
            "EarlyStopping monitors validation_loss, but no epoch",
        ),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            model.fit(*data(), optimizer=optimizer, callbacks=callbacks)
    assert model.position.step == 0
