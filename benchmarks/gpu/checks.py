"""What a GPU must get right before it is timed: kernels against the reference, gradients, the device step, MNIST.

Each function yields plain records as it goes, so that one that fails or runs out of time loses nothing it has found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import lstm_np
from benchmarks.contestant import Contestant
from benchmarks.gpu.ours import DeviceStep, make_device_step
from benchmarks.gpu.sizes import PartSizes
from benchmarks.ours import Reference
from benchmarks.race import TOLERANCE, curve_gap
from benchmarks.workloads import Batch, Case, Weights, batches_of_images
from lstm_np import streams
from lstm_np.cells import get_cell
from lstm_np.device.inference import DeviceInference
from lstm_np.kernels import LayerSpec, kernel_class
from lstm_np.kernels.reference import ReferenceKernel

Record = dict[str, Any]
LIMITS = {"float32": 1e-5, "float64": 1e-12}  # relative to the norm
LOOKS = 20  # at the sums of an epoch


def attempt(record: Record, check: Callable[[], Record]) -> Record:
    """The record with what a check found; one that raises is wrong and has its error, and the next go on."""
    try:
        return {**record, **check()}
    except Exception as error:  # whatever a device throws at one shape must not hide the other shapes' results
        return {**record, "ok": False, "error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}


def conformance(backend: lstm_np.Backend, sizes: PartSizes) -> Iterator[Record]:
    """Every kernel of the backend against the reference kernel in float64 on NumPy, one shape after another."""
    return _conformance(backend, sizes.shapes)


def more_conformance(backend: lstm_np.Backend, sizes: PartSizes) -> Iterator[Record]:
    """The same of the other shapes."""
    return _conformance(backend, sizes.more_shapes)


def _conformance(backend: lstm_np.Backend, shapes: tuple[tuple[int, int, int, int], ...]) -> Iterator[Record]:
    for D, H, T, B in shapes:
        for dtype, limit in LIMITS.items():
            for name in backend.kernels:
                spec, kernel = LayerSpec(get_cell("lstm"), D, H, True, dtype), kernel_class(name)
                if kernel.supports(spec, backend):
                    record = {"kernel": name, "dtype": dtype, "D": D, "H": H, "T": T, "B": B, "limit": limit}
                    yield attempt(record, partial(_conforms, kernel, spec, backend, T, B))


def _conforms(kernel: Any, spec: LayerSpec, backend: lstm_np.Backend, T: int, B: int) -> Record:
    errors = compare(kernel(spec, backend), spec, backend, T, B)
    worst = max(errors, key=lambda what: errors[what])
    right = all(error <= LIMITS[spec.dtype] for error in errors.values())  # nan is not
    return {"worst": errors[worst], "tensor": worst, "ok": right}


def compare(kernel: Any, spec: LayerSpec, backend: lstm_np.Backend, T: int, B: int) -> dict[str, float]:
    """Error of every tensor that a kernel returns, relative to the norm of the reference's."""
    D, H, dtype = spec.input_size, spec.hidden_size, spec.dtype
    rng = np.random.default_rng(H * T + B)

    def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (rng.normal(size=shape) * scale).astype(dtype)

    params = {"W": draw(4 * H, D, scale=D**-0.5), "U": draw(4 * H, H, scale=H**-0.5), "b": draw(4 * H)}
    x, dy, state, dstate = draw(D, T, B), draw(H, T, B), (draw(H, B), draw(H, B)), (draw(H, B), draw(H, B))

    def run(kernel: Any, place: Any) -> dict[str, Any]:
        own = {name: place(array) for name, array in params.items()}
        y, final, saved = kernel.forward(own, place(x), tuple(map(place, state)))
        alone, _, _ = kernel.forward(own, place(x), tuple(map(place, state)), save=False)
        dx, dstate_0, grads = kernel.backward(own, saved, place(dy), tuple(map(place, dstate)))
        found = {"y": y, "y without saving": alone, "h_T": final[0], "c_T": final[1]}
        return {**found, "dx": dx, "dh_0": dstate_0[0], "dc_0": dstate_0[1], **{f"d{k}": g for k, g in grads.items()}}

    host = lstm_np.get_backend("numpy")
    exact = LayerSpec(spec.cell, D, H, True, "float64")
    expected = run(ReferenceKernel(exact, host), lambda array: array.astype("float64"))
    found = {what: backend.to_host(array) for what, array in run(kernel, backend.from_host).items()}
    return {
        what: float(np.linalg.norm(found[what] - expected[what]) / np.linalg.norm(expected[what])) for what in expected
    }


def gradients(backend: lstm_np.Backend, sizes: PartSizes) -> Iterator[Record]:
    """The gradient check of each kernel, computed on the device in float64."""
    for name in backend.kernels:
        for H, T, B in ((5, 4, 3), (33, 3, 2)):
            yield attempt({"kernel": name, "H": H, "T": T, "B": B}, partial(_checked, backend, name, H, T, B))


def _checked(backend: lstm_np.Backend, kernel: str, H: int, T: int, B: int) -> Record:
    layer = lstm_np.LSTM(3, H, kernel=kernel, backend=backend, dtype="float64")
    report = lstm_np.gradcheck(layer, batch_size=B, steps=T, entries=20)
    return {"complex_step": report.worst_complex_step, "central": report.worst_central, "ok": bool(report.ok)}


class OnImages(Reference):
    """The reference kernel on the CPU over the same uint8 images as the device."""

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        super().build(case, weights, batches_of_images(case, batches), adam)


def device_step(backend: lstm_np.Backend, sizes: PartSizes) -> Iterator[Record]:
    """The loss curve of 20 steps on the device against the CPU's, from the same weights on the same batches."""
    for B, H, T in sizes.curves:
        case = Case("train", B, H, T)
        yield attempt({"case": str(case), "limit": TOLERANCE}, partial(_same_curve, backend, case))


def _same_curve(backend: lstm_np.Backend, case: Case) -> Record:
    on_device = DeviceStep(2, backend)
    expected, found = (_curve(contestant, case) for contestant in (OnImages(2), on_device))
    gap = curve_gap(expected, found)
    step = on_device.train_step
    return {
        "gap": gap, "ok": gap <= TOLERANCE, "first": found[0], "last": found[-1],
        "no_graph_because": step.graph_refused, "own_products_because": step.own_products_because,
    }  # fmt: skip


def _curve(contestant: Contestant, case: Case) -> list[float]:
    contestant.do_prepare(case.as_dict())
    return contestant.do_losses(20)["losses"]


def mnist(backend: lstm_np.Backend, sizes: PartSizes, data_dir: str | None = None) -> Iterator[Record]:
    """Train an LSTM on MNIST with the device step, looking 20 times an epoch, and measure it on the test images.

    The last record compares the device's answers with the model's on the CPU.
    """
    epochs, H, B, random_images = sizes.mnist
    data: Any = None
    if data_dir is not None and Path(data_dir).is_dir():
        data = lstm_np.data.load_mnist(data_dir)
        images, labels, held, held_labels = data.train_images, data.train_labels, data.test_images, data.test_labels
    else:  # no data on this machine: the same work on random images, so seconds mean something and accuracy does not
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (random_images, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, random_images)
        held, held_labels = images[: random_images // 6], labels[: random_images // 6]
    N, T, D = images.shape
    model = lstm_np.SequenceClassifier(D, H, 10, backend=backend, seed=0)
    step = make_device_step(model, images.reshape(N, T * D), labels, T)
    measuring = DeviceInference(backend, model.params.flat, (T, D, H, 10), stream=step.stream)
    on_device = measuring.data(held.reshape(len(held), T * D), held_labels, 1 / 255)
    order, measured = streams.permutation(N, 0, "shuffle", 0), None
    for epoch in range(epochs):
        step.reset_totals()
        step.finish()
        started = time.perf_counter()
        step.begin_epoch(order)
        looks, every = [], -(-N // B // LOOKS)
        for number, first in enumerate(range(0, N, B), 1):
            step.run(min(B, N - first))
            if number % every == 0:
                looks.append(step.look())
        order = streams.permutation(N, 0, "shuffle", epoch + 1)  # while the device works
        loss, correct, count = step.totals()
        trained = time.perf_counter()
        measured = measuring.measure(on_device)
        test = measured.sums()
        yield {
            "epoch": epoch + 1, "seconds": trained - started, "test_seconds": time.perf_counter() - trained,
            "loss": loss / count, "train_accuracy": correct / count, "test_loss": test.loss / test.samples,
            "looks": [look.read().loss for look in looks], "images": N, "test_images": len(held),
            "data": "MNIST" if data is not None else "random images", "no_graph_because": step.graph_refused,
        }  # fmt: skip
    if measured is not None:
        step.finish()
        found = measured.predict()
        on_host = model.copy(backend="numpy", kernel="reference")
        expected = on_host.predict(held * np.float32(1 / 255), batch_size=1000)
        same, right = float((found == expected).mean()), float((found == held_labels).mean())
        yield {"test_accuracy": right, "test_images": len(found), "answers_as_on_the_cpu": same, "ok": same > 0.999}
