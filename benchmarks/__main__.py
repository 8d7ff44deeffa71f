"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from benchmarks import results, workloads
from benchmarks.flags import CPU_PEERS, Parser, add_pythons, at_least_one, names, pythons_of
from benchmarks.pairs import FEWEST
from benchmarks.race import Pace


def enough_pairs(text: str) -> int:
    """An integer of at least `pairs.FEWEST`.  Raises ArgumentTypeError."""
    if at_least_one(text) < FEWEST:
        raise argparse.ArgumentTypeError(f"expected at least {FEWEST} pairs, found {text}: fewer say nothing")
    return int(text)


def make_parser() -> Parser:
    """All commands and their flags."""
    parser = Parser(prog="python -m benchmarks", description="Races of lstm_np against other systems, and its costs.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    def add(name: str, text: str, otherwise: str = "benchmarks/results") -> Parser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--threads", type=at_least_one, default=2, help="CPU cores for everybody (default 2)")
        command.add_argument("--out", help=f"folder for the result file (default: {otherwise})")
        return command

    cpu = add("cpu", "training and inference steps against peers on a CPU")
    cpu.add_argument("--peers", type=names, help=f"of {', '.join(CPU_PEERS)}; default: those installed here")
    which = cpu.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="four cases, nothing written unless --out (the default)")
    which.add_argument("--grid", action="store_true", help="the grid at T=28")
    which.add_argument("--full", action="store_true", help="the grid, longer sequences and two layers")
    which.add_argument("--cases", nargs="+", metavar="CASE", help="such as B=128,H=128 or train,B=1,H=64,T=784,L=2")
    cpu.add_argument("--rounds", type=at_least_one, default=9, help="measurements per contestant (default 9)")
    cpu.add_argument(
        "--resume", action="store_true", help="keep the undisturbed cases of the result file, and race the others"
    )
    add_pythons(cpu)

    mnist = add("mnist", "whole trainings of LSTM(128) on MNIST against PyTorch: wall time and accuracy")
    mnist.add_argument("--epochs", type=at_least_one, default=10)
    mnist.add_argument("--seeds", type=at_least_one, default=3, help="trainings, each from other weights (default 3)")
    mnist.add_argument("--peer", choices=("torch", "none"), default="torch")
    mnist.add_argument("--data-dir", help="folder with the four MNIST files (default: as lstm_np.train finds them)")
    mnist.add_argument("--hidden-size", type=at_least_one, default=128)
    mnist.add_argument("--limit-train", type=at_least_one, help="only the first N images")
    add_pythons(mnist)

    memory = add("memory", "peak memory of training, each case in a process of its own")
    memory.add_argument("--peer", choices=("torch", "none"), default="torch")
    add_pythons(memory)
    footprint = add("footprint", "installed size, import time, and time to a first trained epoch, ours and each peer's")
    footprint.add_argument("--peers", type=names, help="default: all that are installed")
    footprint.add_argument("--images", type=at_least_one, default=60_000, help="of the epoch (default 60000, MNIST's)")
    footprint.add_argument("--rounds", type=at_least_one, default=3, help="first epochs of each (default 3)")
    add_pythons(footprint)
    scaling = add("scaling", "cost against T and against H, with fitted exponents and pictures")
    scaling.add_argument("--pictures", help="folder for cost-t.png and cost-h.png (default docs/images)")
    add("ceilings", "what the machine can do (products, tanh, memory), and our share of that")
    bounds = add("bounds", "the lower bound of every case of the race's result file, written there beside our time")
    bounds.add_argument("--again", action="store_true", help="also of the cases that have one")
    profile = add("profile", "where the time of a training epoch goes")
    profile.add_argument("--steps", type=at_least_one, default=469, help="steps of the epoch (default 469, MNIST's)")

    busy = add("busy", "training steps while another program keeps one core busy")
    busy.add_argument("--cases", nargs="+", metavar="CASE", help="such as train,B=128,H=128 (default: four)")
    busy.add_argument("--rounds", type=at_least_one, default=9, help="turns of each (default 9)")

    compare = add(
        "compare", "this tree, with its changes, against a commit: the same bits, and as fast?", "not written"
    )
    compare.add_argument("commit", metavar="COMMIT", help="anything that git knows a commit by")
    compare.add_argument("--data-dir", help="folder with the four MNIST files (default: where they are found)")
    compare.add_argument("--steps", type=at_least_one, default=50, help="of each recipe (default 50)")
    compare.add_argument("--only", metavar="TEXT", help="only what has this text in its name, such as 'recipe best'")
    part = compare.add_mutually_exclusive_group()
    part.add_argument("--hashes-only", action="store_true", help="no race")
    part.add_argument("--race-only", action="store_true", help="only the race")
    compare.add_argument("--pairs", type=enough_pairs, default=24, help="pairs of processes raced (default 24)")
    compare.add_argument("--cases", nargs="+", metavar="CASE", help="what is raced (default: the main cases)")
    compare.add_argument("--json", action="store_true", help="the whole result as one JSON object, on the last line")

    page = commands.add_parser("page", help="the page of a run: its size, and how fast it answers in a browser")
    page.add_argument("run", metavar="RUN", help="run folder or weights file of a model with one layer")
    page.add_argument("--digits", type=at_least_one, default=200, help="digits drawn by pointer events (default 200)")
    page.add_argument("--holds", type=at_least_one, default=50, help="values held (default 50)")

    table = commands.add_parser("table", help="the tables of README.md and docs/race.md from the committed results")
    table.add_argument("--write", action="store_true", help="write them there; else the long one is printed")
    return parser


def run_cpu(arguments: argparse.Namespace) -> int:
    """The races."""
    from benchmarks import cpu

    pythons = pythons_of(arguments.python_of)
    peers = arguments.peers
    if peers is None:
        here = [name for name, package in CPU_PEERS.items() if importlib.util.find_spec(package)]
        peers = [name for name in here if name != "reference"] or ["reference"]
    quick = not (arguments.grid or arguments.full or arguments.cases)
    if arguments.cases:
        cases = [case for text in arguments.cases for case in workloads.parse_case(text)]
    else:
        cases = workloads.quick_cases() if quick else workloads.grid_cases()
        cases = workloads.full_cases() if arguments.full else cases
    written = arguments.out is not None or arguments.grid or arguments.full
    if arguments.resume and not written:
        raise ValueError("--resume goes on with a result file: name its folder with --out, or race --grid or --full")
    document = cpu.run(
        cases,
        peers,
        threads=arguments.threads,
        pace=Pace(arguments.rounds),
        pythons=pythons,
        earlier=results.read("cpu", arguments.out) if arguments.resume else None,
        keep=(lambda document: results.write(document, arguments.out)) if written else lambda document: None,
    )
    if not document["cases"]:
        raise RuntimeError("no case could be raced; the reasons stand above")
    if written:
        print(f"written: {results.write(document, arguments.out)}")
    print("\n".join(cpu.closing_lines(document)))
    raced = any("ratio" in r for record in document["cases"] for r in record["results"].values())
    return 0 if raced else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or (argv[0].startswith("--") and argv[0] != "--help"):
        argv = ["cpu", *argv]
    arguments = make_parser().parse_args(argv)
    try:
        if arguments.command == "cpu":
            return run_cpu(arguments)
        if arguments.command == "table":
            from benchmarks import table

            return table.run(arguments)
        if arguments.command == "compare":
            from benchmarks import compare

            return compare.run(arguments)
        if arguments.command == "footprint":
            from benchmarks import footprint

            return footprint.run(arguments)
        if arguments.command == "page":
            from benchmarks import page

            return page.run(arguments)
        if arguments.command == "busy":
            from benchmarks import busy

            return busy.run(arguments)
        if arguments.command == "mnist":
            from benchmarks import mnist

            return mnist.run(arguments, pythons_of(arguments.python_of))
        from benchmarks import costs

        return costs.COMMANDS[arguments.command](arguments)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"benchmarks: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
