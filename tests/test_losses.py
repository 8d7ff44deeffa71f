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
from lstm_np.losses import log_softmax, refuse_probabilities, softmax_cross_entropy

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
