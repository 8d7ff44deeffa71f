"""A training run by the device step, executed on the host, beside the same run by the model on NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstm_np import SequenceClassifier
from lstm_np.device.step import DeviceTrainingStep, Update
from lstm_np.optimizers import SGD, Adam, Optimizer
from tests.gpu.host_cupy import FakeDevice, make_backend, make_cupy

SAMPLES, BATCH = 13, 5  # the last batch of an epoch is short
UNEVEN = {
    "samples": 43,
    "batch": 43,
}  # with 4 steps and 4 multiprocessors the weight gradient's parts are 58, 58, 56 rows
TOLERANCE = {"float32": 2e-4, "float64": 1e-10}  # of the change of the parameters, after all steps


def rule_of(optimizer: Optimizer, max_norm: float | None) -> Update:
    """The device step's update for one of the optimizers."""
    if isinstance(optimizer, Adam):
        return Update(f"adam {optimizer.form}", optimizer.lr, optimizer.betas, optimizer.eps, max_norm)
    assert isinstance(optimizer, SGD)
    name = "sgd nesterov" if optimizer.nesterov else "sgd momentum" if optimizer.momentum else "sgd"
    return Update(name, optimizer.lr, (optimizer.momentum, 0.0), max_norm=max_norm)


def assert_training_agrees(
    H: int = 5,
    dtype: str = "float64",
    *,
    make_optimizer: Any = None,
    max_norm: float | None = None,
    epsilon: float = 1e-8,
    persistent: bool = True,
    direct_blas: bool = False,
    capture: bool = True,
    mutate: Any = None,
    epochs: int = 2,
    samples: int = SAMPLES,
    batch: int = BATCH,
    seed: int = 0,
    values: bool = False,
    step_class: Any = DeviceTrainingStep,
) -> tuple[DeviceTrainingStep, FakeDevice]:
    """Train both for some epochs: parameters, moments, loss, correct answers and step count agree.

    seed    of the order in which the device's threads, blocks and streams get on
    values  the data set lies on the device in the parameters' dtype, not as bytes
    """
    T, D, K = 4, 3, 4
    rng, scale = np.random.default_rng(7), 1 / 255
    images = rng.integers(0, 256, (samples, T * D)).astype(np.uint8)
    given = images.astype(dtype) if values else images
    labels = rng.integers(0, K, samples)
    model = SequenceClassifier(D, H, K, dtype=dtype, kernel="reference", seed=3)
    optimizer = make_optimizer(model.params) if make_optimizer else Adam(model.params, lr=0.01, eps=epsilon)
    before = model.params.flat.copy()

    device = FakeDevice(multiprocessors=4, seed=seed)
    cupy = make_cupy(device, mutate)
    parameters = cupy.asarray(model.params.flat)
    slots = {name: cupy.asarray(slot) for name, slot in optimizer.slots.items()}
    step = step_class(
        make_backend(cupy), parameters, (T, D, H, K), given, labels,
        scale=scale, update=rule_of(optimizer, max_norm), slots=slots,
        persistent=persistent, direct_blas=direct_blas, capture=capture,
    )  # fmt: skip
    on_numpy, loss_sum, right, number = model.training_steps(optimizer, clip_norm=max_norm).step, 0.0, 0, 0
    for _ in range(epochs):
        order = rng.permutation(samples)
        step.begin_epoch(order)
        for start in range(0, samples, batch):
            chosen, number = order[start : start + batch], number + 1
            x = (images[chosen] * np.dtype(dtype).type(scale)).astype(dtype).reshape(-1, T, D)
            loss, correct, count = on_numpy((x, labels[chosen]), number)
            loss_sum, right = loss_sum + float(loss) * count, right + int(correct)
            step.run(len(chosen))
        step.finish()

    def error(found: Any, expected: np.ndarray, start: Any = 0.0) -> float:
        return float(np.linalg.norm(cupy.asnumpy(found) - expected) / np.linalg.norm(expected - start))

    assert error(parameters, model.params.flat, before) < TOLERANCE[dtype]
    for name, slot in slots.items():
        assert error(slot, optimizer.slots[name]) < TOLERANCE[dtype], name
    loss, correct, count = step.totals()
    assert abs(loss - loss_sum) < TOLERANCE[dtype] * loss_sum
    assert (correct, count, step.steps) == (right, epochs * samples, optimizer.steps)
    return step, device
