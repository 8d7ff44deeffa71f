"""The arithmetic of one value of a pass: every term of the sums that make it, and of those that make its gradient.

The equations are those of the cells (`lstm_np.cells`), written out for one unit at one step of one sample; tests
compare every sum with the engine's number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod, tanh
from typing import Any

import numpy as np

from lstm_np.errors import LstmNpError
from lstm_np.model import SequenceClassifier
from lstm_np.trace import Trace

FUNCTIONS = {
    "sigmoid": lambda a: (1 + tanh(a / 2)) / 2,
    "tanh": tanh,
    "max(0, .)": lambda a: max(0.0, a),
}
ACTIVATIONS = {
    "lstm": {"i": "sigmoid", "f": "sigmoid", "o": "sigmoid", "g": "tanh"},
    "gru": {"r": "sigmoid", "z": "sigmoid", "n": "tanh"},
    "gru_reset_before": {"r": "sigmoid", "z": "sigmoid", "n": "tanh"},
    "rnn": {"h": "tanh"},
    "rnn_relu": {"h": "max(0, .)"},
}


class NoArithmeticError(LstmNpError, ValueError):
    """A value whose arithmetic cannot be written out; one line: which, and why."""


@dataclass(frozen=True)
class Term:
    """One product of a sum: what it is called, and its factors."""

    label: str
    factors: tuple[float, ...]

    @property
    def value(self) -> float:
        """The product, in float64."""
        return prod(self.factors)


@dataclass(frozen=True)
class Sum:
    """A sum of products, or one function of a number, beside what the engine has for it.

    title     the equation
    result    what it makes: "a_f", "c", "df"
    engine    the engine's number
    terms     of the sum, in its order
    function  one of `FUNCTIONS` that is applied to the sum, or None
    """

    title: str
    result: str
    engine: float
    terms: tuple[Term, ...]
    function: str | None = None

    @property
    def total(self) -> float:
        """The terms' sum, with the function applied, in float64."""
        total = sum(term.value for term in self.terms)
        return total if self.function is None else FUNCTIONS[self.function](total)

    @property
    def size(self) -> float:
        """The sum of the terms' absolute values: what rounding is relative to."""
        return sum(abs(term.value) for term in self.terms)


def forward_sums(
    model: SequenceClassifier, trace: Trace, name: str, *, layer: int = 0, reverse: bool = False, t: int, unit: int
) -> list[Sum]:
    """What makes the value `name` of a unit at step t, of the trace's first sample, in the order of computation.

    Raises ValueError where there is no such value, step or unit, or no arithmetic written out for the cell.
    """
    return _Place(model, trace, layer, reverse, t, unit, name).forward(name)


def backward_sums(
    model: SequenceClassifier, trace: Trace, name: str, *, layer: int = 0, reverse: bool = False, t: int, unit: int
) -> list[Sum]:
    """What makes the gradient of that value, and of its pre-activation where it is a gate; raises as `forward_sums`."""
    return _Place(model, trace, layer, reverse, t, unit, name).backward(name)


class _Place:
    """One unit of a layer at one step, and the numbers around it."""

    def __init__(
        self, model: SequenceClassifier, trace: Trace, layer: int, reverse: bool, t: int, unit: int, name: str
    ) -> None:
        self.model, self.trace, self.layer, self.reverse, self.t, self.unit = model, trace, layer, reverse, t, unit
        self.cell = trace.about["cell"]
        self.where: dict[str, Any] = {"layer": layer, "reverse": reverse}
        T, H = trace.steps, trace.units
        if self.cell not in ACTIVATIONS:
            raise NoArithmeticError(
                f"the arithmetic of cell {self.cell!r} stands in its own file; it is written out for "
                f"{', '.join(ACTIVATIONS)}"
            )
        if trace.about["held"] or model.config["cell_clip"] is not None:
            raise NoArithmeticError("the arithmetic of a pass whose values are held or clipped is not written out")
        if not 0 <= t < T or not 0 <= unit < H:
            raise NoArithmeticError(f"steps are 0 ... {T - 1} and units 0 ... {H - 1}, found step {t} and unit {unit}")
        trace.value(name, **self.where)  # raises for a name that there is not
        k = layer * trace.about["directions"] + int(reverse)
        host = model.backend.to_host
        self.params = {key: host(array) for key, array in model.recurrent.singles[k].kernel_params().items()}
        self.last = 0 if reverse else T - 1  # the step that is read last
        self.next = t - 1 if reverse else t + 1

    # ---- numbers of this unit

    def value(self, name: str, t: int | None = None) -> float:
        return float(self.trace.value(name, **self.where)[0, self.t if t is None else t, self.unit])

    def gradient(self, name: str, t: int | None = None) -> float:
        return float(self.trace.gradient(name, **self.where)[0, self.t if t is None else t, self.unit])

    def da(self, gate: str) -> float:
        return float(self.trace.pre_activation_gradient(gate, **self.where)[0, self.t, self.unit])

    def before(self, part: str) -> float:
        return float(self.trace.state(part, **self.where)[0, self.t + int(self.reverse), self.unit])

    def rows(self, gate: str) -> int:
        """Where the rows of a gate begin."""
        return self.trace.gates.index(gate) * self.trace.units

    # ---- forward

    def forward(self, name: str) -> list[Sum]:
        if name in self.trace.gates:
            return self.gate(name)
        H, value = self.trace.units, self.value
        if name == "m":
            row = self.params["U"][self.rows("n") + self.unit]
            q = self.trace.arrays[f"{self.single()}.operand.m"][0, self.t]
            called = "s" if self.cell == "gru_reset_before" else "h_{t-1}"
            terms = _products(f"{called}[#]", row, q, range(H))
            if "b_n" in self.params:
                terms.append(Term("b_n", (float(self.params["b_n"][self.unit]),)))
            return [
                Sum(f"m = U_n {called}" + (" + b_n" if "b_n" in self.params else ""), "m", value("m"), tuple(terms))
            ]
        sums = {
            ("lstm", "c"): lambda: self.short("c = f * c_{t-1} + i * g", "c", [
                ("f * c_{t-1}", value("f"), self.before("c")), ("i * g", value("i"), value("g"))]),
            ("lstm", "tanh_c"): lambda: self.short("tanh_c = tanh(c)", "tanh_c", [("c", value("c"))], "tanh"),
            ("lstm", "h"): lambda: self.short("h = o * tanh_c", "h", [("o * tanh_c", value("o"), value("tanh_c"))]),
            ("gru_reset_before", "s"): lambda: self.short("s = r * h_{t-1}", "s", [
                ("r * h_{t-1}", value("r"), self.before("h"))]),
        }  # fmt: skip
        if (self.cell, name) in sums:
            return [sums[self.cell, name]()]
        parts = [("(1 - z) * n", 1 - value("z"), value("n")), ("z * h_{t-1}", value("z"), self.before("h"))]
        return [self.short("h = (1 - z) * n + z * h_{t-1}", "h", parts)]

    def gate(self, name: str) -> list[Sum]:
        """The pre-activation of a gate, and the gate."""
        row, own = self.rows(name) + self.unit, self.cell.startswith("gru") and name == "n"
        x = self.trace.x(self.layer)[0, self.t]
        terms, equation = _products("x[#]", self.params["W"][row], x, range(len(x))), f"W_{name} x_t"
        if not own:
            h = self.trace.state("h", **self.where)[0, self.t + int(self.reverse)]
            terms += _products("h[#]", self.params["U"][row], h, range(len(h)))
            equation += f" + U_{name} h_{{t-1}}"
        if "b" in self.params:
            terms.append(Term(f"b_{name}", (float(self.params["b"][row]),)))
            equation += f" + b_{name}"
        a = float(self.trace.pre_activation(name, **self.where)[0, self.t, self.unit])
        summed = Sum(f"a_{name} = {equation}", f"a_{name}", a, tuple(terms))
        function = ACTIVATIONS[self.cell][name]
        inner: list[tuple[Any, ...]] = [(f"a_{name}", a)]
        if own:
            inner.append(("r * m", self.value("r"), self.value("m")) if self.cell == "gru" else ("m", self.value("m")))
        called = " + ".join(label for label, *_ in inner)
        applied = function.replace(".", called) if "." in function else f"{function}({called})"
        return [summed, self.short(f"{name} = {applied}", name, inner, function)]

    def short(self, title: str, name: str, terms: Sequence[tuple[Any, ...]], function: str | None = None) -> Sum:
        """A sum of a few terms that makes a value."""
        made = tuple(Term(label, tuple(factors)) for label, *factors in terms)
        return Sum(title, name, self.value(name), made, function)

    # ---- backward

    def backward(self, name: str) -> list[Sum]:
        value, gradient = self.value, self.gradient
        if name == "h":
            found = [self.of_h()]
        elif (self.cell, name) == ("gru_reset_before", "s"):
            column = self.params["U"][self.rows("n") : self.rows("n") + self.trace.units, self.unit]
            dm = self.trace.gradient("m", **self.where)[0, self.t]
            terms = tuple(_products("dm[#]", column, dm, range(len(dm))))
            found = [Sum("ds = U_n^T dm", "ds", gradient("s"), terms)]
        else:
            found = [Sum(*self.short_gradient(name))]
        if name not in self.trace.gates:
            return found
        v, function = value(name), ACTIVATIONS[self.cell][name]
        factors = {"sigmoid": (v, 1 - v), "tanh": (1 - v * v,), "max(0, .)": (float(v > 0),)}[function]
        words = {"sigmoid": f"{name} * (1 - {name})", "tanh": f"(1 - {name}^2)", "max(0, .)": f"(1 where {name} > 0)"}
        label = f"d{name} * {words[function]}"
        term = Term(label, (gradient(name), *factors))
        return [*found, Sum(f"da_{name} = {label}", f"da_{name}", self.da(name), (term,))]

    def short_gradient(self, name: str) -> tuple[str, str, float, tuple[Term, ...]]:
        """The gradient of a value that is not h: title, result, the engine's number, terms."""
        value, gradient, before = self.value, self.gradient, self.before
        lstm = {
            "o": lambda: [("dh * tanh_c", gradient("h"), value("tanh_c"))],
            "tanh_c": lambda: [("dh * o", gradient("h"), value("o"))],
            "c": self.of_c,
            "i": lambda: [("dc * g", gradient("c"), value("g"))],
            "f": lambda: [("dc * c_{t-1}", gradient("c"), before("c"))],
            "g": lambda: [("dc * i", gradient("c"), value("i"))],
        }
        gru = {
            "z": lambda: [("dh * h_{t-1}", gradient("h"), before("h")), ("- dh * n", -gradient("h"), value("n"))],
            "n": lambda: [("dh * (1 - z)", gradient("h"), 1 - value("z"))],
            "r": lambda: [("da_n * m", self.da("n"), value("m"))],
            "m": lambda: [("da_n * r", self.da("n"), value("r"))],
        }
        reset_before = gru | {
            "r": lambda: [("ds * h_{t-1}", gradient("s"), before("h"))],
            "m": lambda: [("da_n", self.da("n"))],
        }
        tables: dict[str, dict[str, Any]] = {"lstm": lstm, "gru": gru, "gru_reset_before": reset_before}
        terms = tables[self.cell][name]()
        title = f"d{name} = " + " + ".join(label for label, *_ in terms).replace("+ - ", "- ")
        return title, f"d{name}", gradient(name), tuple(Term(label, tuple(factors)) for label, *factors in terms)

    def of_c(self) -> list[tuple[Any, ...]]:
        """What reaches c: from the step that is read after this one, and through h."""
        t = self.value("tanh_c")
        through_h = ("dtanh_c * (1 - tanh_c^2)", self.gradient("tanh_c"), 1 - t * t)
        if self.t == self.last:
            return [through_h]
        return [("dc_{t+1} * f_{t+1}", self.gradient("c", self.next), self.value("f", self.next)), through_h]

    def of_h(self) -> Sum:
        """What reaches h: from above, and from the step that is read after this one."""
        terms, words = self.from_above()
        if self.t != self.last:
            U, H, unit = self.params["U"], self.trace.units, self.unit
            gates = [gate for gate in self.trace.gates if not (self.cell.startswith("gru") and gate == "n")]
            for gate in gates:
                rows = self.rows(gate)
                da = self.trace.pre_activation_gradient(gate, **self.where)[0, self.next]
                terms += _products(f"da_{gate}[#]", U[rows : rows + H, unit], da, range(H))
            words.append("U^T da_{t+1}")
            if self.cell.startswith("gru"):
                terms.append(Term("dh_{t+1} * z_{t+1}", (self.gradient("h", self.next), self.value("z", self.next))))
                words.append("dh_{t+1} * z_{t+1}")
            if self.cell == "gru":
                rows = self.rows("n")
                dm = self.trace.gradient("m", **self.where)[0, self.next]
                terms += _products("dm[#]", U[rows : rows + H, unit], dm, range(H))
                words.append("U_n^T dm_{t+1}")
            if self.cell == "gru_reset_before":
                terms.append(Term("ds_{t+1} * r_{t+1}", (self.gradient("s", self.next), self.value("r", self.next))))
                words.append("ds_{t+1} * r_{t+1}")
        return Sum("dh = " + (" + ".join(words) or "0"), "dh", self.gradient("h"), tuple(terms))

    def from_above(self) -> tuple[list[Term], list[str]]:
        """What reaches h from the read-out or from the layer above."""
        column = int(self.reverse) * self.trace.units + self.unit
        if self.layer < self.trace.about["layers"] - 1:
            dx = self.trace.dx(self.layer + 1)[0, self.t, column]
            return [Term("from the layer above", (float(dx),))], ["dx of the layer above"]
        read = self.trace.steps - 1 if self.model.read_out == "last_output" else self.last
        if self.t != read:
            return [], []
        W = self.model.backend.to_host(self.model.params["readout.W"])[:, column]
        dlogits = self.trace.arrays["logits_gradient"][0]
        return _products("dlogit[#]", W, dlogits, range(len(W))), ["W_out^T dlogits"]

    def single(self) -> str:
        return f"layer{self.layer}" + ("_reverse" if self.reverse else "")


def _products(label: str, left: np.ndarray, right: np.ndarray, indices: Iterable[int]) -> list[Term]:
    """A term for each index, which takes the place of # in the label."""
    return [Term(label.replace("#", str(k)), (float(left[k]), float(right[k]))) for k in indices]
