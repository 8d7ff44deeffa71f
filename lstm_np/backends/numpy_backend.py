"""The CPU: NumPy arrays."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from lstm_np.backends.base import Backend

PIECE = 1 << 16  # values; of an optimiser's five vectors that is what a core's own cache holds
WORTH_A_THREAD = 12  # pieces that repay starting it; BLAS's own threads may still be busy waiting on that core


def available_cores() -> int:
    """The number of cores that this process may use: its affinity where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sweep(threads: int | None, update: Callable[..., None], *vectors: np.ndarray) -> None:
    """`Backend.sweep` on at most `threads` cores: pieces that fit the cache; the bits do not depend on who does which.

    Measured for Adam, 4.3 million parameters, two cores: 5.9 ms whole, 5.2 ms in pieces, 3.7 ms in two threads.
    """
    size = len(vectors[0])
    pieces = [tuple(vector[start : start + PIECE] for vector in vectors) for start in range(0, size, PIECE)]
    count = min(threads or available_cores(), len(pieces) // WORTH_A_THREAD)
    if count < 2:
        _work(update, pieces)
        return
    failures: list[Exception] = []
    helpers = [  # in a context of its own each, with the caller's floating-point error handling
        threading.Thread(target=contextvars.copy_context().run, args=(_try_to_work, update, pieces[n::count], failures))
        for n in range(1, count)
    ]
    for helper in helpers:
        helper.start()
    _try_to_work(update, pieces[::count], failures)
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


def _work(update: Callable[..., None], pieces: Sequence[Sequence[Any]]) -> None:
    for piece in pieces:
        update(*piece)


def _try_to_work(update: Callable[..., None], pieces: Sequence[Sequence[Any]], failures: list[Exception]) -> None:
    try:
        _work(update, pieces)
    except Exception as failure:
        failures.append(failure)


def _nothing_to_wait_for() -> None:
    """NumPy has finished when a call returns."""


def make_backend(threads: int | None = None) -> Backend:
    """The NumPy backend; it uses at most `threads` cores (None: all)."""
    return Backend(
        name="numpy",
        xp=np,
        from_host=np.asarray,
        to_host=np.asarray,
        synchronize=_nothing_to_wait_for,
        kernels=("fused", "lean", "reference"),
        threads=threads,
        sweep=partial(sweep, threads),
    )
