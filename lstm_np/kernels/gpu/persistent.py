"""LSTM on a GPU with the whole sequence in one launch, for hidden sizes whose recurrent weights fit on a
multiprocessor.

Samples do not depend on each other, so a block that owns a few of them needs no other block: it keeps the recurrent
weights in its registers and shared memory and goes through all time steps with one barrier of its own threads per
step.  A small LSTM is bound by the latency of its dependent steps, and this removes launches and memory from them.  The
idea of weights that stay on the chip: Diamos et al., "Persistent RNNs", ICML 2016.

Products over all steps at once (W x, and the gradients of the weights) are those of `lstm_np.kernels.gpu.fused`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lstm_np.arrays import Array, Namespace
from lstm_np.backends import Backend
from lstm_np.kernels.gpu import cuda_source
from lstm_np.kernels.gpu.cuda_source import RawKernel
from lstm_np.kernels.gpu.fused import CudaFusedKernel
from lstm_np.kernels.gpu.launch_plan import Device, PersistentPlan, Tiling, describe_device, plan_persistent
from lstm_np.kernels.protocol import LayerSpec

Kernels = tuple[RawKernel, RawKernel]  # forward, backward


def load(xp: Namespace, plan: PersistentPlan, dtype: str, macros: dict[str, int] | None = None) -> Kernels:
    """The kernels (forward, backward) of a plan, with the shared memory it asks for allowed on the current device.

    macros  besides the plan's own
    """
    names, defined = ("lstm_persistent_forward", "lstm_persistent_backward"), {**plan.macros(), **(macros or {})}
    kernels = tuple(cuda_source.kernel(xp, ("persistent",), name, dtype, defined) for name in names)
    for kernel, tiling in zip(kernels, (plan.forward, plan.backward), strict=True):
        cuda_source.allow_shared_memory(kernel, tiling.shared_bytes)
    return kernels


def launch(kernel: RawKernel, tiling: Tiling, B: int, args: tuple[object, ...]) -> None:
    """One launch over a batch of B."""
    kernel((tiling.grid(B),), (tiling.threads,), args, shared_mem=tiling.shared_bytes)


class _OnDevice(NamedTuple):
    """What a layer knows of one device: its limits, and the kernels that were loaded there."""

    limits: Device
    loaded: dict[PersistentPlan, Kernels]


class PersistentKernel(CudaFusedKernel):
    """One LSTM layer over a whole sequence in one launch; see `lstm_np.kernels.protocol` for shapes."""

    name = "persistent"

    def __init__(self, spec: LayerSpec, backend: Backend) -> None:
        super().__init__(spec, backend)
        self._devices: dict[int, _OnDevice] = {}

    @classmethod
    def supports(cls, spec: LayerSpec, backend: Backend) -> bool:
        """An LSTM in float32 or float64 whose recurrent weights fit on one multiprocessor of the current device."""
        if not super().supports(spec, backend):
            return False
        return plan_persistent(describe_device(backend.xp), spec.hidden_size, spec.dtype, 1) is not None

    def _planned(self, B: int) -> tuple[PersistentPlan, Kernels]:
        number = self.xp.cuda.runtime.getDevice()
        if number not in self._devices:
            self._devices[number] = _OnDevice(describe_device(self.xp), {})
        limits, loaded = self._devices[number]
        plan = plan_persistent(limits, self.spec.hidden_size, self.spec.dtype, B)
        if plan is None:
            # on the device of `supports` a batch of 1 has a plan, and what fits for one sample fits for every batch
            raise ValueError(
                f"the recurrent weights of {self.spec.hidden_size} hidden units in {self.spec.dtype} do not fit on a "
                f"multiprocessor of device {number}: make the layer there, or with kernel='cuda_fused'"
            )
        if plan not in loaded:
            loaded[plan] = load(self.xp, plan, self.spec.dtype)
        return plan, loaded[plan]

    def _run_forward(self, U: Array, bias: Array, gates: Array, c: Array, h: Array, save: bool) -> None:
        T, B = gates.shape[:2]
        plan, (forward, _) = self._planned(B)
        launch(forward, plan.forward, B, (np.int32(T), np.int32(B), np.int32(save), U, bias, gates, c, h))

    def _run_backward(
        self, U: Array, gates: Array, c: Array, dy: Array | None, dh: Array, dc: Array, da: Array, state_gradient: bool
    ) -> None:
        T, B = gates.shape[:2]
        plan, (_, backward) = self._planned(B)
        flags = (np.int32(dy is not None), np.int32(state_gradient))
        arrays = (self.xp.ascontiguousarray(U.T), gates, c, dh if dy is None else dy, dh, dc, da)
        launch(backward, plan.backward, B, (np.int32(T), np.int32(B), *flags, *arrays))
