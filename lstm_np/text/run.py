"""A training run of a character model, from a text to a folder, that goes on after it was stopped.

What it shares with every run is `lstm_np.training.trainer`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from lstm_np.callbacks import Callback
from lstm_np.checkpoints import Checkpoint, Checkpoints, Every
from lstm_np.loop import Epoch, Step, Steps
from lstm_np.model import SequenceClassifier
from lstm_np.text.batches import TextBatches
from lstm_np.text.characters import TextError, Vocabulary
from lstm_np.text.model import make_model
from lstm_np.text.records import HELD_OUT, STDIN, Outcome, Plan, Source, row_of
from lstm_np.text.reporter import Reporter
from lstm_np.text.sampling import Sampler
from lstm_np.text.settings import Settings
from lstm_np.training import between_epochs, run_folder
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
from lstm_np.training.resuming import (
    check_own_cell,
    command,
    going_on,
    newest_checkpoint,
    of_a_run,
    resumed_config,
)
from lstm_np.training.run import Place
from lstm_np.training.run_folder import RunFolder
from lstm_np.training.schedules import rate_of
from lstm_np.training.trainer import Trainer, check_on_divergence, opened

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

    @property
    def on_divergence(self) -> str:
        """What was done when a step diverged; checkpoints of earlier versions do not say it."""
        return str(self.checkpoint.run.get("on_divergence", "raise"))


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
    on_divergence: str = "raise",
    stopped: Stopped | None = None,
) -> Outcome:
    """Train a character model on a text as the settings say, and keep the run in its folder.

    every, keep    when checkpoints are written, and how many are kept
    on_divergence  what is done when a step diverges, as `lstm_np.training.trainer.Trainer` has it; the state that is
                   carried from step to step goes on behind a batch that is left out
    stopped        a run to go on with, whose folder is taken instead of `place.out`

    A signal that `interruption` holds back ends the run after the step it is in, with everything saved.
    Raises TextError for a text that is too short, ValueError for settings that do not fit together, RunFolderError
    where the folder cannot be written, TrainingDivergedError when it diverges (the weights before that are saved).
    """
    if stopped is None:
        run_folder.check(place.out)
    check_on_divergence(on_divergence, place.backend)  # refused before any work
    arguments(settings.optimizer)
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
    with interruption.held(), opened(place.out, "text", keep, stopped) as (folder, kept, start):
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
            "on_divergence": on_divergence,
        }
        one = _Run(plan, vocabulary, model, steps, held_out, folder, reporter, interruption, callbacks, on_divergence)
        one.keep_checkpoints(kept, every, about)
        if stopped is None:
            one.begin(config)
        else:
            with of_a_run(folder, NAME):
                one.go_on(stopped.checkpoint, config)
        with going_on(folder, one.keeper, how_to_go_on(plan)):
            return one.train()


def how_to_go_on(plan: Plan) -> str:
    """The command that resumes a run; it has to be given again what came from standard input."""
    return command(plan.folder, plan.settings.model.cell, f"{NAME} -" if plan.source.path == STDIN else NAME)


def cut(source: Source, vocabulary: Vocabulary, settings: Settings) -> tuple[TextBatches, TextBatches | None]:
    """The batches of a text's training part and of its end, that for validation; None where nothing is held out.

    Raises TextError where a part is too short, and says which sizes would do.
    """
    codes, size, dtype = vocabulary.encode(source.text), vocabulary.size, settings.model.dtype
    B, T, share = settings.train.batch_size, settings.text.sequence_length, settings.text.validation
    held = round(len(codes) * share)
    codes, rest = codes[: len(codes) - held], codes[len(codes) - held :]
    if len(codes) < B * T + 1:
        of = f"{source.where}: {len(codes):,} characters to learn from"
        raise TextError(
            f"{of} are too few for {B:,} streams of {T:,} characters per step, which need {B * T + 1:,}; lower "
            "--batch-size or --sequence-length, or take a longer text"
        )
    if share and held < 2:
        raise TextError(
            f"{source.where}: --validation {share:g} of {len(source.text):,} characters leaves too few "
            "to measure on; raise it, or hold out nothing with --validation 0"
        )
    train = TextBatches(codes, size, B, T, dtype=dtype)
    streams = max(1, min(B, held // FEWEST))
    length = min(T, max(held - 1, 1) // streams)
    return train, TextBatches(rest, size, streams, length, dtype=dtype) if share else None


class _Run(Trainer):
    """A run on a text, and what the model writes in it."""

    model: SequenceClassifier
    reporter: Reporter

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
        on_divergence: str,
    ) -> None:
        super().__init__(
            NAME,
            plan.settings.train,
            model,
            steps,
            held_out,
            folder,
            reporter,
            interruption,
            best=BestSoFar(HELD_OUT if held_out is not None else "", Best.by_loss),
            callbacks=callbacks,
            on_divergence=on_divergence,
        )
        self.plan, self.vocabulary = plan, vocabulary
        self.samples: dict[str, str] = {}  # of each epoch, by its number

    # ---- what it has besides other runs

    def row(self, record: Epoch) -> dict[str, Any]:
        return row_of(record)

    def details(self, record: Epoch) -> dict[str, Any]:
        return {"sample": self.samples.get(str(record.number), "")}

    def gathered(self) -> dict[str, Any]:
        return {"samples": self.samples}

    def regain(self, kept: Mapping[str, Any]) -> None:
        self.samples = dict(kept["samples"])

    def on_step(self, step: Step) -> None:
        super().on_step(step)
        every = self.plan.settings.text.sample_every
        if every is not None and step.number % every == 0:
            self.reporter.sample(self.sample())

    def examine(self, record: Epoch) -> None:
        self.samples[str(record.number)] = self.sample()

    def show(self, record: Epoch) -> None:
        self.reporter.sample(self.samples[str(record.number)])

    def sample(self) -> str:
        """What the model writes now; the same for the same weights."""
        text = self.plan.settings.text
        if not text.sample_length:
            return ""
        seed = self.plan.settings.train.seed
        sampler = Sampler(self.model, self.vocabulary, temperature=text.temperature, top_k=text.top_k, seed=seed)
        return sampler.write(text.sample_length)

    # ---- from the first step to the result

    def train(self) -> Outcome:
        self.reporter.start(self.plan)
        self.make_steps()
        outcome = Outcome(
            self.plan,
            tuple(self.history),
            self.best.kept,
            self.seconds,
            self.interruption.requested,
            sample="" if self.interruption.requested else self.sample(),
        )
        title = f"characters of {self.plan.source.name}, seed {self.plan.settings.train.seed}"
        outcome = replace(outcome, no_curves=self.draw_curves(HELD_OUT, title))
        self.reporter.finish(outcome)
        return outcome


def _config(
    plan: Plan,
    model: SequenceClassifier,
    steps: Steps,
    batches: TextBatches,
    held_out: TextBatches | None,
    stopped: Stopped | None,
) -> dict[str, Any]:
    """Everything that is needed to run it again, or to see why it came out differently."""
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
    return config if stopped is None else resumed_config(config, stopped.config, plan.start.step)
