"""NaN and infinities inserted in x, parameters, gradients, optimizer and loss are found in their step, and named."""

from __future__ import annotations

from typing import Any

import numpy as np

import lstm_np
from lstm_np.loop import TrainingDivergedError
from lstm_np.steps import BatchGradients, ModelSteps
from tests.campaigns.support import Campaign

VALUES = (np.nan, np.inf, -np.inf)
MODELS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "lstm, cell_clip, input projection": {"cell_clip": 2.0, "input_projection": 3},
    "lstm stack, both directions, dropout": {"num_layers": 2, "bidirectional": True, "dropout": 0.3},
    "gru, double bias": {"cell": "gru", "bias": "double"},
    "gru_reset_before": {"cell": "gru_reset_before"},
    "rnn, no bias": {"cell": "rnn", "bias": False},
    "rnn_relu, float64": {"cell": "rnn_relu", "dtype": "float64"},
}
OPTIMIZERS = {
    "adam": lambda params: lstm_np.Adam(params),
    "momentum": lambda params: lstm_np.SGD(params, lr=0.01, momentum=0.9),
    "rmsprop": lambda params: lstm_np.RMSProp(params, lr=0.001, momentum=0.5),
}


class Spoiling(ModelSteps):
    """`spoil(made)` changes what the first stage has made."""

    spoil: Any = None

    def gradients(self, batch: Any, number: int) -> BatchGradients:
        """As `ModelSteps.gradients`, spoilt."""
        made = super().gradients(batch, number)
        if self.spoil is not None:
            self.spoil(made)
        return made


def not_finite(campaign: Campaign) -> None:
    """As many rounds as the budget; a round is every tensor of every model, each with each value at a drawn place."""
    for _ in range(campaign.budget):
        for kind, settings in MODELS.items():
            for optimizer, make in OPTIMIZERS.items():
                _round(campaign, f"{kind}, {optimizer}", settings, make)


def _round(campaign: Campaign, kind: str, settings: dict[str, Any], make: Any) -> None:
    rng = np.random.default_rng(campaign.random.randrange(2**32))
    model = lstm_np.SequenceClassifier(4, 6, 3, **settings)
    steps = Spoiling(model, make(model.params))
    x, labels = rng.standard_normal((10, 5, 4)).astype(model.dtype), rng.integers(0, 3, 10)
    steps.step((x, labels), 1)
    kept = model.params.flat.copy(), {name: slot.copy() for name, slot in steps.optimizer.slots.items()}
    targets: list[tuple[str, Any, str]] = [("x", x, "since x has values that are not finite")]
    targets += [("parameter", array, f"since {name} was not finite already") for name, array in model.params.items()]
    for slot, vector in steps.optimizer.slots.items():
        for name, array in model.params.like(vector).items():
            targets.append(("optimizer", array, f"since the optimizer's {slot} of {name} was not finite already"))
    targets += [("gradient", name, f"; the gradient of {name} is not finite") for name in model.params]
    targets.append(("loss", None, "the loss is"))
    for what, target, expected in targets:
        for value in VALUES:
            steps.spoil = None
            if what == "loss":
                steps.spoil = lambda made, value=value: setattr(made, "loss", np.asarray(value, model.dtype))
            elif what == "gradient":
                place = rng.integers(model.params[target].size)
                steps.spoil = lambda made, name=target, place=place, value=value: (
                    made.grads[name].reshape(-1).put(place, value)
                )
            else:
                place = np.unravel_index(rng.integers(target.size), target.shape)
                before, target[place] = target[place], value
            campaign.counts[f"inserted in {what}"] += 1
            spoilt = model.params.flat.copy(), {name: slot.copy() for name, slot in steps.optimizer.slots.items()}
            line = ""
            try:
                steps.step((x, labels), 2)
            except TrainingDivergedError as error:
                line = str(error)
            where = f"{kind}: {value} in {what}, {expected}"
            campaign.check(expected in line and " step 2: " in line, f"{where}: {line or 'not noticed'}")
            now = model.params.flat, steps.optimizer.slots
            same = np.array_equal(now[0], spoilt[0], equal_nan=True) and all(
                np.array_equal(now[1][name], slot, equal_nan=True) for name, slot in spoilt[1].items()
            )
            campaign.check(same, f"{where}: parameters or optimizer have changed")
            if what not in ("loss", "gradient"):
                target[place] = before
            model.params.flat[...] = kept[0]
            for name, slot in kept[1].items():
                steps.optimizer.slots[name][...] = slot
