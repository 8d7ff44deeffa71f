"""PyTorch on a CPU: `nn.LSTM`, which runs oneDNN's kernels."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.contestant import Contestant
from benchmarks.workloads import CLASSES, LEARNING_RATE, Batch, Case, Weights, mean_cross_entropy, reorder_gates


class Classifier(torch.nn.Module):
    """An LSTM and a dense read-out of its last output; x (T, B, D), or (B, T, D) with `batch_first`."""

    def __init__(self, D: int, H: int, K: int, L: int = 1, batch_first: bool = False) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(D, H, L, batch_first=batch_first)
        self.readout = torch.nn.Linear(H, K)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, K)."""
        return self.readout(self.lstm(x)[1][0][-1])

    def copy_weights(self, weights: Weights) -> None:
        """Take weights in our names and gate order; the second bias, which PyTorch has and we have not, is zero."""
        for layer in range(self.lstm.num_layers):
            parts = {name: torch.from_numpy(reorder_gates(weights[f"layer{layer}.{name}"], "ifgo")) for name in "WUb"}
            with torch.no_grad():
                getattr(self.lstm, f"weight_ih_l{layer}").copy_(parts["W"])
                getattr(self.lstm, f"weight_hh_l{layer}").copy_(parts["U"])
                getattr(self.lstm, f"bias_ih_l{layer}").copy_(parts["b"])
                getattr(self.lstm, f"bias_hh_l{layer}").zero_()
        with torch.no_grad():
            self.readout.weight.copy_(torch.from_numpy(weights["readout.W"]))
            self.readout.bias.copy_(torch.from_numpy(weights["readout.b"]))
        # one trained bias, as we have: with both trained it would move twice as far (its gradient is computed anyway)
        for layer in range(self.lstm.num_layers):
            getattr(self.lstm, f"bias_hh_l{layer}").requires_grad_(False)


class Torch(Contestant):
    """`nn.LSTM` + `nn.Linear`, `cross_entropy`, `Adam`."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_num_threads(threads)

    def describe(self) -> dict[str, Any]:
        """Versions and settings."""
        return {
            "versions": {"torch": torch.__version__},
            "settings": f"torch.set_num_threads({torch.get_num_threads()}), eager, time-major x, Adam(fused=True), "
            "inference_mode for inference",
        }

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """A module with these weights and time-major batches."""
        form, eps = adam
        assert form == "paper"
        self.training = case.mode == "train"
        self.model = Classifier(case.D, case.H, CLASSES, case.L)
        self.model.copy_weights(weights)
        self.model.train(self.training)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE, eps=eps, fused=True)
        self.batches = [
            (torch.from_numpy(x).transpose(0, 1).contiguous(), torch.from_numpy(labels)) for x, labels in batches
        ]

    def _train(self, batch: int) -> torch.Tensor:
        x, labels = self.batches[batch]
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(self.model(x), labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def step(self, batch: int) -> None:
        """A training step, or the logits."""
        if self.training:
            self._train(batch)
        else:
            with torch.inference_mode():
                self.model(self.batches[batch][0])

    def loss(self, batch: int) -> float:
        """The loss on a batch."""
        if self.training:
            return self._train(batch).item()
        x, labels = self.batches[batch]
        with torch.inference_mode():
            return mean_cross_entropy(self.model(x).numpy(), labels.numpy())
