"""What a model reads of its top layer, forward and backward.

    final_state   the state after the last step of each direction             (F, B)
    last_output   y at the last step that a sequence has                      (F, B)
    mean, max     of y over the steps that a sequence has                     (F, B)
    each_step     y at every step                                             (F, T, B)

F is H, or 2H of two directions.  The final states are no outputs and are read in `lstm_np.model.network`; all else is
a function of the outputs y (F, T, B), which are 0 at steps that a sequence does not have.  Of a sequence without steps
0 is read.  Where a maximum is reached at several steps it is read, and followed back, at the first of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends import Backend
from lstm_np.packing import Packing


def forward(backend: Backend, how: str, y: Array, packing: Packing | None) -> tuple[Array, Any]:
    """(what is read, what `backward` needs) of outputs y (F, T, B); `packing` of the batch as it lies."""
    xp = backend.xp
    if how == "each_step":
        return y, None
    if how == "last_output":
        return (y[:, -1, :] if packing is None else packing.at_last(y)), None
    if how == "mean":
        share = _share(backend, y, packing)
        return xp.sum(y, axis=1) * share, share
    here = xp.real(y) if packing is None else xp.where(_real(packing), xp.real(y), -np.inf)
    steps = xp.arange(y.shape[1])[None, :, None]  # of a sequence without steps the first, where y is 0
    chosen = steps == xp.argmax(here, axis=1)[:, None, :]
    return xp.sum(xp.where(chosen, y, 0.0), axis=1), chosen


def backward(backend: Backend, how: str, dh: Array, kept: Any, T: int, packing: Packing | None) -> Array:
    """dy (F, T, B) from the gradient of what was read and what `forward` kept."""
    xp = backend.xp
    if how == "each_step":
        return dh
    if how == "last_output" and packing is not None:
        return packing.from_last(dh)
    dy = xp.zeros((dh.shape[0], T, dh.shape[1]), dtype=dh.dtype)
    if how == "last_output":
        dy[:, -1, :] = dh
        return dy
    if how == "mean":
        return dy + (dh * kept)[:, None, :]
    return xp.where(kept, dh[:, None, :], dy)


def after_each_step(backend: Backend, how: str, y: Array, packing: Packing | None) -> Array:
    """(F, T, B): what would be read if the sequences ended after each step, by "mean" or "max"."""
    xp, found = backend.xp, []
    zero = xp.zeros_like(y[:, 0, :])
    real = [None] * y.shape[1] if packing is None else [backend.from_host(row[None, :]) for row in packing.real]
    value, count = zero, zero
    for t, here in enumerate(real):
        one = y[:, t, :]
        if how == "mean":
            value = value + (one if here is None else xp.where(here, one, zero))
            count = count + (1.0 if here is None else here.astype(y.dtype))
            found.append(value / xp.maximum(count, 1.0))
        else:
            larger = xp.where(count > 0, xp.maximum(value, one), one)
            value = larger if here is None else xp.where(here, larger, value)
            count = count + (1.0 if here is None else here.astype(y.dtype))
            found.append(value)
    return xp.stack(found, axis=1)


def _real(packing: Packing) -> Array:
    """(1, T, B) booleans of the backend: whether a sample has the step."""
    return packing.backend.from_host(packing.real[None])


def _share(backend: Backend, y: Array, packing: Packing | None) -> Any:
    """1 / the steps of each sequence: a number, or (1, B) of y's real dtype."""
    if packing is None:
        return 1.0 / y.shape[1]
    dtype = backend.xp.real(y[:1, :1, :1]).dtype
    return backend.from_host(1.0 / np.maximum(packing.lengths, 1)[None, :]).astype(dtype)
