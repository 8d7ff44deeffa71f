"""Memory that processes share, and named arrays in it.

No name leads to such a memory: a process has it by a file descriptor, and it is gone with its last user.  It costs
nothing until it is written.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

Shapes = Mapping[str, tuple[int, ...]]
Arrays = dict[str, Any]


class SharedMemory:
    """So many bytes of memory, zero, and the file descriptor by which another process can map them.

    Where the system gives no descriptor (too many are open) or no file of that size (`ulimit -f`), the memory is this
    process's alone: not `shareable`.
    """

    def __init__(self, size: int) -> None:
        self.descriptor = -1
        try:
            self.descriptor = _file_in_memory()
            os.ftruncate(self.descriptor, size)
        except OSError:
            self._close()
        self.mapping = mmap.mmap(self.descriptor, size)

    @property
    def shareable(self) -> bool:
        """Whether it can be sent to another process."""
        return self.descriptor >= 0

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def map_memory(descriptor: int) -> mmap.mmap:
    """A memory of another process from its file descriptor, which is closed."""
    try:
        return mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)


def bytes_of(shapes: Shapes, dtype: str, alignment: int) -> int:
    """The size of a memory for arrays of these shapes, each from a multiple of `alignment` bytes on."""
    itemsize = np.dtype(dtype).itemsize
    return sum(-(-math.prod(shape) * itemsize // alignment) * alignment for shape in shapes.values())


def arrays_in(memory: mmap.mmap, shapes: Shapes, dtype: str, alignment: int) -> Arrays:
    """The arrays of these names and shapes in a memory of that size, one after the other."""
    arrays, start, itemsize = {}, 0, np.dtype(dtype).itemsize
    for name, shape in shapes.items():
        count = math.prod(shape)
        arrays[name] = np.frombuffer(memory, dtype, count, start).reshape(shape)
        start += -(-count * itemsize // alignment) * alignment
    return arrays


def _file_in_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("lstm_np")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
