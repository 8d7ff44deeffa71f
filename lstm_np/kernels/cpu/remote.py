"""Parts of a batch on the other cores, as the parent sees them.

A part goes to a worker, and the parent waits for it a little longer than its own part took.  Whose worker has not
answered by then, is doing something else, or has ended, is computed by the parent itself, from the same arrays by the
same code, so to the same bits; if the worker answers while the parent computes, its answer is taken.  What a forward
pass kept in a worker that is late or gone by the time of the backward pass is computed again likewise.  One that was
late is not asked for a while.  So what becomes of a worker changes how long a pass takes, and nothing else.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping

from lstm_np.arrays import Array, Params, State
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.cpu import mail, rows, serving
from lstm_np.kernels.cpu.buffers import Job, Stack, Weights, round_up
from lstm_np.kernels.cpu.part import InputGradients, Inputs, OutputGradients, Outputs, Part, nobody
from lstm_np.kernels.cpu.stack_part import StackPart, part_of, totals_wanted
from lstm_np.workers import Overtaken
from lstm_np.workers.memory import SharedMemory
from lstm_np.workers.process import Team, Worker

TEAM = Team(serving.TARGET, serving.PartServer.describe)
PATIENCE = 0.25  # of the time that the parent's own part took: how long to wait for a worker then
SHORTEST, FIRST = 2e-4, 2e-2  # seconds to wait besides: always, and where the worker has to make the part first
WAKING = 2e-3  # likewise where it slept: an idle core may take that long; no longer than the own part took
LONGEST = 10.0  # seconds, and a hundred times the estimate, until a worker that does not answer is given up
UNUSED = 100  # passes after which the parent drops the buffers of a part that a worker computes again
WORTH_PACKING_TOGETHER = 1 << 18  # weights; with few, telling the worker costs more than it packs

Arguments = dict[str, object]  # of a request, by name

_keys = itertools.count()


def patience(own_seconds: float, worker: Worker) -> float:
    """How long to wait for a worker whose part is as large as one that took so long here."""
    waking = min(WAKING, own_seconds) if worker.slow_to_begin else 0.0
    return SHORTEST + PATIENCE * own_seconds + waking


def limit(estimate: float) -> float:
    """After how many seconds a worker that has not answered is given up, by an estimate of its work in seconds."""
    return LONGEST + 100 * estimate


class SharedWeights:
    """Packed weights that the parts of all processes read, where samples are rows; one worker may pack half of them."""

    def __init__(self, job: Job) -> None:
        self.opened_in: set[Worker] = set()  # first: __del__ reads it, whatever fails below
        self.job, self.key = job, next(_keys)
        shapes = mail.shapes_of_weights(job)
        self.memory = SharedMemory(mail.size(shapes, job))
        self.arrays = mail.arrays(self.memory.mapping, shapes, job)
        self._packer: Worker | None = None  # who has been asked to pack, and the number of the request
        self._number = 0
        self._has_parameters = False  # since they changed
        self.weights = job.of.gates * job.H * job.K if job.of.gates > 1 else 0  # of which two can pack some

    def settled(self) -> bool:
        """Whether nobody may still write here, as a worker does that was too slow."""
        if self._packer is None:
            return True
        self._packer.look()
        return not self._packer.busy_with(self._number)

    def pack(self, do: str, own: Weights, params: Params, worker: Worker | None, estimate: float) -> bool:
        """Pack all gates, half of them in a worker where it repays telling one that is awake; whether that was done.

        `do`: "pack" or "pack_backward", the methods of `rows.Weights`.  Only where `settled`.  If the worker is late
        this memory is of no use until then: what another process writes must not be read, nor be written once more.
        """
        assert isinstance(own, rows.Weights)
        pack = own.pack if do == "pack" else own.pack_backward
        if do == "pack":
            self._has_parameters = False
        if worker is None or not self.memory.shareable or self.weights < WORTH_PACKING_TOGETHER or not worker.awake:
            pack(params)
            return True
        if not self._has_parameters:
            packed_here = serving.own_gates(self.job).stop * self.job.H  # rows of what has a block for each gate
            for name, array in params.items():
                theirs = slice(packed_here if len(array) == self.job.of.gates * self.job.H else 0, None)
                self.arrays[name][theirs] = array[theirs]
            self._has_parameters = True
        arguments, memories = self.introduction(worker)
        self._packer, self._number = (
            worker,
            worker.request("pack", {**arguments, "do": do}, memories, limit=limit(estimate)),
        )
        began = time.perf_counter()
        pack(params, serving.own_gates(self.job))
        worker.look(patience(time.perf_counter() - began, worker) + (FIRST if memories else 0.0))
        if worker.ended is not None:
            pack(params, serving.their_gates(self.job))
            return True
        if worker.done != self._number:
            worker.was_late()
        return worker.done == self._number

    def introduction(self, worker: Worker) -> tuple[Arguments, list[SharedMemory]]:
        """What a request about these weights must say, and the memories to send with it."""
        arguments: Arguments = {"weights": self.key}
        if worker in self.opened_in:
            return arguments, []
        self.opened_in = {worker, *(other for other in self.opened_in if other.ended is None)}
        return {**arguments, "job": self.job}, [self.memory]

    def __del__(self) -> None:
        for worker in self.opened_in:
            TEAM.forget(worker, self.key)


class RemotePart:
    """A part of a batch for a worker; `begin_...` a pass, and `finish_...` it later.  Hold `TEAM.lock`.

    columns  those of the batch
    """

    def __init__(self, job: Job | Stack, columns: slice, weights: SharedWeights | None, estimate: float) -> None:
        self._opened_in: Worker | None = None  # first: __del__ reads it, whatever fails below
        self.job, self.columns = job, columns
        self._key, self._limit, self._weights = next(_keys), limit(estimate), weights
        shapes = mail.shapes_of_part(job)
        self._memory = SharedMemory(mail.size(shapes, job))
        self._mail = mail.arrays(self._memory.mapping, shapes, job)
        self._states, self._x = mail.States.of(job, self._mail), self._mail["x"]
        self._shareable = self._memory.shareable and (weights is None or weights.memory.shareable)
        self._asked_for: set[str] = set()  # which passes of this worker; the first of each meets untouched memory
        self._first = False  # whether the one under way is the first of its kind
        self._worker: Worker | None = None  # who has been asked, and the number of the request
        self._number = 0
        self._packed_in: Worker | None = None  # who has packed the parameters that were written last
        self._kept_by: Worker | Part | StackPart | None = None  # who has what backward needs
        self._here: Part | StackPart | None = None
        self._since_used_here = 0
        self.totals: list[Array] = []

    # ---- forward

    def begin_forward(
        self, worker: Worker | None, params: Params, given: Inputs, sequence: bool, *, same: bool = False
    ) -> None:
        """Ask a worker, if there is one that can be asked; `same`: the parameters are those of the pass before."""
        self._kept_by = None
        by_samples = mail.lies_by_samples(given.x)
        self._x = mail.by_samples(self._mail["x"]) if by_samples else self._mail["x"]
        self._x[...] = given.x
        self._write(lengths=given.lengths)
        _copy(given.state, self._states.initial)
        if not same:
            self._packed_in = None
        pack = worker is None or self._packed_in is not worker
        if worker is not None and pack and not self.job.packed:
            self._write(**params)
        self._ask(worker, "forward", {"sequence": sequence, "pack": pack, "by_samples": by_samples})

    def finish_forward(self, params: Params, wanted: Outputs, own_seconds: float) -> None:
        """Wait a little, and compute it here if need be."""

        def compute(part: Part | StackPart) -> None:
            part.forward(params, self._inputs(), wanted)

        if not self._answered(own_seconds) and self._computed_here(compute):
            self._kept_by = self._here
        else:
            self._read(y=wanted.y)
            _copy(self._states.final, wanted.state)
            self._kept_by = self._packed_in = self._worker

    # ---- backward

    @property
    def keeper(self) -> Worker | None:
        """The worker that has computed forward, if it can be asked; also one that rests, for it has what is needed."""
        return self._kept_by if isinstance(self._kept_by, Worker) and self._kept_by.idle else None

    def begin_backward(
        self, worker: Worker | None, given: OutputGradients, input_gradient: bool, state_gradient: bool
    ) -> None:
        """Ask the `keeper`, unless it cannot be asked after all."""
        self._write(dy=given.y)
        _copy(given.state, self._states.arriving)
        flags = {"dy": given.y is not None, "dx": input_gradient, "state": state_gradient}
        self._ask(worker, "backward", flags)

    def finish_backward(self, params: Params, wanted: InputGradients, dy: bool, own_seconds: float) -> None:
        """As `finish_forward`; the gradient of [W b U] of each layer and direction goes to `totals` of this object."""

        def compute(part: Part | StackPart) -> None:
            self._backward_here(part, params, wanted, dy)

        if not self._answered(own_seconds) and self._computed_here(compute):
            self._kept_by = self._here
        else:
            self._read(dx=wanted.x)
            _copy(self._states.leaving, wanted.state)
            self.totals = mail.totals(self.job, self._mail)

    def _backward_here(self, part: Part | StackPart, params: Params, wanted: InputGradients, dy: bool) -> None:
        job, arrays = self.job, self._mail
        if self._kept_by is not part:
            unwanted = tuple(aligned((own.H, own.b), own.dtype) for own in job.singles for _ in own.of.state)
            part.forward(params, self._inputs(), Outputs(None, unwanted))
        # products write to arrays of the same form as in a worker
        totals = [aligned((own.of.gates * own.H, round_up(own.K)), own.dtype) for own in job.singles]
        dx = None if wanted.x is None else aligned((job.D, job.T, job.b), job.dtype)
        given = OutputGradients(arrays["dy"] if dy else None, self._states.arriving)
        part.backward(params, given, wanted._replace(x=dx, total=totals_wanted(job, totals)))
        self.totals = totals
        if wanted.x is not None:
            wanted.x[...] = dx

    # ---- what both do

    def _inputs(self) -> Inputs:
        return Inputs(self._x, self._states.initial, self._mail.get("lengths"))

    def _write(self, **arrays: Array | None) -> None:
        for name, array in arrays.items():
            if array is not None:
                self._mail[name][...] = array

    def _read(self, **arrays: Array | None) -> None:
        for name, array in arrays.items():
            if array is not None:
                array[...] = self._mail[name]

    def _ask(self, worker: Worker | None, do: str, flags: Mapping[str, bool]) -> None:
        """Send a request to a worker, if there is one and it can have the memory."""
        self._worker = None
        if worker is None or not self._shareable:
            return
        arguments: Arguments = {**flags, "part": self._key}
        memories: list[SharedMemory] = []
        if self._opened_in is not worker:
            self._asked_for.clear()
            if self._weights is not None:
                more, memories = self._weights.introduction(worker)
                arguments |= more
            arguments["job"] = self.job
            memories.append(self._memory)
            self._opened_in = worker
        self._first = do not in self._asked_for
        self._asked_for.add(do)
        self._number = worker.request(do, arguments, memories, limit=self._limit)
        self._worker = worker

    def _answered(self, own_seconds: float) -> bool:
        """Whether the worker has done it; waits a little for that."""
        if self._worker is None:
            return False
        self._worker.look(patience(own_seconds, self._worker) + (own_seconds + FIRST if self._first else 0.0))
        if self._worker.done != self._number:
            self._worker.was_late()
            return False
        self._worker.was_in_time()
        return True

    def _computed_here(self, compute: Callable[[Part | StackPart], None]) -> bool:
        """Do it in this process, unless the worker comes first; whether it was done here."""
        if self._here is None:
            self._here = part_of(self.job._replace(packed=False) if isinstance(self.job, Job) else self.job)
        self._here.overtaken = nobody if self._worker is None else self._worker_is_first
        self._since_used_here = 0
        try:
            compute(self._here)
        except Overtaken:
            return False
        finally:
            self._here.overtaken = nobody
        self.abandon()
        return True

    def _worker_is_first(self) -> bool:
        assert self._worker is not None
        if self._worker.has_answered():
            self._worker.look()
        return self._worker.done == self._number

    def abandon(self) -> None:
        """The worker's answer is not wanted any more."""
        if self._worker is not None and self._worker.busy_with(self._number):
            self._worker.refuse()

    def drop_what_is_not_used(self) -> None:
        """Free the buffers for computing this part here, some time after they were last used."""
        self._since_used_here += 1
        if self._since_used_here > UNUSED and self._kept_by is not self._here:
            self._here = None

    def __del__(self) -> None:
        if self._opened_in is not None:
            TEAM.forget(self._opened_in, self._key)


def _copy(state: State, to: State) -> None:
    for part, place in zip(state, to, strict=True):
        place[...] = part
