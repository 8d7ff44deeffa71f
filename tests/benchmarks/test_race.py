"""A race refuses to time what does not compute the same, and its result files keep their form."""

import copy
import json
import math

import pytest

from benchmarks import cpu, machine, race, results
from benchmarks.processes import ContestantError, Racer
from benchmarks.workloads import Case

CASE = Case("train", 4, 8, 3)
PACE = race.Pace(rounds=3, slot=0.001)


class Fake:
    """A contestant with a known curve and known times; asked in this process."""

    def __init__(self, name, losses=(2.3, 2.2, 2.1), seconds=0.001, digest="same", **described):
        self.name, self.losses, self.time, self.digest = name, list(losses), seconds, digest
        self.described = {"adam": ["paper", 1e-8], "versions": {name: "1"}, "settings": "", "remark": "", **described}
        self.log = []

    def ask(self, do, timeout=1.0, **arguments):
        self.log.append(do)
        return {
            "describe": self.described,
            "prepare": {"digest": self.digest},
            "losses": {"losses": self.losses},
            "time": {"seconds": [self.time] * arguments.get("steps", 1)},
        }[do]

    def busy_seconds(self):
        return 0.0


def raced(*peers, case=CASE):
    return race.race_case(case, Fake("ours"), peers, PACE)


def test_the_ratio_is_theirs_by_ours():
    result = raced(Fake("torch", seconds=0.002))["results"]["torch"]
    assert math.isclose(result["ratio"], 2.0)
    assert result["loss_gap"] == 0.0
    assert len(result["rounds"]) == PACE.rounds


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
    assert "*" in cpu.line(record)
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
    a, b = Fake("ours"), Fake("torch")
    for racer in (a, b):
        ask = racer.ask
        racer.ask = lambda do, racer=racer, ask=ask, **kw: (do == "time" and order.append(racer.name), ask(do, **kw))[1]
    race.race_case(CASE, a, [b], PACE)
    assert order[-2 * PACE.rounds :] == ["ours", "torch"] * PACE.rounds


def test_steps_that_compile_or_record_do_not_count_in_the_estimate():
    """Else a slot has a fraction of the steps that it is long enough for."""
    peer, made = Fake("gpu-torch-graph", seconds=0.0001), []

    def ask(do, timeout=1.0, ask=peer.ask, **arguments):
        if do != "time":
            return ask(do, timeout, **arguments)
        slow = len(made) < 2
        made.extend(range(arguments["steps"] + arguments.get("warm", 0)))
        return {"seconds": [0.01 if slow else peer.time] * arguments["steps"]}

    peer.ask = ask
    assert raced(peer)["results"]["gpu-torch-graph"]["steps_per_round"] == 10


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
    summary = made["summary"]["torch"]["train"]
    assert math.isclose(summary["geometric_mean"], 1.0)
    assert math.isclose(summary["worst"], 0.5)
    assert summary["worst_case"] == "train B=128 H=128 T=28"


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(format="other"),
        lambda d: d.pop("commit"),
        lambda d: d.update(threads="2"),
        lambda d: d.update(cases=[]),
        lambda d: d["cases"][0].update(B=0),
        lambda d: d["cases"][0].update(mode="both"),
        lambda d: d["cases"][0]["results"]["torch"].update(ratio=math.nan),
        lambda d: d["cases"][0]["results"]["ours"].pop("median"),
        lambda d: d.pop("contestants"),
    ],
)
def test_a_damaged_result_file_is_refused(damage, tmp_path):
    made = copy.deepcopy(document())
    damage(made)
    with pytest.raises(results.ResultError):
        results.write(made, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_real_race_between_two_kernels(tmp_path):
    said = []
    made = cpu.run([CASE], ["reference"], threads=1, pace=PACE, pythons={}, say=said.append)
    results.write(made, tmp_path)
    assert made["cases"][0]["results"]["reference"]["loss_gap"] < race.TOLERANCE
    assert any("geometric mean" in text for text in cpu.closing_lines(made))


def test_pytorch_learns_the_same_curve():
    pytest.importorskip("torch")
    with Racer("ours", 1) as ours, Racer("torch", 1) as peer:
        for case in (CASE, Case("train", 3, 5, 4, 2), Case("infer", 2, 6, 3)):
            assert race.Curves(case, ours, 6).check(peer) < race.TOLERANCE
        # a check that could not tell one form of Adam from another would be worth nothing
        curves = []
        for eps in (1e-8, 1e-2):
            ours.ask("prepare", case=CASE.as_dict(), adam=["paper", eps])
            curves.append(ours.ask("losses", steps=6)["losses"])
        assert race.curve_gap(*curves) > 10 * race.TOLERANCE


def test_a_contestant_that_cannot_start_is_told_in_one_line():
    with Racer("gpu-ours", 1) as racer, pytest.raises(ContestantError, match=r"^gpu-ours: describe: ") as caught:
        racer.ask("describe")
    assert "\n" not in str(caught.value)
