"""The tasks: their data are what they say, a run that was stopped goes on to the bit, and each result is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks.tasks import document, ours
from benchmarks.tasks.__main__ import main, small
from benchmarks.tasks.definitions import (
    ADDING,
    COPIED,
    COPY,
    DELAY,
    IGNORED,
    PERMUTED,
    PIXELS,
    PIXELS784,
    SYMBOLS,
    TASKS,
    draw,
    material_of,
    pooled,
)
from tests.commands.conftest import mnist  # noqa: F401  fixture


def test_the_sum_of_the_two_that_are_marked():
    x, y = draw(ADDING, 50, 3, 1)
    assert x.shape == (50, 200, 2)
    assert x.dtype == np.float32
    assert set(np.unique(x[:, :, 1])) == {0, 1}
    np.testing.assert_array_equal(x[:, :100, 1].sum(axis=1), 1)
    np.testing.assert_array_equal(x[:, 100:, 1].sum(axis=1), 1)
    np.testing.assert_allclose(y, (x[:, :, 0] * x[:, :, 1]).sum(axis=1), rtol=1e-6)
    assert 0 <= x[:, :, 0].min() < 0.1 < 0.9 < x[:, :, 0].max() < 1
    assert 0.1 < y.var() < 0.25  # what a model that says the mean is wrong by: 1/6
    np.testing.assert_array_equal(draw(ADDING, 50, 3, 1)[0], x)
    assert (draw(ADDING, 50, 3, 2)[0] != x).any()
    assert (draw(ADDING, 50, "test")[0] != x).any()


def test_the_symbols_are_asked_for_after_the_delay():
    x, labels = draw(COPY, 40, 1, 0)
    assert x.shape == (40, 70, SYMBOLS + 2)
    np.testing.assert_array_equal(x.sum(axis=2), 1)
    codes = x.argmax(axis=2)
    assert set(np.unique(codes[:, :COPIED])) == set(range(SYMBOLS))
    asks = codes == SYMBOLS + 1
    np.testing.assert_array_equal(asks.sum(axis=1), 1)
    np.testing.assert_array_equal(asks.argmax(axis=1), COPIED + DELAY - 1)
    assert (codes[:, COPIED : COPIED + DELAY - 1] == SYMBOLS).all()
    assert (codes[:, -COPIED:] == SYMBOLS).all()
    assert (labels[:, :-COPIED] == IGNORED).all()
    np.testing.assert_array_equal(labels[:, -COPIED:], codes[:, :COPIED])


def test_images_are_means_of_four_pixels(mnist):  # noqa: F811
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    np.testing.assert_array_equal(pooled(images)[0], [[3, 5], [11, 13]])  # 2.5 and so on are rounded up
    assert pooled(np.full((1, 2, 2), 255, np.uint8)).item() == 255
    plain, permuted = (material_of(task, 1, mnist, 10) for task in (PIXELS, PERMUTED))
    x = plain.test[0]
    assert x.shape == (10, 196, 1)
    assert 0 <= x.min() < x.max() <= 1
    np.testing.assert_array_equal(np.sort(x, axis=1), np.sort(permuted.test[0], axis=1))
    assert (x != permuted.test[0]).any()
    assert material_of(PIXELS784, 1, mnist, 10).test[0].shape == (10, 784, 1)


@pytest.mark.parametrize("task", [ADDING, COPY, PIXELS], ids=lambda task: task.name)
def test_a_run_that_was_stopped_goes_on_with_the_same_bits(task, mnist, tmp_path):  # noqa: F811
    task = replace(small(task), steps=12 if task is ADDING else task.steps, hidden_size=4, batch_size=8)
    arguments = {"threads": 1, "say": lambda line: None}

    def material():
        return material_of(task, 2, mnist, 48)

    whole = ours.train(task, 2, material(), tmp_path / "whole", stop=lambda: False, **arguments)
    for seen in (1, 3):
        answers = iter([False] * seen + [True] * 1000)
        stopped = ours.train(task, 2, material(), tmp_path / "run", stop=lambda: next(answers), **arguments)  # noqa: B023
        assert stopped is None
    said = []
    arguments["say"] = said.append
    found = ours.train(task, 2, material(), tmp_path / "run", stop=lambda: False, **arguments)
    total = len(material().train)
    assert said[0] == f"goes on from step 4 of {total}"
    assert {**found, "seconds": 0} == {**whole, "seconds": 0}
    assert len(found["losses"]) == 1
    assert ours.train(task, 2, material(), tmp_path / "run", stop=lambda: False, **arguments)["value"] == whole["value"]


def test_every_task_runs_and_is_written_at_once(mnist, tmp_path, capsys):  # noqa: F811
    flags = ["--small", "--seeds", "1", "--threads", "1", "--data-dir", str(mnist), "--out", str(tmp_path),
             "--work", str(tmp_path / "work")]  # fmt: skip
    names = ["pixels"]
    assert main([*names, *flags]) == 0
    first = json.loads((tmp_path / "tasks.json").read_text())
    systems = ["ours", "torch"] if find_spec("torch") else ["ours"]
    assert [document.identity(one) for one in first["results"]] == [(n, 1, s) for n in names for s in systems]
    for one in first["results"]:
        assert 0 <= one["value"] <= 1
        assert one["settings"]["hidden_size"] == 8
    if len(systems) == 2:  # the same weights and batches: the same curve
        mine, theirs = first["results"][:2]
        np.testing.assert_allclose(mine["losses"], theirs["losses"], rtol=1e-5)
        assert mine["value"] == theirs["value"]
    capsys.readouterr()
    assert main([*names, *flags]) == 0
    assert capsys.readouterr().out == ""  # nothing is missing
    assert json.loads((tmp_path / "tasks.json").read_text()) == first
    assert main([*names, *flags, "--minutes", "0", "--seeds", "1", "2"]) == 1
    assert "runs are missing or under way; the same command goes on" in capsys.readouterr().out


def test_another_setting_is_another_run(mnist, tmp_path, monkeypatch):  # noqa: F811
    """The checkpoint of a run with other settings is not what a run goes on from."""
    monkeypatch.chdir(tmp_path)
    flags = ["pixels", "--small", "--seeds", "1", "--threads", "1", "--data-dir", str(mnist), "--peer", "none"]
    assert main(flags) == 0
    first = json.loads((tmp_path / "tasks-work" / "tasks.json").read_text())["results"][0]
    monkeypatch.setitem(TASKS, "pixels", replace(PIXELS, learning_rate=0.01))
    assert main(flags) == 0
    second = json.loads((tmp_path / "tasks-work" / "tasks.json").read_text())["results"][0]
    assert second["settings"]["learning_rate"] == 0.01
    assert second["losses"] != first["losses"]
    assert main([*flags[:-1], "none", "--threads", "2"]) == 2  # those results are of one thread


def test_what_results_say(capsys, tmp_path):
    def result(task, seed, system, value, **settings):
        return {"task": task.name, "seed": seed, "system": system, "value": value, "seconds": 90.0, "steps": 2500,
                "settings": {**document.settings_of(task), **settings}}  # fmt: skip

    found = {"results": [
        result(PIXELS, 1, "ours", 0.97), result(PIXELS, 2, "ours", 0.95), result(PIXELS, 1, "torch", 0.962),
        result(ADDING, 1, "ours", 0.002), result(COPY, 1, "ours", 0.5, hidden_size=3),
    ]}  # fmt: skip
    assert document.verdicts(found, ["adding", "copy", "pixels"]) == [
        "adding: 1 of 1 seeds reach mean squared error < 0.01",
        "copy: no result yet",
        "pixels: 1 of 2 seeds reach accuracy >= 0.96; the mean is -0.0020 from PyTorch's (at most 0.005 wanted)",
    ]
    assert [document.is_reached(found, task) for task in (ADDING, PIXELS)] == [True, False]
    near, far = ({"results": [result(PIXELS, 1, "ours", 0.97), result(PIXELS, 1, "torch", of)]} for of in (0.966, 0.98))
    assert [document.is_reached(one, PIXELS) for one in (near, far)] == [True, False]
    assert document.table(found)[2:] == [
        "| adding problem, T = 200 | lstm_np | 64, 64, 2,500 | mean squared error < 0.01 | 0.0020 | **0.0020** | 1.5 |",
        "| MNIST by pixels, 14x14 | lstm_np | 96, 128, 2,500 | accuracy >= 0.96 | 0.9700, 0.9500 | **0.9600** | 1.5 |",
        "| MNIST by pixels, 14x14 | PyTorch | 96, 128, 2,500 | accuracy >= 0.96 | 0.9620 | **0.9620** | 1.5 |",
    ]
    with pytest.raises(SystemExit) as end:
        main(["adding", "addding"])
    assert end.value.code == 2
    assert "unknown task 'addding'; there are: " + ", ".join(TASKS) in capsys.readouterr().err
    assert main(["pixels", "--data-dir", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
