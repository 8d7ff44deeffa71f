"""A folder of CSV files: each is one sequence, a row a step; its class is its subfolder, or stands in a labels file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lstm_np.data.dataset import DatasetError
from lstm_np.data.sequences.assembly import build, forecast_features
from lstm_np.data.sequences.record import Reading, Sequences
from lstm_np.data.sequences.tables import Labels, Table, labels_of, read_table
from lstm_np.files import expand

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
LABELS = ("labels.csv", "labels.tsv")  # the file in the folder that has the targets, where none is named
FILE_NAMES = ("file", "filename", "file_name", "path", "name", "id", "sequence")


def read_folder(path: str | os.PathLike[str], reading: Reading) -> Sequences:
    """The sequences in a folder's CSV files, in the order of their names.

    Targets are, in this order: columns of the files that are named as targets (of each step); the columns of
    `reading.labels`, or of a labels.csv in the folder, which has a column with the files' names; the subfolders.

    Raises DatasetError for a folder without such files, files of other columns than the first, a file of which the
    labels say nothing, and as the readers of tables do; OSError.
    """
    folder = Path(path)
    labels_file = expand(reading.labels) if reading.labels is not None else _beside(folder)
    paths = [file for file in _below(folder) if labels_file is None or not _same(file, labels_file)]
    if not paths:
        held = ", ".join(sorted(os.listdir(folder))[:3]) or "nothing"
        raise DatasetError(f"{folder}: no CSV file in this folder or in its subfolders; it holds {held}")
    tables = [read_table(file, reading.header, reading.delimiter).without(reading.ignore) for file in paths]
    first = tables[0]
    time = first.check(reading.time, "time") if reading.time is not None else first.called("time")
    inside = tuple(name for name in reading.target or () if name in first.columns)
    features = reading.features or tuple(name for name in first.columns if name != time and name not in inside)
    if time in features:
        time = None
    features, own_past = forecast_features(first, features, inside, reading)
    for table in tables:
        for name in (*features, *inside, *((time,) if time is not None else ())):
            if name not in table.columns:
                raise DatasetError(f"{table.source}: no column {name!r}, which {first.source} has")
    orders = [_order(table, time) for table in tables]
    counts = np.array([len(table) for table in tables])
    starts = np.cumsum(counts) - counts
    relative = [file.relative_to(folder).as_posix() for file in paths]

    def place(row: int, name: str) -> str:
        n = int(np.searchsorted(starts, row, side="right")) - 1
        return tables[n].place(int(orders[n][row - int(starts[n])]), name)

    about: dict[str, Any] = {"labels": [], "labels_of_sequences": True, "place_target": place}
    say = own_past
    if reading.target == ():
        pass
    elif inside:
        if missing := [name for name in reading.target or () if name not in inside]:
            raise DatasetError(
                f"{first.source}: no column {missing[0]!r} (target); there are: {', '.join(first.columns)}"
            )
        about |= {"labels": [_column(tables, orders, name) for name in inside], "labels_of_sequences": False}
    elif labels_file is not None:
        columns, table, rows = _labels_of(labels_file, reading, relative)
        about |= {"labels": columns, "place_target": lambda row, name: table.place(rows[row], name)}
        if reading.labels is None:
            say.append(f"targets in {labels_file.name}")
    elif len({file.parent for file in paths}) > 1:
        names = [file.parent.relative_to(folder).as_posix() for file in paths]
        column = Labels("subfolder", None, names, np.zeros(len(names), bool), False)
        about |= {"labels": [column], "place_target": lambda row, name: f"{paths[row]}: {name}"}
        say.append("the class of a file is its subfolder")
    times = None
    clock = None
    if time is not None:
        times = np.concatenate([table.times(time)[order] for table, order in zip(tables, orders, strict=True)])
        ordered = zip(tables, orders, strict=True)
        clock = [texts[row] for table, order in ordered for texts in [table.texts(time)] for row in order.tolist()]
        say += [f"time {time!r}"] if reading.time is None else []
    data = build(
        np.concatenate([table.matrix(features)[order] for table, order in zip(tables, orders, strict=True)]),
        counts,
        replace(reading, time=time),
        ids=relative,
        names=tuple(features),
        times=times,
        clock=clock,
        source=str(folder),
        place_value=lambda row, d: place(row, features[d]),
        **about,
    )
    files = (*map(str, paths), *(() if labels_file is None else (str(labels_file),)))
    return replace(data, files=files, recognized=(*say, *data.recognized))


def _below(folder: Path) -> list[Path]:
    found = (file for file in sorted(folder.rglob("*")) if file.name.lower().endswith(SUFFIXES) and file.is_file())
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _beside(folder: Path) -> Path | None:
    return next((folder / name for name in LABELS if (folder / name).is_file()), None)


def _same(one: Path, other: Path) -> bool:
    return one.absolute() == other.absolute()


def _order(table: Table, time: str | None) -> np.ndarray:
    """The rows of a file in the order of their times."""
    if time is None:
        return np.arange(len(table))
    times = table.times(time)
    order = np.argsort(times, kind="stable")
    same = times[order][1:] == times[order][:-1]
    if same.any():
        row, before = int(order[int(np.argmax(same)) + 1]), int(order[int(np.argmax(same))])
        raise DatasetError(f"{table.place(row, time)}: the same time as in {table.row} {table.numbers[before]}")
    return order


def _column(tables: list[Table], orders: list[np.ndarray], name: str) -> Labels:
    """A column of targets over all files."""
    ordered = zip(tables, orders, strict=True)
    return labels_of(name, [table.columns[name][row] for table, order in ordered for row in order.tolist()])


def _labels_of(path: Path, reading: Reading, files: list[str]) -> tuple[list[Labels], Table, list[int]]:
    """(targets, one of each file; the table that they are from; the row of each)."""
    table = read_table(path, reading.header, reading.delimiter)
    lower = {name.lower(): name for name in reversed(table.columns)}
    key = next((lower[name] for name in FILE_NAMES if name in lower), next(iter(table.columns)))
    rows: dict[str, int] = {}
    for row, name in enumerate(table.keys(key)):
        if name in rows:
            raise DatasetError(f"{table.place(row, key)}: {name!r} stands twice")
        rows[name] = row
    found = []
    for file in files:
        forms = (file, Path(file).name, Path(file).stem, os.path.splitext(file)[0])
        named = [rows[form] for form in forms if form in rows]
        if not named:
            raise DatasetError(f"{path}: no row for the file {file}; expected its name in the column {key!r}")
        found.append(named[0])
    called = table.called("target")
    others = tuple(name for name in table.columns if name != key)
    wanted = reading.target or ((called,) if called is not None else others[:1])
    if not wanted:
        raise DatasetError(f"{path}: only the column {key!r}, expected another with the targets")
    columns = []
    for name in wanted:
        whole = table.labels(table.check(name, "target"))
        numbers = None if whole.numbers is None else whole.numbers[found]
        columns.append(Labels(name, numbers, [whole.cells[row] for row in found], whole.missing[found], whole.whole))
    return columns, table, found
