"""`python -m benchmarks cpu`: every case against every peer, in this run, on the same cores.

Each case is raced in fresh processes: what the C library's allocator does depends on what a process did before.  Where
a result file is asked for it is written after every case, so that a race that ends early can go on (`--resume`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks import handover, machine, results
from benchmarks.figures import in_words
from benchmarks.handover import Nearness
from benchmarks.processes import ContestantError, Racer, cores
from benchmarks.race import SETTINGS, STEP_LIMIT, TOLERANCE, Pace, System, race_case, settings_of, takes_part
from benchmarks.results import ResultError
from benchmarks.workloads import Case

LOOK_FOR_NEAR = 10.0  # seconds before the first case, to see how near the cores of this machine can be
BUSY = 0.25  # load per core at the start, above which figures are not to be trusted


def start(name: str, case: Case, threads: int, python: str, stack: ExitStack) -> System:
    """A system's processes for a case, one per setting, which the stack will end."""
    processes = {}
    for setting in settings_of(name, case, threads):
        how = SETTINGS[setting]
        racer = Racer(name, how.threads or threads, python, on=threads, allocator=how.allocator)
        processes[setting] = stack.enter_context(racer)
    return System(name, processes)


def race_once(
    case: Case,
    peers: Sequence[str],
    threads: int,
    pace: Pace,
    pythons: Mapping[str, str],
    nearness: Nearness | None = None,
) -> dict[str, Any]:
    """The record of one case, raced in processes that live for it alone.

    Raises ContestantError where ours fails, or a peer in the middle of the rounds.
    """
    with ExitStack() as stack:
        ours, *others = (
            start(name, case, threads, pythons.get(name, sys.executable), stack) for name in ("ours", *peers)
        )
        return race_case(case, ours, others, pace, nearness)


def bound_of(case: Case, threads: int, python: str) -> dict[str, float]:
    """As `ceilings.lower_bound`, in a process of its own on the race's cores.  Raises ContestantError."""
    with Racer("bound", threads, python) as racer:
        return racer.ask("bound", case=case.as_dict())


def describe(name: str, threads: int, python: str) -> dict[str, Any]:
    """What a contestant is, but for where it lies on this machine.  Raises ContestantError where it does not start."""
    with Racer(name, threads, python) as racer:
        described = racer.ask("describe", timeout=180)
    described.pop("from", None)
    return described


def to_go_on_with(
    earlier: Mapping[str, Any] | None, document: Mapping[str, Any], cases: Sequence[Case]
) -> dict[Case, dict[str, Any]]:
    """The records of an earlier result file that a race may keep: of these cases, all asked peers, and undisturbed.

    Raises ResultError where the file is about another lstm_np, machine, number of threads or version of a peer.
    """
    if earlier is None:
        return {}
    for name in ("threads", "pace"):
        if earlier[name] != document[name]:
            raise ResultError(f"--resume: the result file has {name} {earlier[name]}, this race {document[name]}")
    if earlier["changed"] is not False or document["changed"] is not False or not machine.unchanged(earlier["commit"]):
        raise ResultError(f"--resume: lstm_np is not what it was in the result file, at commit {earlier['commit']}")
    if earlier["machine"]["cpu"] != document["machine"]["cpu"]:
        raise ResultError(f"--resume: the result file is from another processor, {earlier['machine']['cpu']}")
    for name, contestant in document["contestants"].items():
        before = earlier["contestants"].get(name, {}).get("versions")
        if before != contestant["versions"]:
            raise ResultError(f"--resume: {name} was {before} in the result file, and is {contestant['versions']}")
    known = {results.case_of(record): record for record in earlier["cases"] if not record["disturbed"]}
    return {case: known[case] for case in cases if case in known}


def run(
    cases: Sequence[Case],
    peers: Sequence[str],
    *,
    threads: int,
    pace: Pace,
    pythons: Mapping[str, str],
    say: Callable[[str], None] = print,
    earlier: Mapping[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], object] = lambda document: None,
) -> dict[str, Any]:
    """Race; the result document.  A peer that cannot be started is told and left out; so is a case that fails.

    earlier  the document of a race to go on with: its undisturbed cases are not raced again
    keep     called with the document after each case that was raced
    """
    document = machine.header("cpu", threads)
    document |= {"pace": {"rounds": pace.rounds, "slot_seconds": pace.slot}, "tolerance": TOLERANCE}
    document |= {"contestants": {}, "missing": {}, "left_out": [], "cases": []}
    started = time.perf_counter()
    contestants: dict[str, dict[str, Any]] = document["contestants"]
    contestants["ours"] = describe("ours", threads, pythons.get("ours", sys.executable))
    for name in peers:
        try:
            contestants[name] = describe(name, threads, pythons.get(name, sys.executable))
        except ContestantError as error:
            document["missing"][name] = str(error)
            say(f"left out: {error}")
    found = [name for name in contestants if name != "ours"]
    kept = to_go_on_with(earlier, document, cases)
    before = earlier["seconds"] if earlier is not None else 0.0

    def close_books() -> dict[str, Any]:
        document["seconds"] = before + time.perf_counter() - started
        document["summary"] = results.summarise(document)
        return document

    say(_heading(found))
    with ExitStack() as stack:
        nearness = None
        if threads > 1 and handover.can_be_measured():
            nearness = stack.enter_context(Nearness((cores(threads)[0], cores(threads)[1])))
            nearness.look(LOOK_FOR_NEAR)
            nearness.best = min(nearness.best, (earlier or {}).get("machine", {}).get("handover") or nearness.best)
        for case in cases:
            racing = [name for name in found if takes_part(contestants[name], case)]
            if case in kept:
                document["cases"].append(kept[case])
                say(line(kept[case], found))
                continue
            try:
                record = race_once(case, racing, threads, pace, pythons, nearness)
                reason = record.get("left_out")
                if reason is None:
                    record["lower_bound"] = bound_of(case, threads, pythons.get("ours", sys.executable))
            except ContestantError as error:
                reason = str(error)
            if reason is not None:
                document["left_out"].append({"case": str(case), "reason": reason})
                say(f"left out: {case}: {reason}")
                continue
            document["cases"].append(record)
            say(line(record, found))
            for name, result in record["results"].items():
                if "refused" in result:
                    say(f"  not timed: {name}: {result['refused']}")
            document["machine"]["handover"] = None if nearness is None else nearness.best
            keep(close_books())
    return close_books()


def _heading(names: Sequence[str]) -> str:
    columns = "".join(f"  {name[:10]:>10} {'median':>6} {'best':>6} {'quartiles':>11}" for name in names)
    about = (
        "median time per step; bound: of the products and tanhs alone, and our share of that speed; ratios are "
        "theirs / ours, of the medians and of the best rounds; ~ disturbed"
    )
    return f"{'':<43} {'ours':>10} {'bound':>10} {'share':>5}{columns}\n({about})"


def line(record: dict[str, Any], names: Sequence[str]) -> str:
    """One line of the table."""
    ours = results.time_of(record, "ours", "median")
    bound = results.bound_of(record)
    limits = ("", "") if bound is None else (in_words(bound), f"{bound / ours:.0%}")
    text = f"{'~' if record['disturbed'] else ' '}{results.case_of(record)!s:<42} {in_words(ours):>10}"
    text += f" {limits[0]:>10} {limits[1]:>5}"
    for name in names:
        result = record["results"].get(name)
        if result is None or "refused" in result:
            text += f"  {'' if result is None else 'not timed':>10} {'':>6} {'':>6} {'':>11}"
            continue
        ratio, mark = result["ratio"], "*" if result["wrong_gradients"] else " "
        quartiles = f"{ratio['q1']:.2f}-{ratio['q3']:.2f}"
        theirs = in_words(results.time_of(record, name, "median"))
        text += f"  {theirs:>10} {ratio['median']:>5.2f}{mark} {ratio['best']:>6.2f} {quartiles:>11}"
    return text.rstrip()


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
    for entry in document["summary"]:
        means = f"{entry['median']:.2f} by median, {entry['best']:.2f} by best round"
        lines.append(
            f"{entry['peer']}, {entry['of']}: geometric mean {means}, over {entry['cases']} cases; worst "
            f"{entry['worst']:.2f} ({entry['worst_case']}); {len(entry['below_one'])} below 1"
        )
    forced = document["machine"].get("blas_forced")
    if forced is not None:
        lines.append(f"OPENBLAS_CORETYPE={forced} is set: NumPy's products may run at half of this processor's speed")
    disturbed = [record for record in document["cases"] if record["disturbed"]]
    if disturbed:
        lines.append(f"DISTURBED: {len(disturbed)} of {len(document['cases'])} cases; measure again alone:")
        lines += [f"  {results.case_of(record)}: {', '.join(record['disturbed'])}" for record in disturbed]
    load, cores = document["machine"]["load_at_start"], document["machine"]["cores"]
    watched = all(record["other_cores"] is not None for record in document["cases"])
    if load is not None and load[0] > BUSY * cores and not watched:
        lines.append(f"NOT QUIET: the load was {load[0]:.1f} on {cores} cores at the start; measure again alone")
    return lines
