"""A training run from a recipe to a folder: data, model, optimizer, the loop, and what is kept of it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np import loop
from lstm_np.backends import Backend
from lstm_np.data import Batches, Dataset, load_dataset
from lstm_np.loop import Epoch, Metrics, NonFiniteLossError, Running, Step
from lstm_np.model import SequenceClassifier
from lstm_np.training import curves, run_folder
from lstm_np.training.environment import describe_machine, refuse_oversize
from lstm_np.training.interruption import Interruption
from lstm_np.training.material import Material, fingerprint, in_order, prepare
from lstm_np.training.optimizer import arguments, make_optimizer
from lstm_np.training.recipes import Recipe
from lstm_np.training.records import Best, Outcome, Plan, epoch_row
from lstm_np.training.reporters import Reporter
from lstm_np.training.run_folder import BEST, CURVES, WEIGHTS, RunFolder
from lstm_np.training.schedules import scheduled
from lstm_np.training.steps import choose_steps

SAMPLE = 10  # test images whose predictions are shown beside their labels
LOOKS_PER_EPOCH = 20  # at the sums of the losses, for the curve between an epoch's ends: on a device each look waits


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
    recipe: Recipe, place: Place, reporter: Reporter | None = None, interruption: Interruption | None = None
) -> Outcome:
    """Train as the recipe says, and keep the run in its folder.

    A signal that `interruption` holds back ends the run after the step it is in, with everything saved.
    Raises DatasetError, IDXError or DownloadError for the data, ValueError for settings that do not fit together,
    RunFolderError where the folder cannot be written, NonFiniteLossError when training left the numbers (the weights
    before that are saved).
    """
    reporter, interruption = reporter or Reporter(), interruption or Interruption()
    run_folder.check(place.out)
    arguments(recipe.optimizer)  # refused before the data are fetched
    with reporter.downloading() as progress:
        dataset = load_dataset(
            recipe.data.dataset,
            place.data_dir,
            place.offline,
            reporter.note,
            explicit=place.explicit,
            progress=progress,
        )
    material = prepare(dataset, recipe)
    batch_size = min(recipe.train.batch_size, material.train.samples)
    refuse_oversize(recipe, material.sequence, dataset.num_classes, batch_size)
    model = SequenceClassifier(
        material.sequence[1],
        num_classes=dataset.num_classes,
        kernel=place.kernel,
        backend=place.backend,
        seed=recipe.train.seed,
        **recipe.tables["model"],
    )
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
        plan = _plan(recipe, dataset, material, model, folder)
        folder.write_config(_config(plan, place))
        return _Run(plan, material, model, folder, reporter, interruption).train(optimizer)


class _Run:
    """The callbacks of a training loop and what they share."""

    def __init__(
        self,
        plan: Plan,
        material: Material,
        model: SequenceClassifier,
        folder: RunFolder,
        reporter: Reporter,
        interruption: Interruption,
    ) -> None:
        self.plan, self.material, self.model, self.folder = plan, material, model, folder
        self.reporter, self.interruption = reporter, interruption
        self.best: Best | None = None
        self.seen = Metrics(0.0, 0.0, 0, 0)  # of this epoch, at the last look
        self.means: list[tuple[float, float]] = []  # of loss and accuracy between two looks, this epoch's
        self.history: list[tuple[Epoch, list[tuple[float, float]]]] = []

    def train(self, optimizer: Any) -> Outcome:
        settings, began = self.plan.recipe.train, time.perf_counter()
        steps = choose_steps(self.model, optimizer, self.material.train, settings.clip_norm)
        self.reporter.start(self.plan)
        try:
            # what leaves the numbers is found by looking at the loss, and reported once, in words
            with np.errstate(over="ignore", invalid="ignore"):
                epochs = loop.train(
                    scheduled(steps.step, optimizer, settings.schedule, settings.warmup_steps, self.plan.steps),
                    steps.batches,
                    self.model.backend,
                    epochs=settings.epochs,
                    max_steps=settings.max_steps,
                    validate=self.validate,
                    on_step=self.on_step,
                    on_epoch=self.on_epoch,
                    stop=self.interruption.asked,
                    sums=steps.running,
                )
        except NonFiniteLossError as error:
            self.reporter.close()
            raise NonFiniteLossError(f"{error}; {self.rescue()}") from error
        finally:
            self.reporter.close()
        self.save(WEIGHTS)
        test = self.test(epochs)
        as_published = None if test is None else self.as_published(test)
        seconds = time.perf_counter() - began
        curves = bool(epochs) and self.draw_curves()
        sample = () if test is None else self.sample()
        outcome = Outcome(
            self.plan,
            tuple(epochs),
            self.best,
            test,
            seconds,
            curves,
            self.interruption.requested,
            sample,
            as_published,
        )
        self.reporter.finish(outcome)
        return outcome

    def on_step(self, step: Step) -> None:
        every = -(-self.plan.steps_per_epoch // LOOKS_PER_EPOCH)
        if (step.number - step.epoch * self.plan.steps_per_epoch) % every == 0:
            metrics = step.running.read()
            self.refuse_non_finite(metrics, step.number)
            self.look(metrics)
        self.reporter.step(step)

    def look(self, now: Metrics) -> None:
        """Keep the mean loss and accuracy of the samples since the last look."""
        count = now.count - self.seen.count
        if count:
            loss = now.loss * now.count - self.seen.loss * self.seen.count
            self.means.append((loss / count, (now.correct - self.seen.correct) / count))
        self.seen = now

    def validate(self) -> Metrics:
        self.reporter.measuring()
        return self.measure(self.material.measured)

    def on_epoch(self, record: Epoch) -> None:
        self.refuse_non_finite(record.train, record.steps)
        self.model.notes.update(epoch=record.number, steps=record.steps)
        self.look(record.train)
        means, self.means, self.seen = self.means, [], Metrics(0.0, 0.0, 0, 0)
        self.history.append((record, means))
        details = {"train_losses": [loss for loss, _ in means], "train_accuracies": [share for _, share in means]}
        self.folder.append_metrics(epoch_row(record, self.plan.held_out), details)
        candidate = Best.candidate(record, self.plan.held_out)
        if candidate.beats(self.best):
            self.best = candidate
            self.save(BEST)
        self.reporter.epoch(record)

    def refuse_non_finite(self, metrics: Metrics, number: int) -> None:
        if not math.isfinite(metrics.loss):
            cure = "lower the learning rate or clip gradients (clip_norm)"
            raise NonFiniteLossError(f"the loss is {metrics.loss} by step {number}; {cure}")

    def measure(self, batches: Batches) -> Metrics:
        """Loss and accuracy over all of `batches`; of no images where a signal came in between."""
        metrics = self.model.evaluate_batches(self._until_asked(batches))
        return Running(self.model.backend).read() if self.interruption.asked() else metrics

    def _until_asked(self, batches: Batches) -> Iterator[Any]:
        for batch in batches.epoch(0):
            if self.interruption.asked():
                return
            yield batch

    def test(self, epochs: list[Epoch]) -> Metrics | None:
        """Loss and accuracy on the whole test set with the final weights."""
        last = epochs[-1].validation if epochs else None
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
        """Keep the weights if they are still numbers; what to tell about it."""
        backend = self.model.backend
        if backend.to_host(backend.xp.isfinite(self.model.params.flat).all()):
            self.save(WEIGHTS)
            which = "before it" if backend.name == "numpy" else "of that moment"  # a device has updated them by then
            return f"the weights {which} are in {self.folder / WEIGHTS}"
        kept = f", the last good ones are in {self.folder / BEST}" if self.best else ""
        return f"the weights are not finite either{kept}"

    def draw_curves(self) -> bool:
        content = curves.draw_curves(self.history, self.plan)
        if content is not None:
            self.folder.write(CURVES, content)
        return content is not None


def _plan(recipe: Recipe, dataset: Dataset, material: Material, model: SequenceClassifier, folder: RunFolder) -> Plan:
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
        "machine": {"backend": plan.backend, "kernels": list(plan.kernels), "threads": place.backend.threads},
        "environment": describe_machine(plan.backend),
    }
