"""The first ten steps of every form of every optimizer, against the formulae in Python floats and against PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lstm_np.backends import get_backend
from lstm_np.layers import Parameters
from lstm_np.optimizers import SGD, Adam, AdamW, RMSProp, clip_by_global_norm

STEPS = 10


def gradient(theta, step):
    """A gradient that depends on the parameter and on the step, of very different sizes."""
    return (0.01, 1.0, 300.0)[step % 3] * math.sin(3 * theta + step) + 1e-6


def sgd(g, theta, t, s, lr=0.1, momentum=0.0, nesterov=False):
    s["v"] = momentum * s.get("v", 0.0) + g
    return theta - lr * (g + momentum * s["v"] if nesterov else s["v"])


def adam_moments(g, s, b1, b2):
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
    return s["m"], s["v"]


def adam_paper(g, theta, t, s, lr=1e-3, b1=0.9, b2=0.999, eps=1e-8):
    m, v = adam_moments(g, s, b1, b2)
    return theta - lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps)


def adam_hat(g, theta, t, s, lr=1e-3, b1=0.9, b2=0.999, eps=1e-8):
    m, v = adam_moments(g, s, b1, b2)
    return theta - lr * math.sqrt(1 - b2**t) / (1 - b1**t) * m / (math.sqrt(v) + eps)


def rmsprop_torch(g, theta, t, s, lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.0):
    s["ms"] = alpha * s.get("ms", 0.0) + (1 - alpha) * g * g
    s["buf"] = momentum * s.get("buf", 0.0) + g / (math.sqrt(s["ms"]) + eps)
    return theta - lr * s["buf"]


def rmsprop_inside(g, theta, t, s, start, lr, alpha, eps, momentum=0.0):
    s["ms"] = alpha * s.get("ms", start) + (1 - alpha) * g * g
    s["buf"] = momentum * s.get("buf", 0.0) + lr * g / math.sqrt(s["ms"] + eps)
    return theta - s["buf"]


def decayed(rule):
    """A rule with L2 weight decay: the gradient of w/2 theta^2 is added."""
    return lambda g, theta, t, s, decay, **arguments: rule(g + decay * theta, theta, t, s, **arguments)


def adamw(g, theta, t, s, lr, decay, **arguments):
    return adam_paper(g, theta - lr * decay * theta, t, s, lr=lr, **arguments)


def adamw_hat(g, theta, t, s, lr, decay, **arguments):
    return adam_hat(g, theta - lr * decay * theta, t, s, lr=lr, **arguments)


MOMENTUM, NESTEROV, ADAMW = (
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3},
)
TF1 = {"lr": 1e-3, "alpha": 0.9, "eps": 1e-10}
KERAS = {"lr": 1e-3, "alpha": 0.9, "eps": 1e-7}
FORMS = {
    "sgd": (SGD, {"lr": 0.1}, sgd, {}),
    "sgd momentum": (SGD, {"lr": 0.1, "momentum": 0.9}, sgd, {"momentum": 0.9}),
    "sgd nesterov": (
        SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, sgd, {"momentum": 0.9, "nesterov": True},
    ),
    "adam paper": (Adam, {}, adam_paper, {}),
    "adam paper, large eps": (Adam, {"betas": (0.5, 0.8), "eps": 0.1}, adam_paper, {"b1": 0.5, "b2": 0.8, "eps": 0.1}),
    "adam hat, TensorFlow 1": (Adam, {"form": "hat"}, adam_hat, {}),
    "adam hat, Keras": (Adam, {"form": "hat", "eps": 1e-7}, adam_hat, {"eps": 1e-7}),
    "rmsprop torch": (RMSProp, {}, rmsprop_torch, {}),
    "rmsprop torch, momentum": (
        RMSProp, {"momentum": 0.5, "alpha": 0.9}, rmsprop_torch, {"momentum": 0.5, "alpha": 0.9},
    ),
    "rmsprop keras": (RMSProp, {**KERAS, "form": "keras"}, rmsprop_inside, {**KERAS, "start": 0.0}),
    "rmsprop tf1": (RMSProp, {**TF1, "form": "tf1"}, rmsprop_inside, {**TF1, "start": 1.0}),
    "rmsprop tf1, momentum": (
        RMSProp, {**TF1, "momentum": 0.5, "form": "tf1"}, rmsprop_inside, {**TF1, "start": 1.0, "momentum": 0.5},
    ),
    "sgd, decay": (SGD, {"lr": 0.1, "weight_decay": 0.05}, decayed(sgd), {"decay": 0.05}),
    "sgd momentum, decay": (SGD, {**MOMENTUM, "weight_decay": 0.05}, decayed(sgd), {**MOMENTUM, "decay": 0.05}),
    "sgd nesterov, decay": (SGD, {**NESTEROV, "weight_decay": 0.05}, decayed(sgd), {**NESTEROV, "decay": 0.05}),
    "adam, decay": (
        Adam, {"lr": 1e-2, "weight_decay": 0.05}, decayed(adam_paper), {"lr": 1e-2, "decay": 0.05},
    ),
    "rmsprop, decay": (
        RMSProp, {"momentum": 0.5, "weight_decay": 0.05}, decayed(rmsprop_torch), {"momentum": 0.5, "decay": 0.05},
    ),
    "adamw": (AdamW, {"lr": 1e-2}, adamw, {"lr": 1e-2, "decay": 0.01}),
    "adamw, all said": (AdamW, ADAMW, adamw, {"lr": 1e-2, "b1": 0.8, "b2": 0.95, "eps": 1e-6, "decay": 0.3}),
    "adamw hat": (
        AdamW, {"lr": 1e-2, "form": "hat", "weight_decay": 0.004}, adamw_hat, {"lr": 1e-2, "decay": 0.004},
    ),
}  # fmt: skip
THETA = [0.3, -1.7, 2.0, 0.04]

# theta after ten steps of torch.optim (PyTorch 2.13.0, float64) on the gradients of `gradient` at the first theta
AFTER_TEN = {
    "sgd, decay": [-10.545464164563707, -4.589472997207398, -26.799602270716008, -26.35478246316645],
    "sgd momentum, decay": [-30.539837734366927, -0.2092464487369685, -111.7800476554759, -99.142558313005],
    "sgd nesterov, decay": [-37.58250851640891, -3.635731389280436, -125.38150662976047, -112.42068566101034],
    "adam, decay": [0.27125939938045446, -1.6825492488731584, 1.9687539443755842, 0.009117943674637141],
    "adamw": [0.27099980995552736, -1.6813213686391304, 1.9668211426412041, 0.009099651553071627],
    "adamw, all said": [0.2637148452322317, -1.635689971061074, 1.912007749369343, 0.01015097842716107],
    "rmsprop, decay": [-0.06312344445381599, -1.6644510950097304, 1.6392445959352313, -0.32194892467420017],
}


def parameters():
    return Parameters.from_host(get_backend("numpy"), {"a": np.array(THETA[:1]), "b": np.array(THETA[1:])}, "float64")


@pytest.mark.parametrize("name", list(FORMS))
def test_ten_steps_by_hand(name):
    make, arguments, rule, hand_arguments = FORMS[name]
    params = parameters()
    optimizer = make(params, **arguments)
    theta, slots = list(THETA), [{} for _ in THETA]
    for t in range(1, STEPS + 1):
        gradients = [gradient(value, t) for value in theta]
        optimizer.step({"a": np.array(gradients[:1]), "b": np.array(gradients[1:])})
        theta = [
            rule(g, value, t, slot, **hand_arguments) for g, value, slot in zip(gradients, theta, slots, strict=True)
        ]
        np.testing.assert_allclose(params.flat, theta, rtol=1e-13, atol=0, err_msg=f"step {t}")


@pytest.mark.parametrize("name", list(AFTER_TEN))
def test_ten_steps_end_where_pytorch_ended(name):
    make, arguments, _, _ = FORMS[name]
    params = parameters()
    optimizer = make(params, **arguments)
    for t in range(1, STEPS + 1):
        gradients = [gradient(value, t) for value in THETA]
        optimizer.step({"a": np.array(gradients[:1]), "b": np.array(gradients[1:])})
    np.testing.assert_allclose(params.flat, AFTER_TEN[name], rtol=1e-13, atol=0)


def test_weight_decay_leaves_the_gradients_as_they_are():
    for make in (lambda p: Adam(p, weight_decay=0.1), lambda p: AdamW(p, weight_decay=0.1)):
        params = parameters()
        gradients = params.like(np.array([0.5, -1.0, 2.0, 0.1]))
        make(params).step(gradients)
        assert gradients.flat.tolist() == [0.5, -1.0, 2.0, 0.1]


IN_TORCH = {
    "sgd": lambda torch, p: torch.optim.SGD(p, lr=0.1),
    "sgd momentum": lambda torch, p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "sgd nesterov": lambda torch, p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam paper": lambda torch, p: torch.optim.Adam(p, lr=1e-3),
    "adam paper, large eps": lambda torch, p: torch.optim.Adam(p, lr=1e-3, betas=(0.5, 0.8), eps=0.1),
    "rmsprop torch": lambda torch, p: torch.optim.RMSprop(p, lr=1e-2),
    "rmsprop torch, momentum": lambda torch, p: torch.optim.RMSprop(p, lr=1e-2, alpha=0.9, momentum=0.5),
    "sgd, decay": lambda torch, p: torch.optim.SGD(p, lr=0.1, weight_decay=0.05),
    "sgd momentum, decay": lambda torch, p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05),
    "sgd nesterov, decay": lambda torch, p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
    "adam, decay": lambda torch, p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.05),
    "adamw": lambda torch, p: torch.optim.AdamW(p, lr=1e-2),
    "adamw, all said": lambda torch, p: torch.optim.AdamW(p, lr=1e-2, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3),
    "rmsprop, decay": lambda torch, p: torch.optim.RMSprop(p, lr=1e-2, momentum=0.5, weight_decay=0.05),
}


@pytest.mark.parametrize("name", list(IN_TORCH))
def test_ten_steps_of_pytorch(name):
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "lstm_np[peers]"')
    make, arguments, _, _ = FORMS[name]
    params = parameters()
    optimizer = make(params, **arguments)
    theirs = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
    their_optimizer = IN_TORCH[name](torch, [theirs])
    for t in range(1, STEPS + 1):
        gradients = [gradient(value, t) for value in theirs.tolist()]
        optimizer.step({"a": np.array(gradients[:1]), "b": np.array(gradients[1:])})
        theirs.grad = torch.tensor(gradients, dtype=torch.float64)
        their_optimizer.step()
        np.testing.assert_allclose(params.flat, theirs.detach().numpy(), rtol=1e-13, atol=0, err_msg=f"step {t}")


def first_step(make, g, **arguments):
    params = Parameters.from_host(get_backend("numpy"), {"a": np.zeros(1)}, "float64")
    make(params, **arguments).step({"a": np.array([g])})
    return -float(params.flat[0]) / arguments["lr"]


def test_three_rmsprops_are_three_trainings():
    """The first step for a gradient of 0.01, in units of the learning rate."""
    assert first_step(RMSProp, 0.01, **TF1, form="tf1") == pytest.approx(0.0105, abs=5e-5)
    assert first_step(RMSProp, 0.01, **KERAS, form="keras") == pytest.approx(3.15, abs=5e-3)
    assert first_step(RMSProp, 0.01, lr=1e-3) == pytest.approx(10.0, abs=1e-3)


def test_the_two_adams_differ_by_an_epsilon_that_fades():
    """eps_hat acts like eps / sqrt(1 - b2^t): 3.16e-7 for 1e-8 at the first step."""
    hat = first_step(Adam, 1e-7, lr=1.0, form="hat")
    assert hat == pytest.approx(1e-7 / (1e-7 + 1e-8 / math.sqrt(1e-3)), rel=1e-9)
    assert first_step(Adam, 1e-7, lr=1.0) == pytest.approx(1e-7 / (1e-7 + 1e-8), rel=1e-9)


def test_clipping_by_the_norm_of_all_gradients():
    grads = parameters()
    grads["a"], grads["b"] = np.array([3.0]), np.array([0.0, 4.0, 0.0])
    assert float(clip_by_global_norm(grads, 10.0)) == 5.0
    assert grads.flat.tolist() == [3.0, 0.0, 4.0, 0.0]
    assert float(clip_by_global_norm(grads, 0.5)) == 5.0
    np.testing.assert_allclose(grads.flat, [0.3, 0.0, 0.4, 0.0], rtol=1e-15)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (SGD, {"lr": -1.0}, "lr must be at least 0, found -1.0"),
        (SGD, {"lr": float("nan")}, "lr must be at least 0, found nan"),
        (SGD, {"momentum": 1.0}, "momentum must be at least 0 and below 1, found 1.0"),
        (SGD, {"nesterov": True}, "nesterov needs momentum > 0"),
        (Adam, {"betas": (0.9, 1.0)}, r"betas\[1\] must be at least 0 and below 1, found 1.0"),
        (Adam, {"form": "keras"}, "unknown form of Adam 'keras'; there are: paper, hat"),
        (RMSProp, {"form": "hat"}, "unknown form of RMSProp 'hat'; there are: torch, keras, tf1"),
        (AdamW, {"weight_decay": -0.1}, "weight_decay must be at least 0, found -0.1"),
        (SGD, {"weight_decay": "0.1"}, "weight_decay must be a number, found '0.1'"),
        (RMSProp, {"eps": float("inf")}, "eps must be at least 0, found inf"),
    ],
)
def test_bad_hyper_parameters(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(parameters(), **arguments)


def test_bad_gradients_and_parameters():
    with pytest.raises(TypeError, match="an optimizer takes a layer's or model's params, found list"):
        SGD([1.0])
    optimizer = SGD(parameters(), lr=0.1)
    with pytest.raises(ValueError, match="gradients must be named a, b; found b, a"):
        optimizer.step({"b": np.zeros(3), "a": np.zeros(1)})
