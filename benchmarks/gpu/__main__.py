"""`python -m benchmarks.gpu [--out FOLDER]`: everything there is to know of a GPU, within eight minutes.

Checks first (kernels, gradients, the device step's loss curve), then MNIST, then the race against PyTorch and JAX.
Each part runs in a process of its own with a limit of its own: one that fails, hangs or breaks the device is recorded
with its error, and the others go on.  The result file is written after every part.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, results
from benchmarks.flags import Parser, at_least_one
from benchmarks.gpu.parts import PARTS, device, run_part, short_table, watch_part

BUDGET = 470  # seconds for all


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", help="folder for gpu.json (also written to benchmarks/results)")
    parser.add_argument("--data-dir", default=os.environ.get("LSTM_NP_DATA"), help="folder with the four MNIST files")
    parser.add_argument("--budget", type=at_least_one, default=BUDGET, help=f"seconds for all (default {BUDGET})")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--commit", help="the revision measured, where there is no repository to ask")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run all parts; the exit status: 0 all went through and all was right, 1 not, 2 there is no GPU."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    wanted = arguments.parts.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    if arguments.part:
        return run_part(arguments.part, arguments.data_dir, arguments.budget)
    try:
        import lstm_np

        lstm_np.get_backend("cupy")
    except (ImportError, RuntimeError) as error:
        print(f"benchmarks.gpu: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    ends = time.monotonic() + arguments.budget
    document = {**machine.header("gpu", 2), "gpu": device(), "parts": {}}
    if arguments.commit:
        document |= {"commit": arguments.commit, "changed": None}
    for name in wanted:
        limit = min(PARTS[name], ends - time.monotonic())
        if limit < 15:
            document["parts"][name] = {"status": "out of time", "seconds": 0.0, "error": None, "records": []}
            continue
        command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--budget", str(int(limit))]
        document["parts"][name] = watch_part(command + _data(arguments.data_dir), limit)
        print(f"{name}: {document['parts'][name]['status']}", flush=True)
        _write(document, arguments.out)
    print("\n".join(short_table(document)))
    parts = document["parts"].values()
    wrong = [record for part in parts for record in part["records"] if record.get("ok") is False]
    return 1 if wrong or any(part["status"] == "failed" for part in parts) else 0


def _data(folder: str | None) -> list[str]:
    return [] if folder is None else ["--data-dir", str(Path(folder).resolve())]


def _write(document: dict[str, Any], out: str | None) -> None:
    results.write(document, None)
    if out is not None:
        results.write(document, out)


if __name__ == "__main__":
    sys.exit(main())
