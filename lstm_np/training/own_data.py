"""Sequences of one's own as what a run learns from: read, split, prepared, and what is kept of that in the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from lstm_np.backends import Backend
from lstm_np.data import DatasetError, Sequences, read_sequences
from lstm_np.data.scaling import KINDS
from lstm_np.data.sequences import UNUSED, Reading, fingerprint_of_files, kind_of
from lstm_np.data.sequences.missing import WAYS
from lstm_np.data.sequences.preparation import Preparation
from lstm_np.data.sequences.splits import PARTS, check_fractions, drawn
from lstm_np.files import expand
from lstm_np.model import SequenceClassifier, SequenceModel, SequenceRegressor
from lstm_np.options import of, taken_by
from lstm_np.training.material import MEASURING_BATCH, Material
from lstm_np.training.recipes import Recipe, load_recipe

RECIPE = Path(__file__).with_name("own-data.toml")
SPLIT = (0.7, 0.15, 0.15)
SPLIT_WITHOUT_TEST = (0.85, 0.15, 0.0)  # where a second file is for testing
NONE = "none"
REGRESSION_LOSSES = of(SequenceRegressor)["loss"].choices
CLASS_WEIGHTS = (NONE, "balanced")
# the notes of a model that say how it was trained on sequences of one's own
NOTES = ("task", "classes", "features", "targets", "reading", "missing", "scaler", "target_scaler")
COLUMNS = ("a table", "a folder")  # kinds of files whose features are columns; those of arrays need no names
WAYS_IN_WORDS = {"random": "split at random", "group": "split by group", "time": "split by time"}


@dataclass(frozen=True)
class OwnSettings:
    """Which file, and what is done with it before training.

    path              of the file or folder
    reading           how it is read
    test_data         a second file or folder, of the same kind, that is for testing; None: a part of the first
    split             shares of training, validation and test
    split_by          "random", "group" or "time"; None: as `Sequences.default_split` says
    missing           what is done about missing values, a way of `SequenceImputer`
    scale             a kind of `SequenceScaler`, or "none";  scale_targets: of targets that are numbers
    class_weights     "balanced": each class counts as much as the others, however rare; or "none"
    regression_loss   the loss of targets that are numbers
    """

    path: str
    reading: Reading = field(default_factory=Reading)
    split: tuple[float, float, float] = SPLIT
    split_by: str | None = None
    missing: str = "refuse"
    scale: str = "standard"
    scale_targets: str = "standard"
    class_weights: str = NONE
    regression_loss: str = "squared"
    test_data: str | None = None

    def __post_init__(self) -> None:
        for name, choices in (
            ("missing", WAYS),
            ("scale", (*KINDS, NONE)),
            ("scale_targets", (*KINDS, NONE)),
            ("class_weights", CLASS_WEIGHTS),
            ("regression_loss", REGRESSION_LOSSES),
        ):
            if getattr(self, name) not in choices:
                raise DatasetError(f"{name} must be one of {', '.join(choices)}, found {getattr(self, name)!r}")
        object.__setattr__(self, "split", check_fractions(self.split))
        if self.test_data is not None and self.split[2]:
            found = " ".join(f"{share:g}" for share in self.split)
            raise DatasetError(f"--split {found} has a share for testing, which --test-data is for; make that share 0")

    def state(self) -> dict[str, Any]:
        """As plain values; paths are absolute."""
        labels = self.reading.labels
        reading = replace(self.reading, labels=None if labels is None else str(expand(labels).absolute()))
        path, test = str(expand(self.path).absolute()), self.test_data
        test = None if test is None else str(expand(test).absolute())
        return {**asdict(replace(self, reading=reading)), "path": path, "split": list(self.split), "test_data": test}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The settings that gave this state, in this version or an earlier one.

        Raises KeyError, TypeError or ValueError for anything else.
        """
        return cls(**{**state, "reading": Reading(**state["reading"]), "split": tuple(state["split"])})


@dataclass(frozen=True, eq=False)
class OwnData:
    """Sequences that are read and split, and how they are prepared.

    data         as they were read
    parts        {"train": indices, "validation": ..., "test": ...} of `data`; a part may be empty
    preparation  fitted on the training part
    sha256       of the files, hex
    test         the sequences of a second file, which are the test part then, and test_sha256: of that; None: no such
    """

    settings: OwnSettings
    data: Sequences
    parts: Mapping[str, np.ndarray]
    preparation: Preparation
    sha256: str
    test: Sequences | None = None
    test_sha256: str | None = None

    @classmethod
    def load(cls, settings: OwnSettings, seed: int) -> Self:
        """Read, split and prepare; a second file for testing is read as one that a model predicts.

        Raises DatasetError, and OSError, as `read_sequences`, `Sequences.split` and `reread`.
        """
        data = read_sequences(settings.path, reading=settings.reading)
        if data.targets is None:
            raise DatasetError(f"{settings.path}: no target is found; name what is to be predicted (--target)")
        if data.classes is not None and len(data.classes) < 2:
            only = data.classes[0]
            raise DatasetError(
                f"{settings.path}: found the class {only!r} alone, expected at least 2; --task says otherwise"
            )
        _check_task(data, settings)
        settings = replace(settings, split_by=settings.split_by or data.default_split)
        parts = split_of(data, settings, seed)
        preparation = Preparation.fit(
            data,
            parts["train"],
            missing=settings.missing,
            scale=_or_none(settings.scale),
            scale_targets=_or_none(settings.scale_targets),
        )
        own = cls(settings, data, parts, preparation, fingerprint_of_files(data.files))
        if settings.test_data is None:
            return own
        if len(parts["test"]):
            raise DatasetError(f"{data.source}: has a test part of its own; leave out --test-data {settings.test_data}")
        if os.path.samefile(expand(settings.path), _existing(settings.test_data)):
            raise DatasetError(f"--test-data {settings.test_data}: is what --data learns from; name another file")
        test = reread(own.notes(), settings.test_data, targets=True, changes={})
        return replace(own, test=test, test_sha256=fingerprint_of_files(test.files))

    def chosen(self, part: str) -> tuple[Sequences, np.ndarray]:
        """Sequences, and the indices of those that are a part ("train", "validation", "test")."""
        if part == "test" and self.test is not None:
            return self.test, np.arange(len(self.test))
        return self.data, self.parts[part]

    def part(self, name: str) -> Sequences:
        """The sequences of a part, as they were read."""
        data, indices = self.chosen(name)
        return data.take(indices)

    # ---- what a run says of it

    @property
    def name(self) -> str:
        """What it is called."""
        return Path(self.settings.path).name

    @property
    def source(self) -> str:
        """Where it comes from, and what it was recognized to be."""
        return f"{self.settings.path} ({self.data.targets_in_words()})"

    @property
    def num_classes(self) -> int | None:
        """K, or None where targets are numbers."""
        return None if self.data.classes is None else len(self.data.classes)

    @property
    def outputs(self) -> int:
        """Classes, or targets."""
        return self.num_classes or len(self.data.target_names)

    @property
    def in_words(self) -> str:
        """What the sequences are like."""
        D = len(self.data.names)
        return f"sequences of {self.data.steps_in_words()} of {D:,} feature{'' if D == 1 else 's'}"

    @property
    def split_in_words(self) -> str:
        """How its parts were chosen."""
        way = WAYS_IN_WORDS[self.settings.split_by or self.data.default_split]
        if self.data.groups is not None and way == WAYS_IN_WORDS["group"]:
            way += f" ({len(set(self.data.groups)):,} groups)"
        if self.data.parts is None:
            return way
        has_validation = len(self.data.parts.get("validation", ())) > 0
        own = "split as the file is"
        return own if has_validation or not len(self.parts["validation"]) else f"{own}, validation {way}"

    def counts(self) -> dict[str, int]:
        """How many sequences each part has."""
        return {name: len(self.chosen(name)[1]) for name in PARTS}

    @property
    def counts_in_words(self) -> list[str]:
        """The same, a part behind the other, and where the test part is from."""
        found = [f"{name} {count:,}" for name, count in self.counts().items()]
        return found if self.test is None else [*found[:-1], f"{found[-1]} of {self.settings.test_data}"]

    def described(self) -> dict[str, Any]:
        """What config.json says."""
        return {
            "name": self.name,
            "source": self.source,
            "sha256": self.sha256,
            "test_sha256": self.test_sha256,
            **{f"{name}_sequences": count for name, count in self.counts().items()},
            "task": self.data.task,
            "features": list(self.data.names),
            "targets": list(self.data.target_names),
            "classes": None if self.data.classes is None else list(self.data.classes),
            "recognized": list(self.data.recognized),
            **self.settings.state(),
        }

    def tables(self, recipe: Recipe) -> dict[str, Any]:
        """The recipe's settings that sequences have, as config.json says them."""
        data = {name: recipe.tables["data"][name] for name in ("limit_train", "order")}
        return {**recipe.tables, "data": data, "model": self.model_options(recipe)}

    def notes(self) -> dict[str, Any]:
        """What the model's file keeps, so that files of the same kind can be predicted."""
        kept = {name: value for name, value in asdict(self.data.reading).items() if name not in ("classes", "labels")}
        columns = kept["features"] if self.data.reading.layout == "wide" else None  # others stand in the notes alone
        kept |= {"features": columns, "task": self.data.task, "per_step": self.data.per_step}
        return {
            "dataset": self.name,
            "task": self.data.task,
            "classes": None if self.data.classes is None else list(self.data.classes),
            "features": list(self.data.names),
            "named": self.data.named,
            "targets": list(self.data.target_names),
            "reading": {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()},
            **self.preparation.state(),
        }

    # ---- what a run learns from

    def material(self, recipe: Recipe) -> Material:
        """Batches of all parts.  Raises DatasetError."""
        dtype, settings = recipe.model.dtype, recipe.train
        make, (data, chosen) = self.preparation.batches, self.chosen("train")
        if recipe.data.limit_train is not None:
            chosen = chosen[drawn(data.strata[chosen], recipe.data.limit_train, recipe.train.seed)]
        how: dict[str, Any] = {"dtype": dtype, "order": recipe.data.order, "seed": settings.seed}
        train = make(data, chosen, settings.batch_size, **how, reuse=settings.accumulate == 1)
        others = {
            name: make(*self.chosen(name), MEASURING_BATCH, dtype=dtype) if count else None
            for name, count in self.counts().items()
            if name != "train"
        }
        held_out = "test" if others["validation"] is None else "validation"
        longest = max(int(one.counts().max()) for one in (data, self.test) if one is not None)
        return Material(train, held_out, others[held_out], others["test"], (longest, len(data.names)))

    def model(self, recipe: Recipe, backend: Backend, kernel: str) -> SequenceModel:
        """The model that the recipe and the task ask for.  Raises ValueError for options that do not go together."""
        options = self.model_options(recipe)
        common: dict[str, Any] = {"kernel": kernel, "backend": backend, "seed": recipe.train.seed}
        if self.data.classes is None:
            return SequenceRegressor(len(self.data.names), num_targets=self.outputs, **options, **common)
        weights = self.class_weights() if self.settings.class_weights == "balanced" else None
        return SequenceClassifier(
            len(self.data.names), num_classes=self.outputs, class_weights=weights, **options, **common
        )

    def model_options(self, recipe: Recipe) -> dict[str, Any]:
        """The settings of the model as the task has them.

        Raises ValueError for a setting, other than its default, that the task does not have.
        """
        options, defaults = dict(recipe.tables["model"]), load_recipe().tables["model"]
        if self.data.per_step:
            if options["read_out"] != defaults["read_out"]:
                raise ValueError(f"read_out {options['read_out']}: targets of each step need the outputs of each step")
            options["read_out"] = "each_step"
        if self.data.classes is not None:
            return options
        for name in ("loss", *(name for name in options if name not in taken_by(SequenceRegressor))):
            value = options.pop(name)
            if value != defaults[name]:
                hint = "; --regression-loss is that of numbers" if name == "loss" else ""
                raise ValueError(f"--{name.replace('_', '-')} {value} is for classes, the targets are numbers{hint}")
        return {**options, "loss": self.settings.regression_loss}

    def class_weights(self) -> list[float]:
        """n / (K n_k) of each class: n targets of the training part in all, n_k of the class; 0 where n_k is 0."""
        data, chosen = self.data, self.parts["train"]
        if isinstance(data.targets, list):
            flat = np.concatenate([data.targets[index] for index in chosen.tolist()])
        else:
            flat = data.targets[chosen]
            if data.target_lengths is not None:
                flat = flat[np.arange(flat.shape[1]) < data.target_lengths[chosen][:, None]]
        found = np.bincount(np.ravel(flat), minlength=self.outputs)
        return [float(found.sum() / (self.outputs * count)) if count else 0.0 for count in found.tolist()]


def split_of(data: Sequences, settings: OwnSettings, seed: int) -> dict[str, np.ndarray]:
    """The parts: those that the file itself has, else as the settings say.

    Where a file has a test part and none for validation, that is a share of its training part.

    Raises DatasetError.
    """
    by = settings.split_by
    if data.parts is None:
        return data.split_indices(settings.split, by=by, seed=seed)
    parts = {name: data.parts.get(name, np.zeros(0, np.int64)) for name in PARTS}
    if len(parts["train"]) == 0:
        raise DatasetError(f"{data.source}: has no training part (x_train)")
    share = settings.split[1]
    if len(parts["validation"]) == 0 and share > 0:
        inner = data.take(parts["train"]).split_indices((1 - share, share, 0.0), by=by, seed=seed)
        parts |= {name: parts["train"][inner[name]] for name in ("train", "validation")}
    return parts


def _existing(path: str) -> Path:
    found = expand(path)
    if not found.exists():
        raise DatasetError(f"{path}: no such file or folder")
    return found


def _check_task(data: Sequences, settings: OwnSettings) -> None:
    """Raises DatasetError for settings of numbers with classes, and the other way round."""
    standard = OwnSettings(settings.path)
    of_task = ("class_weights",) if data.classes is None else ("regression_loss", "scale_targets")
    for name in of_task:
        value = getattr(settings, name)
        if value not in (getattr(standard, name), NONE):
            has, wants = ("numbers", "classes") if data.classes is None else ("classes", "numbers")
            flag = name.replace("_", "-")
            found = f"--{flag} {value} is for {wants}, the targets of {settings.path} are {has}"
            raise DatasetError(f"{found}; leave it out")


def _or_none(kind: str) -> str | None:
    return None if kind == NONE else kind


def own_recipe() -> Recipe:
    """What a run on sequences of one's own begins with."""
    return load_recipe(str(RECIPE))


def reread(notes: Mapping[str, Any], path: str, *, targets: bool, changes: Mapping[str, Any]) -> Sequences:
    """The sequences of another file of the kind that a model was trained on.

    notes    of the model
    targets  whether the targets are read, too; where they are not, windows reach to the end of their sequences
    changes  of how the file is read

    Features are found by their names, where the file and the one that the model was trained on have names.
    Raises DatasetError for a file that is not like it, ValueError for notes of another kind.
    """
    kind = kind_of(expand(path))
    try:
        kept = {name: value for name, value in notes["reading"].items() if name not in UNUSED.get(kind, ())}
        reading = Reading(**{**kept, **changes})
        names, classes = tuple(notes["features"]), notes["classes"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"the model does not say how its sequences are read ({error})") from None
    unread = [] if reading.group is None else [reading.group]
    reading = replace(reading, group=None)  # which is for splits alone
    if not targets:
        unread += reading.target or ()
        reading = replace(reading, target=(), horizon=0)
    if kind in COLUMNS:
        reading = replace(reading, ignore=(*reading.ignore, *(name for name in unread if name not in names)))
        if reading.layout != "wide":
            reading = replace(reading, features=names)
    data = read_sequences(path, reading=replace(reading, classes=None if classes is None else tuple(classes)))
    if targets and data.targets is None:
        raise DatasetError(f"{path}: no target is found; expected {', '.join(notes['targets'])}")
    if targets and len(data.target_names) != len(notes["targets"]):
        found, wanted = (", ".join(some) for some in (data.target_names, notes["targets"]))
        raise DatasetError(f"{path}: found the targets {found}; the model predicts {wanted}")
    return _as_trained(data, names, named=notes.get("named", True), source=path)


def _as_trained(data: Sequences, names: tuple[str, ...], *, named: bool, source: str) -> Sequences:
    """The sequences with the features that a model reads, in its order.

    names, named  of the model's features, and whether they are names or numbers

    Raises DatasetError for other features.
    """
    if set(names) <= set(data.names):
        return data if data.names == names else data.with_features(names)
    if len(data.names) != len(names) or (data.named and named):
        found, wanted = (", ".join(some[:8]) + (" ..." if len(some) > 8 else "") for some in (data.names, names))
        raise DatasetError(f"{source}: found the features {found}; the model reads {wanted}")
    return data
