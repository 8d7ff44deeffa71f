"""Holding values of a cell: a gate at 1 from some step on, a unit at 0, and the gradient of what is left.

A `Hold` says which of the values that a cell names is replaced, by what, and where.  The pass goes on with what it is
held at, and backward no gradient goes through it, since nothing that was computed before it matters any more.
Only the reference kernel holds values, so a pass with holds is run by it, whatever kernel the layer has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends import Backend
from lstm_np.cells import Cell
from lstm_np.errors import LstmNpError
from lstm_np.kernels.reference import Edit
from lstm_np.packing import Packing

Edits = tuple[Edit, Edit]  # what the reference kernel's forward and its backward are given as `edit`
AXES = ("samples", "steps", "units")  # of a value (B, T, H)


class HoldError(LstmNpError, ValueError):
    """A hold that names nothing of the layer or model it is given to; one line: what was found and expected.

    >>> lstm_np.GRU(3, 5)(np.ones((2, 4, 3)), hold={"f": 1.0})
    Traceback (most recent call last):
    lstm_np.holds.HoldError: ...
    """


@dataclass(frozen=True, eq=False)
class Hold:
    """One value of the cell, held.

    name     of the value, as the cell has it: "f"
    value    what it is held at: a number, or an array that broadcasts to (B, T, H)
    layer    counted from 0; None: in every layer
    reverse  True or False: in the layers of that direction alone; None: in both
    units, steps, samples   which: a whole number, a slice, several numbers, or booleans, one for each; None: all.
             Steps are counted from 0 as the sequence has them, also in a layer that reads it backwards

    >>> lstm = lstm_np.LSTM(3, 5)
    >>> closed = lstm_np.Hold("o", 0.0, steps=slice(2, None))  # no output from step 2 on
    >>> y, _ = lstm(np.ones((2, 4, 3)), hold=[closed])
    >>> (y[0] == 0).all(axis=1).tolist()
    [False, False, True, True]
    """

    name: str
    value: Any
    layer: int | None = None
    reverse: bool | None = None
    units: Any = None
    steps: Any = None
    samples: Any = None

    def applies_to(self, layer: int, reverse: bool) -> bool:
        """Whether it is for that layer and direction."""
        return self.layer in (None, layer) and self.reverse in (None, reverse)

    def mask(self, shape: tuple[int, int, int]) -> np.ndarray:
        """Booleans that broadcast to `shape`, (B, T, H): where the value is held.  Raises HoldError for an index that
        is outside."""
        axes = []
        for axis, size in zip(AXES, shape, strict=True):
            index = getattr(self, axis)
            axes.append(np.ones(1, bool) if index is None else self._chosen(axis, index, size))
        samples, steps, units = axes
        return samples[:, None, None] & steps[None, :, None] & units[None, None, :]

    def numbers(self, shape: tuple[int, int, int], dtype: str | None = None) -> np.ndarray:
        """What it is held at, with three axes that broadcast to `shape`, (B, T, H), as `dtype` where that is given.

        Raises HoldError.
        """
        try:
            value = np.asarray(self.value)
            fits = value.dtype.kind in "biufc" and np.broadcast_shapes(value.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            found = f"shape {value.shape}" if isinstance(self.value, np.ndarray) else repr(self.value)
            raise HoldError(f"{self.name!r} must be held at a number or an array like {shape}, found {found}")
        if not np.isfinite(value).all():
            raise HoldError(f"{self.name!r} must be held at finite numbers, found {self.value!r}")
        if dtype is not None and value.dtype.kind == "c" and dtype != "complex128":
            raise HoldError(
                f"{self.name!r} must be held at real numbers in a layer that is {dtype}, found complex ones"
            )
        value = value if dtype is None else value.astype(dtype)
        return value.reshape((1,) * (3 - value.ndim) + value.shape)

    def part(self, start: int, stop: int, shape: tuple[int, int, int]) -> Hold:
        """The same for the samples from `start` to `stop` alone, of all those that `shape`, (B, T, H), has."""
        samples = self.samples
        if samples is not None:
            samples = self._chosen("samples", samples, shape[0])[start:stop]
        value = self.numbers(shape)
        value = value[start:stop] if value.shape[0] > 1 else value
        return Hold(self.name, value, self.layer, self.reverse, self.units, self.steps, samples)

    def _chosen(self, axis: str, index: Any, size: int) -> np.ndarray:
        chosen = np.zeros(size, bool)
        try:
            chosen[index if isinstance(index, slice) else np.asarray(index)] = True
        except IndexError:
            raise HoldError(
                f"{axis} of the hold of {self.name!r} must be whole numbers or a slice within 0 ... {size - 1}, or "
                f"{size} booleans; found {index!r}"
            ) from None
        return chosen


def read_holds(hold: Any, cell: Cell, layers: int, directions: Sequence[bool]) -> tuple[Hold, ...]:
    """What people write as `hold`, checked: {"f": 1.0}, a `Hold`, several of them, or None for none.

    layers, directions   of what it is for: how many, and whether each direction reads backwards

    Raises HoldError for a value that the cell does not have, or a layer or direction that there is not.
    """
    if hold is None:
        return ()
    if isinstance(hold, Mapping):
        holds = tuple(Hold(name, value) for name, value in hold.items())
    else:
        holds = (hold,) if isinstance(hold, Hold) else tuple(hold) if isinstance(hold, Iterable) else (hold,)
    for one in holds:
        if not isinstance(one, Hold):
            raise HoldError(f'hold must be a dict like {{"f": 1.0}} or a list of lstm_np.Hold, found {one!r}')
        check_held_names(cell, (one.name,))
        if one.layer is not None and one.layer not in range(layers):
            raise HoldError(f"layer of a hold must be 0 ... {layers - 1}, found {one.layer!r}")
        if one.reverse not in (None, *directions):
            raise HoldError(f"reverse is {one.reverse!r} in a hold, but the layers read in one direction")
    return holds


def check_held_names(cell: Cell, names: Iterable[str]) -> None:
    """Raises HoldError unless the cell has values of these names that can be held."""
    for name in names:
        if name not in cell.values:
            raise HoldError(f"a {cell.name} cell has no value {name!r} to hold; there are: {', '.join(cell.values)}")
        if not cell.holds:
            raise HoldError(
                f"no value of cell {cell.name!r} can be held: its functions take no `hold` (lstm_np/cells/lstm.py does)"
            )


def edits_of(
    holds: Iterable[Hold],
    layer: int,
    reverse: bool,
    shape: tuple[int, int, int],
    backend: Backend,
    dtype: str,
    packing: Packing | None = None,
) -> Edits | None:
    """What the reference kernel is given for one layer and direction: what puts the values there, and what stops the
    gradients; None where nothing is held.

    shape    (B, T, H)
    reverse  whether it reads the sequence backwards: its steps are counted as it makes them
    packing  of the batch as it lies, where its samples have unequal lengths

    Raises HoldError for an index or an array that does not fit.
    """
    xp = backend.xp
    own = packing if packing is None or not reverse else packing.reversed
    held: dict[str, list[tuple[Array, Array]]] = {}
    for hold in holds:
        if hold.applies_to(layer, reverse):
            arrays = hold.mask(shape), hold.numbers(shape, dtype)
            if own is None:
                steps = [_by_step(array, reverse) for array in arrays]
            else:
                steps = [own.packed_host(np.broadcast_to(array, (*shape[:2], array.shape[2]))) for array in arrays]
            mask, value = map(backend.from_host, steps)
            held.setdefault(hold.name, []).append((mask, value))
    if not held:
        return None

    def put(t: int, name: str, value: Array) -> Array:
        for mask, number in held.get(name, ()):
            value = xp.where(_at(mask, t, value), _at(number, t, value), value)
        return value

    def stop(t: int, name: str, gradient: Array) -> Array:
        for mask, _ in held.get(name, ()):
            gradient = xp.where(_at(mask, t, gradient), xp.zeros_like(gradient), gradient)
        return gradient

    return put, stop


def _by_step(array: np.ndarray, reverse: bool) -> np.ndarray:
    """(T, H, B) in the order of the layer's steps, from (B, T, H); axes may be 1."""
    array = array.transpose(1, 2, 0)
    return np.ascontiguousarray(array[::-1] if reverse else array)


def _at(array: Array, t: int, value: Array) -> Array:
    """Step t of (T, H, B) for the columns of `value`; T and B may be 1 for what is the same in all."""
    return array[t if array.shape[0] > 1 else 0][:, : value.shape[1]]
