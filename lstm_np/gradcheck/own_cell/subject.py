"""Somebody's forward and backward, called by what their arguments mean.

A `Subject` knows the two functions and what their arguments and results are called; `find` tries arrangements until one
runs, and which cell of `equations` the forward pass then is, if it is one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lstm_np import streams
from lstm_np.gradcheck.own_cell import names as naming
from lstm_np.gradcheck.own_cell import user_code
from lstm_np.gradcheck.own_cell.arrangement import Arrangement, Order, Sizes, arrangements, canonical, orders
from lstm_np.gradcheck.own_cell.equations import Array, Cell, forward_sequence, forward_steps, known_cells
from lstm_np.gradcheck.own_cell.names import STATE_KINDS, Value
from lstm_np.gradcheck.own_cell.user_code import CheckError

GATES_OF = {"lstm": 4, "gru": 3, "rnn": 1}
SCALE = {"x": 1.0, "h": 0.5, "c": 1.0}


@dataclass(frozen=True)
class Outputs:
    """What forward returned: h and c of a step, or of all steps (c of the last, where only that is returned)."""

    h: Array
    c: Array | None
    cache: Any
    by_name: Mapping[str, Any]


@dataclass(frozen=True)
class Match:
    """An arrangement in which forward runs, and the order of the gates of the known cell that it is, if it is one."""

    arrangement: Arrangement
    order: Order | None
    swapped: bool  # forward returns (c, h)


class Subject:
    """Two functions, forward and backward, and what their arguments and results are called.

    arguments, results   names to be taken in place of those in the code, in its order: what forward takes and returns
    upstream, gradients  the same of backward
    shapes               of arguments that follow no naming known here, such as {"p": ("H", "1")}
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        *,
        arguments: Sequence[str] | None = None,
        results: Sequence[str] | None = None,
        upstream: Sequence[str] | None = None,
        gradients: Sequence[str] | None = None,
        shapes: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.forward, self.backward, self.shapes = forward, backward, dict(shapes or {})
        self.names = self._names(forward, arguments, "arguments")
        self.readings, unknown = naming.read_arguments(self.names, list(self.shapes))
        if unknown or not any(value.kind == "x" for value in (self.readings or [[]])[0]):
            listed = ", ".join(unknown) or "x, the input,"
            raise CheckError(
                f"{self.title(forward)}({', '.join(self.names)}): what is {listed}? Say what it takes, in its order, "
                'by arguments="x h c W U b" (--arguments), or the shape of an argument by shapes (--shape p=H,1)'
            )
        self.result_names = list(results or naming.returned_names(forward))
        names = self._names(backward, upstream, "upstream")
        self.upstream, unknown = naming.read_upstream(names, self.names, self.result_names)
        if unknown:
            raise CheckError(
                f"{self.title(backward)}({', '.join(names)}): what is {', '.join(unknown)}? Say what it takes, in its "
                'order, by upstream="dh dc cache" (--upstream)'
            )
        self.gradient_names = list(gradients or naming.returned_names(backward))

    @staticmethod
    def title(function: Callable[..., Any]) -> str:
        """What messages call a function."""
        return user_code.name_of(function)

    def _names(self, function: Callable[..., Any], declared: Sequence[str] | None, what: str) -> list[str]:
        try:
            names = naming.argument_names(function)
        except (TypeError, ValueError) as error:
            raise CheckError(f"{self.title(function)}: {error}") from error
        if declared is None:
            return names
        if len(declared) != len(names):
            raise CheckError(
                f"{self.title(function)} takes {len(names)} arguments ({', '.join(names)}), but `{what}` names "
                f"{len(declared)} ({', '.join(declared)})"
            )
        return list(declared)

    def takes(self, kind: str) -> bool:
        """Whether backward takes a gradient of this kind."""
        return any(value.kind in (kind, "dstate") for value in self.upstream)

    # ------------------------------------------------------------------------------------------------------- calls

    def forward_arguments(self, arrangement: Arrangement, arrays: Mapping[str, Any]) -> list[Any]:
        """Forward's arguments in order."""
        found: list[Any] = []
        for value in arrangement.values:
            if value.kind == "parameters":
                found.append({entry.name: arrays[entry.name] for entry in arrangement.entries})
            elif value.kind == "state":
                found.append(tuple(arrays[part] for part in ("h", "c")) if arrangement.G == 4 else arrays["h"])
            else:
                found.append(arrays[value.name])
        return found

    def backward_arguments(
        self, arrangement: Arrangement, arrays: Mapping[str, Any], outputs: Outputs, upstream: Mapping[str, Array]
    ) -> list[Any]:
        """Backward's arguments in order; `upstream` has "dh" and, where they are taken, "dc" and "dh_last"."""
        given = dict(zip(self.names, self.forward_arguments(arrangement, arrays), strict=True))
        found: list[Any] = []
        for value in self.upstream:
            if value.kind == "argument":
                found.append(given[value.name])
            elif value.kind == "result":
                found.append(outputs.by_name[value.name])
            elif value.kind == "cache":
                found.append(outputs.cache)
            elif value.kind == "dstate":
                found.append((upstream["dh"], upstream["dc"]) if "dc" in upstream else upstream["dh"])
            else:
                found.append(upstream[value.kind])
        return found

    def read_outputs(self, found: Any, arrangement: Arrangement, sizes: Sizes, swapped: bool = False) -> Outputs:
        """h, c and cache among what forward returned.  Raises CheckError where h is not there."""
        parts = list(found) if isinstance(found, (tuple, list)) else [found]
        names = self.result_names if len(self.result_names) == len(parts) else [""] * len(parts)
        if parts and isinstance(parts[0], tuple) and all(isinstance(part, np.ndarray) for part in parts[0]):
            names = [*[""] * len(parts[0]), *names[1:]]
            parts = [*parts[0], *parts[1:]]
        shape = arrangement.state_shape(sizes.H, sizes, arrangement.sequence)
        states = [k for k, part in enumerate(parts) if isinstance(part, np.ndarray) and part.shape == shape]
        if not states:
            raise CheckError(self._no_state(found, parts, shape))
        kinds = {k: naming.state_kind(names[k]) for k in states}
        c = next((k for k in states if kinds[k] == "c"), None)
        h = next((k for k in states if kinds[k] == "h"), None)
        h = next(k for k in states if k != c) if h is None and len(states) > (c is not None) else h
        if h is None:
            raise CheckError(self._no_state(found, parts, shape))
        c = next((k for k in states if k != h), None) if c is None else c
        if c is None and arrangement.sequence:
            last = arrangement.state_shape(sizes.H, sizes, False)
            ends = [k for k, part in enumerate(parts) if isinstance(part, np.ndarray) and part.shape == last]
            c = next((k for k in ends if naming.state_kind(names[k]) == "c"), None)
        if swapped and c is not None:
            h, c = c, h
        left = [k for k in range(len(parts)) if k not in (h, c)]
        cache = next((k for k in left if naming.state_kind(names[k]) == "" and "cache" in names[k].lower()), None)
        cache = (left[-1] if left else None) if cache is None else cache
        by_name = {name: part for name, part in zip(names, parts, strict=True) if name}
        return Outputs(parts[h], None if c is None else parts[c], None if cache is None else parts[cache], by_name)

    def _no_state(self, found: Any, parts: Sequence[Any], shape: tuple[int, ...]) -> str:
        name = self.title(self.forward)
        if found is None or all(part is None for part in parts):
            return f"{name} returned None: is it written yet?"
        shown = ", ".join(_described(part) for part in parts)
        return f"{name} returned {shown}; expected h of shape {shape} among it"

    def read_gradients(self, found: Any, arrangement: Arrangement) -> dict[str, Array]:
        """The gradients that backward returned, by the name of the argument that each belongs to.

        Raises CheckError where there are more or fewer than can be told apart.
        """
        name = self.title(self.backward)
        if found is None:
            raise CheckError(f"{name} returned None: is it written yet?")
        wanted = self.wanted(arrangement)
        items = _flat(found, self.gradient_names)
        if all(item is None for _, item in items):
            raise CheckError(f"{name} returned None: is it written yet?")
        named = [(naming.match_gradient(key, wanted) if key else None, key, item) for key, item in items]
        there = {value.kind for value in wanted}
        gone = set(STATE_KINDS) - there  # of a state that forward starts from by itself
        named = [one for one in named if one[0] or naming.state_kind(naming.without_d(one[1])) not in gone]
        items = [(key, item) for _, key, item in named]
        targets = [value.name for value, _, _ in named if value]
        by_name = all(value for value, _, _ in named) and len(set(targets)) == len(targets)
        if by_name or isinstance(found, dict) or any(isinstance(part, dict) for part in found):
            result = {value.name: item for value, _, item in named if value}
        elif len(items) == len(wanted):
            result = {value.name: item for value, (_, item) in zip(wanted, items, strict=True)}
        else:
            raise CheckError(f"{name} returned {len(items)} values; expected {len(wanted)}: {_expected(wanted)}")
        missing = [f"d{value.name}" for value in wanted if value.name not in result and value.kind not in STATE_KINDS]
        if missing:
            raise CheckError(f"{name} returned no {', '.join(missing)}; expected {_expected(wanted)}")
        arrays = {}
        for target, item in result.items():
            if item is None:
                raise CheckError(f"{name} returned None for d{target}: is it written yet?")
            array = np.asarray(item)
            if array.dtype.kind not in "fiu":
                raise CheckError(f"{name} returned {_described(item)} for d{target}; expected an array of numbers")
            arrays[target] = array
        return arrays

    def wanted(self, arrangement: Arrangement) -> list[Value]:
        """The arguments that have a gradient, in order: those of a dict in its place, an output layer's left out."""
        result: list[Value] = []
        for value in arrangement.values:
            if value.kind == "parameters":
                result += arrangement.entries
            elif value.kind == "state":
                result += [Value("h", "h"), *((Value("c", "c"),) if arrangement.G == 4 else ())]
            else:
                result.append(value)
        return [value for value in result if value.kind not in ("Wy", "by")]

    # -------------------------------------------------------------------------------------------------- random input

    def inputs(self, arrangement: Arrangement, sizes: Sizes, seed: int, dtype: str) -> dict[str, Array]:
        """Random arguments by name, none of them zero; the same for the same name and shape."""
        arrays = {}
        values = [*arrangement.values, *arrangement.entries]
        if arrangement.has("state"):
            values += [Value("h", "h"), Value("c", "c")]
        for value in values:
            if value.kind not in ("parameters", "state"):
                arrays[value.name] = self.random(value, arrangement.shape(value, sizes), sizes, seed).astype(dtype)
        return arrays

    def random(self, value: Value, shape: tuple[int, ...], sizes: Sizes, seed: int, *more: int | str) -> Array:
        """Random numbers of a scale that leaves gates unsaturated."""
        scale = {"W": sizes.D, "U": sizes.H, "WU": sizes.D + sizes.H}.get(value.kind)
        factor = scale**-0.5 if scale else SCALE.get(value.kind, 0.5)
        return factor * streams.generator(seed, "check_cell", value.name, *more).standard_normal(shape)

    # -------------------------------------------------------------------------------------------------------- search

    def find(self, sizes: Sizes, seed: int, dtype: str, cell: str | None, layout: str | None) -> Match:
        """The arrangement in which forward runs and, as far as that decides, backward's gradients have right shapes.

        Raises CheckError where it runs in none; the line is that of the arrangement in which it came farthest.
        """
        best: tuple[tuple[int, int], Match] | None = None
        farthest: tuple[int, str] = (-1, "")
        with user_code.quietly(io.StringIO()):
            for arrangement in self._candidates(cell, layout):
                try:
                    ready, outputs, arrays = self._try(arrangement, sizes, seed, dtype)
                except _Failure as failure:
                    if failure.reached > farthest[0]:
                        farthest = (failure.reached, str(failure))
                    continue
                order, swapped = self._identify(ready, sizes, arrays, outputs)
                shapes = self._right_shapes(ready, sizes, arrays, seed)
                known = 0 if order is None else 1 if order.cell.variant else 2
                if best is None or (known, shapes) > best[0]:
                    best = ((known, shapes), Match(ready, order, swapped))
                if known == 2 and shapes == len(self.wanted(ready)):
                    break
        if best is None:
            raise CheckError(farthest[1])
        return best[1]

    def _candidates(self, cell: str | None, layout: str | None) -> Iterator[Arrangement]:
        name = self.title(self.forward).lower()
        kinds = {value.kind for value in self.readings[0]}
        hint = cell or next((kind for kind in GATES_OF if kind in name), None)
        gates = [GATES_OF[hint]] if hint else [4] if "c" in kinds else [1, 3, 4]
        if "c" in kinds:
            gates += [G for G in (4, 3, 5) if G not in gates]
        step = "step" in name or "cell" in name or "c" in kinds
        yield from arrangements(self.readings, not step, layout, gates, self.shapes)

    def _try(
        self, arrangement: Arrangement, sizes: Sizes, seed: int, dtype: str
    ) -> tuple[Arrangement, Outputs, dict[str, Array]]:
        """Forward in one arrangement; the arrangement with the entries of its dict of parameters."""
        if arrangement.has("parameters"):
            arrangement = self._with_entries(arrangement, sizes, seed, dtype)
        arrays = self.inputs(arrangement, sizes, seed, dtype)
        arguments = self.forward_arguments(arrangement, {name: array.copy() for name, array in arrays.items()})
        try:
            found = self.forward(*arguments)
        except (Exception, SystemExit) as error:
            raise self._failure(error, arrangement, arguments) from error
        try:
            return arrangement, self.read_outputs(found, arrangement, sizes), arrays
        except CheckError as error:
            raise _Failure(str(error), 10**6 if found is None else 0) from error

    def _with_entries(self, arrangement: Arrangement, sizes: Sizes, seed: int, dtype: str) -> Arrangement:
        """The arrangement with what forward reads from its dict of parameters.

        Before all keys are known, W may read x alone (and a U will be asked for) or both x and h_{t-1}.
        """
        try:
            return self._ask(arrangement, sizes, seed, dtype, joint=True)
        except _Failure as failure:
            try:
                return self._ask(arrangement, sizes, seed, dtype, joint=False)
            except _Failure as other:
                raise max(failure, other, key=lambda one: one.reached) from None

    def _ask(self, arrangement: Arrangement, sizes: Sizes, seed: int, dtype: str, *, joint: bool) -> Arrangement:
        """Run forward with a dict that notes what it is asked for, until it has everything that it asks for."""
        name, keys = self.title(self.forward), list[str]()
        while len(keys) < 64:
            readings = naming.read_parameters(keys) if keys else [[]]
            if not readings:
                unknown = ", ".join(repr(key) for key in keys if not naming.read_parameters([key])) or repr(keys[-1])
                raise _Failure(f"{name} reads {unknown} from its parameters: what is that?", 10**6)
            entries = readings[0]
            if not joint:
                entries = [value._replace(kind="W") if value.kind == "WU" else value for value in entries]
            ready = replace(arrangement, entries=tuple(entries))
            given = self.forward_arguments(ready, self.inputs(ready, sizes, seed, dtype))
            given = [_Asked(part) if isinstance(part, dict) else part for part in given]
            try:
                self.forward(*given)
            except _MissingEntry as missing:
                keys.append(missing.key)
                continue
            except (Exception, SystemExit) as error:
                raise self._failure(error, ready, given) from error
            if not joint and not ready.has("U"):
                raise _Failure(f"{name} reads no matrix for h_{{t-1}} from its parameters", 0)
            return ready
        raise _Failure(f"{name} reads more than {len(keys)} entries of its parameters", 10**6)

    def _failure(self, error: BaseException, arrangement: Arrangement, arguments: Sequence[Any]) -> _Failure:
        text = user_code.told(self.forward, error)
        given = ", ".join(
            f"{name} {part.shape}" for name, part in zip(self.names, arguments, strict=True) if hasattr(part, "shape")
        )
        return _Failure(f"{text} (given {given})", user_code.reached(self.forward, error))

    def _identify(
        self, arrangement: Arrangement, sizes: Sizes, arrays: Mapping[str, Array], outputs: Outputs
    ) -> tuple[Order | None, bool]:
        """The cell and the order of its gates with which the equations give what forward gave."""
        if any(value.kind == "other" for value in arrangement.values):
            return None, False
        choices = [(outputs.h, outputs.c, False)]
        if outputs.c is not None and outputs.c.shape == outputs.h.shape:
            choices.append((outputs.c, outputs.h, True))
        for cell in known_cells(arrangement.G):
            for order in orders(arrangement, cell):
                parameters = canonical(arrangement, order, arrays, sizes)
                if not {"W", "U"} <= set(parameters):
                    continue
                values = run_forward(arrangement, cell, parameters, arrays, sizes)
                for h, c, swapped in choices:
                    if agrees(arrangement, values, h, c):
                        return order, swapped
        return None, False

    def _right_shapes(self, arrangement: Arrangement, sizes: Sizes, arrays: Mapping[str, Array], seed: int) -> int:
        """How many of backward's gradients have the shapes of their arguments; -1 where it does not run."""
        copies = {name: array.copy() for name, array in arrays.items()}
        try:
            found = self.forward(*self.forward_arguments(arrangement, copies))
            outputs = self.read_outputs(found, arrangement, sizes)
            upstream = {"dh": np.ones_like(outputs.h)}
            last = np.ones(arrangement.state_shape(sizes.H, sizes, False), outputs.h.dtype)
            upstream |= {kind: last.copy() for kind in ("dc", "dh_last") if self.takes(kind)}
            found = self.backward(*self.backward_arguments(arrangement, copies, outputs, upstream))
            gradients = self.read_gradients(found, arrangement)
        except (Exception, SystemExit):
            return -1
        return sum(array.shape == arrays[name].shape for name, array in gradients.items())


class _Failure(Exception):
    """Forward does not run in an arrangement; `reached` is the line that it came to."""

    def __init__(self, text: str, reached: int) -> None:
        super().__init__(text)
        self.reached = reached


class _MissingEntry(KeyError):
    """An entry of a dict of parameters that forward asked for."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class _Asked(dict[str, Any]):
    """A dict that says what it was asked for."""

    def __missing__(self, key: str) -> Any:
        raise _MissingEntry(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As indexing, if the name means something here."""
        return self[key] if key in self or naming.read_parameters([key]) else default


def run_forward(
    arrangement: Arrangement, cell: Cell, parameters: Mapping[str, Array], arrays: Mapping[str, Array], sizes: Sizes
) -> Any:
    """The values of the equations for these arguments: of a sequence, or of one step with its axis."""
    by_kind = {value.kind: arrays[value.name] for value in arrangement.values if value.kind in ("x", "h", "c")}
    if arrangement.has("state"):
        by_kind |= {part: arrays[part] for part in ("h", "c")}
    x = arrangement.to_columns(by_kind["x"], arrangement.sequence)
    zero = np.zeros((sizes.H, x.shape[-1]))
    h = arrangement.to_columns(by_kind["h"], False) if "h" in by_kind else zero
    c = arrangement.to_columns(by_kind["c"], False) if "c" in by_kind else zero
    if arrangement.sequence:
        return forward_sequence(cell, parameters, x, h, c)
    return forward_steps(cell, parameters, x[None], h[None], c[None])


def agrees(arrangement: Arrangement, values: Any, h: Array, c: Array | None) -> bool:
    """Whether h, and c where it is there, are those of the equations, to rounding."""
    single = user_code.is_single(h) or values.arrays["x"].dtype == np.float32
    limit = 1e-4 if single else 1e-9
    sequence = arrangement.sequence
    mine = values.arrays["h"]
    theirs = arrangement.to_columns(h, sequence)
    if not _close(theirs if sequence else theirs[None], mine, limit):
        return False
    if c is None or "c" not in values.arrays:
        return True
    all_steps = sequence and c.shape == h.shape
    theirs = arrangement.to_columns(c, all_steps)
    return _close(
        theirs if all_steps else theirs[None],
        values.arrays["c"] if all_steps or not sequence else values.arrays["c"][-1:],
        limit,
    )


def _close(found: Array, right: Array, limit: float) -> bool:
    return found.shape == right.shape and bool(np.abs(found - right).max() <= limit * np.abs(right).max())


def _expected(wanted: Sequence[Value]) -> str:
    return ", ".join(f"d{value.name}" for value in wanted)


def _flat(found: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    """What backward returned as (name or "", array): dicts by their keys, nested tuples one after the other."""
    if isinstance(found, dict):
        return [(str(key), item) for key, item in found.items()]
    parts = list(found) if isinstance(found, (tuple, list)) else [found]
    names = names if len(names) == len(parts) else [""] * len(parts)
    items: list[tuple[str, Any]] = []
    for name, part in zip(names, parts, strict=True):
        items += _flat(part, ()) if isinstance(part, (dict, tuple, list)) else [(name, part)]
    return items


def _described(part: Any) -> str:
    return f"an array {part.shape}" if isinstance(part, np.ndarray) else f"a {type(part).__name__}"
