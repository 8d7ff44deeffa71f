"""CUDA sources compiled as CuPy compiles them, and their machine code, on a machine without a GPU.

NVRTC and the disassembler come as wheels, `nvidia-cuda-nvrtc` and `nvidia-cuda-nvdisasm`, or with a CUDA toolkit.
"""

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

# what CuPy 14 adds to a module's own options (cupy/cuda/compiler.py), besides the architecture and paths of headers
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")
REPORT = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    r"(?:, used \d+ barriers)?(?:, (\d+) bytes smem)?",
    re.DOTALL,
)
NEEDED = "pip install nvidia-cuda-nvrtc nvidia-cuda-nvdisasm (no GPU is needed)"


class Usage(NamedTuple):
    """What ptxas reports of one kernel: registers per thread, bytes spilt, bytes of static shared memory."""

    registers: int
    spill_stores: int
    spill_loads: int
    shared: int


class Compiled(NamedTuple):
    """A module's binary, and what each of its kernels uses."""

    cubin: bytes
    usage: dict[str, Usage]


def _in_wheels(pattern: str) -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        found = sorted(Path(folder).glob(pattern))
        if found:
            return found[-1]
    return None


@lru_cache(maxsize=1)
def compiler() -> Any:
    """NVRTC, from a wheel or a toolkit; None where it is not installed."""
    path = _in_wheels("*/lib/libnvrtc.so.*[0-9]")
    toolkits = sorted(Path("/usr/local").glob("cuda*/lib64/libnvrtc.so.*[0-9]")) if path is None else [path]
    return ctypes.CDLL(str(toolkits[-1])) if toolkits else None


@lru_cache(maxsize=1)
def disassembler() -> str | None:
    """The path of nvdisasm, from a wheel or a toolkit; None where it is not installed."""
    path = _in_wheels("*/bin/nvdisasm")
    return str(path) if path is not None else shutil.which("nvdisasm")


@lru_cache(maxsize=1)
def version() -> str:
    """NVRTC's version, such as "13.0"."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    compiler().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def architectures() -> list[int]:
    """The compute capabilities that this NVRTC knows, e.g. 90."""
    count = ctypes.c_int()
    compiler().nvrtcGetNumSupportedArchs(ctypes.byref(count))
    known = (ctypes.c_int * count.value)()
    compiler().nvrtcGetSupportedArchs(known)
    return list(known)


def compile_for(architecture: int, source: str, options: tuple[str, ...]) -> Compiled:
    """The module for a compute capability (e.g. 90), with CuPy's options behind its own.

    Raises RuntimeError with the compiler's output.
    """
    nvrtc = compiler()
    flags = [*options, *CUPY_OPTIONS, f"-arch=sm_{architecture}", "--ptxas-options=-v"]
    encoded = [flag.encode() for flag in flags]
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    try:
        status = nvrtc.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*encoded))
        log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).rstrip(b"\0").decode()
        if status:
            raise RuntimeError(log[:4000])
        cubin = _text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    usage = {
        name: Usage(int(used), int(stores), int(loads), int(shared or 0))
        for name, stores, loads, used, shared in REPORT.findall(log)
    }
    return Compiled(cubin, usage)


def _text(get_size: Any, get: Any, program: Any) -> bytes:
    size = ctypes.c_size_t()
    get_size(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    get(program, buffer)
    return buffer.raw


def disassemble(cubin: bytes) -> str:
    """The machine code with its encoding, as nvdisasm prints it.  Raises RuntimeError with its complaint."""
    tool = disassembler()
    assert tool is not None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "-c", "-hex", file.name], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"nvdisasm: {done.stderr.strip()[:400]}")
    return done.stdout
