"""What this machine can do with the very shapes of a training step, and the time a step could not go below.

floor = the time of its matrix products at the speed measured for their shapes, plus the time of its tanh's; everything
else that a step does (products of gates, sums, copies, Python) comes on top and is what "our share" leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.figures import quantile
from benchmarks.workloads import Cell
from lstm_np.kernels import workers
from lstm_np.kernels.blas_threads import blas_threads

ROUNDS = 9
SLOT = 0.05  # seconds of calls per measurement


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

    return seconds_per_call(lambda: workers.run([many(call) for call in calls])) / repeat


def product(m: int, k: int, n: int, threads: int) -> dict[str, Any]:
    """The speed of (m, k) @ (k, n) in float32: whole with all threads, and in `threads` parts of n on one core each."""
    rng = np.random.default_rng(0)

    def make(columns: int) -> Callable[[], Any]:
        a, b = rng.random((m, k), np.float32), rng.random((k, columns), np.float32)
        out = np.empty((m, columns), np.float32)
        return lambda: np.matmul(a, b, out)

    with blas_threads(threads):
        whole = seconds_per_call(make(n))
    parts = whole
    if n >= threads:
        with blas_threads(1):
            parts = on_every_core(threads, lambda: make(n // threads)) * n / (n // threads * threads)
    best = min(whole, parts)
    return {"shape": [m, k, n], "seconds_whole": whole, "seconds_in_parts": parts, "gflops": 2e-9 * m * k * n / best}


def measure(cell: Cell, threads: int) -> dict[str, Any]:
    """Products, tanh and memory, and the floor of the cell's training step (one layer)."""
    D, H, T, B = cell.D, cell.H, cell.T, cell.B
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
        "products": T * best(forward) + (T - 1) * best(backward) + best(weights),
        "tanh": 5 * T * B * H * per_element,
    }
    return {
        "cell": cell.as_dict(),
        "forward_product": forward,
        "backward_product": backward,
        "weights_product": weights,
        "tanh_ns_per_element": per_element * 1e9,
        "memory_gb_per_second": 2 * 4 * (1 << 24) / copied / 1e9,
        "floor_seconds": {**seconds, "total": sum(seconds.values())},
    }


def best(measured: dict[str, Any]) -> float:
    """The faster of the two ways to make a product."""
    return min(measured["seconds_whole"], measured["seconds_in_parts"])
