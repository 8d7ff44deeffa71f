"""A task that reads images, trained by PyTorch: the same model, initial weights, batches, optimizer and rates."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.peers.torch import Classifier
from benchmarks.tasks.definitions import CLASSES, Material, Task
from lstm_np.files import write_atomically
from lstm_np.training.schedules import factor

EVERY = 60.0  # seconds between two checkpoints
MEASURED_AT_ONCE = 500  # sequences
STATE = "torch.pt"


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
    """As `benchmarks.tasks.ours.train`."""
    torch.set_num_threads(threads)
    module = Classifier(task.features, task.hidden_size, CLASSES)
    module.copy_weights(task.model(seed).params.to_host())
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=task.learning_rate, fused=True)
    per_epoch, path = len(material.train), folder / STATE
    total, number, losses, spent = task.epochs * per_epoch, 0, list[float](), 0.0
    summed, counted = 0.0, 0
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        state = torch.load(path, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        number, losses, spent, summed, counted = (state[name] for name in ("number", "losses", "spent", "sum", "count"))
        say(f"goes on from step {number:,} of {total:,}")
    began = saved = time.perf_counter()

    def seconds() -> float:
        return spent + time.perf_counter() - began

    def save() -> None:
        content = io.BytesIO()
        kept = {"number": number, "losses": losses, "spent": seconds(), "sum": summed, "count": counted}
        torch.save({"module": module.state_dict(), "optimizer": optimizer.state_dict(), **kept}, content)
        write_atomically(path, content.getvalue())

    while number < total:
        for x, labels in material.train.epoch(number // per_epoch, number % per_epoch):
            if stop():
                save()
                return None
            for group in optimizer.param_groups:
                group["lr"] = task.learning_rate * factor("cosine", task.warmup, total, number + 1)
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(module(time_major(x)), torch.from_numpy(labels))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, task.clip_norm)
            optimizer.step()
            number, summed, counted = number + 1, summed + loss.item() * len(labels), counted + len(labels)
            if time.perf_counter() - saved > EVERY:
                save()
                saved = time.perf_counter()
        losses.append(summed / counted)
        summed, counted = 0.0, 0
        say(f"epoch {len(losses)}/{task.epochs}: loss {losses[-1]:.4f}, {seconds():,.0f} s")
    save()
    end, (x, labels) = seconds(), material.test
    with torch.inference_mode():
        parts = [module(time_major(x[k : k + MEASURED_AT_ONCE])) for k in range(0, len(x), MEASURED_AT_ONCE)]
    accuracy = (torch.cat(parts).argmax(1).numpy() == labels).mean()
    return {"value": float(accuracy), "steps": total, "seconds": end, "losses": losses}


def time_major(x: np.ndarray) -> torch.Tensor:
    """(T, B, D) from x (B, T, D)."""
    return torch.from_numpy(np.ascontiguousarray(x.transpose(1, 0, 2)))
