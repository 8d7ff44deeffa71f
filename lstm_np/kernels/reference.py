"""The reference kernel: the time loop and backpropagation through time, over any cell, on any backend.

Forward, per time step, one product gives all pre-activations, with the weights packed side by side::

    (1)  a = [W U b] [x_t; h_{t-1}; 1]

Backward goes through the steps in reverse (Werbos, "Backpropagation through time", Proc. IEEE 78(10), 1990)::

    (1') [dx_t; dh_{t-1}] = [W U]^T da_t          per step
         [dW dU db] = sum_t da_t [x_t; h_{t-1}; 1]^T     one product after the loop, over all steps and samples

Everything that a step computes can be seen: a forward pass keeps every value of the cell's equations by name, and
`ReferenceKernel.steps_back` hands out the gradient of each, step by step.  Faster kernels are tested against this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from lstm_np.backends import Backend
from lstm_np.cells.declaration import Cell, Values
from lstm_np.kernels.protocol import Array, Computes, Cut, LayerSpec, State
from lstm_np.kernels.steps import SequenceStepper
from lstm_np.packing import Packing

# (t, name, value or its gradient) -> what to go on with instead
Edit = Callable[[int, str, Array], Array]


class Saved(NamedTuple):
    """What a forward pass over B samples keeps, a list with an entry per step of each.

    Where samples have unequal lengths, an entry has the columns of those that make the step.
    """

    inputs: list[Array]  # [x_t; h_{t-1}; 1], what (1) multiplies
    states: list[State]  # before the step
    values: list[Values]  # of the cell's equations, by name
    operands: list[tuple[Array, ...]]  # what the cell's own products multiplied
    within: list[Array]  # where c was not clipped; empty without the option cell_clip
    pre_activations: list[Array]  # a of (1); empty unless they were asked for
    B: int


class OwnShares(NamedTuple):
    """A step's share of the gradients of what a cell has of its own; an LSTM has nothing."""

    dms: tuple[Array, ...]  # of each own product: its share of dU_n is dm q^T, of its bias the sum of dm over samples
    qs: tuple[Array, ...]
    parameters: Mapping[str, Array]  # (H, B), to be summed over samples


class StepBack(NamedTuple):
    """One step of the backward pass."""

    t: int
    da: Array  # (rows, B): this step's share of [dW dU db] is da inputs^T
    inputs: Array  # [x_t; h_{t-1}; 1]
    dx: Array | None  # (D, B)
    gradients: Values  # of the loss with respect to each of the cell's values, (H, B), by name
    own: OwnShares
    arriving: State  # the gradient that the cell was given, of the state after this step, parts (H, B)
    dstate: State  # what arrives at the state before this step, parts (H, B)


class ReferenceKernel:
    """One recurrent layer over a whole sequence; see `lstm_np.kernels.protocol` for shapes."""

    name = "reference"
    computes: tuple[Computes, ...] | None = None  # whatever cell it is given
    packs = True

    def __init__(self, spec: LayerSpec, backend: Backend) -> None:
        self.spec, self.backend = spec, backend

    @classmethod
    def supports(cls, spec: LayerSpec, backend: Backend) -> bool:
        """Every cell, dtype and backend; hold where the cell's values can be held, cell_clip where c is one of them."""
        cell = spec.cell
        clips = cell.holds and "c" in cell.state and "c" in cell.values
        return spec.asks_only(*(("hold",) if cell.holds else ()), *(("cell_clip",) if clips else ()))

    def host_values(self, T: int, B: int) -> tuple[int, int]:
        """As `lstm_np.kernels.protocol.Kernel.host_values`."""
        cell, D, H = self.spec.cell, self.spec.input_size, self.spec.hidden_size
        K, rows = D + H + 1, len(cell.gates) * H
        # inputs and values of each step; backward: da and dx, and da and the inputs of all steps side by side
        return T * B * (K + len(cell.values) * H), T * B * (K + 2 * rows + 2 * D + 2 * H) + 2 * rows * K

    def cut(self, T: int, B: int, save: bool = True) -> Cut:
        """One part, with all cores as BLAS threads."""
        return Cut(((0, B),), self.backend.cores)

    def forward(
        self,
        params: Mapping[str, Array],
        x: Array,
        state: State,
        *,
        sequence: bool = True,
        save: bool = True,
        packing: Packing | None = None,
        edit: Edit | None = None,
        pre_activations: bool = False,
    ) -> tuple[Array | None, State, Saved | None]:
        """(y (H, T, B), final state, saved) from x (D, T, B) and the initial state, parts (H, B).

        With `packing` step t is made for the first `packing.batch_sizes[t]` samples; the state of the others stays.
        `edit` sees each value of the cell as it is computed, and what it returns is gone on with.  `pre_activations`:
        they are saved too, which backward does not need.
        """
        xp, (_, T, B) = self.backend.xp, x.shape
        cell, sizes = self.spec.cell, (B,) * T if packing is None else packing.batch_sizes
        own, weights, more = self.prepare(params)
        ones = xp.ones_like(x[:1, 0, :])
        state = tuple(part.copy() for part in state)  # what the caller passed in may change before backward
        saved, outputs = Saved([], [], [], [], [], [], B), []
        ended: list[State] = []  # of the samples that have ended, those that did first
        edit = self.option_edit(edit, saved.within)
        with self.backend.blas_threads(self.backend.cores):
            for t, n in enumerate(sizes):
                if n < state[0].shape[1]:  # the others have ended
                    ended.append(tuple(part[:, n:] for part in state))
                    state = tuple(part[:, :n] for part in state)
                z = xp.concat((x[:, t, :n], state[0]) + ((ones[:, :n],) if "b" in params else ()), axis=0)
                a = weights @ z  # (1)
                before, (state, values) = state, cell.forward(xp, a, state, *more, **_hold(edit, t))
                if save:
                    saved.inputs.append(z)
                    saved.states.append(before)
                    saved.values.append(values)
                    saved.operands.append(own.given())
                if save and pre_activations:
                    saved.pre_activations.append(a)
                if sequence:
                    outputs.append(self._widened(state[0], B))
        y = xp.stack(outputs, axis=1) if sequence else None
        final = tuple(part.copy() for part in state)
        if ended:
            final = tuple(xp.concat(parts, axis=1) for parts in zip(state, *reversed(ended), strict=True))
        return y, final, saved if save else None

    def _widened(self, array: Array, B: int) -> Array:
        """(features, B) from the first columns: 0 in the others."""
        rows, n = array.shape
        xp = self.backend.xp
        return array if n == B else xp.concat((array, xp.zeros((rows, B - n), dtype=array.dtype)), axis=1)

    def prepare(self, params: Mapping[str, Array]) -> tuple[OwnProducts, Array, tuple[Any, ...]]:
        """What a forward pass makes of the parameters: the cell's own products, [W U b], and what the cell is given
        beside a and the state."""
        xp, own = self.backend.xp, OwnProducts(self.backend.xp, self.spec.cell, params)
        weights = xp.concat((params["W"], own.U) + ((params["b"][:, None],) if "b" in params else ()), axis=1)
        return own, weights, (*own.forward, *self._handed(params))

    def stepper(self, params: Mapping[str, Array], batch: tuple[int, ...], first: bool) -> ReferenceStepper:
        """As `lstm_np.kernels.steps.make_stepper`."""
        return ReferenceStepper(self, params, batch, first)

    def option_edit(self, edit: Edit | None, within: list[Array]) -> Edit | None:
        """`edit` and what the options hold and cell_clip do to values; notes in `within` where c was not clipped."""
        if "hold" in self.spec.options:
            edit = self._put(self.spec.options["hold"], edit)
        if "cell_clip" in self.spec.options:
            edit = self._clip(self.spec.options["cell_clip"], edit, within)
        return edit

    def backward(
        self,
        params: Mapping[str, Array],
        saved: Saved,
        dy: Array | None,
        dstate: tuple[Array | None, ...],
        *,
        input_gradient: bool = True,
        state_gradient: bool = True,
        into: Mapping[str, Array] | None = None,
        edit: Edit | None = None,
        see: Callable[[StepBack], None] | None = None,
    ) -> tuple[Array | None, State | None, dict[str, Array]]:
        """(dx (D, T, B), gradient of the initial state, grads) from dy (H, T, B) and the final state's gradient.

        What dy has behind a sample's length is not read.  `edit` as for `steps_back`; `see` is called with
        each of its steps.
        """
        xp, D, H = self.backend.xp, params["W"].shape[1], params["U"].shape[1]
        T = len(saved.inputs)
        das: list[Array] = [None] * T
        dxs: list[Array] = [None] * T
        shares: list[Any] = [None] * T
        with self.backend.blas_threads(self.backend.cores):
            for step in self.steps_back(params, saved, dy, dstate, input_gradient=input_gradient, edit=edit):
                das[step.t], dxs[step.t], shares[step.t] = step.da, step.dx, step.own
                if see is not None:
                    see(step)
            dweights = xp.concat(das, axis=1) @ xp.concat(saved.inputs, axis=1).T  # (1'): all steps' samples
            grads = {"W": dweights[:, :D], "U": dweights[:, D : D + H]}
            if "b" in params:
                grads["b"] = dweights[:, D + H]
            grads |= self._own_gradients(params, shares, grads["U"])
        dx = xp.stack([self._widened(d, saved.B) for d in dxs], axis=1) if input_gradient else None
        if not state_gradient:
            return dx, None, grads
        first = step.da.shape[1]  # samples with a first step; at the others the gradient is the one given
        if first == saved.B:
            return dx, step.dstate, grads
        given = self._given(saved, dstate)
        pairs = zip(step.dstate, given, strict=True)
        return dx, tuple(xp.concat((d, part[:, first:]), axis=1) for d, part in pairs), grads

    def _given(self, saved: Saved, dstate: tuple[Array | None, ...]) -> State:
        """The gradient of the final state, parts (H, B), with zeros where it is not given."""
        like = saved.states[0][0]
        nothing = self.backend.xp.zeros((like.shape[0], saved.B), dtype=like.dtype)
        return tuple(nothing if part is None else part for part in dstate)

    def steps_back(
        self,
        params: Mapping[str, Array],
        saved: Saved,
        dy: Array | None,
        dstate: tuple[Array | None, ...],
        *,
        input_gradient: bool = True,
        edit: Edit | None = None,
    ) -> Iterator[StepBack]:
        """The steps in reverse, each with the gradients that the cell computed there; arguments as for `backward`.

        `edit` sees the gradient of each value before it is used, and what it returns is gone on with; the gradients
        handed out are those that it saw.
        """
        xp, cell = self.backend.xp, self.spec.cell
        own = OwnProducts(xp, cell, params)
        if "hold" in self.spec.options:
            edit = self._stop(self.spec.options["hold"], edit)
        if "cell_clip" in self.spec.options:
            edit = self._undo_clip(edit, saved.within)
        more, ends = (*own.backward, *self._handed(params)), self._given(saved, dstate)
        arriving: State = tuple(part[:, : saved.inputs[-1].shape[1]] for part in ends)
        for t in reversed(range(len(saved.inputs))):
            n, there = saved.inputs[t].shape[1], arriving[0].shape[1]
            if n > there:  # the others end here
                pairs = zip(arriving, ends, strict=True)
                arriving = tuple(xp.concat((part, end[:, there:n]), axis=1) for part, end in pairs)
            if dy is not None:
                arriving = (arriving[0] + dy[:, t, :n], *arriving[1:])
            seen: dict[str, Array] = {}
            hold = _hold(edit, t, seen)
            da, before, gradients = cell.backward(xp, arriving, saved.states[t], saved.values[t], *more, **hold)
            given, arriving = arriving, (before[0] + own.U.T @ da, *before[1:])  # (1')
            dx = params["W"].T @ da if input_gradient else None  # (1')
            shares = OwnShares(own.given(), saved.operands[t], {p.name: gradients[p.name] for p in cell.handed})
            values = {name: gradients[name] for name in cell.values} | seen
            yield StepBack(t, da, saved.inputs[t], dx, values, shares, given, arriving)

    # ---- the option hold, which acts where an edit does, and before it: a value v of the cell is held at k
    #
    #     (v)   v = k
    #     (v')  dv = 0 for what v was computed from

    def _put(self, held: Mapping[str, float], edit: Edit | None) -> Edit:
        """`edit` after (v)."""
        xp = self.backend.xp

        def put(t: int, name: str, value: Array) -> Array:
            value = xp.zeros_like(value) + held[name] if name in held else value  # (v)
            return value if edit is None else edit(t, name, value)

        return put

    def _stop(self, held: Mapping[str, float], edit: Edit | None) -> Edit:
        """`edit` before (v')."""
        xp = self.backend.xp

        def stopped(t: int, name: str, gradient: Array) -> Array:
            gradient = gradient if edit is None else edit(t, name, gradient)
            return xp.zeros_like(gradient) if name in held else gradient  # (v')

        return stopped

    # ---- the option cell_clip, which acts where an edit does: on c, once the cell has computed it
    #
    #     (4c)  c_t = -v where c_t < -v,  v where c_t > v          by the real part where c is complex
    #     (4c') dc_t = 0 where c_t was clipped

    def _clip(self, limit: float, edit: Edit | None, within: list[Array]) -> Edit:
        """`edit` after (4c); each step notes in `within` where c was not clipped."""
        xp = self.backend.xp

        def clipped(t: int, name: str, value: Array) -> Array:
            if name == "c":
                real = xp.real(value)
                within.append(xp.abs(real) <= limit)
                value = xp.where(within[t], value, xp.sign(real) * limit)  # (4c)
            return value if edit is None else edit(t, name, value)

        return clipped

    def _undo_clip(self, edit: Edit | None, within: list[Array]) -> Edit:
        """`edit` before (4c')."""
        xp = self.backend.xp

        def undone(t: int, name: str, gradient: Array) -> Array:
            gradient = gradient if edit is None else edit(t, name, gradient)
            return xp.where(within[t], gradient, xp.zeros_like(gradient)) if name == "c" else gradient  # (4c')

        return undone

    # ---- what some cells have beside W, U and b, an LSTM nothing

    def _handed(self, params: Mapping[str, Array]) -> tuple[dict[str, Array], ...]:
        """The own parameters that the cell reads, as columns; a bias that the layer does not have is 0."""
        xp, H, handed = self.backend.xp, params["U"].shape[1], self.spec.cell.handed
        columns = {
            p.name: params[p.name][:, None] if p.name in params else xp.zeros((p.blocks * H, 1), dtype=self.spec.dtype)
            for p in handed
        }
        return (columns,) if handed else ()

    def _own_gradients(self, params: Mapping[str, Array], shares: list[OwnShares], dU: Array) -> dict[str, Array]:
        """The gradients of own parameters, and dU with the rows of own products, from the shares of all steps."""
        xp, cell, H, grads = self.backend.xp, self.spec.cell, dU.shape[1], {"U": dU}
        for k, product in enumerate(cell.products):
            rows = cell.gates.index(product.gate) * H
            dms = xp.concat([share.dms[k] for share in shares], axis=1)
            dU_n = dms @ xp.concat([share.qs[k] for share in shares], axis=1).T  # (1b')
            grads["U"] = xp.concat((grads["U"][:rows, :], dU_n, grads["U"][rows + H :, :]), axis=0)
            if product.bias is not None and product.bias in params:
                grads[product.bias] = xp.sum(dms, axis=1)  # (1b')
        for parameter in cell.handed:
            if parameter.name in params:
                share_of = [share.parameters[parameter.name] for share in shares]
                grads[parameter.name] = xp.sum(xp.concat(share_of, axis=1), axis=1)
        return grads


class ReferenceStepper(SequenceStepper):
    """One time step at a time: the lines of `ReferenceKernel.forward`, with its bits; the weights are packed once.

    See `lstm_np.kernels.steps`.
    """

    def __init__(
        self, kernel: ReferenceKernel, params: Mapping[str, Array], batch: tuple[int, ...], first: bool
    ) -> None:
        super().__init__(kernel, params, batch, first)
        self._reference, backend = kernel, kernel.backend
        _, self._weights, self._more = kernel.prepare(self.params)
        self._ones = (backend.xp.ones_like(self.columns[:1, :]),) if "b" in params else ()

    def step(self, x: Array, state: State) -> State:
        """The state after x (D, B)."""
        backend = self._reference.backend
        edit = self._reference.option_edit(None, [])
        with backend.blas_threads(backend.cores):
            z = backend.xp.concat((x, state[0], *self._ones), axis=0)
            a = self._weights @ z  # (1)
            return self._reference.spec.cell.forward(backend.xp, a, state, *self._more, **_hold(edit, 0))[0]


def _hold(edit: Edit | None, t: int, seen: dict[str, Array] | None = None) -> dict[str, Any]:
    """The argument `hold` of a cell's function at step t; none where nothing is edited."""
    if edit is None:
        return {}

    def hold(name: str, value: Array) -> Array:
        if seen is not None:
            seen[name] = value
        return edit(t, name, value)

    return {"hold": hold}


class OwnProducts:
    """The products that a cell makes inside its step, for one pass over a sequence; an LSTM has none.

    The candidate n of a GRU does not simply read h_{t-1}: it waits for the reset gate r.  So its rows of U, U_n, have
    no part in (1), and the cell asks for their product when it has what they multiply, q::

        (1b)  m = U_n q + b_n                                  q is h_{t-1}, or r * h_{t-1}
        (1b') dq = U_n^T dm,   dU_n = sum_t dm q^T,   db_n = sum_t dm

    U         the weights that (1) uses of params["U"]: zeros in the rows of such gates
    forward   a function q -> m for each product, and backward one dm -> dq: what the cell is given
    """

    def __init__(self, xp: Any, cell: Cell, params: Mapping[str, Array]) -> None:
        self.U, H = params["U"], params["U"].shape[1]
        self._given: dict[int, Array] = {}
        self.forward, self.backward = [], []
        for k, product in enumerate(cell.products):
            rows = cell.gates.index(product.gate) * H
            U_n = params["U"][rows : rows + H, :]
            b_n = None if product.bias is None else params.get(product.bias)
            self.U = xp.concat((self.U[:rows, :], xp.zeros_like(U_n), self.U[rows + H :, :]), axis=0)
            self.forward.append(partial(self._multiply, k, U_n, b_n))  # (1b)
            self.backward.append(partial(self._multiply, k, U_n.T, None))  # (1b')

    def _multiply(self, k: int, matrix: Array, bias: Array | None, operand: Array) -> Array:
        self._given[k] = operand
        product = matrix @ operand
        return product if bias is None else product + bias[:, None]

    def given(self) -> tuple[Array, ...]:
        """What the step's products were given, q or dm, in the order of the cell's products."""
        return tuple(self._given[k] for k in range(len(self.forward)))
