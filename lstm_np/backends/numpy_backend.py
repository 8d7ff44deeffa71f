"""The CPU: NumPy arrays."""

from __future__ import annotations

import numpy as np

from lstm_np.backends.base import Backend


def _nothing_to_wait_for() -> None:
    """NumPy has finished when a call returns."""


def make_backend(threads: int | None = None) -> Backend:
    """The NumPy backend; its kernels use at most `threads` cores (None: they choose)."""
    return Backend(
        name="numpy",
        xp=np,
        from_host=np.asarray,
        to_host=np.asarray,
        synchronize=_nothing_to_wait_for,
        kernels=("fused", "lean", "reference"),
        threads=threads,
    )
