"""The training loop: epochs of batches, one step each, with what is measured handed to callbacks.

It knows no model and no file: a step is any function of a batch, and who wants lines, files or plots passes callbacks.
Loss and accuracy are summed where they are computed and read only when someone asks, so a GPU is not waited for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from lstm_np.backends import Backend
from lstm_np.errors import LstmNpError

Array = Any


@dataclass(frozen=True)
class Metrics:
    """Mean loss and accuracy over `count` samples, of which `correct` were right."""

    loss: float
    accuracy: float
    count: int
    correct: int


def mean_of(loss_sum: float, correct: int, count: int) -> Metrics:
    """Metrics from sums over `count` samples; nan for none."""
    if count == 0:
        return Metrics(math.nan, math.nan, 0, 0)
    return Metrics(loss_sum / count, correct / count, count, correct)


class NonFiniteLossError(LstmNpError, ArithmeticError):
    """The loss is no longer a finite number; one line: where, and what usually helps."""


class Running:
    """Sums of loss and correct answers, kept as arrays of the backend until `read`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._loss: Array = 0.0
        self._correct: Array = 0
        self.count = 0

    def add(self, loss: Array, correct: Array, count: int) -> None:
        """Add a batch of `count` samples: its mean loss and its number of correct answers."""
        self._loss = self._loss + loss.astype("float64") * float(count)
        self._correct = self._correct + correct
        self.count += count

    def read(self) -> Metrics:
        """The means so far; waits for the device.  nan before the first batch."""
        loss, correct = self._backend.to_host(self._loss), self._backend.to_host(self._correct)
        return mean_of(float(loss), int(correct), self.count)


@dataclass(frozen=True)
class Step:
    """One training step that was made.  loss and correct can be made numbers, which may wait for a device."""

    number: int  # over the whole run, from 1
    epoch: int  # from 0
    samples: int
    loss: Array
    correct: Array
    running: Sums  # over this epoch so far


@dataclass(frozen=True)
class Epoch:
    """One epoch that ended (or was cut short by a stop or the step limit: then `complete` is False)."""

    number: int  # from 1
    steps: int  # over the whole run so far
    train: Metrics
    validation: Metrics | None
    seconds: float  # training only
    complete: bool


class Sums(Protocol):
    """What sums loss and correct answers over an epoch: `Running`, or something that a device fills by itself."""

    count: int

    def add(self, loss: Any, correct: Any, count: int) -> None:
        """Add a batch of `count` samples."""
        ...

    def read(self) -> Metrics:
        """The means so far; may wait for a device."""
        ...


class BatchSource(Protocol):
    """What the loop needs of a data pipeline."""

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterable[Any]:
        """The batches of an epoch (from 0), from batch `start` on."""
        ...


def train(
    step: Callable[[Any, int], tuple[Array, Array, int]],
    batches: BatchSource,
    backend: Backend,
    *,
    epochs: int,
    max_steps: int | None = None,
    validate: Callable[[], Metrics] | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    stop: Callable[[], bool] | None = None,
    sums: Callable[[], Sums] | None = None,
) -> list[Epoch]:
    """Run up to `epochs` epochs and at most `max_steps` steps; the epochs that were made.

    step      (batch, number of the step from 1) -> (mean loss, correct answers, samples); it updates the parameters
    validate  called after each epoch; its metrics go into the epoch's record
    stop      asked before each step; True ends training after what has been done
    sums      makes what sums an epoch's losses; None: `Running`

    Raises what `step` raises, NonFiniteLossError among it.
    """
    done: list[Epoch] = []
    number = 0
    for epoch in range(epochs):
        running, started, complete = Running(backend) if sums is None else sums(), time.perf_counter(), True
        for batch in batches.epoch(epoch):
            if (stop is not None and stop()) or (max_steps is not None and number >= max_steps):
                complete = False
                break
            number += 1
            loss, correct, samples = step(batch, number)
            running.add(loss, correct, samples)
            if on_step is not None:
                on_step(Step(number, epoch, samples, loss, correct, running))
        if running.count == 0:
            break
        metrics = running.read()
        seconds = time.perf_counter() - started
        validation = validate() if validate is not None else None
        record = Epoch(epoch + 1, number, metrics, validation, seconds, complete)
        done.append(record)
        if on_epoch is not None:
            on_epoch(record)
        if not complete:
            break
    return done
