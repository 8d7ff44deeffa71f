"""Bad input: each ends with one line on stderr that says what is wrong and what to do, and with exit status 2."""

from __future__ import annotations

import gzip
import os
import re
import shutil

import numpy as np
import pytest

import lstm_np
from tests.commands.conftest import idx

DIGITS = ("--dataset", "digits")


def refused(result, line):
    assert result.status == 2
    assert result.err == line + "\n"
    assert result.out == ""


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--hidden-size", 0), "--hidden-size must be at least 1, found 0"),
        (("--layers", 0), "--layers must be at least 1, found 0"),
        (("--epochs", -3), "--epochs must be at least 1, found -3"),
        (("--max-steps", 0), "--max-steps must be at least 1, found 0"),
        (("--batch-size", 0), "--batch-size must be at least 1, found 0"),
        (("--limit-train", 0), "--limit-train must be at least 1, found 0"),
        (("--dropout", 1), "--dropout must be at least 0 and below 1, found 1.0"),
        (("--learning-rate", 0), "--learning-rate must be above 0, found 0.0"),
        (("--learning-rate", "nan"), "--learning-rate must be finite, found nan"),
        (("--learning-rate", "inf"), "--learning-rate must be finite, found inf"),
        (("--clip-norm", -1), "--clip-norm must be above 0, found -1.0"),
        (("--forget-bias", "nan"), "--forget-bias must be finite, found nan"),
        (("--betas", 0.9, 1), "--betas must be at least 0 and below 1, found 1.0"),
        (("--momentum", 0.9), "the optimizer adam has no momentum; "
         "it has: learning_rate, betas, eps, form, weight_decay"),
        (("--form", "torch"), "unknown form of Adam 'torch'; there are: paper, hat"),
        (("--optimizer", "sgd", "--nesterov"), "nesterov needs momentum > 0"),
        (("--threads", 0), "threads must be at least 1, found 0"),
        (("--validation", 1297), "found a validation set of 1297 samples, expected 0 to 1296: "
         "digits has 1297 training samples"),
        (("--order", "tf1", "--limit-train", 5), "found 5 samples, too few for one batch of 32"),
        (("--recipe", "nope"), "unknown recipe 'nope'; there are: {recipes}, or name a .toml file"),
        (("--recipe", "nope.toml"), "nope.toml: the recipe cannot be read (No such file or directory)"),
    ],
)  # fmt: skip
def test_settings(invoke, flags, line):
    line = line.replace("{recipes}", ", ".join(lstm_np.training.recipe_names()))
    refused(invoke("train", *DIGITS, *flags), f"train: {line}")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--hidden-size", "many"), "argument --hidden-size: invalid int value: 'many'"),
        (("--max-steps", "many"), "argument --max-steps: invalid int value: 'many'"),
        (("--threads", "two"), "argument --threads: invalid int value: 'two'"),
        (
            ("--threads", 5000),
            f"argument --threads: must be at most {os.cpu_count()}, the cores of this machine, found 5000",
        ),
        (("--memory", "tiny"), "argument --memory: must be full or lean, found 'tiny'"),
        (("--hidden", 5), "unrecognized arguments: --hidden 5"),
        (("--learning-rate",), "argument --learning-rate: expected one argument"),
    ],
)
def test_flags_that_cannot_be_parsed(invoke, flags, line):
    refused(invoke("train", *flags), f"train: {line} (--help lists the flags)")


@pytest.mark.parametrize(
    "flags", [("--hidden-size", 10**9), ("--layers", 10**12), ("--batch-size", 10**12, "--hidden-size", 10**7)]
)
def test_absurd_sizes(invoke, flags, tmp_path):
    result = invoke("train", *DIGITS, *flags)
    assert result.status == 2
    (line,) = result.err.splitlines()
    assert line.startswith("train: ")
    assert re.search(
        r"parameters need about [\d,.]+ GiB, what is free here is [\d,.]+ GiB; lower --hidden-size or", line
    )
    assert not (tmp_path / "runs").exists()


def test_cupy_that_is_not_there(invoke, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cupy" else found(name))
    for command in ("train", "evaluate", "gradcheck"):
        result = invoke(command, "--backend", "cupy")
        assert result.status == 2
        assert result.err.startswith(f"{command}: the cupy backend needs CuPy, which is not installed: pip install")
        assert result.err.count("\n") == 1


# ---------------------------------------------------------------------------------------------------------------- data


def spoil(name, content):
    def apply(folder):
        (folder / name).write_bytes(content((folder / name).read_bytes()))

    return apply


def swap(one, other):
    def apply(folder):
        (folder / one).rename(folder / "temporary")
        (folder / other).rename(folder / one)
        (folder / "temporary").rename(folder / other)

    return apply


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
DATA_FAULTS = {
    "no such folder": (
        shutil.rmtree,
        "{folder}: byte 0: found no such folder, expected a folder with the four files of MNIST or a set like it; "
        "python -m lstm_np.data --data-dir {folder} downloads MNIST",
    ),
    "a missing file": (
        lambda folder: (folder / LABELS).unlink(),
        "{folder}/train-labels-idx1-ubyte.gz: byte 0: found no such file, expected it, or train-labels-idx1-ubyte; "
        "python -m lstm_np.data --data-dir {folder} downloads MNIST",
    ),
    "a truncated gz": (
        spoil(IMAGES, lambda content: content[:1000]),
        "{folder}/train-images-idx3-ubyte.gz: byte 1000: found end after 1000 packed bytes, "
        "expected the end mark of the gzip data; the gzip data are cut short: download the file again",
    ),
    "a web page": (
        spoil(IMAGES, lambda _: b"<!DOCTYPE html><html><body>Not found</body></html>"),
        "{folder}/train-images-idx3-ubyte.gz: byte 0: found magic 1008813135 (0x3c21444f), expected 0x0000, a type "
        "08 09 0b 0c 0d 0e, 1 to 4 dimensions; this is a web page, not an IDX file: download it again",
    ),
    "swapped images and labels": (
        swap(IMAGES, LABELS),
        "{folder}/train-images-idx3-ubyte.gz: byte 3: found 1 dimensions, expected 3 (images); "
        "the images and labels files are swapped: rename them",
    ),
    "labels of another count": (
        spoil(LABELS, lambda _: gzip.compress(idx(np.arange(50) % 10))),
        "{folder}/train-labels-idx1-ubyte.gz: byte 4: found 50 labels, expected 60; "
        "train-images-idx3-ubyte.gz holds 60 images: the two files do not belong together",
    ),
}


@pytest.mark.parametrize("fault", DATA_FAULTS)
def test_data(invoke, mnist, tmp_path, fault):
    apply, line = DATA_FAULTS[fault]
    apply(mnist)
    refused(invoke("train", "--data-dir", mnist), "train: " + line.format(folder=mnist))
    assert not (tmp_path / "runs").exists()


def test_mnist_that_was_asked_for_is_not_replaced(invoke, tmp_path):
    result = invoke("train", "--dataset", "mnist", "--offline")
    line = f"train: MNIST is not in {tmp_path}/cache/lstm_np/mnist, and --offline forbids to download it"
    refused(result, line)


# --------------------------------------------------------------------------------------------------------- run folders


def test_a_second_run_into_the_same_folder(invoke):
    assert invoke("train", *DIGITS, "--epochs", 1, "--hidden-size", 4, "--out", "run").status == 0
    refused(
        invoke("train", *DIGITS, "--out", "run"),
        "train: run: holds a run already (config.json); name another folder with --out, or go on with that run: "
        "--resume",
    )


def test_a_folder_with_other_things_in_it_is_fine(invoke, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    assert invoke("train", *DIGITS, "--epochs", 1, "--hidden-size", 4, "--out", "run").status == 0
    assert (tmp_path / "run/notes.txt").read_text() == "mine"


def test_a_file_in_the_place_of_the_run_folder(invoke, tmp_path):
    (tmp_path / "run").write_text("")
    refused(
        invoke("train", *DIGITS, "--out", "run"),
        "train: run: a file, where the run folder should be; name another folder with --out",
    )
    refused(
        invoke("train", *DIGITS, "--out", "run/deeper"),
        f"train: run/deeper: {tmp_path}/run is a file, not a folder; name another folder with --out",
    )


def test_a_file_in_the_place_of_runs(invoke, tmp_path):
    (tmp_path / "runs").write_text("")
    refused(
        invoke("train", *DIGITS),
        "train: runs: a file, where the run folder should be; name another folder with --out",
    )


def test_no_permission_to_write(invoke, tmp_path, monkeypatch):
    from lstm_np.training import run_folder

    monkeypatch.setattr(run_folder.os, "access", lambda *_: False)  # as for a user who is not root
    refused(
        invoke("train", *DIGITS, "--out", "run"),
        f"train: run: no permission to write in {tmp_path}; name another folder with --out",
    )


def test_a_full_disk(invoke, monkeypatch):
    from lstm_np.training import run_folder

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_atomically", full)
    result = invoke("train", *DIGITS, "--epochs", 1, "--hidden-size", 4, "--out", "run")
    line = "run/config.json: cannot be written (No space left on device); choose another folder with --out"
    assert result == (2, "", f"train: {line}\n")


def test_a_disk_that_fills_up_while_it_trains(invoke, monkeypatch):
    from lstm_np.model import storage

    write, written = storage.write_weights, []

    def full(path, *more):
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        write(path, *more)

    monkeypatch.setattr(storage, "write_weights", full)
    result = invoke("train", *DIGITS, "--epochs", 1, "--hidden-size", 4, "--out", "run")
    line = (
        "run/best.safetensors: cannot be written (No space left on device); make it writable, or make room, and go on "
        "from step 0: python -m lstm_np.train --resume run"
    )
    assert (result.status, result.err) == (2, f"train: {line}\n")


def test_a_run_folder_that_is_removed_while_it_is_trained(invoke, monkeypatch):
    from lstm_np.training import run_folder

    append = run_folder.append_durably

    def removed(path, content):
        shutil.rmtree(path.parent, ignore_errors=True)
        append(path, content)

    monkeypatch.setattr(run_folder, "append_durably", removed)
    result = invoke("train", *DIGITS, "--epochs", 1, "--hidden-size", 4, "--out", "run")
    line = (
        "run/metrics.csv: cannot be written (No such file or directory); the run folder was moved or removed while it "
        "was trained; where it was moved, go on: --resume"
    )
    assert (result.status, result.err) == (2, f"train: {line}\n")


def test_a_run_that_goes_on_where_nothing_can_be_written(invoke, monkeypatch):
    from lstm_np.training import resuming

    invoke("train", *DIGITS, "--epochs", 1, "--hidden-size", 4, "--out", "run")
    monkeypatch.setattr(resuming.os, "access", lambda *_: False)  # as for a user who is not root
    refused(
        invoke("train", "--resume", "run", "--epochs", 2),
        "train: run: no permission to write there; to go on, copy it to where you can write",
    )


def test_an_empty_path_is_not_the_current_folder(invoke, tmp_path):
    """As of --out "$RUN" where RUN is not set."""
    line = "found an empty path, expected the name of a file or folder; is a shell variable not set?"
    for arguments in (
        ("train", *DIGITS, "--out", ""),
        ("train", "--data-dir", ""),
        ("evaluate", ""),
        ("recipes", "diff", "", ""),
    ):
        refused(invoke(*arguments), f"{arguments[0]}: {line}")
    assert not any(tmp_path.glob("*.*"))


@pytest.mark.parametrize("command", [("evaluate",), ("predict", "--index", 0)])
def test_pictures_of_another_kind_are_refused_before_the_work(invoke, trained, tmp_path, command):
    name, *flags = command
    for file, reason in (
        ("a.jpg", "pictures are PNG files; expected a name that ends in .png"),
        (".", "a folder; expected the name of a PNG file"),
    ):
        refused(invoke(name, trained, *flags, "--picture", file), f"{name}: --picture {file}: {reason}")
    assert not (tmp_path / "a.jpg").exists()


def test_files_in_the_place_of_runs_to_compare(invoke, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    refused(invoke("recipes", "diff", "a.png", "a.png"), "recipes: a.png: no config.json; expected the folder of a run")


# ------------------------------------------------------------------------------------------------------------- weights


def test_runs_that_are_not_there(invoke, tmp_path):
    for command, arguments in (("evaluate", ()), ("predict", ("--index", 0))):
        refused(
            invoke(command, *arguments),
            f"{command}: no run with a weights.safetensors under runs/; "
            "train one, or name a run folder or weights file",
        )
    refused(invoke("evaluate", "nowhere"), "evaluate: nowhere: no such run folder or weights file")
    (tmp_path / "empty").mkdir()
    refused(
        invoke("evaluate", "empty"),
        "evaluate: empty: no weights.safetensors in this folder; expected the folder of a run that was trained",
    )
    (tmp_path / "weights.safetensors").write_bytes(b"not weights")
    refused(
        invoke("evaluate", "weights.safetensors"),
        "evaluate: weights.safetensors: not a safetensors file, 11 bytes; expected the weights file of a run",
    )
    refused(
        invoke("evaluate", "--best", "weights.safetensors"),
        "evaluate: weights.safetensors: a file; --best needs a run folder",
    )


def test_weights_of_another_shape(invoke, tmp_path):
    from lstm_np.weights import write_weights

    model = lstm_np.SequenceClassifier(8, 5, 10)
    tensors = {name: np.array(array) for name, array in model.params.items()}
    tensors["layer0.U"] = np.zeros((20, 6), np.float32)
    write_weights("bad.safetensors", tensors, {"model": model.config, "notes": {}})
    refused(
        invoke("evaluate", "bad.safetensors"),
        "evaluate: bad.safetensors: tensor 'layer0.U' has shape (20, 6), this model expects (20, 5)",
    )


@pytest.mark.parametrize(
    "notes",
    [
        {},
        {"image_shape": [8], "view": "rows", "pixel_max": 16},
        {"image_shape": [8, 10**9], "view": "rows", "pixel_max": 16},
        {"image_shape": [8, True], "view": "rows", "pixel_max": 16},
        {"image_shape": [8, 8], "view": "upwards", "pixel_max": 16},
        {"image_shape": [8, 8], "view": ["rows"], "pixel_max": 16},
        {"image_shape": [8, 8], "view": "rows", "pixel_max": 0},
    ],
)
def test_weights_that_do_not_say_how_images_are_read(invoke, notes):
    model = lstm_np.SequenceClassifier(8, 5, 10)
    model.notes = notes
    model.save("some.safetensors")
    line = "some.safetensors: does not say how its images are read; expected weights that train wrote"
    refused(invoke("evaluate", "some.safetensors"), f"evaluate: {line}")


def test_weights_and_notes_that_do_not_fit(invoke):
    model = lstm_np.SequenceClassifier(9, 5, 10)
    model.notes = {"image_shape": [8, 8], "view": "rows", "pixel_max": 16}
    model.save("some.safetensors")
    line = "some.safetensors: images of 8x8 read as rows are sequences of 8 values, the model expects 9"
    refused(invoke("evaluate", "some.safetensors"), f"evaluate: {line}")


def test_a_data_set_of_another_size(invoke, trained, mnist):
    result = invoke("evaluate", trained, "--dataset", "mnist", "--data-dir", mnist)
    assert result.status == 2
    assert result.err.splitlines()[-1] == (
        f"evaluate: {trained}/weights.safetensors: trained on images of 8x8 in 10 classes, custom has 28x28 in 10"
    )


# -------------------------------------------------------------------------------------------------------------- images


def test_an_index_that_is_not_there(invoke, trained):
    refused(
        invoke("predict", trained, "--index", 3, 500),
        "predict: --index must be 0 to 499, the test images of digits; found 500",
    )


def test_neither_index_nor_image(invoke):
    refused(
        invoke("predict"),
        "predict: one of FILE, --index and --image is required (--help lists the flags)",
    )


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((8, 8), np.nan), "has values that are not finite (NaN or infinity)"),
        (np.full((8, 8), np.inf), "has values that are not finite (NaN or infinity)"),
        (np.full((8, 8), 2.0), "values from 2 to 2, expected fractions from 0 to 1"),
        (np.full((8, 8), 300), "values from 300 to 300, expected whole numbers from 0 to 255"),
        (np.zeros(8), "found float64 (8,), expected numbers (rows, columns) or (N, rows, columns)"),
        (np.zeros((0, 8)), "found float64 (0, 8), expected numbers (rows, columns) or (N, rows, columns)"),
        (np.zeros((8, 8), complex), "found complex128 (8, 8), expected numbers (rows, columns) or (N, rows, columns)"),
        (np.zeros((9, 9)), "every pixel is alike; expected a digit"),
        (np.zeros((1, 9000)), "1x9000 pixels, expected at most 8192 a side; scale it down"),
    ],
)
def test_numpy_images(invoke, trained, array, reason):
    np.save("image.npy", array)
    refused(invoke("predict", trained, "--image", "image.npy"), f"predict: image.npy: {reason}")


def test_image_files_that_are_none(invoke, trained, tmp_path):
    (tmp_path / "page.png").write_bytes(b"<html></html>")
    (tmp_path / "page.npy").write_bytes(b"<html></html>")
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(
        invoke("predict", trained, "--image", "page.png"),
        "predict: page.png: not a picture that Pillow can read; expected PNG, JPEG ... or a .npy file",
    )
    refused(invoke("predict", trained, "--image", "none.png"), "predict: none.png: no such image file")
    refused(invoke("predict", trained, "--image", "none.npy"), "predict: none.npy: no such image file")
    for name in ("page.npy", "objects.npy"):
        result = invoke("predict", trained, "--image", name)
        assert result.status == 2
        assert result.err.startswith(f"predict: {name}: not a NumPy file of an image (")
        assert result.err.count("\n") == 1


def test_a_numpy_file_whose_header_lies_about_its_size(invoke, trained, tmp_path):
    np.save("image.npy", np.zeros((8, 8)))
    content = (tmp_path / "image.npy").read_bytes().replace(b"(8, 8), }          ", b"(80000, 80000), }  ")
    (tmp_path / "image.npy").write_bytes(content)
    result = invoke("predict", trained, "--image", "image.npy")
    assert result.status == 2
    assert result.err.startswith("predict: image.npy: not a NumPy file of an image (")


def test_a_damaged_picture(invoke, trained, tmp_path):
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)).save("image.png")
    (tmp_path / "image.png").write_bytes((tmp_path / "image.png").read_bytes()[:500])
    result = invoke("predict", trained, "--image", "image.png")
    assert result.status == 2
    assert result.err.startswith("predict: image.png: damaged picture (")
    assert result.err.count("\n") == 1


def test_pictures_without_pillow(invoke, trained, tmp_path, monkeypatch):
    import sys

    (tmp_path / "image.png").write_bytes(b"")
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused(
        invoke("predict", trained, "--image", "image.png"),
        'predict: image.png: pictures need Pillow, which is not installed: pip install "lstm_np[png]"',
    )


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--hidden-size", 0), "--hidden-size must be at least 1, found 0"),
        (("--steps", 0), "steps must be at least 1, found 0"),
        (("--configurations", 0), "--configurations must be at least 1, found 0"),
    ],
)
def test_gradcheck(invoke, flags, line):
    refused(invoke("gradcheck", *flags), f"gradcheck: {line}")
