"""Learning curves as a picture: the loss, and a number beside it, over the epochs, from plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lstm_np.display.tables import ACCURACY, score_in_words
from lstm_np.extras import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAIN, HELD, INK, GRID = "#9aa5b1", "#0b6e99", "#333f48", "#e4e7eb"

FEW = 3  # epochs: with fewer, their means are no curve, and accuracy too is drawn as it went on within them


def draw_learning_curves(
    *,
    within: Sequence[tuple[float, float, float]],
    train: Sequence[tuple[float, float]],
    held: Sequence[tuple[float, float, float]],
    held_out: str,
    title: str,
    second: str = ACCURACY,
) -> Figure:
    """A matplotlib Figure of loss (left) and accuracy (right); x counts epochs, and all of them are in order.

    within    (x, loss, accuracy) in training, as it went on within the epochs
    train     (x, accuracy) in training, at the epochs' ends
    held      (x, loss, accuracy) on the data called `held_out`, at the epochs' ends; may be empty
    second    what stands in the place of the accuracy, by the name that it has among the metrics

    Losses above 0, accuracies from 0 to 1.  Raises MissingPackageError (an ImportError) without matplotlib.
    """
    load("matplotlib.figure", "plot", "curves need")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure = Figure(figsize=(9, 3.8), dpi=160, layout=ConstrainedLayoutEngine(wspace=0.08))
    FigureCanvasAgg(figure)  # drawn to memory, so no window system is needed
    percent, unit = (100, ", %") if second == ACCURACY else (1, "")
    loss, accuracy = figure.subplots(1, 2)
    loss.plot([x for x, _, _ in within], [y for _, y, _ in within], color=TRAIN, linewidth=1.8)
    _line(loss, [(x, y) for x, y, _ in held], HELD, held_out)
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    loss.yaxis.set_minor_locator(NullLocator())
    loss.set_title("loss (cross-entropy)" if second == ACCURACY else "loss", loc="left", color=INK, fontsize=10)
    if len(train) < FEW:
        xs, ys = [x for x, _, _ in within], [percent * y for _, _, y in within]
        accuracy.plot(xs, ys, color=TRAIN, linewidth=1.8, label="training")
    else:
        _line(accuracy, [(x, percent * y) for x, y in train], TRAIN, "training")
    _line(accuracy, [(x, percent * y) for x, _, y in held], HELD, held_out)
    accuracy.set_title(second.replace("_", " ") + unit, loc="left", color=INK, fontsize=10)
    if held:
        x, last_loss, last_accuracy = held[-1]
        _write_last(loss, x, last_loss, f"{last_loss:.3f}")
        _write_last(accuracy, x, percent * last_accuracy, score_in_words(second, last_accuracy))
    first, last = math.floor(within[0][0]), train[-1][0]
    for axes in (loss, accuracy):
        _tidy(axes, first, last)
    accuracy.legend(frameon=False, loc="lower right" if second == ACCURACY else "upper right", labelcolor=INK)
    figure.suptitle(title, x=0.005, ha="left", color=INK, fontsize=11, fontweight="bold")
    return figure


def _line(axes: Axes, points: Sequence[tuple[float, float]], color: str, label: str) -> None:
    if points:
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, color=color, linewidth=1.8, marker="o", markersize=4, label=label)


def _write_last(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(
        text, (x, y), xytext=(7, 0), textcoords="offset points", va="center", color=HELD, fontweight="bold",
        annotation_clip=False,
    )  # fmt: skip


def _tidy(axes: Axes, first: float, last: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(first, last + 0.02 * (last - first))
    axes.xaxis.set_major_locator(MaxNLocator(integer=last - first >= 2, nbins=10, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch", color=INK)
    plain_axes(axes)


def plain_axes(axes: Axes) -> None:
    """A pale grid and no frame: how all curves here look."""
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, which="both", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
