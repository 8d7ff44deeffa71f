"""What the engine must know about the place where arrays live."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from lstm_np.arrays import Array, Namespace
from lstm_np.errors import LstmNpError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


class BackendError(LstmNpError, RuntimeError):
    """A backend that was asked for cannot be used here; the message says what is missing and what to do.

    >>> try:
    ...     backend = lstm_np.get_backend("cupy")
    ... except lstm_np.BackendError:
    ...     backend = lstm_np.get_backend("numpy")
    """


@dataclass(frozen=True)
class Backend:
    """An array namespace and the few things around it, chosen once and passed down.

    name            what it is called ("numpy", "cupy"): to be shown; what a backend can do is asked below
    xp              the array namespace that all engine code computes with
    from_host       NumPy array -> array of this backend; a NumPy array given to the NumPy backend is not copied
    to_host         array of this backend -> NumPy array
    synchronize     wait until all work handed to the device is done
    kernels         names of the sequence kernels that run here, best first; the last is always "reference"
    cores           how many CPU cores its kernels use
    processes       how many processes may share those cores: as many, or 1 where there can be no worker processes and
                    one computes all parts of a batch, one after another, with the same bits
    decided_by      what decided the number of cores, in words
    reads_are_free  arrays lie in host memory and work is done when a call returns, so that a number can be read at any
                    time; False: to read one waits for a device, and a loop that wants it busy reads rarely
    device_steps    the training step that stays on the device (`lstm_np.device`) runs here

    Copied, it is itself; pickled, only its name and the number of cores that was asked for go along.

    >>> backend = lstm_np.get_backend("numpy")
    >>> array = backend.from_host(np.ones(3))
    >>> backend.to_host(backend.xp.tanh(array)).shape
    (3,)
    """

    name: str
    xp: Namespace
    from_host: Callable[[Array], Array]
    to_host: Callable[[Array], Array]
    synchronize: Callable[[], None]
    kernels: tuple[str, ...]
    cores: int = 1
    processes: int = 1
    decided_by: str = "one core feeds the device"
    reads_are_free: bool = False
    device_steps: bool = False

    def __repr__(self) -> str:
        cores = f"{self.cores} core{'' if self.cores == 1 else 's'} ({self.decided_by})"
        return f"<{self.name} backend: {cores}, kernels {', '.join(self.kernels)}>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def device(self) -> str | None:
        """The device in words: its name, and the versions that results depend on; None where arrays lie on the host."""
        return None

    def empty_vector(self, size: int, dtype: DTypeLike) -> Array:
        """An uninitialised vector of so many values, placed in memory as this backend computes fastest."""
        return self.xp.empty(size, dtype=dtype)

    def blas_threads(self, number: int) -> AbstractContextManager[None]:
        """A block within which products on the CPU use so many threads; no matter on a GPU."""
        return nullcontext()

    def one_blas_thread(self, multiply_adds: float = math.inf) -> AbstractContextManager[None]:
        """A block within which a product of that many multiplications is made by one CPU thread; no matter on a GPU."""
        return nullcontext()

    def squared_norm(self, vector: Array) -> Array:
        """The sum of a vector's squares, a 0-dimensional array; nothing waits for a device."""
        return self.inner(vector, vector)

    def inner(self, a: Array, b: Array) -> Array:
        """The inner product of two vectors, a 0-dimensional array; nothing waits for a device."""
        return a @ b

    def sweep(self, update: Callable[..., None], constants: Sequence[float], *vectors: Array) -> None:
        """update(constants, scratch, *vectors) on vectors of equal length, in pieces and on cores as it is fastest.

        `update` works in place and on each position by itself; `scratch` is as long as the piece, to compute in.
        """
        update(constants, self.xp.empty_like(vectors[0]), *vectors)
