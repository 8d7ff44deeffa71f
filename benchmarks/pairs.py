"""Two trees raced in pairs: is this tree slower than the other, by more than 2 %?

A pair is a fresh process of each tree.  Every case is timed twice in both, in the order A B B A, and gives one ratio,
of this tree's better time to the other's.  Which tree is A changes from pair to pair.  Fresh processes, since where a
process's memory happens to lie can make it some per cent slower for as long as it lives.

The median of a case's ratios has a 95 % bootstrap interval.  One wider than WIDEST says nothing, and asks for a repeat;
a tree is slower when the whole interval is above LIMIT.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import in_words, quantile
from benchmarks.processes import ContestantError, Racer
from benchmarks.race import Pace, settle
from benchmarks.trees import Tree
from benchmarks.workloads import Case

FEWEST = 20  # pairs
LIMIT = 1.02
WIDEST = 0.04
RESAMPLES = 10_000
PACE = Pace(slot=0.1)
CASES = (
    Case("train", 128, 128), Case("train", 128, 256), Case("train", 512, 128), Case("train", 16, 128),
    Case("train", 1, 128), Case("train", 128, 128, L=2), Case("train", 128, 128, cell="gru"),
    Case("infer", 128, 128), Case("infer", 16, 128), Case("infer", 1, 128), Case("stream", 1, 128),
)  # fmt: skip


def bootstrap_interval(ratios: Sequence[float], share: float = 0.95) -> tuple[float, float]:
    """(low, high): the middle `share` of the medians of samples drawn from the ratios with replacement."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(np.asarray(ratios), (RESAMPLES, len(ratios))), axis=1)
    low, high = np.quantile(medians, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def verdict(low: float, high: float) -> str:
    """What an interval says: "not slower", "slower", "not shown to be slower", or "says nothing: repeat"."""
    if high - low > WIDEST:
        return "says nothing: repeat"
    if low > LIMIT:
        return "slower"
    return "not slower" if high <= LIMIT else "not shown to be slower"


def good(verdicts: Sequence[str]) -> bool:
    """Whether no interval lies wholly above LIMIT, and none says nothing."""
    return all(text.startswith("not ") for text in verdicts)


def essential(case: Case) -> dict[str, Any]:
    """The case without the values that every tree takes for granted: an older one may not know their names."""
    defaults = {field.name: field.default for field in fields(Case)}
    return {name: value for name, value in case.as_dict().items() if value != defaults[name]}


def start(tree: Tree, threads: int) -> Racer:
    """This project as a contestant, as it is in a tree.  Raises ContestantError where another `lstm_np` answers."""
    racer = Racer("ours", threads, sys.executable, tree=tree.path)
    try:
        origin = racer.ask("describe").get("from", tree.path / "lstm_np")
        if not Path(origin).resolve().is_relative_to(tree.path):
            raise ContestantError(f"{tree}: its process imported another lstm_np, {origin}")
    except ContestantError:
        racer.close()
        raise
    return racer


def race_pair(
    trees: Sequence[Tree], cases: Sequence[Case], threads: int, steps: dict[Case, tuple[int, int]], turn: int
) -> dict[Case, list[float] | str]:
    """One pair: per case the seconds of a step in each tree (the better median of two), or why there are none.

    `steps` is filled in the first pair: (timed, untimed) steps of a slot, the same for both trees.
    """
    order = [0, 1] if turn % 2 == 0 else [1, 0]
    found: dict[Case, list[float] | str] = {}
    with ExitStack() as stack:
        racers = [stack.enter_context(start(tree, threads)) for tree in trees]
        for case in cases:
            seconds = [math.inf, math.inf]
            try:
                for number in order:
                    racers[number].ask("prepare", case=essential(case))
                    warm = racers[number].ask("time", steps=3, warm=2)["seconds"]
                    racers[number].look_for_workers()
                    steps.setdefault(case, PACE.steps(quantile(warm, 0.5)))
                for number in (*order, *reversed(order)):
                    settle(racers)
                    timed, untimed = steps[case]
                    told = racers[number].ask("time", steps=timed, warm=untimed)["seconds"]
                    seconds[number] = min(seconds[number], quantile(told, 0.5))
                found[case] = seconds
            except ContestantError as error:
                found[case] = f"{trees[number].name}: {error}"
                if not all(racer.alive for racer in racers):
                    break
    return found


def race(ours: Tree, theirs: Tree, cases: Sequence[Case], pairs: int, threads: int) -> dict[str, Any]:
    """{"pairs", "threads", "cases": a record each, "good"}; each case's line is printed.

    Raises ContestantError where a tree's process cannot be started.
    """
    steps: dict[Case, tuple[int, int]] = {}
    seconds: dict[Case, list[list[float]]] = {case: [] for case in cases}
    failed: dict[Case, str] = {}
    for turn in range(pairs):
        left = [case for case in cases if case not in failed]
        for case, told in race_pair([ours, theirs], left, threads, steps, turn).items():
            if isinstance(told, str):
                failed[case] = told
            else:
                seconds[case].append(told)
    records = []
    print(f"{'':<42} {'this tree':>10} {'commit':>10}  ratio (95 % interval)")
    for case in cases:
        if case in failed or not seconds[case]:
            record: dict[str, Any] = {**case.as_dict(), "left_out": failed.get(case, "its process ended")}
            print(f"{case!s:<42} left out: {record['left_out']}")
        else:
            record = {**case.as_dict(), **judge(seconds[case])}
            this, that = (in_words(value) for value in record["seconds"])
            interval = f"{record['ratio']:.3f} ({record['low']:.3f} to {record['high']:.3f})"
            print(f"{case!s:<42} {this:>10} {that:>10}  {interval}: {record['verdict']}")
        records.append(record)
    verdicts = [record.get("verdict", "left out") for record in records]
    return {"pairs": pairs, "threads": threads, "cases": records, "good": good(verdicts)}


def judge(seconds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """From the seconds of (this tree, the other) in each pair to the ratio, its interval and what it says."""
    ratios = [this / that for this, that in seconds]
    low, high = bootstrap_interval(ratios)
    medians = [quantile([pair[number] for pair in seconds], 0.5) for number in (0, 1)]
    told = {"ratio": quantile(ratios, 0.5), "low": low, "high": high, "verdict": verdict(low, high)}
    return {"seconds": medians, **told, "ratios": ratios}
