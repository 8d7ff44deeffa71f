"""cuBLAS of the stand-in: column-major products on NumPy, through CuPy's functions or the library's own."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tests.gpu.host_memory import Allocation, KernelFaultError
from tests.gpu.host_streams import Runtime, Stream

HANDLE = 1


class Gemm:
    """cublas<t>gemm: c = alpha op(a) op(b) + beta c."""

    def __init__(self, runtime: Runtime, real: Any) -> None:
        self._runtime, self._real = runtime, real

    def __call__(
        self, handle: Any, transa: int, transb: int, m: int, n: int, k: int, alpha: Any, a: Any, lda: int, b: Any,
        ldb: int, beta: Any, c: Any, ldc: int, stream: Stream | None = None,
    ) -> None:  # fmt: skip
        """Queued in the current stream, or `stream`."""
        assert handle == HANDLE
        assert all(size < 2**31 for size in (m, n, k, lda, ldb, ldc))
        scale, keep = (self._real.from_address(address).value for address in (alpha, beta))
        device = self._runtime.current
        held = [self._runtime.hold(self._memory_at(address), stream) for address in (a, b, c)]

        def run() -> None:
            at_a, at_b, at_c = (memory() for memory in held)
            left = self._matrix(at_a, a, k, m, lda).T if transa else self._matrix(at_a, a, m, k, lda)
            right = self._matrix(at_b, b, n, k, ldb).T if transb else self._matrix(at_b, b, k, n, ldb)
            out = self._matrix(at_c, c, m, n, ldc, written=not keep)
            with np.errstate(all="ignore"):
                out[...] = scale * (left @ right) + (keep * out if keep else 0)
            device.launches.append("gemm")

        self._runtime.enqueue(run, stream)

    def _matrix(
        self, memory: Allocation, address: int, rows: int, columns: int, ld: int, *, written: bool = False
    ) -> np.ndarray:
        """The matrix there; KernelFaultError beyond the allocation, or where it is read and was never written."""
        assert ld >= max(1, rows)
        count, item = (ld * (columns - 1) + rows if columns else 0), ctypes.sizeof(self._real)
        if address + count * item > memory.start + memory.nbytes:
            raise KernelFaultError(f"gemm: {rows} x {columns} does not lie within an array")
        flat = np.ctypeslib.as_array((self._real * count).from_address(address))
        found = np.lib.stride_tricks.as_strided(flat, (rows, columns), (item, ld * item))
        if memory.written is not None:
            first = (address - memory.start) // item
            marks = np.lib.stride_tricks.as_strided(memory.written[first:], (rows, columns), (1, ld))
            if written:
                marks[...] = 1
            elif not marks.all():
                raise KernelFaultError(f"gemm: {rows} x {columns} is read before all of it was written")
        return found

    def _memory_at(self, address: int) -> Allocation:
        for memory in self._runtime.live():
            if memory.start <= address < memory.start + memory.nbytes:
                return memory
        raise KernelFaultError("gemm: an address that is not within any array")


class FakeCublas:
    """The cuBLAS library as `ctypes` sees it: its products, unlike CuPy's, are recorded in a capture."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._stream: Stream | None = None
        self._workspace: Any = None
        self.handles = 0
        self.cublasSgemm_v2 = self._product(Gemm(runtime, ctypes.c_float))
        self.cublasDgemm_v2 = self._product(Gemm(runtime, ctypes.c_double))

    def cublasCreate_v2(self, handle: Any) -> int:
        handle._obj.value = HANDLE
        self.handles += 1
        return 0

    def cublasDestroy_v2(self, handle: Any) -> int:
        assert handle.value == HANDLE
        self.handles -= 1
        return 0

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        self._stream = next(known for known in self._runtime.streams if known.ptr == (stream.value or 0))
        self._workspace = None
        return 0

    def cublasSetWorkspace_v2(self, handle: Any, workspace: Any, size: Any) -> int:
        self._workspace = workspace.value
        return 0

    def _product(self, gemm: Gemm) -> Any:
        def call(handle: Any, *args: Any) -> int:
            assert self._stream is not None, "cuBLAS without a stream"
            assert self._workspace, "cuBLAS without a workspace: it would allocate one"
            gemm(handle.value, *args, stream=self._stream)
            return 0

        return call
