"""CUDA kernels of the stand-in: their own sources, compiled by the C++ compiler over `host_shim`, called as CuPy does.

A kernel's arguments must have exactly the C types of its parameters, and a strided view is refused (CuPy ignores
strides); block size, `__launch_bounds__`, grid and shared memory must keep the device's limits; and a kernel that has
not been loaded on a device cannot be while a stream captures.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.gpu.host_memory import WATCHED, DeviceArray, KernelFaultError
from tests.gpu.host_streams import Runtime

SHIM = Path(__file__).parent / "host_shim"
COMPILER = shutil.which("g++")
COMMON = ("-std=c++17", "-O1", "-w", "-fPIC", f"-I{SHIM}", "-include", "cuda_on_host.h")
WATCHING = (
    "-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0", "-fsanitize=signed-integer-overflow",
    "-U_FORTIFY_SOURCE", "-ftrivial-auto-var-init=pattern",
)  # fmt: skip
C_TYPES = {
    "float": np.float32,
    "double": np.float64,
    "int": np.int32,
    "long long": np.int64,
    "unsigned char": np.uint8,
}
LAUNCH = np.dtype(  # `Launch` in host_shim/runtime.cpp
    [("grid", "u4", 3), ("block", "u4", 3), ("shared_bytes", "u8"), ("seed", "u8"), ("watched", "u8"),
     ("watched_count", "u4"), ("number", "u4"), ("only_block", "i8")]
)  # fmt: skip


def signatures(source: str) -> dict[str, tuple[list[tuple[str, bool]], str]]:
    """kernel -> ([(C type, is pointer)], largest block or ""); macros are not expanded, so `real` stays."""
    pattern = re.compile(r'extern "C" __global__ void\s*(__launch_bounds__\(\w+(?:, \w+)?\))?\s*(\w+)\(([^)]*)\)')
    found = {}
    for bounds, name, parameters in pattern.findall(source):
        types = []
        for parameter in parameters.split(","):
            words = parameter.replace("*", " * ").split()
            types.append((" ".join(w for w in words[:-1] if w not in ("const", "*", "__restrict__")), "*" in words))
        found[name] = (types, re.sub(r"__launch_bounds__\((\w+).*", r"\1", bounds))
    return found


def cache() -> Path:
    """The folder for what was compiled, which outlives a run of the tests."""
    folder = Path(tempfile.gettempdir()) / f"lstm_np-host-kernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _made(name: str, commands: Any) -> Path:
    """The file `name` of the cache, made by the commands for a partial name where it is not there yet."""
    path = cache() / name
    if not path.exists():
        partial = path.with_name(f"{path.stem}.{os.getpid()}.part")
        for command, text in commands(str(partial)):
            done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
            if done.returncode:
                raise RuntimeError(f"the kernels do not compile on the host:\n{done.stderr[:4000]}")
        partial.rename(path)
    return path


def _key(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def _runtime() -> tuple[str, Path]:
    """The key of the shim's texts, and its runtime as an object file."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(SHIM.iterdir())]
    key = _key(texts, COMMON, WATCHING)
    source = str(SHIM / "runtime.cpp")
    return key, _made(f"{key}.o", lambda out: [([str(COMPILER), *COMMON, "-O2", "-c", source, "-o", out], None)])


@lru_cache(maxsize=1)
def history_bytes() -> int:
    """What the watch keeps of each element of global memory."""
    return int(
        ctypes.c_size_t.in_dll(compile_for_host("typedef REAL real;", ("-DREAL=float",)), "host_word_bytes").value
    )


@lru_cache(maxsize=64)
def compile_for_host(code: str, options: tuple[str, ...]) -> ctypes.CDLL:
    """A shared library with `host_launch_<kernel>` for each kernel; compiled once per text and options."""
    wrappers = ["\n"]
    for name, (types, _) in signatures(code).items():
        unpacked = ", ".join(
            f"*static_cast<{kind}{'*' * pointer}*>(arguments[{k}])" for k, (kind, pointer) in enumerate(types)
        )
        wrappers.append(
            f"static void host_body_{name}(void** arguments) {{ {name}({unpacked}); }}\n"
            f'extern "C" const char* host_launch_{name}(void** arguments, const host::Launch* how)\n'
            f"{{ return host::launch(host_body_{name}, arguments, how); }}\n"
        )
    text = code + "".join(wrappers)
    shim, runtime = _runtime()
    defines = [option for option in options if option.startswith("-D")]

    def commands(out: str) -> list[Any]:
        compiled = [str(COMPILER), *COMMON, *WATCHING, *defines, "-x", "c++", "-c", "-", "-o", f"{out}.o"]
        linked = [str(COMPILER), "-shared", "-Wl,-Bsymbolic", f"{out}.o", str(runtime), "-o", out]
        return [(compiled, text), (linked, None), (["rm", f"{out}.o"], None)]

    return ctypes.CDLL(str(_made(f"{_key(text, options, shim)}.so", commands)))


class RawModule:
    """A module, whose kernels are compiled when one is asked for."""

    def __init__(self, runtime: Runtime, code: str, options: tuple[str, ...], mutate: Any) -> None:
        changed = mutate(code) if mutate else code
        self._runtime, self._macros = runtime, dict(re.findall(r"-D(\w+)=(\w+)", " ".join(options)))
        self._library, self._signatures = compile_for_host(changed, options), signatures(code)

    def get_function(self, name: str) -> RawKernel:
        """A kernel."""
        return RawKernel(self._runtime, self._library, name, self._signatures[name], self._macros)


class RawKernel:
    """One kernel; called with (grid, block, arguments, shared_mem=bytes)."""

    def __init__(self, runtime: Runtime, library: Any, name: str, signature: Any, macros: dict[str, str]) -> None:
        self.name, self._runtime = name, runtime
        self._launch = getattr(library, f"host_launch_{name}")
        self._launch.restype = ctypes.c_char_p
        self._launch.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        types, bound = signature
        self._types = [(np.dtype(C_TYPES[macros["REAL"] if kind == "real" else kind]), p) for kind, p in types]
        self._bound = int(macros.get(bound, bound) or 1024)
        self._allowed: dict[Any, int] = {}  # by device, as the driver has it; a device is there once it is loaded

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """On the current device."""
        self._load()
        return self._allowed[self._runtime.current]

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        self._load()
        self._allowed[self._runtime.current] = size

    def _load(self) -> None:
        if self._runtime.current not in self._allowed:
            self._runtime.refuse_while_capturing(f"loading {self.name}")
            self._allowed[self._runtime.current] = 48 * 1024

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None:
        threads, device = int(np.prod(block)), self._runtime.current
        self._load()
        assert all(0 < n < 2**31 for n in grid), f"{self.name}: grid {grid}"
        assert all(n < 65536 for n in grid[1:]), f"{self.name}: grid {grid}"
        assert 0 < threads <= self._bound, f"{self.name}: {threads} threads, at most {self._bound}"
        assert shared_mem <= self._allowed[device] <= device.shared_memory, f"{self.name}: {shared_mem} B"
        assert len(args) == len(self._types), f"{self.name}: {len(args)} arguments for {len(self._types)} parameters"
        for k, (argument, (dtype, pointer)) in enumerate(zip(args, self._types, strict=True)):
            where = f"{self.name}, argument {k}"
            if pointer:
                assert isinstance(argument, DeviceArray), f"{where}: an array is expected, found {type(argument)}"
                assert argument.flags.c_contiguous, f"{where}: a strided view"
                if argument.device is not device:
                    raise KernelFaultError(f"{where}: an array of another device")
            else:
                assert isinstance(argument, np.generic), (
                    f"{where}: a {dtype} scalar is expected, found {type(argument)}"
                )
            assert argument.dtype == dtype, f"{where}: {argument.dtype} for {dtype}"
        only_block, hold = device.only_block, self._runtime.hold
        kept = [(a.values, hold(a.allocation)) if isinstance(a, DeviceArray) else (a, None) for a in args]
        self._runtime.enqueue(lambda: self._run(device, grid, block, kept, shared_mem, only_block))

    def _run(
        self, device: Any, grid: tuple[int, ...], block: tuple[int, ...], args: list[tuple[Any, Any]], shared_mem: int,
        only_block: int,
    ) -> None:  # fmt: skip
        device.launches.append(self.name)
        device.seed += 1
        cells = [
            np.array(a.ctypes.data, np.uint64) if pointer else np.array(a)
            for (a, _), (_, pointer) in zip(args, self._types, strict=True)
        ]
        pointers = np.array([cell.ctypes.data for cell in cells], np.uint64)
        memories = {id(memory): memory for memory in (held() for _, held in args if held is not None)}
        watched = np.array([memory.row() for memory in memories.values()], WATCHED)
        sizes = [(*n, 1, 1)[:3] for n in (grid, block)]
        how = np.array(
            (*sizes, shared_mem, device.seed, watched.ctypes.data, len(watched), device.count_launch(), only_block),
            LAUNCH,
        )
        fault = self._launch(pointers.ctypes.data, how.ctypes.data)
        if fault:
            raise KernelFaultError(f"{self.name}: {fault.decode()}")
