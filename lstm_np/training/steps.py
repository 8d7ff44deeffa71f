"""How a run's training steps are made: by the model and its optimizer, or all on the GPU where that is possible.

Both give the loop the same four things: batches, a step, sums to read, and what to do when an epoch is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lstm_np.data import Batches
from lstm_np.device.memory import Update
from lstm_np.device.step import DeviceTrainingStep
from lstm_np.loop import Metrics, Running, mean_of
from lstm_np.model import SequenceClassifier
from lstm_np.optimizers import SGD, Adam, Optimizer

PLAIN = {"cell": "lstm", "num_layers": 1, "bidirectional": False, "double_bias": False, "input_projection": None,
         "loss": "softmax"}  # fmt: skip


class ModelSteps:
    """Steps by the model and its optimizer, on any backend."""

    def __init__(self, model: SequenceClassifier, optimizer: Optimizer, batches: Any, clip_norm: float | None) -> None:
        self.batches, self.step = batches, model.make_step(optimizer, clip_norm=clip_norm)
        self._backend = model.backend

    def running(self) -> Running:
        """Sums of an epoch that begins."""
        return Running(self._backend)


class DeviceSteps:
    """Steps that stay on the GPU: the data set lies there, and nothing waits for the host.

    A batch is its size; `step` hands the device its work and returns at once.  Reading `running`, or the loss of a
    step, waits.
    """

    def __init__(
        self, model: SequenceClassifier, optimizer: Optimizer, batches: Batches, clip_norm: float | None
    ) -> None:
        _, T, D = batches.sequences.shape
        self._optimizer, self._source, self._rate = optimizer, batches, optimizer.lr
        self._device = DeviceTrainingStep(
            model.backend,
            model.params.flat,
            (T, D, model.recurrent.hidden_size, model.num_classes),
            np.ascontiguousarray(batches.sequences).reshape(batches.samples, T * D),
            batches.labels,
            scale=float(batches.scale),
            update=update_of(optimizer, clip_norm),
            slots=optimizer.slots,
            steps=optimizer.steps,
        )
        self.batches = self

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._source)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[int]:
        """The sizes of the epoch's batches, after its order has been handed to the device."""
        count = len(self)
        everything = np.arange(self._source.samples)
        parts = [everything[self._source.indices(step)] for step in range(epoch * count, (epoch + 1) * count)]
        self._device.begin_epoch(np.concatenate(parts), sum(map(len, parts[:start])))
        for part in parts[start:]:
            yield len(part)

    def step(self, size: int, number: int) -> tuple[Any, Any, int]:
        """One step on the next `size` samples; loss and correct answers are read when they are made numbers."""
        if self._optimizer.lr != self._rate:
            self._rate = self._optimizer.lr
            self._device.set_learning_rate(self._rate)
        self._device.run(size)
        return _Later(self._device, 0), _Later(self._device, 1), size

    def running(self) -> _DeviceRunning:
        """Sums of an epoch that begins."""
        return _DeviceRunning(self._device, self._optimizer)


class _Later:
    """A number of the last step, read from the device when it is asked for."""

    def __init__(self, device: DeviceTrainingStep, which: int) -> None:
        self._device, self._which = device, which

    def __float__(self) -> float:
        return float(self._device.last_batch()[self._which])

    def __int__(self) -> int:
        return int(self._device.last_batch()[self._which])


class _DeviceRunning:
    """`lstm_np.loop.Running`, summed by the steps themselves."""

    def __init__(self, device: DeviceTrainingStep, optimizer: Optimizer) -> None:
        self._device, self._optimizer, self.count = device, optimizer, 0
        device.reset_totals()

    def add(self, loss: Any, correct: Any, count: int) -> None:
        """The device has added loss and correct answers already."""
        self.count += count

    def read(self) -> Metrics:
        """The means so far; waits until all steps are done, and tells the optimizer how many there were."""
        loss, correct, count = self._device.totals()
        self._optimizer.steps = self._device.steps
        return mean_of(loss, correct, count)


def update_of(optimizer: Optimizer, clip_norm: float | None) -> Update:
    """An optimizer's rule as the device step knows it.  Raises ValueError for one that it does not know."""
    if isinstance(optimizer, Adam):
        return Update(f"adam {optimizer.form}", optimizer.lr, optimizer.betas, optimizer.eps, clip_norm)
    if isinstance(optimizer, SGD):
        name = "sgd nesterov" if optimizer.nesterov else "sgd momentum" if optimizer.momentum else "sgd"
        return Update(name, optimizer.lr, (optimizer.momentum, 0.0), max_norm=clip_norm)
    raise ValueError(f"the device step knows Adam and SGD, found {type(optimizer).__name__}")


def device_can(model: SequenceClassifier, optimizer: Optimizer, batches: Any) -> bool:
    """Whether `DeviceSteps` can train this model: one LSTM layer, Adam or SGD, images in memory as bytes, on CuPy."""
    return (
        model.backend.name == "cupy"
        and all(model.config[name] == value for name, value in PLAIN.items())
        and model.config["forget_bias_at"] == "init"
        and not (model.config["dropout"] and model.config["dropout_outputs"] == "all")
        and model.config["kernel"] == "auto"
        and isinstance(optimizer, (Adam, SGD))
        and isinstance(batches, Batches)
        and batches.sequences.dtype == np.uint8
    )


def choose_steps(
    model: SequenceClassifier, optimizer: Optimizer, batches: Any, clip_norm: float | None
) -> ModelSteps | DeviceSteps:
    """The steps that stay on the GPU where they can be made, the model's otherwise."""
    make: Callable[..., Any] = DeviceSteps if device_can(model, optimizer, batches) else ModelSteps
    return make(model, optimizer, batches, clip_norm)
