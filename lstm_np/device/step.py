"""A training step that stays on the GPU: nothing in it waits for the host.

For one LSTM layer, a dense read-out of its last output and softmax cross-entropy.  The data set lies on the device, as
bytes or as values; a step is these launches, captured once as a CUDA graph and then replayed:

    gather_batch          the batch from the data set, scaled and turned          x (T, B, D)
    product_transposed    W x of all time steps
    lstm_persistent_...   the sequence, one launch
    read_out              logits, loss, correct answers, and the gradient at h_T
    lstm_persistent_...   back through the sequence
    weight_gradient       dW, dU, db: one product, its sum cut into parts that fill the device
    read_out_gradient     and the step count, the position in the epoch, the sums of loss and correct answers
    collect_gradient      only when gradients are clipped by their norm
    update_parameters     adds up the parts and updates all parameters, SGD or Adam

Where the recurrent weights do not fit on a multiprocessor, the sequence is, per time step, a product and a kernel, and
the products are those of cuBLAS where the library can be called directly.

What changes from step to step (count, position, learning rate) lies in device memory, so that a replay reads it there.
Everything is added in a fixed order: the same bits in every run.  The results are those of the layers, losses and
optimizers of this package within rounding.

The host runs ahead: an epoch is begun, steps are made and sums are asked for (`look`) without waiting, so that what the
host does meanwhile (drawing the order of the next epoch, for one) costs no time of the device.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends import Backend
from lstm_np.device.launches import ELEMENTWISE, Launches, blocks, wait_for
from lstm_np.device.memory import RULES, BatchBuffers, DeviceData, Sizes, Snapshot, Update
from lstm_np.kernels import KernelWarning
from lstm_np.kernels.gpu.persistent import launch

TRAINING_KERNELS = {
    "steps": ("lstm_step_forward", "lstm_step_backward"),
    "products": ("product_transposed", "product_plain", "weight_gradient"),
    "classifier": ("gather_batch", "gather_batch_of_values", "read_out"),
    "training": ("clear", "read_out_gradient", "collect_gradient", "update_parameters"),
}


class Totals(NamedTuple):
    """Sums over samples: of their losses, how many answers were correct, how many samples."""

    loss: float
    correct: int
    samples: int

    @classmethod
    def of(cls, totals: np.ndarray) -> Totals:
        """From the three numbers that the device adds up."""
        loss, correct, samples = totals
        return cls(float(loss), int(correct), int(samples))


class Look:
    """The sums as they are after the steps made so far; `read` waits for those steps and for no later one."""

    def __init__(self, launches: Launches, totals: Array) -> None:
        self._snapshot = Snapshot(launches, totals)

    @property
    def ready(self) -> bool:
        """Whether `read` will not wait."""
        return self._snapshot.ready

    def read(self) -> Totals:
        """The sums."""
        return Totals.of(self._snapshot.read())


class DeviceTrainingStep:
    """Training steps on batches of a data set that lies on the device.

    backend     the CuPy backend
    parameters  flat vector on the device, updated in place: W (4H, D), U (4H, H), b (4H,), then the read-out's W (K, H)
                and b (K,)
    sizes       (T, D, H, K)
    images      (N, T * D), NumPy, uint8 or of the parameters' dtype: each row a sequence, step after step; `scale`
                times a value is the input
    labels      integers (N,), NumPy, 0 ... K-1
    update      the rule, learning rate and so on
    slots       the rule's moments, flat vectors of the parameters' length on the device, updated in place: "m" and "v"
                for Adam, "velocity" for SGD with momentum
    steps       how many steps have been made before (Adam's bias correction)
    persistent  False: never the one-launch kernels
    direct_blas False: never cuBLAS, always our own products
    capture     False: launch each kernel of each step

    Use: `begin_epoch(order)`, then `run(B)` for each batch, then `finish()`.  Between the two, nobody else may read or
    write parameters and slots, since the steps run on a stream of their own; what is written otherwise counts from the
    next `begin_epoch` on.  Everything happens on the device that was the current one here, whichever is later.
    `graph_refused` says why no graph is used, `own_products_because` why cuBLAS is not, each None where it is.

    Raises ValueError when sizes, dtypes or labels do not fit.
    """

    def __init__(
        self,
        backend: Backend,
        parameters: Array,
        sizes: tuple[int, int, int, int],
        images: np.ndarray,
        labels: np.ndarray,
        *,
        scale: float,
        update: Update,
        slots: Mapping[str, Array],
        steps: int = 0,
        persistent: bool = True,
        direct_blas: bool = True,
        capture: bool = True,
    ) -> None:
        self.xp = xp = backend.xp
        self.sizes, self.update, self.persistent = Sizes(*sizes), update, persistent
        self.dtype, H, K = str(parameters.dtype), self.sizes.H, self.sizes.K
        self._W, self._U, self._b, self._V, self._v = self.sizes.split(parameters)
        self.data = DeviceData(xp, self.sizes, self.dtype, images, labels, scale)
        self.parameters, self.count, self.recurrent = parameters, self.sizes.parameters, self.sizes.recurrent
        self.launches = Launches(xp, self.dtype, TRAINING_KERNELS, direct_blas=direct_blas)
        self._shared_for_read_out = (H + 2 * K) * np.dtype(self.dtype).itemsize
        self.launches.allow_shared_memory("read_out", self._shared_for_read_out)
        self._transposed = xp.empty((H, 4 * H), dtype=self.dtype)  # U^T, as `begin_epoch` and each update leave it
        unused = xp.zeros(1, dtype=self.dtype)
        self._first = slots.get("m", slots.get("velocity", unused))
        self._second = slots.get("v", unused)
        self._order = xp.asarray(np.zeros(self.data.samples, np.int32))
        self._counters = xp.asarray(np.array([steps, 0], np.int64))
        self._totals = xp.zeros(3, dtype="float64")
        self._settings = xp.asarray(np.array([update.learning_rate, *update.decay, update.epsilon], np.float64))
        self._coefficients = xp.zeros(2, dtype=self.dtype)
        self._read_out_gradient = xp.empty(K * (H + 1), dtype=self.dtype)
        self._gradient = xp.empty(self.count, dtype=self.dtype)
        self._norms = xp.empty(*blocks(self.count), dtype=self.dtype)
        self._buffers: dict[int, BatchBuffers] = {}
        self._left = 0
        self._last: BatchBuffers | None = None
        self._capture = capture
        self.graph_refused: str | None = None if capture else "not asked for"
        if self.launches.plan(H, 1, persistent=persistent) is None:
            self.launches.blas()  # so that a fallback is known, and said, before training begins
        self.launches.after_current_stream()
        # CuPy gives the memory of arrays that are dropped to others, though steps that were begun may still write to it
        weakref.finalize(self, wait_for, self.stream).atexit = False

    # ------------------------------------------------------------------------------------------------------- the epoch

    def begin_epoch(self, order: np.ndarray, position: int = 0, steps: int | None = None) -> None:
        """The next steps take samples order[position], order[position + 1] ...; order is integers (at most N,).

        `steps`: how many have been made before; None: as this object has counted.
        Returns at once; the steps wait for what the current stream has been given before.
        Raises ValueError when the order names a sample that is not there.
        """
        N, H = self.data.samples, self.sizes.H
        if order.ndim != 1 or len(order) > N or not 0 <= position <= len(order) or order.min() < 0 or order.max() >= N:
            raise ValueError(f"expected an order of at most {N} samples below {N}, found {order.shape} from {position}")
        self.launches.after_current_stream()
        with self.launches.active():
            self._order[: len(order)] = self.xp.asarray(order.astype(np.int32))
            self._counters[1:] = position
            if steps is not None:
                self._counters[:1] = steps
            self._transposed[...] = self._U.reshape(4 * H, H).T
        self._left = len(order) - position

    def set_learning_rate(self, learning_rate: float) -> None:
        """The learning rate of the steps that come."""
        with self.launches.active():
            self._settings[:1] = learning_rate

    def run(self, B: int) -> None:
        """One step on the next B samples.  Returns at once.

        Raises ValueError when fewer than B are left of the epoch's order.
        """
        if not 1 <= B <= self._left:
            raise ValueError(f"a batch of {B} is asked for, {self._left} samples of the epoch are left")
        self._left -= B
        buffers = self._last = self.buffers(B)
        with self.launches.active():
            if self._capture and buffers.warm and buffers.graph is None:
                self._record(B, buffers)
            if buffers.graph is not None:
                buffers.graph.launch(self.stream)
            else:
                self._launch_all(B, buffers)
                buffers.warm = True  # kernels are compiled and loaded now, which must not happen inside a capture

    def buffers(self, B: int) -> BatchBuffers:
        """The arrays of steps on B samples, made when they are first asked for."""
        if B not in self._buffers:
            with self.launches.active():
                self._buffers[B] = BatchBuffers(self.launches, self.sizes, B, persistent=self.persistent)
        return self._buffers[B]

    def finish(self) -> None:
        """Wait until all steps are done; parameters and moments may be read and written afterwards."""
        self.stream.synchronize()

    def look(self) -> Look:
        """The sums since `reset_totals` after the steps made so far, without waiting for them."""
        return Look(self.launches, self._totals)

    def totals(self) -> Totals:
        """The sums since `reset_totals`; waits for all steps."""
        return Totals.of(self._host(self._totals))

    def reset_totals(self) -> None:
        """Begin the sums of loss and correct answers anew."""
        self.set_totals(0.0, 0, 0)

    def set_totals(self, loss: float, correct: int, samples: int) -> None:
        """Let the sums of losses, correct answers and samples go on from these."""
        with self.launches.active():
            self._totals[...] = self.xp.asarray(np.array([loss, correct, samples], np.float64))

    def last_batch(self) -> tuple[float, int]:
        """(mean loss, correct answers) of the last step; waits for the device.  Raises ValueError before the first."""
        if self._last is None:
            raise ValueError("no step has been made yet")
        losses, hits = self._host(self._last.losses), self._host(self._last.hits)
        return float(losses.mean(dtype=np.float64)), int(hits.sum())

    @property
    def stream(self) -> Any:
        """The stream on which the steps run."""
        return self.launches.stream

    @property
    def own_products_because(self) -> str | None:
        """Why products are our own kernels where cuBLAS would be faster; None where that is not so."""
        return self.launches.own_products_because

    @property
    def steps(self) -> int:
        """Steps made, those before this object among them; waits for the device."""
        return int(self._host(self._counters)[0])

    def _host(self, array: Array) -> np.ndarray:
        with self.launches.active():
            found: np.ndarray = self.xp.asnumpy(array)
        return found

    # -------------------------------------------------------------------------------------------------------- one step

    def _record(self, B: int, buffers: BatchBuffers) -> None:
        """Capture the step of this batch size; without a graph, from now on, where that is refused, which is said."""
        try:
            self.stream.begin_capture()
            try:
                self._launch_all(B, buffers)
            finally:
                graph = self.stream.end_capture()
        except (RuntimeError, NotImplementedError) as error:
            self._capture, self.graph_refused = False, " ".join(str(error).split())
            warnings.warn(
                f"training steps are no CUDA graph ({self.graph_refused}): their kernels are launched one by one, "
                "which is slower",
                KernelWarning,
                stacklevel=2,
            )
        else:
            buffers.graph = graph

    def _launch_all(self, B: int, s: BatchBuffers) -> None:
        for stage in self.stages(B, s).values():
            stage()

    def stages(self, B: int, s: BatchBuffers) -> dict[str, Callable[[], None]]:
        """The launches of one step by what they do, in order: for `_launch_all`, and to be measured one by one."""
        T, D, H, K = self.sizes.T, self.sizes.D, self.sizes.H, self.sizes.K
        call, data, rule, last, grid = self.launches, self.data, RULES[self.update.rule], s.h[T], blocks(self.count)
        parts, partial, read_out, max_norm = s.parts, s.partial, self._read_out_gradient, self.update.max_norm
        stages: dict[str, Callable[[], None]] = {
            "gather": lambda: call(
                f"gather_batch{data.suffix}", (B,), 256,
                (B, T, D, data.scale, data.sequences, data.labels, self._order, self._counters, s.x, s.labels),
            ),
            "W x": lambda: call.product_transposed(s.blas, T * B, 4 * H, D, s.x, self._W, s.gates),
            "forward": lambda: call.sequence(s, self._U, self._b, save=True),
            "read-out and loss": lambda: call(
                "read_out", (B,), 128,
                (B, H, K, last, self._V, self._v, s.labels, s.dlogits, s.dh, s.losses, s.hits),
                self._shared_for_read_out,
            ),
            "backward": lambda: self._backward(B, s),
            "weight gradient": lambda: self._weight_gradient(B, s),
            "read-out's gradient and sums": lambda: call(
                "read_out_gradient", (-(-(H + 1) // 32), K), 128,
                (B, H, K, rule, last, s.dlogits, s.losses, s.hits, self._settings, self._read_out_gradient,
                 self._counters, self._totals, self._coefficients),
            ),
        }  # fmt: skip
        if max_norm is not None:
            arguments = (self.count, self.recurrent, parts, partial, read_out, self._gradient, self._norms)
            stages["norm"] = lambda: call("collect_gradient", grid, ELEMENTWISE, arguments)
            parts, partial, read_out = 1, self._gradient, self._gradient[self.recurrent :]
        update = (
            self.count, self.recurrent, parts, 0 if max_norm is None else grid[0], rule, D, H,
            np.dtype(self.dtype).type(max_norm or 0), partial, read_out, self._norms, self._settings,
            self._coefficients, self.parameters, self._first, self._second, self._transposed,
        )  # fmt: skip
        stages["update"] = lambda: call("update_parameters", grid, ELEMENTWISE, update)
        return stages

    def _weight_gradient(self, B: int, s: BatchBuffers) -> None:
        """dW, dU, db in `s.partial`, whole or in parts, from da in the memory of the gates."""
        T, D, H = self.sizes.T, self.sizes.D, self.sizes.H
        if s.blas is None:
            self.launches(
                "weight_gradient", (-(-4 * H // 128), -(-(D + H + 1) // 64), s.parts), 256,
                (T * B, s.rows_per_part, D, H, s.gates, s.x, s.h, s.partial),
            )  # fmt: skip
            return
        flat, ends = s.partial.reshape(self.recurrent), (4 * H * D, 4 * H * (D + H))
        dW, dU, db = flat[: ends[0]], flat[ends[0] : ends[1]], flat[ends[1] :]
        for out, width, rows in ((dW, D, s.x), (dU, H, s.h), (db, 1, s.ones)):
            s.blas(width, 4 * H, T * B, rows.data.ptr, False, s.gates.data.ptr, True, out.data.ptr)

    def _backward(self, B: int, s: BatchBuffers) -> None:
        """da of all steps, in the memory of the gates."""
        T, H, call = self.sizes.T, self.sizes.H, self.launches
        nothing = s.dh  # there is no dy: the loss looks at the last output only
        if s.plan is not None:
            sizes = (np.int32(T), np.int32(B), np.int32(False), np.int32(False))
            launch(
                s.backward, s.plan.backward, B,
                (*sizes, self._transposed, s.gates, s.c, nothing, s.dh, s.dc, s.gates),
            )  # fmt: skip
            return
        call("clear", blocks(B * H), ELEMENTWISE, (B * H, s.dc))
        for t in reversed(range(T)):
            arrays = (s.gates, s.c, nothing, s.dh, s.dc, s.gates)
            call("lstm_step_backward", blocks(B * H), ELEMENTWISE, (t, B, H, False, *arrays))
            if t > 0:
                call.product_plain(s.blas, B, H, 4 * H, s.gates[t], self._U, s.dh)
