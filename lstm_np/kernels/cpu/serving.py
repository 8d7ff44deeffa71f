"""What a worker process does for the fused kernel: parts of batches, and its share of the packing of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends.blas_threads import blas_threads
from lstm_np.kernels.cpu import mail, rows
from lstm_np.kernels.cpu.buffers import Job, job_of
from lstm_np.kernels.cpu.part import InputGradients, Inputs, OutputGradients, Outputs, Part
from lstm_np.kernels.cpu.stack_part import StackPart, part_of, totals_wanted
from lstm_np.workers.memory import Arrays
from lstm_np.workers.serve import Request

TARGET = f"{__name__}:PartServer"


def own_gates(job: Job) -> slice:
    """Whose weights the parent packs, where it does not pack all."""
    return slice(0, -(-job.of.gates // 2))


def their_gates(job: Job) -> slice:
    """Whose weights a worker packs."""
    return slice(own_gates(job).stop, None)


class Opened(NamedTuple):
    """A part and its arrays: its own, and under the names of the parameters those that all parts share; its states."""

    part: Part | StackPart
    mail: Arrays
    states: mail.States


class PartServer:
    """Commands about parts and weights that the parent calls by numbers.

    Each has "part" or "weights", the number; with the first one about it come "job" and the memory of `lstm_np.kernels
    .cpu.mail`.  A part that reads shared weights is told "weights" too, which must be known by then.
    """

    def __init__(self) -> None:
        np.seterr(all="ignore")  # what overflows does so in the parent's part as well, and is reported there
        self._one_thread = blas_threads(1)
        self._one_thread.__enter__()  # for as long as this process lives
        self._parts: dict[int, Opened] = {}
        self._weights: dict[int, tuple[rows.Weights, Arrays]] = {}
        self.commands: Mapping[str, Callable[[Request], None]] = {
            "pack": self.pack,
            "forward": self.forward,
            "backward": self.backward,
        }

    @staticmethod
    def describe() -> Mapping[str, object]:
        """As `lstm_np.workers.serve.Server`: the NumPy, and the bits that this processor and its libraries compute."""
        return {"NumPy": f"{np.__version__} in {Path(np.__file__).parent}", "results of a small example": example()}

    def forget(self, key: int) -> None:
        """As `lstm_np.workers.serve.Server`."""
        self._parts.pop(key, None)
        self._weights.pop(key, None)

    def pack(self, request: Request) -> None:
        """Pack a worker's share of the weights; "do" is the method of `rows.Weights`."""
        self._open_weights(request)
        weights, arrays = self._weights[request.arguments["weights"]]
        getattr(weights, request.arguments["do"])(arrays, their_gates(weights.job))

    def forward(self, request: Request) -> None:
        """A forward pass; "sequence": whether y is wanted, "pack": whether the parameters may have changed,
        "by_samples": how x lies.
        """
        part, arrays, states = self._open_part(request)
        y = arrays["y"] if request.arguments["sequence"] else None
        part.overtaken = request.overtaken
        x = mail.by_samples(arrays["x"]) if request.arguments["by_samples"] else arrays["x"]
        given = Inputs(x, states.initial, arrays.get("lengths"))
        part.forward(arrays, given, Outputs(y, states.final), packed=not request.arguments["pack"])

    def backward(self, request: Request) -> None:
        """The backward pass after it; "dy": whether it is given, "dx" and "state": whether those are wanted."""
        part, arrays, states = self._open_part(request)
        flags = request.arguments
        given = OutputGradients(arrays["dy"] if flags["dy"] else None, states.arriving)
        total = totals_wanted(part.job, mail.totals(part.job, arrays))
        dx = arrays["dx"] if flags["dx"] else None
        part.overtaken = request.overtaken
        part.backward(arrays, given, InputGradients(dx, states.leaving, flags["state"], total))

    def _open_weights(self, request: Request) -> None:
        key = request.arguments["weights"]
        if key not in self._weights:
            job = Job(*request.arguments["job"])
            arrays = mail.arrays(request.memories.pop(0), mail.shapes_of_weights(job), job)
            self._weights[key] = rows.Weights(job, job.b, arrays), arrays

    def _open_part(self, request: Request) -> Opened:
        key = request.arguments["part"]
        if key not in self._parts:
            job, shared = job_of(request.arguments["job"]), None
            if job.packed:
                self._open_weights(request)
                shared = self._weights[request.arguments["weights"]][1]
            own = mail.arrays(request.memories.pop(0), mail.shapes_of_part(job), job)
            self._parts[key] = Opened(part_of(job, shared), {**(shared or {}), **own}, mail.States.of(job, own))
        return self._parts[key]


def example() -> str:
    """A digest of the results of small parts in either layout: what a worker must compute to the bit."""
    found = hashlib.blake2b(digest_size=8)
    for layout, H, b, block in (("columns", 12, 40, 0), ("rows", 64, 9, 64)):
        job = Job("lstm", 5, 1, H, 3, b, "float32", layout, block, False, "all")
        shapes = mail.shapes_of_part(job)
        arrays = {name: _numbers(shape) for name, shape in shapes.items()}
        part, total = Part(job), [(slice(None), arrays["total"])]
        with blas_threads(1):
            states = mail.States.of(job, arrays)
            part.forward(arrays, Inputs(arrays["x"], states.initial), Outputs(arrays["y"], states.final))
            wanted = InputGradients(arrays["dx"], states.leaving, True, total)
            part.backward(arrays, OutputGradients(arrays["dy"], states.arriving), wanted)
        for name in ("y", "c_T", "dx", "dh_0", "total"):
            found.update(arrays[name].tobytes())
    return found.hexdigest()


def _numbers(shape: tuple[int, ...]) -> Array:
    """Some numbers between -1 and 1, the same everywhere."""
    values = np.arange(int(np.prod(shape)), dtype="float32") * 7919 % 2003
    return (values / np.float32(1001.5) - 1).reshape(shape)
