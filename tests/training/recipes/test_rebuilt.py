"""The six systems rebuilt in PyTorch from the originals' formulae and constants: the same start takes the same steps.

Nothing of a rebuild is read from the recipe, so a recipe, a cell, a loss or an optimizer that is no longer the
original's leads elsewhere.  Full size, but for the 8x8 digits; float64.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lstm_np.data import load_dataset
from lstm_np.layers import dropout
from lstm_np.model import SequenceClassifier
from lstm_np.training import load_recipe
from lstm_np.training.material import prepare
from lstm_np.training.optimizer import make_optimizer
from tests.peers import needs_torch

pytestmark = needs_torch


@pytest.fixture(scope="module", autouse=True)
def _torch():
    """Loaded by the first test here, not by everybody who collects tests."""
    global torch
    import torch


STEPS, SEED = 3, 1


def lstm(x, W, U, b, forget_bias):
    """Outputs (B, T, H): BasicLSTMCell, whose one kernel reads [x; h]; rows in the order i, f, o, j."""
    kernel, h = torch.cat([W, U], 1).T, torch.zeros(len(x), U.shape[1], dtype=x.dtype)
    c, outputs = h, []
    for t in range(x.shape[1]):
        i, f, o, j = (torch.cat([x[:, t], h], 1) @ kernel + b).chunk(4, 1)
        c = c * torch.sigmoid(f + forget_bias) + torch.sigmoid(i) * torch.tanh(j)
        h = torch.tanh(c) * torch.sigmoid(o)
        outputs.append(h)
    return torch.stack(outputs, 1)


def gru(x, W, U, b):
    """Outputs (B, T, H): TensorFlow 1's GRUCell, gates r and u, reset before the candidate's product."""
    H, h, outputs = U.shape[1], torch.zeros(len(x), U.shape[1], dtype=x.dtype), []
    gates, candidate = torch.cat([W, U], 1)[: 2 * H].T, torch.cat([W, U], 1)[2 * H :].T
    for t in range(x.shape[1]):
        r, u = torch.sigmoid(torch.cat([x[:, t], h], 1) @ gates + b[: 2 * H]).chunk(2, 1)
        c = torch.tanh(torch.cat([x[:, t], r * h], 1) @ candidate + b[2 * H :])
        h = u * h + (1 - u) * c
        outputs.append(h)
    return torch.stack(outputs, 1)


def read_out(p, h):
    return h @ p["readout.W"].T + p["readout.b"]


def tf1_projection(p, x, masks):
    return read_out(p, lstm(x @ p["input_projection.W"].T + p["input_projection.b"], *layer(p), 1.0)[:, -1])


def keras_lstm128(p, x, masks):
    return read_out(p, lstm(x, *layer(p), 0.0)[:, -1])


def tf1_sgd(p, x, masks):
    return read_out(p, lstm(x, *layer(p), 1.0)[:, -1])


def tf1_lstm100(p, x, masks):
    return torch.softmax(read_out(p, lstm(x, *layer(p), 1.0)[:, -1]), 1)


def torch_lstm128(p, x, masks):
    W, U, b = layer(p)
    return read_out(p, lstm(x, W, U, b + p["layer0.b_h"], 0.0)[:, -1])


def tf1_gru3(p, x, masks):
    for k, mask in enumerate(masks):
        x = gru(x, *layer(p, k)) * mask
    return read_out(p, x[:, -1])


def layer(p, number=0):
    return [p[f"layer{number}.{name}"] for name in ("W", "U", "b")]


def hat_adam(lr, eps):
    """TensorFlow 1 and Keras: epsilon beside the uncorrected root."""

    def update(theta, g, slots, t):
        m, v = slots.setdefault("m", torch.zeros_like(g)), slots.setdefault("v", torch.zeros_like(g))
        m.mul_(0.9).add_(0.1 * g)
        v.mul_(0.999).add_(0.001 * g * g)
        theta -= lr * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t) * m / (torch.sqrt(v) + eps)

    return update


def paper_adam(theta, g, slots, t):
    m, v = slots.setdefault("m", torch.zeros_like(g)), slots.setdefault("v", torch.zeros_like(g))
    m.mul_(0.9).add_(0.1 * g)
    v.mul_(0.999).add_(0.001 * g * g)
    theta -= 0.01 * (m / (1 - 0.9**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)


def descent(theta, g, slots, t):
    theta -= 0.001 * g


def tf1_rmsprop(theta, g, slots, t):
    s = slots.setdefault("s", torch.ones_like(g))
    s.mul_(0.9).add_(0.1 * g * g)
    theta -= 0.001 * g / torch.sqrt(s + 1e-10)


SYSTEMS = {
    "tf1-projection": (tf1_projection, hat_adam(1e-3, 1e-8)),
    "keras-lstm128": (keras_lstm128, hat_adam(1e-3, 1e-7)),
    "tf1-sgd": (tf1_sgd, descent),
    "tf1-lstm100": (tf1_lstm100, hat_adam(1e-4, 1e-8)),
    "torch-lstm128": (torch_lstm128, paper_adam),
    "tf1-gru3": (tf1_gru3, tf1_rmsprop),
}


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def made(name, digits):
    """(the recipe's model, its batches) in float64 on the digits."""
    data = {"dataset": "digits", "validation": min(load_recipe(name).data.validation, 97)}
    recipe = load_recipe(name).changed({"data": data, "model": {"dtype": "float64"}, "train": {"seed": SEED}})
    material = prepare(digits, recipe)
    model = SequenceClassifier(8, num_classes=10, seed=SEED, **recipe.tables["model"])
    batches = itertools.chain.from_iterable(material.train.epoch(epoch) for epoch in itertools.count())
    return recipe, model, batches


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_same_start_takes_the_same_steps(name, digits):
    predict, update = SYSTEMS[name]
    recipe, model, batches = made(name, digits)
    start = {key: np.array(value) for key, value in model.params.items()}
    theirs = {key: torch.tensor(value, requires_grad=True) for key, value in start.items()}
    slots = {key: {} for key in theirs}
    step = model.training_steps(make_optimizer(recipe.optimizer, model.params)).step
    for number, (x, labels) in zip(range(1, STEPS + 1), batches, strict=False):
        masks = []
        if name == "tf1-gru3":  # half of every layer's outputs, drawn anew at each time step
            for k in range(3):
                key = (SEED, "dropout", k, number)
                mask = dropout.mask(model.backend, (200, 8, len(labels)), 0.5, "float64", "step", *key)
                masks.append(torch.tensor(np.array(mask.transpose(2, 1, 0))))
        images, truth = torch.tensor(np.array(x)), torch.tensor(np.array(labels))
        ours = float(step((x, labels), number)[0])
        loss = torch.nn.functional.cross_entropy(predict(theirs, images, masks), truth)
        gradients = torch.autograd.grad(loss, list(theirs.values()))
        assert ours == pytest.approx(float(loss.detach()), rel=1e-12)
        with torch.no_grad():
            for (key, theta), g in zip(theirs.items(), gradients, strict=True):
                update(theta, g, slots[key], number)
    for key, theta in theirs.items():
        moved = np.abs(theta.detach().numpy() - start[key]).max()
        assert moved > 0
        assert np.abs(model.params[key] - theta.detach().numpy()).max() <= 1e-10 * moved


def deviation_is(values, expected):
    """Whether the values' deviation is the expected one, within four of its own standard errors."""
    return abs(values.std() / expected - 1) < 4 / np.sqrt(2 * values.size)


def test_where_each_system_starts(digits):
    start = {name: made(name, digits)[1].params for name in SYSTEMS}
    for name in ("tf1-projection", "tf1-sgd"):
        assert deviation_is(start[name]["readout.W"], 1)  # tf.random_normal
    assert deviation_is(start["tf1-projection"]["input_projection.W"], 1)
    assert (start["tf1-projection"]["input_projection.b"] == 0.1).all()
    assert (start["tf1-projection"]["readout.b"] == 0.1).all()
    assert np.abs(start["tf1-sgd"]["readout.b"]).max() > 0.2  # N(0, 1) like the weights
    assert np.abs(start["tf1-lstm100"]["readout.W"]).max() <= 0.2  # N(0, 0.1^2), cut at two deviations
    assert (start["tf1-lstm100"]["readout.b"] == 0.1).all()
    for name in ("tf1-projection", "tf1-sgd", "tf1-lstm100"):
        assert (start[name]["layer0.b"] == 0).all()  # the forget bias of 1 is added at every step
        D, H = start[name]["layer0.W"].shape[1], start[name]["layer0.U"].shape[1]
        for key in ("W", "U"):
            assert deviation_is(start[name][f"layer0.{key}"], np.sqrt(2 / (D + 5 * H)))  # Glorot over [x; h]
    assert (start["keras-lstm128"]["layer0.b"] == np.repeat([0, 1, 0, 0], 128)).all()
    for values in start["torch-lstm128"].values():
        assert np.abs(values).max() <= 1 / np.sqrt(128)
    for k in range(3):
        assert (start["tf1-gru3"][f"layer{k}.b"] == np.repeat([1, 1, 0], 200)).all()  # TensorFlow's gates start open
    assert 0.015 < np.abs(start["tf1-gru3"]["readout.W"]).max() <= 0.02  # N(0, 0.01^2), cut at two deviations
    assert (start["tf1-gru3"]["readout.b"] == 0.1).all()
