"""PyTorch's training on MNIST: what a careful user writes, without a `DataLoader`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.peers.torch import Classifier
from benchmarks.workloads import LEARNING_RATE


class MnistTorch:
    """Epochs on demand."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def do_describe(self) -> dict[str, Any]:
        """What it is."""
        settings = "images as one uint8 tensor, batches by index, batch_first, Adam(fused=True)"
        return {"versions": {"torch": torch.__version__}, "settings": settings, "remark": ""}

    def do_begin(self, path: str) -> dict[str, Any]:
        """Read a task and make the module."""
        started = time.perf_counter()
        with np.load(path, allow_pickle=False) as file:
            task = {name: file[name] for name in file.files}
        weights = {name.removeprefix("weights/"): a for name, a in task.items() if name.startswith("weights/")}
        (K, H), D = weights["readout.W"].shape, task["train_images"].shape[2]
        self.model = Classifier(D, H, K, batch_first=True)
        self.model.copy_weights(weights)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE, fused=True)
        self.images, self.labels = torch.from_numpy(task["train_images"]), torch.from_numpy(task["train_labels"])
        self.test = torch.from_numpy(task["test_images"]), torch.from_numpy(task["test_labels"])
        self.orders = torch.from_numpy(task["orders"])
        return {"seconds": time.perf_counter() - started}

    def do_epoch(self, epoch: int) -> dict[str, Any]:
        """Train an epoch and evaluate."""
        started = time.perf_counter()
        self.model.train()
        total, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for chosen in self.orders[epoch].split(128):
            x, labels = self.images[chosen].float().div_(255), self.labels[chosen]
            self.optimizer.zero_grad(set_to_none=True)
            logits = self.model(x)
            loss = cross_entropy(logits, labels)
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                total += loss * len(labels)
                right += (logits.argmax(1) == labels).sum()
        count = len(self.labels)
        loss_mean, train_accuracy = total.item() / count, right.item() / count
        trained = time.perf_counter()
        self.model.eval()
        images, labels = self.test
        with torch.inference_mode():
            found = torch.cat([self.model(part.float().div_(255)).argmax(1) for part in images.split(1000)])
        return {
            "seconds": trained - started, "evaluation_seconds": time.perf_counter() - trained,
            "loss": loss_mean, "train_accuracy": train_accuracy, "accuracy": (found == labels).float().mean().item(),
        }  # fmt: skip
