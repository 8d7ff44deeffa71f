"""How a batch is cut into parts, one for each core.

A function of the sizes and the configured cores alone: the same parts, and with them the same bits, whichever process
computes them.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

FEWEST_SAMPLES = 8  # of a part
WORTH_A_WORKER = 2e-4  # seconds of work that repay waking a worker and copying what it needs


class Plan(NamedTuple):
    """How the columns (samples) of a batch are shared out."""

    parts: tuple[tuple[int, int], ...]  # first and last + 1 column of each
    blas_threads: int  # of whoever computes one
    blocked: bool  # products in blocks that BLAS need not pack; it computes them on one thread
    seconds: float  # the estimate for the whole batch on one core


def pieces(columns: int, count: int) -> tuple[tuple[int, int], ...]:
    """(start, stop) of nearly equal pieces."""
    edges = [columns * n // count for n in range(count + 1)]
    return tuple(itertools.pairwise(edges))


def share_out(D: int, H: int, T: int, B: int, cores: int, processes: int, save: bool) -> Plan:
    """The plan for T steps of B samples; `save`: a backward pass will follow.

    There are at most as many parts as `processes`; a batch that is one part has `cores` BLAS threads.
    The estimate is of multiply-adds, of passes over the activations and of calls.
    """
    seconds = T * (5e-6 + B * H * (8 * (D + H) / 1.1e11 + 4e-9)) * (3 if save else 1)
    count = max(1, min(processes, B // FEWEST_SAMPLES, int(seconds / WORTH_A_WORKER)))
    blocked = count > 1 or processes == cores
    return Plan(pieces(B, count), 1 if count > 1 else cores, blocked, seconds)
