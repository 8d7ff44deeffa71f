"""Models and targets of every kind, for the tests of models."""

from __future__ import annotations

from typing import Any

import numpy as np

import lstm_np

D, H, K, B, T = 3, 4, 3, 4, 5
LENGTHS = np.array([5, 1, 3, 4])

# what is at stake in a loss: options of the model, and how the targets are made
LOSSES: dict[str, dict[str, Any]] = {
    "softmax": {},
    "softmax, class weights, smoothed, ignored": {
        "class_weights": [0.5, 2.0, 1.25], "label_smoothing": 0.1, "ignored_label": -7,
    },
    "softmax, probabilities": {"class_weights": [0.5, 2.0, 1.25]},
    "softmax, twice": {"loss": "softmax_twice", "class_weights": [0.5, 2.0, 1.25]},
    "binary": {"loss": "binary", "class_weights": [0.5, 2.0, 1.25], "ignored_label": 5, "label_smoothing": 0.2},
    "squared": {"loss": "squared"},
    "absolute": {"loss": "absolute"},
    "huber": {"loss": "huber", "huber_delta": 0.7},
}  # fmt: skip
REGRESSION = {"squared", "absolute", "huber"}
# each loss with what is read in two ways, and all that is read with two losses
PAIRS = [
    (kind, read_out)
    for kind in LOSSES
    for read_out in ("final_state", "last_output", "mean", "max", "each_step")
    if read_out in ("final_state", "each_step") or kind in ("softmax", "squared")
]
READ_OUTS = ("final_state", "last_output", "mean", "max", "each_step")


def make(kind: str, *, dtype: str = "float64", **options: Any) -> Any:
    """A model with that loss, all of its parameters at random."""
    make_model = lstm_np.SequenceRegressor if kind in REGRESSION else lstm_np.SequenceClassifier
    model = make_model(D, H, K, dtype=dtype, **LOSSES[kind], **options)
    rng = np.random.default_rng(1)
    model.params.flat[:] = (model.params.flat + 0.4 * rng.standard_normal(model.params.flat.shape)).astype(dtype)
    return model


def targets(kind: str, per_step: bool, n: int = B, seed: int = 3) -> np.ndarray:
    """(N, ...) or (N, T, ...)."""
    rng = np.random.default_rng(seed)
    place = (n, T) if per_step else (n,)
    if kind in REGRESSION:
        return rng.standard_normal((*place, K))
    if kind == "binary":
        found = rng.integers(0, 2, (*place, K))
        found[0, ..., 1] = 5  # is ignored
        return found
    if kind == "softmax, probabilities":
        p = rng.random((*place, K))
        return p / p.sum(axis=-1, keepdims=True)
    found = rng.integers(0, K, place)
    if "ignored" in kind:
        found[0, ...] = np.where(rng.random(found[0, ...].shape) < 0.5, -7, found[0, ...])
        found[1, ...] = -7
    return found


def inputs(n: int = B, seed: int = 0) -> np.ndarray:
    """x (N, T, D)."""
    return np.random.default_rng(seed).standard_normal((n, T, D))
