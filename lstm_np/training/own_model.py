"""A model that was trained on sequences of one's own: what it predicts of another file, and how good that is."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from lstm_np.data import DatasetError, Sequences
from lstm_np.data.sequences.preparation import Preparation
from lstm_np.model import SequenceClassifier, SequenceModel, SequenceRegressor
from lstm_np.training.evaluation import Evaluation
from lstm_np.training.own_data import NOTES, OwnData, OwnSettings, reread
from lstm_np.training.run_folder import CONFIG, RunFolderError
from lstm_np.weights import WeightsError

AT_ONCE = 512  # sequences that are predicted together


@dataclass(frozen=True, eq=False)
class OwnModel:
    """A model from a weights file with the notes that `train --data` left in it."""

    path: Path
    model: SequenceModel
    notes: Mapping[str, Any]
    preparation: Preparation

    @classmethod
    def of(cls, path: Path, model: SequenceModel) -> Self:
        """From a model that was loaded.  Raises WeightsError for one that was trained on something else."""
        if not is_own(model):
            raise WeightsError(f"{path}: was not trained on sequences of your own (train --data)")
        try:
            preparation = Preparation.from_state(model.notes)
        except ValueError as error:
            raise WeightsError(f"{path}: does not say how its sequences are prepared ({error})") from None
        return cls(path, model, model.notes, preparation)

    @property
    def task(self) -> str:
        """ "classify", "regress" or "tag"."""
        return str(self.notes["task"])

    @property
    def classes(self) -> list[Any]:
        """The labels of the classes, in the order of the outputs."""
        return list(self.notes["classes"] or ())

    def read(self, path: str, *, targets: bool, **changes: Any) -> Sequences:
        """The sequences of a file of the kind that it was trained on, as `lstm_np.training.own_data.reread`."""
        return reread(self.notes, path, targets=targets, changes=changes)

    # ---- predictions

    def predictions(self, data: Sequences) -> Iterator[tuple[int, np.ndarray]]:
        """Sequence after sequence: its index, and what the model says of it, probabilities (K,) or numbers (M,), or
        those of each step, (T, K) or (T, M).

        Raises DatasetError for missing values that are refused, ValueError for values that are not finite.
        """
        for start in range(0, len(data), AT_ONCE):
            part = self.preparation.apply(data.take(range(start, min(start + AT_ONCE, len(data)))))
            if isinstance(self.model, SequenceClassifier):
                found = self.model.predict_proba(part.x, lengths=part.lengths)
            else:
                assert isinstance(self.model, SequenceRegressor)
                found = self.preparation.numbers(self.model.predict(part.x, lengths=part.lengths))
            for k, (one, steps) in enumerate(zip(found, part.counts().tolist(), strict=True)):
                yield start + k, one[:steps] if one.ndim == 2 else one

    def write(self, data: Sequences) -> Iterator[str]:
        """Predictions as lines of a CSV file, its header first.

        Columns: id (of a window, behind a colon, the time of its last step); step (of each step alone), from 0;
        prediction and probability of each class (p_CLASS), or a column for each target.
        """
        per_step = self.model.config["read_out"] == "each_step"
        columns = ["id", "step"] if per_step else ["id"]
        predicted = ["prediction", *(f"p_{label}" for label in self.classes)] if self.classes else self.notes["targets"]
        yield _line([*columns, *predicted])
        for index, values in self.predictions(data):
            for step, row in enumerate(values if per_step else [values]):
                numbers = [repr(float(value)) for value in row]
                cells = [self.classes[int(row.argmax())], *numbers] if self.classes else numbers
                yield _line([data.ids[index], *([step] if per_step else []), *cells])

    # ---- how good they are

    def measure(self, data: Sequences) -> OwnEvaluation:
        """Loss and metrics over sequences with targets; numbers in the unit of the targets.

        Raises as `predictions`.
        """
        indices = np.arange(len(data))
        batches = self.preparation.batches(data, indices, AT_ONCE, dtype=self.model.dtype)
        loss = float(self.model.evaluate_batches(batches.epoch(0)).loss)
        found = [values for _, values in self.predictions(data)]
        truths = [_truth(data, index) for index in range(len(data))]
        if self.classes:
            K = len(self.classes)
            confusion = np.zeros((K, K), np.int64)
            for values, truth in zip(found, truths, strict=True):
                np.add.at(confusion, (truth, values.argmax(axis=-1)), 1)
            return OwnEvaluation(self.task, loss, Evaluation(loss, confusion), None, len(data))
        M = len(self.notes["targets"])
        y = np.concatenate([np.reshape(one, (-1, M)) for one in found])
        t = np.concatenate([np.reshape(one, (-1, M)) for one in truths])
        return OwnEvaluation(self.task, loss, None, errors_of(y, t), len(data))


def _truth(data: Sequences, index: int) -> Any:
    """The target of a sequence, or those of its own steps."""
    truth = data.targets[index]
    return truth if data.target_lengths is None else truth[: data.target_lengths[index]]


def _line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def errors_of(predicted: np.ndarray, targets: np.ndarray) -> dict[str, float | None]:
    """Mean squared and absolute error and r2 of numbers (n, M), means over the M; r2 None where one never varies."""
    error = predicted - targets
    spread = np.square(targets - targets.mean(axis=0)).sum(axis=0)
    r2 = float((1 - np.square(error).sum(axis=0) / spread).mean()) if (spread > 0).all() else None
    return {
        "mean_squared_error": float(np.square(error).mean()),
        "mean_absolute_error": float(np.abs(error).mean()),
        "r2": r2,
    }


@dataclass(frozen=True)
class OwnEvaluation:
    """What was measured.

    loss       the mean of the model's own loss (of scaled targets, where it scales them)
    classes    of classes: accuracy and confusion matrix
    errors     of numbers: those of `errors_of`
    sequences  how many
    """

    task: str
    loss: float
    classes: Evaluation | None
    errors: Mapping[str, float | None] | None
    sequences: int

    def plain(self, prefix: str = "test_") -> dict[str, Any]:
        """As plain values."""
        found: dict[str, Any] = {"task": self.task, f"{prefix}loss": self.loss, f"{prefix}sequences": self.sequences}
        if self.classes is not None:
            found |= {f"{prefix}accuracy": self.classes.accuracy, f"{prefix}predictions": self.classes.count}
        return found | {f"{prefix}{name}": value for name, value in (self.errors or {}).items()}

    def in_words(self) -> str:
        """A line."""
        if self.classes is not None:
            what = "steps" if self.task == "tag" else "sequences"
            counts = f"{self.classes.correct:,} of {self.classes.count:,} {what}"
            return f"accuracy {self.classes.accuracy:.2%} ({counts}), loss {self.loss:.4g}"
        assert self.errors is not None
        r2 = "-" if self.errors["r2"] is None else f"{self.errors['r2']:.4f}"
        mse, mae = (self.errors[name] for name in ("mean_squared_error", "mean_absolute_error"))
        return f"mean absolute error {mae:.4g}, mean squared error {mse:.4g}, R2 {r2}, loss {self.loss:.4g}"


def is_own(model: SequenceModel) -> bool:
    """Whether a model was trained on sequences of one's own."""
    return all(name in model.notes for name in NOTES)


def test_part(weights: Path, changes: Mapping[str, Any]) -> tuple[Sequences, str]:
    """(the test part of what a run was trained on, where that is), for weights in a run folder.

    Raises RunFolderError where there is no run folder, DatasetError where the file has changed or is gone.
    """
    hint = "name a file with --data"
    try:
        config = json.loads((weights.parent / CONFIG).read_text(encoding="utf-8"))
        told, seed = config["dataset"], config["train"]["seed"]
        settings = OwnSettings.from_state(
            {item.name: told[item.name] for item in fields(OwnSettings) if item.name in told}
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise RunFolderError(f"{weights.parent}: no {CONFIG} that says what it was trained on; {hint}") from None
    try:
        own = OwnData.load(replace(settings, reading=replace(settings.reading, **changes)), seed)
    except DatasetError as error:
        raise DatasetError(f"{error}; {hint}") from None
    for path, found, kept in (
        (settings.path, own.sha256, told["sha256"]),
        (settings.test_data, own.test_sha256, told.get("test_sha256")),
    ):
        if found != kept:
            raise DatasetError(f"{path}: not as it was when {weights.parent} was trained; {hint}")
    if not own.counts()["test"]:
        raise DatasetError(f"{settings.path}: nothing of it was held out for testing; {hint}")
    return own.part("test"), settings.test_data or f"the test part of {settings.path}"
