"""The arrays through which a part of a batch in a worker process gets what it reads and gives what it computes.

What is read and what is computed are different arrays: only the parent writes the ones, only a worker the others.  So
a worker that comes late, with a request that the parent has long done itself, spoils nothing.
"""

from __future__ import annotations

import mmap
from typing import NamedTuple

from lstm_np.arrays import Array, State
from lstm_np.backends.numpy_backend import CACHE_LINE
from lstm_np.kernels.cpu import rows
from lstm_np.kernels.cpu.buffers import Job, Stack, named, round_up, shapes_of_parameters
from lstm_np.workers.memory import Arrays, arrays_in, bytes_of

Shapes = dict[str, tuple[int, ...]]


def shapes_of_part(job: Job | Stack) -> Shapes:
    """What one part has for itself: the names of `part.Inputs` and so on, those of gradients with a d in front."""
    T, b = job.T, job.b
    shapes: Shapes = {"x": (job.D, T, b), "y": (job.outputs, T, b)}
    if job.keep != "nothing":
        shapes |= {"dy": (job.outputs, T, b), "dx": (job.D, T, b)}
    if job.ragged:
        shapes["lengths"] = (b,)
    for k, single in enumerate(job.singles):
        shapes |= {named(job, k, name): shape for name, shape in _shapes_of_single(single).items()}
    return shapes


def _shapes_of_single(job: Job) -> Shapes:
    """What each layer and direction has."""
    shapes: Shapes = {}
    states = ["{}", "{}_T"]
    if job.keep != "nothing":
        shapes["total"] = job.of.gates * job.H, round_up(job.K)
        states += ["d{}", "d{}_0"]
    shapes |= {form.format(part): (job.H, job.b) for form in states for part in job.of.state}
    return shapes if job.packed else shapes | shapes_of_parameters(job)


def lies_by_samples(x: Array) -> bool:
    """Whether the features of a step of x (D, T, b) lie side by side, as in an array (b, T, D)."""
    return x.strides[0] == x.itemsize


def by_samples(x: Array) -> Array:
    """The memory of x (D, T, b) as another array of this shape, in which the features of a step lie side by side.

    What is to be transposed is copied as it lies, and transposed by whoever computes the part.
    """
    return x.reshape(x.shape[::-1]).transpose()


class States(NamedTuple):
    """The arrays of states: before the first step and after the last, and of the gradients after and before."""

    initial: State
    final: State
    arriving: State
    leaving: State

    @classmethod
    def of(cls, job: Job | Stack, found: Arrays) -> States:
        """Those of a part, of all layers one after the other; none of gradients where it has no backward pass."""
        parts = [(k, part) for k, single in enumerate(job.singles) for part in single.of.state]

        def those(form: str) -> State:
            names = [named(job, k, form.format(part)) for k, part in parts]
            return tuple(found[name] for name in names if name in found)

        return cls(those("{}"), those("{}_T"), those("d{}"), those("d{}_0"))


def totals(job: Job | Stack, found: Arrays) -> list[Array]:
    """The gradients of [W b U], one for each layer and direction."""
    return [found[named(job, k, "total")] for k in range(len(job.singles))]


def shapes_of_weights(job: Job) -> Shapes:
    """What all parts have in common where they read one copy of the packed weights."""
    return {**shapes_of_parameters(job), **rows.room_for_weights(job)}


def size(shapes: Shapes, job: Job | Stack) -> int:
    """Bytes of a memory for these arrays."""
    return bytes_of(shapes, job.dtype, CACHE_LINE)


def arrays(memory: mmap.mmap, shapes: Shapes, job: Job | Stack) -> Arrays:
    """These arrays in a memory of that size; packed weights by all their names."""
    found = arrays_in(memory, shapes, job.dtype, CACHE_LINE)
    return rows.weights_in(job, found) if isinstance(job, Job) and "forward_weights" in shapes else found
