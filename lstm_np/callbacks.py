"""What acts between epochs: early stopping, and a learning rate that falls on a plateau; their state is kept.

A callback is called with the `Epoch` that was made; one that returns True ends training.  Any function will do.  A
`Callback` has a state besides, which checkpoints keep, so that a training which is resumed goes on with the same bits.

    EarlyStopping       better:  v < best - min_delta                        (accuracies: v > best + min_delta)
                        after `patience` epochs in a row that are not better, training ends
    ReduceLROnPlateau   better:  v < best (1 - threshold)  or  v < best - threshold          ("rel", "abs")
                        after more than `patience` epochs that are not better, lr = max(factor lr, min_lr), and
                        `cooldown` epochs are not counted

Sources: Prechelt, "Early stopping - but when?", 1998; the plateau is that of PyTorch's `ReduceLROnPlateau`, argument by
argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lstm_np.loop import Epoch
from lstm_np.metrics import Metrics, RegressionMetrics, names_of_means
from lstm_np.optimizers import Optimizer
from lstm_np.options import Option, check_bool, check_count
from lstm_np.parameters import Parameters

AUTO = "auto"  # the validation's loss where there is one, else that of training
NAMES = tuple(dict.fromkeys((*names_of_means(Metrics), *names_of_means(RegressionMetrics))))
MONITORS = (AUTO, *(f"{part}_{name}" for part in ("train", "validation") for name in NAMES))
THRESHOLDS = ("rel", "abs")


class Callback:
    """A callback with a state: called after each epoch; True ends training.

    news      what it did at the last call, in words; None: nothing that one would want to read
    settings  the names of the attributes that it was made with

    >>> class Deadline(lstm_np.Callback):
    ...     def __call__(self, epoch):
    ...         return epoch.number >= 2
    >>> x, labels = np.ones((8, 5, 3)), np.zeros(8, int)
    >>> len(lstm_np.SequenceClassifier(3, 8, 2).fit(x, labels, epochs=9, callbacks=[Deadline()]))
    2
    """

    news: str | None = None
    settings: tuple[str, ...] = ()

    def __call__(self, epoch: Epoch) -> bool:
        """An epoch was made.  True: it was the last one."""
        return False

    def check(self, optimizer: Optimizer, validated: bool) -> None:
        """Before training: by which optimizer, and whether each epoch is measured on validation data.

        Raises ValueError where the callback does not fit.
        """

    def check_metrics(self, names: Sequence[str]) -> None:
        """Before training: the names of the numbers that each epoch is measured by.

        Raises ValueError where the callback looks at another.
        """

    def finish(self) -> None:
        """Training has ended by itself, after its last checkpoint."""
        self.news = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.arguments().items())})"

    def arguments(self) -> dict[str, Any]:
        """What it was made with, as plain values."""
        return {name: getattr(self, name) for name in self.settings}

    def state(self) -> dict[str, Any]:
        """What the epochs have changed: plain values and NumPy arrays, by name."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""


class _Monitoring(Callback):
    """A callback that looks at one number of each epoch."""

    def __init__(self, monitor: str) -> None:
        self.monitor = _choice("monitor", monitor, MONITORS)
        self._watched = "train_loss" if self.monitor == AUTO else self.monitor
        self.best: float | None = None
        self.bad_epochs = 0

    def check(self, optimizer: Optimizer, validated: bool) -> None:
        """As `Callback.check`; "auto" is decided here."""
        if self.monitor == AUTO:
            self._watched = "validation_loss" if validated else "train_loss"
        elif self.monitor.startswith("validation") and not validated:
            raise ValueError(
                f"{type(self).__name__} monitors {self.monitor}, but no epoch is measured on validation data: hold "
                "some out, or monitor train_loss"
            )

    def check_metrics(self, names: Sequence[str]) -> None:
        """As `Callback.check_metrics`."""
        name = self._watched.partition("_")[2]
        if name not in names:
            raise ValueError(
                f"{type(self).__name__} monitors {self._watched}, but the metrics of this model are {', '.join(names)}"
            )

    def value(self, epoch: Epoch) -> float:
        """The monitored number of an epoch; nan where it was not measured."""
        part, _, name = self._watched.partition("_")
        metrics = epoch.train if part == "train" else epoch.validation
        return math.nan if metrics is None else float(getattr(metrics, name))

    def _is_better(self, value: float, margin: float, relative: bool = False) -> bool:
        """Whether a value beats the best by a margin, absolute or a share of it; nan never does.

        As in PyTorch the share of a negative best is negative: what is a little worse than it beats it.
        """
        if self.best is None:
            return math.isfinite(value)
        if self._watched.endswith(("loss", "error")):
            return value < (self.best * (1.0 - margin) if relative else self.best - margin)
        return value > (self.best * (1.0 + margin) if relative else self.best + margin)


class EarlyStopping(_Monitoring):
    """End training when a number has not become better for some epochs, and take back the parameters of the best one.

    params        those of the model, `model.params`
    patience      epochs in a row that are not better, after which training ends
    min_delta     by how much a value must beat the best to be better
    monitor       "train_" or "validation_" and a number of the model's metrics, such as "validation_accuracy" or
                  "train_r2", or "auto": the loss of validation where there is one, else of training
    restore_best  whether `params` are those of the best epoch when training has ended, by this or by itself.
                  Checkpoints hold the last epoch's: `resume` and the same call again restore the best

    >>> rng = np.random.default_rng(0)
    >>> x, labels = rng.standard_normal((40, 5, 3)), rng.integers(0, 2, 40)
    >>> model = lstm_np.SequenceClassifier(3, 8, 2)
    >>> stopping = lstm_np.EarlyStopping(model.params, patience=2, min_delta=10.0)  # nothing is better by 10
    >>> len(model.fit(x, labels, epochs=50, callbacks=[stopping])), stopping.best_epoch
    (3, 1)

    What it has counted stays from call to call of `fit`; make a new one to begin anew.
    Raises ValueError for an argument outside its range, TypeError when params is not a `Parameters`.
    """

    settings = ("patience", "min_delta", "monitor", "restore_best")

    def __init__(
        self,
        params: Parameters,
        patience: int = 5,
        min_delta: float = 0.0,
        *,
        monitor: str = AUTO,
        restore_best: bool = True,
    ) -> None:
        if not isinstance(params, Parameters):
            raise TypeError(f"EarlyStopping takes model.params, found {type(params).__name__}")
        super().__init__(monitor)
        self.params, self.patience = params, check_count("patience", patience, 1)
        self.min_delta: float = Option("min_delta", "", float, at_least=0).check(min_delta)
        self.restore_best = check_bool("restore_best", restore_best)
        self.best_epoch: int | None = None
        self.best_parameters: dict[str, Any] = {}  # NumPy arrays

    def check(self, optimizer: Optimizer, validated: bool) -> None:
        """As `Callback.check`."""
        if optimizer.params is not self.params:
            raise ValueError("EarlyStopping was made over other parameters than this model's: pass model.params")
        super().check(optimizer, validated)

    def __call__(self, epoch: Epoch) -> bool:
        """As `Callback`."""
        self.news, value = None, self.value(epoch)
        if self._is_better(value, self.min_delta):
            self.best, self.best_epoch, self.bad_epochs = value, epoch.number, 0
            if self.restore_best:
                self.best_parameters = self.params.to_host()
            return False
        self.bad_epochs += 1
        if self.bad_epochs < self.patience:
            return False
        self.news = f"stopped early: {self._watched} has not improved for {self.bad_epochs} epochs"
        return True

    def finish(self) -> None:
        """As `Callback.finish`: take back the parameters of the best epoch."""
        super().finish()
        if self.best_parameters:
            from_host = self.params.backend.from_host
            self.params.update({name: from_host(array) for name, array in self.best_parameters.items()})
            self.news = f"the parameters are those of epoch {self.best_epoch}, {self._watched} {self.best:.6g}"

    def state(self) -> dict[str, Any]:
        """As `Callback.state`."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "bad_epochs": self.bad_epochs,
            "best_parameters": dict(self.best_parameters),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """As `Callback.restore`."""
        self.best, self.best_epoch, self.bad_epochs = state["best"], state["best_epoch"], state["bad_epochs"]
        self.best_parameters = dict(state["best_parameters"])


class ReduceLROnPlateau(_Monitoring):
    """Multiply the learning rate by a factor when a number has not become better for some epochs.

    optimizer   whose `lr` falls
    factor      what it is multiplied with
    patience    epochs that are not better and are let pass: the rate falls after one more
    threshold   by how much a value must beat the best to be better, a share of it ("rel") or itself ("abs", by
                threshold_mode)
    cooldown    epochs after a fall that are not counted
    min_lr      the rate does not fall below
    eps         a fall by less than this is not made
    monitor     as for `EarlyStopping`; whether less or more is better is said by its name

    >>> model = lstm_np.SequenceClassifier(3, 8, 2)
    >>> optimizer = lstm_np.Adam(model.params, lr=0.01)
    >>> plateau = lstm_np.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.9)  # hard to please
    >>> rng = np.random.default_rng(0)
    >>> x, labels = rng.standard_normal((40, 5, 3)), rng.integers(0, 2, 40)
    >>> history = model.fit(x, labels, epochs=3, optimizer=optimizer, callbacks=[plateau])
    >>> optimizer.lr
    0.0025

    The arithmetic and the defaults are PyTorch's.  So is what "rel" does where the best value is negative, as r2 may
    be: the share lies on its other side then, and the same value again, or one that is a little worse, counts as
    better ("abs" has no such side).  Raises ValueError for an argument outside its range, TypeError when optimizer is
    none.
    """

    settings = ("factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps", "monitor")

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.1,
        patience: int = 10,
        *,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
        monitor: str = AUTO,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"ReduceLROnPlateau takes an optimizer, found {type(optimizer).__name__}")
        super().__init__(monitor)
        self.optimizer = optimizer
        self.factor: float = Option("factor", "", float, above=0, below=1).check(factor)
        self.patience, self.cooldown = check_count("patience", patience, 0), check_count("cooldown", cooldown, 0)
        self.threshold, self.min_lr, self.eps = (
            float(Option(name, "", float, at_least=0).check(value))
            for name, value in (("threshold", threshold), ("min_lr", min_lr), ("eps", eps))
        )
        self.threshold_mode = _choice("threshold_mode", threshold_mode, THRESHOLDS)
        self.cooling = 0  # epochs that are not counted yet

    def check(self, optimizer: Optimizer, validated: bool) -> None:
        """As `Callback.check`."""
        if optimizer is not self.optimizer:
            raise ValueError(
                "ReduceLROnPlateau was made for another optimizer than the one that trains: pass both the same"
            )
        super().check(optimizer, validated)

    def __call__(self, epoch: Epoch) -> bool:
        """As `Callback`; never ends training."""
        self.news, value = None, self.value(epoch)
        if self._is_better(value, self.threshold, self.threshold_mode == "rel"):
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.cooling > 0:
            self.cooling -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.patience:
            before = self.optimizer.lr
            lower = max(before * self.factor, self.min_lr)
            if before - lower > self.eps:
                self.optimizer.lr = lower
                self.news = f"the learning rate falls to {lower:g}: {self._watched} has stopped improving"
            self.cooling, self.bad_epochs = self.cooldown, 0
        return False

    def state(self) -> dict[str, Any]:
        """As `Callback.state`; the learning rate is the optimizer's."""
        return {"best": self.best, "bad_epochs": self.bad_epochs, "cooling": self.cooling}

    def restore(self, state: Mapping[str, Any]) -> None:
        """As `Callback.restore`."""
        self.best, self.bad_epochs, self.cooling = state["best"], state["bad_epochs"], state["cooling"]


def checked(callbacks: Any) -> tuple[Any, ...]:
    """A list of callbacks.  Raises TypeError for anything else."""
    if not isinstance(callbacks, (list, tuple)) or not all(map(callable, callbacks)):
        raise TypeError(f"callbacks must be a list of functions of an Epoch, found {callbacks!r}")
    return tuple(callbacks)


def with_state(callbacks: tuple[Any, ...]) -> list[Callback]:
    """Those among callbacks that have a state."""
    return [callback for callback in callbacks if isinstance(callback, Callback)]


def call(callbacks: tuple[Any, ...], epoch: Epoch) -> bool:
    """Call each of them; whether one said True, Python's or NumPy's."""
    said = [callback(epoch) for callback in callbacks]
    return any(type(answer).__name__ in ("bool", "bool_") and bool(answer) for answer in said)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    checked_value: str = Option(name, "", str, choices=choices).check(value)
    return checked_value
