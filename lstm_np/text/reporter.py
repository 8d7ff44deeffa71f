"""What the user sees of a run of the text command: what it is, a bar, a line per epoch with a sample, the result."""

from __future__ import annotations

import time
from typing import TextIO

from lstm_np.cells import FILES
from lstm_np.display.tables import loss_in_words
from lstm_np.files import quoted
from lstm_np.loop import Epoch, Step
from lstm_np.text.characters import printable
from lstm_np.text.model import bits, perplexity
from lstm_np.text.records import Outcome, Plan
from lstm_np.training.lines import SECONDS_BETWEEN_DRAWINGS, Lines, RunReporter, clock, counted
from lstm_np.training.reporters import layers_in_words, updates_in_words
from lstm_np.training.run_folder import BEST, CURVES, METRICS_CSV, METRICS_JSONL, WEIGHTS

MARGIN = "      | "  # beside a sample


class Reporter(RunReporter):
    """Prints only necessary notes: the reporter of --quiet, and the base class of the other."""

    def start(self, plan: Plan) -> None:
        """The run begins."""

    def sample(self, text: str) -> None:
        """What the model writes now; empty where nothing was asked for."""

    def finish(self, outcome: Outcome) -> None:
        """The run ended."""


class LineReporter(Reporter):
    """Lines on a text stream, and between them a progress bar where the stream is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._lines = Lines(stream, lambda text: self.note(f"text: {text}"))
        self._line, self._parts = self._lines.line, self._lines.parts
        self._drawn = self._epoch_began = 0.0
        self._plan: Plan | None = None

    def start(self, plan: Plan) -> None:
        """Say what is learnt from what, and draw the head of the table of epochs."""
        self._plan = plan
        settings, source = plan.settings, plan.source
        train, T = settings.train, settings.text.sequence_length
        limit = f", at most {train.max_steps:,}" if train.max_steps is not None else ""
        kernels = "/".join(sorted(set(plan.kernels)))
        text = f"{printable(source.where)}: {counted(len(source.text), 'character')}"
        self._line(f"text    {text}, {plan.vocabulary:,} different")
        held = f", {plan.held_out:,} held out for validation" if plan.held_out else ""
        self._line(f"        {plan.train:,} to learn from, {train.batch_size:,} streams side by side{held}")
        self._parts("model", layers_in_words(settings.model))
        self._line(
            f"        {plan.parameters:,} parameters, {settings.model.dtype}, {plan.backend} backend, {kernels} kernel"
        )
        self._parts("", [] if plan.device is None else [plan.device])
        self._line(
            f"train   {counted(train.epochs, 'epoch')} of {counted(plan.steps_per_epoch, 'step')}{limit}, each of "
            f"{T:,} characters"
        )
        self._parts("", updates_in_words(train, settings.optimizer, settings.model.loss))
        begins = f", from step {plan.start.step:,} on" if plan.start.step else ""
        self._line(f"run     {plan.folder}{begins}")
        self._line("")
        self._line(f"{'':7}{'train':>10}{'validation':>14}")
        self._line(f"{'epoch':>7}{'bits':>10}{'bits':>14}{'perplexity':>14}{'characters/s':>16}{'time':>9}")
        self._epoch_began = time.perf_counter()
        self._lines.begin_bar(plan.steps_per_epoch)

    def step(self, step: Step) -> None:
        """The bar, if the last time is long enough ago."""
        now = time.perf_counter()
        if not self._lines.has_bar or self._plan is None or now - self._drawn < SECONDS_BETWEEN_DRAWINGS:
            return
        metrics, seconds = step.running.read(), now - self._epoch_began
        done, start = step.position.batch, self._plan.start
        here = done - start.batch if step.epoch == start.epoch else done  # the others were made before it was stopped
        remaining = seconds / here * (self._plan.steps_per_epoch - done)
        rate = metrics.count * here / done / seconds
        self._lines.draw(
            f"epoch {step.epoch + 1}/{self._plan.settings.train.epochs}",
            f"{loss_in_words(bits(metrics.loss))} bits  {rate:,.0f} characters/s  {clock(remaining)} left",
            done,
        )
        self._drawn = time.perf_counter()

    def measuring(self) -> None:
        """Say why the bar is not moving."""
        if self._plan is not None:
            self._lines.draw("validation", "", self._plan.steps_per_epoch)

    def epoch(self, record: Epoch) -> None:
        """A line of the table."""
        total = self._plan.settings.train.epochs if self._plan else record.number
        held, measured = record.validation, f"{'-':>14}{'-':>14}"
        if held is not None and held.count:
            measured = f"{loss_in_words(bits(held.loss)):>14}{loss_in_words(perplexity(held.loss)):>14}"
        self._line(
            f"{f'{record.number}/{total}':>7}{loss_in_words(bits(record.train.loss)):>10}{measured}"
            f"{record.train.count / record.seconds:16,.0f}{clock(record.seconds):>9}"
        )
        self._epoch_began = time.perf_counter()

    def sample(self, text: str) -> None:
        """The sample, beside a margin."""
        for line in printable(text).split("\n") if text else ():
            self._line(f"{MARGIN}{line}")

    def close(self) -> None:
        """Remove the bar."""
        self._lines.end_bar()

    def finish(self, outcome: Outcome) -> None:
        """The time, where it is kept, and what to type next."""
        folder, cell = outcome.plan.folder, outcome.plan.settings.model.cell
        self._line("")
        self._line(f"time    {outcome.seconds:,.1f} s for {counted(outcome.steps, 'step')}")
        self._line(f"saved   {folder / WEIGHTS}")
        if outcome.best is not None:
            self._line(f"        {BEST}: epoch {outcome.best.epoch}, lowest {outcome.best.by}")
        drawn = f", {CURVES}" if outcome.no_curves is None else ""
        self._line(f"        config.json, {METRICS_CSV}, {METRICS_JSONL}{drawn}")
        self._parts("", [] if outcome.no_curves is None else [f"no {CURVES}: {outcome.no_curves}"])
        own = f" --cell {quoted(FILES[cell])}" if cell in FILES else ""
        self._line(f"next    python -m lstm_np.text sample {quoted(folder)}{own} --length 1000")
