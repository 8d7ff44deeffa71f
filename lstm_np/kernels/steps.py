"""One time step at a time, for sequences whose steps arrive one by one: what makes the steps of a kernel's layer.

A stepper keeps the state, and the parameters as they were when it was made.  A kernel that has one of its own gives it
by a method `stepper` with the arguments of `make_stepper`; for every other kernel a sequence of one step is run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from lstm_np.arrays import Array, State
from lstm_np.kernels.protocol import Kernel


class Stepper(Protocol):
    """One recurrent layer in one direction, a time step at a time.

    x   where the input of the next step is written to: (D,) of one sequence, (B, D) of a batch
    """

    x: Array

    def advance(self) -> None:
        """Make a step: the state becomes that after x."""
        ...

    def read(self, out: Array) -> object:
        """Write the output h of the latest step to `out`, (H,) or (B, H) as x is."""
        ...

    def state(self) -> State:
        """The state, parts (H, B), copies."""
        ...

    def put(self, state: State) -> None:
        """Go on from a state, parts (H, B), which are copied."""
        ...


def make_stepper(kernel: Kernel, params: Mapping[str, Array], batch: tuple[int, ...], first: bool) -> Stepper:
    """What makes the steps of `kernel`'s layer with `params`, from the zero state.

    batch  () for one sequence, (B,) for a batch of them
    first  whether the layer reads what the caller passed, or else the outputs of a layer below: both have the layout in
           memory that they have in a whole sequence, on which the order of a sum in BLAS may depend
    """
    make = getattr(kernel, "stepper", None)
    return SequenceStepper(kernel, params, batch, first) if make is None else make(params, batch, first)


class SequenceStepper:
    """A `Stepper` that runs a sequence of one step: of any kernel, with the bits of that sequence."""

    def __init__(self, kernel: Kernel, params: Mapping[str, Array], batch: tuple[int, ...], first: bool) -> None:
        self.kernel, self.params = kernel, {name: array.copy() for name, array in params.items()}
        xp, spec, B = kernel.backend.xp, kernel.spec, math.prod(batch)
        D, H, dtype = spec.input_size, spec.hidden_size, spec.dtype
        rows = xp.zeros((B, D), dtype=dtype) if first else xp.zeros((D, B), dtype=dtype).T
        self.x, self.columns = rows if batch else rows[0, :], rows.T
        self.current: State = tuple(xp.zeros((H, B), dtype=dtype) for _ in spec.cell.state)
        self._batched = bool(batch)

    def advance(self) -> None:
        """As `Stepper.advance`."""
        self.current = self.step(self.columns, self.current)

    def step(self, x: Array, state: State) -> State:
        """The state after x (D, B)."""
        return self.kernel.forward(self.params, x[:, None, :], state, sequence=False, save=False)[1]

    def read(self, out: Array) -> None:
        """As `Stepper.read`."""
        out[...] = self.current[0].T if self._batched else self.current[0][:, 0]

    def state(self) -> State:
        """As `Stepper.state`."""
        return tuple(part.copy() for part in self.current)

    def put(self, state: State) -> None:
        """As `Stepper.put`."""
        self.current = tuple(part.copy() for part in state)
