"""One recurrent layer in one direction: what stacks are made of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lstm_np.backends import Backend
from lstm_np.holds import Edits
from lstm_np.kernels import KernelWarning, LayerSpec, choose_kernel
from lstm_np.kernels.protocol import Array, State
from lstm_np.kernels.reference import Edit, Saved, StepBack
from lstm_np.options import depth_of_caller
from lstm_np.packing import Packing


class ReferencePass(NamedTuple):
    """What is kept of a pass that the reference kernel ran in place of the layer's own: one that is looked at, whose
    values are held, or whose lengths the layer's own kernel does not take."""

    saved: Saved
    undo: Edit | None  # of what was held


class Single:
    """One layer in one direction, with a kernel of its own; a column is a sample in all its arrays.

    name      "layer0" or "layer0_reverse": what the names of its parameters begin with in a stack
    spec      its cell, sizes, bias and dtype
    reverse   whether it reads a sequence from its end
    params    its parameters by their short names, "W", "U", "b" ..., arrays of the backend
    kernel    what runs it; `kernel.name` says which
    added     (rows,) or None: what is added to the bias at every step and not trained
    learned   whether its initial state is trained: params has "h_0" and, for each part of the state, one like it

    Raises ValueError, when it is made, for a kernel that is unknown or cannot run it.
    """

    def __init__(
        self,
        name: str,
        spec: LayerSpec,
        backend: Backend,
        params: Mapping[str, Array],
        *,
        reverse: bool = False,
        kernel: str = "auto",
        added: Array | None = None,
        learned: bool = False,
    ) -> None:
        self.learned = tuple(f"{part}_0" for part in spec.cell.state) if learned else ()
        self.name, self.spec, self.backend, self.params, self.reverse = name, spec, backend, params, reverse
        self.kernel = choose_kernel(kernel, spec, backend)
        self._added = added

    def __repr__(self) -> str:
        D, H = self.spec.input_size, self.spec.hidden_size
        way = ", from the end" if self.reverse else ""
        return f"<{self.name}: {self.spec.cell.name}({D}, {H}), {self.spec.dtype}{way}, kernel {self.kernel.name}>"

    def initial_state(self, B: int) -> State:
        """The initial state of B samples where none is given, parts (H, B): zeros, or what was trained."""
        new, shape, dtype = self.backend.xp.zeros, (self.spec.hidden_size, B), self.spec.dtype
        zeros = tuple([new(shape, dtype=dtype) for _ in self.spec.cell.state])
        if not self.learned:
            return zeros
        return tuple(zero + self.params[name][:, None] for zero, name in zip(zeros, self.learned, strict=True))

    def begin(self, state: tuple[Array | None, ...], B: int, resets: Array | None) -> tuple[State, tuple[Any, ...]]:
        """(the state before the first step, of each part where it is the initial state).

        state   parts (H, B) that were given, None where none was
        resets  (B,) booleans, of samples that begin from the initial state whatever was given; None: of none

        Where a part is the initial state is True, False, or (B,) booleans.
        """
        given = [part for part in state if part is not None]
        if resets is None and len(given) in (0, len(state)):
            return (tuple(given), (False,) * len(state)) if given else (self.initial_state(B), (True,) * len(state))
        xp, begun, where = self.backend.xp, [], []
        for part, own in zip(state, self.initial_state(B), strict=True):
            reset = part is not None and resets is not None
            begun.append(xp.where(resets, own, part) if reset else own if part is None else part)
            where.append(True if part is None else resets if reset else False)
        return tuple(begun), tuple(where)

    def forward(
        self,
        x: Array,
        state: State,
        *,
        sequence: bool = True,
        save: bool = True,
        packing: Packing | None = None,
        edits: Edits | None = None,
        trace: bool = False,
    ) -> tuple[Array | None, State, Any]:
        """(y, final state, saved) from x (D, T, B) and the initial state, parts (H, B).

        y (H, T, B) has the time order of x, whichever way it is read; the final state is that after the last step read.
        `sequence` and `save` as for `lstm_np.kernels.protocol.Kernel.forward`; `packing` is that of the batch as it
        lies, where its samples have unequal lengths.  With `edits`, what holds values, or `trace`, which saves the
        pre-activations too, the reference kernel runs, and saved is a `ReferencePass`.
        """
        if packing is not None:
            return self._forward_packed(self._own(packing), x, state, sequence, save, edits, trace)
        params, x = self.kernel_params(), self._in_order(x)
        if edits is None and not trace:
            y, final, saved = self.kernel.forward(params, x, state, sequence=sequence, save=save)
            return self._in_order(y), final, saved
        y, final, saved = self._by_reference(params, x, state, sequence, save, edits, trace)
        return self._in_order(y), final, saved

    def _forward_packed(
        self, packing: Packing, x: Array, state: State, sequence: bool, save: bool, edits: Edits | None, trace: bool
    ) -> tuple[Array | None, State, Any]:
        """`forward` over the steps that each sample has; `packing` is this direction's."""
        params, x, state = self.kernel_params(), packing.pack(x), tuple(map(packing.columns, state))
        if edits is None and not trace and self._packs():
            y, final, saved = self.kernel.forward(params, x, state, sequence=sequence, save=save, packing=packing)
        else:
            y, final, saved = self._by_reference(params, x, state, sequence, save, edits, trace, packing)
        return packing.outputs(y), tuple(map(packing.samples, final)), saved

    def _by_reference(
        self,
        params: Mapping[str, Array],
        x: Array,
        state: State,
        sequence: bool,
        save: bool,
        edits: Edits | None,
        trace: bool,
        packing: Packing | None = None,
    ) -> tuple[Array | None, State, ReferencePass | None]:
        put, undo = (None, None) if edits is None else edits
        y, final, saved = self._reference().forward(
            params, x, state, sequence=sequence, save=save, packing=packing, edit=put, pre_activations=trace
        )
        return y, final, ReferencePass(saved, undo) if saved is not None else None

    def _packs(self) -> bool:
        """Whether the layer's own kernel takes sequences of unequal length; a KernelWarning where it does not."""
        if not self.kernel.packs:
            warnings.warn(
                f"kernel {self.kernel.name!r} takes no sequences of unequal length: kernel 'reference' runs them",
                KernelWarning,
                stacklevel=depth_of_caller(),
            )
        return self.kernel.packs

    def _own(self, packing: Packing) -> Packing:
        """That of this direction, from that of the batch as it lies."""
        return packing.reversed if self.reverse else packing

    def backward(
        self,
        saved: Any,
        dy: Array | None,
        dstate: tuple[Array | None, ...],
        *,
        input_gradient: bool = True,
        state_gradient: bool = True,
        into: Mapping[str, Array] | None = None,
        packing: Packing | None = None,
        see: Callable[[StepBack], None] | None = None,
        began: tuple[Any, ...] = (),
    ) -> tuple[Array | None, State | None, dict[str, Array]]:
        """(dx (D, T, B), gradient of the initial state, grads) from dy (H, T, B) and the final state's gradient.

        `packing` is that of the forward pass, and `began` says where it began from the initial state, as `begin` has
        it.  grads has the keys and shapes of `params`.  `see` is called with each backward step of a pass that was
        looked at.  The other arguments are those of `lstm_np.kernels.protocol.Kernel.backward`.
        """
        params, own = self.kernel_params(), None if packing is None else self._own(packing)
        state_gradient = state_gradient or bool(self.learned)
        if own is None:
            dy = self._in_order(dy)
        else:
            dy, dstate = own.output_gradients(dy), tuple(map(own.columns, dstate))
        flags: dict[str, Any] = {"input_gradient": input_gradient, "state_gradient": state_gradient, "into": into}
        if isinstance(saved, ReferencePass):
            dx, dstate_0, grads = self._reference().backward(
                params, saved.saved, dy, dstate, **flags, edit=saved.undo, see=see
            )
        else:
            dx, dstate_0, grads = self.kernel.backward(params, saved, dy, dstate, **flags)
        dx = self._in_order(dx) if own is None else own.unpack(dx)
        if dstate_0 is not None and own is not None:
            dstate_0 = tuple(map(own.samples, dstate_0))
        return dx, *self.gradients_of(dstate_0, grads, began)

    def gradients_of(
        self, dstate_0: State | None, grads: dict[str, Array], began: tuple[Any, ...]
    ) -> tuple[State | None, dict[str, Array]]:
        """(gradient of the initial state that was given, grads of `params`) from what a kernel gives of both."""
        grads = self._own_gradients(grads)
        if dstate_0 is not None and (self.learned or not all(isinstance(one, bool) for one in began)):
            return self._initial_gradients(dstate_0, began, grads)
        return dstate_0, grads

    @property
    def step_params(self) -> dict[str, Array]:
        """`params` without a trained initial state: what the steps compute with."""
        if not self.learned:
            return dict(self.params)
        return {name: array for name, array in self.params.items() if name not in self.learned}

    def _initial_gradients(
        self, dstate_0: State, began: tuple[Any, ...], grads: dict[str, Array]
    ) -> tuple[State, dict[str, Array]]:
        """(the gradient of the state that was given, grads with that of a trained initial state).

        dstate_0 is of the state before the first step.  Where that was the initial state in some samples, nothing of it
        is the gradient of what was given; where it was in all, it is handed out as it is.
        """
        xp, given, grads = self.backend.xp, [], dict(grads)
        names = self.learned or (None,) * len(dstate_0)
        for name, d, own in zip(names, dstate_0, began, strict=True):
            some = not isinstance(own, bool)
            of_own = xp.where(own, d, xp.zeros_like(d)) if some else d if own else xp.zeros_like(d)
            given.append(xp.where(own, xp.zeros_like(d), d) if some else d)
            if name is not None:
                grads[name] = xp.sum(of_own, axis=1)
        return tuple(given), grads

    def _reference(self) -> Any:
        """The reference kernel of this layer.  Raises ValueError where it cannot run it."""
        return self.kernel if self.kernel.name == "reference" else choose_kernel("reference", self.spec, self.backend)

    def _in_order(self, array: Array | None) -> Array | None:
        """(features, T, B) in the order in which this layer reads, or back from it: a view."""
        return array[:, ::-1, :] if self.reverse and array is not None else array

    def kernel_params(self) -> dict[str, Array]:
        """The parameters as kernels take them: all that is added to a gate in one b, and a product's bias by its name.

        With two bias vectors b_h is the one of U h_{t-1}: where the cell makes a gate's product itself (a GRU's
        candidate), that gate's block of b_h is the product's bias.
        """
        params, xp = self.step_params, self.backend.xp
        if "b_h" in params:
            b_h = params.pop("b_h")
            for bias, start, stop in self._biases_of_products():
                params[bias] = b_h[start:stop]
                b_h = xp.concat((b_h[:start], xp.zeros_like(b_h[start:stop]), b_h[stop:]))
            params["b"] = params["b"] + b_h
        if self._added is not None:
            params["b"] = params["b"] + self._added
        return params

    def _own_gradients(self, grads: dict[str, Array]) -> dict[str, Array]:
        """The gradients of `params` from those of `kernel_params`: both bias vectors get the same."""
        if "b_h" not in self.params:
            return grads
        own, db_h = dict(grads), grads["b"].copy()
        for bias, start, stop in self._biases_of_products():
            db_h[start:stop] = own.pop(bias)
        return own | {"b_h": db_h}

    def _biases_of_products(self) -> list[tuple[str, int, int]]:
        """(name, its rows of b_h) of the biases that the cell's own products add."""
        cell, H = self.spec.cell, self.spec.hidden_size
        rows = [(product.bias, cell.gates.index(product.gate) * H) for product in cell.products]
        return [(bias, start, start + H) for bias, start in rows if bias is not None]
