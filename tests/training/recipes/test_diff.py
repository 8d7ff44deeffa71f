"""recipes diff: what differs between two runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lstm_np.data import load
from lstm_np.recipes import main
from lstm_np.training import curves
from tests.training.stopped import begin, once_loaded, small


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(curves, "draw_curves", lambda *_: b"")
    monkeypatch.setattr(load, "load_digits", once_loaded)


def diff(capsys, *arguments):
    capsys.readouterr()
    status = main(["diff", *arguments])
    return status, *capsys.readouterr()


def test_the_same_run_twice(capsys):
    begin(small(), Path("a"))
    begin(small(), Path("b"))
    assert diff(capsys, "a", "b") == (0, "a and b: nothing differs, not in one bit of the weights\n", "")
    assert diff(capsys, "a", "b", "--json") == (0, "[]\n", "")


def test_what_differs_is_named_with_what_came_of_it(capsys):
    begin(small(), Path("a"))
    begin(small(train={"seed": 3, "epochs": 4}), Path("b"))
    config = json.loads(Path("b/config.json").read_text())
    config["environment"]["packages"]["numpy"] = "1.0"
    Path("b/config.json").write_text(json.dumps(config))
    status, out, err = diff(capsys, "a", "b")
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert lines[0].split() == ["a", "b"]
    rows = {line.split("  ")[0]: line.split()[-1] for line in lines[1:]}
    assert rows["train.seed"] == "3"
    assert rows["train.epochs"] == "4"
    assert rows["environment.packages.numpy"] == "1.0"
    assert "epoch 1, train_loss" in rows
    assert "epochs made" in rows
    assert "weights, layer0.W" in rows
    assert not any("seconds" in name for name in rows)
    found = json.loads(diff(capsys, "a", "b", "--json")[1])
    assert {"what": "train.seed", "first": "0", "second": "3"} in found


def test_other_sizes(capsys):
    begin(small(), Path("a"))
    begin(small(model={"hidden_size": 5}), Path("b"))
    assert "weights, layer0.U" in diff(capsys, "a", "b")[1]


def test_what_is_no_run(capsys):
    begin(small(), Path("a"))
    assert diff(capsys, "a") == (2, "", "recipes: diff needs two run folders, found 1\n")
    line = "recipes: none: no config.json; expected the folder of a run\n"
    assert diff(capsys, "a", "none") == (2, "", line)
    Path("a/config.json").write_text("{")
    status, out, err = diff(capsys, "a", "a")
    assert (status, out) == (2, "")
    assert err.startswith("recipes: a/config.json: cannot be read (")
