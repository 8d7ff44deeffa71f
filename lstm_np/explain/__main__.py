"""See inside a trained model: python -m lstm_np.explain [RUN] --index 0 18 247."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lstm_np import options
from lstm_np.cli.command import Parser, add_run_arguments, backend_of, emit, run_command, say
from lstm_np.cli.flags import add_cell_file_flag, add_data_flags, add_machine_flags
from lstm_np.data.load import DATASETS
from lstm_np.data.progress import download_bars
from lstm_np.explain.export import Other, record, report
from lstm_np.explain.page import page_within
from lstm_np.explain.provenance import facts_of
from lstm_np.explain.samples import samples_of
from lstm_np.explain.tiny import worked_example
from lstm_np.files import write_atomically
from lstm_np.training.run_folder import RunFolderError
from lstm_np.training.trained import Trained, load_trained

QUICK = "python -m lstm_np.train --dataset digits"  # trains a model in seconds


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "explain",
        "[RUN] [--index N ...] [--out FILE] [flags] | --tiny",
        "See inside a trained model. Writes a page that a browser opens from disk, in which it reads test images: "
        "every gate of every unit at every step, and the sum that makes each number.",
        one="is not used",
    )
    add_run_arguments(parser)
    add_cell_file_flag(parser)
    parser.add_argument("--out", default="explain.html", metavar="FILE", help="the file [explain.html]")
    parser.add_argument("--index", type=int, nargs="+", default=[0], metavar="N", help="test images, from 0 [0]")
    group = add_data_flags(parser)
    group.add_argument(
        "--dataset", choices=DATASETS, help="test images of this data set [the one the run was trained on]"
    )
    add_machine_flags(parser)
    _add_page_flags(parser)
    text = "instead, print a worked example: two units, two steps, every number with the line of code that computes it"
    parser.add_argument("--tiny", action="store_true", help=text)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(make_parser(), argv, lambda arguments: (_tiny if arguments.tiny else _page)(arguments))


def _tiny(arguments: argparse.Namespace) -> int:
    if arguments.run is not None:
        raise ValueError(f"--tiny has numbers of its own and takes no RUN, found {arguments.run}")
    emit(worked_example())
    return 0


def _load(arguments: argparse.Namespace, backend: Any) -> Trained:
    try:
        return load_trained(
            arguments.run, best=arguments.best, backend=backend, kernel=arguments.kernel, cell=arguments.cell
        )
    except RunFolderError as error:
        if arguments.run is None:
            raise RunFolderError(f"{error}; this trains one in half a minute: {QUICK}") from None
        raise


def _add_page_flags(parser: Parser) -> None:
    parser.add_argument(
        "--compare",
        metavar="FILE",
        help="second weights of the same model; initial: those before training",
    )
    parser.add_argument(
        "--megabytes",
        type=float,
        metavar="X",
        help="where it would be larger it holds fewer units [2, with --compare 3]",
    )


def _page(arguments: argparse.Namespace) -> int:
    megabytes = arguments.megabytes
    if megabytes is None:
        megabytes = 2.0 if arguments.compare is None else 3.0
    if not 0.1 <= megabytes <= 1000:
        raise ValueError(f"--megabytes must be 0.1 to 1000, found {megabytes:g}")
    with backend_of(arguments) as backend:
        trained = _load(arguments, backend)
        others = _others(arguments, trained)
        with download_bars(False) as progress:
            dataset = trained.load_dataset(arguments.dataset, arguments.data_dir, arguments.offline, say, progress)
        recordings = [record(trained, sample) for sample in samples_of(dataset, list(dict.fromkeys(arguments.index)))]
        images = dataset.test_images * np.dtype(trained.model.dtype).type(dataset.scale)
        text, units = page_within(
            trained,
            recordings,
            facts_of(trained, dataset),
            _command(arguments),
            report(trained, images, dataset.test_labels, others),
            others,
            limit=round(megabytes * 1e6),
        )
    content = text.encode()
    write_atomically(arguments.out, content)
    H = trained.model.recurrent.hidden_size
    held = "" if units == H else f", {units} of {H} units of each layer"
    if units < H and others:
        held += " and no second weights; --megabytes says how large the file may be"
    emit(f"{arguments.out}: {len(content) / 1e6:.2f} MB{held}; open it in a browser")
    return 0


def _others(arguments: argparse.Namespace, trained: Trained) -> list[Other]:
    """The weights to compare with: of a file, or made again as training began, from the run's seed."""
    model = trained.model
    if arguments.compare is None:
        return []
    if arguments.compare == "initial":
        with options.silent():
            return [Other("before training", type(model)(**model.config, backend=model.backend))]
    other = type(model).load(arguments.compare, backend=model.backend, kernel=arguments.kernel)
    if other.params.shapes != model.params.shapes:
        raise ValueError(f"{arguments.compare}: the weights of another model; expected one like {trained.path}")
    return [Other(f"weights of {Path(arguments.compare).name}", other)]


def _command(arguments: argparse.Namespace) -> str:
    """The line that makes the page again."""
    words = ["python", "-m", "lstm_np.explain", *([arguments.run] if arguments.run else [])]
    words += ["--index", *map(str, arguments.index), "--out", arguments.out]
    words += ["--compare", arguments.compare] if arguments.compare else []
    words += ["--megabytes", f"{arguments.megabytes:g}"] if arguments.megabytes else []
    return shlex.join(words)


if __name__ == "__main__":
    sys.exit(main())
