"""The GPU: CuPy arrays."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from lstm_np.backends.base import Backend, BackendError

INSTALL = 'pip install "lstm_np[cuda12]" or "lstm_np[cuda13]", whichever CUDA version your driver supports'


class CupyBackend(Backend):
    """CuPy's arrays on the device that is current."""

    def device(self) -> str:
        """As `Backend.device`, such as "NVIDIA H100 PCIe, compute capability 9.0, CUDA 13.0, driver for CUDA 13.1"."""
        runtime = self.xp.cuda.runtime
        found = runtime.getDeviceProperties(runtime.getDevice())
        versions = runtime.runtimeGetVersion(), runtime.driverGetVersion()  # 13010 for 13.1
        cuda, driver = (f"{version // 1000}.{version % 1000 // 10}" for version in versions)
        capability = f"compute capability {found['major']}.{found['minor']}"
        return f"{found['name'].decode()}, {capability}, CUDA {cuda}, driver for CUDA {driver}"

    def __reduce__(self) -> tuple[Any, ...]:
        return make_backend, ()


def make_backend() -> Backend:
    """The CuPy backend on the current device.

    Raises BackendError with one line that says which is missing, CuPy, a GPU or a library of CUDA, and what to install.
    """
    if importlib.util.find_spec("cupy") is None:
        raise BackendError(f"the cupy backend needs CuPy, which is not installed: {INSTALL}; or use --backend numpy")
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:  # a CuPy built for another CUDA fails in many ways; each means the same to a user
        raise BackendError(f"CuPy is installed but cannot be imported ({_reason(error)}): {INSTALL}") from error
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(
            f"CuPy is installed but finds no usable NVIDIA GPU or driver ({_reason(error)}): install the NVIDIA "
            f"driver, match CuPy to it ({INSTALL}), or use --backend numpy"
        ) from error
    if devices == 0:
        raise BackendError("CuPy is installed but this machine has no NVIDIA GPU; use --backend numpy")
    try:
        _compute_something(cupy)
    except Exception as error:  # CuPy loads the libraries of CUDA when they are first used, and each fails in its way
        raise BackendError(
            f"CuPy finds a GPU but cannot compute on it ({_reason(error)}): its CUDA libraries come with {INSTALL}; "
            "or use --backend numpy"
        ) from error
    return backend_over(cupy)


def backend_over(cupy: Any) -> CupyBackend:
    """The backend over the module `cupy`, which is not asked whether it works."""
    return CupyBackend(
        name="cupy",
        xp=cupy,
        from_host=cupy.asarray,
        to_host=cupy.asnumpy,
        synchronize=lambda: cupy.cuda.get_current_stream().synchronize(),
        kernels=("persistent", "cuda_fused", "reference"),
        device_steps=True,
    )


def _compute_something(cupy: Any) -> None:
    """One kernel, compiled by NVRTC, and one product by cuBLAS: what everything here needs."""
    two = cupy.ones((2, 2), dtype="float32") + 1
    cupy.asnumpy(two @ two)


def _reason(error: BaseException) -> str:
    """The first cause of an error, in one line: CuPy puts a page of advice around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join((str(error) or type(error).__name__).split())[:200]
