"""The GPU race: our device step against PyTorch's and JAX's best, on one GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.processes import ContestantError, Racer
from benchmarks.race import Pace, race_case
from benchmarks.workloads import Case

PEERS = ("gpu-torch", "gpu-torch-graph", "gpu-torch-tf32", "gpu-torch-graph-tf32", "gpu-jax")
PACE = Pace(rounds=5, slot=0.02)


def race_cases() -> list[Case]:
    """The cases, those that matter most first: time may run out."""
    B_sizes, H_sizes = (128, 32, 512, 1), (128, 512, 256, 64, 1024)
    cases = [Case("train", B, H, T) for T in (28, 784) for B in B_sizes for H in H_sizes]
    return cases + [Case("infer", B, H) for B in (1, 128) for H in (128, 512)]


def race(budget: float, cases: Sequence[Case], peers: Sequence[str] = PEERS) -> Iterator[dict[str, Any]]:
    """A record per contestant and per case, until the time is over."""
    ends = time.monotonic() + budget - 10
    with Racer("gpu-ours", 2, gpu=True) as ours:
        yield {"contestant": "gpu-ours", **ours.ask("describe", timeout=60)}
        racers = []
        for name in peers:
            racer = Racer(name, 2, gpu=True)
            try:
                yield {"contestant": name, **racer.ask("describe", timeout=60)}
                racers.append(racer)
            except ContestantError as error:
                racer.close()
                yield {"contestant": name, "missing": str(error)}
        try:
            for case in cases:
                if time.monotonic() > ends:
                    yield {"left_out": str(case), "reason": "no time left"}
                    continue
                try:
                    yield {"case": race_case(case, ours, racers, PACE)}
                except ContestantError as error:
                    yield {"left_out": str(case), "reason": str(error)}
                    racers = [racer for racer in racers if racer.alive]
                    if not ours.alive:
                        return
        finally:
            for racer in racers:
                racer.close()
