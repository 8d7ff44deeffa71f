"""How good a model is on a test set: loss, accuracy and confusion matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np.arrays import Array
from lstm_np.model import SequenceClassifier
from lstm_np.packing import named


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    loss       the mean of the model's own loss
    confusion  (K, K): how many images of class `row` were predicted as class `column`
    """

    loss: float
    confusion: np.ndarray

    @property
    def count(self) -> int:
        """How many images."""
        return int(self.confusion.sum())

    @property
    def correct(self) -> int:
        """How many were classified correctly."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        """The share that was classified correctly."""
        return self.correct / self.count

    def per_class(self) -> list[dict[str, Any]]:
        """For each class: its images, recall and precision; None where nothing is of it, or predicted as it.

        Recall is the share of its images that are recognised, precision that of its predictions that are right.
        """
        right = np.diag(self.confusion)
        images, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return [
            {
                "class": k,
                "images": int(images[k]),
                "recall": float(right[k] / images[k]) if images[k] else None,
                "precision": float(right[k] / predicted[k]) if predicted[k] else None,
            }
            for k in range(len(right))
        ]

    def table(self, things: str = "images") -> str:
        """Rows: the true class; columns: the predicted one; then the images of each class (`things`: what they are
        called), recall and precision."""
        K = len(self.confusion)
        width = max(4, len(str(self.confusion.max())) + 1)
        classes = "".join(f"{k:>{width}}" for k in range(K))
        lines = [
            f"{'':{width + 3}}predicted",
            f"{'true':>4}{classes}{things:>8}{'recall':>9}{'precision':>10}",
        ]
        for row, entry in zip(self.confusion, self.per_class(), strict=True):
            counts = "".join(f"{count or '.':>{width}}" for count in row.tolist())
            shares = f"{_percent(entry['recall']):>9}{_percent(entry['precision']):>10}"
            lines.append(f"{entry['class']:>4}{counts}{entry['images']:>8,}{shares}")
        return "\n".join(line.rstrip() for line in lines)


def evaluate(
    model: SequenceClassifier, batches: Iterable[tuple[Array, ...]], *, hold: Mapping[str, float] | None = None
) -> Evaluation:
    """Measure a model on batches of sequences (B, T, D) and integer labels (B,); `hold`: values of its cell to be held.

    A batch may have a third part: lengths (B,), or a mask (B, T).

    Raises ValueError for what does not fit, HoldError for a value that the cell does not have.
    """
    K, total = model.num_classes, 0.0
    confusion = np.zeros((K, K), np.int64)
    for x, labels, *more in batches:
        logits = model.backend.to_host(model.logits(x, **named(more[0] if more else None), hold=hold)).T
        loss, _, _ = model.loss(np, logits, labels)
        total += float(loss) * len(labels)
        np.add.at(confusion, (labels, logits.argmax(axis=0)), 1)
    return Evaluation(total / int(confusion.sum()), confusion)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
