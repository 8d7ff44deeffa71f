"""evaluate: the numbers, the table, and which run it takes."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

import lstm_np


def of_the_library(folder, name="weights"):
    model = lstm_np.SequenceClassifier.load(f"{folder}/{name}.safetensors")
    digits = lstm_np.data.load_digits()
    return model, digits, model.predict(digits.test_images * np.float32(digits.scale))


def test_numbers_are_those_of_the_library(invoke, trained):
    result = invoke("evaluate", trained, "--json")
    assert result.status == 0
    summary = json.loads(result.out)
    model, digits, predicted = of_the_library(trained)
    metrics = model.evaluate(digits.test_images * np.float32(digits.scale), digits.test_labels)
    assert summary["test_accuracy"] == metrics.accuracy > 0.8
    assert summary["test_loss"] == pytest.approx(metrics.loss, rel=1e-5)
    assert summary["test_images"] == 500
    confusion = np.zeros((10, 10), int)
    for label, prediction in zip(digits.test_labels, predicted, strict=True):
        confusion[label, prediction] += 1
    assert summary["confusion"] == confusion.tolist()
    threes = summary["per_class"][3]
    assert threes["images"] == (digits.test_labels == 3).sum()
    assert threes["recall"] == pytest.approx((predicted == 3)[digits.test_labels == 3].mean())
    assert threes["precision"] == pytest.approx((digits.test_labels == 3)[predicted == 3].mean())


def test_the_table(invoke, trained):
    result = invoke("evaluate", trained)
    lines = result.out.splitlines()
    assert lines[0] == f"{trained}/weights.safetensors on scikit-learn's embedded 8x8 digits"
    assert lines[1].startswith("accuracy ")
    assert "of 500 test images), loss " in lines[1]
    table = lines[-11:]
    assert table[0].split() == ["true", *"0123456789", "images", "recall", "precision"]
    _, digits, predicted = of_the_library(trained)
    row = table[4].split()
    assert row[0] == "3"
    hits = int(((predicted == 3) & (digits.test_labels == 3)).sum())
    assert row[4] == str(hits)
    assert max(map(len, table)) < 80


def test_best(invoke, trained):
    _, digits, predicted = of_the_library(trained, "best")
    summary = json.loads(invoke("evaluate", trained, "--best", "--json").out)
    assert summary["test_accuracy"] == pytest.approx((predicted == digits.test_labels).mean())
    assert summary["weights"].endswith("best.safetensors")


def test_the_newest_run_is_taken_where_none_is_named(invoke, trained, tmp_path):
    for age, name in ((300, "new"), (900, "old")):
        shutil.copytree(trained, tmp_path / "runs" / name)
        path = tmp_path / "runs" / name / "weights.safetensors"
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    summary = json.loads(invoke("evaluate", "--json").out)
    assert summary["weights"] == "runs/new/weights.safetensors"


def test_a_weights_file_by_itself(invoke, trained, tmp_path):
    shutil.copy(trained / "weights.safetensors", tmp_path / "some.safetensors")
    assert invoke("evaluate", "some.safetensors").status == 0


@pytest.mark.parametrize("flags", [("--batch-size", 7), ("--kernel", "reference"), ("--threads", 1)])
def test_batches_kernels_and_threads_do_not_change_the_result(invoke, trained, flags):
    plain, other = (json.loads(invoke("evaluate", trained, "--json", *more).out) for more in ((), flags))
    assert other["test_loss"] == pytest.approx(plain["test_loss"], rel=1e-5)
    assert other["confusion"] == plain["confusion"]


def test_classes_that_are_never_predicted():
    from lstm_np.training.evaluation import Evaluation

    table = Evaluation(1.0, np.array([[3, 0, 0], [2, 0, 0], [0, 0, 0]])).table().splitlines()
    assert table[2].split() == ["0", "3", ".", ".", "3", "100.00%", "60.00%"]
    assert table[3].split() == ["1", "2", ".", ".", "2", "0.00%", "-"]
    assert table[4].split() == ["2", ".", ".", ".", "0", "-", "-"]


def test_hold(invoke, trained):
    """What becomes of the answers when the forget gate of a trained model is held open."""
    summary = json.loads(invoke("evaluate", trained, "--hold", "f=1,o=0.5", "--json").out)
    model, digits, _ = of_the_library(trained)
    x = digits.test_images * np.float32(digits.scale)
    expected = model.evaluate(x, digits.test_labels, hold={"f": 1.0, "o": 0.5})
    assert summary["test_accuracy"] == expected.accuracy != model.evaluate(x, digits.test_labels).accuracy
    assert summary["hold"] == {"f": 1.0, "o": 0.5}
    assert invoke("evaluate", trained, "--hold", "f=1").out.splitlines()[0].endswith("digits, held: f = 1")
    refused = invoke("evaluate", trained, "--hold", "z=1")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == "evaluate: a lstm cell has no value 'z' to hold; there are: i, f, o, g, c, tanh_c, h\n"
