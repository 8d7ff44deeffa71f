"""A batch cut into parts: the first is computed here, the others by workers, or here where a worker is not at hand."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from lstm_np.arrays import Array, Params, State
from lstm_np.backends import Backend
from lstm_np.kernels.cpu import cut, rows
from lstm_np.kernels.cpu.buffers import MANY_UNITS, Job, Pool, Stack, needs_no_packing
from lstm_np.kernels.cpu.description import DESCRIPTIONS
from lstm_np.kernels.cpu.footprint import values_of_batch
from lstm_np.kernels.cpu.packed import PackedFrom
from lstm_np.kernels.cpu.part import InputGradients, Inputs, OutputGradients, Outputs, Part
from lstm_np.kernels.cpu.stack_part import part_of
from lstm_np.kernels.protocol import Cut, LayerSpec

if TYPE_CHECKING:
    from lstm_np.kernels.cpu.remote import RemotePart, SharedWeights
    from lstm_np.workers.process import Worker

Workers = Sequence["Worker | None"]


class Workspace:
    """The parts of a batch, with the buffers of one forward and backward pass.

    cut     how the batch is cut
    values  how many it takes of memory, in all processes
    local   the part that is computed here
    holder  of the latest right to this
    """

    def __init__(self, jobs: Sequence[Job | Stack], found: Cut) -> None:
        first, keep, B = jobs[0], jobs[0].keep, found.parts[-1][1]
        self.cut, self.values = found, values_of_batch(jobs)
        self._packed_from = PackedFrom() if keep == "nothing" else None  # in training they change at every step
        if self._packed_from is not None:
            self.values += sum(job.of.gates * job.H * job.K for job in first.singles)
        columns = columns_of(found, first.ragged)
        self._own = columns[0]
        self._seconds = sum(
            cut.seconds(job.of.gates, job.D, job.H, job.T, B, keep != "nothing") for job in first.singles
        )
        self.holder: object = None
        self._process, self._alone = os.getpid(), False
        self._weights: SharedWeights | None = None
        self._remotes: list[RemotePart] = []
        if len(jobs) > 1:
            from lstm_np.kernels.cpu import remote  # where there is one core, nothing of processes is imported

            self._weights = remote.SharedWeights(first) if isinstance(first, Job) and first.packed else None
            for job, own in zip(jobs[1:], columns[1:], strict=True):
                self._remotes.append(remote.RemotePart(job, own, self._weights, self._seconds))
        self.local = part_of(first, None if self._weights is None else self._weights.arrays)

    @property
    def usable(self) -> bool:
        """Whether a pass can begin: not in a forked child, where shared memory is the parent's, nor while a worker that
        is late may still write to the shared weights.
        """
        settled = self._weights is None or self._weights.settled()
        return settled and not self._alone and not self.forked

    @property
    def forked(self) -> bool:
        """Whether parts of it are shared with another process that this one was forked from."""
        return bool(self._remotes) and self._process != os.getpid()

    @property
    def nbytes(self) -> int:
        """Bytes kept for backward that grow with T, in all processes."""
        return self.local.nbytes * self.cut.parts[-1][1] // self.cut.parts[0][1]

    def forward(self, params: Params, given: Inputs, wanted: Outputs, workers: Workers) -> None:
        """All parts, of arrays of the whole batch; the given states may be the wanted ones; `workers_for` this cut."""
        known = self._packed_from
        same = known is not None and known.same(params)
        if known is not None and not same:
            params = known.copy(params)
        self._forward(params, given, wanted, workers, same)
        if known is not None and not same:
            known.packed()

    def _forward(self, params: Params, given: Inputs, wanted: Outputs, workers: Workers, same: bool) -> None:
        """`same`: the weights have been packed from these parameters."""
        if not self._remotes:
            self.local.forward(params, given, wanted, packed=same)
            return
        try:
            workers = workers if same else self._pack("pack", params, workers)
            for part, worker in zip(self._remotes, workers, strict=True):
                part.begin_forward(worker, params, _inputs(given, part.columns), wanted.y is not None, same=same)
            began = time.perf_counter()
            self.local.forward(params, _inputs(given, self._own), _outputs(wanted, self._own), packed=same)
            seconds = time.perf_counter() - began
            for part in self._remotes:
                part.finish_forward(params, _outputs(wanted, part.columns), seconds)
        except BaseException:
            self._abandon()
            raise

    def backward(self, params: Params, given: OutputGradients, wanted: InputGradients) -> None:
        """All parts; the gradient of [W b U] of the first goes to `wanted.total`, those of the others to `totals`.

        For those who hold the workers, as in `forward`; only who computed a part there is asked for it here.
        """
        if not self._remotes:
            self.local.backward(params, given, wanted)
            return
        try:
            workers = self._pack("pack_backward", params, [part.keeper for part in self._remotes])
            if self._weights is not None and wanted.x is not None:
                self._weights.arrays["W"][...] = params["W"]
            for part, worker in zip(self._remotes, workers, strict=True):
                gradients = _output_gradients(given, part.columns)
                part.begin_backward(worker, gradients, wanted.x is not None, wanted.state_wanted)
            began = time.perf_counter()
            self.local.backward(params, _output_gradients(given, self._own), _input_gradients(wanted, self._own))
            seconds = time.perf_counter() - began
            for part in self._remotes:
                gradients_wanted = _input_gradients(wanted, part.columns)
                part.finish_backward(params, gradients_wanted, given.y is not None, seconds)
                part.drop_what_is_not_used()
        except BaseException:
            self._abandon()
            raise

    def totals(self, k: int = 0) -> list[Array]:
        """The gradients of [W b U] (G * H, K) of the other parts, in order, valid until the next pass.

        k  which layer and direction of a stack
        """
        return [part.totals[k] for part in self._remotes]

    def _pack(self, do: str, params: Params, workers: Workers) -> Workers:
        """Pack the weights that all parts read, if they do; the workers that can be asked afterwards."""
        if self._weights is None:
            return workers
        assert isinstance(self.local, Part)
        own = self.local.weights
        if (
            not self._alone
            and self._weights.settled()
            and self._weights.pack(do, own, params, workers[0], self._seconds)
        ):
            return [worker if worker is not None and worker.idle else None for worker in workers]
        self._alone = True  # a late worker may still write to the shared weights: this pass goes on without them
        self.local.use_own_weights()
        self.local.weights.pack(params)
        if do == "pack_backward":
            self.local.weights.pack_backward(params)
        return [None] * len(workers)

    def _abandon(self) -> None:
        """After an exception no answer is wanted."""
        for part in self._remotes:
            part.abandon()


class Claim:
    """The right to a workspace, until a backward pass is done and a later forward pass takes it, or this is dropped."""

    def __init__(self, workspace: Workspace, pool: Pool[Workspace], key: object) -> None:
        self._workspace, self._pool, self._key = workspace, pool, key
        workspace.holder = self._me = object()
        self._released = False

    @property
    def nbytes(self) -> int:
        """Bytes kept for backward that grow with T: of an LSTM 7H values per step and sample, and x, 1 and padding."""
        return self._workspace.nbytes

    def acquire(self) -> Workspace:
        """The workspace.

        Raises RuntimeError if a later forward pass has taken it since a first backward pass, or if this process was
        forked since from another, with whose parent it is shared.
        """
        if self._released:
            if self._workspace.holder is not self._me or not self._pool.take_back(self._workspace):
                raise RuntimeError(
                    "backward was called again on the saved values of an earlier forward pass, but a later forward "
                    "pass has reused their memory; call forward again before backward"
                )
            self._released = False
        if self._workspace.forked:
            raise RuntimeError("forward was called before this process was forked from another: call it again here")
        return self._workspace

    def release(self) -> None:
        """A forward pass may take the workspace from now on."""
        if not self._released:
            self._released = True
            self._pool.give(self._key, self._workspace)

    def __del__(self) -> None:
        self.release()


def take(pool: Pool[Workspace], key: object, make: Callable[[], Workspace]) -> Workspace:
    """A workspace that a pass can begin with."""
    while not (workspace := pool.take(key, make)).usable:
        pass  # what cannot be used any more
    return workspace


def jobs_of(spec: LayerSpec, T: int, found: Cut, keep: str, ragged: bool = False) -> list[Job]:
    """The parts of a batch that is cut so; `keep` and `ragged` as in `Job`."""
    cell, D, H = spec.cell.name, spec.input_size, spec.hidden_size
    of = DESCRIPTIONS[cell]
    ones = of.ones if spec.bias else 0
    sizes = [stop - start for start, stop in found.parts]
    layout, block = choose_layout(H, D + ones + H, max(sizes), ragged, training=keep != "nothing")
    packed = layout == "rows" and len(sizes) > 1
    keep = "all" if keep == "lean" and of.kept == 0 else keep  # there is nothing to save
    return [Job(cell, D, ones, H, T, b, spec.dtype, layout, block, packed, keep, ragged) for b in sizes]


def dealt(found: Cut) -> Cut:
    """As many parts of a batch whose samples have unequal lengths, with the sizes that `columns_of` gives them."""
    count, B = len(found.parts), found.parts[-1][1]
    edges = itertools.accumulate((len(range(k, B, count)) for k in range(count)), initial=0)
    return found._replace(parts=tuple(itertools.pairwise(edges)))


def columns_of(found: Cut, ragged: bool) -> list[slice]:
    """The columns of each part: side by side, or, where the longest come first, dealt out in turn."""
    if ragged:
        return [slice(k, None, len(found.parts)) for k in range(len(found.parts))]
    return [slice(*part) for part in found.parts]


def choose_layout(H: int, K: int, b: int, ragged: bool = False, *, training: bool) -> tuple[str, int]:
    """How b samples at most lie in the memory of a part, and the block of units where they are rows."""
    if b == 1:
        return "sample", 0
    together = min(b, rows.widest(H))
    block = rows.block_of_units(H, K, together)
    fast = block % rows.LANES == 0 and needs_no_packing(block, K, together)
    many = H < MANY_UNITS and (ragged or (training and fast))
    return ("rows", block) if block and (many or b <= rows.FEW) else ("columns", 0)


def workers_for(found: Cut, backend: Backend) -> AbstractContextManager[Workers]:
    """A worker for each part but the first, None where one cannot be asked now; one call at a time has them."""
    count = len(found.parts) - 1
    if count == 0 or backend.processes == 1:
        return nullcontext([None] * count)
    from lstm_np.kernels.cpu import remote

    return remote.TEAM.turn(count)


def _inputs(given: Inputs, columns: slice) -> Inputs:
    lengths = None if given.lengths is None else given.lengths[columns]
    return Inputs(given.x[:, :, columns], _columns(given.state, columns), lengths)


def _outputs(wanted: Outputs, columns: slice) -> Outputs:
    y = None if wanted.y is None else wanted.y[:, :, columns]
    return Outputs(y, _columns(wanted.state, columns))


def _output_gradients(given: OutputGradients, columns: slice) -> OutputGradients:
    y = None if given.y is None else given.y[:, :, columns]
    return OutputGradients(y, _columns(given.state, columns))


def _input_gradients(wanted: InputGradients, columns: slice) -> InputGradients:
    x = None if wanted.x is None else wanted.x[:, :, columns]
    return wanted._replace(x=x, state=_columns(wanted.state, columns))


def _columns(state: State, columns: slice) -> State:
    return tuple([part[:, columns] for part in state])
