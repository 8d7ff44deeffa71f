"""`python -m benchmarks.gpu [--out FOLDER]`: everything there is to know of a GPU, within eight minutes.

Checks first (kernels, gradients, the device step's loss curve), then MNIST, then the race against PyTorch and JAX.
Each part runs in a process of its own with a limit of its own: one that fails, hangs or breaks the device is recorded
with its error, and the others go on.  The result file is written after every part.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, results
from benchmarks.__main__ import Parser, at_least_one
from benchmarks.figures import geometric_mean, in_words
from benchmarks.processes import ROOT, ContestantError, Racer, python_path
from benchmarks.race import Pace, race_cell
from benchmarks.workloads import Cell

PARTS = {"conformance": 100, "gradients": 40, "device_step": 40, "mnist": 50, "race": 420}  # most seconds of each
BUDGET = 470  # seconds for all
PEERS = ("gpu-torch", "gpu-torch-graph", "gpu-torch-tf32", "gpu-torch-graph-tf32", "gpu-jax")
PACE = Pace(rounds=5, slot=0.02)


def race_cells() -> list[Cell]:
    """The cells, those that matter most first: time may run out."""
    B_sizes, H_sizes = (128, 32, 512, 1), (128, 512, 256, 64, 1024)
    cells = [Cell("train", B, H, T) for T in (28, 784) for B in B_sizes for H in H_sizes]
    return cells + [Cell("infer", B, H) for B in (1, 128) for H in (128, 512)]


def race(budget: float, cells: Sequence[Cell], peers: Sequence[str] = PEERS) -> Iterator[dict[str, Any]]:
    """A record per contestant and per cell, until the time is over."""
    ends = time.monotonic() + budget - 10
    with Racer("gpu-ours", 2, gpu=True) as ours:
        yield {"contestant": "gpu-ours", **ours.ask("describe", timeout=60)}
        racers = []
        for name in peers:
            racer = Racer(name, 2, gpu=True)
            try:
                yield {"contestant": name, **racer.ask("describe", timeout=60)}
                racers.append(racer)
            except ContestantError as error:
                racer.close()
                yield {"contestant": name, "missing": str(error)}
        try:
            for cell in cells:
                if time.monotonic() > ends:
                    yield {"left_out": str(cell), "reason": "no time left"}
                    continue
                try:
                    yield {"cell": race_cell(cell, ours, racers, PACE)}
                except ContestantError as error:
                    yield {"left_out": str(cell), "reason": str(error)}
                    racers = [racer for racer in racers if racer.alive]
                    if not ours.alive:
                        return
        finally:
            for racer in racers:
                racer.close()


def run_part(name: str, data_dir: str | None, budget: float) -> int:
    """Run one part here, a JSON line per record."""
    import lstm_np
    from benchmarks import gpu_checks

    records: Iterator[dict[str, Any]]
    if name == "race":
        records = race(budget, race_cells())
    else:
        backend = lstm_np.get_backend("cupy")
        records = gpu_checks.mnist(backend, data_dir) if name == "mnist" else getattr(gpu_checks, name)(backend)
    for record in records:
        print(json.dumps(record), flush=True)
    return 0


def watch_part(command: Sequence[str], limit: float) -> dict[str, Any]:
    """Run a part's process: {"status": "done", "failed" or "out of time", "records", "seconds", "error"}."""
    started, records, pending = time.monotonic(), [], b""
    environment = {**os.environ, "PYTHONPATH": python_path()}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment)
    assert process.stdout is not None
    assert process.stderr is not None
    complaints = b""
    status = "failed"
    streams = [process.stdout, process.stderr]
    while streams:
        left = started + limit - time.monotonic()
        ready, _, _ = select.select(streams, [], [], max(0.0, left))
        if not ready:
            process.kill()
            status = "out of time"
            break
        for stream in ready:
            part = os.read(stream.fileno(), 1 << 16)
            if not part:
                streams.remove(stream)
            elif stream is process.stderr:
                complaints = (complaints + part)[-4000:]
            else:
                *lines, pending = (pending + part).split(b"\n")
                records += [json.loads(line) for line in lines if line.startswith(b"{")]
    if process.wait() == 0 and status == "failed":
        status = "done"
    for pipe in (process.stdout, process.stderr):
        pipe.close()
    text = complaints.decode(errors="replace").strip()
    error = None if status == "done" else text[-1500:]
    return {"status": status, "seconds": time.monotonic() - started, "error": error, "records": records}


def device() -> dict[str, Any]:
    """Name, driver, CUDA and versions of the GPU in use."""
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    driver = None
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        driver = f"CUDA {runtime.driverGetVersion()}"
    return {
        "name": properties["name"].decode(), "capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"], "driver": driver, "cuda": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__, "torch": machine.version_of("torch"), "jax": machine.version_of("jax"),
    }  # fmt: skip


def short_table(document: dict[str, Any]) -> list[str]:
    """What a reader wants to know, in few lines."""
    lines = [f"{document['gpu']['name']}, driver {document['gpu']['driver']}, CuPy {document['gpu']['cupy']}"]
    for name, part in document["parts"].items():
        checked = [record for record in part["records"] if "ok" in record]
        right = f", {sum(record['ok'] for record in checked)} of {len(checked)} right" if checked else ""
        lines.append(f"{name}: {part['status']} in {part['seconds']:.0f} s{right}")
        if part["error"]:
            lines.append(f"  {part['error'].splitlines()[-1][:200]}")
    epochs = [r for r in document["parts"].get("mnist", {}).get("records", []) if "epoch" in r]
    if epochs:
        tested = [r["test_accuracy"] for r in document["parts"]["mnist"]["records"] if "test_accuracy" in r]
        accuracy = f", test accuracy {tested[0]:.4f}" if tested else ""
        fastest = min(record["seconds"] for record in epochs)
        lines.append(f"MNIST epoch ({epochs[0]['data']}): {in_words(fastest)}{accuracy} after {len(epochs)} epochs")
    cells = [r["cell"] for r in document["parts"].get("race", {}).get("records", []) if "cell" in r]
    peers = [peer for peer in PEERS if any(peer in cell["results"] for cell in cells)]
    if cells:
        lines.append(f"{'':<26} {'ours':>9}" + "".join(f" {peer.removeprefix('gpu-'):>19}" for peer in peers))
    measured: dict[str, list[float]] = {}
    for cell in cells:
        text = f"{results.cell_of(cell)!s:<26} {in_words(cell['results']['gpu-ours']['median']):>9}"
        for peer in peers:
            result = cell["results"].get(peer, {})
            if "ratio" in result:
                measured.setdefault(peer, []).append(result["ratio"])
                text += f" {in_words(result['median']):>12} ({result['ratio']:4.1f})"
            else:
                text += f" {'-':>19}"
        lines.append(text)
    for peer, ratios in measured.items():
        lines.append(
            f"{peer}: geometric mean of their time / ours {geometric_mean(ratios):.2f} over {len(ratios)} cells, "
            f"worst {min(ratios):.2f}"
        )
    return lines


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
