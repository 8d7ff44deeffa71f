"""A part of a batch whose sequences have unequal lengths: the work is the sum of the lengths.

The samples lie longest first, so those that make a step are the first columns.  The steps are taken in segments of a
few, and each segment is computed for as many columns as make its first step, rounded up to what products like.  A
segment is a strip of its own (`buffers.py`), as wide as that, and the cell's passes run over it as over any other.
Samples lie as rows wherever they can, since narrow products of rows are the faster ones (figures: docs/cpu-kernel.md).

Every width has arrays of its own, but only one is under way at a time: all take theirs from the same memory, so that it
stays in the cache, and the state goes from one to the next through a copy.  What is kept of a segment likewise has its
place by the segment's number, whatever its width: batch after batch uses the same memory.

A sample that ends within a segment goes on to its end with inputs of 0, and nobody looks: its final state is taken
after its own last step, its outputs are 0 from there on, and backward its gradients are 0 until that step, where that
of the final state is added.  The gradient of c is added between two calls of the passes: where there is one, the steps
of a segment are undone in pieces that end where samples end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_np.arrays import Array, Params
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import cut
from lstm_np.kernels.cpu.buffers import Job, New, Strip, round_up, steps_together, taker, values_taken
from lstm_np.kernels.cpu.part import LAYOUTS, PASSES, InputGradients, Inputs, OutputGradients, Outputs, Part, nobody
from lstm_np.kernels.cpu.passes import Passes
from lstm_np.workers import Overtaken

WIDTHS = {"columns": 8, "rows": 4, "sample": 1}  # a segment has a multiple of so many columns
FEWEST_STEPS = 4  # of a segment; with fewer the calls around it cost more than the columns that it saves
MOST_ROOMS = 2048  # whose views are kept from batch to batch


class End(NamedTuple):
    """Columns `first` to `stop` - 1 have `steps` steps."""

    steps: int
    first: int
    stop: int


class Room(NamedTuple):
    """The buffers of a segment."""

    strip: Strip
    kept: Any


class Segment(NamedTuple):
    """Steps `start` to `stop` - 1, of which the first is made by `columns` samples; `ends`: those that end in them."""

    start: int
    stop: int
    columns: int
    ends: Sequence[End]
    room: Room


class RaggedPart(Part):
    """Some samples of a batch, the longest first; `Inputs.lengths` has their lengths."""

    def __init__(self, job: Job, shared: Params | None = None) -> None:
        layout = LAYOUTS[job.layout]
        self.job, self._layout, self.overtaken = job, layout, nobody
        self.spans = [slice(*ends) for ends in cut.pieces(job.b, -(-job.b // layout.widest(job.H)))]
        self.widest = max(span.stop - span.start for span in self.spans)
        self.weights = layout.weights(job, self.widest, shared)
        self._steps_of_segment = max(FEWEST_STEPS, steps_together(job, self.widest)[1])
        self._by_width: dict[int, Passes] = {}
        self._scratch = self._memory(1, lambda new: self._new_passes(self.widest, new))
        self._segments = -(-job.T // self._steps_of_segment) if job.keep != "nothing" else 1  # kept of each strip
        self._kept = self._memory(len(self.spans) * self._segments, lambda new: self._new_room(self.widest, new))
        self._rooms: dict[tuple[int, int], Room] = {}  # by the number of the place, and the width
        self._carried = [
            self._layout.features(aligned(self._passes_for(self.widest).scratch.shape, job.dtype)) for _ in job.of.state
        ]  # from segment to segment
        self._chains: list[list[Segment]] = []  # of each strip
        self._sum = aligned((job.of.gates * job.H, round_up(job.K)), job.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes kept for backward that grow with T."""
        rooms = [segment.room for chain in self._chains for segment in chain]
        kept = [room.kept.array for room in rooms if room.kept is not None]
        return sum(array.nbytes for array in [*(room.strip.Z for room in rooms), *kept])

    # ---- forward

    def forward(self, params: Params, given: Inputs, wanted: Outputs, *, packed: bool = False) -> None:
        """All steps; the state that is given may be the arrays that are wanted.  Raises Overtaken.

        `packed`: the weights are those of these parameters already.
        """
        if not self.job.packed and not packed:
            self.weights.pack(params)
        self._chains = []
        assert given.lengths is not None
        lengths = given.lengths.astype(np.int64)
        for number, span in enumerate(self.spans):
            state = tuple(part[:, span] for part in given.state)
            y = None if wanted.y is None else wanted.y[:, :, span]
            to = Outputs(y, tuple(part[:, span] for part in wanted.state))
            own = Inputs(given.x[:, :, span], state)
            self._chains.append(self._forward_samples(own, to, lengths[span], number * self._segments))

    def _forward_samples(self, given: Inputs, wanted: Outputs, lengths: Array, place: int) -> list[Segment]:
        """The segments, which are kept from this place on."""
        T, training = self.job.T, self.job.keep != "nothing"
        making = (lengths[None, :] > np.arange(T + 1)[:, None]).sum(axis=1).tolist()  # how many make each step
        ends = [End(t, making[t], making[t - 1]) for t in range(1, T + 1) if making[t] < making[t - 1]]
        longest = ends[-1].steps if ends else 0
        for part, final in zip(given.state, wanted.state, strict=True):
            final[:, making[0] :] = part[:, making[0] :]  # those without steps
        state: Sequence[Array] = given.state
        chain: list[Segment] = []
        for start in range(0, longest, self._steps_of_segment):
            stop, n = min(start + self._steps_of_segment, longest), making[start]
            room = self._room(place, self._width(n, len(lengths)))
            segment = Segment(start, stop, n, [end for end in ends if start < end.steps <= stop], room)
            state = self._forward_segment(segment, given.x, state, wanted, derive=training)
            if training:
                chain.append(segment)
                place += 1
        if wanted.y is not None:
            wanted.y[:, longest:] = 0
        return chain

    def _forward_segment(
        self, segment: Segment, x: Array, state: Sequence[Array], wanted: Outputs, *, derive: bool
    ) -> Sequence[Array]:
        """The state after it, of all of its columns, from that before it."""
        start, stop, n, ends, (strip, kept) = segment
        passes, steps = self._passes_for(strip.b), stop - start
        strip.x[:, :steps, :n] = x[:, start:stop, :n]
        strip.x[:, :steps, n:] = 0
        for end in ends:
            strip.x[:, end.steps - start : steps, end.first : end.stop] = 0
        for place, part in zip((strip.h[:, 0], *self._others(passes, 0)), state, strict=True):
            place[:, :n] = part[:, :n]
            place[:, n:] = 0
        scratch = passes.scratch
        products = scratch.forward_products(self.weights)
        for t in range(0, steps, scratch.tau):
            if self.overtaken():
                raise Overtaken
            count = min(scratch.tau, steps - t)
            scratch.inputs_of_steps(self.weights, strip, t, count)
            passes.forward(strip.steps[t : t + count], kept, t, *products)
            if derive:
                passes.derive(kept, t, count)
            for end in ends:
                step = end.steps - start
                if t < step <= t + count:
                    final = (strip.h[:, step], *self._others(passes, step))
                    for place, part in zip(wanted.state, final, strict=True):
                        place[:, end.first : end.stop] = part[:, end.first : end.stop]
        if wanted.y is not None:
            wanted.y[:, start:stop, :n] = strip.h[:, 1 : steps + 1, :n]
            wanted.y[:, start:stop, n:] = 0
            for end in ends:
                wanted.y[:, end.steps : stop, end.first : end.stop] = 0
        for place, part in zip(self._carried, (strip.h[:, steps], *self._others(passes, steps)), strict=True):
            place[:, :n] = part[:, :n]
        return self._carried

    # ---- backward

    def backward(self, params: Params, given: OutputGradients, wanted: InputGradients) -> None:
        """All steps in reverse; the gradients that are given of the state may be the arrays that are wanted.

        `params` are those of the forward pass.  Raises Overtaken.
        """
        if not self.job.packed:
            self.weights.pack_backward(params)
        sums = _Sums(wanted.total, self._sum)
        for span, chain in zip(self.spans, self._chains, strict=True):
            self._backward_samples(params, given, wanted, span, chain, sums)
        sums.finish()

    def _backward_samples(
        self,
        params: Params,
        given: OutputGradients,
        wanted: InputGradients,
        span: slice,
        chain: list[Segment],
        sums: Any,
    ) -> None:
        arriving = [part[:, span] for part in given.state]
        dy, dx = (None if array is None else array[:, :, span] for array in (given.y, wanted.x))
        in_pieces = any(part.any() for part in arriving[1:])
        if dx is not None:
            dx[:, chain[-1].stop if chain else 0 :] = 0
        there = 0
        for segment in reversed(chain):
            start, stop, n, ends, (strip, kept) = segment
            passes = self._passes_for(strip.b)
            scratch = passes.scratch
            dstate = [self._layout.features(part) for part in (scratch.dh, *passes.others_gradients)]
            for place, part in zip(dstate, self._carried, strict=True):
                place[:, :there] = part[:, :there]
                place[:, there:] = 0
            edges = {*range(0, stop - start, scratch.chunk), stop - start}
            edges |= {end.steps - start for end in ends} if in_pieces else set()
            borders = sorted(edges)
            for first, last in reversed(list(itertools.pairwise(borders))):
                if self.overtaken():
                    raise Overtaken
                for end in ends:
                    if end.steps - start == last:
                        for place, part in zip(dstate[1:], arriving[1:], strict=True):
                            place[:, end.first : end.stop] = part[:, end.first : end.stop]
                dys = self._output_gradients(segment, first, last, dy, arriving[0])
                dys = None if dys is None else scratch.steps_of(dys)
                undo_first = start + first > 0 or wanted.state_wanted
                hs = strip.hs[first : last + 1]
                passes.backward(self.weights, hs, kept, slice(first, last), dys, undo_first)
                for which, array in sums.places():
                    scratch.weight_gradient(strip, first, last, which, array)  # (1')
                sums.add()
                if dx is not None:
                    steps_dx = self._zeros(self.job.D, last - first, strip.b)
                    scratch.input_gradient(params["W"], steps_dx)  # (1')
                    dx[:, start + first : start + last, :n] = steps_dx[:, :, :n]
                    dx[:, start + first : start + last, n:] = 0
            there = n
            for place, part in zip(self._carried, dstate, strict=True):
                place[:, :there] = part[:, :there]
        for place, part, found in zip(wanted.state, arriving, self._carried, strict=True):
            own = place[:, span]
            own[:, there:] = part[:, there:]  # those without steps
            own[:, :there] = found[:, :there]

    def _output_gradients(self, segment: Segment, first: int, last: int, dy: Array | None, dh: Array) -> Array | None:
        """(H, steps, columns) for some steps of a segment: dy of the samples that have them, and dh where one ends."""
        start, _, n, ends, (strip, _) = segment
        here = [end for end in ends if first < end.steps - start <= last]
        if dy is None and not here:
            return None
        found = self._zeros(self.job.H, last - first, strip.b)
        if dy is not None:
            found[:, :, :n] = dy[:, start + first : start + last, :n]
            for end in ends:
                found[:, max(0, end.steps - start - first) :, end.first : end.stop] = 0
        for end in here:
            found[:, end.steps - start - first - 1, end.first : end.stop] += dh[:, end.first : end.stop]
        return found

    # ---- buffers

    def _zeros(self, features: int, steps: int, b: int) -> Array:
        """(features, steps, b), a step after the other, and each as its samples lie."""
        if self.job.layout == "columns":
            return np.zeros((steps, features, b), self.job.dtype).transpose(1, 0, 2)
        return np.zeros((steps, b, features), self.job.dtype).transpose(2, 0, 1)

    def _width(self, columns: int, most: int) -> int:
        unit = WIDTHS[self.job.layout]
        return min(most, -(-columns // unit) * unit)

    def _passes_for(self, width: int) -> Passes:
        if width not in self._by_width:
            self._by_width[width] = self._new_passes(width, taker(self._scratch[0]))
        return self._by_width[width]

    def _new_passes(self, width: int, new: New) -> Passes:
        scratch = self._layout.scratch(self.job, width, width, new)
        passes: Passes = PASSES[self.job.cell].Passes(self.job, scratch)
        return passes

    def _room(self, place: int, width: int) -> Room:
        if (place, width) not in self._rooms:
            if len(self._rooms) >= MOST_ROOMS:
                self._rooms.clear()
            self._rooms[place, width] = self._new_room(width, taker(self._kept[place]))
        room = self._rooms[place, width]
        room.strip.write_constants()
        return room

    def _new_room(self, width: int, new: New) -> Room:
        steps = self._steps_of_segment
        strip = self._layout.strip(self.job._replace(T=steps), width, new)
        return Room(strip, self._passes_for(width).keep(steps, new))

    def _memory(self, count: int, make: Callable[[New], object]) -> Array:
        """(count, values): in each place there is room for what is made so."""
        return aligned((count, values_taken(make, self.job.dtype)), self.job.dtype)


class _Sums:
    """The gradient of [W b U]: the first summand goes where it is wanted, the others are added to it."""

    def __init__(self, total: Sequence[tuple[slice, Array]], room: Array) -> None:
        self._total = total
        self._more = [(which, room[:, which]) for which, _ in total]
        self._begun = False

    def places(self) -> Sequence[tuple[slice, Array]]:
        """Where the next summand goes, by columns of [W b U]."""
        return self._more if self._begun else self._total

    def add(self) -> None:
        """It is there."""
        if self._begun:
            for (_, array), (_, summand) in zip(self._total, self._more, strict=True):
                np.add(array, summand, array)
        self._begun = True

    def finish(self) -> None:
        """No summand at all is 0."""
        if not self._begun:
            for _, array in self._total:
                array[...] = 0


def part_of(job: Job, shared: Params | None = None) -> Part:
    """What computes such a part."""
    return RaggedPart(job, shared) if job.ragged else Part(job, shared)
