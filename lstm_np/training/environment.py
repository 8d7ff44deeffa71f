"""The machine that a run computes on: what it is, and whether the model and its training fit into memory."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from lstm_np.backends import Backend
from lstm_np.backends.cores import cpu_name
from lstm_np.backends.memory import available_memory
from lstm_np.cells import get_cell
from lstm_np.kernels.cpu import cut
from lstm_np.model import SequenceModel
from lstm_np.training.recipes.settings import ModelSettings

COPIES = 5  # copies of the parameters: themselves, gradients, two optimizer slots, and one for saving
BETWEEN = 3  # outputs of a layer that are alive together, or their gradients
PROCESS = 40 << 20  # bytes of an idle worker process
PACKAGES = ("lstm_np", "numpy", "safetensors", "rich", "threadpoolctl", "scikit-learn", "matplotlib")
CHECKOUT = Path(__file__).parents[2]
VARIABLES = ("OPENBLAS_", "OMP_", "MKL_", "BLIS_", "VECLIB_", "CUPY_", "CUBLAS_", "NPY_")  # that libraries listen to


def describe_machine() -> dict[str, Any]:
    """What a result can depend on beside the settings, as plain values; null for what is not there or not known.

    Versions, processor, linear algebra libraries with the kernels that they took (`architecture`) and their threads,
    the environment variables that such libraries read, and the commit where lstm_np runs from a git checkout.
    """
    packages = {name: _version(name) for name in PACKAGES}
    if find_spec("cupy") is not None:  # which is published under a name for each CUDA version
        names = (distribution.metadata["Name"] or "" for distribution in distributions())
        packages |= {name: _version(name) for name in names if name.startswith("cupy")}
    keep = ("user_api", "internal_api", "version", "architecture", "num_threads")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": cpu_name(),
        "cpus": os.cpu_count(),
        "packages": packages,
        "libraries": [{name: library.get(name) for name in keep} for library in threadpool_info()],
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
        **commit(),
    }


def describe_backend(backend: Backend, kernels: Sequence[str]) -> dict[str, Any]:
    """By what a model with such kernels computes, as plain values."""
    return {
        "backend": backend.name,
        "kernels": list(kernels),
        "cores": backend.cores,
        "cores_decided_by": backend.decided_by,
        "processes": backend.processes,
        "device": backend.device(),
    }


def describe_cut(model: SequenceModel, steps: int, batch_size: int, *, save: bool) -> dict[str, Any]:
    """How a batch of sequences of so many steps is cut over the cores, in each layer; `save`: in training."""
    layers = {
        name: {"samples": [stop - start for start, stop in cut.parts], "blas_threads": cut.blas_threads}
        for name, cut in model.recurrent.cuts(steps, batch_size, save=save).items()
    }
    return {"batch": batch_size, "layers": layers}


@functools.cache
def commit() -> dict[str, Any]:
    """{"commit": the revision of the git checkout that lstm_np runs from, "changed": whether its files differ from it}.

    Both None where it is installed otherwise, or git is missing.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        if not (CHECKOUT / ".git").exists():
            return {"commit": None, "changed": None}
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", "lstm_np"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "changed": None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def refuse_oversize_model(model: ModelSettings, features: int, num_classes: int) -> None:
    """Refuse, in words and before it is made, a model that does not fit the memory that is free.  Raises ValueError."""
    D = features
    H, gates, directions = model.hidden_size, len(get_cell(model.cell).gates), 2 if model.bidirectional else 1
    P = D if model.input_projection is None else model.input_projection
    inputs = P + (model.num_layers - 1) * directions * H  # of all layers together
    parameters = directions * gates * H * (inputs + model.num_layers * (H + 1))
    parameters += num_classes * (directions * H + 1) + (0 if model.input_projection is None else P * (D + 1))
    size = 8 if model.dtype == "float64" else 4
    _refuse(COPIES * size * parameters, f"{parameters:,} parameters need", "lower --hidden-size or --layers")


def refuse_oversize_training(model: SequenceModel, steps: int, batch_size: int) -> None:
    """Refuse, in words, to train on batches that do not fit the memory that is free.  Raises ValueError."""
    count, cure = f"{model.params.flat.size:,}", "lower --batch-size, --hidden-size or --layers, or take --memory lean"
    asks = f"{count} parameters and batches of {batch_size:,} sequences need"
    _refuse(memory_of_training(model, steps, batch_size), asks, cure)


def memory_of_training(model: SequenceModel, steps: int, batch_size: int) -> int:
    """About how many bytes of the host's memory training takes, on batches of sequences of so many steps.

    Those of this process and its workers, beside what it has by now and beside the data: parameters with their
    gradients and an optimizer's slots, what every layer keeps for the backward pass, what passes between layers,
    dropout masks, and, where there are workers, a process each.
    """
    stack, T, B = model.recurrent, steps, batch_size
    itemsize = model.params.flat.itemsize
    held = (COPIES - 1) * model.params.flat.size  # the parameters are there by now
    if model.backend.reads_are_free:
        kept, passing = zip(*(single.kernel.host_values(T, B) for single in stack.singles), strict=True)
        held += sum(kept) + max(passing)
        # whether anybody reads outputs of every step
        read = stack.num_layers > 1 or model.read_out != "final_state"
        masks = stack.num_layers if stack.dropout else 0
        held += T * B * (stack.output_size * (BETWEEN * read + masks) + model.input_size)
    workers = min(model.backend.processes, B // cut.FEWEST_SAMPLES) - 1
    return itemsize * held + max(0, workers) * PROCESS


def _refuse(needed: int, what: str, cure: str) -> None:
    memory = available_memory()
    if memory is not None and needed > memory:
        needs, free = needed / 2**30, memory / 2**30
        raise ValueError(f"{what} about {needs:,.1f} GiB, what is free here is {free:,.1f} GiB; {cure}")
