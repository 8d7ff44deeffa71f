"""What the tests of the GPU kernels share: random layers, the reference's answer, the kernels' answer on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lstm_np.backends import get_backend
from lstm_np.cells import get_cell
from lstm_np.kernels import LayerSpec
from lstm_np.kernels.gpu.fused import CudaFusedKernel
from lstm_np.kernels.gpu.persistent import PersistentKernel
from lstm_np.kernels.reference import ReferenceKernel
from tests.gpu.host_cupy import COMPILER, FakeDevice, make_backend, make_cupy

lstm = get_cell("lstm")

KERNELS = {"cuda_fused": CudaFusedKernel, "persistent": PersistentKernel}
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no g++ on this machine to compile the kernels with")


@dataclass(frozen=True)
class Case:
    """Sizes and options of one layer's forward and backward."""

    H: int
    B: int
    T: int
    D: int
    dtype: str = "float32"
    bias: bool = True
    dy: bool = True
    dstate: tuple[bool, bool] = (True, True)
    sequence: bool = True
    input_gradient: bool = True
    state_gradient: bool = True


def draw(case: Case, seed: int = 0) -> dict[str, Any]:
    """Random parameters, inputs and gradients as NumPy arrays, nothing zero."""
    rng, (H, B, T, D) = np.random.default_rng(seed), (case.H, case.B, case.T, case.D)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(case.dtype)

    params = {"W": normal(4 * H, D, scale=D**-0.5), "U": normal(4 * H, H, scale=H**-0.5), "b": normal(4 * H)}
    if not case.bias:
        del params["b"]
    return {
        "params": params,
        "x": normal(B, D, T).transpose(1, 2, 0),  # strided: kernels must not take it for contiguous
        "state": (normal(H, B), normal(H, B)),
        "dy": normal(H, T, B) if case.dy else None,
        "dstate": tuple(normal(H, B) if given else None for given in case.dstate),
    }


def _run(kernel: Any, case: Case, given: dict[str, Any], move: Any) -> dict[str, Any]:
    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: moved(part) for name, part in value.items()}
        if isinstance(value, tuple):
            return tuple(moved(part) for part in value)
        return None if value is None else move(value)

    given = moved(given)
    y, state, saved = kernel.forward(given["params"], given["x"], given["state"], sequence=case.sequence)
    flags = {"input_gradient": case.input_gradient, "state_gradient": case.state_gradient}
    dx, dstate, grads = kernel.backward(given["params"], saved, given["dy"], given["dstate"], **flags)
    found = {"y": y, "h": state[0], "c": state[1], "dx": dx, **{f"d{name}": part for name, part in grads.items()}}
    if dstate is not None:
        found |= {"dh_0": dstate[0], "dc_0": dstate[1]}
    return found


def reference(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    """The reference kernel's answer, computed in float64 from the same numbers."""
    spec = LayerSpec(lstm, case.D, case.H, case.bias, "float64")
    return _run(ReferenceKernel(spec, get_backend("numpy")), case, given, lambda array: array.astype("float64"))


def on_host(name: str, case: Case, given: dict[str, Any], device: FakeDevice | None = None, mutate: Any = None) -> Any:
    """A GPU kernel's answer, executed on the CPU; NumPy arrays."""
    cupy = make_cupy(device, mutate)
    kernel = KERNELS[name](LayerSpec(lstm, case.D, case.H, case.bias, case.dtype), make_backend(cupy))
    found = _run(kernel, case, given, cupy.asarray)
    return {key: None if value is None else cupy.asnumpy(value) for key, value in found.items()}


def assert_equal(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Every array within `tolerance` of the expected one, relative to its norm; NaN is not."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
            continue
        assert found[name].shape == value.shape, name
        error = np.linalg.norm(found[name].astype(float) - value) / np.linalg.norm(value)
        assert error <= tolerance, f"{name}: relative error {error:.2e}"
