"""LSTM on a GPU for any sizes: per time step one matrix product (cuBLAS) and one kernel that does everything else.

Inside, a sample's values lie side by side: x is (T, B, D), h and c are (T+1, B, H) with the initial state first, gates
are (T, B, 4H).  So every step's operand is contiguous, W x of all steps is one product, the products of the steps add
to it in place, and the weights' gradients are two products over all steps and samples at once.  What comes back is a
transposed view, as `lstm_np.kernels.protocol` has it.  Nothing is allocated in the loop over time.

Strict float32: cuBLAS uses no TF32 here unless CuPy is told to (CUPY_TF32), and gradients are the same bits in every
run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lstm_np.arrays import Array, Namespace, State
from lstm_np.backends import Backend
from lstm_np.kernels.gpu import cuda_source
from lstm_np.kernels.gpu.cublas import Products
from lstm_np.kernels.gpu.launch_plan import refuse_oversize
from lstm_np.kernels.protocol import LSTM, Cut, LayerSpec

BLOCK = 256

# of the step in `lstm_np.kernels.agreement`: y, c, dx, dh_0, dc_0 of its four samples, as the kernels of this package
# compute them (tests/gpu compares)
RESULTS = (
    (0.1031079233283278, -0.32204704159773945, 0.7510338371299442, 0.3535950134527232),
    (0.10818261278656291, -0.7100354171900798, 8.028064166135607, -802.588346856002),
    (-0.32907336067917525, 0.2501253951429555, 27.804205281399536, 0.006430177204571457),
    (-0.2702159803003663, 0.00876772799947681, -8.907104458052537, 0.029582281028279256),
    (0.2539053481419012, 0.09818429482685725, -1.483772642333766, 0.26601992597980517),
)


class DeviceSaved(NamedTuple):
    """What backward needs of a forward pass, in the layout of the kernels."""

    x: Array  # (T, B, D)
    gates: Array  # (T, B, 4H), after their activation
    h: Array  # (T+1, B, H)
    c: Array  # (T+1, B, H)


class CudaFusedKernel:
    """One LSTM layer over a whole sequence on a GPU; see `lstm_np.kernels.protocol` for shapes."""

    name = "cuda_fused"
    computes = (LSTM._replace(results=RESULTS),)
    packs = False

    def __init__(self, spec: LayerSpec, backend: Backend) -> None:
        self.spec, self.backend, self.xp = spec, backend, backend.xp
        self._item = np.dtype(spec.dtype).itemsize
        self._product = Products(self.xp, spec.dtype)
        self._step_forward = cuda_source.kernel(self.xp, ("steps",), "lstm_step_forward", spec.dtype)
        self._step_backward = cuda_source.kernel(self.xp, ("steps",), "lstm_step_backward", spec.dtype)
        self._no_bias: dict[int, Array] = {}  # by device

    @classmethod
    def supports(cls, spec: LayerSpec, backend: Backend) -> bool:
        """An LSTM in float32 or float64, of any size."""
        return spec.asks_only() and spec.cell.name == LSTM.name and spec.dtype in cuda_source.REALS

    def cut(self, T: int, B: int, save: bool = True) -> Cut:
        """One part: no core of the CPU computes any of it."""
        return Cut(((0, B),), self.backend.cores)

    # ---------------------------------------------------------------------------------------------------- the protocol

    def host_values(self, T: int, B: int) -> tuple[int, int]:
        """None: all of it lies on the device."""
        return 0, 0

    def forward(
        self, params: Mapping[str, Array], x: Array, state: State, *, sequence: bool = True, save: bool = True
    ) -> tuple[Array | None, State, DeviceSaved | None]:
        """(y (H, T, B), final state, saved) from x (D, T, B) and the initial state, parts (H, B).

        Raises ValueError for a batch that is too large for the kernels' integers.
        """
        xp, (D, T, B), H = self.xp, x.shape, self.spec.hidden_size
        refuse_oversize(T, B, H)
        rows = xp.ascontiguousarray(x.transpose(1, 2, 0))
        W, U = _whole(xp, params["W"]), _whole(xp, params["U"])
        bias = _whole(xp, params["b"]) if self.spec.bias else self._zeros()
        gates = xp.empty((T, B, 4 * H), dtype=self.spec.dtype)
        h, c = (xp.empty((T + 1, B, H), dtype=self.spec.dtype) for _ in range(2))
        h[0], c[0] = state[0].T, state[1].T
        self._product(4 * H, T * B, D, W.data.ptr, True, rows.data.ptr, False, gates.data.ptr)  # (1): W x, all steps
        self._run_forward(U, bias, gates, c, h, save)
        # copies: what comes back belongs to the caller, who may change it before backward
        final = (h[T].copy().T, c[T].copy().T)
        y = h[1:].copy().transpose(2, 0, 1) if sequence else None
        return y, final, DeviceSaved(rows, gates, h, c) if save else None

    def backward(
        self,
        params: Mapping[str, Array],
        saved: DeviceSaved,
        dy: Array | None,
        dstate: State,
        *,
        input_gradient: bool = True,
        state_gradient: bool = True,
        into: Mapping[str, Array] | None = None,
    ) -> tuple[Array | None, State | None, dict[str, Array]]:
        """(dx (D, T, B), gradient of the initial state, grads) from dy (H, T, B) and the final state's gradient."""
        xp, (x, gates, h, c), H, D = self.xp, saved, self.spec.hidden_size, self.spec.input_size
        T, B = x.shape[:2]
        dh, dc = (self._rows(part, B) for part in dstate)
        dy_rows = None if dy is None else xp.ascontiguousarray(dy.transpose(1, 2, 0))
        da = xp.empty((T, B, 4 * H), dtype=self.spec.dtype)
        self._run_backward(_whole(xp, params["U"]), gates, c, dy_rows, dh, dc, da, state_gradient)

        dW = xp.empty((4 * H, D), dtype=self.spec.dtype)
        dU = xp.empty((4 * H, H), dtype=self.spec.dtype)
        self._product(D, 4 * H, T * B, x.data.ptr, False, da.data.ptr, True, dW.data.ptr)  # (1')
        self._product(H, 4 * H, T * B, h.data.ptr, False, da.data.ptr, True, dU.data.ptr)  # (1'): h's first T slots
        grads = {"W": dW, "U": dU}
        if self.spec.bias:
            grads["b"] = da.reshape(T * B, 4 * H).sum(axis=0)  # (1')
        dx = None
        if input_gradient:
            W, dx_rows = _whole(xp, params["W"]), xp.empty((T, B, D), dtype=self.spec.dtype)
            self._product(D, T * B, 4 * H, W.data.ptr, False, da.data.ptr, False, dx_rows.data.ptr)  # (1')
            dx = dx_rows.transpose(2, 0, 1)
        return dx, (dh.T, dc.T) if state_gradient else None, grads

    def _zeros(self) -> Array:
        """The bias of a layer that has none, on the current device."""
        number = self.xp.cuda.runtime.getDevice()
        if number not in self._no_bias:
            self._no_bias[number] = self.xp.zeros(4 * self.spec.hidden_size, dtype=self.spec.dtype)
        return self._no_bias[number]

    def _rows(self, part: Array | None, B: int) -> Array:
        """A part of a state's gradient (H, B) as a writable (B, H)."""
        if part is None:
            return self.xp.zeros((B, self.spec.hidden_size), dtype=self.spec.dtype)
        rows = self.xp.empty((B, self.spec.hidden_size), dtype=self.spec.dtype)
        rows[...] = part.T
        return rows

    # ---------------------------------------------------------------------------------- the loop over time, replaceable

    def _run_forward(self, U: Array, bias: Array, gates: Array, c: Array, h: Array, save: bool) -> None:
        """gates holds W x on entry; afterwards gates (if `save`), h and the last c are those of the whole sequence."""
        (T, B), H = gates.shape[:2], self.spec.hidden_size
        grid, sizes = (-(-B * H // BLOCK),), (np.int32(B), np.int32(H))
        U_at, h_at, a_at = U.data.ptr, h.data.ptr, gates.data.ptr
        for t in range(T):
            self._product(4 * H, B, H, U_at, True, h_at, False, a_at, add=True)  # (1): + U h
            self._step_forward(grid, (BLOCK,), (np.int32(t), *sizes, bias, gates, c, h))
            h_at += B * H * self._item
            a_at += B * 4 * H * self._item

    def _run_backward(
        self, U: Array, gates: Array, c: Array, dy: Array | None, dh: Array, dc: Array, da: Array, state_gradient: bool
    ) -> None:
        """da of all steps; dh and dc (B, H) go from the final state's gradient to the initial state's, if wanted."""
        (T, B), H = gates.shape[:2], self.spec.hidden_size
        grid, sizes = (-(-B * H // BLOCK),), (np.int32(B), np.int32(H), np.int32(dy is not None))
        dy = dh if dy is None else dy
        U_at, dh_at, da_at = U.data.ptr, dh.data.ptr, da.data.ptr + (T - 1) * B * 4 * H * self._item
        for t in reversed(range(T)):
            self._step_backward(grid, (BLOCK,), (np.int32(t), *sizes, gates, c, dy, dh, dc, da))
            if t > 0 or state_gradient:
                self._product(H, B, 4 * H, U_at, False, da_at, False, dh_at)  # (1')
            da_at -= B * 4 * H * self._item


def _whole(xp: Namespace, array: Array) -> Array:
    """The array contiguous and aligned to 16 bytes, as the kernels read it: itself where it is so already."""
    array = xp.ascontiguousarray(array)
    return array if array.data.ptr % 16 == 0 else array.copy()
