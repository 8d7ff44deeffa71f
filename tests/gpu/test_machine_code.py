"""Every kernel compiles for every architecture with CuPy's options, within the registers that the launch plan counts
on, and the machine code of the loop over time steps is what the plan means it to be."""

import hashlib
import json
import os
import re
from functools import lru_cache
from pathlib import Path

import pytest

from benchmarks.gpu import machine_code, nvrtc
from lstm_np.device import inference, step
from lstm_np.kernels.gpu import cuda_source
from lstm_np.kernels.gpu.launch_plan import DEVICES, plan_persistent
from tests.gpu import test_inserted_faults, test_large_arrays
from tests.gpu.host_kernels import cache
from tests.gpu.test_inserted_faults import changed

needs_nvrtc = pytest.mark.skipif(nvrtc.compiler() is None, reason=f"NVRTC is not installed: {nvrtc.NEEDED}")
needs_both = pytest.mark.skipif(
    nvrtc.compiler() is None or nvrtc.disassembler() is None, reason=f"nvdisasm is not installed: {nvrtc.NEEDED}"
)

FILES = ("steps", "products", "classifier", "training")
SPILL_LIMIT = 128  # bytes per thread where the weights hardly fit; in the loop there are none up to CLEAN hidden units
CLEAN = 128


@pytest.fixture(autouse=True, scope="module")
def kept_on_disk():
    """What was compiled and disassembled once is read from disk, by other processes and later runs too."""
    compile_for, disassemble = nvrtc.compile_for, nvrtc.disassemble

    def key(*parts):
        return hashlib.sha256(repr((nvrtc.version(), *parts)).encode()).hexdigest()[:32]

    def kept(name, make):
        path = cache() / name
        if not path.exists():
            partial = path.with_name(f"{path.stem}.{os.getpid()}.part")
            partial.write_bytes(make())
            partial.rename(path)
        return path.read_bytes()

    def compile_once(architecture, source, options):
        def make():
            compiled = compile_for(architecture, source, options)
            usage = {name: list(used) for name, used in compiled.usage.items()}
            return json.dumps({"usage": usage, "cubin": compiled.cubin.hex()}).encode()

        found = json.loads(kept(f"{key(architecture, source, options)}.module", make))
        usage = {name: nvrtc.Usage(*used) for name, used in found["usage"].items()}
        return nvrtc.Compiled(bytes.fromhex(found["cubin"]), usage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc, "compile_for", compile_once)
        patch.setattr(
            nvrtc, "disassemble", lambda cubin: kept(f"{key(cubin)}.sass", lambda: disassemble(cubin).encode()).decode()
        )
        yield


def usage(architecture, source, options):
    if architecture not in nvrtc.architectures():
        pytest.skip(f"this NVRTC does not know sm_{architecture}")
    return nvrtc.compile_for(architecture, source, options).usage


def largest_hidden_size(device, dtype):
    return max(H for H in range(8, 161, 8) if plan_persistent(device, H, dtype, 1))


@needs_nvrtc
@pytest.mark.parametrize(
    ("architecture", "dtype"), [(75, "float32"), (90, "float32"), (90, "float64"), (120, "float32")]
)
def test_all_but_the_persistent_kernel(architecture, dtype):
    source = cuda_source.source(*FILES)
    found = usage(architecture, source, cuda_source.options(dtype))
    assert len(found) == source.count('extern "C" __global__')
    assert {
        name
        for names in (step.TRAINING_KERNELS, inference.INFERENCE_KERNELS)
        for file in names.values()
        for name in file
    } == set(found)
    for name, used in found.items():
        assert used.spill_stores == 0, f"{name}: {used}"
        assert used.registers * 256 <= 65536, f"{name}: {used}"


@needs_nvrtc
@pytest.mark.parametrize(
    ("architecture", "dtype", "batch"),
    [*((each, "float32", 1) for each in DEVICES), (75, "float32", 10**4), (90, "float32", 10**4), (90, "float64", 1)],
)
def test_the_persistent_kernel_at_the_largest_hidden_size(architecture, dtype, batch):
    """The largest layer needs the most registers; a large batch, the most samples per block."""
    hidden_size = largest_hidden_size(DEVICES[architecture], dtype)
    plan = plan_persistent(DEVICES[architecture], hidden_size, dtype, batch)
    found = usage(architecture, cuda_source.source("persistent"), cuda_source.options(dtype, plan.macros()))
    for direction, tiling in (("forward", plan.forward), ("backward", plan.backward)):
        used = found[f"lstm_persistent_{direction}"]
        assert used.registers <= tiling.register_limit, f"{direction}, {tiling}: {used}"
        assert used.spill_stores <= SPILL_LIMIT, f"{direction}, {tiling}: {used}"
        assert used.spill_loads <= SPILL_LIMIT, f"{direction}, {tiling}: {used}"


@lru_cache
def read(hidden_size):
    return machine_code.read(hidden_size)


def problems(row):
    """What is not as it should be in the loop over time steps, a line each."""
    m, loop, found = row.tiling, row.loop, []
    wanted = m.chunks * m.rows - m.kept + m.chunks * m.samples  # weights that are not in registers, and all of v
    if loop.count("BAR") != 1:
        found.append(f"{loop.count('BAR')} barriers a time step")
    if loop.count("LDS.128") != wanted:
        found.append(f"{loop.count('LDS.128')} shared loads of 16 bytes, {wanted} wanted")
    if loop.count("LDS") != loop.count("LDS.128"):
        found.append("shared loads of fewer bytes")
    if row.hidden_size <= CLEAN and loop.count("LDL", "STL"):
        found.append(f"{loop.count('LDL', 'STL')} accesses to local memory")
    if loop.count("LDL") > 3 or loop.count("STL"):
        found.append(f"{loop.count('LDL')} local loads")
    if row.usage.registers > m.register_limit or row.usage.spill_stores > SPILL_LIMIT:
        found.append(f"{row.usage}, at most {m.register_limit} registers")
    if loop.count("FFMA") < m.rows * m.chunks * 4 * m.samples:
        found.append("too few multiply-adds: is this the loop?")
    return found


@needs_both
@pytest.mark.parametrize("hidden_size", [*machine_code.HIDDEN_SIZES, 116, 127])
def test_the_loop_over_time_steps(hidden_size):
    for row in read(hidden_size):
        assert problems(row) == [], row.direction


UNROLLED = "#pragma unroll\n        for (int n = 0; n < M::CHUNKS; ++n) {"
FAULTS = {
    "weights indexed at run time": (
        changed(UNROLLED, UNROLLED.replace("unroll", "unroll 1")), "accesses to local memory|local loads",
    ),
    "a second barrier": (
        changed("        real sums[M::ITEMS][4];", "__syncthreads(); real sums[M::ITEMS][4];"), "2 barriers",
    ),
    "weights read value by value": (
        changed("w = quad(shared, ((n_th - M::KEPT) * M::THREADS + threadIdx.x) * 4);",
                "for (int e = 0; e < 4; ++e) w.v[e] = reinterpret_cast<volatile real*>(shared)"
                "[((n_th - M::KEPT) * M::THREADS + threadIdx.x) * 4 + e];"), "shared loads of",
    ),
    "one chunk too many in registers": (
        changed("KEPT = KEPT_ < CHUNKS * ROWS ? KEPT_ :", "KEPT = KEPT_ + ROWS < CHUNKS * ROWS ? KEPT_ + ROWS :"),
        "accesses to local memory|shared loads of 16 bytes",
    ),
    "sums kept in memory": (
        changed("__device__ __forceinline__ void add_up", "__device__ __noinline__ void add_up"), "local memory",
    ),
}  # fmt: skip


@needs_both
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_only_the_machine_code_shows(fault):
    mutate, message = FAULTS[fault]
    text = mutate(cuda_source.source("persistent"))
    found = [line for row in machine_code.read(128, source=text) for line in problems(row)]
    assert mutate.done
    assert any(re.search(message, line) for line in found), found


@needs_both
def test_no_other_kernel_uses_local_memory():
    cubin = nvrtc.compile_for(90, cuda_source.source(*FILES), cuda_source.options("float32")).cubin
    code = machine_code.kernels_of(nvrtc.disassemble(cubin))
    assert len(code) == 15
    for name, entries in code.items():
        names = [entry.name for entry in entries if isinstance(entry, machine_code.Instruction)]
        assert len(names) > 10, name
        assert not any(instruction.startswith(("LDL", "STL")) for instruction in names), name


@needs_both
def test_the_model_of_a_multiprocessor_is_not_below_what_its_units_need():
    for row in read(128):
        multiply_adds = row.loop.count("FFMA") * row.tiling.threads // 32 // machine_code.SCHEDULERS
        shared = row.loop.count("LDS.128") * 4 * row.tiling.threads // 32
        assert max(multiply_adds, shared) < row.cycles < 5 * (multiply_adds + shared)


def test_the_model_waits_for_what_an_instruction_needs():
    def instruction(name, stall=1, written=7, waits=0):
        return machine_code.Instruction(0, "", name, "", stall, written, 7, waits)

    alone = machine_code.Loop((instruction("FFMA", 4), instruction("BAR.SYNC", 1)))
    loaded = machine_code.Loop((instruction("LDS.128", 2, 0), instruction("FFMA", 4, 7, 1), instruction("BAR.SYNC", 1)))
    assert machine_code.predicted_cycles(alone, 1) == 4 + 24
    assert machine_code.predicted_cycles(loaded, 1) == 3 + machine_code.LATENCY["LDS"] + 4 + 24
    # eight warps share the shared memory: it is busy for 4 cycles with each
    assert machine_code.predicted_cycles(loaded, 8) >= 8 * 4 + machine_code.LATENCY["LDS"]


@needs_both
def test_the_table_of_the_documentation_is_that_of_the_code():
    text = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
    if f"NVRTC {nvrtc.version()}" not in text:
        pytest.skip(f"docs/gpu.md is of another NVRTC than {nvrtc.version()}")
    rows = [row for hidden_size in machine_code.HIDDEN_SIZES for row in read(hidden_size)]
    for line in machine_code.table(rows) + machine_code.table_of_the_others():
        assert line in text, "python -m benchmarks.gpu.machine_code prints the tables as they are now"


def test_the_documentation_lists_every_inserted_fault():
    text = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
    lists = (test_inserted_faults.WATCHED, test_inserted_faults.PARTS, test_inserted_faults.HOST)
    for fault in [name for faults in (*lists, test_large_arrays.FAULTS, FAULTS) for name in faults]:
        assert f"| {fault} |" in text
    first = (test_inserted_faults.PERSISTENT, test_inserted_faults.STEPS, test_inserted_faults.TRAINING)
    assert f"begins with {sum(map(len, first))} in the" in text


def test_the_options_are_those_of_cupy(monkeypatch):
    compiler = pytest.importorskip("cupy.cuda.compiler", exc_type=ImportError)
    seen = []

    class Program:
        def __init__(self, *args, **kwargs):
            pass

        def compile(self, options, log_stream=None):
            seen.append(tuple(options))
            raise StopIteration

    monkeypatch.setattr(compiler, "_NVRTCProgram", Program)
    monkeypatch.setattr(compiler, "_get_arch_for_options_for_nvrtc", lambda arch=None: (f"-arch=sm_{arch}", "cubin"))
    monkeypatch.setattr(compiler, "_get_nvrtc_version", lambda: (13, 5))
    monkeypatch.setattr(compiler, "_preprocess", lambda *args: "")
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "1")
    own = cuda_source.options("float32")
    with pytest.raises(StopIteration):
        compiler._compile_module_with_cache(cuda_source.source("steps"), own, arch="90")
    assert seen == [(*own, nvrtc.CUPY_OPTIONS[0], "-arch=sm_90", nvrtc.CUPY_OPTIONS[1])]
