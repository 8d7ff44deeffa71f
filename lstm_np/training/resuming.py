"""Resuming a run from its newest checkpoint: which settings may change, and whether the result stays bit-identical."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lstm_np.cells import CELLS, FILES
from lstm_np.checkpoints import Checkpoint, CheckpointError, Checkpoints
from lstm_np.files import quoted, remove_temporary
from lstm_np.training import run_folder
from lstm_np.training.recipes import Recipe, Tables
from lstm_np.training.recipes.settings import TABLES
from lstm_np.training.records import steps_of
from lstm_np.training.run_folder import CHECKPOINTS, RunFolder
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
    folder = run_folder.resumable(run)
    if not os.access(folder / CHECKPOINTS, os.W_OK | os.X_OK):
        raise CheckpointError(f"{folder}: no permission to write there; to go on, copy it to where you can write")
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        remove_temporary(folder.path)
        checkpoint = checkpoints.newest(say)
        kept = checkpoint.run
        try:
            cell = kept["recipe"]["model"]["cell"]
            if isinstance(cell, str) and cell not in CELLS:
                raise CheckpointError(
                    f"{folder}: its cell {cell!r} is one of your own; name the file: --cell {cell}.py"
                )
            recipe = Recipe.from_state(kept["recipe"])
            stopped = Stopped(folder, checkpoints, checkpoint, recipe, kept["config"], kept["place"], kept["care"])
        except CheckpointError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise CheckpointError(f"{folder}: its checkpoints are not those of a run of train ({reason})") from error
        _check_own_cell(stopped)
        yield stopped


def _check_own_cell(stopped: Stopped) -> None:
    """Refuse a user's cell that has changed since the run was trained with it."""
    file = FILES.get(stopped.recipe.model.cell)
    kept = None if file is None else stopped.folder / file.name
    if file is not None and kept is not None and kept.is_file() and kept.read_bytes() != file.read_bytes():
        raise CheckpointError(
            f"--cell {file}: not the cell that this run was trained with, {kept}; go on with that one"
        )


def changed(stopped: Stopped, changes: Mapping[str, Mapping[str, Any]], called: Callable[[str, str], str]) -> Recipe:
    """The run's recipe with other settings (table -> name -> checked value), of those that can be changed.

    `called` says what the user calls a setting.  Raises CheckpointError for any that would change what has been learnt.
    """
    recipe = stopped.recipe
    for table in TABLES:
        for name, value in changes.get(table, {}).items():
            had = getattr(getattr(recipe, table), name)
            if value != had and name not in FREE.get(table, ()):
                raise CheckpointError(
                    f"{called(table, name)} {_shown(value)}: this run has {_shown(had)}, and would have learnt "
                    "something else with it; leave it out, or train a new run"
                )
    made = stopped.checkpoint.position
    longer, per_epoch = _with(recipe, changes), int(stopped.config["steps_per_epoch"])
    if depends_on_all_steps(recipe.train.schedule) and steps_of(longer, per_epoch) != steps_of(recipe, per_epoch):
        which = [called("train", name) for name in ("epochs", "max_steps") if name in changes.get("train", {})]
        raise CheckpointError(
            f"{' and '.join(which)}: the learning rate of this run's schedule, {recipe.train.schedule}, depends on the "
            "number of all steps, so it would have learnt something else; train a new run"
        )
    if longer.train.epochs < made.epoch:
        raise CheckpointError(
            f"{called('train', 'epochs')} {longer.train.epochs}: the run has made {made.epoch} already"
        )
    if longer.train.max_steps is not None and longer.train.max_steps < made.step:
        raise CheckpointError(
            f"{called('train', 'max_steps')} {longer.train.max_steps}: the run has made {made.step} already"
        )
    return longer


def _with(recipe: Recipe, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
    free: Tables = {
        table: {name: value for name, value in changes.get(table, {}).items() if name in names}
        for table, names in FREE.items()
    }
    return recipe.changed(free)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


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


def command(folder: Path, cell: str) -> str:
    """The command that resumes a run, quoted for a shell."""
    own = f" --cell {quoted(FILES[cell])}" if cell in FILES else ""  # which is run only where somebody names it
    return f"python -m lstm_np.train --resume {quoted(folder)}{own}"
