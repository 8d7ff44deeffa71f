"""The cells' equations as data, so that one of their lines can be changed and the gradient computed with the change.

A gradient that somebody's code gives is compared with those that known mistakes would give.  For that the backward pass
of a cell stands here as lines such as ``df = dc_t * c_{t-1}``, each a sum of products of named values, and `run_steps`
and `run_sequence` compute what a changed set of lines gives.  Numbers and symbols are those of `lstm_np/cells`; tests
hold the unchanged lines against the cells themselves.

Arrays have the steps first: x (T, D, B), h, c and every gate's values (T, H, B), W (G, H, D), U (G, H, H), b (G, H) for
T steps, B samples (a column each), D features, H units and G gates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Parameters = Mapping[str, Array]  # "W", "U" and, where the cell has them, "b" and "b2"


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), any shape; it cannot overflow, and it is analytic for complex a."""
    return (1 + np.tanh(a / 2)) / 2


class Factor(NamedTuple):
    """A value that stands in a product: `form` of the variable `of`, such as ("1-tanh2", "c") for 1 - tanh(c_t)^2."""

    form: str
    of: str


# form -> its value, its text in an equation, its text in NumPy
FORMS: dict[str, tuple[Callable[[Array], Array], str, str]] = {
    "": (lambda v: v, "{}", "{}"),
    "1-": (lambda v: 1 - v, "(1 - {})", "(1 - {})"),
    "1+": (lambda v: 1 + v, "(1 + {})", "(1 + {})"),
    "sq": (lambda v: v * v, "{}^2", "{} ** 2"),
    "1-sq": (lambda v: 1 - v * v, "(1 - {}^2)", "(1 - {} ** 2)"),
    "1+sq": (lambda v: 1 + v * v, "(1 + {}^2)", "(1 + {} ** 2)"),
    "tanh": (np.tanh, "tanh({})", "np.tanh({})"),
    "1-tanh": (lambda v: 1 - np.tanh(v), "(1 - tanh({}))", "(1 - np.tanh({}))"),
    "tanh2": (lambda v: np.tanh(v) ** 2, "tanh({})^2", "np.tanh({}) ** 2"),
    "1+tanh2": (lambda v: 1 + np.tanh(v) ** 2, "(1 + tanh({})^2)", "(1 + np.tanh({}) ** 2)"),
    "1-tanh2": (lambda v: 1 - np.tanh(v) ** 2, "(1 - tanh({})^2)", "(1 - np.tanh({}) ** 2)"),
    "sigmoid": (sigmoid, "sigmoid({})", "sigmoid({})"),
    "sigmoid'": (lambda v: sigmoid(v) * (1 - sigmoid(v)), "sigmoid'({})", "sigmoid({0}) * (1 - sigmoid({0}))"),
    ">0": (lambda v: (v.real > 0) * 1.0, "({} > 0)", "({} > 0)"),
}

# variable -> its symbol in an equation; those that are not here are their own
SYMBOLS = {
    "x": "x_t",
    "h": "h_t",
    "h_prev": "h_{t-1}",
    "c": "c_t",
    "c_prev": "c_{t-1}",
    "dh": "dh_t",
    "dc": "dc_t",
    "dc_next": "dc_t",
    "dh_prev": "dh_{t-1}",
    "dc_prev": "dc_{t-1}",
    "h_prev-n": "(h_{t-1} - n)",
    "n-h_prev": "(n - h_{t-1})",
    "da_h": "da",  # of the plain RNN, which has no gates
}


def factor(text: str) -> Factor:
    """Factor("1-tanh2", "c") from "1-tanh2 c", Factor("", "dh") from "dh"."""
    form, _, of = text.rpartition(" ")
    return Factor(form, of)


class Term(NamedTuple):
    """scale times the product of the factors; with a `matrix`, U_k^T times that, where k is the gate named."""

    scale: float
    factors: tuple[Factor, ...]
    matrix: str = ""


@dataclass(frozen=True)
class Line:
    """One line of the derivatives: `target` is the sum of its terms; `number` is that of the equation it undoes."""

    number: str
    target: str
    terms: tuple[Term, ...]

    @functools.cached_property
    def reads(self) -> frozenset[str]:
        """The variables in its products."""
        return frozenset(part.of for term in self.terms for part in term.factors)

    def text(self) -> str:
        """As an equation: df = dc_t * c_{t-1}."""
        return self._write(SYMBOLS, form_index=1)

    def numpy(self, names: Mapping[str, str]) -> str:
        """As a line of NumPy, where `names` has the learner's name of each variable."""
        return self._write(names, form_index=2)

    def _write(self, names: Mapping[str, str], form_index: int) -> str:
        def written(part: Factor) -> str:
            return str(FORMS[part.form][form_index]).format(names.get(part.of, part.of))

        target = names.get(self.target, self.target)
        carried = len(self.terms) > 1 and [written(part) for part in self.terms[0].factors] == [target]
        text = ""
        for term in self.terms[carried:]:
            product = " * ".join(written(part) for part in term.factors)
            if term.matrix:
                product = f"U_{term.matrix}^T {product}" if form_index == 1 else f"U_{term.matrix}.T @ {product}"
            sign = "-" if term.scale < 0 else "+"
            text += f" {sign} {product}" if text else (f"-{product}" if term.scale < 0 else product)
        return f"{target} {'+=' if carried else '='} {text}"


class Route(NamedTuple):
    """One gate's share of dx or dh_{t-1}: scale * M^T left, with M the rows of `gate` in W or U."""

    left: str
    gate: str
    scale: float = 1.0
    transposed: bool = True


class Outer(NamedTuple):
    """One gate's rows of dW or dU: scale * sum over steps and samples of left right^T; of db where right is ""."""

    left: str
    right: str
    scale: float = 1.0
    transposed: bool = False
    shift: int = 0  # right is that of so many steps later


@dataclass(frozen=True)
class Loop:
    """How backpropagation through time goes through the steps; the defaults are right.

    carry     which parts of the state's gradient go from a step to the one before
    crossed   dh_{t-1} and dc_{t-1} arrive in each other's place
    upstream  what of the loss's own dh_t is added: "each" step's, the "last" step's only, or in "reversed" order
    values    whose forward values a step uses: its "own", or those of the "last" step
    forwards  from the first step to the last
    start     "given": h_{t-1} and c_{t-1} of the first step are h_0 and c_0; "zero": taken for zero
    """

    carry: tuple[str, ...] = ("h", "c")
    crossed: bool = False
    upstream: str = "each"
    values: str = "own"
    forwards: bool = False
    start: str = "given"


@dataclass(frozen=True)
class Plan:
    """A backward pass: the lines of a step, equation (1')'s products for each gate, and the loop over time."""

    lines: tuple[Line, ...]
    to_x: Mapping[str, tuple[Route, ...]]
    to_h: Mapping[str, tuple[Route, ...]]
    outer: Mapping[str, Mapping[str, Outer]]  # "W", "U", "b" and "b2", for each gate
    loop: Loop = field(default_factory=Loop)

    def line(self, target: str) -> Line | None:
        """The line of `target`; None where there is none."""
        return next((line for line in self.lines if line.target == target), None)

    def with_line(self, changed: Line) -> Plan:
        """The plan with one line in place of that of the same target."""
        return replace(self, lines=tuple(changed if line.target == changed.target else line for line in self.lines))


@dataclass(frozen=True)
class Cell:
    """A cell: its forward step, and the lines of its backward step.

    title    what it is called in a sentence
    file     where its equations stand
    note     how this one is arranged, where people arrange it in several ways that are all right
    variant  "" for such a cell, else in which way the forward pass differs from it
    step     (parameters, x, h_{t-1}, c_{t-1}) -> the values of the equations by name, "h" (and "c") among them
    kinds    what each gate's derivative needs of its value: "sigmoid", "tanh", "relu" or "identity"
    """

    name: str
    title: str
    file: str
    gates: tuple[str, ...]
    state: tuple[str, ...]
    step: Callable[[Parameters, Array, Array, Array], dict[str, Array]]
    plan: Plan
    kinds: Mapping[str, str]
    note: str = ""
    variant: str = ""


class Values:
    """The values of the forward pass, steps first, and of any Factor of them."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = dict(arrays)
        self._forms: dict[Factor, Array] = {}

    def of(self, part: Factor) -> Array:
        """The factor's value, (T, H, B)."""
        if part not in self._forms:
            self._forms[part] = FORMS[part.form][0](self.arrays[part.of])
        return self._forms[part]

    def at(self, step: int) -> Values:
        """The values of one step, without its axis."""
        return Values({name: array[step] for name, array in self.arrays.items()})


def forward_steps(cell: Cell, parameters: Parameters, x: Array, h: Array, c: Array) -> Values:
    """Independent steps side by side: x (T, D, B), h and c (T, H, B)."""
    return Values(cell.step(parameters, x, h, c))


def forward_sequence(cell: Cell, parameters: Parameters, x: Array, h_0: Array, c_0: Array) -> Values:
    """A sequence: x (T, D, B) from h_0 and c_0, each (H, B)."""
    h, c, steps = h_0, c_0, []
    for x_t in x:
        steps.append(cell.step(parameters, x_t, h, c))
        h, c = steps[-1]["h"], steps[-1].get("c", c)
    return Values({name: np.stack([step[name] for step in steps]) for name in steps[0]})


class Lines(NamedTuple):
    """A plan and what its lines gave, by name: lines that another plan has too need not be computed again."""

    plan: Plan
    found: Mapping[str, Array]


def run_lines(
    plan: Plan, parameters: Parameters, values: Values, dh: Array, dc: Array, known: Lines | None = None
) -> dict[str, Array]:
    """The lines of a step (or of steps side by side): every gradient by name, (..., H, B), dh_{t-1} without (1').

    known  what the lines of another plan gave for the same parameters, values, dh and dc
    """
    found = {"dh": dh, "dc_next": dc}
    there = {id(line) for line in known.plan.lines} if known else set()
    changed: set[str] = set()
    for line in plan.lines:
        if known and id(line) in there and changed.isdisjoint(line.reads):
            found[line.target] = known.found[line.target]
            continue
        changed.add(line.target)
        total: Any = 0.0
        for k, term in enumerate(line.terms):
            product: Any = term.scale
            for part in term.factors:
                in_backward = part.of in found
                product = product * (FORMS[part.form][0](found[part.of]) if in_backward else values.of(part))
            product = parameters["U"][_index(plan, term.matrix)].T @ product if term.matrix else product
            total = total + product if k else product
        found[line.target] = total if np.shape(total) == dh.shape else total + np.zeros_like(dh)
    return found


def with_dh_prev(plan: Plan, parameters: Parameters, found: dict[str, Array]) -> dict[str, Array]:
    """The gradients that lines gave, with what (1') adds to dh_{t-1}."""
    routed = _routed(plan, plan.to_h, parameters["U"], found)
    return found | {"dh_prev": found.get("dh_prev", np.zeros_like(found["dh"])) + routed}


def run_steps(
    plan: Plan, parameters: Parameters, values: Values, dh: Array, dc: Array, known: Lines | None = None
) -> dict[str, Array]:
    """Independent steps side by side, dh and dc (T, H, B): gradients by name, those of the parameters per step.

    "x" (T, D, B), "h" and "c" (T, H, B) are the gradients of what the step got; "W" (T, G, H, D), "U", "b", "b2".
    known  as for `run_lines`, of a plan that uses each step's own values
    """
    own = values if plan.loop.values == "own" else _all_as_last(values)
    found = run_lines(plan, parameters, own, dh, dc, known if own is values else None)
    return _collect(plan, parameters, own, with_dh_prev(plan, parameters, found))


def run_sequence(plan: Plan, parameters: Parameters, values: Values, dh: Array, dc: Array) -> dict[str, Array]:
    """Backpropagation through time, dh (T, H, B) and dc (H, B) at the last step: as `run_steps`, carried along.

    "h" and "c" have the gradients of h_0 and c_0, (1, H, B).
    """
    loop, T = plan.loop, len(dh)
    values = values if loop.values == "own" else _all_as_last(values)
    if loop.start == "zero":
        before = [name for name in ("h_prev", "c_prev") if name in values.arrays]
        values = Values(values.arrays | {name: _first_zero(values, name) for name in before})
    zero = np.zeros_like(dh[0])
    carried_h, carried_c = zero, dc
    steps: list[dict[str, Array]] = [{}] * T
    for t in range(T) if loop.forwards else reversed(range(T)):
        upstream = dh[T - 1 - t] if loop.upstream == "reversed" else dh[t]
        if loop.upstream == "last" and t < T - 1:
            upstream = zero
        found = run_lines(plan, parameters, values.at(t), upstream + carried_h, carried_c)
        found = steps[t] = with_dh_prev(plan, parameters, found)
        carried_h = found["dh_prev"] if "h" in loop.carry else zero
        carried_c = found.get("dc_prev", zero) if "c" in loop.carry else zero
        if loop.crossed:
            carried_h, carried_c = carried_c, carried_h
    stacked = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
    collected = _collect(plan, parameters, values, stacked)
    last = T - 1 if loop.forwards else 0
    start = {"h": stacked["dh_prev"][last][None]}
    if "dc_prev" in stacked:
        start["c"] = stacked["dc_prev"][last][None]
        if loop.crossed:
            start = {"h": start["c"], "c": start["h"]}
    return collected | start


def _collect(plan: Plan, parameters: Parameters, values: Values, found: dict[str, Array]) -> dict[str, Array]:
    """The gradients of a step's inputs and parameters, and da (T, G, H, B), from those of its values."""
    x_like = np.zeros((*found["dh"].shape[:-2], parameters["W"].shape[2], found["dh"].shape[-1]))
    result = {
        "x": x_like + _routed(plan, plan.to_x, parameters["W"], found),
        "h": found["dh_prev"],
        "da": used_da(plan, found),
    }
    if "dc_prev" in found:
        result["c"] = found["dc_prev"]
    for name, outers in plan.outer.items():
        if name in parameters:
            result[name] = _outer(outers, values, found)
    return result


def used_da(plan: Plan, found: Mapping[str, Array]) -> Array:
    """What equation (1') takes for the gates' da, (..., G, H, B): da itself in a plan that is right."""
    return np.stack([found[outer.left] for outer in plan.outer["W"].values()], axis=-3)


def _routed(plan: Plan, routes: Mapping[str, tuple[Route, ...]], M: Array, found: dict[str, Array]) -> Array:
    """The sum over gates of M^T left."""
    flat = [route for gate in routes for route in routes[gate]]
    if flat and all(route.transposed for route in flat):  # one product for all gates
        stacked = np.concatenate([M[_index(plan, route.gate)] for route in flat], axis=0)
        left = np.concatenate([route.scale * found[route.left] for route in flat], axis=-2)
        return stacked.T @ left
    total: Any = np.zeros((M.shape[2], 1))
    for route in flat:
        block = M[_index(plan, route.gate)]
        total = total + route.scale * ((block.T if route.transposed else block) @ found[route.left])
    return total


def _outer(outers: Mapping[str, Outer], values: Values, found: dict[str, Array]) -> Array:
    """Each step's share of a parameter's gradient, (T, G, H, ...)."""
    blocks = []
    for outer in outers.values():
        left = found[outer.left] * outer.scale
        if not outer.right:
            blocks.append(left.sum(axis=-1))
            continue
        right = found[outer.right] if outer.right in found else values.arrays[outer.right]
        if outer.shift:
            right = shifted(right, outer.shift)
        product = left @ right.swapaxes(-1, -2)
        blocks.append(product.swapaxes(-1, -2) if outer.transposed else product)
    return np.stack(blocks, axis=1)


def shifted(array: Array, by: int) -> Array:
    """`array` with step t + by in the place of step t, and zeros where there is none."""
    result = np.zeros_like(array)
    if by > 0:
        result[:-by] = array[by:]
    else:
        result[-by:] = array[:by]
    return result


def _index(plan: Plan, gate: str) -> int:
    return list(plan.to_x).index(gate)


def _all_as_last(values: Values) -> Values:
    return Values({name: np.broadcast_to(array[-1:], array.shape) for name, array in values.arrays.items()})


def _first_zero(values: Values, name: str) -> Array:
    array = values.arrays[name].copy()
    array[0] = 0
    return array


# --------------------------------------------------------------------------------------------------------- the cells

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": lambda a: a * (a.real > 0),
    "identity": lambda a: a,
}


def derivative_factors(kind: str, value: str) -> tuple[Factor, ...]:
    """The factors by which the gradient of a gate's value becomes that of its pre-activation."""
    return {
        "sigmoid": (Factor("", value), Factor("1-", value)),
        "tanh": (Factor("1-sq", value),),
        "relu": (Factor(">0", value),),
        "identity": (),
    }[kind]


def _products(line_terms: str) -> tuple[Term, ...]:
    """Terms from text: "dc_next + dh * o * 1-tanh2 c"; "U_n dm" is U_n^T dm."""
    terms = []
    for text in line_terms.split(" + "):
        matrix = text[2] if text.startswith("U_") else ""
        product = text[4:] if matrix else text
        terms.append(Term(1.0, tuple(factor(part) for part in product.split(" * ")), matrix))
    return tuple(terms)


def _line(number: str, target: str, terms: str) -> Line:
    return Line(number, target, _products(terms))


def _activation_lines(number: Callable[[str], str], kinds: Mapping[str, str]) -> list[Line]:
    """da_k = dk * its activation's derivative, for each gate."""
    return [
        Line(number(gate), f"da_{gate}", (Term(1.0, (Factor("", f"d{gate}"), *derivative_factors(kind, gate))),))
        for gate, kind in kinds.items()
    ]


def _pre_activations(parameters: Parameters, x: Array, h: Array, gates: tuple[str, ...]) -> dict[str, Array]:
    """a_k = W_k x + U_k h + b_k, (..., H, B), of each gate."""
    G, H, _ = parameters["U"].shape
    a = parameters["W"].reshape(G * H, -1) @ x + parameters["U"].reshape(G * H, H) @ h
    for name in ("b", "b2"):
        if name in parameters:
            a = a + parameters[name].reshape(G * H, 1)
    return {f"a_{gate}": a[..., k * H : (k + 1) * H, :] for k, gate in enumerate(gates)}


def _plain(gates: tuple[str, ...], right: str) -> dict[str, Outer]:
    return {gate: Outer(f"da_{gate}", right) for gate in gates}


def _plan(lines: tuple[Line, ...], gates: tuple[str, ...], routed_by_lines: tuple[str, ...] = ()) -> Plan:
    return Plan(
        lines,
        to_x={gate: (Route(f"da_{gate}", gate),) for gate in gates},
        to_h={gate: (Route(f"da_{gate}", gate),) for gate in gates if gate not in routed_by_lines},
        outer={
            "W": _plain(gates, "x"),
            "U": _plain(gates, "h_prev"),
            "b": _plain(gates, ""),
            "b2": _plain(gates, ""),
        },
    )


def make_lstm(
    kinds: Mapping[str, str] | None = None, squash: str = "tanh", forget_bias: float = 0.0, variant: str = ""
) -> Cell:
    """The LSTM of cells/lstm.py, or one with other activations.

    kinds        of each gate i, f, o, g: "sigmoid", "tanh", "relu" or "identity"
    squash       between c_t and h_t: "tanh", "sigmoid" or "identity"
    forget_bias  added to the forget gate's pre-activation in every step
    """
    kinds = kinds or {"i": "sigmoid", "f": "sigmoid", "o": "sigmoid", "g": "tanh"}
    gates = tuple(kinds)
    shown = {"tanh": "tanh c", "sigmoid": "sigmoid c", "identity": "c"}[squash]
    slope = {"tanh": " * 1-tanh2 c", "sigmoid": " * sigmoid' c", "identity": ""}[squash]

    def step(parameters: Parameters, x: Array, h: Array, c: Array) -> dict[str, Array]:
        a = _pre_activations(parameters, x, h, gates)
        a["a_f"] = a["a_f"] + forget_bias
        values = {gate: ACTIVATIONS[kind](a[f"a_{gate}"]) for gate, kind in kinds.items()}
        c_t = values["f"] * c + values["i"] * values["g"]
        h_t = values["o"] * ACTIVATIONS[squash](c_t)
        return {"x": x, "h_prev": h, "c_prev": c, "c": c_t, "h": h_t, **a, **values}

    lines = (
        _line("5'", "do", f"dh * {shown}"),
        _line("5'", "dc", f"dc_next + dh * o{slope}"),
        _line("4'", "df", "dc * c_prev"),
        _line("4'", "dc_prev", "dc * f"),
        _line("4'", "di", "dc * g"),
        _line("4'", "dg", "dc * i"),
        *_activation_lines(lambda gate: "3'" if gate == "g" else "2'", kinds),
    )
    note = f"a forget bias of {forget_bias:g} is added in every step" if forget_bias else ""
    return Cell("lstm", "LSTM", "cells/lstm.py", gates, ("h", "c"), step, _plan(lines, gates), kinds, note, variant)


GRU_KINDS = {"r": "sigmoid", "z": "sigmoid", "n": "tanh"}


def make_gru(reset: str, keep: str = "z") -> Cell:
    """A GRU: `reset` "after" (cells/gru.py) or "before" the product (cells/gru_reset_before.py).

    keep  "z": h_t = (1 - z) * n + z * h_{t-1}; "1-z": h_t = z * n + (1 - z) * h_{t-1}
    """
    gates = tuple(GRU_KINDS)
    after = reset == "after"
    old, new = ("z", "1- z") if keep == "z" else ("1- z", "z")

    def step(parameters: Parameters, x: Array, h: Array, c: Array) -> dict[str, Array]:
        H = h.shape[-2]
        through = {"U": np.concatenate((parameters["U"][:2], np.zeros((1, H, H)))), "W": parameters["W"]}
        biases = {name: parameters[name] for name in ("b", "b2") if name in parameters}
        if after and "b2" in biases:
            biases["b2"] = biases["b2"] * np.array([[1.0], [1.0], [0.0]])
        a = _pre_activations({**through, **biases}, x, h, gates)
        values = {gate: sigmoid(a[f"a_{gate}"]) for gate in ("r", "z")}
        s = values["r"] * h
        m = parameters["U"][2] @ (h if after else s)
        if after and "b2" in parameters:
            m = m + parameters["b2"][2][:, None]
        values["n"] = np.tanh(a["a_n"] + (values["r"] * m if after else m))
        share = values["z"] if keep == "z" else 1 - values["z"]
        differences = {"h_prev-n": h - values["n"], "n-h_prev": values["n"] - h}
        h_t = (1 - share) * values["n"] + share * h
        return {"x": x, "h_prev": h, "h": h_t, "m": m, "s": s, **differences, **a, **values}

    lines = [
        _line("5'", "dz", "dh * h_prev-n" if keep == "z" else "dh * n-h_prev"),
        _line("5'", "dn", f"dh * {new}"),
        _line("4'", "da_n", "dn * 1-sq n"),
    ]
    if after:
        lines += [_line("4'", "dr", "da_n * m"), _line("4'", "dm", "da_n * r")]
        lines += [_line("5'", "dh_prev", f"dh * {old}")]
    else:
        lines += [_line("4'", "dm", "da_n"), _line("3'", "ds", "U_n dm"), _line("3'", "dr", "ds * h_prev")]
        lines += [_line("3'", "dh_prev", f"dh * {old} + ds * r")]
    lines += _activation_lines(lambda gate: "2'", {"r": "sigmoid", "z": "sigmoid"})
    plan = _plan(tuple(lines), gates, routed_by_lines=() if after else ("n",))
    if after:
        through_m = Outer("dm", "h_prev")
        outer = {
            **plan.outer,
            "U": {**plan.outer["U"], "n": through_m},
            "b2": {**plan.outer["b2"], "n": Outer("dm", "")},
        }
        plan = replace(plan, to_h={**plan.to_h, "n": (Route("dm", "n"),)}, outer=outer)
    else:
        plan = replace(plan, outer={**plan.outer, "U": {**plan.outer["U"], "n": Outer("dm", "s")}})
    name = "gru" if after else "gru_reset_before"
    title = f"GRU, reset {reset} the product"
    note = "" if keep == "z" else "h_t = z * n + (1 - z) * h_{t-1}"
    return Cell(name, title, f"cells/{name}.py", gates, ("h",), step, plan, GRU_KINDS, note)


def make_rnn(kind: str = "tanh", variant: str = "") -> Cell:
    """The plain recurrent cell of cells/rnn.py (`kind` "tanh") or cells/rnn_relu.py ("relu"), or with "sigmoid"."""

    def step(parameters: Parameters, x: Array, h: Array, c: Array) -> dict[str, Array]:
        a = _pre_activations(parameters, x, h, ("h",))
        return {"x": x, "h_prev": h, "h": ACTIVATIONS[kind](a["a_h"]), **a}

    lines = (Line("2'", "da_h", (Term(1.0, (Factor("", "dh"), *derivative_factors(kind, "h"))),)),)
    name = "rnn_relu" if kind == "relu" else "rnn"
    title = "plain RNN" + (" with ReLU" if kind == "relu" else "")
    return Cell(name, title, f"cells/{name}.py", ("h",), ("h",), step, _plan(lines, ("h",)), {"h": kind}, "", variant)


def known_cells(G: int) -> list[Cell]:
    """The cells with so many gates whose equations are known: those of lstm_np first, then variants of them."""
    if G == 1:
        return [make_rnn(), make_rnn("relu"), make_rnn("sigmoid", variant="h_t = sigmoid(a) in (2)")]
    if G == 3:
        return [make_gru(reset, keep) for keep in ("z", "1-z") for reset in ("after", "before")]
    return [make_lstm(), make_lstm(forget_bias=1.0), *_lstm_variants()] if G == 4 else []


def _lstm_variants() -> list[Cell]:
    standard = {"i": "sigmoid", "f": "sigmoid", "o": "sigmoid", "g": "tanh"}
    variants = [
        make_lstm(squash="identity", variant="h_t = o * c_t in (5), without the tanh"),
        make_lstm(squash="sigmoid", variant="h_t = o * sigmoid(c_t) in (5)"),
    ]
    for gate, kind in (("g", "sigmoid"), *((gate, "tanh") for gate in "ifo"), *((gate, "identity") for gate in "gifo")):
        value = f"a_{gate}" if kind == "identity" else f"{kind}(a_{gate})"
        number = 3 if gate == "g" else 2
        variants.append(make_lstm({**standard, gate: kind}, variant=f"{gate} = {value} in ({number})"))
    return variants
