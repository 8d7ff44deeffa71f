"""How a batch is cut into parts, one for each core: a function of the sizes and the configured cores alone."""

from __future__ import annotations

import itertools
from functools import lru_cache

from lstm_np.kernels.protocol import Cut

FEWEST_SAMPLES = 8  # of a part
WORTH_A_PART = 2e-4  # seconds of work that repay waking a worker and copying what it needs
ONE_THREAD = 1 << 20  # multiply-adds of a step's product, up to which a second thread of BLAS gains next to nothing


def pieces(columns: int, count: int) -> tuple[tuple[int, int], ...]:
    """(start, stop) of nearly equal pieces."""
    edges = [columns * n // count for n in range(count + 1)]
    return tuple(itertools.pairwise(edges))


def seconds(gates: int, D: int, H: int, T: int, B: int, save: bool) -> float:
    """An estimate for T steps of B samples on one core: of multiply-adds, passes over the activations, and calls."""
    return T * (5e-6 + B * H * (2 * gates * (D + H) / 1.1e11 + gates * 1e-9)) * (3 if save else 1)


@lru_cache
def share_out(gates: int, D: int, H: int, T: int, B: int, cores: int, save: bool) -> Cut:
    """The cut of T steps of B samples on so many cores, of a cell with so many gates; `save`: a backward pass follows.

    One part has all cores as BLAS threads; of several each has one.  So has one part whose products of a step are
    small: two threads take about as long there, and where another program runs they take many times as long, since each
    waits for the other at every product.
    """
    count = max(1, min(cores, B // FEWEST_SAMPLES, int(seconds(gates, D, H, T, B, save) / WORTH_A_PART)))
    small = gates * H * (D + H) * B <= ONE_THREAD
    return Cut(pieces(B, count), 1 if count > 1 or small else cores)
