"""Early stopping and plateaus as settings of a run: what ends it, what it ends with, and the bits of a resumed run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lstm_np import SequenceClassifier, get_backend
from lstm_np.checkpoints import Checkpoints
from lstm_np.data import load
from lstm_np.training import Place, curves, load_recipe, run
from lstm_np.training.recipes import Recipe
from lstm_np.training.run_folder import BEST, WEIGHTS
from tests.training.stopped import begin, go_on, kept, once_loaded, small


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(curves, "draw_curves", lambda *_: b"")
    monkeypatch.setattr(load, "load_digits", once_loaded)


EARLY = small(
    optimizer={"learning_rate": 0.5},
    train={
        "epochs": 30, "patience": 3, "schedule": "plateau", "plateau_patience": 0, "plateau_factor": 0.5,
        "monitor": "validation_accuracy",
    },
)  # fmt: skip


def checkpoint(folder):
    with Checkpoints(Path(folder) / "checkpoints") as checkpoints:
        return checkpoints.newest(print)


def test_a_run_ends_early_with_its_best_weights_and_does_so_wherever_it_was_stopped():
    outcome = begin(EARLY, Path("whole"))
    epochs = len(outcome.epochs)
    accuracies = [record.validation.accuracy for record in outcome.epochs]
    assert epochs == int(np.argmax(accuracies)) + 1 + 3 < 30
    best, last = (SequenceClassifier.load(Path("whole") / name) for name in (BEST, WEIGHTS))
    np.testing.assert_array_equal(best.params.flat, last.params.flat)
    assert last.notes["epoch"] == int(np.argmax(accuracies)) + 1
    digits = once_loaded()
    test = last.evaluate(digits.test_images * np.float32(digits.scale), digits.test_labels)
    assert outcome.test.accuracy == test.accuracy
    assert checkpoint("whole").steps["optimizer"]["lr"] < 0.5
    expected, steps = kept(Path("whole")), outcome.epochs[-1].steps
    for stop in ({"step": 3}, {"step": steps - 1}, {"step": steps}, {"measuring": 2}):
        out = Path(f"stopped {stop}")
        begin(EARLY, out, **stop)
        again, notes = go_on(out)
        assert len(again.epochs) == epochs
        assert any("stopped early: validation_accuracy has not improved for 3 epochs" in note for note in notes)
        assert kept(out) == expected, stop
    over, _ = go_on(Path("whole"))
    assert len(over.epochs) == epochs  # it was over already
    assert kept(Path("whole")) == expected


def test_the_test_images_are_never_monitored():
    place = Place(get_backend("numpy", threads=1), out="run")
    held = small(data={"validation": 0}, train={"patience": 3, "monitor": "validation_loss"})
    with pytest.raises(
        ValueError, match="EarlyStopping monitors validation_loss, but no epoch is measured on validation"
    ):
        run(held, place)
    assert not Path("run").exists()
    outcome = begin(small(data={"validation": 0}, train={"patience": 1, "epochs": 2}), Path("run"))
    state = checkpoint("run").run["callbacks"][0]
    assert state["best"] == min(record.train.loss for record in outcome.epochs)


def test_a_warm_up_and_a_plateau_are_refused():
    both = small(train={"schedule": "plateau", "warmup_steps": 5})
    with pytest.raises(ValueError, match=r"schedule plateau and warmup_steps 5: .* take one of them"):
        run(both, Place(get_backend("numpy", threads=1), out="run"))


def test_more_epochs_change_nothing_of_a_plateau_that_was_stopped():
    recipe = small(train={"schedule": "plateau", "plateau_patience": 0})
    begin(recipe, Path("short"))
    longer = small(train={"schedule": "plateau", "plateau_patience": 0, "epochs": 5})
    begin(longer, Path("whole"))
    go_on(Path("short"), changes={"train": {"epochs": 5}})
    assert kept(Path("short"))["metrics.csv"] == kept(Path("whole"))["metrics.csv"]


def test_a_recipe_that_was_kept_before_there_were_these_settings_is_read():
    state = json.loads(json.dumps(load_recipe().state()))
    for name in ("patience", "min_delta", "restore_best", "monitor", "plateau_factor"):
        del state["train"][name]
    assert Recipe.from_state(state) == load_recipe()
