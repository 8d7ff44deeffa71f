"""The time loops of the fused CPU kernel over some samples of a batch: what one process computes.

The equations and why it is so: `lstm_np.kernels.cpu.fused`.  How the samples lie in memory, and with it the form of
the products, is that of a `Layout` (`buffers.py`): `columns` for many samples, `rows` for few, `sample` for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import columns, cut, rows, sample
from lstm_np.kernels.cpu.buffers import Derivatives, Job, Layout, Scratch, StepDerivatives, Strip, round_up
from lstm_np.workers import Overtaken

LAYOUTS: dict[str, Layout] = {"columns": columns.LAYOUT, "rows": rows.LAYOUT, "sample": sample.LAYOUT}


class Inputs(NamedTuple):
    """What a forward pass reads: x (D, T, b), and the initial states (H, b)."""

    x: Array
    h: Array
    c: Array


class Outputs(NamedTuple):
    """Where a forward pass writes: y (H, T, b) or None if it is not wanted, and the final states (H, b)."""

    y: Array | None
    h: Array
    c: Array


class OutputGradients(NamedTuple):
    """What a backward pass reads: the gradients of y (H, T, b) or None for zero, and of the final states (H, b)."""

    y: Array | None
    h: Array
    c: Array


class InputGradients(NamedTuple):
    """Where a backward pass writes: the gradients of x (D, T, b) or None if not wanted, of the initial states (H, b)
    unless `state` says that they are not wanted, and of [W b U] (4H, K), some of its columns to each array of `total`.
    """

    x: Array | None
    h: Array
    c: Array
    state: bool
    total: Sequence[tuple[slice, Array]]


def nobody() -> bool:
    """Nobody else does the same work."""
    return False


class Part:
    """Some samples of a batch.  All arrays in the arguments have these only.

    shared     packed weights of all parts, by name
    overtaken  asked between blocks of time steps: whether somebody else has done this pass, which then is `Overtaken`
    """

    def __init__(self, job: Job, shared: Params | None = None) -> None:
        layout = self._layout = LAYOUTS[job.layout]
        self.job = job
        self.overtaken: Callable[[], bool] = nobody
        self._half = np.array(0.5, job.dtype)
        T, dtype = job.T, job.dtype
        self.spans = [slice(*ends) for ends in cut.pieces(job.b, -(-job.b // layout.widest(job.H)))]
        widths = [span.stop - span.start for span in self.spans]
        self.widest = max(widths)
        self.weights = layout.weights(job, self.widest, shared)
        if job.keep == "nothing":
            assert layout.ring is not None
            self._rings = {b: layout.ring(job, b) for b in set(widths)}
            return
        self._scratch = {b: layout.scratch(job, b, self.widest) for b in set(widths)}
        self._strips = [layout.strip(job, b) for b in widths]
        scratch = self._scratch[self.widest]
        shapes = {b: scratch.dh.shape for b, scratch in self._scratch.items()}
        if job.keep == "all":
            self._derivatives = [Derivatives(T, shapes[b], dtype, scratch.tau) for b in widths]
        else:
            self._c_before = [aligned((-(-T // scratch.chunk), job.H, b), dtype) for b in widths]
            self._replayed = {b: Derivatives(scratch.chunk, shapes[b], dtype, scratch.tau) for b in set(widths)}
        self._sum = aligned((4 * job.H, round_up(job.K)), dtype)

    def use_own_weights(self) -> None:
        """Go on with weights of this part alone in the place of shared ones; they must be packed first."""
        self.weights = self._layout.weights(self.job, self.widest)

    @property
    def nbytes(self) -> int:
        """Bytes kept for backward that grow with T."""
        kept = [strip.Z for strip in self._strips]
        kept += [P.array for P in self._derivatives] if self.job.keep == "all" else self._c_before
        return sum(array.nbytes for array in kept)

    # ---- forward

    def forward(self, params: Params, given: Inputs, wanted: Outputs) -> None:
        """All steps; the states that are given may be the arrays that are wanted.  Raises Overtaken."""
        if not self.job.packed:
            self.weights.pack(params)
        for n, span in enumerate(self.spans):
            if self.job.keep == "nothing":
                self._infer(given, wanted, span)
                continue
            strip = self._strips[n]
            strip.x[...] = given.x[:, :, span]
            strip.h[:, 0] = given.h[:, span]
            wanted.c[:, span] = self._forward_strip(n, given.c[:, span])
            wanted.h[:, span] = strip.h[:, -1]
            if wanted.y is not None:
                wanted.y[:, :, span] = strip.h[:, 1:]

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
        self, strip: Strip, start: int, stop: int, derivatives: Derivatives, scratch: Scratch, derive: bool = True
    ) -> None:
        """(1) to (5) from step start to stop; `scratch.c(0)` is c before them, `scratch.c(stop - start)` c after."""
        tanh, multiply, add, subtract, copyto = np.tanh, np.multiply, np.add, np.subtract, np.copyto
        half, tau, product_of = self._half, scratch.tau, scratch.forward_product(self.weights)
        for t in range(start, stop, tau):
            if self.overtaken():
                raise Overtaken
            local, n = t - start, min(tau, stop - t)
            scratch.inputs_of_steps(self.weights, strip, t, n)
            for (z, h_next), gates, s in zip(
                strip.steps[t : t + n], derivatives.steps[local : local + n], scratch.forward, strict=False
            ):
                product_of(z, s.products)  # (1), the rows of i, f and o halved
                tanh(s.a, s.a)  # (3), and tanh(a/2) for (2)
                multiply(s.a_ifo, half, s.a_ifo)
                add(s.a_ifo, half, gates.ifo)  # (2)
                multiply(gates.i_f, s.g_c, s.uv)
                add(s.u, s.v, s.c)  # (4)
                tanh(s.c, s.tanh_c)
                multiply(gates.o, s.tanh_c, s.h)  # (5)
                copyto(h_next, s.h)
            if derive:
                block, (p_ifo, i_o) = scratch.blocks[n], derivatives.block(local // tau, n)
                subtract(half, block.one_minus, block.one_minus)  # 1 - i, 1 - f, 1 - o
                multiply(block.uvh, block.one_minus, p_ifo)
                multiply(block.uh, block.g_tanh_c, block.product)
                subtract(i_o, block.product, i_o)  # p_g, q

    def _infer(self, given: Inputs, wanted: Outputs, span: slice) -> None:
        """(1) to (5), keeping nothing: the gates overwrite a, u and v overwrite i and f."""
        tanh, multiply, add, half = np.tanh, np.multiply, np.add, self._half
        ring, features = self._rings[span.stop - span.start], self._layout.features
        products, a, ifo, i_f, g_c, u, v, o, c, tanh_c = ring.views
        product_of = ring.forward_product(self.weights)
        ring.h[0], features(c)[...] = given.h[:, span], given.c[:, span]
        for start in range(0, self.job.T, ring.length):
            if self.overtaken():
                raise Overtaken
            n = min(ring.length, self.job.T - start)
            ring.x[:n] = given.x[:, start : start + n, span].transpose(1, 0, 2)
            for z, h in ring.steps[:n]:
                product_of(z, products)  # (1), the rows of i, f and o halved
                tanh(a, a)  # (3), and tanh(a/2) for (2)
                multiply(ifo, half, ifo)
                add(ifo, half, ifo)  # (2)
                multiply(i_f, g_c, i_f)
                add(u, v, c)  # (4)
                tanh(c, tanh_c)
                multiply(o, tanh_c, h)  # (5)
            if wanted.y is not None:
                wanted.y[:, start : start + n, span] = ring.h[1 : n + 1].transpose(1, 0, 2)
            ring.h[0] = ring.h[n]
        wanted.h[:, span], wanted.c[:, span] = ring.h[0], features(c)

    # ---- backward

    def backward(self, params: Params, given: OutputGradients, wanted: InputGradients) -> None:
        """All steps in reverse; the gradients that are given of states may be the arrays that are wanted.

        `params` are those of the forward pass.  Raises Overtaken.
        """
        if not self.job.packed:
            self.weights.pack_backward(params)
        features = self._layout.features
        total, dx = wanted.total, wanted.x
        more = [(which, self._sum[:, which]) for which, _ in total]
        sums = total
        for n, span in enumerate(self.spans):
            strip, scratch = self._strips[n], self._scratch_of(n)
            features(scratch.dh)[...], features(scratch.dc)[...] = given.h[:, span], given.c[:, span]
            for start in reversed(range(0, strip.T, scratch.chunk)):
                stop = min(start + scratch.chunk, strip.T)
                if self.overtaken():
                    raise Overtaken
                derivatives = self._derivatives_of(n, start, stop)
                dys = None if given.y is None else given.y[:, start:stop, span]
                self._undo_steps(derivatives, dys, scratch, start > 0 or wanted.state)
                for which, array in sums:
                    scratch.weight_gradient(stop - start, strip.inputs(start, stop, which), array)  # (1')
                if sums is more:
                    for (_, array), (_, summand) in zip(total, more, strict=True):
                        np.add(array, summand, array)
                sums = more
                if dx is not None:
                    scratch.input_gradient(params["W"], dx[:, start:stop, span])  # (1')
            wanted.h[:, span], wanted.c[:, span] = features(scratch.dh), features(scratch.dc)

    def _scratch_of(self, n: int) -> Scratch:
        return self._scratch[self._strips[n].b]

    def _derivatives_of(self, n: int, start: int, stop: int) -> list[StepDerivatives]:
        """The local derivatives of strip n from step start to stop."""
        if self.job.keep == "all":
            return self._derivatives[n].steps[start:stop]
        strip, scratch = self._strips[n], self._scratch_of(n)
        self._layout.features(scratch.c(0))[...] = self._c_before[n][start // scratch.chunk]
        self._steps(strip, start, stop, self._replayed[strip.b], scratch)
        return self._replayed[strip.b].steps[: stop - start]

    def _undo_steps(
        self, derivatives: list[StepDerivatives], dy: Array | None, scratch: Scratch, undo_first: bool
    ) -> None:
        """(5') to (1') over some steps, last step first; `undo_first`: dh before the first of them is wanted."""
        multiply, add = np.multiply, np.add
        dh, dc, product, product_to_dh = scratch.dh, scratch.dc, scratch.product, scratch.backward_product(self.weights)
        dys = None if dy is None else scratch.steps_of(dy)
        for t in reversed(range(len(derivatives))):
            s, to = derivatives[t], scratch.backward[t]
            if dys is not None:
                add(dh, dys[t], dh)
            multiply(dh, s.q, product)
            add(dc, product, dc)  # (5')
            multiply(dc, s.p_if, to.da_if)  # (4'), (2')
            multiply(dh, s.p_o, to.da_o)  # (5'), (2')
            multiply(dc, s.p_g, to.da_g)  # (4'), (3')
            multiply(dc, s.f, dc)  # (4')
            if t or undo_first:
                product_to_dh(to.da)  # (1')
