"""Dropout masks as pure functions of a key (Srivastava et al., "Dropout", JMLR 15, 2014).

The inverted form: what is kept is divided by the probability to keep it, so that nothing changes at inference.
"""

from __future__ import annotations

from lstm_np import streams
from lstm_np.arrays import Array
from lstm_np.backends import Backend


def mask(backend: Backend, shape: tuple[int, int, int], rate: float, dtype: str, per: str, *key: int | str) -> Array:
    """An array that broadcasts to `shape` (H, T, B): 0 with probability `rate`, 1 / (1 - rate) otherwise.

    `per` says how often a new mask is drawn: "step" gives (H, T, B), "sequence" (Gal and Ghahramani, NIPS 2016) gives
    (H, 1, B).  The same key gives the same mask on every backend.
    """
    H, T, B = shape
    keep = 1.0 - rate
    kept = streams.keep_mask((H, T if per == "step" else 1, B), keep, *key)
    return backend.from_host(kept.astype(dtype) * (1.0 / keep))
