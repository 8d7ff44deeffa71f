"""Buffers of the fused CPU kernel: aligned, allocated once per shape, and handed out again from batch to batch.

    Job     the shape of a part of a batch
    Stack   likewise where it goes through several layers
    Layout  how its samples lie in memory: Weights, Strip, Scratch and Ring
    Pool    what is free, by shape

`columns.py`, `rows.py` and `sample.py` have a `Layout` each. Arrays start at a cache line, and where a time step is a
slice of longer rows, the row length is an odd number of cache lines: with a power of two all rows would compete for the
same few lines of the cache. The views of every time step are made here, once, because taking a slice costs as much as a
small product.
"""

from __future__ import annotations

import itertools
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.blas_threads import unpacked_product_limit
from lstm_np.backends.numpy_backend import CACHE_LINE, aligned
from lstm_np.kernels.cpu.description import DESCRIPTIONS, Description

TILE = 16  # rows; BLAS computes whole tiles, and a product with a broken last tile is slower than with a padded one
MANY_UNITS = 512  # of a layer, from which on strips are narrow and nothing fits a core's own cache
FREE_LIMIT = 8  # items that wait for their shape to come again
SMALL = 32 << 20  # bytes: small items may be kept as long as they are not more than this together, and
TIMES_THE_LARGEST = 4  # not more than so many times the largest of them


# what makes an array of this shape and dtype, with any values, that starts at a cache line
New = Callable[[tuple[int, ...], str], Array]


def taker(memory: Array) -> New:
    """What takes arrays one after the other from a vector; one that does not fit has memory of its own.

    Objects that are not used at the same time may all take theirs from its start, and then find it in the cache.
    """
    line, start = CACHE_LINE // memory.itemsize, 0

    def new(shape: tuple[int, ...], dtype: str) -> Array:
        nonlocal start
        size = math.prod(shape)
        found = memory[start : start + size]
        if len(found) < size or memory.dtype != dtype:
            return aligned(shape, dtype)
        start += -(-size // line) * line
        return found.reshape(shape)

    return new


def values_taken(make: Callable[[New], object], dtype: str) -> int:
    """How many values of memory an object takes that `make` makes of arrays by a `New`."""
    line, total = CACHE_LINE // np.dtype(dtype).itemsize, 0

    def new(shape: tuple[int, ...], dtype: str) -> Array:
        nonlocal total
        total += -(-math.prod(shape) // line) * line
        return aligned(shape, dtype)

    make(new)
    return total


def rows_of_steps(rows: int, steps: int, columns: int, dtype: str, new: New = aligned) -> Array:
    """(rows, steps, columns), zero, whose rows follow each other at an odd number of cache lines."""
    line = CACHE_LINE // np.dtype(dtype).itemsize
    length = (-(-steps * columns // line) | 1) * line
    whole = new((rows, length), dtype)
    whole.fill(0)
    return whole[:, : steps * columns].reshape(rows, steps, columns)


def round_up(rows: int) -> int:
    """To whole tiles."""
    return -(-rows // TILE) * TILE


def ring_length(job: Job, b: int) -> int:
    """How many steps of inference to copy the input for at once: all, or what takes about 128 KB, but some."""
    return min(job.T, max(8, (1 << 15) // (job.K * b)))


def block_rows(rows: int, inner: int, columns: int, *, transposed: bool = False) -> int:
    """How many rows at a time to multiply (rows, inner) by (inner, columns) so that BLAS need not pack: a divisor.

    transposed  whether the former matrix is a view of a transposed one; then multiples of 8 are the faster ones
    """
    most = unpacked_product_limit() // (inner * columns)
    fitting = [n for n in range(4, min(most, rows) + 1) if rows % n == 0]
    if columns == 1 or not fitting:
        return rows
    return max(fitting, key=lambda n: (transposed and n % 8 == 0, n))


def needs_no_packing(rows: int, inner: int, columns: int) -> bool:
    """Whether BLAS multiplies (rows, inner) by (inner, columns) straight from memory."""
    return rows * inner * columns <= unpacked_product_limit()


def inner_parts(rows: int, inner: int, columns: int) -> int:
    """Into how many parts to cut `inner`, for a sum of products with blocks of rows that BLAS need not pack; 1: none.

    A block has at least 4 rows, since with fewer BLAS reads the other matrix too often.
    """
    limit = unpacked_product_limit()
    fitting = [n for n in (1, 2, 4) if inner % n == 0 and 4 * (inner // n) * columns <= limit]
    return fitting[0] if fitting and rows % 4 == 0 and columns > 1 else 1


def in_pairs(joint: Callable[[Any, Any], None], inner: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Two products as one, of pairs of operands and places: that of most gates, and that inside the candidate."""

    def product(operands: Any, places: Any) -> None:
        joint(operands[0], places[0])
        inner(operands[1], places[1])

    return product


def in_blocks(matrix: Array, block: int) -> Array:
    """A view (rows / block, block, columns) of a matrix: `matmul` multiplies block after block in one call."""
    return matrix.reshape(-1, block, matrix.shape[-1])


class Job(NamedTuple):
    """The shape of a part, and what is to be kept of it."""

    cell: str  # its name
    D: int
    ones: int  # vectors of biases, as many as there are 1 between x_t and h_{t-1}
    H: int
    T: int
    b: int  # samples
    dtype: str
    layout: str  # "columns", "rows" or "sample"
    block: int  # units whose weights stand together, where samples are rows
    packed: bool  # whether the weights come packed in memory that all parts share
    keep: str  # "all", "lean" or "nothing"
    ragged: bool = False  # whether its samples have unequal lengths

    @property
    def of(self) -> Description:
        """What the cell is."""
        return DESCRIPTIONS[self.cell]

    @property
    def K(self) -> int:
        """Values of [x; 1; h]."""
        return self.D + self.ones + self.H

    @property
    def inputs(self) -> int:
        """Values of [x; 1], what a_n of a gate with a product of its own is made of."""
        return self.D + min(self.ones, 1)

    @property
    def singles(self) -> tuple[Job, ...]:
        """Of each layer and direction: this one alone."""
        return (self,)

    @property
    def outputs(self) -> int:
        """Features of y."""
        return self.H


class Stack(NamedTuple):
    """The shape of a part that goes through the layers of a stack.

    singles     of each layer and direction, in order; T, b, dtype and `keep` are the same for all
    directions  of every layer: whether each reads a sequence from its end
    """

    singles: tuple[Job, ...]
    directions: tuple[bool, ...]

    @property
    def D(self) -> int:
        """Features of x."""
        return self.singles[0].D

    @property
    def T(self) -> int:
        """Steps."""
        return self.singles[0].T

    @property
    def b(self) -> int:
        """Samples."""
        return self.singles[0].b

    @property
    def dtype(self) -> str:
        """Of all arrays."""
        return self.singles[0].dtype

    @property
    def keep(self) -> str:
        """As that of `Job`."""
        return self.singles[0].keep

    @property
    def packed(self) -> bool:
        """As that of `Job`: never."""
        return False

    @property
    def ragged(self) -> bool:
        """As that of `Job`: never."""
        return False

    @property
    def outputs(self) -> int:
        """Features of y: of all directions of the top layer."""
        return self.singles[-1].H * len(self.directions)

    @property
    def between(self) -> list[int]:
        """Features of what each layer hands to the next."""
        ways = len(self.directions)
        return [job.D for job in self.singles[ways::ways]]


def named(job: Job | Stack, k: int, name: str) -> str:
    """What an array of the k-th layer and direction is called: in a stack the number stands before the name."""
    return name if isinstance(job, Job) else f"{k}.{name}"


def shapes_of_parameters(job: Job) -> dict[str, tuple[int, ...]]:
    """W, U and, if there are biases, b and what a product of the cell's own adds."""
    rows_of_all = job.of.gates * job.H
    shapes: dict[str, tuple[int, ...]] = {"W": (rows_of_all, job.D), "U": (rows_of_all, job.H)}
    if job.ones:
        shapes["b"] = (rows_of_all,)
    if job.ones == 2:
        shapes["b_n"] = (job.H,)
    return shapes


def job_of(plain: Sequence[Any]) -> Job | Stack:
    """From the plain values that a message has of it."""
    if isinstance(plain[0], str):
        return Job(*plain)
    singles, directions = plain
    return Stack(tuple(Job(*single) for single in singles), tuple(directions))


def steps_together(job: Job, widest: int) -> tuple[int, int]:
    """(tau, chunk) for strips of at most `widest` samples: how many time steps `Scratch` takes together.

    Forward goes by `tau` time steps, whose gates stay in the cache (about 256 KB) until their derivatives are computed
    together, more of one sample, where calls cost more than passes; backward by `chunk` time steps, which make one
    product of the weight gradient with about 384 samples.
    """
    together = 65536 // (max(1, job.of.at_once) * job.H * widest)
    return max(1, min(8 if widest > 1 else 32, together)), max(1, 384 // widest)


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


# what a step of forward reads and writes beside its gates: Z_t = [x_t; 1; h_{t-1}], as its product takes it, then
# h_{t-1}, and where h_t goes, both in the shape of a gate
Step = tuple[Any, Array, Array]


class Strip(ABC):
    """``Z``, what the steps of b samples multiply and write: x, 1 for each vector of biases, h, padding.

    x      (D, T, b) and h (H, T + 1, b): views
    hs     of h, (T + 1, *shape of a gate)
    """

    T: int
    b: int
    Z: Array
    x: Array
    h: Array
    hs: Array
    steps: list[Step]

    @abstractmethod
    def __init__(self, job: Job, b: int, new: New = aligned) -> None: ...

    @abstractmethod
    def write_constants(self) -> None:
        """The 1 and the padding, which is 0: where others have used its memory."""

    @abstractmethod
    def values(self, start: int, stop: int, features: slice) -> Array:
        """Some of [x; 1; h; padding] of the steps from start to stop, the values last."""

    @abstractmethod
    def inputs(self, start: int, stop: int) -> Array:
        """[x; 1] of these steps, the first axis."""


class Products(ABC):
    """The products of forward for b samples; gates and states have the shape (H, b) or (b, H).

    a_n  (steps, *shape): W_n x_t + b_n of the steps that are taken together, of a gate with a product of its own
    """

    job: Job
    a_n: Array

    def forward_products(self, weights: Weights) -> tuple[Callable[..., None], ...]:
        """`forward_product` and, where there is one with s, `inner_product`."""
        joint = self.forward_product(weights)
        return (joint, self.inner_product(weights)) if self.job.of.inner == "s" else (joint,)

    @abstractmethod
    def place(self, gates: Array, step: int) -> Any:
        """What the product of a step writes to, in its gates (joint, *shape), and m after them where it makes that."""

    @abstractmethod
    def forward_product(self, weights: Weights) -> Callable[[Any, Any], None]:
        """All that reads h_{t-1}, from a `Step`'s first to a `place`; the rows of sigmoids are halved."""

    @abstractmethod
    def inner_place(self, m: Array) -> Any:
        """What the product with s writes to, in m."""

    @abstractmethod
    def inner_product(self, weights: Weights) -> Callable[[Array, Any], None]:
        """U_n s, from s in the shape of a gate to an `inner_place`."""

    @abstractmethod
    def input_products(self, weights: Weights, inputs: Array) -> None:
        """`a_n` of some steps from their [x; 1]."""


class Summand(NamedTuple):
    """A product of the weight gradient: of da with columns of [x; 1; h; padding], or of s where it is `with_s`.

    blocks, columns  what it reads of each
    gates, to        where it goes: row blocks of W, U and b, and columns of those that are wanted
    """

    blocks: slice
    columns: slice
    gates: slice
    to: slice
    with_s: bool


class Scratch(Products):
    """What is needed while a strip is computed, and not afterwards, and the products themselves.

    `shape` is that of a gate, and `widest` the largest b.  How many steps they are for: `steps_together`.

    dh, ds          gradients of h and, for the product with s, of that
    das             (chunk, blocks, *shape): da of the steps of a chunk
    operands        what `backward_product` takes of each, and inner_operands likewise
    s               (chunk, *shape): s of the steps of a chunk
    new             what its arrays come from, and those of `Passes`
    """

    new: New

    das: Array
    operands: list[Any]
    inner_operands: list[Any]
    s: Array

    @abstractmethod
    def __init__(self, job: Job, b: int, widest: int, new: New = aligned) -> None: ...

    def allocate(self, job: Job, shape: tuple[int, int], widest: int, new: New) -> None:
        """What all layouts have."""
        self.job, self.shape, self.new = job, shape, new
        self._summands: dict[tuple[int | None, int | None], Sequence[Summand]] = {}
        self.tau, self.chunk = steps_together(job, widest)
        self.ds_and_dh = new((2 if job.of.inner == "s" else 1, *shape), job.dtype)
        self.ds, self.dh = self.ds_and_dh[0], self.ds_and_dh[-1]
        self.a_n = new((self.tau if job.of.inner else 0, *shape), job.dtype)

    def inputs_of_steps(self, weights: Weights, strip: Strip, start: int, count: int) -> None:
        """What is computed of [x_t; 1] for some steps together."""
        if self.job.of.inner:
            self.input_products(weights, strip.inputs(start, start + count))

    @abstractmethod
    def backward_product(self, weights: Weights) -> Callable[[Any], None]:
        """U^T da to dh, but for what goes through ds."""

    @abstractmethod
    def inner_backward_product(self, weights: Weights) -> Callable[[Any], None]:
        """U_n^T da_n to ds."""

    @abstractmethod
    def steps_of(self, dy: Array) -> Array:
        """dy (H, steps, b) as a sequence of what is added to dh."""

    @abstractmethod
    def weight_gradient(self, strip: Strip, start: int, stop: int, which: slice, out: Array) -> None:
        """The gradient (G * H, columns) of these columns of [W b U] from da of the steps from start to stop."""

    @abstractmethod
    def input_gradient(self, W: Array, dx: Array) -> None:
        """W^T da to dx (D, steps, b); da of m is no more after it."""

    def summands(self, which: slice) -> Sequence[Summand]:
        """What `weight_gradient` is made of for these columns: a product each."""
        key = which.start, which.stop
        if key not in self._summands:
            self._summands[key] = tuple(summands(self.job, *which.indices(round_up(self.job.K))[:2]))
        return self._summands[key]


def summands(job: Job, start: int, stop: int) -> Iterator[Summand]:
    """The products of the weight gradient for the columns from start to stop."""
    of, border = job.of, job.inputs
    joint, last, a_n = slice(0, of.joint), slice(of.joint, of.gates), slice(of.blocks - 1, of.blocks)
    yield Summand(joint, slice(start, stop), joint, slice(0, stop - start), False)
    if of.inner and start < border:
        columns = slice(start, min(stop, border))
        yield Summand(a_n, columns, last, slice(0, columns.stop - start), False)
    if of.inner and stop > border:
        first, with_s = max(start, border), of.inner == "s"
        columns = slice(first - border, stop - border) if with_s else slice(first, stop)
        yield Summand(last, columns, last, slice(first - start, stop - start), with_s)


class Ring(Products):
    """Strip and scratch for inference, which keeps nothing: some steps of [x_t; 1; h_{t-1}], then round again.

    length  of the ring, in steps
    shape   of a gate
    x       (length, D, b) and h (length + 1, H, b): views
    steps   as those of `Strip`
    """

    length: int
    shape: tuple[int, int]
    x: Array
    h: Array
    steps: list[Step]

    @abstractmethod
    def __init__(self, job: Job, b: int) -> None: ...

    @abstractmethod
    def inputs(self, count: int) -> Array:
        """[x; 1] of the first steps, the first axis."""


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
        if len(self._free) == 1:
            return
        sizes = [self._bytes_of(item) for _, item in reversed(self._free)]
        limit = max(max(sizes), min(SMALL, TIMES_THE_LARGEST * max(sizes)))
        kept = sum(total <= limit for total in itertools.accumulate(sizes[:FREE_LIMIT]))
        del self._free[: len(self._free) - kept]
