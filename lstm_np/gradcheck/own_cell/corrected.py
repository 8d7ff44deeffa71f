"""A line of the derivatives as it should be: as an equation with its number, and in NumPy in the learner's names."""

from __future__ import annotations

from collections.abc import Sequence

from lstm_np.gradcheck.own_cell.arrangement import gate_of
from lstm_np.gradcheck.own_cell.equations import Cell
from lstm_np.gradcheck.own_cell.names import Value, state_kind
from lstm_np.gradcheck.own_cell.subject import Match, Subject

# equation (1')'s lines, by the target of a mistake
PRODUCTS = {
    "dh_prev": "dh_{t-1} = U^T da",
    "dx": "dx_t = W^T da",
    "W": "dW = sum_t da x_t^T",
    "U": "dU = sum_t da h_{t-1}^T",
    "b": "db = sum_t da",
    "b2": "db = sum_t da",
}


class Corrected:
    """Writes lines for one check's arrangement and names."""

    def __init__(self, subject: Subject, match: Match) -> None:
        self.subject, self.match, self.arrangement = subject, match, match.arrangement
        self.cell: Cell | None = match.order.cell if match.order else None
        self.names = self._numpy_names()

    def lines(self, target: str, gates: Sequence[str]) -> tuple[str, str]:
        """The equation and the line of NumPy of a mistake's target; "" where there is no one line."""
        if self.cell is None or not target:
            return "", ""
        if target == "da":
            return "", self._together()
        if target.startswith("loop:"):
            return self._loop(target)
        line, gate = self.cell.plan.line(target), gates[0] if len(gates) == 1 else ""
        if line is not None and target != "dh_prev":
            more = f", and the same for {', '.join(gates[1:])}" if target.startswith("da_") and len(gates) > 1 else ""
            return f"({line.number})  {line.text()}{more}", line.numpy(self.names)
        if target not in PRODUCTS:
            return "", ""
        equation = PRODUCTS[target] if line is None else f"{line.text()} + U^T da"
        return f"(1')  {equation}", self._product(target, gate)

    def _loop(self, target: str) -> tuple[str, str]:
        if target == "loop:c":
            return "(4')  dc_{t-1} = dc_t * f", "dc = dc_prev  # what step t + 1 handed back"
        if target == "loop:values":
            return "", ""
        upstream = next((value.name for value in self.subject.upstream if value.kind == "dh"), "dh")
        index = ", ".join([":"] * self.arrangement.time + ["t"])
        return f"(1')  {PRODUCTS['dh_prev']}", f"dh_t = {upstream}[{index}] + dh_prev  # what step t + 1 handed back"

    def _product(self, target: str, gate: str) -> str:
        """One of (1')'s lines in NumPy, for the layout at hand."""
        n = self.names
        value = self._matrix({"dh_prev": "U", "dx": "W"}.get(target, target), gate)
        if value is None:
            return ""
        da = f"da_{gate_of(self.match.order, value)}" if value.gate and self.match.order else "da"
        sums = "+=" if self.arrangement.sequence else "="
        if target in ("b", "b2"):
            axis = {"rows": ".sum(axis=0)", "columns": ".sum(axis=1)", "single": ""}[self.arrangement.layout]
            if self.arrangement.bias != "flat":
                axis = axis.replace(")", ", keepdims=True)")
            return f"d{value.name} {sums} {da}{axis}"
        if target in ("W", "U"):
            return f"d{value.name} {sums} {self._outer(da, value)}"
        return f"{n.get(target, target)} = {self._route(da, value, target)}"

    def _matrix(self, kind: str, gate: str) -> Value | None:
        """The learner's matrix or bias of a kind, that of the gate where there is one each."""
        values = self.subject.wanted(self.arrangement)
        fitting = [value for value in values if value.kind in (kind, "WU" if kind in ("W", "U") else kind)]
        if gate and self.match.order and fitting and fitting[0].gate:
            fitting = [value for value in fitting if gate_of(self.match.order, value) == gate]
        return fitting[0] if fitting else None

    def _outer(self, da: str, value: Value) -> str:
        """da times what it reads, summed over samples."""
        q = {"W": self.names["x"], "U": self.names["h_prev"]}.get(value.kind) or self._joint()
        layout, inward = self.arrangement.layout, self.arrangement.inward
        if layout == "single":
            return f"np.outer({q}, {da})" if inward else f"np.outer({da}, {q})"
        if layout == "rows":
            return f"{q}.T @ {da}" if inward else f"{da}.T @ {q}"
        return f"{q} @ {da}.T" if inward else f"{da} @ {q}.T"

    def _joint(self) -> str:
        names = {"h": self.names["h_prev"], "x": self.names["x"]}
        order = self.match.order.joint if self.match.order else ("h", "x")
        inner = ", ".join(names[part] for part in order if part in names)
        axis = ", axis=1" if self.arrangement.layout == "rows" else ""
        return f"np.concatenate(({inner}){axis})"

    def _route(self, da: str, value: Value, target: str) -> str:
        """The matrix transposed, times da; of one gate, where each has its own, as the first term of a sum."""
        layout, inward, M = self.arrangement.layout, self.arrangement.inward, value.name
        if value.kind == "WU" and self.match.order:
            joint = [part for part in self.match.order.joint if part != "1"]
            first = joint[0] == ("h" if target == "dh_prev" else "x")
            width = "H" if joint[0] == "h" else "D"
            part = f":{width}" if first else f"{width}:"
            M = f"{M}[{part}]" if inward else f"{M}[:, {part}]"
        product = {
            ("rows", True): f"{da} @ {M}.T",
            ("rows", False): f"{da} @ {M}",
            ("columns", True): f"{M} @ {da}",
            ("columns", False): f"{M}.T @ {da}",
            ("single", True): f"{M} @ {da}",
            ("single", False): f"{M}.T @ {da}",
        }[layout, inward]
        return f"{product} + ...  # a term for each gate" if value.gate else product

    def _together(self) -> str:
        """The gates' da put together."""
        if self.match.order is None or self.match.order.names:
            return ""
        axis = ", axis=1" if self.arrangement.layout == "rows" else ""
        shown = ", ".join(f"da_{gate}" for gate in self.match.order.shown)
        return f"da = np.concatenate(({shown}){axis})"

    def _numpy_names(self) -> dict[str, str]:
        """What lines of NumPy call each variable: the learner's names where there are some."""
        values = {value.kind: value.name for value in self.arrangement.values}
        upstream = {value.kind: value.name for value in self.subject.upstream}
        results = {kind: name for name in self.subject.result_names if name for kind in [state_kind(name)] if kind}
        names = {"h_prev": "h_prev", "c_prev": "c_prev", "x": "x_t", "h": "h", "c": "c", "dc_next": "dc", "dh": "dh"}
        if self.arrangement.sequence:
            return {**names, "n-h_prev": "(n - h_prev)", "h_prev-n": "(h_prev - n)"}
        names |= {"x": values.get("x", "x"), "h_prev": values.get("h", "h_prev"), "c_prev": values.get("c", "c_prev")}
        names |= {"h": results.get("h", "h"), "c": results.get("c", "c")}
        names |= {"dh": upstream.get("dh", "dh"), "dc_next": upstream.get("dc", "dc")}
        names |= {"n-h_prev": f"(n - {names['h_prev']})", "h_prev-n": f"({names['h_prev']} - n)"}
        gradients = {"dh_prev": f"d{names['h_prev']}", "dc_prev": f"d{names['c_prev']}", "dx": f"d{names['x']}"}
        return names | gradients
