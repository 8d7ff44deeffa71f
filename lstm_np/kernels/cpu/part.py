"""A part of a batch in the fused CPU kernel: the loops over strips, chunks and blocks of steps that one process runs.

What is computed in a step is the cell's own (`passes.py`); how the samples lie in memory, and with it the form of the
products, is that of a `Layout` (`buffers.py`): `columns` for many samples, `rows` for few, `sample` for one.  Why it is
so: `lstm_np.kernels.cpu.fused`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from lstm_np.arrays import Array, Params, State
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import columns, cut, gru, gru_reset_before, lstm, rnn, rnn_relu, rows, sample
from lstm_np.kernels.cpu.buffers import Job, Layout, Strip, round_up
from lstm_np.kernels.cpu.passes import Inference, Passes
from lstm_np.workers import Overtaken

LAYOUTS: dict[str, Layout] = {"columns": columns.LAYOUT, "rows": rows.LAYOUT, "sample": sample.LAYOUT}
PASSES: dict[str, ModuleType] = {  # by cell, with Passes, Inference and OneSample
    "lstm": lstm,
    "gru": gru,
    "gru_reset_before": gru_reset_before,
    "rnn": rnn,
    "rnn_relu": rnn_relu,
}


class Inputs(NamedTuple):
    """What a forward pass reads: x (D, T, b), and the initial state, parts (H, b).

    lengths  (b,) of samples of unequal lengths, the longest first, in the dtype of x; None: all have T steps
    """

    x: Array
    state: State
    lengths: Array | None = None


class Outputs(NamedTuple):
    """Where a forward pass writes: y (H, T, b) or None if it is not wanted, and the final state, parts (H, b)."""

    y: Array | None
    state: State


class OutputGradients(NamedTuple):
    """What a backward pass reads: the gradients of y (H, T, b) or None for zero, and of the final state (H, b)."""

    y: Array | None
    state: State


class InputGradients(NamedTuple):
    """Where a backward pass writes: the gradients of x (D, T, b) or None if not wanted, of the initial state (H, b)
    unless it is not `state_wanted`, and of [W b U] (G * H, K), some of its columns to each array of `total`.  In a
    stack `total` has such a sequence for each layer and direction.
    """

    x: Array | None
    state: State
    state_wanted: bool
    total: Sequence[Any]


def nobody() -> bool:
    """Nobody else does the same work."""
    return False


class Part:
    """Some samples of a batch.  All arrays in the arguments have these only.

    y may be written where x is, and dx where dy is: what is read of some steps is read before it is overwritten.

    shared     packed weights of all parts, by name
    overtaken  asked between blocks of time steps: whether somebody else has done this pass, which then is `Overtaken`
    """

    def __init__(self, job: Job, shared: Params | None = None) -> None:
        layout, cell = LAYOUTS[job.layout], PASSES[job.cell]
        self.job, self._layout = job, layout
        self.overtaken: Callable[[], bool] = nobody
        T, dtype = job.T, job.dtype
        self.spans = [slice(*ends) for ends in cut.pieces(job.b, -(-job.b // layout.widest(job.H)))]
        widths = [span.stop - span.start for span in self.spans]
        self.widest = max(widths)
        self.weights = layout.weights(job, self.widest, shared)
        if job.keep == "nothing":
            assert layout.ring is not None
            self._inference: dict[int, Inference] = {b: cell.Inference(job, layout.ring(job, b)) for b in set(widths)}
            return
        self._passes: dict[int, Passes] = {
            b: cell.Passes(job, layout.scratch(job, b, self.widest)) for b in set(widths)
        }
        self._strips = [layout.strip(job, b) for b in widths]
        chunk = self._passes[self.widest].scratch.chunk
        if job.keep == "all":
            self._kept = [self._passes[b].keep(T) for b in widths]
        else:
            others = len(job.of.state) - 1
            self._before = [aligned((-(-T // chunk), others, job.H, b), dtype) for b in widths]
            self._replayed = {b: self._passes[b].keep(chunk) for b in set(widths)}
        self._sum = aligned((job.of.gates * job.H, round_up(job.K)), dtype)

    def use_own_weights(self) -> None:
        """Go on with weights of this part alone in the place of shared ones; they must be packed first."""
        self.weights = self._layout.weights(self.job, self.widest)

    @property
    def nbytes(self) -> int:
        """Bytes kept for backward that grow with T."""
        kept = [strip.Z for strip in self._strips]
        kept += [kept.array for kept in self._kept if kept is not None] if self.job.keep == "all" else self._before
        return sum(array.nbytes for array in kept)

    # ---- forward

    def forward(self, params: Params, given: Inputs, wanted: Outputs, *, packed: bool = False) -> None:
        """All steps; the state that is given may be the arrays that are wanted.  Raises Overtaken.

        `packed`: the weights are those of these parameters already.
        """
        if not self.job.packed and not packed:
            self.weights.pack(params)
        for n, span in enumerate(self.spans):
            if self.job.keep == "nothing":
                self._infer(given, wanted, span)
                continue
            strip = self._strips[n]
            strip.x[...] = given.x[:, :, span]
            strip.h[:, 0] = given.state[0][:, span]
            others = self._forward_strip(n, [part[:, span] for part in given.state[1:]])
            for part, found in zip(wanted.state, (strip.h[:, -1], *others), strict=True):
                part[:, span] = found
            if wanted.y is not None:
                wanted.y[:, :, span] = strip.h[:, 1:]

    def _forward_strip(self, n: int, others: Sequence[Array]) -> Sequence[Array]:
        """The state's parts beside h after the last step, from those before the first, (H, b)."""
        strip, passes = self._strips[n], self._passes_of(n)
        if self.job.keep == "all":
            self._begin(passes, others)
            self._steps(strip, 0, strip.T, self._kept[n], passes)
            return self._others(passes, strip.T)
        chunk = passes.scratch.chunk
        for start in range(0, strip.T, chunk):
            stop, before = min(start + chunk, strip.T), self._before[n][start // chunk]
            for place, part in zip(before, others, strict=True):
                place[...] = part
            self._begin(passes, before)
            self._steps(strip, start, stop, self._replayed[strip.b], passes, derive=False)
            others = self._others(passes, stop - start)
        return others

    def _steps(self, strip: Strip, start: int, stop: int, kept: Any, passes: Passes, derive: bool = True) -> None:
        """The cell's equations from step start to stop; `passes.others` of 0 are before them, of stop - start after."""
        scratch = passes.scratch
        products = scratch.forward_products(self.weights)
        for t in range(start, stop, scratch.tau):
            if self.overtaken():
                raise Overtaken
            n = min(scratch.tau, stop - t)
            scratch.inputs_of_steps(self.weights, strip, t, n)
            passes.forward(strip.steps[t : t + n], kept, t - start, *products)
            if derive:
                passes.derive(kept, t - start, n)

    def _infer(self, given: Inputs, wanted: Outputs, span: slice) -> None:
        """The cell's equations, keeping nothing."""
        inference, features = self._inference[span.stop - span.start], self._layout.features
        ring, others = inference.ring, [features(part) for part in inference.others]
        products = ring.forward_products(self.weights)
        for part, initial in zip((ring.h[0], *others), given.state, strict=True):
            part[...] = initial[:, span]
        for start in range(0, self.job.T, ring.length):
            if self.overtaken():
                raise Overtaken
            n = min(ring.length, self.job.T - start)
            ring.x[:n] = given.x[:, start : start + n, span].transpose(1, 0, 2)
            if self.job.of.inner:
                ring.input_products(self.weights, ring.inputs(n))
            inference.forward(ring.steps[:n], *products)
            if wanted.y is not None:
                wanted.y[:, start : start + n, span] = ring.h[1 : n + 1].transpose(1, 0, 2)
            ring.h[0] = ring.h[n]
        for part, found in zip(wanted.state, (ring.h[0], *others), strict=True):
            part[:, span] = found

    # ---- backward

    def backward(self, params: Params, given: OutputGradients, wanted: InputGradients) -> None:
        """All steps in reverse; the gradients that are given of the state may be the arrays that are wanted.

        `params` are those of the forward pass.  Raises Overtaken.
        """
        if not self.job.packed:
            self.weights.pack_backward(params)
        total, dx = wanted.total, wanted.x
        more = [(which, self._sum[:, which]) for which, _ in total]
        sums = total
        for n, span in enumerate(self.spans):
            strip, passes = self._strips[n], self._passes_of(n)
            scratch = passes.scratch
            dstate = [self._layout.features(part) for part in (scratch.dh, *passes.others_gradients)]
            for part, arriving in zip(dstate, given.state, strict=True):
                part[...] = arriving[:, span]
            for start in reversed(range(0, strip.T, scratch.chunk)):
                stop = min(start + scratch.chunk, strip.T)
                if self.overtaken():
                    raise Overtaken
                kept, steps = self._kept_of(n, start, stop)
                dys = None if given.y is None else scratch.steps_of(given.y[:, start:stop, span])
                hs, undo_first = strip.hs[start : stop + 1], start > 0 or wanted.state_wanted
                passes.backward(self.weights, hs, kept, steps, dys, undo_first)
                for which, array in sums:
                    scratch.weight_gradient(strip, start, stop, which, array)  # (1')
                if sums is more:
                    for (_, array), (_, summand) in zip(total, more, strict=True):
                        np.add(array, summand, array)
                sums = more
                if dx is not None:
                    scratch.input_gradient(params["W"], dx[:, start:stop, span])  # (1')
            for part, found in zip(wanted.state, dstate, strict=True):
                part[:, span] = found

    def _kept_of(self, n: int, start: int, stop: int) -> tuple[Any, slice]:
        """What is kept of strip n, and which of its steps are those from start to stop."""
        if self.job.keep == "all":
            return self._kept[n], slice(start, stop)
        strip, passes = self._strips[n], self._passes_of(n)
        self._begin(passes, self._before[n][start // passes.scratch.chunk])
        self._steps(strip, start, stop, self._replayed[strip.b], passes)
        return self._replayed[strip.b], slice(0, stop - start)

    # ---- what both do

    def _passes_of(self, n: int) -> Passes:
        return self._passes[self._strips[n].b]

    def _begin(self, passes: Passes, others: Sequence[Array]) -> None:
        """The state's parts beside h before the steps to come, (H, b)."""
        for place, part in zip(self._others(passes, 0), others, strict=True):
            place[...] = part

    def _others(self, passes: Passes, step: int) -> list[Array]:
        """The state's parts beside h, (H, b), before a step counted from `_begin`."""
        return [self._layout.features(part) for part in passes.others(step)]
