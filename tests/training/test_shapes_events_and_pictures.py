"""Shapes, lines in a system's rhythm, ten predictions, TensorBoard event files and pictures."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from lstm_np.display import pictures
from lstm_np.evaluate import main as evaluate
from lstm_np.extras import MissingPackageError
from lstm_np.model import SequenceClassifier
from lstm_np.predict import main as predict
from lstm_np.train import main as train
from lstm_np.training import load_recipe, recipe_names, shapes
from lstm_np.training.shapes import tensor_shapes

SMALL = ["--dataset", "digits", "--hidden-size", "6", "--epochs", "1", "--threads", "1"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"input_projection": 6, "bias": "double"},
        {"bias": False},
        {"cell": "gru", "num_layers": 2, "bidirectional": True},
        {"cell": "rnn", "read_out": "last_output"},
    ],
)
def test_the_shapes_are_those_of_a_real_pass(options):
    model = SequenceClassifier(4, 3, 5, **options)
    table = {tuple(line.split("  ")[0:1]): line for line in tensor_shapes(model, 7, 2).splitlines()}
    for name, shape in model.params.shapes.items():
        assert " x ".join(map(str, shape)) in table[(name,)]
    assert "5 x 2" in table[("logits",)]
    assert "2 x 5" in table[("probabilities",)]
    assert "4 x 7 x 2" in tensor_shapes(model, 7, 2)
    assert f"{model.recurrent.output_size} x 7 x 2" in table[(f"layer{model.recurrent.num_layers - 1} y",)]


@pytest.mark.parametrize("name", recipe_names())
def test_the_shapes_of_every_recipe_fit_80_columns(name):
    model = SequenceClassifier(28, num_classes=10, **load_recipe(name).tables["model"])
    assert max(map(len, tensor_shapes(model, 28, 128).splitlines())) <= 80
    assert max(map(len, model.summary().splitlines())) <= 80


def test_a_state_after_one_step_is_the_first_output():
    model = SequenceClassifier(4, 3, 5)
    model.params["layer0.b"][:] = 1.0  # the pass reads zeros: without a bias nothing would change from step to step
    tensors = {name: np.array(array) for name, _, array, _ in shapes._pass(model, 7, 2)}
    np.testing.assert_allclose(tensors["layer0 h"], tensors["layer0 y"][:, 0])
    np.testing.assert_allclose(tensors["h_n"][0].T, tensors["layer0 y"][:, -1])
    assert not np.allclose(tensors["layer0 h"], tensors["layer0 y"][:, -1])


def test_lines_in_the_rhythm_of_the_original(tmp_path, capsys):
    assert (
        train([*SMALL, "--max-steps", "7", "--batch-size", "16", "--print-every", "3", "--out", str(tmp_path / "r")])
        == 0
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "batch loss" in line]
    assert [line[1] for line in lines] == ["1", "3", "6"]
    assert all(0 <= float(line[-1]) <= 1 for line in lines)


def test_ten_predictions_beside_ten_labels(tmp_path, capsys):
    assert train([*SMALL, "--max-steps", "2", "--out", str(tmp_path / "r")]) == 0
    out = capsys.readouterr().out
    predicted = next(line for line in out.splitlines() if "the first 10: predicted" in line)
    labels = next(line for line in out.splitlines() if line.split()[:1] == ["labels"])
    assert len(predicted.split()[-10:]) == len(labels.split()[1:]) == 10
    assert predicted.index(predicted.split()[-10]) > 0
    assert len(predicted) == len(labels)  # one below the other
    assert predict([str(tmp_path / "r"), "--index", *map(str, range(10)), "--json", "--threads", "1"]) == 0
    answers = __import__("json").loads(capsys.readouterr().out)["predictions"]
    assert [str(answer["prediction"]) for answer in answers] == predicted.split()[-10:]
    assert [str(answer["label"]) for answer in answers] == labels.split()[1:]


def test_show_shapes_prints_layers_and_tensors_first(tmp_path, capsys):
    assert train([*SMALL, "--max-steps", "1", "--show-shapes", "--out", str(tmp_path / "r")]) == 0
    out = capsys.readouterr().out
    assert out.index("output shape") < out.index("pre-activations: i, f, o, g") < out.index("epoch")


def test_tensorboard_event_files(tmp_path, capsys):
    pytest.importorskip("tensorboardX", reason='tensorboardX is not installed: pip install "lstm_np[tensorboard]"')
    folder = tmp_path / "r"
    command = [*SMALL, "--epochs", "2", "--batch-size", "64", "--validation", "97", "--log", "tensorboard"]
    assert train([*command, "--out", str(folder)]) == 0
    assert ", tensorboard/\n" in capsys.readouterr().out
    (path,) = (folder / "tensorboard").iterdir()
    tags = read_events(path.read_bytes())
    assert tags["batch/loss"] == [1, 20]
    assert tags["train/loss"] == tags["validation/error"] == [19, 38]
    assert tags["test/accuracy"] == [38]


def read_events(content: bytes) -> dict[str, list[int]]:
    """tag -> steps, from the records of an event file: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[int]] = {}
    stream = io.BytesIO(content)
    while head := stream.read(8):
        stream.read(4)
        event = Event.FromString(stream.read(int.from_bytes(head, "little")))
        stream.read(4)
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(event.step)
    return found


def test_without_tensorboardx_the_command_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert train([*SMALL, "--log", "tensorboard", "--out", str(tmp_path / "r")]) == 2
    assert capsys.readouterr().err == (
        'train: event files need tensorboardX, which is not installed: pip install "lstm_np[tensorboard]"\n'
    )
    assert not (tmp_path / "r").exists()


def size_of(png: bytes) -> tuple[int, int]:
    """(width, height) from a PNG's header."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_pictures_are_drawn():
    pytest.importorskip("matplotlib", reason='matplotlib is not installed: pip install "lstm_np[plot]"')
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(10), 7)
    two_rows = pictures.digit_grid(rng.random((7, 28, 28)), shares, [0, 1, 2, 3, 4, None, 6])
    one_row = pictures.digit_grid(rng.random((5, 28, 28)), shares[:5], [None] * 5)
    assert size_of(two_rows)[0] == size_of(one_row)[0]
    assert size_of(two_rows)[1] > 1.8 * size_of(one_row)[1]
    confusion = np.diag([9, 0, 3])
    assert size_of(pictures.confusion_matrix(confusion))[0] > 300
    assert pictures.confusion_matrix(confusion + np.eye(3, k=1, dtype=int)) != pictures.confusion_matrix(confusion)
    with pytest.raises(ValueError, match="found 7 images, 6 rows of probabilities and 7 labels"):
        pictures.digit_grid(np.zeros((7, 2, 2)), shares[:6], [None] * 7)


def test_evaluate_and_predict_draw_them(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason='matplotlib is not installed: pip install "lstm_np[plot]"')
    run = str(tmp_path / "r")
    assert train([*SMALL, "--max-steps", "2", "--quiet", "--out", run]) == 0
    assert evaluate([run, "--threads", "1", "--picture", str(tmp_path / "confusion.png")]) == 0
    assert predict([run, "--threads", "1", "--index", "0", "1", "--picture", str(tmp_path / "digits.png")]) == 0
    assert size_of((tmp_path / "confusion.png").read_bytes())
    assert size_of((tmp_path / "digits.png").read_bytes())
    capsys.readouterr()
    missing = tmp_path / "none" / "c.png"
    for path, line in (
        (missing, f"{missing}: cannot be written (No such file or directory); name another file with --picture"),
        (tmp_path, f"--picture {tmp_path}: a folder; expected the name of a PNG file"),
    ):
        assert evaluate([run, "--threads", "1", "--picture", str(path)]) == 2
        assert capsys.readouterr().err == f"evaluate: {line}\n"


def test_without_matplotlib_there_is_no_picture(monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (
        lambda: pictures.confusion_matrix(np.eye(2, dtype=int)),
        lambda: pictures.digit_grid(np.zeros((1, 2, 2)), np.ones((1, 2)), [0]),
        pictures.need_matplotlib,
    ):
        with pytest.raises(MissingPackageError, match="pictures need matplotlib, which is not installed: pip install"):
            draw()
