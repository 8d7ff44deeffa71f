"""`python -m benchmarks cpu`: every case against every peer, in this run, on the same cores."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks import machine, results
from benchmarks.figures import in_words
from benchmarks.processes import ContestantError, Racer
from benchmarks.race import STEP_LIMIT, TOLERANCE, Pace, race_case
from benchmarks.workloads import Case

BUSY = 0.25  # load per core at the start, above which figures are not to be trusted
CPU_PEERS = ("reference", "torch", "jax", "keras", "thinc")


def run(
    cases: Sequence[Case],
    peers: Sequence[str],
    *,
    threads: int,
    pace: Pace,
    pythons: Mapping[str, str],
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Race; the result document.  A peer that cannot be started is told and left out; so is a case that fails."""
    document = machine.header("cpu", threads)
    document |= {"pace": {"rounds": pace.rounds, "slot_seconds": pace.slot}, "tolerance": TOLERANCE}
    document |= {"contestants": {}, "missing": {}, "left_out": [], "cases": []}
    started = time.perf_counter()
    with ExitStack() as stack:
        ours = stack.enter_context(Racer("ours", threads, pythons.get("ours", sys.executable)))
        document["contestants"]["ours"] = ours.ask("describe")
        racers = []
        for name in peers:
            racer = stack.enter_context(Racer(name, threads, pythons.get(name, sys.executable)))
            try:
                document["contestants"][name] = racer.ask("describe", timeout=180)
            except ContestantError as error:
                document["missing"][name] = str(error)
                say(f"left out: {error}")
                continue
            racers.append(racer)
        say(_heading(racers))
        for case in cases:
            try:
                record = race_case(case, ours, racers, pace)
            except ContestantError as error:
                document["left_out"].append({"case": str(case), "reason": str(error)})
                say(f"left out: {case}: {error}")
                racers = [racer for racer in racers if racer.alive]
                if not ours.alive:
                    break
                continue
            if "left_out" in record:
                document["left_out"].append({"case": str(case), "reason": record["left_out"]})
                say(f"left out: {case}: {record['left_out']}")
                continue
            document["cases"].append(record)
            say(line(record))
            for name, result in record["results"].items():
                if "refused" in result:
                    say(f"  not timed: {name}: {result['refused']}")
    document["seconds"] = time.perf_counter() - started
    document["summary"] = results.summarise(document)
    return document


def _heading(racers: Sequence[Racer]) -> str:
    columns = "".join(f"  {racer.name:>10} {'ratio':>6} {'quartiles':>11}" for racer in racers)
    return f"{'':<27} {'ours':>10}{columns}\n(time per step; ratio = theirs / ours, above 1 we are faster)"


def line(record: dict[str, Any]) -> str:
    """One line of the table."""
    text = f"{results.case_of(record)!s:<27} {in_words(record['results']['ours']['median']):>10}"
    for name, result in record["results"].items():
        if name == "ours":
            continue
        if "refused" in result:
            text += f"  {'not timed':>10} {'':>6} {'':>11}"
            continue
        mark = "*" if result["wrong_gradients"] else ""
        quartiles = f"{result['ratio_q1']:.2f}-{result['ratio_q3']:.2f}"
        text += f"  {in_words(result['median']):>10} {result['ratio']:>5.2f}{mark or ' '} {quartiles:>11}"
    return text


def closing_lines(document: dict[str, Any]) -> list[str]:
    """Geometric means and worst cases, and what a reader must know."""
    lines = []
    for name, contestant in document["contestants"].items():
        versions = ", ".join(f"{package} {version}" for package, version in contestant["versions"].items())
        lines.append(f"{name}: {versions}; {contestant['settings']}")
        if contestant["remark"]:
            lines.append(f"* {name}: {contestant['remark']}")
    idle = [record["idle_cores"] for record in document["cases"] if record["idle_cores"] is not None]
    if idle:
        lines.append(f"cores used by waiting contestants: at most {max(idle):.2f} on average over a case")
    lines.append(f"cases left out (over {STEP_LIMIT:.0f} s a step, or failed): {len(document['left_out'])}")
    for peer, modes in document["summary"].items():
        for mode, summary in modes.items():
            lines.append(
                f"{peer}, {mode}: geometric mean {summary['geometric_mean']:.2f} over {summary['cases']} cases, "
                f"worst {summary['worst']:.2f} ({summary['worst_case']})"
            )
    forced = document["machine"].get("blas_forced")
    if forced is not None:
        lines.append(f"OPENBLAS_CORETYPE={forced} is set: NumPy's products may run at half of this processor's speed")
    load, cores = document["machine"]["load_at_start"], document["machine"]["cores"]
    if load is not None and load[0] > BUSY * cores:
        lines.append(f"NOT QUIET: the load was {load[0]:.1f} on {cores} cores at the start; measure again alone")
    return lines
