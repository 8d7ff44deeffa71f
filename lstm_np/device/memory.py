"""What a training step on the device keeps in memory: its update rule, and the arrays of one batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lstm_np.kernels.gpu.cublas import StreamProducts
from lstm_np.kernels.gpu.launch_plan import Device, parts_of_sum, plan_persistent
from lstm_np.kernels.gpu.persistent import load

RULES = {"sgd": 0, "sgd momentum": 1, "sgd nesterov": 2, "adam paper": 3, "adam hat": 4}


@dataclass(frozen=True)
class Update:
    """How parameters follow their gradient; the formulae are those of `lstm_np.optimizers`.

    rule      a name in `RULES`
    decay     Adam's (beta1, beta2); (momentum, 0) for SGD
    epsilon   Adam's
    max_norm  the gradient is scaled so that its norm is at most this; None: it is not
    """

    rule: str
    learning_rate: float
    decay: tuple[float, float] = (0.0, 0.0)
    epsilon: float = 0.0
    max_norm: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"unknown update rule {self.rule!r}; there are: {', '.join(RULES)}")


class BatchBuffers:
    """All arrays that steps of one batch size need; addresses never change, since a graph keeps them.

    plan, forward, backward  of the one-launch kernels, or None
    blas                     cuBLAS for the sequence without them; None: our own products
    parts, rows_per_part     how the weight gradient's sum is cut
    graph, warm              the captured step; whether a step has run, so that all kernels are loaded
    """

    def __init__(
        self,
        xp: Any,
        device: Device,
        dtype: str,
        sizes: tuple[int, int, int, int],
        B: int,
        *,
        persistent: bool,
        open_blas: Callable[[], StreamProducts | None],
    ) -> None:
        T, D, H, K = sizes
        self.plan = plan_persistent(device, H, dtype, B) if persistent else None
        self.forward: Any
        self.backward: Any
        self.forward, self.backward = load(xp, self.plan, dtype) if self.plan else (None, None)
        self.blas = None if self.plan else open_blas()
        self.parts, self.rows_per_part = parts_of_sum(device, T * B, 4 * H, D + H + 1)
        if self.blas is not None:
            self.parts, self.ones = 1, xp.ones(T * B, dtype=dtype)
        self.x = xp.empty((T, B, D), dtype=dtype)
        self.labels = xp.empty(B, dtype="int32")
        self.gates = xp.empty((T, B, 4 * H), dtype=dtype)
        self.h = xp.zeros((T + 1, B, H), dtype=dtype)  # the first slots stay zero: the initial state
        self.c = xp.zeros((T + 1, B, H), dtype=dtype)
        self.dh = xp.empty((B, H), dtype=dtype)
        self.dc = xp.zeros((B, H), dtype=dtype)
        self.dlogits = xp.empty((B, K), dtype=dtype)
        self.losses = xp.empty(B, dtype=dtype)
        self.hits = xp.empty(B, dtype="int32")
        self.partial = xp.empty((self.parts, 4 * H * (D + H + 1)), dtype=dtype)
        self.graph: Any = None
        self.warm = False
