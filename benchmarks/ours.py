"""This project as a contestant: the public model and its training step."""

from __future__ import annotations

from typing import Any

import numpy as np

import lstm_np
from benchmarks.contestant import Contestant
from benchmarks.workloads import CLASSES, LEARNING_RATE, Batch, Case, Weights, mean_cross_entropy


def make_model(case: Case, weights: Weights, backend: lstm_np.Backend, **settings: Any) -> lstm_np.SequenceClassifier:
    """A classifier of the case's sizes with these weights."""
    model = lstm_np.SequenceClassifier(case.D, case.H, CLASSES, num_layers=case.L, backend=backend, **settings)
    model.params.update({name: backend.from_host(array) for name, array in weights.items()})
    return model


class Ours(Contestant):
    """`SequenceClassifier` with the kernel that `auto` chooses."""

    kernel = "auto"

    def describe(self) -> dict[str, Any]:
        """Versions and settings."""
        return {
            "versions": {"lstm_np": lstm_np.__version__, "numpy": np.__version__},
            "settings": f"kernel {self.kernel}, threads {self.threads}, batches feature-major as `Batches` yields them",
        }

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """A model, its training step, and batches as views of (D, T, B)."""
        backend = lstm_np.get_backend("numpy", threads=self.threads)
        self.training = case.mode == "train"
        self.model = make_model(case, weights, backend, kernel=self.kernel)
        form, eps = adam
        optimizer = lstm_np.Adam(self.model.params, LEARNING_RATE, form=form, eps=eps)
        self.train_step = self.model.training_steps(optimizer).step
        self.batches = [
            (np.ascontiguousarray(x.transpose(2, 1, 0)).transpose(2, 1, 0), labels) for x, labels in batches
        ]
        self.number = 0

    def step(self, batch: int) -> None:
        """A step of the training loop, or the logits."""
        if self.training:
            self.number += 1
            self.train_step(self.batches[batch], self.number)
        else:
            self.model.logits(self.batches[batch][0])

    def loss(self, batch: int) -> float:
        """The loss on a batch."""
        x, labels = self.batches[batch]
        if self.training:
            self.number += 1
            return float(self.train_step((x, labels), self.number)[0])
        return mean_cross_entropy(self.model.logits(x), labels)


class Reference(Ours):
    """The readable kernel, to see what the fast one gains."""

    kernel = "reference"


class Lean(Ours):
    """With only h and c kept for the backward pass."""

    kernel = "lean"
