"""Learning rates that change during a run: pure functions of the step, so that any point of a run can be re-entered.

After step k of n, the first w of them a warm-up, with p = (k - 1 - w) / (n - w) from 0 to (almost) 1::

    warm-up    lr k / w
    constant   lr
    linear     lr (1 - p)
    cosine     lr (1 + cos(pi p)) / 2         Loshchilov and Hutter, "SGDR", ICLR 2017, one cycle

"plateau" is none of them: there the rate follows what the epochs have measured (`lstm_np.callbacks`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda p: 1.0,
    "linear": lambda p: 1.0 - p,
    "cosine": lambda p: (1.0 + math.cos(math.pi * p)) / 2,
}

PLATEAU = "plateau"


def depends_on_all_steps(schedule: str) -> bool:
    """Whether the rate at a step depends on how many there will be."""
    return schedule not in ("constant", PLATEAU)


def factor(schedule: str, warmup_steps: int, steps: int, number: int) -> float:
    """What the learning rate is multiplied with at step `number` (from 1) of `steps`; beyond them, as at the last."""
    if number <= warmup_steps:
        return number / warmup_steps
    progress = (number - 1 - warmup_steps) / max(steps - warmup_steps, 1)
    return SHAPES[schedule](min(progress, 1.0))


def rate_of(schedule: str, warmup_steps: int, steps: int) -> Callable[[int], float] | None:
    """`factor` as a function of the step alone; None where it is 1 throughout, so that the learning rate is not set."""
    if not depends_on_all_steps(schedule) and warmup_steps == 0:
        return None
    return partial(factor, schedule, warmup_steps, steps)
