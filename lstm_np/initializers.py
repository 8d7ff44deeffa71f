"""Initial weights as in PyTorch, Keras and TensorFlow 1.  Drawn on the host, so every backend starts alike.

Shapes are ours, W (4H, D) and U (4H, H) for an LSTM; the formulae speak of fan-in and fan-out as those systems do.
Glorot(n, m) is uniform in +-sqrt(6 / (n + m)).

Recurrent layers::

    keras   W: Glorot(D, 4H) over the whole; U: orthogonal, the whole (H, 4H); b: 0, forget block 1
    torch   W, U, b: uniform in +-1/sqrt(H), every bias vector drawn
    tf1     W and U: one kernel [x; h], Glorot(D + H, 4H); b: 0, forget block 1
            GRU: two kernels, Glorot(D + H, 2H) for r and z and Glorot(D + H, H) for n; b: 1 for r and z, 0 for n

A cell's own parameters, (H,): biases as b; others with torch as W, with keras and tf1 Glorot(H, H).

Dense layers, W (K, D)::

    keras, tf1         W: Glorot(D, K); b: 0
    torch              W, b: uniform in +-1/sqrt(D)
    normal             W, b: N(0, 1)
    truncated_normal   W: N(0, 0.1^2), drawn again where it is beyond two standard deviations; b: 0
    small_truncated_normal   the same with 0.01

Sources: Glorot and Bengio, AISTATS 2010; Saxe, McClelland and Ganguli, ICLR 2014 (orthogonal); the forget bias of 1:
Jozefowicz, Zaremba and Sutskever, ICML 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from lstm_np import streams
from lstm_np.cells import Cell

Arrays = dict[str, np.ndarray]


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), float64."""
    bound = np.sqrt(6.0 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, shape)


def orthogonal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A matrix whose rows or columns (the shorter side) are orthonormal: Q of a normal matrix, signs fixed by R."""
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return q if rows >= columns else q.T


def truncated_normal(rng: np.random.Generator, shape: tuple[int, int], stddev: float) -> np.ndarray:
    """N(0, stddev^2), each value drawn again until it lies within two `stddev`: its own deviation is 0.880 `stddev`."""
    drawn = rng.standard_normal(shape)
    while (beyond := np.abs(drawn) > 2).any():
        drawn[beyond] = rng.standard_normal(np.count_nonzero(beyond))
    return drawn * stddev


def _keras(rng: np.random.Generator, cell: Cell, D: int, H: int) -> Arrays:
    rows = len(cell.gates) * H
    return {
        "W": glorot_uniform(rng, (rows, D), D, rows),
        "U": orthogonal(rng, (rows, H)),
        "b": np.zeros(rows),
        "b_h": np.zeros(rows),
    }


def _torch(rng: np.random.Generator, cell: Cell, D: int, H: int) -> Arrays:
    rows, bound = len(cell.gates) * H, 1.0 / np.sqrt(H)
    shapes: dict[str, tuple[int, ...]] = {"W": (rows, D), "U": (rows, H), "b": (rows,), "b_h": (rows,)}
    return {name: rng.uniform(-bound, bound, shape) for name, shape in shapes.items()}


def _tf1(rng: np.random.Generator, cell: Cell, D: int, H: int) -> Arrays:
    gates = len(cell.gates)
    own = len(cell.products)  # the last gates, each a kernel by itself
    heights = ((gates - own) * H, *[H] * own)
    kernel = np.concatenate([glorot_uniform(rng, (height, D + H), D + H, height) for height in heights])
    b = np.zeros(gates * H)
    if own:
        b[: (gates - own) * H] = 1.0
    return {"W": kernel[:, :D], "U": kernel[:, D:], "b": b, "b_h": np.zeros(gates * H)}


RECURRENT: dict[str, Callable[[np.random.Generator, Cell, int, int], Arrays]] = {
    "keras": _keras,
    "torch": _torch,
    "tf1": _tf1,
}


def _own_glorot(rng: np.random.Generator, size: int, H: int, bias: bool) -> np.ndarray:
    return np.zeros(size) if bias else glorot_uniform(rng, (size,), H, H)


def _own_torch(rng: np.random.Generator, size: int, H: int, bias: bool) -> np.ndarray:
    return rng.uniform(-1.0 / np.sqrt(H), 1.0 / np.sqrt(H), size)


OWN: dict[str, Callable[[np.random.Generator, int, int, bool], np.ndarray]] = {
    "keras": _own_glorot,
    "torch": _own_torch,
    "tf1": _own_glorot,
}
FORGET_BIAS: dict[str, float | None] = {"keras": 1.0, "torch": None, "tf1": 1.0}  # None: drawn like the other biases


def recurrent(
    name: str,
    cell: Cell,
    D: int,
    H: int,
    *,
    bias: bool | str,
    forget_bias: float | None,
    forget_bias_at: str,
    seed: int,
    purpose: str,
) -> Arrays:
    """Weights of one layer and direction, float64, keyed by (seed, purpose).

    W, U, the cell's own parameters and, by `bias`: True b; "double" b and b_h, which holds the biases of the cell's own
    products; False no bias, the cell's own included.  `forget_bias` replaces the value that the named system gives the
    forget gate's bias; with `forget_bias_at` "run" it is not stored at all, since the layer adds it at every step.
    Raises ValueError for an unknown name, or a forget bias for a cell without a forget gate.
    """
    _check_name(name, RECURRENT)
    rng = streams.generator(seed, "init", purpose)
    drawn = RECURRENT[name](rng, cell, D, H)
    b_h = drawn.pop("b_h")
    own = {p.name: OWN[name](rng, p.blocks * H, H, p.bias) for p in cell.handed if bias or not p.bias}
    if not bias:
        del drawn["b"]
        return drawn | own
    if bias == "double":
        drawn["b_h"] = b_h
    else:
        for product in cell.products:
            if product.bias is not None:
                rows = cell.gates.index(product.gate) * H
                drawn[product.bias] = b_h[rows : rows + H]
    value = initial_forget_bias(name, cell, forget_bias)
    if value is not None and forget_bias_at == "init":
        block = cell.gates.index("f")
        drawn["b"][block * H : (block + 1) * H] = value
    return drawn | own


def initial_forget_bias(name: str, cell: Cell, forget_bias: float | None) -> float | None:
    """`forget_bias`, or where it is None what the system called `name` gives the forget gate; None: nothing special.

    Raises ValueError for an unknown name, or a forget bias for a cell without a forget gate.
    """
    _check_name(name, RECURRENT)
    if "f" in cell.gates:
        return FORGET_BIAS[name] if forget_bias is None else forget_bias
    if forget_bias is not None:
        raise ValueError(f"forget_bias is {forget_bias}, but this cell has no forget gate: {', '.join(cell.gates)}")
    return None


def initial_state(cell: Cell, H: int, taken: Iterable[str]) -> Arrays:
    """The trained initial state of a layer, {"h_0": (H,), ...} by the parts of the cell's state: zeros.

    taken  names that other parameters of the layer have
    Raises ValueError where an own parameter of the cell has such a name.
    """
    names = [f"{part}_0" for part in cell.state]
    if clash := sorted(set(names) & set(taken)):
        raise ValueError(
            f"cell {cell.name!r} has a parameter {clash[0]!r}, the name of the trained initial state; rename it"
        )
    return {name: np.zeros(H) for name in names}


def _dense_glorot(rng: np.random.Generator, D: int, K: int) -> Arrays:
    return {"W": glorot_uniform(rng, (K, D), D, K), "b": np.zeros(K)}


def _dense_torch(rng: np.random.Generator, D: int, K: int) -> Arrays:
    bound = 1.0 / np.sqrt(D)
    return {"W": rng.uniform(-bound, bound, (K, D)), "b": rng.uniform(-bound, bound, K)}


def _dense_normal(rng: np.random.Generator, D: int, K: int) -> Arrays:
    return {"W": rng.standard_normal((K, D)), "b": rng.standard_normal(K)}


def _dense_truncated_normal(rng: np.random.Generator, D: int, K: int) -> Arrays:
    return {"W": truncated_normal(rng, (K, D), 0.1), "b": np.zeros(K)}


def _dense_small_truncated_normal(rng: np.random.Generator, D: int, K: int) -> Arrays:
    return {"W": truncated_normal(rng, (K, D), 0.01), "b": np.zeros(K)}


DENSE: dict[str, Callable[[np.random.Generator, int, int], Arrays]] = {
    "keras": _dense_glorot,
    "tf1": _dense_glorot,
    "torch": _dense_torch,
    "normal": _dense_normal,
    "truncated_normal": _dense_truncated_normal,
    "small_truncated_normal": _dense_small_truncated_normal,
}


def dense(name: str, D: int, K: int, *, seed: int, purpose: str, bias: float | None = None) -> Arrays:
    """W (K, D) and b (K,) of a dense layer, float64, keyed by (seed, purpose).

    `bias` replaces every value of b.  Raises ValueError for an unknown name.
    """
    _check_name(name, DENSE)
    drawn = DENSE[name](streams.generator(seed, "init", purpose), D, K)
    if bias is not None:
        drawn["b"][:] = bias
    return drawn


def _check_name(name: str, table: dict) -> None:
    if name not in table:
        raise ValueError(f"unknown initializer {name!r}; there are: {', '.join(table)}")
