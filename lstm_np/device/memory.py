"""What work on the device keeps in memory: data sets, the update rule, the arrays of one batch size, and numbers on
their way to the host."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np.arrays import Array, Namespace
from lstm_np.device.launches import Launches, wait_for
from lstm_np.kernels.gpu import cuda_source
from lstm_np.kernels.gpu.cuda_source import RawKernel
from lstm_np.kernels.gpu.launch_plan import parts_of_sum, refuse_oversize
from lstm_np.kernels.gpu.persistent import load

RULES = {"sgd": 0, "sgd momentum": 1, "sgd nesterov": 2, "adam paper": 3, "adam hat": 4}


@dataclass(frozen=True)
class Update:
    """How parameters follow their gradient; the formulae are those of `lstm_np.optimizers`.

    rule      a name in `RULES`
    decay     Adam's (beta1, beta2); (momentum, 0) for SGD
    epsilon   Adam's
    max_norm  the gradient is scaled so that its norm is at most this; None: it is not
    """

    rule: str
    learning_rate: float
    decay: tuple[float, float] = (0.0, 0.0)
    epsilon: float = 0.0
    max_norm: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"unknown update rule {self.rule!r}; there are: {', '.join(RULES)}")


@dataclass(frozen=True)
class Sizes:
    """T time steps, D input features, H hidden units, K classes; one LSTM layer and a dense read-out."""

    T: int
    D: int
    H: int
    K: int

    @property
    def recurrent(self) -> int:
        """Parameters of the recurrent layer."""
        return 4 * self.H * (self.D + self.H + 1)

    @property
    def parameters(self) -> int:
        """All parameters: W (4H, D), U (4H, H), b (4H,), then the read-out's W (K, H) and b (K,)."""
        return self.recurrent + self.K * (self.H + 1)

    def split(self, flat: Array) -> tuple[Array, ...]:
        """W, U, b, the read-out's W and b as flat views of all parameters (or of anything that lies like them).

        Raises ValueError for a vector of another length or a dtype that has no kernels.
        """
        if str(flat.dtype) not in cuda_source.REALS or flat.shape != (self.parameters,):
            found = f"{flat.dtype} {flat.shape}"
            raise ValueError(f"expected {self.parameters} float32 or float64 parameters, found {found}")
        D, H, K = self.D, self.H, self.K
        ends = np.cumsum((4 * H * D, 4 * H * H, 4 * H, K * H, K))
        return tuple(flat[begin:end] for begin, end in zip((0, *ends[:-1]), ends, strict=True))


class DeviceData:
    """A data set on the device.

    sequences  (N, T * D), NumPy: each row a sequence, step after step; uint8, or of the parameters' dtype
    labels     integers (N,), NumPy, 0 ... K-1; None: not known
    scale      times a value of `sequences` is the input

    Raises ValueError when sizes, dtypes or labels do not fit.
    """

    def __init__(
        self, xp: Namespace, sizes: Sizes, dtype: str, sequences: np.ndarray, labels: np.ndarray | None, scale: float
    ) -> None:
        N, row = len(sequences), sizes.T * sizes.D
        if sequences.dtype not in (np.uint8, np.dtype(dtype)) or sequences.shape != (N, row) or not N:
            found = f"{sequences.dtype} {sequences.shape}"
            raise ValueError(f"expected sequences uint8 or {dtype} (N, {row}), found {found}")
        if labels is not None and (labels.shape != (N,) or labels.min() < 0 or labels.max() >= sizes.K):
            raise ValueError(f"expected {N} labels from 0 to {sizes.K - 1}, found {labels.shape}")
        self.samples, self.sizes, self.host_labels = N, sizes, labels
        self.scale = np.dtype(dtype).type(scale)
        self.sequences = xp.asarray(sequences)
        self.labels = xp.asarray(np.zeros(1, np.int32) if labels is None else labels.astype(np.int32))
        self.suffix = "" if sequences.dtype == np.uint8 else "_of_values"  # of the kernels that gather it


def fits(xp: Namespace, nbytes: int) -> bool:
    """Whether so many bytes take at most half of the current device's memory that nobody has."""
    return 2 * nbytes <= int(xp.cuda.runtime.memGetInfo()[0])


class SequenceBuffers:
    """The arrays of a forward pass over one batch size; addresses never change, since a graph keeps them.

    plan, forward, backward  of the one-launch kernels, or None
    blas                     cuBLAS for the sequence without them; None: our own products

    Raises ValueError for a batch that is too large for the kernels' integers.
    """

    def __init__(self, launches: Launches, sizes: Sizes, B: int, *, persistent: bool) -> None:
        xp, dtype, T, D, H = launches.xp, launches.dtype, sizes.T, sizes.D, sizes.H
        refuse_oversize(T, B, H)
        self.plan = launches.plan(H, B, persistent=persistent)
        self.forward: RawKernel | None
        self.backward: RawKernel | None
        self.forward, self.backward = load(xp, self.plan, dtype) if self.plan else (None, None)
        self.blas = None if self.plan else launches.blas()
        self.x = xp.empty((T, B, D), dtype=dtype)
        self.gates = xp.empty((T, B, 4 * H), dtype=dtype)
        self.h = xp.zeros((T + 1, B, H), dtype=dtype)  # the first slots stay zero: the initial state
        self.c = xp.zeros((T + 1, B, H), dtype=dtype)


class BatchBuffers(SequenceBuffers):
    """The arrays of a training step over one batch size.

    parts, rows_per_part     how the weight gradient's sum is cut
    graph, warm              the captured step; whether a step has run, so that all kernels are loaded
    """

    def __init__(self, launches: Launches, sizes: Sizes, B: int, *, persistent: bool) -> None:
        super().__init__(launches, sizes, B, persistent=persistent)
        xp, dtype, T, H, K = launches.xp, launches.dtype, sizes.T, sizes.H, sizes.K
        self.parts, self.rows_per_part = parts_of_sum(launches.limits, T * B, 4 * H, sizes.D + H + 1)
        if self.blas is not None:
            self.parts, self.ones = 1, xp.ones(T * B, dtype=dtype)
        self.labels = xp.empty(B, dtype="int32")
        self.dh = xp.empty((B, H), dtype=dtype)
        self.dc = xp.zeros((B, H), dtype=dtype)
        self.dlogits = xp.empty((B, K), dtype=dtype)
        self.losses = xp.empty(B, dtype=dtype)
        self.hits = xp.empty(B, dtype="int32")
        self.partial = xp.empty((self.parts, sizes.recurrent), dtype=dtype)
        self.graph: Any = None
        self.warm = False


class Snapshot:
    """Numbers of the device as they are when the stream comes to this point, copied to the host without waiting.

    The copy goes to page-locked memory: to any other, CUDA would wait.
    """

    def __init__(self, launches: Launches, array: Array) -> None:
        xp = launches.xp
        self._memory = xp.cuda.alloc_pinned_memory(array.nbytes)
        self._values = np.frombuffer(self._memory, array.dtype, array.size)
        self._event = xp.cuda.Event(disable_timing=True)
        with launches.active():
            array.data.copy_to_host_async(self._values.ctypes.data, array.nbytes, launches.stream)
            self._event.record(launches.stream)
        # the memory of one that is dropped unread must not be another's before the copy is done
        weakref.finalize(self, wait_for, self._event).atexit = False

    @property
    def ready(self) -> bool:
        """Whether `read` will not wait."""
        return bool(self._event.done)

    def read(self) -> np.ndarray:
        """The numbers, a vector; waits for the stream to come to that point, and no further."""
        self._event.synchronize()
        return self._values.copy()
