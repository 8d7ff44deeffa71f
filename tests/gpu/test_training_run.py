"""A whole run with its steps on the device, executed on the host, against the same run on NumPy."""

from __future__ import annotations

import contextlib
import gc
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_np import SGD, Adam, AdamW, RMSProp, SequenceClassifier, SequenceRegressor, get_backend, options
from lstm_np.data import Batches
from lstm_np.device.steps import DeviceSteps, update_of
from lstm_np.kernels import KernelWarning
from lstm_np.loop import Position, TrainingDivergedError, train
from lstm_np.steps import ModelSteps
from lstm_np.training import Place, curves, load_recipe, run
from lstm_np.training.reporters import LineReporter, Reporter
from lstm_np.training.schedules import rate_of
from tests.gpu.host_cupy import FakeDevice, make_backend, make_cupy
from tests.gpu.support import needs_compiler
from tests.plain import through_files

pytestmark = needs_compiler


def backend_of_a_whole_run(**device: Any) -> Any:
    """The stand-in on a small device."""
    return make_backend(make_cupy(FakeDevice(multiprocessors=4, **device)))


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


def test_what_makes_the_steps_is_printed_and_recorded(recipe, monkeypatch):
    """The device, that steps stay there, and why products are our own where cuBLAS would be faster."""

    def missing(xp: Any) -> Any:
        raise OSError("cublas64_13.dll is not there")

    short = recipe.changed({"data": {"limit_train": 20}, "train": {"max_steps": 1, "batch_size": 10}})
    machines, told = [], []
    for case in ("fits on a multiprocessor", "does not"):
        if case == "does not":
            monkeypatch.setattr("lstm_np.device.launches.plan_persistent", lambda *_: None)
            monkeypatch.setattr("lstm_np.kernels.gpu.cublas.open_library", missing)
        stream, none = io.StringIO(), contextlib.nullcontext()
        with pytest.warns(KernelWarning, match="cuBLAS is not found") if case == "does not" else none:
            run(short, Place(backend_of_a_whole_run(), out=case), LineReporter(stream))
        machines.append(json.loads(Path(case, "config.json").read_text())["machine"])
        told.append(" ".join(stream.getvalue().split()))
    name = "stand-in, compute capability 9.0, CUDA 13.0, driver for CUDA 13.0"
    assert [machine["device"] for machine in machines] == [name, name]
    assert [machine["training_step"] for machine in machines] == ["device", "device"]
    assert [machine["own_products_because"] for machine in machines] == [None, "cublas64_13.dll is not there"]
    assert f"{name}, training steps stay there train 2 epochs" in told[0]
    assert "products by kernels of our own for want of cuBLAS (cublas64_13.dll is not there)" in told[1]


def test_steps_by_the_layers_are_called_so():
    model, batches = parts(backend_of_a_whole_run(), num_layers=2)
    assert model.training_steps(Adam(model.params), batches).description() == {"training_step": "layers"}
    assert get_backend("numpy").device() is None


def parts(backend: Any, **settings: Any) -> tuple[SequenceClassifier, Batches]:
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 3)).astype(np.uint8)
    batches = Batches(images, np.arange(30) % 3, 7, scale=1 / 255)
    sizes = {"input_size": 3, "hidden_size": 5, "num_classes": 3}
    return SequenceClassifier(**{**sizes, **settings}, backend=backend), batches


def test_the_device_steps_are_taken_where_they_can_be():
    backend = backend_of_a_whole_run()
    model, batches = parts(backend)
    assert isinstance(model.training_steps(Adam(model.params), batches), DeviceSteps)
    assert isinstance(model.training_steps(SGD(model.params, momentum=0.9), batches, clip_norm=1.0), DeviceSteps)
    assert isinstance(model.training_steps(AdamW(model.params, weight_decay=0.0), batches), DeviceSteps)
    for other in (RMSProp(model.params), AdamW(model.params), Adam(model.params, weight_decay=0.1)):
        assert isinstance(model.training_steps(other, batches), ModelSteps)
    on_host, _ = parts("numpy")
    assert isinstance(on_host.training_steps(Adam(on_host.params), batches), ModelSteps)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_layers": 2},
        {"hidden_size": [5, 4]},
        {"hidden_size": [4, 5], "num_layers": 2},
        {"stateful": True},
        {"bidirectional": True},
        {"input_projection": 4},
        {"loss": "softmax_twice"},
        {"bias": "double"},
        {"bias": False},
        {"forget_bias_at": "run"},
        {"dropout": 0.5, "dropout_outputs": "all", "read_out": "last_output"},
        {"kernel": "reference"},
        {"cell": "gru"},
        {"read_out": "mean"},
        {"read_out": "max"},
        {"read_out": "each_step"},
        {"loss": "binary"},
        {"class_weights": [1.0, 2.0, 3.0]},
        {"label_smoothing": 0.1},
        {"ignored_label": -1},
    ],
)
def test_models_that_the_device_steps_do_not_know_train_by_the_model(settings):
    model, batches = parts(backend_of_a_whole_run(), **settings)
    assert isinstance(model.training_steps(Adam(model.params), batches), ModelSteps)
    assert (model._on_device(batches.sequences) is None) == ("dropout" not in settings), (
        "which matters in training alone"
    )


def test_regressors_probabilities_and_weights_train_by_the_model():
    backend = backend_of_a_whole_run()
    model, batches = parts(backend)
    regressor = SequenceRegressor(3, 5, backend=backend)
    assert isinstance(regressor.training_steps(Adam(regressor.params), batches), ModelSteps)
    assert regressor._on_device(batches.sequences) is None
    x, labels, probabilities = batches.sequences, batches.labels, np.full((30, 3), 1 / 3)
    for other in (Batches(x, probabilities, 7), Batches(x, labels, 7, weights=np.ones(30))):
        assert not other.plain
        assert isinstance(model.training_steps(Adam(model.params), other), ModelSteps)
    assert isinstance(model.training_steps(Adam(model.params), batches, accumulate=2), ModelSteps)
    assert np.isfinite(model.evaluate(x, probabilities).loss)
    found = model.evaluate(x, labels, sample_weight=np.ones(30))
    assert found.loss == pytest.approx(model.evaluate(x, labels).loss, rel=1e-6)


def test_sequences_of_several_lengths_train_by_the_model():
    model, _ = parts(backend_of_a_whole_run())
    batches = Batches(*images(), 5, scale=1 / 255, lengths=np.arange(30) % 4 + 1)
    optimizer = Adam(model.params)
    assert isinstance(model.training_steps(optimizer, batches), ModelSteps)
    assert isinstance(model.training_steps(optimizer, parts(model.backend)[1], truncation=(2, 2)), ModelSteps)
    with pytest.warns(KernelWarning, match="takes no sequences of unequal length"):
        assert model.evaluate_data(batches).count == 30
    assert "classify" not in model.backend.xp.device.launches


def test_an_option_that_the_device_steps_do_not_know_trains_by_the_model(monkeypatch):
    model, batches = parts(backend_of_a_whole_run())
    monkeypatch.setitem(options.BY_NAME, "invented", options.Option("invented", "something new", float, 0.0))
    for value, steps in ((0.0, DeviceSteps), (1.0, ModelSteps)):
        model.config["invented"] = value
        assert isinstance(model.training_steps(Adam(model.params), batches), steps)


def test_the_optimizer_knows_how_many_steps_were_made():
    model, batches = parts(backend_of_a_whole_run())
    optimizer = Adam(model.params)
    steps = model.training_steps(optimizer, batches)
    sizes = []
    for number, size in enumerate(steps.batches(Position()), 1):
        steps.step(size, number)
        sizes.append(size)
    assert sizes == [7, 7, 7, 7, 2]
    assert steps.look().count == steps.sums.count == 30
    assert optimizer.steps == 5
    assert sum(steps.batches(Position(1, 3, 8))) == 9


def test_an_unknown_rule_is_refused():
    model, _ = parts("numpy")
    with pytest.raises(ValueError, match="the device step knows Adam and SGD, found RMSProp"):
        update_of(RMSProp(model.params), None)
    with pytest.raises(ValueError, match="knows no weight decay, found AdamW with weight_decay 0"):
        update_of(AdamW(model.params), None)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int32"])
def test_a_model_measures_and_trains_on_the_device(dtype):
    """Loss, answers and probabilities are NumPy's, whatever the data are, and the layer's kernels do not run."""
    x, labels = images(2)[0].astype(dtype), np.arange(30) % 3
    if dtype != "uint8":
        x = (x / 100).astype(dtype)
    device, plain = (SequenceClassifier(3, 5, 3, backend=b, seed=4) for b in (backend_of_a_whole_run(), "numpy"))
    launches = device.backend.xp.device.launches
    np.testing.assert_allclose(device.predict_proba(x), plain.predict_proba(x), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(device.predict(x), plain.predict(x))
    found, expected = device.evaluate(x, labels), plain.evaluate(x, labels)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert (found.correct, found.count) == (expected.correct, 30)
    assert set(launches) == {f"gather_range{'' if dtype == 'uint8' else '_of_values'}", "product_transposed",
                             "lstm_persistent_forward", "classify"}  # fmt: skip
    one_hot = np.eye(3)[labels]
    history, same = (m.fit(x, one_hot, epochs=2, batch_size=8, validation_data=(x, one_hot)) for m in (device, plain))
    assert launches.count("update_parameters") == 8
    for epoch, as_numpy in zip(history, same, strict=True):
        assert epoch.train.loss == pytest.approx(as_numpy.train.loss, rel=1e-4)
        assert epoch.validation.loss == pytest.approx(as_numpy.validation.loss, rel=1e-4)
        assert [loss for loss, _ in epoch.looks] == pytest.approx([loss for loss, _ in as_numpy.looks], rel=1e-4)


def test_data_that_are_held_out_stay_on_the_device():
    model = SequenceClassifier(3, 5, 3, backend=backend_of_a_whole_run())
    held = Batches(*images(3), 8, scale=1 / 255)
    first = model.evaluate_data(held)
    kept = model._kept_on_device[held]
    assert model.evaluate_data(held) == first
    assert model._kept_on_device[held] is kept
    del held
    gc.collect()
    assert len(model._kept_on_device) == 0


def test_what_the_device_cannot_measure_is_measured_by_the_layers():
    x, labels = images()
    for backend, settings in ((backend_of_a_whole_run(), {"num_layers": 2}), (backend_of_a_whole_run(), {})):
        model = SequenceClassifier(3, 5, 3, backend=backend, seed=4, **settings)
        if not settings:
            backend.xp.device.free_memory = 100  # no room for the data
        batches = Batches(x, labels, 8, scale=1 / 255)
        assert isinstance(model.training_steps(Adam(model.params), batches), ModelSteps)
        expected = model.copy(backend="numpy").evaluate_data(batches)
        assert model.evaluate_data(batches).loss == pytest.approx(expected.loss, rel=1e-5)
        assert model.evaluate(x, labels).count == len(model.predict(x)) == 30
        assert "classify" not in backend.xp.device.launches
        asked = iter([False, False, True])
        assert model.evaluate_data(batches, stop=lambda: next(asked)).count == 16  # noqa: B023


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full((2, 4, 3), np.nan, "float32"), "not finite"),
        (np.full((2, 4, 3), 1e300), "beyond the range of float32"),
        (np.zeros((2, 4, 7), "float32"), r"x must have shape \(B, T, 3\)"),
        (np.zeros((0, 4, 3), "float32"), "N = 0|T >= 1"),
    ],
)
def test_data_that_the_device_must_not_see(x, message):
    model = SequenceClassifier(3, 5, 3, backend=backend_of_a_whole_run())
    with pytest.raises(ValueError, match=message):
        model.predict(x)


def images(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (30, 4, 3)).astype(np.uint8), rng.integers(0, 3, 30)


@pytest.mark.parametrize(
    "make", [Adam, lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: SGD(p, lr=0.1)], ids=["adam", "momentum", "sgd"]
)
def test_every_position_of_a_run_on_the_device_can_be_entered(make):
    backend, kept = backend_of_a_whole_run(), []

    def begin() -> Any:
        model = SequenceClassifier(3, 5, 3, backend=backend, seed=4)
        batches = Batches(*images(), 4, seed=2, scale=1 / 255)  # 8 in an epoch, the last one of two samples
        steps = model.training_steps(make(model.params), batches, clip_norm=0.5, rate=rate_of("linear", 3, 16))
        assert isinstance(steps, DeviceSteps)
        return model, steps

    def vectors(model: Any, steps: Any) -> list[Any]:
        return [backend.to_host(vector) for vector in (model.params.flat, *steps.optimizer.slots.values())]

    whole, steps = begin()

    def keep(_: Any = None) -> None:
        state = through_files(steps.state())
        kept.append((backend.to_host(whole.params.flat), state, whole.position))

    keep()
    history = train(steps, epochs=2, on_step=keep, on_epoch=keep)
    for parameters, state, position in kept[:-2]:  # from the end on there is nothing to do
        model, again = begin()
        next(iter(again.batches(Position())))
        again.step(1, 1)  # what it did before does not stay
        again.look()
        model.params.flat[...] = backend.from_host(parameters)
        again.restore(state)
        assert train(again, position, epochs=2) == history[position.epoch :]
        for found, expected in zip(vectors(model, again), vectors(whole, steps), strict=True):
            np.testing.assert_array_equal(found, expected, err_msg=f"from {position}")
        assert (again.optimizer.steps, again.optimizer.lr) == (16, steps.optimizer.lr)


def test_fit_takes_the_steps_that_stay_on_the_device():
    """Where the images are bytes; and the same training as on NumPy, also when it is cut into calls."""
    model, cut, plain = (
        SequenceClassifier(3, 5, 3, backend=backend, seed=4)
        for backend in (backend_of_a_whole_run(), backend_of_a_whole_run(), "numpy")
    )
    launches = model.backend.xp.device.launches
    x, labels = images()
    history = model.fit(x, labels, epochs=3, batch_size=8, validation_data=images(1))
    assert launches.count("update_parameters") == 12
    parts = [cut.fit(x, labels, batch_size=8, validation_data=images(1)) for _ in range(3)]
    assert parts[0] + parts[1] + parts[2] == history
    np.testing.assert_array_equal(cut.backend.to_host(cut.params.flat), model.backend.to_host(model.params.flat))
    for found, expected in zip(history, plain.fit(x, labels, epochs=3, batch_size=8), strict=True):
        assert found.train.loss == pytest.approx(expected.train.loss, rel=1e-5)
        assert found.steps == expected.steps


def test_parameters_that_were_assigned_between_epochs_are_those_of_the_next():
    """The device keeps U transposed beside the parameters."""
    trained = []
    for assign in (True, False):
        model = SequenceClassifier(3, 5, 3, backend=backend_of_a_whole_run(), seed=4)
        steps = model.training_steps(SGD(model.params, lr=0.1), Batches(*images(), 8, scale=1 / 255))
        other = SequenceClassifier(3, 5, 3, backend=model.backend, seed=5).params
        if assign:
            train(steps, epochs=1)
        model.params = other
        train(steps, Position(1, 0, 4), epochs=2)
        trained.append(model.backend.to_host(model.params.flat))
    np.testing.assert_array_equal(*trained)


def test_the_device_step_is_not_waited_for(monkeypatch):
    model = SequenceClassifier(3, 5, 3, backend=backend_of_a_whole_run())
    steps = model.training_steps(Adam(model.params), Batches(*images(), 8, scale=1 / 255))
    batches = steps.batches(Position())
    sizes = [next(batches)]
    steps.step(sizes[0], 1)
    monkeypatch.setattr(type(steps._device), "finish", lambda *_: pytest.fail("the host waited"))
    for number, size in enumerate(batches, 2):
        steps.step(size, number)
    assert steps.sums.count == 30


def test_the_next_order_is_drawn_while_the_device_works(monkeypatch):
    model, waited = SequenceClassifier(3, 5, 3, backend=backend_of_a_whole_run()), []
    steps = model.training_steps(Adam(model.params), Batches(*images(), 8, scale=1 / 255))
    device, drawn = type(steps._device), steps._source.indices
    totals = device.totals
    monkeypatch.setattr(steps._source, "indices", lambda batch: waited.append(batch) or drawn(batch))
    monkeypatch.setattr(device, "totals", lambda self: waited.append("wait") or totals(self))
    train(steps, epochs=2)
    after = waited.index(7)  # the last batch of the second epoch
    assert waited[: after + 2] == [*range(8), "wait"], "the host waits once an epoch, and draws an order before"
    assert [batch for batch in waited if batch != "wait"] == [*range(12)]  # each once


def test_the_device_finds_at_a_look_that_training_has_diverged():
    model = SequenceClassifier(3, 5, 3, backend=backend_of_a_whole_run())
    steps = model.training_steps(Adam(model.params), Batches(*images(), 8, scale=1 / 255))
    model.params["readout.b"][0] = np.nan
    with pytest.raises(TrainingDivergedError, match=r"^training diverged by step 1: the mean loss .* is nan; lower"):
        train(steps, epochs=1)
    with pytest.raises(TrainingDivergedError, match=r"is nan, the parameters are not finite"):
        steps.look()


def test_after_an_error_no_step_is_under_way():
    """Whoever catches it may read the parameters at once."""
    model = SequenceClassifier(3, 5, 3, backend=backend_of_a_whole_run())
    steps = model.training_steps(Adam(model.params), Batches(*images(), 8, scale=1 / 255))

    def fail(step: Any) -> None:
        if step.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(steps, epochs=1, on_step=fail)
    assert not steps._device.stream.queue
    assert model.backend.xp.device.launches.count("update_parameters") == 3


def test_images_that_do_not_fit_the_model_are_refused():
    model = SequenceClassifier(4, 5, 3, backend=backend_of_a_whole_run())
    with pytest.raises(ValueError, match="the model reads sequences of 4 features, the batches' have 3"):
        model.training_steps(Adam(model.params), Batches(*images(), 8, scale=1 / 255))
    other = SequenceClassifier(3, 5, 3, backend=model.backend)
    with pytest.raises(ValueError, match="this optimizer updates other parameters"):
        other.training_steps(Adam(model.params), Batches(*images(), 8, scale=1 / 255))
