"""The CPU: NumPy arrays."""

from __future__ import annotations

import contextvars
import math
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from lstm_np.backends.base import Backend

CACHE_LINE = 64  # bytes
PIECE = 1 << 15  # values; a core's own cache holds those of an optimiser's vectors
WORTH_A_THREAD = 24  # pieces that repay starting it; BLAS's own threads may still be busy waiting on that core


def aligned(shape: tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised array of this shape whose first element starts a cache line.

    NumPy's own start anywhere, and where each read of a vector register touches two cache lines, the product of a
    matrix with a vector takes 15 % longer, and Adam 6 % (measured with AVX-512).
    """
    itemsize = np.dtype(dtype).itemsize
    size = math.prod(shape)
    raw = np.empty(size + CACHE_LINE // itemsize, dtype)
    start = -raw.ctypes.data % CACHE_LINE // itemsize
    return raw[start : start + size].reshape(shape)


def available_cores() -> int:
    """The number of cores that this process may use: its affinity where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sweep(threads: int | None, update: Callable[..., None], constants: Sequence[float], *vectors: np.ndarray) -> None:
    """`Backend.sweep` on at most `threads` cores: pieces that fit the cache; the bits do not depend on who does which.

    Measured for Adam, 4.3 million parameters, two cores: SWEEP_FIGURES
    The constants reach `update` as arrays of the vectors' dtype, which NumPy need not convert at every call.
    """
    size, dtype = len(vectors[0]), vectors[0].dtype
    pieces = [tuple(vector[start : start + PIECE] for vector in vectors) for start in range(0, size, PIECE)]
    work = partial(_work, update, [np.array(constant, dtype) for constant in constants], min(PIECE, size))
    count = min(threads or available_cores(), len(pieces) // WORTH_A_THREAD)
    if count < 2:
        work(pieces)
        return
    failures: list[Exception] = []
    helpers = [  # in a context of its own each, with the caller's floating-point error handling
        threading.Thread(target=contextvars.copy_context().run, args=(_try, work, pieces[n::count], failures))
        for n in range(1, count)
    ]
    for helper in helpers:
        helper.start()
    _try(work, pieces[::count], failures)
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


def _work(
    update: Callable[..., None], constants: Sequence[Any], longest: int, pieces: Sequence[Sequence[np.ndarray]]
) -> None:
    room = aligned((longest,), pieces[0][0].dtype)
    for piece in pieces:
        update(constants, room[: len(piece[0])], *piece)


def _try(work: Callable[[Any], None], pieces: Any, failures: list[Exception]) -> None:
    try:
        work(pieces)
    except Exception as failure:
        failures.append(failure)


class NumpyBackend(Backend):
    """NumPy's arrays, which start at a cache line where that matters, and its loops, kept within the cache."""

    def empty_vector(self, size: int, dtype: Any) -> np.ndarray:
        """As `Backend.empty_vector`."""
        return aligned((size,), dtype)

    def sweep(self, update: Callable[..., None], constants: Sequence[float], *vectors: np.ndarray) -> None:
        """As `Backend.sweep`."""
        sweep(self.threads, update, constants, *vectors)


def _nothing_to_wait_for() -> None:
    """NumPy has finished when a call returns."""


def make_backend(threads: int | None = None) -> Backend:
    """The NumPy backend; it uses at most `threads` cores (None: all)."""
    return NumpyBackend(
        name="numpy",
        xp=np,
        from_host=np.asarray,
        to_host=np.asarray,
        synchronize=_nothing_to_wait_for,
        kernels=("fused", "lean", "reference"),
        threads=threads,
    )
