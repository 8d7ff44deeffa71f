"""The learning curve of a run as a PNG: loss and accuracy over the epochs."""

from __future__ import annotations

import io

from lstm_np.loop import History
from lstm_np.training.records import Plan


def draw_curves(history: History, plan: Plan) -> bytes:
    """PNG bytes of the curves of these epochs.  Raises MissingPackageError where matplotlib cannot be used."""
    images = f"{plan.train_images:,} {plan.things} of {plan.dataset.name}"
    changed = " (changed)" if plan.recipe.changes else ""
    title = f"{plan.recipe.title}{changed}  ·  {images}, seed {plan.recipe.train.seed}"
    figure = history.plot(held_out=plan.held_out, title=title)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
