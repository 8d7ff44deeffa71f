"""Losses and their gradients, as pure functions of an array namespace; classes are the first axis.

Softmax cross-entropy of a classifier's logits:

    p = softmax(z),   loss = mean over samples of  -log p[label]  =  logsumexp(z) - z[label],   dz = (p - onehot) / B

For the label, p - 1 is minus the sum of the other classes' p: where the model is sure, p rounds to 1 and the difference
would keep nothing but that rounding.  The logits are shifted by their maximum first, which changes neither p nor the
loss and cannot overflow.
Source: Bridle, "Probabilistic interpretation of feedforward classification network outputs", Neurocomputing, 1990.

`cross_entropy` is the same with targets q that are smoothed, weighted or given, and the other losses are those of
numbers; `reduction` says what becomes of the elements' losses l with weights s:

    mean  sum(s l) / sum(s)        sum  sum(s l)        none  s l, each by itself; the gradient is that of their sum
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


# ---- losses with weights and reductions

REDUCTIONS = ("mean", "sum", "none")


def cross_entropy(
    xp: Namespace,
    logits: Array,
    targets: Array,
    *,
    class_weights: Array | None = None,
    sample_weights: Array | None = None,
    label_smoothing: float = 0.0,
    ignored: int | None = None,
    reduction: str = "mean",
) -> tuple[Array, Array]:
    """(loss, dlogits) of softmax cross-entropy from logits (K, ...), such as (K, B) or, for every time step, (K, T, B).

    targets          integer labels (...) in 0 ... K-1, or probabilities (K, ...), each column summing to 1
    class_weights    w (K,): what a class counts; None: 1 each
    sample_weights   s (...): what each label counts; None: 1 each
    label_smoothing  e in 0 ... 1: q = (1 - e) target + e / K
    ignored          labels of this value, any integer, count nothing, as padding does; None: there are none
    reduction        as the module says; the weights of "mean" are s, and with labels s w[label]

    The loss of a sample is the sum over classes of -w q log p; dz = p sum(w q) - w q.  loss is (...) for "none", else
    0-dimensional; dlogits (K, ...).  Where nothing counts the mean is 0 (PyTorch: nan).  Nothing here waits for a
    device, so values are not looked at: labels must be classes, or ignored.

    >>> loss, dz = lstm_np.losses.cross_entropy(np, np.zeros((2, 3)), np.array([0, 1, -1]), ignored=-1)
    >>> float(loss), dz.tolist()
    (0.6931471805599453, [[-0.25, 0.25, 0.0], [0.25, -0.25, 0.0]])

    With `class_weights`, `label_smoothing` and reductions the numbers are those of PyTorch's cross_entropy
    (ignore_index is `ignored`); smoothing is that of Szegedy et al., CVPR 2016.
    Raises ValueError for shapes that do not fit, another reduction, or a smoothing outside 0 ... 1.
    """
    K, shape = logits.shape[0], tuple(logits.shape[1:])
    _check_reduction(reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be from 0 to 1, found {label_smoothing!r}")
    given = tuple(targets.shape) == tuple(logits.shape)
    if not given:
        _check_shape("targets", targets, shape, f" or {tuple(logits.shape)}")
    elif ignored is not None:
        raise ValueError("labels are ignored, not probabilities: give those samples a weight of 0 (sample_weights)")
    if class_weights is not None:
        _check_shape("class_weights", class_weights, (K,))
    columns = (K, *(1,) * len(shape))
    dtype = xp.real(logits).dtype
    w = 1.0 if class_weights is None else class_weights.astype(dtype).reshape(columns)
    counts = xp.ones(shape, dtype=dtype)
    if sample_weights is not None:
        _check_shape("sample_weights", sample_weights, shape)
        counts = counts * sample_weights.astype(dtype)
    if given:
        q, normalizer = targets.astype(dtype), counts
    else:
        if ignored is not None:
            counts = xp.where(targets == ignored, 0.0, counts)
        q = (xp.arange(K).reshape(columns) == targets[None]).astype(dtype)
        normalizer = counts * xp.sum(w * q, axis=0)
    q = w * ((1.0 - label_smoothing) * q + label_smoothing / K)
    log_p = log_softmax(xp, logits)
    losses = -xp.sum(q * log_p, axis=0)
    dlogits = _away(xp, xp.exp(log_p), q)
    return _reduced(xp, losses, dlogits, counts, normalizer, reduction)


def _away(xp: Namespace, p: Array, q: Array) -> Array:
    """p sum(q) - q, as p (sum(q) - q) - q (1 - p): where p is nearly 1, 1 - p is the sum of the other classes' p."""
    largest = xp.arange(p.shape[0]).reshape(p.shape[0], *(1,) * (p.ndim - 1)) == xp.argmax(xp.real(p), axis=0)[None]
    others = xp.sum(xp.where(largest, 0.0, p), axis=0)
    return p * (xp.sum(q, axis=0) - q) - q * xp.where(largest, others[None], 1.0 - p)


def squared_error(
    xp: Namespace, outputs: Array, targets: Array, *, weights: Array | None = None, reduction: str = "mean"
) -> tuple[Array, Array]:
    """(loss, doutputs) of (y - t)^2, of outputs and targets of one shape; weights of that shape, None: 1 each.

    PyTorch's mse_loss.  Raises ValueError for shapes that do not fit or another reduction.

    >>> lstm_np.losses.squared_error(np, np.array([1.0, 3.0]), np.array([0.0, 0.0]))
    (np.float64(5.0), array([1., 3.]))
    """
    d = _difference(xp, outputs, targets)
    return _weighted(xp, d * d, 2.0 * d, weights, reduction)


def absolute_error(
    xp: Namespace, outputs: Array, targets: Array, *, weights: Array | None = None, reduction: str = "mean"
) -> tuple[Array, Array]:
    """(loss, doutputs) of |y - t|, otherwise as `squared_error`; the gradient is 0 where they are equal.

    PyTorch's l1_loss.

    >>> lstm_np.losses.absolute_error(np, np.array([1.0, -3.0]), np.array([0.0, 0.0]))
    (np.float64(2.0), array([ 0.5, -0.5]))
    """
    d = _difference(xp, outputs, targets)
    sign = xp.sign(xp.real(d))
    return _weighted(xp, sign * d, sign + 0.0 * d, weights, reduction)


def huber(
    xp: Namespace,
    outputs: Array,
    targets: Array,
    *,
    delta: float = 1.0,
    weights: Array | None = None,
    reduction: str = "mean",
) -> tuple[Array, Array]:
    """(loss, doutputs): d^2 / 2 of d = y - t within delta, delta (|d| - delta / 2) beyond; else as `squared_error`.

    PyTorch's huber_loss.  Raises ValueError for a delta that is not above 0 as well.
    Source: Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics, 1964.

    >>> lstm_np.losses.huber(np, np.array([0.5, 3.0]), np.array([0.0, 0.0]), reduction="sum")
    (np.float64(2.625), array([0.5, 1. ]))
    """
    if not delta > 0:
        raise ValueError(f"delta must be above 0, found {delta!r}")
    d = _difference(xp, outputs, targets)
    sign = xp.sign(xp.real(d))
    near = sign * xp.real(d) <= delta
    losses = xp.where(near, 0.5 * d * d, delta * (sign * d - 0.5 * delta))
    return _weighted(xp, losses, xp.where(near, d, delta * sign + 0.0 * d), weights, reduction)


def binary_cross_entropy(
    xp: Namespace,
    logits: Array,
    targets: Array,
    *,
    positive_weights: Array | None = None,
    weights: Array | None = None,
    reduction: str = "mean",
) -> tuple[Array, Array]:
    """(loss, dlogits) of -w t log s(z) - (1 - t) log(1 - s(z)), s the sigmoid, from logits z; else as `squared_error`.

    targets           t in 0 ... 1, of the logits' shape
    positive_weights  w, of any shape that broadcasts to the logits'; None: 1

    PyTorch's binary_cross_entropy_with_logits (pos_weight is `positive_weights`).  No logit is too large.

    >>> loss, dz = lstm_np.losses.binary_cross_entropy(np, np.array([0.0, 800.0]), np.array([1.0, 1.0]))
    >>> float(loss), dz.tolist()
    (0.34657359027997264, [-0.25, 0.0])
    """
    _check_shape("targets", targets, tuple(logits.shape))
    dtype = xp.real(logits).dtype
    targets = targets.astype(dtype)
    positive = targets if positive_weights is None else positive_weights.astype(dtype) * targets
    size = xp.where(xp.real(logits) > 0, logits, -logits)  # |z|
    small = xp.exp(-size)
    tail, up = xp.log1p(small), xp.real(logits) > 0
    # -log s(z) and -log s(-z); s(-z) and s(z): each without a difference of nearly equal numbers
    is_1, is_0 = xp.where(up, 0.0, -logits) + tail, xp.where(up, logits, 0.0) + tail
    s_0, s_1 = xp.where(up, small, 1.0) / (1.0 + small), xp.where(up, 1.0, small) / (1.0 + small)
    losses, gradient = positive * is_1 + (1.0 - targets) * is_0, (1.0 - targets) * s_1 - positive * s_0
    return _weighted(xp, losses, gradient, weights, reduction)


ERRORS = {"squared": squared_error, "absolute": absolute_error, "huber": huber}


def _difference(xp: Namespace, outputs: Array, targets: Array) -> Array:
    _check_shape("targets", targets, tuple(outputs.shape))
    return outputs - targets.astype(xp.real(outputs).dtype)


def _weighted(
    xp: Namespace, losses: Array, gradient: Array, weights: Array | None, reduction: str
) -> tuple[Array, Array]:
    """Element losses and their own gradients, weighted and reduced."""
    _check_reduction(reduction)
    counts = xp.ones(losses.shape, dtype=xp.real(losses).dtype)
    if weights is not None:
        _check_shape("weights", weights, tuple(losses.shape))
        counts = counts * weights.astype(counts.dtype)
    return _reduced(xp, losses, gradient, counts, counts, reduction)


def _reduced(
    xp: Namespace, losses: Array, gradient: Array, counts: Array, normalizer: Array, reduction: str
) -> tuple[Array, Array]:
    """Losses (...) and gradients (..., or (K, ...)) with the weights `counts` (...), reduced."""
    losses, gradient = xp.where(counts != 0, counts * losses, 0.0), counts * gradient
    if reduction == "none":
        return losses, gradient
    if reduction == "sum":
        return xp.sum(losses), gradient
    total = xp.sum(normalizer)
    total = xp.where(total != 0, total, 1.0)
    return xp.sum(losses) / total, gradient / total


def _check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"unknown reduction {reduction!r}; there are: {', '.join(REDUCTIONS)}")


def _check_shape(name: str, array: Array, shape: tuple[int, ...], more: str = "") -> None:
    if tuple(array.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}{more}, found {tuple(array.shape)}")
