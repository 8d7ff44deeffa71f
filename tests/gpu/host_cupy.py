"""A stand-in for CuPy on a machine without a GPU: arrays in host memory, kernels executed on the CPU.

`make_cupy()` gives an object with the part of CuPy's interface that the GPU kernels use.  It is stricter than CuPy:

- an array cannot be mixed with NumPy arrays, and cannot silently become one;
- `empty` is filled with NaN, and every allocation lies between guard bytes that are checked after every launch;
- a kernel's arguments must have exactly the C types of its parameters; a strided view is refused (CuPy ignores
  strides);
- block size, `__launch_bounds__` and shared memory must keep the device's limits;
- while a stream captures, cuBLAS, allocation and reading back raise, and launches are recorded, not run.

`RawModule` compiles the kernel sources with the C++ compiler over `host_shim/cuda_on_host.h`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lstm_np.backends import Backend

SHIM = Path(__file__).parent / "host_shim" / "cuda_on_host.h"
COMPILER = shutil.which("g++")
GUARD = 16384  # bytes before and after each allocation
ALIGNMENT = 256
C_TYPES = {
    "float": np.float32,
    "double": np.float64,
    "int": np.int32,
    "long long": np.int64,
    "unsigned char": np.uint8,
}


class KernelFaultError(AssertionError):
    """A kernel did what a GPU would not forgive, or would forgive silently."""


class DeviceArray(np.ndarray):
    """An array "on the device"."""

    _allocation: Any = None

    def __array_finalize__(self, parent: Any) -> None:
        self._allocation = getattr(parent, "_allocation", None)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        for value in (*inputs, *(out or ())):
            if isinstance(value, np.ndarray) and not isinstance(value, DeviceArray):
                raise TypeError(f"Unsupported type {type(value)}: a NumPy array met an array on the device")
        plain = [value.view(np.ndarray) if isinstance(value, DeviceArray) else value for value in inputs]
        if out:
            getattr(ufunc, method)(*plain, out=tuple(o.view(np.ndarray) for o in out), **kwargs)
            return out[0]
        return _on_device(getattr(ufunc, method)(*plain, **kwargs))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"Implicit conversion to a NumPy array is not allowed ({function.__name__})")

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)


class _Allocation:
    def __init__(self, nbytes: int) -> None:
        self.raw = np.full(nbytes + 2 * GUARD + ALIGNMENT, 0xFF, np.uint8)
        self.start = GUARD - (self.raw.ctypes.data + GUARD) % ALIGNMENT + ALIGNMENT
        self.nbytes = nbytes

    def check(self) -> None:
        before, after = self.raw[: self.start], self.raw[self.start + self.nbytes :]
        if not ((before == 0xFF).all() and (after == 0xFF).all()):
            raise KernelFaultError(f"memory before or after an array of {self.nbytes} bytes was written")


class _State:
    """What a CUDA context knows: whether a stream captures, and what."""

    recording: list[Any] | None = None


def _allocate(shape: Any, dtype: Any) -> DeviceArray:
    if _State.recording is not None:
        raise RuntimeError("allocation while a stream captures")
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    dtype = np.dtype(dtype)
    allocation = _Allocation(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
    array = allocation.raw[allocation.start : allocation.start + allocation.nbytes].view(dtype).reshape(shape)
    array = array.view(DeviceArray)
    array._allocation = allocation
    return array


def _on_device(value: Any) -> DeviceArray:
    value = np.asarray(value) if not isinstance(value, DeviceArray) else value.view(np.ndarray)
    array = _allocate(value.shape, value.dtype)
    array.view(np.ndarray)[...] = value
    return array


def asnumpy(array: Any) -> np.ndarray:
    """A NumPy copy of an array."""
    if _State.recording is not None:
        raise RuntimeError("reading back while a stream captures")
    return np.array(array.view(np.ndarray) if isinstance(array, DeviceArray) else array)


# ------------------------------------------------------------------------------------------------------------ kernels


def _signatures(source: str) -> dict[str, tuple[list[tuple[str, bool]], int]]:
    """kernel -> ([(C type, is pointer)], largest block or 0); macros are not expanded, so `real` stays."""
    pattern = re.compile(r'extern "C" __global__ void\s*(__launch_bounds__\(\w+(?:, \w+)?\))?\s*(\w+)\(([^)]*)\)')
    found = {}
    for bounds, name, parameters in pattern.findall(source):
        types = []
        for parameter in parameters.split(","):
            words = parameter.replace("*", " * ").split()
            types.append((" ".join(w for w in words[:-1] if w not in ("const", "*", "__restrict__")), "*" in words))
        found[name] = (types, re.sub(r"__launch_bounds__\((\w+).*", r"\1", bounds))
    return found


def _cache() -> Path:
    folder = Path(tempfile.gettempdir()) / f"lstm_np-host-kernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def compile_for_host(code: str, options: tuple[str, ...]) -> ctypes.CDLL:
    """A shared library with `host_launch_<kernel>` for each kernel; compiled once per text and options."""
    wrappers = ["\n"]
    for name, (types, _) in _signatures(code).items():
        unpacked = ", ".join(
            f"*static_cast<const {kind}**>(arguments[{k}])".replace("const const", "const")
            if pointer
            else f"*static_cast<{kind}*>(arguments[{k}])"
            for k, (kind, pointer) in enumerate(types)
        ).replace("const ", "")
        wrappers.append(
            f"static void host_body_{name}(void** arguments) {{ {name}({unpacked}); }}\n"
            f'extern "C" const char* host_launch_{name}(void** arguments, const unsigned* grid, const unsigned* block, '
            f"size_t shared_bytes, uint64_t seed)\n"
            f"{{ return host::launch(host_body_{name}, arguments, grid, block, shared_bytes, seed); }}\n"
        )
    text = code + "".join(wrappers)
    flags = ("-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-ftrivial-auto-var-init=pattern")
    key = hashlib.sha256(repr((text, options, flags, SHIM.read_text())).encode()).hexdigest()[:32]
    library = _cache() / f"{key}.so"
    if not library.exists():
        defines = [option for option in options if option.startswith("-D")]
        partial = library.with_name(f"{key}.{os.getpid()}.part")
        command = [str(COMPILER), *flags, *defines, "-include", str(SHIM), "-x", "c++", "-", "-o", str(partial)]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"the kernels do not compile on the host:\n{done.stderr[:4000]}")
        partial.rename(library)
    return ctypes.CDLL(str(library))


class RawKernel:
    """One kernel; called with (grid, block, arguments, shared_mem=bytes)."""

    def __init__(self, device: FakeDevice, library: ctypes.CDLL, name: str, signature: Any, macros: dict[str, str]):
        self.name, self._device = name, device
        self._launch = getattr(library, f"host_launch_{name}")
        self._launch.restype = ctypes.c_char_p
        self._launch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64]
        types, bound = signature
        self._types = [(np.dtype(C_TYPES[macros.get("REAL") if kind == "real" else kind]), p) for kind, p in types]
        self._bound = int(macros.get(bound, bound) or 1024)
        self.max_dynamic_shared_size_bytes = 48 * 1024

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None:
        threads, device = int(np.prod(block)), self._device
        assert all(0 < n < 2**31 for n in grid), f"{self.name}: grid {grid}"
        assert all(n < 65536 for n in grid[1:]), f"{self.name}: grid {grid}"
        assert 0 < threads <= self._bound, f"{self.name}: {threads} threads, at most {self._bound}"
        assert shared_mem <= self.max_dynamic_shared_size_bytes <= device.shared_memory, f"{self.name}: {shared_mem} B"
        assert len(args) == len(self._types), f"{self.name}: {len(args)} arguments for {len(self._types)} parameters"
        for k, (argument, (dtype, pointer)) in enumerate(zip(args, self._types, strict=True)):
            where = f"{self.name}, argument {k}"
            if pointer:
                assert isinstance(argument, DeviceArray), f"{where}: an array is expected, found {type(argument)}"
                assert argument.flags.c_contiguous, f"{where}: a strided view"
            else:
                assert isinstance(argument, np.generic), (
                    f"{where}: a {dtype} scalar is expected, found {type(argument)}"
                )
            assert argument.dtype == dtype, f"{where}: {argument.dtype} for {dtype}"
        if _State.recording is not None:
            _State.recording.append(lambda: self._run(grid, block, args, shared_mem))
        else:
            self._run(grid, block, args, shared_mem)

    def _run(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], shared_mem: int) -> None:
        device = self._device
        device.launches.append(self.name)
        cells = [
            np.array(a.ctypes.data, np.uint64) if pointer else np.array(a)
            for a, (_, pointer) in zip(args, self._types, strict=True)
        ]
        pointers = np.array([cell.ctypes.data for cell in cells], np.uint64)
        sizes = [np.array((*n, 1, 1)[:3], np.uint32) for n in (grid, block)]
        device.seed += 1
        fault = self._launch(pointers.ctypes.data, sizes[0].ctypes.data, sizes[1].ctypes.data, shared_mem, device.seed)
        if fault:
            raise KernelFaultError(f"{self.name}: {fault.decode()}")
        for argument in args:
            if isinstance(argument, DeviceArray):
                argument._allocation.check()


class FakeDevice:
    """The limits of the device that is played, the seed of the thread order, and the names of the kernels launched."""

    def __init__(self, capability: int = 90, multiprocessors: int = 132, shared_memory: int = 227 * 1024) -> None:
        self.compute_capability, self.shared_memory = str(capability), shared_memory
        self.attributes = {
            "MultiProcessorCount": multiprocessors,
            "MaxSharedMemoryPerBlockOptin": shared_memory,
            "MaxRegistersPerBlock": 65536,
            "MaxThreadsPerBlock": 1024,
        }
        self.seed = 0
        self.launches: list[str] = []


def _gemm(device: FakeDevice, real: Any) -> Any:
    def gemm(handle, transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        """cublas<t>gemm on column-major memory: c = alpha op(a) op(b) + beta c."""
        assert handle == 1
        if _State.recording is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")

        def matrix(pointer: int, rows: int, columns: int, ld: int) -> np.ndarray:
            assert ld >= max(1, rows)
            count = ld * (columns - 1) + rows if columns else 0
            flat = np.ctypeslib.as_array((real * count).from_address(pointer))
            return np.lib.stride_tricks.as_strided(flat, (rows, columns), (flat.itemsize, ld * flat.itemsize))

        left = matrix(a, k, m, lda).T if transa else matrix(a, m, k, lda)
        right = matrix(b, n, k, ldb).T if transb else matrix(b, k, n, ldb)
        scale, keep = real.from_address(alpha).value, real.from_address(beta).value
        out = matrix(c, m, n, ldc)
        out[...] = scale * (left @ right) + (keep * out if keep else 0)
        device.launches.append("gemm")

    return gemm


class FakeCublas:
    """The cuBLAS library as `ctypes` sees it: its products, unlike CuPy's, are recorded in a capture."""

    def __init__(self, device: FakeDevice) -> None:
        self._stream = self._workspace = None
        self.handles = 0
        self.cublasSgemm_v2 = self._product(_gemm(device, ctypes.c_float))
        self.cublasDgemm_v2 = self._product(_gemm(device, ctypes.c_double))

    def cublasCreate_v2(self, handle: Any) -> int:
        handle._obj.value = 1
        self.handles += 1
        return 0

    def cublasDestroy_v2(self, handle: Any) -> int:
        assert handle.value == 1
        self.handles -= 1
        return 0

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        self._stream, self._workspace = stream.value, None
        return 0

    def cublasSetWorkspace_v2(self, handle: Any, workspace: Any, size: Any) -> int:
        self._workspace = workspace.value
        return 0

    def _product(self, gemm: Any) -> Any:
        def call(handle: Any, *args: Any) -> int:
            assert self._stream, "cuBLAS without a stream"
            assert self._workspace, "cuBLAS without a workspace: it would allocate one"
            if _State.recording is None:
                gemm(handle.value, *args)
            else:
                _State.recording.append(lambda: gemm(handle.value, *args))
            return 0

        return call


class _Stream:
    """A stream that runs what it is given at once, or records it."""

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.non_blocking, self.ptr = non_blocking, 77

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def begin_capture(self) -> None:
        assert self.non_blocking
        _State.recording = []

    def end_capture(self) -> Any:
        recorded, _State.recording = _State.recording, None
        return SimpleNamespace(
            launch=lambda stream=None: [call() for call in recorded], upload=lambda stream=None: None
        )

    def synchronize(self) -> None:
        if _State.recording is not None:
            raise RuntimeError("synchronisation while a stream captures")


def make_cupy(device: FakeDevice | None = None, mutate: Any = None) -> Any:
    """A stand-in for the module `cupy` on `device`.

    mutate  a function of a kernel source's text, to plant a fault; it must change the text
    """
    device = device or FakeDevice()

    def raw_module(*, code: str, options: tuple[str, ...]) -> Any:
        changed = mutate(code) if mutate else code
        macros = dict(re.findall(r"-D(\w+)=(\w+)", " ".join(options)))
        library, signatures = compile_for_host(changed, options), _signatures(code)

        def get_function(name: str) -> RawKernel:
            return RawKernel(device, library, name, signatures[name], macros)

        return SimpleNamespace(get_function=get_function)

    def filled(value: Any) -> Any:
        def make(shape: Any, dtype: Any) -> DeviceArray:
            array = _allocate(shape, dtype)
            array.view(np.ndarray)[...] = value
            return array

        return make

    def ascontiguousarray(array: DeviceArray) -> DeviceArray:
        assert isinstance(array, DeviceArray)
        return array if array.flags.c_contiguous else _on_device(array)

    blas = SimpleNamespace(sgemm=_gemm(device, ctypes.c_float), dgemm=_gemm(device, ctypes.c_double))
    cuda = SimpleNamespace(
        cublas=blas,
        device=SimpleNamespace(get_cublas_handle=lambda: 1),
        Device=lambda: device,
        Stream=_Stream,
        get_current_stream=_Stream,
        runtime=SimpleNamespace(runtimeGetVersion=lambda: 13000),
    )
    return _Namespace(
        device=device,
        RawModule=raw_module,
        ndarray=DeviceArray,
        cuda=cuda,
        empty=_allocate,
        zeros=filled(0),
        ones=filled(1),
        asarray=lambda a: a if isinstance(a, DeviceArray) else _on_device(a),
        asnumpy=asnumpy,
        ascontiguousarray=ascontiguousarray,
    )


class _Namespace(SimpleNamespace):
    __hash__ = object.__hash__


def make_backend(cupy: Any) -> Backend:
    """The engine's CuPy backend over such a stand-in."""
    return Backend(
        name="cupy",
        xp=cupy,
        from_host=cupy.asarray,
        to_host=cupy.asnumpy,
        synchronize=lambda: None,
        kernels=("persistent", "cuda_fused", "reference"),
        device_steps=True,
    )
