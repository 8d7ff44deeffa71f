"""Weights files of format 1, as written before tensors were named anew and summed: they load and predict the same.

`tests/fixtures/format1/` holds two models, trained for a few steps, and what they predicted, each as float32 and, by a
copy on the reference kernel, as float64.  The last bits of exp and tanh differ between machines, so what is compared
bit by bit are the float64 predictions rounded to float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lstm_np.model import SequenceClassifier

FOLDER = Path(__file__).parent / "fixtures" / "format1"
NAMES = sorted(path.stem for path in FOLDER.glob("*.safetensors"))


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def recorded(name):
    with np.load(FOLDER / "predictions.npz", allow_pickle=False) as arrays:
        return {key.removeprefix(f"{name} "): arrays[key] for key in arrays if key.startswith(f"{name} ")}


def test_there_are_two():
    assert NAMES == ["gru-two-layers-both-directions", "projection-double-bias"]


def test_a_file_of_format_1_predicts_the_same(name, recorded):
    model = SequenceClassifier.load(FOLDER / f"{name}.safetensors")
    np.testing.assert_array_equal(model.params.flat, recorded["parameters"])
    np.testing.assert_allclose(model.predict_proba(recorded["x"]), recorded["float32"], rtol=1e-5)
    exact = model.copy(dtype="float64", kernel="reference").predict_proba(recorded["x"])
    np.testing.assert_allclose(exact, recorded["float64"], rtol=1e-13)
    np.testing.assert_array_equal(exact.astype(np.float32), recorded["float64"].astype(np.float32))
    assert model.notes["recipe"] == name


def test_saved_again_it_is_of_format_2_and_the_same(name, recorded, tmp_path):
    model = SequenceClassifier.load(FOLDER / f"{name}.safetensors")
    model.save(tmp_path / "again")
    assert b'\\"format\\":2' in (tmp_path / "again").read_bytes()
    again = SequenceClassifier.load(tmp_path / "again")
    assert (again.config, again.notes) == (model.config, model.notes)
    np.testing.assert_array_equal(again.params.flat, recorded["parameters"])


def test_the_names_are_the_present_ones():
    model = SequenceClassifier.load(FOLDER / "projection-double-bias.safetensors")
    assert model.config["bias"] == "double"
    assert (model.config["input_projection_initializer"], model.config["input_projection_bias"]) == ("normal", 0.1)
    assert {"layer0.b_h", "input_projection.W", "input_projection.b"} <= set(model.params)
