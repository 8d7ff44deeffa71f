"""One sample: products of the weights as they are with a vector, since packing them would cost as much as a product.

U h_{t-1} is a product per step, W x_t + b of some steps is one product.  The sample is a row, as in `rows.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import buffers, rows
from lstm_np.kernels.cpu.buffers import Job, round_up

INFER_STEPS = 64  # steps of inference whose input products are made together


def widest(H: int) -> int:
    """As `lstm_np.kernels.cpu.columns.widest`."""
    return 1


class Weights(buffers.Weights):
    """The parameters, and U, contiguous, for both passes."""

    def __init__(self, job: Job, widest: int, shared: Params | None = None) -> None:
        """There is nothing to make room for."""

    def pack(self, params: Params) -> None:
        """Before a forward pass."""
        self.params, self.forward = params, np.ascontiguousarray(params["U"])

    def pack_backward(self, params: Params) -> None:
        """Before a backward pass."""
        self.backward = np.ascontiguousarray(params["U"])


def input_products(job: Job, params: Params, x: Array, out: Array) -> None:
    """What steps (count, blocks * H) add to their products, from x (count, D): W x + b, and c_n for m."""
    W, b, H = params["W"], params.get("b"), job.H
    if not job.of.inner:
        affine(x, W, b, out)
        return
    joint = job.of.joint * H
    affine(x, W[:joint], None if b is None else b[:joint], out[:, :joint])
    affine(x, W[joint:], None if b is None else b[joint:], out[:, -H:])
    if job.of.inner == "h":
        out[:, joint : joint + H] = params.get("b_n", 0)


def affine(x: Array, W: Array, b: Array | None, out: Array) -> None:
    """W x + b of steps (count, D)."""
    np.matmul(x, W.T, out)
    if b is not None:
        np.add(out, b, out)


class Strip(rows.Strip):
    """`rows.Strip` for one sample: a step reads h_{t-1} (H,)."""

    def __init__(self, job: Job, b: int) -> None:
        super().__init__(job, b)
        self.steps = [(self.hs[t, 0], self.hs[t], self.hs[t + 1]) for t in range(job.T)]


@dataclass(slots=True)
class StepProduct:
    """Which of the steps that go together it is, and where its product goes: all of it, and what sigmoids read."""

    step: int
    a: Array
    a_sigmoids: Array


class Scratch(buffers.Scratch):
    """For one sample: gates and states are (1, H)."""

    def __init__(self, job: Job, b: int, widest: int) -> None:
        of, H = job.of, job.H
        self._half = np.array(0.5, job.dtype)
        self.allocate(job, (1, H), widest)
        # what is added to the product of each step, and a_n of a gate with one of its own behind it
        self._added = aligned((self.tau, of.blocks * H), job.dtype)
        self.a_n = self._added[:, None, -H:]
        self.das = aligned((self.chunk, of.blocks, 1, H), job.dtype)
        self.operands = [da[: of.reading].reshape(-1) for da in self.das]
        self.inner_operands = [da[-1].reshape(-1) for da in self.das]
        self._s = np.zeros((self.chunk if of.inner == "s" else 0, round_up(job.K) - job.inputs), job.dtype)
        self.s = self._s[:, None, :H]

    def inputs_of_steps(self, weights: buffers.Weights, strip: buffers.Strip, start: int, count: int) -> None:
        """W x_t + b of the steps from start on."""
        input_products(self.job, weights.params, strip.Z[start : start + count, 0, : self.job.D], self._added[:count])

    def input_products(self, weights: buffers.Weights, inputs: Array) -> None:
        """`inputs_of_steps` does it."""

    def place(self, gates: Array, step: int) -> Any:
        """A `StepProduct`."""
        return StepProduct(step, gates.reshape(-1), gates[: self.job.of.sigmoids])

    def forward_product(self, weights: buffers.Weights) -> Callable[[Any, Any], None]:
        """U h + (W x + b), from h (H,)."""
        dot, add, multiply, half = np.dot, np.add, np.multiply, self._half
        reading = self.job.of.reading * self.job.H
        U, added = weights.forward[:reading], list(self._added[:, :reading])
        sigmoids = self.job.of.sigmoids

        def product(h: Array, place: StepProduct) -> None:
            a = place.a
            dot(U, h, a)
            add(a, added[place.step], a)
            if sigmoids:
                multiply(place.a_sigmoids, half, place.a_sigmoids)

        return product

    def inner_place(self, m: Array) -> Any:
        """As that of `buffers.Products`."""
        return m.reshape(-1)

    def inner_product(self, weights: buffers.Weights) -> Callable[[Array, Any], None]:
        """From s (1, H)."""
        dot, U_n = np.dot, weights.forward[-self.job.H :]
        return lambda s, m: dot(U_n, s[0], m)

    def backward_product(self, weights: buffers.Weights) -> Callable[[Any], None]:
        """From da (G * H,)."""
        dot, U, dh = np.dot, weights.backward[: self.job.of.reading * self.job.H], self.dh.reshape(-1)
        return lambda da: dot(da, U, dh)

    def inner_backward_product(self, weights: buffers.Weights) -> Callable[[Any], None]:
        """From da_n (H,)."""
        dot, U_n, ds = np.dot, weights.backward[-self.job.H :], self.ds.reshape(-1)
        return lambda da: dot(da, U_n, ds)

    def steps_of(self, dy: Array) -> Array:
        """As that of `buffers.Scratch`."""
        return dy.transpose(1, 2, 0)

    def weight_gradient(self, strip: buffers.Strip, start: int, stop: int, which: slice, out: Array) -> None:
        """da^T z, with z (steps, K)."""
        H, steps = self.job.H, stop - start
        for blocks, columns, gates, to, with_s in self.summands(which):
            z = self._s[:steps, columns] if with_s else strip.values(start, stop, columns)
            da = self.das[:steps, blocks].reshape(steps, -1)
            np.matmul(da.T, z, out[gates.start * H : gates.stop * H, to])

    def input_gradient(self, W: Array, dx: Array) -> None:
        """All steps at once."""
        steps, gates = dx.shape[1], self.job.of.gates
        if self.job.of.inner == "h":
            self.das[:steps, gates - 1] = self.das[:steps, -1]
        np.matmul(self.das[:steps, :gates].reshape(steps, -1), W, dx[:, :, 0].T)


LAYOUT = buffers.Layout(widest, rows.features, Weights, Strip, Scratch, None)
