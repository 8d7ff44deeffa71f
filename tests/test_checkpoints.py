"""Checkpoint files and their folder: what goes in comes out, damaged ones are passed over, one process at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lstm_np
from lstm_np.checkpoints import (
    DEFAULT,
    Checkpoint,
    CheckpointError,
    Checkpoints,
    Every,
    Keeper,
    read_checkpoint,
    write_checkpoint,
)
from lstm_np.data import Batches
from lstm_np.loop import Epoch, Metrics, Position, Step, train
from lstm_np.weights import WeightsError, write_file


def checkpoint(step=7, value=1.0):
    parameters = {"layer0.W": np.full((2, 3), value, np.float32), "readout.b": np.arange(2.0)}
    steps = {"optimizer": {"lr": 0.1, "steps": step, "slots": {"m": dict(parameters)}}, "sums": {"loss": 1 / 3}}
    run = {"best": {}, "list": [1, None, [0.1, True]], "more": {"array": np.array([1, 2], np.int64)}}
    return Checkpoint(Position(2, 1, step), parameters, steps, run)


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.tobytes() == b.tobytes() and a.shape == b.shape
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_what_is_written_is_read(tmp_path):
    written = checkpoint()
    write_checkpoint(tmp_path / "file", written)
    read = read_checkpoint(tmp_path / "file")
    assert read.position == written.position
    for part in ("parameters", "steps", "run"):
        assert same(getattr(written, part), getattr(read, part)), part


def test_the_same_state_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        write_checkpoint(tmp_path / name, checkpoint())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_changed_byte_is_refused(tmp_path):
    write_checkpoint(tmp_path / "file", checkpoint())
    content = bytearray((tmp_path / "file").read_bytes())
    for place in range(0, len(content), 37):
        content[place] ^= 4
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(WeightsError, match=f"^{tmp_path}/file: "):
            read_checkpoint(tmp_path / "file")
        content[place] ^= 4


@pytest.mark.parametrize(
    ("arrays", "config"),
    [
        ({}, {}),
        ({}, {"position": {}, "parameters": {}, "steps": {}, "run": []}),
        ({}, {"position": {"epoch": -1, "batch": 0, "step": 0}, "parameters": {}, "steps": {}, "run": {}}),
        ({}, {"position": {"epoch": 0, "size": 0}, "parameters": {}, "steps": {}, "run": {}}),
        ({}, {"position": {}, "parameters": {"W": {"$array": "W"}}, "steps": {}, "run": {}}),
    ],
)
def test_a_sound_file_of_something_else_is_refused_in_a_line(tmp_path, arrays, config):
    write_file(tmp_path / "file", "checkpoint", arrays, config)
    with pytest.raises(WeightsError, match=r"no checkpoint of this version of lstm_np \(.+\)$") as error:
        read_checkpoint(tmp_path / "file")
    assert "\n" not in str(error.value)
    model = lstm_np.SequenceClassifier(3, 4, 2)
    model.save(tmp_path / "weights")
    with pytest.raises(WeightsError, match="a weights file, expected a checkpoint file"):
        read_checkpoint(tmp_path / "weights")


# ---- the folder


def steps_in(folder):
    return [int(path.name[5:14]) for path in Checkpoints(folder).files()]


def test_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as kept:
        for step in (0, 5, 10, 15):
            kept.write(checkpoint(step))
    assert steps_in(tmp_path / "c") == [10, 15]
    assert Checkpoints(tmp_path / "c").newest(pytest.fail).position.step == 15


def test_damaged_ones_are_passed_over_and_said(tmp_path):
    with Checkpoints(tmp_path) as kept:
        for step in (5, 10, 15):
            kept.write(checkpoint(step))
        newest = kept.files()[-1]
        newest.write_bytes(newest.read_bytes()[:-1])
        said = []
        assert kept.newest(said.append).position.step == 10
        (line,) = said
        assert line.startswith(f"{newest}: damaged")
        assert line.endswith("; the checkpoint before it is taken")
        assert newest.with_name(f"{newest.name}.damaged").exists()
        kept.write(checkpoint(11))  # is the newest now, though the damaged one had a larger number
        assert steps_in(tmp_path) == [5, 10, 11]


def test_nothing_to_go_on_from(tmp_path):
    with pytest.raises(CheckpointError, match=r": no checkpoint here; nothing was learnt yet, so begin anew$"):
        Checkpoints(tmp_path / "none").newest(pytest.fail)
    (tmp_path / "step-000000003.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r": none of its 1 checkpoints can be used; .*step-000000003"):
        Checkpoints(tmp_path).newest(lambda _: None)


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".step-000000003.safetensors.abc.part").write_bytes(b"half")
    (tmp_path / "mine.part").write_bytes(b"")
    with Checkpoints(tmp_path):
        assert sorted(os.listdir(tmp_path)) == ["lock", "mine.part"]


@pytest.mark.skipif(os.name != "posix", reason="one process can lock a file twice elsewhere")
def test_two_processes_in_one_folder(tmp_path):
    code = (
        "import sys; from lstm_np.checkpoints import Checkpoints\n"
        "try:\n    Checkpoints(sys.argv[1]).__enter__()\nexcept ValueError as e: print(e)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(lstm_np.__file__).parents[1])}
    with Checkpoints(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.stdout == f"{tmp_path}: another process is training in this folder\n", done.stderr
    assert subprocess.run(command, capture_output=True, text=True, env=environment).stdout == ""


# ---- when


def test_every():
    assert [Every.parse(text) for text in ("200", "30s", "5m", "2h")] == [
        Every(steps=200), Every(seconds=30.0), Every(seconds=300.0), Every(seconds=7200.0),
    ]  # fmt: skip
    for text in ("", "0", "-1", "5 m", "1.5", "10x", "s"):
        with pytest.raises(ValueError, match=r"^must be a number of steps such as 200, or a time such as 30s or 5m"):
            Every.parse(text)


def steps_kept(tmp_path, monkeypatch, every, seconds_a_step, steps=30, per_epoch=10):
    """After which steps checkpoints are written where a step takes so long."""
    now, kept = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    position = Position()

    class Noting(Checkpoints):
        def write(self, checkpoint):
            kept.append(checkpoint.position.step)
            return Path()

    keeper = Keeper(Noting(tmp_path), every, lambda: Checkpoint(position, {}, {}), pytest.fail)
    keeper.begin()
    metrics = Metrics(0.0, 0.0, 1, 1)
    for _ in range(steps):
        now[0] += seconds_a_step
        position = position.next_batch()
        keeper.on_step(Step(position, 1, 0.0, 0, None))
        if position.batch == per_epoch:
            position = position.next_epoch()
            keeper.on_epoch(Epoch(position.epoch, position.step, metrics, None, 1.0))
    keeper.finish(position)
    return kept


def test_when_checkpoints_are_written(tmp_path, monkeypatch):
    when = lambda *given, **more: steps_kept(tmp_path, monkeypatch, *given, **more)  # noqa: E731
    assert when(DEFAULT, 2.0) == [0, 10, 20, 30]  # each epoch
    assert when(DEFAULT, 0.5) == [0, 20, 30]  # but at most one in 10 s, and the end
    assert when(DEFAULT, 25.0) == [0, 3, 6, 9, 10, 13, 16, 19, 20, 23, 26, 29, 30]  # each minute, and each epoch
    assert when(Every.parse("7"), 0.001) == [0, 7, 14, 21, 28, 30]
    assert when(Every.parse("5s"), 1.0) == [
        0,
        5,
        10,
        15,
        20,
        25,
        30,
        30,
    ]  # the last one once more: the epoch is measured


def test_a_full_disk_does_not_end_training(tmp_path):
    """A checkpoint that cannot be written is said; the older one stays, and the last one must be written."""
    model = lstm_np.SequenceClassifier(3, 4, 2)
    rng = np.random.default_rng(0)
    batches = Batches(rng.integers(0, 9, (40, 5, 3)).astype(np.uint8), rng.integers(0, 2, 40), 10)
    steps, said = model.training_steps(lstm_np.Adam(model.params), batches), []

    class Full(Checkpoints):
        full = False

        def write(self, checkpoint):
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(checkpoint)

    with Full(tmp_path) as kept:
        keeper = Keeper(kept, Every.parse("1"), lambda: Checkpoint.of(steps, {}), said.append)
        keeper.begin()
        kept.full = True
        train(steps, epochs=1, on_step=keeper.on_step)
        assert said == [
            f"no checkpoint after step {n} (No space left on device); training goes on" for n in (1, 2, 3, 4)
        ]
        assert steps_in(tmp_path) == [0]
        with pytest.raises(OSError, match="No space left"):
            keeper.finish(model.position)
        kept.full = False
        keeper.finish(model.position)
        assert steps_in(tmp_path) == [0, 4]


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    model = lstm_np.SequenceClassifier(3, 4, 2)
    steps = model.training_steps(lstm_np.Adam(model.params))
    with Checkpoints(tmp_path) as kept:
        keeper = Keeper(kept, DEFAULT, lambda: Checkpoint.of(steps, {}), pytest.fail)
        model.params["layer0.b"][1] = np.nan
        keeper.save()
        assert steps_in(tmp_path) == []


# ---- from Python


def data():
    rng = np.random.default_rng(1)
    return rng.standard_normal((45, 6, 3)), rng.integers(0, 3, 45)


def fit(model, folder=None, **changes):
    arguments = {"epochs": 4, "batch_size": 8, "clip_norm": 1.0, "validation_data": data(), "checkpoints": folder}
    return model.fit(*data(), **{**arguments, **changes})


def fresh(**settings):
    return lstm_np.SequenceClassifier(3, 5, 3, num_layers=2, dropout=0.3, **settings)


class Crash(Exception):
    pass


def crash_at(model, folder, step, **changes):
    """A `fit` that ends in the middle of that step, as a crash would end it."""
    gradients = model.batch_gradients

    def broken(batch, number, into):
        if number == step:
            raise Crash
        return gradients(batch, number, into)

    model.batch_gradients = broken
    with pytest.raises(Crash):
        fit(model, folder, checkpoint_every="3", **changes)


@pytest.mark.parametrize("step", [1, 2, 6, 7, 12, 13, 20, 24])
def test_fit_goes_on_after_a_crash_with_the_same_bits(tmp_path, step):
    whole = fresh()
    expected = fit(whole)
    crash_at(fresh(), tmp_path, step)
    model = lstm_np.SequenceClassifier.resume(tmp_path)
    assert model.position.step == 3 * ((step - 1) // 3)
    assert fit(model, tmp_path) == expected
    np.testing.assert_array_equal(model.params.flat, whole.params.flat)
    assert model.position == whole.position


def test_fit_with_an_optimizer_goes_on_with_another_of_its_kind(tmp_path):
    def sgd(params):
        return lstm_np.SGD(params, lr=0.05, momentum=0.9)

    whole, broken = fresh(), fresh()
    expected = fit(whole, optimizer=sgd(whole.params))
    crash_at(broken, tmp_path, 11, optimizer=sgd(broken.params))
    model = lstm_np.SequenceClassifier.resume(tmp_path)
    with pytest.raises(ValueError, match=r"^fit goes on with a call that was cut short, .*; optimizer: "):
        fit(model, tmp_path, optimizer=lstm_np.SGD(model.params, lr=0.06, momentum=0.9))
    assert fit(model, tmp_path, optimizer=sgd(model.params)) == expected
    np.testing.assert_array_equal(model.params.flat, whole.params.flat)


def test_fit_goes_on_for_longer(tmp_path):
    whole = fresh()
    expected = fit(whole, epochs=6)
    fit(fresh(), tmp_path)
    model = lstm_np.SequenceClassifier.resume(tmp_path)
    assert fit(model, tmp_path, epochs=6) == expected
    np.testing.assert_array_equal(model.params.flat, whole.params.flat)
    again = lstm_np.SequenceClassifier.resume(tmp_path)
    assert fit(again, tmp_path, epochs=6) == expected  # the finished call again: nothing is left to do
    assert again.position == whole.position
    assert len(fit(again, tmp_path, epochs=1)) == 1  # and a further one


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"batch_size": 9}, "batch_size: 9, before 8"),
        ({"clip_norm": None}, "clip_norm: None, before 1.0"),
        ({"shuffle": False}, "shuffle: False, before True"),
        ({"validation_data": None}, "validation_data: None, before '"),
        ({"validation_data": (data()[0] + 1, data()[1])}, "validation_data: others"),
    ],
)
def test_another_call_than_the_one_that_was_cut_short_is_refused(tmp_path, changes, found):
    crash_at(fresh(), tmp_path, 10)
    model = lstm_np.SequenceClassifier.resume(tmp_path)
    before = model.params.flat.copy()
    with pytest.raises(ValueError, match=r"^fit goes on with a call that was cut short, ") as error:
        fit(model, tmp_path, **changes)
    assert found in str(error.value)
    x, labels = data()
    with pytest.raises(ValueError, match=r"; x and labels: others$"):
        model.fit(x * 2, labels, epochs=4, batch_size=8, clip_norm=1.0, validation_data=data())
    np.testing.assert_array_equal(model.params.flat, before)


def test_one_folder_is_one_training(tmp_path):
    model = fresh()
    first = fit(model, tmp_path, epochs=1)
    assert [epoch.number for epoch in first + fit(model, tmp_path, epochs=1)] == [1, 2]
    with pytest.raises(CheckpointError, match=r"holds the checkpoints of another training; SequenceClassifier\.resume"):
        fit(fresh(), tmp_path)
    with Checkpoints(tmp_path / "other"), pytest.raises(CheckpointError, match="another process is training"):
        fit(fresh(), tmp_path / "other")


def test_a_damaged_checkpoint_is_a_warning(tmp_path):
    fit(fresh(), tmp_path, checkpoint_every="10")
    newest = Checkpoints(tmp_path).files()[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.warns(RuntimeWarning, match="the checkpoint before it is taken"):
        assert lstm_np.SequenceClassifier.resume(tmp_path).position.step == 20


def test_the_configuration_is_plain_to_read(tmp_path):
    """Any safetensors reader sees what a checkpoint says of itself."""
    from safetensors import safe_open

    fit(fresh(), tmp_path)
    with safe_open(Checkpoints(tmp_path).files()[-1], "np") as file:
        stated = json.loads(file.metadata()["lstm_np"])
        assert "parameters/layer0.W" in file.keys()  # noqa: SIM118
    assert stated["kind"] == "checkpoint"
    assert stated["config"]["position"] == {"epoch": 4, "batch": 0, "step": 24}
