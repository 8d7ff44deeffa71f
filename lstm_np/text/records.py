"""What a run of the text command is about to do, and what came of it: plain values that reporters and files share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lstm_np.files import expand
from lstm_np.loop import Epoch, Metrics, Position
from lstm_np.text.characters import TextError, read_standard_input, read_text
from lstm_np.text.example import example
from lstm_np.text.model import bits, perplexity
from lstm_np.text.settings import Settings
from lstm_np.training.records import Best, epoch_row, metrics_row, steps_of

HELD_OUT = "validation"
STDIN = Path("-")


@dataclass(frozen=True)
class Source:
    """A text and where it comes from: a file by its absolute path, `STDIN`, or the example (`path` None)."""

    path: Path | None
    text: str = field(repr=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str] | None) -> Source:
        """That of a file, or of standard input ("-"); None: the example.

        Raises TextError or OSError as `read_text`.
        """
        if path is None:
            return cls(None, example())
        if os.fspath(path) == str(STDIN):
            return cls(STDIN, read_standard_input())
        return cls(expand(path).absolute(), read_text(path))

    @property
    def name(self) -> str:
        """What people call it."""
        if self.path == STDIN:
            return "standard input"
        return "the example" if self.path is None else self.path.name

    @property
    def where(self) -> str:
        """The same, a file by its whole path."""
        return self.name if self.path in (None, STDIN) else str(self.path)

    def state(self) -> dict[str, Any]:
        """Where it is, and its fingerprint, as plain values."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        return {"path": None if self.path is None else str(self.path), "characters": len(self.text), "sha256": digest}

    @classmethod
    def of_a_run(cls, state: Mapping[str, Any], file: str | os.PathLike[str] | None) -> Source:
        """The text of a run that goes on, from `file` where it was moved.

        Raises TextError for another text, or as `read`; OSError where it cannot be read.
        """
        if file is None and state["path"] == str(STDIN):
            raise TextError(
                "this run has read its text from standard input; give it the same again, train - --resume RUN, or name "
                "a file that holds it before --resume"
            )
        found = cls.read(state["path"] if file is None else file)
        if found.state()["sha256"] != state["sha256"]:
            raise TextError(
                f"{found.where}: not the text that this run has learnt from, which had "
                f"{state['characters']:,} characters; name its file before --resume"
            )
        return found


@dataclass(frozen=True)
class Plan:
    """A run that is ready to begin.

    train, held_out   characters that are read in each epoch, and for validation
    streams           side by side in validation; in training they are the batch
    start             where it begins: further on where it goes on from a checkpoint
    """

    settings: Settings
    source: Source
    vocabulary: int
    train: int
    held_out: int
    steps_per_epoch: int
    parameters: int
    backend: str
    kernels: tuple[str, ...]
    folder: Path
    start: Position = field(default_factory=Position)
    device: str | None = None

    @property
    def steps(self) -> int:
        """How many steps the run will make."""
        return steps_of(self.settings, self.steps_per_epoch)


@dataclass(frozen=True)
class Outcome:
    """A run that ended."""

    plan: Plan
    epochs: tuple[Epoch, ...]
    best: Best | None
    seconds: float
    interrupted: int | None  # the signal's number
    sample: str = ""  # of the final weights
    no_curves: str | None = None  # why the curves could not be drawn, in words

    @property
    def steps(self) -> int:
        """The steps that were made."""
        return self.epochs[-1].steps if self.epochs else 0

    def as_json(self) -> dict[str, Any]:
        """One flat object for programs; null where nothing was measured."""
        last = self.epochs[-1] if self.epochs else None
        return {
            **text_row("train", last.train if last else None),
            **text_row(HELD_OUT, last.validation if last else None),
            "epochs": len(self.epochs),
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "run_dir": str(self.plan.folder),
            "vocabulary": self.plan.vocabulary,
            "train_characters": self.plan.train,
            "validation_characters": self.plan.held_out,
            "seed": self.plan.settings.train.seed,
            "parameters": self.plan.parameters,
            "backend": self.plan.backend,
            "kernels": list(self.plan.kernels),
            "best_epoch": self.best.epoch if self.best else None,
            "best_by": self.best.by if self.best else None,
            "interrupted": self.interrupted,
            "sample": self.sample,
        }


def text_row(prefix: str, metrics: Metrics | None) -> dict[str, float | None]:
    """Loss (nats), accuracy, bits per character and perplexity, None where nothing was measured."""
    measured = metrics is not None and metrics.count > 0
    return {
        **metrics_row(prefix, metrics),
        f"{prefix}_bits_per_character": bits(metrics.loss) if measured and metrics else None,
        f"{prefix}_perplexity": perplexity(metrics.loss) if measured and metrics else None,
    }


def row_of(record: Epoch) -> dict[str, Any]:
    """An epoch as one flat row of metrics.csv, in which samples are characters."""
    common = epoch_row(record, HELD_OUT)
    return {**common, **text_row("train", record.train), **text_row(HELD_OUT, record.validation)}
