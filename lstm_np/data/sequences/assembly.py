"""Sequences from tables: in long form a row is a step of a sequence, in wide form it is a sequence; and windows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lstm_np.data.dataset import DatasetError
from lstm_np.data.sequences.record import Reading, Sequences
from lstm_np.data.sequences.tables import Labels, Table
from lstm_np.data.sequences.targets import Targets, encode

_STEP = re.compile(r"(.*?)[_\-. \[]*(\d+)\]?")  # the name of a column in wide form: a feature's, and a step's number


def from_table(table: Table, reading: Reading) -> Sequences:
    """The sequences in a table.  Raises DatasetError."""
    table = table.without(reading.ignore)
    roles: dict[str, str | None] = {}
    # what is named as one thing is no other, whatever its name
    said = {reading.id, reading.time, reading.group, *(reading.target or ())}
    for what in ("id", "time", "group"):
        given, called = getattr(reading, what), table.called(what)
        roles[what] = table.check(given, what) if given is not None else None if called in said else called
    if reading.target is None:
        called = table.called("target")
        targets: tuple[str, ...] = () if called is None or called in said else (called,)
    else:
        targets = tuple(table.check(name, "target") for name in reading.target)
    if reading.features is not None:  # what is named as a feature is one, whatever it is called
        features = tuple(table.check(name, "feature") for name in reading.features)
        roles = {
            what: None if name in features and getattr(reading, what) is None else name for what, name in roles.items()
        }
        if reading.target is None:
            targets = tuple(name for name in targets if name not in features)
    if reading.layout is None:
        others = {*targets, *roles.values()}
        columns = reading.features or [name for name in table.columns if name not in others]
        layout = _layout(table, roles, reading.window, columns)
    else:
        layout = reading.layout
    parts = {"id": roles["id"], "time": roles["time"], "group": roles["group"]}
    taken = [*targets, *(name for name in parts.values() if name is not None)]
    doubled = {name for name in taken if taken.count(name) > 1}
    if doubled:
        raise DatasetError(f"{table.source}: the column {sorted(doubled)[0]!r} is named for two things; it can be one")
    if reading.features is None:
        known = _usual_names(table, reading)
        features = tuple(name for name in table.columns if name not in taken and name not in known)
    if both := [name for name in features if name in parts.values()]:
        raise DatasetError(f"{table.source}: the column {both[0]!r} is a feature and something else; it can be one")
    features, own_past = forecast_features(table, features, targets, reading, long=layout == "long")
    say = [f"layout {layout}"] if reading.layout is None else []
    say += own_past
    say += [
        f"{what} {name!r}"
        for what, name in [*parts.items(), *(("target", name) for name in targets)]
        if name is not None and getattr(reading, what) in (None, ())
    ]
    found = replace(reading, layout=layout, target=targets, id=parts["id"], time=parts["time"], group=parts["group"])
    make = _long if layout == "long" else _wide
    data = make(table, features, found)
    return replace(data, recognized=(*say, *data.recognized))


def forecast_features(
    table: Table, features: tuple[str, ...], targets: tuple[str, ...], reading: Reading, *, long: bool = True
) -> tuple[tuple[str, ...], list[str]]:
    """(the features, what was recognized): a target that is `horizon` steps ahead may be a feature, and is one where no
    other column is left.

    long   whether targets are of steps

    Raises DatasetError for a target that is a feature otherwise, and where there is no feature.
    """
    ahead = long and reading.window is not None and reading.horizon >= 1
    if not features and ahead and targets:
        return targets, [f"predicted from the past of {', '.join(map(repr, targets))}"]
    if not features:
        raise DatasetError(f"{table.source}: no column is left for the features; there are: {', '.join(table.columns)}")
    if (both := [name for name in features if name in targets]) and not ahead:
        raise DatasetError(
            f"{table.source}: the column {both[0]!r} is a feature and something else; it can be one, or with a window "
            "and a horizon of at least 1 feature and target"
        )
    return features, []


def _usual_names(table: Table, reading: Reading) -> set[str]:
    """Columns that look like a target, where none is wanted: they are no features either."""
    called = table.called("target")
    return {called} if called is not None and reading.target == () else set()


def _layout(table: Table, roles: dict[str, str | None], window: int | None, others: Sequence[str]) -> str:
    """Long where an id stands in several rows, where there are times and no ids, or where windows are to be cut and the
    `others`, the columns that may be features, are not the steps of one; else wide."""
    if roles["id"] is not None:
        keys = list(table.columns[roles["id"]])
        return "long" if len(set(keys)) < len(keys) else "wide"
    if roles["time"] is not None:
        return "long"
    return "long" if window is not None and _steps_named(others) < window else "wide"


def _steps_named(columns: Sequence[str]) -> int:
    """How many steps the names of columns number; 0 where they number none."""
    parsed = [_STEP.fullmatch(name) for name in columns]
    return len({int(match[2]) for match in parsed if match is not None}) if all(parsed) else 0


def _long(table: Table, features: tuple[str, ...], reading: Reading) -> Sequences:
    keys = ["1"] * len(table) if reading.id is None else table.keys(reading.id)
    ids = list(dict.fromkeys(keys))
    numbers = {key: number for number, key in enumerate(ids)}
    codes = np.fromiter((numbers[key] for key in keys), np.int64, len(keys))
    times = None if reading.time is None else table.times(reading.time)
    clock = None if reading.time is None or reading.window is None else table.texts(reading.time)
    order = np.argsort(codes, kind="stable") if times is None else np.lexsort((times, codes))
    counts = np.bincount(codes, minlength=len(ids))
    if times is not None:
        times, sorted_codes = times[order], codes[order]
        same = (times[1:] == times[:-1]) & (sorted_codes[1:] == sorted_codes[:-1])
        if same.any():
            row, before = int(order[int(np.argmax(same)) + 1]), int(order[int(np.argmax(same))])
            where = f"{table.row} {table.numbers[before]}"
            assert reading.time is not None
            hint = "" if reading.id is not None else "; name the column that says which sequence a row is of (id)"
            raise DatasetError(f"{table.place(row, reading.time)}: the same time as in {where} of this sequence{hint}")
    matrix = table.matrix(features)[order]
    groups = None if reading.group is None else _one_each(table, reading.group, order, counts)
    labels = [_in_order(table.labels(name), order) for name in reading.target or ()]
    return build(
        matrix,
        counts,
        reading,
        labels=labels,
        times=times,
        clock=None if clock is None else [clock[row] for row in order.tolist()],
        ids=ids,
        groups=groups,
        names=features,
        source=table.source,
        place_target=lambda row, name: table.place(int(order[row]), name),
        place_value=lambda row, d: table.place(int(order[row]), features[d]),
    )


def build(
    matrix: np.ndarray,
    counts: np.ndarray,
    reading: Reading,
    *,
    labels: Sequence[Labels],
    names: tuple[str, ...],
    ids: Sequence[Any],
    source: str,
    place_target: Callable[[int, str], str],
    place_value: Callable[[int, int], str],
    times: np.ndarray | None = None,
    clock: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
    labels_of_sequences: bool = False,
    parts: Mapping[str, np.ndarray] | None = None,
) -> Sequences:
    """Sequences from all their steps (sum of T_i, D), one after the other, `counts` (N,) of them each.

    labels        columns of targets, of each step, or of each sequence (`labels_of_sequences`)
    place_target  where the target of a row of these columns stands
    place_value   where the value of a step (a row of the matrix) and a feature stands
    times, clock  of each step; as a number, and as it is written
    parts         {"train": indices of sequences ...}; a window is in the part of its sequence

    Raises DatasetError as `lstm_np.data.sequences.targets.encode`.
    """
    if reading.window is not None:
        return _windows(
            matrix, counts, reading, labels, names, ids, source, place_target, place_value, times, clock, groups,
            labels_of_sequences, parts,
        )  # fmt: skip
    starts = np.cumsum(counts) - counts
    targets = None
    if labels:
        targets = encode(labels, None if labels_of_sequences else counts, reading, place_target, source)
    spans = None
    if times is not None:
        spans = np.stack((times[starts], times[starts + counts - 1]), axis=1)
    return Sequences(
        cut(matrix, counts),
        None if targets is None else (cut(targets.values, counts) if targets.per_step else targets.values),
        names=names,
        ids=ids,
        groups=groups,
        spans=spans,
        parts=parts,
        source=source,
        place=lambda n, t, d: place_value(int(starts[n]) + t, d),
        **about(targets, [column.name for column in labels]),
        reading=reading,
    )


def about(targets: Targets | None, names: Sequence[str]) -> dict[str, Any]:
    """What `Sequences` says of its targets."""
    if targets is None:
        return {}
    return {
        "task": targets.task,
        "classes": targets.classes,
        "target_names": tuple(names),
        "recognized": targets.recognized,
    }


def cut(values: np.ndarray, counts: np.ndarray) -> Any:
    """(N, T, ...) of values (sum of T_i, ...) where all counts are the same, else a list of (T_i, ...)."""
    if len(counts) and (counts == counts[0]).all():
        return values.reshape(len(counts), int(counts[0]), *values.shape[1:])
    return np.split(values, np.cumsum(counts)[:-1])


def _windows(
    matrix: np.ndarray,
    counts: np.ndarray,
    reading: Reading,
    labels: Sequence[Labels],
    names: tuple[str, ...],
    ids: Sequence[Any],
    source: str,
    place_target: Callable[[int, str], str],
    place_value: Callable[[int, int], str],
    times: np.ndarray | None,
    clock: Sequence[str] | None,
    groups: Sequence[Any] | None,
    labels_of_sequences: bool,
    parts: Mapping[str, np.ndarray] | None,
) -> Sequences:
    """Windows of T steps of each sequence; the target is that of the step `horizon` after the last, or of each step."""
    assert reading.window is not None
    T, ahead = reading.window, reading.horizon
    starts, owners = [], []
    for n, (start, count) in enumerate(zip((np.cumsum(counts) - counts).tolist(), counts.tolist(), strict=True)):
        found = np.arange(start, start + count - T - ahead + 1, reading.stride or T)
        starts.append(found)
        owners.append(np.full(len(found), n))
    first, owner = np.concatenate(starts), np.concatenate(owners)
    if not len(first):
        needed = f"{T} steps" if not ahead else f"{T} steps and {ahead} more"
        raise DatasetError(f"{source}: no sequence has the {needed} of a window; the longest has {int(counts.max())}")
    steps = first[:, None] + np.arange(T)
    last = first + T - 1 + ahead
    targets = None
    if labels:
        rows = owner if labels_of_sequences else last
        per_step = reading.per_step or (reading.per_step is None and reading.task == "tag")
        if per_step and (labels_of_sequences or ahead):
            what = "targets of whole sequences" if labels_of_sequences else "a horizon"
            raise DatasetError(f"{source}: {what} and targets of each step do not go together")
        rows = steps.reshape(-1) if per_step else rows
        chosen = [_in_order(column, rows) for column in labels]
        of_each = np.full(len(first), T) if per_step else None
        targets = encode(chosen, of_each, reading, lambda row, name: place_target(int(rows[row]), name), source)
    begun = (np.cumsum(counts) - counts)[owner]
    when = (
        np.arange(len(matrix), dtype=np.float64) - np.repeat(np.cumsum(counts) - counts, counts)
        if times is None
        else times
    )
    values = None
    if targets is not None:
        values = (
            targets.values.reshape(len(first), T, *targets.values.shape[1:]) if targets.per_step else targets.values
        )
    ends = (first + T - 1).tolist()
    called = (first + T - 1 - begun).tolist() if clock is None else [clock[end] for end in ends]
    return Sequences(
        matrix[steps],
        values,
        names=names,
        ids=[f"{ids[n]}:{time}" for n, time in zip(owner.tolist(), called, strict=True)],
        groups=[ids[n] for n in owner.tolist()] if groups is None else [groups[n] for n in owner.tolist()],
        spans=np.stack((when[first], when[last]), axis=1),
        parts=None if parts is None else {name: np.flatnonzero(np.isin(owner, part)) for name, part in parts.items()},
        source=source,
        place=lambda n, t, d: place_value(int(steps[n, t]), d),
        **about(targets, [column.name for column in labels]),
        reading=reading,
    )


def _wide(table: Table, features: tuple[str, ...], reading: Reading) -> Sequences:
    names, grid, numbered = _grid(table, features)
    if not numbered:  # the names do not say which step a column is, so a file like it must have them in this order
        reading = replace(reading, features=features)
    matrix = table.matrix([name for row in grid for name in row]).reshape(len(table), len(grid), len(names))
    known = ~np.isnan(matrix).all(axis=2)
    # empty cells at the end of a row are no steps: files of unequal lengths are written so
    counts = len(grid) - np.argmax(known[:, ::-1], axis=1)
    counts[~known.any(axis=1)] = 0
    if (counts == 0).any():
        row = int(np.argmax(counts == 0))
        raise DatasetError(f"{table.place(row, grid[0][0])}: the whole row is empty, expected a sequence")
    flat = np.concatenate([row[:count] for row, count in zip(matrix, counts.tolist(), strict=True)])
    times = None if reading.time is None else table.times(reading.time)
    labels = [table.labels(name) for name in reading.target or ()]
    rows, steps = np.repeat(np.arange(len(table)), counts), np.concatenate([np.arange(count) for count in counts])
    return build(
        flat,
        counts,
        reading,
        labels=labels,
        labels_of_sequences=True,
        times=None if times is None else np.repeat(times, counts),
        ids=list(range(len(table))) if reading.id is None else table.keys(reading.id),
        groups=None if reading.group is None else table.keys(reading.group),
        names=names,
        source=table.source,
        place_target=table.place,
        place_value=lambda row, d: table.place(int(rows[row]), grid[int(steps[row])][d]),
    )


def _grid(table: Table, columns: tuple[str, ...]) -> tuple[tuple[str, ...], list[list[str]], bool]:
    """(names of the D features, T rows of the D columns of each step, whether the names say so: x_0, x_1, y_0, y_1)."""
    parsed = [_STEP.fullmatch(name) for name in columns]
    if all(match is not None for match in parsed):
        steps: dict[str, dict[int, str]] = {}
        for match, name in zip(parsed, columns, strict=True):
            assert match is not None
            steps.setdefault(match[1], {})[int(match[2])] = name
        if len(steps) == 1 and sum(map(len, steps.values())) == len(columns):
            ((prefix, only),) = steps.items()
            return (prefix or "value",), [[only[step]] for step in sorted(only)], True
        numbers = sorted({step for found in steps.values() for step in found})
        if len(steps) < len(columns) or len(numbers) == 1:
            for prefix, found in steps.items():
                for step in numbers:
                    if step not in found:
                        raise DatasetError(
                            f"{table.source}: no column for step {step} of the feature {prefix!r}, which others have"
                        )
            return tuple(steps), [[steps[prefix][step] for prefix in steps] for step in numbers], True
    return ("value",), [[name] for name in columns], False


def _in_order(column: Labels, order: np.ndarray) -> Labels:
    rows = order.tolist()
    numbers = None if column.numbers is None else column.numbers[order]
    return Labels(column.name, numbers, [column.cells[row] for row in rows], column.missing[order], column.whole)


def _one_each(table: Table, name: str, order: np.ndarray, counts: np.ndarray) -> list[str]:
    """The value of a column for each sequence, which all its rows must have."""
    keys, found, start = table.keys(name), [], 0
    for count in counts.tolist():
        rows = order[start : start + count].tolist()
        for row in rows:
            if keys[row] != keys[rows[0]]:
                raise DatasetError(f"{table.place(row, name)}: {keys[row]!r}, where the sequence has {keys[rows[0]]!r}")
        found.append(keys[rows[0]])
        start += count
    return found
