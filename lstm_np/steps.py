"""A training step in four stages, on any backend:  gradients -> reduce -> check -> apply.

    gradients  loss, correct answers and gradients of a batch                        (the model)
    reduce     what several machines would sum over their shares of the batch        (one machine: nothing to do)
    check      loss and gradient norm are finite, and the norm is made `clip_norm`   (before anything changes)
    apply      the optimizer's update

Each stage is a method, to be replaced one by one in a class of one's own; `ModelSteps.step` is their sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lstm_np.loop import BatchSource, Position, Progress, Running, Steps, Trainable, TrainingDivergedError
from lstm_np.optimizers import Optimizer, check_clip_norm, check_optimizer, clip_by_global_norm, global_norm
from lstm_np.parameters import Parameters

Array = Any


@dataclass
class BatchGradients:
    """What one batch gives: mean loss and correct answers (0-dimensional), how many samples, and the gradients.

    grads  names and shapes of the model's parameters; `grads.flat` is all of them as one vector
    """

    loss: Array
    correct: Array
    samples: int
    grads: Parameters


class Differentiable(Trainable, Protocol):
    """A model that `ModelSteps` can train: `Trainable`, and the gradients of a batch."""

    def batch_gradients(self, batch: Any, number: int, into: Parameters) -> BatchGradients:
        """Loss, correct answers and gradients, written to `into`, of a batch at step `number` (from 1).

        Raises ValueError for a batch that does not fit.
        """
        ...

    def why_not_finite(self, batch: Any) -> str | None:
        """What of a batch or of the parameters is not finite before anything is computed; None: all is finite."""
        ...


class ModelSteps(Steps):
    """Steps by a model and its optimizer, on any backend.

    model      computes the gradients, and holds the position
    optimizer  over `model.params`
    batches    a `BatchSource`, such as `Batches`; None: `step` is called by hand
    clip_norm  upper bound of the norm of all gradients together; None: they are not clipped
    rate       what the learning rate is multiplied with at a step (its number, from 1); None: `optimizer.lr` stays as
               it is.  The full rate is what `optimizer.lr` is now

    Loss and gradient norm are looked at in every step, before a parameter changes, where the backend's reads are free
    (NumPy).  On a GPU that would wait for the device in every step: there `look` asks whether the mean loss and all
    parameters are still finite.

    Raises ValueError when the optimizer was made over other parameters, or for a `clip_norm` that is not above 0.
    """

    def __init__(
        self,
        model: Differentiable,
        optimizer: Optimizer,
        batches: BatchSource | None = None,
        *,
        clip_norm: float | None = None,
        rate: Callable[[int], float] | None = None,
    ) -> None:
        check_optimizer(optimizer, model.params)
        check_clip_norm(clip_norm)
        self.model: Differentiable = model
        self.optimizer: Optimizer = optimizer
        self.sums, self.progress = Running(model.backend), Progress()
        self.clip_norm = clip_norm
        self._batches, self._rate, self._full_rate = batches, rate, optimizer.lr
        self._grads = model.params.empty_like()

    def __len__(self) -> int:
        """Batches per epoch; 0 where there are none."""
        return 0 if self._batches is None else len(self._batches)

    def batches(self, start: Position) -> Iterable[Any]:
        """The batches of the epoch of `start` from there on."""
        return () if self._batches is None else self._batches.epoch(start.epoch, start.batch, step=start.step)

    def step(self, batch: Any, number: int) -> tuple[Array, Array, int]:
        """Make step `number` (from 1) on a batch: (mean loss, correct answers, samples); both are in `sums` then.

        Raises ValueError for a batch that does not fit, TrainingDivergedError (where reads are free) when loss or
        gradient norm is not finite; parameters, optimizer and sums are then as they were.
        """
        if self._rate is not None:
            self.optimizer.lr = self._full_rate * self._rate(number)
        with np.errstate(over="ignore", invalid="ignore"):  # `check` finds what overflows, and says it once
            made = self.check(self.reduce(self.gradients(batch, number)), batch, number)
            self.apply(made)
        self.sums.add(made.loss, made.correct, made.samples)
        return made.loss, made.correct, made.samples

    # ---- the four stages

    def gradients(self, batch: Any, number: int) -> BatchGradients:
        """Loss, correct answers and gradients of a batch; number: of the step, which dropout masks are keyed by."""
        return self.model.batch_gradients(batch, number, self._grads)

    def reduce(self, made: BatchGradients) -> BatchGradients:
        """The same over all machines that share a batch.  Here there is one, and nothing to do."""
        return made

    def check(self, made: BatchGradients, batch: Any, number: int) -> BatchGradients:
        """The gradients as they may be applied: finite, and clipped where that is asked for; the norm is computed once.

        Raises TrainingDivergedError where the loss or the norm is not finite and can be read without waiting.
        """
        norm = global_norm(made.grads)
        if self.model.backend.reads_are_free:
            if not math.isfinite(made.loss):
                raise self._diverged(batch, number, f"the loss is {made.loss:g}")
            if not math.isfinite(norm):
                norm = self._norm_beyond_the_dtype(made, batch, number)
            if self.clip_norm is None or norm <= self.clip_norm:
                return made
        if self.clip_norm is not None:
            clip_by_global_norm(made.grads, self.clip_norm, norm)
        return made

    def apply(self, made: BatchGradients) -> None:
        """Update the parameters."""
        self.optimizer.step(made.grads)

    # ---- what is said when it diverges

    def _norm_beyond_the_dtype(self, made: BatchGradients, batch: Any, number: int) -> Array:
        """The norm of gradients whose squares overflow their dtype; such gradients can only be clipped."""
        norm = np.linalg.norm(made.grads.flat.astype("float64"))
        if self.clip_norm is None or not math.isfinite(norm):
            raise self._diverged(batch, number, f"the loss is {made.loss:g} but the gradient norm is {norm:g}")
        return norm

    def _diverged(self, batch: Any, number: int, found: str) -> TrainingDivergedError:
        reason, cure = self.model.why_not_finite(batch), ""
        if reason is None:
            cure = f"; lower the learning rate (now {self.optimizer.lr:g}) or clip gradients (clip_norm)"
        cause = f" since {reason}" if reason else ""
        kept = "parameters and optimizer are as before this step"
        return TrainingDivergedError(f"training diverged at step {number}: {found}{cause}; {kept}{cure}")
