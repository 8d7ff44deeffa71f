"""The results of the tasks: a file that gets each of them as soon as it is there, and a table of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, results
from benchmarks.results import ResultError
from benchmarks.tasks.definitions import NEAR, TASKS, Task

KIND = "tasks"
SYSTEMS = {"ours": "lstm_np", "torch": "PyTorch"}


def read(folder: Path | str | None, threads: int) -> dict[str, Any]:
    """The result file, or one without results where there is none.

    Raises ResultError for a file that is none, or whose results were measured with another number of threads.
    """
    path = (Path(folder) if folder is not None else results.FOLDER) / f"{KIND}.json"
    if not path.exists():
        return {**machine.header(KIND, threads), "results": []}
    found = results.read(KIND, folder)
    if found["threads"] != threads:
        raise ResultError(f"{path}: its results are of --threads {found['threads']}; write others elsewhere (--out)")
    return found


def add(document: dict[str, Any], result: dict[str, Any], folder: Path | str | None, threads: int) -> Path:
    """Put a result into the document, in the place of one of the same run, and write it; the file's path."""
    kept = [one for one in document["results"] if identity(one) != identity(result)]
    document |= machine.header(KIND, threads)
    document["results"] = sorted([*kept, result], key=_place)
    return results.write(document, folder)


def identity(result: dict[str, Any]) -> tuple[str, int, str]:
    """Which run a result is of."""
    return result["task"], result["seed"], result["system"]


def _place(result: dict[str, Any]) -> tuple[int, str, int]:
    task, seed, system = identity(result)
    return list(TASKS).index(task), system, seed


def is_of(result: dict[str, Any], task: Task) -> bool:
    """Whether a result is of the task as it is defined now."""
    return result["task"] == task.name and result["settings"] == settings_of(task)


def settings_of(task: Task) -> dict[str, Any]:
    """What makes a run of a task what it is, as plain values."""
    names = ("features", "steps", "hidden_size", "batch_size", "epochs", "learning_rate", "forget_bias", "clip_norm",
             "warmup")  # fmt: skip
    return {name: getattr(task, name) for name in names}


def name_of_run(task: Task, seed: int, system: str, limit: int | None) -> str:
    """What the folder with a run's checkpoints is called: another setting is another run, and begins anew."""
    content = json.dumps({**settings_of(task), "limit": limit}, sort_keys=True)
    return f"{task.name}-{seed}-{system}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def render(document: dict[str, Any]) -> str:
    """The table with what its columns are, and where and when it was measured, as docs/tasks.md has it."""
    commits = sorted({one["commit"][:9] for one in document["results"]})
    where = f"{machine.in_words(document)} The runs are of commit {', '.join(commits)}."
    return "\n".join([*table(document), "", f"H units, B sequences per step; minutes of training a run took. {where}"])


def table(document: dict[str, Any]) -> list[str]:
    """The results as a Markdown table, a row for each task and system."""
    lines = [
        "| task | system | H, B, steps | wanted | each seed | mean | minutes |",
        "| --- | --- | --- | --- | --- | ---: | ---: |",
    ]
    for task in TASKS.values():
        for system, name in SYSTEMS.items():
            found = [one for one in document["results"] if is_of(one, task) and one["system"] == system]
            if found:
                values = [one["value"] for one in found]
                minutes = sum(one["seconds"] for one in found) / len(found) / 60
                lines.append(
                    f"| {task.title} | {name} | {task.hidden_size}, {task.batch_size}, {found[0]['steps']:,} | "
                    f"{task.goal} | {', '.join(f'{value:.4f}' for value in values)} | "
                    f"**{sum(values) / len(values):.4f}** | {minutes:.1f} |"
                )
    return lines


def values_of(document: dict[str, Any], task: Task) -> dict[str, list[float]]:
    """What was measured of a task as it is defined now, by system."""
    of: dict[str, list[float]] = {system: [] for system in SYSTEMS}
    for one in document["results"]:
        if is_of(one, task):
            of[one["system"]].append(one["value"])
    return of


def apart(of: dict[str, list[float]]) -> float | None:
    """How far our mean is from PyTorch's, of `values_of`; None where either has no result."""
    return sum(of["ours"]) / len(of["ours"]) - sum(of["torch"]) / len(of["torch"]) if all(of.values()) else None


def is_reached(document: dict[str, Any], task: Task) -> bool:
    """Whether each of our seeds reaches the bound, and our mean is within NEAR of PyTorch's, where that was trained."""
    of = values_of(document, task)
    return all(map(task.reached, of["ours"])) and abs(apart(of) or 0) <= NEAR


def verdicts(document: dict[str, Any], names: Sequence[str]) -> list[str]:
    """For each task whether every seed reached what is wanted, and how far the mean is from PyTorch's; in words."""
    lines = []
    for task in (TASKS[name] for name in names):
        of = values_of(document, task)
        if not of["ours"]:
            lines.append(f"{task.name}: no result yet")
            continue
        reached = sum(map(task.reached, of["ours"]))
        line = f"{task.name}: {reached} of {len(of['ours'])} seeds reach {task.goal}"
        difference = apart(of)
        if difference is not None:
            line += f"; the mean is {difference:+.4f} from PyTorch's (at most {NEAR:g} wanted)"
        lines.append(line)
    return lines
