"""Backends: where arrays live and which namespace computes with them.  CuPy is imported here alone, when asked."""

from __future__ import annotations

import operator

from lstm_np.backends.arrays import as_array, as_numbers
from lstm_np.backends.base import Backend, BackendError

__all__ = ["BACKENDS", "Backend", "BackendError", "as_array", "as_numbers", "get_backend"]

BACKENDS = ("numpy", "cupy")


def get_backend(name: str | Backend = "numpy", *, threads: int | None = None) -> Backend:
    """The backend called `name`; a `Backend` is returned as it is.

    `threads` is how many CPU cores kernels use; None: all that this process may, decided here once
    (`lstm_np.backends.cores`).  It has no meaning on a GPU.

    >>> backend = lstm_np.get_backend("numpy", threads=1)
    >>> backend
    <numpy backend: 1 core (the user), kernels fused, lean, reference>
    >>> layer = lstm_np.LSTM(3, 4, backend=backend)

    Raises ValueError for an unknown name or a thread count below 1, BackendError when CuPy or a GPU is missing.
    """
    if isinstance(name, Backend):
        return name
    if threads is not None:
        try:
            threads = operator.index(threads)
        except TypeError:
            raise ValueError(f"threads must be a whole number of at least 1, found {threads!r}") from None
        if threads < 1:
            raise ValueError(f"threads must be at least 1, found {threads}")
    if name == "numpy":
        from lstm_np.backends import numpy_backend

        return numpy_backend.make_backend(threads)
    if name == "cupy":
        from lstm_np.backends import cupy_backend

        return cupy_backend.make_backend()
    raise ValueError(f"unknown backend {name!r}; there are: {', '.join(BACKENDS)}")
