"""The GPU: CuPy arrays."""

from __future__ import annotations

import importlib
import importlib.util

from lstm_np.backends.base import Backend, BackendError

INSTALL = 'pip install "lstm_np[cuda12]" or "lstm_np[cuda13]", whichever CUDA version your driver supports'


def make_backend() -> Backend:
    """The CuPy backend on the current device.

    Raises BackendError with one line that says which is missing, CuPy or a GPU, and what to install.
    """
    if importlib.util.find_spec("cupy") is None:
        raise BackendError(f"the cupy backend needs CuPy, which is not installed: {INSTALL}; or use --backend numpy")
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:  # a CuPy built for another CUDA fails in many ways; each means the same to a user
        reason = " ".join(str(error).split())[:200]
        raise BackendError(f"CuPy is installed but cannot be imported ({reason}): {INSTALL}") from error
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BackendError(
            f"CuPy is installed but finds no usable NVIDIA GPU or driver ({reason}): install the NVIDIA driver, "
            f"match CuPy to it ({INSTALL}), or use --backend numpy"
        ) from error
    if devices == 0:
        raise BackendError("CuPy is installed but this machine has no NVIDIA GPU; use --backend numpy")
    return Backend(
        name="cupy",
        xp=cupy,
        from_host=cupy.asarray,
        to_host=cupy.asnumpy,
        synchronize=lambda: cupy.cuda.get_current_stream().synchronize(),
        kernels=("persistent", "cuda_fused", "reference"),
    )
