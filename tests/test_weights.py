"""Weights files: what they hold comes back, and one line for everything that is wrong with one."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct

import numpy as np
import pytest
from safetensors.numpy import load, save, save_file

import lstm_np
from lstm_np.weights import (
    DTYPES,
    FORMAT,
    KEY,
    WeightsError,
    content_sum,
    read_file,
    read_weights,
    write_file,
    write_weights,
)

FLIPS = 400


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


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def opened(path):
    """(arrays, metadata in our name) of a file, nothing checked."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return load(content), json.loads(header["__metadata__"][KEY])


def closed(path, arrays, stated):
    """The opposite."""
    path.write_bytes(save(arrays, metadata={KEY: canonical(stated)}))


# ---- what is written comes back


def test_round_trip_of_strided_arrays(tmp_path):
    array = np.arange(12.0).reshape(3, 4).T
    write_weights(tmp_path / "w", {"a": array, "b": array.astype(">f4")}, {"k": 1})
    tensors, config = read_weights(tmp_path / "w")
    np.testing.assert_array_equal(tensors["a"], array)
    np.testing.assert_array_equal(tensors["b"], array)
    assert config == {"k": 1}


def test_a_checkpoint_holds_arrays_of_every_kind(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 2, (2, 3)).astype(name) for name in DTYPES.values()}
    arrays |= {"none": np.zeros((0, 3)), "scalar": np.array(7), "not finite": np.array([np.nan, np.inf])}
    config = {"step": np.int64(3), "rate": np.float32(0.5), "done": np.bool_(True), "best": [1e-300, -np.inf], "Ω": {}}
    write_file(tmp_path / "c", "checkpoint", arrays, config)
    read, stated = read_file(tmp_path / "c", "checkpoint")
    assert stated == {"step": 3, "rate": 0.5, "done": True, "best": [1e-300, -np.inf], "Ω": {}}
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read[name], array)


def test_one_kind_is_not_read_as_another(saved, tmp_path):
    with pytest.raises(WeightsError, match=r"weights\.safetensors: a weights file, expected a checkpoint file"):
        read_file(saved, "checkpoint")
    write_file(tmp_path / "c", "checkpoint", {"a": np.ones(3)}, {})
    assert refused(tmp_path / "c") == "a checkpoint file, expected a weights file"


def test_what_a_file_cannot_hold_is_refused_before_it_is_written(tmp_path):
    path = tmp_path / "w"
    line = "w: a weights file cannot hold 'a', which is int64; expected float16, float32, float64"
    with pytest.raises(ValueError, match=line):
        write_weights(path, {"a": np.ones(3, np.int64)}, {})
    with pytest.raises(ValueError, match="w: a checkpoint file cannot hold 'a', which is complex128; expected bool, "):
        write_file(path, "checkpoint", {"a": np.ones(3, complex)}, {})
    with pytest.raises(ValueError, match=r"w: the configuration cannot be written as JSON \(set is no plain value\)"):
        write_weights(path, {"a": np.ones(3)}, {"k": {1, 2}})
    model = lstm_np.SequenceClassifier(4, 5, 3, dtype="complex128")
    with pytest.raises(ValueError, match=r"w: a weights file cannot hold 'layer0\.W', which is complex128"):
        model.save(path)
    assert not path.exists()


def test_notes_may_have_numbers_of_numpy(saved):
    model = lstm_np.SequenceClassifier(4, 5, 3)
    model.notes = {"steps": np.int64(5), 3: "three", "loss": float("nan")}
    model.save(saved)
    notes = lstm_np.SequenceClassifier.load(saved).notes
    assert (notes["steps"], notes["3"], np.isnan(notes["loss"])) == (5, "three", True)


def test_nothing_else_is_left_in_the_folder(saved):
    assert os.listdir(saved.parent) == [saved.name]
    assert stat.S_IMODE(saved.stat().st_mode) & 0o400


def test_the_same_weights_are_the_same_bytes(saved):
    content = saved.read_bytes()
    for _ in range(5):
        lstm_np.SequenceClassifier.load(saved).save(saved)
        assert saved.read_bytes() == content


# ---- the sum


def test_the_sum_is_what_the_module_says_it_is(saved):
    arrays, stated = opened(saved)
    told = stated.pop("sha256")
    parts = [canonical(stated).encode()]
    for name in sorted(arrays):
        parts += [f'["{name}","F32",{canonical(arrays[name].shape)}]'.encode(), arrays[name].tobytes()]
    assert hashlib.sha256(b"".join(struct.pack("<Q", len(part)) + part for part in parts)).hexdigest() == told
    assert stated.keys() == {"config", "format", "kind"}


CHANGES = {
    "a value": lambda arrays, stated: arrays.update({"layer0.b": arrays["layer0.b"] * np.float32(1 + 1e-6)}),
    "a name": lambda arrays, stated: arrays.update({"layer0.B": arrays.pop("layer0.b")}),
    "two names": lambda arrays, stated: arrays.update(
        {"layer0.b": arrays["readout.b"], "readout.b": arrays["layer0.b"]}
    ),
    "a shape": lambda arrays, stated: arrays.update({"layer0.U": arrays["layer0.U"].reshape(5, 20)}),
    "a dtype": lambda arrays, stated: arrays.update({"layer0.b": arrays["layer0.b"].view(np.float16)}),
    "a tensor more": lambda arrays, stated: arrays.update({"more": np.ones(0, np.float32)}),
    "a tensor less": lambda arrays, stated: arrays.pop("readout.b"),
    "an option": lambda arrays, stated: stated["config"]["model"].update({"seed": 1}),
    "an option more": lambda arrays, stated: stated["config"]["model"].update({"extra": 1}),
    "an option less": lambda arrays, stated: stated["config"]["model"].pop("read_out"),
    "a note": lambda arrays, stated: stated["config"]["notes"].update({"view": "columns"}),
    "the sum": lambda arrays, stated: stated.update({"sha256": stated["sha256"].upper()}),
}  # fmt: skip


@pytest.mark.parametrize("change", list(CHANGES))
def test_any_change_is_noticed(saved, change):
    arrays, stated = opened(saved)
    closed(saved, arrays, stated)
    lstm_np.SequenceClassifier.load(saved)
    CHANGES[change](arrays, stated)
    closed(saved, arrays, stated)
    assert refused(saved).startswith("damaged or changed since it was written, its SHA-256 is another")


def test_the_kind_and_the_format_are_summed_too(saved):
    arrays, stated = opened(saved)
    told = stated.pop("sha256")
    assert content_sum(stated, arrays) == told
    for key, value in (("kind", "checkpoint"), ("format", 3)):
        assert content_sum({**stated, key: value}, arrays) != told
    closed(saved, arrays, {**stated, "kind": "checkpoint", "sha256": told})
    with pytest.raises(WeightsError, match="its SHA-256 is another"):
        read_file(saved, "checkpoint")


def test_each_part_is_summed_by_itself():
    """The same bytes under another name, of another dtype and in another shape."""
    array = np.arange(6, dtype=np.float32)
    told = content_sum({"k": 1}, {"a": array})
    for others in ({"b": array}, {"a": array.view(np.int32)}, {"a": array.reshape(2, 3)}, {"a": -array}):
        assert content_sum({"k": 1}, others) != told
    assert content_sum({"k": 2}, {"a": array}) != told
    assert content_sum({"l": 1}, {"a": array}) != told
    assert content_sum({"k": 1}, {"a": array.copy()}) == told


def test_names_and_values_cannot_change_places():
    """Each part is summed with its length: what ends one array and begins the next cannot be told otherwise."""
    one = {"a": np.frombuffer(b"abcdefgh", np.float32), "b": np.frombuffer(b"ijkl", np.float32)}
    other = {"a": np.frombuffer(b"abcd", np.float32), "b": np.frombuffer(b"efghijkl", np.float32)}
    assert content_sum({}, one) != content_sum({}, other)


def flip(content, bit):
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def test_every_bit_of_a_small_file_counts(tmp_path):
    path = tmp_path / "w"
    # numbers with an exponent, letters outside ASCII and hexadecimal digits: two ways to write one thing
    config = {"rate": 1e-10, "limit": 1e300, "who": "Ωmega \x7f \ud800 /", "none": None, "empty": [[], {}], "e": "E"}
    write_file(
        path, "weights", {"a.W": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "b": np.zeros(1)}, config
    )
    content = path.read_bytes()
    assert read_weights(path)[1] == config
    for bit in range(8 * len(content)):
        path.write_bytes(flip(content, bit))
        with pytest.raises(WeightsError) as error:
            read_weights(path)
        assert "\n" not in str(error.value)
    path.write_bytes(content)
    read_weights(path)


def test_a_flipped_bit_anywhere_in_a_models_file_is_noticed(saved):
    content = saved.read_bytes()
    for bit in np.random.default_rng(0).choice(8 * len(content), FLIPS, replace=False).tolist():
        saved.write_bytes(flip(content, bit))
        refused(saved)


def test_every_cut_of_a_file_is_refused(saved):
    content = saved.read_bytes()
    for length in [*range(0, 200, 7), len(content) // 2, len(content) - 1]:
        saved.write_bytes(content[:length])
        refused(saved)
    saved.write_bytes(content + b"\0")
    refused(saved)


# ---- what is no weights file


def test_a_file_that_is_cut_short_is_said_to_be(saved):
    """As a copy that was interrupted is, wherever that was."""
    content = saved.read_bytes()
    for length in (9, 10, 100, int.from_bytes(content[:8], "little") + 7):
        saved.write_bytes(content[:length])
        assert refused(saved).startswith(f"a safetensors file that is cut short, {length:,} bytes, of which the header")
    for length in (0, 5, 8):
        saved.write_bytes(content[:length])
        assert refused(saved).startswith(f"not a safetensors file, {length} bytes")
    for length in range(int.from_bytes(content[:8], "little") + 8, len(content), 50):
        saved.write_bytes(content[:length])
        assert refused(saved).startswith("damaged safetensors file")


def test_what_is_no_weights_file(saved, tmp_path):
    assert refused(tmp_path / "none").startswith("no such weights file")
    assert refused(tmp_path).startswith("cannot be read (Is a directory)")
    saved.write_bytes(b"<html>not here</html>")
    assert refused(saved).startswith("not a safetensors file, 21 bytes")
    saved.write_bytes((2**40).to_bytes(8, "little") + b"{" * 100)
    assert refused(saved).startswith("not a safetensors file")
    deep = b'{"a":' * 50_000
    saved.write_bytes(len(deep).to_bytes(8, "little") + deep)
    assert refused(saved).startswith("damaged safetensors header")
    save_file({"a": np.ones(3)}, saved)
    assert refused(saved).startswith("a safetensors file, but not one of lstm_np's")
    for config in ("[", "[1]", '{"format":0}', '{"format":true}', canonical({"format": FORMAT, "config": 3})):
        save_file({"a": np.ones(3)}, saved, metadata={KEY: config})
        assert refused(saved).startswith(
            ("damaged safetensors header", "a safetensors file, but not one of lstm_np's", "has no SHA-256")
        )


def test_a_file_of_format_2_without_its_sum_is_refused(saved):
    arrays, stated = opened(saved)
    del stated["sha256"]
    closed(saved, arrays, stated)
    assert refused(saved) == "has no SHA-256, as every file of format 2 has; train again or restore a copy"


def test_a_sum_does_not_hide_behind_format_1(saved):
    arrays, stated = opened(saved)
    closed(saved, arrays, {**stated, "format": 1})
    assert refused(saved) == "damaged metadata, expected config, format; train again or restore a copy"


def test_another_spelling_of_the_metadata_is_refused(saved):
    arrays, stated = opened(saved)
    saved.write_bytes(save(arrays, metadata={KEY: json.dumps(stated)}))
    assert refused(saved).startswith("damaged safetensors header")


@pytest.mark.parametrize("number", [3, 10**20])
def test_a_newer_format_is_said_to_be_one(saved, number):
    closed(saved, {"a": np.ones(3)}, {"format": number, "config": {}})
    assert refused(saved) == f"written by a newer version of lstm_np, in format {number}; update lstm_np"


def test_what_a_newer_version_may_say_besides(saved):
    tensors, config = read_weights(saved)
    write_weights(saved, tensors, {**config, "model": {**config["model"], "extra": 1}})
    assert refused(saved) == "written by a newer version of lstm_np (its model has 'extra'); update lstm_np"
    write_weights(saved, tensors, {**config, "normalisation": {}})
    assert refused(saved) == "written by a newer version of lstm_np (it says normalisation); update lstm_np"


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "I32", "F4", "nonsense"])
def test_dtypes_that_are_not_read(saved, dtype):
    content = saved.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["layer0.W"]["dtype"] = dtype
    text = json.dumps(header).encode()
    saved.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    assert refused(saved) == f"tensor 'layer0.W' has dtype {dtype}, expected F16, F32, F64"


# ---- weights that do not fit


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(saved, value):
    model = lstm_np.SequenceClassifier(4, 5, 3)
    model.params["layer0.U"][3, 2] = value
    model.save(saved)
    line = (
        "1 of the 100 values of tensor 'layer0.U' are not finite (NaN or infinity): training diverged; "
        "take an earlier file, such as the run's best.safetensors"
    )
    assert refused(saved) == line
    other = lstm_np.SequenceClassifier(4, 5, 3, seed=1)
    before = other.params.flat.copy()
    with pytest.raises(WeightsError, match=r"^the model: 1 of the 100 values of tensor 'layer0\.U' are not finite"):
        other.load_weights(model.params, "the model")
    with pytest.raises(WeightsError, match=r"^x: tensor 'layer0\.W' has dtype object, expected numbers"):
        other.load_weights(dict(other.params) | {"layer0.W": np.full((20, 4), None)}, "x")
    np.testing.assert_array_equal(other.params.flat, before)


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 0}, {"hidden_size": "5"}, {"dropout": 2.0}, {"bias": 1}, {"double_bias": True}],
)
def test_a_configuration_that_makes_no_model_is_refused(saved, change):
    tensors, config = read_weights(saved)
    write_weights(saved, tensors, json.loads(json.dumps({**config, "model": {**config["model"], **change}})))
    assert refused(saved).startswith("the model it describes cannot be made")


def test_a_cell_that_is_not_known_is_never_imported(saved):
    tensors, config = read_weights(saved)
    write_weights(saved, tensors, {**config, "model": {**config["model"], "cell": "none"}})
    assert refused(saved).startswith("its cell 'none' is not known here; register it first")


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
