"""train --resume: the command line of it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

import lstm_np
from lstm_np.training import recipes
from tests.training.stopped import begin, kept, small

RUN = ("--dataset", "digits", "--recipe", "mnist-lstm128", "--limit-train", 60, "--validation", 40, "--hidden-size", 4,
       "--epochs", 3, "--batch-size", 16, "--threads", 1)  # fmt: skip


@pytest.fixture
def whole(invoke):
    assert invoke("train", *RUN, "--out", "whole").status == 0
    return kept(Path("whole"))


def test_a_run_goes_on_by_name_and_without(invoke, whole):
    for flags in (("--resume", "runs/r"), ("--resume",)):
        begin(small(), Path("runs/r"), step=7)
        result = invoke("train", *flags)
        assert (result.status, result.err) == (0, "")
        assert "run     runs/r, from step 7 on" in result.out.splitlines()
        assert kept(Path("runs/r")) == whole
        shutil.rmtree("runs/r")


def test_the_same_flags_may_be_given_again_and_longer(invoke):
    begin(small(), Path("run"), step=7)
    assert invoke("train", *RUN, "--out", "run", "--resume", "run", "--epochs", 5).status == 0
    assert invoke("train", *RUN, "--epochs", 5, "--out", "whole").status == 0
    assert kept(Path("run")) == kept(Path("whole"))


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--hidden-size", 8), "--hidden-size 8: this run has 4, and would have learnt something else with it; leave "
                               "it out, or train a new run"),
        (("--recipe", "digits-lstm128"), "--recipe digits-lstm128: this run is of the recipe mnist-lstm128"),
        (("--out", "other"), "--out other: the run goes on in its own folder, run; leave it out"),
        (("--epochs", 1), "--epochs 1: the run has made 2 already"),
        (("--keep-checkpoints", 0), "--keep-checkpoints must be at least 1, found 0"),
        (("--checkpoint-every", "x"), "argument --checkpoint-every: must be a number of steps such as 200, or a time "
                                      "such as 30s or 5m, found 'x' (--help lists the flags)"),
    ],
)  # fmt: skip
def test_flags_that_do_not_go_with_it(invoke, flags, line):
    begin(small(), Path("run"), step=10)
    assert invoke("train", "--resume", "run", *flags) == (2, "", f"train: {line}\n")


def test_nothing_to_resume(invoke):
    line = "train: no run with checkpoints under runs/; name the folder of one: --resume RUN\n"
    assert invoke("train", "--resume") == (2, "", line)
    assert invoke("train", "--resume", "none") == (2, "", "train: none: no such run folder\n")


def test_a_damaged_checkpoint_is_a_line(invoke, whole):
    begin(small(), Path("run"), every="3", step=7)
    newest = Path("run/checkpoints/step-000000007.safetensors")
    content = bytearray(newest.read_bytes())
    content[-9] ^= 1
    newest.write_bytes(content)
    result = invoke("train", "--resume", "run")
    (line,) = result.err.splitlines()
    assert line.startswith(f"train: {newest}: damaged or changed since it was written, its SHA-256 is another; ")
    assert line.endswith("; the checkpoint before it is taken")
    assert kept(Path("run")) == whole


def test_threads_and_kernel_are_those_of_the_run(invoke):
    assert invoke("train", *RUN, "--out", "run", "--kernel", "lean", "--max-steps", 6).status == 0
    assert invoke("train", "--resume", "run", "--max-steps", "none").err == ""
    machine = json.loads(Path("run/config.json").read_text())["machine"]
    assert (machine["kernels"], machine["cores"]) == (["lean"], 1)
    result = invoke("train", "--resume", "run", "--kernel", "reference", "--epochs", 4)
    assert result.err == "train: not bit-identical to an unbroken run: kernels reference instead of lean\n"


def test_a_cell_of_ones_own_is_named_again(invoke, tmp_path, monkeypatch):
    source = Path(lstm_np.__file__).parent / "cells" / "lstm.py"
    Path("mine.py").write_text(source.read_text())
    assert invoke("train", *RUN, "--cell", "mine.py", "--max-steps", 5, "--out", "run").status == 0
    lstm_np.cells.CELLS.pop("mine")
    lstm_np.cells.FILES.pop("mine")
    result = invoke("train", "--resume", "run")
    assert (result.status, result.err) == (
        2,
        "train: run: its cell 'mine' is one of your own; name the file: --cell mine.py\n",
    )
    command = "train --resume run --cell mine.py --max-steps none"
    assert invoke(*shlex.split(command)).status == 0
    Path("mine.py").write_text(source.read_text() + "\n# another\n")
    result = invoke(*shlex.split(command))
    assert (result.status, result.err) == (
        2,
        "train: --cell mine.py: not the cell that this run was trained with, run/mine.py; go on with that one\n",
    )
    lstm_np.cells.CELLS.pop("mine")
    lstm_np.cells.FILES.pop("mine")


def test_the_digits_that_took_mnists_place_stay(invoke, mnist):
    """A run that fell back on the digits goes on with them, also where MNIST can be had by then."""
    flags = ("--recipe", "mnist-lstm128", "--hidden-size", 4, "--offline", "--limit-train", 60, "--threads", 1)
    assert invoke("train", *flags, "--max-steps", 2, "--out", "run").status == 0
    assert invoke("train", "--resume", "run", "--data-dir", mnist, "--max-steps", 3).status == 0
    assert json.loads(Path("run/config.json").read_text())["dataset"]["name"] == "digits"


def test_the_folder_with_the_data_is_remembered(invoke, mnist, monkeypatch):
    flags = ("--hidden-size", 4, "--batch-size", 16, "--epochs", 2, "--threads", 1)
    monkeypatch.setenv("LSTM_NP_DATA", str(mnist))
    assert invoke("train", *flags, "--max-steps", 2, "--out", "run").status == 0
    monkeypatch.delenv("LSTM_NP_DATA")
    result = invoke("train", "--resume", "run", "--max-steps", "none")
    assert result.status == 0
    assert json.loads(Path("run/config.json").read_text())["dataset"]["name"] == "custom"


def test_help_says_it(invoke):
    text = " ".join(invoke("train", "--help").out.split())
    assert "--resume [RUN]" in text
    assert "[each epoch and each minute, at most one in 10 s]" in text
    assert recipes.DEFAULT in text
