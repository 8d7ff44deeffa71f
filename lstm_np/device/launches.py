"""Kernels and matrix products on one stream of one device: what a training step and inference on the device share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from lstm_np.arrays import Array, Namespace
from lstm_np.kernels import KernelWarning
from lstm_np.kernels.gpu import cuda_source
from lstm_np.kernels.gpu.cublas import StreamProducts
from lstm_np.kernels.gpu.launch_plan import PersistentPlan, describe_device, plan_persistent, product_grid
from lstm_np.kernels.gpu.persistent import launch

ELEMENTWISE = 256  # threads of a block, one for each element


def blocks(count: int) -> tuple[int]:
    """The grid of an elementwise kernel over `count` elements."""
    return (-(-count // ELEMENTWISE),)


def wait_for(work: Any) -> None:
    """Wait for a stream or an event; a device that has failed says so where its results are read."""
    with suppress(Exception):
        work.synchronize()


class Launches:
    """Launches kernels and products one after another on one stream; nothing waits.

    files   which kernels of which files of `lstm_np/kernels/gpu/cuda` there are
    stream  None: one of its own
    direct_blas  False: cuBLAS is never called, products are our own

    `products` says what makes products by now, `own_products_because` why our own kernels do where cuBLAS would be
    faster, or is None.
    """

    def __init__(
        self,
        xp: Namespace,
        dtype: str,
        files: Mapping[str, tuple[str, ...]],
        *,
        stream: Any = None,
        direct_blas: bool = True,
    ) -> None:
        self.xp, self.dtype = xp, dtype
        self.place = xp.cuda.Device()
        self.limits = describe_device(xp)
        self.stream = xp.cuda.Stream(non_blocking=True) if stream is None else stream
        self._kernels = {
            name: cuda_source.kernel(xp, (file,), name, dtype) for file, names in files.items() for name in names
        }
        self._direct_blas = direct_blas
        self._blas: StreamProducts | None = None
        self.own_products_because: str | None = None if direct_blas else "not asked for"

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within the block the device is the current one, and the stream too."""
        with self.place, self.stream:
            yield

    def after_current_stream(self) -> None:
        """What is launched from here on waits for all that the current stream of the device has been given so far."""
        with self.place:
            current = self.xp.cuda.get_current_stream()
            if current is not self.stream:
                self.stream.wait_event(current.record())

    def allow_shared_memory(self, name: str, size: int) -> None:
        """Let a kernel be launched with so many bytes of shared memory."""
        cuda_source.allow_shared_memory(self._kernels[name], size)

    def plan(self, H: int, B: int, *, persistent: bool) -> PersistentPlan | None:
        """How the one-launch kernels run a batch; None where they are not wanted or do not fit."""
        return plan_persistent(self.limits, H, self.dtype, B) if persistent else None

    @property
    def products(self) -> str:
        """What makes products: "cuBLAS", or "own kernels", by choice or because cuBLAS is not found."""
        return "own kernels" if self._blas is None else "cuBLAS"

    def blas(self) -> StreamProducts | None:
        """cuBLAS on this stream; None where it is not found: a KernelWarning says so, our own products do its work."""
        if self._blas is None and self._direct_blas:
            try:
                self._blas = StreamProducts(self.xp, self.dtype, self.stream)
            except (ImportError, OSError) as error:
                self._direct_blas = False
                self.own_products_because = " ".join(str(error).split()) or type(error).__name__
                warnings.warn(
                    f"cuBLAS is not found ({self.own_products_because}): products are computed by kernels of our own, "
                    "which are slower; install CuPy with its CUDA libraries (cupy-cuda12x[ctk] or cupy-cuda13x[ctk])",
                    KernelWarning,
                    stacklevel=2,
                )
        return self._blas

    def __call__(self, name: str, grid: tuple[int, ...], block: int, args: tuple[object, ...], shared: int = 0) -> None:
        """Launch a kernel; integers go as 32 bits, everything else as it is."""
        plain = tuple(np.int32(a) if isinstance(a, (int, bool)) else a for a in args)
        self._kernels[name](grid, (block,), plain, shared_mem=shared)

    def product_transposed(
        self, blas: StreamProducts | None, M: int, N: int, K: int, a: Array, b: Array, c: Array, *, add: bool = False
    ) -> None:
        """c (M, N) = or += a (M, K) b^T, b (N, K); by our own kernel where `blas` is None."""
        if blas is not None:
            blas(N, M, K, b.data.ptr, True, a.data.ptr, False, c.data.ptr, add)
        else:
            self("product_transposed", product_grid(M, N), 64, (M, N, K, add, a, b, c))

    def product_plain(self, blas: StreamProducts | None, M: int, N: int, K: int, a: Array, b: Array, c: Array) -> None:
        """c (M, N) = a (M, K) b (K, N); by our own kernel where `blas` is None."""
        if blas is not None:
            blas(N, M, K, b.data.ptr, False, a.data.ptr, False, c.data.ptr)
        else:
            self("product_plain", product_grid(M, N), 64, (M, N, K, False, a, b, c))

    def sequence(self, s: Any, U: Array, b: Array, *, save: bool) -> None:
        """All time steps forward: gates (T, B, 4H) hold W x on entry; h and c (T+1, B, H) as the kernels have them.

        s     has `plan`, `forward`, `blas`, `gates`, `c` and `h`; see `lstm_np.device.memory`
        save  gates and c are kept for a backward pass
        """
        T, B, H = s.gates.shape[0], s.gates.shape[1], s.h.shape[2]
        if s.plan is not None:
            launch(s.forward, s.plan.forward, B, (np.int32(T), np.int32(B), np.int32(save), U, b, s.gates, s.c, s.h))
            return
        for t in range(T):
            self.product_transposed(s.blas, B, 4 * H, H, s.h[t], U, s.gates[t], add=True)
            self("lstm_step_forward", blocks(B * H), ELEMENTWISE, (t, B, H, b, s.gates, s.c, s.h))
