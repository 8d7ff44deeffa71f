"""Choosing a backend, and what is said where CuPy or a GPU is missing."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import lstm_np
from lstm_np.backends import BackendError, numpy_backend
from lstm_np.backends.blas_threads import SERIAL_DOT
from lstm_np.kernels import choose_kernel
from lstm_np.kernels.protocol import LayerSpec


def fake_cupy(monkeypatch, *, import_error=None, devices=None, device_error=None):
    """A module named cupy that fails as CuPy does on machines where something is missing."""

    class CUDARuntimeError(RuntimeError):
        pass

    def count():
        if device_error:
            raise CUDARuntimeError(device_error)
        return devices

    module = ModuleType("cupy")
    module.cuda = SimpleNamespace(runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError, getDeviceCount=count))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: "found" if name == "cupy" else find(name, *a))
    if import_error:
        load = importlib.import_module

        def fail(name, *a):
            if name == "cupy":
                raise import_error
            return load(name, *a)

        monkeypatch.setattr(importlib, "import_module", fail)
    monkeypatch.setitem(sys.modules, "cupy", module)


def message():
    with pytest.raises(BackendError) as error:
        lstm_np.get_backend("cupy")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_cupy(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "cupy" else find(name, *a))
    assert message().startswith("the cupy backend needs CuPy, which is not installed: pip install")


def test_with_a_cupy_of_another_cuda_version(monkeypatch):
    fake_cupy(monkeypatch, import_error=ImportError("libcublas.so.13:\ncannot open shared object file"))
    assert message().startswith("CuPy is installed but cannot be imported (libcublas.so.13: cannot open shared")


def test_without_a_driver(monkeypatch):
    fake_cupy(monkeypatch, device_error="cudaErrorInsufficientDriver: driver is insufficient")
    found = message()
    assert found.startswith("CuPy is installed but finds no usable NVIDIA GPU or driver (cudaErrorInsufficientDriver")


def test_without_a_device(monkeypatch):
    fake_cupy(monkeypatch, devices=0)
    assert message().startswith("CuPy is installed but this machine has no NVIDIA GPU")


def test_numpy_is_the_default_and_does_not_copy():
    backend, array = lstm_np.get_backend(), np.ones(3)
    assert (backend.name, backend.xp) == ("numpy", np)
    assert backend.from_host(array) is array
    assert lstm_np.get_backend(backend) is backend


def test_a_backend_says_what_it_can_do():
    backend = lstm_np.get_backend("numpy")
    assert (backend.reads_are_free, backend.device_steps) == (True, False)


@pytest.mark.parametrize("size", [5, SERIAL_DOT + 1])
def test_the_squared_norm_is_summed_by_one_thread(size, monkeypatch):
    """So that it has the same bits whatever the threads of BLAS, and none of them goes on waiting."""
    entered = []
    monkeypatch.setattr(numpy_backend, "blas_threads", lambda number: entered.append(number) or nullcontext())
    vector = np.random.default_rng(0).standard_normal(size)
    assert float(lstm_np.get_backend("numpy").squared_norm(vector)) == pytest.approx((vector**2).sum(), rel=1e-12)
    assert entered == ([1] if size > SERIAL_DOT else [])


@pytest.mark.parametrize("threads", [1, 3])
def test_the_reference_kernel_uses_as_many_blas_threads_as_there_are_cores(threads, monkeypatch):
    entered = []
    monkeypatch.setattr(numpy_backend, "blas_threads", lambda number: entered.append(number) or nullcontext())
    layer = lstm_np.GRU(3, 4, kernel="reference", backend=lstm_np.get_backend("numpy", threads=threads))
    assert layer.cuts(5, 2) == {"layer0": (((0, 2),), threads)}
    entered.clear()  # of what is compared when a layer is made
    y, _, cache = layer.forward(np.ones((2, 5, 3)))
    layer.backward(cache, y)
    assert entered == [threads, threads]


@pytest.mark.parametrize("name", ["torch", "", "Numpy"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=f"unknown backend '{name}'; there are: numpy, cupy"):
        lstm_np.get_backend(name)


@pytest.mark.parametrize("threads", [0, -1])
def test_a_thread_count_below_one_is_refused(threads):
    with pytest.raises(ValueError, match=f"threads must be at least 1, found {threads}"):
        lstm_np.get_backend("numpy", threads=threads)


def test_auto_takes_the_first_kernel_that_can():
    backend = lstm_np.get_backend("numpy")
    assert backend.kernels[-1] == "reference"
    layer = lstm_np.LSTM(3, 4, dtype="complex128")
    assert layer.kernel_names == ("reference",)


def test_a_kernel_that_cannot_is_refused():
    backend = lstm_np.get_backend("numpy")
    only_reference = type(backend)(**{**backend.__dict__, "kernels": ("reference",)})
    spec = LayerSpec(lstm_np.LSTM(3, 4).cell, 3, 4, True, "float32")
    with pytest.raises(ValueError, match="kernel 'fused' does not run a lstm layer of 4 units in float32 on the numpy"):
        choose_kernel("fused", spec, only_reference)
