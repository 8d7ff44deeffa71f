"""What a gate does: the same model trained with and without it, from several seeds, on two tasks.

Without a gate its value is held at what leaves the rest of the cell as it is: a forget, input, output or reset gate at
1, so that everything passes, an update gate at 0, so that the state is always written anew.

    rows    images of digits, read row by row: the answer needs all rows, the later ones most
    memory  a symbol at every step, twelve of them marked; the answer is the symbol that was marked last.  It has to be
            stored until the end, and replaced as soon as another is marked

Source of the question: Gers, Schmidhuber and Cummins, "Learning to forget", Neural Computation 12(10), 2000; Greff et
al., "LSTM: a search space odyssey", IEEE TNNLS 28(10), 2017, ask it of every part of the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np import streams
from lstm_np.backends import Backend
from lstm_np.cells import get_cell
from lstm_np.data import Dataset, sequence_view
from lstm_np.holds import HoldError
from lstm_np.model import SequenceClassifier
from lstm_np.optimizers import Adam
from lstm_np.trace import OPEN, SHUT, trace

NEUTRAL = {"f": 1.0, "i": 1.0, "o": 1.0, "r": 1.0, "z": 0.0}
SYMBOLS, MARKS = 8, 12  # of the memory task: how many symbols there are, and how many are marked in a sequence
LOOKED_AT = 64  # test sequences whose gates are looked at


@dataclass(frozen=True)
class Task:
    """Sequences (N, T, D) and labels (N,) to train on and to test on."""

    name: str
    about: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int


@dataclass(frozen=True)
class Result:
    """One trained model: its test loss and accuracy, and the values of its gate on the test sequences."""

    task: str
    held: bool
    seed: int
    accuracy: float
    loss: float
    mean: float  # of the gate's values
    shut: float  # share of them below `SHUT`
    open: float  # share above `OPEN`


@dataclass(frozen=True)
class Sizes:
    """How each model is made and trained."""

    cell: str = "lstm"
    hidden_size: int = 64
    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 5e-3


def held_at(gate: str, cell: str) -> dict[str, float]:
    """{"f": 1.0} from "f", or from "f=1": what the cell goes on with where it has no such gate.

    Raises HoldError for a value that the cell does not have, or one that is no gate and has no number.
    """
    name, equals, number = gate.partition("=")
    values = get_cell(cell).values
    if name not in values:
        raise HoldError(f"a {cell} cell has no value {name!r} to do without; there are: {', '.join(values)}")
    try:
        value = float(number) if equals else NEUTRAL[name]
    except (KeyError, ValueError):
        raise HoldError(f"{gate!r} does not say what {name!r} is held at; expected {name}=NUMBER") from None
    return {name: value}


def rows_task(dataset: Dataset, limit: int) -> Task:
    """Digits read row by row; the first `limit` training images."""
    scale = np.float32(dataset.scale)

    def sequences(images: np.ndarray) -> np.ndarray:
        return sequence_view(images, "rows") * scale

    train = sequences(dataset.train_images[:limit]), dataset.train_labels[:limit]
    test = sequences(dataset.test_images), dataset.test_labels
    rows, columns = dataset.image_shape
    about = f"{dataset.name}, {len(train[0]):,} images of {rows} rows with {columns} pixels"
    return Task("rows", about, train, test, dataset.num_classes)


def memory_task(count: int, steps: int) -> Task:
    """`count` sequences of `steps` steps to train on, and a fifth of that to test on."""
    train, test = (_marked(n, steps, purpose) for n, purpose in ((count, "train"), (max(1, count // 5), "test")))
    about = f"the symbol marked last of {steps}, {SYMBOLS} symbols, {MARKS} marks, {count:,} sequences"
    return Task("memory", about, train, test, SYMBOLS)


def _marked(count: int, steps: int, purpose: str) -> tuple[np.ndarray, np.ndarray]:
    """x (count, steps, SYMBOLS + 1), float32: a symbol one-hot, and whether it is marked; labels (count,)."""
    rng = streams.generator(0, "memory-task", purpose)
    symbols = rng.integers(0, SYMBOLS, (count, steps))
    places = np.argsort(rng.random((count, steps)), axis=1)[:, :MARKS]
    x = np.zeros((count, steps, SYMBOLS + 1), np.float32)
    np.put_along_axis(x, symbols[:, :, None], 1.0, axis=2)
    np.put_along_axis(x[:, :, SYMBOLS], places, 1.0, axis=1)
    return x, symbols[np.arange(count), places.max(axis=1)]


def compare(
    gate: str,
    tasks: Sequence[Task],
    sizes: Sizes,
    seeds: Sequence[int],
    backend: Backend,
    report: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Train with and without the gate, from every seed on every task; `report` is told of each model as it is done.

    Raises HoldError as `held_at`, TrainingDivergedError.
    """
    hold = held_at(gate, sizes.cell)
    results = []
    for task in tasks:
        for seed in seeds:
            for held in (False, True):
                found = _train(task, sizes, hold, held, seed, backend)
                results.append(found)
                report(f"{task.name}, seed {seed}, {'without' if held else 'with'} it: {found.accuracy:.2%}")
    return results


def _train(task: Task, sizes: Sizes, hold: Mapping[str, float], held: bool, seed: int, backend: Backend) -> Result:
    model = SequenceClassifier(
        task.train[0].shape[2],
        sizes.hidden_size,
        task.classes,
        cell=sizes.cell,
        hold=hold if held else None,
        seed=seed,
        backend=backend,
    )
    optimizer = Adam(model.params, lr=sizes.learning_rate)
    model.fit(*task.train, epochs=sizes.epochs, batch_size=sizes.batch_size, optimizer=optimizer, clip_norm=1.0)
    metrics = model.evaluate(*task.test)
    (name,) = hold
    values = trace(model, task.test[0][:LOOKED_AT]).value(name)
    shares = [float(share) for share in (values.mean(), (values < SHUT).mean(), (values > OPEN).mean())]
    return Result(task.name, held, seed, metrics.accuracy, metrics.loss, *shares)


def table(gate: str, tasks: Sequence[Task], sizes: Sizes, results: Sequence[Result]) -> str:
    """What the gate does, in a table of at most 80 columns: means over seeds, and the spread between them."""
    ((name, value),) = held_at(gate, sizes.cell).items()
    lines = [
        f"{sizes.cell} of {sizes.hidden_size} units, with {name} learnt and with {name} held at {value:g}",
        "",
        f"{'task':<8} {name:<10} {'accuracy':>9} {'lowest':>8} {'highest':>8} {'loss':>8}   "
        f"{'mean':>5} {f'<{SHUT:g}':>6} {f'>{OPEN:g}':>6}",
    ]
    for task in tasks:
        for held in (False, True):
            found = [result for result in results if result.task == task.name and result.held is held]
            accuracy, loss = [result.accuracy for result in found], np.mean([result.loss for result in found])
            mean, shut, opened = np.mean([(result.mean, result.shut, result.open) for result in found], axis=0)
            lines.append(
                f"{task.name:<8} {f'held at {value:g}' if held else 'learnt':<10} {np.mean(accuracy):>9.2%} "
                f"{min(accuracy):>8.2%} {max(accuracy):>8.2%} {loss:>8.4f}   "
                f"{mean:>5.2f} {shut:>6.1%} {opened:>6.1%}"
            )
    seeds = sorted({result.seed for result in results})
    lines.append("")
    lines += [f"{task.name}: {task.about}; chance {1 / task.classes:.1%}" for task in tasks]
    trained = f"{sizes.epochs} epochs, batch {sizes.batch_size}, Adam {sizes.learning_rate:g}"
    lines.append(f"seeds {', '.join(map(str, seeds))}; {trained}; last three columns: values of {name}")
    lines += ["", *_answer(name, tasks, results)]
    return "\n".join(lines)


def _answer(name: str, tasks: Sequence[Task], results: Sequence[Result]) -> list[str]:
    """A sentence for each task: how much accuracy is lost without the gate, and whether the seeds agree."""
    lines = []
    for task in tasks:
        pairs: dict[int, Any] = {}
        for result in results:
            if result.task == task.name:
                pairs.setdefault(result.seed, {})[result.held] = result.accuracy
        lost = [pair[False] - pair[True] for pair in pairs.values()]
        mean = float(np.mean(lost))
        if not any(lost):
            words = f"without {name} the accuracy is the same for every seed; compare the losses"
        elif all(difference > 0 for difference in lost):
            words = f"without {name} accuracy is lower for every seed, by {mean:.2%} on average"
        elif all(difference < 0 for difference in lost):
            words = f"without {name} accuracy is higher for every seed, by {-mean:.2%} on average"
        else:
            worse = "lower" if mean > 0 else "higher"
            words = f"the seeds disagree; without {name} accuracy is {worse} by {abs(mean):.2%} on average"
        lines.append(f"{task.name}: {words}.")
    return lines


def as_json(gate: str, tasks: Sequence[Task], sizes: Sizes, results: Sequence[Result]) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "hold": held_at(gate, sizes.cell),
        "cell": sizes.cell,
        "hidden_size": sizes.hidden_size,
        "tasks": {task.name: task.about for task in tasks},
        "results": [vars(result) for result in results],
    }
