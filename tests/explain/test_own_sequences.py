"""explain of a model that was trained on sequences of one's own: their values, scaled, and the names of classes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import lstm_np
from lstm_np.explain.__main__ import main as explain
from lstm_np.explain.export import unpacked
from lstm_np.train import main as train
from lstm_np.training import curves
from tests.explain.browser import data_of

NAMES = ["speed", "pulse <b>"]
CLASSES = ["rest & sleep", "run", "walk"]  # in the order of the outputs
SMALL = ["--hidden-size", "5", "--epochs", "2", "--threads", "1", "--quiet"]


def write(path, lengths, *, labels=True, seed=0):
    """A long table: x of each sequence, and its class."""
    rng = np.random.default_rng(seed)
    head, rows, found = ["id", "time", *NAMES, *(["label"] if labels else [])], [], []
    for n, length in enumerate(lengths):
        x = np.round(rng.normal([n % 3, 100], [1, 20], (length, 2)), 3)
        found.append(x)
        rows += [[f"p{n}", t, *x[t], *([CLASSES[n % 3]] if labels else [])] for t in range(length)]
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return found


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(curves, "draw_curves", lambda *_: b"")


@pytest.fixture
def walks():
    """A run on 30 sequences of 6 steps, and these."""
    x = write("walks.csv", [6] * 30)
    assert train(["--data", "walks.csv", "--out", "run", *SMALL]) == 0
    return x


def asked(capsys, *arguments):
    """(status, out, err) of explain."""
    capsys.readouterr()
    status = explain([*map(str, arguments), "--threads", "1"])
    return (status, *capsys.readouterr())


def test_a_page_of_sequences_of_a_file(walks, capsys):
    """What the model reads is scaled as it was trained; values, gradients and counts are those of the engine."""
    assert asked(capsys, "run", "--data", "walks.csv", "--index", 7, 2, "--out", "page.html")[0] == 0
    data = data_of(Path("page.html"))
    about, one = data["model"], data["passes"][0]
    assert (about["classes"], about["features"], about["step"], about["T"]) == (CLASSES, NAMES, "step", 6)
    assert [(each["name"], each["label"]) for each in data["passes"]] == [("sequence p7", 1), ("sequence p2", 2)]
    np.testing.assert_array_equal(unpacked(one["raw"]), walks[7])
    model = lstm_np.load("run/weights.safetensors")
    scaler = lstm_np.data.SequenceScaler.from_state(model.notes["scaler"])
    x, labels = scaler.transform(np.stack(walks)).astype(np.float32), np.arange(30) % 3
    np.testing.assert_array_equal(unpacked(one["x"]), x[7])
    trace = lstm_np.trace(model, x[[7]], labels[[7]])
    np.testing.assert_array_equal(unpacked(one["layers"]["layer0"]["values"]["f"]), trace.gate("f")[0])
    np.testing.assert_array_equal(unpacked(one["dx"]), trace.dx()[0])
    assert data["test"]["count"] == 30
    assert data["test"]["correct"][-1] == int((model.predict(x) == labels).sum())
    facts = dict(data["provenance"])
    assert facts["sequences"] == "walks.csv"
    assert facts["trained on"].startswith("walks.csv, SHA-256 ")
    assert data["command"].startswith("python -m lstm_np.explain run --data walks.csv --index 7 2")


def test_where_no_file_is_named_it_is_the_test_part(walks, capsys):
    assert asked(capsys, "run", "--index", 0, "--out", "page.html")[0] == 0
    data = data_of(Path("page.html"))
    own = next(k for k, x in enumerate(walks) if (unpacked(data["passes"][0]["raw"]) == x).all())
    assert data["passes"][0]["name"] == f"sequence p{own}"
    assert data["test"]["count"] == 4
    assert dict(data["provenance"])["sequences"] == "walks.csv, the test part of the run"


def test_the_page_says_names(walks, capsys, open_page):
    assert asked(capsys, "run", "--data", "walks.csv", "--index", 3, 4, "--out", "page.html", "--compare",
                 "initial")[0] == 0  # fmt: skip
    shown = open_page(Path("page.html").absolute(), hash="#t=2&u=1&v=f&tab=backward")
    assert shown.text("#title").endswith("reads class rest & sleep")
    assert f"the label is {CLASSES[0]}" in shown.text("#about")
    assert "−log p(rest & sleep)" in shown.text("#tab-body")
    assert [one.strip() for one in shown.tab.locator("#panel-test .row-label").all_inner_texts()] == [
        "rest & sleep", "run", "walk",
    ]  # fmt: skip
    assert sorted(shown.tab.locator("#panel-image .end-label").all_inner_texts()) == sorted(NAMES)
    assert "sequences of 6 steps" in shown.text("#panel-test")
    options = shown.tab.locator("#target option").all_inner_texts()
    assert options[1:4] == [f"the logit of {name}" for name in CLASSES]
    shown.tab.locator("#panel-image .plot").hover(position={"x": 5, "y": 20})
    tip = shown.text("#tip")
    assert tip.startswith(f"step 1: speed {walks[3][0, 0]:g}, read as ")
    assert f"pulse <b> {walks[3][0, 1]:g}, read as " in tip
    assert shown.tab.locator("b >> text=read as").count() == 0
    assert shown.complaints == []


def test_without_labels_there_are_no_gradients_and_it_is_said_why(walks, capsys):
    write("new.csv", [6, 6], labels=False)
    status, _, err = asked(capsys, "run", "--data", "new.csv", "--out", "page.html")
    assert (status, err) == (0, "explain: new.csv: no column 'label' (target); there are: id, time, speed, pulse <b>; "
                                "so there are no labels, and no gradients\n")  # fmt: skip
    data = data_of(Path("page.html"))
    assert data["passes"][0]["label"] is None
    assert "dx" not in data["passes"][0]
    assert "test" not in data


def test_in_the_terminal(walks, capsys):
    write("long.csv", [4, 9, 6])
    status, out, err = asked(capsys, "run", "--data", "long.csv", "--index", 1, 0, "--term", "--value", "f", "--step",
                             2)  # fmt: skip
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("sequence p1: predicted ")
    assert lines[0].endswith(f", the label is {CLASSES[1]}")
    assert "f of unit 0 at step 2, layer 0: forward" in lines
    assert "steps 0 to 8" in out
    assert "steps 0 to 3" in out
    assert max(map(len, lines)) <= 80


def test_missing_values_are_filled_in_as_in_training(capsys):
    text = Path("walks.csv")
    write("walks.csv", [6] * 30)
    rows = text.read_text().splitlines()
    rows[3] = ",".join([*rows[3].split(",")[:2], "", *rows[3].split(",")[3:]])
    text.write_text("\n".join(rows) + "\n")
    assert train(["--data", "walks.csv", "--missing", "mean", "--out", "run", *SMALL]) == 0
    assert asked(capsys, "run", "--data", "walks.csv", "--out", "page.html")[0] == 0
    one = data_of(Path("page.html"))["passes"][0]
    assert "raw" not in one  # what is missing has no number
    assert np.isfinite(unpacked(one["x"])).all()


def test_what_cannot_be_shown_is_said_in_a_line(walks, capsys):
    write("long.csv", [4, 9, 6])
    where = "run/weights.safetensors"
    for arguments, line in {
        ("run", "--data", "long.csv", "--index", 0, 1): "--index 0 1: these sequences of long.csv have 4 and 9 steps, "
        "a page has one time axis; name those of one length, or make a page for each",
        ("run", "--data", "long.csv", "--index", 3): "--index must be 0 to 2, the sequences of long.csv; found 3",
        ("run", "--data", "none.csv"): "none.csv: no such file or folder",
        ("run", "--dataset", "digits"): f"--dataset is for models of images, {where} has learnt from sequences of your "
        "own",
        ("--tiny", "--data", "long.csv"): "--data is for a page and --term, which show a trained model reading; leave "
        "it out",
    }.items():
        assert asked(capsys, *arguments) == (2, "", f"explain: {line}\n"), arguments
    numbers = "id,time,x,y\n" + "".join(f"s{n},{t},{n}.5,{n}.25\n" for n in range(12) for t in range(3))
    Path("numbers.csv").write_text(numbers)
    assert train(["--data", "numbers.csv", "--target", "y", "--out", "numbers", *SMALL]) == 0
    status, _, err = asked(capsys, "numbers")
    assert status == 2
    assert err.startswith("explain: numbers/weights.safetensors: this model predicts numbers, and what is shown here ")
