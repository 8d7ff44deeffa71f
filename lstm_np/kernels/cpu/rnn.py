"""The plain recurrent cell in the fused CPU kernel: the passes of a step, with the numbers of `lstm_np.cells.rnn`.

Nothing is kept but h, in Z, of which the derivative of (2) is made: 1 - h^2.  In units of one pass over (H, b), forward
makes one of tanh; backward makes 3, or 4 with dy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import passes
from lstm_np.kernels.cpu.buffers import Job, Ring, Scratch, Step, Weights
from lstm_np.kernels.cpu.passes import Product


class Tanh:
    """(2) and its derivative."""

    def __init__(self, dtype: str) -> None:
        self._one = np.array(1, dtype)

    def of(self, a: Array, h: Array) -> None:
        """(2), from a to h."""
        np.tanh(a, h)

    def slope(self, h: Array, out: Array) -> None:
        """The derivative, from h."""
        np.multiply(h, h, out)
        np.subtract(self._one, out, out)


class Passes(passes.Passes):
    """In training."""

    kept = None
    nonlinearity = Tanh

    def __init__(self, job: Job, scratch: Scratch) -> None:
        super().__init__(job, scratch)
        self._nonlinearity = self.nonlinearity(job.dtype)
        self._a = scratch.new((1, *scratch.shape), job.dtype)
        self._places = [scratch.place(self._a, step) for step in range(scratch.tau)]

    def forward(self, steps: Sequence[Step], kept: None, start: int, *products: Product) -> None:
        """(1) and (2)."""
        (a,), activate = self._a, self._nonlinearity.of
        (product_of,) = products
        for (operand, _, h), place in zip(steps, self._places, strict=False):
            product_of(operand, place)  # (1)
            activate(a, h)  # (2)

    def derive(self, kept: None, start: int, count: int) -> None:
        """Nothing: backward makes it of h."""

    def backward(
        self, weights: Weights, hs: Array, kept: None, steps: slice, dys: Array | None, undo_first: bool
    ) -> None:
        """(2') and (1')."""
        multiply, add, dh = np.multiply, np.add, self.scratch.dh
        product_to_dh, operands = self.scratch.backward_product(weights), self.scratch.operands
        das = self.scratch.das[: len(hs) - 1, 0]
        self._nonlinearity.slope(hs[1:], das)
        for t in reversed(range(len(das))):
            if dys is not None:
                add(dh, dys[t], dh)
            da = das[t]
            multiply(dh, da, da)  # (2')
            if t or undo_first:
                product_to_dh(operands[t])  # (1')


class Inference(passes.Inference):
    """Without a backward pass."""

    nonlinearity = Tanh

    def __init__(self, job: Job, ring: Ring) -> None:
        super().__init__(job, ring)
        self._nonlinearity = self.nonlinearity(job.dtype)
        self._a = aligned((1, *ring.shape), job.dtype)
        self._place = ring.place(self._a, 0)

    def forward(self, steps: Sequence[Step], *products: Product) -> None:
        """(1) and (2)."""
        (a,), place, activate = self._a, self._place, self._nonlinearity.of
        (product_of,) = products
        for operand, _, h in steps:
            product_of(operand, place)  # (1)
            activate(a, h)  # (2)


class OneSample(passes.OneSample):
    """As `Inference`, with the product written in."""

    nonlinearity = Tanh

    def __init__(self, job: Job, count: int) -> None:
        super().__init__(job, count)
        self._nonlinearity = self.nonlinearity(job.dtype)
        self._steps = [(self.hs[t], self.added[t], self.hs[t + 1]) for t in range(count)]

    def forward(self, U: Array, count: int) -> None:
        """(1) and (2)."""
        dot, add, activate = np.dot, np.add, self._nonlinearity.of
        for h_before, added, h in self._steps[:count]:
            dot(U, h_before, h)
            add(h, added, h)  # (1)
            activate(h, h)  # (2)
