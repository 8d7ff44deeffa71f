"""Buffers of the fused CPU kernel: aligned, allocated once per shape, and handed out again from batch to batch.

    Job          the shape of a part of a batch
    Layout       how its samples lie in memory: Weights, Strip, Scratch and Ring
    Derivatives  the six local derivatives of every time step
    Pool         what is free, by shape

`columns.py`, `rows.py` and `sample.py` have a `Layout` each. Arrays start at a cache line, and where a time step is a
slice of longer rows, the row length is an odd number of cache lines: with a power of two all rows would compete for the
same few lines of the cache. The views of every time step are made here, once, because taking a slice costs as much as a
small product.
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.blas_threads import unpacked_product_limit
from lstm_np.backends.numpy_backend import CACHE_LINE, aligned

TILE = 16  # rows; BLAS computes whole tiles, and a product with a broken last tile is slower than with a padded one
FREE_LIMIT = 8  # items that wait for their shape to come again
SMALL = 32 << 20  # bytes: small items may be kept as long as they are not more than this together, and
TIMES_THE_LARGEST = 4  # not more than so many times the largest of them


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


# ---- the views of a time step, by the names of what lies there; a gate or a state is (H, b) or (b, H)


@dataclass(slots=True)
class StepDerivatives:
    """p_i ... q as `lstm_np.kernels.cpu.fused` defines them; i, f, o lie in the place of p_g, f, q until those come."""

    p_if: Array
    p_o: Array
    p_g: Array
    f: Array
    q: Array
    ifo: Array
    i_f: Array
    o: Array


class BlockOfDerivatives(NamedTuple):
    """Of some steps: p_i p_f p_o, and i o, which become p_g q."""

    p_ifo: Array
    i_o: Array


@dataclass(slots=True)
class StepForward:
    """What a step of the forward pass computes; `products`: where `Scratch.forward_product` puts (1)."""

    products: Array
    a: Array  # of i, f, o, g
    a_ifo: Array
    g_c: Array  # g and c_{t-1}
    uv: Array  # u = i g and v = f c_{t-1}
    u: Array
    v: Array
    c: Array
    tanh_c: Array
    h: Array


@dataclass(slots=True)
class BlockForward:
    """Of some steps that are computed together: what their derivatives are made of."""

    one_minus: Array  # 1 - i, 1 - f, 1 - o, in the place of a_i a_f a_o
    uvh: Array
    uh: Array
    g_tanh_c: Array
    product: Array  # scratch


@dataclass(slots=True)
class StepBackward:
    """da of a step, by gates, and `da` as `Scratch.backward_product` takes it."""

    da_if: Array
    da_o: Array
    da_g: Array
    da: Array


class RingViews(NamedTuple):
    """What a step of inference computes: u and v take the place of i and f."""

    products: Array
    a: Array  # of i, f, o, g
    ifo: Array
    i_f: Array
    g_c: Array
    u: Array
    v: Array
    o: Array
    c: Array
    tanh_c: Array

    @classmethod
    def of(cls, a: Array, products: Array, gates: Array) -> RingViews:
        """From memory for a_i a_f a_o a_g c tanh(c), and views of its first four."""
        return cls(products, gates, a[:3], a[:2], a[3:5], a[0], a[1], a[2], a[4], a[5])


class Derivatives:
    """(steps, 6, *shape): for each time step p_i, p_f, p_o, p_g, f, q as `lstm_np.kernels.cpu.fused` defines them."""

    def __init__(self, steps: int, shape: tuple[int, int], dtype: str, tau: int) -> None:
        self.array = aligned((steps, 6, *shape), dtype)
        self.steps = [StepDerivatives(P[0:2], P[2], P[3], P[4], P[5], P[3:6], P[3:5], P[5]) for P in self.array]
        self.blocks = [  # of tau steps
            BlockOfDerivatives(self.array[t : t + tau, :3], self.array[t : t + tau, 3::2]) for t in range(0, steps, tau)
        ]

    def block(self, number: int, steps: int) -> BlockOfDerivatives:
        """A block that has so many steps, or its first ones."""
        whole = self.blocks[number]
        return whole if len(whole.p_ifo) == steps else BlockOfDerivatives(whole.p_ifo[:steps], whole.i_o[:steps])


# ---- what a layout has


class Weights(ABC):
    """What products read: `pack` before a forward pass, `pack_backward` before a backward pass.

    forward, backward  the packed weights of each
    params             the parameters as they were given, where products read those too
    """

    forward: Array
    backward: Array
    params: Params

    @abstractmethod
    def __init__(self, job: Job, widest: int, shared: Params | None = None) -> None:
        """For products with at most `widest` samples; `shared`: packed weights of all parts."""

    @abstractmethod
    def pack(self, params: Params) -> None:
        """Before a forward pass."""

    @abstractmethod
    def pack_backward(self, params: Params) -> None:
        """Before a backward pass."""


class Strip(ABC):
    """``Z``, what the steps of b samples multiply and write: x, 1 if there is a bias, h, padding.

    x      (D, T, b) and h (H, T + 1, b): views
    steps  for each step Z_t = [x_t; 1; h_{t-1}], as its product takes it, and where h_t goes
    """

    T: int
    b: int
    Z: Array
    x: Array
    h: Array
    steps: list[tuple[Array, Array]]

    @abstractmethod
    def __init__(self, job: Job, b: int) -> None: ...

    @abstractmethod
    def inputs(self, start: int, stop: int, features: slice) -> Array:
        """Some of [x; 1; h; padding] of the steps from start to stop, as one matrix."""


class Scratch(ABC):
    """What is needed while a strip is computed, and not afterwards, and the products themselves.

    `shape` is that of a gate, (H, b) or (b, H), and `widest` the largest b.  How many steps they are for:
    `steps_together`.
    """

    backward: list[StepBackward]
    da: Array

    @abstractmethod
    def __init__(self, job: Job, b: int, widest: int) -> None: ...

    def allocate(self, job: Job, shape: tuple[int, int], widest: int) -> None:
        """What all layouts have."""
        self.tau, self.chunk = steps_together(job.H, widest)
        self.a = aligned((self.tau, 6, *shape), job.dtype)  # per step a_i a_f a_o a_g c_{t-1} tanh(c_t)
        self.uvh = aligned((self.tau, 3, *shape), job.dtype)  # per step u = i g, v = f c_{t-1}, h_t
        self.forward = []
        for step in range(self.tau):
            a, (u, v, h), uv = self.a[step], self.uvh[step], self.uvh[step, :2]
            products = self.products(a[:4], step)
            self.forward.append(StepForward(products, a[:4], a[:3], a[3:5], uv, u, v, self.c(step + 1), a[5], h))
        self.blocks = [  # of n steps
            BlockForward(a[:, :3], uvh, uvh[:, ::2], a[:, 3::2], a[:, :2])
            for a, uvh in ((self.a[:n], self.uvh[:n]) for n in range(self.tau + 1))
        ]
        self.dh, self.dc, self.product = (aligned(shape, job.dtype) for _ in range(3))

    def c(self, step: int) -> Array:
        """Where c_{t-1} of a step lies."""
        return self.a[step % self.tau, 4]

    @abstractmethod
    def products(self, gates: Array, step: int) -> Array:
        """What the product of a step writes to, in its gates (4, *shape)."""

    def inputs_of_steps(self, weights: Weights, strip: Strip, start: int, count: int) -> None:
        """What a layout computes of [x_t; 1] for some steps together."""
        return  # where that is part of each product

    @abstractmethod
    def forward_product(self, weights: Weights) -> Callable[[Array, Array], None]:
        """[W b U] Z_t to where the gates are computed; the rows of i, f and o are halved."""

    @abstractmethod
    def backward_product(self, weights: Weights) -> Callable[[Array], None]:
        """U^T da to dh."""

    @abstractmethod
    def steps_of(self, dy: Array) -> Array:
        """dy (H, steps, b) as a sequence of what is added to dh."""

    @abstractmethod
    def weight_gradient(self, steps: int, z: Array, out: Array) -> None:
        """The gradient (4H, K) of [W b U] from the first steps of da and their `Strip.inputs`."""

    @abstractmethod
    def input_gradient(self, W: Array, dx: Array) -> None:
        """W^T da to dx (D, steps, b)."""


class Ring(ABC):
    """Strip and scratch for inference, which keeps nothing: some steps of [x_t; 1; h_{t-1}], then round again.

    length  of the ring, in steps
    x       (length, D, b) and h (length + 1, H, b): views
    steps   as those of `Strip`
    """

    length: int
    x: Array
    h: Array
    steps: list[tuple[Array, Array]]
    views: RingViews

    @abstractmethod
    def __init__(self, job: Job, b: int) -> None: ...

    @abstractmethod
    def forward_product(self, weights: Weights) -> Callable[[Array, Array], None]:
        """As that of `Scratch`."""


class Layout(NamedTuple):
    """How samples lie in memory.

    widest    how many samples a strip has at most, by H
    features  the view (H, b) of a gate or a state
    ring      None: a part without a backward pass is never laid out so
    """

    widest: Callable[[int], int]
    features: Callable[[Array], Array]
    weights: type[Weights]
    strip: type[Strip]
    scratch: type[Scratch]
    ring: type[Ring] | None


# ---- from batch to batch

Item = TypeVar("Item")


class Pool(Generic[Item]):
    """What is free, by shape; what is unused the longest goes when there is too much of it.  Any thread may use it.

    bytes_of  how much memory an item takes, in all processes

    When T varies nearly every batch has a shape of its own.  So what is kept is bounded in bytes: by the largest item,
    or a few of the largest where they are small.
    """

    def __init__(self, bytes_of: Callable[[Item], int]) -> None:
        self._bytes_of = bytes_of
        self._lock = threading.Lock()
        self._free: list[tuple[object, Item]] = []
        # a queue, since `give` may be called by the garbage collector, which may run within `take`
        self._given: SimpleQueue[tuple[object, Item]] = SimpleQueue()

    def give(self, key: object, item: Item) -> None:
        """Item is free from now on."""
        self._given.put((key, item))

    def take(self, key: object, make: Callable[[], Item]) -> Item:
        """A free item of this key, the last one given back since it may still be in the cache, or else a new one."""
        with self._lock:
            self._sort_in()
            for n in reversed(range(len(self._free))):
                if self._free[n][0] == key:
                    return self._free.pop(n)[1]
        return make()

    def take_back(self, item: Item) -> bool:
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
