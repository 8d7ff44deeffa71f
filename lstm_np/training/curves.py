"""The learning curve of a run as a PNG: loss and accuracy over the epochs."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_np.loop import Epoch
from lstm_np.training.records import Plan

TRAIN, HELD, INK, GRID = "#9aa5b1", "#0b6e99", "#333f48", "#e4e7eb"

FEW = 3  # epochs: with fewer, their means are no curve, and accuracy too is drawn as it went on within them
STRETCHES = 60  # of the training loss, in the whole curve: more of them show the chance of the batches, not the trend


def draw_curves(history: Sequence[tuple[Epoch, Sequence[tuple[float, float]]]], plan: Plan) -> bytes | None:
    """PNG bytes of the curves of these epochs, each with the means of loss and accuracy over its stretches, in order.

    None without matplotlib.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure = Figure(figsize=(9, 3.8), dpi=160, layout=ConstrainedLayoutEngine(wspace=0.08))
    FigureCanvasAgg(figure)  # drawn to memory, so no window system is needed
    loss, accuracy = figure.subplots(1, 2)
    records = [record for record, _ in history]
    ends = [_end(record, plan) for record in records]
    held = [(end, r.validation) for end, r in zip(ends, records, strict=True) if r.validation and r.validation.count]
    name = plan.held_out

    xs, means = _within(history, plan)
    loss.plot(xs, means[:, 0], color=TRAIN, linewidth=1.8)
    _line(loss, [x for x, _ in held], [m.loss for _, m in held], HELD, name)
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    loss.yaxis.set_minor_locator(NullLocator())
    loss.set_title("loss (cross-entropy)", loc="left", color=INK, fontsize=10)
    if len(records) < FEW:
        accuracy.plot(xs, 100 * means[:, 1], color=TRAIN, linewidth=1.8, label="training")
    else:
        _line(accuracy, ends, [100 * r.train.accuracy for r in records], TRAIN, "training")
    _line(accuracy, [x for x, _ in held], [100 * m.accuracy for _, m in held], HELD, name)
    accuracy.set_title("accuracy, %", loc="left", color=INK, fontsize=10)
    if held:
        _write_last(loss, held[-1][0], held[-1][1].loss, f"{held[-1][1].loss:.3f}")
        _write_last(accuracy, held[-1][0], 100 * held[-1][1].accuracy, f"{held[-1][1].accuracy:.2%}")
    for axes in (loss, accuracy):
        _tidy(axes, max(ends))
    accuracy.legend(frameon=False, loc="lower right", labelcolor=INK)
    images = f"{plan.train_images:,} images of {plan.dataset.name}"
    changed = " (changed)" if plan.recipe.changes else ""
    title = f"{plan.recipe.title}{changed}  ·  {images}, seed {plan.recipe.train.seed}"
    figure.suptitle(title, x=0.005, ha="left", color=INK, fontsize=11, fontweight="bold")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _end(record: Epoch, plan: Plan) -> float:
    """Where an epoch ended, in epochs; a whole number unless it was cut short."""
    return record.steps / plan.steps_per_epoch


def _within(
    history: Sequence[tuple[Epoch, Sequence[tuple[float, float]]]], plan: Plan
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and accuracy (n, 2) as they went on within the epochs, in training: a stretch's mean, at its middle."""
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    for record, means in history:
        begin, end, stretches = record.number - 1, _end(record, plan), min(len(means), -(-STRETCHES // len(history)))
        xs.append(begin + (end - begin) * (np.arange(stretches) + 0.5) / stretches)
        ys.append(np.array([part.mean(axis=0) for part in np.array_split(np.asarray(means), stretches)]))
    return np.concatenate(xs), np.concatenate(ys)


def _line(axes: Any, xs: list[float], ys: list[float], color: str, label: str) -> None:
    if xs:
        axes.plot(xs, ys, color=color, linewidth=1.8, marker="o", markersize=4, label=label)


def _write_last(axes: Any, x: float, y: float, text: str) -> None:
    axes.annotate(
        text, (x, y), xytext=(7, 0), textcoords="offset points", va="center", color=HELD, fontweight="bold",
        annotation_clip=False,
    )  # fmt: skip


def _tidy(axes: Any, last: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, last * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=last >= 2, nbins=10, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch", color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, which="both", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
