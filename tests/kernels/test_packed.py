"""Inference packs weights again only where a parameter has changed, and wherever one has."""

import threading

import numpy as np
import pytest

import lstm_np
from lstm_np.kernels.cpu import columns, passes, remote, rows
from lstm_np.kernels.cpu.fused import NumpyFusedKernel
from lstm_np.kernels.cpu.packed import PackedFrom
from tests.kernels.test_numpy_fused import Case, same_bits
from tests.kernels.test_recovery import (  # noqa: F401 (fixtures are used by being there)
    FOREVER,
    _one_part_a_core,
    shared_team,
    wait_until_ready,
)

SIZES = {
    "columns": {"D": 5, "H": 20, "T": 6, "B": 101},
    "rows": {"D": 7, "H": 64, "T": 5, "B": 16},
    "rows packed together": {"D": 7, "H": 64, "T": 5, "B": 17},
    "one process": {"D": 5, "H": 20, "T": 6, "B": 30, "threads": 1},
    "few in one process": {"D": 5, "H": 64, "T": 6, "B": 3, "threads": 1},
    "sample": {"D": 5, "H": 20, "T": 70, "B": 1},
    "a wide sample": {"D": 100, "H": 20, "T": 9, "B": 1},
    "a large sample": {"D": 5, "H": 370, "T": 4, "B": 1},
    "float64": {"D": 5, "H": 20, "T": 6, "B": 40, "dtype": "float64"},
}
PACKERS = [(columns.Weights, "pack"), (rows.Weights, "pack"), (passes, "pack_transposed")]
every_layout = pytest.mark.parametrize("layout", list(SIZES))


@pytest.fixture(autouse=True)
def _packed_together(monkeypatch):
    monkeypatch.setattr(remote, "WORTH_PACKING_TOGETHER", 0)


def infer(case):
    y, final, _ = case.forward(save=False)
    return [y, *final]


def by_a_new_kernel(case):
    kernel = case.kernel
    case.kernel = NumpyFusedKernel(kernel.spec, kernel.backend)
    try:
        return infer(case)
    finally:
        case.kernel = kernel


def last_value(params):
    params["U"][-1, -1] += 1


def first_bias(params):
    params["b"].reshape(-1)[0] -= 0.5


def smallest_change(params):
    W = params["W"]
    W[3, 2] = np.nextafter(W[3, 2], np.array(9, W.dtype))


def rows_that_change_places(params):
    params["U"][[1, 2]] = params["U"][[2, 1]]


def signs(params):
    params["W"] *= -1


def through_bytes(params):
    params["b"].view(np.uint8)[-1] ^= 0x80


def another_array(params):
    params["U"] = params["U"] * 0.5


def another_layout(params):
    params["U"] = np.asfortranarray(params["U"] + 0.25)


WRITES = [
    last_value, first_bias, smallest_change, rows_that_change_places, signs, through_bytes, another_array,
    another_layout,
]  # fmt: skip


@pytest.mark.usefixtures("shared_team")
@every_layout
@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
def test_every_write_to_the_parameters_is_seen(layout, write):
    case = Case(**SIZES[layout])
    before = infer(case)
    assert same_bits(infer(case), before)
    write(case.params)
    after = infer(case)
    assert same_bits(after, by_a_new_kernel(case))
    if write is not smallest_change:
        assert not same_bits(after, before)
    assert same_bits(infer(case), after)


def test_a_zero_that_changes_its_sign_is_seen():
    """-0.0 == 0.0, but 1 / -0.0 is not 1 / 0.0."""
    params, source = {"W": np.zeros((2, 3), np.float32)}, PackedFrom()
    source.copy(params)
    source.packed()
    assert source.same(params)
    params["W"][0, 0] = -0.0
    assert not source.same(params)


def test_a_nan_is_the_same_as_itself():
    params, source = {"W": np.full((2, 3), np.nan)}, PackedFrom()
    source.copy(params)
    source.packed()
    assert source.same(params)


def before_packing(patch, do):
    """In this process `do` is called with whatever packs weights, before it does."""
    for owner, name in PACKERS:
        pack = getattr(owner, name)

        def packing(*arguments, pack=pack):
            do(arguments)
            pack(*arguments)

        patch.setattr(owner, name, packing)


# of the large sample nothing is packed
packing_layout = pytest.mark.parametrize("layout", [layout for layout in SIZES if layout != "a large sample"])


@pytest.mark.usefixtures("shared_team")
@packing_layout
def test_what_has_not_changed_is_not_packed_again(layout, monkeypatch):
    case, packed = Case(**SIZES[layout]), []
    before_packing(monkeypatch, packed.append)
    wait_until_ready(case.kernel.backend.cores - 1)
    monkeypatch.setattr(remote, "SHORTEST", FOREVER)  # nor does this process do a late worker's part
    infer(case)
    assert packed
    packed.clear()
    infer(case)
    case.params = {name: array.copy() for name, array in case.params.items()}
    infer(case)
    assert not packed
    last_value(case.params)
    infer(case)
    assert packed


@pytest.mark.parametrize("layout", ["columns", "rows", "rows packed together"])
def test_a_worker_that_is_new_packs_what_has_not_changed(layout):
    case = Case(**SIZES[layout])
    expected = infer(case)
    for _ in range(3):
        assert same_bits(infer(case), expected)
        for worker in remote.TEAM._workers:
            worker.process.kill()
            worker.process.wait()
        assert same_bits(infer(case), expected)
    last_value(case.params)
    assert same_bits(infer(case), by_a_new_kernel(case))


@pytest.mark.parametrize("layout", ["columns", "rows packed together"])
def test_parameters_that_change_while_no_worker_is_there_are_seen_by_it_later(layout, monkeypatch):
    case = Case(**SIZES[layout])
    infer(case)
    with monkeypatch.context() as patch:
        patch.setattr(remote.TEAM, "available", lambda count: [None] * count)
        last_value(case.params)
        changed = infer(case)
    assert same_bits(changed, by_a_new_kernel(case))
    assert same_bits(infer(case), changed)


@pytest.mark.usefixtures("shared_team")
@packing_layout
def test_after_a_failure_weights_are_packed_again(layout, monkeypatch):
    case = Case(**SIZES[layout])
    infer(case)
    last_value(case.params)
    with monkeypatch.context() as patch:
        for owner, name in PACKERS:
            patch.setattr(owner, name, lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            infer(case)
    assert same_bits(infer(case), by_a_new_kernel(case))


@pytest.mark.usefixtures("shared_team")
@packing_layout
def test_a_write_by_another_thread_while_weights_are_packed_is_not_lost(layout, monkeypatch):
    case = Case(**SIZES[layout])
    kept = {name: array.copy() for name, array in case.params.items()}
    expected = by_a_new_kernel(case)

    def in_another_thread(_):
        thread = threading.Thread(target=last_value, args=(case.params,))
        thread.start()
        thread.join()

    with monkeypatch.context() as patch:
        before_packing(patch, in_another_thread)
        assert same_bits(infer(case), expected)
    assert not np.array_equal(case.params["U"], kept["U"])
    assert same_bits(infer(case), by_a_new_kernel(case))


@pytest.mark.usefixtures("shared_team")
def test_a_users_layer_and_model_see_what_is_written_to_their_parameters():
    rng = np.random.default_rng(0)
    for B in (1, 40):
        x = rng.normal(size=(B, 6, 5)).astype("float32")
        lstm = lstm_np.LSTM(5, 20, num_layers=2, bidirectional=True)
        model = lstm_np.SequenceClassifier(5, 20, 3)
        lstm(x)
        model.logits(x)
        lstm.params["layer1_reverse.U"][7] += 0.5
        assert (lstm(x)[0] == lstm.copy()(x)[0]).all()
        lstm.params.flat[:] *= 0.5
        assert (lstm(x)[0] == lstm.copy()(x)[0]).all()
        optimizer = lstm_np.Adam(model.params, lr=0.1)
        _, grads = model.loss_and_gradients(x, np.zeros(B, int))
        before = model.logits(x)
        optimizer.step(grads)
        assert (model.logits(x) != before).any()
        assert (model.logits(x) == model.copy().logits(x)).all()
