"""This project as a contestant: the public model and its training step."""

from __future__ import annotations

from typing import Any

import numpy as np

import lstm_np
from benchmarks.contestant import BOTH, LENGTHS, Contestant
from benchmarks.workloads import (
    CLASSES,
    LEARNING_RATE,
    MODES,
    Batch,
    Case,
    Weights,
    mean_cross_entropy,
    read_out,
)


def make_model(case: Case, weights: Weights, backend: lstm_np.Backend, **settings: Any) -> lstm_np.SequenceClassifier:
    """A classifier of the case's sizes with these weights."""
    sizes: dict[str, Any] = {"num_layers": case.L, "bidirectional": case.directions == 2}
    sizes["bias"] = "double" if "layer0.b_h" in weights else True
    model = lstm_np.SequenceClassifier(case.D, case.H, CLASSES, cell=case.cell, backend=backend, **sizes, **settings)
    model.params.update({name: backend.from_host(array) for name, array in weights.items()})
    return model


class Ours(Contestant):
    """`SequenceClassifier` with the kernel that `auto` chooses; for a stream the layer's `stream`."""

    kernel = "auto"
    takes = frozenset({*MODES, "lstm", "gru", "rnn", BOTH, LENGTHS})

    def describe(self) -> dict[str, Any]:
        """Versions and settings."""
        return {
            "versions": {"lstm_np": lstm_np.__version__, "numpy": np.__version__},
            "settings": f"kernel {self.kernel}, threads {self.threads}, batches as `Batches` yields them",
            "from": lstm_np.__file__,
        }

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """A model, its training step, and batches as `Batches` yields them: views of (D, T, B), except with lengths."""
        backend = lstm_np.get_backend("numpy", threads=self.threads)
        self.mode, self.number = case.mode, 0
        if case.mode == "stream":
            self._build_stream(case, weights, batches, backend)
            return
        self.model = make_model(case, weights, backend, kernel=self.kernel)
        form, eps = adam
        optimizer = lstm_np.Adam(self.model.params, LEARNING_RATE, form=form, eps=eps)
        self.train_step = self.model.training_steps(optimizer).step
        self.batches = [tuple(batch) if case.lengths else _feature_major(*batch) for batch in batches]

    def _build_stream(self, case: Case, weights: Weights, batches: list[Batch], backend: lstm_np.Backend) -> None:
        self.layer = lstm_np.LSTM(case.D, case.H, kernel=self.kernel, backend=backend)
        self.layer.params.update({name: array for name, array in weights.items() if name in self.layer.params})
        self.stream, self.h = self.layer.stream(), np.empty(case.H, np.float32)
        self.weights, (x, self.labels) = weights, batches[0]
        self.inputs = [np.ascontiguousarray(x[0, t]) for t in range(case.T)]

    def _advance(self) -> np.ndarray:
        """h after the next time step, (H,)."""
        h = self.stream.step(self.inputs[self.number % len(self.inputs)], self.h)
        self.number += 1
        return h

    def step(self, batch: int) -> None:
        """A step of the training loop, or the logits, or a time step."""
        if self.mode == "train":
            self.number += 1
            self.train_step(self.batches[batch], self.number)
        elif self.mode == "infer":
            self._logits(batch)
        else:
            self._advance()

    def loss(self, batch: int) -> float:
        """The loss on a batch, or after a time step."""
        if self.mode == "stream":
            return mean_cross_entropy(read_out(self.weights, self._advance()[None]), self.labels)
        if self.mode == "train":
            self.number += 1
            return float(self.train_step(self.batches[batch], self.number)[0])
        return mean_cross_entropy(self._logits(batch), self.batches[batch][1])

    def _logits(self, batch: int) -> np.ndarray:
        x, _, *lengths = self.batches[batch]
        return self.model.logits(x, lengths=lengths[0]) if lengths else self.model.logits(x)


def _feature_major(x: np.ndarray, *more: np.ndarray) -> Batch:
    return np.ascontiguousarray(x.transpose(2, 1, 0)).transpose(2, 1, 0), *more


class Reference(Ours):
    """The readable kernel, to see what the fast one gains."""

    kernel = "reference"


class Lean(Ours):
    """With only h and c kept for the backward pass."""

    kernel = "lean"
    takes = Ours.takes - {LENGTHS}
