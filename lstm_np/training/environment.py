"""The machine that a run computes on: what it is, and whether it can hold what is asked of it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, distributions, version
from importlib.util import find_spec
from typing import Any

from threadpoolctl import threadpool_info

from lstm_np.backends.memory import available_memory
from lstm_np.cells import get_cell
from lstm_np.training.recipes import Recipe

PACKAGES = ("lstm_np", "numpy", "safetensors", "rich", "threadpoolctl", "scikit-learn", "matplotlib")


def describe_machine() -> dict[str, Any]:
    """Versions, processor and linear algebra libraries, as plain values; null for what is not installed."""
    packages = {name: _version(name) for name in PACKAGES}
    if find_spec("cupy") is not None:  # which is published under a name for each CUDA version
        names = (distribution.metadata["Name"] or "" for distribution in distributions())
        packages |= {name: _version(name) for name in names if name.startswith("cupy")}
    keep = ("user_api", "internal_api", "version", "num_threads")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": packages,
        "libraries": [{name: library.get(name) for name in keep} for library in threadpool_info()],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def refuse_oversize(recipe: Recipe, sequence: tuple[int, int], num_classes: int, batch_size: int) -> None:
    """Refuse, in words, what does not fit the memory that is free in this machine or control group.  Raises ValueError.

    The estimate is low on purpose: parameters with their gradients, two optimizer slots and a temporary, and what a
    pass over one batch has to keep (pre-activations or gates, both states and the inputs of each step).
    """
    memory = available_memory()
    model, (T, D) = recipe.model, sequence
    H, gates, directions = model.hidden_size, len(get_cell(model.cell).gates), 2 if model.bidirectional else 1
    P = D if model.input_projection is None else model.input_projection
    inputs = P + (model.num_layers - 1) * directions * H  # of all layers together
    parameters = directions * gates * H * (inputs + model.num_layers * (H + 1))
    parameters += num_classes * (directions * H + 1) + (0 if model.input_projection is None else P * (D + 1))
    kept = directions * T * batch_size * (model.num_layers * (gates + 2) * H + inputs)
    size = 8 if model.dtype == "float64" else 4
    needed = size * (5 * parameters + kept)
    if memory is not None and needed > memory:
        raise ValueError(
            f"{parameters:,} parameters and batches of {batch_size:,} sequences need about {needed / 2**30:,.0f} GiB, "
            f"what is free here is {memory / 2**30:,.1f} GiB; lower --hidden-size, --layers or --batch-size"
        )
