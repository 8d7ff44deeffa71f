"""Writers of the files that `read_sequences` reads: x is a list of arrays (T_i, D), NaN a missing value."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np


def cell(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def write_rows(path: Path, rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def write_long(path: Path, x, names, targets=(), target_names=(), order=None, ids=None) -> Path:
    """A row a step; `targets`: for each target a list of one value a sequence, or of one list a sequence."""
    rows = []
    for n, sequence in enumerate(x):
        for t, step in enumerate(sequence):
            of_step = [column[n][t] if np.ndim(column[n]) else column[n] for column in targets]
            rows.append([f"s{n}" if ids is None else ids[n], t, *map(cell, step), *of_step])
    rows = rows if order is None else [rows[k] for k in order]
    return write_rows(path, [["id", "time", *names, *target_names], *rows])


def write_wide(path: Path, x, names, targets=(), target_names=()) -> Path:
    """A row a sequence, with empty cells behind its end."""
    T = max(map(len, x))
    head = [*target_names, *(f"{name}_{t}" for name in names for t in range(T))]
    rows = []
    for n, sequence in enumerate(x):
        padded = np.full((T, len(names)), np.nan)
        padded[: len(sequence)] = sequence
        rows.append([*(column[n] for column in targets), *map(cell, padded.T.reshape(-1))])
    return write_rows(path, [head, *rows])


def write_ts(path: Path, x, labels=None, targets=None, classes=None) -> Path:
    """As the archives have them."""
    lines = ["# made by a test", "@problemName Made", "@timeStamps false", f"@dimensions {x[0].shape[1]}"]
    lines.append(f"@equalLength {str(len({len(one) for one in x}) == 1).lower()}")
    if labels is not None:
        lines.append(f"@classLabel true {' '.join(classes or sorted(set(labels)))}")
    if targets is not None:
        lines.append("@targetLabel true")
    lines.append("@data")
    for n, sequence in enumerate(x):
        fields = [",".join("?" if np.isnan(value) else repr(float(value)) for value in row) for row in sequence.T]
        fields += [] if labels is None else [labels[n]]
        fields += [] if targets is None else [repr(float(targets[n]))]
        lines.append(":".join(fields))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_folder(path: Path, x, names, classes=None) -> Path:
    """A file a sequence, each in the subfolder of its class."""
    for n, sequence in enumerate(x):
        folder = path if classes is None else path / classes[n]
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / f"{n:04}.csv", [names, *([cell(value) for value in step] for step in sequence)])
    return path
