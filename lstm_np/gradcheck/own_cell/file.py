"""Check the cells in somebody's file: functions such as lstm_step_forward and lstm_step_backward, and classes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from lstm_np.gradcheck.own_cell import names as naming
from lstm_np.gradcheck.own_cell.check import check_cell
from lstm_np.gradcheck.own_cell.classes import has_static_functions, is_cell_class, is_made_from_parameters
from lstm_np.gradcheck.own_cell.report import CellReport
from lstm_np.gradcheck.own_cell.user_code import CheckError, load_file

ENGINE_CELL = ("GATES", "STATE", "VALUES")  # what a cell for lstm_np's own layers declares
Pair = tuple[Callable[..., Any], Callable[..., Any] | None]


@dataclass(frozen=True)
class Checked:
    """What a file's check found: a report for each pair that could be checked, and a line for each that could not."""

    reports: tuple[CellReport, ...]
    errors: tuple[str, ...]

    @property
    def status(self) -> int:
        """The exit status: 2 where something could not be checked, else 1 where a gradient is wrong, else 0."""
        return 2 if self.errors else 0 if all(self.reports) else 1


def check_file(path: str | os.PathLike[str], *, functions: Sequence[str] | None = None, **settings: Any) -> Checked:
    """Run a Python file and check the recurrent cells in it, steps before sequences.

    functions  the names of one forward and one backward function, in place of all pairs
    settings   as `check_cell`

    A reason that was found for a step is tried first for a sequence, which probably calls it.
    Raises CheckError where the file does not run or has no such functions, OSError where it cannot be read.
    """
    module = load_file(path)
    pairs = [_named(module, path, functions)] if functions else _pairs(module, path)
    reports: list[CellReport] = []
    errors: list[str] = []
    known: list[str] = []
    for forward, backward in pairs:
        try:
            report = check_cell(forward, backward, known=known, **settings)
        except CheckError as error:
            if len(pairs) == 1:
                raise
            errors.append(str(error))
            continue
        reports.append(report)
        known += [reason.key for reason in report.reasons]
    if not reports and len(set(errors)) == 1:  # of the settings, not of a pair
        raise CheckError(errors[0])
    return Checked(tuple(reports), tuple(errors))


def _named(module: ModuleType, path: str | os.PathLike[str], functions: Sequence[str]) -> Pair:
    found = [getattr(module, name, None) for name in functions]
    for name, function in zip(functions, found, strict=True):
        if not callable(function):
            raise CheckError(f"{path}: has no function {name}")
    return found[0], found[1]  # type: ignore[return-value]


def _pairs(module: ModuleType, path: str | os.PathLike[str]) -> list[Pair]:
    """The file's own forward and backward functions that belong together and have a state; steps first."""
    if all(hasattr(module, name) for name in ENGINE_CELL):
        raise CheckError(
            f"{path}: declares {', '.join(ENGINE_CELL)}, so it is a cell for lstm_np's own layers: --cell {path}"
        )
    own = {
        name: item
        for name, item in vars(module).items()
        if callable(item) and getattr(item, "__module__", None) == module.__name__
    }
    pairs: list[Pair] = []
    for name, forward in own.items():
        if is_cell_class(forward) and _is_recurrent(name, forward.forward):
            if is_made_from_parameters(forward):
                pairs.append((forward, None))
            elif has_static_functions(forward):
                pairs.append((forward.forward, forward.backward))
        backward = own.get(re.sub("forward", lambda match: _as("backward", match[0]), name, flags=re.IGNORECASE))
        if "forward" in name.lower() and backward is not None and _is_recurrent(name, forward):
            pairs.append((forward, backward))
    if not pairs:
        there = ", ".join(own) or "none"
        raise CheckError(
            f"{path}: no pair of functions such as step_forward and step_backward with an input and a state, nor a "
            f"class made from its parameters that has both; there are: {there} (--functions says which two)"
        )
    return sorted(pairs, key=lambda pair: not re.search("step|cell", pair[0].__name__.lower()))


def _as(word: str, like: str) -> str:
    """The word in capitals as `like` is."""
    return word.upper() if like.isupper() else word.capitalize() if like[0].isupper() else word


def _is_recurrent(name: str, forward: Callable[..., Any]) -> bool:
    """Whether a function takes a state, or says in its name that it is a recurrent layer."""
    if re.search("lstm|gru|rnn", name.lower()):
        return True
    try:
        kinds = {naming.state_kind(argument) for argument in naming.argument_names(forward)}
    except (TypeError, ValueError):
        return False
    return bool(kinds & {"h", "c", "state"})
