"""`compare`: equal trees are equal, and a tree that computes other bits is told, by what differs."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import compare, probe, trees
from benchmarks.processes import ROOT, environment
from benchmarks.trees import Tree

HERE = Tree("this tree", ROOT, "0" * 40)


def run_probe(*flags):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "probe.py"), "--steps", "2", *flags],
        env=environment(1), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    head, *records, last = map(json.loads, done.stdout.splitlines())
    assert last == {"done": True}
    assert Path(head["lstm_np"]).is_relative_to(ROOT)
    return {record.pop("name"): record for record in records}


def test_the_probe_is_repeatable_and_covers_every_recipe():
    first, again = (run_probe("--only", "recipe") for _ in range(2))
    assert first == again
    assert set(first) == {f"recipe {name}" for name in probe.recipe_names()}
    for record in first.values():
        assert set(record) == {"parameters", "optimizer", "losses", "outputs"}, record
    # some recipes differ in what is measured alone, but not all of them
    assert len({record["parameters"] for record in first.values()}) > len(first) / 2


def test_nothing_that_is_tried_fails_and_all_models_differ():
    for kernel in ("auto", "reference"):
        found = run_probe("--kernel", kernel, "--only", "model")
        assert set(found) == {f"model {name}" for name in probe.MODELS}
        assert all("error" not in record for record in found.values()), found
        assert len({record["parameters"] for record in found.values()}) == len(found)
    layers = run_probe("--only", "B=3 T=6")
    assert len(layers) == len(probe.LAYERS) + 1  # and the lean kernel
    assert all({"outputs", "gradients"} <= set(record) for record in layers.values()), layers


def test_sums_see_bits_and_order_but_no_names_or_shapes():
    a, b = np.arange(6, dtype=np.float32), np.ones(2, np.float32)
    assert probe.digest({"W": a, "b": b}.values()) == probe.digest({"kernel": a.reshape(2, 3), "bias": b}.values())
    different = [probe.digest([b, a]), probe.digest([np.nextafter(a, 9), b]), probe.digest([a.astype(np.float64), b])]
    assert probe.digest([a, b]) not in different
    assert probe.digest([np.float32([0.0])]) != probe.digest([np.float32([-0.0])])


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"x": {"parameters": "1", "losses": "2"}}, {}),
        ({"x": {"parameters": "1", "losses": "3"}}, {"x": "losses"}),
        ({"x": {"parameters": "1"}}, {"x": "losses"}),
        ({"x": {"error": "ValueError: no"}}, {"x": "this tree: works; the commit: ValueError: no"}),
        ({}, {"x": "only in this tree"}),
        ({"x": {"parameters": "1", "losses": "2"}, "y": {}}, {"y": "not in this tree"}),
    ],
)
def test_what_differs_is_named(theirs, words):
    assert compare.differences({"x": {"parameters": "1", "losses": "2"}}, theirs) == words


def edited_copy(folder, before, after):
    """A tree whose LSTM cell, which the reference kernel runs, has been edited."""
    for name in ("lstm_np", "benchmarks"):
        for path in (ROOT / name).rglob("*"):
            if path.suffix in (".py", ".toml"):
                target = folder / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    cell = folder / "lstm_np" / "cells" / "lstm.py"
    text = cell.read_text()
    assert before in text
    cell.write_text(text.replace(before, after))
    return Tree("edited", folder.resolve(), "1" * 40)


def test_a_tree_that_computes_other_bits_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "SETTINGS", (("reference", 1),))
    other = edited_copy(tmp_path, "o * tanh_c", "o * tanh_c * (1 + 2e-7)")
    found = compare.compare_sums(HERE, other, None, 2, "B=3 T=6")
    assert not found["equal"]
    (setting,) = found["settings"]
    kinds = [name.split()[1].rstrip(",") for name in setting["differ"]]
    assert kinds == ["LSTM"] * 4
    assert setting["tried"] == len(probe.LAYERS)
    assert "DIFFERENT in 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("raise SystemExit('no probe here')", "ended early .status 1.: no probe here"),
        ("print('{}')", "ended early .status 0.: nothing on stderr"),
        ("""print('{"lstm_np": "/elsewhere/lstm_np/__init__.py"}'); print('{"done": true}')""", "another lstm_np"),
    ],
)
def test_a_probe_that_cannot_be_trusted_is_an_error_in_one_line(lines, words, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "probe.py").write_text(lines)
    broken = Tree("broken", tmp_path.resolve(), "2" * 40)
    with pytest.raises(RuntimeError, match=words) as caught:
        compare.sums_of([broken], "auto", 1, None, 1, None)
    assert "\n" not in str(caught.value)


def test_a_commit_without_a_probe_is_given_ours(tmp_path):
    old = "e4dbaf713"  # the last commit without one
    try:
        with trees.laid_out(old) as tree:
            path = tree.path
            assert tree.borrowed
            assert (path / "benchmarks" / "probe.py").read_bytes() == (ROOT / "benchmarks" / "probe.py").read_bytes()
            assert (path / "lstm_np" / "__init__.py").exists()
    except ValueError as error:  # a clone without that much history
        pytest.skip(str(error))
    assert not path.exists()


@pytest.mark.parametrize("argv", [["compare", "no-such-commit"], ["compare"], ["compare", "HEAD", "--steps", "0"]])
def test_bad_input_is_one_line_and_exit_2(argv, capsys):
    try:
        status = command.main(argv)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_commit_against_itself(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compare, "SETTINGS", (("auto", 1),))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    status = command.main(
        ["compare", "HEAD", "--hashes-only", "--steps", "1", "--only", "B=3 T=6", "--out", str(tmp_path), "--json"]
    )
    said = capsys.readouterr().out
    document = json.loads(said.splitlines()[-1])
    assert (status == 0) == document["sums"]["equal"]
    assert document["sums"]["settings"][0]["tried"] >= len(probe.LAYERS)
    assert "scikit-learn's digits" in said or "images of" in said
    listed = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listed
