"""TensorBoard event files of a run, beside everything else that is reported (extra `tensorboard`)."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Any

from lstm_np.data.download import Progress
from lstm_np.extras import load
from lstm_np.loop import Epoch, Step
from lstm_np.metrics import AnyMetrics, Metrics
from lstm_np.model import SequenceModel
from lstm_np.training.records import Outcome, Plan
from lstm_np.training.reporters import Reporter
from lstm_np.training.run_folder import EVENTS

STEPS_BETWEEN = 20  # reading a loss waits for the GPU, and a curve needs no more points


class TensorBoardReporter(Reporter):
    """Passes everything on to `inner`, and writes event files to the folder `tensorboard` of the run:

        batch/loss, batch/accuracy, batch/error            every 20 steps, of the batch just learnt from
        train/loss, train/accuracy, train/error            every epoch; and the same under validation/ or test/
        test/...                                           at the end, with the final weights

    Where targets are numbers, the mean absolute error stands in the place of accuracy and error.

    The step counts over the whole run.  Where they cannot be written (a full disk) one line says so, and the run goes
    on without them.  Raises MissingPackageError where tensorboardX is missing.
    """

    def __init__(self, inner: Reporter) -> None:
        self._inner = inner
        # not its SummaryWriter: that writes in a thread, which dies of a full disk, and whoever waits for it then hangs
        self._package = load("tensorboardX", "tensorboard", "event files need")
        self._events: Any = None
        self._held_out, self._classes = "test", True

    def note(self, text: str) -> None:
        """Passed on."""
        self._inner.note(text)

    def downloading(self) -> AbstractContextManager[Progress | None]:
        """Passed on."""
        return self._inner.downloading()

    def model(self, model: SequenceModel, steps: int, batch_size: int) -> None:
        """Passed on."""
        self._inner.model(model, steps, batch_size)

    def start(self, plan: Plan) -> None:
        """Open the event file and store the recipe's settings as text."""
        self._held_out, folder = plan.held_out, plan.folder / EVENTS
        self._classes = plan.metrics is Metrics and plan.counted != "steps"
        lines = [
            f"    {table}.{name} = {value}" for table, s in plan.recipe.tables.items() for name, value in s.items()
        ]
        text = "\n".join([f"{plan.recipe.name}: {plan.recipe.title}", "", *lines])
        try:
            folder.mkdir(exist_ok=True)
            self._events = self._package.event_file_writer.EventsWriter(str(folder / "events"))
        except OSError as error:
            self._without(error)
        self._write(self._package.summary.text("recipe", text), 0)
        self._inner.start(plan)

    def step(self, step: Step) -> None:
        """A point of the curves of batches, every 20 steps."""
        if step.number % STEPS_BETWEEN == 0 or step.number == 1:
            self._write(self._package.summary.scalar("batch/loss", float(step.loss)), step.number)
            if self._classes:
                self._scores("batch", int(step.correct) / step.samples, step.number)
        self._inner.step(step)

    def measuring(self) -> None:
        """Passed on."""
        self._inner.measuring()

    def epoch(self, record: Epoch) -> None:
        """A point of each epoch's curves; what is there so far is flushed."""
        self._metrics("train", record.train, record.steps)
        if record.validation is not None and record.validation.count:
            self._metrics(self._held_out, record.validation, record.steps)
        self._flush()
        self._inner.epoch(record)

    def health(self, line: str) -> None:
        """Passed on."""
        self._inner.health(line)

    def close(self) -> None:
        """Passed on; the file stays open for the test."""
        self._flush()
        self._inner.close()

    def result(self, outcome: Outcome) -> None:
        """The test's numbers."""
        if outcome.test is not None and self._held_out != "test":
            self._metrics("test", outcome.test, outcome.steps)
        self._flush()
        self._inner.result(outcome)

    def finish(self, outcome: Outcome) -> None:
        """The end of the file."""
        if self._events is not None:
            try:
                self._events.close()
            except OSError as error:
                self._without(error)
        self._inner.finish(outcome)

    def _metrics(self, group: str, metrics: AnyMetrics, step: int) -> None:
        self._write(self._package.summary.scalar(f"{group}/loss", metrics.loss), step)
        if isinstance(metrics, Metrics):
            self._scores(group, metrics.accuracy, step)
        else:
            self._write(self._package.summary.scalar(f"{group}/{metrics.second}", metrics.score), step)

    def _scores(self, group: str, accuracy: float, step: int) -> None:
        for name, value in (("accuracy", accuracy), ("error", 1.0 - accuracy)):
            self._write(self._package.summary.scalar(f"{group}/{name}", value), step)

    def _write(self, summary: Any, step: int) -> None:
        if self._events is not None:
            event = self._package.proto.event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
            try:
                self._events.write_event(event)
            except OSError as error:
                self._without(error)

    def _flush(self) -> None:
        if self._events is not None:
            try:
                self._events.flush()
            except OSError as error:
                self._without(error)

    def _without(self, error: OSError) -> None:
        """Go on without event files."""
        self._events = None
        reason = error.strerror or str(error)
        self.note(f"train: the event files cannot be written ({reason}); the run goes on without them")
