"""The GRU, reset after the product, in the fused CPU kernel: the passes of a step.

The numbers of equations are those of `lstm_np.cells.gru`.  With d = h_{t-1} - n, and v = z d (h_t = n + v)::

    da_z = dh_t p_z    p_z = d z (1 - z)              = v (1 - z)
    da_n = dh_t p_n    p_n = (1 - z) (1 - n^2)
    dm   = dh_t p_m    p_m = p_n r
    da_r = dh_t p_r    p_r = p_n m r (1 - r)          = p_n (r m) (1 - r)
    dh_{t-1} = dh_t z + U^T [da_r da_z dm]

So one multiplication of dh gives all of da.  Kept are p_r, p_z, p_m, p_n and z: with h_t in Z, 6H values per time step
and sample.  In units of one pass over (H, b), forward makes 9 and 3 of tanh, and 9 for the derivatives; backward makes
6, or 7 with dy.  That is 9 and 3 calls of NumPy per step, beside the products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import passes
from lstm_np.kernels.cpu.buffers import Job, New, Products, Ring, Scratch, Step, Weights
from lstm_np.kernels.cpu.passes import Product


@dataclass(slots=True)
class StepDerivatives:
    """p_r p_z p_m p_n, and z, of a step; r lies in the place of p_m until that comes."""

    p: Array
    rz: Array
    r: Array
    z: Array


class BlockOfDerivatives(NamedTuple):
    """Of some steps."""

    p_rz: Array
    p_rm: Array
    p_n: Array


class Derivatives(passes.Kept):
    """(steps, 5, *shape): for each step p_r, p_z, p_m, p_n, z."""

    def __init__(self, steps: int, shape: tuple[int, int], dtype: str, tau: int, new: New) -> None:
        self.array = new((steps, 5, *shape), dtype)
        self.steps = [StepDerivatives(P[:4], P[2::2], P[2], P[4]) for P in self.array]

    def block(self, start: int, count: int) -> BlockOfDerivatives:
        """Of the steps from start on."""
        P = self.array[start : start + count]
        return BlockOfDerivatives(P[:, :2], P[:, 0:3:2], P[:, 3])


@dataclass(slots=True)
class StepForward:
    """What a step computes; `place`: where its product goes."""

    place: Any
    a_rz: Array
    m: Array  # then r m
    a_n: Array
    n: Array
    d: Array  # then v = z d


@dataclass(slots=True)
class StepBackward:
    """da of a step: `blocks` as they are computed, `operand` as the product takes them."""

    blocks: Array
    operand: Any


class Passes(passes.Passes):
    """In training."""

    kept: type[passes.Kept] = Derivatives

    def __init__(self, job: Job, scratch: Scratch) -> None:
        super().__init__(job, scratch)
        self._a = scratch.new((scratch.tau, 5, *scratch.shape), job.dtype)  # per step a_r a_z m d n
        self._forward = [
            StepForward(place_of(scratch, a, step), a[:2], a[2], scratch.a_n[step], a[4], a[3])
            for step, a in enumerate(self._a)
        ]
        self._z_dh = scratch.new(scratch.shape, job.dtype)
        self._backward = [StepBackward(da, operand) for da, operand in zip(scratch.das, scratch.operands, strict=True)]

    def forward(self, steps: Sequence[Step], kept: Derivatives, start: int, *products: Product) -> None:
        """(1) to (5)."""
        tanh, multiply, add, subtract, half = np.tanh, np.multiply, np.add, np.subtract, self.half
        (product_of,) = products
        gates_of_steps = kept.steps[start : start + len(steps)]
        for (operand, h_before, h), gates, s in zip(steps, gates_of_steps, self._forward, strict=False):
            product_of(operand, s.place)  # (1), the rows of r and z halved, and (3)
            tanh(s.a_rz, s.a_rz)
            multiply(s.a_rz, half, s.a_rz)
            add(s.a_rz, half, gates.rz)  # (2)
            multiply(gates.r, s.m, s.m)
            add(s.m, s.a_n, s.n)
            tanh(s.n, s.n)  # (4)
            subtract(h_before, s.n, s.d)
            multiply(gates.z, s.d, s.d)
            add(s.n, s.d, h)  # (5)

    def derive(self, kept: Derivatives, start: int, count: int) -> None:
        """p_r to p_n."""
        p = kept.block(start, count)
        derive_gates(self.half, self.one, self._a[:count], p.p_rz, p.p_n)
        np.multiply(p.p_rm, p.p_n[:, None], p.p_rm)

    def backward(
        self, weights: Weights, hs: Array, kept: Derivatives, steps: slice, dys: Array | None, undo_first: bool
    ) -> None:
        """(5') to (1')."""
        multiply, add, dh, z_dh = np.multiply, np.add, self.scratch.dh, self._z_dh
        product_to_dh = self.scratch.backward_product(weights)
        derivatives = kept.steps[steps]
        for t in reversed(range(len(derivatives))):
            s, to = derivatives[t], self._backward[t]
            if dys is not None:
                add(dh, dys[t], dh)
            multiply(dh, s.p, to.blocks)  # (5'), (4'), (2')
            if t or undo_first:
                multiply(dh, s.z, z_dh)  # (5')
                product_to_dh(to.operand)  # (3'), (1')
                add(dh, z_dh, dh)


def derive_gates(half: Array, one: Array, a: Array, p_rz: Array, p_n: Array) -> None:
    """p_r, p_z and p_n of some steps, from their a, which is used up; the same wherever the reset gate stands."""
    n, square = a[:, 4], a[:, 0]
    np.subtract(half, a[:, :2], a[:, :2])  # 1 - r, 1 - z
    np.multiply(a[:, :2], a[:, 2:4], p_rz)
    np.multiply(n, n, square)
    np.subtract(one, square, square)  # 1 - n^2
    np.multiply(square, a[:, 1], p_n)


def place_of(products: Products, a: Array, step: int) -> Any:
    """Where the product of a step goes, in a_r a_z m ...: m with it, where it reads h_{t-1}."""
    return products.place(a[: products.job.of.reading], step)


class Inference(passes.Inference):
    """Without a backward pass: the gates overwrite a, n overwrites m."""

    def __init__(self, job: Job, ring: Ring) -> None:
        super().__init__(job, ring)
        a = self._a = aligned((4, *ring.shape), job.dtype)  # a_r a_z m d
        self._place, self._a_n = place_of(ring, a, 0), list(ring.a_n)

    def forward(self, steps: Sequence[Step], *products: Product) -> None:
        """(1) to (5)."""
        tanh, multiply, add, subtract, half = np.tanh, np.multiply, np.add, np.subtract, self.half
        place, rz, (r, z, n, d) = self._place, self._a[:2], self._a
        (product_of,) = products
        for (operand, h_before, h), a_n in zip(steps, self._a_n, strict=False):
            product_of(operand, place)  # (1), the rows of r and z halved, and (3)
            tanh(rz, rz)
            multiply(rz, half, rz)
            add(rz, half, rz)  # (2)
            multiply(r, n, n)
            add(n, a_n, n)
            tanh(n, n)  # (4)
            subtract(h_before, n, d)
            multiply(z, d, d)
            add(n, d, h)  # (5)


class OneSample(passes.OneSample):
    """As `Inference`, with the product written in."""

    def __init__(self, job: Job, count: int) -> None:
        super().__init__(job, count)
        H, read = job.H, job.of.reading * job.H
        self._a = aligned((4, H), job.dtype)  # a_r a_z m d
        self._read = self._a.reshape(-1)[:read]
        added, hs = self.added, self.hs
        self._steps = [(hs[t], added[t, :read], added[t, -H:], hs[t + 1]) for t in range(count)]

    def forward(self, U: Array, count: int) -> None:
        """(1) to (5)."""
        dot, tanh, multiply, add, subtract, half = np.dot, np.tanh, np.multiply, np.add, np.subtract, self.half
        a, rz, (r, z, n, d) = self._read, self._a[:2], self._a
        for h_before, added, a_n, h in self._steps[:count]:
            dot(U, h_before, a)
            add(a, added, a)  # (1), (3)
            multiply(rz, half, rz)
            tanh(rz, rz)
            multiply(rz, half, rz)
            add(rz, half, rz)  # (2)
            multiply(r, n, n)
            add(n, a_n, n)
            tanh(n, n)  # (4)
            subtract(h_before, n, d)
            multiply(z, d, d)
            add(n, d, h)  # (5)
