"""The time loops of the fused CPU kernel over some columns of a batch: what one worker computes.

The equations, the layout and why it is so: `lstm_np.kernels.numpy_fused`.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from lstm_np.kernels import workers
from lstm_np.kernels.blas_threads import blas_threads
from lstm_np.kernels.workspace import (
    CACHE_LINE,
    Derivatives,
    Ring,
    Scratch,
    Strip,
    aligned,
    in_blocks,
    round_up,
    transposed,
)

Array = Any
Params = Mapping[str, Array]
STRIP = 128  # columns at most, so that what one step works on fits the cache
SAMPLE_STEPS = 64  # of a single sample whose input products are made together


class Job(NamedTuple):
    """The shape of a part, and what is to be kept of it."""

    D: int
    ones: int  # 1 if there is a bias, else 0
    H: int
    T: int
    b: int  # columns
    dtype: str
    blocked: bool
    keep: str  # "all", "lean" or "nothing"
    packed: bool  # whether the weights come packed in memory that all parts share

    @property
    def K(self) -> int:
        """Rows of [x; 1; h]."""
        return self.D + self.ones + self.H


class Part:
    """Some columns of a batch.  All arrays in the arguments have these columns only."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._half = np.array(0.5, job.dtype)
        rows, T, dtype = (job.D, job.ones, job.H), job.T, job.dtype
        self.weights = aligned((0 if job.packed else 4 * job.H, job.K), dtype)
        self.columns = [slice(*ends) for ends in workers.cut(job.b, -(-job.b // STRIP))]
        widths = [columns.stop - columns.start for columns in self.columns]
        self.widest = max(widths)
        if job.keep == "nothing":
            self._rings = {b: Ring(*rows, b, job.blocked, dtype) for b in set(widths)}
            return
        self._scratch = {b: Scratch(*rows, b, self.widest, job.blocked, dtype) for b in set(widths)}
        self._strips = [Strip(*rows, T, b, dtype) for b in widths]
        scratch = self._scratch[self.widest]
        if job.keep == "all":
            self._derivatives = [Derivatives(T, job.H, b, dtype, scratch.tau) for b in widths]
        else:
            self._c_before = [aligned((-(-T // scratch.chunk), job.H, b), dtype) for b in widths]
            self._replayed = {b: Derivatives(scratch.chunk, job.H, b, dtype, scratch.tau) for b in set(widths)}
        self._sum, self._U_T = aligned((4 * job.H, round_up(job.K)), dtype), aligned((job.H, 4 * job.H), dtype)

    @property
    def nbytes(self) -> int:
        """Bytes kept for backward that grow with T."""
        kept = [strip.Z for strip in self._strips]
        kept += [P.array for P in self._derivatives] if self.job.keep == "all" else self._c_before
        return sum(array.nbytes for array in kept)

    # ---- forward

    def forward(self, params: Params, x: Array, h: Array, c: Array, y: Array | None) -> None:
        """All steps from x (D, T, b) to y (H, T, b); h and c (H, b) are h_0, c_0 and become h_T, c_T."""
        if not self.job.packed:
            self.pack(params)
        for n, columns in enumerate(self.columns):
            if self.job.keep == "nothing":
                self._infer(x, h, c, y, columns)
                continue
            strip = self._strips[n]
            strip.x[...] = x[:, :, columns]
            strip.h[:, 0] = h[:, columns]
            c[:, columns] = self._forward_strip(n, c[:, columns])
            h[:, columns] = strip.h[:, -1]
            if y is not None:
                y[:, :, columns] = strip.h[:, 1:]

    def pack(self, params: Params) -> None:
        """[W b U] with the rows of i, f and o halved."""
        D, H, packed = self.job.D, self.job.H, self.weights
        parts = [(slice(0, D), params["W"]), (slice(self.job.K - H, None), params["U"])]
        if self.job.ones:
            parts.append((slice(D, D + 1), params["b"][:, None]))
        for columns, part in parts:
            np.multiply(part[: 3 * H], self._half, packed[: 3 * H, columns])
            packed[3 * H :, columns] = part[3 * H :]

    def _forward_strip(self, n: int, c: Array) -> Array:
        """c_T from c_0."""
        strip, scratch = self._strips[n], self._scratch_of(n)
        if self.job.keep == "all":
            scratch.c(0)[...] = c
            self._steps(strip, 0, strip.T, self._derivatives[n], scratch)
            return scratch.c(strip.T)
        for start in range(0, strip.T, scratch.chunk):
            stop = min(start + scratch.chunk, strip.T)
            self._c_before[n][start // scratch.chunk] = c
            scratch.c(0)[...] = self._c_before[n][start // scratch.chunk]
            self._steps(strip, start, stop, self._replayed[strip.b], scratch, derive=False)
            c = scratch.c(stop - start)
        return c

    def _steps(
        self, strip: Strip, start: int, stop: int, derivatives: Derivatives, scratch: Scratch, derive: bool = True
    ) -> None:
        """(1) to (5) from step start to stop; `scratch.c(0)` is c before them, `scratch.c(stop - start)` c after."""
        matmul, tanh, multiply, add, subtract, copyto = np.matmul, np.tanh, np.multiply, np.add, np.subtract, np.copyto
        half, tau = self._half, scratch.tau
        weights = in_blocks(self.weights, scratch.weight_block)
        for t in range(start, stop, tau):
            local, n = t - start, min(tau, stop - t)
            for (z, h_next), (ifo, i_f, o), (products, a, a_ifo, g_c, uv, u, v, c, tanh_c, h) in zip(
                strip.steps[t : t + n], derivatives.gates[local : local + n], scratch.forward, strict=False
            ):
                matmul(weights, z, products)  # (1), the rows of i, f and o halved
                tanh(a, a)  # (3), and tanh(a/2) for (2)
                multiply(a_ifo, half, a_ifo)
                add(a_ifo, half, ifo)  # (2)
                multiply(i_f, g_c, uv)
                add(u, v, c)  # (4)
                tanh(c, tanh_c)
                multiply(o, tanh_c, h)  # (5)
                copyto(h_next, h)
            if derive:
                one_minus, uvh, uh, g_tanh_c, product = scratch.derive[n]
                p_ifo, i_o = (block[:n] for block in derivatives.blocks[local // tau])
                subtract(half, one_minus, one_minus)  # 1 - i, 1 - f, 1 - o
                multiply(uvh, one_minus, p_ifo)
                multiply(uh, g_tanh_c, product)
                subtract(i_o, product, i_o)  # p_g, q

    def _infer(self, x: Array, h_in: Array, c_in: Array, y: Array | None, columns: slice) -> None:
        """(1) to (5), keeping nothing: the gates overwrite a, u and v overwrite i and f."""
        matmul, tanh, multiply, add, half = np.matmul, np.tanh, np.multiply, np.add, self._half
        ring = self._rings[columns.stop - columns.start]
        products, a, ifo, i_f, g_c, u, v, o, c, tanh_c = ring.views
        weights = in_blocks(self.weights, ring.weight_block)
        ring.h[0], c[...] = h_in[:, columns], c_in[:, columns]
        for start in range(0, self.job.T, ring.length):
            n = min(ring.length, self.job.T - start)
            ring.x[:n] = x[:, start : start + n, columns].transpose(1, 0, 2)
            for z, h in ring.steps[:n]:
                matmul(weights, z, products)  # (1), the rows of i, f and o halved
                tanh(a, a)  # (3), and tanh(a/2) for (2)
                multiply(ifo, half, ifo)
                add(ifo, half, ifo)  # (2)
                multiply(i_f, g_c, i_f)
                add(u, v, c)  # (4)
                tanh(c, tanh_c)
                multiply(o, tanh_c, h)  # (5)
            if y is not None:
                y[:, start : start + n, columns] = ring.h[1 : n + 1].transpose(1, 0, 2)
            ring.h[0] = ring.h[n]
        h_in[:, columns], c_in[:, columns] = ring.h[0], c

    # ---- backward

    def backward(
        self,
        params: Params,
        dy: Array | None,
        dh: Array,
        dc: Array,
        dx: Array | None,
        state_gradient: bool,
        total: Array,
    ) -> None:
        """All steps in reverse from dy (H, T, b); dh and dc (H, b) are of h_T and c_T and become those of h_0 and c_0.

        The gradient of [W b U] (4H, K) goes to `total`, that of x to dx (D, T, b).
        """
        W_T, U_T = params["W"].T, transposed(params["U"], self.widest, self._U_T)
        sums = total, self._sum
        fresh = 0
        for n, columns in enumerate(self.columns):
            strip, scratch = self._strips[n], self._scratch_of(n)
            scratch.dh[...], scratch.dc[...] = dh[:, columns], dc[:, columns]
            for start in reversed(range(0, strip.T, scratch.chunk)):
                stop = min(start + scratch.chunk, strip.T)
                derivatives = self._derivatives_of(n, start, stop)
                dys = None if dy is None else dy[:, start:stop, columns]
                self._undo_steps(U_T, derivatives, dys, scratch, start > 0 or state_gradient)
                da = scratch.da[:, : stop - start]
                scratch.weight_gradient(da, strip.columns_of(start, stop), sums[fresh])  # (1')
                if fresh:
                    np.add(*sums, sums[0])
                fresh = 1
                if dx is not None:  # (1'), step by step: (steps, D, b)
                    np.matmul(W_T, da.transpose(1, 0, 2), dx[:, start:stop, columns].transpose(1, 0, 2))
            dh[:, columns], dc[:, columns] = scratch.dh, scratch.dc

    def _scratch_of(self, n: int) -> Scratch:
        return self._scratch[self._strips[n].b]

    def _derivatives_of(self, n: int, start: int, stop: int) -> list:
        """The local derivatives of strip n from step start to stop."""
        if self.job.keep == "all":
            return self._derivatives[n].backward[start:stop]
        strip, scratch = self._strips[n], self._scratch_of(n)
        scratch.c(0)[...] = self._c_before[n][start // scratch.chunk]
        self._steps(strip, start, stop, self._replayed[strip.b], scratch)
        return self._replayed[strip.b].backward[: stop - start]

    def _undo_steps(self, U_T: Array, derivatives: list, dy: Array | None, scratch: Scratch, undo_first: bool) -> None:
        """(5') to (1') over some steps, last step first; `undo_first`: dh before the first of them is wanted."""
        matmul, multiply, add = np.matmul, np.multiply, np.add
        dh, dc, product, dh_blocks = scratch.dh, scratch.dc, scratch.product, scratch.dh_blocks
        U_T = in_blocks(U_T, scratch.recurrent_block)
        for t in reversed(range(len(derivatives))):
            (p_if, p_o, p_g, f, q), (da_if, da_o, da_g, da) = derivatives[t], scratch.backward[t]
            if dy is not None:
                add(dh, dy[:, t], dh)
            multiply(dh, q, product)
            add(dc, product, dc)  # (5')
            multiply(dc, p_if, da_if)  # (4'), (2')
            multiply(dh, p_o, da_o)  # (5'), (2')
            multiply(dc, p_g, da_g)  # (4'), (3')
            multiply(dc, f, dc)  # (4')
            if t or undo_first:
                matmul(U_T, da, dh_blocks)  # (1')


# ---- a part in a worker process


def mailbox_shapes(job: Job) -> dict[str, tuple[int, ...]]:
    """The arrays through which a part in a worker process gets its arguments and gives its results.

    Memory costs nothing until it is written, so there is room for what not every call sends.
    """
    D, H, T, b = job.D, job.H, job.T, job.b
    shapes: dict[str, tuple[int, ...]] = {"W": (4 * H, D), "U": (4 * H, H), "b": (4 * H,)}
    shapes |= {"packed": (4 * H, job.K), "x": (D, T, b), "y": (H, T, b), "h": (H, b), "c": (H, b)}
    if job.keep != "nothing":
        shapes |= {"dy": (H, T, b), "dx": (D, T, b)}
        shapes |= {"dh": (H, b), "dc": (H, b), "total": (4 * H, round_up(job.K))}
    return shapes


def mailbox_size(job: Job) -> int:
    """Bytes, each array from a cache line on."""
    itemsize = np.dtype(job.dtype).itemsize
    return sum(-(-math.prod(shape) * itemsize // CACHE_LINE) * CACHE_LINE for shape in mailbox_shapes(job).values())


def mailbox(job: Job, memory: mmap.mmap) -> dict[str, Array]:
    """The arrays in a shared memory of that size."""
    arrays, start, dtype = {}, 0, np.dtype(job.dtype)
    for name, shape in mailbox_shapes(job).items():
        count = math.prod(shape)
        arrays[name] = np.frombuffer(memory, dtype, count, start).reshape(shape)
        start += -(-count * dtype.itemsize // CACHE_LINE) * CACHE_LINE
    return arrays


def serve(descriptor: int) -> None:
    """The life of a worker process: requests come over the socket `descriptor` until its other end is closed."""
    np.seterr(all="ignore")  # what overflows does so in the parent's part as well, and is reported there
    parts: dict[int, tuple[Part, dict[str, Array]]] = {}
    with blas_threads(1), suppress(ConnectionError):
        for request, memories, answer in workers.requests(descriptor):
            try:
                _do(request, memories, parts)
            except Exception as error:
                answer({"error": f"{type(error).__name__}: {error}"})
            else:
                if request["do"] != "close":
                    answer({})


def _do(request: dict[str, Any], memories: deque[int], parts: dict[int, tuple[Part, dict[str, Array]]]) -> None:
    number = request["part"]
    if request["do"] == "close":
        parts.pop(number, None)
    elif request["do"] == "open":
        job, memory = Job(*request["job"]), memories.popleft()
        try:
            part, mail = parts[number] = Part(job), mailbox(job, mmap.mmap(memory, 0))
        finally:
            os.close(memory)
        if job.packed:
            part.weights = mail["packed"]
    else:
        part, mail = parts[number]
        y, dy, dx = (mail[name] if name in request["with"] else None for name in ("y", "dy", "dx"))
        if request["do"] == "forward":
            part.forward(mail, mail["x"], mail["h"], mail["c"], y)
        else:
            part.backward(mail, dy, mail["dh"], mail["dc"], dx, "state" in request["with"], mail["total"])


class RemotePart:
    """A part in a worker process: `start` a pass, and `finish` it later.  Hold `workers.lock`."""

    _numbers = itertools.count()

    def __init__(self, job: Job, worker: workers.Worker) -> None:
        self.worker, self._number = worker, next(self._numbers)
        descriptor, memory = workers.shared_memory(mailbox_size(job))
        try:
            self.mail = mailbox(job, memory)
            worker.start({"do": "open", "part": self._number, "job": job}, descriptor)
        finally:
            os.close(descriptor)
        worker.finish()

    def start(self, do: str, sent: dict[str, Array], wanted: set[str]) -> None:
        """Send arrays by their names in the mailbox; `wanted`: the results that not every call wants."""
        for name, array in sent.items():
            if array is not self.mail[name]:
                self.mail[name][...] = array
        self.worker.start({"do": do, "part": self._number, "with": [*sent, *wanted]})

    def finish(self, **results: Array | None) -> None:
        """Wait, and fetch arrays by their names in the mailbox; None is not wanted."""
        self.worker.finish()
        for name, array in results.items():
            if array is not None:
                array[...] = self.mail[name]

    def __del__(self) -> None:
        self.worker.forget(self._number)


# ---- one sample


def infer_one(params: Params, half: Array, x: Array, h_in: Array, c_in: Array, y: Array | None) -> None:
    """`Part.forward` for one sample, x (D, T), h and c (H,), y (H, T), keeping nothing.

    The products of one sample cost less than packing the weights would, so U is used as it is.
    """
    dot, tanh, multiply, add = np.dot, np.tanh, np.multiply, np.add
    H, T, U, dtype = len(h_in), x.shape[1], np.ascontiguousarray(params["U"]), str(x.dtype)
    gates = aligned((6, H), dtype)  # a_i a_f a_o a_g c tanh(c); then u v in place of i f
    a, ifo, i_f, g_c = gates[:4].reshape(4 * H), gates[:3], gates[:2], gates[3:5]
    u, v, o, _, c, tanh_c = gates
    hs = aligned((min(T, SAMPLE_STEPS) + 1, H), dtype)
    hs[0], c[...] = h_in, c_in
    for start in range(0, T, SAMPLE_STEPS):
        n = min(SAMPLE_STEPS, T - start)
        a_x = x[:, start : start + n].T @ params["W"].T  # W x_t + b of some steps: (n, 4H)
        if "b" in params:
            a_x += params["b"]
        for a_x_t, h_before, h in zip(a_x, hs, hs[1:], strict=False):
            dot(U, h_before, a)
            add(a, a_x_t, a)  # (1)
            multiply(ifo, half, ifo)
            tanh(a, a)  # (3), and tanh(a/2) for (2)
            multiply(ifo, half, ifo)
            add(ifo, half, ifo)  # (2)
            multiply(i_f, g_c, i_f)
            add(u, v, c)  # (4)
            tanh(c, tanh_c)
            multiply(o, tanh_c, h)  # (5)
        if y is not None:
            y[:, start : start + n] = hs[1 : n + 1].T
        hs[0] = hs[n]
    h_in[:], c_in[:] = hs[0], c
