"""One case of a race: first the same loss curve, then alternating rounds.

A round gives each contestant in turn a slot of a fraction of a second (at least one step): a few untimed steps, since
it was idle and its data have left the caches, then timed ones.  The median of a slot is one measurement; reported are
the median and the quartiles over the rounds.  Between two slots everybody sleeps, until spinning threads have gone to
sleep too, and the CPU time that idle contestants spend during another's slot is measured and reported.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from benchmarks.figures import quantile, spread
from benchmarks.workloads import Case

TOLERANCE = 3e-5  # largest relative difference of two losses on the curve; what differs is float32 rounding
SETTLE = 0.03  # seconds between two slots: OpenBLAS and OpenMP threads spin for less before they sleep
STEP_LIMIT = 30.0  # seconds; a case whose step takes longer is left out
CURVE_STEPS = 6
FEW_STEPS_ABOVE = 5e9  # floating-point operations of a step
WRONG_GRADIENTS = ("thinc",)  # known; compared on the first loss alone, and marked


class CurvesDifferError(ValueError):
    """Two contestants do not compute the same thing, so their times cannot be compared."""


class Asked(Protocol):
    """What a race needs of a contestant."""

    name: str

    def ask(self, do: str, timeout: float | None = ..., **arguments: Any) -> dict[str, Any]:
        """The answer to a command."""
        ...

    def busy_seconds(self) -> float | None:
        """CPU time so far."""
        ...


@dataclass(frozen=True)
class Pace:
    """How much a race measures.

    rounds  measurements per contestant
    slot    seconds of timed steps in each
    """

    rounds: int = 9
    slot: float = 0.15

    def steps(self, seconds_per_step: float) -> tuple[int, int]:
        """(timed, untimed) steps of a slot."""
        timed = max(1, min(1000, round(self.slot / seconds_per_step)))
        return timed, max(1, timed // 8) if seconds_per_step < 1.0 else 0

    def rounds_for(self, seconds_per_step: float) -> int:
        """Fewer rounds for slow cases, whose steps vary less."""
        return self.rounds if seconds_per_step < 0.5 else max(3, self.rounds // 2)


def curve_gap(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference of two loss curves, relative to ours; infinite when one is longer or not finite."""
    if len(ours) != len(theirs):
        return float("inf")
    gaps = [abs(a - b) / abs(a) for a, b in zip(ours, theirs, strict=True)]
    return max(gaps) if all(gap == gap for gap in gaps) else float("inf")


class Curves:
    """Our loss curve of one case, made once for each form of Adam, and compared with others'."""

    def __init__(self, case: Case, ours: Asked, steps: int) -> None:
        self.case, self.ours, self.steps = case, ours, steps
        self._made: dict[tuple[Any, ...], tuple[str, list[float]]] = {}

    def _curve(self, racer: Asked, adam: Sequence[Any]) -> tuple[str, list[float]]:
        digest = racer.ask("prepare", case=self.case.as_dict(), adam=adam)["digest"]
        return digest, racer.ask("losses", steps=self.steps)["losses"]

    def check(self, peer: Asked, *, first_only: bool = False, tolerance: float = TOLERANCE) -> float:
        """The gap between our curve and the peer's: same weights, same batches, the peer's form of Adam for both.

        Raises CurvesDifferError when weights or batches are not the same bits, or the gap exceeds the tolerance (or the
        peer's own, for a lower precision); with `first_only` that of the first loss, before any gradient.
        """
        described = peer.ask("describe")
        form = tuple(described["adam"])
        if form not in self._made:
            self._made[form] = self._curve(self.ours, form)
        our_digest, a = self._made[form]
        digest, b = self._curve(peer, form)
        if our_digest != digest:
            raise CurvesDifferError(
                f"{self.case}: {peer.name} was given other weights or batches than {self.ours.name}"
            )
        if first_only:
            a, b = a[:1], b[:1]
        gap, allowed = curve_gap(a, b), described.get("loss_tolerance") or tolerance
        if not gap <= allowed:
            raise CurvesDifferError(
                f"{self.case}: the loss curves of {self.ours.name} and {peer.name} differ by {gap:.1e} (at most "
                f"{allowed:.0e}): {a[-1]:.6f} against {b[-1]:.6f} after {len(a)} steps"
            )
        return gap


def race_case(
    case: Case, ours: Asked, peers: Sequence[Asked], pace: Pace, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """The record of one case: sizes, and per contestant its times or why it has none."""
    results: dict[str, dict[str, Any]] = {}
    racing: dict[str, Asked] = {ours.name: ours}
    curves = Curves(case, ours, CURVE_STEPS if case.flops < FEW_STEPS_ABOVE else 3)
    for peer in peers:
        wrong = peer.name in WRONG_GRADIENTS and case.mode == "train"
        try:
            gap = curves.check(peer, first_only=wrong, tolerance=tolerance)
        except (CurvesDifferError, RuntimeError) as error:
            results[peer.name] = {"refused": str(error)}
            continue
        racing[peer.name] = peer
        results[peer.name] = {"loss_gap": gap, "wrong_gradients": wrong}
    ours.ask("prepare", case=case.as_dict())
    estimates = {}
    for name, racer in racing.items():
        racer.ask("time", steps=1, warm=1)  # a first step compiles, a second may record a graph
        estimates[name] = quantile(racer.ask("time", steps=3 if case.flops < 5e10 else 1)["seconds"], 0.5)
    slow = [name for name, seconds in estimates.items() if seconds > STEP_LIMIT]
    if slow:
        return {**case.as_dict(), "left_out": f"a step of {slow[0]} takes over {STEP_LIMIT:.0f} s", "results": {}}
    times, idle = _rounds(racing, estimates, pace)
    results = {ours.name: {}, **results}
    for name, measured in times.items():
        results[name] |= {
            **asdict(spread(measured)),
            "rounds": measured,
            "steps_per_round": pace.steps(estimates[name])[0],
        }
        if name != ours.name:
            pairs = [theirs / mine for mine, theirs in zip(times[ours.name], measured, strict=True)]
            results[name] |= {
                "ratio": results[name]["median"] / results[ours.name]["median"],
                "ratio_q1": quantile(pairs, 0.25),
                "ratio_q3": quantile(pairs, 0.75),
            }
    return {**case.as_dict(), "flops": case.flops, "idle_cores": idle, "results": results}


def _rounds(
    racing: Mapping[str, Asked], estimates: Mapping[str, float], pace: Pace
) -> tuple[dict[str, list[float]], Any]:
    """The median of each slot, per contestant and round, and how many cores the idle ones used on average."""
    times: dict[str, list[float]] = {name: [] for name in racing}
    idle_cpu = idle_wall = 0.0
    for _ in range(pace.rounds_for(max(estimates.values()))):
        for name, racer in racing.items():
            timed, warm = pace.steps(estimates[name])
            time.sleep(SETTLE)
            others = [other for other in racing.values() if other is not racer]
            before, started = _busy(others), time.perf_counter()
            times[name].append(quantile(racer.ask("time", steps=timed, warm=warm)["seconds"], 0.5))
            after = _busy(others)
            if before is not None and after is not None:
                idle_cpu, idle_wall = idle_cpu + after - before, idle_wall + time.perf_counter() - started
    return times, idle_cpu / idle_wall if idle_wall else None


def _busy(racers: Sequence[Asked]) -> float | None:
    seconds = [racer.busy_seconds() for racer in racers]
    return None if None in seconds else sum(s for s in seconds if s is not None)
