"""The parts of a GPU run, each in a process of its own with a limit of its own, and what they found in few lines."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import machine, results
from benchmarks.figures import geometric_mean, in_words
from benchmarks.gpu.race import PEERS, race, race_cases
from benchmarks.processes import ROOT, python_path

PARTS = {"conformance": 100, "gradients": 40, "device_step": 40, "mnist": 50, "race": 420}  # most seconds of each


def run_part(name: str, data_dir: str | None, budget: float) -> int:
    """Run one part here, a JSON line per record."""
    import lstm_np
    from benchmarks.gpu import checks

    records: Iterator[dict[str, Any]]
    if name == "race":
        records = race(budget, race_cases())
    else:
        backend = lstm_np.get_backend("cupy")
        records = checks.mnist(backend, data_dir) if name == "mnist" else getattr(checks, name)(backend)
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
    cases = [r["case"] for r in document["parts"].get("race", {}).get("records", []) if "case" in r]
    peers = [peer for peer in PEERS if any(peer in case["results"] for case in cases)]
    if cases:
        lines.append(f"{'':<26} {'ours':>9}" + "".join(f" {peer.removeprefix('gpu-'):>19}" for peer in peers))
    measured: dict[str, list[float]] = {}
    for case in cases:
        text = f"{results.case_of(case)!s:<26} {in_words(case['results']['gpu-ours']['median']):>9}"
        for peer in peers:
            result = case["results"].get(peer, {})
            if "ratio" in result:
                measured.setdefault(peer, []).append(result["ratio"])
                text += f" {in_words(result['median']):>12} ({result['ratio']:4.1f})"
            else:
                text += f" {'-':>19}"
        lines.append(text)
    for peer, ratios in measured.items():
        lines.append(
            f"{peer}: geometric mean of their time / ours {geometric_mean(ratios):.2f} over {len(ratios)} cases, "
            f"worst {min(ratios):.2f}"
        )
    return lines
