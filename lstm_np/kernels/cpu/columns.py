"""Samples as columns, for many of them: the weights stand on the left of each product, [W b U] Z_t and U^T da_t.

`rows.py` and `sample.py` are for few samples and for one; `buffers.py` says what each class is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import buffers
from lstm_np.kernels.cpu.buffers import (
    MANY_UNITS,
    TILE,
    Job,
    New,
    block_rows,
    in_blocks,
    inner_parts,
    needs_no_packing,
    ring_length,
    round_up,
    rows_of_steps,
)

LARGE = 1 << 21  # values; through more than these no product may go in steps of a whole row
WIDEST_TILE = 128  # columns of U that are transposed together
LONGEST_COLUMN = 1024  # values that a product of a transposed matrix adds up as fast as those of any other


def widest(H: int) -> int:
    """How many samples to compute together at most: what fits the cache, and products with blocks of some rows."""
    return 64 if H >= MANY_UNITS else 128


def features(array: Array) -> Array:
    """The (H, b) of a gate or a state."""
    return array


class Weights(buffers.Weights):
    """[W b U] (G * H, K), the rows of sigmoids halved, and U^T (H, G * H)."""

    def __init__(self, job: Job, widest: int, shared: Params | None = None) -> None:
        self._job, self._widest = job, widest
        self._half = np.array(0.5, job.dtype)
        self.forward = aligned((job.of.gates * job.H, job.K), job.dtype)
        self._transposed = aligned((job.H, job.of.gates * job.H), job.dtype)

    def pack(self, params: Params) -> None:
        """Before a forward pass."""
        D, H, packed = self._job.D, self._job.H, self.forward
        sigmoids = self._job.of.sigmoids * H
        parts = [(slice(0, D), params["W"]), (slice(self._job.K - H, None), params["U"])]
        if self._job.ones:
            parts.append((slice(D, D + 1), params["b"][:, None]))
        for columns, part in parts:
            np.multiply(part[:sigmoids], self._half, packed[:sigmoids, columns])
            packed[sigmoids:, columns] = part[sigmoids:]
        if self._job.ones == 2:
            packed[:-H, D + 1], packed[-H:, D + 1] = 0, params["b_n"]

    def pack_backward(self, params: Params) -> None:
        """Before a backward pass."""
        self.backward = transposed(params["U"], self._widest, self._transposed)


def stays_as_it_is(values: int, columns: int) -> bool:
    """Whether products with so many columns read the transpose of a matrix of so many values where that lies."""
    return columns <= 32 and values < LARGE


def transposed(U: Array, columns: int, room: Array) -> Array:
    """The transpose, for products with `columns` columns: a copy in `room` where the products repay it, else a view.

    The copy is a product with the identity where H allows it, since BLAS moves tiles faster than NumPy does (the price:
    a weight that is not finite makes its neighbours NaN); else it goes by one cache line of columns at a time.
    """
    if stays_as_it_is(U.size, columns):
        return U.T
    rows, H = U.shape
    block = math.gcd(H, WIDEST_TILE)
    if block % TILE == 0:
        tiles = U.reshape(rows // TILE, TILE, H // block, block).transpose(0, 2, 3, 1)
        to = room.reshape(H // block, block, rows // TILE, TILE).transpose(2, 0, 1, 3)
        np.matmul(tiles, np.eye(TILE, dtype=U.dtype), to)
        return room
    for start in range(0, rows, TILE):
        room[:, start : start + TILE] = U[start : start + TILE].T
    return room


def product_of(blocks: Array) -> Callable[[Array, Array], None]:
    """What multiplies blocks (count, rows, K) by (K, b) to (count, rows, b); one block alone costs less as a matrix."""
    if len(blocks) > 1:
        matmul = np.matmul
        return lambda z, products: matmul(blocks, z, products)
    dot, matrix = np.dot, blocks[0]
    return lambda z, products: dot(matrix, z, products[0])


def sum_of_products(matrix: Array, parts: int, block: int, summands: Array, out: Array) -> Callable[[Array], None]:
    """What multiplies a matrix by (columns, b), some of its columns at a time, to summands (parts, rows, b): their sum.

    Each of these products goes by blocks of rows, as in `product_of`.
    """
    rows, b = out.shape
    blocks = matrix.reshape(rows // block, block, parts, -1).transpose(2, 0, 1, 3)
    matmul, add, products = np.matmul, np.add, summands.reshape(parts, -1, block, b)
    first, second, *others = summands

    def product(z: Array) -> None:
        matmul(blocks, z.reshape(parts, 1, -1, b), products)
        add(first, second, out)
        for summand in others:
            add(out, summand, out)

    return product


class Products(buffers.Products):
    """For b columns; gates and states are (H, b)."""

    def __init__(self, job: Job, b: int) -> None:
        of, H = job.of, job.H
        self.job = job
        self._joint, self._inner, self._inputs = of.joint * H, of.inner, job.inputs
        self._weight_block = block_rows(self._joint, job.K, b)
        self._inner_block = block_rows(H, job.K - job.inputs, b)
        self._input_block = block_rows(H, job.inputs, b)

    def operand(self, z: Array) -> Any:
        """What `forward_product` takes of Z_t (K, b): all, and with that of h_{t-1} what it reads."""
        return (z, z[self._inputs :]) if self._inner == "h" else z

    def place(self, gates: Array, step: int) -> Any:
        """As that of `buffers.Products`."""
        joint = in_blocks(gates.reshape(-1, gates.shape[2])[: self._joint], self._weight_block)
        return (joint, self.inner_place(gates[-1])) if self._inner == "h" else joint

    def forward_product(self, weights: buffers.Weights) -> Callable[[Any, Any], None]:
        """From Z_t (K, b)."""
        joint_product = product_of(in_blocks(weights.forward[: self._joint], self._weight_block))
        return joint_product if self._inner != "h" else buffers.in_pairs(joint_product, self.inner_product(weights))

    def inner_place(self, m: Array) -> Any:
        """As that of `buffers.Products`."""
        return in_blocks(m, self._inner_block)

    def inner_product(self, weights: buffers.Weights) -> Callable[[Array, Any], None]:
        """From s, or from [1; h_{t-1}]."""
        return product_of(in_blocks(weights.forward[self._joint :, self._inputs :], self._inner_block))

    def input_products(self, weights: buffers.Weights, inputs: Array) -> None:
        """From (steps, values, b)."""
        blocks = in_blocks(weights.forward[self._joint :, : self._inputs], self._input_block)
        a_n = self.a_n[: len(inputs)]
        np.matmul(blocks, inputs[:, None], a_n.reshape(len(a_n), *blocks.shape[:2], -1))


class Strip(buffers.Strip):
    """``Z`` (T + 1, K, b): the operands of the products of b columns.

    ``Z[t]`` is [x_t; 1; h_{t-1}], so step t of the forward pass reads it, in one piece, and writes h into ``Z[t + 1]``.
    """

    def __init__(self, job: Job, b: int, new: New = aligned) -> None:
        first, H, T = job.D + job.ones, job.H, job.T
        self.T, self.b, self._inputs = T, b, job.inputs
        self.Z = new((T + 1, job.K, b), job.dtype)
        self._ones = self.Z[:, job.D : first]
        self.write_constants()
        self.hs = self.Z[:, first : first + H]
        self.x, self.h = self.Z[:T, : job.D].transpose(1, 0, 2), self.hs.transpose(1, 0, 2)
        operand = Products(job, b).operand
        self.steps = [(operand(self.Z[t]), self.hs[t], self.hs[t + 1]) for t in range(T)]

    def write_constants(self) -> None:
        """As that of `buffers.Strip`."""
        self._ones[...] = 1

    def values(self, start: int, stop: int, features: slice) -> Array:
        """(stop - start, b, values), without padding."""
        return self.Z[start:stop, features].transpose(0, 2, 1)

    def inputs(self, start: int, stop: int) -> Array:
        """(stop - start, values, b)."""
        return self.Z[start:stop, : self._inputs]


class Scratch(Products, buffers.Scratch):
    """For strips of b columns."""

    def __init__(self, job: Job, b: int, widest: int, new: New = aligned) -> None:
        super().__init__(job, b)
        of, H, K, dtype = job.of, job.H, job.K, job.dtype
        self.allocate(job, (H, b), widest, new)
        self._reading, steps = of.reading * H, self.chunk * b
        self._parts = inner_parts(H, self._reading, b)
        as_it_is = stays_as_it_is(of.gates * H * H, widest)
        self._recurrent_block = block_rows(H, self._reading // self._parts, b, transposed=as_it_is)
        self._dh_parts = new((self._parts if self._parts > 1 else 0, H, b), dtype)  # of dh
        self._inner_recurrent_block = block_rows(H, H, b)
        self._dh_blocks = in_blocks(self.dh, self._recurrent_block)
        self._ds_blocks = in_blocks(self.ds, self._inner_recurrent_block)
        self.das = new((self.chunk, of.blocks, H, b), dtype)
        das = self.das.reshape(self.chunk, of.blocks * H, b)
        self._da_by_step = das.transpose(1, 0, 2)
        self.operands = [da[: self._reading] for da in das]
        self.inner_operands = [da[-H:] for da in das]
        # of all steps side by side, for the weight gradient
        self.da = rows_of_steps(of.blocks * H, self.chunk, b, dtype, new)
        self._z_T = aligned((steps, round_up(K)), dtype)  # whose padding stays 0
        self._z_T[:, K:] = 0
        self.s = new((self.chunk if of.inner == "s" else 0, H, b), dtype)
        self._dx_of_step = new((job.D, b), dtype)

    def backward_product(self, weights: buffers.Weights) -> Callable[[Any], None]:
        """From da (G * H, b)."""
        matrix, parts, block = weights.backward[:, : self._reading], self._parts, self._recurrent_block
        if parts == 1:
            product, dh = product_of(in_blocks(matrix, block)), self._dh_blocks
            return lambda da: product(da, dh)
        return sum_of_products(matrix, parts, block, self._dh_parts, self.dh)

    def inner_backward_product(self, weights: buffers.Weights) -> Callable[[Any], None]:
        """From da_n (H, b)."""
        matrix = weights.backward[:, self._reading :]
        product, ds = product_of(in_blocks(matrix, self._inner_recurrent_block)), self._ds_blocks
        return lambda da: product(da, ds)

    def steps_of(self, dy: Array) -> Array:
        """As that of `buffers.Scratch`."""
        return dy.transpose(1, 0, 2)

    def weight_gradient(self, strip: buffers.Strip, start: int, stop: int, which: slice, out: Array) -> None:
        """da z_T, with z_T (steps * b, K)."""
        H, K, steps = self.job.H, self.job.K, stop - start
        np.copyto(self.da[:, :steps], self._da_by_step[:, :steps])
        z_T = self._z_T[: steps * self.dh.shape[1]]
        by_step = z_T.reshape(steps, -1, z_T.shape[1])
        by_step[:, :, :K] = strip.values(start, stop, slice(None))
        for blocks, columns, gates, to, with_s in self.summands(which):
            da = self.da[blocks.start * H : blocks.stop * H, :steps].reshape(-1, len(z_T))
            if with_s:  # the last one, which reads nothing else
                by_step[:, :, :H], by_step[:, :, H:K] = self.s[:steps].transpose(0, 2, 1), 0
            np.matmul(da, z_T[:, columns], out[gates.start * H : gates.stop * H, to])

    def input_gradient(self, W: Array, dx: Array) -> None:
        """Step by step where that is the faster product, or else all at once, as `weight_gradient` has laid them."""
        gates, (D, steps, b) = len(W), dx.shape
        block = block_rows(D, gates, b, transposed=True)
        fast = gates <= LONGEST_COLUMN and block % 8 == 0 and needs_no_packing(block, gates, b)
        if fast and stays_as_it_is(W.size, b):
            if self.job.of.inner == "h":
                self.das[:steps, self.job.of.gates - 1] = self.das[:steps, -1]
            product, found = product_of(in_blocks(W.T, block)), in_blocks(self._dx_of_step, block)
            for t in range(steps):
                product(self.das[t].reshape(-1, b)[:gates], found)
                dx[:, t] = self._dx_of_step
            return
        if self.job.of.inner == "h":
            self.da[gates - self.job.H : gates, :steps] = self.da[gates:, :steps]
        dx[...] = (W.T @ self.da[:gates, :steps].reshape(gates, -1)).reshape(D, steps, b)


class Ring(Products, buffers.Ring):
    """For b columns."""

    def __init__(self, job: Job, b: int) -> None:
        super().__init__(job, b)
        first, H = job.D + job.ones, job.H
        self.length, self.shape = ring_length(job, b), (H, b)
        self._Z = aligned((self.length + 1, job.K, b), job.dtype)
        self._Z[:, job.D : first] = 1
        self.x, self.h = self._Z[:-1, : job.D], self._Z[:, first:]
        self.steps = [(self.operand(self._Z[t]), self.h[t], self.h[t + 1]) for t in range(self.length)]
        self.a_n = aligned((self.length if job.of.inner else 0, H, b), job.dtype)

    def inputs(self, count: int) -> Array:
        """(count, values, b)."""
        return self._Z[:count, : self._inputs]


LAYOUT = buffers.Layout(widest, features, Weights, Strip, Scratch, Ring)
