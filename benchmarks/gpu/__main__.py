"""`python -m benchmarks.gpu [--out FOLDER]`: everything there is to know of a GPU, within ten minutes.

What says most for its time comes first: the latencies of the card, small steps under a sanitizer, checks of kernels
and steps, microseconds of every launch, variants of the launch plan, MNIST, the race against graphed PyTorch, the rest.
Each part runs in a process of its own with a limit of its own: one that fails, hangs or breaks the device is recorded
with its error, and the others go on.  The result file is written with every record that comes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import machine, results
from benchmarks.flags import Parser, at_least_one
from benchmarks.gpu.clock import ClockLog
from benchmarks.gpu.parts import HIDDEN_PARTS, LEAST, PARTS, device, run_part, short_table, watch_part
from lstm_np.files import expand

BUDGET = 580  # seconds for all
BETWEEN_WRITES = 1.0  # seconds


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", help="folder for gpu.json (also written to benchmarks/results where that can be)")
    parser.add_argument("--data-dir", default=os.environ.get("LSTM_NP_DATA"), help="folder with the four MNIST files")
    parser.add_argument("--budget", type=at_least_one, default=BUDGET, help=f"seconds for all (default {BUDGET})")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--small", action="store_true", help="sizes that take moments: does everything run?")
    parser.add_argument("--part", choices=(*PARTS, *HIDDEN_PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--commit", help="the revision measured, where there is no repository to ask")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run all parts; the exit status: 0 all went through and all was right, 1 not, 2 there is no GPU or no folder."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    wanted = arguments.parts.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    if arguments.part:
        return run_part(arguments.part, arguments.data_dir, arguments.budget, small=arguments.small)
    try:
        import lstm_np

        lstm_np.get_backend("cupy")
        document = {**machine.header("gpu", 2), "gpu": device(), "small": arguments.small, "parts": {}}
        if arguments.commit:
            document |= {"commit": arguments.commit, "changed": None}
        write = _writer(document, arguments.out)
    except (ImportError, RuntimeError, OSError) as error:
        print(f"benchmarks.gpu: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    # a run that is cut short ends its part's processes and says what it has
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        _run_all(document, wanted, arguments, write)
    finally:
        signal.signal(signal.SIGTERM, before)
        print("\n".join(short_table(document)), flush=True)
    parts = document["parts"].values()
    wrong = [record for part in parts for record in part["records"] if record.get("ok") is False]
    return 1 if wrong or any(part["status"] == "failed" for part in parts) else 0


def _run_all(document: dict[str, Any], wanted: Sequence[str], arguments: argparse.Namespace, write: Any) -> None:
    ends, clock, flags = time.monotonic() + arguments.budget, ClockLog(), _flags(arguments)
    try:
        for name in wanted:
            limit = min(PARTS[name], ends - time.monotonic())
            part: dict[str, Any] = {"status": "out of time", "seconds": 0.0, "error": None, "records": []}
            document["parts"][name] = part
            if limit < LEAST:
                continue
            part["status"] = "running"

            def on_record(record: dict[str, Any], part: dict[str, Any] = part) -> None:
                record["sm_mhz"] = clock.now
                part["records"].append(record)
                write(BETWEEN_WRITES)

            clock.since_last()
            command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--budget", str(int(limit)), *flags]
            document["parts"][name] = {**watch_part(command, limit, on_record), "sm_clock_mhz": clock.since_last()}
            print(f"{name}: {document['parts'][name]['status']}", flush=True)
            write(0.0)
    finally:
        clock.close()
        write(0.0)


def _flags(arguments: argparse.Namespace) -> list[str]:
    """What a part's process must know."""
    flags = ["--small"] if arguments.small else []
    return flags if arguments.data_dir is None else [*flags, "--data-dir", str(expand(arguments.data_dir).resolve())]


def _writer(document: dict[str, Any], out: str | None) -> Callable[[float], None]:
    """A function that writes the document if that was last done so many seconds ago.

    It goes to `out` first, and to the repository's folder of results where that can be written.  Writes at once, and
    raises OSError where it cannot be written anywhere that was asked for.
    """
    folders: list[str | None] = [None] if out is None else [out, None]
    results.write(document, folders[0])
    if out is not None:
        try:
            results.write(document, None)
        except OSError as error:
            print(f"benchmarks.gpu: only {out} is written ({error})", file=sys.stderr)
            folders.pop()
    last = time.monotonic()

    def write(seconds: float) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            for folder in folders:
                results.write(document, folder)
            last = time.monotonic()

    return write


if __name__ == "__main__":
    sys.exit(main())
