"""Small runs that are stopped and go on, and what of their folders must be equal."""

from __future__ import annotations

import csv
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lstm_np import get_backend
from lstm_np.checkpoints import Checkpoints, Every, fingerprint
from lstm_np.data.digits import load_digits
from lstm_np.steps import ModelSteps
from lstm_np.training import Place, Recipe, load_recipe, run
from lstm_np.training.interruption import Interruption
from lstm_np.training.reporters import Reporter
from lstm_np.training.resuming import changed, stopped_run
from lstm_np.training.run import Care
from lstm_np.weights import read_weights

once_loaded = functools.cache(load_digits)  # reading them takes longer than such a run
TIMED = ("seconds", "samples_per_second")  # columns that no two runs share


def small(**changes: Any) -> Recipe:
    """A recipe of a few steps on the digits; changes: table -> settings."""
    base: dict[str, dict[str, Any]] = {
        "data": {"dataset": "digits", "limit_train": 60, "validation": 40},
        "model": {"hidden_size": 4},
        "train": {"epochs": 3, "batch_size": 16},
    }
    tables = {name: {**base.get(name, {}), **changes.get(name, {})} for name in {*base, *changes}}
    return load_recipe().changed(tables)


class Stopping(Reporter):
    """Asks the run to stop, as a signal does: after a step, or where an epoch is measured (`measuring`, from 1)."""

    def __init__(self, interruption: Interruption, step: int | None = None, measuring: int | None = None) -> None:
        self.interruption, self.at, self.measured, self.notes = interruption, (step, measuring), 0, list[str]()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, step: Any) -> None:
        if step.number == self.at[0]:
            self.interruption.requested = 15

    def measuring(self) -> None:
        self.measured += 1
        if self.measured == self.at[1]:
            self.interruption.requested = 15


def spoilt_batches(monkeypatch: Any) -> set[tuple[int, int]]:
    """Batches whose gradients are not finite, (epoch, batch); each is a fault of the data: it comes back every time."""
    places: set[tuple[int, int]] = set()
    gradients = ModelSteps.gradients

    def spoilt(self: Any, batch: Any, number: int) -> Any:
        made = gradients(self, batch, number)
        if (self.model.position.epoch, self.model.position.batch) in places:
            made.grads["layer0.U"][0, 0] = np.inf
        return made

    monkeypatch.setattr(ModelSteps, "gradients", spoilt)
    return places


def begin(recipe: Recipe, out: Path, every: str = "1000000", threads: int = 1, keep: int = 3, **stop: int) -> Any:
    """Train in a new folder, until it is done or asked to stop; the outcome."""
    interruption = Interruption()
    place = Place(get_backend("numpy", threads=threads), out=out)
    care = Care(Every.parse(every), keep)
    return run(recipe, place, Stopping(interruption, **stop), interruption, care=care)


def go_on(out: Path, every: str = "1000000", threads: int = 1, changes: Any = None, **stop: int) -> Any:
    """Go on in a folder; (outcome, what was noted)."""
    interruption = Interruption()
    reporter = Stopping(interruption, **stop)
    with stopped_run(out, reporter.note) as stopped:
        recipe = changed(stopped, changes or {}, lambda table, name: name)
        place = Place(get_backend("numpy", threads=threads))
        care = replace(Care.from_state(stopped.care), every=Every.parse(every))
        outcome = run(recipe, place, reporter, interruption, care=care, stopped=stopped)
    return outcome, reporter.notes


def kept(out: Path) -> dict[str, Any]:
    """What a finished run leaves: weights, best weights, all of its last checkpoint, and its metrics without times."""
    last = Checkpoints(out / "checkpoints").newest(lambda line: None)
    slots = last.steps["optimizer"]["slots"]
    vectors = [array for slot in slots.values() for array in slot.values()]
    with (out / "metrics.csv").open() as file:
        table = [{name: text for name, text in row.items() if name not in TIMED} for row in csv.DictReader(file)]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": _weights(out / "weights.safetensors"),
        "best": _weights(out / "best.safetensors"),
        "position": last.position,
        "optimizer": (last.steps["optimizer"]["lr"], last.steps["optimizer"]["steps"], fingerprint(vectors)),
        "metrics.csv": table,
        "metrics.jsonl": [{name: value for name, value in line.items() if name not in TIMED} for line in lines],
    }


def _weights(path: Path) -> tuple[str, Any]:
    tensors, config = read_weights(path)
    return fingerprint(np.asarray(tensors[name]) for name in sorted(tensors)), config
