"""Matrix products by cuBLAS, into memory that is already there.

CuPy's own calls refuse to run while a stream captures a graph, though cuBLAS itself allows it.  `StreamProducts`
therefore calls the library directly, with a handle, a stream and a workspace of its own.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from typing import Any

from lstm_np.arrays import Namespace

WORKSPACE = 32 * 1024 * 1024  # bytes; NVIDIA's advice for its largest devices
_ADDRESS, _INT = ctypes.c_void_p, ctypes.c_int
_GEMM_TYPES = (_ADDRESS, *[_INT] * 5, _ADDRESS, _ADDRESS, _INT, _ADDRESS, _INT, _ADDRESS, _ADDRESS, _INT)


class Products:
    """Matrix products through CuPy; matrices are column-major, as cuBLAS has them, and contiguous."""

    def __init__(self, xp: Namespace, dtype: str) -> None:
        single = dtype == "float32"
        kind = ctypes.c_float if single else ctypes.c_double
        self._zero, self._one = kind(0.0), kind(1.0)  # kept alive: cuBLAS is given their addresses
        self._scale = {False: ctypes.addressof(self._zero), True: ctypes.addressof(self._one)}
        self._connect(xp, single)

    def _connect(self, xp: Namespace, single: bool) -> None:
        self._gemm = xp.cuda.cublas.sgemm if single else xp.cuda.cublas.dgemm
        self._handle = xp.cuda.device.get_cublas_handle

    def __call__(
        self, m: int, n: int, k: int, a: int, a_transposed: bool, b: int, b_transposed: bool, c: int, add: bool = False
    ) -> None:
        """c (m, n) = or, with `add`, += op(a) (m, k) op(b) (k, n); a, b, c are addresses on the device."""
        self._gemm(
            self._handle(), int(a_transposed), int(b_transposed), m, n, k,
            self._scale[True], a, k if a_transposed else m, b, n if b_transposed else k,
            self._scale[add], c, m,
        )  # fmt: skip


def library_name(cuda: int, platform: str = sys.platform) -> str:
    """What the cuBLAS of a CUDA version (as the runtime numbers it, e.g. 13000) is called on a platform."""
    return f"cublas64_{cuda // 1000}.dll" if platform == "win32" else f"libcublas.so.{cuda // 1000}"


def open_library(xp: Namespace) -> Any:
    """The cuBLAS that belongs to CuPy's CUDA version, which CuPy has loaded.  Raises OSError when it is not found."""
    return ctypes.CDLL(library_name(xp.cuda.runtime.runtimeGetVersion()))


class StreamProducts(Products):
    """Matrix products on one stream, which may be capturing.

    Raises ImportError or OSError when the library is not found, RuntimeError when it reports an error.
    """

    def __init__(self, xp: Namespace, dtype: str, stream: Any) -> None:
        self._stream = stream
        super().__init__(xp, dtype)

    def _connect(self, xp: Namespace, single: bool) -> None:
        super()._connect(xp, single)
        self._handle()  # CuPy loads the library from wherever pip has put it; then its name alone opens it
        library = open_library(xp)
        gemm = library.cublasSgemm_v2 if single else library.cublasDgemm_v2
        gemm.argtypes = _GEMM_TYPES
        handle = _ADDRESS()
        self._workspace = xp.empty(WORKSPACE, dtype="uint8")
        _check(library.cublasCreate_v2(ctypes.byref(handle)))
        # not at exit: the device may be gone by then
        weakref.finalize(self, library.cublasDestroy_v2, handle).atexit = False
        _check(library.cublasSetStream_v2(handle, _ADDRESS(self._stream.ptr)))
        # without a workspace of its own cuBLAS would allocate one, which a capture does not allow
        size = ctypes.c_size_t(WORKSPACE)
        _check(library.cublasSetWorkspace_v2(handle, _ADDRESS(self._workspace.data.ptr), size))
        self._gemm = lambda *args: _check(gemm(*args))
        self._handle = lambda: handle


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"cuBLAS reports status {status}")
