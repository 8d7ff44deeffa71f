"""Where the time of a training epoch goes: kernels, update, and everything around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import lstm_np
from benchmarks.workloads import CLASSES, FEATURES, LEARNING_RATE
from lstm_np.data import Batches
from lstm_np.loop import Position, train


class Stopwatch:
    """Sums of the time spent in calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

        return timed


class _TimedBatches:
    """A source of batches whose drawing is timed."""

    def __init__(self, source: Batches, watch: Stopwatch) -> None:
        self.source, self.watch = source, watch

    def __len__(self) -> int:
        return len(self.source)

    def epoch(self, epoch: int, start: int = 0, *, step: int | None = None) -> Iterator[Any]:
        """The batches of an epoch."""
        batches = self.source.epoch(epoch, start, step=step)
        draw = self.watch.wrap("batches", lambda: next(batches, None))
        while (batch := draw()) is not None:
            yield batch


def measure(steps: int, threads: int, B: int = 128, H: int = 128) -> dict[str, Any]:
    """Seconds of the second epoch of `steps` steps over random images of MNIST's shape, by part.

    forward and backward are the recurrent kernel's; update is the optimizer's; batches is gathering and scaling.  What
    is left holds the read-out, the loss, the layer's bookkeeping and the loop.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (steps * B, 28, FEATURES), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, steps * B)
    backend = lstm_np.get_backend("numpy", threads=threads)
    model = lstm_np.SequenceClassifier(FEATURES, H, CLASSES, backend=backend)
    optimizer = lstm_np.Adam(model.params, LEARNING_RATE)
    watch = Stopwatch()
    for kernel in (single.kernel for single in model.recurrent.singles):
        for name in ("forward", "backward"):
            setattr(kernel, name, watch.wrap(name, getattr(kernel, name)))
    vars(optimizer)["step"] = watch.wrap("update", optimizer.step)
    batches = _TimedBatches(Batches(images, labels, B, scale=1 / 255, reuse=True), watch)
    training = model.training_steps(optimizer, batches)
    train(training, epochs=1, max_steps=min(20, steps))
    watch.seconds.clear()
    started = time.perf_counter()
    train(training, Position(epoch=1), epochs=2)
    total = time.perf_counter() - started
    parts = dict(watch.seconds)
    parts["read-out, loss, loop"] = total - sum(parts.values())
    outside = total - sum(parts[name] for name in ("forward", "backward", "update"))
    return {"steps": steps, "B": B, "H": H, "seconds": total, "parts": parts, "share_outside": outside / total}
