"""Our LSTM against PyTorch's, float64: outputs, states, and every gradient by its autograd, over random configurations.

PyTorch's gate order is i, f, g, o; ours i, f, o, g.  Its two biases are summed into our one.
"""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from tests.peers import needs_torch

pytestmark = needs_torch


@pytest.fixture(scope="module", autouse=True)
def _torch():
    """Loaded by the first test here, not by everybody who collects tests."""
    global torch
    import torch


def relative(found, expected):
    """Largest difference over the largest entry."""
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-300)


def to_torch_order(array, H):
    """Row blocks i, f, o, g -> i, f, g, o (its own inverse)."""
    i, f, o, g = np.split(array, 4)
    return np.concatenate([i, f, g, o])


@pytest.mark.parametrize("case", range(60))
def test_outputs_states_and_gradients_agree(case):
    rng = np.random.default_rng(case)
    D, H = rng.choice(np.arange(1, 9), 2, replace=False).tolist()
    B, T = int(rng.integers(2, 6)), int(rng.integers(3, 8))
    layers, both = int(rng.integers(1, 4)), bool(rng.random() < 0.5)
    ours = lstm_np.LSTM(D, H, num_layers=layers, bidirectional=both, dtype="float64", seed=case)
    theirs = torch.nn.LSTM(D, H, num_layers=layers, bidirectional=both, batch_first=True, dtype=torch.float64)
    named = dict(theirs.named_parameters())
    with torch.no_grad():
        for prefix in (single.name for single in ours.singles):
            suffix = f"_l{prefix[5:]}" if "_reverse" not in prefix else f"_l{prefix[5:-8]}_reverse"
            b, second = rng.standard_normal((2, 4 * H))
            ours.params[f"{prefix}.b"] = b + second
            for kind, value in (
                ("weight_ih", ours.params[f"{prefix}.W"]),
                ("weight_hh", ours.params[f"{prefix}.U"]),
                ("bias_ih", b),
                ("bias_hh", second),
            ):
                named[kind + suffix].copy_(torch.from_numpy(to_torch_order(value, H)))
    rows = layers * (2 if both else 1)
    x, dy = rng.standard_normal((B, T, D)), rng.standard_normal((B, T, ours.output_size))
    state, dstate = rng.standard_normal((2, 2, rows, B, H))
    y, (h_n, c_n), cache = ours.forward(x, tuple(state))
    dx, (dh_0, dc_0), grads = ours.backward(cache, dy, tuple(dstate))

    tensors = [torch.from_numpy(value.copy()).requires_grad_() for value in (x, *state)]
    ty, (th, tc) = theirs(tensors[0], (tensors[1], tensors[2]))
    loss = (ty * torch.from_numpy(dy)).sum()
    loss = loss + (th * torch.from_numpy(dstate[0])).sum() + (tc * torch.from_numpy(dstate[1])).sum()
    loss.backward()

    assert max(relative(y, ty), relative(h_n, th), relative(c_n, tc)) <= 1e-12
    for found, tensor in zip((dx, dh_0, dc_0), tensors, strict=True):
        assert relative(found, tensor.grad) <= 1e-12
    for prefix in (single.name for single in ours.singles):
        suffix = f"_l{prefix[5:]}" if "_reverse" not in prefix else f"_l{prefix[5:-8]}_reverse"
        for name, kind in (("W", "weight_ih"), ("U", "weight_hh"), ("b", "bias_ih")):
            expected = to_torch_order(named[kind + suffix].grad.numpy(), H)
            assert relative(grads[f"{prefix}.{name}"], expected) <= 1e-12


def test_the_loss_and_its_gradient_agree():
    rng = np.random.default_rng(3)
    model = lstm_np.SequenceClassifier(4, 3, 5, dtype="float64")
    x, labels = rng.standard_normal((6, 4, 4)), rng.integers(0, 5, 6)
    loss, grads = model.loss_and_gradients(x, labels)
    logits = torch.from_numpy(np.array(model.logits(x))).requires_grad_()
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-14)
    assert relative(grads["readout.b"], logits.grad.sum(dim=0)) <= 1e-13
