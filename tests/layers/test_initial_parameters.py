"""The initial parameters of every recipe and of every kind of layer, pinned: the weights of a seed are part of every
recorded result, whatever options and parameters come to be called."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_np import streams
from lstm_np.layers import LAYERS
from lstm_np.model import SequenceClassifier
from lstm_np.training import load_recipe, recipe_names

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "initial-parameters.json").read_text())

MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "projection": {"input_projection": 6},
    "projection, tf1": {"input_projection": 6, "initializer": "tf1", "bias": "double"},
    "projection, own initializer": {
        "input_projection": 6,
        "input_projection_initializer": "normal",
        "input_projection_bias": 0.1,
        "readout_initializer": "truncated_normal",
        "readout_bias": 0.2,
    },
    "torch everywhere": {"input_projection": 6, "initializer": "torch", "bias": "double", "num_layers": 2},
    "small read-out": {"readout_initializer": "small_truncated_normal", "bidirectional": True},
}


def subjects() -> Iterator[tuple[str, Any]]:
    """(name, layer or model) of all that is pinned."""
    for name in recipe_names():
        yield f"recipe {name}", SequenceClassifier(28, num_classes=10, seed=1, **load_recipe(name).tables["model"])
    for cell, initializer, bias in itertools.product(LAYERS, ("keras", "torch", "tf1"), (True, False, "double")):
        options = {"num_layers": 2, "bidirectional": True, "initializer": initializer, "bias": bias, "seed": 2}
        yield f"layer {cell} {initializer} {bias}", LAYERS[cell](3, 4, **options)
    for at, value in itertools.product(("init", "run"), (None, 2.5)):
        yield f"forget bias {at} {value}", LAYERS["lstm"](3, 4, forget_bias=value, forget_bias_at=at)
    for name, options in MODELS.items():
        yield f"model {name}", SequenceClassifier(4, 3, 5, seed=3, **options)


def digest(subject: Any) -> str:
    """SHA-256 of the parameters' values in their order; of what they are called nothing.

    An orthogonal matrix comes from LAPACK, whose last bits differ between machines: it is rounded down to 1/1024.
    """
    summed = hashlib.sha256()
    for name, array in subject.params.items():
        if name.endswith(".U") and subject.config["initializer"] == "keras":
            array = np.floor(array * 1024).astype(np.int32)
        summed.update(f"{array.dtype.str} {array.shape};".encode() + array.tobytes())
    return summed.hexdigest()


def test_the_initial_parameters_are_those_of_ever():
    draws = streams.generator(0, "canary")
    if (
        hashlib.sha256(draws.standard_normal(64).tobytes() + draws.uniform(size=64).tobytes()).hexdigest()
        != (RECORDED["generator"])
    ):
        pytest.skip("this NumPy draws other numbers from the same stream, which it is free to do")
    found = {name: digest(subject) for name, subject in subjects()}
    assert found == RECORDED["parameters"]
