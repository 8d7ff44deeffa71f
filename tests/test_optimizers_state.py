"""An optimizer gives its state and takes it back, counts only the updates it made, and knows its own gradients."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from lstm_np.backends import get_backend
from lstm_np.optimizers import SGD, Adam, AdamW, RMSProp
from lstm_np.parameters import Parameters
from tests.plain import through_files

pytestmark = pytest.mark.quick

MAKERS = {
    "sgd": lambda p: SGD(p, lr=0.1),
    "momentum": lambda p: SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": Adam,
    "adam hat": lambda p: Adam(p, form="hat"),
    "adamw": lambda p: AdamW(p, weight_decay=0.1),
    "adam, decay": lambda p: Adam(p, weight_decay=0.1),
    "rmsprop torch": RMSProp,
    "rmsprop torch, momentum": lambda p: RMSProp(p, momentum=0.5),
    "rmsprop keras": lambda p: RMSProp(p, form="keras"),
    "rmsprop tf1, momentum": lambda p: RMSProp(p, form="tf1", momentum=0.5),
}


def parameters(dtype="float32", seed=0, **changes):
    rng = np.random.default_rng(seed)
    shapes = {"W": (4, 3), "U": (3, 4), "b": (4,)} | changes
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return Parameters.from_host(get_backend("numpy"), arrays, dtype)


def advance(optimizer, first, last):
    for k in range(first, last):
        optimizer.step(parameters(optimizer.params.flat.dtype, seed=100 + k))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(MAKERS))
def test_it_goes_on_from_its_state_to_the_bit(name, dtype):
    whole = MAKERS[name](parameters(dtype))
    advance(whole, 0, 3)
    whole.lr = 0.07
    state, values = through_files(whole.state()), whole.params.flat.copy()
    advance(whole, 3, 6)
    resumed = MAKERS[name](parameters(dtype, seed=9))
    advance(resumed, 7, 8)  # what it gathered before does not stay
    resumed.params.flat[...] = values
    resumed.restore(state)
    assert (resumed.steps, resumed.lr) == (3, 0.07)
    advance(resumed, 3, 6)
    np.testing.assert_array_equal(resumed.params.flat, whole.params.flat)
    for slot, vector in whole.slots.items():
        np.testing.assert_array_equal(resumed.slots[slot], vector)
    assert resumed.steps == 6


def test_the_state_is_by_name_and_its_own():
    optimizer = Adam(parameters())
    advance(optimizer, 0, 2)
    state = optimizer.state()
    assert set(state) == {"lr", "steps", "slots"}
    assert {slot: list(arrays) for slot, arrays in state["slots"].items()} == {s: ["W", "U", "b"] for s in ("m", "v")}
    assert state["slots"]["m"]["U"].shape == (3, 4)
    before = state["slots"]["m"]["W"].copy()
    advance(optimizer, 2, 3)
    np.testing.assert_array_equal(state["slots"]["m"]["W"], before)
    assert (before != optimizer.params.like(optimizer.slots["m"])["W"]).any()


def test_a_copy_and_a_pickle_of_an_earlier_version():
    optimizer = AdamW(parameters(), weight_decay=0.25)
    assert copy.deepcopy(optimizer).weight_decay == 0.25
    state = optimizer.__getstate__()
    del state["weight_decay"]
    earlier = AdamW.__new__(AdamW)
    earlier.__setstate__(state)
    assert earlier.weight_decay == 0.0


def broken(change):
    state = Adam(parameters()).state()
    change(state)
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: SGD(parameters()).state(), "Adam keeps m, v; the state to restore has none"),
        (lambda: RMSProp(parameters()).state(), "Adam keeps m, v; the state to restore has mean_square"),
        (lambda: {}, "the state of Adam needs 'slots'; found nothing"),
        (lambda: broken(lambda s: s.pop("steps")), "the state of Adam needs 'steps'; found lr, slots"),
        (lambda: broken(lambda s: s.update(steps=-1)), "steps must be at least 0, found -1"),
        (lambda: broken(lambda s: s.update(lr=float("nan"))), "lr must be at least 0, found nan"),
        (lambda: broken(lambda s: s["slots"]["v"].pop("U")), "slot v must have W, U, b; found W, b"),
        (
            lambda: broken(lambda s: s["slots"]["v"].update(U=np.zeros((4, 3)))),
            r"U of slot v must have shape \(3, 4\), found \(4, 3\)",
        ),
    ],
)
def test_another_state_is_refused_and_nothing_changes(state, message):
    optimizer = Adam(parameters())
    advance(optimizer, 0, 2)
    before = optimizer.state()
    with pytest.raises(ValueError, match=message) as refused:
        optimizer.restore(state())
    assert "\n" not in str(refused.value)
    after = optimizer.state()
    assert (after["lr"], after["steps"]) == (before["lr"], before["steps"])
    for slot in ("m", "v"):
        for name, array in before["slots"][slot].items():
            np.testing.assert_array_equal(after["slots"][slot][name], array)


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        (lambda: parameters(W=(3, 4), U=(4, 3)), r"the gradient of W must have shape \(4, 3\), found \(3, 4\)"),
        (lambda: Parameters.from_host(get_backend("numpy"), {"w": np.ones(28)}, "float32"), "must be named W, U, b"),
        (lambda: dict(parameters(b=(5,))), r"the gradient of b must have shape \(4,\), found \(5,\)"),
        (lambda: {"W": np.ones((4, 3))}, "gradients must be named W, U, b; found W"),
    ],
    ids=["same size, other shapes", "same size, other names", "a dict", "one is missing"],
)
def test_another_models_gradients_are_refused_and_not_counted(grads, message):
    optimizer = Adam(parameters())
    advance(optimizer, 0, 2)
    before = optimizer.params.flat.copy()
    with pytest.raises(ValueError, match=message):
        optimizer.step(grads())
    assert optimizer.steps == 2
    np.testing.assert_array_equal(optimizer.params.flat, before)


def test_gradients_in_a_plain_dict_are_those_of_parameters():
    one, other = (MAKERS["nesterov"](parameters()) for _ in range(2))
    advance(one, 0, 2)
    for k in range(2):
        other.step({name: array.copy() for name, array in parameters(seed=100 + k).items()})
    np.testing.assert_array_equal(one.params.flat, other.params.flat)
