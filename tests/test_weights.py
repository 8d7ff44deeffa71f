"""Weights files: atomic writing, and one line for everything that is wrong with a file."""

from __future__ import annotations

import json
import os
import stat

import numpy as np
import pytest
from safetensors.numpy import save_file

import lstm_np
from lstm_np.weights import FORMAT, KEY, WeightsError, read_weights, write_weights


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "weights.safetensors"
    lstm_np.SequenceClassifier(4, 5, 3).save(path)
    return path


def refused(path, **settings):
    """The one line with which loading fails."""
    with pytest.raises(WeightsError) as error:
        lstm_np.SequenceClassifier.load(path, **settings)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


def test_round_trip_of_strided_arrays(tmp_path):
    array = np.arange(12.0).reshape(3, 4).T
    write_weights(tmp_path / "w", {"a": array}, {"k": 1})
    tensors, config = read_weights(tmp_path / "w")
    np.testing.assert_array_equal(tensors["a"], array)
    assert config == {"k": 1}


def test_nothing_else_is_left_in_the_folder(saved):
    assert os.listdir(saved.parent) == [saved.name]
    assert stat.S_IMODE(saved.stat().st_mode) & 0o400


def test_every_cut_of_a_file_is_refused(saved):
    content = saved.read_bytes()
    for length in [*range(0, 200, 7), len(content) // 2, len(content) - 1]:
        saved.write_bytes(content[:length])
        refused(saved)


def test_what_is_no_weights_file(saved, tmp_path):
    assert refused(tmp_path / "none").startswith("no such weights file")
    assert refused(tmp_path).startswith("cannot be read (Is a directory)")
    saved.write_bytes(b"<html>not here</html>")
    assert refused(saved).startswith("not a safetensors file, 21 bytes")
    saved.write_bytes((2**40).to_bytes(8, "little") + b"{" * 100)
    assert refused(saved).startswith("not a safetensors file")
    save_file({"a": np.ones(3)}, saved)
    assert refused(saved).startswith("a safetensors file, but not one of lstm_np's")
    save_file({"a": np.ones(3)}, saved, metadata={KEY: json.dumps({"format": FORMAT, "config": {}})})
    assert refused(saved).startswith("the file does not say which model")
    for config in ("[", "[1]", '{"format": 0}', json.dumps({"format": FORMAT, "config": 3})):
        save_file({"a": np.ones(3)}, saved, metadata={KEY: config})
        assert refused(saved).startswith(("damaged safetensors header", "a safetensors file, but not one of lstm_np's"))


def test_the_same_weights_are_the_same_bytes(saved):
    content = saved.read_bytes()
    for _ in range(5):
        lstm_np.SequenceClassifier.load(saved).save(saved)
        assert saved.read_bytes() == content


def test_weights_of_another_shape_are_refused(saved):
    tensors, config = read_weights(saved)
    tensors["layer0.U"] = np.ones((20, 6), np.float32)
    write_weights(saved, tensors, config)
    assert refused(saved) == "tensor 'layer0.U' has shape (20, 6), this model expects (20, 5)"
    del tensors["layer0.U"]
    write_weights(saved, tensors, config)
    assert refused(saved) == "tensor 'layer0.U' has shape None, this model expects (20, 5)"
    tensors["layer0.U"], tensors["extra"] = np.ones((20, 5), np.float32), np.ones(1)
    write_weights(saved, tensors, config)
    assert refused(saved).startswith("tensor 'extra' (1,) is not part of this model")


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 0}, {"cell": "none"}, {"hidden_size": "5"}, {"dropout": 2.0}, {"bias": 1}, {"double_bias": True}],
)
def test_a_configuration_that_makes_no_model_is_refused(saved, change):
    tensors, config = read_weights(saved)
    write_weights(saved, tensors, json.loads(json.dumps({**config, "model": {**config["model"], **change}})))
    assert refused(saved).startswith("the model it describes cannot be made")


def test_an_option_that_is_not_known_comes_from_a_newer_version(saved):
    tensors, config = read_weights(saved)
    write_weights(saved, tensors, {**config, "model": {**config["model"], "extra": 1}})
    assert refused(saved) == "written by a newer version of lstm_np (its model has 'extra'); update lstm_np"


@pytest.mark.parametrize("name", ["hidden_size", "input_size", "num_classes", "num_layers"])
def test_nothing_is_allocated_on_the_word_of_a_file(saved, name):
    tensors, config = read_weights(saved)
    config["model"][name] = 10**12
    write_weights(saved, tensors, config)
    assert refused(saved).startswith(f"{name} 1000000000000 needs more than the")


def test_a_refused_file_changes_nothing(saved):
    model = lstm_np.SequenceClassifier(4, 5, 3, seed=9)
    before = model.params.flat.copy()
    with pytest.raises(WeightsError):
        model.load_weights({"layer0.W": np.zeros((20, 4))}, saved)
    np.testing.assert_array_equal(model.params.flat, before)
