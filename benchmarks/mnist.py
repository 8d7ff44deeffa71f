"""`python -m benchmarks mnist`: whole trainings of LSTM + dense read-out on MNIST, ours against PyTorch's.

Both start from the same weights and see the same batches (drawn here, handed over in a file), take epochs in turn,
and classify the test images after each.  PyTorch's script is the fast kind: the images lie in memory as one uint8
tensor and a batch is one indexing operation (a `DataLoader` with workers is slower).  Seconds are those of the
trainings; what it takes to start and to evaluate is stated beside them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, results
from benchmarks.figures import spread
from benchmarks.processes import Racer

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
    from dataclasses import replace

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
        for name in who:
            racer = Racer(CONTESTANTS[name], arguments.threads, pythons.get(name, sys.executable))
            racers[name] = stack.enter_context(racer)
            document["contestants"][name] = racers[name].ask("describe")
        for seed in range(arguments.seeds):
            task = Path(folder) / "task.npz"
            write_task(task, dataset, arguments.epochs, seed, arguments.hidden_size)
            record: dict[str, Any] = {"seed": seed, "results": {name: {"epochs": []} for name in who}}
            for name, racer in racers.items():
                record["results"][name]["start_seconds"] = racer.ask("begin", path=str(task))["seconds"]
            for epoch in range(arguments.epochs):
                for name, racer in racers.items():
                    told = racer.ask("epoch", epoch=epoch, timeout=3600)
                    record["results"][name]["epochs"].append(told)
                    print(
                        f"seed {seed} epoch {epoch + 1:>2} {name:>6}: {told['seconds']:7.2f} s, "
                        f"loss {told['loss']:.4f}, test accuracy {told['accuracy']:.4f}",
                        flush=True,
                    )
            document["trainings"].append(record)
    document["summary"] = summarise(document, who)
    path = results.write(document, arguments.out)
    print(f"written: {path}")
    for name, summary in document["summary"].items():
        ratio = "" if name == "ours" else f", {summary['ratio']:.2f} times ours"
        print(
            f"{name}: {summary['seconds']:.1f} s for {arguments.epochs} epochs (mean of {arguments.seeds} trainings; "
            f"median epoch {summary['epoch_median']:.2f} s{ratio}); test accuracy {summary['accuracy_mean']:.4f} "
            f"({', '.join(f'{accuracy:.4f}' for accuracy in summary['accuracies'])})"
        )
    return 0


def summarise(document: dict[str, Any], who: list[str]) -> dict[str, dict[str, Any]]:
    """Per contestant: seconds of a training (mean), median epoch, final accuracies; the peer's ratio to ours.

    The ratio is that of the medians: an epoch that the machine interrupted would rule a mean.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name in who:
        runs = [training["results"][name]["epochs"] for training in document["trainings"]]
        accuracies = [epochs[-1]["accuracy"] for epochs in runs]
        summary[name] = {
            "seconds": sum(epoch["seconds"] for epochs in runs for epoch in epochs) / len(runs),
            "epoch_median": spread([epoch["seconds"] for epochs in runs for epoch in epochs]).median,
            "accuracies": accuracies,
            "accuracy_mean": sum(accuracies) / len(accuracies),
        }
        summary[name]["ratio"] = summary[name]["epoch_median"] / summary["ours"]["epoch_median"]
    return summary
