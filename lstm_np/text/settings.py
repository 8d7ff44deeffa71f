"""What a run of the text command is told: settings of recipes for model, optimizer and training, and those of a text.

The defaults stand here, where they are not those of the default recipe or of the model's options.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from lstm_np.options import Option
from lstm_np.text.sampling import TEMPERATURE, TOP_K
from lstm_np.training.recipes import complete, load_recipe, of_any_version
from lstm_np.training.recipes.settings import (
    MODEL,
    NONE,
    ModelSettings,
    OptimizerSettings,
    TrainSettings,
    convert,
    settings_of,
)

TABLES = ("text", "model", "optimizer", "train")
# a character model reads forwards, at each step, and learns from all of them; the others are of pictures
LEFT_OUT = {
    "model": ("bidirectional", "read_out", "loss", "hold", "class_weights", "ignored_label", "stateful"),
    "train": ("print_every", "monitor"),
}
# what help says where a setting of a recipe speaks of images
SAID = {
    "epochs": "passes over the text",
    "batch_size": "streams that the text is cut into, side by side (B)",
    "seed": "seed of initial weights and dropout; sample: of the text",
}
TEXT = (
    Option("sequence_length", "characters of each stream per step (T), through which gradients are followed back", int,
           at_least=1),
    Option("validation", "share of the text, its end, that is held out for validation", float, at_least=0, below=1),
    Option("sample_length", "characters of the samples that are printed after each epoch; 0: none", int, at_least=0),
    Option("sample_every", "print a sample every N steps too", int, optional=True, at_least=1),
    TEMPERATURE,
    TOP_K,
)  # fmt: skip
# settings that do not change what was learnt so far
FREE = {
    "train": ("epochs", "max_steps"),
    "text": ("sample_length", "sample_every", "temperature", "top_k"),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "text": {
        "sequence_length": 64,
        "validation": 0.1,
        "sample_length": 200,
        "sample_every": None,
        "temperature": TEMPERATURE.default,
        "top_k": TOP_K.default,
    },
    "model": complete("model", {"hidden_size": 128}),
    "optimizer": complete("optimizer", {"name": "adam", "learning_rate": 0.003}),
    "train": {**load_recipe().tables["train"], "epochs": 10, "batch_size": 32, "clip_norm": 1.0},
}


@functools.cache
def options_of(table: str) -> dict[str, Option]:
    """Name -> what a setting is and may be, of one of the `TABLES`."""
    if table == "text":
        return {option.name: option for option in TEXT}
    found = MODEL if table == "model" else settings_of(table)
    return {
        name: replace(option, help=SAID.get(name, option.help))
        for name, option in found.items()
        if name not in LEFT_OUT.get(table, ())
    }


def checked(table: str, name: str, value: Any, called: str) -> Any:
    """`value` as the setting wants it; `called` is what the user calls it.  Raises ValueError with one line."""
    if table != "text":
        return convert(table, name, value, called)
    option = options_of(table)[name]
    return option.check(None if option.optional and value == NONE else value, called, f'"{NONE}"')


@dataclass(frozen=True)
class TextSettings:
    """How a text is cut and shown: one attribute for each of `TEXT`."""

    sequence_length: int
    validation: float
    sample_length: int
    sample_every: int | None
    temperature: float
    top_k: int | None


@dataclass(frozen=True)
class Settings:
    """Every setting of a run."""

    text: TextSettings
    model: ModelSettings
    optimizer: OptimizerSettings
    train: TrainSettings

    @classmethod
    def of(cls, tables: Mapping[str, Mapping[str, Any]]) -> Self:
        """From every setting, by table and name."""
        return cls(
            TextSettings(**tables["text"]),
            ModelSettings(**tables["model"]),
            OptimizerSettings(**tables["optimizer"]),
            TrainSettings(**tables["train"]),
        )

    @property
    def tables(self) -> dict[str, dict[str, Any]]:
        """Every setting as plain values."""
        return {table: asdict(getattr(self, table)) for table in TABLES}

    def changed(self, changes: Mapping[str, Mapping[str, Any]]) -> Self:
        """The same with the settings in `changes` (table -> name -> checked value).

        Another optimizer starts from its own defaults.
        """
        tables = {table: {**values, **changes.get(table, {})} for table, values in self.tables.items()}
        if tables["optimizer"]["name"] != self.optimizer.name:
            tables["optimizer"] = complete("optimizer", changes["optimizer"])
        return self.of(tables)

    @classmethod
    def from_state(cls, state: Mapping[str, Mapping[str, Any]]) -> Self:
        """The settings whose `tables` these were, in this version or an earlier one.

        Raises KeyError, TypeError or ValueError for anything else.
        """
        kept = of_any_version({"data": {}, **{table: state[table] for table in TABLES if table != "text"}})
        kept["text"] = {**DEFAULTS["text"], **state["text"]}
        return cls.of(
            {
                table: {name: checked(table, name, value, f"{table}.{name}") for name, value in kept[table].items()}
                for table in TABLES
            }
        )


def defaults() -> Settings:
    """Where nothing is said."""
    return Settings.of(DEFAULTS)
