"""Check somebody's own cell: which gradient is wrong, of which gate, at which step, and why.

`check_cell` takes a forward and a backward function as a course or book has them, of one step or of a whole sequence.
How the arrays are laid out and in which order the gates stand is found by trying; the gradients that backward returns
are compared with derivatives of forward that know nothing of backward:

complex step   exact to rounding, where forward takes complex numbers
central        differences, where it does not; good to about 1e-9 in float64

If forward is an LSTM, a GRU or a plain RNN as `lstm_np/cells` has them, the wrong gradient is also compared with those
that known mistakes would give, and a reason is named if one of them agrees to rounding.  Another cell of one's own is
checked against its own derivative.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lstm_np import streams
from lstm_np.gradcheck import CENTRAL_LIMIT, CENTRAL_STEP, COMPLEX_STEP
from lstm_np.gradcheck.own_cell import user_code
from lstm_np.gradcheck.own_cell.arrangement import LAYOUTS, Order, Sizes, canonical
from lstm_np.gradcheck.own_cell.classes import as_functions, is_cell_class
from lstm_np.gradcheck.own_cell.diagnosis import (
    Diagnosis,
    Evidence,
    Gradients,
    Reason,
    diagnose,
    diagnose_unknown,
    locate,
)
from lstm_np.gradcheck.own_cell.equations import Array, Values, forward_sequence, forward_steps, known_cells
from lstm_np.gradcheck.own_cell.names import Value
from lstm_np.gradcheck.own_cell.report import CellReport, GradientLine
from lstm_np.gradcheck.own_cell.subject import GATES_OF, Match, Outputs, Subject
from lstm_np.gradcheck.own_cell.user_code import CheckError, NotComplexError
from lstm_np.gradcheck.own_cell.wording import Wording, make_report

COMPLEX_LIMIT = 1e-9  # of a gradient in float64 against the complex step, relative to its largest entry
SINGLE_LIMIT = 3e-3  # against differences in float32
SINGLE_STEP = 0.05  # of those differences, of fourth order
SINGLE_GRADIENT_LIMIT = 1e-4  # of a gradient in float32 where forward computes in float64
MATCH_LIMIT = {"float64": 1e-9, "float32": 2e-4}  # how close a known mistake has to come


def check_cell(
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    *,
    cell: str | None = None,
    layout: str | None = None,
    arguments: str | Sequence[str] | None = None,
    results: str | Sequence[str] | None = None,
    upstream: str | Sequence[str] | None = None,
    gradients: str | Sequence[str] | None = None,
    shapes: Mapping[str, Sequence[str]] | None = None,
    batch_size: int = 3,
    steps: int = 4,
    input_size: int | None = None,
    hidden_size: int = 5,
    dtype: str = "float64",
    seed: int = 0,
    known: Sequence[str] = (),
) -> CellReport:
    """Check the gradients of a cell written in plain NumPy; the report is true when all are right, and prints.

    forward   a step, such as ``lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b) -> next_h, next_c, cache``, or a
              sequence, such as ``lstm_forward(x, h0, Wx, Wh, b) -> h, cache``
    backward  ``lstm_step_backward(dnext_h, dnext_c, cache) -> dx, dprev_h, dprev_c, dWx, dWh, db``, or
              ``lstm_backward(dh, cache) -> dx, dh0, dWx, dWh, db``; gradients may also come as a dict

    Alone, `forward` is a class that has both, as `lstm_np.gradcheck.own_cell.classes` describes.

    Batch-first arrays, columns or single vectors, one stacked matrix, W and U, a matrix per gate or a dict of them, any
    order of the gates: that is found by trying.  What cannot be found is said by:

    cell       "lstm", "gru" or "rnn", where neither arguments nor names tell
    layout     "rows" (a sample is a row), "columns" or "single" (one sample, no axis for it)
    arguments  what forward's arguments are, in their order: "x h c W U b"
    results    what forward returns: "h c cache"
    upstream   what backward's arguments are: "dh dc cache"
    gradients  what backward returns: "dx dh dc dW dU db"
    shapes     of arguments that are none of these, in letters B, D, H: {"p": ("H", "1")}

    batch_size, steps, input_size, hidden_size  B, T, D and H of the random input; D as large as locating needs (None)
    dtype      of the input, "float64" or "float32"; in float32 only errors above 0.3 % can be seen
    seed       of everything random here
    known      keys of reasons (`Reason.key`) to be tried before others: those of the step that a sequence calls

    >>> def step_forward(x, h_prev, W, U, b):  # (D, B), (H, B), (H, D), (H, H), (H, 1)
    ...     h = np.tanh(W @ x + U @ h_prev + b)
    ...     return h, (x, h_prev, W, U, h)
    >>> def step_backward(dh, cache):
    ...     x, h_prev, W, U, h = cache
    ...     da = dh * (1 - h)  # a square is missing
    ...     return W.T @ da, U.T @ da, da @ x.T, da @ h_prev.T, da.sum(axis=1, keepdims=True)
    >>> bool(lstm_np.check_cell(step_forward, step_backward))
    False

    Raises CheckError, a ValueError with one line, for a cell that cannot be checked: an exception in it (with the line
    of its file), results of other number or shape, nan, and arrays that it was given and changes.
    """
    if layout is not None and layout not in LAYOUTS:
        raise CheckError(f"layout must be one of {', '.join(LAYOUTS)}, found {layout!r}")
    if cell is not None and cell not in GATES_OF:
        raise CheckError(f"cell must be one of {', '.join(GATES_OF)}, found {cell!r}")
    if dtype not in MATCH_LIMIT:
        raise CheckError(f"dtype must be float64 or float32, found {dtype!r}")
    names = {"results": _words(results), "gradients": _words(gradients)}
    if is_cell_class(forward) and backward is None:
        forward, backward, own = as_functions(forward)
        names = {key: names[key] or own[key] for key in names}
    if not callable(forward) or not callable(backward):
        raise CheckError("check_cell takes two functions, forward and backward, or a class that has both")
    subject = Subject(
        forward,
        backward,
        arguments=_words(arguments),
        upstream=_words(upstream),
        results=names["results"],
        gradients=names["gradients"],
        shapes={name: tuple(shape) for name, shape in (shapes or {}).items()},
    )
    sizes = _sizes(batch_size, steps, input_size, hidden_size, layout)
    found = subject.find(sizes, seed, dtype, cell, layout)
    if found.arrangement.layout == "single":
        sizes = Sizes(sizes.T, 1, sizes.D, sizes.H)
    return _Check(subject, found, sizes, seed, dtype).report(known)


def _words(names: str | Sequence[str] | None) -> list[str] | None:
    return names.replace(",", " ").split() if isinstance(names, str) else None if names is None else list(names)


def _sizes(B: int, T: int, D: int | None, H: int, layout: str | None) -> Sizes:
    for name, value in (("batch_size", B), ("steps", T), ("input_size", D), ("hidden_size", H)):
        if value is not None and value < 1:
            raise CheckError(f"{name} must be at least 1, found {value}")
    enough = max(4 * H, T * B) + 1  # so many that da follows from dW and from dx
    return Sizes(T, 1 if layout == "single" else B, D or enough, H)


@dataclass
class _Call:
    """One call of forward and one of backward: what they were given and gave."""

    arrays: dict[str, Array]
    upstream: dict[str, Array]
    outputs: Outputs
    gradients: dict[str, Array]
    exact: dict[str, Array]


class _Check:
    """The calls of one check; T steps one after the other, each with random gradients from above, or one sequence."""

    def __init__(self, subject: Subject, found: Match, sizes: Sizes, seed: int, dtype: str) -> None:
        self.subject, self.match, self.sizes, self.seed, self.dtype = subject, found, sizes, seed, dtype
        self.arrangement = found.arrangement
        self.method, self.why_not_complex = "complex step", ""
        self.in_a_row = False  # whether backward returned arrays one after the other

    def random(self, name: str, shape: tuple[int, ...], step: int, dtype: Any) -> Array:
        """Random numbers from above."""
        return streams.generator(self.seed, "check_cell", name, step).standard_normal(shape).astype(dtype)

    # ------------------------------------------------------------------------------------------------ forward, backward

    def run(self) -> list[_Call]:
        """Forward through all steps, then backward through them, as in training; nothing given may be changed."""
        subject, arrangement, sizes = self.subject, self.arrangement, self.sizes
        with user_code.quietly():
            arrays = subject.inputs(arrangement, sizes, self.seed, self.dtype)
            calls: list[_Call] = []
            for t in range(1 if arrangement.sequence else sizes.T):
                if t:
                    arrays = self.next_step(arrays, calls[-1].outputs, t)
                outputs = self.forward(arrays)
                calls.append(_Call(arrays, self.upstream(outputs, t), outputs, {}, {}))
            for call in reversed(calls):
                call.gradients = self.backward(call)
            again = self.forward(calls[0].arrays)
        if not np.array_equal(again.h, calls[0].outputs.h):
            raise CheckError(
                f"{subject.title(subject.forward)} gives different results for the same arguments: random numbers, or "
                "something kept from one call to the next"
            )
        return calls

    def next_step(self, arrays: Mapping[str, Array], outputs: Outputs, t: int) -> dict[str, Array]:
        """The arguments of step t: a new x, the state that the step before gave."""
        following = dict(arrays)
        kinds = {"h": outputs.h, "c": outputs.c}
        for value in self.arrangement.values:
            if value.kind == "x":
                shape = self.arrangement.shape(value, self.sizes)
                following[value.name] = self.subject.random(value, shape, self.sizes, self.seed, t).astype(self.dtype)
            elif kinds.get(value.kind) is not None:
                following[value.name] = np.array(kinds[value.kind])
        if self.arrangement.has("state"):
            following |= {part: np.array(array) for part, array in kinds.items() if array is not None}
        return following

    def forward(self, arrays: Mapping[str, Array]) -> Outputs:
        """One call of forward; its results are looked at."""
        arguments = self.subject.forward_arguments(self.arrangement, {name: a.copy() for name, a in arrays.items()})
        with user_code.read_only(arguments):
            found = user_code.call(self.subject.forward, arguments)
        outputs = self.subject.read_outputs(found, self.arrangement, self.sizes, self.match.swapped)
        for name, array in (("h", outputs.h), ("c", outputs.c)):
            if array is not None:
                _expect_finite(array, f"{self.subject.title(self.subject.forward)} returned", name)
        if outputs.h.dtype not in (np.float64, np.float32):
            raise CheckError(
                f"{self.subject.title(self.subject.forward)} returned h in {outputs.h.dtype}; expected float64 (or "
                "float32)"
            )
        return outputs

    def upstream(self, outputs: Outputs, t: int) -> dict[str, Array]:
        """Random gradients of the loss with respect to what forward gave."""
        dtype, last = outputs.h.dtype, self.arrangement.state_shape(self.sizes.H, self.sizes, False)
        given = {"dh": self.random("dh", outputs.h.shape, t, dtype)}
        if self.subject.takes("dc") and (outputs.c is not None or not self.arrangement.has("state")):
            if outputs.c is None:
                raise CheckError(
                    f"{self.subject.title(self.subject.backward)} takes the gradient of c, but "
                    f"{self.subject.title(self.subject.forward)} does not return c"
                )
            given["dc"] = self.random("dc", last, t, dtype)
        if any(value.kind == "dh_last" for value in self.subject.upstream):
            given["dh_last"] = self.random("dh_last", last, t, dtype)
        return given

    def backward(self, call: _Call) -> dict[str, Array]:
        """One call of backward; its results are looked at, but for their shapes."""
        upstream = {name: array.copy() for name, array in call.upstream.items()}
        arrays = {name: array.copy() for name, array in call.arrays.items()}
        arguments = self.subject.backward_arguments(self.arrangement, arrays, call.outputs, upstream)
        with user_code.read_only(arguments):
            found = user_code.call(self.subject.backward, arguments)
        gradients = self.subject.read_gradients(found, self.arrangement)
        self.in_a_row = isinstance(found, tuple) and all(isinstance(part, np.ndarray) for part in found)
        for name, array in gradients.items():
            _expect_finite(array, f"{self.subject.title(self.subject.backward)} returned", f"d{name}")
        return {name: array.copy() for name, array in gradients.items()}

    # ------------------------------------------------------------------------------------------------ exact derivatives

    def loss(self, function: Callable[..., Any], call: _Call, arrays: Mapping[str, Array]) -> Any:
        """The sum of forward's outputs, weighted with the gradients from above."""
        arguments = self.subject.forward_arguments(self.arrangement, arrays)
        outputs = self.subject.read_outputs(
            function(self.subject.forward, arguments), self.arrangement, self.sizes, self.match.swapped
        )
        upstream, total = call.upstream, (outputs.h * call.upstream["dh"]).sum()
        h, c = outputs.h, outputs.c
        if self.arrangement.sequence:
            h = self.arrangement.to_columns(h, True)[-1]
        if "dh_last" in upstream:
            total = total + (h * self.arrangement.to_columns(upstream["dh_last"], False)).sum()
        if "dc" in upstream and c is not None:
            if self.arrangement.sequence and c.shape == outputs.h.shape:
                c, dc = self.arrangement.to_columns(c, True)[-1], self.arrangement.to_columns(upstream["dc"], False)
                total = total + (c * dc).sum()
            else:
                total = total + (c * upstream["dc"]).sum()
        return total

    def differentiate(self, calls: Sequence[_Call]) -> None:
        """Fill in the exact derivatives of everything of which backward gave a gradient."""
        single = self.is_single(calls)
        with user_code.quietly(io.StringIO()):
            if single:
                self.why_not_complex = "it computes in float32"
            else:
                try:
                    self._by_complex_step(calls)
                    return
                except NotComplexError as error:
                    self.why_not_complex = f"forward takes no complex numbers: {error}"
            self.method = "central differences"
            for call in calls:
                for name in call.gradients:
                    call.exact[name] = self._central(call, name, single)

    def _by_complex_step(self, calls: Sequence[_Call]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            for call in calls:
                arrays = {name: array.astype(complex) for name, array in call.arrays.items()}
                for name in call.gradients:
                    self._expect_analytic(call, arrays, name)
                for name in call.gradients:
                    call.exact[name] = self._complex_step(call, arrays, name)

    def _complex_step(self, call: _Call, arrays: Mapping[str, Array], name: str) -> Array:
        exact = np.empty(arrays[name].shape)
        for where in np.ndindex(exact.shape):
            changed = arrays[name].copy()
            changed[where] += 1j * COMPLEX_STEP
            exact[where] = self.loss(user_code.call_complex, call, {**arrays, name: changed}).imag / COMPLEX_STEP
        return exact

    def _expect_analytic(self, call: _Call, arrays: Mapping[str, Array], name: str) -> None:
        """Raises NotComplexError where the complex step is not the derivative: in one direction, by differences."""
        direction = self.random("direction", arrays[name].shape, 0, float)
        step = 1e-5
        moved = arrays[name] + 1j * COMPLEX_STEP * direction
        value = self.loss(user_code.call_complex, call, {**arrays, name: moved})
        ends = [
            self.loss(user_code.call, call, {**call.arrays, name: call.arrays[name] + sign * step * direction})
            for sign in (1, -1)
        ]
        difference = (ends[0] - ends[1]) / (2 * step)
        scale = max(abs(difference), abs(np.asarray(value).real), 1.0)
        if not np.iscomplexobj(value) or not abs(np.asarray(value).imag / COMPLEX_STEP - difference) <= 1e-5 * scale:
            raise NotComplexError(f"{self.subject.title(self.subject.forward)} drops the imaginary part")

    def _central(self, call: _Call, name: str, single: bool) -> Array:
        array = call.arrays[name]
        exact = np.empty(array.shape)
        for where in np.ndindex(exact.shape):
            step = (SINGLE_STEP if single else CENTRAL_STEP) * max(1.0, abs(float(array[where])))

            def at(times: float, where: Any = where, step: float = step) -> float:
                changed = array.copy()
                changed[where] += times * step
                return float(self.loss(user_code.call, call, {**call.arrays, name: changed}))

            if single:  # of fourth order: a larger step, which float32 needs
                exact[where] = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
            else:
                exact[where] = (at(1) - at(-1)) / (2 * step)
        return exact

    # ----------------------------------------------------------------------------------------------------- comparison

    def limit(self, calls: Sequence[_Call], name: str) -> float:
        """How far the gradient `name` may be from the derivative, relative to its largest entry."""
        if self.is_single(calls):
            return SINGLE_LIMIT
        limit = COMPLEX_LIMIT if self.method == "complex step" else CENTRAL_LIMIT
        single = all(user_code.is_single(call.gradients[name]) for call in calls)
        return max(limit, SINGLE_GRADIENT_LIMIT) if single else limit

    def is_single(self, calls: Sequence[_Call]) -> bool:
        """Whether forward has the precision of float32 alone."""
        return self.dtype == "float32" or all(user_code.is_single(call.outputs.h) for call in calls)

    def report(self, known: Sequence[str]) -> CellReport:
        """Everything."""
        calls = self.run()
        self.differentiate(calls)
        shapes = {
            name: f"shape {array.shape}, not {calls[0].exact[name].shape}"
            for name, array in calls[0].gradients.items()
            if array.shape != calls[0].exact[name].shape
        }
        by_shape = self._repair(calls)
        names = list(calls[0].gradients)
        found = {name: np.stack([one.gradients[name] for one in calls]) for name in names}
        exact = {name: np.stack([one.exact[name] for one in calls]) for name in names}
        largest = max(float(np.abs(array).max()) for array in (*found.values(), *exact.values()))
        errors = {name: self._error(calls, found[name], exact[name], 1e-5 * largest) for name in names}
        limits = {name: self.limit(calls, name) for name in names}
        wrong = [name for name in names if not errors[name] <= limits[name]]
        wording = Wording(self.subject, self.match, self.sizes, self.method, self.why_not_complex)
        diagnosis, evidence, where = Diagnosis((), (), ()), None, {}
        if wrong:
            tolerance = MATCH_LIMIT["float32" if max(limits.values()) > 1e-6 else "float64"]
            if self.match.order is None:
                coarse = max(limits.values())
                gradients = Gradients(found, exact, coarse, self.arrangement.sequence, self.sizes.T, self.sizes.B)
                diagnosis = diagnose_unknown(gradients)
                where = {p.array: wording.where_unknown(p, found, exact, coarse) for p in diagnosis.places}
            else:
                evidence = self._evidence(self.match.order, calls, found, exact, tolerance, max(limits.values()))
                diagnosis = _forward_differs(evidence) or diagnose(evidence, known)
                where = {name: wording.where(name, diagnosis, evidence) for name in wrong}
            by_shape |= _reshaped(found, exact, wrong)
        lines = tuple(
            GradientLine(
                f"d{name}",
                name not in wrong and name not in by_shape,
                None if name in shapes else errors[name],
                calls[0].arrays[name].shape,
                shapes.get(name) or where.get(name, ""),
                wording.wrong_kinds(name, diagnosis) if name in wrong else (),
            )
            for name in names
        )
        return make_report(wording, lines, max(limits.values()), diagnosis, evidence, by_shape, self.notes(names))

    def notes(self, names: Sequence[str]) -> tuple[str, ...]:
        """What is not checked, and an order of the results that may surprise who calls backward."""
        wanted = [value.name for value in self.subject.wanted(self.arrangement)]
        missing = [f"d{name}" for name in wanted if name not in names]
        notes = [f"Not returned, so not checked: {', '.join(missing)}."] if missing else []
        if self.in_a_row and list(names) != [name for name in wanted if name in names]:
            shown = ", ".join(f"d{name}" for name in names)
            notes.append(
                f"{self.subject.title(self.subject.backward)} returns, by the names in its return, {shown}: another "
                "order than forward's arguments have. Whoever calls it has to know that."
            )
        return tuple(notes)

    def _error(self, calls: Sequence[_Call], found: Array, exact: Array, smallest: float) -> float:
        """The worst error relative to the largest entry.

        A gradient that is zero but for rounding is measured by the others (`smallest`), and one from differences of
        losses, which carry their rounding, by the loss.
        """
        scale = max(float(np.abs(found).max()), float(np.abs(exact).max()), smallest, float(np.finfo(float).tiny))
        if self.method != "complex step":
            scale = max(scale, 1e-3 * max(abs(self._loss_of(call)) for call in calls))
        return float(np.abs(found - exact).max()) / scale

    def _loss_of(self, call: _Call) -> float:
        with user_code.quietly(io.StringIO()):
            return float(self.loss(user_code.call, call, call.arrays))

    def _repair(self, calls: Sequence[_Call]) -> dict[str, tuple[str, str]]:
        """Gradients of another shape than their argument, brought into its shape: key and sentence of what is wrong.

        Raises CheckError where the numbers do not tell.
        """
        reasons: dict[str, tuple[str, str]] = {}
        for call in calls:
            for name, array in call.gradients.items():
                right = call.exact[name]
                if array.shape == right.shape:
                    continue
                told = _in_shape(array, right)
                if told is None:
                    raise CheckError(
                        f"{self.subject.title(self.subject.backward)} returned d{name} of shape {array.shape}; "
                        f"{name} has shape {right.shape}, and a gradient has the shape of what it belongs to"
                    )
                key, said, call.gradients[name] = told
                reasons[name] = (key, said)
        return reasons

    def _evidence(
        self,
        order: Order,
        calls: Sequence[_Call],
        found: Mapping[str, Array],
        exact: Mapping[str, Array],
        tolerance: float,
        limit: float,
    ) -> Evidence:
        """What the diagnosis needs, as the equations have it.

        Where `exact` is only good to `limit`, the equations' own gradient, which agrees with it, takes its place.
        """
        arrangement, sizes = self.arrangement, self.sizes
        parameters = canonical(arrangement, order, calls[0].arrays, sizes)
        parameters = {name: array.astype(float) for name, array in parameters.items()}
        values, dh, dc = self._values(order, calls, parameters)
        evidence = Evidence(
            found=self._canonical_gradients(order, found),
            exact=self._canonical_gradients(order, exact),
            tolerance=max(tolerance, limit),
            sequence=arrangement.sequence,
            T=sizes.T,
            B=sizes.B,
            cell=order.cell,
            parameters=parameters,
            values=values,
            dh=dh,
            dc=dc,
            shown_order=order.shown,
        )
        predicted = evidence.predict(order.cell.plan)
        if all(evidence.agree(name, array, predicted[name]) for name, array in evidence.exact.items()):
            same = {name: predicted[name] for name in evidence.exact}
            return replace(evidence, exact=same, tolerance=tolerance)
        return evidence

    def _values(
        self, order: Order, calls: Sequence[_Call], parameters: Mapping[str, Array]
    ) -> tuple[Values, Array, Array]:
        """The equations' values, dh (T, H, B) and dc, of one sequence or of the steps side by side."""
        arrangement, sizes = self.arrangement, self.sizes
        states = [self._states(call.arrays) for call in calls]
        zero = np.zeros((sizes.H, sizes.B))
        if not arrangement.sequence:
            x, h, c = (np.stack([one.get(kind, zero) for one in states]) for kind in ("x", "h", "c"))
            values = forward_steps(order.cell, parameters, x, h, c)
            dh = np.stack([arrangement.to_columns(one.upstream["dh"], False) for one in calls])
            dc = np.stack([self._column(one.upstream.get("dc"), zero) for one in calls])
            return values, dh.astype(float), dc.astype(float)
        values = forward_sequence(
            order.cell, parameters, states[0]["x"], states[0].get("h", zero), states[0].get("c", zero)
        )
        dh = arrangement.to_columns(calls[0].upstream["dh"], True).astype(float)
        if "dh_last" in calls[0].upstream:
            dh = dh.copy()
            dh[-1] += self._column(calls[0].upstream["dh_last"], zero)
        return values, dh, self._column(calls[0].upstream.get("dc"), zero).astype(float)

    def _column(self, array: Array | None, zero: Array) -> Array:
        return zero if array is None else self.arrangement.to_columns(array, False)

    def _states(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """x, h and c as columns."""
        named = [value for value in self.arrangement.values if value.kind in ("x", "h", "c")]
        if self.arrangement.has("state"):
            named += [Value(part, part) for part in ("h", "c") if part in arrays]
        sequence = self.arrangement.sequence
        return {
            value.kind: self.arrangement.to_columns(arrays[value.name].astype(float), sequence and value.kind == "x")
            for value in named
            if value.name in arrays
        }

    def _canonical_gradients(self, order: Order, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Gradients by the learner's names, calls first, as the equations have them."""
        each = []
        for k in range(len(next(iter(arrays.values())))):
            one = {name: array[k].astype(float) for name, array in arrays.items()}
            each.append({**self._states(one), **canonical(self.arrangement, order, one, self.sizes)})
        result = {name: np.stack([one[name] for one in each]) for name in each[0]}
        if self.arrangement.sequence and "x" in result:
            result["x"] = result["x"][0]  # its steps are the calls
        return result


def _in_shape(array: Array, right: Array) -> tuple[str, str, Array] | None:
    """How an array of another shape is the right one: key, sentence, and the array in the right shape."""

    def close(candidate: Array) -> bool:
        limit = MATCH_LIMIT["float32" if array.dtype == np.float32 else "float64"]
        return bool(np.abs(candidate - right).max() <= limit * np.abs(right).max())

    if array.T.shape == right.shape:
        return "transposed", "has the shape of the transpose: swap the two factors of its product, or add .T", array.T
    if array.size == right.size and close(array.reshape(right.shape)):
        said = f"has shape {array.shape} where {right.shape} is needed; its numbers are right"
        return "shape", said, array.reshape(right.shape)
    for axis in range(array.ndim):
        summed = array.sum(axis=axis)
        if summed.size == right.size and close(summed.reshape(right.shape)):
            return "not summed", "not summed over the samples (1')", summed.reshape(right.shape)
    if array.size == 1 and np.allclose(array, right.sum()):
        return "summed too far", "is one number: (1') sums over samples, not over units", right
    return None


def _reshaped(
    found: Mapping[str, Array], exact: Mapping[str, Array], wrong: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """Matrices of the right shape whose numbers are those of the transpose, one after the other."""
    told = {}
    for name in wrong:
        array, right = found[name], exact[name]
        if right.ndim == 3 and right.shape[1] != right.shape[2]:
            turned = right.swapaxes(1, 2).reshape(right.shape)
            if np.abs(array - turned).max() <= MATCH_LIMIT["float64"] * np.abs(right).max():
                told[name] = ("reshape for transpose", "is brought into its shape with reshape where .T is needed")
    return told


def _forward_differs(evidence: Evidence) -> Diagnosis | None:
    """Whether backward is right for the standard cell, and it is forward that is another one."""
    cell = evidence.cell
    if not cell.variant:
        return None
    standard = known_cells(len(cell.gates))[0]
    predicted = evidence.predict(standard.plan)
    if evidence.wrong(predicted):
        return None
    said = (
        f"your backward is that of the {standard.title} in lstm_np/{standard.file}, but your forward is not: it has "
        f"{cell.variant}. Correct forward if you meant that cell, else backward"
    )
    wrong = evidence.wrong(evidence.exact)
    places = tuple(locate(evidence, name) for name in wrong)
    return Diagnosis((Reason("forward differs", said, "forward", (), tuple(wrong)),), (), places)


def _expect_finite(array: Array, who: str, name: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        kind = "nan" if np.isnan(array).any() else "inf"
        raise CheckError(f"{who} {kind} in {name}, for input of ordinary size")
