"""What a run is about to do, and what came of it: plain values that reporters and files share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lstm_np.data import Dataset
from lstm_np.loop import Epoch, Position
from lstm_np.metrics import AnyMetrics, Metrics, RegressionMetrics, names_of_means
from lstm_np.training.own_data import OwnData
from lstm_np.training.recipes import Recipe
from lstm_np.training.recipes.settings import TrainSettings

HOPELESS = 10.0  # times the loss of uniform predictions: worse than any initialization, so the run has learnt nothing


@dataclass(frozen=True)
class Plan:
    """A run that is ready to begin.

    held_out   what each epoch's second pair of numbers is measured on: "validation", or "test" to look at only
    start      where it begins: further on where it goes on from a checkpoint
    device     the GPU in words, or None
    made_by    what makes its steps, as `lstm_np.loop.Steps.description` has it
    """

    recipe: Recipe
    dataset: Dataset | OwnData
    held_out: str
    train_images: int
    held_out_images: int
    steps_per_epoch: int
    sequence: tuple[int, int]  # T, D
    parameters: int
    backend: str
    kernels: tuple[str, ...]  # of each layer and direction
    folder: Path
    data_dir: Path | None = None  # the folder that was named for the images, by a flag or in the environment
    start: Position = field(default_factory=Position)
    device: str | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)

    @property
    def things(self) -> str:
        """What is learnt from: "images" or "sequences"."""
        return "images" if isinstance(self.dataset, Dataset) else "sequences"

    @property
    def counted(self) -> str:
        """What metrics count: the same, or "steps" where each has a prediction of its own."""
        return "steps" if isinstance(self.dataset, OwnData) and self.dataset.data.per_step else self.things

    @property
    def metrics(self) -> type[AnyMetrics]:
        """By what it is measured."""
        return Metrics if self.dataset.num_classes is not None else RegressionMetrics

    @property
    def steps(self) -> int:
        """How many steps the run will make."""
        return steps_of(self.recipe, self.steps_per_epoch)


class HasLength(Protocol):
    """Settings that say how long to train."""

    @property
    def train(self) -> TrainSettings:
        """Epochs and steps."""
        ...


def steps_of(settings: HasLength, steps_per_epoch: int) -> int:
    """How many steps a run makes in all."""
    everything, limit = settings.train.epochs * steps_per_epoch, settings.train.max_steps
    return everything if limit is None else min(everything, limit)


@dataclass(frozen=True)
class Best:
    """The epoch whose weights are kept apart: by "validation accuracy" or "validation loss", or by "training loss"
    where nothing is held out."""

    epoch: int
    by: str
    score: float  # the larger the better

    @classmethod
    def candidate(cls, record: Epoch, held_out: str) -> Best:
        """This epoch's candidate."""
        if held_out == "validation" and record.validation is not None and record.validation.count:
            return cls(record.number, "validation accuracy", record.validation.accuracy)
        return cls(record.number, "training loss", -record.train.loss)

    @classmethod
    def by_loss(cls, record: Epoch, held_out: str) -> Best:
        """The same, but by the loss."""
        if held_out == "validation" and record.validation is not None and record.validation.count:
            return cls(record.number, "validation loss", -record.validation.loss)
        return cls.candidate(record, "")

    def beats(self, other: Best | None) -> bool:
        """Whether this one is better than the other, or the other of an epoch in which nothing counted; on a tie the
        earlier one is kept."""
        if other is None or math.isnan(other.score):
            return True
        return self.by == other.by and self.score > other.score


class BestSoFar:
    """The best epoch of a run so far (`kept`; None before the first), judged by what is held out.

    held_out   "validation", or what is looked at only
    candidate  what an epoch offers, `Best.candidate` or `Best.by_loss`
    """

    def __init__(self, held_out: str, candidate: Callable[[Epoch, str], Best] = Best.candidate) -> None:
        self._held_out, self._candidate = held_out, candidate
        self.kept: Best | None = None

    def offer(self, record: Epoch) -> bool:
        """Whether this epoch is the best so far; it is kept then."""
        candidate = self._candidate(record, self._held_out)
        if candidate.beats(self.kept):
            self.kept = candidate
            return True
        return False

    def state(self) -> dict[str, Any]:
        """{"epoch": 3, "by": ..., "score": ...}; empty before the first."""
        return {} if self.kept is None else asdict(self.kept)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.kept = Best(**state) if state else None


@dataclass(frozen=True)
class Outcome:
    """A run that ended.  `test` is None where a signal came before the test images were looked at."""

    plan: Plan
    epochs: tuple[Epoch, ...]
    best: Best | None
    test: AnyMetrics | None
    seconds: float  # from the first step to the last measurement
    interrupted: int | None  # the signal's number
    no_curves: str | None = None  # why the curves could not be drawn, in words
    sample: tuple[tuple[int, int], ...] = ()  # of the first test images: the predicted class of each, and its label
    as_published: Metrics | None = None  # on the first test images, as many as the recipe's published figure is of
    errors: Mapping[str, float | None] | None = None  # on the test sequences, in the unit of targets that are numbers

    @property
    def hopeless(self) -> bool:
        """Whether the last epoch's training loss is far above that of uniform predictions, ln K, but finite."""
        classes = self.plan.dataset.num_classes
        return bool(self.epochs) and classes is not None and self.epochs[-1].train.loss > HOPELESS * math.log(classes)

    @property
    def steps(self) -> int:
        """The steps that were made."""
        return self.epochs[-1].steps if self.epochs else 0

    def as_json(self) -> dict[str, Any]:
        """One flat object for programs; null where nothing was measured."""
        last = self.epochs[-1] if self.epochs else None
        train = last.train if last else None
        validation = last.validation if last and self.plan.held_out == "validation" else None
        kind = self.plan.metrics
        return {
            **metrics_row("test", self.test, kind),
            **{f"test_{name}": value for name, value in (self.errors or {}).items()},
            f"test_{self.plan.counted}": self.test.count if self.test else 0,
            **metrics_row("train", train, kind),
            **metrics_row("validation", validation, kind),
            "epochs": len(self.epochs),
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "run_dir": str(self.plan.folder),
            "recipe": self.plan.recipe.name,
            "dataset": self.plan.dataset.name,
            "seed": self.plan.recipe.train.seed,
            "parameters": self.plan.parameters,
            "backend": self.plan.backend,
            "kernels": list(self.plan.kernels),
            "best_epoch": self.best.epoch if self.best else None,
            "best_by": self.best.by if self.best else None,
            "interrupted": self.interrupted,
        }


def metrics_row(prefix: str, metrics: AnyMetrics | None, kind: type[AnyMetrics] = Metrics) -> dict[str, float | None]:
    """{"test_loss": ..., "test_accuracy": ...}, and the like of another kind; None where nothing was measured."""
    names = names_of_means(kind)
    measured = metrics is not None and metrics.count > 0
    values = [getattr(metrics, name) if measured else None for name in names]
    return {
        f"{prefix}_{name}": value if value is None or math.isfinite(value) or name == "loss" else None
        for name, value in zip(names, values, strict=True)
    }


def epoch_row(record: Epoch, held_out: str) -> dict[str, Any]:
    """An epoch as one flat row of metrics.csv."""
    rows, kind = {"validation": None, "test": None} | {held_out: record.validation}, type(record.train)
    return {
        "epoch": record.number,
        "steps": record.steps,
        **metrics_row("train", record.train, kind),
        **metrics_row("validation", rows["validation"], kind),
        **metrics_row("test", rows["test"], kind),
        "seconds": round(record.seconds, 3),
        "samples_per_second": round(record.train.count / record.seconds, 1),
        "complete": record.complete,
    }
