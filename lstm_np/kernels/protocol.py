"""What every sequence kernel is: the shapes, the two functions, and how one is chosen.

A kernel runs one recurrent layer in one direction over a whole sequence.  All arrays are feature-major: a column is a
sample, so x is (D, T, B), y is (H, T, B), and each part of a state is (H, B).  ``params`` holds ``W`` (4H, D),
``U`` (4H, H) and, unless the layer has no bias, ``b`` (4H,) (for an LSTM; the number of row blocks is the cell's), and
the cell's own parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from lstm_np.arrays import Array, State
from lstm_np.backends import Backend
from lstm_np.cells import Cell, Parameter, Product
from lstm_np.packing import Packing


@dataclass(frozen=True)
class LayerSpec:
    """What a kernel must know before it sees an array.

    options   those that are marked `kernel` in `lstm_np.options` and not at their defaults, by name
    """

    cell: Cell
    input_size: int
    hidden_size: int
    bias: bool
    dtype: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def asks_only(self, *known: str) -> bool:
        """Whether all of `options` are among `known`.

        A kernel that does not know one of them must refuse the layer, so each asks this in `supports`: a new option is
        then refused by every kernel until it learns it.
        """
        return self.options.keys() <= set(known)


class Cut(NamedTuple):
    """How a batch is cut over the cores of a CPU, each part of which is computed for itself, by whichever process.

    parts         first and last + 1 sample of each
    blas_threads  of whoever computes one

    It is a function of layer sizes, T, B and the configured cores alone, and decides every sum's order: what has the
    same cut has the same bits.
    """

    parts: tuple[tuple[int, int], ...]
    blas_threads: int


class Computes(NamedTuple):
    """A cell whose equations are a kernel's own lines.

    name, gates, state, parameters, products  as in its `lstm_np.cells.Cell`
    results  what the kernel makes of the step in `lstm_np.kernels.agreement`; None: it is run to find out
    """

    name: str
    gates: tuple[str, ...]
    state: tuple[str, ...]
    parameters: tuple[Parameter, ...] = ()
    products: tuple[Product, ...] = ()
    results: tuple[tuple[float, ...], ...] | None = None


LSTM = Computes("lstm", ("i", "f", "o", "g"), ("h", "c"))


class Kernel(Protocol):
    """A whole sequence, forward and backward.  Every kernel agrees with `ReferenceKernel` and passes its tests.

    name      what it is called
    computes  the cells that it has in lines of its own; None: it runs the functions of any cell
    packs     whether `forward` takes a packing, for sequences of unequal length; `LayerSpec` cannot say it, since it is
              the batches that have lengths
    """

    name: str
    computes: tuple[Computes, ...] | None
    packs: bool
    spec: LayerSpec
    backend: Backend

    def __init__(self, spec: LayerSpec, backend: Backend) -> None: ...

    @classmethod
    def supports(cls, spec: LayerSpec, backend: Backend) -> bool:
        """Whether this kernel can run such a layer, with all of its options, on a backend that has it."""
        ...

    def cut(self, T: int, B: int, save: bool = True) -> Cut:
        """How a batch of B sequences of T steps is cut; `save`: a backward pass will follow."""
        ...

    def host_values(self, T: int, B: int) -> tuple[int, int]:
        """About how many values of its dtype it has in the host's memory for a training step on B sequences of T steps.

        (kept for the backward pass, and there only while this layer is computed), in all processes, beside
        arguments and results: a run that does not fit is refused before it begins.
        """
        ...

    def forward(
        self,
        params: Mapping[str, Array],
        x: Array,
        state: State,
        *,
        sequence: bool = True,
        save: bool = True,
        packing: Packing | None = None,
    ) -> tuple[Array | None, State, Any]:
        """(y, final state, saved): x (D, T, B) and the initial state give y (H, T, B) and the state after step T.

        `sequence=False`: y is not wanted and comes back as None.  `save=False`: no backward will follow; saved is None.
        Strided views are welcome as x.  What comes back belongs to the caller: a later call does not change it.

        `packing`, for a kernel that packs: all arrays, those of backward too, are packed by it (`lstm_np.packing`), so
        that samples lie longest first, and step t is made for the first `packing.batch_sizes[t]` of them.  Behind a
        sample's length x and dy are not read, y and dx are 0; its final state is that after its own last step.
        """
        ...

    def backward(
        self,
        params: Mapping[str, Array],
        saved: Any,
        dy: Array | None,
        dstate: tuple[Array | None, ...],
        *,
        input_gradient: bool = True,
        state_gradient: bool = True,
        into: Mapping[str, Array] | None = None,
    ) -> tuple[Array | None, State | None, dict[str, Array]]:
        """(dx, dstate_0, grads) from dy (H, T, B) or None, and the gradient of the final state (parts may be None).

        `params` are those of the forward call, unchanged since.  `input_gradient=False`: dx is not wanted and comes
        back as None; `state_gradient=False`: likewise dstate_0.  grads has the keys and shapes of params.
        `into`: arrays of those keys and shapes that the kernel may compute grads in, to save the caller a copy.
        """
        ...


class KernelStack(Protocol):
    """Several layers in one pass, with the results of their kernels, one after the other, to the bit.

    A layer reads the outputs of all directions of the layer below, one direction's features after the other's.  All
    lists have an item for each layer and direction, in order.
    """

    def runs(self, kernels: Sequence[Kernel]) -> bool:
        """Whether it was made of these very kernels."""
        ...

    def takes(self, T: int, B: int, save: bool) -> bool:
        """Whether it runs batches of B sequences of T steps; `save`: a backward pass will follow."""
        ...

    def forward(
        self,
        params: Sequence[Mapping[str, Array]],
        x: Array,
        states: Sequence[State],
        *,
        sequence: bool = True,
        save: bool = True,
    ) -> tuple[Array | None, list[State], Any]:
        """(y (directions * H, T, B), final states, saved) from x (D, T, B) and the initial states.

        y and x have the same order in time; what a direction is given and gives is that of a `Kernel`.
        """
        ...

    def backward(
        self,
        params: Sequence[Mapping[str, Array]],
        saved: Any,
        dy: Array | None,
        dstates: Sequence[tuple[Array | None, ...]],
        *,
        input_gradient: bool = True,
        state_gradient: bool = True,
        into: Sequence[Mapping[str, Array] | None],
    ) -> tuple[Array | None, list[State] | None, list[dict[str, Array]]]:
        """(dx, gradients of the initial states, grads) from dy (directions * H, T, B) or None."""
        ...
