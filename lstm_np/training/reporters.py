"""What the user sees of a run: what it is, a progress bar, a line per epoch, the result and the next commands.

Reporting is cheap: the bar is drawn at most ten times a second, and loss and accuracy are read only then, because
reading them waits for a GPU.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TextIO

from lstm_np.cells import FILES
from lstm_np.data import Dataset, download
from lstm_np.data.progress import download_bars
from lstm_np.display.tables import loss_in_words, score_in_words, score_name
from lstm_np.files import quoted
from lstm_np.loop import Epoch, Step
from lstm_np.metrics import Metrics
from lstm_np.model import SequenceModel
from lstm_np.training.lines import SECONDS_BETWEEN_DRAWINGS, Lines, RunReporter, clock, counted
from lstm_np.training.optimizer import arguments
from lstm_np.training.own_data import OwnData
from lstm_np.training.recipes import Recipe
from lstm_np.training.recipes.settings import ModelSettings, OptimizerSettings, TrainSettings
from lstm_np.training.records import Outcome, Plan
from lstm_np.training.run_folder import BEST, CURVES, EVENTS, METRICS_CSV, METRICS_JSONL, WEIGHTS
from lstm_np.training.shapes import tensor_shapes


class Reporter(RunReporter):
    """Prints only necessary notes: the reporter of --quiet, and the base class of the others."""

    def downloading(self) -> AbstractContextManager[download.Progress | None]:
        """A context that gives the progress function of a download, or None."""
        return download_bars(quiet=True)

    def model(self, model: SequenceModel, steps: int, batch_size: int) -> None:
        """The model is made; it will read sequences of so many steps in batches of this size."""

    def start(self, plan: Plan) -> None:
        """The run begins."""

    def health(self, line: str) -> None:
        """The state of a layer's gates after an epoch, in a line."""

    def result(self, outcome: Outcome) -> None:
        """What the test images said; the weights are saved, and nothing is drawn yet."""

    def finish(self, outcome: Outcome) -> None:
        """The run ended, and its pictures are drawn or cannot be."""


class LineReporter(Reporter):
    """Lines on a text stream, and between them a progress bar where the stream is a terminal.

    `show_shapes`: before it begins, also the model's layers and the shape of every tensor of a forward pass.
    """

    def __init__(self, stream: TextIO, *, show_shapes: bool = False) -> None:
        self._show_shapes = show_shapes
        self._lines = Lines(stream, lambda text: self.note(f"train: {text}"))
        self._line, self._parts = self._lines.line, self._lines.parts
        self._drawn = self._epoch_began = 0.0
        self._plan: Plan | None = None

    def downloading(self) -> AbstractContextManager[download.Progress | None]:
        """Bars for the files of a download."""
        return download_bars()

    def model(self, model: SequenceModel, steps: int, batch_size: int) -> None:
        """The tables of layers and of shapes, if they were asked for."""
        if self._show_shapes:
            self._line(f"{model.summary()}\n\n{tensor_shapes(model, steps, batch_size)}\n")

    def start(self, plan: Plan) -> None:
        """Say what is learnt from what, and draw the head of the table of epochs."""
        self._plan = plan
        recipe, data, train = plan.recipe, plan.dataset, plan.recipe.train
        limit = f", at most {train.max_steps:,}" if train.max_steps is not None else ""
        kernels = "/".join(sorted(set(plan.kernels)))
        self._line(f"{recipe.name}: {recipe.title}", "bold")
        self._parts("changed", recipe.changes)
        self._line(f"data    {plan.train_images:,} {_in_words(plan)}")
        self._line(f"        {data.source}")
        if isinstance(data, OwnData):
            self._parts("", data.data.recognized)
            self._parts("", [data.split_in_words, *data.counts_in_words])
        self._parts("model", layers_in_words(recipe.model))
        self._line(
            f"        {plan.parameters:,} parameters, {recipe.model.dtype}, {plan.backend} backend, {kernels} kernel"
        )
        self._parts("", _on_device(plan))
        self._line(f"train   {counted(train.epochs, 'epoch')} of {counted(plan.steps_per_epoch, 'step')}{limit}")
        self._parts("", updates_in_words(train, recipe.optimizer, recipe.model.loss))
        begins = f", from step {plan.start.step:,} on" if plan.start.step else ""
        self._line(f"run     {plan.folder}{begins}")
        self._line("")
        self._line(f"{'':7}{'train':>16}{plan.held_out:>22}")
        second = score_name(plan.metrics.second)
        self._line(f"{'epoch':>7}{'loss':>9}{second:>10}{'loss':>12}{second:>10}{f'{plan.counted}/s':>13}{'time':>9}")
        self._epoch_began = time.perf_counter()
        self._lines.begin_bar(plan.steps_per_epoch)

    def step(self, step: Step) -> None:
        """A line about the batch, where the recipe wants one; the bar, if the last time is long enough ago."""
        every = self._plan.recipe.train.print_every if self._plan is not None else None
        if every is not None and (step.number == 1 or step.number % every == 0):
            loss, share = loss_in_words(float(step.loss)), ""
            if self._plan is not None and self._plan.metrics is Metrics and self._plan.counted != "steps":
                share = f", accuracy {int(step.correct) / step.samples:.3f}"
            self._line(f"{f'step {step.number:,}':>12}   batch loss {loss}{share}")
        now = time.perf_counter()
        if not self._lines.has_bar or self._plan is None or now - self._drawn < SECONDS_BETWEEN_DRAWINGS:
            return
        metrics = step.running.read()
        seconds = now - self._epoch_began
        done, start = step.position.batch, self._plan.start
        here = done - start.batch if step.epoch == start.epoch else done  # the others were made before it was stopped
        remaining = seconds / here * (self._plan.steps_per_epoch - done)
        rate = metrics.count * here / done / seconds
        self._lines.draw(
            f"epoch {step.epoch + 1}/{self._plan.recipe.train.epochs}",
            f"loss {loss_in_words(metrics.loss)}  {score_name(metrics.second)} "
            f"{score_in_words(metrics.second, metrics.score):>6}  {rate:,.0f}/s"
            f"  {clock(remaining)} left",
            done,
        )
        self._drawn = time.perf_counter()

    def measuring(self) -> None:
        """Say why the bar is not moving."""
        if self._lines.has_bar and self._plan is not None:
            what = "validation" if self._plan.held_out == "validation" else "test"
            self._lines.draw(f"{what} {self._plan.things}", "", self._plan.steps_per_epoch)

    def epoch(self, record: Epoch) -> None:
        """A line of the table."""
        total = self._plan.recipe.train.epochs if self._plan else record.number
        held, measured = record.validation, f"{'-':>12}{'-':>10}"
        if held is not None and held.count:
            measured = f"{loss_in_words(held.loss):>12}{score_in_words(held.second, held.score):>10}"
        score = score_in_words(record.train.second, record.train.score)
        train = f"{loss_in_words(record.train.loss):>9}{score:>10}"
        self._line(
            f"{f'{record.number}/{total}':>7}{train}{measured}"
            f"{record.train.count / record.seconds:13,.0f}{clock(record.seconds):>9}"
        )
        self._epoch_began = time.perf_counter()

    def health(self, line: str) -> None:
        """Behind the epoch's own line."""
        self._parts("", line.split(" "), between=" ")

    def close(self) -> None:
        """Remove the bar."""
        self._lines.end_bar()

    def result(self, outcome: Outcome) -> None:
        """The result."""
        published = outcome.plan.recipe.published
        self._line("")
        if outcome.test is not None:
            test, of = outcome.test, outcome.plan.counted
            score = f"{test.second.replace('_', ' ')} {score_in_words(test.second, test.score)}"
            if outcome.errors is not None:  # in the unit of the targets, where these are scaled for training
                score = f"mean absolute error {outcome.errors['mean_absolute_error']:.4g}"
            of = f"all {test.count:,} test {of}" if of != "steps" else f"all {test.count:,} steps of the test sequences"
            self._line(f"test    {score}, loss {loss_in_words(test.loss)} on {of}", "bold")
        first = outcome.as_published
        if outcome.test is not None and first is not None and first.count != outcome.test.count:
            self._line(f"        accuracy {first.accuracy:.2%} on the first {first.count:,}")
        if outcome.test is not None and published is not None:
            self._line(f"        published {published.accuracy:.2%} on {published.test_images:,} test images")
            self._parts("", [f"({published.source})"])
        if outcome.sample:
            predictions, labels = (" ".join(map(str, row)) for row in zip(*outcome.sample, strict=True))
            self._line(f"        the first {len(outcome.sample)}: predicted {predictions}")
            self._line(f"{'':8}{'':<{len(f'the first {len(outcome.sample)}')}}  labels    {labels}")
        self._line(f"time    {outcome.seconds:,.1f} s for {counted(outcome.steps, 'step')}, tests included")

    def finish(self, outcome: Outcome) -> None:
        """Where it is kept, and what to type next."""
        folder = outcome.plan.folder
        self._line(f"saved   {folder / WEIGHTS}")
        if outcome.best is not None:
            quality = "best" if outcome.best.by == "validation accuracy" else "lowest"
            self._line(f"        {BEST}: epoch {outcome.best.epoch}, {quality} {outcome.best.by}")
        drawn = f", {CURVES}" if outcome.no_curves is None else ""
        events = f", {EVENTS}/" if (folder / EVENTS).exists() else ""
        own = FILES.get(outcome.plan.recipe.model.cell)
        cell_file = "" if own is None else f", {own.name}"
        self._line(f"        config.json, {METRICS_CSV}, {METRICS_JSONL}{drawn}{events}{cell_file}")
        if outcome.no_curves is not None:
            self._parts("", [f"no {CURVES}: {outcome.no_curves}"])
        data = outcome.plan.data_dir
        more = "" if data is None else f" --data-dir {quoted(data)}"
        more += "" if own is None else f" --cell {quoted(own)}"
        self._line(f"next    python -m lstm_np.evaluate {quoted(folder)}{more}")
        of = " --index 0 1 2" if isinstance(outcome.plan.dataset, Dataset) else " FILE"
        self._line(f"        python -m lstm_np.predict {quoted(folder)}{more}{of}")


def _in_words(plan: Plan) -> str:
    """What is learnt from, behind its number."""
    if isinstance(plan.dataset, OwnData):
        return plan.dataset.in_words
    rows, columns = plan.dataset.image_shape
    T, D = plan.sequence
    return f"images of {rows}x{columns}, read as {T} steps of {D}{_moved(plan.recipe)}"


def _moved(recipe: Recipe) -> str:
    """How the training images are varied."""
    data = recipe.data
    done = [name for name, much in (("moved", data.shift), ("turned", data.rotate), ("zoomed", data.zoom)) if much]
    return "".join(f", {name}" for name in done)


def layers_in_words(model: ModelSettings) -> list[str]:
    """What a model is made of, from the input on."""
    parts = [] if model.input_projection is None else [f"dense({model.input_projection})"]
    parts.append(f"{model.num_layers} x {model.cell}({model.hidden_size})")
    if model.bidirectional:
        parts.append("both directions")
    if model.dropout and (model.num_layers > 1 or model.dropout_outputs == "all"):
        where = "of all outputs" if model.dropout_outputs == "all" else "between layers"
        parts.append(f"dropout {model.dropout:g} {where}")
    return parts


def _on_device(plan: Plan) -> list[str]:
    """The GPU, and how much of a training step stays there; nothing where there is none."""
    if plan.device is None:
        return []
    stays = plan.made_by.get("training_step") == "device"
    parts = [plan.device, "training steps stay there" if stays else "training steps by the layers"]
    because = plan.made_by.get("own_products_because")
    if because is not None:
        parts.append(f"products by kernels of our own for want of cuBLAS ({because})")
    return parts


def updates_in_words(train: TrainSettings, optimizer: OptimizerSettings, loss: str) -> list[str]:
    """The loss and the optimizer, without the settings that are at their defaults."""
    several = f", {train.accumulate} for a step" if train.accumulate > 1 else ""
    parts = [f"batch {train.batch_size}{several}", optimizer.name]
    parts.append(f"learning rate {arguments(optimizer)['lr']:g}")
    if train.schedule != "constant":
        parts.append(train.schedule)
    if train.warmup_steps:
        parts.append(f"{counted(train.warmup_steps, 'step')} of warm-up")
    if train.clip_norm is not None:
        parts.append(f"gradients clipped to {train.clip_norm:g}")
    if loss != "softmax":
        parts.append(loss.replace("_", " "))
    return [*parts, f"seed {train.seed}"]
