"""Softmax cross-entropy from logits.

    p = softmax(z),   loss = mean over samples of  -log p[label]  =  logsumexp(z) - z[label],   dz = (p - onehot) / B

For the label, p - 1 is minus the sum of the other classes' p: where the model is sure, p rounds to 1 and the difference
would keep nothing but that rounding.  The logits are shifted by their maximum first, which changes neither p nor the
loss and cannot overflow.
Source: Bridle, "Probabilistic interpretation of feedforward classification network outputs", Neurocomputing, 1990.
"""

from __future__ import annotations

from lstm_np.arrays import Array, Namespace
from lstm_np.backends import Backend


def one_hot(xp: Namespace, labels: Array, num_classes: int) -> Array:
    """(K, B) booleans from integer labels (B,): a column is a sample."""
    return xp.arange(num_classes)[:, None] == labels[None, :]


def log_softmax(xp: Namespace, logits: Array) -> Array:
    """log softmax over the rows of logits (K, B), the same dtype; finite whatever their size."""
    shifted = logits - xp.max(xp.real(logits), axis=0)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=0))


def softmax_cross_entropy(xp: Namespace, logits: Array, labels: Array) -> tuple[Array, Array, Array]:
    """(loss, dlogits, correct) from logits (K, B) and integer labels (B,).

    loss is the mean over the batch, a 0-dimensional array; dlogits (K, B) its gradient; correct the number of samples
    whose largest logit is their label, a 0-dimensional integer array.  Nothing here waits for a device.
    """
    K, B = logits.shape
    truth = one_hot(xp, labels, K)
    log_p = log_softmax(xp, logits)
    loss = -xp.sum(xp.where(truth, log_p, 0)) / B
    others = xp.where(truth, 0, xp.exp(log_p))  # p of the wrong classes
    dlogits = (others - xp.where(truth, xp.sum(others, axis=0), 0)) / B
    correct = xp.sum(xp.argmax(xp.real(logits), axis=0) == labels)
    return loss, dlogits, correct


def softmax_twice(xp: Namespace, logits: Array, labels: Array) -> tuple[Array, Array, Array]:
    """`softmax_cross_entropy` of softmax(logits), with its true gradient: a published mistake, kept to be studied.

        p = softmax(z),   q = softmax(p),   loss = mean of -log q[label],   dp = (q - onehot) / B
        dz = p * (dp - sum over classes of p * dp)

    Arguments and results as there.  Since p is within 0 ... 1, the loss never falls below ln(1 + (K - 1) / e), and dz
    carries a factor p (1 - p), which vanishes where the model is sure, right or wrong.
    """
    p = xp.exp(log_softmax(xp, logits))
    loss, dp, correct = softmax_cross_entropy(xp, p, labels)
    return loss, p * (dp - xp.sum(p * dp, axis=0)), correct


LOSSES = {"softmax": softmax_cross_entropy, "softmax_twice": softmax_twice}


def refuse_probabilities(backend: Backend, logits: Array) -> None:
    """Raises ValueError when logits (K, B) look like probabilities: no entry negative, every column summing to 1.

    A softmax applied before this loss applies it twice: the loss can then never fall below ln(1 + (K - 1) / e), 1.461
    for ten classes, and its gradients are squashed.
    """
    xp, K = backend.xp, logits.shape[0]
    like_probabilities = xp.all(logits >= 0) & xp.all(xp.abs(xp.sum(logits, axis=0) - 1) < 1e-4)
    if backend.to_host(like_probabilities):
        raise ValueError(
            f"these logits look like probabilities (no negative entry, all {K} classes sum to 1): "
            "the loss applies the softmax itself, so pass the values before it"
        )
