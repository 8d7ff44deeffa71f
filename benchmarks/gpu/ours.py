"""Our training step on a GPU, with the data set on the device; inference is the model's."""

from __future__ import annotations

from typing import Any

import numpy as np

import lstm_np
from benchmarks.contestant import Contestant
from benchmarks.ours import make_model
from benchmarks.workloads import LEARNING_RATE, Batch, Case, Weights, as_images, batches_of_images, mean_cross_entropy
from lstm_np.device.step import DeviceTrainingStep, Update

REPEATED = 32  # batches on the device, so that a whole measurement is one pass over them


def make_device_step(
    model: lstm_np.SequenceClassifier,
    images: np.ndarray,
    labels: np.ndarray,
    T: int,
    **settings: bool,
) -> DeviceTrainingStep:
    """A step under Adam over images uint8 (N, T * D) in 0 ... 255 for a one-layer model on a device.

    settings  `persistent`, `direct_blas`, `capture` of `DeviceTrainingStep`
    """
    stack, adam = model.recurrent, lstm_np.Adam(model.params, LEARNING_RATE)
    return DeviceTrainingStep(
        model.backend,
        model.params.flat,
        (T, stack.input_size, stack.hidden_size, model.num_classes),
        images,
        labels,
        scale=1 / 255,
        update=Update("adam paper", LEARNING_RATE, adam.betas, adam.eps),
        slots=adam.slots,
        **settings,
    )


class DeviceStep(Contestant):
    """`DeviceTrainingStep`: gather, forward, loss, backward and Adam on the device; strict float32."""

    def __init__(self, threads: int, backend: lstm_np.Backend | None = None) -> None:
        super().__init__(threads)
        self.backend = lstm_np.get_backend("cupy") if backend is None else backend
        self.xp = self.backend.xp
        self.model: Any = None
        self.train_step: Any = None
        self.x: Any = None

    def describe(self) -> dict[str, Any]:
        """Versions and settings."""
        return {
            "versions": {"lstm_np": lstm_np.__version__, "cupy": getattr(self.xp, "__version__", "stand-in")},
            "settings": "device step, strict float32, data gathered on the device",
        }

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """Model, data set and step on the device."""
        if case.L != 1 or adam != self.adam:
            raise ValueError("the device step has one layer and the paper's Adam")
        self.model = self.train_step = self.x = None
        if hasattr(self.xp, "get_default_memory_pool"):
            self.xp.get_default_memory_pool().free_all_blocks()  # others share the device
        self.training, self.B = case.mode == "train", case.B
        images, labels = as_images(batches)
        self.model = make_model(case, weights, self.backend)
        self.images = images.reshape(len(images), case.T, case.D)
        self.labels = labels
        if self.training:
            many = np.tile(images, (REPEATED // len(batches), 1))
            self.train_step = make_device_step(self.model, many, np.tile(labels, REPEATED // len(batches)), case.T)
            self.order, self.left = np.arange(len(many)), 0
        else:
            self.x = [self.backend.from_host(x) for x, _ in batches_of_images(case, batches)]

    def step(self, batch: int) -> None:
        """A training step (batches follow each other on the device), or the logits; does not wait."""
        if not self.training:
            self.model.logits(self.x[batch])
            return
        if self.left == 0:
            self.train_step.begin_epoch(self.order)
            self.left = REPEATED
        self.train_step.run(self.B)
        self.left -= 1

    def loss(self, batch: int) -> float:
        """The loss on a batch."""
        if not self.training:
            logits = self.backend.to_host(self.model.logits(self.x[batch]))
            return mean_cross_entropy(logits, self.labels[batch * self.B : (batch + 1) * self.B])
        self.train_step.reset_totals()
        self.step(batch)
        total, _, count = self.train_step.totals()
        return total / count

    def seconds(self, steps: int) -> list[float]:
        """Mean duration of the steps of each pass over the device's batches, by the device's events."""
        means = []
        stream = self.train_step.stream if self.training else self.xp.cuda.get_current_stream()
        while steps > 0:
            count = min(steps, REPEATED)
            if self.training:
                self.train_step.begin_epoch(self.order)
                self.left = REPEATED
            begun, ended = self.xp.cuda.Event(), self.xp.cuda.Event()
            begun.record(stream)
            for number in range(count):
                self.step(number % 2)
            ended.record(stream)
            ended.synchronize()
            means.append(self.xp.cuda.get_elapsed_time(begun, ended) / 1e3 / count)
            steps -= count
        return means
