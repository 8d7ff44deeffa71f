"""Installed size, import time and a first epoch."""

import json
import sys
from importlib.metadata import distribution

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import footprint, installed, results


def test_a_package_counts_with_all_that_it_needs():
    found = installed.measure(["rich"])
    assert {"rich", "pygments", "markdown-it-py", "mdurl"} <= set(found["distributions"])
    assert found["missing"] == []
    own = distribution("rich")
    files = [path.locate() for path in own.files if not str(path).endswith(".pyc")]
    assert found["distributions"]["rich"]["bytes"] == sum(path.stat().st_size for path in files)
    assert found["bytes"] == sum(size["bytes"] for size in found["distributions"].values())
    # what only an extra needs is not counted
    assert "ipywidgets" not in found["distributions"]


def test_ours_counts_its_own_files_and_what_is_missing_is_told():
    found = installed.measure(["lstm_np", "no-such-package"])
    assert found["missing"] == ["no-such-package"]
    assert {"lstm-np", "numpy", "safetensors"} <= set(found["distributions"])
    assert 100_000 < found["distributions"]["lstm-np"]["bytes"] < 10_000_000


def test_of_alternatives_the_installed_one_counts():
    product = footprint.Requirements(("no-such-package|safetensors",), "safetensors", None)
    assert "safetensors" in footprint.installed_size(sys.executable, product)["distributions"]
    with pytest.raises(RuntimeError, match="not installed: no-such-package"):
        footprint.installed_size(sys.executable, footprint.Requirements(("no-such-package",), "x", None))


def test_images_are_of_mnists_kind(tmp_path):
    footprint.write_images(tmp_path / "images.npz", 300)
    with np.load(tmp_path / "images.npz") as file:
        images, labels = file["images"], file["labels"]
    assert (images.shape, images.dtype, labels.dtype) == ((300, 28, 28), np.uint8, np.int64)
    assert set(labels) == set(range(10))
    means = [images[labels == digit].mean() for digit in range(10)]
    assert means == sorted(means)


def test_the_command(tmp_path, capsys):
    argv = ["footprint", "--peers", "reference,onnxruntime", "--images", "300", "--rounds", "1", "--threads", "1"]
    assert command.main([*argv, "--out", str(tmp_path)]) == 0
    document = results.read("footprint", tmp_path)
    ours = document["systems"]["ours"]
    assert ours["first_epoch_seconds"]["steps"] == 2
    assert set(ours["first_epoch_seconds"]["parts"]) == {"import", "data and model", "epoch"}
    assert ours["first_epoch_seconds"]["best"] > ours["import_seconds"]["best"] > document["python_seconds"]["best"] / 2
    assert "first_epoch_seconds" not in document["systems"].get("onnxruntime", {})
    assert "ours" in capsys.readouterr().out


def test_what_fails_is_one_line():
    with pytest.raises(RuntimeError, match="No module named 'nothing_here'") as caught:
        footprint.import_once(sys.executable, 1, "nothing_here")
    assert "\n" not in str(caught.value)
    assert json.loads(footprint.ask(sys.executable, 1, "-c", "print(1)")[0]) == 1
