"""Where training diverged: the first value that is not finite, by name.

The training step itself looks at few numbers (`lstm_np.steps`).  When one of them is not finite, what led to it is
computed a second time on the reference kernel, slowly, and every value of the equations is looked at in the order in
which it comes about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np.backends import Backend
from lstm_np.kernels.protocol import Array
from lstm_np.kernels.reference import ReferenceKernel

NAMED = 8  # samples that a message names at most
BLOCKS = ("W", "U", "b", "b_h")  # parameters with a block of rows for each gate


@dataclass(frozen=True)
class NotFinite:
    """What is not finite, in words: `text`, in which {samples} stands where the samples are to be named.

    samples  their places in the batch, from 0; empty where it is no matter of samples
    """

    text: str
    samples: tuple[int, ...] = ()

    def told(self, indices: Sequence[int] | None = None) -> str:
        """In words; `indices` says which sample of the data each one of the batch is, where that is known."""
        known = indices is not None
        numbers = [int(indices[k]) for k in self.samples] if indices is not None else list(self.samples)
        shown, more = ", ".join(map(str, numbers[:NAMED])), len(numbers) - NAMED
        named = f"sample{'s' if len(numbers) > 1 else ''} {shown}" + (f" and {more} more" if more > 0 else "")
        return self.text.format(samples=named + ("" if known else " of the batch"))


def in_arrays(arrays: Mapping[str, Any], what: str, gates: Mapping[str, Sequence[str]]) -> NotFinite | None:
    """The first of some named NumPy arrays that is not finite; None: all are.

    what   in words: "{name} was not finite already"; the place and the value are added
    gates  the gates of the recurrent layers, by the beginning of their parameters' names
    """
    for name, array in arrays.items():
        bad = ~np.isfinite(array)
        if bad.any():
            place = tuple(int(k) for k in np.argwhere(bad)[0])
            layer, _, short = name.rpartition(".")
            blocks = gates.get(layer, ()) if short in BLOCKS else ()
            gate = f", in gate {blocks[place[0] * len(blocks) // array.shape[0]]}," if len(blocks) > 1 else ""
            return NotFinite(f"{what.format(name=name)} ([{', '.join(map(str, place))}]{gate} is {array[place]:g})")
    return None


def in_input(x: Any, dtype: str) -> NotFinite | None:
    """Where x (D, T, B), a NumPy array, is not finite."""
    bad = ~np.isfinite(x)
    if not bad.any():
        return None
    samples = np.flatnonzero(bad.any(axis=(0, 1)))
    t, d = (int(k) for k in np.argwhere(bad[:, :, samples[0]].T)[0])
    value = x[d, t, samples[0]]
    where = f"first at time step {t}, feature {d}, where it is {value:g}"
    return NotFinite(f"x has values that are not finite in {dtype} ({{samples}}, {where})", tuple(map(int, samples)))


class Watch:
    """Notes the first value that is not finite of all that it is shown.

    first  it, or None
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.first: NotFinite | None = None

    def note(self, what: str, array: Array) -> None:
        """Look at an array whose last axis is samples; `what` says what it is, in words."""
        if self.first is None:
            bad = ~np.isfinite(self._backend.to_host(array))
            if bad.any():
                samples = np.flatnonzero(bad.reshape(-1, bad.shape[-1]).any(axis=0))
                self.first = NotFinite(f"{what}, in {{samples}}", tuple(map(int, samples)))

    def over(self, kernel: ReferenceKernel, layer: str, *, reverse: bool) -> WatchedKernel:
        """A kernel that computes the same as this one and shows all of its values."""
        return WatchedKernel(kernel, layer, reverse, self)


class WatchedKernel(ReferenceKernel):
    """The reference kernel; its values are looked at in the order in which they come about."""

    def __init__(self, kernel: ReferenceKernel, layer: str, reverse: bool, watch: Watch) -> None:
        super().__init__(kernel.spec, kernel.backend)
        self._layer, self._reverse, self._watch, self._gates = layer, reverse, watch, kernel.spec.cell.gates

    def _called(self, name: str, t: int, T: int) -> str:
        kind = "gate " if name in self._gates and len(self._gates) > 1 else ""
        return f"{kind}{name} of {self._layer} at time step {T - 1 - t if self._reverse else t}"

    def forward(self, *given: Any, **more: Any) -> Any:
        """As `ReferenceKernel.forward`."""
        result = super().forward(*given, **{**more, "save": True})
        saved = result[2]
        assert saved is not None  # since save=True
        T = len(saved.values)
        for t, values in enumerate(saved.values):
            for name in self.spec.cell.values:
                self._watch.note(self._called(name, t, T), values[name])
        return result

    def steps_back(self, params: Any, saved: Any, *given: Any, **more: Any) -> Any:
        """As `ReferenceKernel.steps_back`."""
        T = len(saved.values)
        for step in super().steps_back(params, saved, *given, **more):
            for name in reversed(self.spec.cell.values):
                self._watch.note(f"the gradient of {self._called(name, step.t, T)}", step.gradients[name])
            yield step
