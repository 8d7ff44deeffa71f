"""The learning curve of a run as a PNG: loss and accuracy over the epochs."""

from __future__ import annotations

import io

from lstm_np.loop import History
from lstm_np.training.records import Plan


def title_of(plan: Plan) -> str:
    """What the curves of a run are called."""
    images = f"{plan.train_images:,} {plan.things} of {plan.dataset.name}"
    changed = " (changed)" if plan.recipe.changes else ""
    return f"{plan.recipe.title}{changed}  ·  {images}, seed {plan.recipe.train.seed}"


def draw_curves(history: History, held_out: str, title: str) -> bytes:
    """PNG bytes of the curves of these epochs, measured on what is called `held_out`.

    Raises MissingPackageError where matplotlib cannot be used.
    """
    figure = history.plot(held_out=held_out, title=title)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
