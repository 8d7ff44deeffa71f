"""From a recipe's optimizer settings to an optimizer."""

from __future__ import annotations

import inspect
from typing import Any

from lstm_np.layers import Parameters
from lstm_np.optimizers import OPTIMIZERS, Optimizer
from lstm_np.training.recipes.settings import OptimizerSettings, settings_of

_ARGUMENTS = {name: "lr" if name == "learning_rate" else name for name in settings_of("optimizer") if name != "name"}


def arguments(settings: OptimizerSettings) -> dict[str, Any]:
    """Every argument of the named optimizer, under its own names: the settings', else its own default.

    Raises ValueError for a setting that this optimizer does not have.
    """
    taken = inspect.signature(OPTIMIZERS[settings.name]).parameters
    settled = {name: parameter.default for name, parameter in taken.items() if name != "params"}
    for name, argument in _ARGUMENTS.items():
        value = getattr(settings, name)
        if value is None:
            continue
        if argument not in taken:
            known = ", ".join(key for key, word in _ARGUMENTS.items() if word in taken)
            raise ValueError(f"the optimizer {settings.name} has no {name}; it has: {known}")
        settled[argument] = value
    return settled


def make_optimizer(settings: OptimizerSettings, params: Parameters) -> Optimizer:
    """The optimizer over `params`.  Raises ValueError for arguments that it does not have or accept."""
    return OPTIMIZERS[settings.name](params, **arguments(settings))
