"""The GPU kernels' own sources, executed on the CPU, against the reference kernel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.cells import get_cell
from lstm_np.kernels import LayerSpec, choose_kernel, kernel_class
from lstm_np.kernels.gpu import persistent
from tests.faults import with_fault
from tests.gpu.host_cupy import FakeDevice, make_backend, make_cupy
from tests.gpu.support import KERNELS, TOLERANCE, Case, assert_equal, draw, needs_compiler, on_host, reference

lstm = get_cell("lstm")

pytestmark = needs_compiler

SIZES = [
    Case(H=1, B=1, T=1, D=1),
    Case(H=3, B=5, T=4, D=2),
    Case(H=6, B=2, T=3, D=4),  # 2 mod 4: rows of U that no access of 16 bytes can read
    Case(H=33, B=2, T=3, D=7),
    Case(H=100, B=3, T=2, D=5),
    Case(H=128, B=2, T=3, D=28),
    Case(H=33, B=3, T=4, D=5, dtype="float64"),
    Case(H=3, B=1, T=2, D=1, dtype="float64"),
    Case(H=10, B=2, T=2, D=3, dtype="float64"),
]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("case", SIZES, ids=str)
def test_equals_the_reference(name, case):
    drawn = draw(case)
    assert_equal(on_host(name, case, drawn), reference(case, drawn), TOLERANCE[case.dtype])


@pytest.mark.parametrize(("H", "batch"), [(33, 3), (33, 6), (128, 2)])
def test_several_samples_per_block(H, batch):
    """On a device of one multiprocessor a block takes more samples; the last block has fewer than it could."""
    case = Case(H=H, B=batch, T=3, D=4)
    drawn = draw(case)
    device = FakeDevice(multiprocessors=1)
    assert_equal(on_host("persistent", case, drawn, device), reference(case, drawn), TOLERANCE["float32"])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    "case",
    [
        Case(H=3, B=2, T=3, D=2, bias=False),
        Case(H=3, B=2, T=3, D=2, dy=False, sequence=False),
        Case(H=3, B=2, T=3, D=2, dstate=(False, True), input_gradient=False),
        Case(H=3, B=2, T=3, D=2, dstate=(False, False), state_gradient=False),
    ],
    ids=str,
)
def test_what_is_not_wanted_is_not_given(name, case):
    drawn = draw(case)
    assert_equal(on_host(name, case, drawn), reference(case, drawn), TOLERANCE["float32"])


@pytest.mark.parametrize("name", KERNELS)
@given(B=st.integers(1, 5), T=st.integers(1, 4), D=st.integers(1, 6), seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_any_sizes_in_any_thread_order(name, B, T, D, seed):
    case = Case(H=3, B=B, T=T, D=D)
    drawn = draw(case, seed)
    device = FakeDevice()
    device.seed = seed  # the order in which threads and blocks run
    assert_equal(on_host(name, case, drawn, device), reference(case, drawn), TOLERANCE["float32"])


@pytest.mark.parametrize("name", KERNELS)
def test_forward_alone_equals_forward_with_saving(name):
    case = Case(H=33, B=2, T=3, D=7)
    drawn, cupy = draw(case), make_cupy()
    kernel = KERNELS[name](LayerSpec(lstm, case.D, case.H, True, "float32"), make_backend(cupy))
    params = {key: cupy.asarray(value) for key, value in drawn["params"].items()}
    x, state = cupy.asarray(drawn["x"]), tuple(cupy.asarray(part) for part in drawn["state"])
    y, final, saved = kernel.forward(params, x, state, save=False)
    y_saving, final_saving, _ = kernel.forward(params, x, state)
    assert saved is None
    for found, expected in zip((y, *final), (y_saving, *final_saving), strict=True):
        np.testing.assert_array_equal(cupy.asnumpy(found), cupy.asnumpy(expected))


@pytest.mark.parametrize("name", KERNELS)
def test_backward_twice_gives_the_same_bits_and_the_caller_may_write_to_y(name):
    case = Case(H=3, B=2, T=3, D=2)
    drawn, cupy = draw(case), make_cupy()
    kernel = KERNELS[name](LayerSpec(lstm, case.D, case.H, True, "float32"), make_backend(cupy))
    params = {key: cupy.asarray(value) for key, value in drawn["params"].items()}
    state, dy = tuple(cupy.asarray(part) for part in drawn["state"]), cupy.asarray(drawn["dy"])
    y, final, saved = kernel.forward(params, cupy.asarray(drawn["x"]), state)
    first = kernel.backward(params, saved, dy, (None, None))
    for array in (y, *final):
        array[...] = 0
    second = kernel.backward(params, saved, dy, (None, None))
    for name in first[2]:
        np.testing.assert_array_equal(cupy.asnumpy(first[2][name]), cupy.asnumpy(second[2][name]))


def test_launches_per_sequence():
    """The fused kernel: a product and a kernel per step.  The persistent one: one launch per direction."""
    case, count = Case(H=3, B=2, T=4, D=2, input_gradient=False, state_gradient=False), {}
    for name in KERNELS:
        device = FakeDevice()
        on_host(name, case, draw(case), device)
        count[name] = device.launches
    per_step = ["gemm", "lstm_step_forward"] * 4
    back = ["lstm_step_backward", "gemm"] * 3 + ["lstm_step_backward"]
    assert count["cuda_fused"] == ["gemm", *per_step, *back, "gemm", "gemm"]
    assert count["persistent"] == ["gemm", "lstm_persistent_forward", "lstm_persistent_backward", "gemm", "gemm"]


def test_what_does_not_fit_on_the_chip_runs_on_the_fused_kernel():
    backend = make_backend(make_cupy())

    def chosen(H, dtype):
        return choose_kernel("auto", LayerSpec(lstm, 4, H, True, dtype), backend).name

    assert [chosen(128, "float32"), chosen(64, "float64")] == ["persistent", "persistent"]
    assert [chosen(512, "float32"), chosen(128, "float64")] == ["cuda_fused", "cuda_fused"]


def test_an_option_that_no_kernel_knows_is_run_by_none():
    backend, spec = make_backend(make_cupy()), LayerSpec(lstm, 4, 8, True, "float32", {"invented": 1.0})
    assert not any(kernel_class(name).supports(spec, backend) for name in backend.kernels)
    with pytest.raises(ValueError, match=r"no kernel runs a lstm layer of 8 units in float32, invented 1\.0"):
        choose_kernel("auto", spec, backend)


def run_on_two_devices(kernel_class, second=None, **spec):
    """A layer without a bias, made on the first of two devices and used on both."""
    case = Case(**{"H": 128, "B": 2, "T": 2, "D": 3, "bias": False, **spec})
    drawn, cupy = draw(case), make_cupy(FakeDevice(), others=(second or FakeDevice(),))
    kernel = kernel_class(LayerSpec(lstm, case.D, case.H, False, case.dtype), make_backend(cupy))
    expected = reference(case, drawn)
    for number in range(2):
        with cupy.cuda.Device(number):
            params = {key: cupy.asarray(value) for key, value in drawn["params"].items()}
            state = tuple(cupy.asarray(part) for part in drawn["state"])
            dstate = tuple(cupy.asarray(part) for part in drawn["dstate"])
            y, _, saved = kernel.forward(params, cupy.asarray(drawn["x"]), state)
            _, _, grads = kernel.backward(params, saved, cupy.asarray(drawn["dy"]), dstate)
            for found, name in ((y, "y"), (grads["U"], "dU")):
                error = np.linalg.norm(cupy.asnumpy(found) - expected[name]) / np.linalg.norm(expected[name])
                assert error < TOLERANCE[case.dtype]


@pytest.mark.parametrize("name", KERNELS)
def test_a_layer_runs_on_every_device(name):
    """Each device has its own limits, loads the kernels itself, and is asked for shared memory itself."""
    run_on_two_devices(KERNELS[name])


def test_a_layer_whose_devices_are_not_told_apart_is_found():
    wrong = with_fault(persistent, "number = self.xp.cuda.runtime.getDevice()", "number = 0")
    with pytest.raises(AssertionError, match=r"lstm_persistent_forward: \d+ B"):
        run_on_two_devices(wrong.PersistentKernel)


def test_a_layer_that_does_not_fit_on_another_device_says_so():
    small = FakeDevice(capability=75, multiprocessors=40, shared_memory=64 * 1024)
    with pytest.raises(ValueError, match="128 hidden units in float32 do not fit on a multiprocessor of device 1"):
        run_on_two_devices(KERNELS["persistent"], small)


def test_weights_that_are_not_aligned_are_copied():
    case = Case(H=4, B=2, T=2, D=3)
    drawn, cupy = draw(case), make_cupy()
    spec = LayerSpec(lstm, case.D, case.H, True, "float32")
    kernel = KERNELS["persistent"](spec, make_backend(cupy))
    flat = cupy.empty(1 + 4 * 4 * 4, dtype="float32")
    U = flat[1:].reshape(16, 4)
    U[...] = cupy.asarray(drawn["params"]["U"])
    params = {key: cupy.asarray(value) for key, value in drawn["params"].items()} | {"U": U}
    state = tuple(cupy.asarray(part) for part in drawn["state"])
    y, _, _ = kernel.forward(params, cupy.asarray(drawn["x"]), state)
    expected = reference(case, drawn)["y"]
    assert np.linalg.norm(cupy.asnumpy(y) - expected) / np.linalg.norm(expected) < TOLERANCE["float32"]
