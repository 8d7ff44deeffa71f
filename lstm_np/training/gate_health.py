"""How well the gates of a model do: saturation, dead units, memory, and how much gradient reaches the first step.

Measured on a few sequences with the reference kernel, which keeps every value of the equations by name:

    saturated    share of a gate's values within 5 % of the ends of its range (of a ReLU: share of zeros)
    dead units   whose output stays within 0.001 of 0 at every step of every sequence
    forget gate  its mean f; the cell keeps half of what it holds for ln 2 / -ln f steps, the half-life
    gradient     norm of the loss's gradient with respect to h of the first step and of the last
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lstm_np.kernels.reference import ReferenceKernel
from lstm_np.model import SequenceModel

NEAR_THE_END = 0.05  # of a range of length 1
SEQUENCES = 100  # that are looked at
SILENT = 1e-3


@dataclass(frozen=True)
class LayerHealth:
    """One layer in one direction.

    layer       "layer0" or "layer0_reverse"
    saturated   share of the values of each gate, by name
    dead, units how many units are dead, of how many
    forget      mean of the forget gate; None where the cell has none
    half_life   in time steps; None without a forget gate, infinite where it is 1
    first, last norm of the gradient with respect to h at the first and the last time step
    """

    layer: str
    saturated: dict[str, float]
    dead: int
    units: int
    forget: float | None
    half_life: float | None
    first: float
    last: float

    def line(self) -> str:
        """All of it in one line."""
        gates = ", ".join(f"{name} {share:.0%}" for name, share in self.saturated.items())
        memory = ""
        if self.forget is not None and self.half_life is not None:
            memory = f"; mean f {self.forget:.3f}, half-life {self.half_life:.1f} steps"
        return (
            f"{self.layer}: saturated {gates}; {self.dead} of {self.units} units dead{memory}; "
            f"|dh| {self.first:.1e} at the first step, {self.last:.1e} at the last"
        )

    def plain(self) -> dict[str, Any]:
        """As plain values; an infinite half-life is None."""
        finite = self.half_life is not None and math.isfinite(self.half_life)
        return {**asdict(self), "half_life": self.half_life if finite else None}


def gate_health(model: SequenceModel, x: np.ndarray, labels: np.ndarray) -> list[LayerHealth]:
    """What is measured on sequences x (B, T, D) and their labels (B,), for each layer and direction.

    Raises ValueError for a shape that does not fit.
    """
    copy = model.copy(kernel="reference", backend="numpy")
    seen = []
    for single in copy.recurrent.singles:
        assert isinstance(single.kernel, ReferenceKernel)
        kept = _Keeping(single.kernel.spec, single.backend)
        single.kernel = kept
        seen.append((single.name, single.reverse, kept))
    copy.loss_and_gradients(x, labels)
    return [_measured(name, reverse, kept) for name, reverse, kept in seen]


class _Keeping(ReferenceKernel):
    """The reference kernel; it keeps the values of the last pass, and the gradients of h."""

    def forward(self, *given: Any, **more: Any) -> Any:
        result = super().forward(*given, **{**more, "save": True})
        saved = result[2]
        assert saved is not None  # since save=True
        self.values = saved.values
        return result

    def steps_back(self, *given: Any, **more: Any) -> Any:
        self.gradients: dict[int, np.ndarray] = {}
        for step in super().steps_back(*given, **more):
            self.gradients[step.t] = step.gradients["h"]
            yield step


def _measured(layer: str, reverse: bool, kept: _Keeping) -> LayerHealth:
    cell = kept.spec.cell
    over_time = {name: np.stack([values[name] for values in kept.values]) for name in {*cell.gates, "h"}}  # (T, H, B)
    h = over_time["h"]
    forget = float(over_time["f"].mean()) if "f" in cell.gates else None
    half_life = None
    if forget is not None:
        half_life = math.inf if forget >= 1 else 0.0 if forget <= 0 else math.log(2) / -math.log(forget)
    norms = [float(np.linalg.norm(kept.gradients[t])) for t in (0, len(kept.values) - 1)]
    first, last = reversed(norms) if reverse else norms
    return LayerHealth(
        layer,
        {name: _saturated(over_time[name]) for name in cell.gates},
        int((np.abs(h) < SILENT).all(axis=(0, 2)).sum()),
        h.shape[1],
        forget,
        half_life,
        first,
        last,
    )


def _saturated(values: np.ndarray) -> float:
    """The share at the ends of the range that the values show: 0 ... 1, -1 ... 1, or 0 ... infinity."""
    low, high = float(values.min()), float(values.max())
    if high > 1:  # a ReLU
        return float((values == 0).mean())
    if low < 0:  # tanh
        return float((np.abs(values) > 1 - 2 * NEAR_THE_END).mean())
    return float(((values < NEAR_THE_END) | (values > 1 - NEAR_THE_END)).mean())
