"""PyTorch on a GPU: cuDNN's LSTM, eager or as one CUDA graph per training step, in strict float32 or with TF32.

The data set lies on the device as uint8; the step gathers and scales its batch there, as ours does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.contestant import Contestant
from benchmarks.peers.torch import Classifier
from benchmarks.workloads import CLASSES, LEARNING_RATE, Batch, Case, Weights, as_images, mean_cross_entropy


def set_precision(tf32: bool) -> None:
    """TF32 or strict float32 in cuDNN and in products."""
    word = "tf32" if tf32 else "ieee"
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "rnn") and hasattr(cudnn.rnn, "fp32_precision"):
        cudnn.rnn.fp32_precision = word
        matmul.fp32_precision = word
    else:
        cudnn.allow_tf32 = tf32
        matmul.allow_tf32 = tf32


class Eager(Contestant):
    """A training step of separate launches."""

    tf32 = False
    graphed = False
    device = "cuda"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        if self.device == "cuda":
            if not torch.cuda.is_available():
                raise RuntimeError("this PyTorch finds no CUDA device")
            set_precision(self.tf32)

    def describe(self) -> dict[str, Any]:
        """Versions, settings, and the tolerance that TF32 needs."""
        return {
            "versions": {
                "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
            },
            "settings": f"{'one CUDA graph per step' if self.graphed else 'eager'}, "
            f"{'TF32' if self.tf32 else 'strict float32'}, x gathered on the device, time-major, Adam(fused)",
            "loss_tolerance": 5e-3 if self.tf32 else None,
        }  # fmt: skip

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """Module, data set, optimizer, and the graph where one is asked for."""
        self.graph: Any = None
        self.model: Any = None
        self.optimizer: Any = None
        self.output: Any = None
        if self.device == "cuda":
            torch.cuda.empty_cache()  # the last case's memory, for those who share the device
        self.training, self.sizes, self.weights = case.mode == "train", (case.B, case.T, case.D), weights
        self.model = Classifier(case.D, case.H, CLASSES, case.L).to(self.device)
        self.model.copy_weights(weights)
        self.model.train(self.training)  # cuDNN keeps nothing for a backward pass in inference
        images, labels = as_images(batches)
        self.images, self.labels = torch.from_numpy(images).to(self.device), torch.from_numpy(labels).to(self.device)
        self.position = torch.zeros((), dtype=torch.int64, device=self.device)
        self.offsets = torch.arange(case.B, device=self.device)
        self.last_loss = torch.zeros((), device=self.device)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        cuda = self.device == "cuda"
        self.optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE, eps=adam[1], fused=True, capturable=cuda)
        if self.graphed:
            self._record()

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        B, T, D = self.sizes
        chosen = (self.position + self.offsets) % len(self.images)
        self.position.add_(B)
        x = self.images[chosen].view(B, T, D).transpose(0, 1)
        # turned in the same pass: cuDNN would copy a strided x once more
        turned = x.to(torch.float32, memory_format=torch.contiguous_format)
        return turned.mul_(1 / 255), self.labels[chosen]

    def _train(self) -> None:
        x, labels = self._batch()
        loss = torch.nn.functional.cross_entropy(self.model(x), labels)
        loss.backward()
        self.optimizer.step()
        self.last_loss.copy_(loss.detach())

    def _infer(self) -> torch.Tensor:
        with torch.no_grad():
            return self.model(self._batch()[0])

    def _record(self) -> None:
        work = self._train if self.training else self._infer
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.optimizer.zero_grad(set_to_none=True)
                work()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.output = work()
        self.graph = graph
        # the steps that warmed up have trained: back to the start, in the same memory
        self.model.copy_weights(self.weights)
        self.position.zero_()
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()

    def step(self, batch: int) -> None:
        """A training step on the next batch, or its logits; does not wait."""
        if self.graph is not None:
            self.graph.replay()
        elif self.training:
            self.optimizer.zero_grad(set_to_none=True)
            self._train()
        else:
            self._infer()

    def loss(self, batch: int) -> float:
        """The loss on the next batch."""
        if self.training:
            self.step(batch)
            return self.last_loss.item()
        B = self.sizes[0]
        labels = self.labels[batch * B : (batch + 1) * B].cpu().numpy()
        self.position.fill_(batch * B)
        if self.graph is not None:
            self.graph.replay()
            return mean_cross_entropy(self.output.cpu().numpy(), labels)
        return mean_cross_entropy(np.asarray(self._infer().cpu()), labels)

    def seconds(self, steps: int) -> list[float]:
        """Mean duration of groups of up to 32 steps, by the device's events."""
        means = []
        while steps > 0:
            count = min(steps, 32)
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record()
            for _ in range(count):
                self.step(0)
            ended.record()
            ended.synchronize()
            means.append(begun.elapsed_time(ended) / 1e3 / count)
            steps -= count
        return means


class Graphed(Eager):
    """The whole step as one CUDA graph."""

    graphed = True


class EagerTF32(Eager):
    """Eager with TF32 allowed, PyTorch's default for cuDNN."""

    tf32 = True


class GraphedTF32(Graphed):
    """Graphed with TF32 allowed."""

    tf32 = True
