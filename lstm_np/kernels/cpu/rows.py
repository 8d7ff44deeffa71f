"""Samples as rows, for few of them: the weights stand on the right of each product, Z_t [W b U]^T and da_t U.

With few columns the product of `columns.py` does not fill the registers of OpenBLAS's kernels: those compute tiles that
are 16 or more samples high.  Here the tiles are as high as a block of units instead, and the weights of a block stand
together, so that a product reads them once, from the first to the last (figures: docs/cpu-kernel.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.blas_threads import unpacked_product_limit
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import buffers
from lstm_np.kernels.cpu.buffers import TILE, Job, ring_length, round_up

STRIP = 24  # samples at most
WIDEST_BLOCK, SLIMMEST_BLOCK = 64, 8  # units
ALL_GATES = slice(0, 4)
FEWEST_UNITS = 64  # of a layer: with less, four products, one a gate, cost more than one


def widest(H: int) -> int:
    """As `lstm_np.kernels.cpu.columns.widest`."""
    return STRIP


def features(array: Array) -> Array:
    """The (H, b) of a gate or a state (b, H)."""
    return array.T


def block_of_units(H: int, K: int, b: int) -> int:
    """How many units' weights to put together: a divisor of H, in whole tiles if possible; 0 where there is none."""
    most = min(WIDEST_BLOCK, unpacked_product_limit() // (b * K) or WIDEST_BLOCK)
    if H < FEWEST_UNITS:
        return 0
    fitting = [w for w in range(SLIMMEST_BLOCK, most + 1) if H % w == 0]
    return max(fitting, key=lambda w: (w % TILE == 0, w), default=0)


def room_for_weights(job: Job) -> dict[str, tuple[int, ...]]:
    """The arrays of `Weights` by name: of each gate and block of w units the weights (K, w) and (H, w).

    Where nothing is computed forward again in a backward pass, `weights_in` puts the latter in the place of the former.
    """
    w = job.block
    shapes: dict[str, tuple[int, ...]] = {"forward_weights": (4, job.H // w, job.K, w)}
    if job.keep == "lean":
        shapes["backward_weights"] = (4, job.H // w, job.H, w)
    return shapes


def weights_in(job: Job, room: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays by name, the backward weights too, from those of `room_for_weights`."""
    forward, shape = room["forward_weights"], (4, job.H // job.block, job.H, job.block)
    return {"backward_weights": forward.reshape(-1)[: math.prod(shape)].reshape(shape), **room}


class Weights(buffers.Weights):
    """[W b U]^T, that of i, f and o halved, and U, in blocks: `room_for_weights` says which."""

    def __init__(self, job: Job, widest: int, shared: Params | None = None) -> None:
        self._job = job
        if shared is None:
            shared = weights_in(job, {name: aligned(shape, job.dtype) for name, shape in room_for_weights(job).items()})
        self.forward, self.backward = shared["forward_weights"], shared["backward_weights"]
        # W and U are transposed as products with the identity: BLAS moves tiles faster than a NumPy copy does.
        # The price: a weight that is not finite makes its neighbours NaN
        self._tile = np.gcd(job.block, TILE)
        self._identity = np.zeros((4, 1, 1, self._tile, self._tile), job.dtype)
        self._identity[...] = np.eye(self._tile)
        self._identity[:3] *= 0.5

    def pack(self, params: Params, gates: slice = ALL_GATES) -> None:
        """Before a forward pass: the weights of some gates, or of all."""
        D, H, w, tile, to = self._job.D, self._job.H, self._job.block, self._tile, self.forward[gates]
        for name, first, count in (("W", 0, D), ("U", self._job.K - H, H)):
            tiles = params[name].reshape(4, H // w, w // tile, tile, count)[gates].swapaxes(-1, -2)
            target = to[:, :, first : first + count].reshape(-1, H // w, count, w // tile, tile).swapaxes(2, 3)
            np.matmul(tiles, self._identity[gates], target)
        if self._job.ones:
            b = params["b"].reshape(4, H // w, w)[gates]
            np.multiply(b, self._identity[gates, 0, 0, :1, :1], to[:, :, D])

    def pack_backward(self, params: Params, gates: slice = ALL_GATES) -> None:
        """Before a backward pass, likewise."""
        H, w = self._job.H, self._job.block
        self.backward[gates] = params["U"].reshape(4, H, H // w, w)[gates].swapaxes(1, 2)


def product_of(blocks: Array) -> Callable[[Array, Array], None]:
    """What multiplies (b, K) by blocks (4, H / w, K, w) to (4, H / w, b, w)."""
    matmul = np.matmul
    return lambda z, products: matmul(z, blocks, products)


class Strip(buffers.Strip):
    """``Z`` (T + 1, b, K): the operand of every product of b rows."""

    def __init__(self, job: Job, b: int) -> None:
        first, T = job.D + job.ones, job.T
        self.T, self.b = T, b
        self.Z = aligned((T + 1, b, round_up(job.K)), job.dtype)
        self.Z.fill(0)
        self.Z[:, :, job.D : first] = 1
        self._h = self.Z[:, :, first : job.K]
        self.x, self.h = self.Z[:T, :, : job.D].transpose(2, 0, 1), self._h.transpose(2, 0, 1)
        self.steps = [(self.Z[t, :, : job.K], self._h[t + 1]) for t in range(T)]

    def inputs(self, start: int, stop: int, features: slice) -> Array:
        """One below the other: ((stop - start) * b, K)."""
        return self.Z[start:stop].reshape(-1, self.Z.shape[2])[:, features]


class Scratch(buffers.Scratch):
    """For strips of b rows; gates and states are (b, H)."""

    def __init__(self, job: Job, b: int, widest: int) -> None:
        H = job.H
        self._block = job.block
        self.allocate(job, (b, H), widest)
        self.da = aligned((4, self.chunk, b, H), job.dtype)
        self.backward = [buffers.StepBackward(da[0:2], da[2], da[3], da[:, None]) for da in self.da.swapaxes(0, 1)]
        self._parts = aligned((4, b, H), job.dtype)  # of dh, from the four gates

    def products(self, gates: Array, step: int) -> Array:
        """As that of `buffers.Scratch`."""
        return in_blocks_of_units(gates, self._block)

    def forward_product(self, weights: buffers.Weights) -> Callable[[Array, Array], None]:
        """From Z_t (b, K)."""
        return product_of(weights.forward)

    def backward_product(self, weights: buffers.Weights) -> Callable[[Array], None]:
        """From da (4, 1, b, H): the sum over the four gates."""
        matmul, add, blocks, parts, dh = np.matmul, np.add, weights.backward, self._parts, self.dh
        products = in_blocks_of_units(parts, blocks.shape[-1])
        halves = parts[:2], parts[2:], parts[:2]

        def product(da: Array) -> None:
            matmul(da, blocks, products)
            add(*halves)
            add(parts[0], parts[1], dh)

        return product

    def steps_of(self, dy: Array) -> Array:
        """As that of `buffers.Scratch`."""
        return dy.transpose(1, 2, 0)

    def weight_gradient(self, steps: int, z: Array, out: Array) -> None:
        """da^T z, with z (steps * b, K)."""
        H = self.da.shape[-1]
        da = self.da[:, :steps].reshape(4, len(z), H)
        np.matmul(da.swapaxes(1, 2), z, out.reshape(4, H, -1))

    def input_gradient(self, W: Array, dx: Array) -> None:
        """All steps at once."""
        D, steps, b = dx.shape
        da = self.da[:, :steps].reshape(4, steps * b, -1)
        dx[...] = np.matmul(da, W.reshape(4, -1, D)).sum(axis=0).reshape(steps, b, D).transpose(2, 0, 1)


class Ring(buffers.Ring):
    """For b rows."""

    def __init__(self, job: Job, b: int) -> None:
        first, H = job.D + job.ones, job.H
        self.length = ring_length(job, b)
        Z = aligned((self.length + 1, b, round_up(job.K)), job.dtype)
        Z[:, :, job.D : first] = 1
        h = Z[:, :, first : job.K]
        self.x, self.h = Z[:-1, :, : job.D].swapaxes(1, 2), h.swapaxes(1, 2)
        self.steps = [(Z[t, :, : job.K], h[t + 1]) for t in range(self.length)]
        a = aligned((6, b, H), job.dtype)
        self.views = buffers.RingViews.of(a, in_blocks_of_units(a[:4], job.block), a[:4])

    def forward_product(self, weights: buffers.Weights) -> Callable[[Array, Array], None]:
        """As that of `Scratch`."""
        return product_of(weights.forward)


def in_blocks_of_units(gates: Array, w: int) -> Array:
    """A view (4, H / w, b, w) of (4, b, H): `matmul` computes block after block in one call."""
    _, b, H = gates.shape
    return gates.reshape(4, b, H // w, w).swapaxes(1, 2)


LAYOUT = buffers.Layout(widest, features, Weights, Strip, Scratch, Ring)
