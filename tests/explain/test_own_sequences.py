"""explain of a model that was trained on sequences of one's own: their values, scaled, and the names of classes."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import numpy as np
import pytest

import lstm_np
from lstm_np.explain.__main__ import main as explain
from lstm_np.explain.export import record, unpacked
from lstm_np.explain.page import page_within
from lstm_np.explain.samples import SEQUENCES, Sample, trace_of
from lstm_np.explain.terminal import Choice, Look, terminal_view
from lstm_np.train import main as train
from lstm_np.training import curves
from lstm_np.training.trained import Trained
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
    assert data["command"] == "python -m lstm_np.explain run --data walks.csv --index 7 2 --out page.html"


def test_the_command_on_the_page_makes_it_again(walks, capsys):
    """Also where a flag says how the file is read, and which of the run's weights it shows."""
    head, *rows = Path("walks.csv").read_text(encoding="utf-8").replace(",", ";").splitlines()
    others = [f"who{head.removeprefix('id')};more things", *(f"{row};9" for row in rows)]
    Path("other.csv").write_text("\n".join(others) + "\n", encoding="utf-8")
    flags = ("--id", "who", "--ignore", "more things", "--delimiter", ";", "--header")
    assert asked(capsys, "run", "--best", "--data", "other.csv", *flags, "--out", "page.html")[0] == 0
    page, words = Path("page.html").read_bytes(), shlex.split(data_of(Path("page.html"))["command"])
    assert words[:6] == ["python", "-m", "lstm_np.explain", "run", "--best", "--data"]
    Path("page.html").unlink()
    assert asked(capsys, *words[3:])[0] == 0
    assert Path("page.html").read_bytes() == page


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


def test_long_names_do_not_stick_out(open_page):
    classes, features = [f"{'class' * 12}{k}" for k in range(3)], [f"feature_with_a_long_name_{k}" for k in range(12)]
    model, x = lstm_np.SequenceClassifier(12, 4, 3), np.random.default_rng(0).normal(size=(6, 12))
    trained = Trained(Path("model"), model, SEQUENCES, "rows", (6, 12), 1, tuple(classes), tuple(features))
    recording = record(trained, Sample(f"sequence {'id' * 40}", x, 1, 0, 100 * x))
    text, _ = page_within(trained, [recording], [], "", limit=2_000_000)
    Path("page.html").write_text(text, encoding="utf-8")
    shown = open_page(Path("page.html").absolute(), viewport={"width": 1280, "height": 900})
    assert shown.tab.evaluate("document.documentElement.scrollWidth") <= 1280
    shown.tab.locator("#panel-image .plot").hover(position={"x": 5, "y": 20})
    tip = shown.tab.locator("#tip").bounding_box()
    assert shown.text("#tip").count("read as") == 12
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= 1280
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


def test_long_names_and_many_features_fit_the_terminal():
    """A name is cut, and an input that leaves no room for one is not drawn."""
    classes = ["a class with a name that is long", "another of them", "third"]
    for D, width, drawn, names in ((33, 80, True, [8, 8]), (33, 60, False, [13, 13]), (3, 120, True, [16, 15])):
        model = lstm_np.SequenceClassifier(D, 4, 3)
        trained = Trained(Path("model"), model, SEQUENCES, "rows", (3, D), 1, tuple(classes), tuple(map(str, range(D))))
        sample = Sample("sequence " + "of somebody " * 9, np.ones((3, D)), 0)
        lines = terminal_view(trained, sample, trace_of(trained, sample), Choice(), Look(width))
        plain = [line.plain for line in lines]
        table = plain[: next(k for k, line in enumerate(plain) if line.startswith("f of layer 0"))]
        assert max(map(len, table)) <= width
        head = next(line for line in plain if "prediction" in line)
        assert ("input" in head) == drawn
        found = plain[plain.index(head) + 1]
        assert all(any(name[:count] in found for name in classes[:2]) for count in names)
        assert any(line.endswith("--value f --step 2 --unit 0") for line in plain)


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
        ("run", "--index", 4): "--index must be 0 to 3, the sequences of walks.csv, the test part of the run; found 4",
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
