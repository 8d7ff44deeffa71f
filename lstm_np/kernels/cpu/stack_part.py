"""A part of a batch that one process takes through all layers of a stack.

What one layer hands to the next, and the gradient of it, stays where it was made: nothing of it is copied between
processes, and nobody waits for anybody between two layers.  Each layer is a `Part`, computed as it would be alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import ragged
from lstm_np.kernels.cpu.buffers import Job, Stack, named, shapes_of_parameters
from lstm_np.kernels.cpu.part import InputGradients, Inputs, OutputGradients, Outputs, Part


class StackPart:
    """As `Part`, of all layers: parameters are `named`, states follow one another in their order,
    and `InputGradients.total` has an item for each layer and direction.
    """

    def __init__(self, job: Stack) -> None:
        self.job = job
        self._parts = [Part(single) for single in job.singles]
        self._names = [[*shapes_of_parameters(single)] for single in job.singles]
        self._between = [self._new(*shape) for shape in shapes_between(job)]
        self._second = self._new(*shape_of_second(job))

    @property
    def overtaken(self) -> Callable[[], bool]:
        """As that of `Part`."""
        return self._parts[0].overtaken

    @overtaken.setter
    def overtaken(self, overtaken: Callable[[], bool]) -> None:
        """Of all layers."""
        for part in self._parts:
            part.overtaken = overtaken

    @property
    def nbytes(self) -> int:
        """Bytes kept for backward that grow with T."""
        return sum(part.nbytes for part in self._parts)

    def forward(self, params: Params, given: Inputs, wanted: Outputs, *, packed: bool = False) -> None:
        """As that of `Part`."""
        ways = len(self.job.directions)
        x, between = given.x, self.job.between
        for layer in range(len(between) + 1):
            y = self._of(layer, between[layer]) if layer < len(between) else wanted.y
            for direction, reverse in enumerate(self.job.directions):
                k = ways * layer + direction
                H = self.job.singles[k].H
                own = None if y is None else turned(y[direction * H : (direction + 1) * H], reverse)
                inputs = Inputs(turned(x, reverse), self._state(given.state, k))
                outputs = Outputs(own, self._state(wanted.state, k))
                self._parts[k].forward(self._params(params, k), inputs, outputs, packed=packed)
            x = y

    def backward(self, params: Params, given: OutputGradients, wanted: InputGradients) -> None:
        """As that of `Part`."""
        ways = len(self.job.directions)
        dy, between = given.y, self.job.between
        for layer in reversed(range(len(between) + 1)):
            dx = self._of(layer - 1, between[layer - 1]) if layer else wanted.x
            for direction, reverse in enumerate(self.job.directions):
                k = ways * layer + direction
                H = self.job.singles[k].H
                own = None if dy is None else turned(dy[direction * H : (direction + 1) * H], reverse)
                to = dx if direction == 0 or dx is None else self._second[: len(dx)]
                gradients = OutputGradients(own, self._state(given.state, k))
                targets = InputGradients(
                    None if to is None else turned(to, reverse),
                    self._state(wanted.state, k),
                    wanted.state_wanted,
                    wanted.total[k],
                )
                self._parts[k].backward(self._params(params, k), gradients, targets)
                if dx is not None and to is not None and direction:
                    np.add(dx, to, dx)
            dy = dx

    def _new(self, features: int, T: int, b: int) -> Array:
        """(features, T, b), the steps one after the other, and each as the layers' samples lie."""
        if self.job.singles[0].layout == "rows":
            return aligned((T, b, features), self.job.dtype).transpose(2, 0, 1)
        return aligned((T, features, b), self.job.dtype).transpose(1, 0, 2)

    def _of(self, layer: int, features: int) -> Array:
        """What a layer hands to the next, or the gradient of it."""
        return self._between[layer % len(self._between)][:features]

    def _params(self, params: Params, k: int) -> Params:
        return {name: params[named(self.job, k, name)] for name in self._names[k]}

    def _state(self, state: Sequence[Any], k: int) -> tuple[Any, ...]:
        count = len(self.job.singles[k].of.state)
        return tuple(state[k * count : (k + 1) * count])


def shapes_between(job: Stack) -> list[tuple[int, int, int]]:
    """Of memory for what passes from layer to layer, (features, T, b), as parts read and write it.

    One direction overwrites what it reads (see `Part`).  Where there are two, the second reads it as well, so that what
    they write goes elsewhere.
    """
    return [(max(job.between), job.T, job.b)] * min(len(job.directions), len(job.between)) if job.between else []


def shape_of_second(job: Stack) -> tuple[int, int, int]:
    """Of memory for the input gradient of a layer's second direction, until it is added to that of the first."""
    needed = len(job.directions) > 1 and job.keep != "nothing"
    return (max(job.D, *job.between, 0) if needed else 0), job.T, job.b


def turned(array: Array, reverse: bool) -> Array:
    """(features, T, b) in the order in which a direction reads: a view."""
    return array[:, ::-1] if reverse else array


def totals_wanted(job: Job | Stack, totals: Sequence[Array]) -> Sequence[Any]:
    """`InputGradients.total` of whole arrays (G * H, K), one for each layer and direction."""
    whole = [[(slice(None), total)] for total in totals]
    return whole[0] if isinstance(job, Job) else whole


def part_of(job: Job | Stack, shared: Params | None = None) -> Part | StackPart:
    """What computes such a part."""
    return StackPart(job) if isinstance(job, Stack) else ragged.part_of(job, shared)
