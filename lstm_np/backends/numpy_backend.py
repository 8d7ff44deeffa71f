"""The CPU: NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import DTypeLike

from lstm_np.arrays import Array
from lstm_np.backends.base import Backend
from lstm_np.backends.blas_threads import SERIAL_DOT, SERIAL_PRODUCT, blas_threads
from lstm_np.backends.cores import BY_USER, Cores, can_share_with_processes, usable_cores

CACHE_LINE = 64  # bytes
PIECE = 48 << 10  # values; a core's own cache holds those of an optimizer's vectors


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An uninitialised array of this shape whose first element starts a cache line.

    NumPy's own start anywhere, and where each read of a vector register touches two cache lines, products of a matrix
    with a vector and the optimizers' passes take longer (figures: docs/cpu-kernel.md).
    """
    itemsize = np.dtype(dtype).itemsize
    size = math.prod(shape)
    raw = np.empty(size + CACHE_LINE // itemsize, dtype)
    start = -raw.ctypes.data % CACHE_LINE // itemsize
    return raw[start : start + size].reshape(shape)


class NumpyBackend(Backend):
    """NumPy's arrays, which start at a cache line where that matters, and its loops, kept within the cache."""

    def __reduce__(self) -> tuple[object, ...]:
        """Unpickled, it has the cores that were asked for, or else those that the other process may use."""
        return make_backend, (self.cores if self.decided_by == BY_USER else None,)

    def empty_vector(self, size: int, dtype: DTypeLike) -> np.ndarray:
        """As `Backend.empty_vector`."""
        return aligned((size,), dtype)

    def blas_threads(self, number: int) -> AbstractContextManager[None]:
        """As `Backend.blas_threads`."""
        return blas_threads(number)

    def one_blas_thread(self, multiply_adds: float = math.inf) -> AbstractContextManager[None]:
        """As `Backend.one_blas_thread`, for the products around the kernels: a second thread gains nothing there, and
        goes on spinning for milliseconds on the core that a kernel's worker needs."""
        return nullcontext() if multiply_adds <= SERIAL_PRODUCT else blas_threads(1)

    def inner(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """As `Backend.inner`, by one thread: a second one would sum in another order."""
        with nullcontext() if a.size <= SERIAL_DOT else blas_threads(1):
            return a @ b

    def sweep(self, update: Callable[..., None], constants: Sequence[float], *vectors: np.ndarray) -> None:
        """As `Backend.sweep`: in pieces that fit the cache, with the constants as arrays, which need no conversion.

        On one thread: a second one gains here, and costs more in the step while BLAS's threads are still waiting
        (figures: docs/cpu-kernel.md).
        """
        size, dtype = len(vectors[0]), vectors[0].dtype
        arrays = [np.array(constant, dtype) for constant in constants]
        scratch = aligned((min(PIECE, size),), dtype)
        for start in range(0, size, PIECE):
            piece = [vector[start : start + PIECE] for vector in vectors]
            update(arrays, scratch[: len(piece[0])], *piece)


def _nothing_to_wait_for() -> None:
    """NumPy has finished when a call returns."""


def make_backend(threads: int | None = None) -> Backend:
    """The NumPy backend on `threads` cores (None: `usable_cores`)."""
    cores = usable_cores() if threads is None else Cores(threads, BY_USER)
    return NumpyBackend(
        name="numpy",
        xp=np,
        from_host=np.asarray,
        to_host=np.asarray,
        synchronize=_nothing_to_wait_for,
        kernels=("fused", "lean", "reference"),
        cores=cores.number,
        processes=cores.number if can_share_with_processes() else 1,
        decided_by=cores.decided_by,
        reads_are_free=True,
    )
