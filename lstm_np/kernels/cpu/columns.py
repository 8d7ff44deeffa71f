"""Samples as columns, for many of them: the weights stand on the left of each product, [W b U] Z_t and U^T da_t.

`rows.py` and `sample.py` are for few samples and for one; `buffers.py` says what each class is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import buffers
from lstm_np.kernels.cpu.buffers import TILE, Job, block_rows, in_blocks, ring_length, round_up, rows_of_steps

LARGE = 1 << 21  # values; through more than these no product may go in steps of a whole row


def widest(H: int) -> int:
    """How many samples to compute together at most: what fits the cache, or more where the weights do not either."""
    return 256 if H >= 768 else 128


def features(array: Array) -> Array:
    """The (H, b) of a gate or a state."""
    return array


class Weights(buffers.Weights):
    """[W b U] (4H, K), the rows of i, f and o halved, and U^T (H, 4H)."""

    def __init__(self, job: Job, widest: int, shared: Params | None = None) -> None:
        self._job, self._widest = job, widest
        self._half = np.array(0.5, job.dtype)
        self.forward = aligned((4 * job.H, job.K), job.dtype)
        self._transposed = aligned((job.H, 4 * job.H), job.dtype)

    def pack(self, params: Params) -> None:
        """Before a forward pass."""
        D, H, packed = self._job.D, self._job.H, self.forward
        parts = [(slice(0, D), params["W"]), (slice(self._job.K - H, None), params["U"])]
        if self._job.ones:
            parts.append((slice(D, D + 1), params["b"][:, None]))
        for columns, part in parts:
            np.multiply(part[: 3 * H], self._half, packed[: 3 * H, columns])
            packed[3 * H :, columns] = part[3 * H :]

    def pack_backward(self, params: Params) -> None:
        """Before a backward pass."""
        self.backward = transposed(params["U"], self._widest, self._transposed)


def transposed(U: Array, columns: int, room: Array) -> Array:
    """The transpose, for products with `columns` columns: a copy in `room` where the products repay it, else a view.

    The copy goes by one cache line of columns at a time, which NumPy's own does not.
    """
    if columns <= 32 and U.size < LARGE:
        return U.T
    for start in range(0, U.shape[0], TILE):
        room[:, start : start + TILE] = U[start : start + TILE].T
    return room


def product_of(blocks: Array) -> Callable[[Array, Array], None]:
    """What multiplies blocks (count, rows, K) by (K, b) to (count, rows, b); one block alone costs less as a matrix."""
    if len(blocks) > 1:
        matmul = np.matmul
        return lambda z, products: matmul(blocks, z, products)
    dot, matrix = np.dot, blocks[0]
    return lambda z, products: dot(matrix, z, products[0])


class Strip(buffers.Strip):
    """``Z`` (K, T + 1, b): the operand of every product of b columns.

    ``Z[:, t]`` is [x_t; 1; h_{t-1}], so step t of the forward pass reads column block t and writes h into block t + 1.
    """

    def __init__(self, job: Job, b: int) -> None:
        first, H, T = job.D + job.ones, job.H, job.T
        self.T, self.b = T, b
        self.Z = rows_of_steps(round_up(job.K), T + 1, b, job.dtype)
        self.Z[job.D : first] = 1
        self.x, self.h = self.Z[: job.D, :T], self.Z[first : first + H]
        self.steps = [(self.Z[: first + H, t], self.h[:, t + 1]) for t in range(T)]

    def inputs(self, start: int, stop: int, features: slice) -> Array:
        """Side by side: (K, (stop - start) * b)."""
        return self.Z.reshape(self.Z.shape[0], -1)[features, start * self.b : stop * self.b]


class Scratch(buffers.Scratch):
    """For strips of b columns; gates and states are (H, b)."""

    def __init__(self, job: Job, b: int, widest: int) -> None:
        H, K, dtype = job.H, job.K, job.dtype
        self._weight_block = block_rows(4 * H, K, b)
        self.allocate(job, (H, b), widest)
        self._recurrent_block = block_rows(H, 4 * H, b)
        self._dh_blocks = in_blocks(self.dh, self._recurrent_block)
        self.da = rows_of_steps(4 * H, self.chunk, b, dtype)
        gate = self.da.reshape(4, H, self.chunk, b)
        self.backward = [
            buffers.StepBackward(gate[0:2, :, t], gate[2, :, t], gate[3, :, t], self.da[:, t])
            for t in range(self.chunk)
        ]
        rows, steps = round_up(K), self.chunk * b
        block = block_rows(4 * H, steps, rows)
        # blocks of fewer rows gain less than the transposed copy costs
        self._gradient_block = block if 8 <= block < 4 * H else 0
        self._z_T = aligned((steps if self._gradient_block else 0, rows), dtype)

    def products(self, gates: Array, step: int) -> Array:
        """As that of `buffers.Scratch`."""
        return in_blocks(gates.reshape(-1, gates.shape[2]), self._weight_block)

    def forward_product(self, weights: buffers.Weights) -> Callable[[Array, Array], None]:
        """From Z_t (K, b)."""
        return product_of(in_blocks(weights.forward, self._weight_block))

    def backward_product(self, weights: buffers.Weights) -> Callable[[Array], None]:
        """From da (4H, b)."""
        product, dh = product_of(in_blocks(weights.backward, self._recurrent_block)), self._dh_blocks
        return lambda da: product(da, dh)

    def steps_of(self, dy: Array) -> Array:
        """As that of `buffers.Scratch`."""
        return dy.transpose(1, 0, 2)

    def weight_gradient(self, steps: int, z: Array, out: Array) -> None:
        """da z^T, with z (K, steps * b)."""
        da = self.da[:, :steps].reshape(self.da.shape[0], z.shape[1])
        if self._gradient_block:
            z_T = self._z_T[: z.shape[1]]
            z_T[...] = z.T
            np.matmul(in_blocks(da, self._gradient_block), z_T, in_blocks(out, self._gradient_block))
        else:
            np.matmul(da, z.T, out)

    def input_gradient(self, W: Array, dx: Array) -> None:
        """Step by step."""
        np.matmul(W.T, self.da[:, : dx.shape[1]].transpose(1, 0, 2), dx.transpose(1, 0, 2))


class Ring(buffers.Ring):
    """For b columns."""

    def __init__(self, job: Job, b: int) -> None:
        first, H = job.D + job.ones, job.H
        self.length = ring_length(job, b)
        Z = aligned((self.length + 1, job.K, b), job.dtype)
        Z[:, job.D : first] = 1
        self.x, self.h = Z[:-1, : job.D], Z[:, first:]
        self.steps = [(Z[t], self.h[t + 1]) for t in range(self.length)]
        a = aligned((6, H, b), job.dtype)
        gates = a[:4].reshape(4 * H, b)
        self._weight_block = block_rows(4 * H, job.K, b)
        self.views = buffers.RingViews.of(a, in_blocks(gates, self._weight_block), gates)

    def forward_product(self, weights: buffers.Weights) -> Callable[[Array, Array], None]:
        """As that of `Scratch`."""
        return product_of(in_blocks(weights.forward, self._weight_block))


LAYOUT = buffers.Layout(widest, features, Weights, Strip, Scratch, Ring)
