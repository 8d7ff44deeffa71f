"""The GRU, reset before the product, in the fused CPU kernel: the passes of a step.

The numbers of equations are those of `lstm_np.cells.gru_reset_before`.  With v = z (h_{t-1} - n), h_t = n + v::

    da_z = dh_t p_z    p_z = v (1 - z)
    da_n = dh_t p_n    p_n = (1 - z) (1 - n^2),   ds = U_n^T da_n
    da_r = ds p_r      p_r = h_{t-1} r (1 - r)        = s (1 - r)
    dh_{t-1} = dh_t z + ds r + [U_r U_z]^T [da_r da_z]

Kept are p_r, p_z, p_n, r and z: with h_t in Z, 6H values per time step and sample.  s is not: the weight gradient
needs it, of some steps at once, and it is computed again for them, as r h_{t-1}.  In units of one pass over (H, b),
forward makes 9 and 3 of tanh, and 7 for the derivatives; backward makes 8, or 9 with dy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import passes
from lstm_np.kernels.cpu.buffers import Job, New, Ring, Scratch, Step, Weights
from lstm_np.kernels.cpu.gru import derive_gates
from lstm_np.kernels.cpu.passes import Product


@dataclass(slots=True)
class StepDerivatives:
    """p_r p_z p_n of a step, and r and z, which forward leaves there."""

    p_r: Array
    p_zn: Array
    rz: Array
    r: Array
    z: Array


class BlockOfDerivatives(NamedTuple):
    """Of some steps."""

    p_rz: Array
    p_n: Array


class Derivatives(passes.Kept):
    """(steps, 5, *shape): for each step p_r, p_z, p_n, r, z."""

    def __init__(self, steps: int, shape: tuple[int, int], dtype: str, tau: int, new: New) -> None:
        self.array = new((steps, 5, *shape), dtype)
        self.steps = [StepDerivatives(P[0], P[1:3], P[3:5], P[3], P[4]) for P in self.array]

    def block(self, start: int, count: int) -> BlockOfDerivatives:
        """Of the steps from start on."""
        P = self.array[start : start + count]
        return BlockOfDerivatives(P[:, :2], P[:, 2])


@dataclass(slots=True)
class StepForward:
    """What a step computes; `place`: where its product goes, `inner_place` where that with s does."""

    place: Any
    inner_place: Any
    a_rz: Array
    s: Array
    a_n: Array
    n: Array  # m, then n
    d: Array  # then v = z d


@dataclass(slots=True)
class StepBackward:
    """da of a step, and as the products take it: of r and z, and of n."""

    da_r: Array
    da_zn: Array
    operand: Any
    inner_operand: Any


class Passes(passes.Passes):
    """In training."""

    kept = Derivatives

    def __init__(self, job: Job, scratch: Scratch) -> None:
        super().__init__(job, scratch)
        self._a = scratch.new((scratch.tau, 5, *scratch.shape), job.dtype)  # per step a_r a_z s d n
        self._forward = [
            StepForward(
                scratch.place(a[:2], step), scratch.inner_place(a[4]), a[:2], a[2], scratch.a_n[step], a[4], a[3]
            )
            for step, a in enumerate(self._a)
        ]
        self._r_ds_and_z_dh = scratch.new((2, *scratch.shape), job.dtype)
        self._backward = [
            StepBackward(da[0], da[1:3], operand, inner_operand)
            for da, operand, inner_operand in zip(scratch.das, scratch.operands, scratch.inner_operands, strict=True)
        ]

    def forward(self, steps: Sequence[Step], kept: Derivatives, start: int, *products: Product) -> None:
        """(1) to (5)."""
        tanh, multiply, add, subtract, half = np.tanh, np.multiply, np.add, np.subtract, self.half
        product_of, inner_product_of = products
        gates_of_steps = kept.steps[start : start + len(steps)]
        for (operand, h_before, h), gates, s in zip(steps, gates_of_steps, self._forward, strict=False):
            product_of(operand, s.place)  # (1), the rows of r and z halved
            tanh(s.a_rz, s.a_rz)
            multiply(s.a_rz, half, s.a_rz)
            add(s.a_rz, half, gates.rz)  # (2)
            multiply(gates.r, h_before, s.s)  # (3)
            inner_product_of(s.s, s.inner_place)  # (3)
            add(s.n, s.a_n, s.n)
            tanh(s.n, s.n)  # (4)
            subtract(h_before, s.n, s.d)
            multiply(gates.z, s.d, s.d)
            add(s.n, s.d, h)  # (5)

    def derive(self, kept: Derivatives, start: int, count: int) -> None:
        """p_r to p_n."""
        p = kept.block(start, count)
        derive_gates(self.half, self.one, self._a[:count], p.p_rz, p.p_n)

    def backward(
        self, weights: Weights, hs: Array, kept: Derivatives, steps: slice, dys: Array | None, undo_first: bool
    ) -> None:
        """(5') to (1'), and s again."""
        multiply, add, scratch = np.multiply, np.add, self.scratch
        dh, ds, both, (r_ds, z_dh) = scratch.dh, scratch.ds, scratch.ds_and_dh, self._r_ds_and_z_dh
        product_to_dh, product_to_ds = scratch.backward_product(weights), scratch.inner_backward_product(weights)
        derivatives = kept.steps[steps]
        for t in reversed(range(len(derivatives))):
            p, to = derivatives[t], self._backward[t]
            if dys is not None:
                add(dh, dys[t], dh)
            multiply(dh, p.p_zn, to.da_zn)  # (5'), (4'), (2')
            product_to_ds(to.inner_operand)  # (3')
            multiply(ds, p.p_r, to.da_r)  # (3'), (2')
            if t or undo_first:
                multiply(both, p.rz, self._r_ds_and_z_dh)  # (3'), (5')
                product_to_dh(to.operand)  # (1')
                add(dh, r_ds, dh)
                add(dh, z_dh, dh)
        multiply(kept.array[steps, 3], hs[:-1], scratch.s[: len(derivatives)])  # (3)


class Inference(passes.Inference):
    """Without a backward pass: the gates overwrite a, s overwrites r."""

    def __init__(self, job: Job, ring: Ring) -> None:
        super().__init__(job, ring)
        a = self._a = aligned((4, *ring.shape), job.dtype)  # a_r a_z n d
        self._place, self._inner_place, self._a_n = ring.place(a[:2], 0), ring.inner_place(a[2]), list(ring.a_n)

    def forward(self, steps: Sequence[Step], *products: Product) -> None:
        """(1) to (5)."""
        tanh, multiply, add, subtract, half = np.tanh, np.multiply, np.add, np.subtract, self.half
        place, inner_place, rz, (r, z, n, d) = self._place, self._inner_place, self._a[:2], self._a
        product_of, inner_product_of = products
        for (operand, h_before, h), a_n in zip(steps, self._a_n, strict=False):
            product_of(operand, place)  # (1), the rows of r and z halved
            tanh(rz, rz)
            multiply(rz, half, rz)
            add(rz, half, rz)  # (2)
            multiply(r, h_before, r)  # (3)
            inner_product_of(r, inner_place)  # (3)
            add(n, a_n, n)
            tanh(n, n)  # (4)
            subtract(h_before, n, d)
            multiply(z, d, d)
            add(n, d, h)  # (5)


class OneSample(passes.OneSample):
    """As `Inference`, with the products written in."""

    def __init__(self, job: Job, count: int) -> None:
        super().__init__(job, count)
        H, added, hs = job.H, self.added, self.hs
        self._a = aligned((4, H), job.dtype)  # a_r a_z n d
        self._a_rz = self._a[:2].reshape(-1)
        self._steps = [(hs[t], added[t, : 2 * H], added[t, -H:], hs[t + 1]) for t in range(count)]

    def forward(self, U: Array, count: int) -> None:
        """(1) to (5)."""
        dot, tanh, multiply, add, subtract, half = np.dot, np.tanh, np.multiply, np.add, np.subtract, self.half
        rz, (r, z, n, d) = self._a_rz, self._a
        U_rz, U_n = U[: len(rz)], U[len(rz) :]
        for h_before, a_x, a_n, h in self._steps[:count]:
            dot(U_rz, h_before, rz)
            add(rz, a_x, rz)  # (1)
            multiply(rz, half, rz)
            tanh(rz, rz)
            multiply(rz, half, rz)
            add(rz, half, rz)  # (2)
            multiply(r, h_before, r)  # (3)
            dot(U_n, r, n)  # (3)
            add(n, a_n, n)
            tanh(n, n)  # (4)
            subtract(h_before, n, d)
            multiply(z, d, d)
            add(n, d, h)  # (5)
