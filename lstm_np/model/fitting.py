"""What all sequence models are: `SequenceModel`, with its training, step by step and as `fit`."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Self

import numpy as np

from lstm_np import callbacks as between
from lstm_np import divergence, options
from lstm_np.arrays import Array
from lstm_np.backends import Backend, as_array
from lstm_np.checkpoints import DEFAULT, KEEP, Checkpoint, CheckpointError, Checkpoints, Every, Keeper, fingerprint
from lstm_np.data import Batches
from lstm_np.device.steps import DeviceSteps, has_update
from lstm_np.display.tables import (
    EpochTable,
    is_notebook,
    is_terminal,
    loss_in_words,
    score_in_words,
    score_name,
)
from lstm_np.kernels.reference import ReferenceKernel
from lstm_np.layers import Parameters
from lstm_np.layers.stream import refuse_reverse
from lstm_np.layers.truncation import check_truncation, refuse_lengths
from lstm_np.loop import BatchSource, Epoch, History, Position, Step, Steps, train
from lstm_np.losses import refuse_probabilities
from lstm_np.model.evaluation import EvaluatedNetwork
from lstm_np.model.inputs import DataSet
from lstm_np.optimizers import Adam, Optimizer
from lstm_np.options import check_count
from lstm_np.other_names import with_hints_of_method
from lstm_np.packing import named, read
from lstm_np.steps import BatchGradients, ModelSteps, StatefulSteps, TrainingBatch
from lstm_np.weights import WeightsError


def _plain_values(optimizer: Optimizer) -> dict[str, Any]:
    """The arguments of an optimizer, as JSON has them."""
    values = optimizer.arguments().items()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values}


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def _verbosity(verbose: Any) -> int:
    """0, 1 or 2, see `SequenceClassifier.fit`.  Raises ValueError for anything else."""
    if isinstance(verbose, str) and verbose == "auto":
        return int(is_terminal() or is_notebook())
    if isinstance(verbose, (bool, int, np.bool_, np.integer)) and 0 <= verbose <= 2:
        return int(verbose)
    raise ValueError(f'verbose must be "auto", 0, 1 or 2, found {verbose!r}')


def _four_parts(validation_data: Any) -> tuple[Any, ...]:
    """x, y, lengths or mask or None, and weights or None.  Raises ValueError for what is not such a tuple."""
    parts = "(x, y[, lengths or mask or None[, sample weights]])"
    if not isinstance(validation_data, (tuple, list)):
        raise ValueError(f"validation_data must be {parts}, found {type(validation_data).__name__}")
    if len(validation_data) not in (2, 3, 4):
        kind = type(validation_data).__name__
        raise ValueError(f"validation_data must be {parts}, found a {kind} of {len(validation_data)}")
    x, y, real, weights = (*validation_data, None, None)[:4]
    real = None if real is None else as_array(real, "validation_data: lengths or a mask")
    if real is not None and real.dtype.kind == "f":
        raise ValueError(
            f"validation_data must be {parts}, found floating-point numbers as its third part; sample weights are the "
            "fourth: (x, y, None, weights)"
        )
    return x, y, real, weights


def _where(step: Step, epochs: int, batches: int) -> str:
    """Where an epoch stands, in a line."""
    metrics = step.running.read()
    second = f"{score_name(metrics.second)} {score_in_words(metrics.second, metrics.score)}"
    return (
        f"epoch {step.epoch + 1}/{epochs}   batch {step.position.batch}/{batches}   "
        f"loss {loss_in_words(metrics.loss)}   {second}"
    )


class SequenceModel(EvaluatedNetwork):
    """What `SequenceClassifier` and `SequenceRegressor` share: a model of recurrent layers and a dense read-out.

    It is a base class, such as for `isinstance`; models are made by the two, or by `lstm_np.load`.

    >>> [isinstance(model, lstm_np.SequenceModel) for model in (lstm_np.SequenceRegressor(3, 8), lstm_np.LSTM(3, 8))]
    [True, False]
    """

    @with_hints_of_method
    def loss_and_gradients(
        self,
        x: Array,
        y: Array,
        *,
        lengths: Any = None,
        mask: Any = None,
        sample_weight: Any = None,
        check_logits: bool = False,
        dropout_key: Sequence[int | str] | None = None,
        hold: Any = None,
        truncation: tuple[int, int] | None = None,
    ) -> tuple[float, Parameters]:
        """(mean loss, gradients with the names and shapes of `params`) of a batch.

        x (B, T, D) or a list of arrays (T_i, D), and targets y as `fit` takes them.  `lengths` (B,) or a `mask` (B, T):
        the steps that the sequences have, as for `LSTM.forward`.  `sample_weight` (B,): what each sequence counts in
        the mean; of a model that reads each step (B, T) too.  `check_logits` refuses logits that look like
        probabilities.  `hold`: values of the cell to be held, {"f": 1.0} or a list of `lstm_np.Hold`; no gradient goes
        through them.  `truncation` (k1, k2): the gradient is followed back through the last k2 steps alone, as for
        `lstm_np.LSTM.forward`; of a loss after the last step k1 changes nothing.

        >>> model = lstm_np.SequenceClassifier(3, 8, 2)
        >>> loss, grads = model.loss_and_gradients(np.ones((4, 5, 3)), [0, 1, 1, 0])
        >>> model.params.flat -= 0.1 * grads.flat  # a step of gradient descent by hand

        Raises ValueError when a shape does not fit, x is not finite, a target is none of the model's, a hold names
        nothing in the model, or for a truncation of a bidirectional model or with lengths; OptionError for another
        truncation than 1 <= k1 <= k2.
        """
        truncation = check_truncation(truncation)
        x, real = read(x, lengths, mask, self.backend.to_host)
        x, packing = self._enter_real(x, real)
        refuse_lengths(truncation, packing)
        targets = self._enter_targets(y, x.shape[2], x.shape[1], real, sample_weight, whole=True)
        check = (lambda logits: refuse_probabilities(self.backend, logits)) if check_logits else None
        batch = TrainingBatch(x, targets, packing, truncation=truncation)
        made = self.backpropagate(batch, dropout_key=dropout_key, check=check, holds=self.read_holds(hold))
        return self.backend.to_host(made.loss).item(), made.grads

    # ---- training

    def training_steps(
        self,
        optimizer: Optimizer,
        batches: BatchSource | None = None,
        *,
        clip_norm: float | None = None,
        rate: Callable[[int], float] | None = None,
        truncation: tuple[int, int] | None = None,
        resets: Array | None = None,
        accumulate: int = 1,
    ) -> Steps:
        """What `lstm_np.loop.train` runs: steps on `batches` by this model and an optimizer over its `params`.

        batches    of (x (B, T, D), targets as `fit` takes them), such as `lstm_np.data.Batches`; None: `step` is called
                   by hand.  A batch may have a third part, lengths (B,) or a mask (B, T) or None, and a fourth, sample
                   weights (B,), or (B, T) of a model that reads each step.  Floating-point targets of classes are
                   probabilities (soft labels) in all batches, also in one in which all are one-hot
        clip_norm  upper bound of the norm of all gradients together
        rate       what the learning rate is multiplied with at a step (its number, from 1)
        truncation, resets, accumulate  as for `fit`; with accumulate=k, `step` takes a list of batches

        The steps of a stateful model are `lstm_np.steps.StatefulSteps`.  Others stay on the GPU where they can
        (`lstm_np.device`: one LSTM layer, Adam or SGD without weight decay, `Batches` that fit into half of the memory
        that is free there), and are gradients -> reduce -> check -> apply (`lstm_np.steps`) otherwise.

        >>> model = lstm_np.SequenceClassifier(3, 8, 2)
        >>> steps = model.training_steps(lstm_np.Adam(model.params), clip_norm=1.0)
        >>> loss, correct, samples = steps.step((np.ones((4, 5, 3)), [0, 1, 1, 0]), number=1)
        >>> samples
        4

        Raises ValueError for an optimizer over other parameters, a clip_norm that is not above 0, resets for a model
        that is not stateful, and a truncation where a direction is reverse; OptionError for another truncation than
        1 <= k1 <= k2.
        """
        truncation, accumulate = check_truncation(truncation), check_count("accumulate", accumulate, 1)
        if truncation is not None:
            refuse_reverse(self.recurrent, "truncated backpropagation")
        settings: dict[str, Any] = {"clip_norm": clip_norm, "rate": rate}
        if self.stateful:
            if accumulate > 1:
                raise ValueError(
                    "each batch of a stateful model goes on from the state of the one before, so each makes a step: "
                    "accumulate must be 1"
                )
            samples = batches.samples if isinstance(batches, Batches) else len(() if resets is None else resets)
            resets = self._enter_resets(resets, samples)
            return StatefulSteps(self, optimizer, batches, truncation=truncation, resets=resets, **settings)
        if resets is not None:
            raise ValueError("resets are those of a model with stateful=True; every sequence of others begins anew")
        alone = truncation is None and accumulate == 1
        if alone and isinstance(batches, Batches) and self._stay_on_device(optimizer, batches):
            return DeviceSteps(self, optimizer, batches, **settings)
        return ModelSteps(self, optimizer, batches, truncation=truncation, accumulate=accumulate, **settings)

    def _stay_on_device(self, optimizer: Optimizer, batches: Batches) -> bool:
        return (
            has_update(optimizer)
            and batches.plain
            and not (self.config["dropout"] and self.config["dropout_outputs"] == "all")
            and self._device_can(batches.sequences)
        )

    def batch_gradients(self, batch: tuple[Array, ...], number: int, into: Parameters) -> BatchGradients:
        """Loss, correct answers and gradients, written to `into`, of a batch (x, y) as in `loss_and_gradients`.

        The batch may have more parts, as for `training_steps`, or be a `lstm_np.steps.TrainingBatch`.

        `number`, the step's, from 1, is what its dropout masks are keyed by.  Nothing waits for a device.
        Raises ValueError when a shape does not fit or a target is none of the model's.
        """
        entered = self._enter_batch(batch)
        return self.backpropagate(entered, into, dropout_key=(number, *entered.part))

    def _enter_batch(self, batch: tuple[Array, ...]) -> TrainingBatch:
        """A batch entered; the values of x are not looked at."""
        x, y, real, weights, state, resets, truncation, part = TrainingBatch(*batch)
        x, real = read(x, **named(real), to_host=self.backend.to_host)
        entered, packing = self._convert(x, real)
        _, T, B = entered.shape
        targets = self._enter_targets(y, B, T, real, weights)
        refuse_lengths(truncation, packing)
        self._check_carried(state, B)
        resets = self.recurrent.enter_resets(resets, B)
        return TrainingBatch(entered, targets, packing, None, state, resets, truncation, part)

    def new_sums(self) -> Any:
        """As `lstm_np.steps.Differentiable.new_sums`."""
        return self.head.sums()

    def not_finite_before(self, batch: tuple[Array, ...]) -> divergence.NotFinite | None:
        """What is not finite before anything is computed: x of a batch, in the model's dtype, or a parameter."""
        x, _, real, _ = self._parts(batch)
        entered, packing = self._convert(x, real)
        entered = entered if packing is None else packing.cleaned(entered)
        bad = divergence.in_input(self.backend.to_host(entered), self.dtype)
        return bad or self.not_finite_in(self.params, "{name} was not finite already")

    def not_finite_in(self, arrays: Parameters, what: str) -> divergence.NotFinite | None:
        """What is not finite in arrays with the names of `params`; `what` as for `lstm_np.divergence.in_arrays`."""
        gates = {single.name: self.recurrent.cell.gates for single in self.recurrent.singles}
        return divergence.in_arrays({n: self.backend.to_host(a) for n, a in arrays.items()}, what, gates)

    def not_finite_within(self, batch: tuple[Array, ...], number: int) -> divergence.NotFinite | None:
        """The first value that is not finite when the step `number` is computed on a batch, by the reference kernel."""
        copy, watch = self.copy(kernel="reference"), divergence.Watch(self.backend)
        for single in copy.recurrent.singles:
            assert isinstance(single.kernel, ReferenceKernel)
            single.kernel = watch.over(single.kernel, single.name, reverse=single.reverse)
        entered, xp = copy._enter_batch(batch), self.backend.xp
        targets, B = entered.labels, entered.x.shape[2]

        def check(outputs: Array) -> None:
            watch.note("the logits" if self.head.classifies else "the outputs", outputs)
            one_by_one = [self.loss(xp, outputs[..., k : k + 1], targets.sample(k))[0] for k in range(B)]
            watch.note("the loss", xp.stack(one_by_one))

        made = copy.backpropagate(entered, dropout_key=(number, *entered.part), check=check)
        if watch.first is None and not self._is_finite(made.loss):
            return divergence.NotFinite(f"the loss: the sum of the samples' own is beyond the range of {self.dtype}")
        return watch.first or copy.not_finite_in(made.grads, "the first is the gradient of {name}")

    @with_hints_of_method
    def fit(
        self,
        x: Array,
        y: Array,
        *,
        lengths: Any = None,
        mask: Any = None,
        sample_weight: Any = None,
        epochs: int = 1,
        batch_size: int = 128,
        bucket: int | None = None,
        optimizer: Optimizer | None = None,
        validation_data: tuple[Any, ...] | None = None,
        validation_split: float = 0.0,
        clip_norm: float | None = None,
        accumulate: int = 1,
        shuffle: bool = True,
        resets: Array | None = None,
        truncation: tuple[int, int] | None = None,
        verbose: int | str = "auto",
        on_epoch: Callable[[Epoch], None] | None = None,
        callbacks: Sequence[Callable[[Epoch], Any]] = (),
        checkpoints: str | os.PathLike[str] | None = None,
        checkpoint_every: str | None = None,
        keep_checkpoints: int = KEEP,
    ) -> History:
        """Train for `epochs` more epochs on x (N, T, D), or a list of arrays (T_i, D), and targets y; their `History`.

        y  of a classifier   integers (N,), one-hot or probabilities (N, K); with loss="binary" 0 or 1, (N, K).
                             Floating-point (N, K) are one-hot if all of them are, and otherwise probabilities
           of a regressor    numbers (N,) or (N, M)
           where each step is read, the same for each step: (N, T), (N, T, K) or (N, T, M), or a list of arrays
           (T_i,), (T_i, K) or (T_i, M), with one for each step that the sequence has, by x, lengths or mask.  In an
           array, what stands at steps that a sequence does not have is not read

        lengths, mask    (N,) or (N, T): the steps that the sequences have, as for `LSTM.forward`
        sample_weight    (N,) numbers of at least 0: what each sequence counts in the loss and the metrics; of a model
                         that reads each step (N, T) as well
        bucket           form batches of sequences of about the same length, see `lstm_np.data.Batches`
        optimizer        over `self.params`; None: the model's own Adam with its defaults, kept from call to call
        validation_data  (x, y) to evaluate after each epoch, or (x, y, lengths or mask or None), or with a fourth part,
                         sample weights
        validation_split the share of x and y to evaluate on instead of training on it: the last part, as it lies,
                         before anything is shuffled (as in Keras)
        clip_norm        upper bound of the norm of all gradients together
        accumulate       k: a step is made by the gradients of k batches, as if they were one (the mean over all that
                         counts in them); the last step of an epoch may have fewer
        shuffle          whether each epoch has an order of its own; not with a stateful model
        resets           (N,) booleans, of a stateful model: which sequences begin from the initial state instead of
                         where the sequence that stood there in the batch before ended; None: those of the first batch
        truncation       (k1, k2): gradients are followed back through the last k2 steps of each sequence alone, as for
                         `loss_and_gradients`
        verbose          what is printed: 0 nothing; 1 a line per epoch and, in a terminal, one that shows where the
                         epoch stands; 2 a line per epoch; "auto" is 1 in a terminal or notebook and 0 elsewhere
        on_epoch         called with the record of each epoch
        callbacks        called with the record of each epoch before that; one that returns True ends training.
                         `lstm_np.EarlyStopping` and `ReduceLROnPlateau` are such, and checkpoints keep their state
        checkpoints      a folder for checkpoints, from which `resume` goes on after a crash, with the same bits
        checkpoint_every  "200" steps, or a time such as "30s" or "5m"; None: each epoch and each minute, at most one in
                         10 s.  There is also one before the first step and one at the end
        keep_checkpoints  how many of them are kept, the newest

        A stateful model takes x as batches that follow one another: sequence k of a batch goes on where sequence k of
        the batch before ended, so that x[k], x[k + batch_size], x[k + 2 * batch_size] ... are one long sequence.  Each
        epoch, and each look at `validation_data`, begins from the initial state.

        It goes on where the model stands (`position`), at the first batch of the next epoch, so that ten calls with
        epochs=1 are one call with epochs=10, to the bit.  The first call after `resume` is made with the arguments of
        the one that was cut short, and finishes it: its epochs count from where that one began, its history is of both.

        >>> rng = np.random.default_rng(0)
        >>> x, labels = rng.standard_normal((60, 5, 3)), rng.integers(0, 2, 60)
        >>> model = lstm_np.SequenceClassifier(3, 8, 2)
        >>> history = model.fit(x, labels, epochs=2, batch_size=20)
        >>> history += model.fit(x, labels, batch_size=20)
        >>> [epoch.steps for epoch in history], model.position
        ([3, 6, 9], Position(epoch=3, batch=0, step=9))

        Raises ValueError for bad data or arguments, before any work, and for others than those of the call that it
        goes on with; CheckpointError for a folder that holds another training's checkpoints, or in which another
        process trains; OSError where the last checkpoint cannot be written (of others that cannot a warning tells);
        TrainingDivergedError when loss or gradient are no longer finite, with the parameters as before that step (on a
        GPU: after it).
        """
        epochs, batch_size = check_count("epochs", epochs, 1), check_count("batch_size", batch_size, 1)
        shuffle, verbosity = options.check_bool("shuffle", shuffle), _verbosity(verbose)
        if on_epoch is not None and not callable(on_epoch):
            raise TypeError(f"on_epoch must be a function of an Epoch, found {on_epoch!r}")
        called = between.checked(callbacks)
        kept = between.with_state(called)
        accumulate = check_count("accumulate", accumulate, 1)
        data, held = self._check_data(x, y, lengths, mask, sample_weight), None
        resets = self._enter_resets(resets, len(data.x))
        if share := options.check_share("validation_split", validation_split):
            if validation_data is not None:
                raise ValueError("give validation_data or validation_split, not both")
            cut = math.floor(len(data.x) * (1.0 - share))
            if cut in (0, len(data.x)):
                raise ValueError(f"validation_split {share:g} of {len(data.x)} samples leaves none on one side")
            data, held = data.part(None, cut), data.part(cut, None)
            resets = None if resets is None else resets[:cut]
        elif validation_data is not None:
            held_x, held_y, held_real, held_weights = _four_parts(validation_data)
            own = {**named(held_real), "weights": held_weights}
            held = self._check_data(held_x, held_y, of="validation_data: ", **own)
        if self.stateful and (shuffle or bucket is not None):
            raise ValueError(
                "batches of a stateful model go on from one another, so their order is that of x: pass shuffle=False, "
                "and no bucket"
            )
        self._batches_of(len(data.x), batch_size)
        if held is not None:
            self._batches_of(len(held.x), batch_size)
        batches = Batches(
            data.x,
            data.targets,
            batch_size,
            **named(data.real),
            weights=data.weights,
            bucket=bucket,
            seed=self.recurrent.seed,
            dtype=self.dtype,
            shuffle=shuffle,
            reuse=accumulate == 1,
        )
        if optimizer is None:
            self._own_optimizer = optimizer = self._own_optimizer or Adam(self.params)
        for callback in kept:
            callback.check(optimizer, held is not None)
            callback.check_metrics(self.head.monitored)
        every = DEFAULT if checkpoint_every is None else Every.parse(checkpoint_every)
        steps = self.training_steps(
            optimizer, batches, clip_norm=clip_norm, truncation=truncation, resets=resets, accumulate=accumulate
        )
        refuse_lengths(truncation, data.real)
        start = begun = self.position if self.position.batch == 0 else self.position.next_epoch()
        history, ended = History(), False
        keeper: Keeper | None = None
        table: EpochTable | None = None
        about: dict[str, Any] = {}
        if checkpoints is not None or self._stopped is not None:
            about = {
                "batch_size": batch_size,
                "bucket": bucket,
                "clip_norm": clip_norm,
                "shuffle": bool(shuffle),
                "optimizer": {"name": type(optimizer).__name__, **_plain_values(optimizer)},
                "accumulate": accumulate if accumulate > 1 else None,
                "x and labels": fingerprint(data.arrays()),
                "validation_data": None if held is None else fingerprint(held.arrays()),
                "truncation": None if truncation is None else list(truncation),
                "resets": None if resets is None else fingerprint((resets,)),
                "callbacks": [{"name": type(one).__name__, **one.arguments()} for one in kept] or None,
            }
        resumed = self._stopped
        if resumed is not None:
            begun, history = self._go_on(resumed, steps, about, epochs)
            ended = resumed.run["fit"].get("ended", False)
            for callback, state in zip(kept, resumed.run["fit"].get("callback_states", []), strict=True):
                callback.restore(state)
            start, self._stopped = resumed.position, None

        def capture() -> Checkpoint:
            fit = {**about, "begun": asdict(begun), "history": history.state(), "ended": ended}
            fit["callback_states"] = [callback.state() for callback in kept]
            return Checkpoint.of(steps, {"model": self.config, "notes": self.notes, "fit": fit})

        def after_step(step: Step) -> None:
            if keeper is not None:
                keeper.on_step(step)
            if table is not None:
                table.step(lambda: _where(step, begun.epoch + epochs, len(steps)))

        def after_epoch(record: Epoch) -> bool:
            nonlocal history, ended
            if table is not None:
                table.epoch(record.row())
            history += (record,)
            ended = between.call(called, record)
            if keeper is not None:
                keeper.on_epoch(record)
            if on_epoch is not None:
                on_epoch(record)
            return ended

        with ExitStack() as stack:
            if checkpoints is not None:
                keeper = Keeper(self._enter_checkpoints(checkpoints, keep_checkpoints, stack), every, capture, _warn)
                self.position = start
                if resumed is None:
                    keeper.begin()
                else:
                    keeper.resume(start)
            if verbosity:
                live, second = verbosity == 1 and is_terminal(), self.head.monitored_second
                table = EpochTable(held=held is not None, live=live, second=second)
                stack.callback(table.clear)
            measuring = None if held is None else self._measuring(held, batch_size)
            if not ended:  # a call that is resumed may have been over already
                train(
                    steps,
                    start,
                    epochs=begun.epoch + epochs,
                    validate=measuring,
                    on_step=None if keeper is None and table is None else after_step,
                    on_epoch=after_epoch,
                )
            if keeper is not None:
                keeper.finish(self.position)
            for callback in kept:
                callback.finish()
        return history

    def _go_on(
        self, stopped: Checkpoint, steps: Steps, about: Mapping[str, Any], epochs: int
    ) -> tuple[Position, History]:
        """Where the call began that was cut short, and its history; `steps` get its state.

        Raises ValueError where this call is another one.
        """
        fit = stopped.run.get("fit")
        if fit is None:
            raise CheckpointError(
                "these are checkpoints of python -m lstm_np.train, which goes on with them: --resume RUN"
            )
        for name, value in about.items():
            value = list(value) if isinstance(value, tuple) else value
            if fit.get(name) != value:
                found = "others" if isinstance(value, str) else f"{value!r}, before {fit.get(name)!r}"
                raise ValueError(
                    f"fit goes on with a call that was cut short, with the same arguments; {name}: {found}"
                )
        begun = Position(**fit["begun"])
        if begun.epoch + epochs < stopped.position.epoch:
            made = stopped.position.epoch - begun.epoch
            raise ValueError(f"epochs {epochs}: the call that fit goes on with has made {made} already")
        steps.restore(stopped.steps)
        return begun, History.from_state(fit["history"])

    def _enter_checkpoints(self, folder: str | os.PathLike[str], keep: int, stack: ExitStack) -> Checkpoints:
        """The folder for this model's checkpoints.  Raises CheckpointError where it holds another training's."""
        kept = Checkpoints(folder, keep)
        path = kept.folder.absolute()
        if kept.files() and path != self._checkpoints_in:
            raise CheckpointError(
                f"{folder}: holds the checkpoints of another training; {type(self).__name__}.resume goes on with it, "
                "or name another folder"
            )
        stack.enter_context(kept)
        self._checkpoints_in = path
        return kept

    @classmethod
    def resume(
        cls, folder: str | os.PathLike[str], *, backend: str | Backend = "numpy", kernel: str | None = None
    ) -> Self:
        """The model of the newest checkpoint that `fit` has written to a folder; `fit` goes on with its training.

        backend, kernel  as for `load`

        >>> import tempfile
        >>> rng, folder = np.random.default_rng(0), tempfile.mkdtemp()
        >>> x, labels = rng.standard_normal((60, 5, 3)), rng.integers(0, 2, 60)
        >>> model = lstm_np.SequenceClassifier(3, 8, 2)
        >>> history = model.fit(x, labels, epochs=2, batch_size=20, checkpoints=folder)
        >>> again = lstm_np.SequenceClassifier.resume(folder)
        >>> again.position, len(again.fit(x, labels, epochs=3, batch_size=20, checkpoints=folder))
        (Position(epoch=2, batch=0, step=6), 3)

        Of checkpoints that are damaged a warning tells; the newest that verifies is taken.
        Raises CheckpointError where there is none, WeightsError for one that is not of such a model.
        """
        kept = Checkpoints(folder)
        checkpoint = kept.newest(_warn)
        config, notes = checkpoint.run.get("model"), checkpoint.run.get("notes")
        if not isinstance(config, Mapping) or not isinstance(notes, Mapping):
            raise WeightsError(f"{folder}: the checkpoint does not say which model it is of")
        model = cls._of_file(folder, config, checkpoint.parameters, backend, kernel)
        model.notes, model.position = dict(notes), checkpoint.position
        model._stopped, model._checkpoints_in = checkpoint, kept.folder.absolute()
        return model

    def _measuring(self, data: DataSet, batch_size: int) -> Callable[[], Any]:
        """A function that evaluates checked data, which stay on a device from call to call where they can; a stateful
        model takes them in batches of that size."""
        if self.stateful:
            return lambda: self._evaluate_read(data, batch_size)
        plain = data.real is None and data.weights is None and data.targets.dtype.kind == "i"
        if not plain or not self._device_can(data.x):
            return lambda: self._evaluate_read(data)
        held = Batches(data.x, data.targets, len(data.x), dtype=self.dtype, shuffle=False, reuse=True)
        return lambda: self.evaluate_data(held)
