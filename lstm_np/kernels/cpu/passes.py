"""What the fused CPU kernel has of a cell: its passes over memory in every step, and the arrays that they go over.

A file such as `lstm.py` has a `Passes`, an `Inference` and a `OneSample`.  `Part` (`part.py`) calls the first two for
some steps at a time; the products come from the layout.  Views of every step are made once, since taking
a slice costs as much as a small product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lstm_np.arrays import Array, Params, State
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu.buffers import Job, New, Ring, Scratch, Step, Weights
from lstm_np.kernels.cpu.packed import PackedFrom
from lstm_np.kernels.cpu.sample import input_products, joins, pack_transposed, packed_input_products

FEW_WEIGHTS_PER_STEP = 2500  # to keep them packed: comparing them with the parameters at every call costs less

Product = Callable[..., None]


class Kept(ABC):
    """What backward needs of some steps, beside h: `array` (steps, kept, *shape) and views of it."""

    array: Array

    @abstractmethod
    def __init__(self, steps: int, shape: tuple[int, int], dtype: str, tau: int, new: New) -> None: ...


class Passes(ABC):
    """A cell's passes over the strips of b samples in training, with what is needed while one is computed.

    The state's parts beside h lie here while a strip is computed, in `others`, and their gradients in
    `others_gradients`, in the order of the state, each in the shape of a gate.

    kept  the class of what is kept; None where that is h alone
    """

    kept: type[Kept] | None

    def __init__(self, job: Job, scratch: Scratch) -> None:
        self.scratch, self.dtype = scratch, job.dtype
        self.half, self.one = np.array(0.5, job.dtype), np.array(1, job.dtype)

    def keep(self, steps: int, new: New = aligned) -> Any:
        """What is kept of so many steps; None where that is h alone."""
        return None if self.kept is None else self.kept(steps, self.scratch.shape, self.dtype, self.scratch.tau, new)

    def others(self, step: int) -> Sequence[Array]:
        """The state's parts beside h before a step, counted from the first that is computed; those of step 0 are to be
        written to."""
        return ()

    @property
    def others_gradients(self) -> Sequence[Array]:
        """The gradients of the state's parts beside h: after the last step, then before the first."""
        return ()

    @abstractmethod
    def forward(self, steps: Sequence[Step], kept: Any, start: int, *products: Product) -> None:
        """The equations over at most `tau` steps, the first of which is `start`, as `kept` and `others` count.

        `products`: those of `buffers.Products.forward_products`.
        """

    @abstractmethod
    def derive(self, kept: Any, start: int, count: int) -> None:
        """The local derivatives of these steps, into `kept`, while all that they are made of is in the cache."""

    @abstractmethod
    def backward(
        self,
        weights: Weights,
        hs: Array,
        kept: Any,
        steps: slice,
        dys: Array | None,
        undo_first: bool,
    ) -> None:
        """The equations undone over some steps, the last one first, whose da go to `scratch.das`.

        hs          (steps + 1, *shape): h before each of them, and after the last
        steps       which they are in `kept`
        dys         what is added to dh at each; None: nothing
        undo_first  whether the gradient of the state before the first is wanted
        """


class Inference(ABC):
    """A cell's passes where nothing is kept, over the steps of a `Ring`."""

    def __init__(self, job: Job, ring: Ring) -> None:
        self.ring, self.half = ring, np.array(0.5, job.dtype)

    @property
    def others(self) -> Sequence[Array]:
        """The state's parts beside h, in the shape of a gate, to be read and written between steps."""
        return ()

    @abstractmethod
    def forward(self, steps: Sequence[Step], *products: Product) -> None:
        """The equations over the first steps of the ring; `products` as for `Passes.forward`."""


class OneSample(ABC):
    """A cell's passes over one sample where nothing is kept, `count` steps of which have their W x + b made together.

    The product of a step is written into the loop: the calls that sharing one with the layouts needs at every step make
    one sample slower (figures: docs/cpu-kernel.md).  A cell that `packs` may be given its weights packed: transposed,
    which is the faster product where they are few, and with the columns of sigmoids halved.  They are kept from call
    to call; of many weights the comparison with the parameters would cost more than that gains.

    values  how many it takes of memory
    halved  whether the weights are packed
    joint   whether they are, and W x + b is part of the product
    added   (count, blocks * H): what steps add to their products; empty where it is part of them
    zs      (count + 1, K or H): what steps multiply, [x; 1; h] or h
    hs      (count + 1, H): h before and after each step
    """

    packs = False

    def __init__(self, job: Job, count: int) -> None:
        of, H, K = job.of, job.H, job.K
        self.job, self.half, self._count = job, np.array(0.5, job.dtype), count
        self.halved = self.packs and of.gates * H * K <= FEW_WEIGHTS_PER_STEP * count
        self.joint = self.halved and joins(job)
        self._packed, self._packed_from = aligned((K if self.halved else 0, of.gates * H), job.dtype), PackedFrom()
        self.added = aligned((0 if self.joint else count, of.blocks * H), job.dtype)
        self.zs = aligned((count + 1, K if self.joint else H), job.dtype)
        self.zs[:, :-H] = 1
        self.hs = self.zs[:, -H:]
        self.values = self.added.size + self.zs.size + of.at_once * H + 2 * self._packed.size

    @property
    def others(self) -> Sequence[Array]:
        """As those of `Inference`, (H,)."""
        return ()

    @abstractmethod
    def forward(self, U: Array, count: int) -> None:
        """The equations over the first steps, from hs[0]; U (G * H, H), or [W b U] where it is `joint`."""

    def _weights(self, params: Params) -> Array:
        """U as `forward` takes it."""
        if not self.halved:
            return np.ascontiguousarray(params["U"])
        if not self._packed_from.same(params):
            pack_transposed(self.job, self._packed_from.copy(params), self._packed)
            self._packed_from.packed()
        return (self._packed if self.joint else self._packed[-self.job.H :]).T

    def _begin(self, params: Params, x: Array) -> None:
        """What the product, or the sum beside it, takes of the input (count, D)."""
        count, D = x.shape
        if self.joint:
            self.zs[:count, :D] = x
        elif self.halved:
            packed_input_products(self.job, self._packed, x, self.added[:count])
        else:
            input_products(self.job, params, x, self.added[:count])

    def run(self, params: Params, x: Array, state: State, y: Array | None) -> State:
        """x (D, T) to y (H, T), and the final state from the initial one, parts (H, 1)."""
        U, hs, others, T = self._weights(params), self.hs, self.others, x.shape[1]
        for part, given in zip((hs[0], *others), state, strict=True):
            part[...] = given[:, 0]
        for start in range(0, T, self._count):
            n = min(self._count, T - start)
            self._begin(params, x[:, start : start + n].T)
            self.forward(U, n)
            if y is not None:
                y[:, start : start + n] = hs[1 : n + 1].T
            hs[0] = hs[n]
        return tuple([part[:, None].copy() for part in (hs[0], *others)])
