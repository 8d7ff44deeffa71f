"""`python -m benchmarks compare COMMIT`: does this tree compute the same bits as COMMIT, and is it as fast?

The probe (`benchmarks/probe.py`, each tree its own) trains every recipe for 50 steps and tries what no recipe has, with
the kernels auto and reference, on one core and on two; SHA-256 sums of parameters, optimizer state, losses and outputs
are compared.  Then both trees are raced in pairs (`benchmarks.pairs`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, pairs, results, workloads
from benchmarks.processes import environment, python_path
from benchmarks.trees import Tree, laid_out, this_tree

SETTINGS = tuple((kernel, threads) for threads in (1, 2) for kernel in ("auto", "reference"))
TRAIN_IMAGES, TEST_IMAGES = 8_000, 500  # of MNIST, more than 50 steps of 128 see
PROBE_LIMIT = 1800  # seconds
Sums = dict[str, dict[str, str]]


# ---- the same bits?


def write_data(folder: Path, data_dir: str | None) -> tuple[str | None, str]:
    """(a folder with the first images of MNIST, what the data are); (None, ...) for the digits.

    Raises IDXError for a named folder that does not hold MNIST.
    """
    from lstm_np.data import load_dataset

    dataset = load_dataset("mnist", data_dir, offline=True, say=lambda _: None)
    if dataset.name == "digits":
        return None, "scikit-learn's digits (MNIST is not on this machine)"
    for name, array in (
        ("train-images-idx3-ubyte", dataset.train_images[:TRAIN_IMAGES]),
        ("train-labels-idx1-ubyte", dataset.train_labels[:TRAIN_IMAGES]),
        ("t10k-images-idx3-ubyte", dataset.test_images[:TEST_IMAGES]),
        ("t10k-labels-idx1-ubyte", dataset.test_labels[:TEST_IMAGES]),
    ):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / name).write_bytes(header + array.astype(np.uint8).tobytes())
    found = f"the first {min(TRAIN_IMAGES, len(dataset.train_labels)):,} and {TEST_IMAGES} images of {dataset.name}"
    return str(folder), found


def start_probe(
    tree: Tree, kernel: str, threads: int, data_dir: str | None, steps: int, only: str | None
) -> subprocess.Popen[str]:
    """The probe of a tree, under way."""
    flags = {"kernel": kernel, "threads": threads, "steps": steps, "data-dir": data_dir, "only": only}
    given = [text for flag, value in flags.items() if value is not None for text in (f"--{flag}", str(value))]
    return subprocess.Popen(
        [sys.executable, str(tree.path / "benchmarks" / "probe.py"), *given],
        cwd=tree.path,
        env={**environment(threads), "PYTHONPATH": python_path(tree.path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_probe(tree: Tree, process: subprocess.Popen[str]) -> Sums:
    """What a probe found: {name: {"parameters": SHA-256, ...}}.  Raises RuntimeError where it ended too early."""
    try:
        printed, complaints = process.communicate(timeout=PROBE_LIMIT)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{tree}: the probe did not end within {PROBE_LIMIT} s") from None
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    if not lines or lines[-1] != {"done": True}:
        said = complaints.strip().splitlines()[-1:] or ["nothing on stderr"]
        raise RuntimeError(f"{tree}: the probe ended early (status {process.returncode}): {said[0]}")
    head, *records, _ = lines
    if not Path(head["lstm_np"]).resolve().is_relative_to(tree.path):
        raise RuntimeError(f"{tree}: the probe imported another lstm_np, {head['lstm_np']}")
    return {record.pop("name"): record for record in records}


def differences(ours: Mapping[str, Mapping[str, str]], theirs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """{name: what is different}, for what is; what both trees fail at alike is none."""
    found = {}
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        a, b = ours.get(name), theirs.get(name)
        if a is None or b is None:
            found[name] = "only in this tree" if b is None else "not in this tree"
        elif "error" in a or "error" in b:
            if a != b:
                found[name] = f"this tree: {a.get('error', 'works')}; the commit: {b.get('error', 'works')}"
        elif parts := [part for part in {**a, **b} if a.get(part) != b.get(part)]:
            found[name] = ", ".join(parts)
    return found


def sums_of(trees: Sequence[Tree], *setting: Any) -> list[Sums]:
    """The sums of each tree; on one core each the probes run side by side, since nothing is timed here."""
    _, threads, *_ = setting
    at_once = max(1, machine.available_cores() // threads)
    found: list[Sums] = []
    for first in range(0, len(trees), at_once):
        group = trees[first : first + at_once]
        running: list[subprocess.Popen[str]] = []
        try:
            for tree in group:
                running.append(start_probe(tree, *setting))
            found += [read_probe(tree, process) for tree, process in zip(group, running, strict=True)]
        finally:
            for process in running:
                process.kill()
                process.wait()
    return found


def compare_sums(ours: Tree, theirs: Tree, data_dir: str | None, steps: int, only: str | None) -> dict[str, Any]:
    """Both trees' sums under every kernel and number of cores, and where they differ.

    Raises RuntimeError where a probe fails as a whole, IDXError for a named folder that does not hold MNIST.
    """
    available = machine.available_cores()
    with tempfile.TemporaryDirectory(prefix="lstm_np-compare-data-") as folder:
        written, data = write_data(Path(folder), data_dir)
        document: dict[str, Any] = {"data": data, "steps": steps, "settings": []}
        for kernel, threads in SETTINGS:
            if threads > available:
                print(f"left out: {threads} threads, since this machine lets a process use {available} core(s)")
                continue
            a, b = sums_of([ours, theirs], kernel, threads, written, steps, only)
            found, tried = differences(a, b), len({**a, **b})
            failed = sum("error" in record for record in a.values())
            setting = {"kernel": kernel, "threads": threads, "tried": tried, "differ": found, "this": a, "commit": b}
            document["settings"].append(setting)
            words = "the same bits" if not found else f"DIFFERENT in {len(found)}"
            also = f", {failed} of them fail in this tree" if failed else ""
            print(f"kernel {kernel}, {threads} thread(s): {tried} tried{also}, {words}", flush=True)
            for name, parts in found.items():
                print(f"  {name}: {parts}", flush=True)
    document["equal"] = all(not setting["differ"] for setting in document["settings"])
    return document


# ---- the command


def run(arguments: argparse.Namespace) -> int:
    """Compare, print, and write the result file where one is asked for.

    The exit status: 0 where no bit differs and no case is slower by more than 2 %, 1 where one is, or may be.
    """
    cases = [case for text in arguments.cases or () for case in workloads.parse_case(text)] or list(pairs.CASES)
    ours = this_tree()
    document: dict[str, Any] = machine.header("compare", arguments.threads)
    good = True
    with laid_out(arguments.commit) as theirs:
        document["other"] = {"commit": theirs.commit, "borrowed": theirs.borrowed}
        print(f"{ours} against {theirs}" + (", with this tree's benchmarks" if theirs.borrowed else ""), flush=True)
        if not arguments.race_only:
            document["sums"] = compare_sums(ours, theirs, arguments.data_dir, arguments.steps, arguments.only)
            print(f"data: {document['sums']['data']}; {arguments.steps} steps of each recipe", flush=True)
            good = document["sums"]["equal"]
        if not arguments.hashes_only:
            document["race"] = pairs.race(ours, theirs, cases, arguments.pairs, arguments.threads)
            good = good and document["race"]["good"]
            if any(record.get("verdict", "").startswith("says nothing") for record in document["race"]["cases"]):
                print("an interval is wider than 4 %: repeat it, on a quieter machine or with more --pairs")
    if arguments.out is not None:
        print(f"written: {results.write(document, arguments.out)}")
    if arguments.json:
        print(json.dumps(document))
    return 0 if good else 1
