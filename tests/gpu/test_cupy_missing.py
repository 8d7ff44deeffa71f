"""`--backend cupy` where it cannot work: one clear line each."""

import importlib
import importlib.util
from types import SimpleNamespace

import numpy as np
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


def fake_cupy(count, ones=None):
    def get_device_count():
        if isinstance(count, Exception):
            raise count
        return count

    runtime = SimpleNamespace(getDeviceCount=get_device_count, CUDARuntimeError=CUDARuntimeError)
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime), ones=ones, asarray=np.asarray, asnumpy=np.asarray)


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


def test_the_cause_is_said_and_not_the_page_around_it(monkeypatch):
    error = ImportError("=" * 64 + "\nFailed to import CuPy.\nIf you installed CuPy via wheels ..." + "x" * 200)
    error.__cause__ = ImportError("libcublas.so.12: cannot open shared object file")
    assert "cannot be imported (libcublas.so.12: cannot open shared object file): pip" in refusal(monkeypatch, error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError('Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file:\nlibnvrtc.so.13'),
        RuntimeError("Failed to find CUDA headers. Please install CUDA toolkit headers"),
        ImportError("libcublas.so.13: cannot open shared object file"),
    ],
)
def test_with_a_gpu_and_without_the_libraries_of_cuda(monkeypatch, error):
    def ones(shape, dtype):
        raise error

    message = refusal(monkeypatch, fake_cupy(1, ones))
    assert message.startswith("CuPy finds a GPU but cannot compute on it (" + str(error).split("\n")[0])
    assert "cuda13" in message
    assert message.endswith("or use --backend numpy")


def test_with_all_that_is_needed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", lambda name: fake_cupy(1, np.ones))
    assert get_backend("cupy").kernels == ("persistent", "cuda_fused", "reference")


def test_with_a_driver_that_is_too_old(monkeypatch):
    error = CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
    message = refusal(monkeypatch, fake_cupy(error))
    assert "no usable NVIDIA GPU or driver (cudaErrorInsufficientDriver" in message
    assert message.endswith("or use --backend numpy")


def test_without_a_gpu(monkeypatch):
    assert refusal(monkeypatch, fake_cupy(0)).startswith("CuPy is installed but this machine has no NVIDIA GPU")


def test_the_real_cupy_on_a_machine_without_a_gpu():
    cupy = pytest.importorskip("cupy", exc_type=ImportError)
    if cupy.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match="GPU") as caught:
        get_backend("cupy")
    assert "\n" not in str(caught.value)
