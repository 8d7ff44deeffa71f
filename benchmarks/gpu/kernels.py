"""Where a training step's time goes on a GPU: latencies of the card, every launch, and variants of the launch plan.

Each function yields plain records as it goes, so that one that fails or runs out of time loses nothing it has found.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np

import lstm_np
from benchmarks.gpu.ours import make_device_step
from benchmarks.gpu.sizes import PartSizes
from benchmarks.gpu.timing import seconds_of
from benchmarks.ours import make_model
from benchmarks.workloads import Case, as_images, make_batches, make_weights
from lstm_np.device.launches import Launches
from lstm_np.device.step import DeviceTrainingStep
from lstm_np.kernels.gpu import cuda_source
from lstm_np.kernels.gpu.launch_plan import GATES, ITEM_SIZES, PersistentPlan, Tiling, plan_persistent, tilings
from lstm_np.kernels.gpu.persistent import launch, load

Record = dict[str, Any]
CHAIN = 256  # operations of a chain in latencies.cu


def latencies(backend: lstm_np.Backend, sizes: PartSizes) -> Iterator[Record]:
    """Cycles of dependent operations, and microseconds of a launch in and out of a graph."""
    xp = backend.xp
    text = cuda_source.source() + (resources.files("benchmarks.gpu") / "latencies.cu").read_text(encoding="utf-8")
    module = xp.RawModule(code=text, options=cuda_source.options("float32"))
    cycles, out = xp.zeros(1, dtype="int64"), xp.zeros(1, dtype="float32")

    def chain(name: str, threads: int, *arguments: Any) -> float:
        kernel = module.get_function(name)
        found = []
        for _ in range(3):
            kernel((1,), (threads,), (*arguments, cycles, out))
            found.append(int(xp.asnumpy(cycles)[0]))
        return min(found) / CHAIN

    half = np.float32(0.5)
    for name, what in (("multiply_add", "multiply-add"), ("exponential", "exp"), ("shuffle", "shuffle and add")):
        yield {"latency": what, "cycles": chain(name, 32, half)}
    for threads in (32, 128, 256, 512):
        yield {"latency": "barrier", "threads": threads, "cycles": chain("barrier", threads, half)}
    yield {"latency": "shared load", "cycles": chain("shared_load", 32, *_round_trip(xp, 1024))}
    for name, count in (("L1", 1024), ("L2", 1 << 19), ("memory", 1 << 26)):
        count = count if sizes.repeats > 10 else 1024
        yield {"latency": f"load from {name}", "cycles": chain("global_load", 32, *_round_trip(xp, count))}

    stream, kernel = xp.cuda.Stream(non_blocking=True), module.get_function("nothing")
    xp.cuda.get_current_stream().synchronize()
    seconds = seconds_of(xp, stream, lambda: kernel((1,), (32,), (out,)), 4 * sizes.repeats)
    yield {"latency": "a launch in a graph", "us": 1e6 * seconds}


def _round_trip(xp: Any, count: int) -> tuple[Any, np.int32]:
    """int32 (count,): from each element to one far away, through CHAIN of them at least; and how many there are."""
    stride = max(1, count // (2 * CHAIN))
    places = np.arange(0, count, stride)
    order = np.random.default_rng(0).permutation(places[1:])
    chain = np.concatenate([[0], order])
    following = np.zeros(count, np.int32)
    following[chain] = np.roll(chain, -1)
    return xp.asarray(following), np.int32(count)


def make_step(backend: lstm_np.Backend, B: int, H: int, T: int, **settings: Any) -> DeviceTrainingStep:
    """A training step over two batches of the race's images."""
    case = Case("train", B, H, T)
    model = make_model(case, make_weights(case), backend)
    images, labels = as_images(make_batches(case))
    return make_device_step(model, images, labels, T, **settings)


def launches(backend: lstm_np.Backend, sizes: PartSizes) -> Iterator[Record]:
    """Microseconds of each launch of a step, of the whole step in a graph, and of the gaps between its launches."""
    for B, H, T in sizes.steps:
        step, order = make_step(backend, B, H, T), np.arange(2 * B)
        step.begin_epoch(order)
        for _ in range(2):
            step.run(B)
        step.finish()
        buffers = step.buffers(B)
        record: Record = {"B": B, "H": H, "T": T, "one_launch": buffers.plan is not None, "parts": buffers.parts}
        total = 0.0
        for name, stage in step.stages(B, buffers).items():
            step.begin_epoch(order)  # the stage that counts has moved the position
            seconds = seconds_of(backend.xp, step.stream, stage, sizes.repeats)
            total += seconds
            yield {**record, "stage": name, "us": 1e6 * seconds}
        whole = _whole_step(backend.xp, step, B, order, sizes.repeats)
        yield {**record, "stage": "whole step", "us": 1e6 * whole, "gaps_us": 1e6 * (whole - total),
               "no_graph_because": step.graph_refused, "own_products_because": step.own_products_because}  # fmt: skip


def _whole_step(xp: Any, step: DeviceTrainingStep, B: int, order: np.ndarray, repeats: int) -> float:
    begun, ended, found = xp.cuda.Event(), xp.cuda.Event(), []
    for _ in range(repeats):
        step.begin_epoch(order)
        begun.record(step.stream)
        for _ in range(2):
            step.run(B)
        ended.record(step.stream)
        ended.synchronize()
        found.append(xp.cuda.get_elapsed_time(begun, ended) / 1e3 / 2)
    return min(found)


def variants(backend: lstm_np.Backend, sizes: PartSizes) -> Iterator[Record]:
    """The one-launch kernels under other tilings and the other order of chunks; steps by cuBLAS; no graph."""
    for B, H, T, most in sizes.variants:
        yield from _tilings(backend, B, H, T, most, sizes.repeats)
        for name, settings in (
            ("as it is", {}),
            ("no graph", {"capture": False}),
            ("one launch a time step, cuBLAS", {"persistent": False}),
            ("one launch a time step, own products", {"persistent": False, "direct_blas": False}),
        ):
            step = make_step(backend, B, H, T, **settings)
            seconds = _whole_step(backend.xp, step, B, np.arange(2 * B), max(3, sizes.repeats))
            yield {"variant": f"step: {name}", "B": B, "H": H, "T": T, "us": 1e6 * seconds}
        yield from _weight_gradient(backend, B, H, T, sizes.repeats)


def _tilings(backend: lstm_np.Backend, B: int, H: int, T: int, most: int, repeats: int) -> Iterator[Record]:
    xp, rng = backend.xp, np.random.default_rng(0)
    on_stream = Launches(xp, "float32", {})
    plan = plan_persistent(on_stream.limits, H, "float32", B)
    if plan is None:
        return

    def draw(*shape: int) -> Any:
        return xp.asarray((rng.standard_normal(shape) * 0.1).astype(np.float32))

    U, bias, given = draw(4 * H, H), draw(4 * H), draw(T, B, 4 * H)
    gates, c, h = (xp.zeros(shape, dtype="float32") for shape in ((T, B, 4 * H), (T + 1, B, H), (T + 1, B, H)))
    da, dh, dc, transposed = xp.zeros((T, B, 4 * H), dtype="float32"), draw(B, H), draw(B, H), xp.ascontiguousarray(U.T)
    xp.cuda.get_current_stream().synchronize()
    sizes = (np.int32(T), np.int32(B))
    expected: dict[str, np.ndarray] = {}

    def measure(direction: str, chosen: PersistentPlan, macros: dict[str, int], tiling: Tiling) -> Record:
        kernel = dict(zip(("forward", "backward"), load(xp, chosen, "float32", macros), strict=True))[direction]
        arguments: tuple[Any, ...]
        if direction == "forward":
            arguments = (*sizes, np.int32(True), U, bias, gates, c, h)
        else:
            arguments = (*sizes, np.int32(False), np.int32(False), transposed, gates, c, dh, dh, dc, da)
        with on_stream.stream:
            gates[...] = given
            launch(kernel, tiling, B, arguments)
            found = xp.asnumpy(h if direction == "forward" else da)
        same = expected.setdefault(direction, found)
        error = float(np.linalg.norm(found - same) / np.linalg.norm(same))
        seconds = seconds_of(xp, on_stream.stream, lambda: launch(kernel, tiling, B, arguments), repeats)
        return {"us": 1e6 * seconds, "difference": error, "ok": error < 1e-5, "planned_cycles": tiling.cycles}

    for direction, values in (("forward", GATES), ("backward", 1)):
        found = tilings(on_stream.limits, H, values, ITEM_SIZES["float32"], B)[:most]
        for tiling, macros in [(found[0], {}), (found[0], {"CHUNK_ORDER": 1}), *((m, {}) for m in found[1:])]:
            chosen = PersistentPlan(**{"forward": plan.forward, "backward": plan.backward, direction: tiling})
            record = {"variant": direction, "B": B, "H": H, "T": T, **macros, "lanes": tiling.lanes,
                      "units": tiling.units, "kept": tiling.kept, "samples": tiling.samples}  # fmt: skip
            try:
                yield {**record, **measure(direction, chosen, macros, tiling)}
            except Exception as error:  # a tiling that a device refuses must not hide the others
                yield {**record, "ok": False, "error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}


def _weight_gradient(backend: lstm_np.Backend, B: int, H: int, T: int, repeats: int) -> Iterator[Record]:
    for name, settings in (("own kernel", {}), ("cuBLAS", {"persistent": False})):
        step = make_step(backend, B, H, T, **settings)
        step.begin_epoch(np.arange(2 * B))
        step.run(B)
        stage = step.stages(B, step.buffers(B))["weight gradient"]
        seconds = seconds_of(backend.xp, step.stream, stage, repeats)
        yield {"variant": f"weight gradient: {name}", "B": B, "H": H, "T": T, "us": 1e6 * seconds,
               "own_products_because": step.own_products_because}  # fmt: skip


def checked_steps(backend: lstm_np.Backend, sizes: PartSizes) -> Iterator[Record]:
    """Small training steps and a measurement, for a sanitizer to watch."""
    for B, H, T in sizes.checked:
        step = make_step(backend, B, H, T)
        for _ in range(2):
            step.begin_epoch(np.arange(2 * B))
            for _ in range(2):
                step.run(B)
        loss, _, count = step.totals()
        yield {"B": B, "H": H, "T": T, "loss": loss / count, "ok": bool(np.isfinite(loss))}
