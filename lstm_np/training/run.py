"""A training run from a recipe to a folder: data, model, optimizer, the loop, and what is kept of it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from lstm_np import loop
from lstm_np.backends import Backend
from lstm_np.cells import FILES
from lstm_np.data import Batches, Dataset, load_dataset
from lstm_np.data.load import named_folder
from lstm_np.errors import LstmNpError
from lstm_np.files import expand
from lstm_np.loop import Epoch, History, Metrics, Position, Running, TrainingDivergedError
from lstm_np.model import SequenceClassifier
from lstm_np.optimizers import Optimizer
from lstm_np.training import curves, run_folder
from lstm_np.training.environment import describe_machine, refuse_oversize_model, refuse_oversize_training
from lstm_np.training.interruption import Interruption
from lstm_np.training.material import Material, fingerprint, in_order, prepare
from lstm_np.training.optimizer import arguments, make_optimizer
from lstm_np.training.recipes import Recipe
from lstm_np.training.records import BestSoFar, Outcome, Plan, epoch_row
from lstm_np.training.reporters import Reporter
from lstm_np.training.run_folder import BEST, CURVES, WEIGHTS, RunFolder
from lstm_np.training.schedules import rate_of

SAMPLE = 10  # test images whose predictions are shown beside their labels


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


def run(
    recipe: Recipe,
    place: Place,
    reporter: Reporter | None = None,
    interruption: Interruption | None = None,
    *,
    on_digits: Recipe | None = None,
) -> Outcome:
    """Train as the recipe says, and keep the run in its folder.

    `on_digits` is the recipe to take instead where the data turn out to be the embedded digits; None: the same one.
    A signal that `interruption` holds back ends the run after the step it is in, with everything saved.
    Raises DatasetError, IDXError or DownloadError for the data, ValueError for settings that do not fit together,
    RunFolderError where the folder cannot be written, TrainingDivergedError when it diverges (the weights before that
    are saved).
    """
    reporter, interruption = reporter or Reporter(), interruption or Interruption()
    run_folder.check(place.out)
    for each in (recipe, on_digits or recipe):
        arguments(each.optimizer)  # refused before the data are fetched
    with reporter.downloading() as progress:
        dataset = load_dataset(
            recipe.data.dataset,
            place.data_dir,
            place.offline,
            reporter.note,
            explicit=place.explicit,
            progress=progress,
        )
    if dataset.name == "digits" and on_digits is not None:
        recipe = on_digits
    material = prepare(dataset, recipe)
    batch_size = min(recipe.train.batch_size, material.train.samples)
    refuse_oversize_model(recipe, material.sequence[1], dataset.num_classes)
    model = SequenceClassifier(
        material.sequence[1],
        num_classes=dataset.num_classes,
        kernel=place.kernel,
        backend=place.backend,
        seed=recipe.train.seed,
        **recipe.tables["model"],
    )
    refuse_oversize_training(model, material.sequence[0], batch_size)
    reporter.model(model, material.sequence[0], batch_size)
    optimizer = make_optimizer(recipe.optimizer, model.params)
    model.notes = {
        "recipe": recipe.name,
        "dataset": dataset.name,
        "view": recipe.data.view,
        "image_shape": list(dataset.image_shape),
        "pixel_max": dataset.pixel_max,
    }
    with interruption.held():
        folder = run_folder.create(place.out, recipe.name)
        plan = _plan(recipe, dataset, material, model, folder, place)
        folder.write_config(_config(plan, place))
        if recipe.model.cell in FILES:  # the weights are of no use without it
            own = FILES[recipe.model.cell]
            folder.write(own.name, own.read_bytes())
        return _Run(plan, material, model, optimizer, folder, reporter, interruption).train()


class _Run:
    """The callbacks of a training loop and what they share; its state, with the parameters, is all of a run."""

    def __init__(
        self,
        plan: Plan,
        material: Material,
        model: SequenceClassifier,
        optimizer: Optimizer,
        folder: RunFolder,
        reporter: Reporter,
        interruption: Interruption,
    ) -> None:
        self.plan, self.material, self.model, self.folder = plan, material, model, folder
        self.reporter, self.interruption = reporter, interruption
        settings = plan.recipe.train
        self.steps = model.training_steps(
            optimizer,
            material.train,
            clip_norm=settings.clip_norm,
            rate=rate_of(settings.schedule, settings.warmup_steps, plan.steps),
        )
        self.best, self.history = BestSoFar(plan.held_out), History()

    def state(self) -> dict[str, Any]:
        """Where the run stands and what it has gathered, besides the parameters: plain values and NumPy arrays."""
        return {
            "position": asdict(self.model.position),
            "steps": self.steps.state(),
            "best": self.best.state(),
            "history": self.history.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Let `train` go on from what `state` gave; the parameters are set besides."""
        self.steps.restore(state["steps"])
        self.best.restore(state["best"])
        self.history = History.from_state(state["history"])
        self.model.position = Position(**state["position"])

    def train(self) -> Outcome:
        settings, began = self.plan.recipe.train, time.perf_counter()
        self.reporter.start(self.plan)
        try:
            loop.train(
                self.steps,
                epochs=settings.epochs,
                max_steps=settings.max_steps,
                validate=self.validate,
                on_step=self.reporter.step,
                on_epoch=self.on_epoch,
                stop=self.interruption.asked,
            )
        except TrainingDivergedError as error:
            self.reporter.close()
            raise TrainingDivergedError(f"{error}; {self.rescue()}") from error
        finally:
            self.reporter.close()
        self.save(WEIGHTS)
        test = self.test()
        as_published = None if test is None else self.as_published(test)
        seconds = time.perf_counter() - began
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
        )
        self.reporter.result(outcome)  # before anything is drawn, which may fail
        outcome = replace(outcome, no_curves=self.draw_curves())
        self.reporter.finish(outcome)
        return outcome

    def validate(self) -> Metrics:
        self.reporter.measuring()
        return self.measure(self.material.measured)

    def on_epoch(self, record: Epoch) -> None:
        self.model.notes.update(epoch=record.number, steps=record.steps)
        self.history += (record,)
        details = {
            "train_losses": [loss for loss, _ in record.looks],
            "train_accuracies": [share for _, share in record.looks],
        }
        self.folder.append_metrics(epoch_row(record, self.plan.held_out), details)
        if self.best.offer(record):
            self.save(BEST)
        self.reporter.epoch(record)

    def measure(self, batches: Batches) -> Metrics:
        """Loss and accuracy over all of `batches`; of no images where a signal came in between."""
        metrics = self.model.evaluate_data(batches, stop=self.interruption.asked)
        return Running(self.model.backend).read() if self.interruption.asked() else metrics

    def test(self) -> Metrics | None:
        """Loss and accuracy on the whole test set with the final weights."""
        last = self.history[-1].validation if self.history else None
        known = self.plan.held_out == "test" and last is not None and last.count > 0
        metrics = last if known else self.measure(self.material.test)
        return metrics if metrics is not None and metrics.count else None

    def as_published(self, test: Metrics) -> Metrics | None:
        """Loss and accuracy on as many test images as the published figure is of; None where nothing was published."""
        recipe, dataset = self.plan.recipe, self.plan.dataset
        if recipe.published is None or recipe.published.test_images >= test.count:
            return None if recipe.published is None else test
        first = slice(recipe.published.test_images)
        images, labels = dataset.test_images[first], dataset.test_labels[first]
        metrics = self.measure(in_order(images, labels, dataset.scale, recipe.data.view, recipe.model.dtype))
        return metrics if metrics.count else None

    def sample(self) -> tuple[tuple[int, int], ...]:
        """What the first test images are taken for, each beside its label."""
        x, labels = next(iter(self.material.test.epoch(0)))
        guesses = self.model.predict(x[:SAMPLE])
        return tuple(zip(guesses.tolist(), labels[:SAMPLE].tolist(), strict=True))

    def save(self, name: str) -> None:
        with run_folder.writing(self.folder / name):
            self.model.save(self.folder / name)

    def rescue(self) -> str:
        """Keep the weights if they are finite; what to tell about it."""
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
            self.folder.write(CURVES, curves.draw_curves(self.history, self.plan))
        except LstmNpError as error:  # no matplotlib, a full disk
            return str(error)
        except Exception as error:  # whatever a drawing library fails with: the run is done and saved
            return " ".join(f"they could not be drawn ({type(error).__name__}: {error})".split())
        return None


def _plan(
    recipe: Recipe,
    dataset: Dataset,
    material: Material,
    model: SequenceClassifier,
    folder: RunFolder,
    place: Place,
) -> Plan:
    named = None if dataset.name == "digits" else named_folder(place.data_dir)
    return Plan(
        recipe=recipe,
        dataset=dataset,
        held_out=material.held_out,
        train_images=material.train.samples,
        held_out_images=material.measured.samples,
        steps_per_epoch=len(material.train),
        sequence=material.sequence,
        parameters=int(model.params.flat.size),
        backend=model.backend.name,
        kernels=model.recurrent.kernel_names,
        folder=folder.path,
        data_dir=None if named is None else expand(named),
    )


def _config(plan: Plan, place: Place) -> dict[str, Any]:
    """Everything that is needed to run it again, or to see why it came out differently."""
    recipe, dataset = plan.recipe, plan.dataset
    contents = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        **recipe.tables,
        "optimizer": {"name": recipe.optimizer.name, **arguments(recipe.optimizer)},
        "dataset": {
            "name": dataset.name,
            "source": dataset.source,
            "verified": dataset.verified,
            "sha256": fingerprint(contents),
            "train_images": plan.train_images,
            f"{plan.held_out}_images": plan.held_out_images,
            "test_images": len(dataset.test_labels),
            "image_shape": list(dataset.image_shape),
            "num_classes": dataset.num_classes,
        },
        "sequence": {"steps": plan.sequence[0], "features": plan.sequence[1]},
        "parameters": plan.parameters,
        "steps_per_epoch": plan.steps_per_epoch,
        "machine": {
            "backend": plan.backend,
            "kernels": list(plan.kernels),
            "cores": place.backend.cores,
            "cores_decided_by": place.backend.decided_by,
            "processes": place.backend.processes,
        },
        "environment": describe_machine(),
    }
