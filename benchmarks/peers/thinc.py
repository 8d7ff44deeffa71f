"""Thinc on a CPU: its own `LSTM` layer, the only other one in NumPy's world that trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import thinc
from thinc.api import LSTM, Adam, Linear, NumpyOps, use_ops
from thinc.types import Padded

from benchmarks.contestant import Contestant
from benchmarks.workloads import CLASSES, LEARNING_RATE, Batch, Case, Weights, mean_cross_entropy, reorder_gates


class Thinc(Contestant):
    """`LSTM` + `Linear` on the last output."""

    adam = ("paper", 1e-8)

    def describe(self) -> dict[str, Any]:
        """Versions, settings, and why its loss curve is not the others'."""
        return {
            "versions": {"thinc": thinc.__version__, "numpy": np.__version__},
            "settings": "NumpyOps, Padded time-major input",
            "remark": "its LSTM's gradients are wrong, so it learns another curve; timed all the same",
        }

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """Layers with these weights and padded batches of full length."""
        form, eps = adam
        assert form == "paper"
        self.training = case.mode == "train"
        with use_ops("numpy"):
            self.lstm = LSTM(case.H, case.D, depth=case.L)
            self.readout = Linear(CLASSES, case.H)
            self.optimizer = Adam(LEARNING_RATE, eps=eps, L2=0.0, grad_clip=0.0)
        self.lstm.initialize()
        self.readout.initialize()
        parts = []
        for layer in range(case.L):
            W, U, b = (reorder_gates(weights[f"layer{layer}.{name}"], "fiog") for name in "WUb")
            parts += [W.ravel(), b, U.ravel(), np.zeros_like(b)]
        self.lstm.set_param("LSTM", np.concatenate(parts))
        self.readout.set_param("W", weights["readout.W"].copy())
        self.readout.set_param("b", weights["readout.b"].copy())
        ops = NumpyOps()
        self.batches = []
        for x, labels in batches:
            B, T, _ = x.shape
            lengths, size_at_t = np.full(B, T, "i"), np.full(T, B, "i")
            padded = Padded(np.ascontiguousarray(x.transpose(1, 0, 2)), size_at_t, lengths, np.arange(B, dtype="i"))
            self.batches.append((padded, labels))
        self.ops = ops

    def _train(self, batch: int) -> np.ndarray:
        padded, labels = self.batches[batch]
        y, back_through_lstm = self.lstm.begin_update(padded)
        logits, back_through_readout = self.readout.begin_update(np.ascontiguousarray(y.data[-1]))
        p = self.ops.softmax(logits)
        p[np.arange(len(labels)), labels] -= 1
        dlast = back_through_readout(p / np.float32(len(labels)))
        dy = np.zeros_like(y.data)
        dy[-1] = dlast
        back_through_lstm(Padded(dy, y.size_at_t, y.lengths, y.indices))
        self.lstm.finish_update(self.optimizer)
        self.readout.finish_update(self.optimizer)
        self.optimizer.step_schedules()
        return logits

    def _logits(self, padded: Padded) -> np.ndarray:
        return self.readout.predict(np.ascontiguousarray(self.lstm.predict(padded).data[-1]))

    def step(self, batch: int) -> None:
        """A training step, or the logits."""
        if self.training:
            self._train(batch)
        else:
            self._logits(self.batches[batch][0])

    def loss(self, batch: int) -> float:
        """The loss on a batch."""
        padded, labels = self.batches[batch]
        return mean_cross_entropy(self._train(batch) if self.training else self._logits(padded), labels)
