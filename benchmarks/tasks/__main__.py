"""`python -m benchmarks.tasks [NAME ...]`: the tasks that have no result yet, each written as soon as it is there."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.flags import Parser, at_least_one
from benchmarks.processes import ALLOCATORS
from benchmarks.results import ResultError
from benchmarks.tasks import document
from benchmarks.tasks.definitions import TASKS, Task, material_of
from lstm_np.errors import LstmNpError
from lstm_np.training.interruption import Interruption

USUAL = ("adding", "copy", "pixels", "permuted")  # where no task is named
LIMIT = 32  # images and tested sequences of --small


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m benchmarks.tasks", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TASKS)} (default: all but pixels784)")
    parser.add_argument("--seeds", nargs="+", type=at_least_one, help="(default: 1 2 3; of pixels784: 1)")
    parser.add_argument("--minutes", type=float, help="stop after so many; the same command goes on where it stopped")
    parser.add_argument("--peer", choices=("torch", "none"), default="torch", help="beside whom (default torch)")
    parser.add_argument("--threads", type=at_least_one, default=2, help="CPU cores for everybody (default 2)")
    parser.add_argument(
        "--out", help="folder for tasks.json (default: benchmarks/results; with --small that of --work)"
    )
    parser.add_argument("--work", default="tasks-work", help="folder for checkpoints (default: tasks-work)")
    parser.add_argument("--data-dir", help="folder with the four MNIST files (default: as lstm_np.train finds them)")
    parser.add_argument("--small", action="store_true", help="sizes that take moments: does everything run?")
    parser.add_argument("--table", action="store_true", help="print the table of the results, train nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing; the exit status: 0 all is there and reaches what is wanted, 1 not, 2 bad input."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    names = list(dict.fromkeys(arguments.names)) or list(USUAL)
    if unknown := [name for name in names if name not in TASKS]:
        parser.error(f"unknown task {unknown[0]!r}; there are: {', '.join(TASKS)}")
    try:
        return _run(names, arguments)
    except (LstmNpError, ResultError, OSError) as error:
        print(f"benchmarks.tasks: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def small(task: Task) -> Task:
    """The same task in moments."""
    return replace(task, hidden_size=8, batch_size=16, epochs=1)


def _run(names: Sequence[str], arguments: argparse.Namespace) -> int:
    if arguments.small and arguments.out is None:
        arguments.out = arguments.work  # results of tiny models are no results
    found = document.read(arguments.out, arguments.threads)
    if arguments.table:
        print("\n".join(document.table(found)))
        return 0
    torch_is_here = arguments.peer == "torch" and importlib.util.find_spec("torch") is not None
    until = float("inf") if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    missing = 0
    with Interruption() as interruption, interruption.held():

        def stop() -> bool:
            return interruption.asked() or time.monotonic() >= until

        for task in (small(TASKS[name]) if arguments.small else TASKS[name] for name in names):
            for seed in arguments.seeds or task.seeds:
                for system in ("ours", "torch") if task.peer and torch_is_here else ("ours",):
                    run = (task.name, seed, system)
                    if any(document.identity(one) == run and document.is_of(one, task) for one in found["results"]):
                        continue
                    if stop() or not _one(task, seed, system, found, arguments, stop):
                        missing += 1
    if not arguments.small:
        print("\n".join(document.verdicts(found, names)))
    if missing:
        print(f"{missing} runs are missing or under way; the same command goes on")
        return 128 + interruption.requested if interruption.requested is not None else 1
    return 0 if arguments.small or all(document.is_reached(found, TASKS[name]) for name in names) else 1


def _one(
    task: Task, seed: int, system: str, found: dict[str, Any], arguments: argparse.Namespace, stop: Callable[[], bool]
) -> bool:
    """One run, from where it stands; whether it has come to its end, and is in the file."""
    title = f"{task.name} seed {seed} {system}"

    def say(text: str) -> None:
        print(f"{title}: {text}", flush=True)

    trainer = importlib.import_module(f"benchmarks.tasks.{'ours' if system == 'ours' else 'peer'}")
    limit = LIMIT if arguments.small else None
    material = material_of(task, seed, arguments.data_dir, limit)
    folder = Path(arguments.work) / document.name_of_run(task, seed, system, limit)
    result = trainer.train(task, seed, material, folder, threads=arguments.threads, stop=stop, say=say)
    if result is None:
        return False
    record = {
        "task": task.name, "seed": seed, "system": system, "metric": task.metric, **result,
        "settings": document.settings_of(task), **machine.commit(),
    }  # fmt: skip
    path = document.add(found, record, arguments.out, arguments.threads)
    say(f"{task.metric} {result['value']:.4f} ({task.goal} wanted), {result['seconds']:,.0f} s; written: {path}")
    return True


if __name__ == "__main__":
    tuned = ALLOCATORS["tuned"]
    if not tuned.items() <= os.environ.items():  # PyTorch's step takes up to twice as long without them
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.tasks", *sys.argv[1:]], {**os.environ, **tuned})
    sys.exit(main())
