"""What the arguments and results of somebody's cell are, read from their names.

Courses and books call the same things by many names: h_{t-1} is prev_h, h_prev, a_prev or h0; U is Wh, W_hh or U; a
gate has a matrix of its own called Wf, W_xf and W_hf, Wfx and Wfh.  Every name here becomes a `Value` of one kind:

    x h c        input and state        W U    matrices that read x and h_{t-1}     b b2   biases
    state        the tuple (h, c)       WU     one matrix that reads both           Wy by  an output layer's
    parameters   a dict of matrices and biases                                      other  of a shape that is declared
    cache        what forward hands to backward
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Value(NamedTuple):
    """An argument or result: its name in somebody's code, its kind, and the gate's part of the name or ""."""

    name: str
    kind: str
    gate: str = ""


STATE_KINDS = ("x", "h", "c")

_WHEN = r"(?:prev|previous|last|old|init|initial|start|past|before|next|new|cur|curr|current|out|now|in|tm1|t1|t|0|1|n)"
_STATES = {
    "x": re.compile(rf"{_WHEN}?(?:x|xs|inp|inpt|input|inputs|data|seq|sequence){_WHEN}?"),
    "h": re.compile(rf"{_WHEN}?(?:h|hs|a|s|hid|hidden|hiddenstate|hstate|hx){_WHEN}*"),
    "c": re.compile(rf"{_WHEN}?(?:c|cs|cell|cellstate|cstate|cx|mem|memory){_WHEN}*"),
    "state": re.compile(rf"{_WHEN}?(?:state|states|hc){_WHEN}?"),
}
_CACHE = re.compile(r".*cache.*|saved|saves|memo|ctx|context|tape|store|stored|values|record|intermediates?|tmp|temp")
_DICTS = {"parameters", "params", "param", "p", "weights", "theta"}
_UPSTREAM = {"dout", "dy", "doutput", "gradoutput", "upstream", "dloss", "grad", "gradout", "dhout", "dhs"}

_WHOLE = {
    "W": "w wx wlstm wih wxh wax wi2h weightih weightx winput win kernel inputkernel",
    "U": "u wh whh uh waa wh2h weighthh weighth wrec recurrentkernel",
    "b": "b bias bh bx ba bih bhh biasih biashh b1",
    "Wy": "wy why wya wout wo2 v",
    "by": "by bout bo2",
}
_WHOLE_KINDS = {name: kind for kind, names in _WHOLE.items() for name in names.split()}

_GATES = (
    "i u f o g c a j z r n h in input forget out output update reset cand candidate cell cc ct ctilde cbar chat ctil "
    "htilde hcand hh hhat new"
)
_G = "(" + "|".join(sorted(_GATES.split(), key=len, reverse=True)) + ")"
# ways to name one matrix or bias per gate; each has a pattern for every kind that it knows
_STYLES: tuple[dict[str, str], ...] = (
    {"W": rf"w{_G}", "U": rf"[ur]{_G}", "b": rf"b{_G}", "Wy": "wy", "by": "by"},
    {"W": rf"wx{_G}", "U": rf"wh{_G}", "b": rf"bx?{_G}", "b2": rf"bh{_G}", "Wy": "wy|why", "by": "by"},
    {"W": rf"w{_G}x", "U": rf"w{_G}[ha]", "b": rf"b{_G}x?", "b2": rf"b{_G}h", "Wy": "wy|wya|wyh", "by": "by"},
    {"W": rf"wi{_G}", "U": rf"wh{_G}", "b": rf"bi?{_G}", "b2": rf"bh{_G}", "Wy": "wy|why", "by": "by"},
    {"W": rf"u{_G}", "U": rf"w{_G}", "b": rf"b{_G}", "Wy": "v|wy", "by": "by"},
)


def clean(name: str) -> str:
    """Without underscores and capitals."""
    return name.lower().replace("_", "").replace("'", "")


@functools.lru_cache(maxsize=1000)  # it is asked of the same few names for every call of somebody's forward
def state_kind(name: str) -> str:
    """ "x", "h", "c" or "state"; "" for a name that means none of them."""
    return next((kind for kind, pattern in _STATES.items() if pattern.fullmatch(clean(name))), "")


def without_d(name: str) -> str:
    """The name of which this is the gradient: Wx for dWx, prev_h for dprev_h or grad_prev_h."""
    for pattern in (r"(?:grads?|delta)_?(.+)", r"d_?(.+)", r"(.+?)_?grad"):
        match = re.fullmatch(pattern, name, re.IGNORECASE)
        if match:
            return match[1]
    return name


def read_parameters(names: Sequence[str]) -> list[list[Value]]:
    """What the matrices and biases of these names are, every way to read them, the likelier first.

    Names are read together since one alone can mean two things: Wh is U, or a GRU's matrix of its candidate.  An empty
    list: they follow no way of naming that is known here.
    """
    readings = []
    whole = [Value(name, _WHOLE_KINDS.get(clean(name), "")) for name in names]
    if all(value.kind for value in whole) and _consistent_whole(whole):
        readings.append(_number_biases(_joint(whole)))
        if {"w", "u"} <= {clean(name) for name in names}:  # U reads x and W reads h_{t-1}, some say
            swap = {"W": "U", "U": "W"}
            readings.append([value._replace(kind=swap.get(value.kind, value.kind)) for value in readings[0]])
    in_styles = [values for style in _STYLES if (values := _in_style(names, style)) and _consistent_gates(values)]
    in_styles.sort(key=lambda values: "U" not in [value.kind for value in values])
    for values in map(_joint, in_styles):
        if values not in readings and any(value.kind in ("W", "WU") for value in values):
            readings.append(values)
    return readings


def _in_style(names: Sequence[str], style: dict[str, str]) -> list[Value] | None:
    values = []
    for name in names:
        for kind in ("Wy", "by", "U", "b2", "W", "b"):
            match = re.fullmatch(style[kind], clean(name)) if kind in style else None
            if match:
                values.append(Value(name, kind, match[1] if match.groups() and match[1] else ""))
                break
        else:
            return None
    return values


def _consistent_whole(values: list[Value]) -> bool:
    kinds = [value.kind for value in values]
    return kinds.count("W") <= 1 and kinds.count("U") <= 1 and kinds.count("b") <= 2 and kinds.count("Wy") <= 1


def _consistent_gates(values: list[Value]) -> bool:
    """No gate twice in a kind; the kinds that are there, if they have several gates, have the same ones."""
    sets = {kind: [value.gate for value in values if value.kind == kind] for kind in ("W", "U", "b", "b2")}
    found = [gates for gates in sets.values() if gates]
    if any(len(gates) != len(set(gates)) or "" in gates for gates in found):
        return False
    largest = max((set(gates) for gates in found), key=len, default=set())
    return all(set(gates) <= largest for gates in found)


def _joint(values: list[Value]) -> list[Value]:
    """A matrix W beside which there is no U reads x and h_{t-1}."""
    if any(value.kind == "U" for value in values):
        return values
    return [value._replace(kind="WU") if value.kind == "W" else value for value in values]


def _number_biases(values: list[Value]) -> list[Value]:
    """The second of two biases is b2, the one added to U h_{t-1}."""
    biases = [value for value in values if value.kind == "b"]
    if len(biases) < 2:
        return values
    recurrent = next((value for value in biases if clean(value.name) in ("bh", "bhh", "biashh")), biases[1])
    return [value._replace(kind="b2") if value is recurrent else value for value in values]


def read_arguments(names: Sequence[str], shapes: Sequence[str]) -> tuple[list[list[Value]], list[str]]:
    """A forward function's arguments, every way to read them, and the names that mean nothing here.

    shapes  the names of those whose shape is declared, which are then of kind "other"
    """
    values: dict[str, Value] = {name: Value(name, "other") for name in shapes if name in names}
    for name in names:
        kind = state_kind(name)
        if name not in values and kind and kind not in [value.kind for value in values.values()]:
            values[name] = Value(name, kind)
    left = [name for name in names if name not in values]
    if len(left) == 1 and clean(left[0]) in _DICTS:
        values[left[0]] = Value(left[0], "parameters")
        left = []
    readings = read_parameters(left)
    if left and not readings:
        return [], [name for name in left if not read_parameters([name])] or left
    found = [values | {value.name: value for value in reading} for reading in readings or [[]]]
    return [[reading[name] for name in names] for reading in found], []


def read_upstream(
    names: Sequence[str], forward: Sequence[str], results: Sequence[str]
) -> tuple[list[Value], list[str]]:
    """A backward function's arguments, and the names that mean nothing here.

    Each is an argument of forward by the same name (kind "argument"), one of its `results` ("result"), its "cache", or
    the gradient of the loss with respect to "h" or "c": "dh", "dc", "dstate", and "dh_last" for a second dh.
    """
    values: list[Value] = []
    unknown: list[str] = []
    for name in names:
        kinds = [value.kind for value in values]
        inner = state_kind(without_d(name)) if without_d(name) != name else ""
        if name in forward:
            values.append(Value(name, "argument"))
        elif _CACHE.fullmatch(clean(name)):
            values.append(Value(name, "cache"))
        elif clean(name) in _UPSTREAM and "dh" not in kinds:
            values.append(Value(name, "dh"))
        elif inner in ("h", "c", "state") and f"d{inner}" not in kinds:
            values.append(Value(name, f"d{inner}"))
        elif inner == "h":
            values.append(Value(name, "dh_last"))
        elif name in results:
            values.append(Value(name, "result"))
        else:
            unknown.append(name)
            values.append(Value(name, ""))
    if len(unknown) == 1 and not any(value.kind == "cache" for value in values):
        return [value if value.kind else value._replace(kind="cache") for value in values], []
    return values, unknown


def match_gradient(name: str, arguments: Sequence[Value]) -> Value | None:
    """The argument of which `name` is the gradient; None where that cannot be told."""
    inner = without_d(name)
    for same in (lambda a, b: a == b, lambda a, b: clean(a) == clean(b)):
        for candidate in (inner, name):
            found = [value for value in arguments if same(value.name, candidate)]
            if found:
                return found[0]
    kind = state_kind(inner)
    found = [value for value in arguments if value.kind == kind] if kind else []
    if not found:
        wanted = {(value.kind, value.gate) for reading in read_parameters([inner]) for value in reading}
        found = [value for value in arguments if (value.kind, value.gate) in wanted]
    return found[0] if len(found) == 1 else None


def argument_names(function: Callable[..., Any]) -> list[str]:
    """The names of a function's arguments that have no default.

    Raises ValueError for a function that takes *args, or whose signature Python does not know.
    """
    names = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(f"takes {parameter}, which does not say what it gets")
        if parameter.default is parameter.empty:
            names.append(name)
    return names


def returned_names(function: Callable[..., Any]) -> list[str]:
    """The names in a function's last `return a, b, c`; [] where there is no such line or no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return []
    returns = [node for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value is not None]
    value = max(returns, key=lambda node: node.lineno).value if returns else None
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    return [part.id if isinstance(part, ast.Name) else "" for part in parts if part is not None]
