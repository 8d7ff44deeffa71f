"""The sentences of a cell's report, in the learner's own names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from lstm_np.gradcheck.own_cell import user_code
from lstm_np.gradcheck.own_cell.arrangement import Arrangement, Sizes, gate_of
from lstm_np.gradcheck.own_cell.corrected import PRODUCTS, Corrected
from lstm_np.gradcheck.own_cell.diagnosis import (
    Diagnosis,
    Evidence,
    Place,
    Reason,
    recover_da,
    shown_range,
    true_da,
)
from lstm_np.gradcheck.own_cell.equations import Array, Cell
from lstm_np.gradcheck.own_cell.mistakes import GATE_NAMES
from lstm_np.gradcheck.own_cell.names import Value
from lstm_np.gradcheck.own_cell.report import CellReport, Explanation, GradientLine, listed
from lstm_np.gradcheck.own_cell.subject import Match, Subject

_LSTM = ("LSTM", "lstm_np/cells/lstm.py")
STANDARD: dict[int | str, tuple[str, str]] = {
    "c": _LSTM,
    4: _LSTM,
    5: _LSTM,
    3: ("GRU", "lstm_np/cells/gru.py"),
    1: ("plain RNN", "lstm_np/cells/rnn.py"),
}


class Wording:
    """The names and words of one check: what the learner calls things, and how arrays are laid out."""

    def __init__(self, subject: Subject, match: Match, sizes: Sizes, method: str, why_not_complex: str) -> None:
        self.subject, self.match, self.sizes = subject, match, sizes
        self.method, self.why_not_complex = method, why_not_complex
        self.arrangement: Arrangement = match.arrangement
        self.cell: Cell | None = match.order.cell if match.order else None
        self.corrected = Corrected(subject, match)

    # -------------------------------------------------------------------------------------------------------- the head

    def subject_line(self) -> str:
        """The functions and their file."""
        functions = f"{self.subject.title(self.subject.forward)}, {self.subject.title(self.subject.backward)}"
        file = user_code.file_of(self.subject.forward)
        return f"{functions} ({file.replace(chr(92), '/').rpartition('/')[2]})" if file else functions

    def forward(self) -> str:
        """Which cell forward is."""
        order = self.match.order
        if order is None:
            title, file = STANDARD["c" if self.arrangement.has("c") else self.arrangement.G]
            return (
                f"not the standard {title}: no order of the gates in {file} gives what it returns; checked against its "
                "own derivative"
            )
        cell = order.cell
        text = f"the {cell.title}, lstm_np/{cell.file}"
        if cell.variant:
            text = f"not the standard {cell.title} but one with {cell.variant}; checked against its own derivative"
        if cell.note:
            text += f"; {cell.note}"
        if len(cell.gates) > 1:
            named = [order.names[place] for place in sorted(order.places)] if order.names else []
            if named:
                pairs = zip(named, order.shown, strict=True)
                text += f"; its gates {', '.join(f'{name} = {gate}' for name, gate in pairs)}"
            else:
                text += f"; its gates stand as {', '.join(order.shown)}"
            if order.interleaved:
                text += ", those of a unit together"
        if self.match.swapped:
            text += "; it returns c before h"
        return text

    def arrays(self) -> str:
        """How the arrays are laid out."""
        arrangement = self.arrangement
        sample = {"rows": "a row is a sample", "columns": "a column is a sample", "single": "one sample, as vectors"}
        values = [*arrangement.values, *arrangement.entries]
        by_shape: dict[tuple[str, str], list[str]] = {}
        for value in values:
            if value.kind not in ("parameters", "state", "Wy", "by"):
                together = value.kind if value.gate else value.name
                by_shape.setdefault((together, self._letters(value)), []).append(value.name)
        shown = [f"{', '.join(names)} {letters}" for (_, letters), names in by_shape.items()]
        joint = ""
        if self.match.order and any(value.kind == "WU" for value in values):
            words = {"h": "h", "x": "x", "1": "1 for the bias"}
            joint = f"; its inputs stand as {', '.join(words[part] for part in self.match.order.joint)}"
        return f"{sample[arrangement.layout]}: {'; '.join(shown)}{joint}"

    def _letters(self, value: Value) -> str:
        """A shape in letters: (D, 4H)."""
        sizes = Sizes(2, 3, 5, 7)  # whose products and sums can be told apart
        G = self.arrangement.G
        letters = {G * 7: f"{G}H", 2: "T", 3: "B", 5: "D", 7: "H", 12: "D+H", 13: "D+H+1", 1: "1"}
        if value.kind == "other":
            return f"({', '.join(self.arrangement.shapes[value.name])})"
        shape = self.arrangement.shape(value, sizes)
        return f"({', '.join(letters[extent] for extent in shape)}{',' if len(shape) == 1 else ''})"

    def checked(self, limit: float) -> str:
        """The sizes of the check and what the gradients were compared with."""
        s = self.sizes
        the = "the " if self.method == "complex step" else ""
        text = f"B={s.B} T={s.T} D={s.D} H={s.H}, against {the}{self.method}"
        text += f" ({self.why_not_complex})" if self.why_not_complex else ""
        return f"{text}; right is an error of at most {limit:.0e} of the largest entry"

    # ------------------------------------------------------------------------------------------------------ gradients

    def gradient(self, name: str) -> tuple[str, ...]:
        """The learner's gradients that are part of "W", "h" ..., or the one of an argument."""
        kinds = {"W": ("W", "WU"), "U": ("U", "WU"), "b": ("b",), "b2": ("b2",)}.get(name, (name,))
        if name == "b" and self.arrangement.extra:
            kinds = ("WU",)
        values = self.subject.wanted(self.arrangement)
        found = tuple(f"d{value.name}" for value in values if value.kind in kinds)
        return found or (f"d{name}",)

    def gradients(self, names: Sequence[str]) -> tuple[str, ...]:
        """The gradients for several kinds, each once."""
        return tuple(dict.fromkeys(one for name in names for one in self.gradient(name)))

    def where(self, name: str, diagnosis: Diagnosis, evidence: Evidence) -> str:
        """Where the gradient of the learner's argument `name` is wrong."""
        assert self.match.order is not None
        value, kinds = self._kinds(name)
        places = self._places_of(name, diagnosis)
        own = gate_of(self.match.order, value)
        parts = []
        if value.kind == "WU" and 0 < len(places) < len(kinds):
            of = {"U": "h", "W": "x", "b": "the bias"}
            parts.append(f"the part of {' and '.join(of[place.array] for place in places)}")
        gates = [gate for gate in evidence.cell.gates if any(gate in place.gates for place in places)]
        if value.kind in ("W", "U", "WU", "b", "b2") and not own and len(evidence.cell.gates) > 1:
            axis = "entries" if value.kind in ("b", "b2") else "columns" if self.arrangement.inward else "rows"
            named = f"{gates[0]} ({GATE_NAMES[gates[0]]})" if len(gates) == 1 else listed(gates or ("",))
            parts.append("every gate" if len(gates) == len(evidence.cell.gates) else f"the {axis} of {named}")
        steps = sorted({step for place in places for step in place.steps})
        parts += self._steps(steps)
        return ", ".join(parts)

    def _kinds(self, name: str) -> tuple[Value, tuple[str, ...]]:
        """The learner's argument of that name, and of what it is made."""
        value = next(value for value in self.subject.wanted(self.arrangement) if value.name == name)
        joint = ("U", "W", "b") if self.arrangement.extra else ("U", "W")
        return value, joint if value.kind == "WU" else (value.kind,)

    def _places_of(self, name: str, diagnosis: Diagnosis) -> list[Place]:
        """Where the gradient of one argument is wrong."""
        value, kinds = self._kinds(name)
        places = [place for place in diagnosis.places if place.array in kinds]
        own = gate_of(self.match.order, value) if self.match.order else ""
        return [place for place in places if own in place.gates] if own else places

    def wrong_kinds(self, name: str, diagnosis: Diagnosis) -> tuple[str, ...]:
        """What of the gradient of one argument is wrong, as `GradientLine.kinds` has it."""
        if self.match.order is None:
            return self._kinds(name)[1]
        return tuple(dict.fromkeys(place.array for place in self._places_of(name, diagnosis)))

    def where_unknown(
        self, place: Place, found: Mapping[str, Array], exact: Mapping[str, Array], tolerance: float
    ) -> str:
        """Where a gradient is wrong, of a cell whose equations are not known: blocks and steps."""
        value = next(value for value in self.subject.wanted(self.arrangement) if value.name == place.array)
        parts = []
        G = self.arrangement.G
        if value.kind in ("W", "U", "WU", "b", "b2") and not value.gate and G > 1:
            axis = 2 if self.arrangement.inward and value.kind not in ("b", "b2") else 1
            difference = np.abs(found[place.array] - exact[place.array])
            if value.kind in ("b", "b2"):
                difference = difference.reshape(len(difference), -1)
            blocks = np.split(difference, G, axis=axis)
            limit = tolerance * np.abs(exact[place.array]).max()
            wrong = [k + 1 for k, block in enumerate(blocks) if block.max() > limit]
            parts.append("every block" if len(wrong) == G else f"block {shown_range(wrong)} of {G}")
        return ", ".join([*parts, *self._steps(list(place.steps))])

    def _steps(self, steps: Sequence[int]) -> list[str]:
        """ "every step but the first", as the only word of a list; [] for no steps."""
        T, there = self.sizes.T, list(steps)
        if not steps or T == 1:
            return []
        if there == list(range(1, T + 1)):
            return ["every step"]
        if T > 2 and there == list(range(2, T + 1)):
            return ["every step but the first"]
        if T > 2 and there == list(range(1, T)):
            return ["every step but the last"]
        tried = "" if self.arrangement.sequence else " tried"
        return [f"step{'s' if len(there) > 1 else ''} {shown_range(there)} of the {T}{tried}"]

    # --------------------------------------------------------------------------------------------------------- reasons

    def told(self, reason: Reason, wrong: Sequence[str]) -> Explanation:
        """A reason in the learner's names, with the line to correct.  `wrong` are the gradients that are."""
        gradients = tuple(name for name in self.gradients(reason.arrays) if name in wrong)
        text = re.sub(r"<(\w+)>", lambda match: self._one(match[1]), reason.said)
        if not reason.target:
            text = f"{listed(gradients)}: each {text}" if len(gradients) > 1 else f"{gradients[0]} {text}"
        elif reason.target in ("W", "U", "b", "b2") and len(self.gradient(reason.target)) == 1:
            text = re.sub(rf"\bd{reason.target}\b", self._one(reason.target), text)
        equation, corrected = self.corrected.lines(reason.target, reason.gates)
        return Explanation(reason.key, f"{text}.", gradients, equation, corrected, reason.also)

    def told_shape(self, names: tuple[str, ...], key: str, said: str) -> Explanation:
        """What is wrong with the shape of these gradients, with the line to correct where a product or sum is wrong."""
        value = self._kinds(names[0][1:])[0]
        gates = (gate_of(self.match.order, value),) if value.gate and self.match.order else ()
        target = {"WU": "U"}.get(value.kind, value.kind) if key in ("transposed", "not summed") else ""
        equation, corrected = self.corrected.lines(target, gates)
        verb = ("are " if len(names) > 1 else "is ") if key == "not summed" else "each " if len(names) > 1 else ""
        return Explanation(key, f"{listed(names)} {verb}{said}.", names, equation, corrected)

    def _one(self, name: str) -> str:
        return ", ".join(self.gradient(name))

    # ---------------------------------------------------------------------------------------------------------- places

    def places(self, diagnosis: Diagnosis, evidence: Evidence | None) -> list[str]:
        """Sentences that say where the gradients are wrong that no reason explains."""
        if evidence is None:
            return []
        unexplained = [place for place in diagnosis.places if place.array in diagnosis.unexplained]
        sentences = []
        shows_da = bool({"W", "x"} & {place.array for place in unexplained})
        wrong = self.wrong_da(evidence) if shows_da else {}
        if wrong:
            sentences.append(self._da_sentence(wrong, evidence))
        elif any(place.source == "operand" for place in unexplained):
            place = next(place for place in unexplained if place.source == "operand")
            sentences.append(
                f"da is right, but in {self._one('U')} it is not multiplied with h_{{t-1}} at "
                f"{self._steps(place.steps)[0]}."
            )
        sentences += self._look(wrong, [place.array for place in unexplained], evidence)
        return sentences

    def wrong_da(self, evidence: Evidence) -> dict[int, tuple[str, ...]]:
        """For each step (counted from 1) with a wrong da, the gates where it is wrong."""
        da = recover_da(evidence)
        if da is None:
            return {}
        exact = true_da(evidence)
        wrong = np.abs(da - exact).max(axis=(2, 3)) > 1e3 * evidence.tolerance * np.abs(exact).max()
        return {
            int(t) + 1: tuple(gate for k, gate in enumerate(evidence.cell.gates) if wrong[t, k])
            for t in np.flatnonzero(wrong.any(axis=1))
        }

    def _da_sentence(self, wrong: Mapping[int, tuple[str, ...]], evidence: Evidence) -> str:
        gates = [gate for gate in evidence.cell.gates if any(gate in there for there in wrong.values())]
        what = f"{listed([f'da_{gate}' for gate in gates])}, what reaches the pre-activation"
        what += f" of the {GATE_NAMES[gates[0]]}," if len(gates) == 1 else "s of these gates,"
        if 1 < len(gates) == len(evidence.cell.gates):
            what = "da, what reaches the pre-activations, of every gate"
        verb = "is" if len(gates) == 1 or what.startswith("da,") else "are"
        steps = sorted(wrong)
        text = f"{what} {verb} wrong at {self._steps(steps)[0]}"
        if evidence.sequence and steps[-1] < evidence.T:
            text += f", first (counted from the end, where backward begins) at step {steps[-1]}"
        return f"{text}."

    def _look(self, wrong: Mapping[int, tuple[str, ...]], arrays: Sequence[str], evidence: Evidence) -> list[str]:
        """The lines in which the mistake must be, from what is wrong first and what is right."""
        plan = evidence.cell.plan
        if wrong:
            last = max(wrong)
            gates = set(wrong[last])
            if evidence.sequence and last < evidence.T:
                carried = "dh_{t-1}" if "o" in gates or "c" not in evidence.cell.state else "dc_{t-1}"
                return [
                    f"Step {last + 1} is right: look at what it hands to step {last}, {carried}, and how it is added."
                ]
            through_dc = {"i", "f", "g"}
            if evidence.cell.name == "lstm" and through_dc <= gates:
                line = plan.line("dc")
                more = "" if gates == through_dc else ", or at dh_t, from which every gate's follows"
                return [f"Look at (5') {line.text() if line else ''}, from which those of i, f and g follow{more}."]
            targets = [target for gate in evidence.cell.gates if gate in gates for target in (f"d{gate}", f"da_{gate}")]
            found = [line for target in targets for line in [plan.line(target)] if line]
            return [f"Look at {' and '.join(f'({line.number}) {line.text()}' for line in found)}."] if found else []
        product = {**PRODUCTS, "x": PRODUCTS["dx"], "h": PRODUCTS["dh_prev"]}
        lines = [f"(1') {product[array]}" for array in arrays if array in product]
        line = plan.line("dc_prev")
        lines += [f"({line.number}) {line.text()}"] if "c" in arrays and line else []
        if not lines or recover_da(evidence) is None:
            return []
        return [f"da is right: look at {listed(lines)}."]


def make_report(
    wording: Wording,
    lines: tuple[GradientLine, ...],
    limit: float,
    diagnosis: Diagnosis,
    evidence: Evidence | None,
    by_shape: Mapping[str, tuple[str, str]],
    notes: tuple[str, ...],
) -> CellReport:
    """The report.  `by_shape` has key and sentence of what is wrong with the shape of a learner's gradient."""
    wrong = [line.name for line in lines if not line.ok]
    reasons = [wording.told_shape(names, key, said) for names, (key, said) in _together(by_shape).items()]
    reasons += [wording.told(reason, wrong) for reason in diagnosis.reasons]
    shaped = {f"d{name}" for name in by_shape}
    unexplained = tuple(
        name for name in wording.gradients(diagnosis.unexplained) if name in wrong and name not in shaped
    )
    order = wording.match.order
    return CellReport(
        subject=wording.subject_line(),
        forward=wording.forward(),
        standard=order is not None and not order.cell.variant,
        arrays=wording.arrays(),
        method=wording.method,
        checked=wording.checked(limit),
        limit=limit,
        gradients=lines,
        reasons=tuple(reasons),
        unexplained=unexplained,
        places=tuple(wording.places(diagnosis, evidence)) if unexplained else (),
        notes=notes,
        wrong_da=tuple(sorted(wording.wrong_da(evidence).items())) if evidence else (),
    )


def _together(by_shape: Mapping[str, tuple[str, str]]) -> dict[tuple[str, ...], tuple[str, str]]:
    """One entry for all gradients about which the same is to be said."""
    names: dict[tuple[str, str], list[str]] = {}
    for name, told in by_shape.items():
        names.setdefault(told, []).append(f"d{name}")
    return {tuple(there): told for told, there in names.items()}
