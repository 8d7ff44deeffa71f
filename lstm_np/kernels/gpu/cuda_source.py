"""The CUDA sources: text, macros, compiled modules.

A module is `common.cuh` and one or more `.cu` files, joined, so that no include path is needed.  CuPy compiles it with
NVRTC when one of its kernels is first asked for, for the device at hand, and keeps the binary in its own cache on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, TypeAlias

from lstm_np.arrays import Namespace

RawKernel: TypeAlias = Any  # CuPy's
REALS = {"float32": "float", "float64": "double"}


def source(*names: str) -> str:
    """The text of `common.cuh` followed by the files `names` (without ".cu"), with the line numbers of each kept."""
    folder = resources.files("lstm_np.kernels.gpu") / "cuda"
    files = ("common.cuh", *(f"{name}.cu" for name in names))
    return "".join(f'#line 1 "{name}"\n{(folder / name).read_text(encoding="utf-8")}' for name in files)


def options(dtype: str, macros: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """Compiler options: the standard, the real type, and a definition for each macro.

    Raises KeyError for a dtype that has no kernels.
    """
    definitions = {"REAL": REALS[dtype], **(macros or {})}
    return ("-std=c++17", *(f"-D{name}={value}" for name, value in definitions.items()))


@cache
def _module(xp: Namespace, names: tuple[str, ...], compiler_options: tuple[str, ...]) -> Any:
    return xp.RawModule(code=source(*names), options=compiler_options)


def kernel(
    xp: Namespace, names: tuple[str, ...], function: str, dtype: str, macros: Mapping[str, int] | None = None
) -> RawKernel:
    """The kernel `function` of the module of these files, a CuPy `RawKernel`; modules are compiled once per process."""
    return _module(xp, names, options(dtype, macros)).get_function(function)


def allow_shared_memory(kernel: RawKernel, size: int) -> None:
    """Let a `RawKernel` be launched with `size` bytes of dynamic shared memory; beyond 48 KiB it must be asked for.

    It holds for the current device only, on which it loads the kernel.
    """
    if size > kernel.max_dynamic_shared_size_bytes:
        kernel.max_dynamic_shared_size_bytes = size
