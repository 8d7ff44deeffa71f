"""The main job: what it prints, what it writes, and that flags, recipes and files mean what they say."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import lstm_np
from lstm_np.training import recipes

QUICK = ("--recipe", "mnist-lstm128", "--dataset", "digits", "--hidden-size", 16, "--epochs", 2, "--batch-size", 64)


def test_lines_of_a_run(invoke, tmp_path):
    result = invoke("train", *QUICK)
    assert result.status == 0
    assert result.err == ""
    lines = result.out.splitlines()
    assert lines[0] == "mnist-lstm128: an LSTM reads digits row by row"
    assert lines[1] == "changed dataset digits, hidden_size 16, epochs 2, batch_size 64"
    assert lines[2] == "data    1,297 images of 8x8, read as 8 steps of 8"
    assert lines[4] == "model   1 x lstm(16)"
    assert lines[5].startswith("        1,770 parameters, float32, numpy backend, ")
    assert "train   2 epochs of 21 steps" in lines
    assert "run     runs/mnist-lstm128-001" in lines
    rows = [line.split() for line in lines if re.match(r" +\d/2 ", line)]
    assert [row[0] for row in rows] == ["1/2", "2/2"]
    assert all(len(row) == 8 for row in rows)  # epoch, two losses, two accuracies, images/s, time, unit
    test = next(line for line in lines if line.startswith("test "))
    model = lstm_np.SequenceClassifier.load("runs/mnist-lstm128-001/weights.safetensors")
    digits = lstm_np.data.load_digits()
    metrics = model.evaluate(digits.test_images * np.float32(digits.scale), digits.test_labels)
    assert test == f"test    accuracy {metrics.accuracy:.2%}, loss {metrics.loss:.4f} on all 500 test images"
    assert lines[-2] == "next    python -m lstm_np.evaluate runs/mnist-lstm128-001"
    assert max(map(len, lines)) < 80
    assert "\x1b" not in result.out


def test_json_is_the_only_line_on_stdout(invoke):
    result = invoke("train", *QUICK, "--json")
    assert result.status == 0
    (line,) = result.out.splitlines()
    summary = json.loads(line)
    assert set(summary) >= {"test_accuracy", "test_loss", "test_images", "epochs", "steps", "seconds", "run_dir"}
    assert summary["test_images"] == 500
    assert summary["epochs"] == 2
    assert summary["steps"] == 42
    assert summary["dataset"] == "digits"
    assert summary["interrupted"] is None
    assert 0 < summary["test_accuracy"] <= 1
    assert "images of 8x8" in result.err


def test_quiet_prints_nothing(invoke, tmp_path):
    result = invoke("train", *QUICK, "--quiet")
    assert result == (0, "", "")
    assert (tmp_path / "runs/mnist-lstm128-001/weights.safetensors").exists()


def test_the_run_folder(invoke, tmp_path, curves):
    assert invoke("train", *QUICK, "--validation", 100, "--seed", 7, "--out", "here/run").status == 0
    folder = tmp_path / "here/run"
    files = {path.name for path in folder.iterdir()}
    assert files == {
        "config.json", "metrics.csv", "metrics.jsonl", "weights.safetensors", "best.safetensors", "initial.safetensors",
        "curves.png", "checkpoints",
    }  # fmt: skip
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"lock", "step-000000000.safetensors", "step-000000038.safetensors"}
    config = json.loads((folder / "config.json").read_text())
    assert config["train"]["seed"] == 7
    assert config["model"]["hidden_size"] == 16
    adam = {"lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-8, "form": "paper", "weight_decay": 0.0}
    assert config["optimizer"] == {"name": "adam", **adam}
    assert config["dataset"]["train_images"] == 1197
    assert config["dataset"]["validation_images"] == 100
    assert len(config["dataset"]["sha256"]) == 64
    assert config["dataset"]["verified"] is False
    assert config["environment"]["packages"]["numpy"] == np.__version__
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["steps"] for row in rows] == ["19", "38"]
    assert all(row["test_loss"] == "" and float(row["validation_loss"]) > 0 for row in rows)
    assert [record["train_loss"] for record in records] == [float(row["train_loss"]) for row in rows]
    assert records[0]["test_loss"] is None
    assert np.mean(records[0]["train_losses"]) == pytest.approx(records[0]["train_loss"], rel=0.02)
    assert np.mean(records[0]["train_accuracies"]) == pytest.approx(records[0]["train_accuracy"], abs=0.01)
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_weights_are_those_of_the_end_and_best_those_of_the_best_epoch(invoke, tmp_path):
    # a learning rate that only Adam's first steps survive; by chance, which the BLAS decides, the last epoch is best
    flags = ("--dataset", "digits", "--hidden-size", 16, "--batch-size", 16, "--validation", 200)
    for seed in range(6):
        run = f"run{seed}"
        result = invoke("train", *flags, "--epochs", 6, "--learning-rate", 0.08, "--json", "--seed", seed, "--out", run)
        summary = json.loads(result.out)
        with open(f"{run}/metrics.csv") as file:
            accuracies = [float(row["validation_accuracy"]) for row in csv.DictReader(file)]
        assert summary["best_by"] == "validation accuracy"
        assert summary["best_epoch"] == int(np.argmax(accuracies)) + 1
        if summary["best_epoch"] < 6:
            break
    else:
        pytest.fail("the last epoch was the best of every run, so none shows what is kept")
    digits = lstm_np.data.load_digits()
    split = digits.split(200)
    for name, epoch in (("weights", 6), ("best", summary["best_epoch"])):
        model = lstm_np.SequenceClassifier.load(f"{run}/{name}.safetensors")
        metrics = model.evaluate(split.validation_images * np.float32(digits.scale), split.validation_labels)
        assert metrics.accuracy == pytest.approx(accuracies[epoch - 1])
        assert model.notes["epoch"] == epoch


def test_without_validation_the_best_is_by_training_loss(invoke):
    result = invoke("train", *QUICK)
    assert "        best.safetensors: epoch 2, lowest training loss" in result.out.splitlines()


def weights(folder):
    return lstm_np.SequenceClassifier.load(f"{folder}/weights.safetensors").params.flat


def test_the_same_run_twice_gives_the_same_weights_in_folders_of_their_own(invoke, tmp_path):
    for _ in range(2):
        assert invoke("train", *QUICK, "--dropout", 0.2, "--layers", 2).status == 0
    np.testing.assert_array_equal(weights("runs/mnist-lstm128-001"), weights("runs/mnist-lstm128-002"))


def test_another_seed_gives_other_weights(invoke, tmp_path):
    for seed in (0, 1):
        assert invoke("train", *QUICK, "--seed", seed).status == 0
    assert not np.array_equal(weights("runs/mnist-lstm128-001"), weights("runs/mnist-lstm128-002"))


def test_lean_memory_is_the_lean_kernel_and_the_same_weights(invoke):
    assert "fused kernel" in invoke("train", *QUICK, "--memory", "full", "--out", "full").out
    assert "lean kernel" in invoke("train", *QUICK, "--memory", "lean", "--out", "lean").out
    np.testing.assert_array_equal(weights("full"), weights("lean"))


def test_it_is_the_training_that_the_library_does(invoke):
    """The command adds nothing to what its parts do when they are put together by hand."""
    assert invoke("train", *QUICK, "--clip-norm", 0.5, "--out", "run").status == 0
    digits = lstm_np.data.load_digits()
    model = lstm_np.SequenceClassifier(8, 16, 10)
    batches = lstm_np.data.Batches(digits.train_images, digits.train_labels, 64, scale=digits.scale)
    step = model.training_steps(lstm_np.Adam(model.params), clip_norm=0.5).step
    for number, batch in enumerate([batch for epoch in range(2) for batch in list_of(batches, epoch)], start=1):
        step(batch, number)
    loaded = lstm_np.SequenceClassifier.load("run/weights.safetensors")
    np.testing.assert_array_equal(loaded.params.flat, model.params.flat)


def list_of(batches, epoch):
    return [(x.copy(), labels.copy()) for x, labels in batches.epoch(epoch)]


def test_max_steps(invoke):
    summary = json.loads(invoke("train", *QUICK, "--max-steps", 30, "--json").out)
    assert summary["steps"] == 30
    assert summary["epochs"] == 2
    assert summary["test_images"] == 500


@pytest.mark.parametrize(("view", "steps", "features"), [("columns", 8, 8), ("pixels", 64, 1), ("permuted", 64, 1)])
def test_views(invoke, view, steps, features):
    result = invoke("train", *QUICK, "--view", view, "--limit-train", 100, "--epochs", 1, "--out", "run")
    assert result.status == 0
    assert f"data    100 images of 8x8, read as {steps} steps of {features}" in result.out


def test_model_and_optimizer_flags_reach_them(invoke):
    flags = ("--cell", "lstm", "--layers", 2, "--bidirectional", "--dtype", "float64", "--initializer", "torch")
    optimizer = ("--optimizer", "sgd", "--learning-rate", 0.1, "--momentum", 0.9, "--nesterov")
    result = invoke("train", *QUICK, *flags, *optimizer, "--kernel", "reference", "--threads", 1, "--out", "run")
    assert result.status == 0
    assert "float64, numpy backend, reference kernel\n" in result.out
    config = json.loads(Path("run/config.json").read_text())
    assert config["optimizer"] == {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0}
    assert config["machine"] == {
        "backend": "numpy",
        "kernels": ["reference"] * 4,
        "cores": 1,
        "cores_decided_by": "the user",
        "processes": 1,
        "device": None,
        "training_step": "layers",
    }
    model = lstm_np.SequenceClassifier.load("run/weights.safetensors")
    expected = {"num_layers": 2, "bidirectional": True, "dtype": "float64", "initializer": "torch"}
    assert {name: model.config[name] for name in expected} == expected


def test_another_optimizer_starts_from_its_own_defaults(invoke):
    assert invoke("train", *QUICK, "--optimizer", "rmsprop", "--max-steps", 1, "--out", "run").status == 0
    optimizer = json.loads(Path("run/config.json").read_text())["optimizer"]
    own = {"lr": 0.01, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "form": "torch", "weight_decay": 0.0}
    assert optimizer == {"name": "rmsprop", **own}


def test_adamw_with_a_weight_decay(invoke):
    flags = ("--optimizer", "adamw", "--weight-decay", 0.1, "--max-steps", 1, "--out", "run")
    assert invoke("train", *QUICK, *flags).status == 0
    optimizer = json.loads(Path("run/config.json").read_text())["optimizer"]
    assert (optimizer["name"], optimizer["weight_decay"]) == ("adamw", 0.1)


def test_a_recipe_file_and_its_published_number(invoke, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'title = "Mine"\ndescription = "A test."\n[data]\ndataset = "digits"\n[model]\nhidden_size = 8\n'
        '[train]\nepochs = 1\n[published]\naccuracy = 0.875\ntest_images = 128\nsource = "a page"\n'
    )
    result = invoke("train", "--recipe", "mine.toml", "--batch-size", 32)
    assert result.status == 0
    assert result.out.startswith("mine: Mine\n")
    assert re.search(
        r"on all 500 test images\n +accuracy \d\d\.\d\d% on the first 128\n"
        r" +published 87.50% on 128 test images\n +\(a page\)\n",
        result.out,
    )
    assert (tmp_path / "runs/mine-001").is_dir()


def test_mnist_files_of_another_set(invoke, mnist):
    result = invoke("train", "--data-dir", mnist, "--epochs", 1, "--hidden-size", 8, "--validation", 10, "--json")
    assert result.status == 0
    assert "not the published MNIST" in result.err
    assert json.loads(result.out)["dataset"] == "custom"


def test_without_mnist_the_digits_are_learnt_well_and_it_is_said_in_one_line(invoke):
    result = invoke("train", "--offline", "--json")
    assert result.status == 0
    summary, lines = json.loads(result.out), result.err.splitlines()
    assert "--offline forbids to download it: using scikit-learn's 8x8 digits instead" in lines[0]
    assert lines[1] == "digits-lstm128: an LSTM reads the embedded 8x8 digits row by row"
    assert summary["test_accuracy"] >= 0.97
    assert (summary["dataset"], summary["recipe"]) == ("digits", "digits-lstm128")
    assert summary["run_dir"] == "runs/digits-lstm128-001"
    config = json.loads(Path("runs/digits-lstm128-001/config.json").read_text())
    assert (config["recipe"], config["train"]["batch_size"]) == ("digits-lstm128", 32)
    model = lstm_np.SequenceClassifier.load("runs/digits-lstm128-001/weights.safetensors")
    assert model.notes["recipe"] == "digits-lstm128"


SHORT = ("--offline", "--epochs", 1, "--hidden-size", 8)


@pytest.mark.parametrize("flags", [(), ("--dataset", "digits")])
def test_on_the_digits_explicit_flags_win(invoke, flags):
    result = invoke("train", *SHORT, *flags, "--batch-size", 100, "--out", "run")
    assert result.status == 0
    assert result.out.splitlines()[1] == "changed hidden_size 8, epochs 1, batch_size 100"
    config = json.loads(Path("run/config.json").read_text())
    assert (config["recipe"], config["train"]["batch_size"], config["optimizer"]["lr"]) == ("digits-lstm128", 100, 0.01)
    assert len(result.err.splitlines()) == (0 if flags else 1)


def test_a_recipe_that_was_asked_for_is_kept_on_the_digits(invoke):
    for number, flags in enumerate(((), ("--dataset", "digits")), start=1):
        result = invoke("train", *SHORT, *flags, "--recipe", "mnist-lstm128", "--json")
        assert json.loads(result.out)["run_dir"] == f"runs/mnist-lstm128-00{number}"
        assert "batch 128, adam, learning rate 0.001, seed 0" in result.err


def test_with_mnist_the_default_recipe_is_taken(invoke, mnist):
    result = invoke("train", "--data-dir", mnist, "--epochs", 1, "--hidden-size", 8, "--json")
    assert json.loads(result.out)["recipe"] == "mnist-lstm128"


def test_views_without_rows_are_not_moved(invoke):
    result = invoke("train", *SHORT, "--view", "permuted", "--max-steps", 1, "--out", "run")
    assert result.status == 0
    assert "changed view permuted, rotate 0.0, zoom 0.0, hidden_size 8" in " ".join(result.out.split())
    result = invoke("train", *SHORT, "--view", "permuted", "--rotate", 5, "--out", "other")
    line = "train: images read as permuted cannot be moved; set shift, rotate and zoom to 0"
    assert (result.status, result.err.splitlines()[-1]) == (2, line)


def test_help_says_which_recipe_the_digits_take(invoke):
    text = " ".join(invoke("train", "--help").out.replace("-\n ", "-").split())
    assert "with --dataset digits, the recipe digits-lstm128" in text


def test_without_matplotlib_one_line_says_how_to_get_the_plot(invoke, curves, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke("train", *QUICK, "--out", "run")
    assert result.status == 0
    words = " ".join(result.out.split())
    assert 'no curves.png: curves need matplotlib, which is not installed: pip install "lstm_np[plot]" next' in words
    assert max(map(len, result.out.splitlines())) < 80


def test_a_matplotlib_that_cannot_be_imported_is_no_missing_one(invoke, curves, broken, tmp_path):
    broken("matplotlib", "matplotlib.figure")
    result = invoke("train", *QUICK, "--out", "run")
    assert result.status == 0
    assert "installed but cannot be imported (it is of another NumPy)" in " ".join(result.out.split())
    assert (tmp_path / "run/weights.safetensors").exists()


def test_a_command_that_is_printed_runs_as_it_is(invoke, mnist, tmp_path, monkeypatch):
    """With the folder of the images, whether a flag or the environment named it, and with every name quoted."""
    folder = tmp_path / "it's my data"
    mnist.rename(folder)
    for way in ("flag", "environment"):
        flags = ("--data-dir", folder) if way == "flag" else ()
        with monkeypatch.context() as patch:
            if way == "environment":
                patch.setenv("LSTM_NP_DATA", str(folder))
            result = invoke("train", *flags, "--epochs", 1, "--hidden-size", 8, "--out", f"my run/{way} -1")
        printed = [line.removeprefix("next").split("python -m lstm_np.")[1] for line in result.out.splitlines()[-2:]]
        assert [shlex.split(line)[0] for line in printed] == ["evaluate", "predict"]
        for line in printed:
            assert invoke(*shlex.split(line)).status == 0, line


def test_a_loss_far_above_that_of_a_guess_is_a_training_that_diverged(invoke):
    result = invoke("train", *QUICK, "--learning-rate", 1e30, "--out", "run")
    assert result.status == 1
    assert max(map(len, result.out.splitlines())) < 80
    (line,) = result.err.splitlines()
    assert re.fullmatch(
        r"train: training diverged: the training loss ended at \d\.\d\de\+\d\d, that of uniform predictions is 2\.30; "
        r"lower the learning rate \(now 1e\+30\)",
        line,
    )
    assert np.isfinite(lstm_np.SequenceClassifier.load("run/weights.safetensors").params.flat).all()


def test_a_recipe_file_beside_is_named(invoke, tmp_path):
    (tmp_path / "mine.toml").write_text("")
    result = invoke("train", "--recipe", "mine")
    assert result == (2, "", "train: unknown recipe 'mine'; the file mine.toml is called --recipe mine.toml\n")


def test_a_folder_for_the_digits_is_said_to_be_of_no_use(invoke):
    result = invoke("train", *QUICK, "--data-dir", "somewhere", "--out", "run")
    assert (result.status, result.err) == (0, "note: the digits come with scikit-learn; somewhere is not read\n")


def test_help_tells_every_setting_and_its_default(invoke):
    result = invoke("train", "--help")
    assert result.status == 0
    assert "each layer, and so their number [128]" in " ".join(result.out.split())
    assert "never used for a decision" in " ".join(result.out.split())
    for table in recipes.TABLES:
        for name in recipes.settings_of(table):
            assert name.replace("num_", "").replace("_", "-").replace("name", "optimizer") in result.out


def test_cell_clip_is_a_flag(invoke, tmp_path):
    result = invoke("train", *QUICK, "--cell-clip", 0.5, "--out", "run")
    assert (result.status, result.err) == (0, "")
    assert "reference kernel" in result.out
    assert json.loads((tmp_path / "run/config.json").read_text())["model"]["cell_clip"] == 0.5
    assert lstm_np.SequenceClassifier.load("run/weights.safetensors").config["cell_clip"] == 0.5
    assert invoke("gradcheck", "--cell-clip", 0.1).status == 0
    refused = invoke("train", *QUICK, "--cell-clip", 0.5, "--cell", "gru")
    assert (refused.status, refused.err) == (2, "train: cell_clip is 0.5, but gru layers have no cell_clip\n")
    assert invoke("train", *QUICK, "--cell-clip", 0).err == "train: --cell-clip must be above 0, found 0.0\n"


def test_hold_is_a_flag(invoke, tmp_path):
    result = invoke("train", *QUICK, "--hold", "f=1", "--out", "run")
    assert (result.status, result.err) == (0, "")
    assert "reference kernel" in result.out
    assert json.loads((tmp_path / "run/config.json").read_text())["model"]["hold"] == {"f": 1.0}
    assert lstm_np.SequenceClassifier.load("run/weights.safetensors").config["hold"] == {"f": 1.0}
    assert invoke("gradcheck", "--hold", "f=1,o=0.5").status == 0
    for value, line in {
        "z=1": "a lstm cell has no value 'z' to hold; there are: i, f, o, g, c, tanh_c, h",
        "f": "argument --hold: must be like f=1 or f=1,o=0.5, found 'f' (--help lists the flags)",
        "f=inf": "--hold must be finite, found inf",
    }.items():
        refused = invoke("train", *QUICK, "--hold", value)
        assert refused.status == 2
        assert refused.err.splitlines()[-1] == f"train: {line}"
    assert invoke("train", *QUICK, "--hold", "none", "--out", "plain").status == 0


def test_dropout_that_drops_nothing_is_one_line(invoke):
    result = invoke("train", *QUICK, "--dropout", 0.5, "--out", "run")
    assert result.status == 0
    assert result.err == (
        "train: dropout 0.5 drops nothing: it acts between layers, and there is one layer; add a layer, or drop "
        '"all" outputs (dropout_outputs)\n'
    )
    assert invoke("evaluate", "run").err == ""
    assert invoke("gradcheck", "--configurations", 8, "--dropout", 0.5, "--layers", 1).err == ""


def test_training_that_diverges(invoke):
    result = invoke("train", *QUICK, "--optimizer", "sgd", "--learning-rate", 1e38, "--out", "run")
    assert result.status == 1
    (line,) = result.err.splitlines()
    assert re.fullmatch(
        r"train: training diverged at step \d+: the loss is (nan|inf); the first value that is not finite is .*; "
        r"parameters and optimizer are as before this step; lower the learning rate "
        r"\(now 1e\+38\) or clip gradients \(clip_norm\); the weights before it are in run/weights\.safetensors",
        line,
    )
    assert np.isfinite(lstm_np.SequenceClassifier.load("run/weights.safetensors").params.flat).all()
