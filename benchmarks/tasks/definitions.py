"""The tasks: their data, their models, how they are trained, and what has to be reached.

    adding     a sequence of 200 pairs (number, mark): the sum of the two numbers that are marked
    copy       10 symbols of 8 are read, then 49 steps that say nothing and one that asks: the symbols, in their order
    pixels     a digit, pixel by pixel: MNIST at 14x14 (means of 2x2 pixels), so 196 steps of one number
    permuted   the same in an order of pixels that is drawn once
    pixels784  MNIST at 28x28 in the same way, 784 steps

Sources: Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997 (adding); Arjovsky, Shah
and Bengio, ICML 2016 (copy, its lengths); Le, Jaitly and Hinton, arXiv:1504.00941 (pixels).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import lstm_np
from lstm_np import streams
from lstm_np.data import Batches, Dataset, load_dataset, sequence_view

SYMBOLS, COPIED, DELAY, IGNORED = 8, 10, 50, -1
CLASSES = 10  # digits
STEPS = 100  # of an epoch of a task whose sequences are drawn for every step
NEAR = 0.005  # how far our mean may be from PyTorch's in the same setting
TESTED = 2000  # drawn sequences that the result is measured on


@dataclass(frozen=True)
class Task:
    """A task and its training: Adam, the norm of the gradients clipped, a rate that rises at first and falls to 0.

    features      numbers per time step (D)
    steps         time steps (T)
    epochs        passes over MNIST, or times STEPS steps
    learning_rate at its highest, after `warmup` steps; then it falls along a cosine
    forget_bias   its initial value; None: that of chrono initialization, see `chrono_initialization`
    metric        what is measured, a name of the metrics
    bound         what has to be reached: at least, or where `less` below
    peer          whether PyTorch is trained as well
    seeds         of the published results
    """

    name: str
    title: str
    features: int
    steps: int
    hidden_size: int
    batch_size: int
    epochs: int
    learning_rate: float
    forget_bias: float | None
    metric: str
    bound: float
    less: bool = False
    clip_norm: float = 1.0
    warmup: int = 100
    peer: bool = False
    seeds: tuple[int, ...] = (1, 2, 3)

    def reached(self, value: float) -> bool:
        """Whether a measured value is good enough."""
        return value < self.bound if self.less else value >= self.bound

    @property
    def goal(self) -> str:
        """What has to be reached, in words."""
        return f"{self.metric.replace('_', ' ')} {'<' if self.less else '>='} {self.bound:g}"

    def model(self, seed: int, **options: Any) -> Any:
        """The model, untrained: a `SequenceRegressor` for adding, else a `SequenceClassifier`."""
        model: lstm_np.SequenceClassifier | lstm_np.SequenceRegressor
        settings: dict[str, Any] = {"forget_bias": self.forget_bias, "seed": seed, **options}
        if self.name == "adding":
            model = lstm_np.SequenceRegressor(self.features, self.hidden_size, 1, **settings)
        elif self.name == "copy":
            settings |= {"read_out": "each_step", "ignored_label": IGNORED}
            model = lstm_np.SequenceClassifier(self.features, self.hidden_size, SYMBOLS, **settings)
        else:
            model = lstm_np.SequenceClassifier(self.features, self.hidden_size, CLASSES, **settings)
        if self.forget_bias is None:
            chrono_initialization(model, self.steps, seed)
        return model


def chrono_initialization(model: Any, longest: int, seed: int) -> None:
    """Biases of one LSTM layer with which its units forget over times of up to `longest` steps, evenly spread.

    b_f = log u with u uniform in 1 ... longest - 1, and b_i = -b_f.
    Source: Tallec and Ollivier, "Can recurrent neural networks warp time?", ICLR 2018.
    """
    H = model.recurrent.hidden_size
    b = model.params["layer0.b"]
    b[H : 2 * H] = np.log(streams.generator(seed, "chrono").uniform(1, longest - 1, H))
    b[:H] = -b[H : 2 * H]


ADDING = Task(
    name="adding", title="adding problem, T = 200", features=2, steps=200, hidden_size=64, batch_size=64, epochs=30,
    learning_rate=0.005, forget_bias=None, metric="mean_squared_error", bound=0.01, less=True,
)  # fmt: skip
COPY = Task(
    name="copy", title="copy task, T = 50", features=SYMBOLS + 2, steps=DELAY + 2 * COPIED, hidden_size=128,
    batch_size=64, epochs=30, learning_rate=0.005, forget_bias=4.0, metric="accuracy", bound=0.99,
)  # fmt: skip
PIXELS = Task(
    name="pixels", title="MNIST by pixels, 14x14", features=1, steps=196, hidden_size=96, batch_size=128, epochs=10,
    learning_rate=0.005, forget_bias=1.0, metric="accuracy", bound=0.96, peer=True,
)  # fmt: skip
PERMUTED = replace(PIXELS, name="permuted", title="MNIST by permuted pixels, 14x14", bound=0.88)
PIXELS784 = replace(
    PIXELS, name="pixels784", title="MNIST by pixels, 28x28", steps=784, hidden_size=128, epochs=30,
    learning_rate=0.002, forget_bias=None, peer=False, seeds=(1,),
)  # fmt: skip
TASKS = {task.name: task for task in (ADDING, COPY, PIXELS, PERMUTED, PIXELS784)}


class Drawn:
    """Batches that are drawn for every step, a function of the task, the seed and the number of the batch alone."""

    def __init__(self, task: Task, seed: int) -> None:
        self._task, self._seed = task, seed

    def __len__(self) -> int:
        return STEPS

    def epoch(self, epoch: int, start: int = 0, *, step: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `lstm_np.loop.BatchSource`."""
        for number in range(epoch * STEPS + start, (epoch + 1) * STEPS):
            yield draw(self._task, self._task.batch_size, self._seed, number)


def draw(task: Task, count: int, *key: int | str) -> tuple[np.ndarray, np.ndarray]:
    """`count` sequences (B, T, D) of a drawn task, float32, and what is wanted of them: a function of the key."""
    rng, each = streams.generator(task.name, *key), np.arange(count)
    if task.name == "adding":
        T = task.steps
        x = np.zeros((count, T, 2), np.float32)
        x[:, :, 0] = rng.random((count, T))
        first, second = rng.integers(0, T // 2, count), rng.integers(T // 2, T, count)
        x[each, first, 1] = x[each, second, 1] = 1
        return x, x[each, first, 0] + x[each, second, 0]
    symbols = rng.integers(0, SYMBOLS, (count, COPIED))
    codes = np.full((count, task.steps), SYMBOLS)  # nothing is said
    codes[:, :COPIED] = symbols
    codes[:, COPIED + DELAY - 1] = SYMBOLS + 1  # what asks
    labels = np.full((count, task.steps), IGNORED)
    labels[:, -COPIED:] = symbols
    return np.eye(SYMBOLS + 2, dtype=np.float32)[codes], labels


def load_images(task: Task, data_dir: str | os.PathLike[str] | None, limit: int | None = None) -> Dataset:
    """MNIST, or the first `limit` images of both sets, as the task reads it: at 14x14, or as it is."""
    found = load_dataset("mnist", data_dir, explicit=True)
    images = [array[:limit] for array in (found.train_images, found.test_images)]
    if task.steps == 196:
        images = [pooled(array) for array in images]
    labels = [array[:limit] for array in (found.train_labels, found.test_labels)]
    return Dataset(
        found.name, images[0], labels[0], images[1], labels[1], CLASSES, found.pixel_max, found.source, found.verified
    )


def pooled(images: np.ndarray) -> np.ndarray:
    """The means of 2x2 pixels, rounded: uint8 (N, rows / 2, columns / 2) from (N, rows, columns)."""
    N, rows, columns = images.shape
    sums = images.reshape(N, rows // 2, 2, columns // 2, 2).sum(axis=(2, 4), dtype=np.uint16)
    return ((sums + 2) // 4).astype(np.uint8)


def view_of(task: Task) -> str:
    """How the task reads an image, see `lstm_np.data.sequence_view`."""
    return "permuted" if task.name == "permuted" else "pixels"


@dataclass(frozen=True)
class Material:
    """What a run of a task reads: batches to learn from, and (x, what is wanted) to measure on."""

    train: Drawn | Batches
    test: tuple[np.ndarray, np.ndarray]


def material_of(task: Task, seed: int, data_dir: str | os.PathLike[str] | None, limit: int | None = None) -> Material:
    """The data of a run.  `limit`: only so many images, or tested sequences.  Raises as `load_dataset`."""
    if task.name in ("adding", "copy"):
        return Material(Drawn(task, seed), draw(task, limit or TESTED, "test"))
    images = load_images(task, data_dir, limit)
    train, test = (sequence_view(array, view_of(task)) for array in (images.train_images, images.test_images))
    batches = Batches(train, images.train_labels, task.batch_size, seed=seed, scale=images.scale, reuse=True)
    return Material(batches, (test * np.float32(images.scale), images.test_labels))
