"""A run that is stopped after every step, at every epoch's edge and while it is measured goes on to the same end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.campaigns.support import Campaign
from tests.training.stopped import begin, go_on, kept, small

STEPS, PER_EPOCH, SEEDS = 200, 25, 3

# more kinds of runs, of which some positions are drawn
KINDS: dict[str, tuple[dict[str, dict[str, Any]], int]] = {
    "gru stack, dropout, b_h": ({"model": {"cell": "gru", "num_layers": 2, "dropout": 0.4, "bias": "double"}}, 1),
    "gru, no bias": ({"model": {"cell": "gru_reset_before", "num_layers": 2, "bias": False}}, 1),
    "augmentation, cosine": (
        {
            "data": {"shift": 1, "rotate": 10.0, "zoom": 0.1},
            "train": {"schedule": "cosine", "warmup_steps": 10, "clip_norm": 0.5},
        },
        1,
    ),
    "two directions, linear, sgd": (
        {
            "model": {"bidirectional": True},
            "train": {"schedule": "linear"},
            "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
        },
        1,
    ),
    "rmsprop, tf1 order": (
        {"data": {"order": "tf1"}, "optimizer": {"name": "rmsprop", "learning_rate": 0.01, "form": "tf1"}},
        1,
    ),
    "two processes": ({"model": {"hidden_size": 64}, "data": {"limit_train": 640}, "train": {"batch_size": 128}}, 2),
}


def resuming(campaign: Campaign) -> None:
    """Every step from 1 to the budget (200 at most) with three seeds, then other kinds of runs at drawn positions."""
    steps = min(campaign.budget, STEPS)
    for seed in range(SEEDS):
        train = {"seed": seed, "batch_size": 4, "epochs": STEPS // PER_EPOCH}
        recipe = small(data={"limit_train": 4 * PER_EPOCH}, train=train)
        whole = _whole(campaign, recipe, 1)
        every = STEPS / steps
        for step in sorted({round(every * k) for k in range(1, steps + 1)}):
            kind = "at an epoch's edge" if step % PER_EPOCH == 0 else "within an epoch"
            _stopped(campaign, recipe, 1, whole, f"seed {seed}, {kind}", step=step)
        for epoch in range(1, STEPS // PER_EPOCH + 1) if steps == STEPS else (2,):
            _stopped(campaign, recipe, 1, whole, f"seed {seed}, while it is measured", measuring=epoch)
    for name, (changes, threads) in KINDS.items():
        recipe = small(**changes)
        last = 3 * (640 // 128 if threads == 2 else 60 // 16 + (name != "rmsprop, tf1 order"))
        whole = _whole(campaign, recipe, threads)
        for _ in range(max(1, campaign.budget // 10)):
            _stopped(campaign, recipe, threads, whole, name, step=campaign.random.randint(1, last))


def _whole(campaign: Campaign, recipe: Any, threads: int) -> Any:
    """What the unbroken run leaves."""
    out = _fresh(campaign.folder)
    begin(recipe, out, threads=threads)
    return kept(out)


def _stopped(campaign: Campaign, recipe: Any, threads: int, whole: Any, name: str, **stop: int) -> None:
    out = _fresh(campaign.folder)
    first = begin(recipe, out, threads=threads, **stop)
    campaign.counts[name.partition(", ")[2] if name.startswith("seed") else name] += 1
    campaign.check(first.interrupted == 15, f"{name}, {stop}: was not stopped")
    _, notes = go_on(out, threads=threads)
    found = kept(out)
    different = [part for part in whole if found[part] != whole[part]]
    campaign.check(not different and not notes, f"{name}, {stop}: {', '.join(different)} differ; {notes}")


def _fresh(folder: Path) -> Path:
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    return out
