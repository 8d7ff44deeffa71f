"""Backends: where arrays live and which namespace computes with them.  CuPy is imported here alone, when asked."""

from __future__ import annotations

from lstm_np.backends.base import Backend, BackendError

__all__ = ["BACKENDS", "Backend", "BackendError", "get_backend"]

BACKENDS = ("numpy", "cupy")


def get_backend(name: str | Backend = "numpy", *, threads: int | None = None) -> Backend:
    """The backend called `name`; a `Backend` is returned as it is.

    `threads` is how many CPU cores kernels use; None: all that this process may, decided here once
    (`lstm_np.backends.cores`).  It has no meaning on a GPU.
    Raises ValueError for an unknown name or a thread count below 1, BackendError when CuPy or a GPU is missing.
    """
    if isinstance(name, Backend):
        return name
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, found {threads}")
    if name == "numpy":
        from lstm_np.backends import numpy_backend

        return numpy_backend.make_backend(threads)
    if name == "cupy":
        from lstm_np.backends import cupy_backend

        return cupy_backend.make_backend()
    raise ValueError(f"unknown backend {name!r}; there are: {', '.join(BACKENDS)}")
