"""See inside a trained model: python -m lstm_np.explain [RUN] [--data FILE] --index 0 18; --term for the terminal."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lstm_np import options
from lstm_np.cli.command import Parser, add_run_arguments, backend_of, emit, naming_another, run_command, say
from lstm_np.cli.flags import CELL_VALUES, add_data_flags, add_machine_flags, cell_argument
from lstm_np.cli.own_data import add_reading_flags, reading_changes, reading_words
from lstm_np.data.load import DATASETS, load_dataset
from lstm_np.data.progress import download_bars
from lstm_np.display.text import can_show
from lstm_np.explain import own, without
from lstm_np.explain.export import Other, record, report
from lstm_np.explain.page import page_within
from lstm_np.explain.provenance import facts_of, images_of
from lstm_np.explain.samples import Sample, samples_of, trace_of
from lstm_np.explain.terminal import Choice, Look, terminal_view
from lstm_np.explain.tiny import worked_example
from lstm_np.files import write_atomically
from lstm_np.model import SequenceModel
from lstm_np.training.own_model import OwnModel, is_own
from lstm_np.training.run_folder import INITIAL, RunFolderError
from lstm_np.training.trained import Trained, load_model, of_images

QUICK = "python -m lstm_np.train --dataset digits"  # trains a model in seconds


# what a model can read that is not shown, in words
NOT_SHOWN = {"mean": "reads the mean of its outputs", "max": "reads the maximum of its outputs",
             "each_step": "reads each step"}  # fmt: skip


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "explain",
        "[RUN] [--index N ...] [--out FILE | --term | --without GATE] [flags] | --tiny",
        "See inside a trained model while it reads test images, or sequences of your own: every gate of every unit at "
        "every step, and the sum behind each number. Writes one HTML file to open in a browser; with --term, prints "
        "text instead.",
        one="is not used",
    )
    add_run_arguments(parser)
    text = "needed for a run that was trained with a cell of your own; with --without, the cell to train [lstm]"
    parser.add_argument("--cell", type=cell_argument, metavar=CELL_VALUES, help=text)
    views = parser.add_argument_group("what is shown").add_mutually_exclusive_group()
    views.add_argument(
        "--out", default="explain.html", metavar="FILE", help="write the page to this file [explain.html]"
    )
    views.add_argument("--term", action="store_true", help="print how a sample is read, in the terminal")
    text = "a worked example: two units, two steps, every number with the line of code that computes it"
    views.add_argument("--tiny", action="store_true", help=text)
    views.add_argument(
        "--without",
        metavar="GATE",
        help="train with and without a gate, on images and on a task that needs memory, and compare; takes minutes; "
        "GATE=X holds the gate at X [1]",
    )
    text = "test images, or sequences, counted from 0 [0]"
    parser.add_argument("--index", type=int, nargs="+", default=[0], metavar="N", help=text)
    group = parser.add_argument_group("sequences of your own")
    group.add_argument("--data", metavar="FILE", help="show the sequences in this file [the run's test part]")
    add_reading_flags(group, targets=False)
    group = add_data_flags(parser)
    group.add_argument(
        "--dataset", choices=DATASETS, help="images of this data set [that of the run; with --without: mnist]"
    )
    add_machine_flags(parser)
    text = "print one JSON object: the file and its size, or with --without the figures"
    parser.add_argument("--json", action="store_true", help=text)
    _add_page_flags(parser)
    _add_terminal_flags(parser)
    _add_without_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(make_parser(), argv, _view)


def _view(arguments: argparse.Namespace) -> int:
    if arguments.json and (arguments.tiny or arguments.term):
        raise ValueError("--json: --term and --tiny print text; a page and --without have figures for a program")
    if arguments.data is not None and (arguments.tiny or arguments.without is not None):
        raise ValueError("--data is for a page and --term, which show a trained model reading; leave it out")
    if arguments.tiny:
        return _tiny(arguments)
    if arguments.without is not None:
        return _without(arguments)
    return _term(arguments) if arguments.term else _page(arguments)


def _tiny(arguments: argparse.Namespace) -> int:
    if arguments.run is not None:
        raise ValueError(f"--tiny has numbers of its own and takes no RUN, found {arguments.run}")
    emit(worked_example())
    return 0


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a view is about.

    samples  those that were asked for;  about: where they are from, as the page tells it
    many     x of many samples, as `report` takes them, and their labels; None: no labels
    """

    trained: Trained
    samples: Sequence[Sample]
    about: tuple[str, str]
    many: tuple[np.ndarray, np.ndarray] | None


def _shown(arguments: argparse.Namespace, backend: Any, *, on_a_page: bool) -> Shown:
    """The model and the samples that the flags name."""
    path, model = _load(arguments, backend)
    changes = reading_changes(arguments)
    indices = list(dict.fromkeys(arguments.index)) if on_a_page else arguments.index
    if is_own(model):
        for name in ("dataset", "data_dir", "offline"):
            if getattr(arguments, name):
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is for models of images, {path} has learnt from sequences of your own")
        learnt = OwnModel.of(path, model)
        own.trained_of(learnt, 1)  # refused before anything is read
        data, source = own.read(learnt, arguments.data, changes, say)
        sequences = own.samples_of(learnt, data, source, indices)
        steps = own.page_steps(source, sequences) if on_a_page else len(sequences[0].image)
        many = own.many(learnt, data, steps) if on_a_page else None
        return Shown(own.trained_of(learnt, steps), sequences, ("sequences", source), many)
    if arguments.data is not None or changes:
        flag = "data" if arguments.data is not None else next(iter(changes)).replace("_", "-")
        raise ValueError(f"--{flag} is for models of sequences of your own, {path} has learnt from images")
    trained = of_images(path, model)
    with download_bars(False) as progress:
        dataset = trained.load_dataset(arguments.dataset, arguments.data_dir, arguments.offline, say, progress)
    images = dataset.test_images * np.dtype(model.dtype).type(dataset.scale) if on_a_page else None
    many = None if images is None else (images, dataset.test_labels)
    return Shown(trained, samples_of(dataset, indices), images_of(dataset), many)


def _load(arguments: argparse.Namespace, backend: Any) -> tuple[Path, SequenceModel]:
    try:
        path, model = load_model(
            arguments.run, best=arguments.best, backend=backend, kernel=arguments.kernel, cell=arguments.cell
        )
    except RunFolderError as error:
        if arguments.run is None:
            raise RunFolderError(f"{error}; this trains one in half a minute: {QUICK}") from None
        raise
    read_out, loss = model.config["read_out"], model.config["loss"]
    found = NOT_SHOWN.get(read_out) or ("gives several labels at once" if loss == "binary" else None)
    if found is not None:
        raise ValueError(
            f"{path}: this model {found}, and what is shown here is one class, read at the end of a sequence; "
            "lstm_np.trace has all values of any model"
        )
    return path, model


def _add_page_flags(parser: Parser) -> None:
    parser.add_argument(
        "--compare",
        metavar="FILE",
        help="a second set of weights of the same model; initial: those before training",
    )
    parser.add_argument(
        "--megabytes",
        type=float,
        metavar="X",
        help="largest size of the page; if it would be larger, fewer units are kept [2, with --compare 3]",
    )


def _page(arguments: argparse.Namespace) -> int:
    megabytes = arguments.megabytes
    if megabytes is None:
        megabytes = 2.0 if arguments.compare is None else 3.0
    if not 0.1 <= megabytes <= 1000:
        raise ValueError(f"--megabytes must be 0.1 to 1000, found {megabytes:g}")
    with backend_of(arguments) as backend:
        shown = _shown(arguments, backend, on_a_page=True)
        trained = shown.trained
        others = _others(arguments, trained)
        text, units = page_within(
            trained,
            [record(trained, sample) for sample in shown.samples],
            facts_of(trained, shown.about),
            _command(arguments),
            None if shown.many is None else report(trained, *shown.many, others),
            others,
            limit=round(megabytes * 1e6),
        )
    content = text.encode()
    with naming_another(arguments.out, "--out"):
        write_atomically(arguments.out, content)
    H = trained.model.recurrent.hidden_size
    held = "" if units == H else f", {units} of {H} units of each layer"
    if units < H and others:
        held += " and no second weights; --megabytes says how large the file may be"
    if arguments.json:
        emit(json.dumps({"file": arguments.out, "bytes": len(content), "units": units, "hidden_size": H}))
        return 0
    emit(f"{arguments.out}: {len(content) / 1e6:.2f} MB{held}; open it in a browser")
    return 0


def _others(arguments: argparse.Namespace, trained: Trained) -> list[Other]:
    """The weights to compare with: of a file; or before training, as the run kept them, or made again from its seed."""
    model, name, title = trained.model, arguments.compare, "before training"
    if name is None:
        return []
    if name == "initial":
        name = trained.path.with_name(INITIAL)
        if not name.is_file():
            with options.silent():
                return [Other(title, type(model)(**model.config, backend=model.backend))]
    else:
        title = f"weights of {Path(name).name}"
    other = type(model).load(name, backend=model.backend, kernel=arguments.kernel)
    if other.params.shapes != model.params.shapes:
        raise ValueError(f"{name}: the weights of another model; expected one like {trained.path}")
    return [Other(title, other)]


def _command(arguments: argparse.Namespace) -> str:
    """The line that makes the page again."""
    words = ["python", "-m", "lstm_np.explain", *([arguments.run] if arguments.run else [])]
    words += ["--best"] if arguments.best else []
    words += ["--dataset", arguments.dataset] if arguments.dataset else []
    words += ["--data", arguments.data] if arguments.data else []
    words += reading_words(arguments)
    words += ["--index", *map(str, arguments.index), "--out", arguments.out]
    words += ["--compare", arguments.compare] if arguments.compare else []
    words += ["--megabytes", f"{arguments.megabytes:g}"] if arguments.megabytes else []
    return shlex.join(words)


# ---- --term


def _add_terminal_flags(parser: Parser) -> None:
    group = parser.add_argument_group("with --term")
    group.add_argument("--gate", metavar="NAME", help="gate, or other value of the cell, to draw as a map [f]")
    group.add_argument(
        "--value", metavar="NAME", help="print every term of the sums behind this value, at --step and --unit"
    )
    group.add_argument("--step", type=int, default=0, metavar="N", help="step, counted from 0 [0]")
    group.add_argument("--unit", type=int, default=0, metavar="N", help="unit, counted from 0 [0]")
    group.add_argument("--layer", type=int, default=0, metavar="N", help="layer, counted from 0 [0]")
    group.add_argument("--reverse", action="store_true", help="the reverse direction of a bidirectional layer")
    group.add_argument("--ascii", action="store_true", help="ASCII characters only [if the terminal shows no others]")


def _term(arguments: argparse.Namespace) -> int:
    console = Console(highlight=False)
    colour = console.is_terminal and console.color_system not in (None, "standard")
    look = Look(console.width, not arguments.ascii and can_show("█", console), colour)
    choice = Choice(arguments.layer, arguments.reverse, arguments.gate, arguments.value, arguments.step, arguments.unit)
    with backend_of(arguments) as backend:
        shown = _shown(arguments, backend, on_a_page=False)
        views = [
            terminal_view(shown.trained, sample, trace_of(shown.trained, sample), choice, look)
            for sample in shown.samples
        ]
    for number, lines in enumerate(views):
        if number:
            emit("")
        for line in lines:
            if console.is_terminal:
                console.print(line, soft_wrap=True)
            else:
                emit(line.plain)
    return 0


# ---- --without


def _add_without_flags(parser: Parser) -> None:
    standard = without.Sizes()
    group = parser.add_argument_group("with --without")
    group.add_argument(
        "--hidden-size",
        type=int,
        default=standard.hidden_size,
        metavar="N",
        help=f"hidden units [{standard.hidden_size}]",
    )
    group.add_argument(
        "--epochs", type=int, default=standard.epochs, metavar="N", help=f"training epochs [{standard.epochs}]"
    )
    group.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="number of seeds, each trained with and without the gate [3]"
    )
    group.add_argument(
        "--limit-train", type=int, default=10_000, metavar="N", help="training sequences of each task [10000]"
    )
    group.add_argument(
        "--memory-steps", type=int, default=40, metavar="N", help="sequence length of the memory task [40]"
    )


def _without(arguments: argparse.Namespace) -> int:
    for name in ("hidden_size", "epochs", "seeds", "limit_train"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, found {getattr(arguments, name)}")
    if arguments.memory_steps < without.MARKS:
        raise ValueError(f"--memory-steps must be at least {without.MARKS}, found {arguments.memory_steps}")
    sizes = dataclasses.replace(
        without.Sizes(), cell=arguments.cell or "lstm", hidden_size=arguments.hidden_size, epochs=arguments.epochs
    )
    without.held_at(arguments.without, sizes.cell)  # refused before the data are fetched
    with backend_of(arguments) as backend:
        with download_bars(arguments.json) as progress:
            name = arguments.dataset or "mnist"
            dataset = load_dataset(
                name,
                arguments.data_dir,
                arguments.offline,
                say,
                explicit=arguments.dataset is not None,
                progress=progress,
            )
        tasks = [
            without.rows_task(dataset, arguments.limit_train),
            without.memory_task(arguments.limit_train, arguments.memory_steps),
        ]
        results = without.compare(arguments.without, tasks, sizes, range(arguments.seeds), backend, say)
    if arguments.json:
        emit(json.dumps(without.as_json(arguments.without, tasks, sizes, results)))
    else:
        emit(without.table(arguments.without, tasks, sizes, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
