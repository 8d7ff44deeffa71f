"""What every run does around the training loop: checkpoints, epochs and the best of them, steps that diverge.

A run is a `Trainer` of its own kind (`lstm_np.training.run`, `lstm_np.text.run`): it says what is kept, measured and
told besides, and what comes after the last step.  Its checkpoint is all of a run: one that goes on first makes the
files in its folder say what they said when the checkpoint was written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from typing import Any, Protocol

from lstm_np import loop
from lstm_np.backends import Backend
from lstm_np.callbacks import Callback, EarlyStopping, call
from lstm_np.cells import FILES
from lstm_np.checkpoints import Checkpoint, Checkpoints, Every, Keeper
from lstm_np.data import Batches
from lstm_np.errors import LstmNpError
from lstm_np.loop import BatchSource, Epoch, History, Position, Step, Steps, TrainingDivergedError
from lstm_np.metrics import AnyMetrics
from lstm_np.model import SequenceModel
from lstm_np.training import curves, run_folder
from lstm_np.training.interruption import Interruption
from lstm_np.training.lines import RunReporter
from lstm_np.training.recipes.settings import TrainSettings
from lstm_np.training.records import BestSoFar
from lstm_np.training.run_folder import BEST, CHECKPOINTS, CURVES, INITIAL, WEIGHTS, RunFolder
from lstm_np.weights import write_weights

ON_DIVERGENCE = ("raise", "skip", "rollback")
SKIPS, ROLLBACKS = 5, 3  # batches in a row, times in a run


def check_on_divergence(policy: str, backend: Backend) -> None:
    """Raises ValueError for a policy that steps on this backend cannot keep."""
    if policy == "skip" and not backend.reads_are_free:
        raise ValueError("a GPU's step does not tell before it changes the parameters: take rollback instead of skip")


class Stopped(Protocol):
    """What `opened` needs of a run that goes on."""

    @property
    def folder(self) -> RunFolder:
        """Where it lies."""
        ...

    @property
    def checkpoints(self) -> Checkpoints:
        """Entered, so that no other process has them."""
        ...

    @property
    def checkpoint(self) -> Checkpoint:
        """The newest that verifies."""
        ...


@contextmanager
def opened(
    out: str | os.PathLike[str] | None, name: str, keep: int, stopped: Stopped | None
) -> Iterator[tuple[RunFolder, Checkpoints, Position]]:
    """A run's folder, its checkpoints, which no other process has meanwhile, and where training starts.

    stopped          the run that goes on; None: a new one
    out, name, keep  of a new one: as `run_folder.create` has them, and how many checkpoints are kept

    Raises RunFolderError where the folder cannot be made.
    """
    if stopped is not None:
        yield stopped.folder, stopped.checkpoints, stopped.checkpoint.position
        return
    folder = run_folder.create(out, name)
    with ExitStack() as stack:
        with run_folder.writing(folder / CHECKPOINTS):
            checkpoints = stack.enter_context(Checkpoints(folder / CHECKPOINTS, keep))
        yield folder, checkpoints, Position()


class Trainer:
    """The callbacks of a training loop and what they share.

    name           of the command, which stands before what is said
    settings       for how long it trains
    model, steps   what is trained, and how
    measured       what each epoch is measured on besides; None: nothing is held out
    best           keeps the best epoch
    on_divergence  what is done when a step diverges, one of `ON_DIVERGENCE`: "raise"; "skip", where steps can tell
                   before anything changes: its batch is left out, SKIPS at most in a row; "rollback": the last
                   checkpoint is gone on from and the batch left out then, ROLLBACKS times at most

    `keep_checkpoints` comes first, then `begin` or `go_on`, then `make_steps`.
    """

    def __init__(
        self,
        name: str,
        settings: TrainSettings,
        model: SequenceModel,
        steps: Steps,
        measured: BatchSource | None,
        folder: RunFolder,
        reporter: RunReporter,
        interruption: Interruption,
        *,
        best: BestSoFar,
        callbacks: Sequence[Callback] = (),
        on_divergence: str = "raise",
    ) -> None:
        self.name, self.settings, self.model, self.steps, self.measured = name, settings, model, steps, measured
        self.folder, self.reporter, self.interruption, self.best = folder, reporter, interruption, best
        self.callbacks, self.ended = tuple(callbacks), False  # and whether one of them has ended training
        self.on_divergence = on_divergence
        self.keeper: Keeper
        self.history = History()
        self.left_out: list[list[int]] = []  # batches: epoch and batch of the first and of the last
        self.skipped, self.rollbacks = 0, 0  # in a row, and in all
        self._about: Mapping[str, Any] = {}
        self._best_weights: dict[str, Any] = {}
        self._seconds, self._began = 0.0, time.perf_counter()

    def say(self, text: str) -> None:
        """A note behind the command's name."""
        self.reporter.note(f"{self.name}: {text}")

    # ---- what a run of one kind has besides

    def row(self, record: Epoch) -> dict[str, Any]:
        """An epoch as metrics.csv has it."""
        raise NotImplementedError

    def details(self, record: Epoch) -> dict[str, Any]:
        """What metrics.jsonl has of an epoch besides."""
        return {}

    def gathered(self) -> dict[str, Any]:
        """What a checkpoint keeps besides, as plain values and NumPy arrays by name."""
        return {}

    def regain(self, kept: Mapping[str, Any]) -> None:
        """Take back what `gathered` gave, with all else that a checkpoint keeps."""

    def examine(self, record: Epoch) -> None:
        """Look at the model after an epoch, before its `details` are asked for."""

    def show(self, record: Epoch) -> None:
        """Tell what `examine` found, behind the epoch's own line."""

    # ---- checkpoints

    def keep_checkpoints(self, kept: Checkpoints, every: Every, about: Mapping[str, Any]) -> None:
        """Write checkpoints there; `about` is what each says of the run besides."""
        self._about = about
        self.keeper = Keeper(kept, every, self.capture, self.say)

    def begin(self, config: Mapping[str, Any]) -> None:
        """A new run: its first checkpoint, its folder's config.json and the weights before training.

        Raises CheckpointError or RunFolderError where they cannot be written.
        """
        self.keeper.begin()
        self._describe(config)
        self.save(INITIAL)

    def go_on(self, checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
        """Say why the bits may be others, if they may, and go on from a checkpoint.  Raises as `resume`."""
        for reason in config["resumed"][-1]["not_bit_identical"]:
            self.say(f"not bit-identical to an unbroken run: {reason}")
        self.resume(checkpoint)
        self._describe(config)

    def _describe(self, config: Mapping[str, Any]) -> None:
        self.folder.write_config(config)
        cell = self.model.config["cell"]
        if cell in FILES:  # the weights cannot be used without it
            self.folder.write(FILES[cell].name, FILES[cell].read_bytes())

    def capture(self) -> Checkpoint:
        """All that the run goes on from, between two steps; an unfinished epoch is no part of its history."""
        gathered = {
            "best": self.best.state(),
            "best_weights": self._best_weights,
            "callbacks": [callback.state() for callback in self.callbacks],
            "ended": self.ended,
            "history": self.history.state(),
            "left_out": self.left_out,
            "notes": dict(self.model.notes),
            "rollbacks": self.rollbacks,
            "seconds": self.seconds,
            "skipped": self.skipped,
        }
        return Checkpoint.of(self.steps, {**self._about, **gathered, **self.gathered()})

    def resume(self, checkpoint: Checkpoint) -> None:
        """Let `make_steps` go on from there, and the files say what they said there.

        Raises AttributeError, KeyError, TypeError or ValueError for a checkpoint that is not of such a run, and
        RunFolderError.
        """
        kept = checkpoint.run
        self.model.load_weights(checkpoint.parameters, self.folder / CHECKPOINTS)
        self.steps.restore(checkpoint.steps)
        self.best.restore(kept["best"])
        self.history, self.model.notes = History.from_state(kept["history"]), dict(kept["notes"])
        self._best_weights, self._seconds = kept["best_weights"], kept["seconds"]
        # checkpoints of earlier versions do not have all of these
        self.left_out, self.rollbacks = kept.get("left_out", []), kept.get("rollbacks", 0)
        self.skipped, self.ended = kept.get("skipped", 0), kept.get("ended", False)
        for callback, state in zip(self.callbacks, kept.get("callbacks", []), strict=True):
            callback.restore(state)
        self.regain(kept)
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

    def make_steps(self) -> bool:
        """Train to the end, or until the run is asked to stop, and save checkpoint and weights.

        True where early stopping took back the weights of an epoch that is not the last.
        Raises TrainingDivergedError, when what can be saved is.
        """
        try:
            while not self.trained():
                pass
        except TrainingDivergedError as error:
            self.reporter.close()
            raise TrainingDivergedError(f"{error}; {self.rescue()}") from error
        finally:
            self.reporter.close()
        with run_folder.writing(self.folder / CHECKPOINTS):
            self.keeper.finish(self.model.position)
        taken_back = not self.interruption.requested and self.take_back()
        self.save(WEIGHTS)
        return taken_back

    def trained(self) -> bool:
        """Train to the end, or until it is asked to stop; False: a step diverged, and it was rolled back before it."""
        if self.ended:
            return True
        try:
            loop.train(
                self.steps,
                epochs=self.settings.epochs,
                max_steps=self.settings.max_steps,
                validate=None if self.measured is None else self.validate,
                on_step=self.on_step,
                on_epoch=self.on_epoch,
                stop=self.interruption.asked,
                leave_out=self.leaves_out if self.left_out else None,
                on_divergence=self.skips,
            )
        except TrainingDivergedError as error:
            if self.on_divergence != "rollback" or self.rollbacks == ROLLBACKS:
                raise
            self.roll_back(error)
            return False
        return True

    def leaves_out(self, position: Position) -> bool:
        """Whether no step is made on the batch at a position."""
        here = [position.epoch, position.batch]
        return any(entry[:2] <= here <= entry[2:] for entry in self.left_out)

    def skips(self, error: TrainingDivergedError) -> bool:
        """Whether to skip the batch of a step that diverged and continue training."""
        if self.on_divergence != "skip" or self.skipped == SKIPS:
            return False
        self.skipped += 1
        here = self.model.position
        self.say(f"{error}; batch {here.batch} of epoch {here.epoch + 1} is left out ({self.skipped} in a row)")
        return True

    def roll_back(self, error: TrainingDivergedError) -> None:
        """Go back to the last checkpoint; the batch that diverged is left out from now on.

        Where steps do not wait for the device, the batch is not known: all since the checkpoint are left out.
        """
        failed, seconds, rollbacks = self.model.position, self.seconds, self.rollbacks + 1
        checkpoint = self.keeper.checkpoints.newest(self.say)
        first, last = (failed.epoch, failed.batch), (failed.epoch, failed.batch)
        if not self.model.backend.reads_are_free:
            first, last = (checkpoint.position.epoch, checkpoint.position.batch), (failed.epoch, failed.batch - 1)
        left_out = [*self.left_out, [*first, *last]]
        self.resume(checkpoint)
        self._seconds += seconds - self.seconds  # discarded steps count in the time as well
        self.left_out, self.rollbacks = left_out, rollbacks
        which = f"batch {last[1]} of epoch {last[0] + 1}"
        if first != last:
            which = f"all from batch {first[1]} of epoch {first[0] + 1} to {which}"
        self.say(
            f"{error}; back at step {checkpoint.position.step:,}, {which} left out ({rollbacks} of {ROLLBACKS} times)"
        )

    def rescue(self) -> str:
        """Save the weights if they are finite; returns what to tell the user."""
        backend = self.model.backend
        if backend.to_host(backend.xp.isfinite(self.model.params.flat).all()):
            self.save(WEIGHTS)
            which = "before it" if backend.reads_are_free else "of that moment"  # a device has updated them by then
            return f"the weights {which} are in {self.folder / WEIGHTS}"
        if self.best.kept is None:
            return "no weights were saved"
        return f"the best weights before it are in {self.folder / BEST}"

    def validate(self) -> AnyMetrics | None:
        """The metrics of what is held out; None where a signal came in between."""
        assert self.measured is not None
        self.reporter.measuring()
        return self.measure(self.measured)

    def measure(self, batches: BatchSource) -> AnyMetrics | None:
        """The metrics over all of `batches`; None where a signal came in between."""
        metrics: AnyMetrics
        if isinstance(batches, Batches):
            metrics = self.model.evaluate_data(batches, stop=self.interruption.asked)
        else:
            metrics = self.model.evaluate_batches(takewhile(lambda _: not self.interruption.asked(), batches.epoch(0)))
        return None if self.interruption.asked() else metrics

    def on_step(self, step: Step) -> None:
        """A step was made."""
        self.skipped = 0
        self.keeper.on_step(step)
        self.reporter.step(step)

    def on_epoch(self, record: Epoch) -> bool:
        """An epoch was made, or a part of one before it was stopped; True ends training."""
        finished = record.number <= self.model.position.epoch
        if not finished:  # what is recorded now is not part of the resumed run
            with run_folder.writing(self.folder / CHECKPOINTS):
                self.keeper.finish(self.model.position)
        self.model.notes.update(epoch=record.number, steps=record.steps)
        self.history += (record,)
        self.examine(record)
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
        self.show(record)
        if finished:
            self.tell_news()
        return self.ended

    def tell_news(self) -> None:
        """What callbacks have done."""
        for callback in self.callbacks:
            if callback.news is not None:
                self.say(callback.news)

    def take_back(self) -> bool:
        """Let early stopping take back the weights of the best epoch; whether they are others than the last ones."""
        taken_back = False
        for callback in self.callbacks:
            callback.finish()
            if isinstance(callback, EarlyStopping) and callback.restore_best and self.history:
                of = next((record for record in self.history if record.number == callback.best_epoch), None)
                if of is not None:
                    self.model.notes.update(epoch=of.number, steps=of.steps)
                    taken_back = of is not self.history[-1]
        self.tell_news()
        return taken_back

    def _rows(self, record: Epoch) -> tuple[dict[str, Any], dict[str, Any]]:
        """An epoch as metrics.csv has it, and what metrics.jsonl has besides."""
        details: dict[str, Any] = {
            "train_losses": [loss for loss, _ in record.looks],
            "train_accuracies": [share for _, share in record.looks],
        }
        return self.row(record), {**details, **self.details(record)}

    # ---- what is saved

    def save(self, name: str) -> None:
        """The weights, as a file of the folder.  Raises RunFolderError."""
        with run_folder.writing(self.folder / name):
            self.model.save(self.folder / name)

    def draw_curves(self, held_out: str, title: str) -> str | None:
        """Draw the curves into the folder; why that cannot be done, in words, where it cannot.

        held_out  what is called what each epoch is measured on
        """
        if not self.history:
            return "no step was made"
        try:
            self.folder.write(CURVES, curves.draw_curves(self.history, held_out, title))
        except LstmNpError as error:  # no matplotlib, a full disk
            return str(error)
        except Exception as error:  # a drawing library may raise anything, and the run is already saved
            return " ".join(f"they could not be drawn ({type(error).__name__}: {error})".split())
        return None
