"""Predict with a trained model: python -m lstm_np.predict RUN FILE, or [RUN] --index N | --image FILE for images."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from lstm_np.cli.command import (
    Parser,
    add_run_arguments,
    backend_of,
    check_writable,
    emit,
    flush,
    naming_another,
    run_command,
    say,
)
from lstm_np.cli.flags import add_cell_file_flag, add_data_flags, add_machine_flags
from lstm_np.cli.own_data import FILES, add_reading_flags, reading_changes
from lstm_np.data.images import read_pictures
from lstm_np.data.load import DATASETS
from lstm_np.data.progress import download_bars
from lstm_np.data.sequences import Reading, Sequences
from lstm_np.display import text
from lstm_np.display.pictures import check_picture, digit_grid, save_picture
from lstm_np.files import expand, write_atomically
from lstm_np.training.own_model import OwnModel, is_own
from lstm_np.training.trained import Trained, load_model, of_images


@dataclass(frozen=True)
class Question:
    """An image to classify, with values 0 ... 1, its source, and its label if that is known."""

    source: str
    pixels: np.ndarray
    label: int | None = None


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "predict",
        "RUN FILE | [RUN] (--index N ... | --image FILE ...) [flags]",
        "Predict with a trained model: the sequences in a file, with one that was trained on sequences of your own "
        "(train --data), as CSV with a row for each sequence, or step, on standard output or in --out. Or classify "
        "images with a model of images: test images by number, or images of your own. These may be photographs "
        "of any size: they are rotated as their EXIF orientation says, uneven light is removed, and the ink, dark or "
        "light, is scaled and centred as in the data set. An image of the model's size on black or white is used as it "
        "is.",
        one="is not used",
    )
    add_run_arguments(parser)
    add_cell_file_flag(parser)
    parser.add_argument("file", nargs="?", metavar="FILE", help=f"sequences of your own: {FILES}")
    group = parser.add_argument_group("sequences of your own")
    group.add_argument("--out", metavar="FILE", help="where the predictions go [standard output]")
    add_reading_flags(group, targets=False)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--index", type=int, nargs="+", metavar="N", help="test images, counted from 0")
    which.add_argument("--image", nargs="+", metavar="FILE", help="PNG, JPEG or other picture, or .npy")
    group = add_data_flags(parser)
    group.add_argument("--dataset", choices=DATASETS, help="test images of this data set [the one it was trained on]")
    add_machine_flags(parser)
    parser.add_argument("--picture", metavar="FILE", help="also draw the images with the predictions, as PNG")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(make_parser(), argv, _predict)


def _predict(arguments: argparse.Namespace) -> int:
    if arguments.file is None and arguments.index is None and arguments.image is None:
        raise ValueError("one of FILE, --index and --image is required (--help lists the flags)")
    if arguments.picture:
        check_picture(arguments.picture)
    with backend_of(arguments) as backend:
        path, model = load_model(
            arguments.run, best=arguments.best, backend=backend, kernel=arguments.kernel, cell=arguments.cell
        )
        if is_own(model):
            return _predict_own(OwnModel.of(path, model), arguments)
        _check_images(arguments, path)
        trained = of_images(path, model)
        questions = _own_images(trained, arguments) if arguments.image else _test_images(trained, arguments)
        probabilities = trained.probabilities(np.stack([question.pixels for question in questions]))
    if arguments.json:
        answers = [
            {
                "source": question.source,
                "prediction": int(row.argmax()),
                "label": question.label,
                "probabilities": [float(share) for share in row],
            }
            for question, row in zip(questions, probabilities, strict=True)
        ]
        emit(json.dumps({"weights": str(trained.path), "predictions": answers}))
    else:
        console = Console(highlight=False)
        for question, row in zip(questions, probabilities, strict=True):
            for line in _answer(question, row, console):
                if console.is_terminal:
                    console.print(line, soft_wrap=True)
                else:
                    emit(line.plain)
    if arguments.picture:  # last: whatever becomes of it, the answers have been given
        images, labels = np.stack([question.pixels for question in questions]), [q.label for q in questions]
        with naming_another(arguments.picture, "--picture"):
            save_picture(arguments.picture, digit_grid(images, probabilities, labels))
    return 0


def _predict_own(own: OwnModel, arguments: argparse.Namespace) -> int:
    """Predictions for sequences of one's own, as CSV."""
    if arguments.file is None:
        raise ValueError(f"{own.path} has learnt from sequences of your own: name a file of them, predict RUN FILE")
    for name in ("index", "image", "picture", "dataset", "data_dir", "offline"):
        if getattr(arguments, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} is for models of images; leave it out")
    if arguments.json:
        raise ValueError("predictions for a file are CSV; leave out --json")
    if arguments.out is not None:
        check_writable(arguments.out, "--out")
    data = own.read(arguments.file, targets=False, **reading_changes(arguments))
    if arguments.out is not None:
        _check_no_input(arguments.out, data, own.path)
    lines = own.write(data)
    if arguments.out is None:
        for line in lines:
            flush(line)
    else:
        with naming_another(arguments.out, "--out"):
            write_atomically(arguments.out, "".join(lines).encode())
    return 0


def _check_no_input(out: str, data: Sequences, weights: Path) -> None:
    """Raises ValueError where the predictions would be written over a file that they are made from."""
    path = expand(out)
    for file in [*map(Path, data.files), weights]:
        if path.exists() and os.path.samefile(path, file):
            raise ValueError(f"--out {out}: is {file}, which is read here; name another file with --out")


def _check_images(arguments: argparse.Namespace, path: Path) -> None:
    """Refuse, of a model of images, what is for sequences of one's own."""
    given = [item.name for item in fields(Reading) if item.name in vars(arguments)]
    if arguments.file is not None or arguments.out is not None or given:
        what = arguments.file or (f"--{given[0]}" if given else "--out")
        raise ValueError(f"{what} is for models of sequences of your own, {path} has learnt from images")


def _test_images(trained: Trained, arguments: argparse.Namespace) -> list[Question]:
    with download_bars(arguments.json) as progress:
        dataset = trained.load_dataset(arguments.dataset, arguments.data_dir, arguments.offline, say, progress)
    count = len(dataset.test_labels)
    for index in arguments.index:
        if not 0 <= index < count:
            raise ValueError(f"--index must be 0 to {count - 1}, the test images of {dataset.name}; found {index}")
    return [
        Question(f"test image {index}", dataset.test_images[index] * dataset.scale, int(dataset.test_labels[index]))
        for index in arguments.index
    ]


def _own_images(trained: Trained, arguments: argparse.Namespace) -> list[Question]:
    pictures = [
        picture for path in arguments.image for picture in read_pictures(path, trained.image_shape, trained.dataset)
    ]
    return [Question(f"{picture.name} ({picture.story})", picture.pixels) for picture in pictures]


def _answer(question: Question, row: np.ndarray, console: Console) -> list[Text]:
    """The lines about one image."""
    guess = int(row.argmax())
    verdict = ""
    if question.label is not None:
        verdict = f", which is right (label {question.label})" if guess == question.label else (
            f", which is wrong: the label is {question.label}"
        )  # fmt: skip
    heading = Text(f"{question.source}: {guess} ({row[guess]:.2%}){verdict}", style="bold")
    picture = text.drawing(question.pixels, console)
    return [heading, *text.side_by_side(picture, text.bars(row.tolist(), console)), Text()]


if __name__ == "__main__":
    sys.exit(main())
