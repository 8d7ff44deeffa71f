"""One system in a process of its own, told over a pipe what to do: ``python -m benchmarks.contestant torch``.

Each line on stdin is a JSON object, each answer one JSON line on stdout:

    {"do": "describe"}                      versions, settings, the form of Adam it uses, what it takes part in
    {"do": "prepare", "case": {...}}        make the model, copy the initial weights in; a digest of weights and batches
    {"do": "losses", "steps": n, ...}       the loss curve from the initial weights (which it leaves)
    {"do": "time", "steps": n, "warm": k}   k untimed steps, then the seconds of each of n steps
    {"do": "run", "seconds": s}             steps for that long, at least two: somebody looks at the memory meanwhile
    {"do": "quit"}

Any other `do` is a method of the contestant (an epoch of MNIST, for one).  What the system prints goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from typing import Any

from benchmarks import workloads
from benchmarks.workloads import Batch, Case, Weights

# name -> module and class; each needs its own packages, which only its own process imports
CONTESTANTS = {
    "ours": ("benchmarks.ours", "Ours"),
    "reference": ("benchmarks.ours", "Reference"),
    "ours-lean": ("benchmarks.ours", "Lean"),
    "torch": ("benchmarks.peers.torch", "Torch"),
    "torch-padded": ("benchmarks.peers.torch", "Padded"),
    "jax": ("benchmarks.peers.jax", "Jax"),
    "keras": ("benchmarks.peers.keras", "Keras"),
    "thinc": ("benchmarks.peers.thinc", "Thinc"),
    "onnxruntime": ("benchmarks.peers.onnxruntime", "OnnxRuntime"),
    "mnist-ours": ("benchmarks.mnist_ours", "MnistOurs"),
    "mnist-torch": ("benchmarks.peers.mnist_torch", "MnistTorch"),
    "gpu-ours": ("benchmarks.gpu.ours", "DeviceStep"),
    "gpu-torch": ("benchmarks.gpu.torch", "Eager"),
    "gpu-torch-graph": ("benchmarks.gpu.torch", "Graphed"),
    "gpu-torch-tf32": ("benchmarks.gpu.torch", "EagerTF32"),
    "gpu-torch-graph-tf32": ("benchmarks.gpu.torch", "GraphedTF32"),
    "gpu-jax": ("benchmarks.gpu.jax", "Jax"),
    "bound": ("benchmarks.ceilings", "Bound"),
    "images-reference": ("benchmarks.gpu.checks", "OnImages"),
}


BOTH = "both directions"
LENGTHS = "sequences of unequal length"


def needs(case: Case) -> set[str]:
    """What a contestant has to take part in for this case."""
    more = [BOTH] if case.directions == 2 else []
    return {case.mode, case.cell, *more, *([LENGTHS] if case.lengths else [])}


class Contestant(ABC):
    """What a system implements to take part.

    threads  CPU cores that it may use
    adam     (form, eps) of its Adam, as `lstm_np.Adam` names them; the loss curve is compared under this one
    takes    the modes and cells in which it is raced, BOTH for layers in both directions, LENGTHS for sequences of
             unequal length
    """

    adam: tuple[str, float] = ("paper", 1e-8)
    takes: frozenset[str] = frozenset({"train", "infer", "lstm"})

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.case: Case | None = None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """{"versions": {...}, "settings": what it was given to be at its best, "remark": what a reader must know}."""

    @abstractmethod
    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """A model with these weights, the batches as it likes them, and a fresh Adam; whatever was there is dropped."""

    @abstractmethod
    def step(self, batch: int) -> None:
        """One training step or one inference on a batch; returns when it is done."""

    @abstractmethod
    def loss(self, batch: int) -> float:
        """As `step`, and the loss on the batch as it was before the update."""

    def seconds(self, steps: int) -> list[float]:
        """The duration of each of some steps."""
        clock, durations = time.perf_counter, []
        for number in range(steps):
            started = clock()
            self.step(number % workloads.BATCHES)
            durations.append(clock() - started)
        return durations

    # ---- the commands

    def do_describe(self) -> dict[str, Any]:
        """What it is."""
        fixed = {"adam": list(self.adam), "takes": sorted(self.takes), "remark": "", "loss_tolerance": None}
        return {**fixed, **self.describe()}

    def do_prepare(self, case: dict[str, Any], adam: list[Any] | None = None) -> dict[str, Any]:
        """Make the model of a case."""
        self.case = Case(**case)
        if missing := needs(self.case) - self.takes:
            raise ValueError(f"not raced here: {', '.join(sorted(missing))}")
        weights, batches = workloads.make_weights(self.case), workloads.make_batches(self.case)
        form, eps = adam or self.adam
        self.build(self.case, weights, batches, (form, eps))
        return {"digest": workloads.digest(weights, batches)}

    def do_losses(self, steps: int) -> dict[str, Any]:
        """The loss curve."""
        return {"losses": [self.loss(number % workloads.BATCHES) for number in range(steps)]}

    def do_time(self, steps: int, warm: int = 0) -> dict[str, Any]:
        """How long steps take."""
        for number in range(warm):
            self.step(number % workloads.BATCHES)
        return {"seconds": self.seconds(steps)}

    def do_run(self, seconds: float) -> dict[str, Any]:
        """Steps for that many seconds, at least two; how many."""
        ends, number = time.perf_counter() + seconds, 0
        while number < 2 or time.perf_counter() < ends:
            self.step(number % workloads.BATCHES)
            number += 1
        return {"steps": number}


def make(name: str, threads: int) -> Any:
    """The contestant called `name`.  Raises ValueError for an unknown one, ImportError without its packages."""
    if name not in CONTESTANTS:
        raise ValueError(f"unknown contestant {name!r}; there are: {', '.join(CONTESTANTS)}")
    module, attribute = CONTESTANTS[name]
    return getattr(importlib.import_module(module), attribute)(threads)


def serve(name: str, threads: int) -> int:
    """Answer commands until stdin ends; the exit status."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    contestant: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        what = command.pop("do")
        if what == "quit":
            break
        try:
            if contestant is None:
                contestant = make(name, threads)
            answer = getattr(contestant, f"do_{what}")(**command)
        except Exception as error:  # another system's failure is a finding, and must reach the other end of the pipe
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1], int(sys.argv[2])))
