"""Pictures of what a model does: a grid of digits with their predictions, and a confusion matrix, as PNG."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lstm_np.extras import load
from lstm_np.files import expand, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, QUIET, RIGHT, WRONG = "#333f48", "#9aa5b1", "#0b6e99", "#b3432b"
COLUMNS = 5


def digit_grid(images: np.ndarray, probabilities: np.ndarray, labels: Sequence[int | None]) -> bytes:
    """PNG bytes: each image with the most probable class, its probability, and small bars for all classes.

    images (N, rows, columns) with any values, probabilities (N, K), labels (N) with None where it is not known; a wrong
    answer is red and says the label.  Raises MissingPackageError without matplotlib, ValueError when the lengths differ
    or N is 0.
    """
    if not 0 < len(images) == len(probabilities) == len(labels):
        raise ValueError(
            f"found {len(images)} images, {len(probabilities)} rows of probabilities and {len(labels)} labels, "
            "expected the same number of each, and at least one"
        )
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = _figure(1.5 * columns + 0.2, 2.3 * rows + 0.2)
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[4, 1] * rows)
    for axes in grid.flat:
        axes.set_axis_off()
    for k, (image, row, label) in enumerate(zip(images, probabilities, labels, strict=True)):
        picture, bars = grid[2 * (k // columns), k % columns], grid[2 * (k // columns) + 1, k % columns]
        guess = int(np.argmax(row))
        wrong = label is not None and guess != label
        color = WRONG if wrong else RIGHT if label is not None else INK
        picture.imshow(image, cmap="gray_r", interpolation="nearest")
        title = f"{guess}  {row[guess]:.1%}" + (f"  (is {label})" if wrong else "")
        picture.set_title(title, color=color, fontsize=9, fontweight="bold")
        classes = np.arange(len(row))
        bars.bar(classes, row, width=0.8, color=[color if k == guess else QUIET for k in classes])
        bars.set_ylim(0, 1)
        bars.set_axis_on()
        bars.set_xticks(classes)
        bars.set_yticks([])
        bars.tick_params(length=0, labelsize=5.5, labelcolor=INK, pad=1)
        for side in ("top", "left", "right", "bottom"):
            bars.spines[side].set_visible(False)
    return _png(figure)


def confusion_matrix(confusion: np.ndarray) -> bytes:
    """PNG bytes of counts (K, K), rows the true class, columns the predicted one, shaded by the share of the row.

    The diagonal is left pale, so that the mistakes stand out.  Raises MissingPackageError without matplotlib.
    """
    K = len(confusion)
    figure = _figure(0.52 * K + 1.2, 0.52 * K + 1.0)
    axes = figure.subplots()
    images = confusion.sum(axis=1, keepdims=True)
    mistakes = np.where(np.eye(K, dtype=bool), 0, confusion) / np.maximum(images, 1)
    axes.imshow(mistakes, cmap="Reds", vmin=0, vmax=max(float(mistakes.max()), 1e-9) * 2)
    for row, column in np.ndindex(K, K):
        count = int(confusion[row, column])
        if count:
            color, weight = (RIGHT, "bold") if row == column else (INK, "normal")
            text = f"{count:,}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color, fontweight=weight)
    accuracy = np.trace(confusion) / max(int(confusion.sum()), 1)
    axes.set_title(
        f"{np.trace(confusion):,} of {confusion.sum():,} right ({accuracy:.2%})", loc="left", color=INK, fontsize=10
    )
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("is", color=INK)
    axes.set_xticks(range(K))
    axes.set_yticks(range(K))
    axes.tick_params(length=0, labelcolor=INK)
    for side in ("top", "left", "right", "bottom"):
        axes.spines[side].set_visible(False)
    return _png(figure)


def save_picture(path: str | os.PathLike[str], content: bytes) -> None:
    """Write PNG bytes to a file, atomically.  Raises OSError where it cannot be written."""
    write_atomically(path, content)


def check_picture(path: str | os.PathLike[str]) -> None:
    """To be called before the work whose result is to be drawn in this file.

    Raises MissingPackageError without matplotlib, ValueError for a folder and for a name that ends as another kind of
    file does.
    """
    need_matplotlib()
    if expand(path).is_dir():
        raise ValueError(f"--picture {path}: a folder; expected the name of a PNG file")
    if expand(path).suffix.lower() not in ("", ".png"):
        raise ValueError(f"--picture {path}: pictures are PNG files; expected a name that ends in .png")


def need_matplotlib() -> None:
    """Raises MissingPackageError without matplotlib."""
    load("matplotlib.figure", "plot", "pictures need")


def _figure(width: float, height: float) -> Figure:
    """A figure of so many inches that needs no window system.  Raises MissingPackageError without matplotlib."""
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
