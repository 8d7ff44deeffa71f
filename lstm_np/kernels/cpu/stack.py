"""The layers of a stack in one pass of the fused kernel: each part of a batch goes through all of them in one process.

Where layers run one after the other, the outputs of each go from the processes to the caller and back to the processes,
and all wait for the slowest.  Here only what goes into the stack and what comes out of it does (`stack_part.py`).  Each
layer is cut and computed as it is alone, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from lstm_np.arrays import Array, Params, State
from lstm_np.backends.blas_threads import blas_threads
from lstm_np.kernels.cpu import rows
from lstm_np.kernels.cpu.buffers import Job, Pool, Stack, named
from lstm_np.kernels.cpu.fused import NumpyFusedKernel, contiguous
from lstm_np.kernels.cpu.part import InputGradients, Inputs, OutputGradients, Outputs
from lstm_np.kernels.cpu.workspace import Claim, Workspace, jobs_of, take, workers_for
from lstm_np.kernels.protocol import Cut

KNOWN_LIMIT = 64  # shapes of batches whose cut is remembered
MOST = 32  # layers and directions: a worker is told the sizes of all in one message, which has its limits


class FusedStack:
    """As `lstm_np.kernels.protocol.KernelStack`."""

    def __init__(self, kernels: Sequence[NumpyFusedKernel], directions: Sequence[bool]) -> None:
        self.kernels, self._directions = tuple(kernels), tuple(directions)
        self._spec, self._backend = kernels[0].spec, kernels[0].backend
        itemsize = np.dtype(self._spec.dtype).itemsize
        self._workspaces: Pool[Workspace] = Pool(lambda item: item.values * itemsize)
        self._known: dict[tuple[int, int, bool], Cut | None] = {}

    def runs(self, kernels: Sequence[object]) -> bool:
        """As `lstm_np.kernels.protocol.KernelStack`."""
        return all(kernel is own for kernel, own in zip(kernels, self.kernels, strict=True))

    def takes(self, T: int, B: int, save: bool) -> bool:
        """Whether all layers are cut in the same way, in more than one part, and no parts share weights."""
        return self._cut(T, B, save) is not None

    def _cut(self, T: int, B: int, save: bool) -> Cut | None:
        """That of all layers; None where the stack does not take such batches."""
        key = T, B, save
        with suppress(KeyError):
            return self._known[key]
        found = self._find_cut(T, B, save)
        if len(self._known) >= KNOWN_LIMIT:
            self._known.clear()
        self._known[key] = found
        return found  # another thread may have cleared what is known by now

    def _find_cut(self, T: int, B: int, save: bool) -> Cut | None:
        found, *others = {kernel.cut(T, B, save) for kernel in self.kernels}
        if others or len(found.parts) == 1 or len(self.kernels) > MOST:
            return None
        few = max(stop - start for start, stop in found.parts) <= rows.FEW
        layouts = {job.layout for stack in self._stacks(T, found, save) for job in stack.singles}
        return None if few and layouts != {"columns"} else found

    def forward(
        self, params: Sequence[Params], x: Array, states: Sequence[State], *, sequence: bool = True, save: bool = True
    ) -> tuple[Array | None, list[State], Claim | None]:
        """As `lstm_np.kernels.protocol.KernelStack.forward`."""
        _, T, B = x.shape
        dtype, outputs = self._spec.dtype, self.kernels[-1].spec.hidden_size * len(self._directions)
        found = self._cut(T, B, save)
        assert found is not None
        state = tuple([np.array(part, dtype, order="C") for own in states for part in own])
        y = np.empty((outputs, T, B), dtype) if sequence else None
        key = T, found, save
        with workers_for(found, self._backend) as workers, blas_threads(found.blas_threads):
            workspace = take(self._workspaces, key, lambda: Workspace(self._stacks(T, found, save), found))
            workspace.forward(self._flat(workspace, params), Inputs(x, state), Outputs(y, state), workers)
        final = self._by_layer(state)
        if save:
            return y, final, Claim(workspace, self._workspaces, key)
        self._workspaces.give(key, workspace)
        return y, final, None

    def backward(
        self,
        params: Sequence[Params],
        saved: Claim,
        dy: Array | None,
        dstates: Sequence[tuple[Array | None, ...]],
        *,
        input_gradient: bool = True,
        state_gradient: bool = True,
        into: Sequence[Mapping[str, Array] | None],
    ) -> tuple[Array | None, list[State] | None, list[dict[str, Array]]]:
        """As `lstm_np.kernels.protocol.KernelStack.backward`."""
        workspace = saved.acquire()
        job, found = workspace.local.job, workspace.cut
        B = found.parts[-1][1]
        dx = np.empty((job.D, job.T, B), job.dtype) if input_gradient else None
        own = [kernel.state_gradients(dstate, B) for kernel, dstate in zip(self.kernels, dstates, strict=True)]
        gradients = tuple(part for state in own for part in state)
        weights = [
            kernel.weight_gradients(single, given, place)
            for kernel, single, given, place in zip(self.kernels, job.singles, params, into, strict=True)
        ]
        with workers_for(found, self._backend), blas_threads(found.blas_threads):
            wanted = InputGradients(dx, gradients, state_gradient, [one.wanted for one in weights])
            workspace.backward(self._flat(workspace, params), OutputGradients(dy, gradients), wanted)
            for k, one in enumerate(weights):
                one.add(workspace.totals(k))
        saved.release()
        grads = [kernel.finished(one) for kernel, one in zip(self.kernels, weights, strict=True)]
        return dx, own if state_gradient else None, grads

    def _stacks(self, T: int, found: Cut, save: bool) -> list[Stack]:
        """The parts of a batch that is cut so."""
        of_each: list[list[Job]] = [
            [job._replace(packed=False) for job in jobs_of(kernel.spec, T, found, kernel.keep if save else "nothing")]
            for kernel in self.kernels
        ]
        return [Stack(singles, self._directions) for singles in zip(*of_each, strict=True)]

    def _flat(self, workspace: Workspace, params: Sequence[Params]) -> Params:
        """All parameters, `named`."""
        job = workspace.local.job
        return {named(job, k, name): a for k, own in enumerate(params) for name, a in contiguous(own).items()}

    def _by_layer(self, state: State) -> list[State]:
        count = len(self._spec.cell.state)
        return [tuple(state[k : k + count]) for k in range(0, len(state), count)]
