"""What this machine can do with the very shapes of a training step, and the time a step could not go below.

lower bound = the time of its matrix products at the speed measured for their shapes, plus the time of its tanh's;
everything else that a step does (products of gates, sums, copies, Python) comes on top and is what "our share" leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from benchmarks.figures import quantile
from benchmarks.workloads import Case
from lstm_np.backends.blas_threads import blas_threads

ROUNDS = 9
SLOT = 0.05  # seconds of calls per measurement
SMALL = 10**6  # multiply-adds of a product that OpenBLAS makes without repacking its matrices


def seconds_per_call(call: Callable[[], Any]) -> float:
    """Median over rounds of the mean duration of a call, warm."""
    call()
    started = time.perf_counter()
    call()
    count = max(1, int(SLOT / max(time.perf_counter() - started, 1e-7)))
    means = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(count):
            call()
        means.append((time.perf_counter() - started) / count)
    return quantile(means, 0.5)


def on_every_core(threads: int, make: Callable[[], Callable[[], Any]]) -> float:
    """Seconds per call when each of `threads` workers makes its own calls at the same time."""
    calls = [make() for _ in range(threads)]
    repeat = 20

    def many(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeat):
                call()

        return run

    with ThreadPoolExecutor(threads) as pool:  # NumPy releases Python's lock in calls of this size
        return seconds_per_call(lambda: list(pool.map(lambda call: many(call)(), calls))) / repeat


def product(m: int, k: int, n: int, threads: int) -> dict[str, Any]:
    """The speed of (m, k) @ (k, n) in float32, made in every way that we know; `seconds` is the fastest's.

    whole        one call with all threads
    columns      each core a part of n, one thread
    inner        each core a part of k, one thread (the sum of the parts is not counted)
    blocks       each core a part of n, or of k, in blocks of rows so small that OpenBLAS does not repack them
    """
    rng = np.random.default_rng(0)

    def make(inner: int, columns: int, rows: int) -> Callable[[], Any]:
        a = rng.random((m // rows, rows, inner), np.float32)
        b = rng.random((inner, columns), np.float32)
        out = np.empty((m // rows, rows, columns), np.float32)
        return lambda: np.matmul(a, b, out)

    seconds = {}
    with blas_threads(threads):
        seconds["whole"] = seconds_per_call(make(k, n, m))
    with blas_threads(1):
        for way, inner, columns in (("columns", k, n // threads), ("inner", k // threads, n)):
            if inner == 0 or columns == 0:
                continue
            scale = k * n / (inner * columns * threads)  # where the parts leave something over
            seconds[way] = scale * on_every_core(threads, partial(make, inner, columns, m))
            rows = max((r for r in range(8, m) if m % r == 0 and r * inner * columns <= SMALL), default=0)
            if rows:
                seconds[f"{way} in blocks"] = scale * on_every_core(threads, partial(make, inner, columns, rows))
    fastest = min(seconds, key=lambda way: seconds[way])
    return {
        "shape": [m, k, n],
        "ways": seconds,
        "fastest": fastest,
        "seconds": seconds[fastest],
        "gflops": 2e-9 * m * k * n / seconds[fastest],
    }


def measure(case: Case, threads: int) -> dict[str, Any]:
    """Products, tanh and memory, and the lower bound of the case's training step (one layer)."""
    D, H, T, B = case.D, case.H, case.T, case.B
    forward = product(4 * H, D + 1 + H, B, threads)  # W x + U h + b of a time step
    backward = product(H, 4 * H, B, threads)  # dh of a time step
    weights = product(4 * H, B * T, D + 1 + H, threads)  # all weight gradients at once

    def make_tanh() -> Callable[[], Any]:
        values, out = np.linspace(-3, 3, 4 * H * max(1, B // threads), dtype=np.float32), None
        out = np.empty_like(values)
        return lambda: np.tanh(values, out)

    per_element = on_every_core(threads, make_tanh) / (4 * H * max(1, B // threads) * threads)

    def make_copy() -> Callable[[], Any]:
        source = np.ones(1 << 24, np.float32)
        target = np.empty_like(source)
        return lambda: np.copyto(target, source)

    copied = on_every_core(threads, make_copy) / threads
    seconds = {
        "products": T * forward["seconds"] + (T - 1) * backward["seconds"] + weights["seconds"],
        "tanh": 5 * T * B * H * per_element,
    }
    return {
        "case": case.as_dict(),
        "forward_product": forward,
        "backward_product": backward,
        "weights_product": weights,
        "tanh_ns_per_element": per_element * 1e9,
        "memory_gb_per_second": 2 * 4 * (1 << 24) / copied / 1e9,
        "lower_bound_seconds": {**seconds, "total": sum(seconds.values())},
    }
