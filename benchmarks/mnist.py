"""`python -m benchmarks mnist`: whole trainings of LSTM + dense read-out on MNIST, ours against PyTorch's.

Both start from the same weights and see the same batches (drawn here, handed over in a file), take epochs in turn,
each under both allocators, and classify the test images after each.  PyTorch's script is the fast kind: the images
lie in memory as one uint8 tensor and a batch is one indexing operation (a `DataLoader` with workers is slower).
Seconds are those of the trainings; what it takes to start and to evaluate is stated beside them.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, results
from benchmarks.figures import spread
from benchmarks.processes import ALLOCATORS, Racer
from benchmarks.race import compare_times

CONTESTANTS = {"ours": "mnist-ours", "torch": "mnist-torch"}
BATCH = 128


def write_task(path: Path, dataset: Any, epochs: int, seed: int, H: int) -> None:
    """One training as a file: images, labels, the order of every epoch, initial weights in our names."""
    import lstm_np
    from lstm_np import streams

    model = lstm_np.SequenceClassifier(dataset.train_images.shape[2], H, dataset.num_classes, seed=seed)
    N = len(dataset.train_labels)
    arrays = {
        "train_images": dataset.train_images,
        "train_labels": dataset.train_labels,
        "test_images": dataset.test_images,
        "test_labels": dataset.test_labels,
        "seed": np.array(seed),
        # the orders that `Batches` draws from this seed
        "orders": np.stack([streams.permutation(N, seed, "shuffle", epoch) for epoch in range(epochs)]),
        **{f"weights/{name}": array for name, array in model.params.items()},
    }
    np.savez(path, allow_pickle=False, **arrays)


def run(arguments: argparse.Namespace, pythons: Mapping[str, str]) -> int:
    """Race, print, write the result file; the exit status."""
    from lstm_np.data import load_dataset

    dataset = load_dataset("mnist", arguments.data_dir, explicit=True)
    if arguments.limit_train is not None:
        n = arguments.limit_train
        dataset = replace(
            dataset, train_images=dataset.train_images[:n], train_labels=dataset.train_labels[:n], verified=False
        )
    document = machine.header("mnist", arguments.threads)
    document |= {
        "dataset": dataset.name, "verified": dataset.verified, "train_images": len(dataset.train_labels),
        "hidden_size": arguments.hidden_size,
        "batch_size": BATCH, "epochs": arguments.epochs, "contestants": {}, "trainings": [],
    }  # fmt: skip
    who = ["ours"] + ([arguments.peer] if arguments.peer != "none" else [])
    with tempfile.TemporaryDirectory(prefix="lstm_np-mnist-") as folder, ExitStack() as stack:
        racers = {}
        for name, allocator in itertools.product(who, ALLOCATORS):
            python = pythons.get(name, sys.executable)
            racer = Racer(CONTESTANTS[name], arguments.threads, python, allocator=allocator)
            racers[name, allocator] = stack.enter_context(racer)
            document["contestants"][name] = racer.ask("describe")
        for seed in range(arguments.seeds):
            task = Path(folder) / "task.npz"
            write_task(task, dataset, arguments.epochs, seed, arguments.hidden_size)
            document["trainings"].append(train_once(seed, task, arguments.epochs, racers))
    document["summary"] = summarise(document, who)
    path = results.write(document, arguments.out)
    print(f"written: {path}")
    for name, summary in document["summary"].items():
        ratio = summary.get("ratio")
        words = "" if ratio is None else f" ({ratio['median']:.2f} and {ratio['best']:.2f} times ours)"
        print(
            f"{name}: median epoch {summary['median']:.2f} s, best {summary['best']:.2f} s{words}; test accuracy "
            f"{summary['accuracy_mean']:.4f} ({', '.join(f'{accuracy:.4f}' for accuracy in summary['accuracies'])})"
        )
    return 0


def train_once(seed: int, task: Path, epochs: int, racers: Mapping[tuple[str, str], Racer]) -> dict[str, Any]:
    """One training by every process, epoch by epoch in turn: {"seed", "results": {name: {allocator: {"epochs"}}}}."""
    found: dict[str, dict[str, Any]] = {}
    for (name, allocator), racer in racers.items():
        began = racer.ask("begin", path=str(task))
        found.setdefault(name, {})[allocator] = {"start_seconds": began["seconds"], "epochs": []}
    for epoch in range(epochs):
        for (name, allocator), racer in racers.items():
            told = one_epoch(racer, epoch)
            found[name][allocator]["epochs"].append(told)
            print(
                f"seed {seed} epoch {epoch + 1:>2} {name:>6} ({allocator:<7}): {told['seconds']:7.2f} s, "
                f"loss {told['loss']:.4f}, test accuracy {told['accuracy']:.4f}",
                flush=True,
            )
    return {"seed": seed, "results": found}


def one_epoch(racer: Racer, epoch: int) -> dict[str, Any]:
    """What an epoch took and gave."""
    return racer.ask("epoch", epoch=epoch, timeout=3600)


def summarise(document: dict[str, Any], who: list[str]) -> dict[str, dict[str, Any]]:
    """Per contestant the seconds of an epoch and the final accuracies; of the peer its ratio to ours.

    The ratio is that of a race: the peer's better time, of the medians and of the best epochs, over ours under the
    default.  Accuracies are those under the default: the allocator changes none.
    """
    times: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in who}
    summary: dict[str, dict[str, Any]] = {}
    for name in who:
        runs = {a: [training["results"][name][a]["epochs"] for training in document["trainings"]] for a in ALLOCATORS}
        for allocator, trainings in runs.items():
            seconds = [epoch["seconds"] for epochs in trainings for epoch in epochs]
            times[name][allocator] = {**asdict(spread(seconds)), "rounds": seconds}
        accuracies = [epochs[-1]["accuracy"] for epochs in runs["default"]]
        compared = {} if name == "ours" else compare_times(times["ours"], times[name])
        better = compared.get("better", {"median": "default", "best": "default"})
        summary[name] = {
            **{kind: times[name][setting][kind] for kind, setting in better.items()},
            **compared,
            "settings": {a: {k: v for k, v in found.items() if k != "rounds"} for a, found in times[name].items()},
            "accuracies": accuracies,
            "accuracy_mean": sum(accuracies) / len(accuracies),
        }
    return summary
