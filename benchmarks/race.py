"""One case of a race: first the same loss curve, then alternating rounds.

Every system is raced in processes of its own, one for each of its settings (`settings_of`): the C library's allocator
as it comes, and tuned to keep what is freed; where one thread may be faster than several, also with one.  A round gives
each process in turn a slot of a fraction of a second (at least one step): a few untimed steps, since it was idle and
its data have left the caches, then timed ones.  The median of a slot is one measurement.  A slot begins when
nobody works any more, threads that spin for a while after their work included, and the CPU time that idle contestants
spend during another's slot is measured and reported.

The ratio that is published is the peer's better time, whichever of its settings gave it, over ours under the default:
once of the medians over the rounds, once of the best rounds, since a disturbance does not slow everybody down alike.

How long a value takes from one core to the other (`handover`) decides what a step pays that hands over work many times,
and in a virtual machine it changes by the second.  So a slot waits for cores that are near each other, and is repeated
where they were not any more at its end, as far as the case's patience goes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from benchmarks.contestant import needs
from benchmarks.figures import in_words, quantile, spread
from benchmarks.handover import Nearness
from benchmarks.machine import CpuTimes, cpu_times
from benchmarks.workloads import Case

TOLERANCE = 3e-5  # largest relative difference of two losses on the curve; what differs is float32 rounding
SETTLE = 0.015  # seconds between two looks at whether everybody sleeps; a system may count CPU time in ticks of 0.01
LONGEST_WAIT = 0.5  # seconds for that: OpenBLAS's threads go on spinning for 0.1 after a product
ASLEEP = 0.001  # seconds of CPU time between two looks of those who sleep
STEP_LIMIT = 30.0  # seconds; a case whose step takes longer is left out
CURVE_STEPS = 6
FEW_STEPS_ABOVE = 5e9  # floating-point operations of a step
WRONG_GRADIENTS = ("thinc",)  # known; compared on the first loss alone, and marked
# a case is called disturbed where, during its rounds, on average
OTHER_CORES = 0.10  # so many cores worked for other programs
STOLEN_CORES = 0.05  # the host of a virtual machine kept so many cores to itself
LONG_STEP = 0.05  # seconds; handovers of a step that takes longer do not show
SPREAD = 1.15  # or where a median that is published is so many times the best round


class CurvesDifferError(ValueError):
    """Two contestants do not compute the same thing, so their times cannot be compared."""


class Asked(Protocol):
    """What a race needs of a contestant's process."""

    name: str

    def ask(self, do: str, timeout: float | None = ..., **arguments: Any) -> dict[str, Any]:
        """The answer to a command."""
        ...

    def look_for_workers(self) -> None:
        """Find the processes that it has started."""
        ...

    def busy_seconds(self) -> float | None:
        """CPU time so far."""
        ...

    def page_faults(self) -> int | None:
        """Page faults so far."""
        ...


@dataclass(frozen=True)
class Setting:
    """How a process of a system is started: one of `processes.ALLOCATORS`, and threads (None: all that it may use)."""

    allocator: str
    threads: int | None = None


SETTINGS = {
    "default": Setting("default"),
    "tuned": Setting("tuned"),
    "default, 1 thread": Setting("default", 1),
    "tuned, 1 thread": Setting("tuned", 1),
}
# where one thread was faster than two in trials: ONNX Runtime and PyTorch on a single sequence
ONE_THREAD_TOO = {"onnxruntime": lambda case: True, "torch": lambda case: case.B == 1}


def settings_of(name: str, case: Case, threads: int) -> list[str]:
    """The settings in which a contestant is raced, by their names in SETTINGS."""
    few = threads > 1 and ONE_THREAD_TOO.get(name, lambda _: False)(case)
    return [setting for setting, how in SETTINGS.items() if how.threads is None or few]


@dataclass(frozen=True)
class System:
    """A contestant's processes by setting; the first one is the default."""

    name: str
    processes: Mapping[str, Asked]

    @property
    def default(self) -> Asked:
        """The process under the default setting."""
        return next(iter(self.processes.values()))


@dataclass(frozen=True)
class Pace:
    """How much a race measures.

    rounds    measurements per process
    slot      seconds of timed steps in each
    patience  seconds that a case spends in all on waiting for near cores and on repeating slots
    most      steps of a slot
    """

    rounds: int = 9
    slot: float = 0.15
    patience: float = 40.0
    most: int = 1000

    def steps(self, seconds_per_step: float) -> tuple[int, int]:
        """(timed, untimed) steps of a slot."""
        timed = max(1, min(self.most, round(self.slot / seconds_per_step)))
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


def takes_part(described: Mapping[str, Any], case: Case) -> bool:
    """Whether a contestant that describes itself so is raced on a case."""
    return needs(case) <= set(described["takes"])


def race_case(
    case: Case,
    ours: System,
    peers: Sequence[System],
    pace: Pace,
    nearness: Nearness | None = None,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """The record of one case: sizes, and per system its times in every setting or why it has none.

    nearness  of the cores that all use; None where one core is used, or the system does not tell
    """
    results: dict[str, dict[str, Any]] = {ours.name: {}}
    racing: dict[tuple[str, str], Asked] = {}
    curves = Curves(case, ours.default, CURVE_STEPS if case.flops < FEW_STEPS_ABOVE else 3)
    for setting, process in ours.processes.items():
        if process is not ours.default:
            curves.check(process, tolerance=tolerance)
        racing[ours.name, setting] = process
    for peer in peers:
        wrong = peer.name in WRONG_GRADIENTS and case.mode == "train"
        try:
            gaps = [curves.check(p, first_only=wrong, tolerance=tolerance) for p in peer.processes.values()]
        except (CurvesDifferError, RuntimeError) as error:
            results[peer.name] = {"refused": str(error)}
            continue
        racing |= {(peer.name, setting): process for setting, process in peer.processes.items()}
        results[peer.name] = {"loss_gap": max(gaps), "wrong_gradients": wrong}
    ours.default.ask("prepare", case=case.as_dict())
    estimates = {}
    for who, process in racing.items():
        settle(list(racing.values()))
        process.ask("time", steps=1, warm=1)  # a first step compiles, a second may record a graph
        estimates[who] = quantile(process.ask("time", steps=3 if case.flops < 5e10 else 1)["seconds"], 0.5)
        process.look_for_workers()
    slow = [name for (name, _), seconds in estimates.items() if seconds > STEP_LIMIT]
    if slow:
        return {**case.as_dict(), "left_out": f"a step of {slow[0]} takes over {STEP_LIMIT:.0f} s", "results": {}}
    times, circumstances = _rounds(racing, estimates, pace, nearness)
    for (name, setting), measured in times.items():
        results[name].setdefault("settings", {})[setting] = measured
    for name in results:
        if name != ours.name and "settings" in results[name]:
            results[name] |= compare_times(results[ours.name]["settings"], results[name]["settings"])
    published = {ours.name: results[ours.name]["settings"][next(iter(ours.processes))]}
    published |= {name: r["settings"][r["better"]["median"]] for name, r in results.items() if "better" in r}
    spreads = {name: measured["median"] / measured["best"] for name, measured in published.items()}
    circumstances["disturbed"] = disturbances(circumstances, spreads)
    return {**case.as_dict(), "flops": case.flops, **circumstances, "results": results}


def compare_times(ours: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """{"ratio": {"median", "best", "q1", "q3"}, "better": {"median": setting, "best": setting}}.

    Their better time of all settings over ours under the default, the first.  The quartiles are those of the ratios of
    the single rounds, in their better setting by the median.
    """
    mine = next(iter(ours.values()))
    better = {kind: min(theirs, key=lambda setting: theirs[setting][kind]) for kind in ("median", "best")}
    ratio = {kind: theirs[setting][kind] / mine[kind] for kind, setting in better.items()}
    pairs = [a / b for a, b in zip(theirs[better["median"]]["rounds"], mine["rounds"], strict=True)]
    return {"ratio": {**ratio, "q1": quantile(pairs, 0.25), "q3": quantile(pairs, 0.75)}, "better": better}


def disturbances(circumstances: Mapping[str, float | None], spreads: Mapping[str, float]) -> list[str]:
    """What disturbed a case, in words; nothing where nothing did.  `spreads`: median / best round, by contestant."""
    found = []
    other, stolen = circumstances["other_cores"], circumstances["stolen_cores"]
    if other is not None and other > OTHER_CORES:
        found.append(f"other programs used {other:.2f} cores")
    if stolen is not None and stolen > STOLEN_CORES:
        found.append(f"the machine's host kept {stolen:.2f} cores")
    if circumstances["far_slots"]:
        found.append(far_apart(circumstances))
    far = {name: spread for name, spread in spreads.items() if spread > SPREAD}
    return found + [f"the median of {name} is {spread:.2f} times its best round" for name, spread in far.items()]


def far_apart(circumstances: Mapping[str, Any]) -> str:
    """In words: in how many slots the cores were far apart, and how long a handover took."""
    return f"cores far apart in {circumstances['far_slots']} slots, up to {in_words(circumstances['handover'])}"


def _rounds(
    racing: Mapping[tuple[str, str], Asked],
    estimates: dict[tuple[str, str], float],
    pace: Pace,
    nearness: Nearness | None,
) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, Any]]:
    """The times of each process, and the circumstances.

    These are: how many cores those who waited, other programs and the host used on average, the longest handover from
    core to core and back, and in how many slots it was long.
    """
    medians: dict[tuple[str, str], list[float]] = {who: [] for who in racing}
    faults: dict[tuple[str, str], list[float]] = {who: [] for who in racing}
    handovers: list[float] = []
    everybody = list(racing.values())
    idle_cpu = idle_wall = 0.0
    rounds = pace.rounds_for(max(estimates.values()))
    if max(estimates.values()) > LONG_STEP:
        nearness = None
    patience = pace.patience
    began, busy_before, cores_before = time.perf_counter(), _busy(everybody), cpu_times()
    own_before = time.process_time()
    for _ in range(rounds):
        for who, process in racing.items():
            others = [other for other in everybody if other is not process]
            while True:
                came = time.monotonic()
                handover = 0.0
                settle(everybody)
                if nearness is not None:
                    handover = nearness.wait(patience)
                    patience -= time.monotonic() - came
                timed, warm = pace.steps(estimates[who])
                before, started, faults_before = _busy(others), time.perf_counter(), process.page_faults()
                seconds = quantile(process.ask("time", steps=timed, warm=warm)["seconds"], 0.5)
                wall, faults_after, after = time.perf_counter() - started, process.page_faults(), _busy(others)
                if nearness is None:
                    break
                settle(everybody)
                handover = max(handover, nearness.measure())
                if nearness.near(handover) or patience <= 0:
                    break
                patience -= time.monotonic() - came
            medians[who].append(seconds)
            handovers.append(handover)
            estimates[who] = min(estimates[who], seconds)  # three steps alone may have met a disturbance
            if before is not None and after is not None:
                idle_cpu, idle_wall = idle_cpu + after - before, idle_wall + wall
            if faults_before is not None and faults_after is not None:
                faults[who].append((faults_after - faults_before) / (timed + warm))
    wall, busy_after, cores_after = time.perf_counter() - began, _busy(everybody), cpu_times()
    own = time.process_time() - own_before + (nearness.busy_seconds() if nearness is not None else 0.0)
    times = {
        who: {
            **asdict(spread(measured)),
            "rounds": measured,
            "steps_per_round": pace.steps(estimates[who])[0],
            "faults_per_step": quantile(faults[who], 0.5) if faults[who] else None,
        }
        for who, measured in medians.items()
    }
    known = busy_before is not None and busy_after is not None
    in_race = busy_after - busy_before + own if known else None  # type: ignore[operator]
    other, stolen = _elsewhere(cores_before, cores_after, in_race, wall)
    return times, {
        "idle_cores": idle_cpu / idle_wall if idle_wall else None,
        "other_cores": other,
        "stolen_cores": stolen,
        "handover": max(handovers) if nearness is not None else None,
        "far_slots": 0 if nearness is None else sum(not nearness.near(handover) for handover in handovers),
    }


def settle(racers: Sequence[Asked]) -> None:
    """Wait until nobody uses a core any more, but not for ever."""
    ends, before = time.monotonic() + LONGEST_WAIT, _busy(racers)
    while True:
        time.sleep(SETTLE if before is not None else 0.1)
        now = _busy(racers)
        if before is None or now is None or now - before < ASLEEP or time.monotonic() > ends:
            return
        before = now


def _elsewhere(
    before: CpuTimes | None, after: CpuTimes | None, in_race: float | None, wall: float
) -> tuple[float | None, float | None]:
    """Cores that other programs used, and cores that the host kept, on average."""
    if before is None or after is None:
        return None, None
    stolen = (after.stolen - before.stolen) / wall
    return None if in_race is None else max(0.0, (after.busy - before.busy - in_race) / wall), stolen


def _busy(racers: Sequence[Asked]) -> float | None:
    seconds = [racer.busy_seconds() for racer in racers]
    return None if None in seconds else sum(s for s in seconds if s is not None)
