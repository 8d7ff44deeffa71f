"""The arrays through which a part of a batch in a worker process gets what it reads and gives what it computes.

What is read and what is computed are different arrays: only the parent writes the ones, only a worker the others.  So
a worker that comes late, with a request that the parent has long done itself, spoils nothing.
"""

from __future__ import annotations

import mmap
from typing import NamedTuple

from lstm_np.arrays import State
from lstm_np.backends.numpy_backend import CACHE_LINE
from lstm_np.kernels.cpu import rows
from lstm_np.kernels.cpu.buffers import Job, round_up
from lstm_np.workers.memory import Arrays, arrays_in, bytes_of

Shapes = dict[str, tuple[int, ...]]


def shapes_of_part(job: Job) -> Shapes:
    """What one part has for itself: the names of `part.Inputs` and so on, those of gradients with a d in front."""
    D, H, T, b = job.D, job.H, job.T, job.b
    shapes: Shapes = {"x": (D, T, b), "y": (H, T, b)}
    states = ["{}", "{}_T"]
    if job.keep != "nothing":
        shapes |= {"dy": (H, T, b), "dx": (D, T, b), "total": (job.of.gates * H, round_up(job.K))}
        states += ["d{}", "d{}_0"]
    shapes |= {form.format(part): (H, b) for form in states for part in job.of.state}
    if job.ragged:
        shapes["lengths"] = (b,)
    if not job.packed:
        shapes |= shapes_of_parameters(job)
    return shapes


class States(NamedTuple):
    """The arrays of states: before the first step and after the last, and of the gradients after and before."""

    initial: State
    final: State
    arriving: State
    leaving: State

    @classmethod
    def of(cls, job: Job, found: Arrays) -> States:
        """Those of a part; none of gradients where it has no backward pass."""

        def parts(form: str) -> State:
            return tuple(found[name] for name in map(form.format, job.of.state) if name in found)

        return cls(parts("{}"), parts("{}_T"), parts("d{}"), parts("d{}_0"))


def shapes_of_weights(job: Job) -> Shapes:
    """What all parts have in common where they read one copy of the packed weights."""
    return {**shapes_of_parameters(job), **rows.room_for_weights(job)}


def shapes_of_parameters(job: Job) -> Shapes:
    """W, U and, if there are biases, b and what a product of the cell's own adds."""
    rows_of_all = job.of.gates * job.H
    shapes: Shapes = {"W": (rows_of_all, job.D), "U": (rows_of_all, job.H)}
    if job.ones:
        shapes["b"] = (rows_of_all,)
    if job.ones == 2:
        shapes["b_n"] = (job.H,)
    return shapes


def size(shapes: Shapes, job: Job) -> int:
    """Bytes of a memory for these arrays."""
    return bytes_of(shapes, job.dtype, CACHE_LINE)


def arrays(memory: mmap.mmap, shapes: Shapes, job: Job) -> Arrays:
    """These arrays in a memory of that size; packed weights by all their names."""
    found = arrays_in(memory, shapes, job.dtype, CACHE_LINE)
    return rows.weights_in(job, found) if "forward_weights" in shapes else found
