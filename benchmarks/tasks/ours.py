"""A task, trained by lstm_np; what is stopped goes on from its checkpoint with the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lstm_np
from benchmarks.tasks.definitions import Material, Task
from lstm_np import loop
from lstm_np.checkpoints import Checkpoint, Checkpoints, Every, Keeper
from lstm_np.loop import Epoch, Position
from lstm_np.training.schedules import rate_of

EVERY = Every(seconds=60.0)  # when a checkpoint is written
MEASURED_AT_ONCE = 500  # sequences


def train(
    task: Task,
    seed: int,
    material: Material,
    folder: Path,
    *,
    threads: int,
    stop: Callable[[], bool],
    say: Callable[[str], None],
) -> dict[str, Any] | None:
    """Train until all is done, and measure; None where `stop` said so before: the next call with this folder goes on.

    {"value": what the task measures, "steps", "seconds": of training, "losses": of each epoch in training}
    """
    model = task.model(seed, backend=lstm_np.get_backend("numpy", threads=threads))
    total = task.epochs * len(material.train)
    rate = rate_of("cosine", task.warmup, total)
    optimizer = lstm_np.Adam(model.params, lr=task.learning_rate)
    steps = model.training_steps(optimizer, material.train, clip_norm=task.clip_norm, rate=rate)
    losses, before, began = list[float](), 0.0, time.perf_counter()

    def seconds() -> float:
        return before + time.perf_counter() - began

    def capture() -> Checkpoint:
        return Checkpoint.of(steps, {"losses": list(losses), "seconds": seconds()})

    def on_epoch(record: Epoch) -> None:
        if record.complete:
            losses.append(record.train.loss)
            say(f"epoch {record.number}/{task.epochs}: loss {record.train.loss:.4f}, {seconds():,.0f} s")

    with Checkpoints(folder) as kept:
        keeper = Keeper(kept, EVERY, capture, say)
        if kept.files():
            newest = kept.newest(say)
            model.load_weights(newest.parameters, folder)
            steps.restore(newest.steps)
            model.position, before = newest.position, newest.run["seconds"]
            losses += newest.run["losses"]
            keeper.resume(newest.position)
            say(f"goes on from step {newest.position.step:,} of {total:,}")
        loop.train(steps, epochs=task.epochs, on_step=keeper.on_step, on_epoch=on_epoch, stop=stop)
        keeper.finish(model.position)
    if model.position != Position(task.epochs, 0, total):
        return None
    spent = seconds()
    metrics = model.evaluate(*material.test, batch_size=MEASURED_AT_ONCE)
    return {"value": float(getattr(metrics, task.metric)), "steps": total, "seconds": spent, "losses": losses}
