"""Train a model: python -m lstm_np.train [--recipe NAME | --resume [RUN]] [--hidden-size 64 ...]."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lstm_np.backends.cores import usable_cores
from lstm_np.checkpoints import CheckpointError
from lstm_np.cli.command import Parser, backend_of, emit, run_command
from lstm_np.cli.flags import (
    NEWEST,
    add_checkpoint_flags,
    add_data_flags,
    add_machine_flags,
    add_settings_flags,
    flag_of,
    settings_from_flags,
)
from lstm_np.cli.own_data import add_own_data_flags, own_settings, resumed_settings
from lstm_np.display.tables import loss_in_words
from lstm_np.training import Outcome, Place, Recipe, load_recipe, recipe_names, run
from lstm_np.training.interruption import Interruption
from lstm_np.training.optimizer import arguments as optimizer_arguments
from lstm_np.training.own_data import OwnSettings, own_recipe
from lstm_np.training.recipes import DEFAULT, DIGITS
from lstm_np.training.records import Plan
from lstm_np.training.reporters import LineReporter, Reporter
from lstm_np.training.resuming import Stopped, changed, command, stopped_run
from lstm_np.training.run import Care
from lstm_np.training.tensorboard import TensorBoardReporter


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "train",
        "[--recipe NAME | --data FILE | --resume [RUN]] [flags]",
        "Train an LSTM on handwritten digits and test it, or on sequences of your own (--data). Without flags: the "
        f"default recipe, on MNIST; if MNIST is not available, or with --dataset digits, the recipe {DIGITS} on the "
        "8x8 digits included in scikit-learn. After each epoch, loss and accuracy on the validation samples are shown, "
        "or, if none are held out (--validation, --split), on the test samples: for information, never used for a "
        "decision. A flag replaces the recipe's setting. "
        "A run that was stopped, by Ctrl-C or by a crash, goes on with --resume and ends with the same bits as one "
        "that was not.",
        one="training diverged",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"where all settings come from: {', '.join(recipe_names())}, or a .toml file "
        f"[{DEFAULT}, on the embedded digits {DIGITS}]",
    )
    add_settings_flags(parser)
    add_own_data_flags(parser)
    add_data_flags(parser)
    add_machine_flags(parser)
    parser.set_defaults(backend=None, kernel=None)  # those of the run that goes on, else numpy and auto
    add_checkpoint_flags(parser).add_argument(
        "--gate-health",
        action=argparse.BooleanOptionalAction,
        help="after each epoch, and in metrics.jsonl, for each layer: how much of each gate is saturated, dead units, "
        "the mean forget gate and the memory's half-life, gradients at the first and last step [no]",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="FOLDER", help="the run folder [a new one, runs/RECIPE-001 and so on]")
    output.add_argument("--log", choices=("tensorboard",), help="also write event files, in the run folder")
    output.add_argument(
        "--show-shapes", action="store_true", help="first print the layers and the shapes of all tensors of a pass"
    )
    output.add_argument("--quiet", action="store_true", help="print errors only")
    output.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line, and the rest on stderr"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(make_parser(), argv, _train)


def _train(arguments: argparse.Namespace) -> int:
    changes = settings_from_flags(arguments)
    if arguments.keep_checkpoints is not None and arguments.keep_checkpoints < 1:
        raise ValueError(f"--keep-checkpoints must be at least 1, found {arguments.keep_checkpoints}")
    stream = sys.stderr if arguments.json else sys.stdout
    reporter = Reporter() if arguments.quiet else LineReporter(stream, show_shapes=arguments.show_shapes)
    if arguments.log == "tensorboard":
        reporter = TensorBoardReporter(reporter)
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        stopped, on_digits, own = None, None, None
        if arguments.resume is not None:
            run_or_newest = None if arguments.resume == NEWEST else arguments.resume

            def say(line: str) -> None:
                reporter.note(f"train: {line}")

            stopped = stack.enter_context(stopped_run(run_or_newest, say))
            recipe = _resumed(stopped, arguments, changes)
            if stopped.place.get("own") is not None:
                own = resumed_settings(OwnSettings.from_state(stopped.place["own"]), arguments)
            elif arguments.data is not None:
                raise CheckpointError(f"--data {arguments.data}: this run learns from images; leave it out")
        else:
            own = own_settings(arguments)
            begin = own_recipe() if own is not None and arguments.recipe is None else None
            recipe = (begin or load_recipe(arguments.recipe or DEFAULT)).changed(changes)
            if arguments.recipe is None and own is None:
                on_digits = load_recipe(DIGITS).changed(changes)
        arguments.backend, arguments.kernel = arguments.backend or "numpy", arguments.kernel or "auto"
        backend = stack.enter_context(backend_of(arguments))
        place = Place(
            backend,
            arguments.kernel,
            arguments.data_dir,
            arguments.offline,
            explicit="dataset" in changes["data"],
            out=arguments.out,
        )
        care = _care(arguments, Care() if stopped is None else Care.from_state(stopped.care))
        if stopped is not None:
            stopped.checkpoints.keep = care.keep
        outcome = run(recipe, place, reporter, interruption, on_digits=on_digits, care=care, stopped=stopped, own=own)
    return _end(outcome, interruption, reporter, as_json=arguments.json)


def _care(arguments: argparse.Namespace, before: Care) -> Care:
    """How the run is looked after: as before, where the flags leave it open."""
    given = {
        "every": arguments.checkpoint_every,
        "keep": arguments.keep_checkpoints,
        "on_divergence": arguments.on_divergence,
        "gate_health": arguments.gate_health,
    }
    return replace(before, **{name: value for name, value in given.items() if value is not None})


def _resumed(stopped: Stopped, arguments: argparse.Namespace, changes: dict[str, dict[str, Any]]) -> Recipe:
    """The recipe of the run that goes on; what the flags leave open of where it computes is as it was.

    Raises CheckpointError for flags that do not go with it.
    """
    if arguments.recipe is not None and load_recipe(arguments.recipe).name != stopped.recipe.name:
        raise CheckpointError(f"--recipe {arguments.recipe}: this run is of the recipe {stopped.recipe.name}")
    if arguments.out is not None and Path(arguments.out).absolute() != stopped.folder.path.absolute():
        raise CheckpointError(
            f"--out {arguments.out}: the run goes on in its own folder, {stopped.folder}; leave it out"
        )
    for name in ("backend", "kernel", "data_dir"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, stopped.place[name])
    cores, here = stopped.place["cores"], usable_cores().number
    asked_for = stopped.config["machine"].get("cores_decided_by") == "the user"
    if arguments.threads is None and cores != here and (asked_for or cores < here):
        arguments.threads = cores  # how a batch is cut depends on their number
    return changed(stopped, changes, flag_of)


def _end(outcome: Outcome, interruption: Interruption, reporter: Reporter, *, as_json: bool) -> int:
    """What is said last, and the exit status."""
    number = interruption.requested
    with contextlib.suppress(OSError) if number is not None else contextlib.nullcontext():
        if as_json:
            emit(json.dumps(replace(outcome, interrupted=number).as_json()))
    if number is None:
        return _judged(outcome, reporter)
    if outcome.interrupted is None:
        reporter.note("train: interrupted when all was done; nothing is missing")
    else:
        line = command(outcome.plan.folder, outcome.plan.recipe.model.cell)
        reporter.note(f"train: interrupted after {outcome.steps:,} steps; to go on from there:\n{line}")
    return 128 + number


def _judged(outcome: Outcome, reporter: Reporter) -> int:
    """The exit status of a run that came to its end."""
    if not outcome.hopeless:
        return 0
    plan = outcome.plan
    loss, uniform = outcome.epochs[-1].train.loss, math.log(plan.dataset.num_classes or 1)
    found = f"the training loss ended at {loss_in_words(loss)}, that of uniform predictions is {uniform:.2f}"
    reporter.note(f"train: training diverged: {found}; lower the learning rate (now {learning_rate(plan):g})")
    return 1


def learning_rate(plan: Plan) -> float:
    """The full rate that the optimizer of a run has."""
    rate: float = optimizer_arguments(plan.recipe.optimizer)["lr"]
    return rate


if __name__ == "__main__":
    sys.exit(main())
