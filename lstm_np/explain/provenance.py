"""Where the numbers of a page come from: model, weights, training, data, versions."""

from __future__ import annotations

import hashlib
import json
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from lstm_np.data import Dataset
from lstm_np.training.run_folder import CONFIG
from lstm_np.training.trained import Trained

PACKAGE = Path(__file__).parents[1]


def images_of(dataset: Dataset) -> tuple[str, str]:
    """Which images are shown."""
    return "images", f"test images of {dataset.name}{', as published (SHA-256)' if dataset.verified else ''}"


def facts_of(trained: Trained, shown: tuple[str, str]) -> list[tuple[str, str]]:
    """Pairs of what is told and the text; no date and no folder, so that the same run gives the same page.

    shown  what the model reads, as such a pair
    """
    model, path = trained.model, trained.path
    config = _config_of(path)
    weights = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = [
        ("model", f"{model.config['cell']}, {model.params.flat.size:,} parameters, {model.dtype}"),
        ("weights", f"{path.parent.name}/{path.name}, SHA-256 {weights}"),
    ]
    training = [
        f"{name} {value}"
        for name, value in (
            ("recipe", model.notes.get("recipe")),
            ("epochs", model.notes.get("epoch")),
            ("steps", model.notes.get("steps")),
            ("seed", model.config.get("seed")),
        )
        if value is not None
    ]
    facts.append(("training", ", ".join(training)))
    about = config.get("dataset")
    known = about.get("sha256") if isinstance(about, dict) else None
    learnt = model.notes.get("dataset", trained.dataset)
    facts.append(("trained on", f"{learnt}{f', SHA-256 {known}' if known else ''}"))
    facts.append(shown)
    libraries = sorted(
        {f"{one['internal_api']} {one['version']}" for one in threadpool_info() if one["user_api"] == "blas"}
    )
    facts.append(("computed with", ", ".join([f"NumPy {np.__version__}", *libraries, f"{model.backend.name} backend"])))
    facts.append(("lstm_np", ", ".join(part for part in (_version(), _commit()) if part)))
    return facts


def _config_of(path: Path) -> dict[str, Any]:
    """What the run folder of a weights file says; nothing where there is none, or none that can be read."""
    try:
        found = json.loads((path.parent / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _version() -> str:
    try:
        return f"version {version('lstm_np')}"
    except PackageNotFoundError:
        return "a checkout"


def _commit() -> str | None:
    """The commit of the checkout that runs, where it is one and git is here."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(PACKAGE.parent), "rev-parse", "HEAD"]
        return f"commit {subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()}"
    except (OSError, subprocess.SubprocessError):
        return None
