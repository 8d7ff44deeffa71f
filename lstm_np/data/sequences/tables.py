"""A table of named columns, from a CSV file or a data frame, and its cells as numbers or labels.

Errors say the file, the line and the column.  A number counts as missing whose cell is empty or one of `MISSING`, a
label where it is one of `MISSING_LABELS`.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from lstm_np.data.dataset import DatasetError

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?"))
MISSING_LABELS = frozenset(("", "nan", "?"))  # others may be the name of a class
DELIMITERS = (",", ";", "\t", "|")
# names that say what a column is, where nobody says it otherwise
NAMES = {
    "id": ("id", "sequence", "sequence_id", "series", "series_id", "case", "case_id"),
    "time": ("time", "t", "timestamp", "step", "date", "datetime"),
    "target": ("target", "label", "class", "y"),
    "group": ("group",),
}
KNOWN = {name for names in NAMES.values() for name in names}
_WHOLE = re.compile(r"[+-]?\d+")


class Labels(NamedTuple):
    """The values of a column as targets: numbers (n,) float64 or None where some are text, the text of each cell, which
    are missing (n,), and whether all are whole numbers."""

    name: str
    numbers: np.ndarray | None
    cells: list[Any]
    missing: np.ndarray
    whole: bool


@dataclass(frozen=True, eq=False)
class Table:
    """Columns by name: lists of cells (text), or arrays of a data frame.

    source  what errors call it;  row: "line" of a file, "row" of a frame;  numbers: (n,) of each row, counted as there
    """

    source: str
    columns: dict[str, Any]
    numbers: Sequence[int]
    row: str = "line"

    def __len__(self) -> int:
        return len(self.numbers)

    def without(self, names: Sequence[str]) -> Table:
        """The same without some columns."""
        return replace(self, columns={name: cells for name, cells in self.columns.items() if name not in names})

    def place(self, row: int, column: str) -> str:
        """Where a cell stands, in words."""
        return f"{self.source}: {self.row} {self.numbers[row]}, column {column!r}"

    def check(self, name: str, what: str) -> str:
        """The name of a column that there is.  Raises DatasetError."""
        if name not in self.columns:
            shown = ", ".join(list(self.columns)[:12]) + (" ..." if len(self.columns) > 12 else "")
            raise DatasetError(f"{self.source}: no column {name!r} ({what}); there are: {shown}")
        return name

    def called(self, what: str) -> str | None:
        """The column that has a usual name of an id, a time, a target or a group; None where none has."""
        lower = {name.strip().lower(): name for name in reversed(self.columns)}
        return next((lower[name] for name in NAMES[what] if name in lower), None)

    def floats(self, name: str) -> np.ndarray:
        """A column as float64 (n,), NaN where a cell is missing.  Raises DatasetError for text and infinite numbers."""
        cells: Any = self.columns[name]
        if isinstance(cells, np.ndarray):
            found = cells.astype(np.float64) if cells.dtype.kind in "uifb" else None
        else:
            found = _floats(cells)
        if found is None:
            row = next(row for row, cell in enumerate(cells) if _number(cell) is None)
            hint = "; write a decimal point" if re.fullmatch(r"[+-]?\d*,\d+", str(cells[row]).strip()) else ""
            hint = hint or "; name the columns that are features, where this one is none"
            raise DatasetError(f"{self.place(row, name)}: found {_shown(cells[row])}, expected a number{hint}")
        if np.isinf(found).any():
            row = int(np.argmax(np.isinf(found)))
            raise DatasetError(f"{self.place(row, name)}: found {_shown(cells[row])}, expected a finite number")
        return found

    def matrix(self, names: Sequence[str]) -> np.ndarray:
        """Columns as float64 (n, D), NaN where a cell is missing.  Raises DatasetError as `floats`."""
        found = np.empty((len(self), len(names)))
        for k, name in enumerate(names):
            found[:, k] = self.floats(name)
        return found

    def times(self, name: str) -> np.ndarray:
        """A column of numbers or ISO dates as float64 (n,); dates are seconds since 1970.

        Raises DatasetError for anything else, a missing time too.
        """
        column = self.columns[name]
        if isinstance(column, np.ndarray):
            if column.dtype.kind == "M":
                missing, found = np.isnat(column), column.astype("datetime64[us]").astype(np.int64) / 1e6
            else:
                found = self.floats(name)
                missing = np.isnan(found)
        else:
            numbers = _floats(column)
            if numbers is None:
                found = np.array([self._seconds(row, name, cell) for row, cell in enumerate(column)])
            else:
                found = numbers
            missing = np.isnan(found)
        if missing.any() or np.isinf(found).any():
            row = int(np.argmax(missing | np.isinf(found)))
            raise DatasetError(
                f"{self.place(row, name)}: no time, expected a number or a date such as 2026-01-31T12:00"
            )
        return found

    def _seconds(self, row: int, name: str, cell: str) -> float:
        text = cell.strip().removesuffix("Z")
        if text.lower() in MISSING or text.lower() == "nat":  # which NumPy takes for a date, too
            return float("nan")
        try:
            if not text[0].isdecimal():  # "now", "today"
                raise ValueError
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of NumPy, for time zones, which it leaves out
                return float(np.datetime64(text, "us").astype(np.int64)) / 1e6
        except (ValueError, UserWarning, DeprecationWarning):
            expected = "expected a number or a date such as 2026-01-31T12:00"
            raise DatasetError(f"{self.place(row, name)}: found {_shown(cell)}, {expected}") from None

    def labels(self, name: str) -> Labels:
        """A column as targets."""
        column = self.columns[name]
        if isinstance(column, np.ndarray) and column.dtype.kind in "uifb":
            numbers = column.astype(np.float64)
            whole = column.dtype.kind in "uib"
            plain = [int(cell) for cell in column.tolist()] if whole else column.tolist()
            return Labels(name, numbers, plain, np.isnan(numbers), whole)
        return labels_of(name, ["" if cell is None else str(cell) for cell in column])

    def texts(self, name: str) -> list[str]:
        """A column as text."""
        return [str(cell).strip() for cell in self.columns[name]]

    def keys(self, name: str) -> list[str]:
        """A column as text, for ids and groups.  Raises DatasetError where a cell is missing."""
        column = self.columns[name]
        cells = [("" if cell is None else str(cell)).strip() for cell in _plain(column)]
        for row, cell in enumerate(cells):
            if cell == "":
                raise DatasetError(f"{self.place(row, name)}: the cell is empty, expected what the row belongs to")
        return cells


def labels_of(name: str, texts: Sequence[str]) -> Labels:
    """Cells as targets: numbers where all that are not missing are, else text."""
    cells = [text.strip() for text in texts]
    found = _floats(cells)
    if found is not None and np.isnan(found).all():  # no number at all: "none", "null"
        found = None
    missing = np.array([cell.lower() in (MISSING_LABELS if found is None else MISSING) for cell in cells], np.bool_)
    whole = found is not None and all(_WHOLE.fullmatch(cell) for cell, no in zip(cells, missing, strict=True) if not no)
    return Labels(name, found, cells, missing, whole)


def _plain(column: Any) -> Iterable[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else column


def _number(cell: Any) -> float | None:
    """A cell as a number, NaN where it is missing; None for text."""
    text = ("" if cell is None else str(cell)).strip()
    if text.lower() in MISSING:
        return float("nan")
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _floats(cells: Sequence[Any]) -> np.ndarray | None:
    """float64 (n,), NaN where a cell is missing; None where one is text."""
    try:
        found = np.array(list(map(float, cells)))
        if not any("_" in cell for cell in cells):  # which Python's numbers may have
            return found
    except (TypeError, ValueError):
        pass
    numbers = [_number(cell) for cell in cells]
    return None if None in numbers else np.array(numbers, np.float64)


def _shown(cell: Any) -> str:
    text = repr(str(cell))
    return text if len(text) <= 40 else f"{text[:36]}...'"


# ---- from a file


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, decompressed where its name ends in .gz.

    Raises DatasetError for a damaged file and for what is no UTF-8, OSError.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        if os.fspath(path).lower().endswith(".gz"):
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, ValueError, zlib.error) as error:
        raise DatasetError(f"{path}: no gzip file, or cut short ({error})") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        found = f"the byte {content[error.start]:#04x}"
        raise DatasetError(f"{path}: line {row}: found {found}, expected UTF-8 text; save the file as UTF-8") from None


def read_table(path: str | os.PathLike[str], header: bool | None = None, delimiter: str | None = None) -> Table:
    """The table in a CSV file.

    header     whether the first row names the columns; None: where it is all text, has text above numbers, or a usual
               name and otherwise only whole numbers.  Without one columns are called 1, 2, 3 ...
    delimiter  None: a tab for .tsv, else that of , ; tab | which the first row has most of

    A first column without a name, as frames write their index, is left out.  Raises DatasetError for rows of unequal
    length, a name that stands twice, no row at all; OSError.
    """
    source, text = os.fspath(path), read_text(path)
    first = text.partition("\n")[0]
    if delimiter is None:
        has_tabs = source.lower().removesuffix(".gz").endswith((".tsv", ".tab"))
        delimiter = "\t" if has_tabs else max(DELIMITERS, key=first.count)
    rows, lines = [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for row in reader:
            if row and not (len(row) == 1 and not row[0].strip()):  # a blank line is no row
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DatasetError(f"{source}: line {reader.line_num}: {error}") from None
    if not rows:
        raise DatasetError(f"{source}: the file is empty")
    has_header = _is_header(rows) if header is None else header
    width = len(rows[0])
    for row, line in zip(rows, lines, strict=True):
        if len(row) != width:
            shown = {"\t": "a tab"}.get(delimiter, repr(delimiter))
            raise DatasetError(
                f"{source}: line {line}: found {len(row)} cells, expected {width} (separated by {shown})"
            )
    names = [name.strip() for name in rows[0]] if has_header else [str(k) for k in range(1, width + 1)]
    body, numbers = (rows[1:], lines[1:]) if has_header else (rows, lines)
    if not body:
        raise DatasetError(f"{source}: only a header, no row of data")
    columns: dict[str, Any] = {}
    for k, (name, cells) in enumerate(zip(names, zip(*body, strict=True), strict=True)):
        if name == "" and k == 0:
            continue
        if name == "":
            raise DatasetError(f"{source}: line {lines[0]}: column {k + 1} has no name; name it in the header")
        if name in columns:
            raise DatasetError(f"{source}: line {lines[0]}: two columns are called {name!r}; rename one")
        columns[name] = list(cells)
    return Table(source, columns, numbers)


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns."""
    first = [cell.strip() for cell in rows[0]]
    text = [_number(cell) is None for cell in first]
    if not any(text):
        return False
    steps = all(_WHOLE.fullmatch(cell) for cell, is_text in zip(first, text, strict=True) if not is_text)
    if all(text) or (steps and any(cell.lower() in KNOWN for cell in first)):
        return True
    second = rows[1] if len(rows) > 1 else []
    return any(is_text and _number(cell) is not None for is_text, cell in zip(text, second, strict=False))


# ---- from a data frame


def frame_table(frame: Any) -> Table:
    """The table in a data frame of pandas or polars; its index is left out.  Rows are counted from 0.

    Raises DatasetError for no row, and for a name that stands twice.
    """
    columns: dict[str, Any] = {}
    names = [str(name) for name in frame.columns]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise DatasetError(f"the data frame: two columns are called {doubled[0]!r}; rename one")
    for name in frame.columns:
        column = frame[name].to_numpy()
        if column.dtype.kind not in "uifbM":
            column = [None if _is_missing(cell) else cell for cell in column.tolist()]
            column = ["" if cell is None else str(cell) for cell in column]
        columns[str(name)] = column
    if not len(frame):
        raise DatasetError("the data frame has no rows")
    return Table("the data frame", columns, range(len(frame)), "row")


def _is_missing(cell: Any) -> bool:
    """None, NaN, and the values of pandas for what is missing, which are no number and equal nothing."""
    try:
        return cell is None or bool(cell != cell)
    except TypeError:
        return True
