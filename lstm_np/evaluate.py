"""Test a trained model: python -m lstm_np.evaluate [RUN] [--data FILE]."""

from __future__ import annotations

import argparse
import json
import sys
import time

from lstm_np.cli.command import Parser, add_run_arguments, backend_of, emit, naming_another, run_command, say
from lstm_np.cli.flags import add_cell_file_flag, add_data_flags, add_hold_flag, add_machine_flags
from lstm_np.cli.own_data import add_reading_flags, reading_changes
from lstm_np.data.load import DATASETS
from lstm_np.data.progress import download_bars
from lstm_np.display.pictures import check_picture, confusion_matrix, save_picture
from lstm_np.display.tables import loss_in_words
from lstm_np.training.evaluation import evaluate
from lstm_np.training.material import MEASURING_BATCH, in_order
from lstm_np.training.own_model import OwnModel, is_own, test_part
from lstm_np.training.trained import load_model, of_images

LARGEST_TABLE = 20  # classes of a confusion matrix that a terminal can show


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(
        "evaluate",
        "[RUN] [flags]",
        "Measure a trained model on all test images: accuracy, loss, accuracy per class and the confusion matrix. A "
        "model that was trained on sequences of your own is measured on those of --data, or on the test part of what "
        "it was trained on; where it predicts numbers: mean absolute and squared error and R2.",
        one="is not used",
    )
    add_run_arguments(parser)
    add_cell_file_flag(parser)
    group = add_data_flags(parser)
    group.add_argument("--dataset", choices=DATASETS, help="test on this data set [the one it was trained on]")
    group = parser.add_argument_group("sequences of your own")
    group.add_argument("--data", metavar="FILE", help="measure on the sequences in this file [the run's test part]")
    add_reading_flags(group, targets=False)
    add_machine_flags(parser)
    add_hold_flag(parser)
    parser.add_argument("--batch-size", type=int, metavar="N", help=f"images at a time [{MEASURING_BATCH}]")
    parser.add_argument("--picture", metavar="FILE", help="also draw the confusion matrix, as PNG")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(make_parser(), argv, _evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.picture:
        check_picture(arguments.picture)
    with backend_of(arguments) as backend:
        path, model = load_model(
            arguments.run, best=arguments.best, backend=backend, kernel=arguments.kernel, cell=arguments.cell
        )
        if is_own(model):
            return _evaluate_own(OwnModel.of(path, model), arguments)
        changes = reading_changes(arguments)
        if arguments.data is not None or changes:
            flag = "data" if arguments.data is not None else next(iter(changes))
            raise ValueError(f"--{flag} is for models of sequences of your own, {path} has learnt from images")
        trained = of_images(path, model)
        with download_bars(arguments.json) as progress:
            dataset = trained.load_dataset(arguments.dataset, arguments.data_dir, arguments.offline, say, progress)
        images, labels = dataset.test_images, dataset.test_labels
        batch_size = MEASURING_BATCH if arguments.batch_size is None else arguments.batch_size
        batches = in_order(images, labels, dataset.scale, trained.view, trained.model.dtype, batch_size=batch_size)
        began = time.perf_counter()
        result = evaluate(trained.model, batches.epoch(0), hold=arguments.hold)
        seconds = time.perf_counter() - began
    if arguments.json:
        summary = {
            "test_accuracy": result.accuracy,
            "test_loss": result.loss,
            "test_images": result.count,
            "test_correct": result.correct,
            "per_class": result.per_class(),
            "confusion": result.confusion.tolist(),
            "dataset": dataset.name,
            "weights": str(trained.path),
            "hold": arguments.hold,
            "seconds": round(seconds, 3),
        }
        emit(json.dumps(summary))
    else:
        held = "" if arguments.hold is None else f", held: {_in_words(arguments.hold)}"
        emit(f"{trained.path} on {dataset.source}{held}")
        counts = f"{result.correct:,} of {result.count:,} test images"
        emit(f"accuracy {result.accuracy:.2%} ({counts}), loss {loss_in_words(result.loss)}")
        emit(f"{seconds:.1f} s, {result.count / seconds:,.0f} images/s\n")
        emit(result.table())
    if arguments.picture:  # last: whatever becomes of it, the result has been said
        with naming_another(arguments.picture, "--picture"):
            save_picture(arguments.picture, confusion_matrix(result.confusion))
    return 0


def _evaluate_own(own: OwnModel, arguments: argparse.Namespace) -> int:
    """The same of a model of sequences of one's own."""
    for name in ("hold", "dataset", "data_dir", "batch_size", "offline"):
        value = getattr(arguments, name)
        if value is not None and value is not False:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} is for models of images, {own.path} has learnt from sequences of your own")
    if arguments.picture and not own.classes:
        raise ValueError(f"--picture draws the confusion matrix of classes, {own.path} predicts numbers; leave it out")
    changes = reading_changes(arguments)
    if arguments.data is None:
        data, source = test_part(own.path, changes)
    else:
        data, source = own.read(arguments.data, targets=True, **changes), arguments.data
    began = time.perf_counter()
    result = own.measure(data)
    seconds = time.perf_counter() - began
    if arguments.json:
        summary = {**result.plain(), "data": source, "weights": str(own.path), "seconds": round(seconds, 3)}
        if result.classes is not None:
            named = zip(result.classes.per_class(), own.classes, strict=True)
            summary["per_class"] = [{**{k: v for k, v in one.items() if k != "images"}, "class": label,
                                     "count": one["images"]} for one, label in named]  # fmt: skip
            summary["confusion"] = result.classes.confusion.tolist()
        emit(json.dumps(summary))
    else:
        emit(f"{own.path} on {source}: {result.sequences:,} sequences")
        emit(result.in_words())
        if result.classes is not None and len(own.classes) <= LARGEST_TABLE:
            emit(f"\n{result.classes.table('count')}")
            if own.classes != list(range(len(own.classes))):
                emit("classes " + ", ".join(f"{k}: {label}" for k, label in enumerate(own.classes)))
    if arguments.picture and result.classes is not None:
        with naming_another(arguments.picture, "--picture"):
            save_picture(arguments.picture, confusion_matrix(result.classes.confusion))
    return 0


def _in_words(hold: dict[str, float]) -> str:
    return ", ".join(f"{name} = {number:g}" for name, number in hold.items())


if __name__ == "__main__":
    sys.exit(main())
