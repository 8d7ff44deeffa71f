"""Compiling CUDA sources for an architecture on a machine without a GPU, by nvcc or by NVRTC from the nvidia wheels."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

REPORT = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
    re.DOTALL,
)


class Usage(NamedTuple):
    """What ptxas reports of one kernel: registers per thread, bytes spilt."""

    registers: int
    spill_stores: int
    spill_loads: int


def _nvrtc_library() -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        found = sorted(Path(folder).glob("*/lib/libnvrtc.so.*[0-9]"))
        if found:
            return found[0]
    return None


@lru_cache(maxsize=1)
def find() -> tuple[str, Any] | None:
    """("nvcc", path) or ("NVRTC", library), whichever is here; None when neither is."""
    nvcc = shutil.which("nvcc")
    if nvcc:
        return "nvcc", nvcc
    library = _nvrtc_library()
    return ("NVRTC", ctypes.CDLL(str(library))) if library else None


def compile_for(architecture: int, source: str, options: tuple[str, ...]) -> dict[str, Usage]:
    """Kernel -> what it uses on compute capability `architecture` (e.g. 90).

    Raises RuntimeError with the compiler's output, LookupError when the compiler does not know the architecture.
    """
    found = find()
    assert found is not None
    log = _by_nvcc(found[1], architecture, source, options) if found[0] == "nvcc" else _by_nvrtc(
        found[1], architecture, source, options
    )  # fmt: skip
    return {name: Usage(int(used), int(stores), int(loads)) for name, stores, loads, used in REPORT.findall(log)}


def _by_nvcc(nvcc: str, architecture: int, source: str, options: tuple[str, ...]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernels.cu"
        file.write_text(source)
        command = [nvcc, "-cubin", f"-arch=sm_{architecture}", "-ftz=true", "-Xptxas=-v", *options, str(file)]
        done = subprocess.run(
            [*command, "-o", f"{folder}/out"], capture_output=True, text=True, timeout=120, check=False
        )
    if "not defined for option 'gpu-architecture'" in done.stderr or "Unsupported gpu architecture" in done.stderr:
        raise LookupError(f"this nvcc does not know sm_{architecture}")
    if done.returncode:
        raise RuntimeError(done.stderr[:4000])
    return done.stderr


def _by_nvrtc(library: Any, architecture: int, source: str, options: tuple[str, ...]) -> str:
    count = ctypes.c_int()
    library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    known = (ctypes.c_int * count.value)()
    library.nvrtcGetSupportedArchs(known)
    if architecture not in list(known):
        raise LookupError(f"this NVRTC does not know sm_{architecture}")
    flags = [f"-arch=sm_{architecture}", "-ftz=true", "--ptxas-options=-v", *options]
    program = ctypes.c_void_p()
    encoded = [flag.encode() for flag in flags]
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    try:
        status = library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*encoded))
        size = ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    text = log.value.decode()
    if status:
        raise RuntimeError(text[:4000])
    return text
