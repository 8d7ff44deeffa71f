"""How good a model is on a test set: loss, accuracy, and which class it takes for which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np.arrays import Array
from lstm_np.model import SequenceClassifier


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    loss       the mean of the model's own loss
    confusion  (K, K): how many images of class `row` were taken for class `column`
    """

    loss: float
    confusion: np.ndarray

    @property
    def count(self) -> int:
        """How many images."""
        return int(self.confusion.sum())

    @property
    def correct(self) -> int:
        """How many of them were recognised."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        """The share that was recognised."""
        return self.correct / self.count

    def per_class(self) -> list[dict[str, Any]]:
        """For each class: its images, recall (share of them recognised) and precision (share of the guesses that were
        right); None where there is nothing to share."""
        right = np.diag(self.confusion)
        images, guesses = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return [
            {
                "class": k,
                "images": int(images[k]),
                "recall": float(right[k] / images[k]) if images[k] else None,
                "precision": float(right[k] / guesses[k]) if guesses[k] else None,
            }
            for k in range(len(right))
        ]

    def table(self) -> str:
        """Rows: what it is; columns: what it was taken for; then the images of each class, recall and precision."""
        K = len(self.confusion)
        width = max(4, len(str(self.confusion.max())) + 1)
        lines = [
            f"{'':{width + 2}}taken for",
            f"{'is':>3}" + "".join(f"{k:>{width}}" for k in range(K)) + f"{'images':>8}{'recall':>9}{'precision':>10}",
        ]
        for row, entry in zip(self.confusion, self.per_class(), strict=True):
            counts = "".join(f"{count or '.':>{width}}" for count in row.tolist())
            shares = f"{_percent(entry['recall']):>9}{_percent(entry['precision']):>10}"
            lines.append(f"{entry['class']:>3}{counts}{entry['images']:>8,}{shares}")
        return "\n".join(line.rstrip() for line in lines)


def evaluate(
    model: SequenceClassifier, batches: Iterable[tuple[Array, np.ndarray]], *, hold: Mapping[str, float] | None = None
) -> Evaluation:
    """Measure a model on batches of sequences (B, T, D) and integer labels (B,); `hold`: values of its cell to be held.

    Raises ValueError for what does not fit, HoldError for a value that the cell does not have.
    """
    K, total = model.num_classes, 0.0
    confusion = np.zeros((K, K), np.int64)
    for x, labels in batches:
        logits = model.backend.to_host(model.logits(x, hold=hold)).T
        loss, _, _ = model.loss(np, logits, labels)
        total += float(loss) * len(labels)
        np.add.at(confusion, (labels, logits.argmax(axis=0)), 1)
    return Evaluation(total / int(confusion.sum()), confusion)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
