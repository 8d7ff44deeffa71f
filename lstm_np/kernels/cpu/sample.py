"""One sample: products of the weights as they are with a vector, since packing them would cost as much as a product.

U h_{t-1} is a product per step, W x_t + b of some steps is one product.  The sample is a row, as in
`lstm_np.kernels.cpu.rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import buffers, rows
from lstm_np.kernels.cpu.buffers import Job

Array = Any
INFER_STEPS = 64  # steps of inference whose input products are made together

features = rows.features


def strip(H: int) -> int:
    """As `lstm_np.kernels.cpu.columns.strip`."""
    return 1


class Weights:
    """The parameters."""

    def __init__(self, job: Job, widest: int, shared: Mapping[str, Array] | None = None) -> None:
        self.W: Array = None
        self.b: Array = None
        self.U: Array = None

    def pack(self, params: Mapping[str, Array]) -> None:
        """Before a forward pass."""
        self.W, self.b, self.U = params["W"], params.get("b"), np.ascontiguousarray(params["U"])

    def pack_backward(self, params: Mapping[str, Array]) -> None:
        """Before a backward pass."""
        self.U = np.ascontiguousarray(params["U"])


def input_products(W: Array, b: Array | None, x: Array, out: Array) -> None:
    """W x + b of some steps (count, 4H), from x (count, D)."""
    np.matmul(x, W.T, out)
    if b is not None:
        np.add(out, b, out)


class Strip(rows.Strip):
    """`rows.Strip` for one sample: a step reads h_{t-1} (H,)."""

    def __init__(self, job: Job, b: int) -> None:
        super().__init__(job, b)
        self.steps = [(self._h[t, 0], self._h[t + 1]) for t in range(job.T)]


class Scratch(buffers.Scratch):
    """Buffers for one sample: gates and states are (1, H)."""

    def __init__(self, job: Job, b: int, widest: int) -> None:
        self._D, self._half = job.D, np.array(0.5, job.dtype)
        super().__init__(job, (1, job.H), widest)
        self._a_x = aligned((self.tau, 4 * job.H), job.dtype)  # W x_t + b of the steps that go together
        self.da = aligned((self.chunk, 4, 1, job.H), job.dtype)
        self.backward = [(da[0:2], da[2], da[3], da.reshape(-1)) for da in self.da]

    def inputs_of_steps(self, weights: Weights, strip: rows.Strip, start: int, count: int) -> None:
        """W x_t + b of the steps from start on."""
        x = strip.Z[start : start + count, 0, : self._D]
        input_products(weights.W, weights.b, x, self._a_x[:count])

    def _products(self, gates: Array, step: int) -> Any:
        return step, gates.reshape(-1), gates[:3]

    def forward_product(self, weights: Weights) -> Callable[[Array, Any], None]:
        """U h + (W x + b) to where the gates are computed, from h (H,); the rows of i, f and o halved."""
        dot, add, multiply, half, U, a_x = np.dot, np.add, np.multiply, self._half, weights.U, list(self._a_x)

        def product(h: Array, products: Any) -> None:
            step, a, a_ifo = products
            dot(U, h, a)
            add(a, a_x[step], a)
            multiply(a_ifo, half, a_ifo)

        return product

    def backward_product(self, weights: Weights) -> Callable[[Array], None]:
        """da U to dh, from da (4H,)."""
        dot, U, dh = np.dot, weights.U, self.dh.reshape(-1)
        return lambda da: dot(da, U, dh)

    steps_of = staticmethod(rows.Scratch.steps_of)

    def weight_gradient(self, steps: int, z: Array, out: Array) -> None:
        """da^T z (4H, K) of the first steps of da and their z (steps, K)."""
        np.matmul(self.da[:steps].reshape(steps, -1).T, z, out)

    def input_gradient(self, W: Array, dx: Array) -> None:
        """da W to dx (D, steps, 1)."""
        np.matmul(self.da[: dx.shape[1]].reshape(dx.shape[1], -1), W, dx[:, :, 0].T)


class Inference:
    """Buffers for inference of one sample, `count` steps of which have their W x + b made together.

    values  how many it takes of memory

    Its loop is that of `Part._infer` with the product written in: sharing one was tried, and the calls that it needs at
    every step made one sample 5 % slower (H = 32 and 128).
    """

    def __init__(self, H: int, count: int, dtype: str) -> None:
        self._half, self.values = np.array(0.5, dtype), (6 + 5 * count + 1) * H
        gates = aligned((6, H), dtype)  # a_i a_f a_o a_g c tanh(c); then u v in place of i f
        u, v, o, _, self._c, tanh_c = gates
        self._gates = gates[:4].reshape(-1), gates[:3].reshape(-1), gates[:2], gates[3:5], u, v, o, self._c, tanh_c
        self._a_x, self._h = aligned((count, 4 * H), dtype), aligned((count + 1, H), dtype)
        self._steps = [(self._h[t], self._a_x[t], self._h[t + 1]) for t in range(count)]

    def run(self, params: Mapping[str, Array], x: Array, h_in: Array, c_in: Array, y: Array | None) -> None:
        """x (D, T) to y (H, T); h and c (H,) are h_0, c_0 and become h_T, c_T."""
        dot, tanh, multiply, add, half = np.dot, np.tanh, np.multiply, np.add, self._half
        a, ifo, i_f, g_c, u, v, o, c, tanh_c = self._gates
        U, hs, T = np.ascontiguousarray(params["U"]), self._h, x.shape[1]
        hs[0], c[...] = h_in, c_in
        for start in range(0, T, len(self._steps)):
            n = min(len(self._steps), T - start)
            input_products(params["W"], params.get("b"), x[:, start : start + n].T, self._a_x[:n])
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
