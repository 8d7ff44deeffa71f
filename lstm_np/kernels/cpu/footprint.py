"""How much memory a batch takes in the fused kernel, in all processes, known before any of it is allocated.

Counted are the values of the arrays in `part.py` and its layouts, and of those that processes share (`mail.py`); a test
compares with what is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from lstm_np.kernels.cpu import ragged, rows, sample, stack_part
from lstm_np.kernels.cpu.buffers import Job, Stack, inner_parts, ring_length, round_up, steps_together
from lstm_np.kernels.cpu.part import LAYOUTS


def values_of_batch(jobs: Sequence[Job | Stack]) -> int:
    """Of all parts of a batch, the first of which is the parent's, with what they share."""
    values = sum(values_of_part(single) for job in jobs for single in job.singles)
    for job in jobs:
        if isinstance(job, Stack):
            shapes = [*stack_part.shapes_between(job), stack_part.shape_of_second(job)]
            values += sum(map(math.prod, shapes))
    if len(jobs) > 1:
        from lstm_np.kernels.cpu import mail  # where there is one core, nothing of processes is imported

        shared = [mail.shapes_of_part(job) for job in jobs[1:]]
        shared += [mail.shapes_of_weights(job) for job in jobs[:1] if isinstance(job, Job) and job.packed]
        values += sum(math.prod(shape) for shapes in shared for shape in shapes.values())
    return values


def values_of_part(job: Job) -> int:
    """Of a part's own buffers."""
    H, T, b, K = job.H, job.T, job.b, round_up(job.K)
    strips = -(-b // LAYOUTS[job.layout].widest(H))
    widest = -(-b // strips)
    widths = {widest, b // strips}
    weights = 0 if job.packed else _values_of_weights(job)
    of = job.of
    total = of.gates * H * K  # the gradient of [W b U] of some steps
    if job.ragged:
        return weights + _values_of_scratch(job, widest, {widest}) + _values_of_segments(job, strips, widest) + total
    if job.keep == "nothing":
        return weights + sum(_values_of_ring(job, width) * width for width in widths)
    kept = (T + 1) * K * b
    if job.keep == "all":
        kept += of.kept * T * H * b
    else:
        others, (_, chunk) = len(of.state) - 1, steps_together(job, widest)
        kept += others * -(-T // chunk) * H * b + sum(of.kept * chunk * H * width for width in widths)
    return weights + _values_of_scratch(job, widest, widths) + kept + total


def _values_of_segments(job: Job, strips: int, widest: int) -> int:
    """Of what is kept of sequences of unequal length, and of the state that goes from segment to segment."""
    steps, of = max(ragged.FEWEST_STEPS, steps_together(job, widest)[1]), job.of
    segments = -(-job.T // steps) if job.keep != "nothing" else 1
    room = (steps + 1) * round_up(job.K) + of.kept * steps * job.H
    return (strips * segments * room + len(of.state) * job.H) * widest


def _values_of_scratch(job: Job, widest: int, widths: Collection[int]) -> int:
    """Of `Passes` and `Scratch` of strips of these widths."""
    H, K, of = job.H, round_up(job.K), job.of
    tau, chunk = steps_together(job, widest)
    step = of.at_once * tau + of.carried + of.blocks * chunk  # per unit
    parts = inner_parts(H, of.reading * H, widest)
    summands = {"columns": parts if parts > 1 else 0, "rows": of.reading if of.reading > 1 else 0}
    step += summands.get(job.layout, of.blocks * tau)
    scratch = sum(step * H * width for width in widths)
    if job.layout == "columns":
        scratch += sum(chunk * (K + of.blocks * H) * width for width in widths)  # z_T, and da of all steps side by side
    if job.layout != "sample":
        scratch += sum((of.gates if job.layout == "rows" else 1) * job.D * width for width in widths)  # dx of a step
    if of.inner == "s":
        scratch += sum(chunk * (K - job.inputs) * width for width in widths)
    return scratch


def _values_of_ring(job: Job, width: int) -> int:
    """Of a sample's share of `Ring` and `Inference`."""
    length, of = ring_length(job, width), job.of
    return (length + 1) * round_up(job.K) + (of.inferring + (length if of.inner else 0)) * job.H


def _values_of_weights(job: Job) -> int:
    if job.layout == "columns":
        return job.of.gates * job.H * (job.K + job.H)
    if job.layout == "sample":
        return job.of.gates * job.H * job.K if sample.packs(job) else 0
    return sum(map(math.prod, rows.room_for_weights(job).values()))
