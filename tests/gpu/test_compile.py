"""Every kernel compiles for every architecture, within the registers that the launch plan counts on."""

import pytest

from lstm_np.kernels.gpu import cuda_source
from lstm_np.kernels.gpu.launch_plan import DEVICES, plan_persistent
from tests.gpu import compilers

pytestmark = pytest.mark.skipif(
    compilers.find() is None,
    reason="neither nvcc nor NVRTC is here (pip install nvidia-cuda-nvrtc gives NVRTC; no GPU is needed)",
)

SPILL_LIMIT = 128  # bytes per thread: a few values kept aside, off the loop's critical path


def usage(architecture, source, options):
    try:
        return compilers.compile_for(architecture, source, options)
    except LookupError as error:
        pytest.skip(str(error))


def largest_hidden_size(device, dtype):
    return max(H for H in range(8, 161, 8) if plan_persistent(device, H, dtype, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("architecture", DEVICES)
def test_all_but_the_persistent_kernel(architecture, dtype, record_property):
    source = cuda_source.source("steps", "products", "training")
    found = usage(architecture, source, cuda_source.options(dtype))
    record_property("usage", {name: tuple(used) for name, used in found.items()})
    assert len(found) == source.count('extern "C" __global__')
    for name, used in found.items():
        assert used.spill_stores == 0, f"{name}: {used}"
        assert used.registers * 256 <= 65536, f"{name}: {used}"


@pytest.mark.parametrize(("dtype", "batch"), [("float32", 1), ("float32", 10**4), ("float64", 1)])
@pytest.mark.parametrize("architecture", DEVICES)
def test_the_persistent_kernel_at_the_largest_hidden_size(architecture, dtype, batch, record_property):
    """The largest layer needs the most registers; a large batch, the most samples per block."""
    hidden_size = largest_hidden_size(DEVICES[architecture], dtype)
    check_persistent(architecture, hidden_size, dtype, batch, record_property)


@pytest.mark.parametrize("hidden_size", [1, 33, 64, 100, 128])
def test_the_persistent_kernel_at_other_sizes(hidden_size, record_property):
    check_persistent(90, hidden_size, "float32", 128, record_property)


def check_persistent(architecture, hidden_size, dtype, batch, record_property):
    plan = plan_persistent(DEVICES[architecture], hidden_size, dtype, batch)
    found = usage(architecture, cuda_source.source("persistent"), cuda_source.options(dtype, plan.macros()))
    record_property("usage", {name: tuple(used) for name, used in found.items()})
    for direction, mapping in (("forward", plan.forward), ("backward", plan.backward)):
        used = found[f"lstm_persistent_{direction}"]
        assert used.registers <= mapping.register_limit, f"{direction}, {mapping}: {used}"
        assert used.spill_stores <= SPILL_LIMIT, f"{direction}, {mapping}: {used}"
        assert used.spill_loads <= SPILL_LIMIT, f"{direction}, {mapping}: {used}"
