"""python -m tests.campaigns.costs [--out FOLDER]: what the check of each step and a checkpoint cost, in time.

The check of parameters and optimizer is switched off and on in turns, some steps each, on the same model; loss and
gradient norm are looked at in both.  Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import lstm_np
from lstm_np.backends.cores import cpu_name
from lstm_np.checkpoints import DEFAULT, Checkpoint, Checkpoints, Keeper
from lstm_np.files import write_atomically
from lstm_np.steps import ModelSteps
from lstm_np.training.environment import commit

T, D, K = 28, 28, 10
GRID = [(B, H) for H in (16, 32, 64, 128, 256, 512) for B in (1, 16, 128, 512)]
SECONDS = 1.2  # of each case
MNIST_STEPS = 469  # of an epoch of 60,000 in batches of 128


class Unchecked(ModelSteps):
    """Steps that do not look at parameters and optimizer."""

    def _state_may_be_finite(self) -> bool:
        return True


def check_cost(B: int, H: int) -> dict[str, float]:
    """Milliseconds of a step, the share of it that the check takes by itself, and by steps with and without it."""
    rng = np.random.default_rng(0)
    model = lstm_np.SequenceClassifier(D, H, K)
    x = rng.random((D, T, B), np.float32).transpose(2, 1, 0)
    batch = x, rng.integers(0, K, B)
    both = [kind(model, lstm_np.Adam(model.params)) for kind in (ModelSteps, Unchecked)]
    for steps in both:
        for number in range(3):
            steps.step(batch, number + 1)
    began = time.perf_counter()
    both[0].step(batch, 1)
    turn = max(1, round(0.02 / (time.perf_counter() - began)))
    times: list[list[float]] = [[], []]
    checks, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(checks) < 8:
        order = (0, 1) if len(checks) % 2 else (1, 0)
        for which in order:
            began = time.perf_counter()
            for _ in range(turn):
                both[which].step(batch, 1)
            times[which].append((time.perf_counter() - began) / turn)
        began = time.perf_counter()
        both[0]._state_may_be_finite()
        checks.append(time.perf_counter() - began)
    step = statistics.median(times[1])
    ratios = [with_it / without - 1 for with_it, without in zip(*times, strict=True)]
    return {
        "B": B,
        "H": H,
        "step_ms": round(1e3 * step, 4),
        "check_us": round(1e6 * statistics.median(checks), 2),
        "check_share": round(statistics.median(checks) / step, 5),
        "share_by_steps": round(statistics.median(ratios), 5),
    }


def checkpoint_cost() -> dict[str, float]:
    """Milliseconds of a checkpoint of LSTM(128) with Adam, and what the default intervals make of it."""
    model = lstm_np.SequenceClassifier(D, 128, K)
    steps = ModelSteps(model, lstm_np.Adam(model.params))
    best = {name: array.copy() for name, array in model.params.items()}
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as kept:
        keeper = Keeper(kept, DEFAULT, lambda: Checkpoint.of(steps, {"best": best}), print)
        times = []
        for number in range(40):
            model.position = lstm_np.Position(0, number, number)
            began = time.perf_counter()
            keeper.save(must=True)
            times.append(time.perf_counter() - began)
        size = kept.files()[-1].stat().st_size
    save = statistics.median(times)
    step = next(case["step_ms"] for case in [check_cost(128, 128)]) / 1e3
    epoch = MNIST_STEPS * step
    return {
        "bytes": size,
        "save_ms": round(1e3 * save, 3),
        "slowest_ms": round(1e3 * max(times), 3),
        "epoch_s": round(epoch, 3),
        "share_at_one_in_10_s": round(save / DEFAULT.pause, 6),
        "share_at_one_an_epoch": round(save / epoch, 6),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser("python -m tests.campaigns.costs", description=__doc__.split("\n\n")[1])
    parser.add_argument("--out", metavar="FOLDER", help="where costs.json goes")
    arguments = parser.parse_args(argv)
    cases = [check_cost(B, H) for B, H in GRID]
    record: dict[str, Any] = {
        "campaign": "costs",
        "command": "python -m tests.campaigns.costs",
        "date": datetime.now(UTC).date().isoformat(),
        "processor": cpu_name(),
        "cores": lstm_np.get_backend("numpy").cores,
        **commit(),
        "worst_check": max(cases, key=lambda case: case["check_share"]),
        "checkpoint": checkpoint_cost(),
        "cases": cases,
    }
    text = json.dumps(record, indent=1) + "\n"
    print(text, end="")
    if arguments.out is not None:
        write_atomically(Path(arguments.out, "costs.json"), text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
