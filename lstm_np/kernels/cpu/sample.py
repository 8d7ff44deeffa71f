"""One sample: products of the weights as they are with a vector, since packing them would cost as much as a product.

U h_{t-1} is a product per step, W x_t + b of some steps is one product.  The sample is a row, as in `rows.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import buffers, rows
from lstm_np.kernels.cpu.buffers import Job

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


def input_products(params: Params, x: Array, out: Array) -> None:
    """W x + b of some steps (count, 4H), from x (count, D)."""
    np.matmul(x, params["W"].T, out)
    if "b" in params:
        np.add(out, params["b"], out)


class Strip(rows.Strip):
    """`rows.Strip` for one sample: a step reads h_{t-1} (H,)."""

    def __init__(self, job: Job, b: int) -> None:
        super().__init__(job, b)
        self.steps = [(self._h[t, 0], self._h[t + 1]) for t in range(job.T)]


@dataclass(slots=True)
class StepProduct:
    """Which of the steps that go together it is, and where its product goes: all gates, and a_i a_f a_o."""

    step: int
    a: Array
    a_ifo: Array


class Scratch(buffers.Scratch):
    """For one sample: gates and states are (1, H)."""

    def __init__(self, job: Job, b: int, widest: int) -> None:
        self._D, self._half = job.D, np.array(0.5, job.dtype)
        self.allocate(job, (1, job.H), widest)
        self._a_x = aligned((self.tau, 4 * job.H), job.dtype)  # W x_t + b of the steps that go together
        self.da = aligned((self.chunk, 4, 1, job.H), job.dtype)
        self.backward = [buffers.StepBackward(da[0:2], da[2], da[3], da.reshape(-1)) for da in self.da]

    def inputs_of_steps(self, weights: buffers.Weights, strip: buffers.Strip, start: int, count: int) -> None:
        """W x_t + b of the steps from start on."""
        input_products(weights.params, strip.Z[start : start + count, 0, : self._D], self._a_x[:count])

    def products(self, gates: Array, step: int) -> Array:
        """A `StepProduct`."""
        return StepProduct(step, gates.reshape(-1), gates[:3])

    def forward_product(self, weights: buffers.Weights) -> Callable[[Array, Array], None]:
        """U h + (W x + b), from h (H,)."""
        dot, add, multiply, half, U, a_x = np.dot, np.add, np.multiply, self._half, weights.forward, list(self._a_x)

        def product(h: Array, products: Array) -> None:
            a = products.a
            dot(U, h, a)
            add(a, a_x[products.step], a)
            multiply(products.a_ifo, half, products.a_ifo)

        return product

    def backward_product(self, weights: buffers.Weights) -> Callable[[Array], None]:
        """From da (4H,)."""
        dot, U, dh = np.dot, weights.backward, self.dh.reshape(-1)
        return lambda da: dot(da, U, dh)

    def steps_of(self, dy: Array) -> Array:
        """As that of `buffers.Scratch`."""
        return dy.transpose(1, 2, 0)

    def weight_gradient(self, steps: int, z: Array, out: Array) -> None:
        """da^T z, with z (steps, K)."""
        np.matmul(self.da[:steps].reshape(steps, -1).T, z, out)

    def input_gradient(self, W: Array, dx: Array) -> None:
        """All steps at once."""
        np.matmul(self.da[: dx.shape[1]].reshape(dx.shape[1], -1), W, dx[:, :, 0].T)


LAYOUT = buffers.Layout(widest, rows.features, Weights, Strip, Scratch, None)


class Inference:
    """Buffers for inference of one sample, `count` steps of which have their W x + b made together.

    values  how many it takes of memory

    Its loop is that of `Part._infer` with the product written in: the calls that sharing one needs at every step make
    one sample slower (figures: docs/cpu-kernel.md).
    """

    def __init__(self, H: int, count: int, dtype: str) -> None:
        self._half, self.values = np.array(0.5, dtype), (6 + 5 * count + 1) * H
        a = aligned((6, H), dtype)
        gates = a[:4].reshape(-1)
        self._views = buffers.RingViews.of(a, gates, gates)
        self._a_x, self._h = aligned((count, 4 * H), dtype), aligned((count + 1, H), dtype)
        self._steps = [(self._h[t], self._a_x[t], self._h[t + 1]) for t in range(count)]

    def run(self, params: Params, x: Array, h_in: Array, c_in: Array, y: Array | None) -> None:
        """x (D, T) to y (H, T); h and c (H,) are h_0, c_0 and become h_T, c_T."""
        dot, tanh, multiply, add, half = np.dot, np.tanh, np.multiply, np.add, self._half
        _, a, ifo, i_f, g_c, u, v, o, c, tanh_c = self._views
        U, hs, T = np.ascontiguousarray(params["U"]), self._h, x.shape[1]
        hs[0], c[...] = h_in, c_in
        for start in range(0, T, len(self._steps)):
            n = min(len(self._steps), T - start)
            input_products(params, x[:, start : start + n].T, self._a_x[:n])
            for h_before, a_x_t, h in self._steps[:n]:
                dot(U, h_before, a)
                add(a, a_x_t, a)  # (1)
                multiply(ifo, half, ifo)
                tanh(a, a)  # (3), and tanh(a/2) for (2)
                multiply(ifo, half, ifo)
                add(ifo, half, ifo)  # (2)
                multiply(i_f, g_c, i_f)
                add(u, v, c)  # (4)
                tanh(c, tanh_c)
                multiply(o, tanh_c, h)  # (5)
            if y is not None:
                y[:, start : start + n] = hs[1 : n + 1].T
            hs[0] = hs[n]
        h_in[:], c_in[:] = hs[0], c
