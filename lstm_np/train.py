"""Train a model: python -m lstm_np.train [--recipe NAME] [--hidden-size 64 ...]."""

from __future__ import annotations

import argparse
import json
import math
import sys

from lstm_np.cli.command import Parser, backend_of, emit, run_command
from lstm_np.cli.flags import add_data_flags, add_machine_flags, add_settings_flags, settings_from_flags
from lstm_np.loop import loss_in_words
from lstm_np.training import Place, load_recipe, recipe_names, run
from lstm_np.training.interruption import Interruption
from lstm_np.training.optimizer import arguments as optimizer_arguments
from lstm_np.training.recipes import DEFAULT, DIGITS
from lstm_np.training.records import Plan
from lstm_np.training.reporters import LineReporter, Reporter
from lstm_np.training.tensorboard import TensorBoardReporter


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "train",
        "[--recipe NAME] [flags]",
        "Train an LSTM on handwritten digits and test it. Without flags: the default recipe, on MNIST; where MNIST "
        f"cannot be had, or with --dataset digits, the recipe {DIGITS} on the 8x8 digits that scikit-learn holds. Each "
        "epoch also shows the loss and accuracy on the validation images, or, where none are held back (--validation), "
        "on the test images: to look at, never used for a decision. Any setting of the recipe can be replaced by a "
        "flag.",
        one="training diverged",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"where all settings come from: {', '.join(recipe_names())}, or a .toml file "
        f"[{DEFAULT}, on the embedded digits {DIGITS}]",
    )
    add_settings_flags(parser)
    add_data_flags(parser)
    add_machine_flags(parser)
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
    recipe, on_digits = load_recipe(arguments.recipe or DEFAULT).changed(changes), None
    if arguments.recipe is None:
        on_digits = load_recipe(DIGITS).changed(changes)
    stream = sys.stderr if arguments.json else sys.stdout
    reporter = Reporter() if arguments.quiet else LineReporter(stream, show_shapes=arguments.show_shapes)
    if arguments.log == "tensorboard":
        reporter = TensorBoardReporter(reporter)
    with Interruption() as interruption, backend_of(arguments) as backend:
        place = Place(
            backend,
            arguments.kernel,
            arguments.data_dir,
            arguments.offline,
            explicit="dataset" in changes["data"],
            out=arguments.out,
        )
        outcome = run(recipe, place, reporter, interruption, on_digits=on_digits)
    if arguments.json:
        emit(json.dumps(outcome.as_json()))
    if outcome.interrupted is not None:
        kept = f"weights and metrics are in {outcome.plan.folder}"
        reporter.note(f"train: interrupted after {outcome.steps:,} steps; {kept}")
        return 128 + outcome.interrupted
    if outcome.hopeless:
        plan = outcome.plan
        loss, guess = outcome.epochs[-1].train.loss, math.log(plan.dataset.num_classes)
        found = f"the training loss ended at {loss_in_words(loss)}, that of a guess is {guess:.2f}"
        reporter.note(f"train: training diverged: {found}; lower the learning rate (now {learning_rate(plan):g})")
        return 1
    return 0


def learning_rate(plan: Plan) -> float:
    """The full rate that the optimizer of a run has."""
    rate: float = optimizer_arguments(plan.recipe.optimizer)["lr"]
    return rate


if __name__ == "__main__":
    sys.exit(main())
