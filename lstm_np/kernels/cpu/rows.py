"""Samples as rows, for few of them and in training: each product has the weights on its right, Z_t [W b U]^T or da_t U.

With few columns the product of `columns.py` does not fill the registers of OpenBLAS's kernels: those compute tiles that
are 16 or more samples high.  Here the tiles are as high as a block of units instead, and the weights of a block stand
together, so that a product reads them once, from the first to the last.  The weight gradient is da^T Z of arrays that
lie as it needs them, in blocks that BLAS need not pack: therefore many samples are rows too, where there is a weight
gradient (figures: docs/cpu-kernel.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.blas_threads import unpacked_product_limit
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import buffers
from lstm_np.kernels.cpu.buffers import MANY_UNITS, TILE, Job, New, ring_length, round_up

FEW = 24  # samples of a part that are rows in any case
STRIP, FEW_UNITS = 64, 128  # samples at most that are computed together, twice as many of fewer units
LANES = 32  # values in two registers of AVX-512: products are fast whose result is a multiple of that wide
# widths of blocks of columns: the least; from which on one that is no multiple of LANES is fast as well; and the
# largest multiple of LANES that is taken
SLIMMEST_BLOCK, WIDE_BLOCK, WIDEST_BLOCK = 8, 64, 96
ALL_GATES = slice(None)
FEWEST_ROWS = 16  # of a block of the weight gradient
FEWEST_UNITS = 64  # of a layer: with less, four products, one a gate, cost more than one


def widest(H: int) -> int:
    """As `lstm_np.kernels.cpu.columns.widest`."""
    return STRIP if H >= FEW_UNITS else 2 * STRIP


def features(array: Array) -> Array:
    """The (H, b) of a gate or a state (b, H)."""
    return array.T


def block_of_units(H: int, K: int, b: int) -> int:
    """How many units' weights to put together, a divisor of H; 0 where there is none."""
    return block_of_columns(H, b * K) if H >= FEWEST_UNITS else 0


def block_of_columns(columns: int, values: int) -> int:
    """How many columns of a matrix to multiply at once with a matrix of so many values, so that BLAS need not pack.

    An even divisor that is a multiple of LANES if possible, or else a large one; 0 where there is none.  An odd one has
    no tiles in which to pack it.
    """
    most = unpacked_product_limit() // values or WIDE_BLOCK
    fitting = [w for w in range(SLIMMEST_BLOCK, min(most, columns) + 1, 2) if columns % w == 0]

    def rank(w: int) -> tuple[bool, bool, bool, int]:
        return w % LANES == 0 and w <= WIDEST_BLOCK, w >= WIDE_BLOCK, w % (TILE // 2) == 0, w

    return max(fitting, key=rank, default=0)


def room_for_weights(job: Job) -> dict[str, tuple[int, ...]]:
    """The arrays of `Weights` by name: of each gate and block of w units the weights (K, w) and (H, w).

    Where nothing is computed forward again in a backward pass, `weights_in` puts the latter in the place of the former.
    """
    w, gates = job.block, job.of.gates
    shapes: dict[str, tuple[int, ...]] = {"forward_weights": (gates, job.H // w, job.K, w)}
    if job.keep == "lean":
        shapes["backward_weights"] = (gates, job.H // w, job.H, w)
    return shapes


def weights_in(job: Job, room: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays by name, the backward weights too, from those of `room_for_weights`."""
    forward, shape = room["forward_weights"], (job.of.gates, job.H // job.block, job.H, job.block)
    return {"backward_weights": forward.reshape(-1)[: math.prod(shape)].reshape(shape), **room}


class Weights(buffers.Weights):
    """[W b U]^T, that of sigmoids halved, and U, in blocks: `room_for_weights` says which."""

    def __init__(self, job: Job, widest: int, shared: Params | None = None) -> None:
        self.job = job
        if shared is None:
            shared = weights_in(job, {name: aligned(shape, job.dtype) for name, shape in room_for_weights(job).items()})
        self.forward, self.backward = shared["forward_weights"], shared["backward_weights"]
        # W and U are transposed as products with the identity: BLAS moves tiles faster than a NumPy copy does.
        # The price: a weight that is not finite makes its neighbours NaN
        self._tile = np.gcd(job.block, TILE)
        self._identity = np.zeros((job.of.gates, 1, 1, self._tile, self._tile), job.dtype)
        self._identity[...] = np.eye(self._tile)
        self._identity[: job.of.sigmoids] *= 0.5

    def pack(self, params: Params, gates: slice = ALL_GATES) -> None:
        """Before a forward pass: the weights of some gates, or of all."""
        D, H, w, tile, to = self.job.D, self.job.H, self.job.block, self._tile, self.forward[gates]
        G = self.job.of.gates
        for name, first, count in (("W", 0, D), ("U", self.job.K - H, H)):
            tiles = params[name].reshape(G, H // w, w // tile, tile, count)[gates].swapaxes(-1, -2)
            target = to[:, :, first : first + count].reshape(-1, H // w, count, w // tile, tile).swapaxes(2, 3)
            np.matmul(tiles, self._identity[gates], target)
        if self.job.ones:
            b = params["b"].reshape(G, H // w, w)[gates]
            np.multiply(b, self._identity[gates, 0, 0, :1, :1], to[:, :, D])
        if self.job.ones == 2:
            to[:, :, D + 1] = 0
            if range(G)[gates][-1:] == range(G - 1, G):
                to[-1, :, D + 1] = params["b_n"].reshape(H // w, w)

    def pack_backward(self, params: Params, gates: slice = ALL_GATES) -> None:
        """Before a backward pass, likewise."""
        H, w = self.job.H, self.job.block
        self.backward[gates] = params["U"].reshape(-1, H, H // w, w)[gates].swapaxes(1, 2)


def product_of(blocks: Array) -> Callable[[Array, Array], None]:
    """What multiplies (b, K) by blocks (gates, H / w, K, w) to (gates, H / w, b, w)."""
    matmul = np.matmul
    return lambda z, products: matmul(z, blocks, products)


class Products(buffers.Products):
    """For b rows; gates and states are (b, H)."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._joint, self._inner, self._inputs, self._block = job.of.joint, job.of.inner, job.inputs, job.block

    def operand(self, z: Array) -> Any:
        """What `forward_product` takes of Z_t (b, K): all, and with that of h_{t-1} what it reads."""
        return (z, z[:, self._inputs :]) if self._inner == "h" else z

    def place(self, gates: Array, step: int) -> Any:
        """As that of `buffers.Products`."""
        joint = in_blocks_of_units(gates[: self._joint], self._block)
        return (joint, self.inner_place(gates[-1])) if self._inner == "h" else joint

    def forward_product(self, weights: buffers.Weights) -> Callable[[Any, Any], None]:
        """From Z_t (b, K)."""
        joint_product = product_of(weights.forward[: self._joint])
        return joint_product if self._inner != "h" else buffers.in_pairs(joint_product, self.inner_product(weights))

    def inner_place(self, m: Array) -> Any:
        """As that of `buffers.Products`."""
        return in_blocks_of_units(m[None], self._block)[0]

    def inner_product(self, weights: buffers.Weights) -> Callable[[Array, Any], None]:
        """From s, or from [1; h_{t-1}]."""
        return product_of(weights.forward[-1, :, self._inputs :])

    def input_products(self, weights: buffers.Weights, inputs: Array) -> None:
        """From (steps, b, values)."""
        a_n = self.a_n[: len(inputs)]
        np.matmul(inputs[:, None], weights.forward[-1, :, : self._inputs], in_blocks_of_units(a_n, self._block))


class Strip(buffers.Strip):
    """``Z`` (T + 1, b, K): the operand of every product of b rows."""

    def __init__(self, job: Job, b: int, new: New = aligned) -> None:
        first, T = job.D + job.ones, job.T
        self.T, self.b, self._inputs = T, b, job.inputs
        self.Z = new((T + 1, b, round_up(job.K)), job.dtype)
        self.Z.fill(0)
        self._ones, self._padding = self.Z[:, :, job.D : first], self.Z[:, :, job.K :]
        self.write_constants()
        self.hs = self.Z[:, :, first : job.K]
        self.x, self.h = self.Z[:T, :, : job.D].transpose(2, 0, 1), self.hs.transpose(2, 0, 1)
        operand = Products(job).operand
        self.steps = [(operand(self.Z[t, :, : job.K]), self.hs[t], self.hs[t + 1]) for t in range(T)]

    def write_constants(self) -> None:
        """As that of `buffers.Strip`."""
        self._ones[...], self._padding[...] = 1, 0

    def values(self, start: int, stop: int, features: slice) -> Array:
        """One below the other: ((stop - start) * b, K)."""
        return self.Z[start:stop].reshape(-1, self.Z.shape[2])[:, features]

    def inputs(self, start: int, stop: int) -> Array:
        """(stop - start, b, values)."""
        return self.Z[start:stop, :, : self._inputs]


class Scratch(Products, buffers.Scratch):
    """For strips of b rows."""

    def __init__(self, job: Job, b: int, widest: int, new: New = aligned) -> None:
        super().__init__(job)
        of, H = job.of, job.H
        self.allocate(job, (b, H), widest, new)
        self.da = new((of.blocks, self.chunk, b, H), job.dtype)
        self.das = self.da.swapaxes(0, 1)
        self.operands = [self.da[: of.reading, t, None] for t in range(self.chunk)]
        self.inner_operands = [self.da[-1, t, None] for t in range(self.chunk)]
        # of dh, from the gates
        self._parts = new((of.reading, b, H), job.dtype) if of.reading > 1 else self.dh[None]
        self._dx_parts = new((of.gates, b, job.D), job.dtype)  # of dx of a step, likewise
        self._s = np.zeros((self.chunk if of.inner == "s" else 0, b, round_up(job.K) - job.inputs), job.dtype)
        self.s = self._s[:, :, :H]

    def backward_product(self, weights: buffers.Weights) -> Callable[[Any], None]:
        """From da (G, 1, b, H): the sum over the gates."""
        matmul, add, blocks = np.matmul, np.add, weights.backward[: len(self._parts)]
        products, additions = in_blocks_of_units(self._parts, self._block), additions_to(self.dh, self._parts)

        def product(da: Array) -> None:
            matmul(da, blocks, products)
            for arguments in additions:
                add(*arguments)

        return product

    def inner_backward_product(self, weights: buffers.Weights) -> Callable[[Any], None]:
        """From da_n (1, b, H)."""
        matmul, blocks, ds = np.matmul, weights.backward[-1], in_blocks_of_units(self.ds[None], self._block)[0]
        return lambda da: matmul(da, blocks, ds)

    def steps_of(self, dy: Array) -> Array:
        """As that of `buffers.Scratch`."""
        return dy.transpose(1, 2, 0)

    def weight_gradient(self, strip: buffers.Strip, start: int, stop: int, which: slice, out: Array) -> None:
        """da^T z, with z (steps * b, K)."""
        H, steps = self.job.H, stop - start
        by_gate = out.reshape(-1, H, out.shape[1])
        for blocks, columns, gates, to, with_s in self.summands(which):
            z = strip.values(start, stop, columns)
            if with_s:
                z = self._s[:steps].reshape(-1, self._s.shape[2])[:, columns]
            da = self.da[blocks, :steps].reshape(-1, len(z), H)
            products_transposed(da, z, by_gate[gates, :, to])

    def input_gradient(self, W: Array, dx: Array) -> None:
        """Step by step: the sum over the gates."""
        (D, steps, b), H, gates = dx.shape, self.job.H, self.job.of.gates
        if self.job.of.inner == "h":
            self.da[gates - 1, :steps] = self.da[-1, :steps]
        w = block_of_columns(D, b * H) or D
        blocks = W.reshape(gates, H, D // w, w).swapaxes(1, 2)
        products, found = in_blocks_of_units(self._dx_parts, w), self._dx_parts[0]
        additions = additions_to(found, self._dx_parts)
        for t in range(steps):
            np.matmul(self.da[:gates, t, None], blocks, products)
            for arguments in additions:
                np.add(*arguments)
            dx[:, t] = found.T


def products_transposed(matrices: Array, z: Array, out: Array) -> None:
    """The transposes of matrices (count, n, H), each times z (n, K), to out (count, H, K), in blocks that BLAS need not
    pack: so many columns of z for each that two of its registers hold a row.  Large layers gain nothing by that.
    """
    count, n, H = matrices.shape
    block, whole = buffers.block_rows(H, n, LANES), z.shape[1] // LANES * LANES
    if H >= MANY_UNITS or block < FEWEST_ROWS or not buffers.needs_no_packing(block, n, LANES):
        whole = 0
    if whole:
        by_block = matrices.reshape(count, n, H // block, 1, block).transpose(0, 2, 3, 4, 1)
        by_columns = z[:, :whole].reshape(n, -1, LANES).swapaxes(0, 1)
        np.matmul(by_block, by_columns, out[:, :, :whole].reshape(count, H // block, block, -1, LANES).swapaxes(2, 3))
    if whole < z.shape[1]:
        np.matmul(matrices.swapaxes(1, 2), z[:, whole:], out[:, :, whole:])


def additions_to(out: Array, parts: Array) -> list[tuple[Array, Array, Array]]:
    """Of which arrays to compute the sum, and where, so that `out` becomes that of 2 to 4 parts; they are used up.

    One part alone lies in `out`.
    """
    found = [(parts[0], parts[1], out)] if len(parts) > 1 else []
    if len(parts) == 3:
        found.insert(0, (parts[0], parts[2], parts[0]))
    if len(parts) == 4:
        found.insert(0, (parts[:2], parts[2:], parts[:2]))
    return found


class Ring(Products, buffers.Ring):
    """For b rows."""

    def __init__(self, job: Job, b: int) -> None:
        super().__init__(job)
        first, H = job.D + job.ones, job.H
        self.length, self.shape = ring_length(job, b), (b, H)
        self._Z = aligned((self.length + 1, b, round_up(job.K)), job.dtype)
        self._Z[:, :, job.D : first] = 1
        h = self._Z[:, :, first : job.K]
        self.x, self.h = self._Z[:-1, :, : job.D].swapaxes(1, 2), h.swapaxes(1, 2)
        self.steps = [(self.operand(self._Z[t, :, : job.K]), h[t], h[t + 1]) for t in range(self.length)]
        self.a_n = aligned((self.length if job.of.inner else 0, b, H), job.dtype)

    def inputs(self, count: int) -> Array:
        """(count, b, values)."""
        return self._Z[:count, :, : self._inputs]


def in_blocks_of_units(gates: Array, w: int) -> Array:
    """A view (gates, H / w, b, w) of (gates, b, H): `matmul` computes block after block in one call."""
    count, b, H = gates.shape
    return gates.reshape(count, b, H // w, w).swapaxes(1, 2)


LAYOUT = buffers.Layout(widest, features, Weights, Strip, Scratch, Ring)
