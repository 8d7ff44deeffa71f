"""Result files: JSON with a fixed form, checked when it is written and when it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import geometric_mean
from benchmarks.machine import FORMAT
from benchmarks.processes import ROOT
from benchmarks.workloads import MODES, Case

FOLDER = ROOT / "benchmarks" / "results"
HEAD: dict[str, type | tuple[type, ...]] = {
    "kind": str,
    "date": str,
    "commit": str,
    "changed": (bool, type(None)),
    "threads": int,
    "machine": dict,
}
SIZES = ("B", "T", "H", "L", "D")
TIMES = ("median", "q1", "q3", "least")


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
    if not isinstance(record, dict) or record.get("mode") not in MODES:
        raise ResultError(f"case {number}: expected a record with a mode of {', '.join(MODES)}")
    for name in SIZES:
        if not isinstance(record.get(name), int) or record[name] < 1:
            raise ResultError(f"case {number}: {name} must be an integer of at least 1, found {record.get(name)!r}")
    for name, result in record.get("results", {}).items():
        if "refused" in result:
            continue
        values = [*(result.get(time) for time in TIMES), *([] if name == "ours" else [result.get("ratio")])]
        if not all(isinstance(value, float) and math.isfinite(value) and value > 0 for value in values):
            raise ResultError(f"case {number}, {name}: found {values}, expected positive times and a ratio")


def case_of(record: dict[str, Any]) -> Case:
    """The case that a record is about."""
    return Case(record["mode"], **{name: record[name] for name in SIZES})


def ratios(document: dict[str, Any], peer: str, mode: str) -> Iterator[tuple[Case, float]]:
    """(case, their time / ours) of one peer and mode."""
    for record in document["cases"]:
        result = record["results"].get(peer, {})
        if record["mode"] == mode and "ratio" in result:
            yield case_of(record), result["ratio"]


def summarise(document: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """{peer: {mode: geometric mean, worst case and its ratio, number of cases}}."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for peer in document["contestants"]:
        for mode in MODES:
            measured = list(ratios(document, peer, mode))
            if measured:
                worst = min(measured, key=lambda pair: pair[1])
                found.setdefault(peer, {})[mode] = {
                    "geometric_mean": geometric_mean([ratio for _, ratio in measured]),
                    "worst": worst[1],
                    "worst_case": str(worst[0]),
                    "cases": len(measured),
                }
    return found


def write(document: dict[str, Any], folder: Path | str | None) -> Path:
    """Write `<kind>.json` into a folder (by default `benchmarks/results`); its path.  Raises ResultError or OSError."""
    check(document)
    target = Path(folder) if folder is not None else FOLDER
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{document['kind']}.json"
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def read(kind: str, folder: Path | str | None = None) -> dict[str, Any]:
    """A result file.  Raises ResultError where there is none or it does not keep the form."""
    path = (Path(folder) if folder is not None else FOLDER) / f"{kind}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: no readable result file ({type(error).__name__}); measure first") from None
    check(document)
    return document
