"""What a recipe can say: one field per setting, with its type, its range and the sentence that explains it.

These tables are the only list of settings.  The keys of a recipe file, the flags of the command line, their checks and
their help are all made from them; the values that hold where nobody says anything stand in the default recipe alone.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

from lstm_np.data.batches import ORDERS
from lstm_np.data.dataset import VIEWS
from lstm_np.data.load import DATASETS
from lstm_np.initializers import DENSE, RECURRENT
from lstm_np.layers import LAYERS
from lstm_np.layers.dropout import DROPPED_OUTPUTS, MASK_PER
from lstm_np.layers.recurrent import FORGET_BIAS_AT
from lstm_np.losses import LOSSES
from lstm_np.model import READ_OUTS
from lstm_np.optimizers import OPTIMIZERS
from lstm_np.training.schedules import SHAPES

NONE = "none"  # how "no value" is written, in a recipe file and on the command line


def setting(
    text: str,
    *,
    flag: str | None = None,
    choices: Sequence[str] = (),
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A field of a settings table: what it means, the name of its flag where that differs, and what it may be."""
    return field(metadata={"help": text, "flag": flag, "choices": tuple(choices), "range": (at_least, above, below)})


@dataclass(frozen=True)
class DataSettings:
    """What is learnt from."""

    dataset: str = setting("which images", choices=DATASETS)
    view: str = setting("how an image is read as a sequence", choices=VIEWS)
    validation: int = setting("hold back the first N training images for validation", at_least=0)
    limit_train: int | None = setting("train on the first N of the remaining images only", at_least=1)
    order: str = setting("the order of the images within an epoch", choices=ORDERS)
    shift: int = setting("move each training image by up to N pixels each way", at_least=0)
    rotate: float = setting("turn each training image by up to X degrees", at_least=0, below=180)
    zoom: float = setting("enlarge or shrink each training image by up to a share of X", at_least=0, below=1)


@dataclass(frozen=True)
class ModelSettings:
    """The arguments of `SequenceClassifier` that say what is computed; where it is computed is not in a recipe."""

    cell: str = setting("recurrent cell", choices=tuple(LAYERS))
    hidden_size: int = setting("units per layer (H)", at_least=1)
    num_layers: int = setting("recurrent layers (L)", flag="layers", at_least=1)
    bidirectional: bool = setting("also read each sequence backwards")
    dropout: float = setting("probability to drop an output in training", at_least=0, below=1)
    dropout_outputs: str = setting("which outputs are dropped", choices=DROPPED_OUTPUTS)
    dropout_mask: str = setting("how often a dropout mask is drawn", choices=MASK_PER)
    initializer: str = setting("whose initial weights", choices=tuple(RECURRENT))
    forget_bias: float | None = setting("initial bias of the forget gate; none: the initializer's own")
    forget_bias_at: str = setting(
        "where it is kept: in the trained bias (init), or added at every step (run)", choices=FORGET_BIAS_AT
    )
    double_bias: bool = setting("two bias vectors that are added, both trained")
    input_projection: int | None = setting("features of a dense layer before the cell; none: no such layer", at_least=1)
    projection_initializer: str | None = setting("its initial weights; none: as initializer", choices=tuple(DENSE))
    projection_bias: float | None = setting("its initial biases; none: the initializer's own")
    readout_initializer: str | None = setting("read-out's initial weights; none: as initializer", choices=tuple(DENSE))
    readout_bias: float | None = setting("read-out's initial biases; none: the initializer's own")
    read_out: str = setting("what the classifier reads", choices=READ_OUTS)
    loss: str = setting("what is made small; softmax_twice is a published mistake", choices=tuple(LOSSES))
    dtype: str = setting("floating-point type of the parameters", choices=("float32", "float64"))


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer and its arguments; none: the optimizer's own default (the arguments have PyTorch's names)."""

    name: str = setting(
        "update rule; another than the recipe's starts from its own defaults",
        flag="optimizer",
        choices=tuple(OPTIMIZERS),
    )
    learning_rate: float | None = setting("step size", above=0)
    momentum: float | None = setting("sgd, rmsprop: share of the last step that is kept", at_least=0, below=1)
    nesterov: bool | None = setting("sgd: look ahead along the momentum")
    betas: tuple[float, float] | None = setting("adam: decay of the two moments", at_least=0, below=1)
    alpha: float | None = setting("rmsprop: decay of the mean square", at_least=0, below=1)
    eps: float | None = setting("adam, rmsprop: what keeps the division finite", at_least=0)
    form: str | None = setting("adam: paper or hat; rmsprop: torch, keras or tf1")


@dataclass(frozen=True)
class TrainSettings:
    """How long and in which portions."""

    epochs: int = setting("passes over the training images", at_least=1)
    max_steps: int | None = setting("stop after N steps, wherever that is", at_least=1)
    batch_size: int = setting("images per step (B)", at_least=1)
    clip_norm: float | None = setting("upper bound of the norm of all gradients together", above=0)
    schedule: str = setting("how the learning rate goes on after the warm-up", choices=tuple(SHAPES))
    warmup_steps: int = setting("let the learning rate grow to its full size over the first N steps", at_least=0)
    print_every: int | None = setting("a line about the batch just learnt from at step 1 and every N steps", at_least=1)
    seed: int = setting("of initial weights, order, dropout and augmentation")


TABLES: dict[str, type] = {
    "data": DataSettings,
    "model": ModelSettings,
    "optimizer": OptimizerSettings,
    "train": TrainSettings,
}


def settings_of(table: str) -> dict[str, Field[Any]]:
    """Name -> field of one of the `TABLES`."""
    return {item.name: item for item in fields(TABLES[table])}


def kind_of(table: str, name: str) -> tuple[type, bool]:
    """(bool, int, float, str or tuple, whether "none" is allowed) of a setting."""
    hint = typing.get_type_hints(TABLES[table])[name]
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    base = next(part for part in parts if part is not type(None))
    return typing.get_origin(base) or base, len(parts) > 1


def convert(table: str, name: str, value: Any, called: str) -> Any:
    """`value` as the setting wants it; `called` is what the user calls it.  Raises ValueError with one line."""
    kind, optional = kind_of(table, name)
    if optional and value in (None, NONE):
        return None
    rule = settings_of(table)[name].metadata
    if kind is tuple and isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value)):
        value = tuple(float(part) for part in value)
    elif kind is float and _is_number(value):
        value = float(value)
    elif kind is tuple or kind is float or not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        expected = _EXPECTED[kind] + (f' or "{NONE}"' if optional else "")
        raise ValueError(f"{called} must be {expected}, found {value!r}")
    if rule["choices"] and value not in rule["choices"]:
        raise ValueError(f"unknown {called} {value!r}; there are: {', '.join(rule['choices'])}")
    for part in value if kind is tuple else (value,):
        if kind is not str and not _in_range(part, *rule["range"]):
            limits = _in_words(*rule["range"]) if math.isfinite(part) else "finite"
            raise ValueError(f"{called} must be {limits}, found {part}")
    return value


_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text", tuple: "two numbers"}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _in_range(value: float, at_least: float | None, above: float | None, below: float | None) -> bool:
    return (
        math.isfinite(value)
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def _in_words(at_least: float | None, above: float | None, below: float | None) -> str:
    limits = [("at least", at_least), ("above", above), ("below", below)]
    return " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)
