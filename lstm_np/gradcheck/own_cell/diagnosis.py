"""Why a gradient is wrong, and where.

`diagnose` looks for the known mistakes (`mistakes`) with which the equations give the wrong gradient to rounding, and
for what can be done to a whole array (`whole_array`): a factor, a transpose, one step's share instead of the sum.  A
reason is given only if the numbers agree; with random numbers everywhere two mistakes that differ do not give the same.
`locate` says where the gradient is wrong, whatever the reason: which gates, which steps.

Arrays are those of `equations`, with an axis of calls first: the steps that were tried one by one, or, for the
parameters and h_0 and c_0 of a sequence, one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lstm_np.gradcheck.own_cell.equations import (
    Array,
    Cell,
    Lines,
    Plan,
    Values,
    run_lines,
    run_sequence,
    run_steps,
    used_da,
)
from lstm_np.gradcheck.own_cell.mistakes import Mistake, all_mistakes
from lstm_np.gradcheck.own_cell.report import listed

PARAMETERS = ("W", "U", "b", "b2")
MOST_MISTAKES = 3  # that are looked for at once


@dataclass(frozen=True)
class Gradients:
    """Somebody's gradients and the true ones, by name.

    tolerance  how far two numbers that agree may differ, relative to the largest entry of the array
    sequence   whether a call sees all T steps, or one of the T that were tried
    """

    found: Mapping[str, Array]
    exact: Mapping[str, Array]
    tolerance: float
    sequence: bool
    T: int
    B: int

    def agree(self, name: str, found: Array, predicted: Array) -> bool:
        """Whether two arrays, or the same parts of them, are one gradient of `name`."""
        scale = max(float(np.abs(self.exact[name]).max()), float(np.abs(predicted).max(initial=0.0)))
        return bool(np.abs(found - predicted).max(initial=0.0) <= self.tolerance * scale)

    def wrong(self, predicted: Mapping[str, Array]) -> list[str]:
        """The names of those that are not as predicted."""
        return [name for name, array in self.found.items() if not self.agree(name, array, predicted[name])]


@dataclass(frozen=True)
class Evidence(Gradients):
    """The gradients of a cell whose equations are known, named "x", "h", "c", "W", "U", "b" and "b2".

    parameters, values, dh, dc  what backward was given, as `equations` has it
    shown_order                 the gates in the learner's order
    """

    cell: Cell
    parameters: Mapping[str, Array]
    values: Values
    dh: Array
    dc: Array
    shown_order: tuple[str, ...]

    def predict(self, plan: Plan, known: Lines | None = None) -> dict[str, Array]:
        """The gradients that a plan gives; a sequence's parameters summed over steps; also "da" (T, G, H, B).

        known  what the lines of a plan like it gave, see `run_steps`
        """
        result = self.shares(plan, known)
        if self.sequence:
            result |= {name: result[name].sum(axis=0, keepdims=True) for name in PARAMETERS if name in result}
        return result

    def shares(self, plan: Plan, known: Lines | None = None) -> dict[str, Array]:
        """As `predict`, but what each step adds to a parameter's gradient: (T, G, H, ...)."""
        if self.sequence:
            return run_sequence(plan, self.parameters, self.values, self.dh, self.dc)
        return run_steps(plan, self.parameters, self.values, self.dh, self.dc, known)


@dataclass(frozen=True)
class Reason:
    """Why: `said` is the sentence, `target` the line to correct, `arrays` the gradients that it explains."""

    key: str
    said: str
    target: str
    gates: tuple[str, ...]
    arrays: tuple[str, ...]
    also: tuple[str, ...] = ()  # sentences of other mistakes that give the same numbers


@dataclass(frozen=True)
class Place:
    """Where one gradient is wrong.

    gates   the gates in whose rows; () where rows have no gates
    steps   the steps, counted from 1; () where it cannot be told
    source  what is wrong: "da" (what reaches the pre-activation), "operand" (what da is multiplied with) or ""
    """

    array: str
    gates: tuple[str, ...]
    steps: tuple[int, ...]
    source: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The reasons found, the gradients that they leave unexplained, and where every wrong one is wrong."""

    reasons: tuple[Reason, ...]
    unexplained: tuple[str, ...]
    places: tuple[Place, ...]


def diagnose(evidence: Evidence, first: Sequence[str] = ()) -> Diagnosis:
    """Reasons and places for every array of `found` that is not `exact`.

    first  the keys of mistakes to try together before all others
    """
    wrong = evidence.wrong(evidence.exact)
    places = tuple(locate(evidence, name) for name in wrong)
    plan = evidence.cell.plan
    right = evidence.predict(plan)
    if not wrong or not all(evidence.agree(name, evidence.exact[name], right[name]) for name in evidence.found):
        return Diagnosis((), tuple(wrong), places)  # the equations are not this cell's, at least not to rounding
    reasons = list(_whole_arrays(evidence, right, wrong, evidence.shares(plan)))
    if _explained(reasons) < set(wrong):
        chosen, also = _search(evidence, all_mistakes(evidence.cell, evidence.sequence, evidence.shown_order), first)
        if chosen:
            plan = _with(plan, chosen)
            predicted = evidence.predict(plan)
            left = evidence.wrong(predicted)
            arrays = tuple(name for name in wrong if name not in left)
            reasons = [
                Reason(m.key, m.said, m.target, m.gates, arrays, also if m is chosen[-1] else ()) for m in chosen
            ]
            reasons += _whole_arrays(evidence, predicted, left, evidence.shares(plan))
    known = _explained(reasons)
    return Diagnosis(tuple(reasons), tuple(name for name in wrong if name not in known), places)


def diagnose_unknown(gradients: Gradients) -> Diagnosis:
    """As `diagnose`, for a cell whose equations are not known: only what was done to whole arrays can be told."""
    wrong = gradients.wrong(gradients.exact)
    places = []
    for name in wrong:
        pairs = list(zip(gradients.found[name], gradients.exact[name], strict=True))
        steps = tuple(t + 1 for t, pair in enumerate(pairs) if not gradients.agree(name, *pair))
        places.append(Place(name, (), steps if len(pairs) > 1 else ()))
    reasons = tuple(_whole_arrays(gradients, gradients.exact, wrong, None))
    known = _explained(reasons)
    return Diagnosis(reasons, tuple(name for name in wrong if name not in known), tuple(places))


def _explained(reasons: Sequence[Reason]) -> set[str]:
    return {name for reason in reasons for name in reason.arrays}


# ----------------------------------------------------------------------------------------------------------- search


class _Comparison:
    """Which parts of the learner's gradient a plan gives.

    Parts are, of a parameter, each gate's rows at each call; of the others each call; and, where da can be had
    from the gradients, its rows for each step and gate.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.da = recover_da(evidence)
        groups, sizes = [], []  # of each part: what it belongs to, an array or a gate in it; how many entries it has
        for name, array in evidence.found.items():
            parts = ([f"{name} {k}" for k in range(array.shape[1])] if name in PARAMETERS else [name]) * len(array)
            groups += parts
            sizes += [array.size // len(parts)] * len(parts)
        # all arrays in a row: a few operations compare them with a plan's
        self.found = np.concatenate([array.ravel() for array in evidence.found.values()])
        self.part_starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        array_sizes = [array.size for array in evidence.found.values()]
        self.array_starts = np.concatenate([[0], np.cumsum(array_sizes)[:-1]])
        self.array_of_part = np.searchsorted(self.array_starts, self.part_starts, side="right") - 1
        self.scales = np.array([np.abs(evidence.exact[name]).max() for name in evidence.found])
        self.groups = np.array(groups)
        self.last = evidence.values.at(-1)  # the values of the last step
        self.known: tuple[Lines | None, Lines | None] = (None, None)
        right = self.of(evidence.cell.plan)
        assert right is not None
        self.right = right

    def changes_of(self, plan: Plan) -> None:
        """The plans to come are changes of this one, whose lines are computed once: in the last step, and in all."""
        evidence, in_all = self.evidence, None
        if not evidence.sequence and plan.loop.values == "own":
            found = run_lines(plan, evidence.parameters, evidence.values, evidence.dh, evidence.dc)
            in_all = Lines(plan, found)
        self.known = (Lines(plan, self._in_last_step(plan)), in_all)

    def _in_last_step(self, plan: Plan) -> dict[str, Array]:
        evidence = self.evidence
        dh, dc = evidence.dh[-1], evidence.dc if evidence.sequence else evidence.dc[-1]
        return run_lines(plan, evidence.parameters, self.last, dh, dc, self.known[0])

    def of(self, plan: Plan, agreed: tuple[Array, Array] | None = None) -> tuple[Array, Array] | None:
        """Two vectors of bool: parts and rows of da that agree.  None, early, where some that `agreed` no longer do."""
        evidence = self.evidence
        if agreed is not None and self.da is not None and (agreed[1] & ~self._rows(plan)).any():
            return None
        predicted = evidence.predict(plan, self.known[1])
        flat = np.concatenate([predicted[name].ravel() for name in evidence.found])
        worst = np.maximum.reduceat(np.abs(self.found - flat), self.part_starts)
        scales = np.fmax(self.scales, np.maximum.reduceat(np.abs(flat), self.array_starts))
        close = worst <= evidence.tolerance * scales[self.array_of_part]
        if agreed is not None and (agreed[0] & ~close).any():
            return None
        rows = self._agreeing(predicted["da"]) if self.da is not None else np.zeros(0, dtype=bool)
        return close, rows

    def _rows(self, plan: Plan) -> Array:
        """The rows of da that agree, looked at in the last step alone (the others count as agreeing)."""
        evidence, loop = self.evidence, plan.loop
        if loop != evidence.cell.plan.loop:
            return np.ones(evidence.T * len(evidence.cell.gates), dtype=bool)
        last = used_da(plan, self._in_last_step(plan))
        assert self.da is not None
        rows = np.ones((evidence.T, len(evidence.cell.gates)), dtype=bool)
        rows[-1] = self._close(self.da[-1], last)
        return rows.reshape(-1)

    def _agreeing(self, da: Array) -> Array:
        return self._close(self.da, da).reshape(-1)

    def _close(self, found: Any, da: Array) -> Array:
        difference = np.abs(found - da).max(axis=(-1, -2))
        return np.asarray(difference <= 1e3 * self.evidence.tolerance * np.abs(da).max())

    def whole(self, parts: Array) -> set[str]:
        """The groups of which all parts agree."""
        return set(self.groups) - set(self.groups[~parts])


def _search(evidence: Evidence, pool: Sequence[Mistake], first: Sequence[str]) -> tuple[list[Mistake], tuple[str, ...]]:
    """The fewest mistakes that together give the learner's gradient, or as much of it as can be had.

    A mistake is taken if with it more agrees than before and nothing agrees less, and if no other mistake makes the
    same agree with other numbers elsewhere.  If in the end something is left that no whole array explains, only those
    are told that made whole arrays (or whole gates of them) agree.
    """
    comparison = _Comparison(evidence)
    if first:
        hinted = [mistake for mistake in pool if mistake.key in first]
        agreed = comparison.of(_with(evidence.cell.plan, hinted))
        if hinted and agreed is not None and agreed[0].all():
            return hinted, ()
    plan, (parts, rows) = evidence.cell.plan, comparison.right
    chosen: list[Mistake] = []
    also: tuple[str, ...] = ()
    while not parts.all() and len(chosen) < MOST_MISTAKES:
        found = _best(comparison, plan, (parts, rows), pool)
        if not found:
            break
        mistake, plan, (parts, rows) = found[0]
        chosen.append(mistake)
        also = tuple(f"in {other.target}, {other.said}" for other, *_ in found[1:])
        predicted = evidence.predict(plan)
        left = evidence.wrong(predicted)
        if left and _explained(list(_whole_arrays(evidence, predicted, left, evidence.shares(plan)))) == set(left):
            return chosen, also
    return (chosen if parts.all() else _worth_telling(comparison, chosen)), also


Agreed = tuple[Array, Array]


def _best(
    comparison: _Comparison, plan: Plan, agreed: Agreed, pool: Sequence[Mistake]
) -> list[tuple[Mistake, Plan, Agreed]]:
    """The mistakes that make the most agree and all give the same numbers; none where they do not."""
    best: tuple[int, int] = (0, 0)
    candidates: list[tuple[Mistake, Plan, Agreed]] = []
    comparison.changes_of(plan)
    for mistake in pool:
        changed = mistake.change(plan)
        now = comparison.of(changed, agreed) if changed is not None else None
        if changed is None or now is None or any((old & ~new).any() for old, new in zip(agreed, now, strict=True)):
            continue
        gain = (int(now[0].all()), sum(int(new.sum() - old.sum()) for old, new in zip(agreed, now, strict=True)))
        if gain > best:
            best, candidates = gain, []
        if gain == best and gain > (0, 0):
            candidates.append((mistake, changed, now))
    if not candidates:
        return []
    alike = [
        one for one in candidates if all(np.array_equal(a, b) for a, b in zip(one[2], candidates[0][2], strict=True))
    ]
    return alike if best[0] or _same(comparison.evidence, [changed for _, changed, _ in alike]) else []


def _with(plan: Plan, mistakes: Sequence[Mistake]) -> Plan:
    for mistake in mistakes:
        plan = mistake.change(plan) or plan
    return plan


def _same(evidence: Evidence, plans: Sequence[Plan]) -> bool:
    """Whether several plans give the same gradients, so that it does not matter which one is meant."""
    predicted = [evidence.predict(plan) for plan in plans]
    return all(
        evidence.agree(name, other[name], predicted[0][name]) for other in predicted[1:] for name in evidence.found
    )


def _worth_telling(comparison: _Comparison, chosen: list[Mistake]) -> list[Mistake]:
    """The mistakes up to the last one that makes another whole group of parts agree."""
    agreed = comparison.whole(comparison.right[0])
    kept = 0
    for k in range(len(chosen)):
        now = comparison.of(_with(comparison.evidence.cell.plan, chosen[: k + 1]))
        assert now is not None
        if comparison.whole(now[0]) > agreed:
            agreed, kept = comparison.whole(now[0]), k + 1
    return chosen[:kept]


# ----------------------------------------------------------------------------------------------------- whole arrays


def _whole_arrays(
    gradients: Gradients, predicted: Mapping[str, Array], names: Sequence[str], shares: Mapping[str, Array] | None
) -> Iterator[Reason]:
    """Mistakes in whole arrays that are otherwise as predicted; equal ones are reported together.

    shares  each step's part of the parameters' gradients; None where they are not known
    """
    told: dict[tuple[str, str], list[str]] = {}
    for name in names:
        found, right = gradients.found[name], predicted[name]
        what = _swapped(gradients, predicted, name) or _multiple(gradients, name, found, right)
        if not what and isinstance(gradients, Evidence) and shares is not None:
            what = _of_a_known_cell(gradients, name, found, right, shares)
        what = what or _clipped(gradients, name, found, right)
        if what:
            told.setdefault(what, []).append(name)
    first_alone, zero = ([what for what in told if what[0] == key] for key in ("= for +=", "zero"))
    if first_alone and zero and shares is not None:  # of what multiplies an h_0 of 0, the first step's share is 0
        told[first_alone[0]] += [name for name in told[zero[0]] if name in shares and not shares[name][0].any()]
        told[zero[0]] = [name for name in told[zero[0]] if name not in told[first_alone[0]]]
    for (key, said), arrays in told.items():
        if not arrays:
            continue
        yield Reason(key, said, "", (), tuple(name for name in names if name in arrays))


def _swapped(gradients: Gradients, predicted: Mapping[str, Array], name: str) -> tuple[str, str] | None:
    for other, array in gradients.found.items():
        if other == name or array.shape != gradients.found[name].shape:
            continue
        if gradients.agree(name, gradients.found[name], predicted[other]):
            return "returned in another's place", f"what is returned here is <{other}>"
    return None


def _of_a_known_cell(
    evidence: Evidence, name: str, found: Array, right: Array, shares: Mapping[str, Array]
) -> tuple[str, str] | None:
    if name in PARAMETERS:
        what = _steps_summed(evidence, name, found, shares[name]) or _samples_summed(evidence, name, found)
        return what or _gates_moved(evidence, name, found, right)
    return _steps_moved(evidence, name, found, right) if name == "x" and evidence.sequence else None


def _multiple(gradients: Gradients, name: str, found: Array, right: Array) -> tuple[str, str] | None:
    if not np.abs(found).max() > gradients.tolerance * np.abs(gradients.exact[name]).max():
        return "zero", "is zero: nothing is computed or added up here"
    if not right.any():
        return None
    k = float((found * right).sum() / (right * right).sum())
    if not gradients.agree(name, found, k * right):
        return None
    T, B = gradients.T, gradients.B
    known = {
        -1.0: "has the wrong sign",
        2.0: "is twice what it should be",
        1 / B: "is divided by the number of samples",
    }
    if gradients.sequence:
        known |= {1 / T: "is divided by the number of steps", 1 / (B * T): "is divided by samples times steps"}
    for value, said in known.items():
        if abs(k - value) <= 1e-6 * abs(value):
            return said, f"{said} and otherwise right"
    return "times a constant", f"is {k:.6g} times what it should be"


def _steps_summed(evidence: Evidence, name: str, found: Array, shares: Array) -> tuple[str, str] | None:
    """Some steps' shares missing in a sum over steps, or counted otherwise than once."""
    T = evidence.T
    if not evidence.sequence or T < 2:
        return None
    weights = _weights(evidence, name, found[0], shares)
    if weights is None:
        return None
    there = [t + 1 for t in range(T) if abs(weights[t]) > 1e-6]
    ones = all(abs(weights[t - 1] - 1) <= 1e-6 for t in there)
    if ones and there == [1]:
        return "= for +=", "has the first step's share alone: it is set with = in every step where += has to add up"
    if ones and there == [T]:
        return "only the last step", "has the last step's share alone; (1') sums over all steps"
    if ones:
        missing = [t for t in range(1, T + 1) if t not in there]
        return "steps missing", f"lacks the share of {_steps(missing)}; (1') sums over all steps"
    shown = ", ".join(f"{weight:.4g}" for weight in weights)
    return "steps weighted", f"has the steps' shares with the weights {shown}; (1') sums them as they are"


def _samples_summed(evidence: Evidence, name: str, found: Array) -> tuple[str, str] | None:
    """One sample's share where the sum over samples belongs."""
    if evidence.B < 2:
        return None
    for sample in range(evidence.B):
        only = np.arange(evidence.B) == sample
        kept = replace(evidence, dh=evidence.dh * only, dc=evidence.dc * only)
        if evidence.agree(name, found, kept.predict(evidence.cell.plan)[name]):
            return "one sample", "has one sample's share alone; (1') sums over samples"
    return None


def _gates_moved(evidence: Evidence, name: str, found: Array, right: Array) -> tuple[str, str] | None:
    """The gates' blocks in another order."""
    gates = evidence.cell.gates
    places = []
    for k, _ in enumerate(gates):
        places.append([j for j, _ in enumerate(gates) if evidence.agree(name, found[:, k], right[:, j])])
    if all(len(there) == 1 for there in places) and [there[0] for there in places] != list(range(len(gates))):
        moved = [(gate, gates[there[0]]) for gate, there in zip(gates, places, strict=True) if gates[there[0]] != gate]
        shown = ", ".join(f"that of {there} stands where that of {gate} belongs" for gate, there in moved)
        return "gates moved", f"has the parts of the gates in each other's places: {shown}"
    zero = [gate for k, gate in enumerate(gates) if not np.abs(found[:, k]).max() > 0]
    rest = [k for k, gate in enumerate(gates) if gate not in zero]
    if zero and evidence.agree(name, found[:, rest], right[:, rest]):
        return f"zero for {' '.join(zero)}", f"is zero in the part of {', '.join(zero)}"
    return None


def _steps_moved(evidence: Evidence, name: str, found: Array, right: Array) -> tuple[str, str] | None:
    if evidence.agree(name, found, right[::-1]):
        return "steps reversed", "has the steps in the reversed order"
    if evidence.agree(name, found[:-1], right[1:]):
        return "steps shifted", "has at each step what belongs to the step after"
    if evidence.agree(name, found[1:], right[:-1]):
        return "steps shifted", "has at each step what belongs to the step before"
    return None


def _clipped(gradients: Gradients, name: str, found: Array, right: Array) -> tuple[str, str] | None:
    limit = float(np.abs(found).max())
    clipped = np.clip(right, -limit, limit)
    if np.count_nonzero(clipped != right) > 1 and gradients.agree(name, found, clipped):
        return "clipped", f"is right but clipped at {limit:.6g}; clip after the check, not inside backward"
    return None


def _weights(evidence: Evidence, name: str, found: Array, shares: Array) -> Array | None:
    """w with found = sum_t w_t shares_t, to rounding; None where there is none."""
    columns = shares.reshape(len(shares), -1).T
    weights = np.linalg.lstsq(columns, found.reshape(-1), rcond=None)[0]
    return weights if evidence.agree(name, (columns @ weights).reshape(found.shape), found) else None


# --------------------------------------------------------------------------------------------------------- location


def recover_da(evidence: Evidence, source: str = "") -> Array | None:
    """The learner's da, (T, G, H, B), from dW = sum da x_t^T or dx_t = W^T da; None where neither gives it.

    Both are linear in da, and with enough features there is one da that fits, if the product itself is right.  Where
    the two differ, one of the products is wrong, and the other's da is that of which db is the sum.
    source  "W" or "x": that gradient alone
    """
    from_W = _da_from_W(evidence) if source != "x" else None
    from_x = _da_from_x(evidence) if source != "W" else None
    if from_W is None or from_x is None:
        return from_x if from_W is None else from_W
    candidates = [from_x, from_W]
    fitting = [da for da in candidates if _sums_to_db(evidence, da)] or candidates
    exact = true_da(evidence)
    limit = 1e3 * evidence.tolerance * np.abs(exact).max()
    return next((da for da in fitting if np.abs(da - exact).max() <= limit), fitting[0])


def _sums_to_db(evidence: Evidence, da: Array) -> bool:
    total = da.sum(axis=-1)
    total = total.sum(axis=0, keepdims=True) if evidence.sequence else total
    return "b" in evidence.found and evidence.agree("b", evidence.found["b"], total)


def _da_from_W(evidence: Evidence) -> Array | None:
    if "W" not in evidence.found:
        return None
    found, x = evidence.found["W"], evidence.values.arrays["x"]
    N, G, H, D = found.shape
    T, _, B = x.shape
    X = x.transpose(1, 0, 2).reshape(1, D, T * B) if evidence.sequence else x  # (N, D, columns)
    if X.shape[2] >= D:
        return None
    rows = found.reshape(N, G * H, D)
    da = rows @ np.linalg.pinv(X.swapaxes(1, 2))
    if not evidence.agree("W", rows, da @ X.swapaxes(1, 2)):
        return None
    if not evidence.sequence:
        return da.reshape(T, G, H, B)
    return da.reshape(G, H, T, B).transpose(2, 0, 1, 3)


def _da_from_x(evidence: Evidence) -> Array | None:
    if "x" not in evidence.found:
        return None
    G, H, D = evidence.parameters["W"].shape
    if G * H >= D:
        return None
    W = evidence.parameters["W"].reshape(G * H, D)
    found = evidence.found["x"]
    da = np.linalg.pinv(W.T) @ found
    if not evidence.agree("x", found, W.T @ da):
        return None
    return da.reshape(len(found), G, H, -1)


def locate(evidence: Evidence, name: str) -> Place:
    """Where the gradient `name` is wrong."""
    found, exact = evidence.found[name], evidence.exact[name]
    gates: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    if name in PARAMETERS:
        gates = _gates_where(evidence, name, found, exact)
    if name in ("W", "x"):
        da = recover_da(evidence, name)
        if da is not None:
            return _place_of_da(evidence, name, da)
    if name == "x" or not evidence.sequence:
        steps = tuple(t + 1 for t in range(len(found)) if not evidence.agree(name, found[t], exact[t]))
    elif name == "U":
        return _place_of_operand(evidence, gates)
    return Place(name, gates, steps)


def _gates_where(evidence: Evidence, name: str, found: Array, exact: Array) -> tuple[str, ...]:
    return tuple(
        gate for k, gate in enumerate(evidence.cell.gates) if not evidence.agree(name, found[:, k], exact[:, k])
    )


def true_da(evidence: Evidence) -> Array:
    """da (T, G, H, B) of the right plan."""
    return evidence.predict(evidence.cell.plan)["da"]


def _place_of_da(evidence: Evidence, name: str, da: Array) -> Place:
    exact = true_da(evidence)
    wrong = np.abs(da - exact).max(axis=(2, 3)) > 1e3 * evidence.tolerance * np.abs(exact).max()  # (T, G)
    gates = tuple(gate for k, gate in enumerate(evidence.cell.gates) if wrong[:, k].any())
    return Place(name, gates, tuple(int(t) + 1 for t in np.flatnonzero(wrong.any(axis=1))), "da")


def _place_of_operand(evidence: Evidence, gates: tuple[str, ...]) -> Place:
    """The steps in which dU multiplies the learner's own da with something other than h_{t-1}.

    dU = sum_t da_t q_t^T is linear in q, and with fewer samples than rows there is one q that fits.
    """
    da = recover_da(evidence)
    da = true_da(evidence) if da is None else da
    T, G, H, B = da.shape
    columns = da.transpose(1, 2, 0, 3).reshape(G * H, T * B)
    rows = evidence.found["U"].reshape(G * H, H)
    if T * B >= G * H or any(outer.right != "h_prev" for outer in evidence.cell.plan.outer["U"].values()):
        return Place("U", gates, ())
    q = np.linalg.pinv(columns) @ rows  # (T B, H)
    if not evidence.agree("U", rows, columns @ q):
        return Place("U", gates, ())
    right = evidence.values.arrays["h_prev"].transpose(0, 2, 1)  # (T, B, H)
    wrong = np.abs(q.reshape(T, B, H) - right).max(axis=(1, 2)) > 1e-6
    if not wrong.any():
        return Place("U", gates, (), "da")
    return Place("U", gates, tuple(int(t) + 1 for t in np.flatnonzero(wrong)), "operand")


def _steps(steps: Sequence[int]) -> str:
    """ "step 1", "steps 1 and 2", "steps 1 to 3"."""
    return ("step " if len(steps) == 1 else "steps ") + shown_range(steps)


def shown_range(steps: Sequence[int]) -> str:
    """ "1", "1 and 2", "1 to 3", "1, 3 and 4"."""
    if len(steps) > 2 and list(steps) == list(range(steps[0], steps[-1] + 1)):
        return f"{steps[0]} to {steps[-1]}"
    return listed([str(step) for step in steps])
