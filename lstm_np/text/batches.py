"""A long text as batches of a stateful model: it is cut into streams that lie side by side, and these into windows.

    B streams, each of L = (N - 1) // B characters that follow one another; stream k begins at character k L
    batch n: of every stream the steps n T ... n T + T - 1, each with the character behind it as its label

So sequence k of a batch goes on where that of the batch before ended, and every character is read once in an epoch (but
for the fewer than B at the end that make no whole step).  The last batch of an epoch may have fewer than T steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lstm_np.options import check_count
from lstm_np.text.characters import TextError


class TextBatches:
    """Batches (x (B, T, V), labels (B, T)) of a text, of the numbers of its characters; a `loop.BatchSource`.

    codes       (N,) integers in 0 ... V-1
    size        V, that of the vocabulary
    batch_size  B, streams side by side
    steps       T, time steps of a batch
    dtype       of x, whose steps are one-hot

    The next batch overwrites the arrays of the one before.  x is a view of feature-major memory, (V, T, B), in which
    the engine computes; from batch to batch only its ones are moved.

    >>> batches = lstm_np.text.TextBatches(np.arange(9) % 3, 3, batch_size=2, steps=3)
    >>> len(batches), [(x.argmax(axis=2).tolist(), labels.tolist()) for x, labels in batches.epoch(0)]
    (2, [([[0, 1, 2], [1, 2, 0]], [[1, 2, 0], [2, 0, 1]]), ([[0], [1]], [[1], [2]])])

    Raises TextError where the text is shorter than one window of every stream, and OptionError for sizes below 1.
    """

    def __init__(self, codes: np.ndarray, size: int, batch_size: int, steps: int, *, dtype: str = "float32") -> None:
        B, T = check_count("batch_size", batch_size, 1), check_count("steps", steps, 1)
        if len(codes) < B * T + 1:
            raise TextError(
                f"a text of {len(codes):,} characters is too short for batches of {B:,} x {T:,} characters, which need "
                f"{B * T + 1:,}"
            )
        self.batch_size, self.steps, self.size = B, T, size
        self.length = (len(codes) - 1) // B
        starts = self.length * np.arange(B)
        self._codes = np.stack([codes[start : start + self.length + 1] for start in starts], axis=1)  # (L + 1, B)
        self._dtype = dtype
        # one-hot columns (V, T B) and where their ones stand, by the number of columns
        self._columns: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-self.length // self.steps)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of time steps that occur: that of most batches, then that of a shorter last one."""
        rest = self.length % self.steps
        return (self.steps, rest) if rest else (self.steps,)

    def epoch(self, epoch: int, start: int = 0, *, step: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches of an epoch from batch `start` on; all epochs are the same, and `step` has no effect."""
        return (self._batch(number) for number in range(start, len(self)))

    def _batch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        window = self._codes[number * self.steps : (number + 1) * self.steps + 1]
        x = self._one_hot(window[:-1].reshape(-1)).reshape(self.size, len(window) - 1, self.batch_size)
        return x.transpose(2, 1, 0), np.ascontiguousarray(window[1:].T, np.int64)

    def _one_hot(self, codes: np.ndarray) -> np.ndarray:
        """(V, N) from codes (N,); N has as many values as `sizes`, and for each the memory is the same every time."""
        each = np.arange(len(codes))
        if len(codes) in self._columns:
            columns, before = self._columns[len(codes)]
            columns[before, each] = 0
        else:
            columns = np.zeros((self.size, len(codes)), self._dtype)
        columns[codes, each] = 1
        self._columns[len(codes)] = columns, codes
        return columns
