"""Inference that stays on the GPU: a data set that lies there is classified without waiting in between.

For one LSTM layer, a dense read-out of its last output and softmax cross-entropy, as `lstm_np.device.step`.  A batch is
four launches (the sequence being one where the recurrent weights fit on a multiprocessor): the batch from the data set,
W x of all time steps, the sequence, and the classes' probabilities with guess and loss.  On the stream of a training
step a measurement follows the steps made so far by itself: it may be begun while they still run, and one wait at the
end is for both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends import Backend
from lstm_np.device.launches import Launches
from lstm_np.device.memory import DeviceData, SequenceBuffers, Sizes
from lstm_np.device.step import Totals

INFERENCE_KERNELS = {
    "steps": ("lstm_step_forward",),
    "products": ("product_transposed",),
    "classifier": ("gather_range", "gather_range_of_values", "classify"),
}
BATCH_BYTES = 256 << 20  # of the gates of one batch: a device is full long before
LARGEST_BATCH = 4096


class Measured:
    """What inference said of a data set; on its way until it is read.

    Reading waits until it is there, and for no later work of the stream.
    """

    def __init__(self, launches: Launches, data: DeviceData) -> None:
        xp, N, K = launches.xp, data.samples, data.sizes.K
        self._launches, self._data = launches, data
        self.probabilities = xp.empty((N, K), dtype=launches.dtype)
        self.losses = xp.empty(1 if data.host_labels is None else N, dtype=launches.dtype)
        self.guesses = xp.empty(N, dtype="int32")
        self._event = xp.cuda.Event(disable_timing=True)

    def done(self) -> None:
        """All of it has been launched."""
        self._event.record(self._launches.stream)

    def _host(self, array: Array) -> np.ndarray:
        self._event.synchronize()
        with self._launches.place:
            found: np.ndarray = self._launches.xp.asnumpy(array)
        return found

    def predict_proba(self) -> np.ndarray:
        """The probability of each class (N, K)."""
        return self._host(self.probabilities)

    def predict(self) -> np.ndarray:
        """The most probable class of each sequence, integers (N,)."""
        return self._host(self.guesses).astype(np.int64)

    def sums(self) -> Totals:
        """Sum of the losses, correct answers, samples.  Raises ValueError where the labels are not known."""
        labels = self._data.host_labels
        if labels is None:
            raise ValueError("loss and correct answers need labels, and this data set came without")
        losses, guesses = self._host(self.losses), self._host(self.guesses)
        return Totals(float(losses.sum(dtype=np.float64)), int((guesses == labels).sum()), self._data.samples)


class DeviceInference:
    """Classifies data sets with parameters that lie on the device.

    backend     the CuPy backend
    parameters  flat vector on the device, as `DeviceTrainingStep` has it; read when the work is done
    sizes       (T, D, H, K)
    stream      on which it is done, such as a training step's; None: one of its own
    persistent, direct_blas   as in `DeviceTrainingStep`

    Raises ValueError for parameters of another number or dtype.
    """

    def __init__(
        self,
        backend: Backend,
        parameters: Array,
        sizes: tuple[int, int, int, int],
        *,
        stream: Any = None,
        persistent: bool = True,
        direct_blas: bool = True,
    ) -> None:
        self.sizes, self.persistent = Sizes(*sizes), persistent
        self._W, self._U, self._b, self._V, self._v = self.sizes.split(parameters)
        self.launches = Launches(
            backend.xp, str(parameters.dtype), INFERENCE_KERNELS, stream=stream, direct_blas=direct_blas
        )
        self._shared = (self.sizes.H + self.sizes.K) * np.dtype(self.launches.dtype).itemsize
        self.launches.allow_shared_memory("classify", self._shared)
        self._buffers: dict[int, SequenceBuffers] = {}

    def data(self, sequences: np.ndarray, labels: np.ndarray | None = None, scale: float = 1.0) -> DeviceData:
        """A data set for `measure`, which may be kept on the device; see `DeviceData` for what it takes and raises.

        Its memory is that of the stream: dropped, it goes to others when the work is done that was begun before.
        """
        with self.launches.active():
            return DeviceData(self.launches.xp, self.sizes, self.launches.dtype, sequences, labels, scale)

    @property
    def largest_batch(self) -> int:
        """Sequences of one batch: as many as are fast, and whose gates are not too large."""
        gates = self.sizes.T * 4 * self.sizes.H * np.dtype(self.launches.dtype).itemsize
        return max(1, min(LARGEST_BATCH, BATCH_BYTES // gates))

    def measure(self, data: DeviceData) -> Measured:
        """Begin to classify all of `data`, which `self.data` made.

        Returns at once; the work waits for what the current stream was given, such as the parameters.
        """
        self.launches.after_current_stream()
        with self.launches.active():
            measured = Measured(self.launches, data)
            for first in range(0, data.samples, self.largest_batch):
                self._classify(min(self.largest_batch, data.samples - first), first, data, measured)
            measured.done()
        return measured

    def _classify(self, B: int, first: int, data: DeviceData, out: Measured) -> None:
        call, (T, D, H, K) = self.launches, (self.sizes.T, self.sizes.D, self.sizes.H, self.sizes.K)
        if B not in self._buffers:
            for other in [size for size in self._buffers if size != self.largest_batch]:
                del self._buffers[other]  # of the last batch of another data set, as short as none may be again
            self._buffers[B] = SequenceBuffers(call, self.sizes, B, persistent=self.persistent)
        s = self._buffers[B]
        call(f"gather_range{data.suffix}", (B,), 256, (B, T, D, data.scale, first, data.sequences, s.x))
        call.product_transposed(s.blas, T * B, 4 * H, D, s.x, self._W, s.gates)
        call.sequence(s, self._U, self._b, save=False)
        call(
            "classify", (B,), 128,
            (H, K, first, data.host_labels is not None, s.h[T], self._V, self._v, data.labels, out.probabilities,
             out.losses, out.guesses),
            self._shared,
        )  # fmt: skip
