"""The commands that measure ourselves: memory, scaling, ceilings, profile."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine, results
from benchmarks.figures import exponent, in_words, quantile
from benchmarks.flags import pythons_of
from benchmarks.processes import ALLOCATORS, ROOT, ContestantError, Racer
from benchmarks.race import Pace
from benchmarks.workloads import Case
from lstm_np.display.curves import HELD, INK, TRAIN, plain_axes
from lstm_np.files import expand

MIB = 1 << 20
WATCHED = 1.0  # seconds of steps during which the memory is looked at
MEMORY_CASES = (
    Case("train", 128, 128),
    Case("train", 128, 128, T=784),
    Case("train", 128, 512),
    Case("infer", 128, 128),
)
LENGTHS = (28, 56, 112, 224, 448, 784)
WIDTHS = (32, 64, 128, 256, 512, 1024)


def memory(arguments: argparse.Namespace) -> int:
    """Memory of all processes of a system while it makes steps, in processes of its own for each case and allocator.

    Ours also with the kernel that keeps less for the backward pass.
    """
    pythons = pythons_of(arguments.python_of)
    document = machine.header("memory", arguments.threads)
    document |= {"watched_seconds": WATCHED, "cases": []}
    who = ["ours", "ours-lean"] + ([arguments.peer] if arguments.peer != "none" else [])
    print(f"{'':<28} {'':<10} {'allocator':<10} {'at most':>11} {'before':>11} {'time per step':>14}")
    for case in MEMORY_CASES:
        for name, allocator in itertools.product(who, ALLOCATORS):
            if name == "ours-lean" and case.mode == "infer":
                continue
            record: dict[str, Any] = {"case": case.as_dict(), "name": name, "allocator": allocator}
            python = pythons.get(name, sys.executable)
            with Racer(name, arguments.threads, python, allocator=allocator) as racer:
                try:
                    record |= measure_memory(racer, case)
                    print(
                        f"{case!s:<28} {name:<10} {allocator:<10} {_mebibytes(record['peak']):>11} "
                        f"{_mebibytes(record['before']):>11} {in_words(record['seconds']):>14}",
                        flush=True,
                    )
                except ContestantError as error:
                    record["failed"] = str(error)
                    print(f"{case!s:<28} {name:<10} {allocator:<10} {error}")
            document["cases"].append(record)
    print(f"written: {results.write(document, arguments.out)}")
    return 0


def measure_memory(racer: Racer, case: Case, watched: float = WATCHED) -> dict[str, Any]:
    """{"before": with the packages imported, "peak": at most during steps (bytes), "looks", "processes", "seconds"}.

    Raises ContestantError where the contestant fails.
    """
    racer.ask("describe")
    before = racer.memory()
    racer.ask("prepare", case=case.as_dict())
    seconds = quantile(racer.ask("time", steps=3, warm=1)["seconds"], 0.5)
    racer.look_for_workers()
    peak, looks = racer.peak_memory(watched)
    return {"before": before, "peak": peak, "looks": looks, "processes": len(racer.pids), "seconds": seconds}


def _mebibytes(count: int | None) -> str:
    return "not told" if count is None else f"{count / MIB:.0f} MiB"


def scaling(arguments: argparse.Namespace) -> int:
    """Cost of a training step against T (B=32, H=128) and against H (B=128, T=28), with exponents and pictures."""
    document = machine.header("scaling", arguments.threads)
    series = {"T": [Case("train", 32, 128, T=T) for T in LENGTHS], "H": [Case("train", 128, H) for H in WIDTHS]}
    document["series"] = {}
    pace = Pace(rounds=5)
    with Racer("ours", arguments.threads) as racer:
        for name, cases in series.items():
            seconds = []
            for case in cases:
                racer.ask("prepare", case=case.as_dict())
                racer.ask("time", steps=1)
                timed, warm = pace.steps(racer.ask("time", steps=1)["seconds"][0])
                slots = [racer.ask("time", steps=timed, warm=warm)["seconds"] for _ in range(pace.rounds)]
                seconds.append(quantile([quantile(slot, 0.5) for slot in slots], 0.5))
                print(f"{case!s:<28} {in_words(seconds[-1]):>10}")
            sizes = [getattr(case, name) for case in cases]
            p = exponent(sizes, seconds)
            document["series"][name] = {"sizes": sizes, "seconds": seconds, "exponent": p}
            print(f"time grows as {name}^{p:.2f}")
    print(f"written: {results.write(document, arguments.out)}")
    if importlib.util.find_spec("matplotlib") is None:
        print("no pictures: matplotlib is not installed")
        return 0
    folder = expand(arguments.pictures) if arguments.pictures else ROOT / "docs" / "images"
    for name, fitted in document["series"].items():
        print(f"written: {draw(name, fitted, folder)}")
    return 0


def draw(name: str, fitted: dict[str, Any], folder: Path) -> Path:
    """cost-<name>.png: measured seconds against size, both logarithmic, with the fitted power."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"cost-{name.lower()}.png"
    figure = Figure(figsize=(4.5, 3.8), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    sizes, seconds, p = fitted["sizes"], fitted["seconds"], fitted["exponent"]
    middle = quantile([s / size**p for s, size in zip(seconds, sizes, strict=True)], 0.5)
    power = [1e3 * middle * size**p for size in sizes]
    axes.loglog(sizes, power, color=TRAIN, linewidth=1.8, label=f"proportional to ${name}^{{{p:.2f}}}$")
    axes.loglog(sizes, [1e3 * s for s in seconds], "o", color=HELD, markersize=5, label="measured")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel({"T": "time steps T (B=32, H=128)", "H": "hidden units H (B=128, T=28)"}[name], color=INK)
    axes.set_title("milliseconds per training step", loc="left", color=INK, fontsize=10)
    axes.legend(frameon=False, labelcolor=INK)
    plain_axes(axes)
    figure.savefig(path)
    return path


def ceilings(arguments: argparse.Namespace) -> int:
    """The machine's ceilings and our share of the lower bound, alternating with our own training step."""
    from benchmarks import ceilings as limits

    case = Case("train", 128, 128)
    document = machine.header("ceilings", arguments.threads)
    with Racer("ours", arguments.threads) as racer:
        racer.ask("prepare", case=case.as_dict())
        steps = racer.ask("time", steps=20, warm=5)["seconds"]
        document["ceilings"] = measured = limits.measure(case, arguments.threads)
        steps += racer.ask("time", steps=20, warm=5)["seconds"]
    step = quantile(steps, 0.5)
    bound = measured["lower_bound_seconds"]
    document |= {"step_seconds": step, "share_of_lower_bound": bound["total"] / step}
    for name in ("forward_product", "backward_product", "weights_product"):
        m, k, n = measured[name]["shape"]
        print(f"({m} x {k}) @ ({k} x {n}): {measured[name]['gflops']:.0f} GFLOP/s")
    print(f"tanh: {measured['tanh_ns_per_element']:.3f} ns per element with {arguments.threads} cores")
    print(f"memory: {measured['memory_gb_per_second']:.1f} GB/s copied (read and written)")
    print(
        f"{case}: lower bound {in_words(bound['total'])} (products {in_words(bound['products'])}, "
        f"tanh {in_words(bound['tanh'])}), measured {in_words(step)}: "
        f"{100 * document['share_of_lower_bound']:.0f} % of that speed"
    )
    print(f"written: {results.write(document, arguments.out)}")
    return 0


def bounds(arguments: argparse.Namespace) -> int:
    """The lower bound of every case of the race's result file that has none (with --again of all), written there."""
    from benchmarks import cpu

    document = results.read("cpu", arguments.out)
    if document["machine"]["cpu"] != machine.header("cpu", document["threads"])["machine"]["cpu"]:
        raise ValueError(f"the result file is from another processor, {document['machine']['cpu']}")
    for record in document["cases"]:
        if results.bound_of(record) is not None and not arguments.again:
            continue
        case = results.case_of(record)
        record["lower_bound"] = cpu.bound_of(case, document["threads"], sys.executable)
        results.write(document, arguments.out)
        ours = results.time_of(record, "ours", "median")
        bound = record["lower_bound"]["total"]
        print(f"{case!s:<43} {in_words(bound):>10} of {in_words(ours):>10}: {bound / ours:.0%}", flush=True)
    return 0


def profile(arguments: argparse.Namespace) -> int:
    """A training epoch by parts."""
    from benchmarks import epoch_profile

    document = machine.header("profile", arguments.threads)
    document["epoch"] = epoch = epoch_profile.measure(arguments.steps, arguments.threads)
    for name, seconds in sorted(epoch["parts"].items(), key=lambda part: -part[1]):
        per_step = in_words(seconds / epoch["steps"])
        print(f"{name:<22} {100 * seconds / epoch['seconds']:5.1f} %  {per_step:>9} per step")
    print(f"epoch of {epoch['steps']} steps: {in_words(epoch['seconds'])}")
    print(f"outside forward, backward and update: {100 * epoch['share_outside']:.1f} %")
    print(f"written: {results.write(document, arguments.out)}")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "memory": memory,
    "scaling": scaling,
    "ceilings": ceilings,
    "bounds": bounds,
    "profile": profile,
}
