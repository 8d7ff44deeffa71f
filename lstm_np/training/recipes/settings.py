"""What a recipe can say: one field per setting, with its type, its range and the sentence that explains it.

The model's settings are the options of `lstm_np.options`, with the defaults that they have there.  The other tables
stand here, and their defaults in the default recipe alone.  There is no other list of settings: the keys of a recipe
file, the flags of the command line, their checks and their help are all made from these tables.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import TYPE_CHECKING, Any

from lstm_np.callbacks import MONITORS
from lstm_np.cells import CELLS
from lstm_np.data.batches import ORDERS
from lstm_np.data.dataset import VIEWS
from lstm_np.data.load import DATASETS
from lstm_np.model import SequenceClassifier
from lstm_np.optimizers import OPTIMIZERS
from lstm_np.options import BY_NAME, Option, taken_by
from lstm_np.training.schedules import PLATEAU, SHAPES

NONE = "none"  # how "no value" is written, in a recipe file and on the command line


def setting(text: str, *, choices: Sequence[str] = (), **rule: Any) -> Any:
    """A field of a settings table: what it means, and what else an `Option` says of it but for its kind."""
    return field(metadata={"help": text, "choices": tuple(choices), **rule})


def _model_settings() -> dict[str, Option]:
    """The options of a model that recipes say, with the choices that recipes have."""
    found = {name: BY_NAME[name] for name in taken_by(SequenceClassifier) if BY_NAME[name].recipe}
    return {
        name: replace(option, choices=tuple(c for c in option.choices if c not in option.private), several=False)
        for name, option in found.items()
    }


MODEL = _model_settings()


@dataclass(frozen=True)
class DataSettings:
    """The training data."""

    dataset: str = setting("data set", choices=DATASETS)
    view: str = setting("how an image is read as a sequence", choices=VIEWS)
    validation: int = setting("hold out the first N training images for validation", at_least=0)
    limit_train: int | None = setting(
        "train on the first N of the remaining images only; of sequences of your own, on N that the seed draws",
        at_least=1,
    )
    order: str = setting("the order of the images within an epoch", choices=ORDERS)
    shift: int = setting("move each training image by up to N pixels each way", at_least=0)
    rotate: float = setting("rotate each training image by up to X degrees", at_least=0, below=180)
    zoom: float = setting("enlarge or shrink each training image by up to a share of X", at_least=0, below=1)


if TYPE_CHECKING:

    class ModelSettings:
        """One attribute for each of `MODEL`."""

        def __init__(self, **values: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    ModelSettings = make_dataclass("ModelSettings", list(MODEL), frozen=True, namespace={"__module__": __name__})


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer and its arguments; none: the optimizer's own default (the arguments have PyTorch's names)."""

    name: str = setting(
        "optimizer; one other than the recipe's starts from its own defaults",
        flag="optimizer",
        choices=tuple(OPTIMIZERS),
    )
    learning_rate: float | None = setting("learning rate", above=0)
    momentum: float | None = setting("sgd, rmsprop: fraction of the last update that is kept", at_least=0, below=1)
    nesterov: bool | None = setting("sgd: look ahead along the momentum")
    betas: tuple[float, float] | None = setting("adam, adamw: decay of the two moments", at_least=0, below=1)
    alpha: float | None = setting("rmsprop: decay of the mean square", at_least=0, below=1)
    eps: float | None = setting("adam, adamw, rmsprop: added to the denominator", at_least=0)
    form: str | None = setting("adam, adamw: paper or hat; rmsprop: torch, keras or tf1")
    weight_decay: float | None = setting(
        "weight decay of all parameters: adamw's acts on them directly, the others' is added to the gradient (L2)",
        at_least=0,
    )


@dataclass(frozen=True)
class TrainSettings:
    """How long to train, and in which batches."""

    epochs: int = setting("passes over the training images", at_least=1)
    max_steps: int | None = setting("stop after N steps, even within an epoch", at_least=1)
    batch_size: int = setting("images per step (B)", at_least=1)
    clip_norm: float | None = setting("upper bound of the norm of all gradients together", above=0)
    accumulate: int = setting("make each step of the gradients of N batches, as if they were one", at_least=1)
    schedule: str = setting("learning rate schedule after the warm-up", choices=(*SHAPES, PLATEAU))
    warmup_steps: int = setting("raise the learning rate linearly over the first N steps", at_least=0)
    plateau_factor: float = setting(
        "plateau: what the learning rate is multiplied with when it falls", above=0, below=1
    )
    plateau_patience: int = setting(
        "plateau: let N epochs pass that are not better; it falls after one more", at_least=0
    )
    plateau_threshold: float = setting("plateau: an epoch is better that beats the best by a share of X", at_least=0)
    plateau_cooldown: int = setting("plateau: N epochs after a fall are not counted", at_least=0)
    min_learning_rate: float = setting("plateau: the learning rate does not fall below X", at_least=0)
    patience: int | None = setting("early stopping: end after N epochs in a row that are not better", at_least=1)
    min_delta: float = setting("early stopping: by how much an epoch must beat the best to be better", at_least=0)
    restore_best: bool = setting("early stopping: end with the weights of the best epoch")
    monitor: str = setting(
        "what plateau and early stopping look at; auto: the validation loss where images are held out for it, else the "
        "training loss",
        choices=MONITORS,
    )
    print_every: int | None = setting("print loss and accuracy of the batch at step 1 and every N steps", at_least=1)
    seed: int = setting("seed of initial weights, order, dropout and augmentation")


TABLES: dict[str, type] = {
    "data": DataSettings,
    "model": ModelSettings,
    "optimizer": OptimizerSettings,
    "train": TrainSettings,
}


@functools.cache
def settings_of(table: str) -> dict[str, Option]:
    """Name -> what it is and may be, of one of the `TABLES`."""
    if table == "model":
        return MODEL
    hints = typing.get_type_hints(TABLES[table])
    return {item.name: _option(item.name, hints[item.name], item.metadata) for item in fields(TABLES[table])}


def _option(name: str, hint: Any, rule: Any) -> Option:
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    base = next(part for part in parts if part is not type(None))
    return Option(name, kind=typing.get_origin(base) or base, optional=len(parts) > 1, **rule)


def convert(table: str, name: str, value: Any, called: str) -> Any:
    """`value` as the setting wants it; `called` is what the user calls it.  Raises ValueError with one line."""
    option = settings_of(table)[name]
    option = option.among(CELLS) if option is MODEL["cell"] else option  # now, since cells can be registered
    return option.check(None if option.optional and value == NONE else value, called, f'"{NONE}"')
