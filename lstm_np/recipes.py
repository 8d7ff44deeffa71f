"""What can be trained by name, and what was: python -m lstm_np.recipes [list | show NAME | compare | diff RUN RUN]."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from dataclasses import asdict
from typing import Any

from lstm_np.cli.command import Parser, backend_of, emit, run_command, say
from lstm_np.cli.flags import add_data_flags, add_machine_flags
from lstm_np.training import Place, Recipe, load_recipe, recipe_names
from lstm_np.training.differences import differences_of_runs
from lstm_np.training.differences import table as table_of
from lstm_np.training.interruption import Interruption
from lstm_np.training.optimizer import arguments as settled
from lstm_np.training.recipes import Tables
from lstm_np.training.recipes.compare import TABLE, columns, compare, write_table


class _Parser(Parser):
    """Takes names before, between and after flags."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        return self.parse_intermixed_args(args, namespace)


def make_parser() -> Parser:
    """The flags."""
    parser = _Parser(
        "recipes",
        "[list | show NAME ... | compare [NAME ...] | diff RUN RUN] [flags]",
        "List the recipes, show what one says, train several of them with several seeds and put the results beside "
        "what was published, or say what differs between two runs that were trained: settings, data, machine, "
        "versions, and their results. A comparison that was cut short goes on where it stopped, in the same folder.",
        one="training diverged, or two runs differ",
    )
    actions = ("list", "show", "compare", "diff")
    parser.add_argument("action", nargs="?", choices=actions, default="list", help="[list]")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="recipes [compare: all of them]; diff: two run folders"
    )
    group = parser.add_argument_group("compare")
    group.add_argument("--seeds", type=int, default=3, metavar="N", help="run each with the seeds 1 to N [3]")
    group.add_argument(
        "--out", metavar="FOLDER", default="comparison", help="for results.json and results.md [comparison]"
    )
    group.add_argument("--max-steps", type=int, metavar="N", help="stop each run after N steps, to try it out")
    add_data_flags(parser)
    add_machine_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON value instead")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(make_parser(), argv, _recipes)


def _recipes(arguments: argparse.Namespace) -> int:
    if arguments.action == "show" and not arguments.names:
        raise ValueError(f"show needs the name of a recipe; there are: {', '.join(recipe_names())}")
    if arguments.action == "list" and arguments.names:
        raise ValueError("list takes no names; show NAME says what one recipe is")
    if arguments.action == "diff":
        return _diff(arguments)
    recipes = [load_recipe(name) for name in dict.fromkeys(arguments.names) or recipe_names()]
    if arguments.action == "compare":
        return _compare(recipes, arguments)
    if arguments.json:
        described = [
            {key: value for key, value in asdict(recipe).items() if value not in (None, ())} for recipe in recipes
        ]
        emit(json.dumps(described))
        return 0
    emit("\n\n".join(map(_page, recipes)) if arguments.action == "show" else _list(recipes))
    return 0


def _list(recipes: list[Recipe]) -> str:
    width = max(len(recipe.name) for recipe in recipes)
    lines = [f"{recipe.name:<{width}}  {recipe.title}" for recipe in recipes]
    return "\n".join([*lines, "", "python -m lstm_np.recipes show NAME", "python -m lstm_np.train --recipe NAME"])


def _page(recipe: Recipe) -> str:
    """All about one recipe: what it is, what was wrong, and every setting that is not the default recipe's."""
    parts = [f"{recipe.name}: {recipe.title}", _wrapped(recipe.description)]
    if recipe.fault is not None:
        parts.append(_wrapped(f"What is wrong: {recipe.fault}"))
    if recipe.fix is not None:
        parts.append(_wrapped(f"What is done here: {recipe.fix}"))
    if recipe.published is not None:
        published = recipe.published
        images = f"{published.test_images:,} test images"
        parts.append(_wrapped(f"Published: {published.accuracy:.4g} on {images} ({published.source})."))
    default = _settings(load_recipe())
    for table, settings in _settings(recipe).items():
        lines = [
            f"  {name} = {_shown(value)}" + ("" if name in default[table] and value == default[table][name] else "   *")
            for name, value in settings.items()
        ]
        parts.append("\n".join([f"[{table}]", *lines]))
    parts.append(f"* differs from the default recipe\n{recipe.path}")
    return "\n\n".join(parts)


def _settings(recipe: Recipe) -> Tables:
    """The recipe's settings, of those of optimizers only the ones that its own has, with the values that it takes."""
    taken = {"learning_rate" if name == "lr" else name: value for name, value in settled(recipe.optimizer).items()}
    return {**recipe.tables, "optimizer": {"name": recipe.optimizer.name, **taken}}


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 80, break_on_hyphens=False)


def _shown(value: object) -> str:
    return "none" if value is None else json.dumps(value)


def _diff(arguments: argparse.Namespace) -> int:
    if len(arguments.names) != 2:
        raise ValueError(f"diff needs two run folders, found {len(arguments.names)}")
    found = differences_of_runs(*arguments.names)
    emit(json.dumps([row._asdict() for row in found]) if arguments.json else table_of(found, *arguments.names))
    return 1 if found else 0


def _compare(recipes: list[Recipe], arguments: argparse.Namespace) -> int:
    if arguments.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, found {arguments.seeds}")
    if arguments.max_steps is not None:
        if arguments.max_steps < 1:
            raise ValueError(f"--max-steps must be at least 1, found {arguments.max_steps}")
        recipes = [recipe.changed({"train": {"max_steps": arguments.max_steps}}) for recipe in recipes]
    with Interruption() as interruption, backend_of(arguments) as backend:
        # explicit: published numbers are not compared with those of another data set
        place = Place(backend, arguments.kernel, arguments.data_dir, arguments.offline, explicit=True)
        results = compare(
            recipes,
            range(1, arguments.seeds + 1),
            arguments.out,
            place,
            say,
            interruption,
        )
    emit(json.dumps([asdict(result) for result in results]) if arguments.json else columns(recipes, results))
    write_table(arguments.out, recipes, results)  # after the result has been told
    say(f"recipes: {arguments.out}/{TABLE} holds this table for a document")
    if interruption.requested is not None:
        say("recipes: interrupted; the same command goes on where it stopped")
        return 128 + interruption.requested
    return 0


if __name__ == "__main__":
    sys.exit(main())
