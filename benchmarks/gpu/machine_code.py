"""What the machine code of the one-launch kernels does in one time step, read without a GPU.

    python -m benchmarks.gpu.machine_code          the tables of docs/gpu.md

Counts are facts about the code for sm_90.  Cycles are a prediction: a model of one multiprocessor issues the loop's
instructions of all warps in order, with the stalls and scoreboards that the encoding gives, latencies and rates that
are assumed (`LATENCY`, `RATE`), and no memory beyond the caches.  It was never compared with a GPU; `python -m
benchmarks.gpu` measures what it assumes.

Fields of an encoding: Jia, Maggioni, Staiger, Scarpazza, "Dissecting the NVIDIA Volta GPU architecture via
microbenchmarking", 2018, section 2; they are the same up to sm_90.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from benchmarks.gpu import nvrtc
from lstm_np.kernels.gpu import cuda_source
from lstm_np.kernels.gpu.launch_plan import DEVICES, Tiling, plan_persistent

SCHEDULERS = 4
HIDDEN_SIZES = (32, 64, 96, 100, 128, 129, 144)
OPERANDS_READ = 12  # cycles from issue until registers may be overwritten, where that takes a scoreboard
# cycles from issue until what it makes can be read, by the beginning of the name; the first that fits
LATENCY = {"LDS": 29, "LDL": 38, "LDG": 290, "LDC": 40, "SHFL": 24, "MUFU": 20, "S2R": 25, "BAR": 24, "ST": 20}
# cycles for which an instruction of one warp keeps its unit: the scheduler's own, or one of the whole multiprocessor
RATE = {"MUFU": 8, "FFMA": 1, "FADD": 1, "FMUL": 1}
SHARED_RATE = {
    "LDS.128": 4,
    "LDS.64": 2,
    "LDS": 1,
    "STS.128": 4,
    "STS": 1,
    "SHFL": 1,
    "LDL": 1,
    "STL": 1,
    "LDG": 1,
    "STG": 1,
}

_INSTRUCTION = re.compile(
    r"\s*/\*([0-9a-f]{4,6})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;.*?/\* 0x([0-9a-f]{16}) \*/"
)
_SECOND = re.compile(r"\s*/\* 0x([0-9a-f]{16}) \*/")


@dataclass(frozen=True)
class Instruction:
    """One machine instruction, and what its encoding says to the scheduler.

    stall    cycles before the warp's next instruction
    written  scoreboard that is taken until the result is there, or 7 for none
    read     scoreboard that is taken until the operands have been read, or 7
    waits    scoreboards that must be free, as bits
    """

    address: int
    predicate: str
    name: str
    operands: str
    stall: int
    written: int
    read: int
    waits: int


@dataclass(frozen=True)
class Loop:
    """The loop over time steps, as it lies in the code."""

    body: tuple[Instruction, ...]

    def count(self, *names: str) -> int:
        """Instructions whose name is one of these or begins with it and a dot."""
        return sum(i.name in names or any(i.name.startswith(f"{name}.") for name in names) for i in self.body)


def kernels_of(text: str) -> dict[str, list[Instruction | str]]:
    """kernel -> its instructions, and labels as they stand before them, from nvdisasm's output."""
    found: dict[str, list[Instruction | str]] = {}
    current: list[Instruction | str] = []
    pending: re.Match[str] | None = None
    for line in text.splitlines():
        if line.startswith(".text."):
            current = found.setdefault(line.removeprefix(".text.").rstrip(":"), [])
        elif line.startswith(".L_"):
            current.append(line.split(":")[0])
        elif match := _INSTRUCTION.match(line):
            pending = match
        elif pending is not None and (second := _SECOND.match(line)):
            control = int(second[1], 16) >> 41 & 0x1FFFFF
            address, predicate, name, operands, _ = pending.groups()
            current.append(
                Instruction(
                    int(address, 16), predicate or "", name, operands, control & 15,
                    control >> 5 & 7, control >> 8 & 7, control >> 11 & 63,
                )
            )  # fmt: skip
            pending = None
    return found


def time_loop(code: Sequence[Instruction | str]) -> Loop:
    """The loop over time steps: the smallest one with a barrier.  Raises ValueError where there is none."""
    labels: dict[str, int] = {}
    loops: list[list[Instruction]] = []
    for k, entry in enumerate(code):
        if isinstance(entry, str):
            labels[entry] = k
        elif entry.name == "BRA" and (target := re.search(r"\.L_x_\d+", entry.operands)) and target[0] in labels:
            loops.append([i for i in code[labels[target[0]] : k + 1] if isinstance(i, Instruction)])
    with_barrier = [loop for loop in loops if any(i.name.startswith("BAR") for i in loop)]
    if not with_barrier:
        raise ValueError("no loop with a barrier: is this a kernel over time steps?")
    shortest = min(with_barrier, key=len)
    return Loop(tuple(shortest))


def predicted_cycles(loop: Loop, warps: int, steps: int = 3) -> float:
    """Cycles of one time step: the last of `steps` in the model.

    Every instruction of the loop's text is issued, branches around parts of it are not taken.
    """
    lanes = [_Warp(k % SCHEDULERS) for k in range(warps)]
    free = {"shared": 0, **{f"{kind}{s}": 0 for kind in ("issue", "MUFU", "FMA") for s in range(SCHEDULERS)}}
    ends: list[int] = []
    arrived: list[int] = []
    while len(ends) < steps:
        ready = [warp for warp in lanes if not warp.at_barrier]
        warp = min(ready, key=lambda w: max(w.earliest(loop.body[w.place]), free[f"issue{w.scheduler}"]))
        instruction = loop.body[warp.place]
        unit, busy = _unit(instruction.name, warp.scheduler)
        now = max(warp.earliest(instruction), free[f"issue{warp.scheduler}"])
        # a full unit delays the result and everything behind it in the unit, not the warp's next instruction
        begun = now if unit is None else max(now, free[unit])
        if unit is not None:
            free[unit] = begun + busy
        free[f"issue{warp.scheduler}"] = now + 1
        warp.issue(instruction, now, begun + max(busy - 1, 0), len(loop.body))
        if instruction.name.startswith("BAR"):
            warp.at_barrier = True
            arrived.append(now)
            if len(arrived) == warps:
                opened = max(arrived) + LATENCY["BAR"]
                for other in lanes:
                    other.at_barrier, other.next = False, max(other.next, opened)
                ends.append(opened)
                arrived = []
    return float(ends[-1] - ends[-2])


class _Warp:
    """One warp in the model: its place in the loop, when it may go on, and until when its scoreboards are taken."""

    def __init__(self, scheduler: int) -> None:
        self.scheduler, self.place, self.next, self.at_barrier = scheduler, 0, 0, False
        self.taken = [0] * 6

    def earliest(self, instruction: Instruction) -> int:
        """When it could issue the instruction."""
        waits = [self.taken[s] for s in range(6) if instruction.waits >> s & 1]
        return max(self.next, *waits) if waits else self.next

    def issue(self, instruction: Instruction, now: int, begun: int, length: int) -> None:
        """Issue it now; its unit begins at `begun`, and the loop has so many instructions."""
        for scoreboard, cycles in (
            (instruction.written, _latency(instruction.name)),
            (instruction.read, OPERANDS_READ),
        ):
            if scoreboard < len(self.taken):
                self.taken[scoreboard] = max(self.taken[scoreboard], begun + cycles)
        self.next = now + max(1, instruction.stall)
        self.place = (self.place + 1) % length


def _latency(name: str) -> int:
    return next((cycles for start, cycles in LATENCY.items() if name.startswith(start)), 0)


def _unit(name: str, scheduler: int) -> tuple[str | None, int]:
    """The unit that an instruction keeps, and for how many cycles."""
    for start, cycles in SHARED_RATE.items():
        if name.startswith(start):
            return "shared", cycles
    for start, cycles in RATE.items():
        if name.startswith(start):
            return f"{'MUFU' if start == 'MUFU' else 'FMA'}{scheduler}", cycles
    return None, 0


@dataclass(frozen=True)
class Row:
    """One kernel of one plan, as the table has it."""

    hidden_size: int
    direction: str
    tiling: Tiling
    usage: nvrtc.Usage
    loop: Loop

    @property
    def cycles(self) -> float:
        """Predicted, of one time step."""
        return predicted_cycles(self.loop, self.tiling.threads // 32)


def read(hidden_size: int, *, architecture: int = 90, batch: int = 128, source: str | None = None) -> list[Row]:
    """Both directions of the one-launch kernels in float32 as the launch plan has them for a batch.

    source  other text than the package's

    Raises ValueError where the hidden size has no plan, RuntimeError with a tool's complaint.
    """
    plan = plan_persistent(DEVICES[architecture], hidden_size, "float32", batch)
    if plan is None:
        raise ValueError(f"no one-launch kernel for {hidden_size} hidden units on compute capability {architecture}")
    text = cuda_source.source("persistent") if source is None else source
    compiled = nvrtc.compile_for(architecture, text, cuda_source.options("float32", plan.macros()))
    code = kernels_of(nvrtc.disassemble(compiled.cubin))
    rows = []
    for direction, tiling in (("forward", plan.forward), ("backward", plan.backward)):
        name = f"lstm_persistent_{direction}"
        rows.append(Row(hidden_size, direction, tiling, compiled.usage[name], time_loop(code[name])))
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """The table in Markdown."""
    lines = [
        "| H | kernel | threads | registers | spills, B | local loads | shared, KiB | shared loads of 16 B | barriers "
        "| multiply-adds | cycles |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shared = f"{row.tiling.shared_bytes / 1024:.1f}"
        lines.append(
            f"| {row.hidden_size} | {row.direction} | {row.tiling.threads} | {row.usage.registers} "
            f"| {row.usage.spill_stores} | {row.loop.count('LDL')} | {shared} | {row.loop.count('LDS.128')} "
            f"| {row.loop.count('BAR')} | {row.loop.count('FFMA')} | {row.cycles:,.0f} |"
        )
    return lines


def table_of_the_others(architecture: int = 90) -> list[str]:
    """All other kernels, in float32, in Markdown."""
    files = ("classifier", "products", "steps", "training")
    compiled = nvrtc.compile_for(architecture, cuda_source.source(*files), cuda_source.options("float32"))
    code = kernels_of(nvrtc.disassemble(compiled.cubin))
    lines = ["| kernel | registers | spills, B | local loads | shared, KiB |", "|---|---|---|---|---|"]
    for name, usage in sorted(compiled.usage.items()):
        local = sum(isinstance(entry, Instruction) and entry.name.startswith("LDL") for entry in code[name])
        lines.append(f"| `{name}` | {usage.registers} | {usage.spill_stores} | {local} | {usage.shared / 1024:.1f} |")
    return lines


def main() -> int:
    """Print the tables; exit status 2 without NVRTC and the disassembler."""
    if nvrtc.compiler() is None or nvrtc.disassembler() is None:
        print(f"benchmarks.gpu.machine_code: NVRTC or nvdisasm is not installed: {nvrtc.NEEDED}", file=sys.stderr)
        return 2
    print(f"sm_90, NVRTC {nvrtc.version()}, {date.today().isoformat()}; per thread and time step; B = 128\n")
    print("\n".join(table([row for hidden_size in HIDDEN_SIZES for row in read(hidden_size)])))
    print("\n" + "\n".join(table_of_the_others()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
