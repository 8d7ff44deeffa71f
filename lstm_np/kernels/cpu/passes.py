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

from lstm_np.arrays import Array, Params
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu.buffers import Job, Ring, Scratch, Step, Weights
from lstm_np.kernels.cpu.sample import input_products

Product = Callable[..., None]


class Kept(ABC):
    """What backward needs of some steps, beside h: `array` (steps, kept, *shape) and views of it."""

    array: Array

    @abstractmethod
    def __init__(self, steps: int, shape: tuple[int, int], dtype: str, tau: int) -> None: ...


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

    def keep(self, steps: int) -> Any:
        """What is kept of so many steps; None where that is h alone."""
        return None if self.kept is None else self.kept(steps, self.scratch.shape, self.dtype, self.scratch.tau)

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
    one sample slower (figures: docs/cpu-kernel.md).

    values  how many it takes of memory
    added   (count, blocks * H): what steps add to their products
    hs      (count + 1, H): h before and after each step
    """

    def __init__(self, job: Job, count: int) -> None:
        self.job, self.half = job, np.array(0.5, job.dtype)
        self.added = aligned((count, job.of.blocks * job.H), job.dtype)
        self.hs = aligned((count + 1, job.H), job.dtype)
        self.values = self.added.size + self.hs.size + job.of.at_once * job.H

    @property
    def others(self) -> Sequence[Array]:
        """As those of `Inference`, (H,)."""
        return ()

    @abstractmethod
    def forward(self, U: Array, count: int) -> None:
        """The equations over the first steps, from hs[0]."""

    def run(self, params: Params, x: Array, state: Sequence[Array], y: Array | None) -> None:
        """x (D, T) to y (H, T); the state's parts (H,) are the initial ones and become the final ones."""
        U, hs, T = np.ascontiguousarray(params["U"]), self.hs, x.shape[1]
        hs[0] = state[0]
        for part, given in zip(self.others, state[1:], strict=True):
            part[...] = given
        for start in range(0, T, len(self.added)):
            n = min(len(self.added), T - start)
            input_products(self.job, params, x[:, start : start + n].T, self.added[:n])
            self.forward(U, n)
            if y is not None:
                y[:, start : start + n] = hs[1 : n + 1].T
            hs[0] = hs[n]
        for part, found in zip(state, (hs[0], *self.others), strict=True):
            part[...] = found
