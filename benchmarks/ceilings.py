"""What this machine can do with the very shapes of a step, and the time that a step could not go below.

lower bound = the time of its matrix products at the speed measured for their shapes, plus the time of its tanhs;
everything else that a step does (products of gates, sums, copies, the update, Python) comes on top and is what "our
share" leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.figures import quantile
from benchmarks.workloads import GATES, Case
from lstm_np.backends.blas_threads import blas_threads


class Effort(NamedTuple):
    """Measurements, and seconds of calls in each."""

    rounds: int
    slot: float


THOROUGH, BRIEF = Effort(9, 0.05), Effort(4, 0.004)
SMALL = 10**6  # multiply-adds of a product that OpenBLAS makes without repacking its matrices
WIDEST_BLOCK = 64  # columns of a block that multiplies from the right
MOST = 4096  # samples of all steps; more of them take proportionally longer
TANHS = {"lstm": 5, "gru": 3, "rnn": 1}  # of a step, per unit


def seconds_per_call(call: Callable[[], Any], effort: Effort = THOROUGH) -> float:
    """Median over rounds of the mean duration of a call, warm."""
    call()
    started = time.perf_counter()
    call()
    count = max(1, int(effort.slot / max(time.perf_counter() - started, 1e-7)))
    means = []
    for _ in range(effort.rounds):
        started = time.perf_counter()
        for _ in range(count):
            call()
        means.append((time.perf_counter() - started) / count)
    return quantile(means, 0.5)


def on_every_core(threads: int, make: Callable[[], Callable[[], Any]], effort: Effort = THOROUGH) -> float:
    """Seconds per call when each of `threads` workers makes its own calls at the same time."""
    calls = [make() for _ in range(threads)]
    calls[0]()
    started = time.perf_counter()
    calls[0]()
    repeat = max(1, min(20, int(effort.slot / max(time.perf_counter() - started, 1e-7))))

    def many(call: Callable[[], Any]) -> None:
        for _ in range(repeat):
            call()

    if threads == 1:
        return seconds_per_call(partial(many, calls[0]), effort) / repeat
    with ThreadPoolExecutor(threads) as pool:  # NumPy releases Python's lock in calls of this size
        return seconds_per_call(lambda: list(pool.map(many, calls)), effort) / repeat


def product(
    m: int, k: int, n: int, threads: int, *, by_inner: bool = True, effort: Effort = THOROUGH, alone: bool = False
) -> dict[str, Any]:
    """The speed of (m, k) @ (k, n) in float32, made in every way that we know; `seconds` is the fastest's.

    `alone`: a core makes its part while the others do nothing, so that neither they nor Python's lock slow it down.

    whole            one call with all threads
    columns          each core a part of n, one thread
    inner            each core a part of k, one thread (the sum of the parts is not counted); with `by_inner`
    ... in blocks    each core a part of n, or of k, in blocks of rows so small that OpenBLAS does not repack them
    rows             the transpose: each core a part of n, times blocks of columns
    """
    rng = np.random.default_rng(0)

    def make(inner: int, columns: int, rows: int) -> Callable[[], Any]:
        a = rng.random((m // rows, rows, inner), np.float32)
        b = rng.random((inner, columns), np.float32)
        out = np.empty((m // rows, rows, columns), np.float32)
        return lambda: np.matmul(a, b, out)

    def make_transposed(rows: int, block: int) -> Callable[[], Any]:
        a = rng.random((rows, k), np.float32)
        b = rng.random((m // block, k, block), np.float32)
        out = np.empty((rows, m), np.float32).reshape(rows, m // block, block).swapaxes(0, 1)
        return lambda: np.matmul(a, b, out)

    seconds, together = {}, 1 if alone else threads
    with blas_threads(threads):
        seconds["whole"] = seconds_per_call(make(k, n, m), effort)
    ways = [("columns", k, n // threads), ("inner", k // threads, n)]
    with blas_threads(1):
        for way, inner, columns in ways[: 1 + by_inner]:
            if inner == 0 or columns == 0:
                continue
            scale = k * n / (inner * columns * threads)  # where the parts leave something over
            seconds[way] = scale * on_every_core(together, partial(make, inner, columns, m), effort)
            rows = max((r for r in range(8, m) if m % r == 0 and r * inner * columns <= SMALL), default=0)
            if rows:
                blocks = partial(make, inner, columns, rows)
                seconds[f"{way} in blocks"] = scale * on_every_core(together, blocks, effort)
        users = min(threads, n)
        rows = n // users
        widths = range(8, WIDEST_BLOCK + 1, 8)
        block = max((w for w in widths if m % w == 0 and rows * k * w <= SMALL), default=0)
        if block:
            scale = n / (rows * users)
            transposed = partial(make_transposed, rows, block)
            seconds["rows"] = scale * on_every_core(min(users, together), transposed, effort)
    fastest = min(seconds, key=lambda way: seconds[way])
    return {
        "shape": [m, k, n],
        "ways": seconds,
        "fastest": fastest,
        "seconds": seconds[fastest],
        "gflops": 2e-9 * m * k * n / seconds[fastest],
    }


def tanh_seconds(count: int, threads: int, effort: Effort = THOROUGH, *, alone: bool = False) -> float:
    """Seconds of a tanh, where each of `threads` cores computes `count` at a time; `alone` as in `product`."""

    def make() -> Callable[[], Any]:
        values = np.linspace(-3, 3, count, dtype=np.float32)
        out = np.empty_like(values)
        return lambda: np.tanh(values, out)

    return on_every_core(1 if alone else threads, make, effort) / (count * threads)


def lower_bound(case: Case, threads: int, effort: Effort = BRIEF) -> dict[str, float]:
    """{"products", "tanh", "total"}: seconds that a step of a case could not go below.

    Of all layers and directions: at every time step the product of its samples, which no core can share with another
    without waiting for it, and those that can be made for all steps at once, the input's with it or by itself,
    whichever is faster.  Of sequences with lengths of their own the steps there are, at the speed of a whole batch's.
    """

    @cache
    def at_a_step(m: int, k: int) -> float:
        return product(m, k, case.B, threads, by_inner=False, effort=effort, alone=True)["seconds"]

    @cache
    def at_once(m: int, k: int) -> float:
        """(m, k) times the samples of all steps, or as much work: (m, samples) times (samples, k)."""
        samples = min(steps * case.B, MOST)
        return steps * case.B / samples * product(m, k, samples, threads, effort=effort, alone=True)["seconds"]

    @cache
    def over_samples(m: int, k: int) -> float:
        samples = min(steps * case.B, MOST)
        return steps * case.B / samples * product(m, samples, k, threads, effort=effort, alone=True)["seconds"]

    steps, H, rows, products = 1 if case.mode == "stream" else case.T, case.H, GATES[case.cell] * case.H, 0.0
    for layer, _, _ in case.layers():
        D = case.layer_input(layer)
        products += min(steps * at_a_step(rows, D + 1 + H), steps * at_a_step(rows, H) + at_once(rows, D + 1))
        if case.mode == "train":
            products += (steps - 1) * at_a_step(H, rows) + over_samples(rows, D + 1 + H)
            products += at_once(D, rows) if layer else 0.0
    users = min(threads, case.B)
    count = len(case.layers()) * steps * case.B * H * TANHS[case.cell]
    tanh = count * tanh_seconds(rows * -(-case.B // users), users, effort, alone=True)
    if case.lengths:
        share = (case.T + 1) / 2 / case.T
        products, tanh = share * products, share * tanh
    return {"products": products, "tanh": tanh, "total": products + tanh}


def measure(case: Case, threads: int, effort: Effort = THOROUGH) -> dict[str, Any]:
    """Products, tanh and memory, and the lower bound of the case's training step (one LSTM layer)."""
    D, H, T, B = case.D, case.H, case.T, case.B
    forward = product(4 * H, D + 1 + H, B, threads, effort=effort)  # W x + U h + b of a time step
    backward = product(H, 4 * H, B, threads, effort=effort)  # dh of a time step
    weights = product(4 * H, B * T, D + 1 + H, threads, effort=effort)  # all weight gradients at once
    per_element = tanh_seconds(4 * H * max(1, B // threads), threads, effort)

    def make_copy() -> Callable[[], Any]:
        source = np.ones(1 << 24, np.float32)
        target = np.empty_like(source)
        return lambda: np.copyto(target, source)

    copied = on_every_core(threads, make_copy, effort) / threads
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


class Bound:
    """A contestant's process that measures the lower bound of a case."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def do_bound(self, case: dict[str, Any]) -> dict[str, Any]:
        """As `lower_bound`."""
        return dict(lower_bound(Case(**case), self._threads))
