"""Buffers of the fused CPU kernel: aligned, allocated once per shape, and handed out again from batch to batch.

    Strip        [x; 1; h] of every time step, for one strip of b columns
    Derivatives  the six local derivatives of every time step
    Scratch      what is needed while a strip is computed, and not afterwards
    Ring         the same for inference, which keeps nothing
    Saved        the right to use what a forward pass has kept
    Pool         what is free, by shape

Arrays start at a cache line, and where a time step is a slice of longer rows, the row length is an odd number of
cache lines: with a power of two all rows would compete for the same few lines of the cache.
The views of every time step are made here, once, because taking a slice costs as much as a small product.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np

from lstm_np.kernels.blas_threads import unpacked_product_limit

CACHE_LINE = 64  # bytes
TILE = 16  # rows; BLAS computes whole tiles, and a product with a broken last tile is slower than with a padded one
LARGE = 1 << 21  # values; through more than these no product may go in steps of a whole row
FREE_LIMIT = 8  # items that wait for their shape to come again; more would hoard memory when T varies

Array = Any


def aligned(shape: tuple[int, ...], dtype: str) -> Array:
    """An uninitialised array of this shape whose first element starts a cache line."""
    itemsize = np.dtype(dtype).itemsize
    size = int(np.prod(shape))
    raw = np.empty(size + CACHE_LINE // itemsize, dtype)
    start = -raw.ctypes.data % CACHE_LINE // itemsize
    return raw[start : start + size].reshape(shape)


def rows_of_steps(rows: int, steps: int, columns: int, dtype: str) -> Array:
    """(rows, steps, columns), zero, whose rows follow each other at an odd number of cache lines."""
    line = CACHE_LINE // np.dtype(dtype).itemsize
    length = (-(-steps * columns // line) | 1) * line
    whole = aligned((rows, length), dtype)
    whole.fill(0)
    return whole[:, : steps * columns].reshape(rows, steps, columns)


def round_up(rows: int) -> int:
    """To whole tiles."""
    return -(-rows // TILE) * TILE


def block_rows(rows: int, inner: int, columns: int) -> int:
    """How many rows at a time to multiply (rows, inner) by (inner, columns) so that BLAS need not pack: a divisor."""
    most = unpacked_product_limit() // (inner * columns)
    fitting = [n for n in range(4, min(most, rows) + 1) if rows % n == 0]
    return fitting[-1] if fitting and columns > 1 else rows


def in_blocks(matrix: Array, block: int) -> Array:
    """A view (rows / block, block, columns) of a matrix: `matmul` multiplies block after block in one call."""
    return matrix.reshape(-1, block, matrix.shape[-1])


def transposed(U: Array, columns: int, room: Array) -> Array:
    """The transpose, for products with `columns` columns: a copy in `room` where the products repay it, else a view.

    The copy goes by one cache line of columns at a time: NumPy's own takes up to four times as long.
    """
    if columns <= 32 and U.size < LARGE:
        return U.T
    for start in range(0, U.shape[0], TILE):
        room[:, start : start + TILE] = U[start : start + TILE].T
    return room


class Strip:
    """``Z`` (K, T + 1, b): the operand of every product of b columns, its rows x, 1 if there is a bias, h, padding.

    ``Z[:, t]`` is [x_t; 1; h_{t-1}], so step t of the forward pass reads column block t and writes h into block t + 1.
    """

    def __init__(self, D: int, ones: int, H: int, T: int, b: int, dtype: str) -> None:
        first = D + ones
        self.T, self.b = T, b
        self.Z = rows_of_steps(round_up(first + H), T + 1, b, dtype)
        self.Z[D:first] = 1
        self.x, self.h = self.Z[:D, :T], self.Z[first : first + H]
        self.steps = [(self.Z[: first + H, t], self.h[:, t + 1]) for t in range(T)]

    def columns_of(self, start: int, stop: int) -> Array:
        """[x; 1; h; padding] of the steps from start to stop, side by side: (K, (stop - start) * b)."""
        b = self.Z.shape[2]
        return self.Z.reshape(self.Z.shape[0], -1)[:, start * b : stop * b]


class Derivatives:
    """(steps, 6, H, b): for each time step p_i, p_f, p_o, p_g, f, q as `lstm_np.kernels.numpy_fused` defines them.

    While the forward pass computes a step, the last three hold i, f, o; then p_g takes the place of i and q that of o.
    """

    def __init__(self, steps: int, H: int, b: int, dtype: str, tau: int) -> None:
        self.array = aligned((steps, 6, H, b), dtype)
        self.gates = [(P[3:6], P[3:5], P[5]) for P in self.array]  # i f o, i f, o
        self.blocks = [  # of tau steps: p_i p_f p_o; i o, which become p_g q
            (self.array[t : t + tau, :3], self.array[t : t + tau, 3::2]) for t in range(0, steps, tau)
        ]
        self.backward = [(P[0:2], P[2], P[3], P[4], P[5]) for P in self.array]  # p_i p_f, p_o, p_g, f, q


class Scratch:
    """Buffers for strips of b columns, of which the widest has `widest`.

    Forward goes by `tau` time steps, whose gates stay in the cache (about 256 KB) until their derivatives are computed
    together; backward by `chunk` time steps, which make one product of the weight gradient with about 384 columns.
    """

    def __init__(self, D: int, ones: int, H: int, b: int, widest: int, blocked: bool, dtype: str) -> None:
        tau, chunk = max(1, min(8, 65536 // (9 * H * widest))), max(1, 384 // widest)
        self.tau, self.chunk = tau, chunk
        self.a = aligned((tau, 6, H, b), dtype)  # per step a_i a_f a_o a_g c_{t-1} tanh(c_t)
        self.uvh = aligned((tau, 3, H, b), dtype)  # per step u = i g, v = f c_{t-1}, h_t
        self.weight_block = block_rows(4 * H, D + ones + H, b) if blocked else 4 * H
        self.forward = []
        for step in range(tau):
            a, (u, v, h), uv = self.a[step], self.uvh[step], self.uvh[step, :2]
            gates = a[:4].reshape(4 * H, b)
            products = in_blocks(gates, self.weight_block)
            self.forward.append((products, gates, a[:3], a[3:5], uv, u, v, self.c(step + 1), a[5], h))
        # what the derivatives of a block of n steps read: a_i a_f a_o; u v h; u h; g tanh(c); room for their product
        self.derive = [
            (a[:, :3], uvh, uvh[:, ::2], a[:, 3::2], a[:, :2])
            for a, uvh in ((self.a[:n], self.uvh[:n]) for n in range(tau + 1))
        ]
        self.dh, self.dc, self.product = (aligned((H, b), dtype) for _ in range(3))
        self.recurrent_block = block_rows(H, 4 * H, b) if blocked else H
        self.dh_blocks = in_blocks(self.dh, self.recurrent_block)
        self.da = rows_of_steps(4 * H, chunk, b, dtype)
        gate = self.da.reshape(4, H, chunk, b)
        self.backward = [(gate[0:2, :, t], gate[2, :, t], gate[3, :, t], self.da[:, t]) for t in range(chunk)]
        K = round_up(D + ones + H)
        block = block_rows(4 * H, chunk * b, K) if blocked else 4 * H
        # blocks of fewer rows gain less than the transposed copy costs
        self._gradient_block = block if 8 <= block < 4 * H else 0
        self._z_T = aligned((chunk * b if self._gradient_block else 0, K), dtype)

    def weight_gradient(self, da: Array, z: Array, out: Array) -> None:
        """da z^T (4H, K) of da (4H, steps, b) and z (K, steps * b)."""
        da = da.reshape(da.shape[0], z.shape[1])
        if self._gradient_block:
            z_T = self._z_T[: z.shape[1]]
            z_T[...] = z.T
            np.matmul(in_blocks(da, self._gradient_block), z_T, in_blocks(out, self._gradient_block))
        else:
            np.matmul(da, z.T, out)

    def c(self, step: int) -> Array:
        """Where c_{t-1} of a step lies: (H, b)."""
        return self.a[step % self.tau, 4]


class Ring:
    """Buffers for b columns without a backward pass: some steps of [x_t; 1; h_{t-1}], then round again."""

    length = 8

    def __init__(self, D: int, ones: int, H: int, b: int, blocked: bool, dtype: str) -> None:
        first = D + ones
        Z = aligned((self.length + 1, first + H, b), dtype)
        Z[:, D:first] = 1
        self.x, self.h = Z[:-1, :D], Z[:, first:]
        self.steps = [(Z[t], self.h[t + 1]) for t in range(self.length)]
        a = aligned((6, H, b), dtype)  # a_i a_f a_o a_g c tanh(c); then u v in place of i f
        gates, self.c = a[:4].reshape(4 * H, b), a[4]
        self.weight_block = block_rows(4 * H, first + H, b) if blocked else 4 * H
        self.views = in_blocks(gates, self.weight_block), gates, a[:3], a[:2], a[3:5], a[0], a[1], a[2], a[4], a[5]


class Saved:
    """The right to a workspace, until a backward pass is done and a later forward pass takes it, or this is dropped."""

    def __init__(self, workspace: Any, pool: Pool, key: object) -> None:
        self._workspace, self._pool, self._key = workspace, pool, key
        workspace.holder = self._me = object()
        self._released = False

    @property
    def nbytes(self) -> int:
        """Bytes kept for backward that grow with T: 7H values per time step and sample, and x, 1 and some padding."""
        return self._workspace.nbytes

    def acquire(self) -> Any:
        """The workspace.  Raises RuntimeError if a later forward pass has taken it since a first backward pass."""
        if self._released:
            if self._workspace.holder is not self._me or not self._pool.take_back(self._workspace):
                raise RuntimeError(
                    "backward was called again on the saved values of an earlier forward pass, but a later forward "
                    "pass has reused their memory; call forward again before backward"
                )
            self._released = False
        return self._workspace

    def release(self) -> None:
        """A forward pass may take the workspace from now on."""
        if not self._released:
            self._released = True
            self._pool.give(self._key, self._workspace)

    def __del__(self) -> None:
        self.release()


class Pool:
    """What is free, by shape; the longest unused goes when there is too much of it.  Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[tuple[object, Any]] = []
        # a queue, since `give` may be called by the garbage collector, which may run within `take`
        self._given: SimpleQueue[tuple[object, Any]] = SimpleQueue()

    def give(self, key: object, item: Any) -> None:
        """Item is free from now on."""
        self._given.put((key, item))

    def take(self, key: object, make: Callable[[], Any]) -> Any:
        """A free item of this key, the last one given back since it may still be in the cache, or else a new one."""
        with self._lock:
            self._sort_in()
            for n in reversed(range(len(self._free))):
                if self._free[n][0] == key:
                    return self._free.pop(n)[1]
        return make()

    def take_back(self, item: Any) -> bool:
        """Take this very item; False if it is not free any more."""
        with self._lock:
            self._sort_in()
            for n, (_, free) in enumerate(self._free):
                if free is item:
                    del self._free[n]
                    return True
        return False

    def _sort_in(self) -> None:
        while not self._given.empty():
            self._free.append(self._given.get())
        del self._free[:-FREE_LIMIT]
