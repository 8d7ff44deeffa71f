"""Recurrent layers on a CPU, fast: a cell's equations with as few passes over memory as NumPy allows.

What is said here of an LSTM holds for the other cells too; `description.py` lists them.  The passes of each are in a
file of its own (`lstm.py`), with the equations' numbers of `lstm_np.cells`.

One product per step
    ``Z`` (T + 1, K, b), K = D + 1 + H, holds [x_t; 1; h_{t-1}] of each step, and a step writes its h_t where the next
    step reads it, so (1) is a = [W b U] Z_t straight into a buffer, and the gradient of all three is one product
    da Z^T over many steps.

One tanh for four gates
    sigmoid(a) = (1 + tanh(a/2)) / 2.  The halves go into the weights: the rows of i, f and o in [W b U] are halved once
    per call, tanh runs over all 4H rows in place, and i, f, o = 1/2 tanh + 1/2.

What backward needs, computed while it is in the cache
    The forward pass keeps, instead of the gates, what da are of dh and dc: a few passes over what still lies in the
    cache, and backward is left with a product a gate.

Products that BLAS need not pack
    OpenBLAS on AVX-512 multiplies up to 10^6 multiply-adds straight from memory, and repacks the whole of both
    matrices for more.  Here the weights come back 2T times, so products are cut into blocks of rows below that limit,
    which one `matmul` of stacked blocks does in one call.  In large layers U^T da is a sum over parts of its columns,
    since no block of the whole is small enough.

What a step reads and writes lies together
    Every block of weights goes through all of a step's operand, so Z_t and da_t are contiguous.  For the weight
    gradient, one product over some steps, rows lie as it needs them; of columns Z_t are copied transposed one below the
    other, and da_t side by side.

Workers
    Columns (samples) are independent, so the batch is cut into one part per core, which goes from the first step to
    the last alone, in strips that fit the cache, with one BLAS thread, and sums its own weight gradient; the sums are
    added in order at the end.  How it is cut is a function of the sizes and the number of cores: the same number gives
    the same bits, whoever computes what.  The parts beside the first run in worker processes, and the arrays they need
    travel through shared memory.  Processes, not threads: of two threads each waits at almost every call for Python's
    lock.  What is too small to repay the copies and the calls stays here.

Stacks
    A part goes through all layers of a stack in the same process, wherever nothing is to be done between them
    (`stack.py`): outputs and their gradients are not copied between processes, and nobody waits between layers.

Three layouts
    Up to 24 samples are rows (`rows.py`), where products run up to twice as fast as those of columns, and one is
    multiplied as it is (`sample.py`).  More are rows too in training, below 512 units, where blocks of a multiple of 32
    units divide these: the weight gradient then needs no copies, and BLAS need not pack its operands.  All others are
    columns (`columns.py`).  A cell's passes are the same lines for all three.  Rows in several processes read one copy
    of the weights, packed here, half of it by a worker where it is large.

What was measured for each of these, and what was tried and gains nothing, is in docs/cpu-kernel.md.

The loops around the passes are in `lstm_np.kernels.cpu.part`, the buffers in `lstm_np.kernels.cpu.buffers`, the
processes in `lstm_np.workers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from lstm_np.arrays import Array, Params, State
from lstm_np.backends import Backend
from lstm_np.backends.blas_threads import blas_threads
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import cut, sample
from lstm_np.kernels.cpu.buffers import Job, Pool, round_up
from lstm_np.kernels.cpu.description import DESCRIPTIONS
from lstm_np.kernels.cpu.footprint import values_of_batch
from lstm_np.kernels.cpu.part import PASSES, InputGradients, Inputs, OutputGradients, Outputs
from lstm_np.kernels.cpu.passes import OneSample
from lstm_np.kernels.cpu.step import STEPPERS
from lstm_np.kernels.cpu.workspace import Claim, Workspace, dealt, jobs_of, take, workers_for
from lstm_np.kernels.protocol import Cut, LayerSpec
from lstm_np.kernels.reference import ReferenceKernel
from lstm_np.kernels.steps import Stepper
from lstm_np.packing import Packing

LARGE_GRADIENT = 1 << 20  # values, which no core's own cache holds


def sums_in_place(job: Job) -> bool:
    """Whether this part sums the gradients of W, b and U where they are wanted, by a product each.

    One product for the three is faster, but where little is computed, and where it does not stay in the cache, moving
    its result from there costs more.
    """
    return job.layout == "sample" or (job.layout == "rows" and job.of.gates * job.H * job.K >= LARGE_GRADIENT)


class NumpyFusedKernel:
    """One layer over a whole sequence; see `lstm_np.kernels.protocol` for shapes, this module for how."""

    name = "fused"
    computes = tuple(of.computes for of in DESCRIPTIONS.values())
    packs = True
    keep = "all"

    def __init__(self, spec: LayerSpec, backend: Backend) -> None:
        self.spec, self.backend = spec, backend
        self._of = DESCRIPTIONS[spec.cell.name]
        itemsize = np.dtype(spec.dtype).itemsize
        self._workspaces: Pool[Workspace] = Pool(lambda item: item.values * itemsize)
        self._one_sample: Pool[OneSample] = Pool(lambda item: item.values * itemsize)
        self._totals: Pool[Array] = Pool(lambda array: array.nbytes)

    @classmethod
    def supports(cls, spec: LayerSpec, backend: Backend) -> bool:
        """The cells of `description.py` in float32 or float64."""
        return spec.asks_only() and spec.cell.name in DESCRIPTIONS and spec.dtype in ("float32", "float64")

    def cut(self, T: int, B: int, save: bool = True) -> Cut:
        """A part for each core, where they repay sharing the work."""
        sizes = self._of.gates, self.spec.input_size, self.spec.hidden_size
        return cut.share_out(*sizes, T, B, self.backend.cores, save)

    def stepper(self, params: Params, batch: tuple[int, ...], first: bool) -> Stepper:
        """As `lstm_np.kernels.steps.make_stepper`; of a cell without a fast one, that of the reference kernel."""
        make = STEPPERS.get(self.spec.cell.name)
        if make is None:
            return ReferenceKernel(self.spec, self.backend).stepper(params, batch, first)
        return make(self.spec, params, batch, self.cut(1, math.prod(batch), False).blas_threads)

    def host_values(self, T: int, B: int) -> tuple[int, int]:
        """As `lstm_np.kernels.protocol.Kernel.host_values`."""
        jobs = jobs_of(self.spec, T, self.cut(T, B), self.keep)
        return values_of_batch(jobs) + self._of.gates * jobs[0].H * round_up(jobs[0].K), 0

    def forward(
        self,
        params: Params,
        x: Array,
        state: State,
        *,
        sequence: bool = True,
        save: bool = True,
        packing: Packing | None = None,
    ) -> tuple[Array | None, State, Claim | None]:
        """(y (H, T, B), final state, saved) from x (D, T, B) and the initial state, parts (H, B)."""
        _, T, B = x.shape
        params = contiguous(params)
        y = np.empty((self.spec.hidden_size, T, B), self.spec.dtype) if sequence else None
        found = self.cut(T, B, save)
        if B == 1 and not save and packing is None:
            return y, self._infer_one(params, x, state, y, found.blas_threads), None
        state = tuple([np.array(part, self.spec.dtype, order="C") for part in state])
        ragged, lengths = packing is not None, None
        if packing is not None:
            found, lengths = dealt(found), packing.lengths[packing.order].astype(self.spec.dtype)
        key = T, found, save, ragged
        with workers_for(found, self.backend) as workers, blas_threads(found.blas_threads):
            workspace = self._take(key)
            workspace.forward(params, Inputs(x, state, lengths), Outputs(y, state), workers)
        if save:
            return y, state, Claim(workspace, self._workspaces, key)
        self._workspaces.give(key, workspace)
        return y, state, None

    def backward(
        self,
        params: Params,
        saved: Claim,
        dy: Array | None,
        dstate: State,
        *,
        input_gradient: bool = True,
        state_gradient: bool = True,
        into: Mapping[str, Array] | None = None,
    ) -> tuple[Array | None, State | None, dict[str, Array]]:
        """(dx (D, T, B), gradient of the initial state, grads) from dy (H, T, B) and the final state's gradient.

        May be called again for the same `saved`, until a forward call has reused its memory: then RuntimeError.
        RuntimeError also in a process forked since the forward call, with whose parent the saved values are shared.
        """
        D, dtype = self.spec.input_size, self.spec.dtype
        workspace = saved.acquire()
        (job,), found = workspace.local.job.singles, workspace.cut
        T, B, params = job.T, found.parts[-1][1], contiguous(params)
        dx = np.empty((D, T, B), dtype) if input_gradient else None
        gradients = self.state_gradients(dstate, B)
        weights = self.weight_gradients(job, params, into)
        with workers_for(found, self.backend), blas_threads(found.blas_threads):
            wanted = InputGradients(dx, gradients, state_gradient, weights.wanted)
            workspace.backward(params, OutputGradients(dy, gradients), wanted)
            weights.add(workspace.totals())
        saved.release()
        return dx, gradients if state_gradient else None, self.finished(weights)

    def state_gradients(self, dstate: Sequence[Array | None], B: int) -> State:
        """Those of the final state as a backward pass overwrites them: copies, zeros where none is given."""
        H, dtype = self.spec.hidden_size, self.spec.dtype
        return tuple(np.zeros((H, B), dtype) if part is None else np.array(part, dtype, order="C") for part in dstate)

    def weight_gradients(self, job: Job, params: Params, into: Mapping[str, Array] | None) -> WeightGradients:
        """Where a backward pass of a part like `job` is to sum them; `finished` once all other parts are added."""
        places = into or {}
        grads = {name: places[name] if name in places else np.empty_like(array) for name, array in params.items()}
        columns, G = self._columns(grads), self._of.gates
        if sums_in_place(job):
            return WeightGradients(grads, columns, None)
        shape = G * self.spec.hidden_size, round_up(job.K)
        return WeightGradients(grads, columns, self._totals.take(None, lambda: aligned(shape, self.spec.dtype)))

    def finished(self, gradients: WeightGradients) -> dict[str, Array]:
        """By the names of the parameters."""
        grads, columns, room = gradients
        if "b_n" in grads:
            grads["b_n"][...] = columns[-1][1][-self.spec.hidden_size :, 0]
        if room is not None:
            self._totals.give(None, room)
        return grads

    def _infer_one(self, params: Params, x: Array, state: State, y: Array | None, threads: int) -> State:
        """The final state of one sample without a backward pass, whose outputs go to y, if they are wanted."""
        count = min(x.shape[1], sample.INFER_STEPS)
        with blas_threads(threads):
            one = self._one_sample.take(count, partial(self._new_one, count))
            final = one.run(params, x[:, :, 0], state, None if y is None else y[:, :, 0])
            self._one_sample.give(count, one)
        return final

    def _new_one(self, count: int) -> OneSample:
        """Buffers for one sample without a backward pass, `count` steps at a time."""
        (job,) = jobs_of(self.spec, count, Cut(((0, 1),), 1), "nothing")
        return PASSES[job.cell].OneSample(job, count)

    def _take(self, key: tuple[int, Cut, bool, bool]) -> Workspace:
        T, found, save, ragged = key
        keep = self.keep if save else "nothing"
        return take(self._workspaces, key, lambda: Workspace(jobs_of(self.spec, T, found, keep, ragged), found))

    def _columns(self, grads: Mapping[str, Array]) -> list[tuple[slice, Array]]:
        """Where W, U and b stand in [W b U] (G * H, K), and their gradients, b's as a column.

        The second column of biases, c_n of a GRU, is the last of these; its first rows stand for nothing.
        """
        D, H = self.spec.input_size, self.spec.hidden_size
        ones = self._of.ones if self.spec.bias else 0
        found = [(slice(0, D), grads["W"]), (slice(D + ones, D + ones + H), grads["U"])]
        if ones:
            found.append((slice(D, D + 1), grads["b"][:, None]))
        if ones == 2:
            found.append((slice(D + 1, D + 2), np.empty((self._of.gates * H, 1), self.spec.dtype)))
        return found


class NumpyLeanKernel(NumpyFusedKernel):
    """The same with a seventh of the memory: of each step only h_t and x_t are kept, and c before every chunk of steps.

    Backward runs each chunk forward again from its c: the same operations, so the same bits as `NumpyFusedKernel`.
    """

    name = "lean"
    packs = False
    keep = "lean"


class WeightGradients(NamedTuple):
    """The gradients of a layer's parameters, and where the first part of a batch sums them.

    grads    by name; those that are no columns of [W b U] come last
    columns  where each stands in [W b U] (G * H, K), and its array
    room     for that of [W b U] as a whole; None: it is summed in the arrays themselves
    """

    grads: dict[str, Array]
    columns: list[tuple[slice, Array]]
    room: Array | None

    @property
    def wanted(self) -> Sequence[tuple[slice, Array]]:
        """As `InputGradients.total`."""
        return self.columns if self.room is None else [(slice(None), self.room)]

    def add(self, totals: list[Array]) -> None:
        """The gradients of [W b U] of the other parts, in their order, once that of the first is there."""
        for which, grad in self.columns:
            first, *others = [
                grad if self.room is None else self.room[:, which],
                *(total[:, which] for total in totals),
            ]
            for other in others:
                first = np.add(first, other, grad)
            if first is not grad:
                grad[...] = first


def contiguous(params: Params) -> Params:
    """The parameters as every process has them: how an array lies in memory can decide how a product is computed."""
    return {name: np.ascontiguousarray(array) for name, array in params.items()}
