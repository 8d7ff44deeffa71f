"""train --data, evaluate and predict on sequences of one's own, through the real commands."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lstm_np
from lstm_np.checkpoints import Checkpoints
from lstm_np.data.sequences import arrays
from lstm_np.training.own_data import OwnData, OwnSettings, Reading, own_recipe, split_of
from tests.data.sequence_files import write_folder, write_long, write_rows, write_ts, write_wide

SMALL = ("--hidden-size", 6, "--epochs", 2, "--quiet")
NAMES = ["load", "speed"]


def walks(kind="class", count=30, seed=0, unequal=True):
    """(x, targets) of sequences whose class, number or tags are in the first feature."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((rng.integers(3, 7) if unequal else 5, 2)) * [1, 100] for _ in range(count)]
    k = [n % 3 for n in range(count)]
    for n, sequence in enumerate(x):
        sequence[:, 0] += 2 * k[n]
    of = {
        "class": ["xyz"[n] for n in k],
        "number": [100.25 + 10 * n for n in k],
        "tag": [["uv"[int(step > 1)] for step in sequence[:, 0]] for sequence in x],
        "steps": [(3 * sequence[:, 0] + 50).tolist() for sequence in x],
    }
    return x, of[kind]


def weights(folder):
    return lstm_np.load(Path(folder) / "weights.safetensors").params.flat.tobytes()


def config(folder):
    return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def trained(invoke, data, *flags, out="run"):
    result = invoke("train", "--data", data, "--out", out, "--json", *SMALL, *flags)
    assert (result.status, result.err) == (0, ""), result
    return json.loads(result.out)


@pytest.mark.parametrize(
    ("kind", "task"), [("class", "classify"), ("number", "regress"), ("tag", "tag"), ("steps", "regress")]
)
def test_train_evaluate_and_predict(invoke, kind, task):
    """The outcome of training, evaluate, and Python on the saved model say the same; predictions are the model's."""
    x, y = walks(kind)
    write_long(Path("a.csv"), x, NAMES, [y], ["quality"])
    outcome = trained(invoke, "a.csv", "--target", "quality")
    told = config("run")["dataset"]
    assert (told["task"], told["features"], told["targets"]) == (task, NAMES, ["quality"])
    assert [told[f"{part}_sequences"] for part in ("train", "validation", "test")] == [21, 5, 4]
    again = json.loads(invoke("evaluate", "run", "--json").out)
    assert again["test_loss"] == pytest.approx(outcome["test_loss"])
    for name in ("accuracy", "mean_squared_error", "mean_absolute_error", "r2"):
        assert outcome.get(f"test_{name}") == pytest.approx(again.get(f"test_{name}")), name
    model = lstm_np.load("run/weights.safetensors")
    assert (model.notes["targets"], model.notes["features"]) == (["quality"], NAMES)
    scaler = lstm_np.data.SequenceScaler.from_state(model.notes["scaler"])
    # the file to be predicted has no targets, more columns, and these in another order
    T = [np.full(len(one), 9.0) for one in x]
    more = [np.column_stack((b, c, a)) for (a, b), c in zip((one.T for one in x), T, strict=True)]
    write_long(Path("new.csv"), more, ["speed", "colour", "load"])
    result = invoke("predict", "run", "new.csv")
    assert (result.status, result.err) == (0, "")
    found = rows(result.out)
    scaled = scaler.transform(x)
    if task == "regress":
        targets = lstm_np.data.SequenceScaler.from_state(model.notes["target_scaler"])
        expected = [one for part in model.predict(scaled)
                    for one in np.atleast_1d(targets.inverse_transform(np.reshape(part, (-1, 1)))[:, 0])]  # fmt: skip
        assert [float(row["quality"]) for row in found] == pytest.approx(expected, rel=1e-5)
    else:
        p = np.concatenate([np.atleast_2d(one) for one in model.predict_proba(scaled)])
        classes = model.notes["classes"]
        assert [row["prediction"] for row in found] == [classes[k] for k in p.argmax(axis=1)]
        assert [float(row[f"p_{classes[0]}"]) for row in found] == pytest.approx(p[:, 0].tolist(), abs=1e-6)
    per_step = kind in ("tag", "steps")
    assert [row["id"] for row in found] == [f"s{n}" for n in range(30) for _ in range(len(x[n]) if per_step else 1)]
    shown = invoke("evaluate", "run", "--data", "a.csv").out
    assert "30 sequences" in shown
    assert ("mean absolute error" if task == "regress" else "accuracy") in shown


FILES = {
    "a.csv": lambda x, y: write_wide(Path("a.csv"), x, NAMES, [y], ["kind"]),
    "a.ts": lambda x, y: write_ts(Path("a.ts"), x, y),
    "folder": lambda x, y: write_folder(Path("folder"), x, NAMES, y),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_sequences_in_other_files(invoke, name):
    """What is learnt is a function of the sequences, not of the file that they are in."""
    x, y = walks()
    order = sorted(range(len(x)), key=lambda n: (y[n], n))  # the one in which a folder has them
    x, y = [x[n] for n in order], [y[n] for n in order]
    write_long(Path("long.csv"), x, NAMES, [y], ["label"])
    trained(invoke, "long.csv", out="first")
    FILES[name](x, y)
    trained(invoke, name, *(("--target", "kind") if name == "a.csv" else ()), out="second")
    assert weights("first") == weights("second")
    result = invoke("predict", "second", name, "--out", "p.csv")
    assert (result.status, result.out) == (0, "")
    found = rows(Path("p.csv").read_text(encoding="utf-8"))
    expected = rows(invoke("predict", "first", "long.csv").out)
    assert [row["p_x"] for row in found] == [row["p_x"] for row in expected]


def test_arrays_and_an_array_on_disk(invoke, monkeypatch):
    x, y = walks("class", unequal=False)
    np.savez("a.npz", x=np.stack(x), y=np.array(y))
    trained(invoke, "a.npz", out="first")
    np.save("b.npy", np.stack(x))
    np.save("labels.npy", np.array(y))
    monkeypatch.setattr(arrays, "available_memory", lambda: 0)
    trained(invoke, "b.npy", "--labels", "labels.npy", out="second")
    assert weights("first") == weights("second")
    assert config("second")["dataset"]["reading"]["labels"] == str(Path("labels.npy").absolute())
    assert invoke("evaluate", "second", "--json").status == 0
    assert len(rows(invoke("predict", "second", "b.npy").out)) == 30


def test_windows_by_time(invoke):
    """A series, predicted one step ahead: no window of a part reaches into the next."""
    t = np.arange(120.0)
    write_rows(Path("a.csv"), [["time", "value", "next"], *zip(t, np.sin(t / 5), np.sin(t / 5), strict=True)])
    flags = ("--target", "next", "--task", "regress", "--window", 8, "--stride", 1, "--horizon", 1)
    outcome = trained(invoke, "a.csv", *flags)
    told = config("run")["dataset"]
    own = OwnData.load(OwnSettings.from_state({name: told[name] for name in OwnSettings.__dataclass_fields__}), 0)
    spans = {name: own.data.spans[indices] for name, indices in own.parts.items()}
    assert spans["train"][:, 1].max() < spans["validation"][:, 0].min()
    assert spans["validation"][:, 1].max() < spans["test"][:, 0].min()
    assert outcome["test_mean_absolute_error"] > 0
    found = rows(invoke("predict", "run", "a.csv").out)
    assert [found[0]["id"], found[-1]["id"]] == ["1:7.0", "1:119.0"]  # to the end of the series
    assert len(found) == 120 - 7
    write_rows(Path("b.csv"), [["time", "value"], *zip(t, np.sin(t / 5), strict=True)])
    trained(invoke, "b.csv", "--target", "value", "--window", 8, "--stride", 2, "--horizon", 3, out="past")
    assert lstm_np.load("past/weights.safetensors").notes["features"] == ["value"]
    assert rows(invoke("predict", "past", "b.csv").out)[-1]["id"] == "1:119.0"
    assert invoke("evaluate", "past", "--data", "b.csv").status == 0


def test_groups_stay_whole_and_are_not_needed_to_predict(invoke):
    x, y = walks()
    people = [f"p{n % 6}" for n in range(30)]
    write_long(Path("a.csv"), x, NAMES, [y, people], ["label", "person"])
    trained(invoke, "a.csv", "--group", "person", "--split", 0.5, 0.25, 0.25)
    own = OwnData.load(OwnSettings("a.csv", Reading(group="person"), (0.5, 0.25, 0.25)), 0)
    parts = [{own.data.groups[k] for k in indices} for indices in own.parts.values()]
    assert all(parts)
    assert sum(map(len, parts)) == 6
    write_long(Path("b.csv"), x, NAMES)
    assert invoke("predict", "run", "b.csv").status == 0
    write_long(Path("c.csv"), x, NAMES, [y], ["label"])
    assert invoke("evaluate", "run", "--data", "c.csv").status == 0


@pytest.mark.parametrize("name", ["a.npz", "a.csv"])
def test_groups_of_a_file_stay_whole_without_a_word(invoke, name):
    x, y = walks(unequal=False)
    people = [f"p{n % 6}" for n in range(30)]
    if name == "a.csv":
        write_long(Path(name), x, NAMES, [y, people], ["label", "group"])
    else:
        np.savez(name, x=np.stack(x), y=y, groups=people)
    result = invoke("train", "--data", name, "--out", "run", "--hidden-size", 4, "--epochs", 1)
    assert "        split by group (6 groups), train " in result.out
    assert config("run")["dataset"]["split_by"] == "group"
    own = OwnData.load(OwnSettings(name), 0)
    parts = [{own.data.groups[k] for k in indices} for indices in own.parts.values()]
    assert sum(map(len, parts)) == 6


def test_features_are_found_by_their_names(invoke):
    """Columns and arrays in another order, with others among them, give the same predictions; others are refused."""
    x, y = walks(unequal=False)
    months = np.stack(x)[:, :3, 0]
    body = ([k, *m, 1] for k, m in zip(y, months, strict=True))
    write_rows(Path("a.csv"), [["label", "jan", "feb", "mar", "size"], *body])
    trained(invoke, "a.csv", "--features", "jan", "feb", "mar", "--layout", "wide", out="wide")
    expected = invoke("predict", "wide", "a.csv").out
    write_rows(Path("b.csv"), [["mar", "apr", "jan", "feb"], *([m[2], 9, m[0], m[1]] for m in months)])
    assert invoke("predict", "wide", "b.csv").out == expected
    write_rows(Path("c.csv"), [["mar", "apr", "jan"], *([m[2], 9, m[0]] for m in months)])
    result = invoke("predict", "wide", "c.csv")
    assert (result.status, result.err) == (2, "predict: c.csv: no column 'feb' (feature); there are: mar, apr, jan\n")
    np.savez("a.npz", x=np.stack(x), y=y, features=NAMES)
    trained(invoke, "a.npz", out="arrays")
    expected = invoke("predict", "arrays", "a.npz").out
    np.savez("b.npz", x=np.stack(x)[:, :, [1, 1, 0]], features=["speed", "colour", "load"])
    assert invoke("predict", "arrays", "b.npz").out == expected
    np.savez("c.npz", x=np.stack(x), features=["speed", "colour"])
    result = invoke("predict", "arrays", "c.npz")
    line = "predict: c.npz: found the features speed, colour; the model reads load, speed\n"
    assert (result.status, result.err) == (2, line)
    np.savez("d.npz", x=np.stack(x))  # without names: in their order
    assert invoke("predict", "arrays", "d.npz").out == expected
    np.savez("e.npz", x=np.stack(x), y=y)  # chosen by their numbers
    trained(invoke, "e.npz", "--features", "x1", "x0", out="swapped")
    assert lstm_np.load("swapped/weights.safetensors").notes["features"] == ["x1", "x0"]
    found = rows(invoke("predict", "swapped", "e.npz").out)
    model = lstm_np.load("swapped/weights.safetensors")
    scaled = lstm_np.data.SequenceScaler.from_state(model.notes["scaler"]).transform(np.stack(x)[:, :, ::-1])
    p = model.predict_proba(scaled)
    assert [float(row["p_x"]) for row in found] == pytest.approx(p[:, 0].tolist(), abs=1e-6)


def test_nothing_of_validation_and_test_is_learnt(invoke):
    """Change every value and label of the other parts: the trained weights and what was fitted keep all their bits.

    The split is by group, since one at random has each class with its share.
    """
    x, y = walks()
    people = [f"p{n // 3}" for n in range(30)]
    x = [np.where(np.random.default_rng(n).random(one.shape) < 0.1, np.nan, one) for n, one in enumerate(x)]
    for one in x:
        one[-1] = 0.5
    flags = ("--missing", "mean", "--class-weights", "balanced")
    write_long(Path("a.csv"), x, NAMES, [y, people], ["label", "group"])
    trained(invoke, "a.csv", *flags, out="first")
    own = OwnData.load(OwnSettings("a.csv", missing="mean"), 0)
    for part in ("validation", "test"):
        for n in own.parts[part].tolist():
            x[n], y[n] = np.full_like(x[n], 1e6 * n), {"x": "y", "y": "z", "z": "x"}[y[n]]
    write_long(Path("a.csv"), x, NAMES, [y, people], ["label", "group"])
    trained(invoke, "a.csv", *flags, out="second")
    assert weights("first") == weights("second")
    one, other = (lstm_np.load(Path(name) / "weights.safetensors") for name in ("first", "second"))
    for name in ("scaler", "missing"):
        assert one.notes[name] == other.notes[name]
    assert one.config["class_weights"] == other.config["class_weights"]
    x[int(own.parts["train"][0])][0, 0] += 1  # but of the training part everything
    write_long(Path("a.csv"), x, NAMES, [y, people], ["label", "group"])
    trained(invoke, "a.csv", *flags, out="third")
    assert weights("first") != weights("third")


@pytest.mark.parametrize("kind", ["class", "number", "tag", "steps"])
def test_a_second_file_is_the_test_part(invoke, kind):
    """It is measured on as `evaluate` measures on it, and nothing of it is learnt."""
    x, y = walks(kind, 40)
    write_long(Path("a.csv"), x[:30], NAMES, [y[:30]], ["quality"])
    write_long(Path("b.csv"), [one[:, ::-1] for one in x[30:]], NAMES[::-1], [y[30:]], ["quality"])
    flags = ("--target", "quality")
    outcome = trained(invoke, "a.csv", *flags, "--test-data", "b.csv")
    told = config("run")["dataset"]
    assert (told["test_sequences"], told["split"]) == (10, [0.85, 0.15, 0.0])
    assert told["train_sequences"] + told["validation_sequences"] == 30
    for more in ((), ("--data", "b.csv")):
        again = json.loads(invoke("evaluate", "run", "--json", *more).out)
        assert again["test_loss"] == pytest.approx(outcome["test_loss"])
        for name in ("accuracy", "mean_squared_error", "mean_absolute_error", "r2"):
            assert outcome.get(f"test_{name}") == pytest.approx(again.get(f"test_{name}")), name
    trained(invoke, "a.csv", *flags, "--split", 0.85, 0.15, 0, out="without")
    assert weights("run") == weights("without")
    write_long(Path("b.csv"), [9 * one for one in x[30:]], NAMES, [y[30:]], ["quality"])
    other = trained(invoke, "a.csv", *flags, "--test-data", "b.csv", out="other")
    assert weights("other") == weights("run")
    assert other["test_loss"] != outcome["test_loss"]
    result = invoke("evaluate", "run")
    line = f"evaluate: {Path('b.csv').absolute()}: not as it was when run was trained; name a file with --data\n"
    assert (result.status, result.err) == (2, line)


def test_the_two_files_of_an_archive(invoke, monkeypatch):
    """.ts and .npy, this one on disk, too; without validation the test part is looked at after each epoch."""
    x, y = walks("class", 40, unequal=False)
    found = []
    for name, part in (("train", slice(30)), ("test", slice(30, 40))):
        write_ts(Path(f"{name}.ts"), x[part], y[part])
        np.save(f"x_{name}.npy", np.stack(x[part]))
        np.save(f"y_{name}.npy", np.array(y[part]))
    for data, test in (("train.ts", "test.ts"), ("x_train.npy", "x_test.npy"), ("x_train.npy", "x_test.npy")):
        result = invoke("train", "--data", data, "--test-data", test, "--split", 1, 0, 0, "--hidden-size", 6,
                        "--epochs", 1, "--out", f"run-{len(found)}")  # fmt: skip
        assert (result.status, result.err) == (0, "")
        lines = result.out.splitlines()
        assert f"        split at random, train 30, validation 0, test 10 of {test}" in lines
        found.append(next(line for line in lines if line.startswith("test  ")))
        monkeypatch.setattr(arrays, "available_memory", lambda: 0 if len(found) > 1 else None)
    assert found[0].endswith("on all 10 test sequences")
    assert len(set(found)) == 1


def test_gate_health_needs_one_length_of_what_it_looks_at(invoke):
    """That is the second file where nothing is held out for validation."""
    x, y = walks("class", 40, unequal=False)
    write_long(Path("a.csv"), x[:30], NAMES, [y[:30]], ["label"])
    write_long(Path("b.csv"), [one[: 3 + n % 2] for n, one in enumerate(x[30:])], NAMES, [y[30:]], ["label"])
    trained(invoke, "a.csv", "--test-data", "b.csv", "--gate-health")
    result = invoke("train", "--data", "a.csv", "--test-data", "b.csv", "--split", 1, 0, 0, "--gate-health")
    assert (result.status, result.out) == (2, "")
    assert result.err == "train: gate_health compares gates step by step: it needs sequences of one length\n"
    assert not Path("runs").exists()


TEST_DATA = {
    "b.csv: line 2, column 'label': found the class 'w', expected one of x, y": "id,time,load,speed,label\na,0,1,2,w\n",
    "b.csv: no column 'speed' (feature); there are: id, time, load, label": "id,time,load,label\na,0,1,x\n",
    "b.csv: no column 'label' (target); there are: id, time, load, speed": "id,time,load,speed\na,0,1,2\n",
    "b.csv: line 2, column 'speed': the value is missing; fill them in (zero, mean, forward or linear), or leave them "
    "out": "id,time,load,speed,label\na,0,1,,x\n",
    "b.csv: no such file or folder": None,
}


@pytest.mark.parametrize("line", TEST_DATA)
def test_test_data_that_are_not_like_the_data(invoke, line):
    Path("a.csv").write_text(GOOD, encoding="utf-8")
    if TEST_DATA[line] is not None:
        Path("b.csv").write_text(TEST_DATA[line], encoding="utf-8")
    result = invoke("train", "--data", "a.csv", "--test-data", "b.csv")
    assert (result.status, result.err, result.out) == (2, f"train: {line}\n", "")
    assert not Path("runs").exists()


def test_a_file_with_a_test_part_of_its_own_and_test_data(invoke):
    x, y = walks(unequal=False)
    np.savez("a.npz", x_train=np.stack(x[:20]), y_train=y[:20], x_test=np.stack(x[20:]), y_test=y[20:])
    np.savez("b.npz", x=np.stack(x), y=y)
    result = invoke("train", "--data", "a.npz", "--test-data", "b.npz")
    line = "train: a.npz: has a test part of its own; leave out --test-data b.npz\n"
    assert (result.status, result.err) == (2, line)


def test_a_run_with_test_data_goes_on(invoke):
    x, y = walks("class", 40)
    write_long(Path("a.csv"), x[:30], NAMES, [y[:30]], ["label"])
    write_long(Path("b.csv"), x[30:], NAMES, [y[30:]], ["label"])
    whole = trained(invoke, "a.csv", "--test-data", "b.csv", out="whole")
    trained(invoke, "a.csv", "--test-data", "b.csv", "--max-steps", 1)
    Path("b.csv").rename("c.csv")
    again = ("train", "--resume", "run", "--max-steps", "none", "--quiet", "--json")
    result = invoke(*again)
    assert (result.status, result.err) == (2, f"train: {Path('b.csv').absolute()}: no such file or folder\n")
    write_long(Path("b.csv"), x[31:], NAMES, [y[31:]], ["label"])
    result = invoke(*again)
    assert result.err == (f"train: run: is tested on other data than {Path('b.csv').absolute()} now holds; --test-data "
                          "names the file where it has moved\n")  # fmt: skip
    result = invoke(*again, "--test-data", "c.csv")
    assert (result.status, result.err) == (0, "")
    assert json.loads(result.out)["test_loss"] == whole["test_loss"]
    assert weights("run") == weights("whole")
    trained(invoke, "a.csv", "--max-steps", 1, out="without")
    result = invoke("train", "--resume", "without", "--test-data", "c.csv")
    line = "train: --test-data: this run is tested on a part of its --data; leave it out\n"
    assert (result.status, result.err) == (2, line)


def test_a_stopped_run_goes_on_with_the_same_bits_and_the_same_file(invoke):
    x, y = walks("number")
    write_long(Path("a.csv"), x, NAMES, [y], ["label"])
    flags = ("--epochs", 3, "--batch-size", 4, "--patience", 9, "--dropout", 0.2, "--layers", 2)
    for out, more in (("whole", ()), ("cut", ("--max-steps", 7))):
        assert invoke("train", "--data", "a.csv", "--out", out, *SMALL, *flags, *more).status == 0
    assert invoke("train", "--resume", "cut", "--max-steps", 18, "--quiet").status == 0
    assert weights("cut") == weights("whole")
    assert len(Checkpoints(Path("cut/checkpoints")).files())
    x[3][0, 0] += 1
    Path("a.csv").rename("b.csv")
    write_long(Path("a.csv"), x, NAMES, [y], ["label"])
    result = invoke("train", "--resume", "cut", "--epochs", 4, "--max-steps", 20)
    line = f"train: cut: has learnt from other data than {Path('a.csv').absolute()} now holds; --data names the file " \
           "where it has moved\n"  # fmt: skip
    assert (result.status, result.err) == (2, line)
    assert (
        invoke("train", "--resume", "cut", "--data", "b.csv", "--epochs", 4, "--max-steps", 20, "--quiet").status == 0
    )
    result = invoke("train", "--resume", "cut", "--missing", "mean")
    assert (result.status, result.err) == (
        2, "train: --missing: the run would have learnt something else with it; leave it out, or train a new run\n",
    )  # fmt: skip
    assert invoke("evaluate", "cut").status == 0
    Path("a.csv").rename("b.csv")
    result = invoke("evaluate", "cut")
    assert result.status == 2
    assert result.err.endswith("b.csv: not as it was when cut was trained; name a file with --data\n")


def test_a_run_of_numbers_says_what_it_is(invoke):
    x, y = walks("number")
    write_long(Path("a.csv"), x, NAMES, [y], ["label"])
    trained(invoke, "a.csv", "--regression-loss", "huber", "--limit-train", 8)
    told = config("run")
    assert sorted(told["data"]) == ["limit_train", "order"]
    assert told["data"]["limit_train"] == 8
    assert told["model"]["loss"] == "huber"
    assert "label_smoothing" not in told["model"]
    result = invoke("evaluate", "run", "--picture", "a.png")
    assert (result.status, result.out) == (2, "")
    assert result.err == (
        "evaluate: --picture draws the confusion matrix of classes, run/weights.safetensors predicts numbers; leave it "
        "out\n"
    )


def test_a_limit_draws_from_all_classes(invoke):
    """The file has the classes one after the other."""
    x, y = walks()
    order = sorted(range(30), key=lambda n: y[n])
    write_long(Path("a.csv"), [x[n] for n in order], NAMES, [[y[n] for n in order]], ["label"])
    own = OwnData.load(OwnSettings("a.csv"), 0)
    found = []
    for seed in (0, 1):
        recipe = own_recipe().changed({"data": {"limit_train": 6, "order": "sequential"}, "train": {"seed": seed}})
        batches = own.material(recipe).train
        assert batches.samples == 6
        labels = np.concatenate([batch[1] for batch in batches.epoch(0)])
        assert np.bincount(labels).tolist() == [2, 2, 2]
        found.append(np.concatenate([np.ravel(batch[0]) for batch in batches.epoch(0)]).tobytes())
    assert found[0] != found[1]


def test_an_array_on_disk_with_unequal_lengths_and_numbers_of_each_step(invoke, monkeypatch):
    x, y = walks("steps")
    padded, targets = np.full((30, 6, 2), np.nan), np.zeros((30, 6))
    for n, sequence in enumerate(x):
        padded[n, : len(sequence)], targets[n, : len(sequence)] = sequence, y[n]
    np.save("x.npy", padded)
    np.save("y.npy", targets)
    first = trained(invoke, "x.npy", out="first")
    monkeypatch.setattr(arrays, "available_memory", lambda: 0)
    second = trained(invoke, "x.npy", out="second")
    assert second["test_mean_absolute_error"] == pytest.approx(first["test_mean_absolute_error"], rel=1e-4)


def test_predictions_are_not_written_over_what_they_are_made_from(invoke):
    Path("a.csv").write_text(GOOD, encoding="utf-8")
    trained(invoke, "a.csv")
    Path("link.csv").symlink_to("a.csv")
    weights_before = weights("run")
    for out in ("a.csv", "./a.csv", "link.csv"):
        result = invoke("predict", "run", "a.csv", "--out", out)
        line = f"predict: --out {out}: is a.csv, which is read here; name another file with --out\n"
        assert (result.status, result.err) == (2, line)
    assert invoke("predict", "run", "a.csv", "--out", "run/weights.safetensors").status == 2
    assert (Path("a.csv").read_text(encoding="utf-8"), weights("run")) == (GOOD, weights_before)
    for out, why in (("none/p.csv", "No such file or directory"), ("run", "Is a directory")):
        result = invoke("predict", "run", "not-there.csv", "--out", out)  # before anything is read
        line = f"predict: {out}: cannot be written ({why}); name another file with --out\n"
        assert (result.status, result.err) == (2, line)


def test_resume_with_the_same_labels_written_otherwise(invoke):
    x, y = walks(unequal=False)
    np.save("a.npy", np.stack(x))
    np.save("labels.npy", np.array(y))
    trained(invoke, "a.npy", "--labels", "labels.npy", "--max-steps", 1)
    again = ("train", "--resume", "run", "--max-steps", 2, "--quiet", "--labels")
    assert invoke(*again, "labels.npy").status == 0
    np.save("others.npy", np.array(y))
    assert invoke(*again, "others.npy").status == 2


def test_targets_that_do_not_fit(invoke):
    x, _ = walks(unequal=False)
    for name, y in (("one", np.zeros(30, int)), ("number", np.arange(30) / 8), ("numbers", np.ones((30, 2)) / 8)):
        np.savez(f"{name}.npz", x=np.stack(x), y=y)
    result = invoke("train", "--data", "one.npz")
    line = "train: one.npz: found the class 0 alone, expected at least 2; --task says otherwise\n"
    assert (result.status, result.err) == (2, line)
    trained(invoke, "number.npz")
    result = invoke("evaluate", "run", "--data", "numbers.npz")
    assert (result.status, result.err) == (2, "evaluate: numbers.npz: found the targets y0, y1; the model predicts y\n")


def test_steps_of_several_batches(invoke):
    """Two batches of three, in float64, are one of six."""
    x, y = walks("steps")
    write_long(Path("a.csv"), x, NAMES, [y], ["quality"])
    flags = ("--target", "quality", "--dtype", "float64", "--kernel", "reference", "--clip-norm", 0.5)
    one = trained(invoke, "a.csv", *flags, "--batch-size", 6, out="one")
    two = trained(invoke, "a.csv", *flags, "--batch-size", 3, "--accumulate", 2, out="two")
    assert two["steps"] == one["steps"] == 8
    assert two["test_loss"] == pytest.approx(one["test_loss"], rel=1e-9)


def test_everything_may_be_for_training(invoke):
    x, y = walks()
    write_long(Path("a.csv"), x, NAMES, [y], ["label"])
    outcome = trained(invoke, "a.csv", "--split", 1, 0, 0)
    assert (outcome["test_accuracy"], outcome["validation_loss"], outcome["best_by"]) == (None, None, "training loss")
    result = invoke("evaluate", "run")
    assert result.err.endswith("nothing of it was held out for testing; name a file with --data\n")
    assert invoke("evaluate", "run", "--data", "a.csv").status == 0


def test_balanced_weights_and_the_split_of_a_file():
    y = np.array([0] * 12 + [1] * 3 + [2] * 5)
    x = np.zeros((20, 2, 1))
    data = lstm_np.data.read_sequences(x, targets=y)
    own = OwnData(OwnSettings("x"), data, {"train": np.arange(15)}, None, "")
    assert own.class_weights() == [15 / (3 * 12), 15 / (3 * 3), 0.0]
    given = replace(data, parts={"train": np.arange(16), "test": np.arange(16, 20)})
    parts = split_of(given, OwnSettings("x", split=(0.5, 0.25, 0.25)), 0)
    assert parts["test"].tolist() == [16, 17, 18, 19]
    assert len(parts["validation"]) == 4
    assert sorted([*parts["train"], *parts["validation"]]) == list(range(16))


GOOD = "id,time,load,speed,label\n" + "".join(
    f"s{n},{t},{n}.5,{t},{'xy'[n % 2]}\n" for n in range(12) for t in range(3)
)
MISUSE = {
    "train: --split 0.7 0.15 0.15 has a share for testing, which --test-data is for; make that share 0": (
        "--test-data", "b.csv", "--split", 0.7, 0.15, 0.15),
    "train: --test-data ./a.csv: is what --data learns from; name another file": ("--test-data", "./a.csv"),
    "train: --view is for images, --data for sequences of your own: leave out one": ("--view", "rows"),
    "train: --validation is for images, --data for sequences of your own: leave out one; the share that is held out is "
    "said by --split": ("--validation", 5),
    "train: --offline is for images, --data for sequences of your own: leave out one": ("--offline",),
    "train: a.csv: no column 'size' (target); there are: id, time, load, speed, label": ("--target", "size"),
    "train: a.csv: line 2, column 'label': found 'x', expected a number; name the columns that are features, where "
    "this one is none": ("--target", "load", "--task", "regress"),
    "train: a split must be three shares, train above 0, validation and test, that add up to 1; found 0.5 0.5 0.5": (
        "--split", 0.5, 0.5, 0.5),
    "train: a.csv: no column of groups to split by; name one (group)": ("--split-by", "group"),
    "train: a.csv: tag is for targets of each step, those of this file are of whole sequences": (
        "--task", "tag", "--no-per-step"),
    "train: the recipe best moves images, which sequences are not; take another": ("--recipe", "best"),
    "train: a.csv: no sequence has the 9 steps of a window; the longest has 3": ("--window", 9),
    "train: a.csv: labels says nothing about a table; leave it out": ("--labels", "y.npy"),
    "train: --label-smoothing 0.1 is for classes, the targets are numbers": (
        "--target", "load", "--features", "speed", "--label-smoothing", 0.1),
    "train: --loss softmax_twice is for classes, the targets are numbers; --regression-loss is that of numbers": (
        "--target", "load", "--features", "speed", "--loss", "softmax_twice"),
    "train: --class-weights balanced is for classes, the targets of a.csv are numbers; leave it out": (
        "--target", "load", "--features", "speed", "--class-weights", "balanced"),
    "train: --regression-loss huber is for numbers, the targets of a.csv are classes; leave it out": (
        "--regression-loss", "huber"),
    "train: a.csv: windows of 2 steps, one each 1, overlap: split at random, parts would have the same steps; split "
    "them by time or group": ("--window", 2, "--stride", 1, "--split-by", "random"),
}  # fmt: skip


@pytest.mark.parametrize("line", MISUSE)
def test_misuse(invoke, line):
    Path("a.csv").write_text(GOOD, encoding="utf-8")
    result = invoke("train", "--data", "a.csv", *MISUSE[line])
    assert (result.status, result.err, result.out) == (2, line + "\n", "")
    assert not Path("runs").exists()


def test_misuse_of_a_model(invoke):
    Path("a.csv").write_text(GOOD, encoding="utf-8")
    trained(invoke, "a.csv")
    Path("b.csv").write_text("id,load\na,1\na,2\n", encoding="utf-8")
    Path("c.csv").write_text("id,time,load,speed\na,0,1,\n", encoding="utf-8")
    Path("d.csv").write_text(GOOD.replace("s3,0,3.5,0,y", "s3,0,3.5,0,z"), encoding="utf-8")
    where, name_it = "run/weights.safetensors", "name a file of them, predict RUN FILE"
    for command, line in {
        ("train", "--split", 1, 0, 0): "train: --split is for sequences of your own; name their file: --data FILE",
        ("train", "--test-data", "a.csv"): "train: --test-data is for sequences of your own; name their file: --data "
        "FILE",
        ("train", "--id", "id"): "train: --id is for sequences of your own; name their file: --data FILE",
        ("predict", "run"): "predict: one of FILE, --index and --image is required (--help lists the flags)",
        ("predict", "run", "--index", 1): f"predict: {where} has learnt from sequences of your own: {name_it}",
        ("predict", "run", "a.csv", "--index", 1): "predict: --index is for models of images; leave it out",
        ("predict", "run", "a.csv", "--json"): "predict: predictions for a file are CSV; leave out --json",
        ("predict", "run", "b.csv"): "predict: b.csv: no column 'time' (time); there are: id, load",
        ("predict", "run", "none.csv"): "predict: none.csv: no such file or folder",
        (
            "predict",
            "run",
            "c.csv",
        ): "predict: c.csv: line 2, column 'speed': the value is missing; fill them in (zero, "
        "mean, forward or linear), or leave them out",
        ("evaluate", "run", "--hold", "f=1"): f"evaluate: --hold is for models of images, {where} has learnt from "
        "sequences of your own",
        (
            "evaluate",
            "run",
            "--data",
            "c.csv",
        ): "evaluate: c.csv: no column 'label' (target); there are: id, time, load, speed",
    }.items():
        result = invoke(*command)
        assert (result.status, result.err) == (2, line + "\n"), command
    result = invoke("evaluate", "run", "--data", "d.csv", "--json")
    assert (result.status, result.err) == (2, "evaluate: d.csv: line 12, column 'label': the target changes within a "
                                              "sequence, expected one for the sequence\n")  # fmt: skip
    lstm_np.SequenceClassifier(8, 4, 10).save("digits.safetensors")
    result = invoke("predict", "digits.safetensors", "a.csv")
    assert result.err == (
        "predict: a.csv is for models of sequences of your own, digits.safetensors has learnt from images\n"
    )
