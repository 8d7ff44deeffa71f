"""The training loop: epochs of batches, one step each, from any position of a run, with callbacks at steps and epochs.

It knows no model and no file.  `train` runs anything that is `Steps`: batches, a step on each of them, and a state to
give and take back.  Where a run stands is a `Position`, and what a step draws at random is a function of it, so that a
run can be entered anywhere: parameters, `Steps.state()` and the position are all that has to be kept.

Loss and accuracy are summed where they are computed and read only when someone looks, so a GPU is not waited for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, overload

from lstm_np.arrays import Array
from lstm_np.backends import Backend
from lstm_np.display.curves import draw_learning_curves
from lstm_np.display.tables import EpochRow, epoch_columns, epoch_head, html_table
from lstm_np.errors import LstmNpError
from lstm_np.metrics import AnyMetrics, Metrics, from_dict
from lstm_np.options import check_count
from lstm_np.parameters import Parameters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS_PER_EPOCH = 20  # at the sums of the losses, for the curve between an epoch's ends
STRETCHES = 60  # of the training loss, in a whole drawn curve: more of them show the chance of the batches, no trend


class TrainingDivergedError(LstmNpError, ArithmeticError):
    """Loss, gradient or parameters are no longer finite numbers; one line: where, what is kept, what usually helps.

    >>> model = lstm_np.SequenceClassifier(3, 8, 2)
    >>> model.params["readout.b"] = np.inf
    >>> model.fit(np.ones((8, 5, 3)), np.zeros(8, int))
    Traceback (most recent call last):
    lstm_np.loop.TrainingDivergedError: training diverged at step 1: the loss is nan since readout.b was not finite ...
    """


NonFiniteLossError = TrainingDivergedError  # its name before the gradient was looked at as well


# ---- where a run stands, and what is known of it


@dataclass(frozen=True)
class Position:
    """Where a run stands: which batch comes next, and how many steps were made.

    epoch  of the next batch, from 0; the order of its samples is a function of it
    batch  of that epoch, from 0; as many as the epoch has: all are done, and the epoch has yet to be measured
    step   steps made so far: the next one is step + 1, the number that dropout masks and learning rates are keyed by
           (augmentation by the number minus 1)

    >>> lstm_np.SequenceClassifier(3, 8, 2).position
    Position(epoch=0, batch=0, step=0)

    Raises ValueError where one of them is no integer of at least 0.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        for name, value in (("epoch", self.epoch), ("batch", self.batch), ("step", self.step)):
            if type(value) is not int or value < 0:
                object.__setattr__(self, name, check_count(f"a position's {name}", value, 0))

    def next_batch(self) -> Position:
        """After one more step.

        >>> lstm_np.Position().next_batch()
        Position(epoch=0, batch=1, step=1)
        """
        return Position(self.epoch, self.batch + 1, self.step + 1)

    def without_batch(self) -> Position:
        """After a batch that is left out: no step was made.

        >>> lstm_np.Position(epoch=0, batch=1, step=1).without_batch()
        Position(epoch=0, batch=2, step=1)
        """
        return Position(self.epoch, self.batch + 1, self.step)

    def next_epoch(self) -> Position:
        """At the first batch of the following epoch.

        >>> lstm_np.Position(epoch=2, batch=1, step=7).next_epoch()
        Position(epoch=3, batch=0, step=7)
        """
        return Position(self.epoch + 1, 0, self.step)


@dataclass(frozen=True)
class Step:
    """One completed training step.  Converting loss and correct to numbers may wait for a device."""

    position: Position  # after it
    samples: int
    loss: Array
    correct: Array  # right answers; of a regressor the sum of the absolute errors
    running: Sums  # over this epoch so far

    @property
    def number(self) -> int:
        """Over the whole run, from 1."""
        return self.position.step

    @property
    def epoch(self) -> int:
        """From 0."""
        return self.position.epoch


@dataclass(frozen=True)
class Epoch:
    """One completed epoch, or one that a stop or the step limit cut short.  Equality ignores the seconds.

    >>> x, labels = np.ones((8, 5, 3)), np.zeros(8, int)
    >>> epoch = lstm_np.SequenceClassifier(3, 8, 2).fit(x, labels)[0]
    >>> epoch.number, epoch.steps, epoch.train.count, epoch.validation, epoch.complete
    (1, 1, 8, None, True)
    """

    number: int  # over the whole run, from 1
    steps: int  # over the whole run so far
    train: Any  # `Metrics` of a classifier, `RegressionMetrics` of a regressor
    validation: Any  # likewise, or None
    seconds: float = field(compare=False)  # training only
    share: float = 1.0  # of its batches that were trained on; below 1 where it was cut short
    # mean loss and accuracy (or absolute error) of the stretches between two looks, in order
    looks: tuple[tuple[float, float], ...] = field(default=(), repr=False)

    @property
    def complete(self) -> bool:
        """Whether all of its batches were trained on."""
        return self.share == 1.0

    def row(self) -> EpochRow:
        """Its line in the table of epochs.

        >>> epoch = lstm_np.Epoch(1, 10, lstm_np.Metrics(0.5, 0.8, 10, 8), None, seconds=0.1)
        >>> epoch.row().line(held=False)
        '    1    0.5000    80.00%        10      0.10'
        """
        pairs = (_pair(self.train), _pair(self.validation))
        return EpochRow(self.number, *pairs, self.steps, self.seconds, self.share, self.train.second)


class History(Sequence[Epoch]):
    """The epochs of a training in order: a sequence of `Epoch`, equal to any list or tuple of the same ones.

    history[-1].train.loss, history[:3], len(history), history + more; it shows as a table, and `plot` draws curves.

    >>> rng = np.random.default_rng(0)
    >>> x, labels = rng.standard_normal((40, 5, 3)), rng.integers(0, 2, 40)
    >>> history = lstm_np.SequenceClassifier(3, 8, 2).fit(x, labels, epochs=2)
    >>> len(history), history[-1].number, history[-1].steps
    (2, 2, 2)
    """

    def __init__(self, epochs: Iterable[Epoch] = ()) -> None:
        self._epochs = tuple(epochs)

    def __len__(self) -> int:
        return len(self._epochs)

    @overload
    def __getitem__(self, index: int) -> Epoch: ...
    @overload
    def __getitem__(self, index: slice) -> History: ...
    def __getitem__(self, index: int | slice) -> Epoch | History:
        return History(self._epochs[index]) if isinstance(index, slice) else self._epochs[index]

    def __eq__(self, other: object) -> bool:
        return self._epochs == tuple(other) if isinstance(other, (History, list, tuple)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Iterable[Epoch]) -> History:
        return History((*self._epochs, *other))

    def __repr__(self) -> str:
        if not self._epochs:
            return "no epochs"
        return "\n".join([*epoch_head(self._held, self._second), *(epoch.row().line(self._held) for epoch in self)])

    def _repr_html_(self) -> str:
        rows = [epoch.row().entries(self._held) for epoch in self]
        return html_table(
            "", epoch_columns(self._held, self._second), rows, "train, then validation" if self._held else ""
        )

    @property
    def _held(self) -> bool:
        return any(epoch.validation is not None for epoch in self)

    @property
    def _second(self) -> str:
        return self._epochs[0].train.second if self._epochs else Metrics.second

    def plot(self, *, held_out: str = "validation", title: str = "") -> Figure:
        """Loss and accuracy (of a regressor the mean absolute error) over the epochs, in training and on what was held
        out: a matplotlib Figure.

        held_out  what to call the data of `Epoch.validation`
        title     over both curves

        >>> history = lstm_np.History([lstm_np.Epoch(1, 10, lstm_np.Metrics(0.5, 0.8, 10, 8), None, seconds=0.1)])
        >>> history.plot(title="one epoch").savefig("history.png")

        Raises MissingPackageError (an ImportError) without matplotlib, and ValueError where there is no epoch to draw,
        which is one in which something counted.
        """
        drawn = [epoch for epoch in self if epoch.train.divisor]
        if not drawn:
            raise ValueError("there is no epoch to draw")
        ends = [epoch.number - 1 + epoch.share for epoch in drawn]
        xs: list[float] = []
        means: list[tuple[float, float]] = []
        for epoch in drawn:
            looks = epoch.looks or ((epoch.train.loss, epoch.train.score),)
            stretches = min(len(looks), -(-STRETCHES // len(drawn)))
            for k in range(stretches):
                part = looks[k * len(looks) // stretches : (k + 1) * len(looks) // stretches]
                xs.append(epoch.number - 1 + epoch.share * (k + 0.5) / stretches)
                means.append((sum(loss for loss, _ in part) / len(part), sum(right for _, right in part) / len(part)))
        held = [(end, epoch.validation) for end, epoch in zip(ends, drawn, strict=True)]
        return draw_learning_curves(
            within=[(x, loss, accuracy) for x, (loss, accuracy) in zip(xs, means, strict=True)],
            train=[(end, epoch.train.score) for end, epoch in zip(ends, drawn, strict=True)],
            held=[(end, metrics.loss, metrics.score) for end, metrics in held if metrics and metrics.divisor],
            held_out=held_out,
            title=title,
            second=self._second,
        )

    def state(self) -> list[dict[str, Any]]:
        """The epochs as plain values.

        >>> history = lstm_np.History([lstm_np.Epoch(1, 10, lstm_np.Metrics(0.5, 0.8, 10, 8), None, seconds=0.1)])
        >>> history.state()[0]["train"]
        {'loss': 0.5, 'accuracy': 0.8, 'count': 10, 'correct': 8}
        """
        return [
            {
                **{item.name: getattr(epoch, item.name) for item in fields(epoch)},
                "train": epoch.train.as_dict(),
                "validation": None if epoch.validation is None else epoch.validation.as_dict(),
            }
            for epoch in self
        ]

    @classmethod
    def from_state(cls, state: Iterable[Mapping[str, Any]]) -> History:
        """The history that gave this state.

        >>> history = lstm_np.History([lstm_np.Epoch(1, 10, lstm_np.Metrics(0.5, 0.8, 10, 8), None, seconds=0.1)])
        >>> lstm_np.History.from_state(history.state()) == history
        True
        """
        epochs = []
        for values in state:
            validation = values["validation"]
            own = {
                "train": from_dict(values["train"]),
                "validation": None if validation is None else from_dict(validation),
                "looks": tuple((loss, accuracy) for loss, accuracy in values["looks"]),
            }
            epochs.append(Epoch(**{**values, **own}))
        return cls(epochs)


def _pair(metrics: AnyMetrics | None) -> tuple[float, float] | None:
    return (metrics.loss, metrics.score) if metrics is not None and metrics.divisor else None


# ---- the epoch under way


class Sums(Protocol):
    """Sums of what metrics are made of over the epoch under way: those of `lstm_np.metrics`, or what a device fills."""

    count: int  # answers: samples, or their steps

    def read(self) -> Any:
        """The means so far; may wait for a device.  nan before the first batch."""
        ...

    def reset(self) -> None:
        """Begin anew."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain values by name; of a classifier {"loss": float, "correct": int, "count": int}."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        ...


class Glance(Protocol):
    """The means of the epoch as they were when the steps so far were made; on a device they take a while to arrive."""

    @property
    def ready(self) -> bool:
        """Whether `read` will not wait."""
        ...

    def read(self) -> Any:
        """The means.  Raises TrainingDivergedError where they are not finite."""
        ...


@dataclass(frozen=True)
class Seen:
    """A `Glance` at what is known already."""

    metrics: AnyMetrics
    ready: bool = True

    def read(self) -> AnyMetrics:
        """The means."""
        return self.metrics


class Progress:
    """How the epoch under way went so far.

    looks    mean loss and accuracy (or absolute error) of the samples between two looks at the sums, in order
    steps    that were made
    seconds  spent in training
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """An epoch begins."""
        self.looks: list[tuple[float, float]] = []
        self.steps = 0
        self._coming: list[Glance] = []
        self._seen: AnyMetrics = Metrics(0.0, 0.0, 0, 0)  # at the last look
        self._spent, self._began = 0.0, math.nan

    def expect(self, glance: Glance) -> None:
        """Keep what a glance will say when it is there; the ones before it come first."""
        self._coming.append(glance)
        while self._coming and self._coming[0].ready:
            self.look(self._coming.pop(0).read())

    def settle(self) -> None:
        """Wait for every glance that is expected; raises what reading one raises."""
        while self._coming:
            self.look(self._coming.pop(0).read())

    def look(self, now: AnyMetrics) -> None:
        """Keep the means of the samples since the last look, if any counted."""
        if now.divisor > self._seen.divisor:
            self.looks, self._seen = list(self._with(now)), now

    def until(self, now: AnyMetrics) -> tuple[tuple[float, float], ...]:
        """The looks, and behind them one at `now` if samples counted since the last; waits for those expected."""
        self.settle()
        return self._with(now)

    def _with(self, now: AnyMetrics) -> tuple[tuple[float, float], ...]:
        return (*self.looks, now.since(self._seen)) if now.divisor > self._seen.divisor else tuple(self.looks)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the seconds of the block, also when it is left by an error."""
        self._began = time.perf_counter()
        try:
            yield
        finally:
            self._spent, self._began = self.seconds, math.nan

    @property
    def seconds(self) -> float:
        """Seconds spent in training so far."""
        return self._spent if math.isnan(self._began) else self._spent + time.perf_counter() - self._began

    def state(self) -> dict[str, Any]:
        """Everything as plain values; waits for the glances that are expected."""
        self.settle()
        looks, seen = [list(look) for look in self.looks], self._seen.as_dict()
        return {"looks": looks, "seen": seen, "seconds": self.seconds, "steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.looks, self._coming = [(loss, accuracy) for loss, accuracy in state["looks"]], []
        self._seen, self._spent = from_dict(state["seen"]), state["seconds"]
        self.steps = state.get("steps", 0)  # checkpoints of earlier versions do not have it


# ---- what the loop runs


class Trainable(Protocol):
    """What steps change: parameters on a backend, and where their training stands."""

    params: Parameters
    backend: Backend
    position: Position


class Stateful(Protocol):
    """Something that gives its state as plain values and NumPy arrays, and takes it back."""

    def state(self) -> dict[str, Any]:
        """The state, its arrays its own."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        ...


class BatchSource(Protocol):
    """What steps need of a data pipeline."""

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0, *, step: int | None = None) -> Iterable[Any]:
        """The batches of an epoch (from 0), from batch `start` on.

        `step`: how many steps were made before (None: as many as `start` and whole epochs before it make).  What is
        drawn at random for a batch may be keyed by it; the order of the samples is a function of the epoch alone.
        """
        ...


class Steps(Protocol):
    """All that `train` needs: batches, a step on each of them, and a state to give and take back.

    model      what is trained; the loop keeps its `position` true after every step
    optimizer  what gathers from step to step
    sums       of what the metrics are made of over the epoch under way; `step` adds to them
    progress   of the epoch under way; the loop looks LOOKS_PER_EPOCH times at the sums

    There are two: `lstm_np.steps.ModelSteps`, gradients -> reduce -> check -> apply on any backend, and
    `lstm_np.device.steps.DeviceSteps`, which stay on a GPU.  `SequenceClassifier.training_steps` chooses.
    A class of one's own that names this one as its base writes __len__, batches and step, and has the rest.
    """

    model: Trainable
    optimizer: Stateful
    sums: Sums
    progress: Progress

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def batches(self, start: Position) -> Iterable[Any]:
        """The batches of the epoch of `start` from there on; what they are is a matter between here and `step`."""
        ...

    def step(self, batch: Any, number: int) -> tuple[Array, Array, int]:
        """Make step `number` (from 1) and add to the sums: (mean loss, correct answers, samples) of the batch.

        Of a regressor the second is the sum of the absolute errors.

        Raises TrainingDivergedError before anything changes, where loss and gradient can be read without waiting.
        """
        ...

    def look(self) -> Any:
        """The means of the epoch so far; waits for a device, and asks there whether training has diverged.

        Raises TrainingDivergedError where the backend's reads are not free, so that steps cannot look themselves, and
        the mean loss or a parameter is not finite any more.  The mean of nothing, which is nan, is no divergence.
        """
        metrics, backend = self.sums.read(), self.model.backend
        if not backend.reads_are_free:
            finite = bool(backend.to_host(backend.xp.isfinite(self.model.params.flat).all()))
            if not finite or (metrics.divisor and not math.isfinite(metrics.loss)):
                raise TrainingDivergedError(
                    f"training diverged by step {self.model.position.step}: the mean loss of the epoch is "
                    f"{metrics.loss:g}, the parameters {'are' if finite else 'are not'} finite; "
                    "lower the learning rate or clip gradients (clip_norm)"
                )
        return metrics

    def glance(self) -> Glance:
        """As `look`, to be read later where waiting would cost a device its time."""
        return Seen(self.look())

    def finish(self) -> None:
        """Wait until all steps that were begun are done.  Nothing to do where `step` returns when its step is done."""
        return

    def description(self) -> dict[str, Any]:
        """By what steps are made, for the record of a run: plain values by name.

        training_step         "layers": the model's; "device": kernels of one graph (`lstm_np.device`), and then
        products              "cuBLAS" or "own kernels"
        own_products_because  why cuBLAS is not used where it would be faster, or None
        """
        return {"training_step": "layers"}

    def state(self) -> dict[str, Any]:
        """What has to be kept besides parameters and position: plain values and NumPy arrays, by name.

        {"optimizer": `Optimizer.state()`, "sums": `Sums.state()`, "progress": `Progress.state()`}
        """
        return {"optimizer": self.optimizer.state(), "sums": self.sums.state(), "progress": self.progress.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; parameters are set before, and `train` is told the position.

        Raises ValueError, and changes nothing, where it is not of such an optimizer.
        """
        self.optimizer.restore(state["optimizer"])
        self.sums.restore(state["sums"])
        self.progress.restore(state["progress"])


def train(
    steps: Steps,
    start: Position | None = None,
    *,
    epochs: int,
    max_steps: int | None = None,
    validate: Callable[[], Any] | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_epoch: Callable[[Epoch], object] | None = None,
    stop: Callable[[], bool] | None = None,
    leave_out: Callable[[Position], bool] | None = None,
    on_divergence: Callable[[TrainingDivergedError], bool] | None = None,
) -> History:
    """Train from `start` until `epochs` epochs and at most `max_steps` steps of the run are made; the epochs made.

    steps      such as `SequenceClassifier.training_steps` gives
    start      None: where the model stands (`steps.model.position`).  In the middle of an epoch the steps' state must
               be that of this position (`Steps.restore`), or the epoch's sums are of its rest alone
    epochs     of the whole run, from its beginning: a run that stands at epoch 3 of 5 makes two more
    max_steps  likewise; it may end within an epoch
    validate   called after each epoch; its metrics go into the epoch's record.  None: it was cut short; training ends,
               and the model's position is still that of the epoch that has yet to be measured
    on_step    called after each step, on_epoch after each epoch, also after one that was cut short; True ends training
    stop       asked before each step; True ends training after what has been done
    leave_out  asked before each step, with the position of its batch; True: no step is made on it
    on_divergence  asked when a step has diverged, before anything has changed; True: its batch is left out

    >>> from lstm_np.loop import train
    >>> rng = np.random.default_rng(0)
    >>> x, labels = rng.integers(0, 256, (40, 5, 3), np.uint8), rng.integers(0, 2, 40)
    >>> batches = lstm_np.data.Batches(x, labels, 16, scale=1 / 255)  # 3 in each epoch
    >>> model = lstm_np.SequenceClassifier(3, 8, 2)
    >>> steps = model.training_steps(lstm_np.Adam(model.params), batches)
    >>> history = train(steps, epochs=9, max_steps=4)
    >>> model.position
    Position(epoch=1, batch=1, step=4)

    Parameters, state and position are enough to go on elsewhere, with the same bits as if nothing had happened:

    >>> state, position = steps.state(), model.position
    >>> other = model.copy()
    >>> again = other.training_steps(lstm_np.Adam(other.params), batches)
    >>> again.restore(state)
    >>> rest = train(again, position, epochs=2)
    >>> rest == train(steps, epochs=2), (model.params.flat == other.params.flat).all().item()
    (True, True)

    Raises what `steps` and the callbacks raise, TrainingDivergedError among it; the model's position is then that of
    the last step that was made, and no step is under way any more.  ValueError for steps without batches or a position
    that their epochs do not have.
    """
    epochs = check_count("epochs", epochs, 1)
    if max_steps is not None:
        check_count("max_steps", max_steps, 0)
    model, sums, progress, size = steps.model, steps.sums, steps.progress, len(steps)
    here = model.position if start is None else start
    if size < 1:
        raise ValueError("there are no batches to train on")
    if here.batch > size:
        raise ValueError(f"the run stands at batch {here.batch} of an epoch of {size} batches")
    if here.batch == 0:
        sums.reset()
        progress.reset()
    model.position = here
    done: list[Epoch] = []
    every, stopped = -(-size // LOOKS_PER_EPOCH), False
    try:
        while here.epoch < epochs and not stopped:
            with progress.timed():
                left_out = True
                while left_out and not stopped and here.batch < size:
                    left_out = False
                    for batch in steps.batches(here):
                        if (stop is not None and stop()) or (max_steps is not None and here.step >= max_steps):
                            stopped = True
                            break
                        left_out = leave_out is not None and leave_out(here)
                        try:
                            made = None if left_out else steps.step(batch, here.step + 1)
                        except TrainingDivergedError as error:
                            if on_divergence is None or not on_divergence(error):
                                raise
                            left_out = True
                        if left_out or made is None:  # batches behind it are keyed by the steps made: ask anew
                            model.position = here = here.without_batch()
                            break
                        loss, correct, samples = made
                        progress.steps += 1
                        model.position = here = here.next_batch()
                        # the last look of an epoch is at its end: a short last batch alone would stand out
                        if here.batch % every == 0 and here.batch + every < size:
                            progress.expect(steps.glance())
                        if on_step is not None:
                            on_step(Step(here, samples, loss, correct, sums))
                progress.settle()
                # where nothing counted there is a record of nan, but none where all batches were left out
                metrics = steps.look() if progress.steps or sums.count else None
            record = None
            if metrics is not None:
                validation = validate() if validate is not None else None
                stopped = stopped or (validate is not None and validation is None)
                looks, share = progress.until(metrics), here.batch / size
                record = Epoch(here.epoch + 1, here.step, metrics, validation, progress.seconds, share, looks)
                done.append(record)
            if not stopped:
                model.position = here = here.next_epoch()
                sums.reset()
                progress.reset()
            if record is not None and on_epoch is not None and on_epoch(record) is True:
                stopped = True
    except BaseException:
        with suppress(Exception):  # a device that has failed would say so again
            steps.finish()
        raise
    return History(done)
