"""Find the four files of a set like MNIST in a folder, under the names and in the layouts that archives leave behind.

A file's name says what it holds: `train-images-idx3-ubyte`, with `t10k` or `test` for the test images, `labels-idx1`
for the labels (QMNIST's: `labels-idx2-int`), packed (`.gz`) or plain.  The parts of a name may be joined by dashes,
dots, underscores, spaces or nothing.  What stands before them is the set's own name, as in
`emnist-letters-train-images-idx3-ubyte.gz`.

A file may lie in a folder of its own name (Kaggle's archives unpack so), and all four one or two levels down
(`raw/`, `MNIST/raw/`, `gzip/`).  In a folder that holds several sets, FOLDER/NAME means the one called NAME.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from lstm_np.data.idx import IDXError
from lstm_np.files import quoted

PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
DOWNLOAD = "python -m lstm_np.data"  # the command that puts the published MNIST into a folder
DEEPEST = 2  # levels below a named folder

_JOIN = "[-_. ]*"
_NAME = re.compile(
    rf"(?P<set>.*?){_JOIN}(?P<split>train|t10k|test){_JOIN}(?P<kind>images|labels){_JOIN}idx[123]{_JOIN}(ubyte|int)"
    r"(\.gz)?",
    re.IGNORECASE,
)
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar", ".xz", ".bz2")


class FoundSet(NamedTuple):
    """The files of a set in the order of `PARTS`, and the name that stands before theirs (in lower case, or "")."""

    name: str
    paths: tuple[str, ...]


class _Candidates(NamedTuple):
    """The files of one set found in a folder: a path for each of `PARTS`, None if it is missing."""

    folder: str
    name: str
    paths: list[str | None]

    @property
    def whole(self) -> bool:
        return None not in self.paths


def find_set(folder: str) -> FoundSet:
    """The set in a folder, or the one called NAME for FOLDER/NAME.

    Raises IDXError where there is none, where a file of it is missing, and where there are several.
    """
    sets = _sets_below(folder) if os.path.isdir(folder) else _sets_called(folder)
    if not sets:
        raise _nothing_in(folder)
    unnamed = [found for found in sets if found.name == "" and found.folder == folder]
    whole = [found for found in unnamed if found.whole] or [found for found in sets if found.whole]
    if len(whole) > 1:
        names = ", ".join(found.name or os.path.relpath(found.folder, folder) for found in whole)
        hint = f"name one of them: {quoted(os.path.join(folder, whole[0].name or names.split(', ')[0]))}"
        raise IDXError(folder, 0, f"several sets: {names}", "one", hint)
    chosen = (whole or unnamed or sets)[0]
    for part, path in zip(PARTS, chosen.paths, strict=True):
        if path is None:
            missing = os.path.join(chosen.folder, f"{chosen.name}-{part}.gz" if chosen.name else f"{part}.gz")
            hint = "the set is not whole" if chosen.name else _download(chosen.folder)
            raise IDXError(missing, 0, "no such file", f"it, or {part}", hint)
    return FoundSet(chosen.name, tuple(path for path in chosen.paths if path is not None))


def files_in(folder: str) -> list[str]:
    """The paths of all files directly in a folder whose names are those of an unnamed set."""
    if not os.path.isdir(folder):
        return []
    return [path for found in _sets_in(folder) if found.name == "" for path in found.paths if path is not None]


def _sets_below(folder: str) -> list[_Candidates]:
    """The sets in a folder; if there are none, those one level down, then two."""
    level = [folder]
    for _ in range(DEEPEST + 1):
        if sets := [found for each in level for found in _sets_in(each)]:
            return sets
        level = [os.path.join(each, name) for each in level for name in _listed(each) if not name.startswith(".")]
        level = [path for path in level if os.path.isdir(path)]
    return []


def _sets_called(path: str) -> list[_Candidates]:
    """The sets in the parent folder of a path whose name is the path's last part."""
    folder, name = os.path.split(path.rstrip(os.sep))
    if os.path.lexists(path) or not os.path.isdir(folder or "."):
        return []
    return [found for found in _sets_below(folder or ".") if found.name == name.lower()]


def _sets_in(folder: str) -> list[_Candidates]:
    """The sets whose files (or folders named like the files) are directly in a folder."""
    ranked: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for name in _listed(folder):
        if (key := _meaning(name)) is None:
            continue
        path, rank = os.path.join(folder, name), _rank(name, key[1])
        if os.path.isdir(path):
            inside = sorted((_rank(inner, key[1]), inner) for inner in _listed(path) if _meaning(inner) == key)
            rank, path = rank + 10, os.path.join(path, inside[0][1]) if inside else path
        ranked.setdefault(key, []).append((rank, path))
    names = sorted({name for name, _ in ranked})
    return [
        _Candidates(folder, name, [min(ranked.get((name, part), [(0, None)]))[1] for part in range(len(PARTS))])
        for name in names
    ]


def _meaning(name: str) -> tuple[str, int] | None:
    """(set name, one of `PARTS`) parsed from a file name; None if it is not such a name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    test, labels = match["split"].lower() != "train", match["kind"].lower() == "labels"
    return re.sub(r"[_. ]+", "-", match["set"].lower()), 2 * test + labels


def _rank(name: str, part: int) -> int:
    """The preference among several names of one part: the lowest is read."""
    plain = PARTS[part]
    dotted = plain.replace("-idx", ".idx")  # as some unpackers rename it
    usual = [f"{plain}.gz", plain, f"{dotted}.gz", dotted]
    return usual.index(name) if name in usual else len(usual)


def _listed(folder: str) -> list[str]:
    """The names in a folder, sorted; empty if it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _nothing_in(path: str) -> IDXError:
    """The error for a path without any file of a set."""
    if not os.path.isdir(path):
        found = "a file" if os.path.lexists(path) else "no such folder"
        return IDXError(path, 0, found, "a folder with the four files of MNIST or a set like it", _download(path))
    try:
        held = sorted(os.listdir(path))
    except OSError as error:
        return IDXError(path, 0, error.strerror or str(error), "a folder that can be read", "check its permissions")
    expected = f"{PARTS[0]}.gz and three more, packed or plain"
    if archives := [name for name in held if name.lower().endswith(_ARCHIVES)]:
        return IDXError(path, 0, f"{archives[0]}, an archive", expected, "unpack it first")
    found = f"a folder with {', '.join(held[:3])}{' ...' if len(held) > 3 else ''}" if held else "an empty folder"
    return IDXError(path, 0, found, expected, _download(path))


def _download(folder: str) -> str:
    return f"{DOWNLOAD} --data-dir {quoted(folder)} downloads MNIST"
