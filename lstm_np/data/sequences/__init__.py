"""Sequences of one's own: read from files, frames and arrays, split, and with their missing values seen to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lstm_np.data.dataset import DatasetError
from lstm_np.data.sequences.arrays import OPENED, from_arrays, from_awkward, is_awkward
from lstm_np.data.sequences.assembly import from_table
from lstm_np.data.sequences.folder import read_folder
from lstm_np.data.sequences.missing import SequenceImputer
from lstm_np.data.sequences.record import Reading, Sequences
from lstm_np.data.sequences.tables import frame_table, read_table
from lstm_np.data.sequences.ts import read_ts
from lstm_np.files import expand

__all__ = ["Reading", "SequenceImputer", "Sequences", "fingerprint_of_files", "read_sequences"]

TABLES = (".csv", ".tsv", ".tab", ".txt")
# what of a `Reading` says nothing about each kind of source
OF_TABLES = ("layout", "header", "delimiter", "ignore")
UNUSED = {
    "a table": ("labels",),
    "a folder": ("layout", "id", "group"),
    "a data frame": ("header", "delimiter", "labels"),
    "arrays": (*OF_TABLES, "id", "time", "group", "labels"),
    ".npz": (*OF_TABLES, "labels"),
    ".npy": ("layout", "ignore", "id", "time", "group"),
    ".ts": (*OF_TABLES, "id", "time", "group", "labels", "target"),
}
KINDS = ".npz, .npy, .csv, .tsv, .ts, or a folder of CSV files"
AT_ONCE = 1 << 20  # bytes of a file that are hashed together


def read_sequences(source: Any, *, targets: Any = None, reading: Reading | None = None, **options: Any) -> Sequences:
    """`Sequences` from a file, a folder of CSV files, a data frame (pandas, polars), an awkward array, an array
    (N, T, D) or (N, T), or a list of arrays (T_i, D).

    targets  of arrays and lists, by value: (N,), (N, M), of each step (N, T), (N, T, M) or a list
    options  as `Reading` has them; or `reading`, all of them together

    What a file is, is seen from its name: .npz, .npy, .csv or .tsv (also .txt; compressed: .csv.gz), .ts.  What is not
    said of columns, layout and task is recognized; `Sequences.recognized` says what was.  An option that says nothing
    about a kind of source is refused.

    >>> with open("walks.csv", "w") as file:
    ...     _ = file.write("id,time,speed,label\\na,0,1.5,up\\na,1,2.5,up\\nb,0,3.5,down\\n")
    >>> data = lstm_np.data.read_sequences("walks.csv")
    >>> data, data.names, data.classes
    (<2 sequences of 1 to 2 steps of 1 feature, classify: 2 classes>, ('speed',), ('down', 'up'))
    >>> data.x[0].tolist(), data.targets.tolist()
    ([[1.5], [2.5]], [1, 0])

    Raises DatasetError with the file, the row and the column of what cannot be read; OSError.
    """
    chosen = Reading(**options) if reading is None else replace(reading, **options)
    if isinstance(source, (str, os.PathLike)):
        if targets is not None:
            raise DatasetError("targets of a file stand in it, or in a second file (labels); name columns with target")
        return _read_path(expand(source), chosen)
    is_frame = hasattr(source, "columns") and hasattr(source, "__getitem__") and not is_awkward(source)
    _check_used(chosen, "a data frame" if is_frame else "arrays", "the data frame" if is_frame else "x")
    if is_awkward(source):
        source = from_awkward(source)
    elif is_frame:
        if targets is not None:
            raise DatasetError("targets of a data frame are columns of it; name them with target")
        return from_table(frame_table(source), chosen)
    if not isinstance(source, (list, tuple)) or len({np.shape(one) for one in source}) == 1:
        source = np.asarray(source)
    if is_awkward(targets):
        targets = [np.asarray(one) for one in targets.to_list()]
    given = {} if targets is None else {"target": targets}
    return from_arrays(source, chosen, targets=given, source="x")


def kind_of(path: str | os.PathLike[str]) -> str:
    """What kind of file or folder it is, one of `UNUSED`; another suffix as it is."""
    if Path(path).is_dir():
        return "a folder"
    suffix = Path(Path(path).name.lower().removesuffix(".gz")).suffix
    return "a table" if suffix in TABLES else suffix


def _check_used(reading: Reading, kind: str, source: str) -> None:
    """Raises DatasetError for what says nothing about this kind of source."""
    shown = f"{kind} files" if kind.startswith(".") else kind
    for name in UNUSED.get(kind, ()):
        if getattr(reading, name) not in (None, ()):
            raise DatasetError(f"{source}: {name} says nothing about {shown}; leave it out")


def _read_path(path: Path, reading: Reading) -> Sequences:
    kind = kind_of(path)
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder")
    _check_used(reading, kind, str(path))
    if kind == "a folder":
        return read_folder(path, reading)
    if kind in OPENED and path.name.lower().endswith(".gz"):
        raise DatasetError(f"{path}: an {kind} file that is compressed; decompress it (gunzip)")
    reader: Callable[[Path, Reading], Sequences] | None = OPENED.get(kind)
    if kind == ".ts":
        reader = read_ts
    elif kind == "a table":

        def reader(path: Path, reading: Reading) -> Sequences:
            return from_table(read_table(path, reading.header, reading.delimiter), reading)

    if reader is None:
        raise DatasetError(f"{path}: what kind of file this is cannot be seen from its name; expected {KINDS}")
    data = reader(path, reading)
    return data if data.files else replace(data, files=(str(path),))


def fingerprint_of_files(paths: Sequence[str | os.PathLike[str]]) -> str:
    """The SHA-256 (hex) of the contents of files, each with its length before it, in the order of `paths`."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.stat(path).st_size.to_bytes(8, "big"))
        with open(path, "rb") as file:
            while block := file.read(AT_ONCE):
                digest.update(block)
    return digest.hexdigest()
