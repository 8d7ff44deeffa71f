"""Softmax cross-entropy: values, gradient, extremes, and probabilities passed as logits."""

from __future__ import annotations

import decimal
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_np
from lstm_np.losses import (
    absolute_error,
    binary_cross_entropy,
    cross_entropy,
    huber,
    log_softmax,
    refuse_probabilities,
    softmax_cross_entropy,
    squared_error,
)

pytestmark = pytest.mark.quick


@settings(max_examples=50, deadline=None)
@given(K=st.integers(1, 6), B=st.integers(1, 5), seed=st.integers(0, 10**6), size=st.sampled_from([1e-3, 1.0, 30.0]))
def test_values_are_the_definition_and_the_gradient_its_derivative(K, B, seed, size):
    rng = np.random.default_rng(seed)
    z, labels = size * rng.standard_normal((K, B)), rng.integers(0, K, B)
    loss, dz, correct = softmax_cross_entropy(np, z, labels)
    p = [[math.exp(z[k, n] - z[:, n].max()) for k in range(K)] for n in range(B)]
    expected = -sum(math.log(p[n][labels[n]] / sum(p[n])) for n in range(B)) / B
    assert loss == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert correct == (z.argmax(axis=0) == labels).sum()
    assert dz == pytest.approx(exact_gradient(z, labels), rel=1e-12, abs=0)


def exact_gradient(z, labels):
    """(p - onehot) / B from 200 decimal digits: where p is nearly 1, float64 cannot tell what p - 1 is."""
    gradient = np.empty(z.shape)
    with decimal.localcontext(prec=200):
        for n, label in enumerate(labels):
            e = [Decimal(float(value)).exp() for value in z[:, n]]
            for k, value in enumerate(e):
                gradient[k, n] = float((value / sum(e) - (k == label)) / len(labels))
    return gradient


def test_the_gradient_is_the_derivative_of_the_loss():
    rng = np.random.default_rng(5)
    z, labels = rng.standard_normal((4, 3)), rng.integers(0, 4, 3)
    _, dz, _ = softmax_cross_entropy(np, z, labels)
    for where in np.ndindex(z.shape):
        moved = z.astype(complex)
        moved[where] += 1e-30j
        assert dz[where] == pytest.approx(
            softmax_cross_entropy(np, moved, labels)[0].imag / 1e-30, rel=1e-13, abs=1e-17
        )


def test_the_gradient_of_a_sure_answer_is_not_rounding():
    z = np.array([[40.0], [0.0], [-3.0]])
    for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-14)):
        _, dz, _ = softmax_cross_entropy(np, z.astype(dtype), np.array([0]))
        assert dz == pytest.approx(exact_gradient(z, [0]), rel=tolerance, abs=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_logit_is_too_large(dtype):
    z = np.array([[1e30, -1e30, 0], [-1e30, 1e4, 0]], dtype)
    with np.errstate(all="raise", under="ignore"):
        loss, dz, _ = softmax_cross_entropy(np, z, np.array([0, 1, 0]))
    assert loss == pytest.approx(math.log(2) / 3)
    assert np.isfinite(dz).all()
    assert dz.dtype == dtype
    assert log_softmax(np, z).dtype == dtype


def test_probabilities_are_refused_as_logits_when_asked():
    numpy = lstm_np.get_backend("numpy")
    z = np.random.default_rng(0).standard_normal((10, 4))
    refuse_probabilities(numpy, z)
    refuse_probabilities(numpy, np.abs(z))
    with pytest.raises(ValueError, match=r"look like probabilities .* all 10 classes sum to 1"):
        refuse_probabilities(numpy, np.exp(log_softmax(np, z)))


def test_the_model_checks_its_logits_when_asked():
    model = lstm_np.SequenceClassifier(3, 2, 4)
    model.params["readout.W"] = np.zeros((4, 2), np.float32)
    x, labels = np.ones((2, 3, 3)), np.array([0, 1])
    model.params["readout.b"] = np.full(4, 0.25, np.float32)
    assert math.isfinite(model.loss_and_gradients(x, labels)[0])
    with pytest.raises(ValueError, match="look like probabilities"):
        model.loss_and_gradients(x, labels, check_logits=True)


# ---- losses with weights and reductions

K, SHAPE = 4, (3, 5)
CROSS_ENTROPIES = {
    "plain": {},
    "weights": {"class_weights": True},
    "smoothed": {"label_smoothing": 0.1},
    "ignored": {"ignored": -100},
    "soft": {"soft": True},
    "soft, weights, smoothed": {"soft": True, "class_weights": True, "label_smoothing": 0.2},
    "all": {"class_weights": True, "label_smoothing": 0.3, "ignored": 2},
    "samples": {"sample_weights": True, "class_weights": True, "ignored": -1},
}
REDUCTIONS = ("mean", "sum", "none")


def cross_entropy_case(name):
    rng = np.random.default_rng(7)
    z, labels = 3 * rng.standard_normal((K, *SHAPE)), rng.integers(0, K, SHAPE)
    settings = dict(CROSS_ENTROPIES[name])
    if settings.pop("soft", False):
        labels = rng.dirichlet(np.ones(K), SHAPE).transpose(2, 0, 1)
    if "ignored" in settings and settings["ignored"] < 0:
        labels = np.where(rng.random(SHAPE) < 0.3, settings["ignored"], labels)
    for weights, shape in (("class_weights", (K,)), ("sample_weights", SHAPE)):
        if weights in settings:
            settings[weights] = rng.uniform(0.2, 3.0, shape)
    return z, labels, settings


ELEMENTWISE = {
    "squared": (squared_error, {}),
    "absolute": (absolute_error, {}),
    "huber": (huber, {"delta": 0.7}),
    "binary": (binary_cross_entropy, {}),
    "binary, positive weights": (binary_cross_entropy, {"positive_weights": np.array([0.3, 1.0, 2.0, 4.0, 0.1])}),
}


def elementwise_case(name, weighted):
    rng = np.random.default_rng(8)
    y = 3 * rng.standard_normal(SHAPE)
    targets = rng.random(SHAPE) if "binary" in name else rng.standard_normal(SHAPE)
    loss, settings = ELEMENTWISE[name]
    return loss, y, targets, {**settings, **({"weights": rng.uniform(0.2, 3.0, SHAPE)} if weighted else {})}


def check_by_complex_steps(function, z):
    """The gradient that `function` gives is the derivative of the sum of its losses, to rounding."""
    _, gradient = function(z)
    assert gradient.shape == z.shape
    assert gradient.dtype == z.dtype
    for where in np.ndindex(z.shape):
        moved = z.astype(complex)
        moved[where] += 1e-30j
        exact = np.sum(function(moved)[0]).imag / 1e-30
        assert gradient[where] == pytest.approx(exact, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", list(CROSS_ENTROPIES))
def test_the_gradient_of_a_cross_entropy(name, reduction):
    z, labels, settings = cross_entropy_case(name)
    check_by_complex_steps(lambda z: cross_entropy(np, z, labels, reduction=reduction, **settings), z)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", list(ELEMENTWISE))
def test_the_gradient_of_an_elementwise_loss(name, weighted, reduction):
    loss, y, targets, settings = elementwise_case(name, weighted)
    check_by_complex_steps(lambda y: loss(np, y, targets, reduction=reduction, **settings), y)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", [name for name in CROSS_ENTROPIES if name != "samples"])
def test_cross_entropies_are_pytorchs(name, reduction):
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "lstm_np[peers]"')
    z, labels, settings = cross_entropy_case(name)
    theirs = torch.tensor(z[None], requires_grad=True)  # (1, K, ...)
    weights = settings.get("class_weights")
    expected = torch.nn.functional.cross_entropy(
        theirs,
        torch.tensor(labels[None]),
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=settings.get("ignored", -100),
        label_smoothing=settings.get("label_smoothing", 0.0),
        reduction=reduction,
    )
    expected.sum().backward()
    loss, dz = cross_entropy(np, z, labels, reduction=reduction, **settings)
    np.testing.assert_allclose(loss, np.squeeze(expected.detach().numpy()), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(dz, theirs.grad.numpy()[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", list(ELEMENTWISE))
def test_elementwise_losses_are_pytorchs(name, reduction):
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "lstm_np[peers]"')
    loss, y, targets, settings = elementwise_case(name, weighted=False)
    functions = torch.nn.functional
    function, own = {
        "squared": (functions.mse_loss, {}),
        "absolute": (functions.l1_loss, {}),
        "huber": (functions.huber_loss, {"delta": 0.7}),
        "binary": (functions.binary_cross_entropy_with_logits, {}),
        "binary, positive weights": (
            functions.binary_cross_entropy_with_logits,
            {"pos_weight": torch.tensor(settings.get("positive_weights", np.ones(1)))},
        ),
    }[name]
    theirs = torch.tensor(y, requires_grad=True)
    expected = function(theirs, torch.tensor(targets), reduction=reduction, **own)
    expected.sum().backward()
    found, gradient = loss(np, y, targets, reduction=reduction, **settings)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_values_by_hand():
    z = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 0.25]])
    w = [1.0, 3.0]
    found, _ = cross_entropy(np, z, np.array([0, 1, 9]), class_weights=np.array(w), label_smoothing=0.2, ignored=9)
    right, wrong = [math.log1p(math.exp(-1)), math.log1p(math.exp(-5))], [math.log1p(math.e), math.log1p(math.exp(5))]
    first = 0.9 * w[0] * right[0] + 0.1 * w[1] * wrong[0]
    second = 0.9 * w[1] * right[1] + 0.1 * w[0] * wrong[1]
    assert found == pytest.approx((first + second) / (w[0] + w[1]), rel=1e-14)
    y, targets = np.array([0.3, -2.0, 4.0]), np.array([1.0, 0.0, 0.25])  # differences -0.7, -2 and 3.75
    binary = math.log1p(math.exp(-0.3)) + math.log1p(math.exp(-2)) + (0.75 * 4 + math.log1p(math.exp(-4)))
    expected = [(0.49 + 4 + 3.75**2) / 3, (0.7 + 2 + 3.75) / 3, (0.245 + 1.5 + 3.25) / 3, binary / 3]
    found = [float(loss(np, y, targets)[0]) for loss in (squared_error, absolute_error, huber, binary_cross_entropy)]
    assert found == pytest.approx(expected, rel=1e-14)


def test_a_weight_of_two_is_a_sample_twice():
    z, labels, _ = cross_entropy_case("plain")
    z, labels, weights = z[:, 0], labels[0], np.array([2.0, 1.0, 0.0, 1.0, 1.0])
    class_weights = np.array([0.5, 1.0, 2.0, 3.0])
    rows = [0, 0, 1, 3, 4]
    loss, dz = cross_entropy(np, z, labels, sample_weights=weights, class_weights=class_weights)
    twice, each = cross_entropy(np, z[:, rows], labels[rows], class_weights=class_weights)
    assert loss == pytest.approx(twice, rel=1e-14)
    np.testing.assert_allclose(dz[:, 0], each[:, 0] + each[:, 1], rtol=1e-14)
    assert not dz[:, 2].any()


def test_the_plain_one_is_the_loss_of_a_classifier():
    z, labels, _ = cross_entropy_case("plain")
    loss, dz = cross_entropy(np, z[:, 0], labels[0])
    expected, gradient, _ = softmax_cross_entropy(np, z[:, 0], labels[0])
    assert loss == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(dz, gradient, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extremes_and_dtypes(dtype):
    z = np.array([[1e30, 40.0, 0.0], [-1e30, 0.0, 0.0]], dtype)
    with np.errstate(all="raise", under="ignore"):
        loss, dz = cross_entropy(np, z, np.array([0, 0, 1]), class_weights=np.array([1.0, 2.0]))
        assert loss.dtype == dz.dtype == dtype
        assert dz[:, 1] == pytest.approx([-math.exp(-40) / 4, math.exp(-40) / 4], rel=1e-6, abs=0)  # not rounding
        y = np.array([1e20, -1e20, 0.0, 90.0], dtype)
        loss, dy = binary_cross_entropy(np, y, np.array([1.0, 0.0, 1.0, 1.0]))
        assert loss == pytest.approx(math.log(2) / 4, rel=1e-6)
        assert dy[3] == pytest.approx(-math.exp(-90) / 4, rel=1e-5, abs=0)
        for function in (squared_error, absolute_error, huber):
            loss, gradient = function(np, np.ones(3, dtype), np.zeros(3), weights=np.ones(3))
            assert loss.dtype == gradient.dtype == dtype


def test_nothing_that_counts_is_no_loss():
    loss, dz = cross_entropy(np, np.ones((3, 2)), np.array([-1, -1]), ignored=-1)
    assert (loss, dz.any()) == (0.0, False)
    loss, _ = squared_error(np, np.ones(2), np.zeros(2), weights=np.zeros(2))
    assert loss == 0.0


@pytest.mark.parametrize(
    ("targets", "settings", "message"),
    [
        (np.ones(3, int), {}, r"targets must have shape \(2,\) or \(3, 2\), found \(3,\)"),
        (np.ones(2, int), {"reduction": "max"}, "unknown reduction 'max'; there are: mean, sum, none"),
        (np.ones(2, int), {"label_smoothing": 2}, "label_smoothing must be from 0 to 1, found 2"),
        (np.ones(2, int), {"class_weights": np.ones(2)}, r"class_weights must have shape \(3,\), found \(2,\)"),
        (np.ones(2, int), {"sample_weights": np.ones(3)}, r"sample_weights must have shape \(2,\), found \(3,\)"),
        (np.ones((3, 2)), {"ignored": 0}, "labels are ignored, not probabilities"),
    ],
)
def test_a_cross_entropy_of_what_does_not_fit(targets, settings, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(np, np.ones((3, 2)), targets, **settings)


@pytest.mark.parametrize("loss", [squared_error, absolute_error, huber, binary_cross_entropy])
def test_elementwise_losses_of_what_does_not_fit(loss):
    with pytest.raises(ValueError, match=r"targets must have shape \(3, 1\), found \(3,\)"):
        loss(np, np.ones((3, 1)), np.ones(3))
    with pytest.raises(ValueError, match=r"weights must have shape \(3,\), found \(2,\)"):
        loss(np, np.ones(3), np.ones(3), weights=np.ones(2))
    with pytest.raises(ValueError, match="unknown reduction 'max'; there are: mean, sum, none"):
        loss(np, np.ones(3), np.ones(3), reduction="max")


def test_a_delta_that_is_none():
    with pytest.raises(ValueError, match=r"delta must be above 0, found 0\.0"):
        huber(np, np.ones(3), np.ones(3), delta=0.0)
