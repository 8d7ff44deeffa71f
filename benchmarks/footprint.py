"""`python -m benchmarks footprint`: what a user feels before anything is fast.

Installed size with all that is needed, the time of an import in a fresh interpreter, and the time from starting one to
a trained epoch on data of MNIST's size, for us and each peer.  The C library's allocator is the default.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, results
from benchmarks.figures import in_words, spread
from benchmarks.flags import TORCH_CPU, pythons_of
from benchmarks.processes import ROOT, environment
from benchmarks.workloads import uniform

MIB = 1 << 20
LIMIT = 600  # seconds


@dataclass(frozen=True)
class Requirements:
    """What one installs and imports to have a system.

    packages  distributions; of alternatives written with | the first that is installed
    imports   modules
    trains    the contestant that trains it; None: it cannot be trained
    """

    packages: tuple[str, ...]
    imports: str
    trains: str | None


PRODUCTS = {
    "ours": Requirements(("lstm_np",), "lstm_np", "ours"),
    "torch": Requirements(("torch",), "torch", "torch"),
    TORCH_CPU: Requirements(("torch",), "torch", "torch"),
    "jax": Requirements(("jax", "flax", "optax"), "jax, flax.linen, optax", "jax"),
    "keras": Requirements(("keras", "tensorflow-cpu|tensorflow"), "keras", "keras"),
    "thinc": Requirements(("thinc",), "thinc.api", "thinc"),
    "onnxruntime": Requirements(("onnxruntime",), "onnxruntime", None),
}


def ask(python: str, threads: int, *arguments: str) -> tuple[str, float]:
    """(what a fresh interpreter printed, seconds from its start to its end).  Raises RuntimeError where it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        [python, *arguments],
        cwd=ROOT, env=environment(threads), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT,
        check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise RuntimeError(f"{' '.join(arguments)[:80]}: {said[0]}")
    return done.stdout, seconds


def installed_size(python: str, product: Requirements) -> dict[str, Any]:
    """What `benchmarks.installed` tells of the packages.  Raises RuntimeError where one is not installed."""
    choices = [package.split("|") for package in product.packages]
    for number in range(max(map(len, choices))):
        names = [names[min(number, len(names) - 1)] for names in choices]
        told = json.loads(ask(python, 1, "-m", "benchmarks.installed", *names)[0])
        absent = [name for name in names if name in told["missing"]]
        if not absent:
            return told
    raise RuntimeError(f"not installed: {', '.join(absent)}")


def import_once(python: str, threads: int, imports: str | None) -> float:
    """Seconds of a fresh interpreter that imports something, or nothing, and ends."""
    return ask(python, threads, "-c", "pass" if imports is None else f"import {imports}")[1]


def first_epoch_once(python: str, threads: int, name: str, path: Path) -> dict[str, Any]:
    """{"seconds": from the interpreter's start to its end, "parts", "loss", "steps"} of a first epoch."""
    printed, seconds = ask(python, threads, "-m", "benchmarks.first_epoch", name, str(threads), str(path))
    return {**json.loads(printed.splitlines()[-1]), "seconds": seconds}


def write_images(path: Path, count: int) -> None:
    """Random images of MNIST's shape, each brighter the larger its label, so that there is something to learn."""
    labels = (uniform(count, "footprint", "labels") * 10).astype(np.int64)
    images = uniform(count * 784, "footprint", "images").reshape(count, 28, 28) * (1 + labels[:, None, None]) * 25.5
    np.savez(path, images=images.astype(np.uint8), labels=labels)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write the result file; the exit status."""
    pythons = pythons_of(arguments.python_of)
    peers = [name for name in PRODUCTS if name != "ours"] if arguments.peers is None else list(arguments.peers)
    peers = [name for name in peers if name != TORCH_CPU] + ([TORCH_CPU] if TORCH_CPU in pythons else [])
    document = machine.header("footprint", arguments.threads)
    document |= {"images": arguments.images, "rounds": arguments.rounds, "systems": {}, "missing": {}}
    chosen: dict[str, str] = {}
    for name in ("ours", *(name for name in peers if name in PRODUCTS)):
        python = pythons.get(name, sys.executable)
        try:
            document["systems"][name] = {"installed": installed_size(python, PRODUCTS[name])}
            chosen[name] = python
        except (RuntimeError, OSError) as error:
            document["missing"][name] = str(error)
            print(f"left out: {name}: {error}")
    with tempfile.TemporaryDirectory(prefix="lstm_np-footprint-") as folder:
        path = Path(folder) / "images.npz"
        write_images(path, arguments.images)
        measure(document, chosen, path)
    print("\n".join(table(document)))
    print(f"written: {results.write(document, arguments.out)}")
    return 0 if "ours" in chosen else 1


def measure(document: dict[str, Any], pythons: Mapping[str, str], path: Path) -> None:
    """Imports and first epochs, the systems taking turns; a first import, which reads the disk, is not counted."""
    threads = document["threads"]
    imports: dict[str, list[float]] = {"python": [], **{name: [] for name in pythons}}
    epochs: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons if PRODUCTS[name].trains}
    for turn in range(2 * document["rounds"] + 1):
        for name, times in imports.items():
            python = pythons.get(name, sys.executable)
            seconds = import_once(python, threads, None if name == "python" else PRODUCTS[name].imports)
            if turn:
                times.append(seconds)
    for _ in range(document["rounds"]):
        for name, told in epochs.items():
            told.append(first_epoch_once(pythons[name], threads, PRODUCTS[name].trains or name, path))
            print(f"{name}: a first epoch in {told[-1]['seconds']:.1f} s, loss {told[-1]['loss']:.4f}", flush=True)
    document["python_seconds"] = _spread(imports.pop("python"))
    for name, times in imports.items():
        document["systems"][name]["import_seconds"] = _spread(times)
    for name, told in epochs.items():
        best = min(told, key=lambda run: run["seconds"])
        first = {**_spread([run["seconds"] for run in told]), "parts": best["parts"], "steps": best["steps"]}
        document["systems"][name]["first_epoch_seconds"] = first


def _spread(times: Sequence[float]) -> dict[str, Any]:
    return {**asdict(spread(times)), "rounds": list(times)}


def table(document: dict[str, Any]) -> list[str]:
    """A line per system."""
    lines = [f"{'':<12} {'installed':>10} {'import':>9} {'(best)':>9} {'first epoch':>12} {'(best)':>9}"]
    for name, system in document["systems"].items():
        text = f"{name:<12} {system['installed']['bytes'] / MIB:>6.0f} MiB"
        for kind, width in (("import_seconds", 9), ("first_epoch_seconds", 12)):
            times = system.get(kind)
            shown = ("-", "-") if times is None else (in_words(times["median"]), in_words(times["best"]))
            text += f" {shown[0]:>{width}} {shown[1]:>9}"
        lines.append(text)
    itself = in_words(document["python_seconds"]["median"])
    return [*lines, f"included in both times: {itself} in which Python itself starts and ends"]
