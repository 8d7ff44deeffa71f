"""`python -m benchmarks busy`: training steps while another program keeps one core busy."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

from benchmarks import machine, results, workloads
from benchmarks.processes import Racer
from benchmarks.workloads import Case

CASES = (Case("train", 128, 128), Case("train", 128, 64), Case("train", 16, 128), Case("train", 16, 64))
SLOT = 1.0  # seconds of steps in a turn
PROGRAM = "while True: pass"


def run(arguments: argparse.Namespace) -> int:
    """One thread and all, in turns, beside a program that never waits; the step of all, divided by the faster one's."""
    cases = [case for text in arguments.cases for case in workloads.parse_case(text)] if arguments.cases else CASES
    document = machine.header("busy", arguments.threads)
    document |= {"rounds": arguments.rounds, "slot_seconds": SLOT, "cases": []}
    several = f"{arguments.threads} threads"
    print(f"{'':<24} {'1 thread':>14} {several:>14} {'to the faster':>14}", flush=True)
    for case in cases:
        record = measure(case, arguments.threads, arguments.rounds)
        document["cases"].append(record)
        one, all_of_them = record["one"]["median"], record["all"]["median"]
        print(f"{case!s:<24} {one * 1e3:>11.3f} ms {all_of_them * 1e3:>11.3f} ms {record['ratio']:>14.2f}", flush=True)
    print(f"written: {results.write(document, arguments.out)}")
    return 0


def measure(case: Case, threads: int, rounds: int) -> dict[str, Any]:
    """Seconds per step of one thread and of `threads`, median and best round."""
    with ExitStack() as stack:
        racers = {
            "one": stack.enter_context(Racer("ours", 1, on=threads)),
            "all": stack.enter_context(Racer("ours", threads)),
        }
        for racer in racers.values():
            racer.ask("prepare", case=case.as_dict())
            racer.ask("run", seconds=SLOT / 2)
        other = subprocess.Popen([sys.executable, "-c", PROGRAM])
        try:
            seconds: dict[str, list[float]] = {name: [] for name in racers}
            for _ in range(rounds):
                for name, racer in racers.items():
                    began = time.perf_counter()
                    steps = racer.ask("run", seconds=SLOT)["steps"]
                    seconds[name].append((time.perf_counter() - began) / steps)
        finally:
            other.kill()
            other.wait()
    found = {name: {"median": statistics.median(times), "best": min(times)} for name, times in seconds.items()}
    faster = min(found["one"]["median"], found["all"]["median"])
    return {"case": case.as_dict(), **found, "ratio": found["all"]["median"] / faster}
