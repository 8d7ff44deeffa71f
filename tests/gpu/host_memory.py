"""Memory of the stand-in for a GPU: allocations that are watched, and arrays that behave as CuPy's do.

An array cannot be mixed with NumPy arrays and cannot silently become one.  What is computed with arrays is handed to
the current stream (`host_streams.py`) and done when somebody waits, so a result that is read too early is not there.
"""

from __future__ import annotations

import mmap
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tests.gpu.host_streams import Runtime

GUARD = 16384  # bytes before and after each allocation
ALIGNMENT = 256
WATCHED = np.dtype(  # `Watched` in host_shim/runtime.cpp
    [("start", "u8"), ("bytes", "u8"), ("guard", "u8"), ("item", "u8"), ("written", "u8"), ("history", "u8")]
)
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class KernelFaultError(AssertionError):
    """A kernel, or the host, did what a GPU would not forgive, or would forgive silently."""


class Allocation:
    """Memory between guard bytes; for each element whether it was ever written, and who touched it last.

    stream  the current one when it was made: CuPy's pool gives the memory of dropped arrays to others on that stream

    A `sparse` one is as large as its number of elements says and uses memory only where it is touched: it is held
    against its bounds alone.
    """

    def __init__(
        self, count: int, itemsize: int, device: Any, history_bytes: int, stream: Any = None, *, sparse: bool = False
    ) -> None:
        self.device, self.item, self.nbytes, self.stream = device, itemsize, count * itemsize, stream
        self.written: np.ndarray | None = None
        self.history: np.ndarray | None = None
        size = self.nbytes + 2 * GUARD + ALIGNMENT
        if sparse:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
            self.raw = np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8)
        else:
            self.raw = np.full(size, 0xFF, np.uint8)
            self.written = np.zeros(count, np.uint8)
            self.history = np.zeros(count * history_bytes, np.uint8)
        self.offset = GUARD - (self.raw.ctypes.data + GUARD) % ALIGNMENT + ALIGNMENT
        self.start = self.raw.ctypes.data + self.offset

    def row(self) -> tuple[int, ...]:
        """As `WATCHED`."""
        written, history = (0 if a is None else a.ctypes.data for a in (self.written, self.history))
        return self.start, self.nbytes, GUARD, self.item, written, history


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array on the device: a view of an allocation."""

    def __init__(self, runtime: Runtime, allocation: Allocation, values: np.ndarray) -> None:
        self.runtime, self.allocation, self.values = runtime, allocation, values

    # ---- what is known without waiting

    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)
    nbytes = property(lambda self: self.values.nbytes)
    itemsize = property(lambda self: self.values.itemsize)
    strides = property(lambda self: self.values.strides)
    flags = property(lambda self: self.values.flags)
    device = property(lambda self: self.allocation.device)
    T = property(lambda self: self._view(self.values.T))

    @property
    def data(self) -> Any:
        """The address, and a copy to the host's memory that nobody waits for."""
        return SimpleNamespace(ptr=self.values.ctypes.data, copy_to_host_async=self._copy_to_host_async)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Any:
        return (self[k] for k in range(len(self)))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use .get()")

    def _view(self, values: np.ndarray) -> DeviceArray:
        return DeviceArray(self.runtime, self.allocation, values)

    def reshape(self, *shape: Any) -> DeviceArray:
        """A view where there can be one, else a copy."""
        values = self.values.reshape(*shape)
        return (
            self._view(values)
            if np.shares_memory(values, self.values) or not values.size
            else self.copy().reshape(*shape)
        )

    def transpose(self, *axes: Any) -> DeviceArray:
        """A view."""
        return self._view(self.values.transpose(*axes))

    def ravel(self) -> DeviceArray:
        """As `reshape`."""
        return self.reshape(-1)

    def __getitem__(self, index: Any) -> DeviceArray:
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(part, (list, np.ndarray, DeviceArray)) for part in parts):
            return self.runtime.compute(lambda values, chosen: values[chosen], self, index)
        return self._view(self.values[(*parts, ...)] if Ellipsis not in parts else self.values[index])

    # ---- what is computed

    def __setitem__(self, index: Any, value: Any) -> None:
        _refuse_numpy(value)
        self.runtime.compute(lambda given: given, value, out=self[index])

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        for value in (*inputs, *(out or ())):
            _refuse_numpy(value)
        return self.runtime.compute(getattr(ufunc, method), *inputs, out=out[0] if out else None, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"Implicit conversion to a NumPy array is not allowed ({function.__name__})")

    def astype(self, dtype: Any, copy: bool = True) -> DeviceArray:
        """Converted."""
        return self if not copy and self.dtype == dtype else self.runtime.compute(lambda v: v.astype(dtype), self)

    def copy(self) -> DeviceArray:
        """An array of its own, contiguous."""
        return self.runtime.compute(lambda values: np.array(values, order="C"), self)

    def _method(name: str) -> Any:  # type: ignore[misc]
        def call(self: DeviceArray, *args: Any, **kwargs: Any) -> DeviceArray:
            return self.runtime.compute(lambda values: np.asarray(getattr(values, name)(*args, **kwargs)), self)

        return call

    sum, mean, max, min = _method("sum"), _method("mean"), _method("max"), _method("min")
    all, any, argmax = _method("all"), _method("any"), _method("argmax")

    # ---- what waits

    def get(self) -> np.ndarray:
        """A NumPy copy; waits for the current stream."""
        return self.runtime.read(self)

    def item(self) -> Any:
        """The only element."""
        return self.get().item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def _copy_to_host_async(self, address: Any, size: int, stream: Any = None) -> None:
        address, page_locked = int(address), self.runtime.page_locked
        assert any(start <= address and address + size <= start + len(m) for start, m in page_locked.items())
        assert self.flags.c_contiguous
        assert size <= self.nbytes

        def copy() -> None:
            self.refuse_unwritten()
            if not any(start <= address < start + len(m) for start, m in page_locked.items()):
                raise KernelFaultError(
                    "a copy to page-locked memory that has been dropped: it may be another's by then"
                )
            target = np.ctypeslib.as_array((np.ctypeslib.as_ctypes_type(np.uint8) * size).from_address(address))
            target[:] = self.values.reshape(-1).view(np.uint8)[:size]

        self.runtime.enqueue(copy, stream)

    # ---- the watch

    def _written(self) -> np.ndarray:
        memory, item = self.allocation, self.allocation.item
        assert memory.written is not None
        first = (self.values.ctypes.data - memory.start) // item
        strides = tuple(stride // item for stride in self.strides)
        return np.lib.stride_tricks.as_strided(memory.written[first:], self.shape, strides)

    def refuse_unwritten(self) -> None:
        """Raises KernelFaultError where an element was never written."""
        if self.size and self.allocation.written is not None and not self._written().all():
            raise KernelFaultError(f"an array {self.dtype} {self.shape} is read before all of it was written")

    def note_written(self) -> None:
        """All of it has been written."""
        if self.size and self.allocation.written is not None:
            self._written()[...] = 1


def _refuse_numpy(value: Any) -> None:
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: a NumPy array met an array on the device")


def plain(value: Any) -> Any:
    """The NumPy values of arrays, also within tuples and lists."""
    if isinstance(value, DeviceArray):
        return value.values
    return type(value)(map(plain, value)) if isinstance(value, (tuple, list)) else value


def arrays_in(value: Any) -> list[DeviceArray]:
    """The arrays among arguments."""
    if isinstance(value, DeviceArray):
        return [value]
    if isinstance(value, (tuple, list)):
        return [array for part in value for array in arrays_in(part)]
    return arrays_in(tuple(value.values())) if isinstance(value, dict) else []
