"""A training run of a character model, from a text to a folder, that goes on after it was stopped.

Its parts are those of every run: the loop, checkpoints and their keeper, the run folder, callbacks between epochs.  Its
checkpoint is all of a run: the files in the folder are first made to say what they said when it was written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import Any

from lstm_np import loop
from lstm_np.callbacks import Callback, EarlyStopping, call
from lstm_np.cells import FILES
from lstm_np.checkpoints import Checkpoint, Checkpoints, Every, Keeper
from lstm_np.errors import LstmNpError
from lstm_np.loop import Epoch, History, Metrics, Position, Step, Steps, TrainingDivergedError
from lstm_np.model import SequenceClassifier
from lstm_np.text.batches import TextBatches
from lstm_np.text.characters import TextError, Vocabulary
from lstm_np.text.model import make_model
from lstm_np.text.records import HELD_OUT, Outcome, Plan, Source, row_of
from lstm_np.text.reporter import Reporter
from lstm_np.text.sampling import Sampler
from lstm_np.text.settings import Settings
from lstm_np.training import between_epochs, curves, run_folder
from lstm_np.training.environment import (
    describe_backend,
    describe_cut,
    describe_machine,
    refuse_oversize_model,
    refuse_oversize_training,
)
from lstm_np.training.interruption import Interruption
from lstm_np.training.optimizer import arguments, make_optimizer
from lstm_np.training.records import Best, BestSoFar, steps_of
from lstm_np.training.resuming import check_own_cell, command, differences, going_on, newest_checkpoint, of_a_run
from lstm_np.training.run import Place
from lstm_np.training.run_folder import BEST, CHECKPOINTS, CURVES, INITIAL, WEIGHTS, RunFolder
from lstm_np.training.schedules import rate_of
from lstm_np.weights import write_weights

NAME = "text train"  # of the command
FEWEST = 1000  # characters of a stream in validation, whose beginning is read without knowing what came before


@dataclass(frozen=True)
class Stopped:
    """A run that can go on.

    folder, checkpoints  where it lies; the checkpoints are entered, so that no other process has them
    checkpoint           the newest that verifies
    settings             that it ran with
    source               `Source.state()` of its text
    config               what its config.json said
    place                where it computed: "backend", "kernel", "cores"
    """

    folder: RunFolder
    checkpoints: Checkpoints
    checkpoint: Checkpoint
    settings: Settings
    source: Mapping[str, Any]
    config: Mapping[str, Any]
    place: Mapping[str, Any]

    @property
    def every(self) -> Every:
        """When its checkpoints were written."""
        return Every(**self.checkpoint.run["every"])


@contextmanager
def stopped_run(run: str | os.PathLike[str] | None, say: Callable[[str], None]) -> Iterator[Stopped]:
    """The run in a folder, or the one under runs/ that wrote the newest checkpoint; nobody else has it meanwhile.

    Raises as `lstm_np.training.resuming.stopped_run`.
    """
    with newest_checkpoint(run, say) as (folder, checkpoints, checkpoint):
        kept = checkpoint.run
        with of_a_run(folder, NAME):
            check_own_cell(folder, kept["settings"]["model"]["cell"])
            settings = Settings.from_state(kept["settings"])
            stopped = Stopped(folder, checkpoints, checkpoint, settings, kept["source"], kept["config"], kept["place"])
        yield stopped


def run(
    settings: Settings,
    source: Source,
    place: Place,
    reporter: Reporter,
    interruption: Interruption,
    *,
    every: Every,
    keep: int,
    stopped: Stopped | None = None,
) -> Outcome:
    """Train a character model on a text as the settings say, and keep the run in its folder.

    every, keep  when checkpoints are written, and how many are kept
    stopped      a run to go on with, whose folder is taken instead of `place.out`

    A signal that `interruption` holds back ends the run after the step it is in, with everything saved.
    Raises TextError for a text that is too short, ValueError for settings that do not fit together, RunFolderError
    where the folder cannot be written, TrainingDivergedError when it diverges (the weights before that are saved).
    """
    if stopped is None:
        run_folder.check(place.out)
    arguments(settings.optimizer)  # refused before any work
    between_epochs.refuse(settings.train)
    vocabulary = Vocabulary.of(source.text)
    refuse_oversize_model(settings.model, vocabulary.size, vocabulary.size)
    batches, held_out = cut(source, vocabulary, settings)
    options = {**settings.tables["model"], "seed": settings.train.seed}
    model = make_model(vocabulary, **options, kernel=place.kernel, backend=place.backend)
    model.notes["text"] = {"source": source.name, "begins": source.text[0]}
    refuse_oversize_training(model, batches.steps, batches.batch_size)
    optimizer, train = make_optimizer(settings.optimizer, model.params), settings.train
    callbacks = between_epochs.callbacks_of(train, optimizer, HELD_OUT if held_out is not None else "")
    rate = rate_of(train.schedule, train.warmup_steps, steps_of(settings, len(batches)))
    steps = model.training_steps(optimizer, batches, clip_norm=train.clip_norm, rate=rate)
    with interruption.held(), ExitStack() as stack:
        if stopped is None:
            folder = run_folder.create(place.out, "text")
            with run_folder.writing(folder / CHECKPOINTS):
                kept = stack.enter_context(Checkpoints(folder / CHECKPOINTS, keep))
            start = Position()
        else:
            folder, kept, start = stopped.folder, stopped.checkpoints, stopped.checkpoint.position
        plan = Plan(
            settings=settings,
            source=source,
            vocabulary=vocabulary.size,
            train=batches.length * batches.batch_size,
            held_out=0 if held_out is None else held_out.length * held_out.batch_size,
            steps_per_epoch=len(batches),
            parameters=int(model.params.flat.size),
            backend=model.backend.name,
            kernels=model.recurrent.kernel_names,
            folder=folder.path,
            start=start,
            device=model.backend.device(),
        )
        config = _config(plan, model, steps, batches, held_out, stopped)
        about = {
            "config": config,
            "settings": settings.tables,
            "source": source.state(),
            "place": {"backend": place.backend.name, "kernel": place.kernel, "cores": place.backend.cores},
            "model": model.config,
            "every": asdict(every),
        }
        one = _Run(plan, vocabulary, model, steps, held_out, folder, reporter, interruption, callbacks, about)
        one.keeper = Keeper(kept, every, one.capture, one.say)
        if stopped is None:
            one.keeper.begin()
        else:
            for reason in config["resumed"][-1]["not_bit_identical"]:
                one.say(f"not bit-identical to an unbroken run: {reason}")
            with of_a_run(folder, NAME):
                one.resume(stopped.checkpoint)
        folder.write_config(config)
        if stopped is None:
            one.save(INITIAL)
        if settings.model.cell in FILES:  # the weights cannot be used without it
            own = FILES[settings.model.cell]
            folder.write(own.name, own.read_bytes())
        with going_on(folder, one.keeper, command(folder.path, settings.model.cell, NAME)):
            return one.train()


def cut(source: Source, vocabulary: Vocabulary, settings: Settings) -> tuple[TextBatches, TextBatches | None]:
    """The batches of a text's training part and of its end, that for validation; None where nothing is held out.

    Raises TextError where a part is too short, and says which sizes would do.
    """
    codes, size, dtype = vocabulary.encode(source.text), vocabulary.size, settings.model.dtype
    B, T, share = settings.train.batch_size, settings.text.sequence_length, settings.text.validation
    held = round(len(codes) * share)
    codes, rest = codes[: len(codes) - held], codes[len(codes) - held :]
    if len(codes) < B * T + 1:
        of = f"{source.path or source.name}: {len(codes):,} characters to learn from"
        raise TextError(
            f"{of} are too few for {B:,} streams of {T:,} characters per step, which need {B * T + 1:,}; lower "
            "--batch-size or --sequence-length, or take a longer text"
        )
    if share and held < 2:
        raise TextError(
            f"{source.path or source.name}: --validation {share:g} of {len(source.text):,} characters leaves too few "
            "to measure on; raise it, or hold out nothing with --validation 0"
        )
    train = TextBatches(codes, size, B, T, dtype=dtype)
    streams = max(1, min(B, held // FEWEST))
    length = min(T, max(held - 1, 1) // streams)
    return train, TextBatches(rest, size, streams, length, dtype=dtype) if share else None


class _Run:
    """The callbacks of a training loop and what they share; its checkpoint is all of a run."""

    def __init__(
        self,
        plan: Plan,
        vocabulary: Vocabulary,
        model: SequenceClassifier,
        steps: Steps,
        held_out: TextBatches | None,
        folder: RunFolder,
        reporter: Reporter,
        interruption: Interruption,
        callbacks: Sequence[Callback],
        about: Mapping[str, Any],
    ) -> None:
        self.plan, self.vocabulary, self.model, self.steps, self.held_out = plan, vocabulary, model, steps, held_out
        self.folder, self.reporter, self.interruption = folder, reporter, interruption
        self.callbacks, self._about = tuple(callbacks), about
        self.keeper: Keeper
        self.ended = False  # by a callback
        self.best, self.history = BestSoFar(HELD_OUT if held_out is not None else "", Best.by_loss), History()
        self.samples: dict[str, str] = {}  # of each epoch, by its number
        self._best_weights: dict[str, Any] = {}
        self._seconds, self._began = 0.0, time.perf_counter()

    def say(self, text: str) -> None:
        self.reporter.note(f"{NAME}: {text}")

    # ---- checkpoints

    def capture(self) -> Checkpoint:
        """All that the run goes on from, between two steps; an unfinished epoch is no part of its history."""
        gathered = {
            "best": self.best.state(),
            "best_weights": self._best_weights,
            "callbacks": [callback.state() for callback in self.callbacks],
            "ended": self.ended,
            "history": self.history.state(),
            "notes": dict(self.model.notes),
            "samples": self.samples,
            "seconds": self.seconds,
        }
        return Checkpoint.of(self.steps, {**self._about, **gathered})

    def resume(self, checkpoint: Checkpoint) -> None:
        """Let `train` go on from there, and the files say what they said there."""
        kept = checkpoint.run
        self.model.load_weights(checkpoint.parameters, self.folder / CHECKPOINTS)
        self.steps.restore(checkpoint.steps)
        self.best.restore(kept["best"])
        self.history, self.model.notes = History.from_state(kept["history"]), dict(kept["notes"])
        self._best_weights, self._seconds = kept["best_weights"], kept["seconds"]
        self.samples, self.ended = dict(kept["samples"]), kept["ended"]
        for callback, state in zip(self.callbacks, kept["callbacks"], strict=True):
            callback.restore(state)
        self.model.position = checkpoint.position
        self.keeper.resume(checkpoint.position)
        self.folder.write_metrics(map(self._rows, self.history))
        with run_folder.writing(self.folder / BEST):
            if self._best_weights:
                about = {"model": self.model.config, "notes": self._best_weights["notes"]}
                write_weights(self.folder / BEST, self._best_weights["parameters"], about)
            else:
                (self.folder / BEST).unlink(missing_ok=True)

    @property
    def seconds(self) -> float:
        """Since the run began, without the time in which it was stopped."""
        return self._seconds + time.perf_counter() - self._began

    # ---- training

    def train(self) -> Outcome:
        settings = self.plan.settings.train
        self.reporter.start(self.plan)
        try:
            if not self.ended:
                loop.train(
                    self.steps,
                    epochs=settings.epochs,
                    max_steps=settings.max_steps,
                    validate=None if self.held_out is None else self.validate,
                    on_step=self.on_step,
                    on_epoch=self.on_epoch,
                    stop=self.interruption.asked,
                )
        except TrainingDivergedError as error:
            self.save(WEIGHTS)  # a step that diverges changes nothing
            raise TrainingDivergedError(f"{error}; the weights are in {self.folder / WEIGHTS}") from error
        finally:
            self.reporter.close()
        with run_folder.writing(self.folder / CHECKPOINTS):
            self.keeper.finish(self.model.position)
        if not self.interruption.requested:
            self.take_back()
        self.save(WEIGHTS)
        outcome = Outcome(
            self.plan,
            tuple(self.history),
            self.best.kept,
            self.seconds,
            self.interruption.requested,
            sample="" if self.interruption.requested else self.sample(),
        )
        outcome = replace(outcome, no_curves=self.draw_curves())
        self.reporter.finish(outcome)
        return outcome

    def validate(self) -> Metrics | None:
        """Loss and accuracy over what is held out; None where a signal came in between."""
        assert self.held_out is not None
        self.reporter.measuring()
        batches = takewhile(lambda _: not self.interruption.asked(), self.held_out.epoch(0))
        metrics = self.model.evaluate_batches(batches)
        return None if self.interruption.asked() else metrics

    def on_step(self, step: Step) -> None:
        self.keeper.on_step(step)
        self.reporter.step(step)
        every = self.plan.settings.text.sample_every
        if every is not None and step.number % every == 0:
            self.reporter.sample(self.sample())

    def on_epoch(self, record: Epoch) -> bool:
        finished = record.number <= self.model.position.epoch
        if not finished:  # what is recorded now is not part of the resumed run
            with run_folder.writing(self.folder / CHECKPOINTS):
                self.keeper.finish(self.model.position)
        self.model.notes.update(epoch=record.number, steps=record.steps)
        self.history += (record,)
        self.samples[str(record.number)] = self.sample()
        self.folder.append_metrics(*self._rows(record))
        if self.best.offer(record):
            self.save(BEST)
            to_host = self.model.backend.to_host
            parameters = {name: to_host(array).copy() for name, array in self.model.params.items()}
            self._best_weights = {"parameters": parameters, "notes": dict(self.model.notes)}
        if finished:
            self.ended = call(self.callbacks, record)
            self.keeper.on_epoch(record)
        self.reporter.epoch(record)
        self.reporter.sample(self.samples[str(record.number)])
        if finished:
            self.tell_news()
        return self.ended

    def sample(self) -> str:
        """What the model writes now; the same for the same weights."""
        text = self.plan.settings.text
        if not text.sample_length:
            return ""
        seed = self.plan.settings.train.seed
        sampler = Sampler(self.model, self.vocabulary, temperature=text.temperature, top_k=text.top_k, seed=seed)
        return sampler.write(text.sample_length)

    def tell_news(self) -> None:
        for callback in self.callbacks:
            if callback.news is not None:
                self.say(callback.news)

    def take_back(self) -> None:
        """Let early stopping take back the weights of the best epoch."""
        for callback in self.callbacks:
            callback.finish()
            if isinstance(callback, EarlyStopping) and callback.restore_best:
                of = next((record for record in self.history if record.number == callback.best_epoch), None)
                if of is not None:
                    self.model.notes.update(epoch=of.number, steps=of.steps)
        self.tell_news()

    def _rows(self, record: Epoch) -> tuple[dict[str, Any], dict[str, Any]]:
        """An epoch as metrics.csv has it, and what metrics.jsonl has besides."""
        details = {
            "train_losses": [loss for loss, _ in record.looks],
            "train_accuracies": [share for _, share in record.looks],
            "sample": self.samples.get(str(record.number), ""),
        }
        return row_of(record), details

    def save(self, name: str) -> None:
        with run_folder.writing(self.folder / name):
            self.model.save(self.folder / name)

    def draw_curves(self) -> str | None:
        """Draw the curves into the folder; why that cannot be done, in words, where it cannot."""
        if not self.history:
            return "no step was made"
        try:
            title = f"characters of {self.plan.source.name}, seed {self.plan.settings.train.seed}"
            self.folder.write(CURVES, curves.draw_curves(self.history, HELD_OUT, title))
        except LstmNpError as error:  # no matplotlib, a full disk
            return str(error)
        except Exception as error:  # a drawing library may raise anything, and the run is already saved
            return " ".join(f"they could not be drawn ({type(error).__name__}: {error})".split())
        return None


def _config(
    plan: Plan,
    model: SequenceClassifier,
    steps: Steps,
    batches: TextBatches,
    held_out: TextBatches | None,
    stopped: Stopped | None,
) -> dict[str, Any]:
    """Everything that is needed to run it again, or to see why it came out differently.

    Where it goes on from a checkpoint, "resumed" says from which step, each time, and what differs from before.
    """
    settings, B = plan.settings, batches.batch_size
    cuts = {"training": [describe_cut(model, T, B, save=True) for T in batches.sizes]}
    if held_out is not None:
        cuts["measuring"] = [describe_cut(model, T, held_out.batch_size, save=False) for T in held_out.sizes]
    config = {
        **settings.tables,
        "optimizer": {"name": settings.optimizer.name, **arguments(settings.optimizer)},
        "source": plan.source.state(),
        "vocabulary": plan.vocabulary,
        "train_characters": plan.train,
        "validation_characters": plan.held_out,
        "parameters": plan.parameters,
        "steps_per_epoch": plan.steps_per_epoch,
        "machine": {**describe_backend(model.backend, plan.kernels), **steps.description()},
        "cut": cuts,
        "environment": describe_machine(),
    }
    if stopped is None:
        return config
    again = {"step": plan.start.step, "not_bit_identical": differences(stopped.config, config)}
    return {**config, "resumed": [*stopped.config.get("resumed", []), again]}
