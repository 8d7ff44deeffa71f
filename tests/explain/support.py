"""Small models for the views: random parameters, real digits, and float64, so that text is the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import lstm_np
from lstm_np import options
from lstm_np.data import sequence_view
from lstm_np.explain.samples import Sample, samples_of
from lstm_np.training.trained import Trained


def make_trained(hidden_size: int = 6, view: str = "rows", **settings: Any) -> Trained:
    """As `load_trained` gives it, with everything random and not zero, for the embedded digits."""
    features = sequence_view(np.empty((1, 8, 8), np.uint8), view).shape[2]
    with options.silent():
        model = lstm_np.SequenceClassifier(features, hidden_size, 10, dtype="float64", seed=3, **settings)
    rng = np.random.default_rng(4)
    model.params.flat[:] += 0.5 * rng.standard_normal(model.params.flat.shape)
    return Trained(Path("run/weights.safetensors"), model, "digits", view, (8, 8), 16)


def digit(index: int) -> Sample:
    """A test image of the embedded digits."""
    return samples_of(lstm_np.data.load_digits(), [index])[0]
