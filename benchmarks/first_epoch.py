"""From a fresh start to a trained epoch: ``python -m benchmarks.first_epoch ours 2 IMAGES.npz``, a fresh process.

LSTM(128), batches of 128, Adam, over the whole batches of uint8 images (N, 28, 28) and labels in the file.  Every
contestant is built and stepped as in a race, the compilation that some of them need included.  Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

from benchmarks.contestant import make
from benchmarks.workloads import Case, make_weights

CASE = Case("train", 128, 128)


def main(name: str, threads: int, path: str) -> int:
    """Train an epoch; the exit status."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not the answer
    clock = time.perf_counter
    started = clock()
    contestant = make(name, threads)
    imported = clock()
    with np.load(path) as file:
        images, labels = file["images"], file["labels"]
    B = CASE.B
    starts = range(0, len(images) - B + 1, B)
    batches = [(images[k : k + B].astype(np.float32) / 255, labels[k : k + B]) for k in starts]
    contestant.build(CASE, make_weights(CASE), batches, contestant.adam)
    built = clock()
    for number in range(len(batches) - 1):
        contestant.step(number)
    loss = contestant.loss(len(batches) - 1)
    seconds = {"import": imported - started, "data and model": built - imported, "epoch": clock() - built}
    answers.write(json.dumps({"steps": len(batches), "loss": loss, "parts": seconds}) + "\n")
    answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
