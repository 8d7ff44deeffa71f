"""Batches of sequences in the layout that the engine computes in.

A batch costs one gather of uint8 rows and one pass that converts, scales and transposes them; both can reuse buffers.
The order is a function of (seed, epoch), so any batch of a run can be reproduced without the ones before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_np import streams
from lstm_np.backends import as_array
from lstm_np.data.dataset import DatasetError
from lstm_np.packing import Real, as_mask, check, read, targets_of_steps

ORDERS = ("shuffle", "sequential", "tf1")


class Batches:
    """Sequences (N, T, D) and targets (N, ...), such as labels (N,), cut into batches.

    Each batch is `(x, labels)`: x (B, T, D) of `dtype`, the sequences times `scale`, and labels (B, ...), int64 or, of
    floating-point numbers, their own dtype.  Targets for each step are (N, T, ...), or a list of arrays (T_i, ...) with
    one for each step that the sequence has, and are 0 at the others.  x is a transposed view of a C-contiguous
    feature-major array: `x.transpose(2, 1, 0)` is contiguous (D, T, B) and costs nothing.  Where sequences have unequal
    lengths x is contiguous itself, since layers sort the samples by length.

    Each batch has arrays of its own; with `reuse=True`, which is faster, **the next batch overwrites them**.

    `order` is one of
      shuffle      a new permutation each epoch, a function of (seed, epoch); the last batch of an epoch may be short
      sequential   in the order given (also `shuffle=False`); the last batch may be short
      tf1          TensorFlow 1's `next_batch`: an endless stream of permutations, cut every B samples: the last
                   samples of an epoch share a batch with the first of the next, and no batch is short.  An epoch is
                   then N // B steps.

    `drop_last` leaves out a short last batch.  `len()` is the number of batches an epoch has.

    real     lengths (N,) or a mask (N, T) of all sequences, in the order they were given; None where all have T steps
    weights  what each sequence counts, in the order they were given; None: 1 each

    With `lengths` (N,), a `mask` (N, T), or sequences that are a list of arrays (T_i, D), a batch is
    `(x, labels, lengths or mask)`, with those of its samples; with `weights` (N,), or (N, T) for targets for each step,
    it is `(x, labels, lengths or mask or None, weights)`.  `bucket=k` forms batches of samples of about the same
    length: the samples of k consecutive batches are sorted by length and then cut into batches, and the full batches
    are shuffled, also by (seed, epoch), unless the order is sequential.  An epoch still has every sample once, and any
    batch can be reproduced.  k is a trade-off: a larger k makes the lengths within a batch more alike, and batches less
    random.

    Sequences may be of any real dtype and any strides (a transposed view of a contiguous array is read without a copy).

    >>> batches = lstm_np.data.Batches(np.ones((10, 5, 3)), np.zeros(10, int), batch_size=4)
    >>> len(batches), [x.shape for x, labels in batches.epoch(0)]
    (3, [(4, 5, 3), (4, 5, 3), (2, 5, 3)])
    >>> lengths = np.arange(1, 11) % 5 + 1
    >>> batches = lstm_np.data.Batches(np.ones((10, 5, 3)), np.zeros(10, int), 2, lengths=lengths, bucket=5)
    >>> sorted(lengths.tolist() for x, labels, lengths in batches.epoch(0))
    [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]]

    Raises DatasetError (a ValueError) for shapes, sizes or an order that do not fit, and for a list of targets of which
    one has more or fewer of them than its sequence has steps.
    """

    def __init__(
        self,
        images: npt.ArrayLike,
        labels: Any,
        batch_size: int,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        weights: npt.ArrayLike | None = None,
        bucket: int | None = None,
        seed: int = 0,
        scale: float = 1.0,
        dtype: str = "float32",
        shuffle: bool = True,
        order: str = "shuffle",
        drop_last: bool = False,
        reuse: bool = False,
    ) -> None:
        try:
            images, real = read(images, lengths, mask)
        except ValueError as error:
            raise DatasetError(str(error)) from None
        sequences: np.ndarray = as_array(images, "sequences")
        if sequences.ndim != 3 or sequences.dtype.kind not in "uif":
            raise DatasetError(f"found sequences {sequences.dtype} {sequences.shape}, expected real numbers (N, T, D)")
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise DatasetError(f"found batch size {batch_size!r}, expected a whole number of at least 1")
        if real is not None:
            try:
                check(real, *sequences.shape[:2])
            except ValueError as error:
                raise DatasetError(str(error)) from None
        N, T, _ = sequences.shape
        targets, own_weights = _targets_of(labels, weights, N, T, real)
        if bucket is not None:
            if isinstance(bucket, bool) or not isinstance(bucket, (int, np.integer)) or bucket < 1:
                raise DatasetError(f"found bucket {bucket!r}, expected a number of batches, at least 1, or None")
            if real is None or order == "tf1":
                missing = "lengths or a mask" if real is None else "order shuffle or sequential"
                raise DatasetError(f"bucket {bucket} needs {missing}")
        if order not in ORDERS:
            raise DatasetError(f"unknown order {order!r}, expected one of: {', '.join(ORDERS)}")
        self.dtype = np.dtype(dtype)
        if self.dtype.kind != "f":
            raise DatasetError(f"found dtype {self.dtype}, expected a floating-point type")
        if len(sequences) == 0 or (len(sequences) < batch_size and (drop_last or order == "tf1")):
            raise DatasetError(f"found {len(sequences)} samples, too few for one batch of {batch_size}")
        self.batch_size, self.seed, self.scale = int(batch_size), seed, self.dtype.type(scale)
        self.order = "sequential" if order == "shuffle" and not shuffle else order
        self.reuse, self.real, self.bucket = reuse, real, None if bucket is None else int(bucket)
        self.weights = own_weights
        self._lengths = None if real is None else as_mask(real, sequences.shape[1]).sum(axis=1)
        self.samples = len(sequences)
        self._whole_batches_only = drop_last or order == "tf1"
        self._labels = targets
        # Rows are gathered from contiguous memory.  Images read by columns are a transposed view of such memory: they
        # are gathered in memory order, and transposed when they are converted.
        self._turned = sequences.transpose(0, 2, 1).flags.c_contiguous and not sequences.flags.c_contiguous
        self._rows = sequences.transpose(0, 2, 1) if self._turned else np.ascontiguousarray(sequences)
        self._sizes = self._rows.shape[1:]
        self._buffers: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._permutation = lru_cache(maxsize=2)(self._draw_permutation)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_buffers", "_permutation")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._buffers, self._permutation = {}, lru_cache(maxsize=2)(self._draw_permutation)

    def __repr__(self) -> str:
        shape, dtype = self.sequences.shape, self.sequences.dtype
        return f"<{len(self)} batches of {self.batch_size}, {self.order}, of {dtype} {shape} as {self.dtype}>"

    @property
    def sequences(self) -> np.ndarray:
        """All sequences (N, T, D) in the order they were given, of their own dtype."""
        return self._rows.transpose(0, 2, 1) if self._turned else self._rows

    @property
    def labels(self) -> np.ndarray:
        """All targets (N, ...) in the order they were given; integers are int64."""
        return self._labels

    @property
    def plain(self) -> bool:
        """Whether there are integer labels (N,) alone: all sequences have all steps, and count 1 each."""
        return self.real is None and self.weights is None and self._labels.ndim == 1 and self._labels.dtype.kind == "i"

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(self.samples, self.batch_size)
        return whole if self._whole_batches_only or rest == 0 else whole + 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that occur: the full size, then that of a short last batch if there is one."""
        whole, rest = divmod(self.samples, self.batch_size)
        return (self.batch_size,) * (whole > 0) + (rest,) * (rest > 0 and not self._whole_batches_only)

    def epoch(self, epoch: int, start: int = 0, *, step: int | None = None) -> Iterator[tuple[Any, ...]]:
        """The batches of one epoch, from batch `start` on; DatasetError for a batch that an epoch does not have.

        >>> batches = lstm_np.data.Batches(np.ones((10, 5, 3)), np.arange(10), batch_size=4, shuffle=False)
        >>> [labels.tolist() for x, labels in batches.epoch(0, start=1)]
        [[4, 5, 6, 7], [8, 9]]

        `step`, the number of steps made before, has no effect here: the order is a function of the epoch alone.
        """
        count = len(self)
        if epoch < 0 or not 0 <= start <= count:
            raise DatasetError(f"found epoch {epoch}, batch {start}, expected epoch >= 0 and a batch from 0 to {count}")
        return self.steps(epoch * count + start, (epoch + 1) * count)

    def steps(self, start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        """The batches of the steps start ... stop - 1, counted over the whole run; step k is reached directly.

        >>> batches = lstm_np.data.Batches(np.ones((10, 5, 3)), np.arange(10), batch_size=4, shuffle=False)
        >>> [labels.tolist() for x, labels in batches.steps(2, 4)]
        [[8, 9], [0, 1, 2, 3]]
        """
        if start < 0:
            raise DatasetError(f"found step {start}, expected at least 0")
        return (self._batch(self.indices(step)) for step in range(start, stop))

    def indices(self, step: int) -> np.ndarray | slice:
        """Which samples the batch of this step holds: int64 (B,) in order, or a slice where the order is sequential.

        >>> lstm_np.data.Batches(np.ones((10, 5, 3)), np.arange(10), batch_size=4, shuffle=False).indices(1)
        slice(4, 8, None)
        """
        if self.order == "tf1":
            return self._from_stream(step * self.batch_size, (step + 1) * self.batch_size)
        epoch, batch = divmod(step, len(self))
        window = slice(batch * self.batch_size, min((batch + 1) * self.batch_size, self.samples))
        return window if self.order == "sequential" and self.bucket is None else self._permutation(epoch)[window]

    def _from_stream(self, start: int, stop: int) -> np.ndarray:
        """Positions start ... stop - 1 of the permutations of epochs 0, 1, 2 ... laid end to end."""
        epoch, first = divmod(start, self.samples)
        head = self._permutation(epoch)[first : first + stop - start]
        missing = stop - start - len(head)
        return head if missing == 0 else np.concatenate([head, self._permutation(epoch + 1)[:missing]])

    def _draw_permutation(self, epoch: int) -> np.ndarray:
        shuffled = self.order != "sequential"
        order = streams.permutation(self.samples, self.seed, "shuffle", epoch) if shuffled else np.arange(self.samples)
        if self.bucket is None:
            return order
        assert self._lengths is not None
        pools = [order[start : start + self.bucket * self.batch_size]
                 for start in range(0, self.samples, self.bucket * self.batch_size)]  # fmt: skip
        order = np.concatenate([pool[np.argsort(self._lengths[pool], kind="stable")] for pool in pools])
        if not shuffled:
            return order
        whole = self.samples // self.batch_size
        batches = order[: whole * self.batch_size].reshape(whole, self.batch_size)
        batches = batches[streams.permutation(whole, self.seed, "bucket", epoch)]
        return np.concatenate([batches.reshape(-1), order[whole * self.batch_size :]])

    def _batch(self, indices: np.ndarray | slice) -> tuple[Any, ...]:
        size = indices.stop - indices.start if isinstance(indices, slice) else len(indices)
        gathered, x, labels = self._buffers.get(size) or self._new_buffers(size)
        if isinstance(indices, slice):
            gathered = self._rows[indices]
            np.copyto(labels, self._labels[indices])
        else:
            # mode="clip" because "raise" gathers into a hidden copy first; a permutation is never out of range.
            np.take(self._rows, indices, axis=0, out=gathered, mode="clip")
            np.take(self._labels, indices, axis=0, out=labels, mode="clip")
        np.multiply(gathered.transpose(0, 2, 1) if self._turned else gathered, self.scale, out=x, casting="same_kind")
        if self.weights is not None:
            return x, labels, None if self.real is None else self.real[indices], self.weights[indices]
        return (x, labels) if self.real is None else (x, labels, self.real[indices])

    def _new_buffers(self, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gathered rows, x and labels for batches of this size: the whole ones, or the short last one."""
        time, features = self._sizes[::-1] if self._turned else self._sizes
        if self.real is None:
            x = np.empty((features, time, size), self.dtype).transpose(2, 1, 0)
        else:
            x = np.empty((size, time, features), self.dtype)
        buffers = (
            np.empty((size, *self._sizes), self._rows.dtype),
            x,
            np.empty((size, *self._labels.shape[1:]), self._labels.dtype),
        )
        if self.reuse:
            self._buffers[size] = buffers
        return buffers


def _targets_of(labels: Any, weights: Any, N: int, T: int, real: Real | None) -> tuple[np.ndarray, np.ndarray | None]:
    """(targets (N, ...), weights) as contiguous arrays.  Raises DatasetError."""
    try:
        targets = as_array(targets_of_steps(labels, N, T, real, "labels", each_step=False), "labels")
    except ValueError as error:
        raise DatasetError(str(error)) from None
    if targets.shape[:1] != (N,) or targets.dtype.kind not in "uifb":
        raise DatasetError(
            f"found labels {targets.dtype} {targets.shape}, expected integers ({N},) or numbers with that first axis"
        )
    targets = np.ascontiguousarray(targets, targets.dtype if targets.dtype.kind == "f" else np.int64)
    if weights is None:
        return targets, None
    own = as_array(weights, "weights")
    if own.shape not in ((N,), (N, T)) or own.dtype.kind not in "uifb":
        raise DatasetError(f"found weights {own.dtype} {own.shape}, expected numbers ({N},)")
    return targets, np.ascontiguousarray(own, np.float64)
