"""Which parameters weights were packed from, to the bit: inference packs them again only where a bit has changed.

Comparing costs a fraction of packing (figures: docs/cpu-kernel.md), and nothing else would be safe: parameters are
arrays that anybody may write to at any time, through any view of them.
"""

from __future__ import annotations

import numpy as np

from lstm_np.arrays import Params


class PackedFrom:
    """A copy of some parameters, which are contiguous arrays, and whether weights have been packed from it."""

    def __init__(self) -> None:
        self._bits: dict[str, bytearray] = {}
        self._packed = False

    def same(self, params: Params) -> bool:
        """Whether weights have been packed from these, bit by bit: -0 is not 0, and a NaN is itself."""
        return self._packed and all(self._bits[name] == array for name, array in params.items())

    def copy(self, params: Params) -> Params:
        """A copy of others, to pack from: another thread may write to the parameters meanwhile.  Then `packed`."""
        self._packed = False
        self._bits = {name: bytearray(array) for name, array in params.items()}
        return {
            name: np.frombuffer(self._bits[name], array.dtype).reshape(array.shape) for name, array in params.items()
        }

    def packed(self) -> None:
        """It was done: where an exception came before this, weights are packed anew."""
        self._packed = True
