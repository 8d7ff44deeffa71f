"""A training step in four stages, on any backend:  gradients -> reduce -> check -> apply.

    gradients  loss, correct answers and gradients of a batch                        (the model)
    reduce     what several machines would sum over their shares of the batch        (one machine: nothing to do)
    check      loss, gradients, parameters and what the optimizer keeps are finite, and the gradients' norm is made
               `clip_norm`                                                           (before anything changes)
    apply      the optimizer's update

Each stage is a method, to be replaced one by one in a class of one's own; `ModelSteps.step` is their sequence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from lstm_np.arrays import Array, State
from lstm_np.divergence import NotFinite
from lstm_np.loop import BatchSource, Position, Progress, Steps, Trainable, TrainingDivergedError
from lstm_np.optimizers import Optimizer, check_clip_norm, check_optimizer, clip_by_global_norm, global_norm
from lstm_np.parameters import Parameters


@dataclass
class BatchGradients:
    """What one batch gives: mean loss and correct answers (0-dimensional), how many samples, and the gradients.

    grads  names and shapes of the model's parameters; `grads.flat` is all of them as one vector
    final  the state after the batch, as that of a `TrainingBatch`; None where nobody may ask for it
    of     what sums of metrics are made of besides (`lstm_np.metrics`); None where each sequence counts 1
    parts  of a step that is made of several batches: what each of them gave, without gradients of its own
    """

    loss: Array
    correct: Array
    samples: int
    grads: Parameters
    final: Sequence[State] | None = None
    of: Any = None
    parts: Sequence[BatchGradients] = ()

    @property
    def weight(self) -> float:
        """What the mean loss was divided by."""
        return float(self.samples if self.of is None else self.of.weight)


class TrainingBatch(NamedTuple):
    """A batch of which more is said than x and labels.

    x, labels   as `SequenceClassifier.loss_and_gradients` takes x and y
    real        lengths (B,) or a mask (B, T): the steps that the sequences have; None: all
    weights     (B,), what each sequence counts, or of a model that reads each step (B, T); None: 1 each
    state       where its sequences begin, per layer and direction, parts (H, B); None: the initial state
    resets      (B,) booleans: sequences that begin from the initial state all the same; None: none does
    truncation  (k1, k2) of truncated backpropagation, see `lstm_np.layers.truncation`; None: all steps
    part        what its dropout masks are keyed by besides the number of the step
    """

    x: Array
    labels: Array
    real: Any = None
    weights: Any = None
    state: Sequence[State] | None = None
    resets: Array | None = None
    truncation: tuple[int, int] | None = None
    part: tuple[int | str, ...] = ()


class Differentiable(Trainable, Protocol):
    """A model that `ModelSteps` can train: `Trainable`, and the gradients of a batch."""

    def batch_gradients(self, batch: Any, number: int, into: Parameters) -> BatchGradients:
        """Loss, correct answers and gradients, written to `into`, of a batch at step `number` (from 1).

        Raises ValueError for a batch that does not fit.
        """
        ...

    def new_sums(self) -> Any:
        """Sums of what its metrics are made of, before the first batch: `lstm_np.metrics.Running`, or another."""
        ...

    def not_finite_before(self, batch: Any) -> NotFinite | None:
        """What of a batch or of the parameters is not finite before anything is computed; None: all is finite."""
        ...

    def not_finite_in(self, arrays: Parameters, what: str) -> NotFinite | None:
        """What is not finite in arrays with the names of the parameters; `what` says what such an array is."""
        ...

    def not_finite_within(self, batch: Any, number: int) -> NotFinite | None:
        """The first value that is not finite when step `number` is computed on a batch."""
        ...


class ModelSteps(Steps):
    """Steps by a model and its optimizer, on any backend.

    model      computes the gradients, and holds the position
    optimizer  over `model.params`
    batches    a `BatchSource`, such as `Batches`; None: `step` is called by hand
    clip_norm  upper bound of the norm of all gradients together; None: they are not clipped
    rate       what the learning rate is multiplied with at a step (its number, from 1); None: `optimizer.lr` stays as
               it is.  The full rate is what `optimizer.lr` is now
    truncation  (k1, k2) of truncated backpropagation; None: all steps
    accumulate  k: a step is made of k batches, whose gradients are added, each with the weight that its mean loss has;
                what `step` takes is a list of them, and an epoch has a k-th of the steps

    Loss and gradient norm are looked at in every step, before a parameter changes, where the backend's reads are free
    (NumPy).  On a GPU that would wait for the device in every step: there `look` asks whether the mean loss and all
    parameters are still finite.

    Raises ValueError when the optimizer was made over other parameters, for a `clip_norm` that is not above 0, and for
    `Batches` whose next batch overwrites the last (reuse) where a step is made of several.
    """

    def __init__(
        self,
        model: Differentiable,
        optimizer: Optimizer,
        batches: BatchSource | None = None,
        *,
        clip_norm: float | None = None,
        rate: Callable[[int], float] | None = None,
        truncation: tuple[int, int] | None = None,
        accumulate: int = 1,
    ) -> None:
        check_optimizer(optimizer, model.params)
        check_clip_norm(clip_norm)
        self.model: Differentiable = model
        self.optimizer: Optimizer = optimizer
        self.sums, self.progress = model.new_sums(), Progress()
        self.clip_norm = clip_norm
        self._batches, self._rate, self._full_rate, self._truncation = batches, rate, optimizer.lr, truncation
        self._grads, self._accumulate = model.params.empty_like(), accumulate
        if accumulate > 1:
            self._part = model.params.empty_like()  # the gradients of one of the batches of a step
            if getattr(batches, "reuse", False):
                raise ValueError("a step of several batches needs arrays of their own for each: Batches(reuse=False)")

    def __len__(self) -> int:
        """Steps per epoch; 0 where there are no batches."""
        return 0 if self._batches is None else -(-len(self._batches) // self._accumulate)

    def batches(self, start: Position) -> Iterable[Any]:
        """What the steps of the epoch of `start` are made on, from there on: batches, or lists of them."""
        if self._batches is None:
            return ()
        k = self._accumulate
        found = self._batches.epoch(start.epoch, start.batch * k, step=start.step * k)
        return found if k == 1 else _in_lists(found, k)

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
        for part in made.parts or (made,):
            self.sums.add(part.loss, part.correct, part.samples, part.of)
        return made.loss, made.correct, made.samples

    # ---- the four stages

    def gradients(self, batch: Any, number: int) -> BatchGradients:
        """Loss, correct answers and gradients of a batch; number: of the step, which dropout masks are keyed by."""
        if self._accumulate > 1:
            return self._added(batch, number)
        return self.model.batch_gradients(self._truncated(batch), number, self._grads)

    def _truncated(self, batch: Any) -> Any:
        """The batch, told how far gradients are followed back in it."""
        return batch if self._truncation is None else TrainingBatch(*batch)._replace(truncation=self._truncation)

    def _added(self, batches: Sequence[Any], number: int) -> BatchGradients:
        """As `gradients`, of several batches as if they were one.  Raises ValueError for what is no list of them."""
        if not isinstance(batches, list) or not all(isinstance(one, (list, tuple)) and len(one) > 1 for one in batches):
            raise ValueError(
                f"with accumulate={self._accumulate} a step is made of a list of batches, [(x, y), ...]; found a "
                f"{type(batches).__name__}{' of other things' if isinstance(batches, list) else ''}"
            )
        parts, total = [], 0.0
        self._grads.flat[...] = 0
        for k, batch in enumerate(batches):
            made = self.model.batch_gradients(_keyed(self._truncated(batch), k), number, self._part)
            self._grads.flat[...] += self._part.flat * made.weight
            total += made.weight
            parts.append(made)
        total = total or 1.0  # nothing counts: loss and gradients are 0
        self._grads.flat[...] /= total
        loss = sum(made.loss * made.weight for made in parts) / total
        correct, samples = sum(made.correct for made in parts), sum(made.samples for made in parts)
        return BatchGradients(loss, correct, samples, self._grads, parts=parts)

    def reduce(self, made: BatchGradients) -> BatchGradients:
        """The same over all machines that share a batch.  Here there is one, and nothing to do."""
        return made

    def check(self, made: BatchGradients, batch: Any, number: int) -> BatchGradients:
        """The gradients as they may be applied: finite, and clipped where that is asked for; the norm is computed once.

        Raises TrainingDivergedError where the loss, the norm, a parameter or what the optimizer keeps is not finite and
        can be read without waiting.
        """
        norm = global_norm(made.grads)
        if self.model.backend.reads_are_free:
            if not math.isfinite(made.loss):
                raise self._diverged(made, batch, number, f"the loss is {made.loss:g}")
            if not math.isfinite(norm):
                norm = self._norm_beyond_the_dtype(made, batch, number)
            if not self._state_may_be_finite() and self._not_finite_kept() is not None:
                raise self._diverged(made, batch, number, f"the loss is {made.loss:g}")
            if self.clip_norm is None or norm <= self.clip_norm:
                return made
        if self.clip_norm is not None:
            clip_by_global_norm(made.grads, self.clip_norm, norm)
        return made

    def apply(self, made: BatchGradients) -> None:
        """Update the parameters."""
        self.optimizer.step(made.grads)

    def _state_may_be_finite(self) -> bool:
        """False where a parameter or a slot of the optimizer is not finite (or a product of them overflows).

        An infinity or NaN in either of two vectors makes their inner product one, so each vector is read once.
        """
        vectors = [self.model.params.flat, *self.optimizer.slots.values()]
        vectors += vectors[-1:] if len(vectors) % 2 else []
        inner = self.model.backend.inner
        return all(math.isfinite(inner(a, b)) for a, b in zip(vectors[::2], vectors[1::2], strict=True))

    # ---- what is said when it diverges

    def _not_finite_kept(self) -> NotFinite | None:
        """What is not finite in the parameters or the optimizer's slots."""
        vectors = {"{name} was not finite already": self.model.params.flat}
        vectors |= {
            f"the optimizer's {slot} of {{name}} was not finite already": v for slot, v in self.optimizer.slots.items()
        }
        for what, vector in vectors.items():
            found = self.model.not_finite_in(self.model.params.like(vector), what)
            if found is not None:
                return found
        return None

    def _norm_beyond_the_dtype(self, made: BatchGradients, batch: Any, number: int) -> Array:
        """The norm of gradients whose squares overflow their dtype; such gradients can only be clipped."""
        norm = np.linalg.norm(made.grads.flat.astype("float64"))
        if self.clip_norm is None or not math.isfinite(norm):
            raise self._diverged(made, batch, number, f"the loss is {made.loss:g} but the gradient norm is {norm:g}")
        return norm

    def _diverged(self, made: BatchGradients, batch: Any, number: int, found: str) -> TrainingDivergedError:
        """The error that names the first value that is not finite: of what was there before, else on the way."""
        batches, cure = batch if self._accumulate > 1 else (batch,), ""
        cause, at = _first(self.model.not_finite_before(one) for one in batches)
        cause = cause or self._not_finite_kept()
        if cause is not None:
            found += f" since {cause.told(self._samples(at))}"
        else:
            cure = f"; lower the learning rate (now {self.optimizer.lr:g}) or clip gradients (clip_norm)"
            within, at = _first(self.model.not_finite_within(_keyed(one, k), number) for k, one in enumerate(batches))
            given = self.model.not_finite_in(made.grads, "the gradient of {name} is not finite")
            if within is not None:
                found += f"; the first value that is not finite is {within.told(self._samples(at))}"
            elif given is not None:
                found += f"; {given.told()}, though all is finite when it is computed again"
            elif not math.isfinite(made.loss):
                found += ", though all is finite when it is computed again"
        kept = "parameters and optimizer are as before this step"
        return TrainingDivergedError(f"training diverged at step {number}: {found}; {kept}{cure}")

    def _samples(self, k: int = 0) -> Sequence[int] | None:
        """Which samples the batch at the model's position holds, or the k-th of them, where the source can tell."""
        indices, position, source = getattr(self._batches, "indices", None), self.model.position, self._batches
        if indices is None or source is None or position.batch >= len(self):
            return None
        found = indices(position.epoch * len(source) + position.batch * self._accumulate + k)
        return range(found.start, found.stop) if isinstance(found, slice) else found


def _keyed(batch: Any, k: int) -> Any:
    """The k-th batch of a step, whose dropout masks are keyed by that too."""
    return TrainingBatch(*batch)._replace(part=("accumulated", k)) if k else batch


def _first(found: Iterable[NotFinite | None]) -> tuple[NotFinite | None, int]:
    """The first that is something, and which it is; nothing after it is asked for."""
    return next(((one, k) for k, one in enumerate(found) if one is not None), (None, 0))


def _in_lists(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` batches; the last one may be shorter."""
    iterator = iter(batches)
    while found := list(itertools.islice(iterator, size)):
        yield found


class StatefulSteps(ModelSteps):
    """`ModelSteps` of which each goes on where the one before ended: sample k of a batch from sample k of that before.

    resets   (N,) booleans for the samples of `batches` in their order: which begin from the initial state all the
             same; None: none does
    carried  the state between two batches, as that of a `TrainingBatch`; None: the initial state

    No gradient goes from a batch into the one before: over sequences that are cut into batches of T steps this is
    truncated backpropagation with k1 = k2 = T.  The order of the batches is that of the samples, all of one size.  An
    epoch begins from the initial state; batches that are stepped on by hand go on until `reset`.  The carried state is
    part of `state`, so that a run which is resumed goes on with it.

    Raises ValueError as `ModelSteps`, and for `resets` of another length.
    """

    def __init__(
        self,
        model: Differentiable,
        optimizer: Optimizer,
        batches: BatchSource | None = None,
        *,
        resets: np.ndarray | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, optimizer, batches, **settings)
        self.carried: Sequence[State] | None = None
        self._resets = resets
        self._final: Sequence[State] | None = None
        self._ended: np.ndarray | None = None

    def batches(self, start: Position) -> Iterable[Any]:
        """The batches of the epoch of `start` from there on, each with its samples' `resets`."""
        if start.batch == 0:
            self.reset()
        for number, batch in enumerate(super().batches(start), start.batch):
            first, B = number * len(batch[0]), len(batch[0])
            resets = None if self._resets is None else self._resets[first : first + B]
            yield TrainingBatch(*batch)._replace(resets=resets)

    def step(self, batch: Any, number: int) -> tuple[Array, Array, int]:
        """As `ModelSteps.step`; the state goes on only where the step was made."""
        batch = TrainingBatch(*batch)
        if self._ended is not None:
            resets = self._ended if batch.resets is None else batch.resets | self._ended
            batch = batch._replace(resets=resets)
        made = super().step(batch._replace(state=self.carried), number)
        self.carried, self._ended = self._final, None
        return made

    def gradients(self, batch: Any, number: int) -> BatchGradients:
        """As `ModelSteps.gradients`."""
        made = super().gradients(batch, number)
        self._final = made.final
        return made

    def reset(self, samples: Sequence[int] | None = None) -> None:
        """The next batch begins from the initial state: all of it, or those of its samples, integers.

        Raises IndexError for a sample that the batch before did not have.
        """
        if samples is None or self.carried is None:
            self.carried = self._ended = None
            return
        self._ended = np.zeros(self.carried[0][0].shape[1], bool) if self._ended is None else self._ended
        self._ended[list(samples)] = True

    def state(self) -> dict[str, Any]:
        """As `loop.Steps.state`, with "carried", per layer and direction the parts of the carried state, and "ended",
        which samples are to begin from the initial state; None where there is nothing to say."""
        to_host = self.model.backend.to_host
        parts = None if self.carried is None else [[to_host(part).copy() for part in state] for state in self.carried]
        ended = None if self._ended is None else self._ended.copy()
        return {**super().state(), "carried": parts, "ended": ended}

    def restore(self, state: Mapping[str, Any]) -> None:
        """As `loop.Steps.restore`."""
        super().restore(state)
        from_host, parts = self.model.backend.from_host, state["carried"]
        self.carried = None if parts is None else [tuple(from_host(part).copy() for part in one) for one in parts]
        self._ended = None if state["ended"] is None else state["ended"].copy()
