"""What the user sees of a run: what it is, a progress bar, a line per epoch, the result and the next commands.

Reporting is cheap: the bar is drawn at most ten times a second, and loss and accuracy are read only then, because
reading them waits for a GPU.
"""

from __future__ import annotations

import contextlib
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lstm_np.cells import FILES
from lstm_np.data import download
from lstm_np.data.progress import download_bars
from lstm_np.display.tables import loss_in_words
from lstm_np.files import discard_buffered, quoted
from lstm_np.loop import Epoch, Step
from lstm_np.model import SequenceClassifier
from lstm_np.training.optimizer import arguments
from lstm_np.training.recipes import Recipe
from lstm_np.training.records import Outcome, Plan
from lstm_np.training.run_folder import BEST, CURVES, EVENTS, METRICS_CSV, METRICS_JSONL, WEIGHTS
from lstm_np.training.shapes import tensor_shapes

SECONDS_BETWEEN_DRAWINGS = 0.1
WIDTH, MARGIN = 80, 8
BAR_WIDTH = 13  # so that 80 columns hold all numbers and the ^C that a terminal writes behind them


class Reporter:
    """Prints only necessary notes (`note`): the reporter of --quiet, and the base class of the others."""

    def note(self, text: str) -> None:
        """Something the user should know though nothing failed; on stderr, if that can be written."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            print(text, file=sys.stderr, flush=True)

    def downloading(self) -> AbstractContextManager[download.Progress | None]:
        """A context that gives the progress function of a download, or None."""
        return download_bars(quiet=True)

    def model(self, model: SequenceClassifier, steps: int, batch_size: int) -> None:
        """The model is made; it will read sequences of so many steps in batches of this size."""

    def start(self, plan: Plan) -> None:
        """The run begins."""

    def step(self, step: Step) -> None:
        """A step was made."""

    def measuring(self) -> None:
        """The training of an epoch is over; images that were held back are looked at."""

    def epoch(self, record: Epoch) -> None:
        """An epoch ended."""

    def health(self, line: str) -> None:
        """The state of a layer's gates after an epoch, in a line."""

    def close(self) -> None:
        """No more steps will come, for whatever reason."""

    def result(self, outcome: Outcome) -> None:
        """What the test images said; the weights are saved, and nothing is drawn yet."""

    def finish(self, outcome: Outcome) -> None:
        """The run ended, and its pictures are drawn or cannot be."""


class LineReporter(Reporter):
    """Lines on a text stream, and between them a progress bar where the stream is a terminal.

    `show_shapes`: before it begins, also the model's layers and the shape of every tensor of a forward pass.
    """

    def __init__(self, stream: TextIO, *, show_shapes: bool = False) -> None:
        self._stream, self._show_shapes = stream, show_shapes
        self._console = Console(file=stream, highlight=False)
        self._bar: Progress | None = None
        self._listening = True
        self._drawn = self._epoch_began = 0.0
        self._plan: Plan | None = None

    def downloading(self) -> AbstractContextManager[download.Progress | None]:
        """Bars for the files of a download."""
        return download_bars()

    def model(self, model: SequenceClassifier, steps: int, batch_size: int) -> None:
        """The tables of layers and of shapes, if they were asked for."""
        if self._show_shapes:
            self._line(f"{model.summary()}\n\n{tensor_shapes(model, steps, batch_size)}\n")

    def start(self, plan: Plan) -> None:
        """Say what is learnt from what, and draw the head of the table of epochs."""
        self._plan = plan
        recipe, data, train = plan.recipe, plan.dataset, plan.recipe.train
        rows, columns = data.image_shape
        T, D = plan.sequence
        limit = f", at most {train.max_steps:,}" if train.max_steps is not None else ""
        kernels = "/".join(sorted(set(plan.kernels)))
        self._line(f"{recipe.name}: {recipe.title}", "bold")
        self._parts("changed", recipe.changes)
        self._line(
            f"data    {plan.train_images:,} images of {rows}x{columns}, read as {T} steps of {D}{_moved(recipe)}"
        )
        self._line(f"        {data.source}")
        self._parts("model", _layers(recipe))
        self._line(
            f"        {plan.parameters:,} parameters, {recipe.model.dtype}, {plan.backend} backend, {kernels} kernel"
        )
        self._parts("", _on_device(plan))
        self._line(f"train   {_count(train.epochs, 'epoch')} of {_count(plan.steps_per_epoch, 'step')}{limit}")
        self._parts("", _updates(recipe))
        begins = f", from step {plan.start.step:,} on" if plan.start.step else ""
        self._line(f"run     {plan.folder}{begins}")
        self._line("")
        self._line(f"{'':7}{'train':>16}{plan.held_out:>22}")
        self._line(f"{'epoch':>7}{'loss':>9}{'accuracy':>10}{'loss':>12}{'accuracy':>10}{'images/s':>13}{'time':>9}")
        self._epoch_began = time.perf_counter()
        if self._console.is_terminal and self._stream.isatty():  # with FORCE_COLOR rich takes a file for a terminal
            columns_of_bar = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=BAR_WIDTH),
                TextColumn("{task.fields[numbers]}"),
            )
            self._bar = Progress(
                *columns_of_bar,
                console=self._console,
                auto_refresh=False,  # drawn by `step`, so no thread takes time from training
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.add_task("", total=plan.steps_per_epoch, numbers="")
            self._show(self._bar.start)

    def step(self, step: Step) -> None:
        """A line about the batch, where the recipe wants one; the bar, if the last time is long enough ago."""
        every = self._plan.recipe.train.print_every if self._plan is not None else None
        if every is not None and (step.number == 1 or step.number % every == 0):
            share = int(step.correct) / step.samples
            loss = loss_in_words(float(step.loss))
            self._line(f"{f'step {step.number:,}':>12}   batch loss {loss}, accuracy {share:.3f}")
        now = time.perf_counter()
        if self._bar is None or self._plan is None or now - self._drawn < SECONDS_BETWEEN_DRAWINGS:
            return
        metrics = step.running.read()
        seconds = now - self._epoch_began
        done, start = step.position.batch, self._plan.start
        here = done - start.batch if step.epoch == start.epoch else done  # the others were made before it was stopped
        remaining = seconds / here * (self._plan.steps_per_epoch - done)
        rate = metrics.count * here / done / seconds
        self._draw(
            f"epoch {step.epoch + 1}/{self._plan.recipe.train.epochs}",
            f"loss {loss_in_words(metrics.loss)}  accuracy {metrics.accuracy:6.2%}  {rate:,.0f}/s"
            f"  {_clock(remaining)} left",
            done,
        )
        self._drawn = time.perf_counter()

    def measuring(self) -> None:
        """Say why the bar is not moving."""
        if self._bar is not None and self._plan is not None:
            what = "validation" if self._plan.held_out == "validation" else "test"
            self._draw(f"{what} images", "", self._plan.steps_per_epoch)

    def _draw(self, description: str, numbers: str, done: int) -> None:
        if self._bar is not None and self._listening:
            bar = self._bar
            bar.update(bar.task_ids[0], description=description, completed=done, numbers=numbers)
            self._show(bar.refresh)

    def epoch(self, record: Epoch) -> None:
        """A line of the table."""
        total = self._plan.recipe.train.epochs if self._plan else record.number
        held, measured = record.validation, f"{'-':>12}{'-':>10}"
        if held is not None and held.count:
            measured = f"{loss_in_words(held.loss):>12}{held.accuracy:10.2%}"
        train = f"{loss_in_words(record.train.loss):>9}{record.train.accuracy:10.2%}"
        self._line(
            f"{f'{record.number}/{total}':>7}{train}{measured}"
            f"{record.train.count / record.seconds:13,.0f}{_clock(record.seconds):>9}"
        )
        self._epoch_began = time.perf_counter()

    def health(self, line: str) -> None:
        """Behind the epoch's own line."""
        self._parts("", line.split(" "), between=" ")

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._show(self._bar.stop)
            self._bar = None

    def result(self, outcome: Outcome) -> None:
        """The result."""
        published = outcome.plan.recipe.published
        self._line("")
        if outcome.test is not None:
            loss, count = loss_in_words(outcome.test.loss), f"all {outcome.test.count:,} test images"
            self._line(f"test    accuracy {outcome.test.accuracy:.2%}, loss {loss} on {count}", "bold")
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
        self._line(f"time    {outcome.seconds:,.1f} s for {_count(outcome.steps, 'step')}, tests included")

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
        self._line(f"        python -m lstm_np.predict {quoted(folder)}{more} --index 0 1 2")

    def _parts(self, head: str, parts: Sequence[str], between: str = ", ") -> None:
        """Parts behind a head, with commas between them, on as many lines as they need."""
        lines = textwrap.wrap(between.join(parts), WIDTH - MARGIN)
        for k, line in enumerate(lines):
            self._line(f"{head if k == 0 else '':<{MARGIN}}{line}")

    def _line(self, text: str, style: str | None = None) -> None:
        """One line, unless the stream can no longer be written."""
        if self._console.is_terminal:
            self._show(lambda: self._console.print(text, style=style, markup=False, soft_wrap=True))
        else:
            self._show(lambda: print(text, file=self._stream, flush=True))

    def _show(self, write: Callable[[], object]) -> None:
        """Write, unless that has failed before: training goes on without a reader.

        A closed pipe, as by `head`, is no error; a full disk behind `>` or a closed terminal is reported once on
        stderr.
        """
        if not self._listening:
            return
        try:
            write()
        except BrokenPipeError:
            self._stop_listening()
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self._stop_listening()
            reason = getattr(error, "strerror", None) or str(error)
            self.note(f"train: the lines about this run cannot be written ({reason}); it goes on without them")

    def _stop_listening(self) -> None:
        self._listening = False
        discard_buffered(self._stream)


def _moved(recipe: Recipe) -> str:
    """How the training images are varied."""
    data = recipe.data
    done = [name for name, much in (("moved", data.shift), ("turned", data.rotate), ("zoomed", data.zoom)) if much]
    return "".join(f", {name}" for name in done)


def _layers(recipe: Recipe) -> list[str]:
    """What the model is made of, from the input on."""
    model = recipe.model
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


def _updates(recipe: Recipe) -> list[str]:
    """The loss and the optimizer, without the settings that are at their defaults."""
    train, loss = recipe.train, recipe.model.loss
    parts = [f"batch {train.batch_size}", recipe.optimizer.name]
    parts.append(f"learning rate {arguments(recipe.optimizer)['lr']:g}")
    if train.schedule != "constant":
        parts.append(train.schedule)
    if train.warmup_steps:
        parts.append(f"{_count(train.warmup_steps, 'step')} of warm-up")
    if train.clip_norm is not None:
        parts.append(f"gradients clipped to {train.clip_norm:g}")
    if loss != "softmax":
        parts.append(loss.replace("_", " "))
    return [*parts, f"seed {train.seed}"]


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def _clock(seconds: float) -> str:
    """9.4 s, 1:35, 1:02:07."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
