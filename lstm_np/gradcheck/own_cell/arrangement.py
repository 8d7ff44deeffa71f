"""How somebody's arrays are laid out: which axis is what, and where each gate stands.

An `Arrangement` gives every argument its shape.  An `Order` says where the gates of a cell of `equations` are in it and
turns arrays of that arrangement (parameters and their gradients alike) into those that `equations` computes with.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lstm_np.gradcheck.own_cell.equations import Cell
from lstm_np.gradcheck.own_cell.names import Value, clean

Array = np.ndarray

LAYOUTS = ("rows", "columns", "single")  # a sample is a row, a column, or there is one sample and no axis for it
OUTPUTS = 2  # units of an output layer, which is not checked


@dataclass(frozen=True)
class Sizes:
    """T steps, B samples, D features, H units."""

    T: int
    B: int
    D: int
    H: int


@dataclass(frozen=True)
class Arrangement:
    """Shapes of everything.

    values    the arguments of forward; what a dict of parameters holds is in `entries` instead
    sequence  whether a call sees all steps, or one
    layout    one of LAYOUTS
    inward    a weight matrix is (inputs, units), used as x @ W; else (units, inputs), used as W @ x
    bias      "flat": (n,), "column": (n, 1), "row": (1, n)
    time      the axis of the steps in x and h of a sequence
    G         how many gates
    extra     1 where a matrix that reads x and h has one more input, for the bias
    shapes    declared shapes, such as ("D", "5H")
    """

    values: tuple[Value, ...]
    sequence: bool
    layout: str
    inward: bool
    bias: str
    time: int
    G: int
    extra: int = 0
    entries: tuple[Value, ...] = ()
    shapes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def parameters(self) -> tuple[Value, ...]:
        """Matrices and biases, those of a dict included."""
        return (
            *(value for value in self.values if value.kind not in ("x", "h", "c", "state", "parameters")),
            *self.entries,
        )

    def has(self, kind: str) -> bool:
        """Whether an argument is of this kind."""
        return any(value.kind == kind for value in (*self.values, *self.entries))

    def shape(self, value: Value, sizes: Sizes) -> tuple[int, ...]:
        """The shape of an argument."""
        kind, D, H = value.kind, sizes.D, sizes.H
        if kind == "other":
            return tuple(_extent(text, sizes) for text in self.shapes[value.name])
        if kind in ("x", "h", "c"):
            return self.state_shape(D if kind == "x" else H, sizes, self.sequence and kind == "x")
        n = H if value.gate else self.G * H
        if kind in ("b", "b2", "by"):
            n = OUTPUTS if kind == "by" else n
            return {"flat": (n,), "column": (n, 1), "row": (1, n)}[self.bias]
        if kind == "Wy":
            return (H, OUTPUTS) if self.inward else (OUTPUTS, H)
        inputs = {"W": D, "U": H, "WU": D + H + self.extra}[kind]
        return (inputs, n) if self.inward else (n, inputs)

    def state_shape(self, n: int, sizes: Sizes, steps: bool) -> tuple[int, ...]:
        """The shape of n values per sample; of all `steps` with their axis."""
        shape = {"rows": (sizes.B, n), "columns": (n, sizes.B), "single": (n,)}[self.layout]
        return (*shape[: self.time], sizes.T, *shape[self.time :]) if steps else shape

    def to_columns(self, array: Array, steps: bool) -> Array:
        """An array of values per sample with a column per sample, (n, B), or (T, n, B) where it has all `steps`."""
        if steps:
            array = np.moveaxis(array, self.time, 0)
        return (
            array[..., None] if self.layout == "single" else array.swapaxes(-1, -2) if self.layout == "rows" else array
        )


def _extent(text: str, sizes: Sizes) -> int:
    """Of "4H", "D", "1" in a declared shape."""
    letters = {"T": sizes.T, "B": sizes.B, "D": sizes.D, "H": sizes.H}
    if text[-1] in letters:
        return int(text[:-1] or 1) * letters[text[-1]]
    return int(text)


def arrangements(
    readings: Sequence[Sequence[Value]],
    sequence_first: bool,
    layout: str | None,
    gates: Sequence[int],
    shapes: Mapping[str, tuple[str, ...]],
) -> Iterator[Arrangement]:
    """Every arrangement that the arguments may have, the usual ones first."""
    layouts = (layout,) if layout else LAYOUTS
    for sequence, values, G, lay in itertools.product((sequence_first, not sequence_first), readings, gates, layouts):
        if not sequence and not any(value.kind in ("h", "state") for value in values):
            continue  # a step without a state before it
        for inward in (True, False) if lay == "rows" else (False, True):
            for bias in {"rows": ("flat", "row"), "columns": ("column", "flat"), "single": ("flat",)}[lay]:
                for time in _time_axes(lay) if sequence else (0,):
                    for extra in (0, 1) if _may_have_extra(values) else (0,):
                        yield Arrangement(tuple(values), sequence, lay, inward, bias, time, G, extra, (), shapes)


def _time_axes(layout: str) -> tuple[int, ...]:
    return {"rows": (1, 0), "columns": (2, 0, 1), "single": (0, 1)}[layout]


def _may_have_extra(values: Sequence[Value]) -> bool:
    kinds = [value.kind for value in values]
    return "WU" in kinds and "b" not in kinds


@dataclass(frozen=True)
class Order:
    """Where the gates of `cell` are in an arrangement.

    places       for each gate of the cell, in its order, the block of a stacked matrix; or the index among `names`
    names        the learner's names of the gates' matrices; () where one matrix has all gates
    interleaved  the gates of a unit stand together: row 4 k + j
    joint        how the inputs of a matrix that reads both stand: an order of "x", "h" and "1"
    """

    cell: Cell
    places: tuple[int, ...]
    names: tuple[str, ...] = ()
    interleaved: bool = False
    joint: tuple[str, ...] = ("h", "x")

    @property
    def shown(self) -> tuple[str, ...]:
        """The gates in the learner's order: ("i", "f", "o", "g")."""
        return tuple(gate for _, gate in sorted(zip(self.places, self.cell.gates, strict=True)))


def orders(arrangement: Arrangement, cell: Cell) -> Iterator[Order]:
    """Every order that the cell's gates may have, the usual ones first."""
    weights = [value for value in arrangement.parameters() if value.kind in ("W", "WU")]
    names = tuple(value.gate for value in weights if value.gate)
    kinds = [value.kind for value in weights]
    if "WU" in kinds:
        parts = ("h", "x", "1") if arrangement.extra else ("h", "x")
        joints = sorted(itertools.permutations(parts), key=lambda order: order.index("1") == 1 if "1" in order else 0)
    else:
        joints = [("h", "x")]
    permutations = list(itertools.permutations(range(len(cell.gates))))
    if names:
        permutations.sort(key=lambda places: -_agreement(cell, places, names))
    for interleaved in (False,) if names or len(cell.gates) == 1 else (False, True):
        for joint in joints:
            for places in permutations:
                yield Order(cell, places, names, interleaved, tuple(joint))


_ALSO = {"i": "i u in input", "f": "f forget", "o": "o out output", "g": "g c a j cand candidate cc ctilde cell"}
_ALSO |= {"r": "r reset", "z": "z u update", "n": "n h c new hh htilde cand", "h": "h a"}


def _agreement(cell: Cell, places: Sequence[int], names: Sequence[str]) -> int:
    """How many gates have names that say so."""
    return sum(names[place] in _ALSO[gate].split() for gate, place in zip(cell.gates, places, strict=True))


def canonical(arrangement: Arrangement, order: Order, arrays: Mapping[str, Array], sizes: Sizes) -> dict[str, Array]:
    """Parameters (or their gradients) by the learner's names as "W" (G, H, D), "U" (G, H, H), "b" and "b2" (G, H).

    Arrays that are missing leave out what they are part of.
    """
    found: dict[str, list[Array | None]] = {}
    for place in order.places:
        for kind, block in _blocks_at(arrangement, order, arrays, sizes, place).items():
            found.setdefault(kind, []).append(block)
    return {
        kind: np.stack([block for block in blocks if block is not None])
        for kind, blocks in found.items()
        if len(blocks) == len(order.places) and all(block is not None for block in blocks)
    }


def _blocks_at(
    arrangement: Arrangement, order: Order, arrays: Mapping[str, Array], sizes: Sizes, place: int
) -> dict[str, Array]:
    """One gate's rows of W, U and b."""
    H, blocks = sizes.H, dict[str, Array]()
    for value in arrangement.parameters():
        if value.kind not in ("W", "U", "WU", "b", "b2") or value.name not in arrays:
            continue
        if value.gate and value.gate != order.names[place]:
            continue
        array = arrays[value.name]
        if value.kind in ("b", "b2"):
            array = array.reshape(-1)
        elif arrangement.inward:
            array = array.T
        if not value.gate:
            array = array[place :: arrangement.G] if order.interleaved else array[place * H : (place + 1) * H]
        if value.kind == "WU":
            blocks |= _split_joint(order, array, sizes)
        else:
            blocks[value.kind] = array
    return blocks


def _split_joint(order: Order, array: Array, sizes: Sizes) -> dict[str, Array]:
    parts, start = {}, 0
    for part in order.joint:
        extent = {"x": sizes.D, "h": sizes.H, "1": 1}[part]
        block = array[:, start : start + extent]
        parts[{"x": "W", "h": "U", "1": "b"}[part]] = block[:, 0] if part == "1" else block
        start += extent
    return parts


def gate_of(order: Order, value: Value) -> str:
    """The cell's gate whose own matrix or bias `value` is; "" where it has all of them."""
    if not value.gate:
        return ""
    place = [clean(name) for name in order.names].index(clean(value.gate))
    return order.cell.gates[order.places.index(place)]
