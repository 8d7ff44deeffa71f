"""One sample, as a row, as in `rows.py`: the weights with a vector.

U h_{t-1} is a product per step of the weights as they are, since packing them costs as much as some products, and
W x_t + b of some steps is one product.  Over many steps, or where they can be kept from call to call, few weights are
packed all the same: transposed, which is the faster product then, and with the columns of sigmoids halved; W x_t + b is
part of that product where it is small (figures: docs/cpu-kernel.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import buffers, rows
from lstm_np.kernels.cpu.buffers import Job, New, round_up

INFER_STEPS = 64  # steps of inference whose input products are made together
LONG = 128  # steps over which packing few weights gains more than it costs
FEW_WEIGHTS = 1 << 17
FEW_INPUTS = 1500  # multiply-adds of W x + b, a gate's, that cost less in the product of a step than as a sum beside it


def widest(H: int) -> int:
    """As `lstm_np.kernels.cpu.columns.widest`."""
    return 1


def packs(job: Job) -> bool:
    """Whether the weights of a pass with this many steps are packed at its beginning."""
    few = job.of.gates * job.H * job.K <= FEW_WEIGHTS
    return job.T >= LONG and few and not job.of.inner and not job.ragged


def joins(job: Job) -> bool:
    """Whether packed weights are those of [x; 1; h], not of h alone."""
    return (job.K - job.H) * job.H <= FEW_INPUTS


def pack_transposed(job: Job, params: Params, packed: Array) -> None:
    """[W b U]^T (K, G * H), the columns of sigmoids halved."""
    D, H = job.D, job.H
    packed[:D], packed[-H:] = params["W"].T, params["U"].T
    if "b" in params:
        packed[D] = params["b"]
    sigmoids = packed[:, : job.of.sigmoids * H]
    np.multiply(sigmoids, np.array(0.5, job.dtype), sigmoids)


def packed_input_products(job: Job, packed: Array, x: Array, out: Array) -> None:
    """W x + b of steps (count, D), from packed weights."""
    affine(x, packed[: job.D].T, packed[job.D] if job.ones else None, out)


class Weights(buffers.Weights):
    """The parameters, and U, contiguous, for both passes; packed for forward where this module `packs` them."""

    def __init__(self, job: Job, widest: int, shared: Params | None = None) -> None:
        self._job = job
        self.packed = aligned((job.K if packs(job) else 0, job.of.gates * job.H), job.dtype)

    def pack(self, params: Params) -> None:
        """Before a forward pass."""
        self.params = params
        if len(self.packed):
            pack_transposed(self._job, params, self.packed)
            self.forward = self.packed if joins(self._job) else self.packed[-self._job.H :]
        else:
            self.forward = np.ascontiguousarray(params["U"])

    def pack_backward(self, params: Params) -> None:
        """Before a backward pass."""
        self.backward = np.ascontiguousarray(params["U"])


def input_products(job: Job, params: Params, x: Array, out: Array) -> None:
    """What steps (count, blocks * H) add to their products, from x (count, D): W x + b, and c_n for m."""
    W, b, H = params["W"], params.get("b"), job.H
    if not job.of.inner:
        affine(x, W, b, out)
        return
    joint = job.of.joint * H
    affine(x, W[:joint], None if b is None else b[:joint], out[:, :joint])
    affine(x, W[joint:], None if b is None else b[joint:], out[:, -H:])
    if job.of.inner == "h":
        out[:, joint : joint + H] = params.get("b_n", 0)


def affine(x: Array, W: Array, b: Array | None, out: Array) -> None:
    """W x + b of steps (count, D)."""
    np.matmul(x, W.T, out)
    if b is not None:
        np.add(out, b, out)


class Strip(rows.Strip):
    """`rows.Strip` for one sample: a step reads h_{t-1} (H,), or [x; 1; h] (K,)."""

    def __init__(self, job: Job, b: int, new: New = aligned) -> None:
        super().__init__(job, b, new)
        zs = self.Z[:, 0, : job.K] if packs(job) and joins(job) else self.hs[:, 0]
        self.steps = [(zs[t], self.hs[t], self.hs[t + 1]) for t in range(job.T)]


@dataclass(slots=True)
class StepProduct:
    """Which of the steps that go together it is, and where its product goes: all of it, and what sigmoids read."""

    step: int
    a: Array
    a_sigmoids: Array


class Scratch(buffers.Scratch):
    """For one sample: gates and states are (1, H)."""

    def __init__(self, job: Job, b: int, widest: int, new: New = aligned) -> None:
        of, H = job.of, job.H
        self._half = np.array(0.5, job.dtype)
        self.allocate(job, (1, H), widest, new)
        # what is added to the product of each step, and a_n of a gate with one of its own behind it
        self._added = new((self.tau, of.blocks * H), job.dtype)
        self.a_n = self._added[:, None, -H:]
        self.das = new((self.chunk, of.blocks, 1, H), job.dtype)
        self.operands = [da[: of.reading].reshape(-1) for da in self.das]
        self.inner_operands = [da[-1].reshape(-1) for da in self.das]
        self._s = np.zeros((self.chunk if of.inner == "s" else 0, round_up(job.K) - job.inputs), job.dtype)
        self.s = self._s[:, None, :H]

    def inputs_of_steps(self, weights: buffers.Weights, strip: buffers.Strip, start: int, count: int) -> None:
        """W x_t + b of the steps from start on."""
        assert isinstance(weights, Weights)
        x, out = strip.Z[start : start + count, 0, : self.job.D], self._added[:count]
        if not packs(self.job):
            input_products(self.job, weights.params, x, out)
        elif not joins(self.job):
            packed_input_products(self.job, weights.packed, x, out)

    def input_products(self, weights: buffers.Weights, inputs: Array) -> None:
        """`inputs_of_steps` does it."""

    def place(self, gates: Array, step: int) -> Any:
        """A `StepProduct`."""
        return StepProduct(step, gates.reshape(-1), gates[: self.job.of.sigmoids])

    def forward_product(self, weights: buffers.Weights) -> Callable[[Any, Any], None]:
        """U h + (W x + b), from h (H,) or, where they are one product, [x; 1; h]."""
        dot, add, multiply, half = np.dot, np.add, np.multiply, self._half
        reading = self.job.of.reading * self.job.H
        U, added = weights.forward[:reading], list(self._added[:, :reading])
        sigmoids, packed = self.job.of.sigmoids, weights.forward

        def packed_product(h: Array, place: StepProduct) -> None:
            a = place.a
            dot(h, packed, a)
            add(a, added[place.step], a)

        if packs(self.job):
            return (lambda z, place: dot(z, packed, place.a)) if joins(self.job) else packed_product

        def product(h: Array, place: StepProduct) -> None:
            a = place.a
            dot(U, h, a)
            add(a, added[place.step], a)
            if sigmoids:
                multiply(place.a_sigmoids, half, place.a_sigmoids)

        return product

    def inner_place(self, m: Array) -> Any:
        """As that of `buffers.Products`."""
        return m.reshape(-1)

    def inner_product(self, weights: buffers.Weights) -> Callable[[Array, Any], None]:
        """From s (1, H)."""
        dot, U_n = np.dot, weights.forward[-self.job.H :]
        return lambda s, m: dot(U_n, s[0], m)

    def backward_product(self, weights: buffers.Weights) -> Callable[[Any], None]:
        """From da (G * H,)."""
        dot, U, dh = np.dot, weights.backward[: self.job.of.reading * self.job.H], self.dh.reshape(-1)
        return lambda da: dot(da, U, dh)

    def inner_backward_product(self, weights: buffers.Weights) -> Callable[[Any], None]:
        """From da_n (H,)."""
        dot, U_n, ds = np.dot, weights.backward[-self.job.H :], self.ds.reshape(-1)
        return lambda da: dot(da, U_n, ds)

    def steps_of(self, dy: Array) -> Array:
        """As that of `buffers.Scratch`."""
        return dy.transpose(1, 2, 0)

    def weight_gradient(self, strip: buffers.Strip, start: int, stop: int, which: slice, out: Array) -> None:
        """da^T z, with z (steps, K)."""
        H, steps = self.job.H, stop - start
        for blocks, columns, gates, to, with_s in self.summands(which):
            z = self._s[:steps, columns] if with_s else strip.values(start, stop, columns)
            da = self.das[:steps, blocks].reshape(steps, -1)
            np.matmul(da.T, z, out[gates.start * H : gates.stop * H, to])

    def input_gradient(self, W: Array, dx: Array) -> None:
        """All steps at once."""
        steps, gates = dx.shape[1], self.job.of.gates
        if self.job.of.inner == "h":
            self.das[:steps, gates - 1] = self.das[:steps, -1]
        np.matmul(self.das[:steps, :gates].reshape(steps, -1), W, dx[:, :, 0].T)


LAYOUT = buffers.Layout(widest, rows.features, Weights, Strip, Scratch, None)
