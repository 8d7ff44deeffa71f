"""A run's folder: what was asked for, what was measured, and the weights, each written so that a crash keeps the rest.

config.json           everything that is needed to run it again, or to see why it came out differently: recipe, data,
                      machine, versions, and how batches were cut over the cores
metrics.csv, .jsonl   one line per epoch, flushed as it is written
weights.safetensors   the weights at the end;  best.safetensors: those of the best epoch;
                      initial.safetensors: those before training, for comparison
curves.png            loss and accuracy over the epochs, where matplotlib is installed
checkpoints           what the run goes on from (`lstm_np.checkpoints`)
tensorboard           event files, where they were asked for
NAME.py               a copy of the file with the cell, where that was the user's own
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lstm_np.checkpoints import Checkpoints
from lstm_np.errors import LstmNpError
from lstm_np.files import append_durably, expand, quoted, write_atomically

RUNS = "runs"
CONFIG, WEIGHTS, BEST, CURVES = "config.json", "weights.safetensors", "best.safetensors", "curves.png"
INITIAL = "initial.safetensors"
METRICS_CSV, METRICS_JSONL, EVENTS = "metrics.csv", "metrics.jsonl", "tensorboard"
CHECKPOINTS = "checkpoints"
RUN_FILES = (CONFIG, METRICS_CSV, METRICS_JSONL, WEIGHTS, BEST, CURVES)

Rows = Mapping[str, Any]


class RunFolderError(LstmNpError, OSError):
    """A run folder that cannot be made, written or found; one line: which, why, what to do."""


class NotWrittenError(RunFolderError):
    """A file of a run cannot be written; `found` is the part of the line that says which and why."""

    def __init__(self, found: str, advice: str = "choose another folder with --out") -> None:
        super().__init__(f"{found}; {advice}")
        self.found = found


class RunFolder:
    """The folder of one run, made anew by `create`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.json.  Raises RunFolderError."""
        self.write(CONFIG, (json.dumps(config, indent=2) + "\n").encode())

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically.  Raises RunFolderError."""
        with writing(self / name):
            write_atomically(self / name, content)

    def append_metrics(self, flat: Rows, details: Rows) -> None:
        """A line of `flat` to metrics.csv (its header first), and one of `flat` and `details` to metrics.jsonl.

        Raises RunFolderError.
        """
        for name, text in _metrics([(flat, details)], header=not (self / METRICS_CSV).exists()).items():
            with writing(self / name):
                append_durably(self / name, text.encode())

    def write_metrics(self, epochs: Iterable[tuple[Rows, Rows]]) -> None:
        """Both files anew, with the lines of these epochs, (flat, details) of each; none: no files.

        Raises RunFolderError.
        """
        rows = list(epochs)
        for name, text in _metrics(rows, header=True).items():
            if rows:
                self.write(name, text.encode())
            else:
                with writing(self / name):
                    (self / name).unlink(missing_ok=True)


def _metrics(epochs: Iterable[tuple[Rows, Rows]], *, header: bool) -> dict[str, str]:
    """The lines of some epochs in each of the two files."""
    table, lines = io.StringIO(), list[str]()
    for flat, details in epochs:
        writer = csv.DictWriter(table, list(flat), lineterminator="\n")
        if header and not lines:
            writer.writeheader()
        writer.writerow({name: "" if value is None else value for name, value in flat.items()})
        lines.append(json.dumps({**flat, **details}) + "\n")
    return {METRICS_CSV: table.getvalue(), METRICS_JSONL: "".join(lines)}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the failure to write `path` into a NotWrittenError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotWrittenError(f"{path}: cannot be written ({reason})") from None


def check(out: str | os.PathLike[str] | None) -> None:
    """Refuse, before any work is done, a folder in which no run can be kept.  Raises RunFolderError."""
    path = expand(RUNS if out is None else out)
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path}: a file, where the run folder should be; name another folder with --out")
    if out is not None and path.is_dir():
        found = [name for name in RUN_FILES if (path / name).exists()]
        if found or Checkpoints(path / CHECKPOINTS).files():
            raise RunFolderError(
                f"{path}: holds a run already ({(*found, CHECKPOINTS)[0]}); name another folder with --out, or go on "
                "with that run: --resume"
            )
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not parent.is_dir():
        raise RunFolderError(f"{path}: {parent} is a file, not a folder; name another folder with --out")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise RunFolderError(f"{path}: no permission to write in {parent}; name another folder with --out")


def create(out: str | os.PathLike[str] | None, name: str) -> RunFolder:
    """The folder `out`, or else a new one, runs/NAME-001 with the first free number.  Raises RunFolderError."""
    check(out)
    if out is not None:
        path = expand(out)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        return RunFolder(path)
    number = 1
    while True:
        path = Path(RUNS, f"{name}-{number:03d}")
        with writing(path):
            try:
                path.mkdir(parents=True)
            except FileExistsError:  # made by an earlier run, or by another one just now
                number += 1
                continue
        return RunFolder(path)


def resumable(run: str | os.PathLike[str] | None) -> RunFolder:
    """The folder of a run that has checkpoints; None: of the one under runs/ that has written the newest.

    Raises RunFolderError when there is none.
    """
    if run is None:
        newest = {
            max(file.stat().st_mtime_ns for file in files): folder.parent
            for folder in Path(RUNS).glob(f"*/{CHECKPOINTS}")
            if (files := Checkpoints(folder).files())
        }
        if not newest:
            raise RunFolderError(f"no run with checkpoints under {RUNS}/; name the folder of one: --resume RUN")
        return RunFolder(newest[max(newest)])
    path = expand(run)
    if not path.is_dir():
        raise RunFolderError(f"{path}: no such run folder")
    if not (path / CHECKPOINTS).is_dir():
        raise RunFolderError(f"{path}: no {CHECKPOINTS} in this folder; expected the folder of a run that was trained")
    return RunFolder(path)


def weights_path(run: str | os.PathLike[str] | None, *, best: bool = False) -> Path:
    """The weights file of a run folder, the file itself where one is named, or that of the newest run under runs/.

    Raises RunFolderError when there is none.
    """
    name = BEST if best else WEIGHTS
    if run is None:
        found = sorted(Path(RUNS).glob(f"*/{name}"), key=lambda path: path.stat().st_mtime_ns)
        if not found:
            cut_short = sorted(Path(RUNS).glob(f"*/{BEST}"), key=lambda path: path.stat().st_mtime_ns)
            if name == WEIGHTS and cut_short:
                raise RunFolderError(
                    f"no run under {RUNS}/ has ended; --best takes {cut_short[-1]}, "
                    "python -m lstm_np.train --resume goes on with the newest"
                )
            raise RunFolderError(f"no run with a {name} under {RUNS}/; train one, or name a run folder or weights file")
        return found[-1]
    path = expand(run)
    if not path.exists():
        raise RunFolderError(f"{path}: no such run folder or weights file")
    if not path.is_dir():
        if best:
            raise RunFolderError(f"{path}: a file; --best needs a run folder")
        return path
    if not (path / name).is_file():
        ways = [f"--best takes its {BEST}"] if name == WEIGHTS and (path / BEST).is_file() else []
        if Checkpoints(path / CHECKPOINTS).files():
            ways.append(f"python -m lstm_np.train --resume {quoted(path)} goes on with it")
        if ways:
            raise RunFolderError(f"{path}: this run did not end, so it has no {name}; {', '.join(ways)}")
        raise RunFolderError(f"{path}: no {name} in this folder; expected the folder of a run that was trained")
    return path / name
