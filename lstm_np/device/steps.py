"""Steps of the training loop that stay on the GPU: the data set lies there, and nothing waits for the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from lstm_np.data import Batches
from lstm_np.device.memory import Update
from lstm_np.device.step import DeviceTrainingStep, Look
from lstm_np.loop import Position, Progress, Steps, Trainable, TrainingDivergedError
from lstm_np.metrics import Metrics, mean_of
from lstm_np.optimizers import SGD, Adam, Optimizer, check_clip_norm, check_optimizer


class DeviceSteps(Steps):
    """Steps of one LSTM layer and its read-out, all of whose work and data stay on the device.

    model      its parameters are W (4H, D), U (4H, H), b (4H,), then the read-out's W (K, H) and b (K,)
    optimizer  Adam or SGD without weight decay, over them
    batches    of sequences in memory, as bytes or as values
    clip_norm, rate   as in `lstm_np.steps.ModelSteps`

    A batch is its size; `step` hands the device its work and returns at once.  The four stages of a step are kernels of
    one graph: forward and backward; no reduction; the norm and the clipping, where gradients are clipped; the update.
    None of them stops a step whose loss or gradient is not finite.  A `glance` (20 times in an epoch), which is read
    when it has arrived, asks whether the mean loss is finite; `look`, at the end, asks it of all parameters too.
    Reading `sums`, the loss of a step or `state` waits.

    Raises ValueError for another optimizer or one over other parameters, a `clip_norm` that is not above 0, or sizes
    and labels that do not fit.
    """

    def __init__(
        self,
        model: Trainable,
        optimizer: Optimizer,
        batches: Batches,
        *,
        clip_norm: float | None = None,
        rate: Callable[[int], float] | None = None,
    ) -> None:
        check_optimizer(optimizer, model.params)
        check_clip_norm(clip_norm)
        (_, T, D), (K, H) = batches.sequences.shape, model.params["readout.W"].shape
        if model.params["layer0.W"].shape[1] != D:
            expected = model.params["layer0.W"].shape[1]
            raise ValueError(f"the model reads sequences of {expected} features, the batches' have {D}")
        self.model, self.progress = model, Progress()
        self.optimizer: Optimizer = optimizer
        self._source, self._rate, self._full_rate, self._rate_there = batches, rate, optimizer.lr, optimizer.lr
        self._device = DeviceTrainingStep(
            model.backend,
            model.params.flat,
            (T, D, H, K),
            rows_on_device(batches.sequences, model.params.flat.dtype),
            batches.labels,
            scale=float(batches.scale),
            update=update_of(optimizer, clip_norm),
            slots=optimizer.slots,
            steps=optimizer.steps,
        )
        self.sums = DeviceSums(self._device)
        self._ahead: tuple[int, list[np.ndarray]] = (-1, [])  # an epoch, and the samples of each of its batches

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._source)

    def batches(self, start: Position) -> Iterator[int]:
        """The sizes of the batches of the epoch of `start` from there on, after its order has been handed over.

        Behind the last of them the order of the next epoch is drawn: the device is still at work then.
        """
        parts = self._order_of(start.epoch)
        self._device.begin_epoch(np.concatenate(parts), sum(map(len, parts[: start.batch])), self.optimizer.steps)
        for part in parts[start.batch :]:
            yield len(part)
        self._ahead = start.epoch + 1, self._order_of(start.epoch + 1)

    def _order_of(self, epoch: int) -> list[np.ndarray]:
        """The samples of each batch of an epoch, as they were drawn ahead or drawn now."""
        if self._ahead[0] == epoch:
            return self._ahead[1]
        everything, first = np.arange(self._source.samples), epoch * len(self)
        return [everything[self._source.indices(batch)] for batch in range(first, first + len(self))]

    def step(self, batch: int, number: int) -> tuple[Any, Any, int]:
        """Step `number` on the next `batch` samples; loss and correct answers are read when they are made numbers."""
        if self._rate is not None:
            self.optimizer.lr = self._full_rate * self._rate(number)
        if self.optimizer.lr != self._rate_there:
            self._rate_there = self.optimizer.lr
            self._device.set_learning_rate(self._rate_there)
        self._device.run(batch)
        self.optimizer.steps += 1
        self.sums.count += batch
        return _Later(self._device, 0), _Later(self._device, 1), batch

    def glance(self) -> _Coming:
        """As `Steps.glance`: nothing waits."""
        return _Coming(self._device.look(), self.model.position.step)

    def finish(self) -> None:
        """As `Steps.finish`."""
        self._device.finish()

    def description(self) -> dict[str, Any]:
        """As `Steps.description`."""
        launches = self._device.launches
        products = {"products": launches.products, "own_products_because": launches.own_products_because}
        return {"training_step": "device", **products}

    def state(self) -> dict[str, Any]:
        """As `Steps.state`; waits until all steps are done."""
        self.finish()
        return super().state()


class DeviceSums:
    """`lstm_np.loop.Sums` that the steps themselves add to, on the device."""

    def __init__(self, device: DeviceTrainingStep) -> None:
        self._device = device
        self.reset()

    def read(self) -> Metrics:
        """The means so far; waits until all steps are done."""
        return mean_of(*self._device.totals())

    def reset(self) -> None:
        """Begin anew."""
        self._device.set_totals(0.0, 0, 0)
        self.count = 0

    def state(self) -> dict[str, Any]:
        """As `Sums.state`; waits until all steps are done."""
        loss, correct, count = self._device.totals()
        return {"loss": loss, "correct": correct, "count": count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """As `Sums.restore`."""
        self._device.set_totals(state["loss"], state["correct"], state["count"])
        self.count = state["count"]


class _Coming:
    """The means of the epoch after a step, on their way from the device."""

    def __init__(self, look: Look, step: int) -> None:
        self._look, self._step = look, step

    @property
    def ready(self) -> bool:
        """As `Glance.ready`."""
        return self._look.ready

    def read(self) -> Metrics:
        """As `Glance.read`."""
        metrics = mean_of(*self._look.read())
        if not np.isfinite(metrics.loss):
            raise TrainingDivergedError(
                f"training diverged by step {self._step}: the mean loss of the epoch is {metrics.loss:g}; "
                "lower the learning rate or clip gradients (clip_norm)"
            )
        return metrics


class _Later:
    """A number of the last step, read from the device when it is asked for."""

    def __init__(self, device: DeviceTrainingStep, which: int) -> None:
        self._device, self._which = device, which

    def __float__(self) -> float:
        return float(self._device.last_batch()[self._which])

    def __int__(self) -> int:
        return int(self._device.last_batch()[self._which])


def rows_on_device(sequences: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Sequences (N, T, D) as rows (N, T * D), bytes as they are and anything else in the parameters' dtype."""
    dtype = np.uint8 if sequences.dtype == np.uint8 else dtype
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(sequences, dtype).reshape(len(sequences), -1)


def has_update(optimizer: Optimizer) -> bool:
    """Whether the device step knows an optimizer's rule: Adam or SGD without weight decay."""
    return isinstance(optimizer, (Adam, SGD)) and not optimizer.weight_decay


def update_of(optimizer: Optimizer, clip_norm: float | None) -> Update:
    """An optimizer's rule as the device step knows it.  Raises ValueError for one that it does not know."""
    if optimizer.weight_decay:
        raise ValueError(
            f"the device step knows no weight decay, found {type(optimizer).__name__} with weight_decay "
            f"{optimizer.weight_decay:g}; lstm_np.steps.ModelSteps makes such steps on a GPU"
        )
    if isinstance(optimizer, Adam):
        return Update(f"adam {optimizer.form}", optimizer.lr, optimizer.betas, optimizer.eps, clip_norm)
    if isinstance(optimizer, SGD):
        name = "sgd nesterov" if optimizer.nesterov else "sgd momentum" if optimizer.momentum else "sgd"
        return Update(name, optimizer.lr, (optimizer.momentum, 0.0), max_norm=clip_norm)
    raise ValueError(f"the device step knows Adam and SGD, found {type(optimizer).__name__}")
