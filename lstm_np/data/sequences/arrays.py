"""Sequences from arrays: .npz and .npy files, NumPy's arrays in memory, awkward arrays and lists of arrays."""

from __future__ import annotations

import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lstm_np.backends.memory import available_memory
from lstm_np.data.dataset import DatasetError
from lstm_np.data.scaling import VALUES_AT_ONCE
from lstm_np.data.sequences.assembly import about, build
from lstm_np.data.sequences.record import Reading, Sequences
from lstm_np.data.sequences.tables import MISSING_LABELS, Labels, read_table
from lstm_np.data.sequences.targets import encode
from lstm_np.files import expand

SHARE_OF_MEMORY = 4  # an .npy file whose values are larger than this part of the free memory stays on disk
KEYS = {
    "x": ("x", "data", "sequences", "arr_0"),
    "y": ("y", "target", "targets", "labels", "label", "arr_1"),
    "lengths": ("lengths",),
    "group": ("groups", "group"),
    "id": ("ids", "id"),
    "time": ("times", "time"),
    "features": ("features", "names"),
}
# what NumPy and the modules below it raise for files that are damaged, encrypted, or of another kind
UNREADABLE = (
    ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
)  # fmt: skip
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


def read_npz(path: str | os.PathLike[str], reading: Reading) -> Sequences:
    """The sequences in an .npz file: x (N, T, D) or (N, T), and where they are there y (N,), (N, M), (N, T) or
    (N, T, M), lengths (N,), groups, ids and times (N,) and features (D,), under one of the names in `KEYS`.

    x_train, y_train, x_test ... are joined, and the file's own split is kept (`Sequences.parts`).

    Raises DatasetError for other names, objects that only pickle reads, shapes that do not fit, damaged files; OSError.
    """
    source = os.fspath(path)
    try:
        with open(path, "rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise DatasetError(f"{source}: holds one array, as an .npy file does; call it .npy")
            with file:
                read = {name: file[name] for name in file.files}
    except DatasetError:
        raise
    except UNREADABLE as error:
        raise DatasetError(f"{source}: {_why(error, 'an .npz file')}") from None
    stored = {name: array for name, array in read.items() if isinstance(array, np.ndarray)}  # the others are no .npy
    parts, arrays = _joined(source, stored)
    x = _found(arrays, "x")
    if x is None:
        raise DatasetError(f"{source}: no array called x (or data, sequences); there are: {', '.join(stored)}")
    names = _found(arrays, "features")
    if names is not None and names.ndim != 1:
        raise DatasetError(f"{source}: names of features have shape {names.shape}, expected one for each feature")
    about_x: dict[str, Any] = {
        "names": None if names is None else [str(name) for name in names.tolist()],
        "lengths": _found(arrays, "lengths"),
        "parts": parts,
    }
    for what in ("id", "group", "time"):
        given = getattr(reading, what)
        if given is not None and given not in arrays:
            raise DatasetError(f"{source}: no array {given!r} ({what}); there are: {', '.join(arrays)}")
        about_x[what] = _found(arrays, what) if given is None else arrays[given]
    say: list[str] = []
    if reading.group is None and (called := _called(arrays, "group")) is not None:
        reading, say = replace(reading, group=called), [f"group {called!r}"]
    targets: dict[str, Any] = {}
    if reading.target is None:
        y = _found(arrays, "y")
        targets = {} if y is None else {"y": y}
    for name in reading.target or ():
        if name not in arrays:
            raise DatasetError(f"{source}: no array {name!r} (target); there are: {', '.join(arrays)}")
        targets[name] = arrays[name]
    data = from_arrays(x, reading, targets=targets, source=source, **about_x)
    return replace(data, recognized=(*say, *data.recognized))


def read_npy(path: str | os.PathLike[str], reading: Reading) -> Sequences:
    """The sequences x (N, T, D) or (N, T) in an .npy file, and the targets of a second file.

    The second file is `reading.labels`, or the one beside it with y for x in its name: y_train.npy for x_train.npy.
    A file whose values, as float64, are larger than a quarter of the free memory is not read but mapped: its sequences
    are read as they are needed.

    Raises DatasetError as `read_npz`.
    """
    source = os.fspath(path)
    x = load_array(path, mapped=True)
    memory = available_memory()
    if not (memory is not None and x.size * np.dtype(np.float64).itemsize > memory // SHARE_OF_MEMORY):
        x = np.array(x)
    name = Path(path).name
    beside = Path(path).with_name(("y" if name[:1] == "x" else "Y") + name[1:])
    labels: Path | None = None if reading.labels is None else expand(reading.labels)
    if labels is None and name[:1] in "xX" and reading.target != ():
        labels = next((one for one in (beside, beside.with_name("y" + name[1:])) if one.is_file()), None)
    if reading.target and (labels is None or labels.suffix.lower() == ".npy"):
        raise DatasetError(f"{source}: target names columns of a CSV file with the targets (labels); leave it out")
    targets: dict[str, Any] = {}
    if labels is not None and reading.target != ():
        if labels.suffix.lower() == ".npy":
            targets = {"y": load_array(labels)}
        else:
            table = read_table(labels, reading.header, reading.delimiter)
            wanted = reading.target or tuple(table.columns)[-1:]
            targets = {name: table.labels(table.check(name, "target")) for name in wanted}
    data = from_arrays(x, reading, targets=targets, source=source)
    if labels is not None and reading.labels is None:
        data = replace(data, recognized=(f"targets in {labels.name}", *data.recognized))
    return replace(data, files=(source, *(() if labels is None else (str(labels),))))


def load_array(path: str | os.PathLike[str], *, mapped: bool = False) -> np.ndarray:
    """The array of an .npy file, `mapped` where its values are to be read only as they are needed.

    Raises DatasetError for a damaged file or one of objects; OSError.
    """
    try:
        found = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except UNREADABLE as error:
        raise DatasetError(f"{os.fspath(path)}: {_why(error, 'an .npy file')}") from None
    if not isinstance(found, np.ndarray):
        found.close()
        raise DatasetError(f"{os.fspath(path)}: holds several arrays, as an .npz file does; call it .npz")
    return found


def _why(error: Exception, what: str) -> str:
    text = " ".join(str(error).split())
    if "allow_pickle" in text:
        return "holds Python objects, which only pickle reads; expected arrays of numbers or text"
    return f"cannot be read as {what}, or is cut short ({text[:120]})"


def _joined(
    source: str, stored: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray] | None, dict[str, np.ndarray]]:
    """(indices by part, arrays by name), with x_train, x_test ... one behind the other; None where there are none."""
    split: dict[str, dict[str, np.ndarray]] = {}
    pattern = re.compile(rf"(.+)_({'|'.join(name for names in SPLITS.values() for name in names)})", re.IGNORECASE)
    for name, array in stored.items():
        if match := pattern.fullmatch(name):
            part = next(part for part, names in SPLITS.items() if match[2].lower() in names)
            split.setdefault(match[1], {})[part] = array
    if _found(stored, "x") is not None or not any(name.lower() in KEYS["x"] for name in split):
        return None, dict(stored)
    main = next(name for name in split if name.lower() in KEYS["x"])
    present = [part for part in SPLITS if part in split[main]]
    joined = {name: array for name, array in stored.items() if not pattern.fullmatch(name)}
    for name, arrays in split.items():
        if sorted(arrays) != sorted(present):
            raise DatasetError(f"{source}: {name} is there for {', '.join(arrays)}, {main} for {', '.join(present)}")
        for part in present:
            found, expected = np.shape(arrays[part])[:1], np.shape(split[main][part])[:1]
            if found != expected:
                raise DatasetError(f"{source}: {name}_{part} and {main}_{part} differ in length: {found}, {expected}")
        try:
            joined[name] = np.concatenate([arrays[part] for part in present])
        except ValueError as error:
            raise DatasetError(f"{source}: {name}_{present[0]} and the others do not fit together ({error})") from None
    ends = np.cumsum([len(split[main][part]) for part in present])
    starts = [0, *ends[:-1].tolist()]
    return {part: np.arange(a, b) for part, a, b in zip(present, starts, ends.tolist(), strict=True)}, joined


def _found(arrays: Mapping[str, np.ndarray], what: str) -> np.ndarray | None:
    """The array under one of the usual names of what it is."""
    name = _called(arrays, what)
    return None if name is None else arrays[name]


def _called(arrays: Mapping[str, np.ndarray], what: str) -> str | None:
    """The usual name of what it is under which there is an array."""
    lower = {name.lower(): name for name in reversed(list(arrays))}
    return next((lower[name] for name in KEYS[what] if name in lower), None)


def from_arrays(
    x: Any,
    reading: Reading,
    *,
    targets: Mapping[str, Any],
    source: str,
    names: Sequence[str] | None = None,
    lengths: Any = None,
    parts: Mapping[str, np.ndarray] | None = None,
    id: Any = None,
    group: Any = None,
    time: Any = None,
) -> Sequences:
    """Sequences from x (N, T, D), (N, T) for one feature, with `reading.window` also (T, D) for one sequence, or a list
    of arrays (T_i, D) or (T_i,).

    targets   by name, (N,), (N, M), (N, T), (N, T, M), or lists as x is one; or `Labels`, (N,)

    Steps at the end of a sequence at which all features are NaN are no steps, unless `lengths` say how many there are.
    One long sequence in several parts is one for each.  Raises DatasetError.
    """
    if parts is not None and reading.window is not None and np.ndim(x) in (1, 2):
        targets = {
            name: [values[steps] for steps in parts.values()] if np.shape(values)[:1] == (len(x),) else values
            for name, values in targets.items()
        }
        x = [x[steps] for steps in parts.values()]
        parts = {name: np.array([n]) for n, name in enumerate(parts)}
    matrix, counts, mapped = _entered(x, reading, source, lengths)
    N, D = len(counts), (mapped if mapped is not None else matrix).shape[-1]
    named = names is not None
    names = tuple(names or _numbered(D))
    if len(names) != D:
        raise DatasetError(f"{source}: found {len(names)} names of features, x has {D} features")
    if reading.features is not None and tuple(reading.features) != names:
        known = {name: d for d, name in enumerate(names)}
        missing = [name for name in reading.features if name not in known]
        if missing:
            raise DatasetError(f"{source}: no feature {missing[0]!r}; there are: {', '.join(names)}")
        columns = [known[name] for name in reading.features]
        if mapped is not None:
            raise DatasetError(
                f"{source}: is larger than the memory there is, so all {D} features are taken, in their order"
            )
        matrix, names = matrix[:, columns], tuple(reading.features)
    of_each = {"id": id, "group": group, "time": time}
    for what, values in of_each.items():
        if values is not None and np.shape(values) != (N,):
            raise DatasetError(f"{source}: {what} has shape {np.shape(values)}, expected one for each of {N} sequences")
    T = int(counts.max()) if isinstance(x, (list, tuple)) else _steps_of(x, reading)
    labels, of_sequences = _columns(targets, T, counts, reading, source)
    if not of_sequences and reading.window is None and reading.per_step is None:
        reading = replace(reading, per_step=True)  # as the shape says
    starts = np.cumsum(counts) - counts

    def place_target(row: int, name: str) -> str:
        if of_sequences:
            return f"{source}: sequence {row}, target {name!r}"
        n = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{source}: sequence {n}, step {row - int(starts[n])}, target {name!r}"

    def place_value(row: int, d: int) -> str:
        n = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{source}: sequence {n}, step {row - int(starts[n])}, feature {names[d]!r}"

    ids = list(range(N)) if id is None else [str(one) for one in np.asarray(id).tolist()]
    groups = None if group is None else np.asarray(group).tolist()
    times = None if time is None else _floats(time, f"{source}: time")
    if times is not None and np.isnan(times).any():
        raise DatasetError(f"{source}: time has no value for sequence {int(np.argmax(np.isnan(times)))}")
    if mapped is None:
        data = build(
            matrix,
            counts,
            reading,
            labels=labels,
            labels_of_sequences=of_sequences,
            ids=ids,
            groups=groups,
            names=names,
            source=source,
            place_target=place_target,
            place_value=place_value,
            parts=parts,
        )
        if reading.window is None and times is not None:
            data = replace(data, spans=np.stack((times, times), axis=1))
    else:
        found = encode(labels, None if of_sequences else counts, reading, place_target, source) if labels else None
        values = None
        if found is not None:
            values = _padded(found.values, counts, mapped.shape[1]) if found.per_step else found.values
        data = Sequences(
            mapped,
            values,
            names=names,
            ids=ids,
            groups=groups,
            spans=None if times is None else np.stack((times, times), axis=1),
            lengths=None if (counts == mapped.shape[1]).all() else counts,
            parts=parts,
            source=source,
            place=lambda n, t, d: f"{source}: sequence {n}, step {t}, feature {names[d]!r}",
            **about(found, [column.name for column in labels]),
            reading=reading,
        )
    return replace(data, named=named)


def _padded(values: np.ndarray, counts: np.ndarray, T: int) -> np.ndarray:
    """(N, T, ...) of the values (sum of T_i, ...) of sequences one after the other; 0 behind their ends."""
    found = np.zeros((len(counts), T, *values.shape[1:]), values.dtype)
    found[np.arange(T) < counts[:, None]] = values
    return found


def _steps_of(x: np.ndarray, reading: Reading) -> int:
    return len(x) if reading.window is not None and x.ndim < 3 else x.shape[1]


def _numbered(D: int) -> tuple[str, ...]:
    return ("value",) if D == 1 else tuple(f"x{d}" for d in range(D))


def _entered(x: Any, reading: Reading, source: str, lengths: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(all steps (sum of T_i, D), how many each sequence has (N,), the array on disk that stays there or None)."""
    if isinstance(x, (list, tuple)):
        parts = [_floats(one, f"{source}: sequence {n}") for n, one in enumerate(x)]
        if not parts:
            raise DatasetError(f"{source}: no sequences")
        parts = [one[:, None] if one.ndim == 1 else one for one in parts]
        for n, one in enumerate(parts):
            if one.ndim != 2 or one.shape[1] != parts[0].shape[1] or not one.size:
                expected = f"(T, {parts[0].shape[1] if parts[0].ndim == 2 else 'D'}) with at least one step"
                raise DatasetError(f"{source}: sequence {n} has shape {one.shape}, expected {expected}")
        return np.concatenate(parts), np.array([len(one) for one in parts]), None
    if reading.window is not None and x.ndim in (1, 2):
        x = x.reshape(1, len(x), -1)  # one long sequence
    if x.ndim == 2:
        x = x[:, :, None]
    if x.ndim != 3 or x.dtype.kind not in "uifb":
        raise DatasetError(f"{source}: x is {x.dtype} {x.shape}, expected numbers (N, T, D), or (N, T) for one feature")
    if 0 in x.shape:
        raise DatasetError(f"{source}: x has shape {x.shape}, expected at least one sequence, step and feature")
    N, T, D = x.shape
    if lengths is not None:
        counts = np.asarray(lengths)
        good = counts.shape == (N,) and counts.dtype.kind in "ui" and counts.min() >= 1 and counts.max() <= T
        if not good:
            raise DatasetError(f"{source}: lengths must be whole numbers ({N},) of 1 to {T}, the steps of x")
        counts = counts.astype(np.int64)
    else:
        counts = np.full(N, T)
    if isinstance(x, np.memmap) and reading.window is None:
        counts = counts if lengths is not None else _known_steps(x)
        if counts.min() == 0:
            raise DatasetError(f"{source}: sequence {int(counts.argmin())} has no value but NaN")
        return np.empty((0, D)), counts, x
    values = _floats(x, source)
    if lengths is None:
        counts = _known_steps(values)
        if counts.min() == 0:
            raise DatasetError(f"{source}: sequence {int(counts.argmin())} has no value but NaN")
    real = np.arange(T) < counts[:, None]
    return values[real], counts, None


def _known_steps(x: np.ndarray) -> np.ndarray:
    """(N,) the steps of each sequence (T, D) until the last that has a value, read some sequences at a time."""
    (N, T, D), counts = x.shape, np.zeros(len(x), np.int64)
    at_once = max(1, VALUES_AT_ONCE // (T * D))
    for start in range(0, N, at_once):
        known = ~np.isnan(x[start : start + at_once]).all(axis=2)
        counts[start : start + at_once] = np.where(known.any(axis=1), T - np.argmax(known[:, ::-1], axis=1), 0)
    return counts


def _floats(values: Any, where: str) -> np.ndarray:
    try:
        array = np.asarray(values)
        found = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{where}: found what is no array of numbers ({str(error)[:80]})") from None
    if array.dtype.kind not in "uifb":
        raise DatasetError(f"{where}: found {array.dtype}, expected numbers")
    if np.isinf(found).any():
        index = ", ".join(map(str, np.unravel_index(int(np.argmax(np.isinf(found))), found.shape)))
        raise DatasetError(f"{where}: found an infinite value at [{index}], expected finite numbers")
    return found


def _columns(
    targets: Mapping[str, Any], T: int, counts: np.ndarray, reading: Reading, source: str
) -> tuple[list[Labels], bool]:
    """The targets as columns, and whether they are of sequences rather than of their steps."""
    N, columns, kinds = len(counts), list[Labels](), set[bool]()
    for name, values in targets.items():
        if isinstance(values, Labels):
            found, of_sequences = [values], True
            if len(values.cells) != N:
                size = len(values.cells)
                raise DatasetError(f"{source}: found {size} targets {name!r}, expected one for each of {N} sequences")
        else:
            found, of_sequences = _labels(name, values, T, counts, reading, source)
        columns += found
        kinds.add(of_sequences)
    if len(kinds) > 1:
        raise DatasetError(f"{source}: some targets are of sequences and others of steps; they must be of one kind")
    return columns, kinds != {False}


def _labels(
    name: str, values: Any, T: int, counts: np.ndarray, reading: Reading, source: str
) -> tuple[list[Labels], bool]:
    """The columns of one array of targets; T: the steps of the array x, or of the longest sequence of a list."""
    N = len(counts)
    if isinstance(values, (list, tuple)) and any(np.ndim(one) for one in values):
        parts = [np.asarray(one) for one in values]
        if [len(one) if one.ndim else 0 for one in parts] != counts.tolist():
            raise DatasetError(f"{source}: the targets {name!r} of each step need as many steps as the sequences have")
        return _split(name, np.concatenate(parts)), False
    array = np.asarray(values)
    if reading.window is not None and array.shape[:1] == (T,) and N == 1:
        array = array[None]  # those of one long sequence
    if array.shape[:1] != (N,) or array.ndim > 3:
        expected = f"(N,), (N, M), (N, T) or (N, T, M) for N = {N}, T = {T}"
        raise DatasetError(f"{source}: {name} has shape {array.shape}, expected {expected}")
    of_steps = array.ndim == 3 or (array.ndim == 2 and array.shape[1] == T > 1 and reading.per_step is not False)
    if not of_steps:
        return _split(name, array), True
    if array.shape[1] != T:
        raise DatasetError(f"{source}: {name} has shape {array.shape}, expected (N, T, M) for T = {T}")
    return _split(name, array[np.arange(T) < counts[:, None]]), False


def _split(name: str, array: np.ndarray) -> list[Labels]:
    """A column for each of the M targets of an array (n,) or (n, M)."""
    if array.ndim == 1:
        return [_column(name, array)]
    return [_column(name if array.shape[1] == 1 else f"{name}{m}", array[:, m]) for m in range(array.shape[1])]


def _column(name: str, array: np.ndarray) -> Labels:
    if array.dtype.kind in "uifb":
        numbers = array.astype(np.float64)
        return Labels(name, numbers, array.tolist(), np.isnan(numbers), array.dtype.kind in "uib")
    cells = ["" if cell is None else str(cell) for cell in array.tolist()]
    return Labels(name, None, cells, np.array([cell.lower() in MISSING_LABELS for cell in cells], bool), False)


def is_awkward(value: Any) -> bool:
    """Whether it is an array of the package awkward."""
    return type(value).__module__.partition(".")[0] == "awkward"


def from_awkward(array: Any) -> list[np.ndarray]:
    """The sequences (T_i, D) or (T_i,) of an awkward array.  Raises DatasetError where one is none."""
    found = []
    for n, one in enumerate(array):
        try:
            found.append(np.asarray(one, np.float64))
        except (TypeError, ValueError) as error:
            raise DatasetError(f"sequence {n} of the awkward array is no array (T, D) of numbers ({error})") from None
    return found


OPENED: dict[str, Callable[[str | os.PathLike[str], Reading], Sequences]] = {".npz": read_npz, ".npy": read_npy}
