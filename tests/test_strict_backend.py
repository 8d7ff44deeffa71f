"""The whole training step computes on device arrays alone: nothing mixes host and device, nothing waits unasked."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.data import Batches
from lstm_np.loop import train
from tests.model.cases import LENGTHS, READ_OUTS, inputs, make, targets
from tests.strict_backend import STRICT, DeviceArray, MixingError, from_host, to_host


def test_the_stand_in_refuses_what_a_gpu_would():
    device, host = from_host(np.ones(3)), np.ones(3)
    for mixing in (
        lambda: device + host,
        lambda: host + device,
        lambda: host @ device,
        lambda: STRICT.xp.add(device, host),
        lambda: STRICT.xp.concat((device, host)),
        lambda: device * np.float64(2),
        lambda: np.tanh(device),
        lambda: np.asarray(device),
        lambda: float(device[0]),
        lambda: bool(device[0] > 0),
        lambda: device.__setitem__(0, host[0]),
    ):
        with pytest.raises(TypeError):
            mixing()
    assert issubclass(MixingError, TypeError)
    assert isinstance(2 * device + 1, DeviceArray)


def optimizers():
    return {
        "sgd": lambda p: lstm_np.SGD(p, lr=0.1),
        "nesterov": lambda p: lstm_np.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        "adam": lambda p: lstm_np.Adam(p, lr=1e-2),
        "adam hat": lambda p: lstm_np.Adam(p, lr=1e-2, form="hat"),
        "adamw": lambda p: lstm_np.AdamW(p, lr=1e-2, weight_decay=0.1),
        "momentum, decay": lambda p: lstm_np.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        "rmsprop": lambda p: lstm_np.RMSProp(p, lr=1e-2, momentum=0.5),
        "rmsprop tf1": lambda p: lstm_np.RMSProp(p, lr=1e-2, momentum=0.5, form="tf1"),
    }


@pytest.mark.parametrize("optimizer", list(optimizers()))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "dropout": 0.3},
        {"num_layers": 2, "dropout": 0.3, "dropout_outputs": "all", "read_out": "last_output"},
    ],
    ids=["one layer", "stacked, both directions, dropout", "dropout on the top, last output"],
)
def test_training_on_the_strict_backend_equals_numpy_bit_for_bit(settings, optimizer):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((40, 6, 5)), rng.integers(0, 3, 40)
    results = []
    for backend in ("numpy", STRICT):
        model = lstm_np.SequenceClassifier(5, 4, 3, backend=backend, kernel="reference", seed=7, **settings)
        batches = Batches(x, labels, 16, seed=1, dtype="float32")
        steps = model.training_steps(optimizers()[optimizer](model.params), batches, clip_norm=0.5)
        epochs = train(steps, epochs=2, validate=lambda m=model: m.evaluate(x, labels))
        results.append((epochs[-1], to_host(model.params.flat), model.predict_proba(x)))
    (numpy_epoch, numpy_params, numpy_proba), (strict_epoch, strict_params, strict_proba) = results
    np.testing.assert_array_equal(numpy_params, strict_params)
    np.testing.assert_array_equal(numpy_proba, strict_proba)
    assert strict_epoch.train.loss == pytest.approx(numpy_epoch.train.loss, rel=1e-6)
    assert strict_epoch.validation == numpy_epoch.validation


@pytest.mark.parametrize("read_out", READ_OUTS)
@pytest.mark.parametrize(
    "kind", ["softmax, class weights, smoothed, ignored", "softmax, probabilities", "binary", "huber"]
)
def test_every_loss_and_all_that_is_read_equals_numpy_bit_for_bit(kind, read_out):
    found = []
    for backend in ("numpy", STRICT):
        model = make(kind, read_out=read_out, backend="numpy").copy(
            backend=backend, kernel="reference", dtype="float32"
        )
        x, y, weights = inputs(), targets(kind, read_out == "each_step"), np.array([0.5, 1.0, 2.0, 0.0])
        given = {"lengths": LENGTHS, "sample_weight": weights}
        history = model.fit(x, y, **given, epochs=2, batch_size=3, accumulate=2, validation_data=(x, y))
        found.append((to_host(model.params.flat), model.predict(x, lengths=LENGTHS), history[-1].validation))
    for one, other in zip(*(pair[:2] for pair in found), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0][2].loss == pytest.approx(found[1][2].loss, rel=1e-6)
    assert found[0][2].score == pytest.approx(found[1][2].score, rel=1e-6)


def test_the_layer_and_the_gradient_check_run_on_the_strict_backend():
    report = lstm_np.gradcheck(lstm_np.LSTM(5, 4, num_layers=2, bidirectional=True, backend=STRICT))
    assert report.ok, str(report)
