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

    Raises ValueError for an unknown kernel, or where none, or not this one, can run the layer on this backend.
    """
    for candidate in backend.kernels if name == "auto" else (name,):
        kernel = kernel_class(candidate)
        if candidate in backend.kernels and kernel.supports(spec, backend):
            return kernel(spec, backend)
    asked = "".join(f", {option} {value}" for option, value in spec.options.items())
    layer = f"a {spec.cell.name} layer of {spec.hidden_size} units in {spec.dtype}{asked} on the {backend.name} backend"
    if name == "auto":
        raise ValueError(f"no kernel runs {layer}")
    raise ValueError(f"kernel {name!r} does not run {layer}; use --kernel auto")
