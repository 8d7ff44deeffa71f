"""The known mistakes: each a small change to a backward pass, with a sentence that explains it.

Two kinds of changes are made from a cell's own lines.  Those that many people make have words of their own (`_loop`,
`_slopes`, `_products`); the rest follow from a rule: every factor of every line left out or taken for another value,
every term left out, doubled or with the wrong sign (`_of_lines`).  `all_mistakes` gives them in the order in which they
are preferred where two give the same numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lstm_np.gradcheck.own_cell.equations import (
    FORMS,
    SYMBOLS,
    Cell,
    Factor,
    Line,
    Loop,
    Outer,
    Plan,
    Route,
    Term,
    derivative_factors,
)

GATE_NAMES = {
    "i": "input gate",
    "f": "forget gate",
    "o": "output gate",
    "g": "candidate",
    "r": "reset gate",
    "z": "update gate",
    "n": "candidate",
    "h": "hidden state",
}


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    key     what tests and JSON call it: "df: c_t for c_{t-1}"
    said    what was done, a sentence without its subject: "c_t stands where (4') needs c_{t-1}"
    target  whose line is wrong: "df", "dh_prev", "U" (of dU), "loop" ...; it says which corrected line to show
    gates   the gates it concerns; () where it concerns no one in particular
    change  the plan with the mistake made; None where the plan has no place for it
    """

    key: str
    said: str
    target: str
    gates: tuple[str, ...]
    change: Callable[[Plan], Plan | None]


def all_mistakes(cell: Cell, sequence: bool, shown_order: Sequence[str]) -> list[Mistake]:
    """Every mistake that is known for a cell, for a `sequence` or a step.

    shown_order  the cell's gates in the order in which the learner's arrays have them
    """
    found = [
        *(_loop(cell) if sequence else _of_one_step()),
        *_known_lines(cell),
        *_slopes(cell),
        *_products(cell, sequence),
        *_permutations(cell, shown_order),
        *_of_lines(cell),
    ]
    first: dict[str, Mistake] = {}
    for mistake in found:
        first.setdefault(mistake.key, mistake)
    return list(first.values())


def symbol(part: Factor) -> str:
    """A factor as it stands in an equation."""
    if part.of == "dc_next":
        return "dc_t before (5')"
    return FORMS[part.form][1].format(SYMBOLS.get(part.of, part.of))


# ------------------------------------------------------------------------------------------------ the loop over time


def _loop(cell: Cell) -> Iterator[Mistake]:
    def changed(**fields: Any) -> Callable[[Plan], Plan]:
        return lambda plan: replace(plan, loop=replace(plan.loop, **fields))

    yield Mistake(
        "loop: dh not carried",
        "dh_{t-1} of (1') is not carried to the step before: each step gets only the loss's own dh_t",
        "loop:h",
        (),
        changed(carry=tuple(part for part in ("c",) if part in cell.state)),
    )
    if "c" in cell.state:
        yield Mistake(
            "loop: dc not carried",
            "dc_{t-1} of (4') is not carried to the step before: each step starts with dc = 0",
            "loop:c",
            (),
            changed(carry=("h",)),
        )
        yield Mistake(
            "loop: dh and dc not carried",
            "neither dh_{t-1} of (1') nor dc_{t-1} of (4') is carried to the step before",
            "loop:hc",
            (),
            changed(carry=()),
        )
        yield Mistake(
            "loop: dh and dc crossed",
            "dh_{t-1} and dc_{t-1} are taken for one another where they go to the step before",
            "loop:h",
            (),
            changed(crossed=True),
        )
    yield Mistake(
        "loop: dh_t not added",
        "the loss's own dh_t is taken at the last step only; every step has one, to be added to what is carried",
        "loop:h",
        (),
        changed(upstream="last"),
    )
    yield Mistake(
        "loop: dh reversed",
        "the loss's dh are read in the reversed order: step t takes that of step T + 1 - t",
        "loop:h",
        (),
        changed(upstream="reversed"),
    )
    yield Mistake(
        "loop: forwards",
        "the loop goes from the first step to the last; what is carried comes from the step after, so it must go from "
        "the last to the first",
        "loop:h",
        (),
        changed(forwards=True),
    )
    yield Mistake(
        "loop: values of the last step",
        "every step reads the values of the last step, not its own: is one array or cache filled again in every step?",
        "loop:values",
        (),
        changed(values="last"),
    )
    yield Mistake(
        "loop: h_0 taken for 0",
        "the first step takes h_0 for 0 in backward, where forward was given one",
        "U",
        (),
        changed(start="zero"),
    )


def _of_one_step() -> Iterator[Mistake]:
    def last(plan: Plan) -> Plan:
        return replace(plan, loop=Loop(values="last"))

    yield Mistake(
        "loop: values of the last step",
        "backward reads the values of the most recent call of forward, not those in the cache it is given",
        "loop:values",
        (),
        last,
    )


# ------------------------------------------------------------------------------------- lines that people get wrong


def _known_lines(cell: Cell) -> Iterator[Mistake]:
    if cell.name != "lstm":
        return

    def both(first: tuple[str, str], second: tuple[str, str]) -> Callable[[Plan], Plan | None]:
        return lambda plan: _with_factors(_with_factors(plan, *first), *second)

    yield Mistake(
        "di and dg: swapped",
        "di and dg are taken for one another in (4')",
        "di",
        ("i", "g"),
        both(("di", "dc * i"), ("dg", "dc * g")),
    )
    yield Mistake(
        "di and df: swapped",
        "di and df are taken for one another in (4')",
        "df",
        ("i", "f"),
        both(("di", "dc * c_prev"), ("df", "dc * g")),
    )

    def without_the_path_through_h(plan: Plan) -> Plan | None:
        changed: Plan | None = plan
        for target, product in (("di", "g"), ("df", "c_prev"), ("dg", "i")):
            changed = _with_factors(changed, target, f"dc_next * {product}")
        return changed

    yield Mistake(
        "di, df and dg: dc before (5')",
        "di, df and dg are made from the dc that arrives, before (5') adds the path through h_t to it",
        "dc",
        ("i", "f", "g"),
        without_the_path_through_h,
    )


def _with_factors(plan: Plan | None, target: str, product: str) -> Plan | None:
    """The plan with one product of variables in place of the only term of a line."""
    line = plan.line(target) if plan else None
    if plan is None or line is None or len(line.terms) != 1:
        return None
    factors = tuple(Factor("", of) for of in product.split(" * "))
    return plan.with_line(replace(line, terms=(replace_factors(line.terms[0], factors),)))


def replace_factors(term: Term, factors: tuple[Factor, ...]) -> Term:
    """The term with other factors."""
    return term._replace(factors=factors)


# --------------------------------------------------------------------------------------- derivatives of activations


def _slopes(cell: Cell) -> Iterator[Mistake]:
    """What is done to da_k = dk * activation', for each gate and for all that have the same activation together."""
    sigmoids = tuple(gate for gate, kind in cell.kinds.items() if kind == "sigmoid")
    if len(cell.kinds) > 1:
        said = "no gate's gradient is multiplied with its activation's derivative: da_k = dk stands where (2') and (3')"
        yield _slope(cell, tuple(cell.kinds), "no derivative", f"{said} need that factor", lambda v: ())
    for gates in [*([sigmoids] if len(sigmoids) > 1 else []), *((gate,) for gate in sigmoids)]:
        s, number = gates[0] if len(gates) == 1 else "s", _number(cell, gates[0])
        each = "" if len(gates) == 1 else f", for each of {', '.join(gates)}"
        for key, said, factors in _SIGMOID_SLOPES:
            yield _slope(cell, gates, key, said.format(s=s, number=number) + each, factors)
    for gate in [gate for gate, kind in cell.kinds.items() if kind == "tanh"]:
        for key, said, factors in _TANH_SLOPES:
            v = SYMBOLS.get(gate, gate)
            yield _slope(cell, (gate,), key, said.format(v=v, number=_number(cell, gate)), factors)


_Slope = tuple[str, str, Callable[[str], tuple[Factor, ...]]]

_SIGMOID_SLOPES: tuple[_Slope, ...] = (
    (
        "(1 - s) forgotten",
        "the factor (1 - {s}) of the sigmoid's derivative {s} * (1 - {s}) is missing in ({number})",
        lambda v: (Factor("", v),),
    ),
    (
        "s forgotten",
        "the factor {s} of the sigmoid's derivative {s} * (1 - {s}) is missing in ({number})",
        lambda v: (Factor("1-", v),),
    ),
    ("no sigmoid'", "the sigmoid's derivative {s} * (1 - {s}) is missing in ({number})", lambda v: ()),
    (
        "tanh' for sigmoid'",
        "the derivative of tanh, 1 - {s}^2, stands where ({number}) needs that of the sigmoid, {s} * (1 - {s})",
        lambda v: (Factor("1-sq", v),),
    ),
    (
        "sigmoid' of sigmoid",
        "the sigmoid's derivative is taken at {s}, which is the sigmoid's value already, where ({number}) needs "
        "{s} * (1 - {s})",
        lambda v: (Factor("sigmoid'", v),),
    ),
)
_TANH_SLOPES: tuple[_Slope, ...] = (
    ("no tanh'", "the derivative of tanh, 1 - {v}^2, is missing in ({number})", lambda v: ()),
    (
        "sigmoid' for tanh'",
        "the derivative of the sigmoid, {v} * (1 - {v}), stands where ({number}) needs that of tanh, 1 - {v}^2",
        lambda v: (Factor("", v), Factor("1-", v)),
    ),
    (
        "tanh' of tanh",
        "the derivative of tanh is taken at {v}, which is the tanh's value already, where ({number}) needs 1 - {v}^2",
        lambda v: (Factor("1-tanh2", v),),
    ),
    ("square forgotten", "1 - {v} stands where ({number}) needs 1 - {v}^2", lambda v: (Factor("1-", v),)),
)


def _slope(
    cell: Cell, gates: tuple[str, ...], key: str, said: str, factors: Callable[[str], tuple[Factor, ...]]
) -> Mistake:
    def change(plan: Plan) -> Plan | None:
        changed = plan
        for gate in gates:
            line = changed.line(f"da_{gate}")
            right = derivative_factors(cell.kinds[gate], gate)
            if line is None or len(line.terms) != 1 or not set(right) <= set(line.terms[0].factors):
                return None
            kept = tuple(part for part in line.terms[0].factors if part not in right)
            changed = changed.with_line(replace(line, terms=(replace_factors(line.terms[0], (*kept, *factors(gate))),)))
        return changed

    targets = f"da_{gates[0]}" if len(gates) == 1 else f"da of {' '.join(gates)}"
    return Mistake(f"{targets}: {key}", said, f"da_{gates[0]}", gates, change)


def _number(cell: Cell, gate: str) -> str:
    line = cell.plan.line(f"da_{gate}")
    return line.number if line else ""


# ------------------------------------------------------------------------------------------- the products of (1')


def _products(cell: Cell, sequence: bool) -> Iterator[Mistake]:
    yield from _operands(cell, sequence)
    yield from _lefts(cell)
    for name, symbol_, matrix in (("to_h", "dh_{t-1}", "U"), ("to_x", "dx_t", "W")):
        target = "dh_prev" if name == "to_h" else "dx"
        routes: Mapping[str, tuple[Route, ...]] = getattr(cell.plan, name)
        for gate in routes:
            if len(routes) > 1:
                yield Mistake(
                    f"{target}: without gate {gate}",
                    f"{symbol_} lacks the path through the {GATE_NAMES[gate]}, {matrix}_{gate}^T da_{gate} in (1')",
                    target,
                    (gate,),
                    _routed(name, (gate,), lambda route: ()),
                )
        for gates in [tuple(routes), *((gate,) for gate in routes if len(routes) > 1)]:
            which = f"{matrix}_{gates[0]}" if len(gates) == 1 and len(routes) > 1 else matrix
            some = f" of gate {gates[0]}" if len(gates) == 1 and len(routes) > 1 else ""
            if name == "to_h":
                yield Mistake(
                    f"{target}: not transposed{some}",
                    f"{which} is not transposed: (1') needs {which}^T for {symbol_}",
                    target,
                    gates,
                    _routed(name, gates, lambda route: (route._replace(transposed=False),)),
                )
            yield Mistake(
                f"{target}: wrong sign{some}",
                f"the sign of {which}^T da in {symbol_} is wrong (1')",
                target,
                gates,
                _routed(name, gates, lambda route: (route._replace(scale=-route.scale),)),
            )
        if cell.plan.line("dh_prev") and name == "to_h":
            yield Mistake(
                "dh_prev: only the direct path",
                f"{symbol_} lacks the paths through the gates, U^T da in (1')",
                target,
                (),
                _routed(name, tuple(routes), lambda route: ()),
            )
        for gate, other in itertools.permutations(routes, 2):
            yield Mistake(
                f"{target}: da_{other} for da_{gate}",
                f"da_{other} stands where (1') needs da_{gate} in {symbol_}",
                target,
                (gate,),
                _routed(name, (gate,), lambda route, other=other: (route._replace(left=f"da_{other}"),)),  # type: ignore[misc]
            )
            yield Mistake(
                f"{target}: {matrix}_{other} for {matrix}_{gate}",
                f"{matrix}_{other} stands where (1') needs {matrix}_{gate} in {symbol_}",
                target,
                (gate,),
                _routed(name, (gate,), lambda route, other=other: (route._replace(gate=other),)),  # type: ignore[misc]
            )


def _routed(
    name: str, gates: Sequence[str], change: Callable[[Route], tuple[Route, ...]]
) -> Callable[[Plan], Plan | None]:
    def changed(plan: Plan) -> Plan | None:
        routes = dict(getattr(plan, name))
        for gate in gates:
            if len(routes[gate]) != 1:
                return None
            routes[gate] = change(routes[gate][0])
        return replace(plan, to_h=routes) if name == "to_h" else replace(plan, to_x=routes)

    return changed


def _operands(cell: Cell, sequence: bool) -> Iterator[Mistake]:
    """Other values where dU needs h_{t-1} and dW needs x_t."""
    U = cell.plan.outer["U"]
    groups = [tuple(U), *((gate,) for gate in U if len(U) > 1)]
    states = [
        "h",
        "h_prev",
        *(("c", "c_prev") if "c" in cell.state else ()),
        *(("s",) if "s" in _variables(cell) else ()),
    ]
    for gates, wrong in itertools.product(groups, states):
        concerned = tuple(gate for gate in gates if U[gate].right != wrong)
        if not concerned or (len(gates) > 1 and len(concerned) < 2):
            continue
        right = SYMBOLS.get(U[concerned[0]].right, U[concerned[0]].right)
        some = "" if len(gates) > 1 or len(U) == 1 else f" of gate {gates[0]}"
        yield Mistake(
            f"dU{some}: {SYMBOLS.get(wrong, wrong)} for {right}",
            f"{SYMBOLS.get(wrong, wrong)} stands where (1') needs {right} in dU{some}",
            "U",
            concerned,
            _outer("U", concerned, right=wrong),
        )
    for name in ("U", "W"):
        symbol_ = {"U": "h_{t-1}", "W": "x_t"}[name]
        if sequence:
            for shift, said in ((1, "the step after"), (-1, "the step before")):
                yield Mistake(
                    f"d{name}: {said}",
                    f"d{name} takes {symbol_} of {said} (1')",
                    name,
                    tuple(cell.gates),
                    _outer(name, cell.gates, shift=shift),
                )
        if name == "U":
            for gates in groups:
                some = "" if len(gates) > 1 or len(U) == 1 else f" of gate {gates[0]}"
                yield Mistake(
                    f"dU: transposed{some}",
                    f"dU{some} is transposed: (1') needs da h_{{t-1}}^T, not h_{{t-1}} da^T",
                    "U",
                    gates,
                    _outer("U", gates, transposed=True),
                )


def _lefts(cell: Cell) -> Iterator[Mistake]:
    """The gradient of a gate where that of its pre-activation belongs, and the like."""
    plain = [gate for gate in cell.gates if cell.plan.line(f"d{gate}")]
    if len(plain) == len(cell.gates):
        groups = [tuple(plain), *((gate,) for gate in plain)] if len(plain) > 1 else []
        for names in (("W", "U", "b", "b2"), ("W", "U"), ("W",), ("U",), ("b", "b2")):
            shown = ", ".join(f"d{name}" for name in names if name != "b2")
            for gates in groups:
                which = "each gate k" if len(gates) > 1 else f"gate {gates[0]}"
                k = "k" if len(gates) > 1 else gates[0]
                yield Mistake(
                    f"{shown}: d{k} for da_{k}",
                    f"{shown} of {which} is made from d{k}, before the activation's derivative; (1') needs da_{k}",
                    names[0],
                    gates,
                    _lefts_changed(names, gates),
                )
    if cell.name == "gru":
        yield Mistake(
            "dU of gate n: da_n for dm",
            "da_n stands where (3') needs dm = da_n * r in dU_n",
            "U",
            ("n",),
            _outer("U", ("n",), left="da_n"),
        )
        yield Mistake(
            "db2 of gate n: da_n for dm",
            "da_n stands where (3') needs dm = da_n * r in the gradient of the inner bias",
            "b2",
            ("n",),
            _outer("b2", ("n",), left="da_n"),
        )
        yield Mistake(
            "dh_prev: da_n for dm",
            "da_n stands where (3') needs dm = da_n * r in dh_{t-1}",
            "dh_prev",
            ("n",),
            _routed("to_h", ("n",), lambda route: (route._replace(left="da_n"),)),
        )


def _lefts_changed(names: Sequence[str], gates: Sequence[str]) -> Callable[[Plan], Plan | None]:
    def changed(plan: Plan) -> Plan | None:
        for name, gate in itertools.product(names, gates):
            one = _outer(name, (gate,), left=f"d{gate}")(plan)
            if one is None:
                return None
            plan = one
        return plan

    return changed


def _outer(name: str, gates: Sequence[str], **fields: Any) -> Callable[[Plan], Plan | None]:
    def changed(plan: Plan) -> Plan | None:
        outers: dict[str, Outer] = dict(plan.outer[name])
        for gate in gates:
            outers[gate] = outers[gate]._replace(**fields)
        return replace(plan, outer={**plan.outer, name: outers})

    return changed


def _variables(cell: Cell) -> set[str]:
    """Forward values that lines and products of the cell read."""
    read = {part.of for line in cell.plan.lines for term in line.terms for part in term.factors}
    return read | {outer.right for outers in cell.plan.outer.values() for outer in outers.values() if outer.right}


def _permutations(cell: Cell, shown_order: Sequence[str]) -> Iterator[Mistake]:
    """The da of the gates put together in another order than forward has them."""
    if len(cell.gates) < 2:
        return
    for shown in itertools.permutations(shown_order):
        if shown == tuple(shown_order):
            continue
        instead = dict(zip(shown_order, shown, strict=True))
        moved = tuple(gate for gate in shown_order if instead[gate] != gate)
        what = " and ".join(moved) + " change places" if len(moved) == 2 else f"they stand as {', '.join(shown)}"
        yield Mistake(
            f"da: gates as {' '.join(shown)}",
            f"the gates' gradients are put together in another order than {', '.join(shown_order)}, which forward has: "
            f"{what} (1')",
            "da",
            moved,
            _permuted(instead),
        )


def _permuted(instead: Mapping[str, str]) -> Callable[[Plan], Plan | None]:
    def moved(left: str) -> str:
        return f"da_{instead[left[3:]]}" if left.startswith("da_") else left

    def changed(plan: Plan) -> Plan | None:
        def all_moved(routes: Mapping[str, tuple[Route, ...]]) -> dict[str, tuple[Route, ...]]:
            return {gate: tuple(one._replace(left=moved(one.left)) for one in there) for gate, there in routes.items()}

        outer = {
            name: {gate: one._replace(left=moved(one.left)) for gate, one in outers.items()}
            for name, outers in plan.outer.items()
        }
        return replace(plan, to_x=all_moved(plan.to_x), to_h=all_moved(plan.to_h), outer=outer)

    return changed


# ---------------------------------------------------------------------------------------------- any line, any factor


def _of_lines(cell: Cell) -> Iterator[Mistake]:
    """Every line with a factor left out or taken for another, a term left out, doubled or with the wrong sign."""
    for line in cell.plan.lines:
        yield from _of_terms(line)
    for number, line in enumerate(cell.plan.lines):
        yield from _of_factors(cell, number, line)
    for line in sorted(cell.plan.lines, key=lambda line: not line.target.startswith("da_")):
        yield from _extra_factors(cell, line)


def _of_terms(line: Line) -> Iterator[Mistake]:
    target = SYMBOLS.get(line.target, line.target)
    for k, term in enumerate(line.terms):
        product = " * ".join(symbol(part) for part in term.factors)
        if len(line.terms) > 1 or line.target == "dh_prev":  # to which (1') adds the paths through the gates
            yield _edit(line, k, f"without {product}", f"the term {product} is missing in ({line.number})", None)
        yield _edit(
            line,
            k,
            f"{product} with the wrong sign",
            f"the sign of {product} is wrong in ({line.number})",
            term._replace(scale=-term.scale),
        )
        for scale, how in ((2.0, "twice"), (0.5, "half")):
            yield _edit(
                line,
                k,
                f"{product} {how}",
                f"{how} {product} goes into {target}; ({line.number}) has it once",
                term._replace(scale=scale * term.scale),
            )


def _of_factors(cell: Cell, number: int, line: Line) -> Iterator[Mistake]:
    for k, term in enumerate(line.terms):
        if line.target == "dc" and k == 0:
            continue
        for j, right in enumerate(term.factors):
            before, after = term.factors[:j], term.factors[j + 1 :]
            if len(term.factors) > 1:
                yield _edit(
                    line,
                    k,
                    f"without {symbol(right)}",
                    f"the factor {symbol(right)} is missing in ({line.number})",
                    replace_factors(term, (*before, *after)),
                )
            for wrong in _others(cell, number, right):
                yield _edit(
                    line,
                    k,
                    f"{symbol(wrong)} for {symbol(right)}",
                    f"{symbol(wrong)} stands where ({line.number}) needs {symbol(right)}",
                    replace_factors(term, (*before, wrong, *after)),
                )


def _extra_factors(cell: Cell, line: Line) -> Iterator[Mistake]:
    names = sorted(_forward_values(cell))
    for k, term in enumerate(line.terms):
        if line.target == "dc" and k == 0:
            continue
        for form, of in itertools.product(_USUAL_FORMS, names):
            extra = Factor(form, of)
            yield _edit(
                line,
                k,
                f"times {symbol(extra)}",
                f"there is a factor {symbol(extra)} too many in ({line.number})",
                replace_factors(term, (*term.factors, extra)),
            )


def _edit(line: Line, index: int, key: str, said: str, changed: Term | None) -> Mistake:
    """One term of one line in another form, or left out."""

    def change(plan: Plan) -> Plan | None:
        there = plan.line(line.target)
        if there is None or len(there.terms) <= index or there.terms[index] != line.terms[index]:
            return None
        terms = (*there.terms[:index], *((changed,) if changed else ()), *there.terms[index + 1 :])
        return plan.with_line(replace(there, terms=terms))

    gate = line.target.removeprefix("da_").removeprefix("d")
    gates = (gate,) if gate in GATE_NAMES and line.target != "dh" else ()
    return Mistake(f"{line.target}: {key}", said, line.target, gates, change)


_USUAL_FORMS = ("", "1-", "1-sq", "tanh", "1-tanh2", "sigmoid'")


def _forward_values(cell: Cell) -> set[str]:
    """The names that forward's values have, those of the gates and of the state."""
    return (
        {gate for gate in cell.gates if gate != "h"}
        | (_variables(cell) & {"m", "s"})
        | {part for state in cell.state for part in (state, f"{state}_prev")}
    )


def _others(cell: Cell, number: int, right: Factor) -> Iterator[Factor]:
    """What may stand in a factor's place: of the gradients another gradient, of forward's values any value's form."""
    known = {"dh", "dc_next"} if "c" in cell.state else {"dh"}
    known |= {line.target for line in cell.plan.lines[:number]}
    if right.of.startswith("d") and right.of not in ("dh_prev",):
        candidates = [Factor("", of) for of in sorted(known)]
    else:
        names = sorted(_forward_values(cell) | {right.of})
        pre = [f"a_{gate}" for gate in cell.gates]
        candidates = [Factor(right.form, of) for of in names]
        candidates += [Factor(form, right.of) for form in FORMS]
        candidates += [Factor(form, of) for of in names for form in _USUAL_FORMS]
        candidates += [Factor(form, of) for of in pre for form in ("", "tanh", "sigmoid", "1-", "1-sq", "1-tanh2")]
        if right.of == "h_prev-n":
            candidates.append(Factor("", "n-h_prev"))
        if right.of == "n-h_prev":
            candidates.append(Factor("", "h_prev-n"))
    return (candidate for candidate in dict.fromkeys(candidates) if candidate != right)
