"""Resuming a run from its newest checkpoint: which settings may change, and whether the result stays bit-identical."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from lstm_np.cells import CELLS, FILES
from lstm_np.checkpoints import Checkpoint, CheckpointError, Checkpoints, Keeper
from lstm_np.files import quoted, remove_temporary
from lstm_np.loop import Position
from lstm_np.training import run_folder
from lstm_np.training.interruption import Interrupted
from lstm_np.training.recipes import Recipe
from lstm_np.training.records import HasLength, steps_of
from lstm_np.training.run_folder import CHECKPOINTS, NotWrittenError, RunFolder
from lstm_np.training.schedules import depends_on_all_steps

# settings that do not change what was learnt so far; epochs and max_steps unless the learning rate depends on them
FREE = {"train": ("epochs", "max_steps", "print_every")}
NOT_COMPARED = ("cores_decided_by", "processes")  # settings of the machine that change no bit of the result


@dataclass(frozen=True)
class Stopped:
    """A run that can go on.

    folder, checkpoints  where it lies; the checkpoints are entered, so that no other process has them
    checkpoint           the newest that verifies
    recipe               with the settings that it ran with
    config               what its config.json said
    place                where it computed: "backend", "kernel", "cores", "data_dir"
    care                 how it was looked after, `lstm_np.training.run.Care.state()`
    """

    folder: RunFolder
    checkpoints: Checkpoints
    checkpoint: Checkpoint
    recipe: Recipe
    config: Mapping[str, Any]
    place: Mapping[str, Any]
    care: Mapping[str, Any]


@contextmanager
def stopped_run(run: str | os.PathLike[str] | None, say: Callable[[str], None]) -> Iterator[Stopped]:
    """The run in a folder, or the one under runs/ that wrote the newest checkpoint; nobody else has it meanwhile.

    `say` is told of checkpoints that are damaged.
    Raises RunFolderError where there is none, CheckpointError where none of its checkpoints can be used or another
    process is training in the folder, or nothing can be written there.
    """
    with newest_checkpoint(run, say) as (folder, checkpoints, checkpoint):
        kept = checkpoint.run
        with of_a_run(folder, "train"):
            check_own_cell(folder, kept["recipe"]["model"]["cell"])
            recipe = Recipe.from_state(kept["recipe"])
            stopped = Stopped(folder, checkpoints, checkpoint, recipe, kept["config"], kept["place"], kept["care"])
        yield stopped


@contextmanager
def newest_checkpoint(
    run: str | os.PathLike[str] | None, say: Callable[[str], None]
) -> Iterator[tuple[RunFolder, Checkpoints, Checkpoint]]:
    """A run's folder, its checkpoints, entered, and the newest that verifies; see `stopped_run`."""
    folder = run_folder.resumable(run)
    if not os.access(folder / CHECKPOINTS, os.W_OK | os.X_OK):
        raise CheckpointError(f"{folder}: no permission to write there; to go on, copy it to where you can write")
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        remove_temporary(folder.path)
        yield folder, checkpoints, checkpoints.newest(say)


def of_a_run(folder: RunFolder, name: str) -> AbstractContextManager[None]:
    """Where what a checkpoint keeps is not what the command `name` has written: CheckpointError."""
    return _as_expected(f"{folder}: its checkpoints are not those of a run of {name}")


def of_its_model(folder: RunFolder) -> AbstractContextManager[None]:
    """Where what a checkpoint keeps is not of the model that its settings make: CheckpointError."""
    return _as_expected(f"{folder}: its checkpoint does not fit its model")


@contextmanager
def _as_expected(what: str) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(f"{what} ({reason})") from error


def check_own_cell(folder: RunFolder, cell: Any) -> None:
    """Refuse a user's cell that is not registered, or has changed since the run was trained with it."""
    if isinstance(cell, str) and cell not in CELLS:
        raise CheckpointError(f"{folder}: its cell {cell!r} is one of your own; name the file: --cell {cell}.py")
    file = FILES.get(cell)
    kept = None if file is None else folder / file.name
    if file is not None and kept is not None and kept.is_file() and kept.read_bytes() != file.read_bytes():
        raise CheckpointError(
            f"--cell {file}: not the cell that this run was trained with, {kept}; go on with that one"
        )


@contextmanager
def going_on(folder: RunFolder, keeper: Keeper, line: str) -> Iterator[None]:
    """Where a run is cut short at once, or its folder cannot be written: errors that say how to go on, by `line`."""
    try:
        yield
    except Interrupted as error:
        step = 0 if keeper.kept is None else keeper.kept.step
        raise Interrupted(error.number, f"at once; to go on from step {step:,}: {line}") from None
    except NotWrittenError as error:
        if not folder.path.is_dir():
            advice = "the run folder was moved or removed while it was trained; where it was moved, go on: --resume"
        elif keeper.kept is not None:
            advice = f"make it writable, or make room, and go on from step {keeper.kept.step:,}: {line}"
        else:
            raise
        raise NotWrittenError(error.found, advice) from None


def changed(stopped: Stopped, changes: Mapping[str, Mapping[str, Any]], called: Callable[[str, str], str]) -> Recipe:
    """The run's recipe with other settings (table -> name -> checked value), of those that can be changed.

    `called` says what the user calls a setting.  Raises CheckpointError for any that would change what has been learnt.
    """
    per_epoch = int(stopped.config["steps_per_epoch"])
    return changed_settings(stopped.recipe, stopped.checkpoint.position, per_epoch, changes, called, FREE)


class Settings(HasLength, Protocol):
    """What `changed_settings` needs of a recipe, whose tables are attributes of their names."""

    def changed(self, changes: Mapping[str, Mapping[str, Any]]) -> Self:
        """The same with other settings."""
        ...


Settled = TypeVar("Settled", bound=Settings)


def changed_settings(
    settings: Settled,
    made: Position,
    steps_per_epoch: int,
    changes: Mapping[str, Mapping[str, Any]],
    called: Callable[[str, str], str],
    free: Mapping[str, Sequence[str]],
) -> Settled:
    """`settings` of a run that stands at `made`, with those of `changes` (table -> name -> value) that are `free`.

    `called` says what the user calls a setting.  Raises CheckpointError for any that would change what has been learnt.
    """
    for table, values in changes.items():
        for name, value in values.items():
            had = getattr(getattr(settings, table), name)
            if value != had and name not in free.get(table, ()):
                raise CheckpointError(
                    f"{called(table, name)} {_shown(value)}: this run has {_shown(had)}, and would have learnt "
                    "something else with it; leave it out, or train a new run"
                )
    longer = settings.changed(
        {
            table: {name: value for name, value in changes.get(table, {}).items() if name in free[table]}
            for table in free
        }
    )
    schedule, train = settings.train.schedule, longer.train
    if depends_on_all_steps(schedule) and steps_of(longer, steps_per_epoch) != steps_of(settings, steps_per_epoch):
        which = [called("train", name) for name in ("epochs", "max_steps") if name in changes.get("train", {})]
        raise CheckpointError(
            f"{' and '.join(which)}: the learning rate of this run's schedule, {schedule}, depends on the "
            "number of all steps, so it would have learnt something else; train a new run"
        )
    if train.epochs < made.epoch:
        raise CheckpointError(f"{called('train', 'epochs')} {train.epochs}: the run has made {made.epoch} already")
    if train.max_steps is not None and train.max_steps < made.step:
        raise CheckpointError(f"{called('train', 'max_steps')} {train.max_steps}: the run has made {made.step} already")
    return longer


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def resumed_config(config: Mapping[str, Any], before: Mapping[str, Any], step: int) -> dict[str, Any]:
    """config.json of a run that goes on: "resumed" says from which step, each time, and what differs from before."""
    again = {"step": step, "not_bit_identical": differences(before, config)}
    return {**config, "resumed": [*before.get("resumed", []), again]}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Why what is computed now may differ by rounding from what was computed before, each in words.

    before, now   of config.json: "machine", "cut" and "environment"
    """
    found = []
    for name, value in now["machine"].items():
        had = before["machine"].get(name, value)
        if name not in NOT_COMPARED and had != value:
            found.append(f"{name} {_plain(value)} instead of {_plain(had)}")
    if before.get("cut") != now.get("cut"):
        found.append("batches are cut otherwise over the cores")
    here, there = now["environment"], before["environment"]
    for name in ("processor", "python", "platform"):
        if there[name] != here[name]:
            found.append(f"{name} {here[name]} instead of {there[name]}")
    if _commit(here) != _commit(there):
        found.append(f"{_commit(here)} instead of {_commit(there)}")
    for name in ("lstm_np", "numpy"):
        had = there["packages"].get(name)
        if had != here["packages"].get(name):
            found.append(f"{name} {here['packages'].get(name)} instead of {had}")
    if _blas(here) != _blas(there):
        found.append(f"{_blas(here)} instead of {_blas(there)}")
    return found


def _commit(environment: Mapping[str, Any]) -> str:
    if environment["commit"] is None:
        return "an installed lstm_np"
    return f"commit {environment['commit'][:12]}" + (" with changes" if environment["changed"] else "")


def _blas(environment: Mapping[str, Any]) -> str:
    """The linear algebra library and its kernels, in words."""
    found = [
        " ".join(str(part) for part in (one["internal_api"], one.get("version"), one.get("architecture")) if part)
        for one in environment["libraries"]
        if one["user_api"] == "blas"
    ]
    return ", ".join(sorted(set(found))) or "no known BLAS"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "/".join(map(str, value))
    return "none" if value is None else str(value)


def command(folder: Path, cell: str, name: str = "train") -> str:
    """The command that resumes a run of the command `name`, quoted for a shell."""
    own = f" --cell {quoted(FILES[cell])}" if cell in FILES else ""  # which is run only where somebody names it
    return f"python -m lstm_np.{name} --resume {quoted(folder)}{own}"
