"""Arrays of more than 2^31 elements: no index of a kernel is too short for them.

The arrays are sparse: they take addresses, and memory only where they are touched.  Of a launch only the last block
runs, which touches their ends.  A 32-bit index overflows there, which the compiler's checks say, or misses its place.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from lstm_np.cells import lstm
from lstm_np.device import inference, step
from lstm_np.device.launches import Launches
from lstm_np.kernels import LayerSpec
from lstm_np.kernels.gpu.launch_plan import product_grid, refuse_oversize
from tests.gpu.host_cupy import FakeDevice, KernelFaultError, make_backend, make_cupy
from tests.gpu.support import KERNELS, needs_compiler
from tests.gpu.test_inserted_faults import changed

pytestmark = needs_compiler

ALL_KERNELS = {
    file: (*names, *inference.INFERENCE_KERNELS.get(file, ())) for file, names in step.TRAINING_KERNELS.items()
}
RNG = np.random.default_rng(0)


class Large:
    """A stand-in whose launches run their last block only, and sparse arrays on it."""

    def __init__(self, mutate=None):
        self.device = FakeDevice()
        self.cupy = make_cupy(self.device, mutate)
        self.launches = Launches(self.cupy, "float32", ALL_KERNELS)

    def sparse(self, *shape, dtype="float32"):
        return self.cupy.stand_in.allocate(shape, dtype, sparse=True)

    def dense(self, *shape):
        values = RNG.standard_normal(shape).astype(np.float32)
        array = self.cupy.asarray(values)
        self.cupy.cuda.get_current_stream().synchronize()
        return array, values

    def fill(self, array, *where):
        """Random values there, which are returned."""
        array.values[where] = RNG.standard_normal(array.values[where].shape)
        return array.values[where].astype(np.float64)

    def run(self, name, grid, block, args, shared=0):
        self.device.only_block = int(np.prod(grid)) - 1
        with self.launches.active():
            self.launches(name, grid, block, args, shared)
        self.launches.stream.synchronize()


def product(mutate):
    """x W^T for so many samples and steps that the grid's second direction could not hold their tiles."""
    large, (M, N, K) = Large(mutate), (2**28 + 3, 8, 9)
    a, c, (b, weights) = large.sparse(M, K), large.sparse(M, N), large.dense(N, K)
    given = large.fill(a, slice(M - 3, M))
    assert product_grid(M, N)[0] * product_grid(M, N)[1] == product_grid(M, N)[0] > 65535
    large.device.only_block = product_grid(M, N)[0] - 1
    with large.launches.active():
        large.launches.product_transposed(None, M, N, K, a, b, c)
    large.launches.stream.synchronize()
    np.testing.assert_allclose(c.values[M - 3 :], given @ weights.T, rtol=1e-5)


def weight_gradient(mutate):
    large, (H, D, parts, each) = Large(mutate), (128, 5, 65535, 65)
    rows, M, N = parts * each - 1, 4 * H, D + H + 1
    da, x, h = large.sparse(rows, M), large.sparse(rows, D), large.sparse(rows, H)
    partial = large.sparse(parts, M * N)
    last = slice(rows - each + 1, rows)
    da_, x_, h_ = (large.fill(array, last) for array in (da, x, h))
    large.run("weight_gradient", (4, -(-N // 64), parts), 256, (rows, each, D, H, da, x, h, partial))
    expected = da_.T @ np.concatenate([x_, h_, np.ones((each - 1, 1))], axis=1)
    # the last block is the tile of the last rows and columns: db and the last units of dU
    np.testing.assert_allclose(partial.values[-1, -128:], expected[-128:, -1], rtol=1e-4)
    dU = partial.values[-1, M * D : M * (D + H)].reshape(M, H)
    np.testing.assert_allclose(dU[-128:, -5:], expected[-128:, -6:-1], rtol=1e-4, atol=1e-4)


def steps(mutate):
    large, (T, B, H) = Large(mutate), (2**27, 1, 8)
    gates, c, h = large.sparse(T, B, 4 * H), large.sparse(T + 1, B, H), large.sparse(T + 1, B, H)
    (bias, b), (a, before) = large.dense(4 * H), (large.fill(gates, -1), large.fill(c, T - 1))
    large.run("lstm_step_forward", (1,), 256, (T - 1, B, H, bias, gates, c, h))
    i, f, o, g = np.split((a + b).ravel(), 4)
    expected = before.ravel() / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
    np.testing.assert_allclose(c.values[T].ravel(), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(h.values[T].ravel(), np.tanh(expected) / (1 + np.exp(-o)), rtol=1e-4, atol=1e-6)
    dy, da, (dh, _), (dc, _) = large.sparse(T, B, H), large.sparse(T, B, 4 * H), large.dense(B, H), large.dense(B, H)
    large.fill(dy, -1)
    large.run("lstm_step_backward", (1,), 256, (T - 1, B, H, True, gates, c, dy, dh, dc, da))
    assert (da.values[-1] != 0).all()


def persistent(mutate):
    """One sample of the last block: what it makes is what the kernel makes of that sample alone."""
    large, (T, B, H) = Large(mutate), (3, 100_000_007, 5)
    kernel = KERNELS["persistent"](LayerSpec(lstm, 2, H, True, "float32"), make_backend(large.cupy))
    (U, _), (bias, _) = large.dense(4 * H, H), large.dense(4 * H)
    gates, c, h = large.sparse(T, B, 4 * H), large.sparse(T + 1, B, H), large.sparse(T + 1, B, H)
    one = SimpleNamespace(**{n: large.dense(*s)[0] for n, s in
                             {"gates": (T, 1, 4 * H), "c": (T + 1, 1, H), "h": (T + 1, 1, H), "dy": (T, 1, H),
                              "dh": (1, H), "dc": (1, H), "da": (T, 1, 4 * H)}.items()})  # fmt: skip
    dy, dh, dc, da = large.sparse(T, B, H), large.sparse(B, H), large.sparse(B, H), large.sparse(T, B, 4 * H)
    for array, values in ((gates, one.gates), (c, one.c), (h, one.h), (dy, one.dy)):
        array.values[:, -1:] = values.values
    dh.values[-1:], dc.values[-1:] = one.dh.values, one.dc.values
    stream = large.cupy.cuda.get_current_stream()
    for arrays in ((gates, c, h), (one.gates, one.c, one.h)):
        plan, _ = kernel._planned(arrays[0].shape[1])
        large.device.only_block = plan.forward.grid(arrays[0].shape[1]) - 1
        kernel._run_forward(U, bias, *arrays, True)
    stream.synchronize()
    np.testing.assert_array_equal(h.values[:, -1], one.h.values[:, 0])
    for g, cell, y, dh_, dc_, out in ((gates, c, dy, dh, dc, da), (one.gates, one.c, one.dy, one.dh, one.dc, one.da)):
        plan, _ = kernel._planned(g.shape[1])
        large.device.only_block = -1
        large.device.only_block = plan.backward.grid(g.shape[1]) - 1
        kernel._run_backward(U, g, cell, y, dh_, dc_, out, True)
    stream.synchronize()
    np.testing.assert_array_equal(da.values[:, -1], one.da.values[:, 0])
    np.testing.assert_array_equal(dh.values[-1], one.dh.values[0])


def gather(mutate):
    large, (N, B, T, D) = Large(mutate), (3_000_000, 3_000_000, 28, 28)
    data, labels, order = (
        large.sparse(*s, dtype=d) for s, d in (((N, T * D), "uint8"), ((N,), "int32"), ((N,), "int32"))
    )
    x, found = large.sparse(T, B, D), large.sparse(B, dtype="int32")
    counters = large.sparse(2, dtype="int64")
    data.values[-1], labels.values[-1], order.values[-1] = np.arange(T * D) % 251, 7, N - 1
    scale = np.float32(0.5)
    large.run("gather_batch", (B,), 256, (B, T, D, scale, data, labels, order, counters, x, found))
    np.testing.assert_array_equal(x.values[:, -1], data.values[-1].reshape(T, D) * scale)
    assert found.values[-1] == 7


def read_out(mutate):
    large, (B, H, K) = Large(mutate), (20_000_000, 128, 120)
    h, dh, dlogits = large.sparse(B, H), large.sparse(B, H), large.sparse(B, K)
    labels, hits = large.sparse(B, dtype="int32"), large.sparse(B, dtype="int32")
    losses, guesses, probabilities = large.sparse(B), large.sparse(B, dtype="int32"), large.sparse(B, K)
    (V, V_), (v, v_), h_ = large.dense(K, H), large.dense(K), large.fill(h, -1)
    labels.values[-1] = 3
    large.run("read_out", (B,), 128, (B, H, K, h, V, v, labels, dlogits, dh, losses, hits), 4 * (H + 2 * K))
    z = h_ @ V_.T + v_
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    np.testing.assert_allclose(dlogits.values[-1] * B, p - (np.arange(K) == 3), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(dh.values[-1] * B, (p - (np.arange(K) == 3)) @ V_, rtol=1e-3, atol=1e-4)
    large.device.only_block = B - 1
    large.run("classify", (B,), 128, (H, K, 0, 1, h, V, v, labels, probabilities, losses, guesses), 4 * (H + K))
    np.testing.assert_allclose(probabilities.values[-1], p, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(losses.values[-1], -np.log(p[3]), rtol=1e-4)
    assert guesses.values[-1] == p.argmax()


def collect(mutate):
    large, (recurrent, parts) = Large(mutate), (17_000_000, 130)
    partial, gradient = large.sparse(parts, recurrent), large.sparse(recurrent + 1)
    read_out, norms = large.sparse(1), large.sparse(-(-(recurrent + 1) // 256))
    filled = large.fill(partial, slice(None), -1)
    grid = (norms.shape[0],)
    large.run("collect_gradient", grid, 256, (recurrent + 1, recurrent, parts, partial, read_out, gradient, norms))
    np.testing.assert_allclose(gradient.values[recurrent - 1], filled.sum(), rtol=1e-4)


SIZES = {f.__name__: f for f in (product, weight_gradient, steps, persistent, gather, read_out, collect)}
FAULTS = {
    "product: row of a": (product, changed("a[(long long)m * K + k]", "a[m * K + k]")),
    "product: row of c": (product, changed("c[(long long)m * N + n]", "c[m * N + n]")),
    "weight gradient: row of da": (weight_gradient, changed("da[(long long)k * M + m]", "da[k * M + m]")),
    "weight gradient: part": (weight_gradient, changed("(long long)blockIdx.z * M * N", "blockIdx.z * M * N")),
    "step: slot": (steps, changed("((long long)t * B + b) * 4 * H + unit", "int((t * B + (int)b) * 4 * H + unit)")),
    "step: row of backward": (
        steps,
        changed("row = ((long long)t * B + b) * 4 * H + unit", "row = int(t * 4 * H + unit)"),
    ),
    "persistent: slots": (persistent, changed("const long long state = (long long)B * H", "const int state = B * H")),
    "gather: image": (gather, changed("(long long)sample * T * D", "sample * T * D")),
    "gather: place in the batch": (gather, changed("((long long)(k / D) * B + b) * D", "((k / D) * B + b) * D")),
    "read-out: h": (read_out, changed("h + (long long)b * H, V, v", "h + b * H, V, v")),
    "read-out: dh": (read_out, changed("dh[(long long)b * H + j]", "dh[b * H + j]")),
    "read-out: dlogits": (read_out, changed("dlogits[(long long)b * K + k] = d", "dlogits[b * K + k] = d")),
    "classify: probabilities": (
        read_out,
        changed("const long long sample = (long long)first", "const int sample = first"),
    ),
    "norm: part": (collect, changed("(long long)part * recurrent", "part * recurrent")),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_ends_of_large_arrays(name):
    SIZES[name](None)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_short_index_is_found(fault):
    run, mutate = FAULTS[fault]
    with pytest.raises((AssertionError, KernelFaultError)):
        run(mutate)
    assert mutate.done


def test_batches_that_the_kernels_cannot_count_are_refused():
    refuse_oversize(28, 4_194_303, 128)
    with pytest.raises(ValueError, match="fewer than 4,194,304 samples with 128 hidden units"):
        refuse_oversize(28, 4_194_304, 128)
    with pytest.raises(ValueError, match="fewer than 2,147,483,648 samples times steps"):
        refuse_oversize(2**30, 2, 1)
    cupy = make_cupy()
    kernel = KERNELS["cuda_fused"](LayerSpec(lstm, 1, 2**20, True, "float32"), make_backend(cupy))
    with pytest.raises(ValueError, match="found 512 samples of 1 steps"):
        kernel.forward({}, SimpleNamespace(shape=(1, 1, 512)), ())
