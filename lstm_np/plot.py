"""Pictures of a trace: maps of gates, the flow of gradients over time, saturation.

    trace = lstm_np.trace(model, x, labels)
    lstm_np.plot.gate_maps(trace).savefig("gates.png")

Each function gives a matplotlib Figure, which a notebook shows after `%matplotlib inline`.  They need the extra `plot`;
without it they raise MissingPackageError (an ImportError), with the line that installs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstm_np.display.maps import Line, Map, draw_lines, draw_maps, draw_points, limits_of
from lstm_np.trace import OPEN, SHUT, Trace, TraceError

UNITS = 24  # of a map where nobody says which


def gate_maps(
    trace: Trace,
    names: Sequence[str] | None = None,
    *,
    sample: int = 0,
    layer: int = 0,
    reverse: bool = False,
    units: Sequence[int] | None = None,
    gradients: bool = False,
    title: str = "",
) -> Any:
    """A map for each value: time to the right, units down, the same ones in all of them.

    names      of values; None: all gates that the cell names, and the parts of its state
    units      which, from the top; None: the 24 whose first state part, c or h, changes most
    gradients  the gradients of the values in place of the values

    Raises TraceError for a value, layer or unit that there is not, or gradients that were not recorded; IndexError for
    a sample.
    """
    where: dict[str, Any] = {"layer": layer, "reverse": reverse}
    if names is None:
        wanted = dict.fromkeys((*trace.gates, *reversed(trace.states)))
        names = [name for name in wanted if name in trace.values]
    chosen = _units(trace, sample, where, units)
    maps = []
    for name in names:
        array = (trace.gradient if gradients else trace.value)(name, **where)[sample][:, chosen]
        limits = (-float(np.abs(array).max() or 1), float(np.abs(array).max() or 1)) if gradients else limits_of(array)
        maps.append(Map(f"gradient of {name}" if gradients else name, array, chosen, *limits))
    return draw_maps(maps, step="step", rows="unit", title=title or _about(trace, layer, reverse))


def gradient_flow(
    traces: Trace | Mapping[str, Trace],
    *,
    sample: int | None = None,
    layer: int = 0,
    reverse: bool = False,
    direct: bool = True,
    title: str = "",
) -> Any:
    """The norm of the gradient with respect to each part of the state over time, on a logarithmic axis.

    traces   one, or several by name, to compare cells (with and without gates, say)
    sample   a number; None: the norm over all samples
    direct   where the cell has c and f: also what would be left of the last step's gradient of c on the direct path
             alone, multiplied with the forget gate of every later step

    Raises TraceError where no gradients were recorded, or for a layer that there is not; IndexError for a sample.
    """
    named = {"": traces} if isinstance(traces, Trace) else dict(traces)
    samples = slice(None) if sample is None else [sample]
    lines = []
    for color, (name, trace) in enumerate(named.items()):
        where: dict[str, Any] = {"layer": layer, "reverse": reverse}
        for dash, part in enumerate(trace.states):
            gradient = trace.state_gradient(part, **where)[samples]
            gradient = gradient[:, :-1] if reverse else gradient[:, 1:]  # after each step
            label = f"{name} {part}".strip()
            lines.append(Line(label, _norms(gradient), color if len(named) > 1 else dash, dash))
        if direct and {"c", "f"} <= set(trace.values):
            path = direct_path(trace, layer=layer, reverse=reverse)[samples]
            lines.append(Line(f"{name} c, direct path".strip(), _norms(path), color if len(named) > 1 else 2, 2))
    first = next(iter(named.values()))
    of = "of the state, norm over units" + (" and samples" if sample is None and first.samples > 1 else "")
    return draw_lines(lines, step="step", what=f"gradient {of}", title=title or _about(first, layer, reverse))


def direct_path(trace: Trace, *, layer: int = 0, reverse: bool = False) -> np.ndarray:
    """(B, T, H): the gradient of c after the last step that is read, times the forget gates back from there.

    That is what reaches c after step t along the cell state alone; the rest of its gradient comes through the gates and
    h.  Raises TraceError for a cell without c and f, or where no gradients were recorded.
    """
    where: dict[str, Any] = {"layer": layer, "reverse": reverse}
    f, dc = trace.value("f", **where), trace.gradient("c", **where)
    f, dc = (f[:, ::-1], dc[:, ::-1]) if reverse else (f, dc)
    later = np.concatenate([f[:, 1:], np.ones_like(f[:, :1])], axis=1)[:, ::-1]  # of the steps after t
    path = dc[:, -1:] * np.cumprod(later, axis=1)[:, ::-1]
    return path[:, ::-1] if reverse else path


def saturation(trace: Trace, *, layer: int = 0, reverse: bool = False, title: str = "") -> Any:
    """A point for each unit of each gate within 0 ... 1: how often it is open, above 0.9, and shut, below 0.1.

    On the diagonal a gate is always one or the other; near the lower left corner it is neither.  After Karpathy,
    Johnson and Li, "Visualizing and understanding recurrent networks", arXiv:1506.02078.
    Raises TraceError where no gate lies within 0 ... 1.
    """
    panels = []
    for name in trace.gates:
        array = trace.value(name, layer=layer, reverse=reverse) if name in trace.values else np.full((1, 1, 1), -1.0)
        if array.min() >= 0 and array.max() <= 1:
            opened, shut = ((array > OPEN).mean(axis=(0, 1)), (array < SHUT).mean(axis=(0, 1)))
            panels.append((name, opened, shut))
    if not panels:
        raise TraceError(f"no gate of a {trace.about['cell']} cell lies within 0 ... 1, so none saturates there")
    return draw_points(
        panels, across=f"share above {OPEN:g}", up=f"share below {SHUT:g}", title=title or _about(trace, layer, reverse)
    )


def _units(trace: Trace, sample: int, where: Mapping[str, Any], units: Sequence[int] | None) -> list[int]:
    if units is None:
        part = "c" if "c" in trace.states else trace.states[0]
        state = trace.state(part, **where)[sample]
        return np.argsort(state.min(axis=0) - state.max(axis=0), kind="stable")[:UNITS].tolist()
    for unit in units:
        if not 0 <= unit < trace.units:
            raise TraceError(f"units are 0 ... {trace.units - 1}, found {unit}")
    return list(units)


def _norms(gradient: np.ndarray) -> np.ndarray:
    """(T,) from (B, T, H)."""
    return np.linalg.norm(gradient.astype(float), axis=(0, 2))


def _about(trace: Trace, layer: int, reverse: bool) -> str:
    return f"{trace.about['cell']}, layer {layer}" + (", backwards" if reverse else "")
