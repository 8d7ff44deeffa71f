"""The plain recurrent cell with a rectifier in the fused CPU kernel: `rnn.py` with (2) of `lstm_np.cells.rnn_relu`."""

from __future__ import annotations

import numpy as np

from lstm_np.arrays import Array
from lstm_np.kernels.cpu import rnn


class Rectifier(rnn.Tanh):
    """(2) and its derivative, 1 where h > 0, else 0."""

    def __init__(self, dtype: str) -> None:
        self._zero = np.array(0, dtype)

    def of(self, a: Array, h: Array) -> None:
        """(2), from a to h: 0 also where a is not a number."""
        np.fmax(a, self._zero, h)

    def slope(self, h: Array, out: Array) -> None:
        """The derivative, from h."""
        np.greater(h, self._zero, out)


class Passes(rnn.Passes):
    """In training."""

    nonlinearity = Rectifier


class Inference(rnn.Inference):
    """Without a backward pass."""

    nonlinearity = Rectifier


class OneSample(rnn.OneSample):
    """As `Inference`, with the product written in."""

    nonlinearity = Rectifier
