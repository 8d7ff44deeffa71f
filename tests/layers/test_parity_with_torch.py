"""GRU, RNN and double biases against PyTorch, float64: outputs, states, every gradient, and training."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.layers import GRU, LSTM, RNN
from lstm_np.optimizers import SGD, Adam
from tests.peers import needs_torch

pytestmark = needs_torch


@pytest.fixture(scope="module", autouse=True)
def _torch():
    """Loaded by the first test here, not by everybody who collects tests."""
    global torch
    import torch


KINDS = {  # our layer, the name of theirs, and what both are told besides
    "lstm": (LSTM, "LSTM", {}),
    "gru": (GRU, "GRU", {}),
    "rnn": (RNN, "RNN", {}),
    "rnn_relu": (RNN, "RNN", {"nonlinearity": "relu"}),
}
NAMES = {"W": "weight_ih", "U": "weight_hh", "b": "bias_ih", "b_h": "bias_hh"}


def relative(found, expected):
    """Largest difference over the largest entry."""
    expected = expected.detach().numpy()
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-300)


def swap_o_and_g(array, kind):
    """Our row blocks in PyTorch's order and back: an LSTM's i, f, o, g is there i, f, g, o; the others are alike."""
    if kind != "lstm":
        return array
    i, f, third, fourth = np.split(array, 4)
    return np.concatenate([i, f, fourth, third])


def suffix_of(prefix):
    """ "layer1_reverse" -> "_l1_reverse"."""
    return prefix.replace("layer", "_l", 1)


def pair(kind, D, H, rng, **settings):
    """The two stacks with the same random parameters; ours has both of PyTorch's biases."""
    make_ours, name_of_theirs, more = KINDS[kind]
    ours = make_ours(D, H, bias="double", dtype="float64", **more, **settings)
    theirs = getattr(torch.nn, name_of_theirs)(D, H, batch_first=True, dtype=torch.float64, **more, **settings)
    named = dict(theirs.named_parameters())
    with torch.no_grad():
        for name in ours.params:
            prefix, _, kind_of_tensor = name.rpartition(".")
            value = 0.5 * rng.standard_normal(ours.params[name].shape)
            ours.params[name] = value
            named[NAMES[kind_of_tensor] + suffix_of(prefix)].copy_(torch.from_numpy(swap_o_and_g(value, kind)))
    return ours, theirs, named


@pytest.mark.parametrize("both", [False, True], ids=["one direction", "both directions"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", list(KINDS))
def test_outputs_states_and_gradients_agree(kind, layers, both):
    for case in range(4):
        rng = np.random.default_rng([case, layers, both])
        D, H = rng.choice(np.arange(1, 9), 2, replace=False).tolist()
        B, T = int(rng.integers(2, 6)), int(rng.integers(3, 8))
        ours, theirs, named = pair(kind, D, H, rng, num_layers=layers, bidirectional=both)
        parts = len(ours.cell.state)
        rows = layers * (2 if both else 1)
        x, dy = rng.standard_normal((B, T, D)), rng.standard_normal((B, T, ours.output_size))
        state, dstate = rng.standard_normal((2, parts, rows, B, H))
        y, final, cache = ours.forward(x, tuple(state))
        dx, dstate_0, grads = ours.backward(cache, dy, tuple(dstate))

        tx, *tstate = (torch.from_numpy(value.copy()).requires_grad_() for value in (x, *state))
        ty, tfinal = theirs(tx, tuple(tstate) if parts > 1 else tstate[0])
        tfinal = tfinal if parts > 1 else (tfinal,)
        loss = (ty * torch.from_numpy(dy)).sum()
        sum((loss, *((part * torch.from_numpy(d)).sum() for part, d in zip(tfinal, dstate, strict=True)))).backward()

        final, dstate_0 = (value if parts > 1 else (value,) for value in (final, dstate_0))
        assert relative(y, ty) <= 1e-12
        assert relative(dx, tx.grad) <= 1e-12
        for k in range(parts):
            assert relative(final[k], tfinal[k]) <= 1e-12
            assert relative(dstate_0[k], tstate[k].grad) <= 1e-12
        for name, grad in grads.items():
            prefix, _, tensor = name.rpartition(".")
            assert relative(swap_o_and_g(grad, kind), named[NAMES[tensor] + suffix_of(prefix)].grad) <= 1e-12, name


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_training_with_two_biases_follows_pytorch(kind, rule):
    rng = np.random.default_rng(0)
    ours, theirs, named = pair(kind, 3, 5, rng)
    make = {"sgd": (SGD, torch.optim.SGD), "adam": (Adam, torch.optim.Adam)}[rule]
    optimizer, their_optimizer = make[0](ours.params, lr=0.01), make[1](theirs.parameters(), lr=0.01)
    for _ in range(10):
        x, target = rng.standard_normal((4, 6, 3)), rng.standard_normal((4, 6, 5))
        y, _, cache = ours.forward(x)
        optimizer.step(ours.backward(cache, 2 * (y - target) / y.size)[2])
        their_optimizer.zero_grad()
        ((theirs(torch.from_numpy(x))[0] - torch.from_numpy(target)) ** 2).mean().backward()
        their_optimizer.step()
    for name, value in ours.params.items():
        prefix, _, tensor = name.rpartition(".")
        assert relative(swap_o_and_g(value, kind), named[NAMES[tensor] + suffix_of(prefix)]) <= 1e-12, name


def test_one_bias_is_not_the_same_training_as_two():
    double = LSTM(3, 4, bias="double", dtype="float64")
    single = LSTM(3, 4, dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    for layer in (double, single):
        y, _, cache = layer.forward(x)
        SGD(layer.params, lr=0.1).step(layer.backward(cache, np.ones_like(y))[2])
    start = LSTM(3, 4, dtype="float64").params["layer0.b"]
    moved = double.params["layer0.b"] + double.params["layer0.b_h"] - start
    np.testing.assert_allclose(moved, 2 * (single.params["layer0.b"] - start), rtol=1e-13)


def test_dropout_lies_where_pytorch_has_it():
    """With the masks known, our stack with dropout between layers is PyTorch's layers with those masks in between."""
    rng = np.random.default_rng(1)
    ours = GRU(3, 4, num_layers=2, dropout=0.5, dtype="float64", seed=3)
    plain = [GRU(3, 4, dtype="float64"), GRU(4, 4, dtype="float64")]
    for k, layer in enumerate(plain):
        for name in layer.params:
            layer.params[name] = ours.params[name.replace("layer0", f"layer{k}")]
    x = rng.standard_normal((2, 6, 3))
    y, _, cache = ours.forward(x, dropout_key=(9,))
    below, above = cache["masks"]
    assert above is None
    between = plain[0].forward(x)[0] * below.transpose(2, 1, 0)
    np.testing.assert_allclose(plain[1].forward(between)[0], y, rtol=1e-13)
    assert set(np.unique(below)) == {0.0, 2.0}
    assert lstm_np.gradcheck(ours, dropout_key=(9,), entries=10).ok
