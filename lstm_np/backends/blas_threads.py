"""The BLAS under NumPy: how many threads it may use for a while, and which products it multiplies without packing.

`threadpoolctl.threadpool_limits` searches all loaded libraries each time, which takes milliseconds; here the search
is done once and each later change is one call into the library, from any thread.  The setting belongs to the process,
so the limits in force are kept in a list: nested and concurrent uses, left in any order, end with the number found at
the start.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

# OpenBLAS kernels for AVX-512 multiply products of at most 100^3 straight from memory, without packing
_NO_PACKING_LIMIT = 1_000_000
_NO_PACKING_ARCHITECTURES = ("SkylakeX", "Cooperlake", "SapphireRapids")

SERIAL_PRODUCT = 1 << 18  # multiply-adds that OpenBLAS leaves to one thread by itself
SERIAL_DOT = 10_000  # and the length of two vectors whose inner product it does

_lock = threading.Lock()
_in_force: list[tuple[object, int]] = []
_found: list[int] = []
_now: list[int] = []


@functools.cache
def libraries() -> tuple[Any, ...]:
    """The BLAS libraries loaded now, NumPy's own first; empty where threadpoolctl knows none (Apple's, for one).

    Empty also without threadpoolctl, as on a GPU's machine that has only NumPy and CuPy: BLAS keeps its own count.
    """
    if importlib.util.find_spec("threadpoolctl") is None:
        return ()
    import threadpoolctl

    blas = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    return tuple(sorted(blas, key=lambda library: "numpy" not in (library.filepath or "")))


class _Switch(NamedTuple):
    """How a library's number of threads is read and set."""

    get: Callable[[], int]
    set: Callable[[int], object]


@functools.cache
def _switches() -> tuple[_Switch, ...]:
    """Of each of `libraries`, in order.

    OpenBLAS's own functions, where they are found: those of threadpoolctl look for them at each call, and from 3.8 on
    do nothing in any thread but the first that has called them.
    """
    return tuple(_switch_of(library) for library in libraries())


def _switch_of(library: Any) -> _Switch:
    if library.internal_api == "openblas" and library.threading_layer != "openmp":
        for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
            get, put = (
                getattr(library.dynlib, f"{prefix}openblas_{do}_num_threads{suffix}", None) for do in ("get", "set")
            )
            if get is not None and put is not None:
                return _Switch(get, put)
    return _Switch(library.get_num_threads, library.set_num_threads)


@functools.cache
def unpacked_product_limit() -> int:
    """The largest m * n * k that a product may have to be faster in blocks than whole; 0 where whole is best."""
    first = next(iter(libraries()), None)
    if first is not None and first.internal_api == "openblas" and first.architecture in _NO_PACKING_ARCHITECTURES:
        return _NO_PACKING_LIMIT
    return 0


def allowed_threads() -> int | None:
    """How many threads NumPy's BLAS may use outside of `blas_threads`; None where it has no threads, or is not known.

    That is less than it could where an environment variable, `threadpoolctl.threadpool_limits` or joblib limits it.
    """
    with _lock:
        first = next(iter(libraries()), None)
        if first is None or getattr(first, "threading_layer", None) == "disabled":
            return None
        return _found[0] if _in_force else first.get_num_threads()


def _set(numbers: list[int]) -> None:
    """Tell the libraries, unless that is what they do now: a call costs as much as a small product."""
    if numbers != _now:
        for switch, number in zip(_switches(), numbers, strict=True):
            switch.set(number)
        _now[:] = numbers


class blas_threads:
    """Within the block BLAS uses `number` threads per call; then what was in force before, also after an exception."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        with _lock:
            if not _in_force:
                _found[:] = _now[:] = [switch.get() for switch in _switches()]
            _in_force.append((self, self._number))
            _set([self._number] * len(_found))

    def __exit__(self, *_: object) -> None:
        with _lock:
            if _in_force[-1][0] is self:
                _in_force.pop()
            else:
                _in_force[:] = [entry for entry in _in_force if entry[0] is not self]
            _set([_in_force[-1][1]] * len(_found) if _in_force else _found)


def _forget_limits() -> None:
    """In a forked child nobody is inside a block: the threads that were have not come along."""
    global _lock
    _lock = threading.Lock()
    if _in_force:
        _in_force.clear()
        _set(_found)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_limits)
