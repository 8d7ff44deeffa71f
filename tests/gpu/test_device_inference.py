"""Inference that stays on the device, executed on the host, against the model on NumPy."""

import numpy as np
import pytest

from lstm_np import SequenceClassifier
from lstm_np.device import inference
from lstm_np.device.inference import DeviceInference
from lstm_np.device.memory import Sizes
from tests.gpu.host_cupy import HABITS, FakeCublas, FakeDevice, make_backend, make_cupy
from tests.gpu.support import needs_compiler

pytestmark = needs_compiler

T, D, K, N = 3, 4, 5, 11
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def parts(H=6, dtype="float64", seed=0, **settings):
    """(model on NumPy, inference of its parameters, images, labels)."""
    rng = np.random.default_rng(1)
    model = SequenceClassifier(D, H, K, dtype=dtype, kernel="reference", seed=2)
    cupy = make_cupy(FakeDevice(multiprocessors=2, seed=seed))
    parameters = cupy.asarray(model.params.flat)
    on_device = DeviceInference(make_backend(cupy), parameters, (T, D, H, K), **settings)
    return model, on_device, rng.integers(0, 256, (N, T * D)).astype(np.uint8), rng.integers(0, K, N)


def check(model, on_device, images, labels, *, values=False):
    dtype = on_device.launches.dtype
    x = (images * np.dtype(dtype).type(1 / 255)).reshape(N, T, D)
    given = (x.reshape(N, T * D), 1.0) if values else (images, 1 / 255)
    measured = on_device.measure(on_device.data(given[0], labels, given[1]))
    expected = model.evaluate(x, labels)
    sums = measured.sums()
    assert sums.loss == pytest.approx(expected.loss * N, rel=TOLERANCE[dtype])
    assert (sums.correct, sums.samples) == (expected.correct, N)
    probabilities = model.predict_proba(x)
    np.testing.assert_allclose(measured.predict_proba(), probabilities, rtol=10 * TOLERANCE[dtype])
    np.testing.assert_array_equal(measured.predict(), probabilities.argmax(axis=1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("values", [False, True])
def test_agrees_with_the_model(dtype, values):
    check(*parts(dtype=dtype), values=values)


@pytest.mark.parametrize("seed", range(len(HABITS)))
def test_agrees_in_several_batches_however_the_streams_get_on(seed, monkeypatch):
    monkeypatch.setattr(inference, "LARGEST_BATCH", 4)  # 4, 4 and 3
    check(*parts(seed=seed))


def test_agrees_without_the_persistent_kernel(monkeypatch):
    check(*parts(persistent=False, direct_blas=False))
    monkeypatch.setattr("lstm_np.kernels.gpu.cublas.open_library", lambda xp: FakeCublas(xp.stand_in))
    check(*parts(persistent=False))


def test_a_batch_is_as_large_as_its_gates_allow():
    _, on_device, *_ = parts(dtype="float32")
    assert on_device.largest_batch == 4096
    sizes, cupy = Sizes(784, 1, 128, 10), make_cupy()
    parameters = cupy.zeros(sizes.parameters, "float32")
    large = DeviceInference(make_backend(cupy), parameters, (sizes.T, sizes.D, sizes.H, sizes.K))
    assert large.largest_batch == (256 << 20) // (784 * 4 * 128 * 4)


def test_without_labels_there_is_no_loss():
    model, on_device, images, _ = parts()
    measured = on_device.measure(on_device.data(images, scale=1 / 255))
    x = (images / 255).reshape(N, T, D)
    np.testing.assert_array_equal(measured.predict(), model.predict(x))
    with pytest.raises(ValueError, match="need labels, and this data set came without"):
        measured.sums()


@pytest.mark.parametrize(
    ("sequences", "labels", "message"),
    [
        (np.zeros((N, 7), np.uint8), None, r"expected sequences uint8 or float64 \(N, 12\), found uint8 \(11, 7\)"),
        (np.zeros((N, 12), np.float32), None, "found float32"),
        (np.zeros((0, 12), np.uint8), None, r"found uint8 \(0, 12\)"),
        (np.zeros((N, 12), np.uint8), np.full(N, K), "expected 11 labels from 0 to 4"),
    ],
)
def test_refuses_data_that_do_not_fit(sequences, labels, message):
    _, on_device, *_ = parts()
    with pytest.raises(ValueError, match=message):
        on_device.data(sequences, labels)


def test_refuses_parameters_that_do_not_fit():
    cupy = make_cupy()
    with pytest.raises(ValueError, match=r"expected 299 float32 or float64 parameters, found float32 \(7,\)"):
        DeviceInference(make_backend(cupy), cupy.zeros(7, "float32"), (T, D, 6, K))
