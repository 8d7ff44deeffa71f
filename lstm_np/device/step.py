"""A training step that stays on the GPU: nothing in it waits for the host.

For one LSTM layer, a dense read-out of its last output and softmax cross-entropy.  The data set lies on the device
as bytes; a step is these launches, captured once as a CUDA graph and then replayed:

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
optimisers of this package within rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstm_np.backends import Backend
from lstm_np.device.memory import RULES, BatchBuffers, Update
from lstm_np.kernels.gpu import cuda_source
from lstm_np.kernels.gpu.cublas import StreamProducts
from lstm_np.kernels.gpu.launch_plan import describe_device
from lstm_np.kernels.gpu.persistent import launch
from lstm_np.kernels.protocol import Array

KERNELS = {
    "steps": ("lstm_step_forward", "lstm_step_backward"),
    "products": ("product_transposed", "product_plain", "weight_gradient"),
    "training": ("gather_batch", "clear", "read_out", "read_out_gradient", "collect_gradient", "update_parameters"),
}


class DeviceTrainingStep:
    """Training steps on batches of a data set that lies on the device.

    backend     the CuPy backend
    parameters  flat vector on the device, updated in place: W (4H, D), U (4H, H), b (4H,), then the read-out's W (K, H)
                and b (K,)
    sizes       (T, D, H, K)
    images      uint8 (N, T * D), NumPy: each row a sequence, step after step; `scale` times a value is the input
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
    next `begin_epoch` on.  `graph_refused` says why no graph is used, or
    is None.

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
        _, D, H, K = sizes
        self.xp = xp = backend.xp
        self.sizes, self.dtype, self.update, self.persistent = sizes, str(parameters.dtype), update, persistent
        self.count, self.recurrent = K * (H + 1) + 4 * H * (D + H + 1), 4 * H * (D + H + 1)
        self._check(parameters, images, labels)
        self.device = describe_device(xp)
        self._kernels = {
            name: cuda_source.kernel(xp, (file,), name, self.dtype) for file, names in KERNELS.items() for name in names
        }
        self._shared_for_read_out = (H + 2 * K) * np.dtype(self.dtype).itemsize
        cuda_source.allow_shared_memory(self._kernels["read_out"], self._shared_for_read_out)
        self.parameters = parameters
        self._W, self._U, self._b = self._split(parameters, (4 * H * D, 4 * H * H, 4 * H))
        self._V, self._v = self._split(parameters[self.recurrent :], (K * H, K))
        self._transposed = xp.ascontiguousarray(self._U.reshape(4 * H, H).T)
        unused = xp.zeros(1, dtype=self.dtype)
        self._first = slots.get("m", slots.get("velocity", unused))
        self._second = slots.get("v", unused)
        self._images, self._labels = xp.asarray(images), xp.asarray(labels.astype(np.int32))
        self._scale = np.dtype(self.dtype).type(scale)
        self._order = xp.asarray(np.zeros(len(images), np.int32))
        self._counters = xp.asarray(np.array([steps, 0], np.int64))
        self._totals = xp.zeros(3, dtype="float64")
        self._settings = xp.asarray(np.array([update.learning_rate, *update.decay, update.epsilon], np.float64))
        self._coefficients = xp.zeros(2, dtype=self.dtype)
        self._read_out_gradient = xp.empty(K * (H + 1), dtype=self.dtype)
        self._gradient = xp.empty(self.count, dtype=self.dtype)
        self._norms = xp.empty(-(-self.count // 256), dtype=self.dtype)
        self._buffers: dict[int, BatchBuffers] = {}
        self._left = 0
        self._last: BatchBuffers | None = None
        self._stream = xp.cuda.Stream(non_blocking=True)
        self._blas: StreamProducts | None = None
        self._direct_blas = direct_blas
        self._capture = capture
        self.graph_refused: str | None = None if capture else "not asked for"
        backend.synchronize()

    def _check(self, parameters: Array, images: np.ndarray, labels: np.ndarray) -> None:
        T, D, _, K = self.sizes
        if self.dtype not in cuda_source.REALS or parameters.shape != (self.count,):
            found = f"{self.dtype} {parameters.shape}"
            raise ValueError(f"expected {self.count} float32 or float64 parameters, found {found}")
        if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != T * D or len(images) == 0:
            raise ValueError(f"expected images uint8 (N, {T * D}), found {images.dtype} {images.shape}")
        if labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= K:
            raise ValueError(f"expected {len(images)} labels from 0 to {K - 1}, found {labels.shape}")

    def _split(self, flat: Array, lengths: tuple[int, ...]) -> list[Array]:
        ends = np.cumsum(lengths)
        return [flat[end - length : end] for end, length in zip(ends, lengths, strict=True)]

    # ------------------------------------------------------------------------------------------------------- the epoch

    def begin_epoch(self, order: np.ndarray, position: int = 0, steps: int | None = None) -> None:
        """The next steps take samples order[position], order[position + 1] ...; order is integers (at most N,).

        `steps`: how many have been made before; None: as this object has counted.
        Waits for the device.  Raises ValueError when the order names a sample that is not there.
        """
        N = self._images.shape[0]
        if order.ndim != 1 or len(order) > N or not 0 <= position <= len(order) or order.min() < 0 or order.max() >= N:
            raise ValueError(f"expected an order of at most {N} samples below {N}, found {order.shape} from {position}")
        self.xp.cuda.get_current_stream().synchronize()
        self.finish()
        self._order[: len(order)] = self.xp.asarray(order.astype(np.int32))
        self._counters[1] = position
        if steps is not None:
            self._counters[0] = steps
        self._transposed[...] = self._U.reshape(4 * self.sizes[2], self.sizes[2]).T
        self._left = len(order) - position
        self.xp.cuda.get_current_stream().synchronize()

    def set_learning_rate(self, learning_rate: float) -> None:
        """The learning rate of the steps that come."""
        with self._stream:
            self._settings[0] = learning_rate

    def run(self, B: int) -> None:
        """One step on the next B samples.  Returns at once.

        Raises ValueError when fewer than B are left of the epoch's order.
        """
        if not 1 <= B <= self._left:
            raise ValueError(f"a batch of {B} is asked for, {self._left} samples of the epoch are left")
        self._left -= B
        if B not in self._buffers:
            self._buffers[B] = BatchBuffers(
                self.xp, self.device, self.dtype, self.sizes, B, persistent=self.persistent, open_blas=self._open_blas
            )
            self.xp.cuda.get_current_stream().synchronize()
        buffers = self._last = self._buffers[B]
        with self._stream:
            if self._capture and buffers.warm and buffers.graph is None:
                self._record(B, buffers)
            if buffers.graph is not None:
                buffers.graph.launch(self._stream)
            else:
                self._launch_all(B, buffers)
                buffers.warm = True  # kernels are compiled and loaded now, which must not happen inside a capture

    def finish(self) -> None:
        """Wait until all steps are done; parameters and moments may be read and written afterwards."""
        self._stream.synchronize()

    def totals(self) -> tuple[float, int, int]:
        """(sum of the samples' losses, correct answers, samples) since `reset_totals`; waits for the device."""
        self.finish()
        loss, correct, count = self._host(self._totals)
        return float(loss), int(correct), int(count)

    def reset_totals(self) -> None:
        """Begin the sums of loss and correct answers anew."""
        self.set_totals(0.0, 0, 0)

    def set_totals(self, loss: float, correct: int, samples: int) -> None:
        """Let the sums of losses, correct answers and samples go on from these."""
        with self._stream:
            for k, value in enumerate((loss, correct, samples)):
                self._totals[k] = value

    def last_batch(self) -> tuple[float, int]:
        """(mean loss, correct answers) of the last step; waits for the device.  Raises ValueError before the first."""
        if self._last is None:
            raise ValueError("no step has been made yet")
        self.finish()
        losses, hits = self._host(self._last.losses), self._host(self._last.hits)
        return float(losses.mean(dtype=np.float64)), int(hits.sum())

    @property
    def stream(self) -> Any:
        """The stream on which the steps run."""
        return self._stream

    @property
    def steps(self) -> int:
        """Steps made, those before this object among them; waits for the device."""
        self.finish()
        return int(self._host(self._counters)[0])

    def _host(self, array: Array) -> np.ndarray:
        return self.xp.asnumpy(array)

    def _open_blas(self) -> StreamProducts | None:
        """cuBLAS on this object's stream; None where the library is not found: our own products do its work then."""
        if self._blas is None and self._direct_blas:
            try:
                self._blas = StreamProducts(self.xp, self.dtype, self._stream)
            except (ImportError, OSError):
                self._direct_blas = False
        return self._blas

    # -------------------------------------------------------------------------------------------------------- one step

    def _record(self, B: int, buffers: BatchBuffers) -> None:
        """Capture the step of this batch size; without a graph, from now on, where that is refused."""
        try:
            self._stream.begin_capture()
            try:
                self._launch_all(B, buffers)
            finally:
                graph = self._stream.end_capture()
        except (RuntimeError, NotImplementedError) as error:
            self._capture, self.graph_refused = False, " ".join(str(error).split())
        else:
            buffers.graph = graph

    def _call(self, name: str, grid: tuple[int, ...], block: int, args: tuple[Any, ...], shared_mem: int = 0) -> None:
        plain = tuple(np.int32(a) if isinstance(a, (int, bool)) else a for a in args)
        self._kernels[name](grid, (block,), plain, shared_mem=shared_mem)

    def _launch_all(self, B: int, s: BatchBuffers) -> None:
        T, D, H, K = self.sizes
        rule, blocks = RULES[self.update.rule], -(-self.count // 256)
        last = s.h[T]
        self._call(
            "gather_batch", (B,), 256,
            (B, T, D, self._scale, self._images, self._labels, self._order, self._counters, s.x, s.labels),
        )  # fmt: skip
        self._product_transposed(s, T * B, 4 * H, D, s.x, self._W, s.gates)
        self._forward(B, s)
        self._call(
            "read_out", (B,), 128,
            (B, H, K, last, self._V, self._v, s.labels, s.dlogits, s.dh, s.losses, s.hits),
            self._shared_for_read_out,
        )  # fmt: skip
        self._backward(B, s)
        self._weight_gradient(B, s)
        self._call(
            "read_out_gradient", (-(-(H + 1) // 32), K), 128,
            (B, H, K, rule, last, s.dlogits, s.losses, s.hits, self._settings, self._read_out_gradient,
             self._counters, self._totals, self._coefficients),
        )  # fmt: skip
        parts, partial, read_out, max_norm = s.parts, s.partial, self._read_out_gradient, self.update.max_norm
        if max_norm is not None:
            self._call(
                "collect_gradient", (blocks,), 256,
                (self.count, self.recurrent, parts, partial, read_out, self._gradient, self._norms),
            )  # fmt: skip
            parts, partial, read_out = 1, self._gradient, self._gradient[self.recurrent :]
        self._call(
            "update_parameters", (blocks,), 256,
            (self.count, self.recurrent, parts, 0 if max_norm is None else blocks, rule, D, H,
             np.dtype(self.dtype).type(max_norm or 0), partial, read_out, self._norms, self._settings,
             self._coefficients, self.parameters, self._first, self._second, self._transposed),
        )  # fmt: skip

    def _product_transposed(
        self, s: BatchBuffers, M: int, N: int, K: int, a: Array, b: Array, c: Array, add: bool = False
    ) -> None:
        """c (M, N) = or += a (M, K) b^T, b (N, K)."""
        if s.blas is not None:
            s.blas(N, M, K, b.data.ptr, True, a.data.ptr, False, c.data.ptr, add)
        else:
            self._call("product_transposed", (-(-N // 32), -(-M // 64)), 64, (M, N, K, add, a, b, c))

    def _product_plain(self, s: BatchBuffers, M: int, N: int, K: int, a: Array, b: Array, c: Array) -> None:
        """c (M, N) = a (M, K) b (K, N)."""
        if s.blas is not None:
            s.blas(N, M, K, b.data.ptr, False, a.data.ptr, False, c.data.ptr)
        else:
            self._call("product_plain", (-(-N // 32), -(-M // 64)), 64, (M, N, K, False, a, b, c))

    def _weight_gradient(self, B: int, s: BatchBuffers) -> None:
        """dW, dU, db in `s.partial`, whole or in parts, from da in the memory of the gates."""
        T, D, H, _ = self.sizes
        if s.blas is None:
            self._call(
                "weight_gradient", (-(-(D + H + 1) // 64), -(-4 * H // 128), s.parts), 256,
                (T * B, s.rows_per_part, D, H, s.gates, s.x, s.h, s.partial),
            )  # fmt: skip
            return
        dW, dU, db = self._split(s.partial.reshape(self.recurrent), (4 * H * D, 4 * H * H, 4 * H))
        for out, width, rows in ((dW, D, s.x), (dU, H, s.h), (db, 1, s.ones)):
            s.blas(width, 4 * H, T * B, rows.data.ptr, False, s.gates.data.ptr, True, out.data.ptr)

    def _forward(self, B: int, s: BatchBuffers) -> None:
        T, _, H, _ = self.sizes
        if s.plan is not None:
            sizes = (np.int32(T), np.int32(B), np.int32(True))
            launch(s.forward, s.plan.forward, B, (*sizes, self._U, self._b, s.gates, s.c, s.h))
            return
        for t in range(T):
            self._product_transposed(s, B, 4 * H, H, s.h[t], self._U, s.gates[t], add=True)
            self._call("lstm_step_forward", (-(-B * H // 256),), 256, (t, B, H, self._b, s.gates, s.c, s.h))

    def _backward(self, B: int, s: BatchBuffers) -> None:
        """da of all steps, in the memory of the gates."""
        T, _, H, _ = self.sizes
        nothing = s.dh  # there is no dy: the loss looks at the last output only
        if s.plan is not None:
            sizes = (np.int32(T), np.int32(B), np.int32(False), np.int32(False))
            launch(
                s.backward, s.plan.backward, B,
                (*sizes, self._transposed, s.gates, s.c, nothing, s.dh, s.dc, s.gates),
            )  # fmt: skip
            return
        self._call("clear", (-(-B * H // 256),), 256, (B * H, s.dc))
        for t in reversed(range(T)):
            arrays = (s.gates, s.c, nothing, s.dh, s.dc, s.gates)
            self._call("lstm_step_backward", (-(-B * H // 256),), 256, (t, B, H, False, *arrays))
            if t > 0:
                self._product_plain(s, B, H, 4 * H, s.gates[t], self._U, s.dh)
