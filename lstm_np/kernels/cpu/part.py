"""The time loops of the fused CPU kernel over some samples of a batch: what one worker computes.

The equations and why it is so: `lstm_np.kernels.cpu.fused`.  How the samples lie in memory, and with it the form of
the products, is that of a layout in `lstm_np.kernels`: `columns` for many samples, `rows` for few, `sample` for one.
Each has

    Weights   what the products read; `pack(params)` before a forward and `pack_backward(params)` before a backward pass
    Strip     what the steps of some samples read and write; `x` (D, T, b) and `h` (H, T + 1, b) are views
    Scratch   buffers, and the products themselves
    Ring      the two for inference, which keeps nothing
    features  the view (H, b) of a gate or a state
    strip     how many samples a strip has at most
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

import numpy as np

from lstm_np.backends.blas_threads import blas_threads
from lstm_np.backends.numpy_backend import CACHE_LINE, aligned
from lstm_np.kernels.cpu import columns, cut, rows, sample
from lstm_np.kernels.cpu.buffers import Derivatives, Job, round_up
from lstm_np.workers import process
from lstm_np.workers.channel import WORKER, Channel

Array = Any
Params = Mapping[str, Array]
OWN_GATES, THEIR_GATES = slice(0, 2), slice(2, 4)  # whose weights are packed here, and by a worker
LAYOUTS: dict[str, ModuleType] = {"columns": columns, "rows": rows, "sample": sample}


class Part:
    """Some samples of a batch.  All arrays in the arguments have these only.  `shared`: packed weights of all parts."""

    def __init__(self, job: Job, shared: Mapping[str, Array] | None = None) -> None:
        layout = self._layout = LAYOUTS[job.layout]
        self.job = job
        self._half = np.array(0.5, job.dtype)
        T, dtype = job.T, job.dtype
        self.spans = [slice(*ends) for ends in cut.pieces(job.b, -(-job.b // layout.strip(job.H)))]
        widths = [span.stop - span.start for span in self.spans]
        self.widest = max(widths)
        self.weights = layout.Weights(job, self.widest, shared)
        if job.keep == "nothing":
            self._rings = {b: layout.Ring(job, b) for b in set(widths)}
            return
        self._scratch = {b: layout.Scratch(job, b, self.widest) for b in set(widths)}
        self._strips = [layout.Strip(job, b) for b in widths]
        scratch = self._scratch[self.widest]
        shapes = {b: scratch.dh.shape for b, scratch in self._scratch.items()}
        if job.keep == "all":
            self._derivatives = [Derivatives(T, shapes[b], dtype, scratch.tau) for b in widths]
        else:
            self._c_before = [aligned((-(-T // scratch.chunk), job.H, b), dtype) for b in widths]
            self._replayed = {b: Derivatives(scratch.chunk, shapes[b], dtype, scratch.tau) for b in set(widths)}
        self._sum = aligned((4 * job.H, round_up(job.K)), dtype)

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
            self.weights.pack(params)
        for n, span in enumerate(self.spans):
            if self.job.keep == "nothing":
                self._infer(x, h, c, y, span)
                continue
            strip = self._strips[n]
            strip.x[...] = x[:, :, span]
            strip.h[:, 0] = h[:, span]
            c[:, span] = self._forward_strip(n, c[:, span])
            h[:, span] = strip.h[:, -1]
            if y is not None:
                y[:, :, span] = strip.h[:, 1:]

    def _forward_strip(self, n: int, c: Array) -> Array:
        """c_T from c_0."""
        strip, scratch, features = self._strips[n], self._scratch_of(n), self._layout.features
        if self.job.keep == "all":
            features(scratch.c(0))[...] = c
            self._steps(strip, 0, strip.T, self._derivatives[n], scratch)
            return features(scratch.c(strip.T))
        for start in range(0, strip.T, scratch.chunk):
            stop = min(start + scratch.chunk, strip.T)
            self._c_before[n][start // scratch.chunk] = c
            features(scratch.c(0))[...] = self._c_before[n][start // scratch.chunk]
            self._steps(strip, start, stop, self._replayed[strip.b], scratch, derive=False)
            c = features(scratch.c(stop - start))
        return c

    def _steps(
        self, strip: Any, start: int, stop: int, derivatives: Derivatives, scratch: Any, derive: bool = True
    ) -> None:
        """(1) to (5) from step start to stop; `scratch.c(0)` is c before them, `scratch.c(stop - start)` c after."""
        tanh, multiply, add, subtract, copyto = np.tanh, np.multiply, np.add, np.subtract, np.copyto
        half, tau, product_of = self._half, scratch.tau, scratch.forward_product(self.weights)
        for t in range(start, stop, tau):
            local, n = t - start, min(tau, stop - t)
            scratch.inputs_of_steps(self.weights, strip, t, n)
            for (z, h_next), (ifo, i_f, o), (products, a, a_ifo, g_c, uv, u, v, c, tanh_c, h) in zip(
                strip.steps[t : t + n], derivatives.gates[local : local + n], scratch.forward, strict=False
            ):
                product_of(z, products)  # (1), the rows of i, f and o halved
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

    def _infer(self, x: Array, h_in: Array, c_in: Array, y: Array | None, span: slice) -> None:
        """(1) to (5), keeping nothing: the gates overwrite a, u and v overwrite i and f."""
        tanh, multiply, add, half = np.tanh, np.multiply, np.add, self._half
        ring, features = self._rings[span.stop - span.start], self._layout.features
        products, a, ifo, i_f, g_c, u, v, o, c, tanh_c = ring.views
        product_of = ring.forward_product(self.weights)
        ring.h[0], features(c)[...] = h_in[:, span], c_in[:, span]
        for start in range(0, self.job.T, ring.length):
            n = min(ring.length, self.job.T - start)
            ring.x[:n] = x[:, start : start + n, span].transpose(1, 0, 2)
            for z, h in ring.steps[:n]:
                product_of(z, products)  # (1), the rows of i, f and o halved
                tanh(a, a)  # (3), and tanh(a/2) for (2)
                multiply(ifo, half, ifo)
                add(ifo, half, ifo)  # (2)
                multiply(i_f, g_c, i_f)
                add(u, v, c)  # (4)
                tanh(c, tanh_c)
                multiply(o, tanh_c, h)  # (5)
            if y is not None:
                y[:, start : start + n, span] = ring.h[1 : n + 1].transpose(1, 0, 2)
            ring.h[0] = ring.h[n]
        h_in[:, span], c_in[:, span] = ring.h[0], features(c)

    # ---- backward

    def backward(
        self,
        params: Params,
        dy: Array | None,
        dh: Array,
        dc: Array,
        dx: Array | None,
        state_gradient: bool,
        total: Sequence[tuple[slice, Array]],
    ) -> None:
        """All steps in reverse from dy (H, T, b); dh and dc (H, b) are of h_T and c_T and become those of h_0 and c_0.

        The gradient of x goes to dx (D, T, b), that of [W b U] (4H, K) to `total`: some of its columns to each array.
        """
        if not self.job.packed:
            self.weights.pack_backward(params)
        features = self._layout.features
        more = [(which, self._sum[:, which]) for which, _ in total]
        sums = total
        for n, span in enumerate(self.spans):
            strip, scratch = self._strips[n], self._scratch_of(n)
            features(scratch.dh)[...], features(scratch.dc)[...] = dh[:, span], dc[:, span]
            for start in reversed(range(0, strip.T, scratch.chunk)):
                stop = min(start + scratch.chunk, strip.T)
                derivatives = self._derivatives_of(n, start, stop)
                dys = None if dy is None else dy[:, start:stop, span]
                self._undo_steps(derivatives, dys, scratch, start > 0 or state_gradient)
                for which, array in sums:
                    scratch.weight_gradient(stop - start, strip.inputs(start, stop, which), array)  # (1')
                if sums is more:
                    for (_, array), (_, summand) in zip(total, more, strict=True):
                        np.add(array, summand, array)
                sums = more
                if dx is not None:
                    scratch.input_gradient(params["W"], dx[:, start:stop, span])  # (1')
            dh[:, span], dc[:, span] = features(scratch.dh), features(scratch.dc)

    def _scratch_of(self, n: int) -> Any:
        return self._scratch[self._strips[n].b]

    def _derivatives_of(self, n: int, start: int, stop: int) -> list:
        """The local derivatives of strip n from step start to stop."""
        if self.job.keep == "all":
            return self._derivatives[n].backward[start:stop]
        strip, scratch = self._strips[n], self._scratch_of(n)
        self._layout.features(scratch.c(0))[...] = self._c_before[n][start // scratch.chunk]
        self._steps(strip, start, stop, self._replayed[strip.b], scratch)
        return self._replayed[strip.b].backward[: stop - start]

    def _undo_steps(self, derivatives: list, dy: Array | None, scratch: Any, undo_first: bool) -> None:
        """(5') to (1') over some steps, last step first; `undo_first`: dh before the first of them is wanted."""
        multiply, add = np.multiply, np.add
        dh, dc, product, product_to_dh = scratch.dh, scratch.dc, scratch.product, scratch.backward_product(self.weights)
        dys = None if dy is None else scratch.steps_of(dy)
        for t in reversed(range(len(derivatives))):
            (p_if, p_o, p_g, f, q), (da_if, da_o, da_g, da) = derivatives[t], scratch.backward[t]
            if dys is not None:
                add(dh, dys[t], dh)
            multiply(dh, q, product)
            add(dc, product, dc)  # (5')
            multiply(dc, p_if, da_if)  # (4'), (2')
            multiply(dh, p_o, da_o)  # (5'), (2')
            multiply(dc, p_g, da_g)  # (4'), (3')
            multiply(dc, f, dc)  # (4')
            if t or undo_first:
                product_to_dh(da)  # (1')


# ---- a part in a worker process


def mailbox_shapes(job: Job) -> dict[str, tuple[int, ...]]:
    """The arrays through which a part in a worker process gets its arguments and gives its results.

    Memory costs nothing until it is written, so there is room for what not every call sends.
    """
    D, H, T, b = job.D, job.H, job.T, job.b
    shapes: dict[str, tuple[int, ...]] = {"W": (4 * H, D), "U": (4 * H, H), "b": (4 * H,)}
    shapes |= {"x": (D, T, b), "y": (H, T, b), "h": (H, b), "c": (H, b)}
    if job.packed:
        shapes |= rows.room_for_weights(job)
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
    return rows.weights_in(job, arrays) if job.packed else arrays


def serve(descriptor: int, memory: int) -> None:
    """The life of a worker process, until the other end of the line over these file descriptors is gone."""
    np.seterr(all="ignore")  # what overflows does so in the parent's part as well, and is reported there
    parts: dict[int, tuple[Part, dict[str, Array]]] = {}
    with socket.socket(fileno=descriptor) as connection, blas_threads(1), suppress(ConnectionError):
        line = Channel(connection, _mapped(memory), WORKER)
        line.send({"number": 0})
        while True:
            request = line.receive()
            answer = {"number": request["number"]}
            try:
                for number in request["close"]:
                    parts.pop(number, None)
                _do(request, line, parts)
            except Exception as error:
                answer["error"] = f"{type(error).__name__}: {error}"[:1000]
            line.send(answer)


def _mapped(descriptor: int) -> mmap.mmap:
    """A shared memory from its file descriptor, which is closed."""
    try:
        return mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)


def _do(request: dict[str, Any], line: Channel, parts: dict[int, tuple[Part, dict[str, Array]]]) -> None:
    if request["do"] == "nothing":
        return
    number = request["part"]
    if request["do"] == "open":
        job = Job(*request["job"])
        mail = mailbox(job, _mapped(line.take_descriptor()))
        parts[number] = Part(job, mail if job.packed else None), mail
        return
    part, mail = parts[number]
    if request["do"] in ("pack", "pack_backward"):
        getattr(part.weights, request["do"])(mail, THEIR_GATES)
        return
    y, dy, dx = (mail[name] if name in request["with"] else None for name in ("y", "dy", "dx"))
    if request["do"] == "forward":
        part.forward(mail, mail["x"], mail["h"], mail["c"], y)
    else:
        part.backward(mail, dy, mail["dh"], mail["dc"], dx, "state" in request["with"], [(slice(None), mail["total"])])


class RemotePart:
    """A part in a worker process: `start` a pass, and `finish` it later.  Hold `process.lock`."""

    _numbers = itertools.count()

    def __init__(self, job: Job, worker: process.Worker) -> None:
        self.worker, self._number = worker, next(self._numbers)
        descriptor, memory = process.shared_memory(mailbox_size(job))
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

    def start_packing(self, do: str, params: Params) -> None:
        """`do`: "pack" or "pack_backward", the last two gates' weights; params are what it has not had of them."""
        for name, array in params.items():
            theirs = slice(len(array) // 2, None)
            self.mail[name][theirs] = array[theirs]
        self.worker.start({"do": do, "part": self._number})

    def finish(self, **results: Array | None) -> None:
        """Wait, and fetch arrays by their names in the mailbox; None is not wanted."""
        self.worker.finish()
        for name, array in results.items():
            if array is not None:
                array[...] = self.mail[name]

    def __del__(self) -> None:
        self.worker.forget(self._number)
