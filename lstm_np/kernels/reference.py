"""The reference kernel: the time loop and backpropagation through time, over any cell, on any backend.

Forward, per time step, one product gives all pre-activations, with the weights packed side by side::

    (1)  a = [W U b] [x_t; h_{t-1}; 1]

Backward goes through the steps in reverse (Werbos, "Backpropagation through time", Proc. IEEE 78(10), 1990)::

    (1') [dx_t; dh_{t-1}] = [W U]^T da_t          per step
         [dW dU db] = sum_t da_t [x_t; h_{t-1}; 1]^T     one product after the loop, over all steps and samples

The last gate of some cells reads no h_{t-1} in (1), but makes a product of its own inside the step: see
`lstm_np.cells`.

Faster kernels are tested against this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lstm_np.backends import Backend
from lstm_np.kernels.protocol import Array, LayerSpec, State


class InnerProduct:
    """(1b) m = U_n q + b_n inside a cell's step, for one pass over a sequence; U_n are the last H rows of U."""

    def __init__(self, xp: Any, params: Mapping[str, Array]) -> None:
        H = params["U"].shape[1]
        self.xp, self.U_n, self.b_n = xp, params["U"][-H:, :], params.get("b_n")
        self.outer = xp.concat((params["U"][:-H, :], xp.zeros_like(self.U_n)), axis=0)  # what (1) has left of U
        self.qs: list[Array] = []
        self.dms: list[Array] = []

    def forward(self, q: Array) -> Array:
        """m (H, B) from q (H, B), which is noted."""
        self.qs.append(q)
        m = self.U_n @ q
        return m if self.b_n is None else m + self.b_n[:, None]

    def backward(self, dm: Array) -> Array:
        """dq (H, B) from dm (H, B), which is noted; the steps come in reverse."""
        self.dms.append(dm)
        return self.U_n.T @ dm  # (1b')

    def gradients(self, qs: list[Array]) -> tuple[Array, Array]:
        """(dU_n, db_n) = sum_t dm_t [q_t; 1]^T: one product over all steps and samples."""
        dms = self.xp.concat(self.dms[::-1], axis=1)
        return dms @ self.xp.concat(qs, axis=1).T, self.xp.sum(dms, axis=1)


class ReferenceKernel:
    """One recurrent layer over a whole sequence; see `lstm_np.kernels.protocol` for shapes."""

    name = "reference"

    def __init__(self, spec: LayerSpec, backend: Backend) -> None:
        self.spec, self.backend = spec, backend

    @staticmethod
    def supports(spec: LayerSpec, backend: Backend) -> bool:
        """Every cell, dtype and backend."""
        return spec.asks_only()

    def forward(
        self, params: Mapping[str, Array], x: Array, state: State, *, sequence: bool = True, save: bool = True
    ) -> tuple[Array | None, State, Any]:
        """(y (H, T, B), final state, saved) from x (D, T, B) and the initial state, parts (H, B)."""
        xp, cell = self.backend.xp, self.spec.cell
        T = x.shape[1]
        ones = xp.ones_like(x[:1, 0, :])
        inner, params = self._split(params)
        products = () if inner is None else (inner.forward,)
        weights = xp.concat((params["W"], params["U"]) + ((params["b"][:, None],) if "b" in params else ()), axis=1)
        inputs, steps, outputs = [], [], []
        for t in range(T):
            z = xp.concat((x[:, t, :], state[0]) + ((ones,) if "b" in params else ()), axis=0)
            a = weights @ z  # (1)
            state, step = cell.forward(xp, a, state, *products)
            if save:
                inputs.append(z)
                steps.append(step)
            if sequence:
                outputs.append(state[0])
        y = xp.stack(outputs, axis=1) if sequence else None
        return y, state, (inputs, steps, None if inner is None else inner.qs) if save else None

    def backward(
        self,
        params: Mapping[str, Array],
        saved: Any,
        dy: Array | None,
        dstate: State,
        *,
        input_gradient: bool = True,
        state_gradient: bool = True,
        into: Mapping[str, Array] | None = None,
    ) -> tuple[Array | None, State | None, dict[str, Array]]:
        """(dx (D, T, B), gradient of the initial state, grads) from dy (H, T, B) and the final state's gradient."""
        xp, cell = self.backend.xp, self.spec.cell
        D, H = params["W"].shape[1], params["U"].shape[1]
        inputs, steps, qs = saved
        inner, params = self._split(params)
        products = () if inner is None else (inner.backward,)
        T, nothing = len(steps), xp.zeros_like(steps[-1][0])
        dstate = tuple(nothing if part is None else part for part in dstate)
        das: list[Array] = [None] * T
        dxs: list[Array] = [None] * T
        for t in reversed(range(T)):
            if dy is not None:
                dstate = (dstate[0] + dy[:, t, :], *dstate[1:])
            da, dstate = cell.backward(xp, dstate, steps[t], *products)
            dstate = (dstate[0] + params["U"].T @ da, *dstate[1:])  # (1')
            das[t] = da
            if input_gradient:
                dxs[t] = params["W"].T @ da  # (1')
        dweights = xp.concat(das, axis=1) @ xp.concat(inputs, axis=1).T  # (1'): columns are all steps' samples
        grads = {"W": dweights[:, :D], "U": dweights[:, D : D + H]}
        if "b" in params:
            grads["b"] = dweights[:, D + H]
        if inner is not None:
            dU_n, db_n = inner.gradients(qs)
            grads["U"] = xp.concat((grads["U"][:-H, :], dU_n), axis=0)
            if "b_n" in params:
                grads["b_n"] = db_n
        return xp.stack(dxs, axis=1) if input_gradient else None, dstate if state_gradient else None, grads

    def _split(self, params: Mapping[str, Array]) -> tuple[InnerProduct | None, Mapping[str, Array]]:
        """(the inner product of a cell that has one, params with what (1) then uses of U)."""
        if not hasattr(self.spec.cell, "INNER"):
            return None, params
        inner = InnerProduct(self.backend.xp, params)
        return inner, {**params, "U": inner.outer}
