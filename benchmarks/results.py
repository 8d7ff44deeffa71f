"""Result files: JSON with a fixed form, checked when it is written and when it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import geometric_mean
from benchmarks.machine import FORMAT
from benchmarks.processes import ROOT
from benchmarks.workloads import GATES, MODES, Case
from lstm_np.files import expand

FOLDER = ROOT / "benchmarks" / "results"
HEAD: dict[str, type | tuple[type, ...]] = {
    "kind": str,
    "date": str,
    "commit": str,
    "changed": (bool, type(None)),
    "threads": int,
    "machine": dict,
}
SIZES = ("B", "T", "H", "L", "D", "directions")
TIMES = ("median", "q1", "q3", "best")
KINDS = ("median", "best")  # of ratios: of the medians over the rounds, and of the best rounds
# what geometric means are taken over
GROUPS = {
    "training, LSTM": ("train", ("lstm",)),
    "training, GRU and RNN": ("train", ("gru", "rnn")),
    "inference, LSTM": ("infer", ("lstm",)),
    "inference, GRU and RNN": ("infer", ("gru", "rnn")),
    "one step at a time, LSTM": ("stream", ("lstm",)),
}


class ResultError(ValueError):
    """A result file that does not keep the form; one line: where, and what was expected."""


def check(document: Any) -> None:
    """Raises ResultError unless `document` is a result file of any kind."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ResultError(f"a result file starts with the format {FORMAT!r}")
    for name, kind in HEAD.items():
        if not isinstance(document.get(name), kind):
            raise ResultError(f"{name}: found {document.get(name)!r}, expected {kind}")
    if document["kind"] == "cpu":
        for number, record in enumerate(document.get("cases") or [None]):
            _check_case(number, record)
        if not isinstance(document.get("contestants"), dict):
            raise ResultError("contestants: expected what each of them is")


def _check_case(number: int, record: Any) -> None:
    if not isinstance(record, dict) or record.get("mode") not in MODES or record.get("cell") not in GATES:
        raise ResultError(f"case {number}: expected a record with a mode of {', '.join(MODES)} and a cell")
    for name in SIZES:
        if not isinstance(record.get(name), int) or record[name] < 1:
            raise ResultError(f"case {number}: {name} must be an integer of at least 1, found {record.get(name)!r}")
    if not isinstance(record.get("disturbed"), list):
        raise ResultError(f"case {number}: disturbed must be a list, found {record.get('disturbed')!r}")
    bound = bound_of(record)
    if bound is not None and not (isinstance(bound, float) and 0 < bound < math.inf):
        raise ResultError(f"case {number}: the lower bound must be a positive time, found {bound!r}")
    for name, result in record.get("results", {}).items():
        if "refused" in result:
            continue
        settings = result.get("settings") or {"none": {}}
        values = [times.get(time) for times in settings.values() for time in TIMES]
        values += [] if name == "ours" else [result.get("ratio", {}).get(kind) for kind in KINDS]
        if not all(isinstance(value, float) and math.isfinite(value) and value > 0 for value in values):
            raise ResultError(f"case {number}, {name}: found {values}, expected positive times and ratios")


def case_of(record: dict[str, Any]) -> Case:
    """The case that a record is about."""
    sizes = {name: record[name] for name in SIZES}
    return Case(record["mode"], cell=record["cell"], lengths=record.get("lengths", False), **sizes)


def time_of(record: dict[str, Any], name: str, kind: str) -> float:
    """Seconds of a step by the "median" or the "best" round: ours under the default, a peer's in its better setting."""
    result = record["results"][name]
    setting = result["better"][kind] if "better" in result else next(iter(result["settings"]))
    return result["settings"][setting][kind]


def bound_of(record: dict[str, Any]) -> float | None:
    """Seconds that a step cannot go below on that machine (`ceilings.lower_bound`); None where nobody measured it."""
    bound = record.get("lower_bound")
    return None if bound is None else bound.get("total", math.nan)


def measured(document: dict[str, Any], peer: str, cases: Callable[[Case], bool]) -> list[tuple[Case, dict[str, float]]]:
    """(case, {"median": their better time / ours, "best": ...}) of one peer, of the cases that were timed."""
    found = []
    for record in document["cases"]:
        ratio, case = record["results"].get(peer, {}).get("ratio"), case_of(record)
        if ratio is not None and cases(case):
            found.append((case, {kind: ratio[kind] for kind in KINDS}))
    return found


def of_mode_and_cells(mode: str, cells: Sequence[str]) -> Callable[[Case], bool]:
    """Whether a case has this mode and one of these cells."""
    return lambda case: case.mode == mode and case.cell in cells


def summarise(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Per peer and group of cases: both geometric means, the worst case, and all below 1 by either ratio."""
    found = []
    for peer in document["contestants"]:
        for of, (mode, cells) in GROUPS.items():
            ratios = measured(document, peer, of_mode_and_cells(mode, cells))
            if not ratios:
                continue
            worst = min(ratios, key=lambda pair: min(pair[1].values()))
            found.append(
                {
                    "peer": peer,
                    "of": of,
                    **{kind: geometric_mean([ratio[kind] for _, ratio in ratios]) for kind in KINDS},
                    "cases": len(ratios),
                    "worst": min(worst[1].values()),
                    "worst_case": str(worst[0]),
                    "below_one": [str(case) for case, ratio in ratios if min(ratio.values()) < 1],
                }
            )
    return found


def write(document: dict[str, Any], folder: Path | str | None) -> Path:
    """Write `<kind>.json` into a folder (by default `benchmarks/results`); its path.  Raises ResultError or OSError."""
    check(document)
    target = expand(folder) if folder is not None else FOLDER
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{document['kind']}.json"
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def read(kind: str, folder: Path | str | None = None) -> dict[str, Any]:
    """A result file.  Raises ResultError where there is none or it does not keep the form."""
    path = (expand(folder) if folder is not None else FOLDER) / f"{kind}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: no readable result file ({type(error).__name__}); measure first") from None
    check(document)
    return document
