"""What the engine must know about the place where arrays live."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class BackendError(RuntimeError):
    """A backend that was asked for cannot be used here; the message says what is missing and what to do."""


def call_once(update: Callable[..., None], *vectors: Any) -> None:
    """update(*vectors)."""
    update(*vectors)


@dataclass(frozen=True)
class Backend:
    """An array namespace and the few things around it, chosen once and passed down.

    name         what it is called ("numpy", "cupy")
    xp           the array namespace that all engine code computes with
    from_host    NumPy array -> array of this backend; a NumPy array given to the NumPy backend is not copied
    to_host      array of this backend -> NumPy array
    synchronize  wait until all work handed to the device is done
    kernels      names of the sequence kernels that run here, best first; the last is always "reference"
    threads      how many CPU cores may be used; None: all
    sweep        sweep(update, *vectors) calls update(*vectors) on vectors of equal length, in pieces and on several
                 cores where that is faster; update works in place, on each position by itself
    """

    name: str
    xp: Any
    from_host: Callable[[Any], Any]
    to_host: Callable[[Any], Any]
    synchronize: Callable[[], None]
    kernels: tuple[str, ...]
    threads: int | None = None
    sweep: Callable[..., None] = call_once
