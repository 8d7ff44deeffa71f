"""A stand-in for CuPy on a machine without a GPU: arrays in host memory, kernels executed on the CPU.

`make_cupy()` gives an object with the part of CuPy's interface that the GPU kernels, the layers and the benchmarks use.
It is stricter than CuPy, and than a GPU:

- arrays are a type of their own, and all memory is watched (`host_memory.py`, `host_shim/cuda_on_host.h`);
- streams are queues that run in a random order (`host_streams.py`): what does not wait is wrong;
- launches must keep the device's limits, on each of several devices (`host_kernels.py`);
- while a stream captures, CuPy's cuBLAS, allocation, loading and reading back raise; launches are recorded, not run.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from lstm_np.backends import Backend
from lstm_np.backends.cupy_backend import backend_over
from tests.gpu.host_cublas import HANDLE, FakeCublas, Gemm
from tests.gpu.host_kernels import COMPILER, RawModule, history_bytes
from tests.gpu.host_memory import DeviceArray, KernelFaultError
from tests.gpu.host_streams import HABITS, Event, Runtime, Stream

__all__ = [
    "COMPILER",
    "HABITS",
    "DeviceArray",
    "FakeCublas",
    "FakeDevice",
    "KernelFaultError",
    "make_backend",
    "make_cupy",
]

FUNCTIONS = ("concat", "stack", "real", "max", "log", "sum", "exp", "arange", "where", "argmax", "isfinite", "tanh",
             "empty_like", "zeros_like", "ones_like", "sqrt", "abs", "matmul", "take", "reshape")  # fmt: skip


class FakeDevice:
    """The limits of the device that is played, and the names of the kernels launched on it.

    seed        of the order of threads, blocks and streams
    only_block  -1; else a launch runs this block alone
    free_memory  what it says is free, in bytes
    """

    def __init__(
        self, capability: int = 90, multiprocessors: int = 132, shared_memory: int = 227 * 1024, *, seed: int = 0
    ) -> None:
        self.compute_capability, self.shared_memory = str(capability), shared_memory
        self.attributes = {
            "MultiProcessorCount": multiprocessors,
            "MaxSharedMemoryPerBlockOptin": shared_memory,
            "MaxRegistersPerBlock": 65536,
            "MaxThreadsPerBlock": 1024,
        }
        self.id, self.seed, self.only_block, self.free_memory = 0, seed, -1, 8 << 30
        self.launches: list[str] = []
        self._launched = 0
        self._runtime: Runtime | None = None
        self._outer: list[FakeDevice] = []

    def count_launch(self) -> int:
        """The number of this launch, from 1."""
        self._launched += 1
        return self._launched

    def __enter__(self) -> FakeDevice:
        assert self._runtime is not None
        self._outer.append(self._runtime.current)
        self._runtime.current = self
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._runtime is not None
        self._runtime.current = self._outer.pop()


class Namespace(SimpleNamespace):
    """A module, which can be a key."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def make_cupy(device: FakeDevice | None = None, mutate: Any = None, *, others: tuple[FakeDevice, ...] = ()) -> Any:
    """A stand-in for the module `cupy` on `device`, and on `others` where they are made the current one.

    mutate  a function of a kernel source's text, to insert a fault; it must change the text
    """
    devices = (device or FakeDevice(), *others)
    runtime = Runtime(devices, history_bytes())
    for number, each in enumerate(devices):
        each.id, each._runtime = number, runtime

    def filled(value: Any) -> Any:
        return lambda shape, dtype="float64": runtime.put(np.full(shape, value, dtype))

    def function(name: str) -> Any:
        return lambda *args, **kwargs: runtime.compute(getattr(np, name), *args, **kwargs)

    def ascontiguousarray(array: DeviceArray) -> DeviceArray:
        assert isinstance(array, DeviceArray)
        return array if array.flags.c_contiguous else array.copy()

    def pinned(nbytes: int) -> Any:
        memory = (ctypes.c_uint8 * nbytes)()
        runtime.page_locked[ctypes.addressof(memory)] = memory
        return memory

    cuda = Namespace(
        cublas=SimpleNamespace(sgemm=Gemm(runtime, ctypes.c_float), dgemm=Gemm(runtime, ctypes.c_double)),
        device=SimpleNamespace(get_cublas_handle=lambda: HANDLE),
        Device=lambda number=None: runtime.current if number is None else devices[number],
        Stream=lambda null=False, non_blocking=False: Stream(runtime, non_blocking=non_blocking),
        Event=lambda **_: Event(runtime),
        get_elapsed_time=lambda begun, ended: 1e3 * (ended.seconds - begun.seconds),
        get_current_stream=lambda: runtime.stream,
        alloc_pinned_memory=pinned,
        runtime=SimpleNamespace(
            getDevice=lambda: runtime.current.id,
            getDeviceCount=lambda: len(devices),
            runtimeGetVersion=lambda: 13000,
            driverGetVersion=lambda: 13000,
            memGetInfo=lambda: (devices[0].free_memory, 8 << 30),
            getDeviceProperties=lambda number: {
                "name": b"stand-in",
                "major": 9,
                "minor": 0,
                "multiProcessorCount": 132,
            },
            CUDARuntimeError=RuntimeError,
        ),
    )

    # CuPy's cuBLAS refuses a capture
    for name in ("sgemm", "dgemm"):
        setattr(cuda.cublas, name, _refusing(runtime, getattr(cuda.cublas, name)))
    return Namespace(
        **{name: function(name) for name in FUNCTIONS},
        __version__="stand-in",
        device=devices[0],
        stand_in=runtime,
        RawModule=lambda *, code, options: RawModule(runtime, code, options, mutate),
        ndarray=DeviceArray,
        cuda=cuda,
        empty=lambda shape, dtype="float64": runtime.allocate(shape, dtype),
        zeros=filled(0),
        ones=filled(1),
        asarray=lambda a: a if isinstance(a, DeviceArray) else runtime.put(a),
        asnumpy=runtime.read,
        ascontiguousarray=ascontiguousarray,
        get_default_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None),
    )


def _refusing(runtime: Runtime, gemm: Gemm) -> Any:
    def call(*args: Any) -> None:
        if runtime.capture is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        gemm(*args)

    return call


def make_backend(cupy: Any) -> Backend:
    """The engine's CuPy backend over such a stand-in."""
    return backend_over(cupy)
