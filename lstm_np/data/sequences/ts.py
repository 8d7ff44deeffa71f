"""The .ts files of the UCR, UEA and TSER archives, as aeon and sktime write them.

Behind a header of lines that begin with @, every line is a sequence: its dimensions, with colons between them, and last
the label or the target; the values of a dimension have commas between them, and ? is a missing one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lstm_np.data.dataset import DatasetError
from lstm_np.data.sequences.assembly import build
from lstm_np.data.sequences.record import Reading, Sequences
from lstm_np.data.sequences.tables import Labels, read_text

TRUE = {"true": True, "false": False}


class _Header(NamedTuple):
    """What the lines before the data say; None where they do not."""

    dimensions: int | None
    length: int | None
    equal: bool | None
    labels: tuple[str, ...] | None  # of classes; () for a target that is a number; None for none
    begins: int  # the number of the first line of data, from 0


def read_ts(path: str | os.PathLike[str], reading: Reading) -> Sequences:
    """The sequences in a .ts file.

    Raises DatasetError for timestamps, a line that does not fit the header, dimensions of one sequence of unequal
    lengths, and for what `lstm_np.data.sequences.targets.encode` refuses; OSError.
    """
    source = os.fspath(path)
    lines = read_text(path).splitlines()
    header = _header(source, lines)
    parts, cells, numbers = list[np.ndarray](), list[str](), list[int]()
    for number, line in enumerate(lines[header.begins :], header.begins + 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split(":")
        if header.labels is not None:
            cells.append(fields.pop().strip())
        parts.append(_sequence(f"{source}: line {number}", fields, header, parts))
        numbers.append(number)
    if not parts:
        raise DatasetError(f"{source}: no line of data behind @data")
    counts = np.array([len(part) for part in parts])
    D = parts[0].shape[1]
    names = reading.features or (("value",) if D == 1 else tuple(f"dimension {d + 1}" for d in range(D)))
    if len(names) != D:
        raise DatasetError(f"{source}: found {D} dimensions, expected {len(names)}: {', '.join(names)}")
    starts = np.cumsum(counts) - counts

    def place(row: int, d: int) -> str:
        n = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{source}: line {numbers[n]}, dimension {d + 1}, value {row - int(starts[n]) + 1}"

    classes = header.labels if header.labels and reading.classes is None else None
    found = reading if classes is None else replace(reading, classes=classes)
    wanted = header.labels is not None and reading.target != ()
    data = build(
        np.concatenate(parts),
        counts,
        found,
        labels=[_labels(cells, header)] if wanted else [],
        labels_of_sequences=True,
        ids=list(range(len(parts))),
        names=tuple(names),
        source=source,
        place_target=lambda row, name: f"{source}: line {numbers[row]}, {name}",
        place_value=place,
    )
    return replace(data, named=reading.features is not None)


def _header(source: str, lines: Sequence[str]) -> _Header:
    found: dict[str, Any] = {}
    for number, line in enumerate(lines):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key, _, rest = text.partition(" ")
        where, key, words = f"{source}: line {number + 1}", key.lower(), rest.split()
        if key == "@data":
            return _Header(
                1 if found.get("@univariate") else found.get("@dimensions"),
                found.get("@serieslength"),
                found.get("@equallength"),
                found.get("labels"),
                number + 1,
            )
        if not key.startswith("@"):
            raise DatasetError(f"{where}: found {text[:30]!r}, expected @data before the first sequence")
        if key in ("@timestamps", "@univariate", "@equallength", "@missing", "@classlabel", "@targetlabel"):
            flag = TRUE.get(words[0].lower()) if words else None
            if flag is None:
                raise DatasetError(f"{where}: {key} must be true or false, found {rest!r}")
            if key == "@timestamps" and flag:
                raise DatasetError(f"{where}: sequences with timestamps are not read; write the values alone")
            if key in ("@classlabel", "@targetlabel"):
                if flag:
                    found["labels"] = tuple(words[1:]) if key == "@classlabel" else ()
            else:
                found[key] = flag
        elif key in ("@dimensions", "@dimension", "@serieslength"):
            if not words or not words[0].isdecimal():
                raise DatasetError(f"{where}: {key} must be a whole number, found {rest!r}")
            found["@dimensions" if key == "@dimension" else key] = int(words[0])
    raise DatasetError(f"{source}: no line @data, expected a .ts file of the time series archives")


def _sequence(where: str, fields: Sequence[str], header: _Header, before: Sequence[np.ndarray]) -> np.ndarray:
    """(T, D) of the dimensions of a line."""
    D = header.dimensions or (before[0].shape[1] if before else len(fields))
    if len(fields) != D:
        raise DatasetError(f"{where}: found {len(fields)} dimensions (between colons), expected {D}")
    rows = [_values(f"{where}, dimension {d + 1}", text) for d, text in enumerate(fields)]
    T = len(rows[0])
    for d, row in enumerate(rows):
        if len(row) != T:
            raise DatasetError(
                f"{where}: dimension {d + 1} has {len(row)} values, dimension 1 has {T}; lengths must agree"
            )
    wanted = header.length or (len(before[0]) if before and header.equal else None)
    if header.equal is not False and wanted is not None and wanted != T:
        raise DatasetError(
            f"{where}: found {T} values, expected {wanted}, as the header says or the first sequence has"
        )
    return np.stack(rows, axis=1)


def _values(where: str, text: str) -> np.ndarray:
    cells = text.split(",")
    try:
        found = np.array([float(cell) for cell in cells])
    except ValueError:
        numbers = []
        for k, cell in enumerate(cells):
            try:
                numbers.append(float("nan") if cell.strip() in ("?", "") else float(cell))
            except ValueError:
                shown = cell.strip()[:30]
                raise DatasetError(f"{where}, value {k + 1}: found {shown!r}, expected a number or ?") from None
        found = np.array(numbers)
    if np.isinf(found).any():
        k = int(np.argmax(np.isinf(found)))
        raise DatasetError(f"{where}, value {k + 1}: found {cells[k].strip()}, expected a finite number")
    return found


def _labels(cells: Sequence[str], header: _Header) -> Labels:
    missing = np.array([cell in ("?", "") for cell in cells], bool)
    if header.labels == ():
        try:
            numbers = np.array([np.nan if no else float(cell) for cell, no in zip(cells, missing, strict=True)])
        except ValueError:
            numbers = None
        return Labels("target", numbers, list(cells), missing, False)
    return Labels("class label", None, list(cells), missing, False)
