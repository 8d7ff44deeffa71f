"""explain: the page of a run, as a person asks for it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import lstm_np
from lstm_np.explain.export import unpacked
from tests.explain.browser import data_of


def test_a_page_of_a_run(invoke, trained, tmp_path):
    result = invoke("explain", trained, "--index", 0, 7, 0, "--out", "page.html")
    assert result.status == 0, result.err
    assert "page.html" in result.out
    data = data_of(tmp_path / "page.html")
    assert [one["name"] for one in data["passes"]] == ["test image 0", "test image 7"]
    digits = lstm_np.data.load_digits()
    model = lstm_np.SequenceClassifier.load(trained / "weights.safetensors")
    x = digits.test_images[[7]] * digits.scale
    trace = lstm_np.trace(model, x, digits.test_labels[[7]])
    one = data["passes"][1]
    np.testing.assert_array_equal(unpacked(one["x"]), trace.x()[0])
    np.testing.assert_array_equal(unpacked(one["layers"]["layer0"]["values"]["f"]), trace.gate("f")[0])
    np.testing.assert_array_equal(unpacked(one["layers"]["layer0"]["gradients"]["c"]), trace.gradient("c")[0])
    np.testing.assert_array_equal(unpacked(one["dx"]), trace.dx()[0])
    logit = lstm_np.trace(model, x, target=4)
    np.testing.assert_array_equal(unpacked(one["dxOfLogits"])[4], logit.dx()[0])
    h = logit.gradient("h")[0]
    np.testing.assert_array_equal(unpacked(one["norms"]["layer0"]["h"])[5], np.linalg.norm(h, axis=1))
    answers = model.predict(digits.test_images * digits.scale)
    assert data["test"]["correct"][-1] == int((answers == digits.test_labels).sum())
    assert data["test"]["count"] == sum(map(sum, data["test"]["settled"])) == 500
    facts = dict(data["provenance"])
    assert facts["training"].startswith("recipe ")
    assert "SHA-256" in facts["weights"]
    assert str(tmp_path) not in facts["weights"]


def test_data_of_ones_own_are_for_models_that_learnt_from_such(invoke, trained):
    result = invoke("explain", trained, "--data", "a.csv")
    where = trained / "weights.safetensors"
    line = f"explain: --data is for models of sequences of your own, {where} has learnt from images\n"
    assert (result.status, result.err) == (2, line)


def test_a_program_is_told_the_file(invoke, trained, tmp_path):
    result = invoke("explain", trained, "--json")
    assert json.loads(result.out) == {
        "file": "explain.html", "bytes": (tmp_path / "explain.html").stat().st_size, "units": 48, "hidden_size": 48,
    }  # fmt: skip


@pytest.mark.parametrize("view", ["--term", "--tiny"])
def test_text_is_not_for_programs(invoke, view):
    result = invoke("explain", view, "--json")
    assert result.status == 2
    assert result.err.startswith("explain: --json: --term and --tiny print text")


def test_it_is_explain_html_of_the_first_image_where_nothing_is_said(invoke, trained, tmp_path):
    assert invoke("explain", trained).status == 0
    assert [one["index"] for one in data_of(tmp_path / "explain.html")["passes"]] == [0]


def test_the_same_run_gives_the_same_bytes(invoke, trained, tmp_path):
    for name in ("a", "b"):
        assert invoke("explain", trained, "--index", 3, "--out", "page.html").status == 0
        (tmp_path / "page.html").rename(name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_smaller_limit_leaves_units_out_and_says_so(invoke, trained, tmp_path):
    result = invoke("explain", trained, "--megabytes", 0.2)
    assert result.status == 0
    assert " of 48 units" in result.out
    assert (tmp_path / "explain.html").stat().st_size <= 200_000
    whole = len(data_of(tmp_path / "explain.html")["ids"]["layer0"])
    assert f"{whole} of 48 units" in result.out


@pytest.mark.parametrize("kept", [True, False])
def test_the_weights_that_training_began_with(invoke, trained, tmp_path, kept):
    """As the run kept them, or made again."""
    if not kept:
        trained = shutil.copytree(trained, tmp_path / "copy")
        (trained / "initial.safetensors").unlink()
    assert invoke("explain", trained, "--compare", "initial").status == 0
    (other,) = data_of(tmp_path / "explain.html")["others"]
    assert other["title"] == "before training"
    config = lstm_np.SequenceClassifier.load(trained / "weights.safetensors").config
    fresh = lstm_np.SequenceClassifier(**config)
    np.testing.assert_array_equal(unpacked(other["weights"]["layer0"]["U"]), fresh.params["layer0.U"])
    reports = data_of(tmp_path / "explain.html")["saturation"]
    assert [one["title"] for one in reports] == ["this model", "before training"]


def test_the_weights_of_another_file(invoke, trained, tmp_path):
    assert invoke("explain", trained, "--compare", trained / "best.safetensors").status == 0
    assert [one["title"] for one in data_of(tmp_path / "explain.html")["others"]] == ["weights of best.safetensors"]
    result = invoke("explain", trained, "--compare", "initial", "--megabytes", 0.2)
    assert "no second weights" in result.out


def test_what_cannot_be_done_is_said_in_a_line(invoke, trained, tmp_path):
    lstm_np.SequenceClassifier(8, 4, 10).save("other.safetensors")
    for arguments, words in (
        ((trained, "--index", 500), "--index must be 0 to 499"),
        ((trained, "--index", -1), "--index must be 0 to 499"),
        ((trained, "--out", "no/such/folder/page.html"), "No such file or directory"),
        ((trained, "--out", "."), "explain: .: "),
        ((trained, "--megabytes", 0), "--megabytes must be"),
        ((trained, "--compare", "other.safetensors"), "the weights of another model"),
        ((trained, "--compare", "nothing.safetensors"), "no such weights file"),
        (("nothing",), "no such run folder"),
        ((), "python -m lstm_np.train"),
    ):
        result = invoke("explain", *arguments)
        assert result.status == 2, arguments
        assert words in result.err
        assert len(result.err.splitlines()) == 1
