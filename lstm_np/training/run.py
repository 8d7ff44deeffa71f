"""A training run from a recipe to a folder: data, model, optimizer, the loop, and what is kept of it.

What it shares with every run is `lstm_np.training.trainer`; how it goes on after it was stopped, `.resuming`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lstm_np import checkpoints
from lstm_np.backends import Backend
from lstm_np.callbacks import Callback
from lstm_np.checkpoints import Every, fingerprint
from lstm_np.data import Dataset, DatasetError, load_dataset
from lstm_np.data.load import named_folder
from lstm_np.files import expand
from lstm_np.loop import Epoch, Position, Steps
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
from lstm_np.training.resuming import Stopped, command, going_on, of_its_model, resumed_config
from lstm_np.training.run_folder import WEIGHTS, RunFolder
from lstm_np.training.schedules import rate_of
from lstm_np.training.trainer import Trainer, check_on_divergence, opened

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


@dataclass(frozen=True)
class Care:
    """How a run is looked after.

    every          when checkpoints are written, besides those before the first step and at the end
    keep           how many of them are kept
    on_divergence  what is done when a step diverges, as `lstm_np.training.trainer.Trainer` has it
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
    check_on_divergence(care.on_divergence, place.backend)
    for each in (recipe, on_digits or recipe):
        arguments(each.optimizer)  # refused before the data are fetched
        between_epochs.refuse(each.train)
    dataset: Dataset | OwnData
    if own is not None:
        dataset = _own_data(own, recipe, stopped)
        recipe = replace(recipe, published=None)
        material, outputs = dataset.material(recipe), dataset.outputs
        looked_at, _ = dataset.chosen("train" if material.measured is None else material.held_out)
        if care.gate_health and len(set(looked_at.counts().tolist())) > 1:
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
    with interruption.held(), opened(place.out, recipe.name, care.keep, stopped) as (folder, kept, start):
        plan = _plan(recipe, dataset, material, model, folder, place, start, steps)
        config = _config(plan, place, _cuts(model, material), stopped)
        one = _Run(plan, material, model, steps, folder, reporter, interruption, care, callbacks)
        one.keep_checkpoints(kept, care.every, {
            "config": config, "recipe": recipe.state(), "place": _where(plan, place), "model": model.config,
            "care": care.state(),
        })  # fmt: skip
        if stopped is None:
            one.begin(config)
        else:
            if isinstance(dataset, Dataset):
                _check_same(config["dataset"]["sha256"], stopped, f"{dataset.source}; --data-dir names a folder")
            with of_its_model(folder):
                one.go_on(stopped.checkpoint, config)
        with going_on(folder, one.keeper, command(folder.path, recipe.model.cell)):
            return one.train()


class _Run(Trainer):
    """A run on images or on sequences of one's own, and what is measured when it has ended."""

    reporter: Reporter

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
        candidate = Best.candidate if plan.metrics is Metrics else Best.by_loss
        super().__init__(
            "train",
            plan.recipe.train,
            model,
            steps,
            material.measured,
            folder,
            reporter,
            interruption,
            best=BestSoFar(plan.held_out, candidate),
            callbacks=callbacks,
            on_divergence=care.on_divergence,
        )
        self.plan, self.material, self.care = plan, material, care
        self.health: dict[str, Any] = {}  # of each epoch, by its number
        self._layers: list[LayerHealth] = []  # of the last

    # ---- what it has besides other runs

    def row(self, record: Epoch) -> dict[str, Any]:
        return epoch_row(record, self.plan.held_out)

    def details(self, record: Epoch) -> dict[str, Any]:
        number = str(record.number)
        return {"gates": self.health[number]} if number in self.health else {}

    def gathered(self) -> dict[str, Any]:
        return {"health": self.health}

    def regain(self, kept: Mapping[str, Any]) -> None:
        self.health = kept["health"]

    def examine(self, record: Epoch) -> None:
        """The state of the gates on a few of the samples that each epoch is measured on, or else learns from."""
        if self.care.gate_health:
            x, labels = next(iter((self.material.measured or self.material.train).epoch(0)))
            self._layers = gate_health(self.model, x[:SEQUENCES], labels[:SEQUENCES])
        if self._layers:
            self.health[str(record.number)] = [layer.plain() for layer in self._layers]

    def show(self, record: Epoch) -> None:
        for layer in self._layers:
            self.reporter.health(layer.line())

    # ---- from the first step to the result

    def train(self) -> Outcome:
        self.reporter.start(self.plan)
        taken_back = self.make_steps()
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
        outcome = replace(outcome, no_curves=self.draw_curves(self.plan.held_out, curves.title_of(self.plan)))
        self.reporter.finish(outcome)
        return outcome

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
        tested = OwnModel.of(self.folder / WEIGHTS, self.model).measure(own.part("test"))
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
        if found.test_sha256 != stopped.config["dataset"].get("test_sha256"):
            where = f"{own.test_data} now holds; --test-data names the file where it has moved"
            raise DatasetError(f"{stopped.folder}: is tested on other data than {where}")
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
    """Everything that is needed to run it again, or to see why it came out differently."""
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
    return config if stopped is None else resumed_config(config, stopped.config, plan.start.step)
