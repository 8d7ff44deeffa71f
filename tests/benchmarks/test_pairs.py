"""The race of two trees: what an interval says, and that pairs are fair."""

import json

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import compare, pairs
from benchmarks.processes import ROOT, ContestantError
from benchmarks.trees import Tree
from benchmarks.workloads import Case

HERE = Tree("this tree", ROOT, "0" * 40)
SMALL = (Case("train", 4, 8, 3), Case("stream", 1, 4))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.99, 1.01, "not slower"),
        (0.90, 0.91, "not slower"),
        (1.021, 1.03, "slower"),
        (1.00, 1.03, "not shown to be slower"),
        (0.98, 1.03, "says nothing: repeat"),
        (1.05, 1.10, "says nothing: repeat"),
    ],
)
def test_what_an_interval_says(low, high, words):
    assert pairs.verdict(low, high) == words
    assert pairs.good([words]) == words.startswith("not ")


def test_the_interval_is_that_of_the_median():
    rng = np.random.default_rng(1)
    ratios = 1.03 * np.exp(0.02 * rng.normal(size=24))
    low, high = pairs.bootstrap_interval(ratios)
    assert low < np.median(ratios) < high
    assert (low, high) == pairs.bootstrap_interval(ratios)
    # about 1.25 standard errors of a mean, times 1.96 on each side
    assert high - low == pytest.approx(2 * 1.96 * 1.25 * 1.03 * 0.02 / 24**0.5, rel=0.5)
    assert pairs.bootstrap_interval([1.0] * 20) == (1.0, 1.0)
    # one pair that was disturbed does not move it
    assert pairs.bootstrap_interval([1.0] * 23 + [3.0]) == (1.0, 1.0)


def test_a_slower_tree_is_told():
    seconds = [(1.05 + 0.001 * (k % 3), 1.0) for k in range(20)]
    judged = pairs.judge(seconds)
    assert judged["verdict"] == "slower"
    assert judged["ratio"] == pytest.approx(1.051)
    assert pairs.judge([(b, a) for a, b in seconds])["verdict"] == "not slower"


class Fake:
    """A contestant that remembers whose turn it was."""

    log: list = []

    def __init__(self, tree, threads):
        self.tree, self.alive, self.name = tree, True, tree.name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, do, **arguments):
        if do == "prepare" and arguments["case"].get("cell") == "gru":
            raise ContestantError(f"{self.name}: prepare: no GRU here")
        if do == "time" and arguments["steps"] != 3:
            self.log.append(self.name)
        return {"seconds": [2e-3 if self.name == "slow" else 1e-3] * arguments.get("steps", 1)}

    def look_for_workers(self):
        pass

    def busy_seconds(self):
        return 0.0


def test_trees_take_turns_and_a_case_that_one_cannot_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(pairs, "start", Fake)
    monkeypatch.setattr(Fake, "log", [])
    a, b = Tree("slow", ROOT, "a" * 40), Tree("fast", ROOT, "b" * 40)
    found = pairs.race(a, b, [Case("train", 4, 8), Case("train", 4, 8, cell="gru")], 2, 1)
    assert Fake.log == ["slow", "fast", "fast", "slow", "fast", "slow", "slow", "fast"]
    first, second = found["cases"]
    assert first["ratios"] == pytest.approx([2.0, 2.0])
    assert first["verdict"] == "slower"
    assert "no GRU here" in second["left_out"]
    assert not found["good"]
    assert "slower" in capsys.readouterr().out


def test_an_older_tree_is_asked_in_words_that_it_knows():
    assert pairs.essential(Case("train", 4, 8)) == {"mode": "train", "B": 4, "H": 8}
    assert pairs.essential(Case("infer", 4, 8, cell="gru")) == {"mode": "infer", "B": 4, "H": 8, "cell": "gru"}


def test_a_tree_against_itself_in_fresh_processes(monkeypatch):
    monkeypatch.setattr(pairs, "PACE", pairs.Pace(slot=0.001))
    found = pairs.race(HERE, HERE, SMALL, 2, 1)
    assert [len(record["ratios"]) for record in found["cases"]] == [2, 2]


def test_a_tree_that_would_run_another_package_is_refused(tmp_path):
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    with pytest.raises(ContestantError, match=r"another lstm_np|No module named 'lstm_np'"):
        pairs.start(Tree("without a package", tmp_path.resolve(), "1" * 40), 1)


def test_the_command_says_how_it_ended(monkeypatch, capsys, tmp_path):
    sums = {"equal": True, "data": "none", "settings": []}
    monkeypatch.setattr(compare, "compare_sums", lambda *_: dict(sums))
    for verdict, status in (("not slower", 0), ("slower", 1), ("says nothing: repeat", 1)):
        record = {**SMALL[0].as_dict(), "verdict": verdict}
        raced = {"cases": [record], "good": pairs.good([verdict])}
        monkeypatch.setattr(compare.pairs, "race", lambda *_, raced=raced: raced)
        assert command.main(["compare", "HEAD", "--json", "--out", str(tmp_path)]) == status
        said = capsys.readouterr().out
        assert json.loads(said.splitlines()[-1])["race"]["cases"] == [record]
        assert ("repeat" in said.splitlines()[-3]) == (verdict == "says nothing: repeat")
    sums["equal"] = False
    assert command.main(["compare", "HEAD", "--hashes-only"]) == 1


@pytest.mark.parametrize("argv", [["--pairs", "19"], ["--cases", "B=1"], ["--hashes-only", "--race-only"]])
def test_bad_input_is_one_line_and_exit_2(argv, capsys):
    try:
        status = command.main(["compare", "HEAD", *argv])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert capsys.readouterr().err.count("\n") == 1
