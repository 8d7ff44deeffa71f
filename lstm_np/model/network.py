"""What is computed: recurrent layers, what is read of the top one, a dense read-out, and back.

outputs = W h + b,     h: what is read (`lstm_np.model.readout`), (F, B), or (F, T, B) of a model that reads each step

An input projection, where there is one, is a dense layer in front: the recurrent layers read W_p x_t + b_p.  What the
outputs stand for, and their loss, is the matter of a head (`lstm_np.model.heads`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from lstm_np import initializers, options
from lstm_np.arrays import Array
from lstm_np.backends import as_numbers, get_backend
from lstm_np.checkpoints import Checkpoint
from lstm_np.data import Batches
from lstm_np.device.inference import DeviceInference
from lstm_np.device.memory import DeviceData
from lstm_np.holds import Hold, read_holds
from lstm_np.layers import Parameters, dense, make_layers
from lstm_np.loop import Position
from lstm_np.losses import one_hot
from lstm_np.model import readout
from lstm_np.model.heads import Head
from lstm_np.model.inputs import SequenceInputs
from lstm_np.optimizers import Adam
from lstm_np.options import Option
from lstm_np.packing import Packing, read
from lstm_np.parameters import merge
from lstm_np.steps import BatchGradients, TrainingBatch
from lstm_np.trace import Trace

# what a model consists of: all other attributes are the user's own, which copies and pickles keep
MADE = {"backend", "config", "input_size", "dtype", "read_out", "head", "stateful", "notes", "recurrent",
        "_params", "position", "_own_optimizer", "_inference", "_kept_on_device"}  # fmt: skip


class Network(SequenceInputs):
    """A model's parameters, its forward and its backward pass; a column is a sample in all arrays here.

    own_options  options that are another thing for this class of models than `lstm_np.options` lists
    size_option  the option that says how many outputs there are
    """

    own_options: ClassVar[Mapping[str, Option]] = {}
    size_option: ClassVar[str]

    def _make(self, settings: Mapping[str, Any]) -> None:
        """What constructors do; `settings` are the options that they spell out."""
        values = options.check(settings, options.of(type(self)))
        self.backend = get_backend(values.pop("backend"))
        self.config: dict[str, Any] = values
        self.input_size, self.dtype, self.read_out = values["input_size"], values["dtype"], values["read_out"]
        options.warn_if_no_error_is_cut(values)
        self.head = self._make_head(values)
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
            self.head.size,
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

    def _make_head(self, config: Mapping[str, Any]) -> Head:
        """The head that these options describe.  Raises OptionError where they do not go together."""
        raise NotImplementedError

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
        """(outputs (K, B), what was read (F, B), cache) from x (D, T, B); (K, T, B) and (F, T, B) of each step.

        `packing`, `holds` and `trace` as for `lstm_np.layers.Recurrent.run`.  With `packing` the steps that are read
        are a sequence's own; with an input projection x must be 0 at the others.
        """
        outputs, h, cache, _ = self.run_on(
            x, None, packing=packing, save=save, dropout_key=dropout_key, holds=holds, trace=trace
        )
        return outputs, h, cache

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
        how = self._reads_outputs(truncation is not None)
        y, final, cache = stack.run(
            x,
            state,
            packing=packing,
            sequence=how is not None,
            save=save,
            dropout_key=dropout_key,
            holds=holds,
            trace=trace,
            resets=resets,
            truncation=truncation,
        )
        kept = None
        if how is not None:
            h, kept = readout.forward(self.backend, how, y, packing)
        else:
            parts = [state[0] for state in final[-stack.directions :]]
            h = parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
            kept = stack.last_mask(h.shape, dropout_key)
            if kept is not None:  # the states are outputs too, the last of each direction
                h = h * kept
        if cache is not None:
            cache["read"] = kept
        with self.backend.one_blas_thread(h.size * self.head.size):
            if h.ndim == 2:
                return dense.forward(self.params.section("readout"), h), h, cache, final
            outputs = dense.forward(self.params.section("readout"), h.reshape(h.shape[0], -1))
        return outputs.reshape(self.head.size, *h.shape[1:]), h, cache, final

    def _reads_outputs(self, truncated: bool) -> str | None:
        """How the outputs of the top layer are read; None where its final states are."""
        # of layers that all read forwards the last output is the final state, and a truncated pass has no other window
        states = self.read_out == "final_state" or (self.read_out == "last_output" and truncated)
        return None if states else self.read_out

    def loss(self, xp: Any, outputs: Array, targets: Any) -> tuple[Array, Array, Array]:
        """(mean loss, gradient, correct answers) of outputs, as `lstm_np.model.heads.Head.loss`."""
        return self.head.loss(xp, outputs, targets)[:3]

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

        batch  x (D, T, B) of the model's dtype; labels what `Head.enter` gives, and resets (B,) booleans, of the
               backend; in the place of real a Packing or None
        into   where the gradients are written to; None: to arrays of their own
        check  sees the outputs before the loss does, and may raise
        """
        x, targets, packing, _, state, resets, truncation, _ = batch
        flags: dict[str, Any] = {"dropout_key": dropout_key, "holds": holds, "resets": resets}
        outputs, h, cache, final = self.run_on(x, state, packing=packing, truncation=truncation, **flags)
        if check is not None:
            check(outputs)
        loss, doutputs, correct, of = self.head.loss(self.backend.xp, outputs, targets)
        grads = self._backward_from_outputs(x, h, cache, doutputs, into)[0]
        return BatchGradients(loss, correct, x.shape[2], grads, final, of)

    def _backward_from_outputs(
        self, x: Array, h: Array, cache: Any, doutputs: Array, into: Parameters | None = None, *, to_x: bool = False
    ) -> tuple[Parameters, Array | None]:
        """(gradients, dx (D, T, B)) from that of the outputs and what `run` gave; dx where `to_x` wants it.

        x is what `run` was given.  The gradients are written to `into` when it is given.
        """
        stack, H = self.recurrent, self.recurrent.hidden_size
        with self.backend.one_blas_thread(h.size * self.head.size):
            params = self.params.section("readout")
            if h.ndim == 2:
                dh, dense_out = dense.backward(params, h, doutputs)
            else:
                flat = doutputs.reshape(self.head.size, -1)
                dh, dense_out = dense.backward(params, h.reshape(h.shape[0], -1), flat)
                dh = dh.reshape(h.shape)
        nothing = (None,) * len(stack.cell.state)
        dstate = [nothing] * (stack.num_layers * stack.directions)
        dy, how = None, self._reads_outputs("windows" in cache)
        if how is not None:
            dy = readout.backward(self.backend, how, dh, cache["read"], x.shape[1], cache.get("packing"))
        else:
            dh = dh if cache["read"] is None else dh * cache["read"]
            for direction in range(stack.directions):
                part = dh[direction * H : (direction + 1) * H]
                dstate[direction - stack.directions] = (part, *nothing[1:])
        projected = self.config["input_projection"] is not None
        into = self.params.empty_like() if into is None else into
        flags = {"input_gradient": projected or to_x, "state_gradient": False}
        dx, _, grads = stack.run_backward(cache, dy, dstate, **flags, into=into)
        dense_grads = {"readout": dense_out}
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

        labels are targets of any kind that the model takes; target is one of its outputs, the sum over the steps where
        each step has outputs.

        >>> lstm_np.SequenceClassifier(3, 5, 2).trace(np.ones((4, 6, 3)), [0, 1, 1, 0]).value("c").shape
        (4, 6, 5)
        """
        if labels is not None and target is not None:
            raise ValueError("gradients are either of the loss of labels or of the logit of a target; found both")
        x, real = read(x, lengths, mask, self.backend.to_host)
        x, packing = self._enter_real(x, real)
        xp, to_host, (_, T, B) = self.backend.xp, self.backend.to_host, x.shape
        truth = None if labels is None else self._enter_targets(labels, B, T, real, whole=True)
        wanted = None if target is None else self._enter_target(target, B)
        holds = self.read_holds(hold)
        outputs, h, cache = self.run(x, packing=packing, dropout_key=dropout_key, holds=holds, trace=True)
        recorded = cache["trace"]
        if self.config["input_projection"] is not None:
            recorded.add("x", x)
        step_outputs = self._step_outputs(cache, outputs)
        recorded.add("logits", outputs)
        recorded.add("step_logits", step_outputs)
        probabilities = self.head.probabilities(xp, step_outputs)
        if probabilities is not None:
            recorded.add("probabilities", probabilities)
        if truth is not None:
            loss, doutputs, *_ = self.head.loss(xp, outputs, truth)
            batch_first = to_host(truth.values).T  # (B, ...)
            recorded.about.update(loss=to_host(loss).item(), gradients_of="loss", classes=batch_first.tolist())
        elif wanted is not None:
            doutputs = one_hot(xp, wanted, self.head.size).astype(self.dtype)
            if self.head.per_step:
                doutputs = doutputs[:, None, :] + xp.zeros_like(outputs)
                doutputs = doutputs if packing is None else packing.cleaned(doutputs)
            recorded.about.update(gradients_of="logit", classes=to_host(wanted).tolist())
        else:
            return recorded
        _, dx = self._backward_from_outputs(x, h, cache, doutputs, to_x=True)
        recorded.add("logits_gradient", doutputs)
        if self.config["input_projection"] is not None:
            recorded.add("dx", dx)
        return recorded

    def _step_outputs(self, cache: Any, outputs: Array) -> Array:
        """(K, T, B): what the read-out makes of every step of a pass that is traced, whose outputs are `outputs`."""
        if self.head.per_step:
            return outputs
        xp, found, packing = self.backend.xp, list(cache["outputs"]), cache["packing"]
        mask, H = cache["masks"][-1], self.recurrent.hidden_size
        if mask is not None:
            found = [one * mask[k * H : (k + 1) * H] for k, one in enumerate(found)]
        if self.read_out != "last_output" and len(found) == 2:
            # after as many steps, whichever way they are read
            found[1] = found[1][:, ::-1, :] if packing is None else packing.mirrored(found[1])
        read = found[0] if len(found) == 1 else xp.concat(found, axis=0)
        if self.read_out in ("mean", "max"):
            read = readout.after_each_step(self.backend, self.read_out, read, packing)
        elif self.read_out == "final_state" and cache["read"] is not None:
            read = read * cache["read"][:, None, :]
        _, T, B = read.shape
        made = dense.forward(self.params.section("readout"), read.reshape(-1, T * B)).reshape(-1, T, B)
        if packing is not None:  # behind a sequence the answer stands
            before = dense.forward(self.params.section("readout"), xp.zeros_like(read[:, 0, :]))
            return packing.carried(xp.where(packing.is_last, outputs[:, None, :], made), before)
        return xp.concat((made[:, :-1, :], outputs[:, None, :]), axis=1)

    def read_holds(self, hold: Any) -> tuple[Hold, ...]:
        """What people write as `hold`, checked.  Raises HoldError for what names nothing in this model."""
        stack = self.recurrent
        return read_holds(hold, stack.cell, stack.num_layers, (False, True)[: stack.directions])

    def project(self, x: Array) -> Array:
        """(P, T, B) from x (D, T, B): the dense layer over every step of every sample."""
        with self.backend.one_blas_thread(x.size * self.params["input_projection.W"].shape[0]):
            projected = dense.forward(self.params.section("input_projection"), x.reshape(x.shape[0], -1))
        return projected.reshape(-1, *x.shape[1:])
