"""`--backend cupy` where it cannot work: one clear line each."""

import importlib
import importlib.util
from types import SimpleNamespace

import pytest

from lstm_np import get_backend
from lstm_np.backends import BackendError


def refusal(monkeypatch, cupy):
    """The message when `import cupy` gives `cupy`, or raises it."""

    def import_module(name):
        if isinstance(cupy, Exception):
            raise cupy
        return cupy

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(BackendError) as caught:
        get_backend("cupy")
    message = str(caught.value)
    assert "\n" not in message
    return message


class CUDARuntimeError(RuntimeError):
    """As CuPy calls it."""


def fake_cupy(count):
    def get_device_count():
        if isinstance(count, Exception):
            raise count
        return count

    runtime = SimpleNamespace(getDeviceCount=get_device_count, CUDARuntimeError=CUDARuntimeError)
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))


def test_without_cupy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"needs CuPy, which is not installed: pip install .*--backend numpy$"):
        get_backend("cupy")


def test_with_a_cupy_of_another_cuda(monkeypatch):
    error = ImportError("libnvrtc.so.12: cannot open shared object file:\nNo such file or directory")
    message = refusal(monkeypatch, error)
    assert message.startswith("CuPy is installed but cannot be imported (libnvrtc.so.12: cannot open shared object")
    assert "cuda12" in message
    assert "cuda13" in message


def test_with_a_driver_that_is_too_old(monkeypatch):
    error = CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
    message = refusal(monkeypatch, fake_cupy(error))
    assert "no usable NVIDIA GPU or driver (cudaErrorInsufficientDriver" in message
    assert message.endswith("or use --backend numpy")


def test_without_a_gpu(monkeypatch):
    assert refusal(monkeypatch, fake_cupy(0)).startswith("CuPy is installed but this machine has no NVIDIA GPU")


def test_the_real_cupy_on_a_machine_without_a_gpu():
    cupy = pytest.importorskip("cupy")
    if cupy.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match="GPU") as caught:
        get_backend("cupy")
    assert "\n" not in str(caught.value)
