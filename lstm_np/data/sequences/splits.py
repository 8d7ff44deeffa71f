"""Training, validation and test part of some sequences: at random, by group, or by time; no sequence is in two of them.

A split is a function of the fractions, the seed, the number of the sequences, and, each where it is asked for, their
classes, groups and times; never of their values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_np import streams
from lstm_np.data.dataset import DatasetError

PARTS = ("train", "validation", "test")
WAYS = ("random", "group", "time")
Fractions = Sequence[float]


def split_by(
    fractions: Fractions,
    *,
    by: str,
    seed: int,
    classes: np.ndarray,
    groups: Sequence[Any] | None,
    spans: np.ndarray | None,
    source: str,
) -> dict[str, np.ndarray]:
    """{"train": indices (ascending), "validation": ..., "test": ...}; see `Sequences.split`.

    classes  (N,) of each sequence, all 0 where there are none

    Raises DatasetError.
    """
    shares = check_fractions(fractions)
    if by not in WAYS:
        raise DatasetError(f"by must be one of {', '.join(WAYS)}, found {by!r}")
    if by == "group":
        if groups is None:
            raise DatasetError(f"{source}: no column of groups to split by; name one (group)")
        found = by_group(groups, shares, seed)
    elif by == "time":
        if spans is None:
            raise DatasetError(f"{source}: no times to split by; name the column with the time of each step (time)")
        found = by_time(spans, shares)
    else:
        found = at_random(classes, shares, seed)
    parts = {name: np.flatnonzero(found == number) for number, name in enumerate(PARTS)}
    for name, share in zip(PARTS, shares, strict=True):
        if share > 0 and len(parts[name]) == 0:
            raise DatasetError(
                f"{source}: the {name} part of a split {by if by == 'random' else 'by ' + by} is empty: "
                f"{len(classes)} sequences are too few, or lie on both sides of a boundary"
            )
    return parts


def check_fractions(fractions: Fractions) -> tuple[float, float, float]:
    """Three numbers of 0 ... 1 that add up to 1, the first above 0.  Raises DatasetError."""
    try:
        shares = tuple(float(share) for share in fractions)
    except (TypeError, ValueError):
        shares = ()
    good = len(shares) == 3 and all(0 <= share <= 1 for share in shares) and math.isclose(sum(shares), 1, abs_tol=1e-9)
    if not good or shares[0] == 0:
        found = " ".join(f"{share:g}" for share in shares) if shares else repr(fractions)
        raise DatasetError(
            f"a split must be three shares, train above 0, validation and test, that add up to 1; found {found}"
        )
    return shares[0], shares[1], shares[2]


def at_random(classes: np.ndarray, shares: tuple[float, float, float], seed: int) -> np.ndarray:
    """(N,) the number of each sequence's part, each class split by itself as exactly as the whole allows.

    In a random order that has the classes one after the other, every sequence moves the parts' counts on by their
    shares and goes where most is owed; so the parts of the whole and of each class are within one of their shares.  The
    first of each class goes to training, and the only one of a class is there.
    """
    N = len(classes)
    order = streams.permutation(N, seed, "split")
    order = order[np.argsort(classes[order], kind="stable")]
    found, given = np.zeros(N, np.int64), np.zeros(3)
    last: Any = None
    for made, index in enumerate(order.tolist(), 1):
        if classes[index] != last:
            last, part = classes[index], 0
        else:
            part = int(np.argmax(np.where(np.array(shares) > 0, made * np.array(shares) - given, -np.inf)))
        found[index] = part
        given[part] += 1
    return found


def drawn(classes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(count,) indices, ascending, of so many sequences drawn at random, each class (N,) with its share; all of fewer.

    In a random order, the k-th of a class of n is at (k + 1/2) / n; those of the lowest values are taken.
    """
    order = streams.permutation(len(classes), seed, "limit")
    at = np.empty(len(classes))
    for label in np.unique(classes):
        members = np.flatnonzero(classes[order] == label)
        at[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(order[np.argsort(at, kind="stable")[:count]])


def by_group(groups: Sequence[Any], shares: tuple[float, float, float], seed: int) -> np.ndarray:
    """(N,) the number of each sequence's part; a group goes whole to the part that most of the sequences are owed.

    Raises DatasetError for fewer groups than parts.
    """
    names = list(dict.fromkeys(groups))
    wanted = sum(share > 0 for share in shares)
    if len(names) < wanted:
        raise DatasetError(f"found {len(names)} groups, too few for {wanted} parts; each part needs one of its own")
    members: dict[Any, list[int]] = {name: [] for name in names}
    for index, name in enumerate(groups):
        members[name].append(index)
    order = [names[k] for k in streams.permutation(len(names), seed, "split", "groups").tolist()]
    order.sort(key=lambda name: -len(members[name]))  # the largest first: what is left evens the parts out
    found, given, total = np.zeros(len(groups), np.int64), np.zeros(3), len(groups)
    for number, name in enumerate(order):
        owed = np.array(shares) * total - given
        empty = [part for part in range(3) if shares[part] > 0 and given[part] == 0]
        if len(order) - number <= len(empty):  # the groups that are left just fill the parts that have none
            owed[[part for part in range(3) if part not in empty]] = -np.inf
        owed[[part for part in range(3) if shares[part] == 0]] = -np.inf
        part = int(np.argmax(owed))
        found[members[name]] = part
        given[part] += len(members[name])
    return found


def by_time(spans: np.ndarray, shares: tuple[float, float, float]) -> np.ndarray:
    """(N,) the number of each sequence's part, -1 for one that is left out.

    spans   (N, 2): the first and the last time that a sequence is of

    The boundaries are times: a part has the sequences that lie wholly between its two.  They are chosen by the last
    times, so that the share of the sequences that end before them is that of the parts before.
    """
    N = len(spans)
    ends = np.sort(spans[:, 1])
    found = np.full(N, -1, np.int64)
    reached = -np.inf
    for part, total in enumerate(np.cumsum(shares)):
        if shares[part] == 0:
            continue
        limit = np.inf if part == 2 or math.isclose(total, 1) else float(ends[max(0, round(total * N) - 1)])
        inside = (spans[:, 0] > reached) & (spans[:, 1] <= limit)
        found[inside] = part
        reached = limit
    return found
