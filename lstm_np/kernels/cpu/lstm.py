"""The LSTM in the fused CPU kernel: the passes of a step, with the equations' numbers of `lstm_np.cells.lstm`.

With u = i g and v = f c_{t-1} (the two terms of c_t), and since di/da_i = i (1 - i) and dg/da_g = 1 - g^2::

    da_i = dc_t p_i    p_i = g i (1 - i)          = u (1 - i)
    da_f = dc_t p_f    p_f = c_{t-1} f (1 - f)    = v (1 - f)
    da_o = dh_t p_o    p_o = tanh(c_t) o (1 - o)  = h_t (1 - o)
    da_g = dc_t p_g    p_g = i (1 - g^2)          = i - u g
    dc_t += dh_t q     q   = o (1 - tanh(c_t)^2)  = o - h_t tanh(c_t)
    dc_{t-1} = dc_t f

The forward pass keeps p_i, p_f, p_o, p_g, f, q instead of the gates: with h_t in Z, 7H values per time step and
sample, beside a copy of the input.  In units of one pass over (H, b), forward makes 11 and 5 of tanh, and 10 for the
derivatives; backward makes 7, or 8 with dy.  That is 12 and 6 calls of NumPy per step, beside the products.
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
from lstm_np.kernels.cpu.passes import Product


@dataclass(slots=True)
class StepDerivatives:
    """p_i ... q of a step; i, f, o lie in the place of p_g, f, q until those come."""

    p_i: Array
    p_f: Array
    p_o: Array
    p_g: Array
    f: Array
    q: Array
    ifo: Array
    i_f: Array
    o: Array


class BlockOfDerivatives(NamedTuple):
    """Of some steps: p_i p_f p_o, and i o, which become p_g q."""

    p_ifo: Array
    i_o: Array


class Derivatives(passes.Kept):
    """(steps, 6, *shape): for each step p_i, p_f, p_o, p_g, f, q."""

    def __init__(self, steps: int, shape: tuple[int, int], dtype: str, tau: int, new: New) -> None:
        self.array = new((steps, 6, *shape), dtype)
        self.steps = [StepDerivatives(P[0], P[1], P[2], P[3], P[4], P[5], P[3:6], P[3:5], P[5]) for P in self.array]
        self._blocks = [  # of tau steps
            BlockOfDerivatives(self.array[t : t + tau, :3], self.array[t : t + tau, 3::2]) for t in range(0, steps, tau)
        ]

    def block(self, number: int, steps: int) -> BlockOfDerivatives:
        """A block that has so many steps, or its first ones."""
        whole = self._blocks[number]
        return whole if len(whole.p_ifo) == steps else BlockOfDerivatives(whole.p_ifo[:steps], whole.i_o[:steps])


@dataclass(slots=True)
class StepForward:
    """What a step computes; `place`: where its product goes."""

    place: Any
    a: Array  # of i, f, o, g
    a_ifo: Array
    g_c: Array  # g and c_{t-1}
    uv: Array  # u = i g and v = f c_{t-1}
    u: Array
    v: Array
    c: Array
    tanh_c: Array
    h: Array


@dataclass(slots=True)
class BlockForward:
    """Of some steps that are computed together: what their derivatives are made of."""

    one_minus: Array  # 1 - i, 1 - f, 1 - o, in the place of a_i a_f a_o
    uvh: Array
    uh: Array
    g_tanh_c: Array
    product: Array  # scratch


@dataclass(slots=True)
class StepBackward:
    """da of a step, by gates, and `da` as its product takes it."""

    da_i: Array
    da_f: Array
    da_o: Array
    da_g: Array
    da: Any


class Passes(passes.Passes):
    """In training."""

    kept = Derivatives

    def __init__(self, job: Job, scratch: Scratch) -> None:
        super().__init__(job, scratch)
        tau, shape = scratch.tau, scratch.shape
        self._a = scratch.new((tau, 6, *shape), job.dtype)  # per step a_i a_f a_o a_g c_{t-1} tanh(c_t)
        uvh = scratch.new((tau, 3, *shape), job.dtype)  # per step u = i g, v = f c_{t-1}, h_t
        self._forward = []
        for step in range(tau):
            a, (u, v, h), uv = self._a[step], uvh[step], uvh[step, :2]
            place = scratch.place(a[:4], step)
            self._forward.append(StepForward(place, a[:4], a[:3], a[3:5], uv, u, v, self._c(step + 1), a[5], h))
        self._blocks = [  # of n steps
            BlockForward(a[:, :3], uvh, uvh[:, ::2], a[:, 3::2], a[:, :2])
            for a, uvh in ((self._a[:n], uvh[:n]) for n in range(tau + 1))
        ]
        self._dc, self._product = (scratch.new(shape, job.dtype) for _ in range(2))
        self._backward = [
            StepBackward(da[0], da[1], da[2], da[3], operand)
            for da, operand in zip(scratch.das, scratch.operands, strict=True)
        ]

    def _c(self, step: int) -> Array:
        """Where c_{t-1} of a step lies."""
        return self._a[step % self.scratch.tau, 4]

    def others(self, step: int) -> Sequence[Array]:
        """c."""
        return (self._c(step),)

    @property
    def others_gradients(self) -> Sequence[Array]:
        """dc."""
        return (self._dc,)

    def forward(self, steps: Sequence[Step], kept: Derivatives, start: int, *products: Product) -> None:
        """(1) to (5)."""
        tanh, multiply, add, copyto, half = np.tanh, np.multiply, np.add, np.copyto, self.half
        (product_of,) = products
        for (z, _, h_next), gates, s in zip(steps, kept.steps[start : start + len(steps)], self._forward, strict=False):
            product_of(z, s.place)  # (1), the rows of i, f and o halved
            tanh(s.a, s.a)  # (3), and tanh(a/2) for (2)
            multiply(s.a_ifo, half, s.a_ifo)
            add(s.a_ifo, half, gates.ifo)  # (2)
            multiply(gates.i_f, s.g_c, s.uv)
            add(s.u, s.v, s.c)  # (4)
            tanh(s.c, s.tanh_c)
            multiply(gates.o, s.tanh_c, s.h)  # (5)
            copyto(h_next, s.h)

    def derive(self, kept: Derivatives, start: int, count: int) -> None:
        """p_i to q."""
        subtract, multiply = np.subtract, np.multiply
        block, (p_ifo, i_o) = self._blocks[count], kept.block(start // self.scratch.tau, count)
        subtract(self.half, block.one_minus, block.one_minus)  # 1 - i, 1 - f, 1 - o
        multiply(block.uvh, block.one_minus, p_ifo)
        multiply(block.uh, block.g_tanh_c, block.product)
        subtract(i_o, block.product, i_o)  # p_g, q

    def backward(
        self, weights: Weights, hs: Array, kept: Derivatives, steps: slice, dys: Array | None, undo_first: bool
    ) -> None:
        """(5') to (1')."""
        multiply, add = np.multiply, np.add
        dh, dc, product, product_to_dh = (
            self.scratch.dh,
            self._dc,
            self._product,
            self.scratch.backward_product(weights),
        )
        derivatives = kept.steps[steps]
        for t in reversed(range(len(derivatives))):
            s, to = derivatives[t], self._backward[t]
            if dys is not None:
                add(dh, dys[t], dh)
            multiply(dh, s.q, product)
            add(dc, product, dc)  # (5')
            multiply(dc, s.p_i, to.da_i)  # (4'), (2')
            multiply(dc, s.p_f, to.da_f)
            multiply(dh, s.p_o, to.da_o)  # (5'), (2')
            multiply(dc, s.p_g, to.da_g)  # (4'), (3')
            multiply(dc, s.f, dc)  # (4')
            if t or undo_first:
                product_to_dh(to.da)  # (1')


class RingViews(NamedTuple):
    """What a step of inference computes: u and v take the place of i and f."""

    a: Array  # of i, f, o, g
    ifo: Array
    i_f: Array
    g_c: Array
    u: Array
    v: Array
    o: Array
    c: Array
    tanh_c: Array

    @classmethod
    def of(cls, a: Array) -> RingViews:
        """From memory for a_i a_f a_o a_g c tanh(c)."""
        return cls(a[:4], a[:3], a[:2], a[3:5], a[0], a[1], a[2], a[4], a[5])


class Inference(passes.Inference):
    """Without a backward pass: the gates overwrite a, u and v overwrite i and f."""

    def __init__(self, job: Job, ring: Ring) -> None:
        super().__init__(job, ring)
        a = aligned((6, *ring.shape), job.dtype)
        self._place, self._views = ring.place(a[:4], 0), RingViews.of(a)

    @property
    def others(self) -> Sequence[Array]:
        """c."""
        return (self._views.c,)

    def forward(self, steps: Sequence[Step], *products: Product) -> None:
        """(1) to (5)."""
        tanh, multiply, add, half = np.tanh, np.multiply, np.add, self.half
        place, (a, ifo, i_f, g_c, u, v, o, c, tanh_c) = self._place, self._views
        (product_of,) = products
        for z, _, h in steps:
            product_of(z, place)  # (1), the rows of i, f and o halved
            tanh(a, a)  # (3), and tanh(a/2) for (2)
            multiply(ifo, half, ifo)
            add(ifo, half, ifo)  # (2)
            multiply(i_f, g_c, i_f)
            add(u, v, c)  # (4)
            tanh(c, tanh_c)
            multiply(o, tanh_c, h)  # (5)


class OneSample(passes.OneSample):
    """As `Inference`, with the product written in."""

    packs = True

    def __init__(self, job: Job, count: int) -> None:
        super().__init__(job, count)
        a = aligned((6, job.H), job.dtype)
        self._a, self._views = a[:4].reshape(-1), RingViews.of(a)
        added: Sequence[Any] = [None] * count if self.joint else self.added
        self._steps = [(self.zs[t], added[t], self.hs[t + 1]) for t in range(count)]

    @property
    def others(self) -> Sequence[Array]:
        """c."""
        return (self._views.c,)

    def forward(self, U: Array, count: int) -> None:
        """(1) to (5)."""
        dot, tanh, multiply, add, half = np.dot, np.tanh, np.multiply, np.add, self.half
        a, (_, ifo, i_f, g_c, u, v, o, c, tanh_c) = self._a, self._views
        apart, whole = not self.joint, not self.halved
        for z, a_x_t, h in self._steps[:count]:
            dot(U, z, a)
            if apart:
                add(a, a_x_t, a)  # (1), that of i, f and o halved if U is
            if whole:
                multiply(ifo, half, ifo)
            tanh(a, a)  # (3), and tanh(a/2) for (2)
            multiply(ifo, half, ifo)
            add(ifo, half, ifo)  # (2)
            multiply(i_f, g_c, i_f)
            add(u, v, c)  # (4)
            tanh(c, tanh_c)
            multiply(o, tanh_c, h)  # (5)
