"""Checkpoints: all that a run needs to go on with the same bits, in files that are whole or are not there.

A checkpoint is a file of `lstm_np.weights`, of the kind "checkpoint": the position, the parameters, what the steps keep
(optimizer, sums and progress of the epoch under way) and what whoever trains adds.  Arrays are stored under their paths
("steps/optimizer/slots/m/layer0.W"); everything else is JSON in the file's configuration, in which {"$array": path}
stands where an array was.  A SHA-256 over all of it is compared before anything is believed.

The files of a run, `step-000000200.safetensors` and so on, lie in one folder.  Each is written to a temporary name,
flushed to the disk and renamed, and older ones are removed only then, so that a process may be killed at any moment:
the newest file that verifies is the last checkpoint that was finished.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lstm_np.errors import LstmNpError
from lstm_np.files import expand, remove_temporary
from lstm_np.loop import Epoch, Position, Step, Steps
from lstm_np.weights import WeightsError, read_file, write_file

ARRAY = "$array"
KEEP = 3  # files of a run
PARTS = ("parameters", "position", "run", "steps")
UNITS = {"": None, "s": 1.0, "m": 60.0, "h": 3600.0}  # of `Every.parse`; none: steps
FILE = re.compile(r"step-(\d{9,})\.safetensors")
LOCK = "lock"


class CheckpointError(LstmNpError, ValueError):
    """Checkpoints that cannot be used or written; one line: which folder, what was found, what to do."""


# ---- one checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """A run between two steps.

    position    where it stands
    parameters  by name, NumPy arrays
    steps       `Steps.state()`
    run         what whoever trains keeps besides: None, bool, int, float, str, NumPy arrays, lists and dicts of them
    """

    position: Position
    parameters: Mapping[str, np.ndarray]
    steps: Mapping[str, Any]
    run: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, steps: Steps, run: Mapping[str, Any]) -> Checkpoint:
        """The present state of `steps` and their model, with copies of its arrays; waits for a device."""
        model = steps.model
        state = steps.state()
        parameters = {name: model.backend.to_host(array).copy() for name, array in model.params.items()}
        return cls(model.position, parameters, state, run)

    @property
    def finite(self) -> bool:
        """Whether all parameters are finite numbers."""
        return all(bool(np.isfinite(array).all()) for array in self.parameters.values())


def write_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write one file, atomically.  Raises OSError, or ValueError for values that a checkpoint cannot hold."""
    whole = {
        "position": asdict(checkpoint.position),
        "parameters": checkpoint.parameters,
        "steps": checkpoint.steps,
        "run": checkpoint.run,
    }
    arrays: dict[str, np.ndarray] = {}
    write_file(path, "checkpoint", arrays, _without_arrays(whole, "", arrays))


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in a file.  Raises WeightsError where it is missing, damaged or no such file."""
    arrays, stored = read_file(path, "checkpoint")
    try:
        whole = _with_arrays(stored, arrays)
        if tuple(sorted(whole)) != PARTS or not all(isinstance(whole[part], dict) for part in PARTS):
            raise ValueError(f"it has {', '.join(sorted(whole))}")
        return Checkpoint(Position(**whole["position"]), whole["parameters"], whole["steps"], whole["run"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: no checkpoint of this version of lstm_np ({reason})") from error


def _without_arrays(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """`value` with {"$array": path} in the place of each array, which `arrays` gets under that path."""
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {ARRAY: path}
    if isinstance(value, Mapping):
        return {name: _without_arrays(part, f"{path}/{name}" if path else name, arrays) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(part, f"{path}/{k}", arrays) for k, part in enumerate(value)]
    return value


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return arrays[value[ARRAY]]
        return {name: _with_arrays(part, arrays) for name, part in value.items()}
    return [_with_arrays(part, arrays) for part in value] if isinstance(value, list) else value


def fingerprint(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 (hex) over dtypes, shapes and contents: the same for the same data wherever they come from."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


# ---- the checkpoints of a run


class Checkpoints:
    """The checkpoints of one run in a folder, of which the newest `keep` are kept; a context, entered by one at a time.

    Entering makes the folder, locks it (where the system can), and removes what a killed process has half written.
    Raises CheckpointError where another process has it, and OSError where it cannot be made.  ValueError for a `keep`
    below 1.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = KEEP) -> None:
        if keep < 1:
            raise ValueError(f"at least 1 checkpoint must be kept, found {keep}")
        self.folder, self.keep = expand(folder), keep
        self._lock: int | None = None

    def __enter__(self) -> Checkpoints:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder / LOCK)
        remove_temporary(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)  # which unlocks it
            self._lock = None

    def files(self) -> list[Path]:
        """The files, oldest first; some may be damaged."""
        if not self.folder.is_dir():
            return []
        found = [(int(match[1]), path) for path in self.folder.iterdir() if (match := FILE.fullmatch(path.name))]
        return [path for _, path in sorted(found)]

    def write(self, checkpoint: Checkpoint) -> Path:
        """Write one, then remove the oldest, if they can be.  Raises OSError, with all that was there still there."""
        path = self.folder / f"step-{checkpoint.position.step:09d}.safetensors"
        write_checkpoint(path, checkpoint)
        with suppress(OSError):
            for old in self.files()[: -self.keep]:
                old.unlink(missing_ok=True)
        return path

    def newest(self, say: Callable[[str], None]) -> Checkpoint:
        """The newest that verifies; each that does not is said in one line, and renamed (.damaged).

        Raises CheckpointError where there is none.
        """
        files, reason = self.files(), ""
        for path in reversed(files):
            try:
                return read_checkpoint(path)
            except WeightsError as error:
                reason = f"; {error}"
                say(f"{error}; the checkpoint before it is taken")
                with suppress(OSError):
                    os.replace(path, path.with_name(f"{path.name}.damaged"))
        if not files:
            raise CheckpointError(f"{self.folder}: no checkpoint here; nothing was learnt yet, so begin anew")
        raise CheckpointError(f"{self.folder}: none of its {len(files)} checkpoints can be used{reason}")


def _lock(path: Path) -> int | None:
    """A file descriptor that holds the lock as long as it is open; None where the system cannot lock.

    Raises CheckpointError where another process holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except (BlockingIOError, PermissionError):
        os.close(handle)
        raise CheckpointError(f"{path.parent}: another process is training in this folder") from None
    except OSError:  # a network's file system that has no locks
        os.close(handle)
        return None
    return handle


# ---- when they are written


@dataclass(frozen=True)
class Every:
    """When checkpoints are due.

    steps    after so many steps, or
    seconds  after so many seconds, or
    epochs   at each epoch's end
    pause    but at most one in so many seconds

    >>> Every.parse("200"), Every.parse("5m").seconds
    (Every(steps=200, seconds=None, epochs=False, pause=0.0), 300.0)
    """

    steps: int | None = None
    seconds: float | None = None
    epochs: bool = False
    pause: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Every:
        """From "200" (steps), "30s", "5m" or "2h".  Raises ValueError."""
        match = re.fullmatch(r"(\d+)([smh]?)", text.strip())
        if match is None or int(match[1]) == 0:
            raise ValueError(f"must be a number of steps such as 200, or a time such as 30s or 5m, found {text!r}")
        number, unit = int(match[1]), UNITS[match[2]]
        return cls(steps=number) if unit is None else cls(seconds=number * unit)


DEFAULT = Every(seconds=60.0, epochs=True, pause=10.0)


class Keeper:
    """Callbacks of a training loop that write checkpoints when they are due.

    checkpoints  entered
    every        when
    capture      gives the checkpoint of this moment
    say          is told where one could not be written: training goes on, and the older ones are still there
    """

    def __init__(
        self, checkpoints: Checkpoints, every: Every, capture: Callable[[], Checkpoint], say: Callable[[str], None]
    ) -> None:
        self.checkpoints, self._every, self._capture, self._say = checkpoints, every, capture, say
        self.kept: Position | None = None  # of the last one
        self._step, self._time = 0, time.monotonic()

    def begin(self) -> None:
        """Before the first step: what a run that is killed at once goes on from."""
        self.save()

    def resume(self, position: Position) -> None:
        """Instead: the run goes on from a checkpoint at this position."""
        self.kept, self._step = position, position.step

    def on_step(self, step: Step) -> None:
        """After a step."""
        every, made = self._every, step.position.step - self._step
        due = every.steps is not None and made >= every.steps
        if due or (every.seconds is not None and time.monotonic() - self._time >= max(every.seconds, every.pause)):
            self.save()

    def on_epoch(self, _: Epoch) -> None:
        """After an epoch that was finished."""
        if self._every.epochs and time.monotonic() - self._time >= self._every.pause:
            self.save()

    def save(self, *, must: bool = False) -> None:
        """Write one now.  Parameters that are not finite are not kept: nobody would go on from them.

        Raises OSError where it `must` be written and cannot.
        """
        checkpoint = self._capture()
        if not checkpoint.finite:
            return
        try:
            self.checkpoints.write(checkpoint)
            self.kept = checkpoint.position
        except OSError as error:
            if must:
                raise
            reason = error.strerror or str(error)
            self._say(f"no checkpoint after step {checkpoint.position.step:,} ({reason}); training goes on")
        self._step, self._time = checkpoint.position.step, time.monotonic()

    def finish(self, position: Position) -> None:
        """Where training has ended or was asked to: the last one is of this position.  Raises OSError."""
        if self.kept != position:
            self.save(must=True)
