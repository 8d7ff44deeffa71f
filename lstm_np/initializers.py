"""Initial weights, as the systems that people know draw them.  Drawn on the host, so every backend starts alike.

Shapes are ours, W (4H, D) and U (4H, H) for an LSTM; the formulae speak of fan-in and fan-out as those systems do.

    keras   W: Glorot uniform over the whole (D, 4H); U: orthogonal, the whole (H, 4H); b: 0, forget block 1
    torch   W, U, b: uniform(-1/sqrt(H), 1/sqrt(H))

Sources: Glorot and Bengio, AISTATS 2010; Saxe, McClelland and Ganguli, ICLR 2014 (orthogonal); the forget bias of 1:
Jozefowicz, Zaremba and Sutskever, ICML 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np

from lstm_np import streams

Arrays = dict[str, np.ndarray]
Draw = Callable[[np.random.Generator, int, int, int], Arrays]


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, int], fan_in: int, fan_out: int) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), float64."""
    bound = np.sqrt(6.0 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, shape)


def orthogonal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A matrix whose rows or columns (the shorter side) are orthonormal: Q of a normal matrix, signs fixed by R."""
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return q if rows >= columns else q.T


def _keras(rng: np.random.Generator, rows: int, D: int, H: int) -> Arrays:
    return {
        "W": glorot_uniform(rng, (rows, D), D, rows),
        "U": orthogonal(rng, (rows, H)),
        "b": np.zeros(rows),
    }


def _torch(rng: np.random.Generator, rows: int, D: int, H: int) -> Arrays:
    bound = 1.0 / np.sqrt(H)
    return {
        "W": rng.uniform(-bound, bound, (rows, D)),
        "U": rng.uniform(-bound, bound, (rows, H)),
        "b": rng.uniform(-bound, bound, rows),
    }


RECURRENT: dict[str, Draw] = {"keras": _keras, "torch": _torch}
FORGET_BIAS: dict[str, float | None] = {"keras": 1.0, "torch": None}  # None: drawn like the other biases


def recurrent(
    name: str,
    cell: ModuleType,
    D: int,
    H: int,
    bias: bool,
    forget_bias: float | None,
    seed: int,
    purpose: str,
) -> Arrays:
    """W, U and (with a bias) b of one layer and direction, float64, keyed by (seed, purpose).

    `forget_bias` replaces the value that the named system gives the forget gate's bias.
    Raises ValueError for an unknown name.
    """
    if name not in RECURRENT:
        raise ValueError(f"unknown initializer {name!r}; there are: {', '.join(RECURRENT)}")
    drawn = RECURRENT[name](streams.generator(seed, "init", purpose), len(cell.GATES) * H, D, H)
    if not bias:
        del drawn["b"]
    elif "f" in cell.GATES:
        value = FORGET_BIAS[name] if forget_bias is None else forget_bias
        if value is not None:
            block = cell.GATES.index("f")
            drawn["b"][block * H : (block + 1) * H] = value
    return drawn


def _dense_keras(rng: np.random.Generator, D: int, K: int) -> Arrays:
    return {"W": glorot_uniform(rng, (K, D), D, K), "b": np.zeros(K)}


def _dense_torch(rng: np.random.Generator, D: int, K: int) -> Arrays:
    bound = 1.0 / np.sqrt(D)
    return {"W": rng.uniform(-bound, bound, (K, D)), "b": rng.uniform(-bound, bound, K)}


DENSE: dict[str, Callable[[np.random.Generator, int, int], Arrays]] = {"keras": _dense_keras, "torch": _dense_torch}


def dense(name: str, D: int, K: int, seed: int, purpose: str) -> Arrays:
    """W (K, D) and b (K,) of a dense layer, float64, keyed by (seed, purpose).

    Raises ValueError for an unknown name.
    """
    if name not in DENSE:
        raise ValueError(f"unknown initializer {name!r}; there are: {', '.join(DENSE)}")
    return DENSE[name](streams.generator(seed, "init", purpose), D, K)
