"""Recipes: a training run as data, one short TOML file each, beside this module.

A recipe names its title and description and whatever differs from the recipe that it is `based_on` (where it does not
say: the default recipe).  Naming another optimizer starts from that one's own arguments, and naming a view whose steps
are no rows or columns (`pixels`, `permuted`) from images that are not moved.  What no recipe says of the model is as
`lstm_np.options` has it.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lstm_np import old_names
from lstm_np.errors import LstmNpError
from lstm_np.files import expand, quoted
from lstm_np.options import REQUIRED
from lstm_np.training.augmentation import MOVABLE, NOT_MOVED
from lstm_np.training.recipes.settings import (
    MODEL,
    NONE,
    TABLES,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    TrainSettings,
    convert,
    settings_of,
)

DEFAULT = "mnist-lstm128"
DIGITS = "digits-lstm128"  # takes the default recipe's place on the embedded digits, where no recipe was asked for
FOLDER = Path(__file__).parent
TEXTS = ("title", "description", "based_on", "fault", "fix")
Tables = dict[str, dict[str, Any]]


class RecipeError(LstmNpError, ValueError):
    """A recipe that cannot be used; one line: which file and key, what was found, what was expected."""


@dataclass(frozen=True)
class Published:
    """What the system that a recipe reproduces was said to reach: its accuracy, on how many test images, and where."""

    accuracy: float
    test_images: int
    source: str


@dataclass(frozen=True)
class Recipe:
    """A training run as data.

    name, title, description   for people; `fault` and `fix` say what was wrong with the original and what is done here
    data, model, optimizer, train   every setting
    published                  the original's own numbers, where it had any
    path                       the file that it was read from
    changes                    settings that are not the file's any more, by name with their values; the seed is none
    """

    name: str
    title: str
    description: str
    data: DataSettings
    model: ModelSettings
    optimizer: OptimizerSettings
    train: TrainSettings
    published: Published | None = None
    fault: str | None = None
    fix: str | None = None
    path: str = field(default="", compare=False)
    changes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def tables(self) -> Tables:
        """Every setting: {"data": {"dataset": ...}, "model": ...}."""
        return {table: asdict(getattr(self, table)) for table in TABLES}

    def changed(self, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
        """The same recipe with the settings in `changes` (table -> name -> checked value)."""
        before, tables = self.tables, _overlay(self.tables, changes)
        settings = {table: TABLES[table](**complete(table, tables[table])) for table in TABLES}
        named = {entry.split()[0]: entry for entry in self.changes}
        for table, values in settings.items():
            for name, value in asdict(values).items():
                left_open = table == "optimizer" and value is None  # an argument that only the other optimizer had
                if value != before[table][name] and name != "seed" and not left_open:
                    called = settings_of(table)[name].flag or name
                    named[called] = f"{called} {NONE if value is None else value}"
        return replace(self, **settings, changes=tuple(named.values()))

    def state(self) -> dict[str, Any]:
        """The recipe as plain values."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Recipe:
        """The recipe that gave this state, of this version or an earlier one.

        Raises KeyError, TypeError or ValueError for anything else.
        """
        settings = {}
        for table, values in of_any_version(state).items():
            settings[table] = TABLES[table](
                **{name: convert(table, name, value, f"{table}.{name}") for name, value in values.items()}
            )
        published = state["published"]
        about = {name: state[name] for name in ("name", "title", "description", "fault", "fix", "path")}
        return cls(
            published=None if published is None else Published(**published),
            changes=tuple(state["changes"]),
            **about,
            **settings,
        )


def recipe_names() -> list[str]:
    """The recipes that come with lstm_np, the default one first."""
    names = sorted(path.stem for path in FOLDER.glob("*.toml"))
    return sorted(names, key=lambda name: name != DEFAULT)


def load_recipe(name: str = DEFAULT) -> Recipe:
    """The recipe called `name`, or the one in a file where `name` ends in ".toml".  Raises RecipeError."""
    path = expand(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not name.endswith(".toml") and name not in recipe_names():
        beside = expand(f"{name}.toml")
        hint = _hint(name, recipe_names(), ", or name a .toml file")
        if beside.is_file():
            hint = f"the file {beside} is called --recipe {quoted(beside)}"
        raise RecipeError(f"unknown recipe {name!r}; {hint}")
    document, tables = _resolve(path, ())
    for key in ("title", "description"):
        if key not in document:
            raise RecipeError(f'{path}: the recipe has no {key}; expected {key} = "..."')
    settings: dict[str, Any] = {}
    for table in TABLES:
        missing = set(settings_of(table)) - set(complete(table, tables[table]))
        if missing:
            raise RecipeError(f"{path}: [{table}] does not say {', '.join(sorted(missing))}")
        settings[table] = TABLES[table](**complete(table, tables[table]))
    about = {key: document[key].strip() for key in ("title", "description", "fault", "fix") if key in document}
    published = _published(path, document.get("published"))
    return Recipe(name=path.stem, published=published, path=str(path), **about, **settings)


def _resolve(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], Tables]:
    """(the document, its settings laid over those of what it is based on)."""
    document = _read(path)
    own = {table: _checked(path, table, document.get(table, {})) for table in TABLES}
    base = document.get("based_on", None if path == FOLDER / f"{DEFAULT}.toml" else DEFAULT)
    if base is None:
        return document, own
    if base not in recipe_names():
        raise RecipeError(f"{path}: unknown recipe {base!r} in based_on; {_hint(base, recipe_names())}")
    if path in seen:
        raise RecipeError(f"{path}: the recipe is based on itself")
    return document, _overlay(_resolve(FOLDER / f"{base}.toml", (*seen, path))[1], own)


def _overlay(tables: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Mapping[str, Any]]) -> Tables:
    """`tables` with the settings of `changes` in their place."""
    merged = {table: {**tables.get(table, {}), **changes.get(table, {})} for table in TABLES}
    if changes.get("data", {}).get("view", "rows") not in MOVABLE:
        merged["data"].update({**NOT_MOVED, **changes["data"]})
    optimizer = changes.get("optimizer", {})
    if optimizer.get("name", tables["optimizer"].get("name")) != tables["optimizer"].get("name"):
        merged["optimizer"] = dict(optimizer)  # arguments of one rule mean nothing, or something else, to another
    return merged


def complete(table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, with the defaults of a model's options, and None for what an optimizer is left to choose itself."""
    defaults: dict[str, Any] = {}
    if table == "model":
        defaults = {name: option.default for name, option in MODEL.items() if option.default is not REQUIRED}
    elif table == "optimizer":
        defaults = dict.fromkeys(name for name in settings_of(table) if name != "name")
    return {name: values.get(name, defaults.get(name)) for name in settings_of(table) if name in {*values, *defaults}}


def of_any_version(tables: Mapping[str, Mapping[str, Any]]) -> Tables:
    """Settings that this version or an earlier one has kept, by their present names and with those that came later: of
    the model and the optimizer as `complete` has them, of the others as the default recipe does.

    Raises KeyError where a table is missing, ValueError for an option that there is not any more.
    """
    defaults = load_recipe().tables
    named = {table: dict(tables[table]) for table in TABLES}
    named["model"] = old_names.options(named["model"])
    later = {table: complete(table, values) for table, values in named.items() if table in ("model", "optimizer")}
    return {table: {**defaults[table], **later.get(table, {}), **values} for table, values in named.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: the recipe cannot be read ({error.strerror})") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise RecipeError(f"{path}: not a TOML file ({' '.join(str(error).split())})") from None
    _refuse_unknown(path, "the recipe", document, (*TEXTS, "published", *TABLES))
    for key in TEXTS:
        if key in document and not isinstance(document[key], str):
            raise RecipeError(f"{path}: {key} must be text, found {document[key]!r}")
    for table in TABLES:
        if not isinstance(document.get(table, {}), dict):
            raise RecipeError(f"{path}: {table} must be a table, [{table}], found {document[table]!r}")
    return document


def _checked(path: Path, table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        values = old_names.options(values) if table == "model" else values
    except ValueError as error:
        raise RecipeError(f"{path}: [{table}] {error}") from None
    _refuse_unknown(path, f"[{table}]", values, settings_of(table))
    try:
        return {name: convert(table, name, value, f"[{table}] {name}") for name, value in values.items()}
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from None


def _published(path: Path, values: Any) -> Published | None:
    if values is None:
        return None
    expected = {"accuracy": (int, float), "test_images": int, "source": str}
    if not isinstance(values, dict) or set(values) != set(expected):
        raise RecipeError(f"{path}: [published] must say {', '.join(expected)}, and nothing else")
    for name, kinds in expected.items():
        if not isinstance(values[name], kinds) or isinstance(values[name], bool):  # type: ignore[arg-type]
            raise RecipeError(f"{path}: [published] {name} cannot be {values[name]!r}")
    if not 0 <= values["accuracy"] <= 1:
        raise RecipeError(f"{path}: [published] accuracy must be a share from 0 to 1, found {values['accuracy']}")
    if values["test_images"] < 1:
        raise RecipeError(f"{path}: [published] test_images must be at least 1, found {values['test_images']}")
    return Published(**values)


def _refuse_unknown(path: Path, where: str, found: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    for key in found:
        if key not in names:
            raise RecipeError(f"{path}: unknown key {key!r} in {where}; {_hint(key, names)}")


def _hint(name: str, names: list[str], more: str = "") -> str:
    """The name that was probably meant, else all that there are, and what more can be given."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}{more}"
