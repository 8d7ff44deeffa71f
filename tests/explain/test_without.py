"""With and without a gate: what is held, the tasks, and the table."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.explain import without
from lstm_np.explain.without import Result, Sizes, Task, compare, held_at, memory_task, rows_task, table


@pytest.mark.parametrize(
    ("gate", "cell", "hold"),
    [
        ("f", "lstm", {"f": 1.0}),
        ("o", "lstm", {"o": 1.0}),
        ("z", "gru", {"z": 0.0}),
        ("r", "gru_reset_before", {"r": 1.0}),
        ("g=0.5", "lstm", {"g": 0.5}),
        ("f=0", "lstm", {"f": 0.0}),
    ],
)
def test_what_a_gate_is_held_at(gate, cell, hold):
    assert held_at(gate, cell) == hold


@pytest.mark.parametrize(
    ("gate", "cell", "line"),
    [
        ("z", "lstm", "a lstm cell has no value 'z' to do without; there are: i, f, o, g, c, tanh_c, h"),
        ("g", "lstm", "'g' does not say what 'g' is held at; expected g=NUMBER"),
        ("f=open", "lstm", "'f=open' does not say what 'f' is held at; expected f=NUMBER"),
    ],
)
def test_what_is_refused(gate, cell, line):
    with pytest.raises(lstm_np.HoldError) as refused:
        held_at(gate, cell)
    assert str(refused.value) == line


def test_the_memory_task_is_what_it_says():
    task = memory_task(40, 20)
    (x, labels), (test, _) = task.train, task.test
    assert x.shape == (40, 20, 9)
    assert test.shape == (8, 20, 9)
    assert (x[:, :, :8].sum(axis=2) == 1).all()
    assert (x[:, :, 8].sum(axis=1) == 12).all()
    for sequence, label in zip(x, labels, strict=True):
        last = np.flatnonzero(sequence[:, 8])[-1]
        assert sequence[last, :8].argmax() == label
    np.testing.assert_array_equal(memory_task(40, 20).train[0], x)
    assert not np.array_equal(x[:8], test)


def test_the_rows_task():
    task = rows_task(lstm_np.data.load_digits(), 30)
    assert task.train[0].shape == (30, 8, 8)
    assert task.test[0].shape == (500, 8, 8)
    assert task.train[0].max() == 1.0
    assert task.about == "digits, 30 images of 8 rows with 8 pixels"


def test_both_are_trained_from_every_seed_and_only_the_gate_differs():
    heard: list[str] = []
    task = memory_task(30, 14)
    sizes = Sizes(hidden_size=5, epochs=1, batch_size=10)
    results = compare("f", [task], sizes, [0, 1], lstm_np.get_backend("numpy"), heard.append)
    assert [(result.held, result.seed) for result in results] == [(False, 0), (True, 0), (False, 1), (True, 1)]
    assert all((result.mean, result.open) == (1.0, 1.0) for result in results if result.held)
    assert all(result.mean < 1 for result in results if not result.held)
    assert len(heard) == 4
    assert heard[1].startswith("memory, seed 0, without it: ")
    plain = lstm_np.SequenceClassifier(9, 5, 8, hold={"f": 1.0}, seed=1)
    plain.fit(
        *task.train,
        epochs=1,
        batch_size=10,
        optimizer=lstm_np.Adam(plain.params, lr=sizes.learning_rate),
        clip_norm=1.0,
    )
    assert plain.evaluate(*task.test).loss == results[3].loss


def a_result(held: bool, seed: int, accuracy: float) -> Result:
    return Result("memory", held, seed, accuracy, 1 - accuracy, 0.75, 0.1, 0.5)


@pytest.mark.parametrize(
    ("without_it", "sentence"),
    [
        ([0.5, 0.6], "memory: without f accuracy is lower for every seed, by 30.00% on average."),
        ([0.8, 0.9], "memory: without f the accuracy is the same for every seed; compare the losses."),
        ([0.9, 0.95], "memory: without f accuracy is higher for every seed, by 7.50% on average."),
        ([0.5, 0.95], "memory: the seeds disagree; without f accuracy is lower by 12.50% on average."),
    ],
)
def test_the_table_says_what_was_found(without_it, sentence):
    task = Task("memory", "a task", (np.zeros((1, 1, 1)),) * 2, (np.zeros((1, 1, 1)),) * 2, 4)
    results = [a_result(False, seed, accuracy) for seed, accuracy in enumerate((0.8, 0.9))]
    results += [a_result(True, seed, accuracy) for seed, accuracy in enumerate(without_it)]
    lines = table("f", [task], Sizes(), results).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1] == sentence
    learnt = next(line for line in lines if line.startswith("memory   learnt")).split()
    assert learnt[2:6] == ["85.00%", "80.00%", "90.00%", "0.1500"]
    assert learnt[6:] == ["0.75", "10.0%", "50.0%"]
    held = next(line for line in lines if line.startswith("memory   held at 1")).split()
    assert held[4] == f"{np.mean(without_it):.2%}"
    assert "chance 25.0%" in "\n".join(lines)
    assert without.as_json("f", [task], Sizes(), results)["results"][0]["accuracy"] == 0.8
