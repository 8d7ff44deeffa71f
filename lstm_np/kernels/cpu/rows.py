"""Samples as rows, for few of them: the weights stand on the right of each product, Z_t [W b U]^T and da_t U.

With few columns the product of `lstm_np.kernels.cpu.columns` does not fill the registers of OpenBLAS's kernels: those
compute tiles that are 16 or more samples high.  Here the tiles are as high as a block of units instead, and the weights
of a block stand together, so that a product reads them once, from the first to the last.  Measured on one core with
AVX-512, in GFLOP/s (H = 128, 512, 1024; the other layout in brackets): 8 samples 207, 234, 237 (139, 158, 140);
16 samples 227, 217, 191 (172, 158, 166); 24 samples 230, 250, 244 (161, 156, 147); from 32 on there is no difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lstm_np.backends.blas_threads import unpacked_product_limit
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import buffers
from lstm_np.kernels.cpu.buffers import TILE, Job, ring_length, round_up

Array = Any
STRIP = 24  # samples at most
WIDEST_BLOCK, SLIMMEST_BLOCK = 64, 8  # units
ALL_GATES = slice(0, 4)
FEWEST_UNITS = 64  # of a layer: with less, four products, one a gate, cost more than one


def strip(H: int) -> int:
    """As `lstm_np.kernels.cpu.columns.strip`."""
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


class Weights:
    """[W b U]^T, that of i, f and o halved, and U, in blocks: `room_for_weights` says which."""

    def __init__(self, job: Job, widest: int, shared: Mapping[str, Array] | None = None) -> None:
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

    def pack(self, params: Mapping[str, Array], gates: slice = ALL_GATES) -> None:
        """Before a forward pass: the weights of some gates, or of all."""
        D, H, w, tile, to = self._job.D, self._job.H, self._job.block, self._tile, self.forward[gates]
        for name, first, count in (("W", 0, D), ("U", self._job.K - H, H)):
            tiles = params[name].reshape(4, H // w, w // tile, tile, count)[gates].swapaxes(-1, -2)
            target = to[:, :, first : first + count].reshape(-1, H // w, count, w // tile, tile).swapaxes(2, 3)
            np.matmul(tiles, self._identity[gates], target)
        if self._job.ones:
            b = params["b"].reshape(4, H // w, w)[gates]
            np.multiply(b, self._identity[gates, 0, 0, :1, :1], to[:, :, D])

    def pack_backward(self, params: Mapping[str, Array], gates: slice = ALL_GATES) -> None:
        """Before a backward pass, likewise."""
        H, w = self._job.H, self._job.block
        self.backward[gates] = params["U"].reshape(4, H, H // w, w)[gates].swapaxes(1, 2)


def product_of(blocks: Array) -> Callable[[Array, Array], None]:
    """What multiplies (b, K) by blocks (4, H / w, K, w) to (4, H / w, b, w)."""
    matmul = np.matmul
    return lambda z, products: matmul(z, blocks, products)


class Strip:
    """``Z`` (T + 1, b, K): the operand of every product of b rows; a row is x, 1 if there is a bias, h, padding."""

    def __init__(self, job: Job, b: int) -> None:
        first, T = job.D + job.ones, job.T
        self.T, self.b = T, b
        self.Z = aligned((T + 1, b, round_up(job.K)), job.dtype)
        self.Z.fill(0)
        self.Z[:, :, job.D : first] = 1
        self._h = self.Z[:, :, first : job.K]
        self.x = self.Z[:T, :, : job.D].transpose(2, 0, 1)  # (D, T, b)
        self.h = self._h.transpose(2, 0, 1)  # (H, T + 1, b)
        self.steps = [(self.Z[t, :, : job.K], self._h[t + 1]) for t in range(T)]

    def inputs(self, start: int, stop: int, features: slice) -> Array:
        """Some of [x, 1, h, padding] of the steps from start to stop, one below the other: ((stop - start) * b, K)."""
        return self.Z[start:stop].reshape(-1, self.Z.shape[2])[:, features]


class Scratch(buffers.Scratch):
    """Buffers for strips of b rows; gates and states are (b, H)."""

    def __init__(self, job: Job, b: int, widest: int) -> None:
        H = job.H
        self._block = job.block
        super().__init__(job, (b, H), widest)
        self.da = aligned((4, self.chunk, b, H), job.dtype)
        self.backward = [(da[0:2], da[2], da[3], da[:, None]) for da in self.da.swapaxes(0, 1)]
        self._parts = aligned((4, b, H), job.dtype)  # of dh, from the four gates

    def _products(self, gates: Array, step: int) -> Any:
        return in_blocks_of_units(gates, self._block)

    def forward_product(self, weights: Weights) -> Callable[[Array, Any], None]:
        """Z_t [W b U]^T to where the gates are computed, from Z_t (b, K)."""
        return product_of(weights.forward)

    def backward_product(self, weights: Weights) -> Callable[[Array], None]:
        """da U to dh, from da (4, 1, b, H): the sum over the four gates."""
        matmul, add, blocks, parts, dh = np.matmul, np.add, weights.backward, self._parts, self.dh
        products = in_blocks_of_units(parts, blocks.shape[-1])
        halves = parts[:2], parts[2:], parts[:2]

        def product(da: Array) -> None:
            matmul(da, blocks, products)
            add(*halves)
            add(parts[0], parts[1], dh)

        return product

    @staticmethod
    def steps_of(dy: Array) -> Array:
        """dy (H, steps, b) as a sequence of what is added to dh."""
        return dy.transpose(1, 2, 0)

    def weight_gradient(self, steps: int, z: Array, out: Array) -> None:
        """da^T z (4H, K) of the first steps of da and their z (steps * b, K)."""
        H = self.da.shape[-1]
        da = self.da[:, :steps].reshape(4, len(z), H)
        np.matmul(da.swapaxes(1, 2), z, out.reshape(4, H, -1))

    def input_gradient(self, W: Array, dx: Array) -> None:
        """da W to dx (D, steps, b)."""
        D, steps, b = dx.shape
        da = self.da[:, :steps].reshape(4, steps * b, -1)
        dx[...] = np.matmul(da, W.reshape(4, -1, D)).sum(axis=0).reshape(steps, b, D).transpose(2, 0, 1)


class Ring:
    """Buffers for b rows without a backward pass: some steps of [x_t, 1, h_{t-1}], then round again."""

    def __init__(self, job: Job, b: int) -> None:
        first, H = job.D + job.ones, job.H
        self.length = ring_length(job, b)
        Z = aligned((self.length + 1, b, round_up(job.K)), job.dtype)
        Z[:, :, job.D : first] = 1
        h = Z[:, :, first : job.K]
        self.x, self.h = Z[:-1, :, : job.D].swapaxes(1, 2), h.swapaxes(1, 2)  # (length, D, b), (length + 1, H, b)
        self.steps = [(Z[t, :, : job.K], h[t + 1]) for t in range(self.length)]
        a = aligned((6, b, H), job.dtype)  # a_i a_f a_o a_g c tanh(c); then u v in place of i f
        self.c = a[4]
        self.views = in_blocks_of_units(a[:4], job.block), a[:4], a[:3], a[:2], a[3:5], a[0], a[1], a[2], a[4], a[5]

    def forward_product(self, weights: Weights) -> Callable[[Array, Any], None]:
        """As that of `Scratch`."""
        return product_of(weights.forward)


def in_blocks_of_units(gates: Array, w: int) -> Array:
    """A view (4, H / w, b, w) of (4, b, H): `matmul` computes block after block in one call."""
    _, b, H = gates.shape
    return gates.reshape(4, b, H // w, w).swapaxes(1, 2)
