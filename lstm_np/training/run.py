"""A training run from a recipe to a folder: data, model, optimizer, the loop, and what is kept of it.

A run that was stopped goes on from its newest checkpoint (`lstm_np.training.resuming`), which holds all that `_Run` has
gathered; the files in the folder are first made to say what they said when it was written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import Any

from lstm_np import checkpoints, loop
from lstm_np.backends import Backend
from lstm_np.callbacks import Callback, EarlyStopping, call
from lstm_np.cells import FILES
from lstm_np.checkpoints import Checkpoint, Checkpoints, Every, Keeper, fingerprint
from lstm_np.data import Batches, Dataset, DatasetError, load_dataset
from lstm_np.data.load import named_folder
from lstm_np.data.sequences.preparation import MappedBatches
from lstm_np.errors import LstmNpError
from lstm_np.files import expand
from lstm_np.loop import Epoch, History, Position, Step, Steps, TrainingDivergedError
from lstm_np.metrics import AnyMetrics, Metrics
from lstm_np.model import SequenceClassifier, SequenceModel
from lstm_np.training import between_epochs, curves, run_folder
from lstm_np.training.environment import (
    describe_backend,
    describe_cut,
    describe_machine,
    refuse_oversize_model,
    refuse_oversize_training,
)
from lstm_np.training.gate_health import SEQUENCES, LayerHealth, gate_health
from lstm_np.training.interruption import Interruption
from lstm_np.training.material import Material, in_order, prepare
from lstm_np.training.optimizer import arguments, make_optimizer
from lstm_np.training.own_data import OwnData, OwnSettings
from lstm_np.training.own_model import OwnModel
from lstm_np.training.recipes import Recipe
from lstm_np.training.records import Best, BestSoFar, Outcome, Plan, epoch_row, steps_of
from lstm_np.training.reporters import Reporter
from lstm_np.training.resuming import Stopped, command, differences, going_on
from lstm_np.training.run_folder import BEST, CHECKPOINTS, CURVES, INITIAL, WEIGHTS, RunFolder
from lstm_np.training.schedules import rate_of
from lstm_np.weights import write_weights

SAMPLE = 10  # test images whose predictions are shown beside their labels
ON_DIVERGENCE = ("raise", "skip", "rollback")
SKIPS, ROLLBACKS = 5, 3  # batches in a row, times in a run


@dataclass(frozen=True)
class Place:
    """Where a run computes and what it reads and writes: nothing that changes what is learnt.

    backend, kernel   see `SequenceClassifier`
    data_dir, offline, explicit   see `lstm_np.data.load_dataset`
    out               the run folder; None: a new one under runs/
    """

    backend: Backend
    kernel: str = "auto"
    data_dir: str | os.PathLike[str] | None = None
    offline: bool = False
    explicit: bool = False
    out: str | os.PathLike[str] | None = None


@dataclass(frozen=True)
class Care:
    """How a run is looked after.

    every          when checkpoints are written, besides those before the first step and at the end
    keep           how many of them are kept
    on_divergence  what is done when a step diverges, one of `ON_DIVERGENCE`: "raise"; "skip", where steps can tell
                   before anything changes: its batch is left out, SKIPS at most in a row; "rollback": the last
                   checkpoint is gone on from and the batch left out then, ROLLBACKS times at most
    gate_health    whether the state of the gates is measured and told after each epoch
    """

    every: Every = checkpoints.DEFAULT
    keep: int = checkpoints.KEEP
    on_divergence: str = "raise"
    gate_health: bool = False

    def state(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Care:
        """The one that gave this state."""
        return cls(**{**state, "every": Every(**state["every"])})


def run(
    recipe: Recipe,
    place: Place,
    reporter: Reporter | None = None,
    interruption: Interruption | None = None,
    *,
    on_digits: Recipe | None = None,
    care: Care | None = None,
    stopped: Stopped | None = None,
    own: OwnSettings | None = None,
) -> Outcome:
    """Train as the recipe says, and keep the run in its folder.

    on_digits  the recipe to take instead where the data turn out to be the embedded digits; None: the same one
    own        sequences of one's own, which are learnt from instead of a data set of images
    stopped    a run to go on with, whose folder is taken instead of `place.out`; `recipe` is its own, or one that
               `lstm_np.training.resuming.changed` made of it

    A signal that `interruption` holds back ends the run after the step it is in, with everything saved.
    Raises DatasetError, IDXError or DownloadError for the data, ValueError for settings that do not fit together,
    RunFolderError where the folder cannot be written, CheckpointError where another process is training in it,
    TrainingDivergedError when it diverges (the weights before that are saved).
    """
    reporter, interruption, care = reporter or Reporter(), interruption or Interruption(), care or Care()
    if stopped is None:
        run_folder.check(place.out)
    if care.on_divergence == "skip" and not place.backend.reads_are_free:
        raise ValueError("a GPU's step does not tell before it changes the parameters: take rollback instead of skip")
    for each in (recipe, on_digits or recipe):
        arguments(each.optimizer)  # refused before the data are fetched
        between_epochs.refuse(each.train)
    dataset: Dataset | OwnData
    if own is not None:
        dataset = _own_data(own, recipe, stopped)
        recipe = replace(recipe, published=None)
        material, outputs = dataset.material(recipe), dataset.outputs
        if care.gate_health and len(set(dataset.data.counts().tolist())) > 1:
            raise ValueError("gate_health compares gates step by step: it needs sequences of one length")
    else:
        dataset = images = _images(recipe, place, reporter, stopped)
        if dataset.name == "digits" and on_digits is not None:
            recipe = on_digits
        material, outputs = prepare(images, recipe), images.num_classes
    batch_size = min(recipe.train.batch_size, material.train.samples)
    refuse_oversize_model(recipe.model, material.sequence[1], outputs)
    model: SequenceModel
    if isinstance(dataset, OwnData):
        model = dataset.model(recipe, place.backend, place.kernel)
        notes = dataset.notes()
    else:
        common: dict[str, Any] = {"kernel": place.kernel, "backend": place.backend, "seed": recipe.train.seed}
        model = SequenceClassifier(material.sequence[1], num_classes=outputs, **common, **recipe.tables["model"])
        notes = {
            "dataset": dataset.name,
            "view": recipe.data.view,
            "image_shape": list(dataset.image_shape),
            "pixel_max": dataset.pixel_max,
        }
    refuse_oversize_training(model, material.sequence[0], batch_size)
    reporter.model(model, material.sequence[0], batch_size)
    settings, optimizer = recipe.train, make_optimizer(recipe.optimizer, model.params)
    callbacks = between_epochs.callbacks_of(settings, optimizer, material.held_out)
    for callback in callbacks:
        callback.check_metrics(model.head.monitored)
    per_epoch = -(-len(material.train) // settings.accumulate)
    steps = model.training_steps(
        optimizer,
        material.train,
        clip_norm=settings.clip_norm,
        rate=rate_of(settings.schedule, settings.warmup_steps, steps_of(recipe, per_epoch)),
        accumulate=settings.accumulate,
    )
    model.notes = {"recipe": recipe.name, **notes}
    with interruption.held(), ExitStack() as stack:
        if stopped is None:
            folder = run_folder.create(place.out, recipe.name)
            with run_folder.writing(folder / CHECKPOINTS):
                kept = stack.enter_context(Checkpoints(folder / CHECKPOINTS, care.keep))
            start = Position()
        else:
            folder, kept, start = stopped.folder, stopped.checkpoints, stopped.checkpoint.position
        plan = _plan(recipe, dataset, material, model, folder, place, start, steps)
        config = _config(plan, place, _cuts(model, material), stopped)
        one = _Run(plan, material, model, steps, folder, reporter, interruption, care, callbacks)
        one.keep_checkpoints(kept, {
            "config": config, "recipe": recipe.state(), "place": _where(plan, place), "model": model.config,
            "care": care.state(),
        })  # fmt: skip
        if stopped is not None:
            if isinstance(dataset, Dataset):
                _check_same(config["dataset"]["sha256"], stopped, f"{dataset.source}; --data-dir names a folder")
            for reason in config["resumed"][-1]["not_bit_identical"]:
                reporter.note(f"train: not bit-identical to an unbroken run: {reason}")
            one.resume(stopped.checkpoint)
        else:
            one.keeper.begin()
        folder.write_config(config)
        if stopped is None:
            one.save(INITIAL)
        if recipe.model.cell in FILES:  # the weights cannot be used without it
            cell = FILES[recipe.model.cell]
            folder.write(cell.name, cell.read_bytes())
        with going_on(folder, one.keeper, command(folder.path, recipe.model.cell)):
            return one.train()


class _Run:
    """The callbacks of a training loop and what they share; its checkpoint is all of a run."""

    def __init__(
        self,
        plan: Plan,
        material: Material,
        model: SequenceModel,
        steps: Steps,
        folder: RunFolder,
        reporter: Reporter,
        interruption: Interruption,
        care: Care,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.plan, self.material, self.model, self.steps, self.folder = plan, material, model, steps, folder
        self.reporter, self.interruption, self.care = reporter, interruption, care
        self.keeper: Keeper
        self.left_out: list[list[int]] = []  # batches: epoch and batch of the first and of the last
        self.skipped, self.rollbacks = 0, 0  # in a row, and in all
        self.callbacks, self.ended = tuple(callbacks), False  # and whether one of them has ended training
        self.health: dict[str, Any] = {}  # of each epoch, by its number
        self._about: Mapping[str, Any] = {}
        self._best_weights: dict[str, Any] = {}
        self._seconds, self._began = 0.0, time.perf_counter()
        candidate = Best.candidate if plan.metrics is Metrics else Best.by_loss
        self.best, self.history = BestSoFar(plan.held_out, candidate), History()

    # ---- checkpoints

    def keep_checkpoints(self, kept: Checkpoints, about: Mapping[str, Any]) -> None:
        """Write checkpoints there; `about` is what each says of the run besides."""
        self._about = about
        self.keeper = Keeper(kept, self.care.every, self.capture, self.say)

    def say(self, text: str) -> None:
        self.reporter.note(f"train: {text}")

    def capture(self) -> Checkpoint:
        """All that the run goes on from, between two steps; an unfinished epoch is no part of its history."""
        gathered = {
            "best": self.best.state(),
            "best_weights": self._best_weights,
            "callbacks": [callback.state() for callback in self.callbacks],
            "ended": self.ended,
            "health": self.health,
            "history": self.history.state(),
            "left_out": self.left_out,
            "notes": dict(self.model.notes),
            "rollbacks": self.rollbacks,
            "seconds": self.seconds,
            "skipped": self.skipped,
        }
        return Checkpoint.of(self.steps, {**self._about, **gathered})

    def resume(self, checkpoint: Checkpoint) -> None:
        """Let `train` go on from there, and the files say what they said there.

        Raises CheckpointError for one that is not of such a run.
        """
        kept = checkpoint.run
        try:
            self.model.load_weights(checkpoint.parameters, self.folder / CHECKPOINTS)
            self.steps.restore(checkpoint.steps)
            self.best.restore(kept["best"])
            self.history, self.model.notes = History.from_state(kept["history"]), dict(kept["notes"])
            self._best_weights, self._seconds = kept["best_weights"], kept["seconds"]
            self.left_out, self.rollbacks, self.skipped = kept["left_out"], kept["rollbacks"], kept["skipped"]
            self.health, self.ended = kept["health"], kept.get("ended", False)
            for callback, state in zip(self.callbacks, kept.get("callbacks", []), strict=True):
                callback.restore(state)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise checkpoints.CheckpointError(
                f"{self.folder}: its checkpoint does not fit its model ({reason})"
            ) from error
        self.model.position = checkpoint.position
        self.keeper.resume(checkpoint.position)
        self.folder.write_metrics(map(self._rows, self.history))
        if self._best_weights:
            with run_folder.writing(self.folder / BEST):
                about = {"model": self.model.config, "notes": self._best_weights["notes"]}
                write_weights(self.folder / BEST, self._best_weights["parameters"], about)
        else:
            with run_folder.writing(self.folder / BEST):
                (self.folder / BEST).unlink(missing_ok=True)

    @property
    def seconds(self) -> float:
        """Since the run began, without the time in which it was stopped."""
        return self._seconds + time.perf_counter() - self._began

    # ---- training

    def train(self) -> Outcome:
        self.reporter.start(self.plan)
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
        test = self.test(measured_last=not taken_back)
        as_published = None if test is None else self.as_published(test)
        seconds = self.seconds
        sample = () if test is None else self.sample()
        outcome = Outcome(
            self.plan,
            tuple(self.history),
            self.best.kept,
            test,
            seconds,
            self.interruption.requested,
            sample=sample,
            as_published=as_published,
            errors=None if test is None else self.errors(),
        )
        self.reporter.result(outcome)  # before anything is drawn, which may fail
        outcome = replace(outcome, no_curves=self.draw_curves())
        self.reporter.finish(outcome)
        return outcome

    def trained(self) -> bool:
        """Train to the end, or until it is asked to stop; False: a step diverged, and it was rolled back before it."""
        settings = self.plan.recipe.train
        if self.ended:
            return True
        try:
            loop.train(
                self.steps,
                epochs=settings.epochs,
                max_steps=settings.max_steps,
                validate=None if self.material.measured is None else self.validate,
                on_step=self.on_step,
                on_epoch=self.on_epoch,
                stop=self.interruption.asked,
                leave_out=self.leaves_out if self.left_out else None,
                on_divergence=self.skips,
            )
        except TrainingDivergedError as error:
            if self.care.on_divergence != "rollback" or self.rollbacks == ROLLBACKS:
                raise
            self.roll_back(error)
            return False
        return True

    def leaves_out(self, position: Position) -> bool:
        here = [position.epoch, position.batch]
        return any(entry[:2] <= here <= entry[2:] for entry in self.left_out)

    def skips(self, error: TrainingDivergedError) -> bool:
        """Whether to skip the batch of a step that diverged and continue training."""
        if self.care.on_divergence != "skip" or self.skipped == SKIPS:
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

    def validate(self) -> AnyMetrics | None:
        assert self.material.measured is not None
        self.reporter.measuring()
        return self.measure(self.material.measured)

    def on_step(self, step: Step) -> None:
        self.skipped = 0
        self.keeper.on_step(step)
        self.reporter.step(step)

    def on_epoch(self, record: Epoch) -> bool:
        finished = record.number <= self.model.position.epoch
        if not finished:  # what is recorded now is not part of the resumed run
            with run_folder.writing(self.folder / CHECKPOINTS):
                self.keeper.finish(self.model.position)
        self.model.notes.update(epoch=record.number, steps=record.steps)
        self.history += (record,)
        layers = self.measure_health() if self.care.gate_health else []
        if layers:
            self.health[str(record.number)] = [layer.plain() for layer in layers]
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
        for layer in layers:
            self.reporter.health(layer.line())
        if finished:
            self.tell_news()
        return self.ended

    def tell_news(self) -> None:
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

    def measure_health(self) -> list[LayerHealth]:
        """The state of the gates on a few of the samples that each epoch is measured on, or else learns from."""
        x, labels = next(iter((self.material.measured or self.material.train).epoch(0)))
        return gate_health(self.model, x[:SEQUENCES], labels[:SEQUENCES])

    def _rows(self, record: Epoch) -> tuple[dict[str, Any], dict[str, Any]]:
        """An epoch as metrics.csv has it, and what metrics.jsonl has besides."""
        details: dict[str, Any] = {
            "train_losses": [loss for loss, _ in record.looks],
            "train_accuracies": [share for _, share in record.looks],
        }
        if str(record.number) in self.health:
            details["gates"] = self.health[str(record.number)]
        return epoch_row(record, self.plan.held_out), details

    def measure(self, batches: Batches | MappedBatches) -> AnyMetrics | None:
        """The metrics over all of `batches`; None where a signal came in between."""
        metrics: AnyMetrics
        if isinstance(batches, MappedBatches):
            metrics = self.model.evaluate_batches(takewhile(lambda _: not self.interruption.asked(), batches.epoch(0)))
        else:
            metrics = self.model.evaluate_data(batches, stop=self.interruption.asked)
        return None if self.interruption.asked() else metrics

    def test(self, *, measured_last: bool) -> AnyMetrics | None:
        """The metrics of the whole test set with the final weights; None where there is none.

        measured_last  whether the last epoch was measured with these weights
        """
        last = self.history[-1].validation if self.history else None
        if measured_last and self.plan.held_out == "test" and last is not None and last.count > 0:
            return last
        return None if self.material.test is None else self.measure(self.material.test)

    def errors(self) -> dict[str, float | None] | None:
        """The errors of predicted numbers on the test sequences, in their own unit."""
        own = self.plan.dataset  # of one's own, or images
        if not isinstance(own, OwnData) or own.num_classes is not None:
            return None
        tested = OwnModel.of(self.folder / WEIGHTS, self.model).measure(own.data.take(own.parts["test"]))
        return dict(tested.errors or {})

    def as_published(self, test: AnyMetrics) -> Metrics | None:
        """Loss and accuracy on as many test images as the published figure is of; None where nothing was published."""
        recipe, dataset = self.plan.recipe, self.plan.dataset
        if recipe.published is None or not isinstance(dataset, Dataset) or not isinstance(test, Metrics):
            return None
        if recipe.published.test_images >= test.count:
            return test
        first = slice(recipe.published.test_images)
        images, labels = dataset.test_images[first], dataset.test_labels[first]
        found = self.measure(in_order(images, labels, dataset.scale, recipe.data.view, recipe.model.dtype))
        return found if isinstance(found, Metrics) else None

    def sample(self) -> tuple[tuple[int, int], ...]:
        """The predicted classes of the first test images, each beside its label."""
        if self.material.test is None or not isinstance(self.plan.dataset, Dataset):
            return ()
        x, labels = next(iter(self.material.test.epoch(0)))
        assert isinstance(self.model, SequenceClassifier)
        predicted = self.model.predict(x[:SAMPLE])
        return tuple(zip(predicted.tolist(), labels[:SAMPLE].tolist(), strict=True))

    def save(self, name: str) -> None:
        with run_folder.writing(self.folder / name):
            self.model.save(self.folder / name)

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

    def draw_curves(self) -> str | None:
        """Draw the curves into the folder; why that cannot be done, in words, where it cannot."""
        if not self.history:
            return "no step was made"
        try:
            self.folder.write(CURVES, curves.draw_curves(self.history, self.plan.held_out, curves.title_of(self.plan)))
        except LstmNpError as error:  # no matplotlib, a full disk
            return str(error)
        except Exception as error:  # a drawing library may raise anything, and the run is already saved
            return " ".join(f"they could not be drawn ({type(error).__name__}: {error})".split())
        return None


def _plan(
    recipe: Recipe,
    dataset: Dataset | OwnData,
    material: Material,
    model: SequenceModel,
    folder: RunFolder,
    place: Place,
    start: Position,
    steps: Steps,
) -> Plan:
    named = None if isinstance(dataset, OwnData) or dataset.name == "digits" else named_folder(place.data_dir)
    return Plan(
        recipe=recipe,
        dataset=dataset,
        held_out=material.held_out,
        train_images=material.train.samples,
        held_out_images=0 if material.measured is None else material.measured.samples,
        steps_per_epoch=len(steps),
        sequence=material.sequence,
        parameters=int(model.params.flat.size),
        backend=model.backend.name,
        kernels=model.recurrent.kernel_names,
        folder=folder.path,
        data_dir=None if named is None else expand(named),
        start=start,
        device=model.backend.device(),
        made_by=steps.description(),
    )


def _images(recipe: Recipe, place: Place, reporter: Reporter, stopped: Stopped | None) -> Dataset:
    """The images that the recipe names, or that a run which goes on has learnt from."""
    with reporter.downloading() as progress:
        return load_dataset(
            recipe.data.dataset if stopped is None else stopped.place["dataset"],
            place.data_dir,
            place.offline,
            reporter.note,
            explicit=place.explicit or stopped is not None,
            progress=progress,
        )


def _own_data(own: OwnSettings, recipe: Recipe, stopped: Stopped | None) -> OwnData:
    """The sequences of one's own; DatasetError where a run that goes on has learnt from others."""
    data = recipe.data
    if data.shift or data.rotate or data.zoom:
        raise ValueError(f"the recipe {recipe.name} moves images, which sequences are not; take another")
    found = OwnData.load(own, recipe.train.seed)
    if stopped is not None:
        _check_same(found.sha256, stopped, f"{own.path} now holds; --data names the file where it has moved")
    return found


def _check_same(sha256: str, stopped: Stopped, other: str) -> None:
    if sha256 != stopped.config["dataset"]["sha256"]:
        raise DatasetError(f"{stopped.folder}: has learnt from other data than {other}")


def _described(dataset: Dataset, plan: Plan) -> dict[str, Any]:
    """What config.json says of images."""
    contents = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    return {
        "name": dataset.name,
        "source": dataset.source,
        "verified": dataset.verified,
        "sha256": fingerprint(contents),
        "train_images": plan.train_images,
        f"{plan.held_out}_images": plan.held_out_images,
        "test_images": len(dataset.test_labels),
        "image_shape": list(dataset.image_shape),
        "num_classes": dataset.num_classes,
    }


def _where(plan: Plan, place: Place) -> dict[str, Any]:
    """Where a run computes and reads, to be taken again where it is gone on with and nobody says otherwise."""
    where = {
        "backend": place.backend.name,
        "kernel": place.kernel,
        "cores": place.backend.cores,
        "data_dir": None if plan.data_dir is None else str(plan.data_dir.absolute()),
    }
    if isinstance(plan.dataset, OwnData):
        return {**where, "own": plan.dataset.settings.state()}
    return {**where, "dataset": "digits" if plan.dataset.name == "digits" else plan.recipe.data.dataset}


def _cuts(model: SequenceModel, material: Material) -> dict[str, list[dict[str, Any]]]:
    """How batches of each size are cut over the cores, in training and where nothing is learnt; as plain values."""
    T = material.sequence[0]
    sizes: dict[str, Iterable[int]] = {
        "training": material.train.sizes,
        "measuring": {size for part in (material.measured, material.test) if part is not None for size in part.sizes},
    }

    return {
        purpose: [describe_cut(model, T, B, save=purpose == "training") for B in sorted(found, reverse=True)]
        for purpose, found in sizes.items()
    }


def _config(plan: Plan, place: Place, cuts: Mapping[str, Any], stopped: Stopped | None) -> dict[str, Any]:
    """Everything that is needed to run it again, or to see why it came out differently.

    Where it goes on from a checkpoint, "resumed" says from which step, each time, and what differs from before.
    """
    recipe, dataset = plan.recipe, plan.dataset
    config = {
        "recipe": recipe.name,
        "title": recipe.title,
        **(dataset.tables(recipe) if isinstance(dataset, OwnData) else recipe.tables),
        "optimizer": {"name": recipe.optimizer.name, **arguments(recipe.optimizer)},
        "dataset": dataset.described() if isinstance(dataset, OwnData) else _described(dataset, plan),
        "sequence": {"steps": plan.sequence[0], "features": plan.sequence[1]},
        "parameters": plan.parameters,
        "steps_per_epoch": plan.steps_per_epoch,
        "machine": {**describe_backend(place.backend, plan.kernels), **plan.made_by},
        "cut": cuts,
        "environment": describe_machine(),
    }
    if stopped is None:
        return config
    again = {"step": plan.start.step, "not_bit_identical": differences(stopped.config, config)}
    return {**config, "resumed": [*stopped.config.get("resumed", []), again]}
