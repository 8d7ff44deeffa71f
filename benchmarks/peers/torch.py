"""PyTorch on a CPU: `nn.LSTM`, which runs oneDNN's kernels, `nn.GRU`, `nn.RNN` and `nn.LSTMCell`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

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
    reorder_gates,
)

LAYERS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


def in_torchs_order(array: np.ndarray, cell: str) -> torch.Tensor:
    """Rows of our gates in PyTorch's order, which differs for an LSTM alone."""
    return torch.from_numpy(reorder_gates(array, "ifgo") if cell == "lstm" else array)


class Classifier(torch.nn.Module):
    """Recurrent layers and a dense read-out of their last output; x (T, B, D), or (B, T, D) with `batch_first`."""

    def __init__(
        self, D: int, H: int, K: int, L: int = 1, *, cell: str = "lstm", directions: int = 1, batch_first: bool = False
    ) -> None:
        super().__init__()
        self.cell, self.directions = cell, directions
        self.recurrent = LAYERS[cell](D, H, L, batch_first=batch_first, bidirectional=directions == 2)
        self.readout = torch.nn.Linear(directions * H, K)

    def forward(self, x: torch.Tensor, last: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, K); `last` (B,): the step whose output is read out, of a padded batch (T, B, D)."""
        if last is not None:
            return self.readout(self.recurrent(x)[0][last, torch.arange(len(last))])
        state = self.recurrent(x)[1]
        h = state[0] if self.cell == "lstm" else state
        return self.readout(h[-1] if self.directions == 1 else torch.cat((h[-2], h[-1]), 1))

    def copy_weights(self, weights: Weights) -> None:
        """Take weights in our names and gate order; a second bias that ours have not is zero and is not trained.

        With both trained it would move twice as far (its gradient is computed anyway).
        """
        for name, parameter in self.recurrent.named_parameters():
            kind, _, place = name.rpartition("_l")  # such as weight_ih and 0_reverse
            ours = {"weight_ih": "W", "weight_hh": "U", "bias_ih": "b", "bias_hh": "b_h"}[kind]
            array = weights.get(f"layer{place}.{ours}")
            with torch.no_grad():
                if array is None:
                    parameter.zero_()
                else:
                    parameter.copy_(in_torchs_order(array, self.cell))
            parameter.requires_grad_(array is not None)
        with torch.no_grad():
            self.readout.weight.copy_(torch.from_numpy(weights["readout.W"]))
            self.readout.bias.copy_(torch.from_numpy(weights["readout.b"]))


class Torch(Contestant):
    """`nn.LSTM` + `nn.Linear`, `cross_entropy`, `Adam`; for a stream `nn.LSTMCell`, faster there than `nn.LSTM`."""

    takes = frozenset({*MODES, "lstm", "gru", "rnn", BOTH, LENGTHS})

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_num_threads(threads)

    def arguments(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[Any, ...]:
        """What the model is called with, of sequences of unequal length: packed in each step, as they come."""
        return (torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False),)

    def describe(self) -> dict[str, Any]:
        """Versions and settings."""
        return {
            "versions": {"torch": torch.__version__},
            "settings": f"torch.set_num_threads({torch.get_num_threads()}), time-major x; training eager with "
            "Adam(fused=True), inference traced and frozen, within inference_mode",
        }

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """A module with these weights and time-major batches."""
        form, eps = adam
        assert form == "paper"
        self.mode, self.training = case.mode, case.mode == "train"
        if case.mode == "stream":
            self._build_stream(case, weights, batches)
            return
        self.model = Classifier(case.D, case.H, CLASSES, case.L, cell=case.cell, directions=case.directions)
        self.model.copy_weights(weights)
        self.model.train(self.training)
        self.batches = [
            (torch.from_numpy(x).transpose(0, 1).contiguous(), *map(torch.from_numpy, more)) for x, *more in batches
        ]
        if case.lengths and not self.training:  # a packed sequence cannot be traced
            self.frozen = self.model
        elif not self.training:  # spares a single sequence a sixth of its time
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch would rather have it exported, which is not faster here
                self.frozen = torch.jit.freeze(torch.jit.trace(self.model, self.batches[0][0]))
        if not self.training:
            return
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE, eps=eps, fused=True)

    def _build_stream(self, case: Case, weights: Weights, batches: list[Batch]) -> None:
        self.layer = torch.nn.LSTMCell(case.D, case.H)
        parts = {"weight_ih": "W", "weight_hh": "U", "bias_ih": "b"}
        with torch.no_grad():
            for name, ours in parts.items():
                getattr(self.layer, name).copy_(in_torchs_order(weights[f"layer0.{ours}"], "lstm"))
            self.layer.bias_hh.zero_()
        self.state = (torch.zeros(1, case.H), torch.zeros(1, case.H))
        self.weights, (x, self.labels) = weights, batches[0]
        self.inputs, self.number = [torch.from_numpy(x[:, t].copy()) for t in range(case.T)], 0

    def _advance(self) -> torch.Tensor:
        """h after the next time step, (1, H)."""
        self.state = self.layer(self.inputs[self.number % len(self.inputs)], self.state)
        self.number += 1
        return self.state[0]

    def _train(self, batch: int) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(self._logits(self.model, batch), self.batches[batch][1])
        loss.backward()
        self.optimizer.step()
        return loss

    def _logits(self, model: Any, batch: int) -> torch.Tensor:
        x, _, *lengths = self.batches[batch]
        return model(*(self.arguments(x, *lengths) if lengths else (x,)))

    def step(self, batch: int) -> None:
        """A training step, or the logits, or a time step."""
        if self.training:
            self._train(batch)
        elif self.mode == "stream":
            self._advance()
        else:
            self._logits(self.frozen, batch)

    def loss(self, batch: int) -> float:
        """The loss on a batch, or after a time step."""
        if self.training:
            return self._train(batch).item()
        if self.mode == "stream":
            return mean_cross_entropy(read_out(self.weights, self._advance().numpy()), self.labels)
        return mean_cross_entropy(self._logits(self.frozen, batch).numpy(), self.batches[batch][1].numpy())

    # whoever runs a model in a loop enters inference_mode once

    def do_losses(self, steps: int) -> dict[str, Any]:
        """The loss curve."""
        with torch.inference_mode(not self.training):
            return super().do_losses(steps)

    def do_time(self, steps: int, warm: int = 0) -> dict[str, Any]:
        """How long steps take."""
        with torch.inference_mode(not self.training):
            return super().do_time(steps, warm)

    def do_run(self, seconds: float) -> dict[str, Any]:
        """Steps for that many seconds."""
        with torch.inference_mode(not self.training):
            return super().do_run(seconds)


class Padded(Torch):
    """Sequences of unequal length as a padded batch, all of whose steps are computed."""

    takes = frozenset({"train", "infer", "lstm", "gru", "rnn", LENGTHS})

    def arguments(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[Any, ...]:
        """The whole batch, and which step's output is read out."""
        return x, lengths - 1
