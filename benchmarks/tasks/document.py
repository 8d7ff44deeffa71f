"""The results of the tasks: a file that gets each of them as soon as it is there, and a table of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, results
from benchmarks.tasks.definitions import TASKS, Task

KIND = "tasks"
SYSTEMS = {"ours": "lstm_np", "torch": "PyTorch"}


def read(folder: Path | str | None, threads: int) -> dict[str, Any]:
    """The result file, or one without results where there is none.  Raises ResultError for a file that is none."""
    path = (Path(folder) if folder is not None else results.FOLDER) / f"{KIND}.json"
    return results.read(KIND, folder) if path.exists() else {**machine.header(KIND, threads), "results": []}


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


def render(document: dict[str, Any]) -> str:
    """The table with what its columns are, and where and when it was measured, as docs/tasks.md has it."""
    described = machine.in_words(document)
    return "\n".join(
        [*table(document), "", f"H units, B sequences per step; minutes of training a run took. {described}"]
    )


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


def verdicts(document: dict[str, Any], names: Sequence[str]) -> list[str]:
    """For each task whether every seed reached what is wanted, and how far the mean is from PyTorch's; in words."""
    lines = []
    for task in (TASKS[name] for name in names):
        of = {
            system: [one["value"] for one in document["results"] if is_of(one, task) and one["system"] == system]
            for system in SYSTEMS
        }
        if not of["ours"]:
            lines.append(f"{task.name}: no result yet")
            continue
        reached = sum(map(task.reached, of["ours"]))
        line = f"{task.name}: {reached} of {len(of['ours'])} seeds reach {task.goal}"
        if of["torch"]:
            apart = sum(of["ours"]) / len(of["ours"]) - sum(of["torch"]) / len(of["torch"])
            line += f"; the mean is {apart:+.4f} from PyTorch's"
        lines.append(line)
    return lines
