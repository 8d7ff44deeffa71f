"""Pictures of plain arrays over time, in the style of the learning curves: maps, lines and points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np.display.curves import GRID, HELD, INK, TRAIN
from lstm_np.extras import load

LINES = (HELD, "#c2571a", "#5b3a8c", "#3d7a3a", TRAIN)  # told apart without telling red from green, and in grey
DASHES = ("-", "--", "-.", ":", (0, (1, 1)))


@dataclass(frozen=True)
class Map:
    """values (T, rows) under a title; `labels`, one for each row, and the limits of the colours.

    Limits that are equal and opposite have colours around 0; any others go from dark to bright.
    """

    title: str
    values: np.ndarray
    labels: Sequence[int]
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """A named line (T,) over the steps, and which of the colours and dashes it has."""

    label: str
    values: np.ndarray
    color: int = 0
    dash: int = 0


def limits_of(values: np.ndarray) -> tuple[float, float]:
    """0 and 1 if all values are within, else the smallest limits symmetric about 0 that are wide enough."""
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    most = 1.0 if max(-low, high) <= 1 else max(-low, high)
    return -most, most


def draw_maps(maps: Sequence[Map], *, step: str, rows: str, title: str, columns: int = 2) -> Any:
    """A matplotlib Figure with the maps side by side: time to the right, a row for each label, the first on top.

    Raises MissingPackageError (an ImportError) without matplotlib.
    """
    figure = _figure(4.6 * min(columns, len(maps)), 0.6 + 2.9 * -(-len(maps) // columns))
    grid = figure.subplots(-(-len(maps) // columns), min(columns, len(maps)), squeeze=False)
    for axes, one in zip(grid.flat, maps, strict=False):
        around_zero = one.low == -one.high
        image = axes.imshow(
            one.values.T,
            aspect="auto",
            interpolation="nearest",
            cmap="RdBu_r" if around_zero else "viridis",
            vmin=one.low,
            vmax=one.high,
        )
        axes.set_title(one.title, loc="left", color=INK, fontsize=10)
        shown = range(0, len(one.labels), max(1, math.ceil(len(one.labels) / 12)))
        axes.set_yticks(list(shown), [str(one.labels[k]) for k in shown], fontsize=7)
        axes.set_xlabel(step, color=INK, fontsize=9)
        axes.set_ylabel(rows, color=INK, fontsize=9)
        _bare(axes)
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        bar.ax.tick_params(colors=INK, length=0, labelsize=7)
        bar.outline.set_visible(False)
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    figure.suptitle(title, x=0.005, ha="left", color=INK, fontsize=11, fontweight="bold")
    return figure


def draw_lines(lines: Sequence[Line], *, step: str, what: str, title: str, log: bool = True) -> Any:
    """A matplotlib Figure of lines over the steps, each labelled at its end; with `log`, zeros are left out.

    Raises MissingPackageError (an ImportError) without matplotlib.
    """
    figure = _figure(7.5, 3.8)
    axes = figure.subplots()
    last = max(len(line.values) for line in lines) - 1
    for line in lines:
        values = np.where(line.values > 0, line.values, np.nan) if log else line.values
        color = LINES[line.color % len(LINES)]
        axes.plot(values, color=color, linestyle=DASHES[line.dash % len(DASHES)], linewidth=1.8)
        there = np.flatnonzero(np.isfinite(values))
        if len(there):
            at = (there[-1], values[there[-1]])
            axes.annotate(
                line.label, at, xytext=(6, 0), textcoords="offset points", va="center", color=color, fontsize=9,
                annotation_clip=False,
            )  # fmt: skip
    if log:
        axes.set_yscale("log")
    axes.set_xlim(0, max(1, last))
    axes.set_xlabel(step, color=INK)
    axes.set_title(what, loc="left", color=INK, fontsize=10)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    _bare(axes)
    figure.suptitle(title, x=0.005, ha="left", color=INK, fontsize=11, fontweight="bold")
    return figure


def draw_points(panels: Sequence[tuple[str, np.ndarray, np.ndarray]], *, across: str, up: str, title: str) -> Any:
    """A matplotlib Figure of panels (title, x (N,), y (N,)) with values 0 ... 1, a point each, beside each other.

    Raises MissingPackageError (an ImportError) without matplotlib.
    """
    figure = _figure(2.9 * len(panels) + 0.4, 3.5)
    for axes, (name, x, y) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        axes.plot([0, 1], [1, 0], color=GRID, linewidth=0.8)
        axes.scatter(x, y, s=14, color=HELD, alpha=0.6, linewidths=0)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_aspect("equal")
        axes.set_title(name, loc="left", color=INK, fontsize=10)
        axes.set_xlabel(across, color=INK, fontsize=9)
        axes.set_ylabel(up, color=INK, fontsize=9)
        _bare(axes)
    figure.suptitle(title, x=0.005, ha="left", color=INK, fontsize=11, fontweight="bold")
    return figure


def _figure(width: float, height: float) -> Any:
    """Of so many inches, drawn to memory, so that no window system is needed."""
    load("matplotlib.figure", "plot", "pictures need")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _bare(axes: Any) -> None:
    axes.tick_params(colors=INK, which="both", length=0, labelsize=8)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
