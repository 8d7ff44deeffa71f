"""Medians, means and fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Quartiles of some measurements, and the smallest: the best round."""

    median: float
    q1: float
    q3: float
    best: float


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, linear between neighbours.  Raises ValueError for no values."""
    if not values:
        raise ValueError("no measurements: a quantile needs at least one")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def spread(values: Sequence[float]) -> Spread:
    """Median, quartiles and minimum.  Raises ValueError for no values."""
    return Spread(quantile(values, 0.5), quantile(values, 0.25), quantile(values, 0.75), min(values, default=math.nan))


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean logarithm.  Raises ValueError for no values or one that is not positive."""
    if not values or min(values) <= 0:
        raise ValueError(f"a geometric mean needs positive values, found {list(values)[:5]}")
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """p of the least-squares fit cost = constant * size**p.  Raises ValueError for fewer than two different sizes."""
    if len(set(sizes)) < 2 or len(sizes) != len(costs):
        raise ValueError(f"a fit needs at least two different sizes, each with its cost; found {list(sizes)}")
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    covariance = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / math.fsum((a - mean_x) ** 2 for a in x)


def in_words(seconds: float) -> str:
    """0.0123 -> "12.3 ms", three significant digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            value = seconds * factor
            return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f} {unit}"
    return f"{seconds * 1e9:.0f} ns"
