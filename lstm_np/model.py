"""A classifier of sequences: recurrent layers, a dense read-out of the last output, softmax cross-entropy.

logits = W h_T + b,     h_T: the top layer's output after the last step (both directions' when bidirectional)

An input projection, where there is one, is a dense layer in front: the recurrent layers read W_p x_t + b_p.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

import numpy as np

from lstm_np import callbacks as between
from lstm_np import divergence, initializers, old_names, options, other_names
from lstm_np.arrays import Array
from lstm_np.backends import Backend, as_array, as_numbers, get_backend
from lstm_np.cells import CELLS
from lstm_np.checkpoints import DEFAULT, KEEP, Checkpoint, CheckpointError, Checkpoints, Every, Keeper, fingerprint
from lstm_np.data import Batches
from lstm_np.device.inference import DeviceInference
from lstm_np.device.memory import DeviceData, fits
from lstm_np.device.steps import DeviceSteps, has_update, rows_on_device
from lstm_np.display.tables import EpochTable, html_table, is_notebook, is_terminal, loss_in_words
from lstm_np.holds import Hold, read_holds
from lstm_np.kernels.reference import ReferenceKernel
from lstm_np.layers import Parameters, dense, make_layers
from lstm_np.layers.stream import ClassifierStream, refuse_reverse
from lstm_np.layers.truncation import check_truncation, refuse_lengths
from lstm_np.loop import BatchSource, Epoch, History, Metrics, Position, Running, Step, Steps, mean_of, train
from lstm_np.losses import LOSSES, log_softmax, one_hot, refuse_probabilities
from lstm_np.optimizers import Adam, Optimizer
from lstm_np.options import Dtype, check_count
from lstm_np.packing import Packing, Real, as_mask, check, named, read
from lstm_np.parameters import merge
from lstm_np.steps import BatchGradients, ModelSteps, StatefulSteps, TrainingBatch
from lstm_np.trace import Trace
from lstm_np.weights import WeightsError, check_shapes, check_values, read_weights, write_weights

LENGTHS_KEPT = 4  # of sequences, for which buffers on a device are kept
CHECKED_AT_ONCE = 1 << 20  # values of a whole data set that are converted together to see whether they are finite

# options that `DeviceSteps` knows, or that change nothing in its steps; any other must be at its default
DEVICE_OPTIONS = {"input_size", "hidden_size", "num_classes", "dtype", "seed", "dropout", "dropout_outputs",
                  "dropout_mask", "initializer", "forget_bias", "input_projection_initializer", "input_projection_bias",
                  "readout_initializer", "readout_bias", "read_out"}  # fmt: skip

# what a model consists of: all other attributes are the user's own, which copies and pickles keep
MADE = {"backend", "config", "input_size", "num_classes", "dtype", "read_out", "loss", "stateful", "notes", "recurrent",
        "_params", "position", "_own_optimizer", "_inference", "_kept_on_device"}  # fmt: skip


def _present_options(path: str | os.PathLike[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """The options in a file's configuration by their present names.  Raises WeightsError for one that there is not."""
    try:
        values = old_names.options(config)
    except ValueError as error:
        raise WeightsError(f"{path}: the model it describes cannot be made ({error})") from error
    for name in values:
        if name not in options.taken_by(SequenceClassifier):
            raise _written_by_a_newer_version(path, f"its model has {name!r}")
    return values


def _plain_values(optimizer: Optimizer) -> dict[str, Any]:
    """The arguments of an optimizer, as JSON has them."""
    values = optimizer.arguments().items()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values}


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def _written_by_a_newer_version(path: str | os.PathLike[str], reason: str) -> WeightsError:
    return WeightsError(f"{path}: written by a newer version of lstm_np ({reason}); update lstm_np")


SUMMARY_COLUMNS = ("layer", "output shape", "parameters", "kernel")


def _verbosity(verbose: Any) -> int:
    """0, 1 or 2, see `SequenceClassifier.fit`.  Raises ValueError for anything else."""
    if isinstance(verbose, str) and verbose == "auto":
        return int(is_terminal() or is_notebook())
    if isinstance(verbose, (bool, int, np.bool_, np.integer)) and 0 <= verbose <= 2:
        return int(verbose)
    raise ValueError(f'verbose must be "auto", 0, 1 or 2, found {verbose!r}')


def _where(step: Step, epochs: int, batches: int) -> str:
    """Where an epoch stands, in a line."""
    metrics = step.running.read()
    return (
        f"epoch {step.epoch + 1}/{epochs}   batch {step.position.batch}/{batches}   "
        f"loss {loss_in_words(metrics.loss)}   accuracy {metrics.accuracy:.2%}"
    )


@options.documented
class SequenceClassifier:
    """A classifier of sequences (T, D) into K classes: recurrent layers, a dense read-out, softmax cross-entropy.

    params   `Parameters`: the recurrent layers' ("layer0.W" ...), with an input projection "input_projection.W"
             (P, D) and "input_projection.b" (P,), and "readout.W" (K, H), "readout.b" (K,).  Assigning a mapping with
             the same names writes its values into them
    position where training stands: `Position` (0, 0, 0) at first; `fit` goes on from it, and a copy has it too
    config   the options that it was made with, but for the backend, as plain values

    The two ways to read out differ only for a bidirectional model.  With dropout of all outputs, what is read is an
    output like the others.

    A model can be copied and pickled: options, parameters, position, `notes`, its own optimizer and attributes of your
    own go along.  Where it is unpickled, a cell of your own has to be registered first.

    >>> rng = np.random.default_rng(0)
    >>> x, labels = rng.standard_normal((200, 5, 3)), rng.integers(0, 2, 200)
    >>> x[labels == 1, 2] += 2  # what distinguishes the two classes happens in the middle
    >>> model = lstm_np.SequenceClassifier(3, 16, 2)
    >>> history = model.fit(x, labels, epochs=20, batch_size=20, optimizer=lstm_np.Adam(model.params, lr=0.01))
    >>> model.evaluate(x, labels).accuracy > 0.9
    True
    >>> model.predict(x[:4]).shape, model.predict_proba(x[:4]).shape
    ((4,), (4, 2))

    Raises OptionError for a value that an option cannot have, or one that the cell does not have; BackendError when the
    backend cannot be used.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_classes: int,
        *,
        cell: str = "lstm",
        num_layers: int = 1,
        bias: bool | str = True,
        bidirectional: bool = False,
        dropout: float = 0.0,
        dropout_outputs: str = "between",
        dropout_mask: str = "step",
        initializer: str = "keras",
        forget_bias: float | None = None,
        forget_bias_at: str = "init",
        cell_clip: float | None = None,
        initial_state: str = "zeros",
        hold: Mapping[str, float] | None = None,
        input_projection: int | None = None,
        input_projection_initializer: str | None = None,
        input_projection_bias: float | None = None,
        readout_initializer: str | None = None,
        readout_bias: float | None = None,
        read_out: str = "final_state",
        loss: str = "softmax",
        stateful: bool = False,
        dtype: Dtype = "float32",
        seed: int = 0,
        kernel: str = "auto",
        backend: str | Backend = "numpy",
    ) -> None:
        self._make(options.given(locals()))

    def _make(self, settings: Mapping[str, Any]) -> None:
        """What the constructor does; `settings` are the options that it spells out."""
        values = options.check(settings)
        self.backend = get_backend(values.pop("backend"))
        self.config: dict[str, Any] = values
        self.input_size, self.num_classes = values["input_size"], values["num_classes"]
        self.dtype, self.read_out, self.loss = values["dtype"], values["read_out"], LOSSES[values["loss"]]
        self.stateful: bool = values["stateful"]
        if self.stateful and values["bidirectional"]:
            raise options.OptionError(
                "a stateful model reads forwards: a reverse direction begins at a sequence's end, where no batch "
                "before has left a state; bidirectional and stateful cannot go together"
            )
        self.notes: dict[str, Any] = {}
        P, common, drawn = values["input_projection"], values["initializer"], {}
        features = self.input_size if P is None else P
        self.recurrent = make_layers(values["cell"], {**values, "input_size": features, "backend": self.backend})
        if P is not None:
            drawn["input_projection"] = initializers.dense(
                values["input_projection_initializer"] or common,
                self.input_size,
                P,
                seed=values["seed"],
                purpose="projection",  # the key of its stream, which stays whatever the parameter is called
                bias=values["input_projection_bias"],
            )
        drawn["readout"] = initializers.dense(
            values["readout_initializer"] or common,
            self.recurrent.output_size,
            self.num_classes,
            seed=values["seed"],
            purpose="readout",
            bias=values["readout_bias"],
        )
        to_host = self.backend.to_host
        arrays = {name: to_host(array) for name, array in self.recurrent.params.items()} | merge(drawn)
        self._params = Parameters.from_host(self.backend, arrays, self.dtype)
        self.position = Position()
        self._own_optimizer: Adam | None = None  # of a `fit` that is given none
        self._stopped: Checkpoint | None = None  # what the next `fit` goes on from
        self._checkpoints_in: Path | None = None  # the folder with those of this model's training
        self._inference: dict[int, DeviceInference] = {}  # by the number of time steps
        self._kept_on_device: WeakKeyDictionary[Batches, DeviceData] = WeakKeyDictionary()
        self.recurrent.params = self.params.leading(len(self.recurrent.params))  # one vector for all of the model

    @property
    def params(self) -> Parameters:
        """All parameters by name, arrays of the backend: what optimizers update, in place."""
        return self._params

    @params.setter
    def params(self, values: Mapping[str, Array]) -> None:
        """Write the values of other arrays with the same names and shapes; optimizers over `params` stay right."""
        if not isinstance(values, Mapping):
            raise TypeError(f"params must be arrays by name, found {type(values).__name__}")
        if set(values) != set(self._params):
            raise ValueError(f"the parameters are {', '.join(self._params)}; found {', '.join(values)}")
        arrays = {name: as_numbers(self.backend, values[name], name) for name in self._params}
        for name, array in self._params.items():  # all are compared before one is written
            if tuple(arrays[name].shape) != tuple(array.shape):
                raise ValueError(f"{name} has shape {array.shape}, found {tuple(arrays[name].shape)}")
        self._params.update(arrays)

    # ---- forward, backward

    def run(
        self,
        x: Array,
        *,
        packing: Packing | None = None,
        save: bool = True,
        dropout_key: Sequence[int | str] | None = None,
        holds: Sequence[Hold] = (),
        trace: bool = False,
    ) -> tuple[Array, Array, Any]:
        """(logits (K, B), what was read out (H, B), cache) from x (D, T, B).

        `packing`, `holds` and `trace` as for `lstm_np.layers.Recurrent.run`.  With `packing` what is read out is what
        there is after each sequence's own last step; with an input projection x must be 0 at steps that it does not
        have.
        """
        logits, h, cache, _ = self.run_on(
            x, None, packing=packing, save=save, dropout_key=dropout_key, holds=holds, trace=trace
        )
        return logits, h, cache

    def run_on(
        self,
        x: Array,
        state: Sequence[tuple[Array, ...]] | None,
        *,
        packing: Packing | None = None,
        save: bool = True,
        dropout_key: Sequence[int | str] | None = None,
        holds: Sequence[Hold] = (),
        trace: bool = False,
        resets: Array | None = None,
        truncation: tuple[int, int] | None = None,
    ) -> tuple[Array, Array, Any, list[tuple[Array, ...]]]:
        """What `run` gives, from a state per layer and direction on (None: the initial state), and the state after it.

        `resets` and `truncation` as for `lstm_np.layers.Recurrent.run`.
        """
        stack, xp = self.recurrent, self.backend.xp
        if self.config["input_projection"] is not None:
            x = self.project(x)
        # of layers that all read forwards the last output is the final state, and a truncated pass has no other window
        sequence = self.read_out == "last_output" and truncation is None
        y, final, cache = stack.run(
            x,
            state,
            packing=packing,
            sequence=sequence,
            save=save,
            dropout_key=dropout_key,
            holds=holds,
            trace=trace,
            resets=resets,
            truncation=truncation,
        )
        if y is not None:
            h = y[:, -1, :] if packing is None else packing.at_last(y)
        else:
            parts = [state[0] for state in final[-stack.directions :]]
            h = parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
            mask = stack.last_mask(h.shape, dropout_key)
            if mask is not None:  # the states are outputs too, the last of each direction
                h = h * mask
                if cache is not None:
                    cache["read_out"] = mask
        readout = self.params.section("readout")
        with self.backend.one_blas_thread(h.size * self.num_classes):
            return dense.forward(readout, h), h, cache, final

    def backpropagate(
        self,
        batch: TrainingBatch,
        into: Parameters | None = None,
        *,
        dropout_key: Sequence[int | str] | None = None,
        check: Callable[[Array], None] | None = None,
        holds: Sequence[Hold] = (),
    ) -> BatchGradients:
        """Mean loss, correct answers, gradients and final state of a batch, on the backend; nothing waits for a device.

        batch  x (D, T, B) of the model's dtype; labels (B,) integers and resets (B,) booleans of the backend; in the
               place of real a Packing or None
        into   where the gradients are written to; None: to arrays of their own
        check  sees the logits (K, B) before the loss does, and may raise
        """
        x, labels, packing, state, resets, truncation = batch
        flags: dict[str, Any] = {"dropout_key": dropout_key, "holds": holds, "resets": resets}
        logits, h, cache, final = self.run_on(x, state, packing=packing, truncation=truncation, **flags)
        if check is not None:
            check(logits)
        loss, dlogits, correct = self.loss(self.backend.xp, logits, labels)
        grads = self._backward_from_logits(x, h, cache, dlogits, into)[0]
        return BatchGradients(loss, correct, x.shape[2], grads, final)

    def _backward_from_logits(
        self, x: Array, h: Array, cache: Any, dlogits: Array, into: Parameters | None = None, *, to_x: bool = False
    ) -> tuple[Parameters, Array | None]:
        """(gradients, dx (D, T, B)) from that of the logits (K, B) and what `run` gave; dx where `to_x` wants it.

        x is what `run` was given.  The gradients are written to `into` when it is given.
        """
        stack, xp, H = self.recurrent, self.backend.xp, self.recurrent.hidden_size
        with self.backend.one_blas_thread(h.size * self.num_classes):
            dh, readout = dense.backward(self.params.section("readout"), h, dlogits)
        if "read_out" in cache:
            dh = dh * cache["read_out"]
        nothing = (None,) * len(stack.cell.state)
        dstate = [nothing] * (stack.num_layers * stack.directions)
        dy = None
        read_y = self.read_out == "last_output" and "windows" not in cache
        if read_y and cache["packing"] is not None:
            dy = cache["packing"].from_last(dh)
        elif read_y:
            dy = xp.zeros((dh.shape[0], *x.shape[1:]), dtype=self.dtype)
            dy[:, -1, :] = dh
        else:
            for direction in range(stack.directions):
                part = dh[direction * H : (direction + 1) * H]
                dstate[direction - stack.directions] = (part, *nothing[1:])
        projected = self.config["input_projection"] is not None
        into = self.params.empty_like() if into is None else into
        flags = {"input_gradient": projected or to_x, "state_gradient": False}
        dx, _, grads = stack.run_backward(cache, dy, dstate, **flags, into=into)
        dense_grads = {"readout": readout}
        if dx is not None and projected:
            params, inputs = self.params.section("input_projection"), x.reshape(x.shape[0], -1)
            with self.backend.one_blas_thread(dx.size * self.input_size):
                dx, dense_grads["input_projection"] = dense.backward(params, inputs, dx.reshape(dx.shape[0], -1))
            dx = dx.reshape(x.shape)
        into.update(grads, **merge(dense_grads))
        return into, dx

    def trace(
        self,
        x: Array,
        labels: Array | None = None,
        target: Any = None,
        *,
        lengths: Any = None,
        mask: Any = None,
        hold: Any = None,
        dropout_key: Sequence[int | str] | None = None,
    ) -> Trace:
        """Every value of the pass over x (B, T, D), and its gradient: see `lstm_np.trace`.

        >>> lstm_np.SequenceClassifier(3, 5, 2).trace(np.ones((4, 6, 3)), [0, 1, 1, 0]).value("c").shape
        (4, 6, 5)
        """
        if labels is not None and target is not None:
            raise ValueError("gradients are either of the loss of labels or of the logit of a target; found both")
        x, packing = self._enter(x, lengths, mask)
        xp, to_host, B = self.backend.xp, self.backend.to_host, x.shape[2]
        truth = None if labels is None else self._enter_labels(labels, B)
        wanted = None if target is None else self._enter_target(target, B)
        holds = self.read_holds(hold)
        logits, h, cache = self.run(x, packing=packing, dropout_key=dropout_key, holds=holds, trace=True)
        recorded = cache["trace"]
        if self.config["input_projection"] is not None:
            recorded.add("x", x)
        step_logits = self._step_logits(cache, logits)
        recorded.add("logits", logits)
        recorded.add("step_logits", step_logits)
        recorded.add("probabilities", xp.exp(log_softmax(xp, step_logits)))
        if truth is not None:
            loss, dlogits, _ = self.loss(xp, logits, truth)
            recorded.about.update(loss=to_host(loss).item(), gradients_of="loss", classes=to_host(truth).tolist())
        elif wanted is not None:
            dlogits = one_hot(xp, wanted, self.num_classes).astype(self.dtype)
            recorded.about.update(gradients_of="logit", classes=to_host(wanted).tolist())
        else:
            return recorded
        _, dx = self._backward_from_logits(x, h, cache, dlogits, to_x=True)
        recorded.add("logits_gradient", dlogits)
        if self.config["input_projection"] is not None:
            recorded.add("dx", dx)
        return recorded

    def _step_logits(self, cache: Any, logits: Array) -> Array:
        """(K, T, B): what the read-out makes of every step of a pass that is traced; `logits` (K, B) after the last."""
        xp, outputs, packing = self.backend.xp, cache["outputs"], cache["packing"]
        if self.read_out == "last_output":
            read = outputs[0] if len(outputs) == 1 else xp.concat(outputs, axis=0)
            read = read if cache["masks"][-1] is None else read * cache["masks"][-1]
        else:  # the states after as many steps, whichever way they are read
            if len(outputs) == 2:
                second = outputs[1][:, ::-1, :] if packing is None else packing.mirrored(outputs[1])
                outputs = [outputs[0], second]
            read = outputs[0] if len(outputs) == 1 else xp.concat(outputs, axis=0)
            read = read * cache["read_out"][:, None, :] if "read_out" in cache else read
        _, T, B = read.shape
        found = dense.forward(self.params.section("readout"), read.reshape(-1, T * B)).reshape(-1, T, B)
        if packing is not None:  # behind a sequence the answer stands
            before = dense.forward(self.params.section("readout"), xp.zeros_like(read[:, 0, :]))
            return packing.carried(xp.where(packing.is_last, logits[:, None, :], found), before)
        return xp.concat((found[:, :-1, :], logits[:, None, :]), axis=1)

    def read_holds(self, hold: Any) -> tuple[Hold, ...]:
        """What people write as `hold`, checked.  Raises HoldError for what names nothing in this model."""
        stack = self.recurrent
        return read_holds(hold, stack.cell, stack.num_layers, (False, True)[: stack.directions])

    def project(self, x: Array) -> Array:
        """(P, T, B) from x (D, T, B): the dense layer over every step of every sample."""
        with self.backend.one_blas_thread(x.size * self.params["input_projection.W"].shape[0]):
            projected = dense.forward(self.params.section("input_projection"), x.reshape(x.shape[0], -1))
        return projected.reshape(-1, *x.shape[1:])

    # ---- the public API

    def loss_and_gradients(
        self,
        x: Array,
        labels: Array,
        *,
        lengths: Any = None,
        mask: Any = None,
        check_logits: bool = False,
        dropout_key: Sequence[int | str] | None = None,
        hold: Any = None,
        truncation: tuple[int, int] | None = None,
    ) -> tuple[float, Parameters]:
        """(mean loss, gradients with the names and shapes of `params`) of a batch.

        x (B, T, D) or a list of arrays (T_i, D); labels integers (B,) or one-hot (B, K).  `lengths` (B,) or a `mask`
        (B, T): the steps that the sequences have, as for `LSTM.forward`.  `check_logits` refuses logits that look like
        probabilities.  `hold`: values of the cell to be held, {"f": 1.0} or a list of `lstm_np.Hold`; no gradient goes
        through them.  `truncation` (k1, k2): the gradient is followed back through the last k2 steps alone, as for
        `lstm_np.LSTM.forward`; of a loss after the last step k1 changes nothing.

        >>> model = lstm_np.SequenceClassifier(3, 8, 2)
        >>> loss, grads = model.loss_and_gradients(np.ones((4, 5, 3)), [0, 1, 1, 0])
        >>> model.params.flat -= 0.1 * grads.flat  # a step of gradient descent by hand

        Raises ValueError when a shape does not fit, x is not finite, a label is not below K, a hold names nothing in
        the model, or for a truncation of a bidirectional model or with lengths; OptionError for another truncation than
        1 <= k1 <= k2.
        """
        truncation = check_truncation(truncation)
        x, packing = self._enter(x, lengths, mask)
        refuse_lengths(truncation, packing)
        labels = self._enter_labels(labels, x.shape[2])
        check = (lambda logits: refuse_probabilities(self.backend, logits)) if check_logits else None
        batch = TrainingBatch(x, labels, packing, truncation=truncation)
        made = self.backpropagate(batch, dropout_key=dropout_key, check=check, holds=self.read_holds(hold))
        return self.backend.to_host(made.loss).item(), made.grads

    def logits(self, x: Array, *, lengths: Any = None, mask: Any = None, hold: Any = None) -> Array:
        """(B, K), an array of the backend, from x (B, T, D): the log-probabilities, up to a constant of each sample.

        >>> lstm_np.SequenceClassifier(3, 8, 2).logits(np.ones((4, 5, 3))).shape
        (4, 2)

        `lengths`, `mask` and `hold` as for `loss_and_gradients`.  Raises ValueError for a bad x, lengths or hold.
        """
        x, packing = self._enter(x, lengths, mask)
        return self.run_on(x, None, packing=packing, save=False, holds=self.read_holds(hold))[0].T

    def predict_proba(
        self, x: Array, *, lengths: Any = None, mask: Any = None, batch_size: int = 512, resets: Array | None = None
    ) -> np.ndarray:
        """The probability of each class, a NumPy array (N, K), from x (N, T, D) or a list of arrays (T_i, D).

        `lengths` (N,) or a `mask` (N, T): the steps that the sequences have, as for `LSTM.forward`.  `resets`, of a
        stateful model, as for `fit`.

        >>> p = lstm_np.SequenceClassifier(3, 8, 2).predict_proba(np.ones((4, 5, 3)))
        >>> p.shape, np.allclose(p.sum(axis=1), 1)
        ((4, 2), True)

        Raises ValueError for a bad x, lengths or resets, a batch_size below 1, and for a stateful model one that does
        not divide N.
        """
        batch_size, (x, real) = check_count("batch_size", batch_size, 1), self._read(x, lengths, mask)
        ranges, resets = self._batches_of(len(x), batch_size), self._enter_resets(resets, len(x))
        on_device = self._on_device(x) if real is None else None
        if on_device is not None:
            x, _, _ = self._check_data(x)
            return on_device.measure(on_device.data(rows_on_device(x, self.dtype))).predict_proba()
        xp, to_host = self.backend.xp, self.backend.to_host
        batches = (
            (x[a:b], None if real is None else real[a:b], (), None if resets is None else resets[a:b])
            for a, b in ranges
        )
        return np.concatenate([to_host(xp.exp(log_softmax(xp, part))).T for part in self._logits_of(batches)])

    def _batches_of(self, N: int, batch_size: int) -> list[tuple[int, int]]:
        """First and last + 1 sequence of each batch.  Raises ValueError where a stateful model cannot take them."""
        if self.stateful and batch_size < N and N % batch_size:
            raise ValueError(
                f"a stateful model goes on sequence by sequence, so batches must be of one size: {N} sequences are no "
                f"multiple of batch_size {batch_size}"
            )
        return [(start, min(start + batch_size, N)) for start in range(0, N, batch_size)]

    def _logits_of(self, batches: Iterable[tuple[Array, Real | None, Sequence[Hold], Array | None]]) -> Iterator[Array]:
        """(K, B) of each batch: x (B, T, D), which steps are real, what is held, and which sequences begin anew.

        A stateful model goes on from batch to batch.
        """
        state: Sequence[tuple[Array, ...]] | None = None
        for x, real, holds, resets in batches:
            entered, packing = self._enter_real(x, real)
            self._check_carried(state, len(x))
            resets = self.recurrent.enter_resets(resets, len(x))
            logits, _, _, final = self.run_on(entered, state, packing=packing, save=False, holds=holds, resets=resets)
            state = final if self.stateful else None
            yield logits

    def _enter_resets(self, resets: Any, N: int) -> np.ndarray | None:
        """Booleans (N,), checked.  Raises ValueError for anything else, and for a model that is not stateful."""
        if resets is None:
            return None
        if not self.stateful:
            raise ValueError("resets are those of a model with stateful=True; every sequence of others begins anew")
        found = self.backend.to_host(as_array(resets, "resets"))
        if found.shape != (N,) or found.dtype.kind != "b":
            raise ValueError(f"resets must be booleans ({N},), found {found.dtype} {found.shape}")
        return found

    def predict(
        self, x: Array, *, lengths: Any = None, mask: Any = None, batch_size: int = 512, resets: Array | None = None
    ) -> np.ndarray:
        """The most probable class of each sequence, integers (N,); arguments as for `predict_proba`.

        >>> lstm_np.SequenceClassifier(3, 8, 2).predict(np.ones((4, 5, 3))).shape
        (4,)

        Raises ValueError as `predict_proba`.
        """
        return self.predict_proba(x, lengths=lengths, mask=mask, batch_size=batch_size, resets=resets).argmax(axis=1)

    def evaluate(
        self,
        x: Array,
        labels: Array,
        *,
        lengths: Any = None,
        mask: Any = None,
        batch_size: int = 512,
        hold: Any = None,
        resets: Array | None = None,
    ) -> Metrics:
        """Mean loss and accuracy over x (N, T, D) or a list of arrays (T_i, D), and labels, integers (N,) or one-hot.

        lengths, mask  (N,) or (N, T): the steps that the sequences have, as for `LSTM.forward`
        hold    values of the cell to be held, {"f": 1.0} or a list of `lstm_np.Hold`; their samples are counted over
                all of x
        resets  of a stateful model, as for `fit`

        >>> metrics = lstm_np.SequenceClassifier(3, 8, 2).evaluate(np.ones((4, 5, 3)), [0, 1, 1, 0])
        >>> metrics.count, metrics.accuracy
        (4, 0.5)

        Raises ValueError for bad ones, a batch_size below 1, and for a stateful model one that does not divide N.
        """
        batch_size, (x, real) = check_count("batch_size", batch_size, 1), self._read(x, lengths, mask)
        ranges, resets = self._batches_of(len(x), batch_size), self._enter_resets(resets, len(x))
        holds, sizes = self.read_holds(hold), self.recurrent.hidden_sizes
        on_device = None if holds or real is not None else self._on_device(x)
        if on_device is not None:
            x, integers, _ = self._check_data(x, labels)
            return mean_of(*on_device.measure(on_device.data(rows_on_device(x, self.dtype), integers)).sums())
        integers = self.backend.to_host(self._enter_labels(labels, len(x)))
        return self._measure(
            (
                (x[a:b], integers[a:b], None if real is None else real[a:b]),
                # each batch its own samples' holds
                [hold.part(a, b, (*x.shape[:2], sizes[-1 if hold.layer is None else hold.layer])) for hold in holds],
                None if resets is None else resets[a:b],
            )
            for a, b in ranges
        )

    def evaluate_data(self, data: Batches, *, stop: Callable[[], bool] | None = None) -> Metrics:
        """Mean loss and accuracy over all sequences of `data`, each once.

        stop  asked before each batch; True ends it with what has been measured

        On a GPU that can classify there by itself (as in `training_steps`) they stay there from call to call, for as
        long as `data` is kept; otherwise as `evaluate_batches`.

        >>> data = lstm_np.data.Batches(np.ones((4, 5, 3)), np.array([0, 1, 1, 0]), batch_size=2)
        >>> lstm_np.SequenceClassifier(3, 8, 2).evaluate_data(data).count
        4

        Raises ValueError for ones that do not fit.
        """
        on_device = self._on_device(data.sequences) if data.real is None else None
        if on_device is None:
            batches = data.epoch(0)
            return self.evaluate_batches(batches if stop is None else takewhile(lambda _: not stop(), batches))
        if data not in self._kept_on_device:
            rows = rows_on_device(data.sequences, self.dtype)
            self._kept_on_device[data] = on_device.data(rows, data.labels, float(data.scale))
        return mean_of(*on_device.measure(self._kept_on_device[data]).sums())

    def evaluate_batches(self, batches: Iterable[tuple[Array, ...]]) -> Metrics:
        """Mean loss and accuracy over batches of x (B, T, D) and labels, integers (B,) or one-hot (B, K); nan for none.

        A batch may have a third part: lengths (B,), or a mask (B, T).

        >>> batches = [(np.ones((4, 5, 3)), [0, 1, 1, 0]), (np.ones((2, 7, 3)), [1, 0])]
        >>> lstm_np.SequenceClassifier(3, 8, 2).evaluate_batches(batches).count
        6

        Raises ValueError for bad ones.
        """
        return self._measure((batch, (), None) for batch in batches)

    def _measure(self, batches: Iterable[tuple[tuple[Array, ...], Sequence[Hold], Array | None]]) -> Metrics:
        """`evaluate_batches`, each batch with what is held in it and which of its sequences begin anew."""
        running, truths = Running(self.backend), []

        def inputs() -> Iterator[tuple[Array, Real | None, Sequence[Hold], Array | None]]:
            for batch, holds, resets in batches:
                x, labels, real = self._parts(batch)
                truths.append(self._enter_labels(labels, len(x)))
                yield x, real, holds, resets

        with np.errstate(over="ignore", invalid="ignore"):  # a model that has diverged shows it in its loss
            for logits in self._logits_of(inputs()):
                truth = truths.pop()
                loss, _, correct = self.loss(self.backend.xp, logits, truth)
                running.add(loss, correct, logits.shape[1])
        return running.read()

    def stream(self, batch_size: int | None = None, state: Any = None) -> ClassifierStream:
        """What classifies sequences whose time steps arrive one by one: logits after each step.

        batch_size  how many sequences advance together; None: one, whose arrays have no batch axis
        state       where they begin, as `ClassifierStream.save` gives it; None: the initial state

        >>> model = lstm_np.SequenceClassifier(3, 8, 2)
        >>> stream = model.stream()
        >>> for x_t in np.ones((5, 3)):
        ...     logits = stream.step(x_t)
        >>> np.allclose(logits, model.logits(np.ones((1, 5, 3)))[0], atol=1e-6)
        True

        Raises ValueError for a bidirectional model, or a state whose shape does not fit; OptionError for a batch_size
        below 1.
        """
        projection = None if self.config["input_projection"] is None else self.params.section("input_projection")
        readout = self.params.section("readout")
        return ClassifierStream(self.recurrent, batch_size, state, readout=readout, projection=projection)

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
    ) -> Steps:
        """What `lstm_np.loop.train` runs: steps on `batches` by this model and an optimizer over its `params`.

        batches    of (x (B, T, D), labels (B,) integers or one-hot (B, K)), such as `lstm_np.data.Batches`; None:
                   `step` is called by hand.  A batch may have a third part, lengths (B,) or a mask (B, T)
        clip_norm  upper bound of the norm of all gradients together
        rate       what the learning rate is multiplied with at a step (its number, from 1)
        truncation, resets  as for `fit`

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
        truncation = check_truncation(truncation)
        if truncation is not None:
            refuse_reverse(self.recurrent, "truncated backpropagation")
        settings: dict[str, Any] = {"clip_norm": clip_norm, "rate": rate}
        if self.stateful:
            samples = len(batches.labels) if isinstance(batches, Batches) else len(() if resets is None else resets)
            resets = self._enter_resets(resets, samples)
            return StatefulSteps(self, optimizer, batches, truncation=truncation, resets=resets, **settings)
        if resets is not None:
            raise ValueError("resets are those of a model with stateful=True; every sequence of others begins anew")
        if truncation is None and isinstance(batches, Batches) and self._stay_on_device(optimizer, batches):
            return DeviceSteps(self, optimizer, batches, **settings)
        return ModelSteps(self, optimizer, batches, truncation=truncation, **settings)

    def _stay_on_device(self, optimizer: Optimizer, batches: Batches) -> bool:
        return (
            has_update(optimizer)
            and batches.real is None
            and not (self.config["dropout"] and self.config["dropout_outputs"] == "all")
            and self._device_can(batches.sequences)
        )

    def _device_can(self, sequences: Array) -> bool:
        """Whether the layer runs in `lstm_np.device`, and sequences (N, T, D) of the host have room there."""
        return (
            self.backend.device_steps
            # one layer, of the cell that is read
            and [single.kernel.computes is not None for single in self.recurrent.singles] == [True]
            and options.changed(self.config).keys() <= DEVICE_OPTIONS
            and isinstance(sequences, np.ndarray)
            and sequences.dtype.kind in "buif"
            and fits(
                self.backend.xp, sequences.size * (1 if sequences.dtype == np.uint8 else self.params.flat.itemsize)
            )
        )

    def _on_device(self, x: Array) -> DeviceInference | None:
        """What classifies x (N, T, D) on the device by itself; None where that cannot be."""
        if not self._device_can(x) or x.ndim != 3 or 0 in x.shape or x.shape[2] != self.input_size:
            return None
        T, H = x.shape[1], self.recurrent.hidden_size
        if T not in self._inference:
            if len(self._inference) >= LENGTHS_KEPT:
                self._inference.pop(next(iter(self._inference)))
            sizes = (T, self.input_size, H, self.num_classes)
            self._inference[T] = DeviceInference(self.backend, self.params.flat, sizes)
        return self._inference[T]

    def batch_gradients(self, batch: tuple[Array, ...], number: int, into: Parameters) -> BatchGradients:
        """Loss, correct answers and gradients, written to `into`, of a batch (x, labels) as in `loss_and_gradients`.

        The batch may have a third part, lengths (B,) or a mask (B, T), or be a `lstm_np.steps.TrainingBatch`.

        `number`, the step's, from 1, is what its dropout masks are keyed by.  Nothing waits for a device.
        Raises ValueError when a shape does not fit or a label is not below K.
        """
        return self.backpropagate(self._enter_batch(batch), into, dropout_key=(number,))

    def _enter_batch(self, batch: tuple[Array, ...]) -> TrainingBatch:
        """A batch (x, labels), (x, labels, lengths or mask) or `TrainingBatch`, entered; values are not looked at."""
        x, labels, real = self._parts(batch)
        _, _, _, state, resets, truncation = TrainingBatch(*batch)
        truth = self._enter_labels(labels, len(x))
        entered, packing = self._convert(x, real)
        refuse_lengths(truncation, packing)
        self._check_carried(state, len(x))
        return TrainingBatch(entered, truth, packing, state, self.recurrent.enter_resets(resets, len(x)), truncation)

    def _check_carried(self, state: Sequence[tuple[Array, ...]] | None, B: int) -> None:
        """Raises ValueError where the state of a batch before is not of as many sequences."""
        if state is not None and state[0][0].shape[1] != B:
            raise ValueError(
                f"a stateful model goes on sequence by sequence: this batch has {B} of them, the one before "
                f"{state[0][0].shape[1]}; batches must be of one size"
            )

    def not_finite_before(self, batch: tuple[Array, ...]) -> divergence.NotFinite | None:
        """What is not finite before anything is computed: x of a batch, in the model's dtype, or a parameter."""
        x, _, real = self._parts(batch)
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
        truth, B = entered.labels, entered.x.shape[2]

        def check(logits: Array) -> None:
            watch.note("the logits", logits)
            one_by_one = [self.loss(xp, logits[:, k : k + 1], truth[k : k + 1])[0] for k in range(B)]
            watch.note("the loss", xp.stack(one_by_one))

        made = copy.backpropagate(entered, dropout_key=(number,), check=check)
        if watch.first is None and not self._is_finite(made.loss):
            return divergence.NotFinite(f"the loss: the sum of the samples' own is beyond the range of {self.dtype}")
        return watch.first or copy.not_finite_in(made.grads, "the first is the gradient of {name}")

    def fit(
        self,
        x: Array,
        labels: Array,
        *,
        lengths: Any = None,
        mask: Any = None,
        epochs: int = 1,
        batch_size: int = 128,
        bucket: int | None = None,
        optimizer: Optimizer | None = None,
        validation_data: tuple[Array, ...] | None = None,
        validation_split: float = 0.0,
        clip_norm: float | None = None,
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
        """Train for `epochs` more epochs on x (N, T, D) and labels, integers (N,) or one-hot (N, K); their `History`.

        x may be a list of arrays (T_i, D) as well.

        lengths, mask    (N,) or (N, T): the steps that the sequences have, as for `LSTM.forward`
        bucket           form batches of sequences of about the same length, see `lstm_np.data.Batches`
        optimizer        over `self.params`; None: the model's own Adam with its defaults, kept from call to call
        validation_data  (x, labels) to evaluate after each epoch, or (x, labels, lengths or mask)
        validation_split the share of x and labels to evaluate on instead of training on it: the last part, as it lies,
                         before anything is shuffled (as in Keras)
        clip_norm        upper bound of the norm of all gradients together
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
        x, integers, real = self._check_data(x, labels, lengths, mask)
        resets = self._enter_resets(resets, len(x))
        if share := options.check_share("validation_split", validation_split):
            if validation_data is not None:
                raise ValueError("give validation_data or validation_split, not both")
            cut = math.floor(len(x) * (1.0 - share))
            if cut in (0, len(x)):
                raise ValueError(f"validation_split {share:g} of {len(x)} samples leaves none on one side")
            validation_data = (x[cut:], integers[cut:], None if real is None else real[cut:])
            x, integers, real = x[:cut], integers[:cut], None if real is None else real[:cut]
            resets = None if resets is None else resets[:cut]
        elif validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
                raise ValueError(f"validation_data must be a pair (x, labels), found {type(validation_data).__name__}")
            held_x, held_labels, *more = validation_data
            own = named(more[0] if more else None)
            validation_data = self._check_data(held_x, held_labels, of="validation_data: ", **own)
        if self.stateful and (shuffle or bucket is not None):
            raise ValueError(
                "batches of a stateful model go on from one another, so their order is that of x: pass shuffle=False, "
                "and no bucket"
            )
        self._batches_of(len(x), batch_size)
        if validation_data is not None:
            self._batches_of(len(validation_data[0]), batch_size)
        batches = Batches(
            x,
            integers,
            batch_size,
            **named(real),
            bucket=bucket,
            seed=self.recurrent.seed,
            dtype=self.dtype,
            shuffle=shuffle,
            reuse=True,
        )
        if optimizer is None:
            self._own_optimizer = optimizer = self._own_optimizer or Adam(self.params)
        for callback in kept:
            callback.check(optimizer, validation_data is not None)
        every = DEFAULT if checkpoint_every is None else Every.parse(checkpoint_every)
        steps = self.training_steps(optimizer, batches, clip_norm=clip_norm, truncation=truncation, resets=resets)
        refuse_lengths(truncation, real)
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
                "x and labels": fingerprint(part for part in (x, integers, real) if part is not None),
                "validation_data": None
                if validation_data is None
                else fingerprint(part for part in validation_data if part is not None),
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
                table.step(lambda: _where(step, begun.epoch + epochs, len(batches)))

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
                table = EpochTable(held=validation_data is not None, live=verbosity == 1 and is_terminal())
                stack.callback(table.clear)
            measuring = None if validation_data is None else self._measuring(*validation_data, batch_size=batch_size)
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
                f"{folder}: holds the checkpoints of another training; SequenceClassifier.resume goes on with it, or "
                "name another folder"
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

    def _measuring(
        self, x: np.ndarray, labels: np.ndarray, real: Real | None, *, batch_size: int
    ) -> Callable[[], Metrics]:
        """A function that evaluates checked data, which stay on a device from call to call where they can; a stateful
        model takes them in batches of that size."""
        if self.stateful:
            return lambda: self.evaluate(x, labels, batch_size=batch_size, **named(real))
        if real is not None or not self._device_can(x):
            return lambda: self.evaluate(x, labels, **named(real))
        held = Batches(x, labels, len(x), dtype=self.dtype, shuffle=False, reuse=True)
        return lambda: self.evaluate_data(held)

    # ---- what comes in

    def _check_shape(self, x: Array) -> None:
        D, shape = self.input_size, tuple(x.shape)
        if len(shape) != 3 or shape[2] != D or 0 in shape:
            raise ValueError(f"x must have shape (B, T, {D}) with B, T >= 1, found {shape}")

    def _read(self, x: Any, lengths: Any, mask: Any) -> tuple[Array, Real | None]:
        """(x (N, T, D) of its own dtype, which steps are real) of what people pass, their shapes checked."""
        x, real = read(x, lengths, mask, self.backend.to_host)
        x = as_array(x, "x")
        self._check_shape(x)
        if real is not None:
            check(real, *x.shape[:2])
        return x, real

    def _parts(self, batch: tuple[Any, ...]) -> tuple[Array, Array, Real | None]:
        """x, labels and which steps are real, of a batch (x, labels) or (x, labels, lengths or mask)."""
        x, labels, *more = batch
        x, real = read(x, **named(more[0] if more else None), to_host=self.backend.to_host)
        return x, labels, real

    def _convert(self, x: Array, real: Real | None = None) -> tuple[Array, Packing | None]:
        """x (B, T, D) -> (D, T, B) on the backend, in the model's dtype; its values are not looked at.

        They are 0 at steps that are not real where an input projection reads all of them.
        """
        x = as_numbers(self.backend, x, "x")
        self._check_shape(x)
        if x.dtype.kind == "c" and self.dtype != "complex128":
            raise ValueError(f"x is complex, the model is {self.dtype}")
        if x.dtype != self.dtype:
            with np.errstate(over="ignore"):
                x = x.astype(self.dtype)
        packing = self.recurrent.packing(real, x.shape[0], x.shape[1])
        x = x.transpose(2, 1, 0)
        reads_all = packing is not None and self.config["input_projection"] is not None
        return packing.cleaned(x) if packing is not None and reads_all else x, packing

    def _is_finite(self, array: Array) -> bool:
        """Whether all values are finite numbers; waits for a device."""
        return bool(self.backend.to_host(self.backend.xp.isfinite(array).all()))

    def _enter(self, x: Any, lengths: Any = None, mask: Any = None) -> tuple[Array, Packing | None]:
        """`_enter_real` of what people pass."""
        return self._enter_real(*read(x, lengths, mask, self.backend.to_host))

    def _enter_real(self, x: Array, real: Real | None) -> tuple[Array, Packing | None]:
        """x (B, T, D) -> (D, T, B) on the backend, in the model's dtype, and finite in it where steps are real."""
        x = as_numbers(self.backend, x, "x")
        entered, packing = self._convert(x, real)
        if packing is not None:
            entered = packing.cleaned(entered)
        if x.dtype.kind in "fc" and not self._is_finite(entered):
            self._refuse_values(self._is_finite(x if packing is None else packing.cleaned(x.transpose(2, 1, 0))))
        return entered, packing

    def _refuse_values(self, finite_before: bool) -> None:
        if finite_before:
            raise ValueError(
                f"x has values beyond the range of {self.dtype}, the model's dtype, in which they are infinite; "
                "scale or clean the data before it enters"
            )
        raise ValueError("x has values that are not finite (NaN or infinity); clean the data before it enters")

    def _check_data(
        self, x: Array, labels: Array | None = None, lengths: Any = None, mask: Any = None, of: str = ""
    ) -> tuple[np.ndarray, np.ndarray, Real | None]:
        """A whole data set as NumPy arrays, x (N, T, D) and integer labels (N,), checked, and which steps are real.

        `of` goes before an error.  Without labels those that come back are all 0.
        """
        try:
            x, real = self._read(x, lengths, mask)
            x = self.backend.to_host(x)
            x = x.astype(np.uint8) if x.dtype.kind == "b" else x
            labels = np.zeros(len(x), np.int64) if labels is None else labels
            integers = self.backend.to_host(self._enter_labels(labels, len(x)))
            rows = max(1, CHECKED_AT_ONCE // (x.shape[1] * x.shape[2]))
            for start in range(0, len(x), rows) if x.dtype.kind == "f" else ():
                with np.errstate(over="ignore"):
                    own = x[start : start + rows]
                    if real is not None:
                        own = np.where(as_mask(real[start : start + rows], x.shape[1])[:, :, None], own, 0)
                    part = own.astype(self.dtype, copy=False)
                if not np.isfinite(part).all():
                    self._refuse_values(bool(np.isfinite(own).all()))
        except ValueError as error:
            raise ValueError(f"{of}{error}") from None
        return x, integers, real

    def _enter_labels(self, labels: Array, B: int) -> Array:
        """Integers (B,) on the backend from integers (B,) or one-hot (B, K), checked."""
        K, host = self.num_classes, self.backend.to_host(as_array(labels, "labels"))
        if host.shape == (B, K):
            ones = host == 1
            if not (ones.sum(axis=1) == 1).all() or not ((host == 0) | ones).all():
                raise ValueError(f"one-hot labels need exactly one 1 and {K - 1} zeros in each row")
            host = host.argmax(axis=1)
        if host.shape != (B,) or host.dtype.kind not in "iub":
            raise ValueError(f"labels must be integers ({B},) or one-hot ({B}, {K}), found {host.dtype} {host.shape}")
        integers = host.astype(np.int64, copy=False)
        if integers.view(np.uint64).max() >= K:  # a negative one is large then
            raise ValueError(f"labels must be 0 ... {K - 1}, found {host.min()} ... {host.max()}")
        return self.backend.from_host(integers)

    def _enter_target(self, target: Any, B: int) -> Array:
        """Integers (B,) on the backend from a class for all samples, or one for each, checked."""
        K, found = self.num_classes, np.asarray(self.backend.to_host(target))
        classes = np.full(B, found) if found.ndim == 0 else found
        if classes.shape != (B,) or classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= K:
            raise ValueError(f"target must be a class, 0 ... {K - 1}, or one for each of {B} samples; found {target!r}")
        return self.backend.from_host(classes.astype(np.int64))

    # ---- description and storage

    def copy(self, **changes: Any) -> Self:
        """A model with the same parameter values, position and notes, and other settings (dtype, kernel, backend ...).

        >>> model = lstm_np.SequenceClassifier(3, 8, 2)
        >>> model.copy(dtype="float64", kernel="reference")
        SequenceClassifier(3, 8, 2, dtype='float64', kernel='reference')
        """
        with options.silent():
            other = type(self)(**{"backend": self.backend, **self.config, **changes})
        other.params.update(
            {n: other.backend.from_host(self.backend.to_host(a).astype(other.dtype)) for n, a in self.params.items()}
        )
        other.position, other.notes = self.position, dict(self.notes)
        if self._own_optimizer is not None:
            other._own_optimizer = Adam(other.params)
            other._own_optimizer.restore(self._own_optimizer.state())
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Options, arrays and the model's place in training; parameters and optimizer as the objects that they are, so
        that an optimizer which is copied or pickled together with the model goes on belonging to it."""
        return {
            "config": self.config,
            "backend": self.backend,
            "params": self._params,
            "position": self.position,
            "notes": self.notes,
            "optimizer": self._own_optimizer,
            "own": {name: value for name, value in vars(self).items() if name not in MADE},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        with options.silent():
            self._make({**state["config"], "backend": state["backend"]})
        self._params = state["params"]
        self.recurrent.params = self._params.leading(len(self.recurrent.params))
        self.position, self.notes, self._own_optimizer = state["position"], state["notes"], state["optimizer"]
        vars(self).update(state["own"])

    def __copy__(self) -> Self:
        return deepcopy(self)  # parameters that two models shared would train both

    if not TYPE_CHECKING:  # a type checker finds what is not there by itself

        def __getattr__(self, name: str) -> Any:
            raise other_names.no_attribute(self, name)

    def __repr__(self) -> str:
        return options.as_call(type(self).__name__, {**self.config, "backend": self.backend.name})

    def _repr_html_(self) -> str:
        return html_table(repr(self), SUMMARY_COLUMNS, self._summary_rows(), self._size())

    def _size(self) -> str:
        return f"{self.params.flat.shape[0]:,} parameters, {self.dtype}, {self.backend.name} backend"

    def summary(self) -> str:
        """A table of layers, output shapes and parameter counts, from a real pass over one sequence of two steps.

        >>> print(lstm_np.SequenceClassifier(28, 128, 10, kernel="reference").summary())
        layer           output shape  parameters  kernel
        --------------  ------------  ----------  ---------
        input           (B, T, 28)
        lstm layer 0    (B, T, 128)       80,384  reference
        dense read-out  (B, 10)            1,290
        81,674 parameters, float32, numpy backend
        """
        rows = [SUMMARY_COLUMNS, *self._summary_rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        rows.insert(1, tuple("-" * width for width in widths))
        lines = [
            f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
        ]
        return "\n".join([*lines, self._size()])

    def _summary_rows(self) -> list[tuple[str, ...]]:
        stack, xp = self.recurrent, self.backend.xp
        x = xp.zeros((self.input_size, 2, 1), dtype=self.dtype)
        rows: list[tuple[str, ...]] = [("input", f"(B, T, {x.shape[0]})", "", "")]
        if self.config["input_projection"] is not None:
            x = self.project(x)
            count = sum(array.size for array in self.params.section("input_projection").values())
            rows.append(("dense input projection", f"(B, T, {x.shape[0]})", f"{count:,}", ""))
        for layer in range(stack.num_layers):
            singles = stack.singles_of(layer)
            x = xp.concat([single.forward(x, single.initial_state(1), save=False)[0] for single in singles], axis=0)
            count = sum(array.size for single in singles for array in single.params.values())
            label = f"{self.config['cell']} layer {layer}" + (", both directions" if len(singles) == 2 else "")
            rows.append((label, f"(B, T, {x.shape[0]})", f"{count:,}", singles[0].kernel.name))
        logits = dense.forward(self.params.section("readout"), x[:, -1, :])
        count = sum(array.size for array in self.params.section("readout").values())
        rows.append(("dense read-out", f"(B, {logits.shape[0]})", f"{count:,}", ""))
        return rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write configuration, `notes` and weights to one safetensors file, atomically (`lstm_np.weights`).

        >>> model = lstm_np.SequenceClassifier(3, 8, 2)
        >>> model.save("my-model.safetensors")
        >>> lstm_np.SequenceClassifier.load("my-model.safetensors")
        SequenceClassifier(3, 8, 2)

        Raises OSError; ValueError for notes that are no plain values, or the complex numbers of a derivative check.
        """
        tensors = {name: self.backend.to_host(array) for name, array in self.params.items()}
        write_weights(path, tensors, {"model": self.config, "notes": self.notes})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, backend: str | Backend = "numpy", kernel: str | None = None) -> Self:
        """The model that `save` wrote, on `backend`; `kernel` replaces the one it was made with.

        Its training starts anew, at position (0, 0, 0) with a fresh optimizer.

        >>> lstm_np.SequenceClassifier(3, 8, 2).save("my-model.safetensors")
        >>> model = lstm_np.SequenceClassifier.load("my-model.safetensors", kernel="reference")
        >>> model.predict(np.ones((4, 5, 3))).shape
        (4,)

        Raises WeightsError when the file is missing, damaged, of a newer version, not of such a model, of a cell that
        nobody registered, or has values that are not finite.
        """
        tensors, stored = read_weights(path)
        config, notes = stored.get("model"), stored.get("notes")
        if unknown := stored.keys() - {"model", "notes"}:
            raise _written_by_a_newer_version(path, f"it says {', '.join(sorted(unknown))}")
        if not isinstance(config, Mapping) or not isinstance(notes, Mapping):
            raise WeightsError(f"{path}: the file does not say which model its weights belong to")
        model = cls._of_file(path, config, tensors, backend, kernel)
        model.notes = dict(notes)
        return model

    @classmethod
    def _of_file(
        cls,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray],
        backend: str | Backend,
        kernel: str | None,
    ) -> Self:
        """The model that a file describes, with the values of its tensors.  Raises WeightsError."""
        config = _present_options(path, config)
        cell = config.get("cell")
        if isinstance(cell, str) and cell not in CELLS:  # and no file is run because another names it
            raise WeightsError(
                f"{path}: its cell {cell!r} is not known here; register it first: "
                f"lstm_np.register_cell({cell!r}, ...), or --cell {cell}.py on the command line"
            )
        values = sum(array.size for array in tensors.values())
        for name, power, limit in (
            ("hidden_size", 2, values),
            ("input_size", 1, values),
            ("input_projection", 1, values),
            ("num_classes", 1, values),
            ("num_layers", 1, len(tensors)),
        ):  # nothing is allocated on the word of a file alone
            given = config.get(name)
            for size in given if isinstance(given, list) else (given,):
                if isinstance(size, int) and size**power > limit:
                    raise WeightsError(f"{path}: {name} {size} needs more than the {values:,} values of its tensors")
        try:
            with options.silent():
                model = cls(**{**config, "kernel": kernel or "auto"}, backend=backend)
        except (TypeError, ValueError, MemoryError) as error:
            raise WeightsError(f"{path}: the model it describes cannot be made ({error})") from error
        model.load_weights(tensors, path)
        return model

    def load_weights(self, tensors: Mapping[str, np.ndarray], source: str | os.PathLike[str]) -> None:
        """Take the values of named NumPy arrays, old names included; `source` is what errors call them.

        >>> model, other = lstm_np.SequenceClassifier(3, 8, 2), lstm_np.SequenceClassifier(3, 8, 2, seed=1)
        >>> other.load_weights(model.params.to_host(), "the other model")
        >>> (other.params.flat == model.params.flat).all()
        np.True_

        Raises WeightsError, and changes nothing, when names or shapes differ or a value is not finite.
        """
        try:
            tensors = old_names.parameters(tensors)
        except ValueError as error:
            raise WeightsError(f"{source}: {error}") from error
        check_shapes(source, tensors, self.params.shapes)
        check_values(source, tensors)
        self.params.update({name: self.backend.from_host(array.astype(self.dtype)) for name, array in tensors.items()})
