"""Whole sequences: the time loop and the matrix products.  Every kernel is tested against `reference`."""

from __future__ import annotations

import importlib

from lstm_np.backends import Backend
from lstm_np.kernels.protocol import Kernel, LayerSpec

__all__ = ["KERNELS", "Kernel", "LayerSpec", "choose_kernel"]

# name -> (module, class); a module is imported when its kernel is asked for, since some need CuPy
KERNELS = {
    "reference": ("lstm_np.kernels.reference", "ReferenceKernel"),
    "fused": ("lstm_np.kernels.cpu.fused", "NumpyFusedKernel"),
    "lean": ("lstm_np.kernels.cpu.fused", "NumpyLeanKernel"),
    "persistent": ("lstm_np.kernels.gpu.persistent", "PersistentKernel"),
    "cuda_fused": ("lstm_np.kernels.gpu.fused", "CudaFusedKernel"),
}


def kernel_class(name: str) -> type[Kernel]:
    """The kernel class called `name`.  Raises ValueError for an unknown name."""
    if name not in KERNELS:
        raise ValueError(f"unknown kernel {name!r}; there are: auto, {', '.join(KERNELS)}")
    module, attribute = KERNELS[name]
    return getattr(importlib.import_module(module), attribute)


def choose_kernel(name: str, spec: LayerSpec, backend: Backend) -> Kernel:
    """A kernel for one layer and direction: the one asked for, or with "auto" the first of the backend's that can.

    Raises ValueError for an unknown kernel, or one that cannot run this layer on this backend.
    """
    if name == "auto":
        classes = (kernel_class(candidate) for candidate in backend.kernels)
        return next(kernel(spec, backend) for kernel in classes if kernel.supports(spec, backend))
    kernel = kernel_class(name)
    if name not in backend.kernels or not kernel.supports(spec, backend):
        cell = spec.cell.__name__.rpartition(".")[2]
        raise ValueError(
            f"kernel {name!r} does not run a {cell} layer of {spec.hidden_size} units in {spec.dtype} on the "
            f"{backend.name} backend; use --kernel auto"
        )
    return kernel(spec, backend)
