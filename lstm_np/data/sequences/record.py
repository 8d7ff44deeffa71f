"""What files of sequences are read into: sequences, their targets, and where each value stands in its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lstm_np.data.dataset import DatasetError
from lstm_np.data.sequences.splits import Fractions, check_fractions, split_by

Place = Callable[[int, int, int], str]  # sequence, step, feature -> file, line and column, in words
LAYOUTS = ("long", "wide")
TASKS = ("classify", "regress", "tag")


@dataclass(frozen=True)
class Reading:
    """How a file is read; None, where it stands, means that it is recognized from the file.

    layout    of a table: "long" (a row is a step of a sequence) or "wide" (a row is a sequence)
    id        the column (of an .npz: array) that says which sequence a row belongs to
    time      the column with the time of a step, numbers or ISO dates, which orders the steps
    target    the columns (of an .npz: arrays) to be predicted; () for none
    features  the columns that are the input, in this order; None: all that have no other part
    ignore    columns that are not read, where they are there
    group     a column (of an .npz: array) of what belongs together (a patient, a machine), which is not torn by a split
    labels    a second file with the targets: of .npy, an .npy; of a folder, a CSV with a column of file names
    task      "classify" (a class for each sequence), "regress" (numbers) or "tag" (a class for each step)
    per_step  whether targets are of each step
    classes   the labels of the classes, in the order of the model's outputs
    header    whether the first row of a table names the columns
    delimiter what separates the cells of a row
    window    cut every sequence into windows of so many steps, a new one each `stride` steps (None: `window`); the
              target is that of the step `horizon` steps after the last one; from 1 on, targets may be features, too
    """

    layout: str | None = None
    id: str | None = None
    time: str | None = None
    target: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    group: str | None = None
    labels: str | None = None
    task: str | None = None
    per_step: bool | None = None
    classes: tuple[Any, ...] | None = None
    header: bool | None = None
    delimiter: str | None = None
    window: int | None = None
    stride: int | None = None
    horizon: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("layout", LAYOUTS), ("task", TASKS)):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise DatasetError(f"{name} must be {' or '.join(choices)}, found {value!r}")
        for name in ("target", "features", "ignore", "classes"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        for name, least in (("window", 1), ("stride", 1), ("horizon", 0)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise DatasetError(f"{name} must be a whole number of at least {least}, found {value!r}")
        if self.window is None and (self.stride is not None or self.horizon):
            raise DatasetError("stride and horizon are those of windows; give window, the steps of one, too")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise DatasetError(f"delimiter must be one character, found {self.delimiter!r}")


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences with their targets, as `lstm_np.data.read_sequences` gives them.

    x         float (N, T, D), or a list of arrays (T_i, D) where lengths differ; NaN where a value is missing.  An
              array on disk that is larger than the memory there is stays there (`numpy.memmap`)
    targets   of classes int64 (N,), of numbers float64 (N, M); of each step (N, T) or (N, T, M), or a list of (T_i,) or
              (T_i, M); None where none are read
    task      "classify", "regress" or "tag" (a class for each step); None without targets
    classes   the labels, text or whole numbers, of which targets are the indices
    names     of the D features, and whether the source has them (`named`) or they are numbered;
              target_names: of the M targets
    ids       (N,) what the file calls each sequence; of a window, behind a colon, the time of its last step
    groups    (N,) what a split by group keeps together, or None
    spans     (N, 2) float64, the first and the last time that a sequence and its target are of, or None
    lengths   (N,) how many steps each sequence of an array has, None for all of them
    parts     {"train": indices, "test": ...} where the file itself says which sequence is for what
    source    the file's name;  files: all files that were read
    recognized  what was not said but found, in words

    >>> x = np.arange(12.0).reshape(4, 3, 1)
    >>> data = lstm_np.data.read_sequences(x, targets=["up", "down", "up", "down"])
    >>> data
    <4 sequences of 3 steps of 1 feature, classify: 2 classes>
    >>> data.classes, data.targets
    (('down', 'up'), array([1, 0, 1, 0]))
    >>> [len(part) for part in data.split((0.5, 0.0, 0.5)).values()]
    [2, 0, 2]
    """

    x: Any
    targets: Any = None
    task: str | None = None
    classes: tuple[Any, ...] | None = None
    names: tuple[str, ...] = ()
    named: bool = True
    target_names: tuple[str, ...] = ()
    ids: Sequence[Any] = ()
    groups: Sequence[Any] | None = None
    spans: np.ndarray | None = None
    lengths: np.ndarray | None = None
    parts: Mapping[str, np.ndarray] | None = None
    source: str = ""
    files: tuple[str, ...] = ()
    recognized: tuple[str, ...] = ()
    place: Place = field(default=lambda n, t, d: f"sequence {n}, step {t}, feature {d}", repr=False)
    reading: Reading = Reading()

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        shown = f"<{len(self)} sequences of {self.steps_in_words()} of {_count(len(self.names), 'feature')}"
        return f"{shown}, {self.targets_in_words()}>" if self.task is not None else f"{shown}>"

    @property
    def is_list(self) -> bool:
        """Whether x is a list of arrays."""
        return isinstance(self.x, list)

    @property
    def per_step(self) -> bool:
        """Whether targets are of each step."""
        if self.targets is None:
            return False
        first = self.targets[0] if isinstance(self.targets, list) else self.targets
        return isinstance(self.targets, list) or first.ndim == (2 if self.classes is not None else 3)

    def counts(self) -> np.ndarray:
        """(N,) the steps of each sequence."""
        if self.is_list:
            return np.array([len(sequence) for sequence in self.x], np.int64)
        return np.full(len(self.x), self.x.shape[1]) if self.lengths is None else self.lengths

    @property
    def target_lengths(self) -> np.ndarray | None:
        """(N,) how many steps have targets, where these are an array (N, T, ...) and not all have."""
        return self.lengths if self.per_step else None

    def steps_in_words(self) -> str:
        """ "60 steps", or "5 to 60 steps"."""
        counts = self.counts()
        low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
        return _count(high, "step") if low == high else f"{low} to {high} steps"

    def targets_in_words(self) -> str:
        """ "classify: 3 classes", "regress: 2 targets"."""
        if self.classes is not None:
            return f"{self.task}: {_count(len(self.classes), 'class')}"
        return f"{self.task}: {_count(len(self.target_names), 'target')}{' of each step' if self.per_step else ''}"

    def take(self, indices: Any) -> Sequences:
        """The sequences at these indices (K,), in their order."""
        chosen = np.asarray(indices, dtype=np.int64)

        def of(values: Any) -> Any:
            if values is None or isinstance(values, np.ndarray):
                return None if values is None else values[chosen]
            return [values[index] for index in chosen.tolist()]

        place = self.place
        return replace(
            self,
            x=of(self.x),
            targets=of(self.targets),
            ids=of(self.ids),
            groups=of(self.groups),
            spans=of(self.spans),
            lengths=of(self.lengths),
            parts=None,
            place=lambda n, t, d: place(int(chosen[n]), t, d),
        )

    def with_features(self, names: Sequence[str]) -> Sequences:
        """The same with these features alone, in this order.  Raises DatasetError for one that there is not."""
        if missing := [name for name in names if name not in self.names]:
            raise DatasetError(f"{self.source}: no feature {missing[0]!r}; there are: {', '.join(self.names)}")
        columns, place = [self.names.index(name) for name in names], self.place
        x = [one[:, columns] for one in self.x] if self.is_list else self.x[..., columns]
        return replace(self, x=x, names=tuple(names), place=lambda n, t, d: place(n, t, columns[d]))

    @property
    def strata(self) -> np.ndarray:
        """(N,) the class of each sequence, by which a random choice is stratified; 0 for all where there is none."""
        return self.targets if self.task == "classify" else np.zeros(len(self), np.int64)

    @property
    def default_split(self) -> str:
        """How they are split where nothing is said: "group" where the source has groups, or they were named; "time" for
        windows; else "random"."""
        if self.groups is not None and (self.reading.window is None or self.reading.group is not None):
            return "group"
        return "random" if self.reading.window is None else "time"

    def split_indices(
        self, fractions: Fractions = (0.7, 0.15, 0.15), *, by: str | None = None, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """{"train": indices, "validation": ..., "test": ...}; arguments and errors as for `split`."""
        way, reading = self.default_split if by is None else by, self.reading
        window, stride = reading.window or 1, reading.stride or reading.window or 1
        if way == "random" and stride < window and sum(share > 0 for share in check_fractions(fractions)) > 1:
            raise DatasetError(
                f"{self.source}: windows of {window} steps, one each {stride}, overlap: split at random, parts would "
                "have the same steps; split them by time or group"
            )
        about: dict[str, Any] = {"groups": self.groups, "spans": self.spans, "source": self.source}
        return split_by(fractions, by=way, seed=seed, classes=self.strata, **about)

    def split(
        self, fractions: Fractions = (0.7, 0.15, 0.15), *, by: str | None = None, seed: int = 0
    ) -> dict[str, Sequences]:
        """{"train": Sequences, "validation": ..., "test": ...}, by fractions of all sequences that add up to 1.

        by    "random": at random, each class by itself where targets are classes;
              "group": what has the same group stays together;
              "time": the first are for training, the last for testing, and a sequence (with its target) that lies on
              both sides of a boundary is left out;
              None: as `default_split` says
        seed  the random ones are a function of it and of the sequences' order

        Raises DatasetError where a part of the split would be empty, there are no groups or times, or windows that
        overlap would be split at random.
        """
        return {name: self.take(indices) for name, indices in self.split_indices(fractions, by=by, seed=seed).items()}


def _count(number: int, thing: str) -> str:
    many = thing + ("es" if thing.endswith("s") else "s")
    return f"{number:,} {thing if number == 1 else many}"
