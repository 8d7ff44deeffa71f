"""One small step of a cell, forward and backward, to see whether what comes back is what the cell declares."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lstm_np.backends import get_backend
from lstm_np.cells.declaration import Array, Cell, CellError

UNITS, SAMPLES = 3, 2
DTYPE = "float32"  # what is computed in another type shows


@functools.lru_cache(maxsize=64)
def try_step(cell: Cell) -> None:
    """Raises CellError, with one line that says what is wrong; the same functions are tried once."""
    trial = _Trial(cell)
    trial.forward()
    trial.backward()


class _Trial:
    """The arguments of a step, and what is looked at in what it gives."""

    def __init__(self, cell: Cell) -> None:
        self.cell, self.xp = cell, get_backend("numpy").xp
        self.held, self.multiplied = set[str](), list[int]()
        self.state = tuple(self.numbers(1) / (k + 2) for k, _ in enumerate(cell.state))
        handed = {parameter.name: self.numbers(parameter.blocks)[:, :1] for parameter in cell.handed}
        products = [functools.partial(self.multiply, k) for k, _ in enumerate(cell.products)]
        self.more = [*products, handed] if handed else products

    def numbers(self, blocks: int) -> Array:
        """(blocks * H, B)."""
        rows = blocks * UNITS
        return self.xp.linspace(-1.0, 1.0, rows * SAMPLES, dtype=DTYPE).reshape(rows, SAMPLES)

    def forward(self) -> None:
        cell = self.cell
        found = self.call("forward", cell.forward, self.numbers(len(cell.gates)), self.state)
        self.after, self.values = self.expect("forward", found, (tuple, Mapping), "(state, values)")
        self.expect_parts("forward", self.after)
        self.expect_arrays("forward", "the state", zip(cell.state, self.after, strict=True))
        self.expect_names("forward", "values", self.values, cell.values)
        self.expect_arrays("forward", "the value", self.values.items())

    def backward(self) -> None:
        cell = self.cell
        found = self.call("backward", cell.backward, self.after, self.state, self.values)
        da, before, gradients = self.expect(
            "backward", found, (self.xp.ndarray, tuple, Mapping), "(da, dstate_before, gradients)"
        )
        self.expect_arrays("backward", "the array", [("da", da)], {"da": len(cell.gates)})
        self.expect_parts("backward", before)
        reached = list(zip(cell.state, before, strict=True))
        if isinstance(before[0], (int, float)) and before[0] == 0:
            del reached[0]
        self.expect_arrays("backward", "the gradient of the state before,", reached)
        blocks = {parameter.name: parameter.blocks for parameter in cell.handed}
        self.expect_names("backward", "gradients", gradients, (*cell.values, *blocks))
        self.expect_arrays("backward", "the gradient of", gradients.items(), blocks)

    def call(self, name: str, function: Callable[..., Any], *arguments: object) -> Any:
        """What the function returns; where it takes `hold`, every value has to pass through that."""
        self.held.clear()
        self.multiplied.clear()
        try:
            found = function(self.xp, *arguments, *self.more, **({"hold": self.note} if self.cell.holds else {}))
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise self.error(f"{name} failed: {reason}") from error
        if sorted(self.multiplied) != list(range(len(self.cell.products))):
            raise self.error(f"{name} must make each of PRODUCTS once, found {len(self.multiplied)} calls")
        if self.cell.holds and self.held != set(self.cell.values):
            names = ", ".join(sorted(self.held ^ set(self.cell.values)))
            raise self.error(f"{name} takes hold, but {names} of VALUES and what goes through hold are not the same")
        return found

    def note(self, name: str, value: Array) -> Array:
        """As `hold` where nothing is held."""
        self.held.add(name)
        return value

    def multiply(self, k: int, operand: Array) -> Array:
        """In place of the kernel's product k."""
        self.multiplied.append(k)
        return operand / 2

    def expect(self, function: str, found: Any, kinds: tuple[type, ...], form: str) -> Any:
        """`found`, a tuple of things of those kinds."""
        good = isinstance(found, tuple) and len(found) == len(kinds)
        if not good or not all(isinstance(part, kind) for part, kind in zip(found, kinds, strict=True)):
            parts = found if isinstance(found, tuple) else (found,)
            kind, words = (", ".join(names) for names in (map(_name_of, map(type, parts)), map(_name_of, kinds)))
            raise self.error(f"{function} must return {form}, that is {words}; found {kind}")
        return found

    def expect_parts(self, function: str, state: tuple[Array, ...]) -> None:
        if len(state) != len(self.cell.state):
            names = ", ".join(self.cell.state)
            raise self.error(f"{function} must give the state in the parts of STATE, {names}; found {len(state)} parts")

    def expect_names(self, function: str, what: str, found: Mapping[str, Array], names: tuple[str, ...]) -> None:
        if set(found) != set(names):
            raise self.error(f"{function} must give the {what} of {', '.join(names)}; found {', '.join(found)}")

    def expect_arrays(
        self, function: str, what: str, found: Iterable[tuple[str, Array]], blocks: Mapping[str, int] | None = None
    ) -> None:
        """Each an array (H, B) of the step's type; of some, other numbers of `blocks` of H rows."""
        for name, array in found:
            shape = ((blocks or {}).get(name, 1) * UNITS, SAMPLES)
            if not isinstance(array, self.xp.ndarray) or array.shape != shape or array.dtype != DTYPE:
                is_array = isinstance(array, self.xp.ndarray)
                it = f"{array.dtype} {array.shape}" if is_array else f"a {type(array).__name__}"
                raise self.error(f"{function} must give {what} {name} as {DTYPE} {shape}, found {it}")

    def error(self, text: str) -> CellError:
        size = f"a step of {UNITS} units and {SAMPLES} samples in {DTYPE}"
        return CellError(f"cell {self.cell.name!r}: {text} (tried on {size})")


def _name_of(kind: type) -> str:
    return "dict" if kind is Mapping else kind.__name__
