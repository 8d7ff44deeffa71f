"""Buffers of the fused CPU kernel: aligned, allocated once per shape, and handed out again from batch to batch.

    Job          the shape of a part of a batch
    Derivatives  the six local derivatives of every time step
    Scratch      what is needed while a strip of samples is computed, and not afterwards
    Saved        the right to use what a forward pass has kept
    Pool         what is free, by shape

What depends on how samples lie in memory is in `columns.py`, `rows.py` and `sample.py`. Arrays start at a cache line,
and where a time step is a slice of longer rows, the row length is an odd number of cache lines: with a power of two
all rows would compete for the same few lines of the cache. The views of every time step are made here, once, because
taking a slice costs as much as a small product.
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from lstm_np.backends.blas_threads import unpacked_product_limit
from lstm_np.backends.numpy_backend import CACHE_LINE, aligned

TILE = 16  # rows; BLAS computes whole tiles, and a product with a broken last tile is slower than with a padded one
FREE_LIMIT = 8  # items that wait for their shape to come again
SMALL = 32 << 20  # bytes: small items may be kept as long as they are not more than this together, and
TIMES_THE_LARGEST = 4  # not more than so many times the largest of them

Array = Any


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


def ring_length(job: Job, b: int) -> int:
    """How many steps of inference to copy the input for at once: all, or what takes about 128 KB, but some."""
    return min(job.T, max(8, (1 << 15) // (job.K * b)))


def block_rows(rows: int, inner: int, columns: int) -> int:
    """How many rows at a time to multiply (rows, inner) by (inner, columns) so that BLAS need not pack: a divisor."""
    most = unpacked_product_limit() // (inner * columns)
    fitting = [n for n in range(4, min(most, rows) + 1) if rows % n == 0]
    return fitting[-1] if fitting and columns > 1 else rows


def in_blocks(matrix: Array, block: int) -> Array:
    """A view (rows / block, block, columns) of a matrix: `matmul` multiplies block after block in one call."""
    return matrix.reshape(-1, block, matrix.shape[-1])


class Job(NamedTuple):
    """The shape of a part, and what is to be kept of it."""

    D: int
    ones: int  # 1 if there is a bias, else 0
    H: int
    T: int
    b: int  # samples
    dtype: str
    layout: str  # "columns", "rows" or "sample"
    block: int  # units whose weights stand together, where samples are rows
    packed: bool  # whether the weights come packed in memory that all parts share
    blocked: bool  # products in blocks that BLAS need not pack; it computes them on one thread
    keep: str  # "all", "lean" or "nothing"

    @property
    def K(self) -> int:
        """Values of [x; 1; h]."""
        return self.D + self.ones + self.H


def steps_together(H: int, widest: int) -> tuple[int, int]:
    """(tau, chunk) for strips of at most `widest` samples: how many time steps `Scratch` takes together.

    Forward goes by `tau` time steps, whose gates stay in the cache (about 256 KB) until their derivatives are computed
    together; backward by `chunk` time steps, which make one product of the weight gradient with about 384 samples.
    """
    return max(1, min(8, 65536 // (9 * H * widest))), max(1, 384 // widest)


class Derivatives:
    """(steps, 6, *shape): for each time step p_i, p_f, p_o, p_g, f, q as `lstm_np.kernels.cpu.fused` defines them.

    While the forward pass computes a step, the last three hold i, f, o; then p_g takes the place of i and q that of o.
    """

    def __init__(self, steps: int, shape: tuple[int, int], dtype: str, tau: int) -> None:
        self.array = aligned((steps, 6, *shape), dtype)
        self.gates = [(P[3:6], P[3:5], P[5]) for P in self.array]  # i f o, i f, o
        self.blocks = [  # of tau steps: p_i p_f p_o; i o, which become p_g q
            (self.array[t : t + tau, :3], self.array[t : t + tau, 3::2]) for t in range(0, steps, tau)
        ]
        self.backward = [(P[0:2], P[2], P[3], P[4], P[5]) for P in self.array]  # p_i p_f, p_o, p_g, f, q


class Scratch(ABC):
    """Buffers for a strip of samples; `shape` is that of a gate, (H, b) or (b, H), and `widest` the largest b.

    How many steps they are for: `steps_together`.
    """

    def __init__(self, job: Job, shape: tuple[int, int], widest: int) -> None:
        self.tau, self.chunk = steps_together(job.H, widest)
        self.a = aligned((self.tau, 6, *shape), job.dtype)  # per step a_i a_f a_o a_g c_{t-1} tanh(c_t)
        self.uvh = aligned((self.tau, 3, *shape), job.dtype)  # per step u = i g, v = f c_{t-1}, h_t
        self.forward = []
        for step in range(self.tau):
            a, (u, v, h), uv = self.a[step], self.uvh[step], self.uvh[step, :2]
            self.forward.append(
                (self._products(a[:4], step), a[:4], a[:3], a[3:5], uv, u, v, self.c(step + 1), a[5], h)
            )
        # what the derivatives of a block of n steps read: a_i a_f a_o; u v h; u h; g tanh(c); room for their product
        self.derive = [
            (a[:, :3], uvh, uvh[:, ::2], a[:, 3::2], a[:, :2])
            for a, uvh in ((self.a[:n], self.uvh[:n]) for n in range(self.tau + 1))
        ]
        self.dh, self.dc, self.product = (aligned(shape, job.dtype) for _ in range(3))

    def c(self, step: int) -> Array:
        """Where c_{t-1} of a step lies."""
        return self.a[step % self.tau, 4]

    def inputs_of_steps(self, weights: Any, strip: Any, start: int, count: int) -> None:
        """What a layout computes of [x_t; 1] for some steps together."""
        return  # where that is part of each product

    @abstractmethod
    def _products(self, gates: Array, step: int) -> Any:
        """What the product of a step writes to, in its gates (4, *shape)."""


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
    """What is free, by shape; what is unused the longest goes when there is too much of it.  Any thread may use it.

    bytes_of  how much memory an item takes, in all processes

    When T varies nearly every batch has a shape of its own.  So what is kept is bounded in bytes: by the largest item,
    or a few of the largest where they are small.
    """

    def __init__(self, bytes_of: Callable[[Any], int]) -> None:
        self._bytes_of = bytes_of
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
        if self._given.empty():
            return
        while not self._given.empty():
            self._free.append(self._given.get())
        sizes = [self._bytes_of(item) for _, item in reversed(self._free)]
        limit = max(max(sizes), min(SMALL, TIMES_THE_LARGEST * max(sizes)))
        kept = sum(total <= limit for total in itertools.accumulate(sizes[:FREE_LIMIT]))
        del self._free[: len(self._free) - kept]
