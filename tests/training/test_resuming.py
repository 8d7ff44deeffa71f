"""A run that was stopped anywhere goes on to the same end, bit for bit; what would change its bits is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lstm_np
from lstm_np.checkpoints import CheckpointError, Checkpoints, read_checkpoint
from lstm_np.data import DatasetError, load
from lstm_np.loop import Position
from lstm_np.training import curves, run_folder
from lstm_np.training.recipes import Recipe
from lstm_np.training.resuming import command, differences, stopped_run
from lstm_np.training.run_folder import RunFolderError
from tests.training.stopped import begin, go_on, kept, once_loaded, small


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(curves, "draw_curves", lambda *_: b"")
    monkeypatch.setattr(load, "load_digits", once_loaded)


RICH = small(
    data={"shift": 1, "rotate": 5.0, "zoom": 0.1},
    model={"num_layers": 2, "dropout": 0.3, "cell": "gru", "bias": "double"},
    train={"schedule": "cosine", "warmup_steps": 3, "clip_norm": 0.5, "batch_size": 8, "accumulate": 2},
)
KINDS = {"plain": small(), "rich": RICH, "test images": small(data={"validation": 0, "limit_train": 60})}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_run_that_is_stopped_anywhere_ends_like_the_unbroken_one(kind):
    recipe = KINDS[kind]  # 4 steps in each of 3 epochs
    begin(recipe, Path("whole"))
    expected = kept(Path("whole"))
    assert expected["position"] == Position(3, 0, 12)
    assert len(expected["metrics.csv"]) == 3
    for stop in ({"step": 1}, {"step": 4}, {"step": 6}, {"step": 8}, {"step": 11}, {"measuring": 1}, {"measuring": 3}):
        out = Path(f"stopped {stop}")
        outcome = begin(recipe, out, **stop)
        assert outcome.interrupted == 15
        outcome, notes = go_on(out)
        assert notes == []
        assert outcome.interrupted is None
        assert kept(out) == expected, stop


def test_a_run_can_be_stopped_many_times():
    begin(RICH, Path("whole"))
    begin(RICH, Path("run"), step=1)
    for step in range(2, 12):
        outcome, _ = go_on(Path("run"), step=step)
        assert outcome.steps == step
    go_on(Path("run"))
    assert kept(Path("run")) == kept(Path("whole"))
    resumed = json.loads(Path("run/config.json").read_text())["resumed"]
    assert [entry["step"] for entry in resumed] == list(range(1, 12))


@pytest.mark.parametrize("step", [0, 1, 3, 4, 5, 9, 12])
def test_a_run_that_was_killed_goes_on_from_any_checkpoint(step):
    """The folder as a kill leaves it: what came after the checkpoint is in the other files already."""
    begin(RICH, Path("run"), every="1", keep=100)
    expected = kept(Path("run"))
    for path in Checkpoints("run/checkpoints").files():
        if int(path.name[5:14]) > step:
            path.unlink()
    with open("run/metrics.csv", "a") as file:
        file.write("4,16,0.")
    go_on(Path("run"))
    assert kept(Path("run")) == expected


def test_longer_is_as_if_it_had_been_meant_to_be():
    begin(small(train={"epochs": 5}), Path("whole"))
    begin(small(), Path("run"))
    outcome, _ = go_on(Path("run"), changes={"train": {"epochs": 5}})
    assert len(outcome.epochs) == 5
    assert kept(Path("run")) == kept(Path("whole"))
    assert json.loads(Path("run/config.json").read_text())["train"]["epochs"] == 5
    begin(small(train={"max_steps": 6}), Path("short"))
    go_on(Path("short"), changes={"train": {"epochs": 5, "max_steps": None}})
    assert kept(Path("short")) == kept(Path("whole"))


def test_what_is_finished_is_only_tested_again():
    outcome = begin(small(), Path("run"))
    expected = kept(Path("run"))
    last = read_checkpoint(Checkpoints(Path("run/checkpoints")).files()[-1])
    again, _ = go_on(Path("run"))
    assert (again.epochs, again.test, again.best) == (outcome.epochs, outcome.test, outcome.best)
    assert again.seconds > last.run["seconds"]  # the time of the run goes on
    assert kept(Path("run")) == expected


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": {"hidden_size": 8}}, "hidden_size 8: this run has 4, and would have learnt something else with it;"),
        ({"train": {"seed": 3}}, "seed 3: this run has 0, "),
        ({"train": {"clip_norm": None}}, "clip_norm none: this run has 0.5, "),
        ({"optimizer": {"learning_rate": 0.1}}, "learning_rate 0.1: this run has 0.001, "),
        (
            {"train": {"epochs": 4}},
            "epochs: the learning rate of this run's schedule, cosine, depends on the number of ",
        ),
        ({"train": {"epochs": 4, "max_steps": 13}}, "epochs and max_steps: the learning rate of this run's schedule"),
    ],
)
def test_what_would_change_the_bits_is_refused_by_name(changes, line):
    begin(RICH, Path("run"), step=5)
    before = {path: path.read_bytes() for path in Path("run").rglob("*.*")}
    with pytest.raises(CheckpointError) as error:
        go_on(Path("run"), changes=changes)
    assert str(error.value).startswith(line)
    assert {path: path.read_bytes() for path in Path("run").rglob("*.*")} == before
    go_on(Path("run"), changes={"train": {"print_every": 1, "seed": 0}})  # the same, or of no consequence


def test_fewer_epochs_than_were_made_are_refused():
    begin(small(), Path("run"), step=10)
    with pytest.raises(CheckpointError, match=r"^epochs 1: the run has made 2 already$"):
        go_on(Path("run"), changes={"train": {"epochs": 1}})
    with pytest.raises(CheckpointError, match=r"^max_steps 9: the run has made 10 already$"):
        go_on(Path("run"), changes={"train": {"max_steps": 9}})


def test_other_data_are_refused(monkeypatch):
    begin(small(), Path("run"), step=5)
    module = __import__("importlib").import_module("lstm_np.training.run")
    load = module.load_dataset

    def other(*given, **more):
        dataset = load(*given, **more)
        labels = dataset.train_labels.copy()
        labels[0] = (labels[0] + 1) % 10
        return replace(dataset, train_labels=labels)

    monkeypatch.setattr(module, "load_dataset", other)
    with pytest.raises(DatasetError, match=r"^run: has learnt from other data than .*; --data-dir names a folder$"):
        go_on(Path("run"))


def test_another_number_of_cores_is_said():
    recipe = small(model={"hidden_size": 64}, data={"limit_train": 600}, train={"batch_size": 200, "epochs": 2})
    begin(recipe, Path("run"), step=2, threads=1)
    outcome, notes = go_on(Path("run"), threads=2)
    assert outcome.steps == 6
    assert any(line.startswith("train: not bit-identical to an unbroken run: cores 2 instead of 1") for line in notes)
    config = json.loads(Path("run/config.json").read_text())
    assert "cores 2 instead of 1" in config["resumed"][0]["not_bit_identical"]


def environment(**changes):
    whole = {
        "python": "3.11.9", "platform": "Linux", "processor": "A", "commit": "abc", "changed": False,
        "packages": {"numpy": "2.2.0", "lstm_np": "0.1.0"},
        "libraries": [{"user_api": "blas", "internal_api": "openblas", "version": "0.3", "architecture": "SkylakeX"}],
    }  # fmt: skip
    return {"machine": {"backend": "numpy", "kernels": ["fused"], "cores": 2}, "environment": {**whole, **changes}}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"processor": "B"}, "processor B instead of A"),
        ({"packages": {"numpy": "2.3.0", "lstm_np": "0.1.0"}}, "numpy 2.3.0 instead of 2.2.0"),
        ({"commit": "def", "changed": True}, "commit def with changes instead of commit abc"),
        ({"commit": None}, "an installed lstm_np instead of commit abc"),
        ({"libraries": []}, "no known BLAS instead of openblas 0.3 SkylakeX"),
    ],
)
def test_a_difference_is_explained(changes, line):
    assert differences(environment(), environment()) == []
    assert differences(environment(), environment(**changes)) == [line]
    other = environment()
    other["machine"]["kernels"] = ["reference"]
    assert differences(environment(), other) == ["kernels reference instead of fused"]


def test_only_one_process_at_a_time():
    begin(small(), Path("run"), step=5)
    with stopped_run(Path("run"), pytest.fail), pytest.raises(CheckpointError, match="another process is training"):
        go_on(Path("run"))


def test_the_newest_run_is_taken():
    with pytest.raises(
        RunFolderError, match=r"^no run with checkpoints under runs/; name the folder of one: --resume RUN$"
    ):
        run_folder.resumable(None)
    for name in ("b", "a", "c"):
        begin(small(), Path("runs", name), step=1)
    shutil.rmtree("runs/c/checkpoints")
    assert run_folder.resumable(None).path == Path("runs/a")
    for name, reason in (("none", "no such run folder"), ("runs/c", "no checkpoints in this folder")):
        with pytest.raises(RunFolderError, match=f"^{name}: {reason}"):
            run_folder.resumable(name)


def test_a_folder_in_which_nothing_was_begun_is_free():
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/checkpoints/lock").touch()
    with pytest.raises(CheckpointError, match="no checkpoint here; nothing was learnt yet, so begin anew"):
        go_on(Path("run"))
    begin(small(), Path("run"))
    with pytest.raises(
        RunFolderError, match=r"holds a run already \(config.json\); .*, or go on with that run: --resume$"
    ):
        begin(small(), Path("run"))


def test_checkpoints_of_fit_are_no_run():
    model = lstm_np.SequenceClassifier(3, 4, 2)
    rng = np.random.default_rng(0)
    model.fit(rng.standard_normal((20, 4, 3)), rng.integers(0, 2, 20), checkpoints="run/checkpoints")
    with pytest.raises(CheckpointError, match=r"^run: its checkpoints are not those of a run of train \(KeyError"):
        go_on(Path("run"))


def test_the_model_of_a_run_can_be_had_from_python():
    begin(small(), Path("run"), step=5)
    model = lstm_np.SequenceClassifier.resume("run/checkpoints")
    assert (model.position, model.notes["view"]) == (Position(1, 1, 5), "rows")
    with pytest.raises(CheckpointError, match=r"checkpoints of python -m lstm_np\.train, .*: --resume RUN$"):
        model.fit(np.zeros((4, 8, 8)), np.zeros(4, int))


def test_a_recipe_is_its_state():
    for recipe in (RICH, small(optimizer={"name": "rmsprop", "alpha": 0.8}), lstm_np.training.load_recipe()):
        assert Recipe.from_state(json.loads(json.dumps(recipe.state()))) == recipe


def test_the_command_can_be_pasted():
    assert command(Path("a run's"), "lstm") == """python -m lstm_np.train --resume 'a run'"'"'s'"""
    assert command(Path("-x"), "lstm") == "python -m lstm_np.train --resume ./-x"
