"""A race refuses to time what does not compute the same, and its result files keep their form."""

import copy
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import costs, cpu, handover, machine, processes, race, results, table, workloads
from benchmarks.handover import Nearness
from benchmarks.processes import ContestantError, Racer, environment
from benchmarks.workloads import Case

CASE = Case("train", 4, 8, 3)
PACE = race.Pace(rounds=3, slot=0.001)


class Fake:
    """A contestant with a known curve and known times (one for each slot in turn); asked in this process."""

    def __init__(self, name, losses=(2.3, 2.2, 2.1), seconds=0.001, digest="same", **described):
        self.name, self.losses, self.digest = name, list(losses), digest
        self.slots = itertools.cycle(seconds) if isinstance(seconds, (list, tuple)) else itertools.repeat(seconds)
        self.described = {
            "adam": ["paper", 1e-8], "versions": {name: "1"}, "settings": "", "remark": "",
            "takes": ["train", "infer", "lstm"], **described,
        }  # fmt: skip
        self.log = []
        self.faults = 0

    def ask(self, do, timeout=1.0, **arguments):
        self.log.append(do)
        if do == "time":
            self.faults += 7 * (arguments["steps"] + arguments.get("warm", 0))
            return {"seconds": [next(self.slots)] * arguments["steps"]}
        return {
            "describe": self.described,
            "prepare": {"digest": self.digest},
            "losses": {"losses": self.losses},
        }[do]

    def look_for_workers(self):
        self.log.append("look")

    def busy_seconds(self):
        return 0.0

    def page_faults(self):
        return self.faults


def system(*settings):
    """A system of such contestants, the first under the default setting."""
    return race.System(settings[0].name, dict(zip(race.SETTINGS, settings, strict=False)))


def raced(*peers, case=CASE, ours=None):
    return race.race_case(case, system(*(ours or [Fake("ours")])), [system(peer) for peer in peers], PACE)


@pytest.fixture(autouse=True)
def _nobody_else(monkeypatch):
    """No waiting for contestants that are not there, and nothing of what this machine does meanwhile."""
    monkeypatch.setattr(race, "SETTLE", 0.0)
    monkeypatch.setattr(race, "cpu_times", lambda: None)


def test_the_ratio_is_theirs_by_ours():
    result = raced(Fake("torch", seconds=0.002))["results"]["torch"]
    assert result["ratio"] == pytest.approx({"median": 2.0, "best": 2.0, "q1": 2.0, "q3": 2.0})
    assert result["loss_gap"] == 0.0
    assert len(result["settings"]["default"]["rounds"]) == PACE.rounds


def test_their_better_time_counts_and_ours_under_the_default():
    ours = [Fake("ours", seconds=0.001), Fake("ours", seconds=0.0001)]
    peer = system(Fake("torch", seconds=0.003), Fake("torch", seconds=0.0015))
    record = race.race_case(CASE, system(*ours), [peer], PACE)
    result = record["results"]["torch"]
    assert result["ratio"]["median"] == pytest.approx(1.5)
    assert result["better"] == {"median": "tuned", "best": "tuned"}
    assert results.time_of(record, "torch", "best") == 0.0015
    assert results.time_of(record, "ours", "median") == 0.001
    assert {name: set(r["settings"]) for name, r in record["results"].items()} == {
        "ours": {"default", "tuned"}, "torch": {"default", "tuned"},
    }  # fmt: skip


def test_the_best_rounds_and_the_medians_are_told_apart_and_the_spread_is_a_disturbance():
    # the first two calls warm up and estimate
    peer = Fake("torch", seconds=[0.002, 0.002, 0.002, 0.004, 0.004])
    record = raced(peer)
    ratio = record["results"]["torch"]["ratio"]
    assert (ratio["median"], ratio["best"]) == (pytest.approx(4.0), pytest.approx(2.0))
    assert record["disturbed"] == ["the median of torch is 2.00 times its best round"]
    assert raced(Fake("torch"))["disturbed"] == []


@pytest.mark.parametrize(
    ("circumstances", "words"),
    [
        ({"other_cores": 0.5, "stolen_cores": 0.0, "far_slots": 0}, "other programs used 0.50 cores"),
        ({"other_cores": 0.0, "stolen_cores": 0.2, "far_slots": 0}, "host kept 0.20 cores"),
    ],
)
def test_what_disturbs_is_named(circumstances, words):
    (found,) = race.disturbances(circumstances, {"ours": 1.01})
    assert words in found
    assert race.disturbances({"other_cores": None, "stolen_cores": None, "far_slots": 0}, {}) == []


def test_cores_used_elsewhere_are_what_the_race_did_not_use():
    before, after = machine.CpuTimes(100.0, 5.0), machine.CpuTimes(103.0, 5.5)
    assert race._elsewhere(before, after, 2.0, 4.0) == (0.25, 0.125)
    assert race._elsewhere(before, after, None, 4.0) == (None, 0.125)
    assert race._elsewhere(None, after, 2.0, 4.0) == (None, None)
    seen = machine.cpu_times()
    assert seen is None or (seen.busy > 0 and seen.stolen >= 0)


def test_page_faults_are_those_of_one_step():
    assert raced(Fake("torch"))["results"]["torch"]["settings"]["default"]["faults_per_step"] == 7


def test_one_thread_is_tried_where_it_may_be_faster():
    one, many = Case("infer", 1, 128), Case("infer", 128, 128)
    both, all_four = ["default", "tuned"], list(race.SETTINGS)
    assert race.settings_of("ours", one, 2) == race.settings_of("torch", many, 2) == both
    assert race.settings_of("torch", one, 2) == race.settings_of("onnxruntime", many, 2) == all_four
    assert race.settings_of("onnxruntime", many, 1) == both


def test_who_takes_part():
    described = {"takes": ["infer", "lstm"]}
    assert race.takes_part(described, Case("infer", 1, 2))
    assert not race.takes_part(described, Case("train", 1, 2))
    assert not race.takes_part(described, Case("infer", 1, 2, cell="gru"))
    assert not race.takes_part(described, Case("infer", 1, 2, directions=2))


def test_a_slot_begins_when_nobody_works_any_more(monkeypatch):
    monkeypatch.setattr(race, "SETTLE", 0.001)
    spinning = Fake("ours")
    looks = iter([0.0, 0.004, 0.008, 0.008, 1.0])
    spinning.busy_seconds = lambda: next(looks)
    race.settle([spinning])
    assert next(looks) == 1.0  # it stopped at the first look that found nothing
    never = Fake("ours")
    never.busy_seconds = itertools.count().__next__
    monkeypatch.setattr(race, "LONGEST_WAIT", 0.05)
    race.settle([never])


def test_workers_count_as_the_contestants_own():
    """Ours has a worker process on the second core; its CPU time, memory and page faults are ours."""
    if machine.available_cores() < 2:
        pytest.skip("a worker needs a second core")
    with Racer("ours", 2) as racer:
        racer.ask("prepare", case=Case("train", 128, 64).as_dict())
        racer.ask("time", steps=3)
        alone = racer.busy_seconds(), racer.memory(), racer.page_faults()
        racer.look_for_workers()
        assert len(racer.pids) == 2
        together = racer.busy_seconds(), racer.memory(), racer.page_faults()
        assert all(b > a * 1.1 for a, b in zip(alone, together, strict=True)), (alone, together)
        peak, looks = racer.peak_memory(0.2)
        assert looks > 1
        assert peak > 0.9 * together[1]


def test_memory_is_measured_in_a_process_of_its_own():
    with Racer("reference", 1) as racer:
        found = costs.measure_memory(racer, Case("train", 64, 64, 28), 0.1)
    assert found["peak"] > found["before"] > 1 << 20
    assert found["looks"] > 1
    assert found["processes"] == 1


def test_the_peak_is_seen_while_it_lasts():
    watched = Racer.__new__(Racer)
    watched.pids = [os.getpid()]

    def ask(do, seconds):
        activations = np.ones(6_000_000)
        time.sleep(seconds)
        return {"steps": int(activations[0])}

    watched.ask = ask
    before = watched.memory()
    peak, _ = watched.peak_memory(0.2)
    assert peak - before > 45e6
    assert watched.memory() < peak - 40e6


def test_a_family_is_everybody_below():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], stdin=sys.stdin)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
        ends = time.monotonic() + 20
        while len(processes.family(parent.pid)) < 2 and time.monotonic() < ends:
            time.sleep(0.01)
        assert len(processes.family(parent.pid)) == 2
        assert parent.pid in processes.family(os.getpid())
        parent.stdin.close()
    assert processes.family(parent.pid) == [parent.pid]


def test_allocators_are_the_race_s_own(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=1")
    plain, tuned = environment(2), environment(2, allocator="tuned")
    assert not any(name.startswith(("MALLOC_", "GLIBC_")) for name in plain)
    assert {name: value for name, value in tuned.items() if name not in plain} == {
        "MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "17179869184",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (Fake("torch", losses=(2.3, 2.2, 2.101)), "loss curves"),
        (Fake("torch", losses=(2.3, 2.2, math.nan)), "loss curves"),
        (Fake("torch", losses=(2.3, 2.2)), "loss curves"),
        (Fake("torch", digest="other"), "other weights or batches"),
        (Fake("thinc", losses=(2.4, 2.2, 2.1)), "loss curves"),
    ],
)
def test_what_computes_something_else_is_not_timed(peer, words):
    result = raced(peer)["results"][peer.name]
    assert words in result["refused"]
    assert "ratio" not in result
    assert "time" not in peer.log


def test_wrong_gradients_are_timed_and_marked():
    record = raced(Fake("thinc", losses=(2.3, 2.25, 2.2)))
    assert record["results"]["thinc"]["wrong_gradients"]
    assert "*" in cpu.line(record, ["thinc"])
    inference = raced(Fake("thinc", losses=(2.3, 2.25, 2.2)), case=Case("infer", 4, 8, 3))
    assert "refused" in inference["results"]["thinc"]


def test_a_lower_precision_has_its_own_stated_tolerance():
    tf32 = {"losses": (2.3, 2.2, 2.101), "loss_tolerance": 5e-3}
    assert "ratio" in raced(Fake("gpu-torch-tf32", **tf32))["results"]["gpu-torch-tf32"]


def test_slow_cases_are_left_out():
    record = raced(Fake("torch", seconds=31.0))
    assert "30 s" in record["left_out"]


def test_turns_alternate():
    order = []
    ours, theirs = [Fake("ours"), Fake("ours")], [Fake("torch"), Fake("torch")]
    for number, racer in enumerate([*ours, *theirs]):
        ask = racer.ask
        racer.ask = lambda do, number=number, ask=ask, **kw: (do == "time" and order.append(number), ask(do, **kw))[1]
    race.race_case(CASE, system(*ours), [system(*theirs)], PACE)
    assert order[-4 * PACE.rounds :] == [0, 1, 2, 3] * PACE.rounds


def test_steps_that_compile_or_record_do_not_count_in_the_estimate():
    """Else a slot has a fraction of the steps that it is long enough for."""
    peer = Fake("gpu-torch-graph", seconds=[0.01, *[0.0001] * 20])
    assert raced(peer)["results"]["gpu-torch-graph"]["settings"]["default"]["steps_per_round"] == 10


def document():
    made = machine.header("cpu", 2)
    peers = {name: Fake(name).described for name in ("ours", "torch")}
    cases = [raced(Fake("torch", seconds=s), case=c) for s, c in ((0.002, CASE), (0.0005, Case("train", 128, 128)))]
    made |= {"contestants": peers, "missing": {}, "left_out": [], "cases": cases}
    made["summary"] = results.summarise(made)
    return made


def test_a_result_file_survives_and_says_what_it_must(tmp_path):
    made = document()
    path = results.write(made, tmp_path)
    assert results.read("cpu", tmp_path) == json.loads(path.read_text()) == made
    assert {"cpu", "cores", "python", "numpy"} <= set(made["machine"])
    (summary,) = made["summary"]
    assert summary == {
        "peer": "torch", "of": "training, LSTM", "cases": 2, "median": pytest.approx(1.0), "best": pytest.approx(1.0),
        "worst": pytest.approx(0.5), "worst_case": "train B=128 H=128 T=28", "below_one": ["train B=128 H=128 T=28"],
    }  # fmt: skip


def test_means_are_taken_over_cells_apart():
    made = document()
    made["cases"][1]["cell"] = "gru"
    found = {entry["of"]: entry["median"] for entry in results.summarise(made)}
    assert found == pytest.approx({"training, LSTM": 2.0, "training, GRU and RNN": 0.5})


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(format="other"),
        lambda d: d.pop("commit"),
        lambda d: d.update(threads="2"),
        lambda d: d.update(cases=[]),
        lambda d: d["cases"][0].update(B=0),
        lambda d: d["cases"][0].update(mode="both"),
        lambda d: d["cases"][0]["results"]["torch"]["ratio"].update(best=math.nan),
        lambda d: d["cases"][0]["results"]["torch"].pop("ratio"),
        lambda d: d["cases"][0]["results"]["torch"].update(settings={}),
        lambda d: d["cases"][0].pop("disturbed"),
        lambda d: d["cases"][0].update(cell="elman"),
        lambda d: d["cases"][0]["results"]["ours"]["settings"]["default"].pop("median"),
        lambda d: d["cases"][0].update(lower_bound={"total": math.nan}),
        lambda d: d["cases"][0].update(lower_bound={}),
        lambda d: d.pop("contestants"),
    ],
)
def test_a_damaged_result_file_is_refused(damage, tmp_path):
    made = copy.deepcopy(document())
    damage(made)
    with pytest.raises(results.ResultError):
        results.write(made, tmp_path)
    assert not list(tmp_path.iterdir())


class FakeNearness(Nearness):
    """Cores whose handovers are known, one for each look in turn."""

    def __init__(self, seconds, best=100e-9):
        self.seconds, self.best, self.looks = iter(seconds), best, 0

    def measure(self):
        self.looks += 1
        seconds = next(self.seconds)
        self.best = min(self.best, seconds)
        return seconds

    def busy_seconds(self):
        return 0.0


NEAR, FAR_APART = 100e-9, 900e-9


def with_handovers(handovers, patience=1e9, seconds=0.001):
    pace = race.Pace(rounds=3, slot=0.001, patience=patience)
    nearness = FakeNearness(handovers)
    peer = Fake("torch", seconds=seconds)
    return race.race_case(CASE, system(Fake("ours")), [system(peer)], pace, nearness), nearness, peer


def test_a_slot_waits_for_near_cores_and_is_repeated_where_they_went_apart():
    # ours waits twice; the peer's first slot ends with the cores apart
    handovers = itertools.chain([FAR_APART, FAR_APART, NEAR, NEAR, NEAR, FAR_APART], itertools.repeat(NEAR))
    record, _, peer = with_handovers(handovers, seconds=[0.001, 0.001, 0.009, 0.001, 0.001, 0.001])
    assert record["results"]["torch"]["settings"]["default"]["rounds"] == [0.001] * 3
    assert (record["far_slots"], record["handover"]) == (0, NEAR)
    assert record["disturbed"] == []
    assert peer.log.count("time") == 2 + 3 + 1


def test_without_patience_a_slot_counts_as_it_is_and_the_case_is_disturbed():
    record, nearness, _ = with_handovers(itertools.repeat(FAR_APART), patience=0.0)
    assert record["far_slots"] == 6
    assert nearness.looks == 12
    assert record["disturbed"] == ["cores far apart in 6 slots, up to 900 ns"]


def test_long_steps_do_not_wait():
    record, nearness, _ = with_handovers(iter(()), seconds=race.LONG_STEP * 1.1)
    assert (record["far_slots"], record["handover"], nearness.looks) == (0, None, 0)


@pytest.mark.skipif(
    not handover.can_be_measured() or machine.available_cores() < 2, reason="needs a C compiler and two cores"
)
def test_a_handover_takes_nanoseconds():
    with handover.Nearness(tuple(processes.cores(2))) as nearness:
        seconds = nearness.measure()
        assert 1e-9 < seconds < 1e-3
        assert nearness.best == seconds
        assert nearness.busy_seconds() > 0


def test_a_machine_without_a_compiler_does_not_measure_handovers(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert not handover.can_be_measured()
    with pytest.raises(ContestantError, match="cc could not make"):
        handover.Nearness((0, 1))


def test_a_real_race_between_two_kernels(tmp_path, monkeypatch):
    said, kept = [], []
    arguments = {"threads": 1, "pace": PACE, "pythons": {}, "say": said.append}
    made = cpu.run([CASE], ["reference", "nobody"], **arguments, keep=lambda made: kept.append(copy.deepcopy(made)))
    results.write(made, tmp_path)
    (record,) = made["cases"]
    assert record["results"]["reference"]["loss_gap"] < race.TOLERANCE
    assert set(record["results"]["reference"]["settings"]) == {"default", "tuned"}
    bound, ours = results.bound_of(record), results.time_of(record, "ours", "median")
    assert 0 < bound < ours
    assert f"{bound / ours:.0%}" in cpu.line(record, ["reference"])
    assert list(made["missing"]) == ["nobody"]
    assert any("geometric mean" in text for text in cpu.closing_lines(made))
    assert [document["cases"] for document in kept] == [[record]]
    results.write(kept[0], tmp_path)

    def not_again(*_):
        raise AssertionError("raced again")

    monkeypatch.setattr(cpu, "race_once", not_again)
    monkeypatch.setattr(machine, "unchanged", lambda commit: commit == made["commit"])
    made["changed"], record["disturbed"] = False, []
    monkeypatch.setattr(machine, "commit", lambda: {"commit": "later", "changed": False})
    again = cpu.run([CASE], ["reference"], **arguments, earlier=made)
    assert again["cases"] == [record]
    assert again["seconds"] > made["seconds"]
    record["disturbed"] = ["other programs used 0.50 cores"]
    with pytest.raises(AssertionError, match="raced again"):
        cpu.run([CASE], ["reference"], **arguments, earlier=made)
    with pytest.raises(results.ResultError, match="lstm_np is not what it was in the result file, at commit other"):
        cpu.run([CASE], ["reference"], **arguments, earlier={**made, "commit": "other"})
    made["contestants"]["reference"]["versions"] = {"numpy": "1.0"}
    with pytest.raises(results.ResultError, match=r"reference was .*1\.0.* in the result file"):
        cpu.run([CASE], ["reference"], **arguments, earlier=made)


def test_a_disturbed_race_says_so():
    made = document()
    made["cases"][0]["disturbed"] = ["other programs used 0.50 cores"]
    text = "\n".join(cpu.closing_lines(made))
    assert "DISTURBED: 1 of 2 cases" in text
    assert "train B=4 H=8 T=3: other programs used 0.50 cores" in text
    assert cpu.line(made["cases"][0], ["torch"]).startswith("~train")
    assert "1 of 2 cases were disturbed" in table.render(made)


def small_cases(mode):
    return [
        Case(mode, 4, 8, 3), Case(mode, 3, 5, 4, 2), Case(mode, 3, 5, 4, 2, directions=2),
        Case(mode, 3, 5, 4, 2, cell="gru", directions=2), Case(mode, 3, 5, 4, cell="rnn"),
    ]  # fmt: skip


def test_pytorch_learns_the_same_curve():
    pytest.importorskip("torch")
    with Racer("ours", 1) as ours, Racer("torch", 1) as peer:
        for case in (*small_cases("train"), *small_cases("infer")[-2:], Case("stream", 1, 6)):
            assert race.Curves(case, ours, 6).check(peer) < race.TOLERANCE
        # a check that could not tell one form of Adam from another would be worth nothing
        curves = []
        for eps in (1e-8, 1e-2):
            ours.ask("prepare", case=CASE.as_dict(), adam=["paper", eps])
            curves.append(ours.ask("losses", steps=6)["losses"])
        assert race.curve_gap(*curves) > 10 * race.TOLERANCE


def test_onnx_runtime_infers_the_same():
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    with Racer("ours", 1) as ours, Racer("onnxruntime", 1) as peer:
        for case in (*small_cases("infer"), Case("stream", 1, 6)):
            assert race.Curves(case, ours, 6).check(peer) < race.TOLERANCE
        with pytest.raises(ContestantError, match="not raced here: train"):
            peer.ask("prepare", case=CASE.as_dict())


def test_a_contestant_that_cannot_start_is_told_in_one_line():
    with Racer("gpu-ours", 1) as racer, pytest.raises(ContestantError, match=r"^gpu-ours: describe: ") as caught:
        racer.ask("describe")
    assert "\n" not in str(caught.value)


def test_lengths_are_drawn_from_1_to_t_and_belong_to_the_batch():
    (case,) = workloads.parse_case("train,B=64,H=4,T=9,lengths")
    assert case.lengths
    assert str(case).endswith("lengths 1 ... T")
    for x, labels, lengths in workloads.make_batches(case):
        assert x.shape[0] == len(labels) == len(lengths)
        assert (lengths.min(), lengths.max()) == (1, 9)
    plain = Case("train", 64, 4, T=9)
    assert all(len(batch) == 2 for batch in workloads.make_batches(plain))
    assert case.flops == pytest.approx(plain.flops * 5 / 9)
