"""Our training step and inference on a GPU, with the data set on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

import lstm_np
from benchmarks.contestant import Contestant
from benchmarks.ours import make_model
from benchmarks.workloads import CLASSES, LEARNING_RATE, Batch, Case, Weights, as_images
from lstm_np.device.inference import DeviceInference
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
    """`DeviceTrainingStep`: gather, forward, loss, backward and Adam on the device; strict float32.

    Inference is `DeviceInference`, which `predict` and `evaluate` use: gather, forward, and each sample's
    probabilities, guess and loss.
    """

    def __init__(self, threads: int, backend: lstm_np.Backend | None = None) -> None:
        super().__init__(threads)
        self.backend = lstm_np.get_backend("cupy") if backend is None else backend
        self.xp = self.backend.xp
        self.model: Any = None
        self.train_step: Any = None
        self.inference: Any = None

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
        self.model = self.train_step = self.inference = None
        if hasattr(self.xp, "get_default_memory_pool"):
            self.xp.get_default_memory_pool().free_all_blocks()  # others share the device
        self.training, self.B = case.mode == "train", case.B
        images, labels = as_images(batches)
        self.model = make_model(case, weights, self.backend)
        if self.training:
            many = np.tile(images, (REPEATED // len(batches), 1))
            self.train_step = make_device_step(self.model, many, np.tile(labels, REPEATED // len(batches)), case.T)
            self.order, self.left = np.arange(len(many)), 0
        else:
            self.inference = DeviceInference(self.backend, self.model.params.flat, (case.T, case.D, case.H, CLASSES))
            starts = range(0, len(images), case.B)
            parts = [slice(start, start + case.B) for start in starts]
            self.data = [self.inference.data(images[part], labels[part], 1 / 255) for part in parts]

    def step(self, batch: int) -> None:
        """A training step (batches follow each other on the device), or the probabilities; does not wait."""
        if not self.training:
            self.inference.measure(self.data[batch])
            return
        if self.left == 0:
            self.train_step.begin_epoch(self.order)
            self.left = REPEATED
        self.train_step.run(self.B)
        self.left -= 1

    def loss(self, batch: int) -> float:
        """The loss on a batch."""
        if not self.training:
            sums = self.inference.measure(self.data[batch]).sums()
            return sums.loss / sums.samples
        self.train_step.reset_totals()
        self.step(batch)
        total, _, count = self.train_step.totals()
        return total / count

    def seconds(self, steps: int) -> list[float]:
        """Mean duration of the steps of each pass over the device's batches, by the device's events."""
        means = []
        stream = self.train_step.stream if self.training else self.inference.launches.stream
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
