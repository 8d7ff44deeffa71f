"""The launch plan, without a GPU."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.kernels.gpu.launch_plan import DEVICES, Device, describe_device, parts_of_sum, plan_persistent
from tests.gpu.host_cupy import FakeDevice, make_cupy

POWERS = (1, 2, 4, 8, 16, 32)


@given(
    architecture=st.sampled_from(sorted(DEVICES)),
    hidden_size=st.integers(1, 200),
    dtype=st.sampled_from(["float32", "float64"]),
    batch=st.integers(1, 5000),
)
@settings(max_examples=120, deadline=None)
def test_a_plan_keeps_the_limits_and_covers_the_layer(architecture, hidden_size, dtype, batch):
    device = DEVICES[architecture]
    plan = plan_persistent(device, hidden_size, dtype, batch)
    if plan is None:
        return
    for tiling in (plan.forward, plan.backward):
        assert tiling.threads % 32 == 0
        assert 32 <= tiling.threads <= device.threads
        assert tiling.shared_bytes <= device.shared_memory
        assert tiling.registers <= tiling.register_limit <= 255
        assert tiling.threads * tiling.register_limit <= device.registers
        assert 1 <= tiling.kept <= tiling.chunks * tiling.rows
        assert tiling.threads // tiling.lanes * tiling.units >= hidden_size  # every unit has a lane group
        assert tiling.chunks * 4 * tiling.lanes >= tiling.columns  # every column has a lane
        assert tiling.grid(batch) * tiling.samples >= batch > (tiling.grid(batch) - 1) * tiling.samples
        assert {tiling.lanes, tiling.units, tiling.samples} <= set(POWERS)  # adding up halves the items
    assert plan.forward.columns * 4 == plan.backward.columns == 4 * hidden_size
    names = ("LANES", "UNITS", "KEPT", "THREADS", "SAMPLES")
    assert set(plan.macros()) == {"LSTM_H", *(f"{way}_{name}" for way in ("FORWARD", "BACKWARD") for name in names)}


@pytest.mark.parametrize(
    ("architecture", "hidden_size", "dtype", "fits"),
    [
        (90, 128, "float32", True),
        (80, 128, "float32", True),
        (86, 128, "float32", True),
        (120, 128, "float32", True),
        (75, 128, "float32", False),  # 64 KiB of shared memory are too few
        (75, 96, "float32", True),
        (90, 64, "float64", True),
        (90, 128, "float64", False),
        (90, 256, "float32", False),
        (100, 1024, "float32", False),
    ],
)
def test_what_fits_where(architecture, hidden_size, dtype, fits):
    assert (plan_persistent(DEVICES[architecture], hidden_size, dtype, 128) is not None) == fits


def test_what_fits_for_one_sample_fits_for_every_batch():
    for device in DEVICES.values():
        for hidden_size in range(1, 161, 7):
            plans = [plan_persistent(device, hidden_size, "float32", batch) is None for batch in (1, 100, 1000)]
            assert len(set(plans)) == 1


def test_a_batch_is_one_wave_while_the_device_has_room():
    device = DEVICES[90]
    plan = plan_persistent(device, 128, "float32", 128)
    assert (plan.forward.samples, plan.forward.grid(128), plan.forward.threads) == (1, 128, 256)
    assert (plan.backward.samples, plan.backward.grid(128), plan.backward.threads) == (1, 128, 256)
    assert plan_persistent(device, 128, "float32", 512).forward.grid(512) <= device.multiprocessors


def test_refuses_sizes_and_dtypes():
    with pytest.raises(ValueError, match="at least 1, found hidden size 0, batch 1"):
        plan_persistent(DEVICES[90], 0, "float32", 1)
    with pytest.raises(ValueError, match="float32 or float64, found complex128"):
        plan_persistent(DEVICES[90], 8, "complex128", 1)


def test_a_device_is_described_by_its_own_limits():
    cupy = make_cupy(FakeDevice(capability=86, multiprocessors=82, shared_memory=99 * 1024))
    assert describe_device(cupy) == DEVICES[86]


@given(st.sampled_from(sorted(DEVICES)), st.integers(1, 10**6), st.integers(1, 4096), st.integers(1, 4096))
@settings(max_examples=100, deadline=None)
def test_the_parts_of_a_sum_cover_all_rows_and_none_is_empty(architecture, rows, output_rows, output_columns):
    parts, each = parts_of_sum(DEVICES[architecture], rows, output_rows, output_columns)
    assert (parts - 1) * each < rows <= parts * each
    assert (
        parts == 1 or -(-output_rows // 128) * -(-output_columns // 64) * parts <= DEVICES[architecture].multiprocessors
    )


def test_the_weight_gradient_fills_the_device():
    assert parts_of_sum(DEVICES[90], 28 * 128, 512, 157) == (11, 326)
    assert parts_of_sum(Device(90, 132, 0), 1, 4, 3) == (1, 1)
