"""What the commands' flags share: the parser, and the kinds of value."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

# peer -> the package that it needs
CPU_PEERS = {
    "reference": "lstm_np",
    "torch": "torch",
    "torch-padded": "torch",
    "jax": "flax",
    "keras": "keras",
    "thinc": "thinc",
    "onnxruntime": "onnxruntime",
}
TORCH_CPU = "torch-cpu"  # PyTorch's build without CUDA, in an interpreter of its own: for `footprint` alone


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


def add_pythons(parser: Parser) -> None:
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
        if not equals or not path or name not in (*CPU_PEERS, TORCH_CPU, "ours"):
            raise ValueError(f"--python-of takes PEER=PYTHON with a peer of {', '.join(CPU_PEERS)}, found {pair!r}")
        found[name] = path
    return found
