"""A character model: python -m lstm_np.text train FILE, and python -m lstm_np.text sample [RUN]."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterable
from typing import Any

from lstm_np import checkpoints
from lstm_np.backends.cores import usable_cores
from lstm_np.checkpoints import CheckpointError
from lstm_np.cli.command import Parser, backend_of, emit, flush, run_command
from lstm_np.cli.flags import NEWEST, add_checkpoint_flags, add_machine_flags, add_option_flag, shown
from lstm_np.display.tables import is_terminal
from lstm_np.files import expand
from lstm_np.model import SequenceClassifier
from lstm_np.text.characters import printable
from lstm_np.text.model import vocabulary_of
from lstm_np.text.records import Outcome, Source
from lstm_np.text.reporter import LineReporter, Reporter
from lstm_np.text.run import NAME, Stopped, how_to_go_on, run, stopped_run
from lstm_np.text.sampling import Sampler
from lstm_np.text.settings import FREE, TABLES, Settings, checked, defaults, options_of
from lstm_np.training import Place
from lstm_np.training.interruption import Interruption
from lstm_np.training.resuming import changed_settings
from lstm_np.training.run_folder import weights_path

ACTIONS = ("train", "sample")
LENGTH = 500  # characters that `sample` writes where nobody says how many
SECONDS_BETWEEN_FLUSHES = 0.05
# the flags of each action, by what the namespace calls them; all others belong to both
OF_TRAIN = {"example", "resume", "checkpoint_every", "keep_checkpoints", "on_divergence", "out", "quiet"}
OF_SAMPLE = {"length", "prompt", "best"}
SETTINGS_OF_SAMPLE = ("text.temperature", "text.top_k", "train.seed", "model.cell")


class _Parser(Parser):
    """Takes names before, between and after flags."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        return self.parse_intermixed_args(args, namespace)


def make_parser() -> Parser:
    """The flags."""
    parser = _Parser(
        "text",
        "{train FILE | sample [RUN]} [flags]",
        "Train a character model on a text, and let it write: train learns from a UTF-8 text what comes next, shows "
        "bits per character and a sample after each epoch, and keeps a run folder; sample writes text with a trained "
        "model, character by character, after --prompt. Training that was stopped, by Ctrl-C or by a crash, goes on "
        "with --resume and ends with the same bits as one that was not.",
        one="training diverged",
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument(
        "name", nargs="?", metavar="FILE|RUN", help="train: the text, - for standard input; sample: run folder or "
        "weights file [the newest run under runs/]",
    )  # fmt: skip
    parser.add_argument(
        "--example", action="store_true", default=argparse.SUPPRESS,
        help="train: learn from a generated text, small programs of a made-up language, instead of a file",
    )  # fmt: skip
    tables, both = defaults().tables, ("temperature", "top_k")
    group = parser.add_argument_group("train and sample: how characters are drawn")
    for name in both:
        _add_setting(group, "text", name, tables["text"][name])
    group = parser.add_argument_group("sample")
    group.add_argument(
        "--length", type=int, default=argparse.SUPPRESS, metavar="N", help=f"write N characters [{LENGTH}]"
    )
    group.add_argument(
        "--prompt", default=argparse.SUPPRESS, metavar="TEXT", help="what the model reads first [the end of a line]"
    )
    group.add_argument(
        "--best", action="store_true", default=argparse.SUPPRESS,
        help="the run's best.safetensors instead of its final weights",
    )  # fmt: skip
    for table in TABLES:
        group = parser.add_argument_group(f"train: {table}")
        for name in options_of(table):
            if name not in both:
                _add_setting(group, table, name, tables[table][name])
    add_machine_flags(parser)
    parser.set_defaults(backend=None, kernel=None)  # those of the run that goes on, else numpy and auto
    moved = "; FILE where its text was moved"
    add_checkpoint_flags(parser, "train: ", moved, argparse.SUPPRESS)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out",
        default=argparse.SUPPRESS,
        metavar="FOLDER",
        help="train: the run folder [a new one, runs/text-001 ...]",
    )
    group.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="train: print errors only")
    group.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser


def _add_setting(group: Any, table: str, name: str, default: object) -> None:
    option = options_of(table)[name]
    add_option_flag(group, option, _flag_of(table, name), f"{table}.{name}", shown(option, default))


def _flag_of(table: str, name: str) -> str:
    return f"--{(options_of(table)[name].flag or name).replace('_', '-')}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(make_parser(), argv, _text)


def _text(arguments: argparse.Namespace) -> int:
    given = {name for name in vars(arguments) if name not in ("action", "name", "json", "backend", "kernel", "threads")}
    if arguments.action == "sample":
        _refuse(given - OF_SAMPLE - set(SETTINGS_OF_SAMPLE), "train")
        return _sample(arguments)
    _refuse(given & OF_SAMPLE, "sample")
    return _train(arguments)


def _refuse(names: Iterable[str], action: str) -> None:
    for name in sorted(names):
        table, _, setting = name.rpartition(".")
        flag = _flag_of(table, setting) if table else f"--{name.replace('_', '-')}"
        raise ValueError(f"{flag} is a flag of {action}; leave it out")


def _settings(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The settings that were given, checked, by table and name.  Raises ValueError with one line."""
    given = vars(arguments)
    return {
        table: {
            name: checked(table, name, given[f"{table}.{name}"], _flag_of(table, name))
            for name in options_of(table)
            if f"{table}.{name}" in given
        }
        for table in TABLES
    }


# ---- train


def _train(arguments: argparse.Namespace) -> int:
    given, changes = vars(arguments), _settings(arguments)
    keep = given.get("keep_checkpoints", checkpoints.KEEP)
    if keep < 1:
        raise ValueError(f"--keep-checkpoints must be at least 1, found {keep}")
    stream = sys.stderr if arguments.json else sys.stdout
    reporter = Reporter() if given.get("quiet") else LineReporter(stream)
    resume, file = given.get("resume"), arguments.name
    if given.get("example") and (file is not None or resume is not None):
        raise ValueError("--example takes the place of FILE, and of no run that goes on; leave one of them out")
    if file is None and resume is None and not given.get("example"):
        raise ValueError("name the text to learn from: train FILE; --example takes a generated one")
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        stopped, every, on_divergence = None, checkpoints.DEFAULT, "raise"
        if resume is not None:
            run_or_newest = None if resume == NEWEST else resume
            stopped = stack.enter_context(stopped_run(run_or_newest, lambda line: reporter.note(f"{NAME}: {line}")))
            stopped.checkpoints.keep = keep
            settings = _resumed(stopped, arguments, changes)
            source = Source.of_a_run(stopped.source, file)
            every, on_divergence = stopped.every, stopped.on_divergence
        else:
            settings, source = defaults().changed(changes), Source.read(file)
        arguments.backend, arguments.kernel = arguments.backend or "numpy", arguments.kernel or "auto"
        place = Place(stack.enter_context(backend_of(arguments)), arguments.kernel, out=given.get("out"))
        outcome = run(
            settings,
            source,
            place,
            reporter,
            interruption,
            every=given.get("checkpoint_every", every),
            keep=keep,
            on_divergence=given.get("on_divergence", on_divergence),
            stopped=stopped,
        )
    return _end(outcome, interruption, reporter, as_json=arguments.json)


def _resumed(stopped: Stopped, arguments: argparse.Namespace, changes: dict[str, dict[str, Any]]) -> Settings:
    """The settings of the run that goes on; what the flags leave open of where it computes is as it was.

    Raises CheckpointError for flags that do not go with it.
    """
    out = vars(arguments).get("out")
    if out is not None and expand(out).absolute() != stopped.folder.path.absolute():
        raise CheckpointError(f"--out {out}: the run goes on in its own folder, {stopped.folder}; leave it out")
    for name in ("backend", "kernel"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, stopped.place[name])
    cores, here = stopped.place["cores"], usable_cores().number
    asked_for = stopped.config["machine"].get("cores_decided_by") == "the user"
    if arguments.threads is None and cores != here and (asked_for or cores < here):
        arguments.threads = cores  # how a batch is cut depends on their number
    per_epoch = int(stopped.config["steps_per_epoch"])
    return changed_settings(stopped.settings, stopped.checkpoint.position, per_epoch, changes, _flag_of, FREE)


def _end(outcome: Outcome, interruption: Interruption, reporter: Reporter, *, as_json: bool) -> int:
    """What is said last, and the exit status."""
    number = interruption.requested
    with contextlib.suppress(OSError) if number is not None else contextlib.nullcontext():
        if as_json:
            emit(json.dumps(outcome.as_json()))
    if number is None:
        return 0
    reporter.note(
        f"text: interrupted after {outcome.steps:,} steps; to go on from there:\n{how_to_go_on(outcome.plan)}"
    )
    return 128 + number


# ---- sample


def _sample(arguments: argparse.Namespace) -> int:
    given, settings = vars(arguments), _settings(arguments)
    length, prompt = given.get("length", LENGTH), given.get("prompt", "")
    if length < 1:
        raise ValueError(f"--length must be at least 1, found {length}")
    arguments.backend, kernel = arguments.backend or "numpy", arguments.kernel
    with backend_of(arguments) as backend:
        path = weights_path(arguments.name, best=given.get("best", False))
        model = SequenceClassifier.load(path, backend=backend, kernel=kernel)
        sampler = Sampler(model, vocabulary_of(model, path), seed=settings["train"].get("seed", 0), **settings["text"])
        sampler.read(prompt)
        if arguments.json:
            written = "".join(sampler.characters(length))
            emit(json.dumps({"prompt": prompt, "text": written, "weights": str(path)}))
        else:
            _print(prompt, sampler.characters(length))
    return 0


def _print(prompt: str, characters: Iterable[str]) -> None:
    """The prompt and the characters as they come; a terminal is spared control characters."""
    show = printable if is_terminal(sys.stdout) else str
    pending, flushed = [show(prompt)], time.monotonic()
    for one in characters:
        pending.append(show(one))
        if time.monotonic() - flushed > SECONDS_BETWEEN_FLUSHES:
            flush("".join(pending))
            pending, flushed = [], time.monotonic()
    emit("".join(pending))


if __name__ == "__main__":
    sys.exit(main())
