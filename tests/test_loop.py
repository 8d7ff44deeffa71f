"""The training loop: counting, stopping, records, and entering a run at any position."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest

import lstm_np
from lstm_np import Metrics, Parameters, get_backend, loop
from lstm_np.loop import Epoch, History, Position, Progress, Steps, train
from lstm_np.metrics import Running

pytestmark = pytest.mark.quick


class Holder:
    """What a model is to the loop."""

    def __init__(self):
        self.backend = get_backend("numpy")
        self.params = Parameters.from_host(self.backend, {"a": np.zeros(1)}, "float64")
        self.position = Position()


class Counting(Steps):
    """Steps whose batches are their own numbers over the run; the loss of a batch is its number."""

    def __init__(self, size=4):
        self.size, self.made, self.asked = size, [], []
        self.model, self.progress = Holder(), Progress()
        self.sums = Running(self.model.backend)
        self.optimizer = lstm_np.SGD(self.model.params)

    def __len__(self):
        return self.size

    def batches(self, start):
        self.asked.append(start)
        return iter(range(start.epoch * self.size + start.batch, (start.epoch + 1) * self.size))

    def step(self, batch, number):
        self.made.append((batch, number))
        self.sums.add(np.float64(batch), 1, 2)
        return np.float64(batch), 1, 2


def run(size=4, **settings):
    steps = Counting(size)
    return steps, train(steps, **settings)


def test_every_batch_of_every_epoch_once():
    steps, epochs = run(epochs=3)
    assert steps.made == [(k, k + 1) for k in range(12)]
    assert [(e.number, e.steps, e.complete) for e in epochs] == [(1, 4, True), (2, 8, True), (3, 12, True)]
    assert epochs[1].train == Metrics(loss=5.5, accuracy=0.5, count=8, correct=4)
    assert steps.asked == [Position(0, 0, 0), Position(1, 0, 4), Position(2, 0, 8)]
    assert steps.model.position == Position(3, 0, 12)


def test_the_step_limit_cuts_an_epoch_and_says_so():
    steps, epochs = run(epochs=3, max_steps=6)
    assert len(steps.made) == 6
    assert [(e.steps, e.complete, e.share) for e in epochs] == [(4, True, 1.0), (6, False, 0.5)]
    assert steps.model.position == Position(1, 2, 6)


def test_a_limit_at_an_epochs_end_leaves_no_empty_record():
    steps, epochs = run(epochs=3, max_steps=4)
    assert [(e.steps, e.complete) for e in epochs] == [(4, True)]
    assert steps.model.position == Position(1, 0, 4)


def test_stop_is_asked_before_each_step():
    answers = iter([False] * 5 + [True])
    steps, epochs = run(epochs=3, stop=lambda: next(answers))
    assert len(steps.made) == 5
    assert epochs[-1].complete is False


def test_callbacks_see_steps_and_epochs():
    steps, records = [], []
    _, epochs = run(
        epochs=2,
        validate=lambda: Metrics(1.0, 0.25, 4, 1),
        on_step=lambda s: steps.append((s.number, s.epoch, s.position.batch, s.running.count)),
        on_epoch=records.append,
    )
    assert steps == [(k, (k - 1) // 4, (k - 1) % 4 + 1, 2 * ((k - 1) % 4 + 1)) for k in range(1, 9)]
    assert records == epochs
    assert epochs[0].validation == Metrics(1.0, 0.25, 4, 1)


def test_an_error_of_a_step_passes_through_and_the_position_is_of_the_last_step_made():
    class Failing(Counting):
        def step(self, batch, number):
            if number == 6:
                raise ArithmeticError("no")
            return super().step(batch, number)

    steps = Failing()
    with pytest.raises(ArithmeticError, match="no"):
        train(steps, epochs=3)
    assert steps.model.position == Position(1, 1, 5)


def test_an_epoch_whose_validation_was_interrupted_is_measured_again_and_not_trained_again():
    steps = Counting()

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(steps, epochs=2, validate=interrupt)
    assert steps.model.position == Position(0, 4, 4)
    history = train(steps, epochs=2, validate=lambda: Metrics(1.0, 0.5, 2, 1))
    assert len(steps.made) == 8
    assert [(epoch.number, epoch.train.loss, epoch.validation.loss) for epoch in history] == [(1, 1.5, 1), (2, 5.5, 1)]


def test_a_run_that_stands_at_its_end_makes_nothing():
    steps, _ = run(epochs=2)
    assert train(steps, epochs=2) == []
    assert len(steps.made) == 8


def test_sums_belong_to_their_epoch():
    """Steps that were used before, and left in the middle of an epoch, begin another one with nothing."""
    steps, _ = run(epochs=3, max_steps=6)
    (epoch,) = train(steps, steps.model.position.next_epoch(), epochs=3)
    assert (epoch.train.count, epoch.train.loss) == (8, 9.5)
    assert epoch.looks == ((8.0, 0.5), (9.0, 0.5), (10.5, 0.5))


def test_twenty_looks_are_taken_in_an_epoch():
    steps, (epoch,) = run(size=103, epochs=1)
    assert len(epoch.looks) == 17  # every 6 batches, and the 7 at the end
    assert epoch.looks[0] == (2.5, 0.5)
    assert epoch.looks[-1] == (99.0, 0.5)
    mean = sum(loss * 6 for loss, _ in epoch.looks[:-1]) + 7 * epoch.looks[-1][0]
    assert mean / 103 == pytest.approx(epoch.train.loss)
    assert steps.progress.looks == []


def test_seconds_of_an_interrupted_epoch_go_on(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])

    class Slow(Counting):
        def step(self, batch, number):
            now[0] += 1.0
            return super().step(batch, number)

    steps = Slow()
    (first,) = train(steps, epochs=1, max_steps=3)
    now[0] += 100.0
    state = steps.state()
    other = Slow()
    other.restore(state)
    (epoch,) = train(other, Position(0, 3, 3), epochs=1)
    assert (first.seconds, epoch.seconds) == (3.0, 4.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, found 0"),
        ({"epochs": 1.0}, "epochs must be a whole number, found 1.0"),
        ({"epochs": 1, "max_steps": -1}, "max_steps must be at least 0, found -1"),
        ({"epochs": 1, "start": Position(0, 5, 5)}, "the run stands at batch 5 of an epoch of 4 batches"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(**arguments)


def test_an_epoch_is_recorded_where_steps_were_made_though_nothing_counted():
    """Also where it is gone on with at its end; and none is where all batches were left out."""

    class Nothing(Counting):
        def step(self, batch, number):
            self.made.append((batch, number))
            return np.float64(0.0), 0, 2

    steps, again = Nothing(), Nothing()
    records = []
    history = train(steps, epochs=2, on_epoch=records.append)
    assert [(one.number, one.steps, one.train.count, one.looks) for one in history] == [(1, 4, 0, ()), (2, 8, 0, ())]
    assert len(records) == 2
    left = train(Nothing(), epochs=3, leave_out=lambda position: position.epoch == 1)
    assert [one.number for one in left] == [1, 3]
    whole = Nothing()
    train(whole, epochs=1, validate=lambda: None)
    again.restore(whole.state())
    (record,) = train(again, Position(0, 4, 4), epochs=1)
    assert (record.number, record.train.count) == (1, 0)
    assert train(Counting(), epochs=1, leave_out=lambda position: True) == []


def test_steps_without_batches_cannot_be_trained_on():
    model = lstm_np.SequenceClassifier(3, 4, 2)
    with pytest.raises(ValueError, match="there are no batches to train on"):
        train(model.training_steps(lstm_np.Adam(model.params)), epochs=1)


@pytest.mark.parametrize("wrong", [{"epoch": -1}, {"batch": 1.5}, {"step": True}, {"step": None}])
def test_a_position_is_three_counts(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"a position's {name} must be (at least 0|a whole number), found {value}"):
        Position(**wrong)


def test_a_position_is_plain():
    position = Position(np.int64(1), np.uint8(2), 3)
    assert [type(value) for value in vars(position).values()] == [int, int, int]
    assert position == Position(1, 2, 3)


def test_nothing_seen_is_nan():
    metrics = Running(get_backend("numpy")).read()
    assert math.isnan(metrics.loss)
    assert metrics.count == 0


# ---- history


def epochs(count, held=True):
    measured = Metrics(0.25, 0.875, 8, 7) if held else None
    looks = ((2.0, 0.25), (1.0, 0.5))
    return [Epoch(n, 3 * n, Metrics(1.5 / n, 0.5, 10, 5), measured, 0.5 * n, looks=looks) for n in range(1, count + 1)]


def test_a_history_is_a_sequence_of_epochs():
    records = epochs(3)
    history = History(records)
    assert (len(history), history[0], history[-1], list(history)) == (3, records[0], records[2], records)
    assert history == records == History(records)
    assert history != records[:2]
    assert history != "epochs"
    assert isinstance(history[1:], History)
    assert history[1:] == records[1:]
    assert history[:1] + history[1:] == history
    assert records[1] in history
    assert history.index(records[2]) == 2
    with pytest.raises(IndexError):
        history[3]


def test_equality_leaves_the_seconds_out():
    one, other = (Epoch(1, 3, Metrics(1.0, 0.5, 2, 1), None, seconds) for seconds in (0.5, 0.75))
    assert History([one]) == [other]


def test_a_history_is_printed_as_a_table():
    assert repr(History()) == "no epochs"
    cut = Epoch(3, 7, Metrics(0.25, 1.0, 4, 4), None, 0.25, share=1 / 3)
    assert repr(History([*epochs(2), cut])).splitlines() == [
        "                 train          validation",
        "epoch      loss  accuracy      loss  accuracy     steps   seconds",
        "    1    1.5000    50.00%    0.2500    87.50%         3      0.50",
        "    2    0.7500    50.00%    0.2500    87.50%         6      1.00",
        "    3    0.2500   100.00%         -         -         7      0.25   33% of an epoch",
    ]
    assert repr(History(epochs(1, held=False))).splitlines()[1:] == [
        "epoch      loss  accuracy     steps   seconds",
        "    1    1.5000    50.00%         3      0.50",
    ]


@pytest.mark.parametrize("held", [True, False])
def test_a_history_comes_back_from_plain_values(held):
    history = History([*epochs(2, held), Epoch(3, 7, Metrics(0.1, 1.0, 4, 4), None, 0.25, share=1 / 3)])
    state = json.loads(json.dumps(history.state()))
    again = History.from_state(state)
    assert again == history
    assert [epoch.seconds for epoch in again] == [epoch.seconds for epoch in history]


@pytest.mark.parametrize("count", [1, 4])
def test_a_history_is_drawn(count):
    pytest.importorskip("matplotlib", reason='matplotlib is not installed: pip install "lstm_np[plot]"')
    figure = History(epochs(count)).plot(held_out="test", title="a title")
    loss, accuracy = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in accuracy.get_lines()}
    assert drawn["test"] == [[n, 87.5] for n in range(1, count + 1)]
    if count == 1:
        assert drawn["training"] == [[0.25, 25.0], [0.75, 50.0]]
    else:
        assert drawn["training"] == [[n, 50.0] for n in range(1, count + 1)]
    within = loss.get_lines()[0].get_xydata().tolist()
    assert within == [[n + at, y] for n in range(count) for at, y in ((0.25, 2.0), (0.75, 1.0))]
    assert figure.get_suptitle() == "a title"


def test_epochs_without_looks_are_drawn_by_their_means():
    pytest.importorskip("matplotlib", reason='matplotlib is not installed: pip install "lstm_np[plot]"')
    loss, _ = History([Epoch(5, 9, Metrics(0.5, 0.5, 2, 1), None, 1.0)]).plot().axes
    assert loss.get_lines()[0].get_xydata().tolist() == [[4.5, 0.5]]
    assert loss.get_xlim()[0] == 4


def test_what_is_said_where_curves_cannot_be_drawn(monkeypatch):
    with pytest.raises(ValueError, match="there is no epoch to draw"):
        History().plot()
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"^curves need matplotlib, which is not installed: pip install"):
        History(epochs(1)).plot()


# ---- batches of one's own


def test_anybody_may_bring_batches():
    """The protocol of a source: its length, and the batches of an epoch from one on."""

    class Mine:
        def __len__(self):
            return 3

        def epoch(self, epoch, start=0, *, step=None):
            rng = np.random.default_rng(epoch)
            drawn = [(rng.standard_normal((5, 4, 3)), rng.integers(0, 2, 5).tolist()) for _ in range(3)]
            return drawn[start:]

    model = lstm_np.SequenceClassifier(3, 4, 2)
    history = train(model.training_steps(lstm_np.Adam(model.params), Mine()), epochs=2)
    assert [epoch.train.count for epoch in history] == [15, 15]
    assert model.position == Position(2, 0, 6)


def test_an_epoch_whose_measurement_was_cut_short_has_yet_to_be_measured():
    steps, measured = Counting(), []
    history = train(steps, epochs=3, validate=lambda: measured.append(1))
    size = len(steps)
    assert (len(history), history[0].validation, history[0].share) == (1, None, 1.0)
    assert steps.model.position == Position(0, size, size)
    rest = train(steps, epochs=1, validate=lambda: Metrics(0.5, 0.5, 4, 2))
    assert [(epoch.number, epoch.steps, epoch.validation.count) for epoch in rest] == [(1, size, 4)]
    assert rest[0].train == history[0].train
    assert steps.model.position == Position(1, 0, size)
