"""Digits as strokes of a pen, with random size, slant, place and tremor: what a person might draw with a mouse."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

Stroke = list[tuple[float, float]]  # points (x, y) within 0 ... 1, y downwards


def _arc(x: float, y: float, width: float, height: float, start: float, stop: float) -> Stroke:
    """A part of an ellipse, angles in degrees, 0 to the right, 90 downwards."""
    angles = np.radians(np.linspace(start, stop, max(int(abs(stop - start) / 12), 4)))
    return [(x + width * float(np.cos(a)), y + height * float(np.sin(a))) for a in angles]


def _line(*corners: tuple[float, float]) -> Stroke:
    """Straight parts between corners, with points along them."""
    points: Stroke = []
    for (x, y), (u, v) in pairwise(corners):
        points += [(x + k * (u - x) / 8, y + k * (v - y) / 8) for k in range(9)]
    return points


SHAPES: tuple[list[Stroke], ...] = (
    [_arc(0.5, 0.5, 0.22, 0.34, -80, 285)],
    [_line((0.52, 0.14), (0.48, 0.86))],
    [_arc(0.5, 0.33, 0.2, 0.18, 190, 375) + _line((0.68, 0.42), (0.3, 0.84), (0.74, 0.83))],
    [_arc(0.47, 0.32, 0.2, 0.17, 200, 430) + _arc(0.47, 0.67, 0.23, 0.19, -80, 150)],
    [_line((0.34, 0.15), (0.28, 0.52), (0.72, 0.52)), _line((0.66, 0.18), (0.62, 0.86))],
    [_line((0.7, 0.16), (0.36, 0.17), (0.33, 0.45)) + _arc(0.46, 0.64, 0.23, 0.21, -125, 140)],
    [_line((0.6, 0.13), (0.38, 0.45)) + _arc(0.49, 0.67, 0.18, 0.19, 195, 555)],
    [_line((0.28, 0.19), (0.72, 0.18), (0.45, 0.86))],
    [_arc(0.5, 0.32, 0.16, 0.17, 60, -300) + _arc(0.5, 0.68, 0.19, 0.19, -70, 290)],
    [_arc(0.47, 0.35, 0.18, 0.19, 0, -360) + _line((0.65, 0.35), (0.6, 0.86))],
)


def drawn(digit: int, rng: np.random.Generator) -> list[Stroke]:
    """One way to draw a digit."""
    size, slant, turn = rng.uniform(0.75, 1.1), rng.normal(0, 0.1), np.radians(rng.normal(0, 4))
    stretch, shift = rng.uniform(0.85, 1.15), rng.uniform(-0.05, 0.05, 2)
    matrix = np.array([[np.cos(turn) * stretch, -slant - np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * size
    strokes = []
    for stroke in SHAPES[digit]:
        points = np.array(stroke) - 0.5
        tremor = np.convolve(rng.normal(0, 0.012, len(points) + 4), np.ones(5) / 5, "valid")
        moved = np.clip(points @ matrix.T + 0.5 + shift + tremor[:, None], 0.06, 0.94)
        strokes.append([(float(x), float(y)) for x, y in moved])
    return strokes
