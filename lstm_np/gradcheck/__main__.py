"""The gradient check as a command: python -m lstm_np.gradcheck.

`lstm_np.gradcheck` is also the function behind it, for layers and models of your own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from lstm_np import streams
from lstm_np.backends import Backend
from lstm_np.cli.command import Parser, backend_of, emit, run_command
from lstm_np.cli.flags import add_machine_flags
from lstm_np.gradcheck import CENTRAL_LIMIT, COMPLEX_STEP_LIMIT, GradientReport, gradcheck
from lstm_np.layers import LAYERS
from lstm_np.layers.dropout import DROPPED_OUTPUTS, MASK_PER
from lstm_np.model import READ_OUTS, SequenceClassifier

CLASSES = 10
DROPOUT_KEY = (1,)  # holds the masks of a configuration with dropout fixed


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "gradcheck",
        "[flags]",
        "Check every gradient of a layer and of a whole model in float64, against complex-step derivatives "
        f"(limit {COMPLEX_STEP_LIMIT:.0e}) and central differences (limit {CENTRAL_LIMIT:.0e}).",
        one="a gradient is wrong",
    )
    parser.add_argument("--cell", choices=tuple(LAYERS), help="recurrent cell [lstm; random with --configurations]")
    parser.add_argument("--input-size", type=int, default=4, metavar="N", help="features per step (D) [4]")
    parser.add_argument("--hidden-size", type=int, default=5, metavar="N", help="units per layer (H) [5]")
    parser.add_argument("--layers", type=int, default=1, metavar="N", help="recurrent layers (L) [1]")
    parser.add_argument("--bidirectional", action="store_true", help="also read each sequence backwards")
    parser.add_argument("--batch-size", type=int, default=3, metavar="N", help="sequences (B) [3]")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="time steps (T) [4]")
    parser.add_argument(
        "--configurations",
        type=int,
        metavar="N",
        help="check N random layers and models instead, of all sizes and settings, and show the worst",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random here [0]")
    add_machine_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(make_parser(), argv, _gradcheck)


def _gradcheck(arguments: argparse.Namespace) -> int:
    if arguments.configurations is not None and arguments.configurations < 1:
        raise ValueError(f"--configurations must be at least 1, found {arguments.configurations}")
    with backend_of(arguments) as backend:
        subjects = _asked_for if arguments.configurations is None else _random
        reports = []
        for subject, sizes in subjects(arguments, backend):
            reports.append(gradcheck(subject, **sizes))
            if arguments.configurations is None and not arguments.json:
                emit(f"{reports[-1]}\n")
    ok = all(bool(report) for report in reports)
    if arguments.json:
        emit(json.dumps({"ok": ok, "checked": len(reports), "reports": [_as_json(report) for report in reports]}))
    elif arguments.configurations is not None:
        failed = sum(not report.ok for report in reports)
        emit(f"{max(reports, key=_badness)}\n")
        emit(f"the worst of {len(reports)} random configurations, {failed} of which fail")
    return 0 if ok else 1


def _badness(report: GradientReport) -> tuple[bool, float]:
    """What the worst report has most of; nan, which compares with nothing, belongs to those that fail."""
    return not report.ok, report.worst_complex_step


def _asked_for(arguments: argparse.Namespace, backend: Backend) -> Iterator[tuple[Any, dict[str, Any]]]:
    """One layer and one model of the sizes that the flags give."""
    shape = {"num_layers": arguments.layers, "bidirectional": arguments.bidirectional}
    common = {**shape, "kernel": arguments.kernel, "backend": backend, "dtype": "float64", "seed": arguments.seed}
    sizes = {"batch_size": arguments.batch_size, "steps": arguments.steps, "seed": arguments.seed}
    cell = arguments.cell or "lstm"
    yield LAYERS[cell](arguments.input_size, arguments.hidden_size, **common), sizes
    yield SequenceClassifier(arguments.input_size, arguments.hidden_size, CLASSES, cell=cell, **common), sizes


def _random(arguments: argparse.Namespace, backend: Backend) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Layers and models in turn, each a function of (seed, its number)."""
    for number in range(arguments.configurations):
        rng = streams.generator(arguments.seed, "configuration", number)

        def between(low: int, high: int, rng: Any = rng) -> int:
            return int(rng.integers(low, high + 1))

        def one_of(choices: Any, rng: Any = rng) -> Any:
            return list(choices)[int(rng.integers(len(choices)))]

        cell = arguments.cell or one_of(LAYERS)
        D, H = between(1, 5), between(1, 6)
        dropout = one_of((0.0, 0.3))
        common = {
            "num_layers": between(1, 3),
            "bidirectional": one_of((False, True)),
            "dropout": dropout,
            "dropout_outputs": one_of(DROPPED_OUTPUTS),
            "dropout_mask": one_of(MASK_PER),
            "kernel": arguments.kernel,
            "backend": backend,
            "dtype": "float64",
            "seed": number,
        }
        sizes: dict[str, Any] = {"batch_size": between(2, 4), "steps": between(3, 6), "seed": number, "entries": 12}
        sizes["dropout_key"] = DROPOUT_KEY if dropout else None
        if number % 2 == 0:
            yield LAYERS[cell](D, H, bias=one_of((True, False)), **common), sizes
        else:
            yield SequenceClassifier(D, H, between(2, 10), cell=cell, read_out=one_of(READ_OUTS), **common), sizes


def _as_json(report: GradientReport) -> dict[str, Any]:
    tensors = {
        tensor.name: {
            "shape": list(tensor.shape),
            "checked": tensor.checked,
            "complex_step": tensor.complex_step,
            "central": tensor.central,
            "ok": bool(tensor.ok),
        }
        for tensor in report.tensors
    }
    return {"subject": report.subject, "ok": bool(report.ok), "tensors": tensors}


if __name__ == "__main__":
    sys.exit(main())
