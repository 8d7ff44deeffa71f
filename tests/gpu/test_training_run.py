"""A whole run with its steps on the device, executed on the host, against the same run on NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lstm_np import SGD, Adam, RMSProp, SequenceClassifier, get_backend
from lstm_np.data import Batches
from lstm_np.training import Place, curves, load_recipe, run
from lstm_np.training.reporters import Reporter
from lstm_np.training.steps import DeviceSteps, ModelSteps, choose_steps, update_of
from tests.gpu.host_cupy import DeviceArray, FakeDevice, make_backend, make_cupy
from tests.gpu.support import needs_compiler

pytestmark = needs_compiler

HOST_FUNCTIONS = ("concat", "stack", "real", "max", "log", "sum", "exp", "arange", "where", "argmax", "isfinite",
                  "tanh", "empty_like", "zeros_like", "ones_like", "sqrt")  # fmt: skip


def backend_of_a_whole_run(**device: Any) -> Any:
    """The stand-in with the functions that evaluation and the initialisation of a model need besides."""
    cupy = make_cupy(FakeDevice(multiprocessors=4, **device))

    def plain(value: Any) -> Any:
        if isinstance(value, DeviceArray):
            return value.view(np.ndarray)
        return type(value)(map(plain, value)) if isinstance(value, (tuple, list)) else value

    for name in HOST_FUNCTIONS:

        def function(*args: Any, _name: str = name, **kwargs: Any) -> Any:
            named = {key: plain(value) for key, value in kwargs.items()}
            return cupy.asarray(np.asarray(getattr(np, _name)(*plain(args), **named)))

        setattr(cupy, name, function)
    return make_backend(cupy)


class Listener(Reporter):
    """Keeps the epochs, and the loss of every step as a reporter would read it."""

    def __init__(self) -> None:
        self.epochs: list[Any] = []
        self.steps: list[tuple[float, int]] = []

    def step(self, step: Any) -> None:
        self.steps.append((float(step.loss), int(step.correct)))

    def epoch(self, record: Any) -> None:
        self.epochs.append(record)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(curves, "draw_curves", lambda *_: None)
    return load_recipe().changed(
        {
            "data": {"dataset": "digits", "limit_train": 230},
            "model": {"hidden_size": 5},
            "train": {"epochs": 2, "batch_size": 100, "clip_norm": 0.5, "schedule": "linear"},
        }
    )


def test_a_run_on_the_device_is_the_run_on_numpy(recipe):
    heard = []
    for name, backend in (("numpy", get_backend("numpy")), ("device", backend_of_a_whole_run())):
        listener = Listener()
        outcome = run(recipe, Place(backend, out=name), listener)
        heard.append((listener, outcome))
    (on_numpy, plain), (on_device, fast) = heard
    assert len(on_device.steps) == 6
    for found, expected in zip(on_device.steps, on_numpy.steps, strict=True):
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        assert found[1] == expected[1]
    for found, expected in zip(on_device.epochs, on_numpy.epochs, strict=True):
        assert found.train.loss == pytest.approx(expected.train.loss, rel=1e-5)
        assert found.train.correct == expected.train.correct
        assert found.train.count == 230
        assert found.validation.loss == pytest.approx(expected.validation.loss, rel=1e-5)
    assert fast.test.accuracy == plain.test.accuracy


def parts(backend: Any, **settings: Any) -> tuple[SequenceClassifier, Batches]:
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 3)).astype(np.uint8)
    batches = Batches(images, np.arange(30) % 3, 7, scale=1 / 255)
    return SequenceClassifier(3, 5, 3, backend=backend, **settings), batches


def test_the_device_steps_are_taken_where_they_can_be():
    backend = backend_of_a_whole_run()
    model, batches = parts(backend)
    assert isinstance(choose_steps(model, Adam(model.params), batches, None), DeviceSteps)
    assert isinstance(choose_steps(model, SGD(model.params, momentum=0.9), batches, 1.0), DeviceSteps)
    assert isinstance(choose_steps(model, RMSProp(model.params), batches, None), ModelSteps)
    on_host, _ = parts("numpy")
    assert isinstance(choose_steps(on_host, Adam(on_host.params), batches, None), ModelSteps)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_layers": 2},
        {"bidirectional": True},
        {"input_projection": 4},
        {"loss": "softmax_twice"},
        {"double_bias": True},
        {"dropout": 0.5, "dropout_outputs": "all", "read_out": "last_output"},
        {"kernel": "reference"},
        {"cell": "gru"},
    ],
)
def test_models_that_the_device_steps_do_not_know_train_by_the_model(settings):
    model, batches = parts(backend_of_a_whole_run(), **settings)
    assert isinstance(choose_steps(model, Adam(model.params), batches, None), ModelSteps)


def test_the_optimizer_knows_how_many_steps_were_made():
    model, batches = parts(backend_of_a_whole_run())
    optimizer = Adam(model.params)
    steps = choose_steps(model, optimizer, batches, None)
    running = steps.running()
    sizes = []
    for number, size in enumerate(steps.batches.epoch(0), 1):
        running.add(*steps.step(size, number))
        sizes.append(size)
    assert sizes == [7, 7, 7, 7, 2]
    assert running.read().count == running.count == 30
    assert optimizer.steps == 5
    assert sum(steps.batches.epoch(1, start=3)) == 9


def test_an_unknown_rule_is_refused():
    model, _ = parts("numpy")
    with pytest.raises(ValueError, match="the device step knows Adam and SGD, found RMSProp"):
        update_of(RMSProp(model.params), None)
