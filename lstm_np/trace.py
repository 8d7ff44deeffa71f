"""Every number of a pass: what each layer computed at each step of each sample, and its gradient.

A trace is a pass of the reference kernel, forward and, where a loss or a logit is given, backward, with nothing thrown
away: pre-activations, every value that the cell's equations name, the states, the gradient of the loss with respect to
each, and the two factors of every step's share of the gradients of W, U and b.  Nothing is computed twice or recovered
from something else: the numbers are those that the kernel had in its hands, bit for bit those of kernel="reference".

    trace = lstm_np.trace(model, x, labels)
    trace.gate("f", layer=0)[sample, t, unit]              trace.gradient("f", layer=0)[sample, t, unit]

Arrays are NumPy's, batch-first and read-only: (B, T, H), whichever backend and direction.  Steps are counted as the
sequence has them, from 0, also in a layer that reads it backwards.
"""

from __future__ import annotations

import html
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends import Backend
from lstm_np.cells import Cell
from lstm_np.errors import LstmNpError
from lstm_np.files import write_atomically
from lstm_np.kernels.reference import Saved, State, StepBack
from lstm_np.packing import Packing
from lstm_np.weights import WeightsError, read_file, write_file

KEYS = {"cell", "gates", "values", "state", "products", "own_parameters", "parameters", "layers", "directions",
        "reverse", "units", "dtype", "backend", "kernels", "difference", "loss", "gradients_of", "classes",
        "held"}  # fmt: skip
SHUT, OPEN = 0.1, 0.9  # a gate counts as saturated below and above (Karpathy, Johnson and Li, arXiv:1506.02078)


class TraceError(LstmNpError, ValueError):
    """Something that a trace does not have; one line: what was asked for, and what there is.

    >>> trace = lstm_np.trace(lstm_np.SequenceClassifier(3, 5, 2), np.ones((4, 6, 3)))
    >>> trace.gate("r")
    Traceback (most recent call last):
    lstm_np.trace.TraceError: ...
    """


def trace(
    model: Any,
    x: Array,
    labels: Array | None = None,
    target: Any = None,
    *,
    lengths: Any = None,
    mask: Any = None,
    hold: Any = None,
    dropout_key: Sequence[int | str] | None = None,
) -> Trace:
    """The `Trace` of a model's pass over x (B, T, D), a NumPy array or one of the model's backend, or a list of arrays.

    labels       targets of any kind that the model takes, as y of `fit`: gradients are those of the mean loss over the
                 batch, as in training (of one sample's own loss where B is 1)
    target       a class, or another of the model's outputs, from 0, or one for each sample (B,): gradients are those of
                 each sample's logit of that class, or of that output (of the sum over the steps where each step has
                 outputs)
    lengths      (B,), or a mask (B, T): the steps that the sequences have, as for `LSTM.forward`
    hold         values of the cell to be held, {"f": 1.0} or a list of `lstm_np.Hold`
    dropout_key  as in training, e.g. (step,); None: no dropout, as in evaluation

    Without labels and target there are no gradients.  A single layer is traced by `layer.forward(x, trace=True)`.

    >>> model = lstm_np.SequenceClassifier(3, 5, 2)
    >>> trace = lstm_np.trace(model, np.ones((4, 6, 3)), labels=[0, 1, 1, 0])
    >>> trace.gate("f").shape, trace.gradient("f").shape  # (sample, step, unit)
    ((4, 6, 5), (4, 6, 5))

    Raises ValueError for an x, labels or target that does not fit, HoldError for a hold that names nothing in the
    model, TypeError for what is no model.
    """
    if not hasattr(model, "trace"):
        raise TypeError(
            f"trace takes a SequenceClassifier or SequenceRegressor, found {type(model).__name__}; a layer is traced "
            "by layer.forward(x, trace=True)"
        )
    return model.trace(x, labels, target, lengths=lengths, mask=mask, hold=hold, dropout_key=dropout_key)


def largest_difference(backend: Backend, pairs: Iterable[tuple[Array, Array]]) -> float:
    """Over pairs of arrays of the backend: the largest |a - b|, relative to the largest |a| where that is above 1."""
    found = [0.0]
    for one, two in pairs:
        a, b = backend.to_host(one), backend.to_host(two)
        found.append(float(np.abs(a - b).max() / max(1.0, np.abs(a).max())))
    return float(np.max(found))


class Trace:
    """All values of a pass over B samples of T steps, and their gradients where they were asked for.

    about       what was traced, as plain values: "cell", "layers", "directions", "units" (H), "dtype", "backend",
                "kernels" (the layers' own), "held" (whether values were), "gradients_of" ("loss", "logit", "outputs" of
                a layer, or None) and "classes": the labels or targets of whose loss the gradients are, batch-first, or
                the outputs (B,) that they are of; None without gradients
    difference  how far outputs and final states are from those of the model's own kernels, which train it, relative to
                an array's largest magnitude where that is above 1; None where values were held, which no other kernel
                does
    loss        the mean loss over the batch; None without labels
    logits      the outputs of a model, (B, K), or (B, T, K) where each step has outputs; None of a layer

    Every method that takes `layer` (from 0) and `reverse` raises TraceError where there is no such layer or direction.

    >>> lstm = lstm_np.LSTM(3, 5, bidirectional=True)
    >>> y, _, cache = lstm.forward(np.ones((4, 6, 3)), trace=True)
    >>> trace = cache["trace"]
    >>> np.allclose(trace.value("h", layer=0, reverse=True), y[:, :, 5:])
    True
    """

    def __init__(
        self,
        about: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        backend: Backend | None = None,
        packing: Packing | None = None,
    ) -> None:
        self.about: dict[str, Any] = dict(about)
        self._backend, self._packing = backend, packing  # while it is recorded
        self._arrays: dict[str, np.ndarray] = {}
        if packing is not None:
            self._keep("mask", packing.real.T.astype(np.uint8))
        for name, array in arrays.items():
            self._keep(name, array)

    # ---- what is there

    @property
    def samples(self) -> int:
        """B."""
        return self._arrays["layer0.x"].shape[0]

    @property
    def steps(self) -> int:
        """T."""
        return self._arrays["layer0.x"].shape[1]

    @property
    def mask(self) -> np.ndarray:
        """(B, T) booleans: which steps the samples have.  At the others values and gradients are 0, and a state is the
        one that was carried there."""
        if "mask" not in self._arrays:
            return np.ones((self.samples, self.steps), bool)
        return self._arrays["mask"].astype(bool)

    @property
    def units(self) -> int:
        """H, of each layer and direction (of the top layer, where layers differ in size)."""
        units = self.about["units"]
        return units if isinstance(units, int) else units[-1]

    @property
    def gates(self) -> tuple[str, ...]:
        """The row blocks of the pre-activations, in order."""
        return tuple(self.about["gates"])

    @property
    def values(self) -> tuple[str, ...]:
        """The names of the values of the cell's equations, in the order in which they are computed."""
        return tuple(self.about["values"])

    @property
    def states(self) -> tuple[str, ...]:
        """The parts of the state."""
        return tuple(self.about["state"])

    @property
    def layers(self) -> tuple[tuple[int, bool], ...]:
        """(layer, reverse) of all layers and directions, in the order in which they are computed."""
        directions = (True,) if self.about["reverse"] else (False, True)[: self.about["directions"]]
        return tuple((layer, reverse) for layer in range(self.about["layers"]) for reverse in directions)

    @property
    def has_gradients(self) -> bool:
        """Whether there was a backward pass."""
        return self.about["gradients_of"] is not None

    @property
    def difference(self) -> float | None:
        """See the class."""
        return self.about["difference"]

    @property
    def loss(self) -> float | None:
        """See the class."""
        return self.about["loss"]

    # ---- the values

    def gate(self, name: str, *, layer: int = 0, reverse: bool = False) -> np.ndarray:
        """(B, T, H): a gate after its activation.

        Raises TraceError for a name that is not one of `gates`, or that the cell does not name as a value.
        """
        if name not in self.gates:
            raise TraceError(f"a {self.about['cell']} cell has no gate {name!r}; there are: {', '.join(self.gates)}")
        return self.value(name, layer=layer, reverse=reverse)

    def value(self, name: str, *, layer: int = 0, reverse: bool = False) -> np.ndarray:
        """(B, T, H): any value of the cell's equations, gates included.  Raises TraceError for an unknown name."""
        return self._named("value", self.values, name, layer, reverse)

    def pre_activation(self, gate: str, *, layer: int = 0, reverse: bool = False) -> np.ndarray:
        """(B, T, H): a gate's rows of a = W x_t + U h_{t-1} + b.  Raises TraceError for an unknown gate.

        A product that the cell makes itself is not in it: a GRU's n has U_n h_{t-1} in the value m.
        """
        return self._named("pre_activation", self.gates, gate, layer, reverse)

    def state(self, name: str, *, layer: int = 0, reverse: bool = False) -> np.ndarray:
        """(B, T + 1, H): a part of the state between the steps; entry k lies between step k - 1 and step k.

        So entry 0 is the state before the first step, t = -1, and entry t + 1 that after step t; a layer that reads
        backwards starts from entry T, and entry t is its state after step t.  Raises TraceError for an unknown part.
        """
        return self._named("state", self.states, name, layer, reverse)

    def x(self, layer: int | None = None) -> np.ndarray:
        """(B, T, D): what went in, or what a layer reads: of a layer above the first the outputs below, after dropout;
        of the first, with an input projection, what that gives.  Raises TraceError for an unknown layer."""
        return self._input("x", layer)

    @property
    def logits(self) -> np.ndarray | None:
        """See the class."""
        return self._arrays.get("logits")

    @property
    def probabilities(self) -> np.ndarray:
        """(B, T, K): the class probabilities that the read-out gives after every step; the last are the answer.

        It was trained on the last step alone: before that they are a probe (but of a model that reads each step).  Of a
        model with two directions that reads final states, a mean or a maximum: after as many steps of each.  Raises
        TraceError for the trace of a layer, which has no read-out, or of a regressor.
        """
        return self._of_model("probabilities")

    @property
    def step_logits(self) -> np.ndarray:
        """(B, T, K): the logits of `probabilities`.  Raises TraceError as that does."""
        return self._of_model("step_logits")

    # ---- the gradients

    def gradient(self, name: str, *, layer: int = 0, reverse: bool = False) -> np.ndarray:
        """(B, T, H): the gradient with respect to a value.

        By how much the loss (or logit) would change with that value at that step, all that follows from it included.
        Of a value that is held: with what it is held at.  Raises TraceError for an unknown name, and where there are no
        gradients.
        """
        return self._named("gradient", self.values, name, layer, reverse)

    def pre_activation_gradient(self, gate: str, *, layer: int = 0, reverse: bool = False) -> np.ndarray:
        """(B, T, H): the gradient with respect to a gate's pre-activation, da.  Raises TraceError as `gradient`."""
        return self._named("pre_activation_gradient", self.gates, gate, layer, reverse)

    def state_gradient(self, name: str, *, layer: int = 0, reverse: bool = False) -> np.ndarray:
        """(B, T + 1, H): the gradient with respect to a part of the state, laid out as `state`.

        For a part that the cell does not name as a value: what arrives at it from later steps and from above.  Raises
        TraceError as `gradient`.
        """
        return self._named("state_gradient", self.states, name, layer, reverse)

    def dx(self, layer: int | None = None) -> np.ndarray:
        """(B, T, D): the gradient with respect to `x`, of both directions together.  Raises TraceError as `gradient`
        does."""
        return self._input("dx", layer)

    def factors(
        self, parameter: str, gate: str | None = None, *, layer: int = 0, reverse: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The two factors of each step's share of a parameter's gradient: (left (B, T, R), right (B, T, C)).

        parameter   as in the layer's params: "W", "U", "b", ...
        gate        its rows alone, R = H; None: of all gates

        The share of step t of sample s is the outer product of left[s, t] and right[s, t]: for W of da and x_t, for U
        of da and h_{t-1}, for b of da and 1.  Where a cell makes a gate's product with U itself (a GRU's n), those rows
        have factors of their own, dm and what was multiplied, and U has to be asked for by gate.
        Raises TraceError for an unknown parameter or gate, and as `gradient`.
        """
        name = self._single(layer, reverse)
        if parameter not in self.about["parameters"][name]:
            raise TraceError(
                f"{name} has no parameter {parameter!r}; there are: {', '.join(self.about['parameters'][name])}"
            )
        own = {name for name, _ in self.about["own_parameters"]}
        biases = {bias: gate for _, gate, bias in self.about["products"] if bias is not None}
        if parameter in own:
            return self._with_ones(self._needed(f"{name}.parameter_gradient.{parameter}"))
        if parameter in biases:
            return self._with_ones(self._product(name, biases[parameter])[0])
        if gate is not None and gate not in self.gates:
            raise TraceError(f"a {self.about['cell']} cell has no gate {gate!r}; there are: {', '.join(self.gates)}")
        with_products = set(biases.values()) if parameter == "b_h" else set()  # b_h is the bias of U h_{t-1}
        if parameter == "U":
            with_products = {gate for _, gate, _ in self.about["products"]}
        if gate is None and with_products and parameter == "U":
            raise TraceError(f"U's rows of gate {', '.join(sorted(with_products))} have other factors: name a gate")
        pairs = []
        for each in self.gates if gate is None else (gate,):
            if each in with_products:
                left, right = self._product(name, each)
            else:
                left = self.pre_activation_gradient(each, layer=layer, reverse=reverse)
                right = self.x(layer) if parameter == "W" else self._before(layer, reverse)
            pairs.append((left, right))
        left = np.concatenate([left for left, _ in pairs], axis=2)
        return (left, pairs[0][1]) if parameter in ("W", "U") else self._with_ones(left)

    def share(
        self,
        parameter: str,
        gate: str | None = None,
        *,
        sample: Any = slice(None),
        t: Any = slice(None),
        layer: int = 0,
        reverse: bool = False,
    ) -> np.ndarray:
        """The share of some samples and steps in a parameter's gradient, in its shape, or in that of a gate's rows.

        sample, t   a number or a slice; all where they are not given: then it is the gradient

        Raises TraceError as `factors`, IndexError for a number that is outside.
        """
        gates = self.gates if gate is None and parameter == "U" and self.about["products"] else (gate,)
        parts = []
        for each in gates:
            left, right = (
                array[_as_slice(sample, array.shape[0]), _as_slice(t, array.shape[1])].reshape(-1, array.shape[2])
                for array in self.factors(parameter, each, layer=layer, reverse=reverse)
            )
            parts.append(left.T @ right)
        found = np.concatenate(parts)
        return found if parameter in ("W", "U") else found[:, 0]

    # ---- in words

    def __repr__(self) -> str:
        return f"<Trace of {self._subject()}>"

    def summary(self) -> str:
        """A table: each value's range, how often it is shut or open, and the norm of its gradient."""
        rows = self._rows()
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*self._sentences(), "", *lines])

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        head, *rows = self._rows()
        cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        words = "<br>".join(html.escape(sentence) for sentence in self._sentences())
        return f"<p>{words}</p><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"

    def _subject(self) -> str:
        about = self.about
        layers = "1 layer" if about["layers"] == 1 else f"{about['layers']} layers"
        both = " in both directions" if about["directions"] == 2 else " from the end" if about["reverse"] else ""
        units = str(about["units"]) if isinstance(about["units"], int) else ", ".join(map(str, about["units"]))
        samples = "1 sample" if self.samples == 1 else f"{self.samples} samples"
        return f"{samples}, {self.steps} steps: {about['cell']}, {layers} of {units} units{both}, {about['dtype']}"

    def _sentences(self) -> list[str]:
        about = self.about
        kernels = ", ".join(sorted(set(about["kernels"])))
        values = {
            None: "no gradients",
            "loss": "gradients of the mean loss" + ("" if self.loss is None else f", {self.loss:.6g}"),
            "logit": "gradients of a logit",
            "outputs": "gradients of what backward was given",
        }
        compared = "values are held, which the reference kernel alone does"
        if self.difference is not None:
            compared = f"kernel {kernels} on {about['backend']} differs by {self.difference:.1e} at most"
        return [f"Trace of {self._subject()}", values[about["gradients_of"]], compared]

    def _rows(self) -> list[tuple[str, ...]]:
        """The table of `summary`, its head first."""
        rows: list[tuple[str, ...]] = [
            ("layer", "value", "min", "mean", "max", f"< {SHUT:g}", f"> {OPEN:g}", "gradient norm")
        ]
        for layer, reverse in self.layers:
            for name in self.values:
                array = np.real(self.value(name, layer=layer, reverse=reverse))
                array = array if "mask" not in self._arrays else array[self.mask]
                low, high = float(array.min()), float(array.max())
                numbers = [f"{low:.4f}", f"{array.mean():.4f}", f"{high:.4f}"]
                shares = ["", ""]
                if name in self.gates and 0 <= low <= high <= 1:
                    shares = [f"{(array < SHUT).mean():.1%}", f"{(array > OPEN).mean():.1%}"]
                norm = ""
                if self.has_gradients:
                    norm = f"{np.linalg.norm(self.gradient(name, layer=layer, reverse=reverse)):.3e}"
                rows.append((f"{layer} reverse" if reverse else str(layer), name, *numbers, *shares, norm))
        return rows

    # ---- files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, atomically: safetensors, which `load` reads, or, where the name ends in .npz, NumPy's
        form, for other programs.

        The arrays' names are the same in both: "layer0.value.f" (B, T, H), "layer0_reverse.gradient.c" ...; `about` is
        in the metadata, or in npz the text "about", as JSON.  Raises OSError, or ValueError for complex numbers.
        """
        if os.fspath(path).endswith(".npz"):
            content = io.BytesIO()
            named: dict[str, Any] = {"about": np.array(json.dumps(self.about)), **self._arrays}
            np.savez(content, **named)
            write_atomically(path, content.getvalue())
        else:
            write_file(path, "trace", self._arrays, self.about)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """The trace that `save` wrote to a safetensors file.  Raises WeightsError for any other file."""
        arrays, about = read_file(path, "trace")
        if about.keys() != KEYS or "layer0.x" not in arrays:
            raise WeightsError(f"{path}: not a trace of this version of lstm_np; take it again")
        return cls(about, arrays)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by the names that they have in files."""
        return dict(self._arrays)

    # ---- how it is recorded: by the layers and the model that compute

    @classmethod
    def of_layers(
        cls,
        cell: Cell,
        layers: int,
        directions: int,
        units: int | list[int],
        dtype: str,
        backend: Backend,
        kernels: Sequence[str],
        held: bool = False,
        packing: Packing | None = None,
        reverse: bool = False,
    ) -> Trace:
        """An empty trace, for a pass that is about to begin.

        kernels   the layers' own
        packing   the batch's, where its samples have unequal lengths
        reverse   whether the layers read sequences from their ends alone
        """
        about = {
            "cell": cell.name,
            "gates": list(cell.gates),
            "values": list(cell.values),
            "state": list(cell.state),
            "products": [list(product) for product in cell.products],
            "own_parameters": [[parameter.name, parameter.blocks] for parameter in cell.handed],
            "parameters": {},
            "layers": layers,
            "directions": directions,
            "reverse": reverse,
            "units": units,
            "dtype": dtype,
            "backend": backend.name,
            "kernels": list(kernels),
            "difference": None,
            "loss": None,
            "gradients_of": None,
            "classes": None,
            "held": held,
        }
        return cls(about, {}, backend, packing)

    def add_forward(
        self, name: str, parameters: Iterable[str], reverse: bool, x: Array, saved: Saved, final: State
    ) -> None:
        """What a layer in one direction computed.

        name, parameters   "layer0" or "layer0_reverse", and the names of its parameters
        x                  (D, T, B), what it read, in the order of the sequence
        saved, final       of its forward pass by the reference kernel, pre-activations included
        """
        self.about["parameters"][name] = list(parameters)
        layer = name.removesuffix("_reverse")
        if f"{layer}.x" not in self._arrays:
            self.add(f"{layer}.x", x if self._packing is None else self._packing.cleaned(x))
        for value in self.values:
            self._add_steps(f"{name}.value.{value}", [values[value] for values in saved.values], reverse)
        self._add_rows(f"{name}.pre_activation", saved.pre_activations, reverse)
        for k, part in enumerate(self.states):
            between = [state[k] for state in (*saved.states, final)]
            if self._packing is None:
                self._add_steps(f"{name}.state.{part}", between, reverse)
            else:
                self._add_states(f"{name}.state.{part}", between, reverse)
        for k, (value, _, _) in enumerate(self.about["products"]):
            self._add_steps(f"{name}.operand.{value}", [operands[k] for operands in saved.operands], reverse)

    def add_backward(
        self, name: str, reverse: bool, steps_back: Sequence[StepBack], dstate: tuple[Array | None, ...]
    ) -> None:
        """Its backward pass, as the reference kernel handed it out, last step first; `dstate` is the gradient of the
        final state that it was given."""
        self.about["gradients_of"] = self.about["gradients_of"] or "outputs"
        steps = steps_back[::-1]
        for value in self.values:
            self._add_steps(f"{name}.gradient.{value}", [step.gradients[value] for step in steps], reverse)
        self._add_rows(f"{name}.pre_activation_gradient", [step.da for step in steps], reverse)
        for k, part in enumerate(self.states):
            after = [step.gradients[part] if part in self.values else step.arriving[k] for step in steps]
            if self._packing is None:
                self._add_steps(f"{name}.state_gradient.{part}", [steps[0].dstate[k], *after], reverse)
            else:
                before = [step.dstate[k] for step in steps]
                self._add_state_gradients(f"{name}.state_gradient.{part}", before, after, dstate[k], reverse)
        for k, (value, _, _) in enumerate(self.about["products"]):
            self._add_steps(f"{name}.product_gradient.{value}", [step.own.dms[k] for step in steps], reverse)
        for parameter, _ in self.about["own_parameters"]:
            shares = [step.own.parameters[parameter] for step in steps]
            self._add_steps(f"{name}.parameter_gradient.{parameter}", shares, reverse)
        if steps[0].dx is not None:
            self._add_steps(f"{name}.dx", [step.dx for step in steps], reverse)

    def add(self, name: str, array: Array) -> None:
        """An array of the backend with its samples last, (features, T, B) or (K, B)."""
        host = self._host(array)
        self._keep(name, np.array(host.transpose(*reversed(range(host.ndim))), order="C"))

    def _add_steps(self, name: str, steps: Sequence[Array], reverse: bool) -> None:
        """(H, B) of each step that the layer made."""
        assert self._backend is not None
        if self._packing is not None:
            self._keep(name, np.ascontiguousarray(self._unpacked(steps, reverse).transpose(2, 1, 0)))
            return
        host = self._host(self._backend.xp.stack(steps))
        self._keep(name, np.ascontiguousarray((host[::-1] if reverse else host).transpose(2, 0, 1)))

    # of samples of unequal length a step has the columns of those that make it

    def _unpacked(self, steps: Sequence[Array], reverse: bool) -> np.ndarray:
        """(H, T, B) of the batch, 0 where a sample has no step, from (H, n) of each step that the layer made."""
        packing = self._own_packing(reverse)
        packed = np.zeros((steps[0].shape[0], packing.T, packing.B), self.about["dtype"])
        for t, step in enumerate(steps):
            packed[:, t, : step.shape[1]] = self._host(step)
        return self._host(packing.unpack(packing.backend.from_host(packed)))

    def _add_states(self, name: str, between: Sequence[Array], reverse: bool) -> None:
        """`state` of a part from (H, n) before each step and, last, the final one (H, B) of all samples."""
        packing, final = self._own_packing(reverse), self._host(between[-1])
        whole = final[:, packing.order]  # who has ended has the final state
        packed = np.stack([whole] * (packing.T + 1), axis=1)
        for t, state in enumerate(between[:-1]):
            packed[:, t, : state.shape[1]] = self._host(state)
        start, after = (packing.backend.from_host(np.ascontiguousarray(part)) for part in (packed[:, 0], packed[:, 1:]))
        start = packing.samples(start)
        carried = self._host(packing.carried(packing.unpack(after), start))
        self._keep_between(name, self._host(start), carried, reverse)

    def _add_state_gradients(
        self, name: str, before: Sequence[Array], after: Sequence[Array], given: Array | None, reverse: bool
    ) -> None:
        """`state_gradient` of a part from those before and after each step (H, n) and that given at the end (H, B)."""
        packing = self._own_packing(reverse)
        arrived, left = self._unpacked(after, reverse), self._unpacked(before, reverse)
        gradient = np.zeros_like(arrived[:, 0]) if given is None else self._host(given)
        for t in range(packing.T) if reverse else reversed(range(packing.T)):
            real = packing.real[t]
            arrived[:, t] = np.where(real, arrived[:, t], gradient)  # carried on, it is the same state
            gradient = np.where(real, left[:, t], gradient)
        self._keep_between(name, gradient, arrived, reverse)

    def _keep_between(self, name: str, start: np.ndarray, after: np.ndarray, reverse: bool) -> None:
        """(B, T + 1, H) from what is before the first step read (H, B) and after each step (H, T, B)."""
        parts = [after, start[:, None]] if reverse else [start[:, None], after]
        self._keep(name, np.ascontiguousarray(np.concatenate(parts, axis=1).transpose(2, 1, 0)))

    def _own_packing(self, reverse: bool) -> Packing:
        assert self._packing is not None
        return self._packing.reversed if reverse else self._packing

    def _add_rows(self, name: str, steps: Sequence[Array], reverse: bool) -> None:
        """(rows, B) of each step, cut into gates."""
        H = steps[0].shape[0] // len(self.gates)
        for k, gate in enumerate(self.gates):
            self._add_steps(f"{name}.{gate}", [a[k * H : (k + 1) * H, :] for a in steps], reverse)

    def _host(self, array: Array) -> np.ndarray:
        assert self._backend is not None
        return self._backend.to_host(array)

    def _keep(self, name: str, array: np.ndarray) -> None:
        array.setflags(write=False)
        self._arrays[name] = array

    # ---- how it is read

    def _single(self, layer: int, reverse: bool) -> str:
        if (layer, bool(reverse)) not in self.layers:
            there = f"layers 0 ... {self.about['layers'] - 1}, "
            ways = "both directions" if self.about["directions"] == 2 else "one direction"
            there += ways if self.about["directions"] == 2 else f"{ways}, reverse={self.about['reverse']}"
            raise TraceError(f"no layer {layer!r} with reverse={reverse!r}; there are {there}")
        return f"layer{layer}" + ("_reverse" if reverse else "")

    def _named(self, kind: str, names: Sequence[str], name: str, layer: int, reverse: bool) -> np.ndarray:
        if name not in names:
            raise TraceError(f"a {self.about['cell']} cell has no {name!r} here; there are: {', '.join(names)}")
        return self._needed(f"{self._single(layer, reverse)}.{kind}.{name}")

    def _needed(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raise TraceError(
                "this trace has no gradients: take it with labels or a target, or call backward on the layer's cache"
            )
        return self._arrays[name]

    def _input(self, name: str, layer: int | None) -> np.ndarray:
        if layer is None and name in self._arrays:
            return self._arrays[name]
        singles = [self._single(layer or 0, self.about["reverse"])]
        if self.about["directions"] == 2:
            singles.append(self._single(layer or 0, True))
        if name == "x":
            return self._arrays[f"layer{layer or 0}.x"]
        parts = [self._needed(f"{single}.dx") for single in singles]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _of_model(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raise TraceError(f"this is the trace of a layer, which has no {name.replace('_', ' ')}")
        return self._arrays[name]

    def _before(self, layer: int, reverse: bool) -> np.ndarray:
        """(B, T, H): h before each step of the layer."""
        h = self.state("h", layer=layer, reverse=reverse)
        return h[:, 1:] if reverse else h[:, :-1]

    def _product(self, name: str, gate: str) -> tuple[np.ndarray, np.ndarray]:
        """(dm, q) of the product that the cell makes with the rows of U of a gate."""
        value = next(value for value, of, _ in self.about["products"] if of == gate)
        return self._needed(f"{name}.product_gradient.{value}"), self._arrays[f"{name}.operand.{value}"]

    def _with_ones(self, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return left, np.ones((*left.shape[:2], 1), left.dtype)


def _as_slice(index: Any, size: int) -> Any:
    """An index that keeps its axis.  Raises IndexError for a number that is outside."""
    return index if isinstance(index, slice) else [range(size)[index]]
