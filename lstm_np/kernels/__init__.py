"""Whole sequences: the time loop and the matrix products.  Every kernel is tested against `reference`."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence

from lstm_np.backends import Backend
from lstm_np.kernels import agreement
from lstm_np.kernels.protocol import Cut, Kernel, KernelStack, LayerSpec

__all__ = ["KERNELS", "Cut", "Kernel", "KernelStack", "KernelWarning", "LayerSpec", "choose_kernel", "make_stack"]


class KernelWarning(UserWarning):
    """A faster kernel, product or graph that is not used, though it was made for such work; one line: which, and why.

    To make an error of it, so that nothing is slow without a word:

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", lstm_np.KernelWarning)
    ...     layer = lstm_np.LSTM(3, 5)
    """


# name -> (module, class); a module is imported when its kernel is asked for, since some need CuPy
KERNELS = {
    "reference": ("lstm_np.kernels.reference", "ReferenceKernel"),
    "fused": ("lstm_np.kernels.cpu.fused", "NumpyFusedKernel"),
    "lean": ("lstm_np.kernels.cpu.fused", "NumpyLeanKernel"),
    "persistent": ("lstm_np.kernels.gpu.persistent", "PersistentKernel"),
    "cuda_fused": ("lstm_np.kernels.gpu.fused", "CudaFusedKernel"),
}
# likewise what runs several layers of a kernel together
STACKS = dict.fromkeys(("fused", "lean"), ("lstm_np.kernels.cpu.stack", "FusedStack"))


def kernel_class(name: str) -> type[Kernel]:
    """The kernel class called `name`.  Raises ValueError for an unknown name."""
    if name not in KERNELS:
        raise ValueError(f"unknown kernel {name!r}; there are: auto, {', '.join(KERNELS)}")
    module, attribute = KERNELS[name]
    return getattr(importlib.import_module(module), attribute)


def choose_kernel(name: str, spec: LayerSpec, backend: Backend) -> Kernel:
    """A kernel for one layer and direction: the one asked for, or with "auto" the first of the backend's that can.

    A kernel that computes another cell than the one that is read gives way, with a KernelWarning; see
    `lstm_np.kernels.agreement`.
    Raises ValueError for an unknown kernel, or where none, or not this one, can run the layer on this backend.
    """
    other = None
    for candidate in backend.kernels if name == "auto" else (name,):
        kernel = kernel_class(candidate)
        if candidate not in backend.kernels or not kernel.supports(spec, backend):
            continue
        difference = agreement.difference(kernel, spec.cell)
        if difference is None:
            if other is not None:
                warnings.warn(f"{other}: kernel {candidate!r} runs it", KernelWarning, stacklevel=2)
            return kernel(spec, backend)
        other = other or f"cell {spec.cell.name!r} as it is now is not the one in kernel {candidate!r} ({difference})"
    asked = "".join(f", {option} {value}" for option, value in spec.options.items())
    layer = f"a {spec.cell.name} layer of {spec.hidden_size} units in {spec.dtype}{asked} on the {backend.name} backend"
    if other is not None:
        raise ValueError(f"{other}; use --kernel reference or auto")
    if name == "auto":
        raise ValueError(f"no kernel runs {layer}")
    raise ValueError(f"kernel {name!r} does not run {layer}; use --kernel auto")


def make_stack(kernels: Sequence[Kernel], directions: Sequence[bool]) -> KernelStack | None:
    """What runs the layers of a stack together, if they are several on one kernel of `STACKS`; None: nothing does.

    kernels     of each layer and direction, in order
    directions  of every layer: whether each reads a sequence from its end
    """
    name, *others = {kernel.name for kernel in kernels}
    if others or name not in STACKS or len(kernels) == 1:
        return None
    module, attribute = STACKS[name]
    return getattr(importlib.import_module(module), attribute)(kernels, directions)
