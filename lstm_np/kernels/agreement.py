"""What is read is what runs: whether a fast kernel computes the cell that is read.

A fast kernel has the equations of one cell in lines of its own.  Whoever edits the cell's file edits what the reference
kernel runs, and no other.  So when a layer is made, one step of a small layer goes through the cell's functions,
forward and backward, and what comes out is compared with what the fast kernel makes of the same step: that is computed
once per process, or, where it needs a device, its numbers stand with the kernel.  One that computes another cell gives
way.
"""

from __future__ import annotations

import numpy as np

from lstm_np.backends import Backend, get_backend
from lstm_np.cells import Cell
from lstm_np.kernels.protocol import Kernel, LayerSpec
from lstm_np.kernels.reference import ReferenceKernel

# the small layer has D inputs, H units, and B samples with small, usual and large numbers: a cell that saturates in
# another way, or cuts large values off, shows as well as one with another equation
D, H, B = 1, 2, 4
SCALES = np.array([0.3, 1.0, 5.0, 40.0])
RELATIVE, ABSOLUTE = 1e-9, 1e-11  # rounding is far below, in float64
HOST = get_backend("numpy", threads=1)

_of_kernels: dict[tuple[type[Kernel], str], np.ndarray] = {}


def difference(kernel: type[Kernel], cell: Cell) -> str | None:
    """What `cell`, one that `kernel` supports, has or gives that it does not, in a few words; None: they compute the
    same."""
    if kernel.computes is None:
        return None
    (known,) = (computes for computes in kernel.computes if computes.name == cell.name)
    if (cell.gates, cell.state, cell.parameters, cell.products) != known[1:5]:
        return "other gates, state or parameters"
    key = kernel, cell.name
    if key not in _of_kernels:
        _of_kernels[key] = step_results(kernel, cell, HOST) if known.results is None else np.array(known.results)
    expected = _of_kernels[key]
    near = np.abs(step_results(ReferenceKernel, cell, HOST) - expected) <= ABSOLUTE + RELATIVE * np.abs(expected)
    outputs = len(cell.state)  # the first of the results, those of the forward pass
    return None if near.all() else "other gradients" if near[:outputs].all() else "other outputs"


def step_results(kernel: type[Kernel], cell: Cell, backend: Backend) -> np.ndarray:
    """(1 + 2 * len(cell.state), B), float64: y, the other parts of the state, dx and the state's gradient after a step.

    Each is summed over its units, with a weight for each; parameters of the cell's own are biases (H,).
    """
    rows, parts, put = len(cell.gates) * H, range(len(cell.state)), backend.from_host
    params = {"W": 1.3 * _numbers(0, rows, D), "U": _numbers(8, rows, H), "b": _numbers(24, rows)}
    params |= {parameter.name: _numbers(110 + k, H) for k, parameter in enumerate(cell.parameters)}
    state = tuple(put(SCALES ** (2 * k) * _numbers(40 + 10 * k, H, B)) for k in parts)  # h is below 1, c may be large
    dstate = tuple(put(SCALES * _numbers(60 + 10 * k, H, B)) for k in parts)
    params = {name: put(array) for name, array in params.items()}
    made = kernel(LayerSpec(cell, D, H, True, "float64"), backend)
    y, final, saved = made.forward(params, put(SCALES * _numbers(32, D, 1, B)), state)
    dx, dstate_0, _ = made.backward(params, saved, put(_numbers(90, H, 1, B)), dstate)
    arrays = [backend.to_host(array).reshape(-1, B) for array in (y, *final[1:], dx, *(dstate_0 or ()))]
    return np.stack([(_numbers(100, len(array), 1) * array).sum(axis=0) for array in arrays])


def _numbers(first: int, *shape: int) -> np.ndarray:
    """Numbers in (-1, 1), the same on every machine but for rounding."""
    count = int(np.prod(shape))
    return np.cos(1.7 * np.arange(first, first + count)).reshape(shape)
