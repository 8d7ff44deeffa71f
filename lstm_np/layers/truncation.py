"""Truncated backpropagation through time: how far back the gradient of what a step causes is followed.

With (k1, k2), every k1 steps the outputs of the last k1 steps are followed back through the last k2 steps, k2 >= k1,
and no further: the state before those counts as a constant (Williams and Peng, "An efficient gradient-based algorithm
for on-line training of recurrent network trajectories", Neural Computation 2(4), 1990: BPTT(h; h') with h = k2 and
h' = k1).  The forward pass is that of the whole sequence and is run once.  With e_1 = k1, e_2 = 2 k1, ... and the last,
e_J = T::

    dL/dtheta  ~  sum over windows j of  dL_j/dtheta,  the state before step max(0, e_j - k2) held constant

where L_j is the part of the loss that depends directly on the outputs of steps e_{j-1} ... e_j - 1 (from 0), and, in
the last window, on the final state.  A window that reaches step 0 reaches the initial state too.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from lstm_np import options
from lstm_np.options import OptionError


class Window(NamedTuple):
    """The outputs of steps `outputs` ... `stop` - 1 are followed back to step `start`."""

    start: int
    outputs: int
    stop: int


class Segment(NamedTuple):
    """Steps `start` ... `stop` - 1, which are computed together."""

    start: int
    stop: int


def check_truncation(truncation: Any) -> tuple[int, int] | None:
    """(k1, k2), or None.

    Raises OptionError for anything but two whole numbers with 1 <= k1 <= k2.
    """
    if truncation is None:
        return None
    if not isinstance(truncation, (tuple, list)) or len(truncation) != 2:
        raise OptionError(f"truncation must be two whole numbers (k1, k2), found {truncation!r}")
    k1, k2 = (options.check_count(f"k{n} of truncation", k, 1) for n, k in enumerate(truncation, 1))
    if k2 < k1:
        raise OptionError(
            f"truncation (k1, k2) needs k2 >= k1, found ({k1}, {k2}): the outputs of {k1 - k2} of {k1} steps "
            "would be followed back nowhere"
        )
    return k1, k2


def refuse_lengths(truncation: Any, real: Any) -> None:
    """Raises ValueError for a truncation (not None) of sequences of which some steps are not real (`real` not None)."""
    if truncation is not None and real is not None:
        raise ValueError("truncated backpropagation takes sequences of one length: not lengths, a mask or a list")


def windows_of(T: int, k1: int, k2: int, *, last: bool = False) -> list[Window]:
    """The windows over T steps, in order; `last`: the one that ends with the sequence alone."""
    ends = [*range(k1, T, k1), T]
    windows = [Window(max(0, end - k2), begun, end) for begun, end in itertools.pairwise([0, *ends])]
    return windows[-1:] if last else windows


def segments_of(T: int, windows: list[Window]) -> list[Segment]:
    """The steps cut wherever a window or its outputs begin or end."""
    edges = sorted({0, T, *(edge for window in windows for edge in window)})
    return [Segment(*pair) for pair in itertools.pairwise(edges)]
