"""Recipes side by side: several seeds of each, what was published beside what comes out here.

Every finished run is written to `results.json` in the output folder at once, so a comparison that was cut short goes on
where it stopped; a result counts only as long as the recipe still says what it said.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lstm_np.errors import LstmNpError
from lstm_np.files import expand, write_atomically
from lstm_np.metrics import Metrics
from lstm_np.training.interruption import Interruption
from lstm_np.training.recipes import Recipe, of_any_version
from lstm_np.training.reporters import Reporter
from lstm_np.training.run import Place, run

RESULTS, TABLE = "results.json", "results.md"


class CompareError(LstmNpError, ValueError):
    """Recipes, or a results file, that cannot be compared; one line: which, and what to do."""


@dataclass(frozen=True)
class Result:
    """One seed of one recipe.  `published_accuracy` is that on the first `published_images` test images, as many as the
    original used; None where it published nothing."""

    recipe: str
    seed: int
    settings: dict[str, Any]  # the recipe's tables, to see later whether it still says the same
    test_accuracy: float
    test_images: int
    published_accuracy: float | None
    published_images: int | None
    steps: int
    seconds: float
    backend: str
    kernels: list[str]


def compare(
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    out: str | os.PathLike[str],
    place: Place,
    say: Callable[[str], None],
    interruption: Interruption | None = None,
) -> list[Result]:
    """Run each recipe once with each seed, those that `out` has no result of; all results, in this order.

    An interruption ends it after the step in hand: that run is not counted.
    Raises CompareError for recipes of one name or a results file that cannot be read, and what `lstm_np.training.run`
    raises.
    """
    names = [recipe.name for recipe in recipes]
    for name in names:
        if names.count(name) > 1:
            raise CompareError(f"two of these recipes are called {name!r}: their results could not be told apart")
    out, interruption = expand(out), interruption or Interruption()
    if out.exists() and not out.is_dir():
        raise CompareError(f"{out}: a file, where the folder of results should be; name another with --out")
    out.mkdir(parents=True, exist_ok=True)
    results = _read(out / RESULTS)
    wanted = [recipe.changed({"train": {"seed": seed}}) for seed in seeds for recipe in recipes]
    for number, recipe in enumerate(wanted, 1):
        if _find(results, recipe) is None and not interruption.asked():
            result = _measure(recipe, place, out, interruption)
            if result is not None:
                results = [old for old in results if (old.recipe, old.seed) != (result.recipe, result.seed)] + [result]
                write_atomically(out / RESULTS, (json.dumps([asdict(r) for r in results], indent=1) + "\n").encode())
                say(
                    f"{number}/{len(wanted)} {result.recipe}, seed {result.seed}: {result.test_accuracy:.4f} of "
                    f"{result.test_images:,} images, {result.seconds:,.0f} s"
                )
    ordered = sorted(wanted, key=lambda recipe: [r.name for r in recipes].index(recipe.name))
    return [result for recipe in ordered if (result := _find(results, recipe)) is not None]


def markdown(recipes: Sequence[Recipe], results: Sequence[Result]) -> str:
    """The table for a document: a row per recipe, and one for the images of the original where it used fewer."""
    lines = [
        "| recipe | published | here: mean ± deviation (lowest to highest) | test images | seeds | s a run |",
        "|---|---|---|---|---|---|",
    ]
    for row in _rows(recipes, results):
        name, published = row.recipe.name, _published(row.recipe)
        if not row.accuracies:
            lines.append(f"| {name} | {published} | not run | | | |")
        elif row.whole:
            lines.append(
                f"| {name} | {published} | {_spread(row.accuracies)} | {row.images:,} "
                f"| {len(row.accuracies)} | {row.seconds:,.0f} |"
            )
        else:
            lines.append(f"| | | {_spread(row.accuracies)} | the first {row.images:,} | {len(row.accuracies)} | |")
    return "\n".join(lines) + "\n"


def columns(recipes: Sequence[Recipe], results: Sequence[Result]) -> str:
    """The same for a terminal of 80 columns; what was published stands in the row of the images that it was of."""
    width = max(20, *(len(recipe.name) for recipe in recipes))
    lines = [f"{'recipe':<{width}} published   mean      ± lowest highest images seeds s/run"]
    for row in _rows(recipes, results):
        published, found = row.recipe.published, row.accuracies
        theirs = "-" if published is None or (row.whole and row.more) else f"{published.accuracy:.4g}"
        head = f"{row.recipe.name if row.whole else '':<{width}} {theirs:>9}"
        if not found:
            lines.append(f"{head}  not run")
            continue
        deviation = f"{statistics.stdev(found):.4f}" if len(found) > 1 else "-"
        shares = f"{statistics.fmean(found):.4f} {deviation:>6} {min(found):.4f} {max(found):7.4f}"
        seconds = f"{row.seconds:,.0f}" if row.whole else ""
        lines.append(f"{head} {shares} {row.images:>6,} {len(found):>5} {seconds:>5}".rstrip())
    return "\n".join(lines)


def write_table(out: str | os.PathLike[str], recipes: Sequence[Recipe], results: Sequence[Result]) -> None:
    """Write the Markdown table beside the results."""
    write_atomically(expand(out) / TABLE, markdown(recipes, results).encode())


@dataclass(frozen=True)
class _Row:
    """What the seeds of a recipe reached on all test images (`whole`), or on the first ones."""

    recipe: Recipe
    accuracies: list[float]
    images: int = 0
    seconds: float = 0.0  # a run, on average
    whole: bool = True
    more: bool = False  # whether a row of the original's images follows


def _rows(recipes: Sequence[Recipe], results: Sequence[Result]) -> Iterator[_Row]:
    for recipe in recipes:
        mine = [result for result in results if result.recipe == recipe.name]
        if not mine:
            yield _Row(recipe, [])
            continue
        fewer = mine[0].published_images not in (None, mine[0].test_images)
        seconds = statistics.fmean(result.seconds for result in mine)
        yield _Row(recipe, [r.test_accuracy for r in mine], mine[0].test_images, seconds, more=fewer)
        if fewer:
            first = [result.published_accuracy for result in mine if result.published_accuracy is not None]
            yield _Row(recipe, first, mine[0].published_images or 0, whole=False)


def _published(recipe: Recipe) -> str:
    if recipe.published is None:
        return "-"
    return f"{recipe.published.accuracy:.4g} on {recipe.published.test_images:,}"


def _spread(accuracies: Sequence[float]) -> str:
    mean = f"{statistics.fmean(accuracies):.4f}"
    if len(accuracies) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(accuracies):.4f} ({min(accuracies):.4f} to {max(accuracies):.4f})"


def _measure(recipe: Recipe, place: Place, out: Path, interruption: Interruption) -> Result | None:
    """Run a recipe in a folder that is not kept; None where a signal cut it short."""
    with tempfile.TemporaryDirectory(prefix=".run-", dir=out) as folder:
        outcome = run(recipe, replace(place, out=os.path.join(folder, "run")), Reporter(), interruption)
    if outcome.interrupted is not None or not isinstance(outcome.test, Metrics):
        return None
    first = outcome.as_published
    return Result(
        recipe=recipe.name,
        seed=recipe.train.seed,
        settings=_plain(recipe),
        test_accuracy=outcome.test.accuracy,
        test_images=outcome.test.count,
        published_accuracy=None if first is None else first.accuracy,
        published_images=None if first is None else first.count,
        steps=outcome.steps,
        seconds=round(outcome.seconds, 1),
        backend=outcome.plan.backend,
        kernels=sorted(set(outcome.plan.kernels)),
    )


def _plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe's settings as JSON has them (no tuples)."""
    return json.loads(json.dumps(recipe.tables))


def _as_said_today(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of an earlier version: by their present names, and at their defaults where it had none."""
    return json.loads(json.dumps(of_any_version(settings)))


def _find(results: Sequence[Result], recipe: Recipe) -> Result | None:
    settings = _plain(recipe)
    return next((r for r in results if r.recipe == recipe.name and r.settings == settings), None)


def _read(path: Path) -> list[Result]:
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        names = {field.name for field in fields(Result)}
        if not isinstance(entries, list) or not all(isinstance(e, dict) and set(e) == names for e in entries):
            raise ValueError("not a list of results")
        return [Result(**{**entry, "settings": _as_said_today(entry["settings"])}) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CompareError(f"{path}: not the results of a comparison ({reason}); choose another --out") from None
