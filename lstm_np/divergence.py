"""Where training diverged: the first value that is not finite, by name.

The training step itself looks at few numbers (`lstm_np.steps`).  When one of them is not finite, what led to it is
computed a second time on the reference kernel, slowly, and every value of the equations is looked at in the order in
which it comes about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np.backends import Backend
from lstm_np.kernels.protocol import Array
from lstm_np.kernels.reference import ReferenceKernel
from lstm_np.packing import Packing

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

    def note(
        self, what: str | Callable[[int], str], array: Array, samples_of: Callable[[int], int] = lambda column: column
    ) -> None:
        """Look at an array whose last axis is samples; `what` says what it is, in words, or does so for a column.

        `samples_of` gives the sample that a column is.
        """
        if self.first is None:
            bad = ~np.isfinite(self._backend.to_host(array))
            if bad.any():
                columns = [int(column) for column in np.flatnonzero(bad.reshape(-1, bad.shape[-1]).any(axis=0))]
                words = what if isinstance(what, str) else what(columns[0])
                self.first = NotFinite(f"{words}, in {{samples}}", tuple(sorted(map(samples_of, columns))))

    def over(self, kernel: ReferenceKernel, layer: str, *, reverse: bool) -> WatchedKernel:
        """A kernel that computes the same as this one and shows all of its values."""
        return WatchedKernel(kernel, layer, reverse, self)


class WatchedKernel(ReferenceKernel):
    """The reference kernel; its values are looked at in the order in which they come about."""

    def __init__(self, kernel: ReferenceKernel, layer: str, reverse: bool, watch: Watch) -> None:
        super().__init__(kernel.spec, kernel.backend)
        self._layer, self._reverse, self._watch, self._gates = layer, reverse, watch, kernel.spec.cell.gates

    def _note(self, of: str, name: str, t: int, T: int, array: Array) -> None:
        kind = "gate " if name in self._gates and len(self._gates) > 1 else ""
        packing = self._packing
        if packing is None:
            at = f"at time step {T - 1 - t if self._reverse else t}"
            self._watch.note(f"{of}{kind}{name} of {self._layer} {at}", array)
        else:
            self._watch.note(
                lambda column: f"{of}{kind}{name} of {self._layer} at time step {packing.step_of(t, column)[0]}",
                array,
                lambda column: packing.step_of(t, column)[1],
            )

    def forward(self, *given: Any, **more: Any) -> Any:
        """As `ReferenceKernel.forward`."""
        self._packing: Packing | None = more.get("packing")
        result = super().forward(*given, **{**more, "save": True})
        saved = result[2]
        assert saved is not None  # since save=True
        T = len(saved.values)
        for t, values in enumerate(saved.values):
            for name in self.spec.cell.values:
                self._note("", name, t, T, values[name])
        return result

    def steps_back(self, params: Any, saved: Any, *given: Any, **more: Any) -> Any:
        """As `ReferenceKernel.steps_back`."""
        T = len(saved.values)
        for step in super().steps_back(params, saved, *given, **more):
            for name in reversed(self.spec.cell.values):
                self._note("the gradient of ", name, step.t, T, step.gradients[name])
            yield step
