"""A dense (fully connected) layer: y = W x + b, a column is a sample."""

from __future__ import annotations

from collections.abc import Mapping

from lstm_np.arrays import Array


def forward(params: Mapping[str, Array], x: Array) -> Array:
    """y (K, N) = W (K, D) x (D, N) + b (K,)."""
    return params["W"] @ x + params["b"][:, None]


def backward(params: Mapping[str, Array], x: Array, dy: Array) -> tuple[Array, dict[str, Array]]:
    """(dx (D, N), {"W": dW, "b": db}) from dy (K, N) and the x of the forward call."""
    return params["W"].T @ dy, {"W": dy @ x.T, "b": dy.sum(axis=1)}
