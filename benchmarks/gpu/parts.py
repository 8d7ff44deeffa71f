"""The parts of a GPU run, each in a process of its own with a limit of its own, and what they found in few lines."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import machine, results
from benchmarks.figures import geometric_mean, in_words
from benchmarks.gpu import sanitizer
from benchmarks.gpu.race import race
from benchmarks.gpu.sizes import FULL, SMALL, PartSizes
from benchmarks.processes import ROOT, python_path

Record = dict[str, Any]

# most seconds of each, in the order in which they say most for the time that they take; the first two minutes, which
# may be all that there is, go up to the microseconds of each launch
PARTS = {
    "latencies": 12, "sanitizer": 36, "conformance": 30, "device_step": 17, "launches": 25, "variants": 75,
    "mnist": 50, "race": 200, "gradients": 60, "more_conformance": 75, "rest": 420,
}  # fmt: skip
HIDDEN_PARTS = ("checked_steps",)  # run by other parts
LEAST = 5  # seconds; a part that has fewer left is not begun


def run_part(name: str, data_dir: str | None, budget: float, *, small: bool) -> int:
    """Run one part here, a JSON line per record."""
    for record in records_of(name, data_dir, budget, SMALL if small else FULL, small=small):
        print(json.dumps(record), flush=True)
    return 0


def records_of(name: str, data_dir: str | None, budget: float, sizes: PartSizes, *, small: bool) -> Iterator[Record]:
    """What a part finds."""
    if name == "sanitizer":
        return sanitizer.runs(budget, ["--small"] if small else [])
    if name == "race":
        return race(budget, sizes.race, sizes.race_peers, sizes.pace)
    if name == "rest":
        return race(budget, sizes.rest, sizes.rest_peers, sizes.pace)
    import lstm_np
    from benchmarks.gpu import checks, kernels

    backend = lstm_np.get_backend("cupy")
    if name == "mnist":
        return checks.mnist(backend, sizes, data_dir)
    found: Iterator[Record] = getattr(checks if hasattr(checks, name) else kernels, name)(backend, sizes)
    return found


def watch_part(
    command: Sequence[str], limit: float, on_record: Callable[[Record], None] = lambda record: None
) -> Record:
    """Run a part's process: {"status": "done", "failed" or "out of time", "records", "seconds", "error"}.

    on_record  called with each record when it comes
    """
    records: list[Record] = []
    started, pending = time.monotonic(), b""
    environment = {**os.environ, "PYTHONPATH": python_path()}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    complaints = b""
    status = "failed"
    streams = [process.stdout, process.stderr]
    try:
        while streams:
            left = started + limit - time.monotonic()
            ready, _, _ = select.select(streams, [], [], max(0.0, left))
            if not ready:
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
                    for line in lines:
                        if line.startswith(b"{"):
                            records.append(json.loads(line))
                            on_record(records[-1])
    finally:  # also where somebody ends the whole run
        if streams:
            _end(process)
        ended = process.wait()
        for pipe in (process.stdout, process.stderr):
            pipe.close()
    if ended == 0 and status == "failed":
        status = "done"
    text = complaints.decode(errors="replace").strip()
    error = None if status == "done" else text[-1500:]
    return {"status": status, "seconds": time.monotonic() - started, "error": error, "records": records}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part's process and all that it has started, which are a session of their own."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


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


def short_table(document: Record) -> list[str]:
    """What a reader wants to know, in few lines."""
    lines = [f"{document['gpu']['name']}, driver {document['gpu']['driver']}, CuPy {document['gpu']['cupy']}"]
    for name, part in document["parts"].items():
        checked = [record for record in part["records"] if "ok" in record]
        right = f", {sum(record['ok'] for record in checked)} of {len(checked)} right" if checked else ""
        clock = part.get("sm_clock_mhz")
        at = f", {clock['median']} MHz" if clock else ""
        lines.append(f"{name}: {part['status']} in {part['seconds']:.0f} s{right}{at}")
        if part["error"]:
            lines.append(f"  {part['error'].splitlines()[-1][:200]}")
        lines += [f"  {record['skipped']}" for record in part["records"] if "skipped" in record]
        for why in sorted({r["own_products_because"] for r in part["records"] if r.get("own_products_because")}):
            lines.append(f"  no cuBLAS, products are our own kernels: {why}")
        for why in sorted({r["no_graph_because"] for r in part["records"] if r.get("no_graph_because")}):
            lines.append(f"  no graph: {why}")
    lines += _steps(document) + _variants(document) + _mnist(document) + _races(document)
    return lines


def _records(document: Record, part: str) -> list[Record]:
    found: list[Record] = document["parts"].get(part, {}).get("records", [])
    return found


def _steps(document: Record) -> list[str]:
    """The launches of each step in microseconds."""
    steps: dict[tuple[int, int, int], list[str]] = {}
    for record in _records(document, "launches"):
        steps.setdefault((record["B"], record["H"], record["T"]), []).append(f"{record['stage']} {record['us']:.1f}")
    return [f"step B={B} H={H} T={T}, us: {', '.join(stages)}" for (B, H, T), stages in steps.items()]


def _variants(document: Record) -> list[str]:
    """The fastest mapping of each direction beside the planned one, which comes first."""
    found: dict[tuple[str, int], list[Record]] = {}
    for record in _records(document, "variants"):
        if record["variant"] in ("forward", "backward") and record.get("ok"):
            found.setdefault((record["variant"], record["H"]), []).append(record)
    lines = []
    for (direction, H), records in found.items():
        best = min(records, key=lambda record: record["us"])
        how = ", ".join(
            f"{name} {best[name]}" for name in ("lanes", "units", "kept", "samples", "CHUNK_ORDER") if name in best
        )
        lines.append(f"{direction} H={H}: planned {records[0]['us']:.1f} us, best {best['us']:.1f} us ({how})")
    return lines


def _mnist(document: Record) -> list[str]:
    records = _records(document, "mnist")
    epochs = [record for record in records if "epoch" in record]
    if not epochs:
        return []
    tested = [record["test_accuracy"] for record in records if "test_accuracy" in record]
    accuracy = f", test accuracy {tested[0]:.4f}" if tested and epochs[0]["data"] == "MNIST" else ""
    fastest = in_words(min(record["seconds"] for record in epochs))
    measured = in_words(min(record["test_seconds"] for record in epochs))
    return [
        f"MNIST epoch ({epochs[0]['data']}): {fastest}, measured in {measured}{accuracy} after {len(epochs)} epochs"
    ]


def _races(document: Record) -> list[str]:
    """The cases of both races, and the geometric means."""
    cases = [r["case"] for part in ("race", "rest") for r in _records(document, part) if "case" in r]
    cases = [case for case in cases if "settings" in case["results"].get("gpu-ours", {})]
    if not cases:
        return []
    peers = list(dict.fromkeys(name for case in cases for name in case["results"] if name != "gpu-ours"))
    lines = [f"{'':<26} {'ours':>9}" + "".join(f" {peer.removeprefix('gpu-'):>19}" for peer in peers)]
    measured: dict[str, list[float]] = {}
    for case in cases:
        text = f"{results.case_of(case)!s:<26} {in_words(results.time_of(case, 'gpu-ours', 'median')):>9}"
        for peer in peers:
            result = case["results"].get(peer, {})
            if "ratio" in result:
                measured.setdefault(peer, []).append(result["ratio"]["median"])
                text += f" {in_words(results.time_of(case, peer, 'median')):>12} ({result['ratio']['median']:4.1f})"
            else:
                text += f" {'-':>19}"
        lines.append(text)
    for peer, ratios in measured.items():
        lines.append(
            f"{peer}: geometric mean of their time / ours {geometric_mean(ratios):.2f} over {len(ratios)} cases, "
            f"worst {min(ratios):.2f}"
        )
    return lines
