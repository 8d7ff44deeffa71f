"""How samples lie in memory is the kernel's own affair: every layout agrees with the reference, whatever the sizes."""

from functools import cache

import numpy as np
import pytest

from lstm_np.backends import get_backend
from lstm_np.cells import get_cell
from lstm_np.kernels import Cut, LayerSpec
from lstm_np.kernels.cpu import buffers, cut, fused, mail, remote, rows
from lstm_np.kernels.cpu.columns import product_of
from lstm_np.kernels.cpu.fused import NumpyFusedKernel, NumpyLeanKernel
from lstm_np.kernels.cpu.part import Part
from lstm_np.kernels.cpu.rows import block_of_units
from lstm_np.kernels.cpu.workspace import choose_layout
from lstm_np.kernels.reference import ReferenceKernel
from tests.kernels.test_recovery import FOREVER, recovered, wait_until_ready, waiting

CELLS = ("lstm", "gru", "gru_reset_before", "rnn", "rnn_relu")
every_cell = pytest.mark.parametrize("cell", CELLS)

KINKED = "rnn_relu"  # rounding an activation decides about a gradient: compared in float64 alone

# D, H, T, B, bias: blocks of whole tiles, of broken ones, several blocks; longer than one weight gradient's steps
SIZES = [
    (5, 12, 9, 1, True),
    (28, 33, 500, 1, False),
    (100, 20, 130, 1, True),
    (5, 12, 500, 1, True),
    (3, 64, 4, 2, True),
    (28, 64, 70, 7, True),
    (4, 72, 1, 3, False),
    (6, 100, 20, 24, True),
    (2, 192, 5, 16, True),
    (9, 61, 6, 5, True),  # too few units for blocks
    (5, 40, 7, 30, True),
]
LAYOUTS = {1: "sample", 2: "rows", 7: "rows", 3: "rows", 24: "rows", 16: "rows", 5: "columns", 30: "columns"}


def draw(D, H, T, B, bias, cell="lstm", seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape) / 3

    cell = get_cell(cell)
    rows = len(cell.gates) * H
    params = {"W": normal(rows, D), "U": normal(rows, H) / (1 if rows > H else H**0.5)}
    if bias:
        params["b"] = normal(rows)
        params |= {name: normal(H) for name in cell.biases}
    x, dy = normal(D, T, B), normal(H, T, B)
    return params, x, tuple(normal(H, B) for _ in cell.state), dy, tuple(normal(H, B) for _ in cell.state)


def results(kernel_type, sizes, *, cell="lstm", threads=1, dtype="float64", with_dy=True):
    D, H, _, _, bias = sizes
    kernel = kernel_type(LayerSpec(get_cell(cell), D, H, bias, dtype), get_backend("numpy", threads=threads))
    params, x, state, dy, dstate = draw(*sizes, cell)
    params = {name: array.astype(dtype) for name, array in params.items()}
    x, dy = x.astype(dtype), dy.astype(dtype) if with_dy else None
    state, dstate = (tuple(part.astype(dtype) for part in parts) for parts in (state, dstate))
    y, final, saved = kernel.forward(params, x, state)
    dx, dstate_0, grads = kernel.backward(params, saved, dy, dstate)
    alone, final_alone, _ = kernel.forward(params, x, state, save=False)
    found = {"y": y, "y alone": alone, "dx": dx, **{f"d{name}": grads[name] for name in params}}
    for name, parts in (("T", final), ("T alone", final_alone), ("0", dstate_0)):
        found |= {f"{part}_{name}": array for part, array in zip(get_cell(cell).state, parts, strict=True)}
    return found


@cache
def reference(sizes, cell="lstm", dtype="float64", with_dy=True):
    """What the reference kernel gives, computed once for all kernels that are compared with it."""
    return results(ReferenceKernel, sizes, cell=cell, dtype=dtype, with_dy=with_dy)


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert np.linalg.norm(found[name] - value) <= tolerance * np.linalg.norm(value), name


@pytest.fixture
def one_part_a_core(monkeypatch):
    def share_out(gates, D, H, T, B, cores, save):
        return Cut(cut.pieces(B, min(cores, B)), 1)

    monkeypatch.setattr(cut, "share_out", share_out)


@pytest.fixture
def blas_that_packs_large_products(monkeypatch):
    """As on a processor with AVX-512, whichever this is; workers, which must compute a small example as this process
    does, are compared with it before.
    """
    if remote.TEAM._identity is None:
        wait_until_ready(1)
    for module in (buffers, rows):
        monkeypatch.setattr(module, "unpacked_product_limit", lambda: 1_000_000)


@every_cell
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kernel_type", [NumpyFusedKernel, NumpyLeanKernel])
def test_every_layout_agrees_with_the_reference(kernel_type, sizes, cell):
    D, H, _, B, bias = sizes
    assert choose_layout(H, D + bias + H, B, training=True)[0] == LAYOUTS[B]
    assert_close(results(kernel_type, sizes, cell=cell), reference(sizes, cell), 1e-12)
    if cell != KINKED:
        found = results(kernel_type, sizes, cell=cell, dtype="float32")
        assert_close(found, reference(sizes, cell, "float32"), 2e-5)
    alone = results(kernel_type, sizes, cell=cell, with_dy=False)
    assert_close(alone, reference(sizes, cell, with_dy=False), 1e-12)


@every_cell
@pytest.mark.parametrize("sizes", [(28, 64, 70, 7, True), (6, 100, 20, 24, True), (4, 72, 3, 4, False)], ids=str)
@pytest.mark.parametrize("kernel_type", [NumpyFusedKernel, NumpyLeanKernel])
@pytest.mark.parametrize("large", [False, True], ids=["small", "as if large"])
@pytest.mark.parametrize("threads", [2, 3])
def test_rows_in_several_processes_agree_with_the_reference(
    sizes, kernel_type, large, threads, cell, one_part_a_core, monkeypatch
):
    if large:  # the weights are packed together, and gradients summed in place
        monkeypatch.setattr(remote, "WORTH_PACKING_TOGETHER", 0)
        monkeypatch.setattr(fused, "LARGE_GRADIENT", 0)
    found = results(kernel_type, sizes, cell=cell, threads=threads)
    assert_close(found, reference(sizes, cell), 1e-12)


@every_cell
@pytest.mark.parametrize("sizes", [(28, 96, 13, 70, True), (40, 33, 5, 141, False)], ids=str)
@pytest.mark.parametrize("kernel_type", [NumpyFusedKernel, NumpyLeanKernel])
def test_columns_in_several_processes_agree_with_the_reference(sizes, kernel_type, cell, one_part_a_core):
    found = results(kernel_type, sizes, cell=cell, threads=2)
    assert_close(found, reference(sizes, cell), 1e-12)


@every_cell
def test_one_samples_gradients_are_the_same_wherever_they_are_summed(cell, monkeypatch):
    in_place = results(NumpyFusedKernel, SIZES[0], cell=cell)
    monkeypatch.setattr(fused, "sums_in_place", lambda job: False)
    assert_close(in_place, results(NumpyFusedKernel, SIZES[0], cell=cell), 1e-15)


@pytest.mark.parametrize("do", ["pack", "pack_backward"])
def test_a_failure_while_weights_are_packed_together_leaves_no_answer_behind(do, one_part_a_core, monkeypatch):
    monkeypatch.setattr(remote, "WORTH_PACKING_TOGETHER", 0)
    sizes = (28, 64, 7, 16, True)

    def failing(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(rows.Weights, do, failing)
        with pytest.raises(KeyboardInterrupt):
            results(NumpyFusedKernel, sizes, threads=2)
    assert_close(results(NumpyFusedKernel, sizes, threads=2), reference(sizes), 1e-12)


@every_cell
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[4], SIZES[9]], ids=str)
def test_gradients_are_written_where_the_caller_wants_them_if_anywhere(sizes, cell):
    D, H, _, _, bias = sizes
    kernel = NumpyFusedKernel(LayerSpec(get_cell(cell), D, H, bias, "float64"), get_backend("numpy", threads=1))
    params, x, state, dy, dstate = draw(*sizes, cell)
    _, _, saved = kernel.forward(params, x, state)
    expected = kernel.backward(params, saved, dy, dstate)[2]
    into = {name: np.full_like(array, np.nan) for name, array in params.items()}
    found = kernel.backward(params, saved, dy, dstate, into=into)[2]
    some = kernel.backward(params, saved, dy, dstate, into={"W": into["W"]})[2]
    for name, array in expected.items():
        assert found[name] is into[name]
        assert np.array_equal(found[name], array)
        assert np.array_equal(some[name], array)


BLOCKS = [  # H, samples, block
    (64, 4, 64), (128, 4, 64), (96, 4, 96), (192, 4, 96), (160, 4, 32), (100, 4, 100), (80, 4, 80), (67, 4, 0),
    (12, 4, 0), (96, 64, 96), (256, 64, 32), (200, 24, 100), (200, 64, 40), (512, 64, 16),
]  # fmt: skip


@pytest.mark.parametrize(("H", "samples", "block"), BLOCKS)
def test_a_block_divides_the_units_in_whole_registers_if_it_can(H, samples, block, blas_that_packs_large_products):
    assert block_of_units(H, 29 + H, samples) == block


@every_cell
@pytest.mark.parametrize("sizes", [(5, 64, 13, 40, True), (40, 96, 9, 130, True), (3, 64, 4, 66, False)], ids=str)
@pytest.mark.parametrize("kernel_type", [NumpyFusedKernel, NumpyLeanKernel])
@pytest.mark.parametrize("threads", [1, 2])
def test_many_samples_are_rows_in_training(
    sizes, kernel_type, cell, threads, one_part_a_core, blas_that_packs_large_products
):
    D, H, _, B, bias = sizes
    K = D + bias + H
    assert choose_layout(H, K, B, training=True)[0] == "rows"
    assert choose_layout(H, K, B, training=False)[0] == "columns"
    found = results(kernel_type, sizes, cell=cell, threads=threads)
    assert_close(found, reference(sizes, cell), 1e-12)
    without = results(kernel_type, sizes, cell=cell, threads=threads, with_dy=False)
    assert_close(without, reference(sizes, cell, with_dy=False), 1e-12)


@pytest.mark.parametrize("H", [40, 100, 200])
def test_the_input_gradient_of_columns_step_by_step(H, blas_that_packs_large_products):
    """As BLAS multiplies a transposed matrix that it need not pack, for each cell's row blocks of W."""
    for cell in ("lstm", "gru", "gru_reset_before", "rnn"):
        sizes = (32, H, 7, 32, True)
        assert choose_layout(H, 33 + H, 32, training=True)[0] == "columns"
        assert_close(results(NumpyFusedKernel, sizes, cell=cell), reference(sizes, cell), 1e-12)


@pytest.mark.parametrize(
    ("count", "n", "H", "K"), [(4, 384, 128, 160), (3, 96, 200, 272), (1, 24, 64, 48), (2, 30, 50, 33)]
)
def test_products_of_transposed_matrices_in_blocks(count, n, H, K, blas_that_packs_large_products):
    rng = np.random.default_rng(0)
    matrices, z = rng.normal(size=(count, n, H)), rng.normal(size=(n, K + 5))[:, 2 : K + 2]
    around = np.zeros((count, H, K + 7))
    rows.products_transposed(matrices, z, around[:, :, 3 : K + 3])
    np.testing.assert_allclose(around[:, :, 3 : K + 3], matrices.swapaxes(1, 2) @ z, atol=1e-12)
    assert not around[:, :, :3].any()
    assert not around[:, :, K + 3 :].any()


def test_x_may_lie_by_samples_or_by_features(one_part_a_core):
    """In an array (B, T, D) or (D, T, B): to the bit the same, also where another process reads it."""
    params, x, state, *_ = draw(5, 20, 9, 40, True)
    kernel = NumpyFusedKernel(LayerSpec(get_cell("lstm"), 5, 20, True, "float64"), get_backend("numpy", threads=2))
    by_samples = np.ascontiguousarray(x.transpose()).transpose()
    assert mail.lies_by_samples(by_samples)
    assert not mail.lies_by_samples(x)
    recovered(remote.TEAM)
    wait_until_ready(1)
    found = []
    for seconds in (FOREVER, 0):
        for given in (x, by_samples, x):
            with waiting(seconds):
                y, _, saved = kernel.forward(params, given, state)
            (other,) = saved.acquire()._remotes
            assert seconds == 0 or not isinstance(other._kept_by, Part)
            found.append(y)
    assert all(np.array_equal(y, found[0]) for y in found)


def test_one_block_is_multiplied_as_a_matrix_and_many_as_a_stack():
    blocks, z = np.random.default_rng(0).normal(size=(3, 4, 5)), np.ones((5, 2))
    for stack in (blocks, blocks[:1]):
        out = np.empty((len(stack), 4, 2))
        product_of(stack)(z, out)
        np.testing.assert_allclose(out, stack @ z)


@pytest.mark.parametrize("kernel_type", [NumpyFusedKernel, NumpyLeanKernel])
@pytest.mark.parametrize(("limit", "parts"), [(8_000, 2), (4_000, 4), (1_000, 1)])
def test_a_long_product_is_a_sum_of_shorter_ones(kernel_type, limit, parts, monkeypatch):
    """Where BLAS would pack U^T for the whole, as with a thousand units."""
    sizes = (5, 20, 13, 50, True)
    monkeypatch.setattr(buffers, "unpacked_product_limit", lambda: limit)
    assert buffers.inner_parts(20, 80, 50) == parts
    assert_close(results(kernel_type, sizes), reference(sizes), 1e-12)
