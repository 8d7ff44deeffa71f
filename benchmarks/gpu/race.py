"""The GPU race: our device step against PyTorch's and JAX's best, on one GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.processes import ContestantError, Racer
from benchmarks.race import Pace, System, race_case
from benchmarks.workloads import Case

PATIENCE = 60.0  # seconds for an answer; a contestant that hangs must not take the others' time
FIRST_ANSWER = {"gpu-jax": 150.0}  # it imports and compiles for longer


def race(budget: float, cases: Sequence[Case], peers: Sequence[str], pace: Pace) -> Iterator[dict[str, Any]]:
    """A record per contestant and per case, until the time is over.

    All contestants start together, since importing a system takes many seconds.  One that gives no answer in time is
    dropped, and the case goes on without it.
    """
    ends = time.monotonic() + budget - 5
    started = [Racer(name, 2, gpu=True, patience=PATIENCE) for name in ("gpu-ours", *peers)]
    try:
        for racer in started:
            racer.tell("describe")
        racers, begun = [], time.monotonic()
        for racer in started:
            left = FIRST_ANSWER.get(racer.name, PATIENCE) - (time.monotonic() - begun)
            try:
                yield {"contestant": racer.name, **racer.answer("describe", max(1.0, left))}
                racers.append(racer)
            except ContestantError as error:
                yield {"contestant": racer.name, "missing": str(error)}
        if not racers or racers[0] is not started[0]:
            return
        ours = racers.pop(0)
        for case in cases:
            if time.monotonic() > ends:
                yield {"left_out": str(case), "reason": "no time left"}
                continue
            yield from _one_case(case, ours, racers, pace)
            if not ours.alive:
                return
    finally:
        for racer in started:
            racer.close()


def _one_case(case: Case, ours: Racer, racers: list[Racer], pace: Pace) -> Iterator[dict[str, Any]]:
    """Its record; once more without a peer that fails in the middle of it.  Those that were dropped leave `racers`."""
    taking_part = list(racers)
    while True:
        try:
            systems = [System(racer.name, {"default": racer}) for racer in taking_part]
            yield {"case": race_case(case, System(ours.name, {"default": ours}), systems, pace)}
            racers[:] = [racer for racer in racers if racer.alive]
            return
        except ContestantError as error:
            yield {"left_out": str(case), "reason": str(error)}
            racers[:] = [racer for racer in racers if racer.alive]
            left = [racer for racer in taking_part if racer.alive and not str(error).startswith(f"{racer.name}: ")]
            if len(left) == len(taking_part) or not ours.alive:
                return
            taking_part = left
