"""Targets from columns of labels: which task they are of, classes as indices, numbers as float64."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_np.data.dataset import DatasetError
from lstm_np.data.sequences.record import Reading
from lstm_np.data.sequences.tables import Labels

MOST_CLASSES = 100  # of whole numbers; more different ones are numbers, not classes
EXACT = 2.0**53  # below it, float64 has every whole number


class Targets(NamedTuple):
    """What `Sequences` has of them; values are in the order of the rows they were read from."""

    task: str
    per_step: bool
    values: np.ndarray  # int64 (n,) or float64 (n, M), n sequences or all steps of all sequences
    classes: tuple[Any, ...] | None
    recognized: tuple[str, ...]


def encode(
    columns: Sequence[Labels],
    counts: np.ndarray | None,
    reading: Reading,
    place: Callable[[int, str], str],
    source: str,
) -> Targets:
    """The targets in `columns`, one for each sequence, or for each step where `counts` (N,) says how many each has.

    place   where the value of a row and a column stands

    Steps' values that are the same throughout each sequence are targets of the sequences; otherwise they are of the
    steps, unless `reading` says so.  Text and booleans are classes, and so are whole numbers where there are few of
    them (at most `MOST_CLASSES`, each twice on average); other numbers are numbers.

    Raises DatasetError for a missing target, for text where numbers are expected, and for a label of no class.
    """
    for column in columns:
        if column.missing.any():
            row = int(np.argmax(column.missing))
            raise DatasetError(f"{place(row, column.name)}: the target is missing; fill it in, or leave the row out")
        if column.numbers is not None and np.isinf(column.numbers).any():
            row = int(np.argmax(np.isinf(column.numbers)))
            raise DatasetError(f"{place(row, column.name)}: found {column.cells[row]}, expected a finite target")
    recognized: list[str] = []
    per_step, varying = _per_step(columns, counts, reading)
    if counts is not None and not per_step:
        if varying is not None:
            row, name = varying
            raise DatasetError(
                f"{place(row, name)}: the target changes within a sequence, expected one for the sequence"
            )
        ends = np.cumsum(counts) - 1
        columns = [
            Labels(c.name, None if c.numbers is None else c.numbers[ends], [c.cells[k] for k in ends.tolist()],
                   c.missing[ends], c.whole)
            for c in columns
        ]  # fmt: skip

        def at(row: int, name: str) -> str:
            return place(int(ends[row]), name)

    else:

        def at(row: int, name: str) -> str:
            return place(row, name)

    task = reading.task or _task(columns, per_step, reading)
    if task == "tag" and not per_step:
        raise DatasetError(f"{source}: tag is for targets of each step, those of this file are of whole sequences")
    if task == "classify" and per_step:
        name = columns[0].name
        raise DatasetError(f"{source}: the target {name!r} is of each step; a class for each step is tag, not classify")
    if reading.task is None:
        what = "classes" if task != "regress" else "numbers"
        of = " of each step" if per_step else ""
        recognized.append(f"task {task}, since the target{_plural(columns)} {what}{of}")
    if task == "regress":
        return Targets(task, per_step, _numbers(columns, at), None, tuple(recognized))
    if len(columns) > 1:
        names = ", ".join(column.name for column in columns)
        raise DatasetError(f"{source}: {task} takes one target, found {len(columns)}: {names}")
    values, classes = _indices(columns[0], reading.classes, at)
    return Targets(task, per_step, values, classes, tuple(recognized))


def _plural(columns: Sequence[Labels]) -> str:
    if len(columns) == 1:
        return f" {columns[0].name!r} has"
    return "s have"


def _per_step(
    columns: Sequence[Labels], counts: np.ndarray | None, reading: Reading
) -> tuple[bool, tuple[int, str] | None]:
    """Whether targets are of each step, and the first row and column where one changes within a sequence."""
    if counts is None:
        return False, None
    starts = np.zeros(int(counts.sum()), bool)
    starts[(np.cumsum(counts) - counts)[counts > 0]] = True
    varying = None
    for column in columns:
        if column.numbers is not None and (np.abs(column.numbers) < EXACT).all():
            same = column.numbers[1:] == column.numbers[:-1]
        else:
            same = np.fromiter(
                map(operator.eq, column.cells[1:], column.cells[:-1]), bool, max(0, len(column.cells) - 1)
            )
        changes = ~(same | starts[1:])
        if changes.any():
            varying = int(np.argmax(changes)) + 1, column.name
            break
    if reading.per_step is not None:
        return reading.per_step, varying
    if reading.task == "tag":
        return True, varying
    if reading.window is not None:
        return False, None
    return (False if reading.task == "classify" else varying is not None), varying


def _task(columns: Sequence[Labels], per_step: bool, reading: Reading) -> str:
    if reading.classes is not None or (len(columns) == 1 and _are_classes(columns[0])):
        return "tag" if per_step else "classify"
    return "regress"


def _are_classes(column: Labels) -> bool:
    if column.numbers is None:
        return True
    different = len(np.unique(column.numbers))
    return column.whole and (different <= 2 or different <= min(MOST_CLASSES, len(column.numbers) // 2))


def _numbers(columns: Sequence[Labels], place: Callable[[int, str], str]) -> np.ndarray:
    found = np.empty((len(columns[0].cells), len(columns)))
    for k, column in enumerate(columns):
        if column.numbers is None:
            row = next(row for row, cell in enumerate(column.cells) if not _is_number(cell))
            raise DatasetError(f"{place(row, column.name)}: found {column.cells[row]!r}, expected a number")
        found[:, k] = column.numbers
    return found


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _keys(column: Labels) -> list[Any]:
    """The labels: whole numbers where all of them are and are written so, else text, as "01" is."""
    numbers, texts = column.numbers, [str(cell) for cell in column.cells]
    if numbers is None or not (numbers == np.floor(numbers)).all():
        return texts
    if not any(isinstance(cell, str) for cell in column.cells):
        return [int(cell) for cell in column.cells]
    if (np.abs(numbers) >= EXACT).any():
        return texts
    found: list[Any] = numbers.astype(np.int64).tolist()
    as_written = (text.removeprefix("+") == str(key) for text, key in zip(texts, found, strict=True))
    return found if not column.whole or all(as_written) else texts


def _indices(
    column: Labels, classes: Sequence[Any] | None, place: Callable[[int, str], str]
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """(n,) the index of each label among the classes: those given, else all labels in order."""
    keys = _keys(column)
    known = tuple(classes) if classes is not None else tuple(sorted(set(keys)))
    if known and isinstance(known[0], str):
        keys = [str(cell) for cell in column.cells]
    index = {label: k for k, label in enumerate(known)}
    try:
        return np.fromiter((index[key] for key in keys), np.int64, len(keys)), known
    except KeyError:
        row = next(row for row, key in enumerate(keys) if key not in index)
        shown = ", ".join(map(str, known[:8])) + (" ..." if len(known) > 8 else "")
        raise DatasetError(
            f"{place(row, column.name)}: found the class {keys[row]!r}, expected one of {shown}"
        ) from None
