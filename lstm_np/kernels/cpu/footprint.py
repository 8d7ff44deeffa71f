"""How much memory a batch takes in the fused kernel, in all processes, known before any of it is allocated.

Counted are the values of the arrays in `part.py` and its layouts, and of those that processes share (`mail.py`); a test
compares with what is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lstm_np.kernels.cpu import rows
from lstm_np.kernels.cpu.buffers import Job, ring_length, round_up, steps_together
from lstm_np.kernels.cpu.part import LAYOUTS


def values_of_batch(jobs: Sequence[Job]) -> int:
    """Of all parts of a batch, the first of which is the parent's, with what they share."""
    values = sum(map(values_of_part, jobs))
    if len(jobs) > 1:
        from lstm_np.kernels.cpu import mail  # where there is one core, nothing of processes is imported

        shared = [mail.shapes_of_part(job) for job in jobs[1:]]
        shared += [mail.shapes_of_weights(jobs[0])] if jobs[0].packed else []
        values += sum(math.prod(shape) for shapes in shared for shape in shapes.values())
    return values


def values_of_part(job: Job) -> int:
    """Of a part's own buffers."""
    H, T, b, K = job.H, job.T, job.b, round_up(job.K)
    strips = -(-b // LAYOUTS[job.layout].widest(H))
    widest = -(-b // strips)
    widths = {widest, b // strips}
    weights = 0 if job.packed else _values_of_weights(job)
    if job.keep == "nothing":
        return weights + sum((ring_length(job, width) + 1) * K * width + 6 * H * width for width in widths)
    tau, chunk = steps_together(H, widest)
    step = 9 * tau + 3 + 4 * chunk + {"columns": 0, "rows": 4, "sample": 4 * tau}[job.layout]  # of `Scratch`, per unit
    scratch = sum(step * H * width for width in widths)
    if job.layout == "columns":
        scratch += sum(chunk * K * width for width in widths)  # z_T, where the product wants it
    kept = (T + 1) * K * b
    if job.keep == "all":
        kept += 6 * T * H * b
    else:
        kept += -(-T // chunk) * H * b + sum(6 * chunk * H * width for width in widths)
    return weights + scratch + kept + 4 * H * K


def _values_of_weights(job: Job) -> int:
    if job.layout == "columns":
        return 4 * job.H * (job.K + job.H)
    return sum(map(math.prod, rows.room_for_weights(job).values())) if job.layout == "rows" else 0
