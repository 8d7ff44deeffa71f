"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from typing import NoReturn

from benchmarks import results, workloads
from benchmarks.cpu import CPU_PEERS
from benchmarks.race import Pace


class Parser(argparse.ArgumentParser):
    """One line for a bad flag, exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Print the line and leave."""
        self.exit(2, f"benchmarks: {message} (--help lists the flags)\n")


def at_least_one(text: str) -> int:
    """A positive integer.  Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, found {text!r}")
    return int(text)


def names(text: str) -> list[str]:
    """Peers separated by commas.  Raises ArgumentTypeError for an unknown one."""
    found = [name for name in text.split(",") if name]
    for name in found:
        if name not in CPU_PEERS:
            raise argparse.ArgumentTypeError(f"unknown peer {name!r}; there are: {', '.join(CPU_PEERS)}")
    return found


def make_parser() -> Parser:
    """All commands and their flags."""
    parser = Parser(prog="python -m benchmarks", description="Races of lstm_np against other systems, and its costs.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    def add(name: str, text: str) -> Parser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--threads", type=at_least_one, default=2, help="CPU cores for everybody (default 2)")
        command.add_argument("--out", help="folder for the result file (default benchmarks/results)")
        return command

    cpu = add("cpu", "training and inference steps against peers on a CPU")
    cpu.add_argument("--peers", type=names, help=f"of {', '.join(CPU_PEERS)}; default: those installed here")
    which = cpu.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="four cells, nothing written unless --out (the default)")
    which.add_argument("--grid", action="store_true", help="the grid at T=28")
    which.add_argument("--full", action="store_true", help="the grid, longer sequences and two layers")
    which.add_argument("--cells", nargs="+", metavar="CELL", help="such as B=128,H=128 or train,B=1,H=64,T=784,L=2")
    cpu.add_argument("--rounds", type=at_least_one, default=9, help="measurements per contestant (default 9)")
    _add_pythons(cpu)

    mnist = add("mnist", "whole trainings of LSTM(128) on MNIST against PyTorch: wall time and accuracy")
    mnist.add_argument("--epochs", type=at_least_one, default=10)
    mnist.add_argument("--seeds", type=at_least_one, default=3, help="trainings, each from other weights (default 3)")
    mnist.add_argument("--peer", choices=("torch", "none"), default="torch")
    mnist.add_argument("--data-dir", help="folder with the four MNIST files (default: as lstm_np.train finds them)")
    mnist.add_argument("--hidden-size", type=at_least_one, default=128)
    mnist.add_argument("--limit-train", type=at_least_one, help="only the first N images")
    _add_pythons(mnist)

    memory = add("memory", "peak memory of training, each case in a process of its own")
    memory.add_argument("--peer", choices=("torch", "none"), default="torch")
    _add_pythons(memory)
    scaling = add("scaling", "cost against T and against H, with fitted exponents and pictures")
    scaling.add_argument("--pictures", help="folder for cost-t.png and cost-h.png (default docs/images)")
    add("ceilings", "what the machine can do (products, tanh, memory), and our share of that")
    profile = add("profile", "where the time of a training epoch goes")
    profile.add_argument("--steps", type=at_least_one, default=469, help="steps of the epoch (default 469, MNIST's)")

    table = commands.add_parser("table", help="the README's table from the committed result file")
    table.add_argument("--write", action="store_true", help="put it into README.md, between its markers")
    return parser


def _add_pythons(parser: Parser) -> None:
    parser.add_argument(
        "--python-of",
        action="append",
        default=[],
        metavar="PEER=PYTHON",
        help="the interpreter that has a peer's packages, e.g. jax=/opt/peers/bin/python",
    )


def pythons_of(pairs: Sequence[str]) -> dict[str, str]:
    """{"jax": "/path/python"} from "jax=/path/python".  Raises ValueError for another form."""
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not path or name not in (*CPU_PEERS, "ours"):
            raise ValueError(f"--python-of takes PEER=PYTHON with a peer of {', '.join(CPU_PEERS)}, found {pair!r}")
        found[name] = path
    return found


def run_cpu(arguments: argparse.Namespace) -> int:
    """The races."""
    from benchmarks import cpu

    pythons = pythons_of(arguments.python_of)
    peers = arguments.peers
    if peers is None:
        packages = {"torch": "torch", "jax": "flax", "keras": "keras", "thinc": "thinc"}
        peers = [name for name, package in packages.items() if importlib.util.find_spec(package)] or ["reference"]
    quick = not (arguments.grid or arguments.full or arguments.cells)
    if arguments.cells:
        cells = [cell for text in arguments.cells for cell in workloads.parse_cell(text)]
    else:
        cells = workloads.quick_cells() if quick else workloads.grid_cells()
        cells = workloads.full_cells() if arguments.full else cells
    document = cpu.run(cells, peers, threads=arguments.threads, pace=Pace(arguments.rounds), pythons=pythons)
    if not document["cells"]:
        raise RuntimeError("no cell could be raced; the reasons stand above")
    if arguments.out is not None or arguments.grid or arguments.full:
        print(f"written: {results.write(document, arguments.out)}")
    print("\n".join(cpu.closing_lines(document)))
    raced = any("ratio" in r for record in document["cells"] for r in record["results"].values())
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
