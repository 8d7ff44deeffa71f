"""Flags of the commands for sequences of one's own: which file, how it is read, and what is done before training."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from typing import Any

from lstm_np.data.scaling import KINDS
from lstm_np.data.sequences import Reading
from lstm_np.data.sequences.missing import WAYS
from lstm_np.data.sequences.record import LAYOUTS, TASKS
from lstm_np.data.sequences.splits import WAYS as SPLIT_WAYS
from lstm_np.files import expand
from lstm_np.training.own_data import CLASS_WEIGHTS, NONE, REGRESSION_LOSSES, SPLIT_WITHOUT_TEST, OwnSettings

FILES = "an .npz, .npy, .csv, .tsv or .ts file, or a folder of CSV files"
# settings of images, which sequences do not have
OF_IMAGES = ("dataset", "view", "validation", "shift", "rotate", "zoom")


def add_own_data_flags(parser: argparse.ArgumentParser) -> None:
    """--data and how its file is read, split and prepared; what is not given is not in the namespace."""
    group = parser.add_argument_group("sequences of your own (what is not said is recognized from the file)")
    group.add_argument("--data", metavar="FILE", help=f"learn from sequences of your own: {FILES}")
    add_reading_flags(group)
    suppressed: dict[str, Any] = {"default": argparse.SUPPRESS}
    group.add_argument(
        "--test-data",
        metavar="FILE",
        help="test on the sequences in this file, read, scaled and with the classes as those of --data, which is for "
        "training and validation then [a part of --data]",
        **suppressed,
    )
    group.add_argument(
        "--split",
        type=float,
        nargs=3,
        metavar=("TRAIN", "VALIDATION", "TEST"),
        help="shares of the sequences, which add up to 1; each class is split by itself [0.7 0.15 0.15, or with "
        "--test-data 0.85 0.15 0]",
        **suppressed,
    )
    group.add_argument(
        "--split-by",
        choices=SPLIT_WAYS,
        help="at random; by group, which stays whole; or by time, the last for testing, without what lies on both "
        "sides of a boundary [group where there are groups, time for windows, else random]",
        **suppressed,
    )
    group.add_argument("--missing", choices=WAYS, help="what is done about missing values [refuse]", **suppressed)
    group.add_argument(
        "--scale",
        choices=(*KINDS, NONE),
        help="put each feature on one scale, as the training part has it [standard]",
        **suppressed,
    )
    group.add_argument(
        "--scale-targets", choices=(*KINDS, NONE), help="the same of targets that are numbers [standard]", **suppressed
    )
    group.add_argument(
        "--class-weights",
        choices=CLASS_WEIGHTS,
        help="balanced: rare classes count as much as frequent ones [none]",
        **suppressed,
    )
    group.add_argument(
        "--regression-loss", choices=REGRESSION_LOSSES, help="loss of targets that are numbers [squared]", **suppressed
    )


def add_reading_flags(group: argparse._ActionsContainer, *, targets: bool = True) -> None:
    """The flags that say how a file is read; `targets`: those about targets as well."""
    name: dict[str, Any] = {"metavar": "NAME", "default": argparse.SUPPRESS}
    group.add_argument("--id", help="the column that says which sequence a row belongs to", **name)
    group.add_argument("--time", help="the column with the time of a step, numbers or ISO dates", **name)
    if targets:
        group.add_argument("--target", nargs="+", help="the columns to be predicted", **name)
        group.add_argument("--features", nargs="+", help="the columns that are the input [all others]", **name)
        group.add_argument("--group", help="the column of what belongs together and is not torn by the split", **name)
        group.add_argument(
            "--task",
            choices=TASKS,
            default=argparse.SUPPRESS,
            help="classify: a class for each sequence; regress: numbers; tag: a class for each step",
        )
        group.add_argument(
            "--per-step",
            action=argparse.BooleanOptionalAction,
            default=argparse.SUPPRESS,
            help="targets are of each step, not of the sequence",
        )
        group.add_argument(
            "--window", type=int, metavar="N", default=argparse.SUPPRESS, help="cut into windows of N steps"
        )
        group.add_argument(
            "--stride", type=int, metavar="N", default=argparse.SUPPRESS, help="a window each N steps [window]"
        )
        group.add_argument(
            "--horizon",
            type=int,
            metavar="N",
            default=argparse.SUPPRESS,
            help="the target of a window is N steps behind its last; from 1 on it may be a feature, too [0]",
        )
    group.add_argument("--ignore", nargs="+", help="columns that are not read", **name)
    group.add_argument(
        "--labels",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="a second file with the targets: of an .npy an .npy, of a folder a CSV with a column of file names",
    )
    group.add_argument(
        "--layout",
        choices=LAYOUTS,
        default=argparse.SUPPRESS,
        help="of a table; long: a row is a step; wide: a row is a sequence",
    )
    group.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="the first row names the columns; without names they are called 1, 2, 3 ...",
    )
    group.add_argument("--delimiter", metavar="C", default=argparse.SUPPRESS, help="what separates the cells of a row")


def reading_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the flags say of how a file is read."""
    given = vars(arguments)
    found = {item.name: given[item.name] for item in fields(Reading) if item.name in given}
    if found.get("delimiter") in ("\\t", "tab"):
        found["delimiter"] = "\t"
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def reading_words(arguments: argparse.Namespace) -> list[str]:
    """The flags that say how a file is read, as they were given."""
    words = []
    for name, value in reading_changes(arguments).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def own_settings(arguments: argparse.Namespace) -> OwnSettings | None:
    """What the flags say of --data; None without it.  Raises ValueError for flags that do not go with it."""
    given, changes = vars(arguments), reading_changes(arguments)
    others = {item.name: given[item.name] for item in fields(OwnSettings) if item.name in given}
    if arguments.data is None:
        if said := [*changes, *others]:
            raise ValueError(
                f"--{said[0].replace('_', '-')} is for sequences of your own; name their file: --data FILE"
            )
        return None
    for name in OF_IMAGES:
        if f"data.{name}" in given:
            hint = "; the share that is held out is said by --split" if name == "validation" else ""
            raise ValueError(f"--{name} is for images, --data for sequences of your own: leave out one{hint}")
    for name in ("data_dir", "offline"):
        if given.get(name):
            raise ValueError(
                f"--{name.replace('_', '-')} is for images, --data for sequences of your own: leave out one"
            )
    if others.get("test_data") is not None:
        others.setdefault("split", SPLIT_WITHOUT_TEST)
    return OwnSettings(arguments.data, Reading(**changes), **others)


def resumed_settings(stopped: OwnSettings, arguments: argparse.Namespace) -> OwnSettings:
    """The settings of a run that goes on; its files may have moved.  Raises ValueError for any other change."""
    given, changes = vars(arguments), reading_changes(arguments)
    others = {item.name: given[item.name] for item in fields(OwnSettings) if item.name in given}
    moved = {} if arguments.data is None else {"path": arguments.data}
    if "test_data" in others:
        moved["test_data"] = others.pop("test_data")
        if stopped.test_data is None:
            raise ValueError("--test-data: this run is tested on a part of its --data; leave it out")
    for name, value in [*changes.items(), *others.items()]:
        had = getattr(stopped.reading if name in changes else stopped, name)
        value = str(expand(value).absolute()) if name == "labels" else value
        if (tuple(value) if isinstance(value, list) else value) != had:
            flag = name.replace("_", "-")
            raise ValueError(
                f"--{flag}: the run would have learnt something else with it; leave it out, or train a new run"
            )
    return replace(stopped, **moved)
