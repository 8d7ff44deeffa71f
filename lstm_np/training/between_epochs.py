"""From a recipe's settings to what acts between its epochs: early stopping, and a rate that falls on a plateau."""

from __future__ import annotations

from lstm_np.callbacks import Callback, EarlyStopping, ReduceLROnPlateau
from lstm_np.optimizers import Optimizer
from lstm_np.training.recipes.settings import TrainSettings
from lstm_np.training.schedules import PLATEAU


def refuse(settings: TrainSettings) -> None:
    """Raises ValueError for settings that do not go together."""
    if settings.schedule == PLATEAU and settings.warmup_steps:
        raise ValueError(
            f"schedule {PLATEAU} and warmup_steps {settings.warmup_steps}: a warm-up sets the learning rate at every "
            "step, a plateau lets it fall between epochs; take one of them"
        )


def callbacks_of(settings: TrainSettings, optimizer: Optimizer, held_out: str) -> list[Callback]:
    """The callbacks that a run's settings ask for.

    held_out  what each epoch is measured on besides: what is not "validation" is looked at only, and not monitored

    Raises ValueError where nothing is held out that they monitor.
    """
    found: list[Callback] = []
    if settings.schedule == PLATEAU:
        found.append(
            ReduceLROnPlateau(
                optimizer,
                settings.plateau_factor,
                settings.plateau_patience,
                threshold=settings.plateau_threshold,
                cooldown=settings.plateau_cooldown,
                min_lr=settings.min_learning_rate,
                monitor=settings.monitor,
            )
        )
    if settings.patience is not None:
        found.append(
            EarlyStopping(
                optimizer.params,
                settings.patience,
                settings.min_delta,
                monitor=settings.monitor,
                restore_best=settings.restore_best,
            )
        )
    for callback in found:
        callback.check(optimizer, held_out == "validation")
    return found
