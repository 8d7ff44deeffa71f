"""How a batch is cut into parts, one for each core."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from lstm_np.workers import process

WORTH_A_WORKER = 2e-4  # seconds of work that repay waking a worker and copying what it needs


@dataclass(frozen=True)
class Plan:
    """How the columns (samples) of a batch are shared out."""

    parts: tuple[tuple[int, int], ...]  # first and last + 1 column of each worker; this process is the first
    blas_threads: int  # of this process; a worker has one
    blocked: bool  # products in blocks that BLAS need not pack; it computes them on one thread


def pieces(columns: int, count: int) -> tuple[tuple[int, int], ...]:
    """(start, stop) of nearly equal pieces."""
    edges = [columns * n // count for n in range(count + 1)]
    return tuple(itertools.pairwise(edges))


def share_out(D: int, H: int, T: int, B: int, cores: int, save: bool) -> Plan:
    """The plan for T steps of B samples on at most `cores` cores; `save`: a backward pass will follow.

    The estimate, in seconds, is of multiply-adds, of passes over the activations and of calls.
    """
    estimate = T * (5e-6 + B * H * (8 * (D + H) / 1.1e11 + 4e-9)) * (3 if save else 1)
    count = max(1, min(cores, B // 8, int(estimate / WORTH_A_WORKER)))
    if count > 1 and not process.startable():
        return Plan(((0, B),), cores, False)
    return Plan(pieces(B, count), 1 if count > 1 else cores, True)
