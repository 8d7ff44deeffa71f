"""The gradient check as a command: python -m lstm_np.gradcheck, or with a file that has a cell of your own.

`lstm_np.gradcheck` is the function behind it for layers and models, `lstm_np.check_cell` that for files.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from lstm_np import streams
from lstm_np.backends import Backend
from lstm_np.cli.command import Parser, backend_of, emit, run_command, say
from lstm_np.cli.flags import add_machine_flags, add_option_flag, flag_of, shown
from lstm_np.gradcheck import CENTRAL_LIMIT, COMPLEX_STEP_LIMIT, GradientReport, gradcheck
from lstm_np.gradcheck.own_cell.arrangement import LAYOUTS
from lstm_np.gradcheck.own_cell.file import check_file
from lstm_np.layers import LAYERS, make_layers
from lstm_np.model import SequenceClassifier
from lstm_np.options import BY_NAME, Option, silent
from lstm_np.training.recipes.settings import convert, settings_of

CLASSES, FEATURES, UNITS = 10, 4, 5
NAMES = ("arguments", "results", "upstream", "gradients")  # flags that say what a file's functions take and return
DROPOUT_KEY = (1,)  # holds the masks of a configuration with dropout fixed


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "gradcheck",
        "[FILE] [flags]",
        "Check every gradient of a layer and of a whole model in float64, against complex-step derivatives "
        f"(limit {COMPLEX_STEP_LIMIT:.0e}) and central differences (limit {CENTRAL_LIMIT:.0e}). With FILE, a Python "
        "file with a cell of your own in NumPy, run it and say which of its gradients is wrong, where, and why.",
        one="a gradient is wrong",
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="has forward and backward functions of your own")
    for name, (default, option) in _options().items():
        add_option_flag(parser, option, flag_of("model", name), name, default)
    text = f"features per step (D) [{FEATURES}; with FILE as many as it takes to say where a gradient is wrong]"
    parser.add_argument("--input-size", type=int, metavar="N", help=text)
    parser.add_argument("--batch-size", type=int, default=3, metavar="N", help="sequences (B) [3]")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="time steps (T) [4]")
    parser.add_argument(
        "--configurations",
        type=int,
        metavar="N",
        help="check N random layers and models instead, of all sizes and settings, and show the worst",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random here [0]")
    _add_file_flags(parser)
    add_machine_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def _add_file_flags(parser: Parser) -> None:
    """Add the flags for what the code in FILE does not tell."""
    group = parser.add_argument_group("with FILE, where it cannot be seen from the code")
    group.add_argument("--functions", nargs=2, metavar=("FORWARD", "BACKWARD"), help="the two [all pairs by name]")
    group.add_argument("--layout", choices=LAYOUTS, help="a sample is a row, a column, or there is a single one")
    for name, text in (
        ("arguments", 'what forward takes, in its order: "x h c W U b"'),
        ("results", 'what forward returns: "h c cache"'),
        ("upstream", 'what backward takes, in its order: "dh dc cache"'),
        ("gradients", 'what backward returns: "dx dh dc dW dU db"'),
    ):
        group.add_argument(f"--{name}", metavar="NAMES", help=text)
    text = "the shape of an argument that is none of these, in B, D, H: p=H,1 (may be repeated)"
    group.add_argument("--shape", action="append", default=[], metavar="NAME=SHAPE", help=text)
    group.add_argument("--dtype", choices=("float64", "float32"), help="of the input [float64]")


def _options() -> dict[str, tuple[str, Option]]:
    """Name -> (what holds where it is not given, option) of the model's options that a gradient can depend on."""
    own = {"cell": "lstm; random with --configurations", "hidden_size": str(UNITS)}
    return {
        name: (own.get(name, shown(option, option.default)), option)
        for name, option in settings_of("model").items()
        if name != "dtype"  # float64, and its complex numbers
    }


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that the flags give, checked."""
    values = vars(arguments)
    return {name: convert("model", name, values[name], flag_of("model", name)) for name in _options() if name in values}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(make_parser(), argv, _gradcheck)


def _gradcheck(arguments: argparse.Namespace) -> int:
    return _check_engine(arguments) if arguments.file is None else _check_file(arguments)


def _check_file(arguments: argparse.Namespace) -> int:
    """The reports of a file's own cells; 2 where one cannot be checked, else 1 where one is wrong."""
    options = _given(arguments)
    cell, hidden_size = options.pop("cell", None), options.pop("hidden_size", UNITS)
    engine = {"configurations": None, "backend": "numpy", "kernel": "auto", "threads": None}
    given = [flag_of("model", name) for name in options]
    given += [f"--{name}" for name, default in engine.items() if getattr(arguments, name) != default]
    if given:
        raise ValueError(f"{', '.join(given)}: for lstm_np's own layers; {arguments.file} has none")
    settings = {
        name: getattr(arguments, name) for name in (*NAMES, "layout", "batch_size", "steps", "input_size", "seed")
    }
    checked = check_file(
        arguments.file,
        functions=arguments.functions,
        shapes=dict(_shape(text) for text in arguments.shape),
        cell=cell and cell.split("_")[0],
        hidden_size=hidden_size,
        dtype=arguments.dtype or "float64",
        **settings,
    )
    if arguments.json:
        reports = [report.as_json() for report in checked.reports]
        ok = checked.status == 0
        emit(json.dumps({"ok": ok, "file": arguments.file, "reports": reports, "errors": list(checked.errors)}))
    elif checked.reports:
        emit("\n\n".join(str(report) for report in checked.reports))
    for error in checked.errors:
        say(f"gradcheck: {error}")
    return checked.status


def _shape(text: str) -> tuple[str, tuple[str, ...]]:
    """ "p=H,1" -> ("p", ("H", "1"))."""
    name, _, shape = text.partition("=")
    extents = tuple(part.strip() for part in shape.split(",") if part.strip())
    if not name or not extents or not all(re.fullmatch(r"\d+|\d*[TBDH]", extent) for extent in extents):
        raise ValueError(f"--shape takes a name and a shape in B, D, H such as p=H,1, found {text!r}")
    return name.strip(), extents


def _check_engine(arguments: argparse.Namespace) -> int:
    """The reports of layers and models of lstm_np; 1 where a gradient is wrong."""
    given = [f"--{name}" for name in ("functions", *NAMES, "layout", "shape", "dtype") if getattr(arguments, name)]
    if given:
        raise ValueError(f"{', '.join(given)}: for a file of your own, but there is no FILE")
    if arguments.input_size is None:
        arguments.input_size = FEATURES
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
    """The key by which the worst report is chosen; nan counts as a failure."""
    return not report.ok, report.worst_complex_step


def _asked_for(arguments: argparse.Namespace, backend: Backend) -> Iterator[tuple[Any, dict[str, Any]]]:
    """One layer and one model with the options that the flags give."""
    given = {"hidden_size": UNITS, **_given(arguments)}
    machine = {"kernel": arguments.kernel, "backend": backend, "dtype": "float64", "seed": arguments.seed}
    sizes = {"batch_size": arguments.batch_size, "steps": arguments.steps, "seed": arguments.seed}
    sizes["dropout_key"] = DROPOUT_KEY if given.get("dropout") else None
    model = SequenceClassifier(arguments.input_size, num_classes=CLASSES, **given, **machine)
    with silent():
        yield make_layers(model.config["cell"], {**model.config, "backend": backend}), sizes
    yield model, sizes


def _random(arguments: argparse.Namespace, backend: Backend) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Layers and models in turn, each a function of (seed, its number)."""
    given = _given(arguments)
    for number in range(arguments.configurations):
        rng = streams.generator(arguments.seed, "configuration", number)

        def between(low: int, high: int, rng: np.random.Generator = rng) -> int:
            return int(rng.integers(low, high + 1))

        def one_of(choices: Collection[Any], rng: np.random.Generator = rng) -> Any:
            return list(choices)[int(rng.integers(len(choices)))]

        cell = given["cell"] if "cell" in given else one_of(LAYERS)
        D, H = between(1, 5), between(1, 6)
        dropout = one_of((0.0, 0.3))
        values = {
            "input_size": D,
            "hidden_size": H,
            "num_layers": between(1, 3),
            "bidirectional": one_of((False, True)),
            "dropout": dropout,
            "dropout_outputs": one_of(BY_NAME["dropout_outputs"].choices),
            "dropout_mask": one_of(BY_NAME["dropout_mask"].choices),
            "kernel": arguments.kernel,
            "backend": backend,
            "dtype": "float64",
            "seed": number,
        }
        sizes: dict[str, Any] = {"batch_size": between(2, 4), "steps": between(3, 6), "seed": number, "entries": 12}
        sizes["dropout_key"] = DROPOUT_KEY if given.get("dropout", dropout) else None
        with silent():
            if number % 2 == 0:
                values["bias"] = one_of((True, False))
                yield make_layers(cell, {**values, **given}), sizes
            else:
                values |= {"num_classes": between(2, 10), "read_out": one_of(BY_NAME["read_out"].choices), "cell": cell}
                yield SequenceClassifier(**{**values, **given}), sizes


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
    return {
        "subject": report.subject,
        "ok": bool(report.ok),
        "same_cell": bool(report.same_cell),
        "tensors": tensors,
    }


if __name__ == "__main__":
    sys.exit(main())
