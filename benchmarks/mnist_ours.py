"""Our training on MNIST, as `lstm_np.train` runs it: `Batches`, the model's training step, the loop."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import lstm_np
from benchmarks.workloads import LEARNING_RATE
from lstm_np.data import Batches
from lstm_np.loop import train


class MnistOurs:
    """Epochs on demand."""

    def __init__(self, threads: int) -> None:
        self.backend = lstm_np.get_backend("numpy", threads=threads)

    def do_describe(self) -> dict[str, Any]:
        """What it is."""
        versions = {"lstm_np": lstm_np.__version__, "numpy": np.__version__}
        return {"versions": versions, "settings": "kernel auto, Batches, lstm_np.loop.train", "remark": ""}

    def do_begin(self, path: str) -> dict[str, Any]:
        """Read a task and make the model."""
        started = time.perf_counter()
        with np.load(path, allow_pickle=False) as file:
            task = {name: file[name] for name in file.files}
        (K, H), D = task["weights/readout.W"].shape, task["train_images"].shape[2]
        self.model = lstm_np.SequenceClassifier(D, H, K, backend=self.backend)
        self.model.params.update({name: task[f"weights/{name}"] for name in self.model.params})
        images, labels, seed = task["train_images"], task["train_labels"], int(task["seed"])
        batches = Batches(images, labels, 128, seed=seed, scale=1 / 255, reuse=True)
        self.steps = self.model.training_steps(lstm_np.Adam(self.model.params, LEARNING_RATE), batches)
        images, labels = task["test_images"], task["test_labels"]
        self.test = Batches(images, labels, 1000, scale=1 / 255, shuffle=False, reuse=True)
        return {"seconds": time.perf_counter() - started}

    def do_epoch(self, epoch: int) -> dict[str, Any]:
        """Train the epoch that comes next, number `epoch` from 0, and evaluate."""
        started = time.perf_counter()
        done = train(self.steps, epochs=epoch + 1)[0]
        trained = time.perf_counter()
        metrics = self.model.evaluate_batches(self.test.epoch(0))
        return {
            "seconds": trained - started, "evaluation_seconds": time.perf_counter() - trained,
            "loss": done.train.loss, "train_accuracy": done.train.accuracy, "accuracy": metrics.accuracy,
        }  # fmt: skip
