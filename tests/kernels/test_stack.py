"""Layers that run together give the bits of the same layers one after the other, whoever computes which part."""

import os
import signal
import sys
import tracemalloc
from itertools import chain

import numpy as np
import pytest

import lstm_np
from lstm_np.kernels import Cut
from lstm_np.kernels.cpu import footprint, part, remote, stack_part, workspace
from lstm_np.kernels.cpu.buffers import Stack
from lstm_np.kernels.cpu.stack import MOST
from tests.kernels.test_numpy_fused import same_bits
from tests.kernels.test_recovery import (  # noqa: F401 (fixtures are used by being there)
    FOREVER,
    _one_part_a_core,
    go_on,
    kill,
    pids,
    shared_team,
    struck_team,
    struck_when_asked_for,
    wait_until_ready,
    waiting,
)

CELLS = ("lstm", "gru", "gru_reset_before", "rnn", "rnn_relu")
D, T, B = 5, 30, 90
OPTIONS = {
    "two layers": {},
    "four layers of different sizes": {"hidden_size": [20, 33, 12, 20]},
    "both directions": {"bidirectional": True},
    "both directions, four layers of different sizes": {"hidden_size": [20, 33, 12, 20], "bidirectional": True},
    "both directions, one layer": {"bidirectional": True, "num_layers": 1},
    "both directions, apart": {"bidirectional": True, "num_layers": 1, "merge": "none"},
    "from the end": {"reverse": True},
    "no bias": {"bias": False},
    "two biases, trained initial state": {"bias": "double", "initial_state": "learned"},
    "lean": {"kernel": "lean"},
    "lean, both directions": {"kernel": "lean", "bidirectional": True},
    "float64": {"dtype": "float64"},
}
every_option = pytest.mark.parametrize("options", list(OPTIONS))
every_kernel = pytest.mark.parametrize("kernel", ["fused", "lean"])


class Case:
    """A layer with the arguments of a forward and a backward pass."""

    def __init__(self, cell="lstm", threads=2, seed=0, sizes=(D, T, B), **options):
        rng, (d, t, b) = np.random.default_rng(seed), sizes
        options = {"hidden_size": 20, "num_layers": 2, **options}
        if not isinstance(options["hidden_size"], int):
            options["num_layers"] = len(options["hidden_size"])
        backend = lstm_np.get_backend("numpy", threads=threads)
        self.layer = lstm_np.Recurrent(d, cell=cell, backend=backend, **options)
        for array in self.layer.params.values():
            array[...] += rng.normal(size=array.shape) / 10
        self.x = rng.normal(size=(b, t, d)) / 2
        y, state = self.layer(self.x)
        parts = state if isinstance(state, tuple) else (state,)
        self.dy, self.state, self.dstate = (
            self.like(rng, form)
            for form in (y, parts if len(parts) > 1 else parts[0], parts if len(parts) > 1 else parts[0])
        )

    def like(self, rng, form):
        if isinstance(form, (tuple, list)):
            return type(form)(self.like(rng, one) for one in form)
        return (rng.normal(size=form.shape) / 2).astype(form.dtype)

    def forward(self):
        return self.layer.forward(self.x, self.state)

    def everything(self):
        """All results, of training and of inference."""
        y, final, cache = self.forward()
        inferred = self.layer(self.x, self.state)
        found = [y, final, self.layer.backward(cache, self.dy, self.dstate), inferred]
        y, final, cache = self.layer.forward(self.x)
        return list(flat([*found, self.layer.backward(cache, None, self.dstate)]))

    def one_by_one(self):
        """The same, layer by layer."""
        together, self.layer._together = self.layer._together, None
        assert together is not None
        try:
            return self.everything()
        finally:
            self.layer._together = together

    @property
    def remote(self):
        """The one part that is not computed here, of a forward pass."""
        (found,) = self.forward()[2]["together"].acquire()._remotes
        return found


def flat(results):
    if isinstance(results, dict):
        results = list(results.values())
    return chain.from_iterable(map(flat, results)) if isinstance(results, (list, tuple)) else [results]


def undisturbed(case):
    """All results with the second part from a worker."""
    wait_until_ready(1)
    with waiting(FOREVER):
        expected = case.everything()
        assert not isinstance(case.remote._kept_by, stack_part.StackPart)
    return expected


# ---- bits


@pytest.mark.usefixtures("shared_team")
@every_option
@pytest.mark.parametrize("cell", CELLS)
def test_the_bits_are_those_of_the_layers_one_by_one(options, cell):
    case = Case(cell, **OPTIONS[options])
    assert "together" in case.forward()[2]
    expected = undisturbed(case)
    assert all(np.isfinite(array).all() for array in expected)
    assert sum(array.any() for array in expected) >= len(expected) - 8  # of a trained initial state some are 0
    assert same_bits(case.one_by_one(), expected)


@pytest.mark.usefixtures("shared_team")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_samples_may_be_rows_in_some_layers(cell, bidirectional, monkeypatch):
    def choose_layout(H, K, b, *_, **__):
        return ("rows", 32) if H % 32 == 0 else ("columns", 0)

    monkeypatch.setattr(workspace, "choose_layout", choose_layout)
    for hidden_size in ([64, 96], [20, 64, 33]):
        case = Case(cell, hidden_size=hidden_size, bidirectional=bidirectional, sizes=(5, 7, 90))
        layouts = {job.layout for job in case.remote.job.singles}
        assert layouts == ({"rows"} if 20 not in hidden_size else {"rows", "columns"})
        expected = undisturbed(case)
        assert all(np.isfinite(array).all() and array.any() for array in expected)
        assert same_bits(case.one_by_one(), expected)


@pytest.mark.usefixtures("shared_team")
@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize("options", ["two layers", "both directions", "lean, both directions"])
def test_whoever_is_first_the_bits_are_the_same(threads, options):
    case = Case(threads=threads, **OPTIONS[options])
    expected = case.one_by_one()
    with waiting(0):
        assert all(same_bits(case.everything(), expected) for _ in range(10))


@pytest.mark.usefixtures("shared_team")
@pytest.mark.parametrize("units", [300, 600])
def test_large_layers_of_several_strips(units):
    """From 512 units on strips are narrower; layers of both kinds hand on to one another."""
    case = Case(sizes=(D, 3, 300), hidden_size=[40, units, 50])
    expected = undisturbed(case)
    assert same_bits(case.one_by_one(), expected)


@pytest.mark.usefixtures("shared_team")
def test_a_model_trains_to_the_same_parameters(monkeypatch):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(B, T, D)), rng.integers(0, 3, B)
    found = []
    for together in (True, False):
        backend = lstm_np.get_backend("numpy", threads=2)
        model = lstm_np.SequenceClassifier(D, 24, 3, num_layers=3, bidirectional=True, backend=backend)
        if not together:
            model.recurrent._together = None
        step = model.training_steps(lstm_np.Adam(model.params)).step
        for number in range(1, 6):
            step((x, labels), number)
        found.append(model.params.flat.copy())
    assert np.array_equal(*found)


# ---- what becomes of a worker


@pytest.mark.usefixtures("struck_team")
@every_kernel
@pytest.mark.parametrize("both", [False, True], ids=["one direction", "both"])
@pytest.mark.parametrize("when", ["before forward", "in forward", "between", "in backward"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_worker_that_is_killed_or_stopped_changes_no_bit(kernel, both, when, number):
    case = Case(kernel=kernel, bidirectional=both)
    everything = undisturbed(case)
    with waiting(FOREVER):
        y, final, cache = case.forward()
        expected = list(flat([y, final, case.layer.backward(cache, case.dy, case.dstate)]))
    struck = pids()
    if when == "before forward":
        kill(number)
    with struck_when_asked_for(when.removeprefix("in "), number):
        y, final, cache = case.forward()
        if when == "between":
            kill(number)
        found = list(flat([y, final, case.layer.backward(cache, case.dy, case.dstate)]))
    assert same_bits(found, expected)
    (part_of_worker,) = cache["together"].acquire()._remotes
    if when in ("before forward", "between"):
        assert isinstance(part_of_worker._kept_by, stack_part.StackPart)
    assert all(same_bits(case.everything(), everything) for _ in range(3))
    go_on(struck)
    assert all(same_bits(case.everything(), everything) for _ in range(3))


@pytest.mark.usefixtures("struck_team")
def test_a_worker_that_comes_late_spoils_nothing():
    """It is stopped with requests of one batch and goes on while other batches are computed."""
    cases = [Case(seed=seed) for seed in range(3)]
    expected = [undisturbed(case) for case in cases]
    for case in cases[1:]:
        case.layer._together._workspaces = cases[0].layer._together._workspaces  # the same buffers
    for _ in range(4):
        stopped = pids()
        with struck_when_asked_for("backward", signal.SIGSTOP):
            assert same_bits(cases[0].everything(), expected[0])
        assert same_bits(cases[1].everything(), expected[1])
        go_on(stopped)
        with waiting(0):
            for case, results in zip(cases, expected, strict=True):
                assert same_bits(case.everything(), results)
        assert same_bits(undisturbed(cases[2]), expected[2])


def test_where_no_worker_can_be_started_the_bits_are_the_same(monkeypatch, caplog):
    expected = undisturbed(Case())
    remote.TEAM.close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    case = Case()
    assert all(same_bits(case.everything(), expected) for _ in range(2))
    assert [record.getMessage().startswith("working on one core: ") for record in caplog.records] == [True]


# ---- buffers


@pytest.mark.usefixtures("shared_team")
def test_backward_twice_is_the_same_until_a_forward_needs_the_memory():
    case = Case()
    cache = case.forward()[2]
    first, second = (list(flat(case.layer.backward(cache, case.dy, case.dstate))) for _ in range(2))
    assert same_bits(first, second)
    later = case.forward()[2]
    with pytest.raises(RuntimeError, match="call forward again"):
        case.layer.backward(cache, case.dy, case.dstate)
    assert same_bits(first, list(flat(case.layer.backward(later, case.dy, case.dstate))))


@pytest.mark.usefixtures("shared_team")
def test_two_forwards_before_their_backwards():
    case = Case()
    expected = list(flat(case.layer.backward(case.forward()[2], case.dy, case.dstate)))
    caches = [case.forward()[2] for _ in range(2)]
    assert all(same_bits(flat(case.layer.backward(cache, case.dy, case.dstate)), expected) for cache in caches)


@pytest.mark.usefixtures("shared_team")
def test_what_is_returned_belongs_to_the_caller():
    case = Case()
    returned = case.everything()
    copies = [array.copy() for array in returned]
    case.x = case.x[:, ::-1] + 1
    case.everything()
    assert same_bits(returned, copies)


def test_values_kept_before_a_fork_are_refused_after_it(monkeypatch):
    case = Case()
    expected, cache = undisturbed(case), case.forward()[2]
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="forked"):
        case.layer.backward(cache, case.dy, case.dstate)
    assert same_bits(case.everything(), expected)


@pytest.mark.usefixtures("shared_team")
def test_batch_and_sequence_may_change_from_call_to_call():
    case = Case(bidirectional=True)
    for steps, samples in [(9, 90), (3, 90), (9, 31), (9, 90), (1, 20)]:
        x = np.random.default_rng(steps).normal(size=(samples, steps, D))
        alone = case.layer.copy()
        alone._together = None
        assert same_bits(flat(case.layer(x)), flat(alone(x)))


@pytest.mark.usefixtures("shared_team")
@pytest.mark.parametrize("keep", ["all", "lean", "nothing"])
@pytest.mark.parametrize("sizes", [{"hidden_size": [64, 96, 32]}, {"hidden_size": 64, "bidirectional": True}], ids=str)
def test_the_count_of_values_is_what_a_stack_allocates(keep, sizes):
    together = Case(kernel="lean" if keep == "lean" else "fused", **sizes).layer._together
    (job,) = together._stacks(40, Cut(((0, 60),), 1), keep != "nothing")
    tracemalloc.start()
    try:
        made = stack_part.StackPart(job)
        of_numpy = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
        traces = tracemalloc.take_snapshot().filter_traces([of_numpy]).traces
    finally:
        tracemalloc.stop()
    allocated = sum(trace.size for trace in traces) / 4
    assert made.job.singles
    assert 0.85 * allocated < footprint.values_of_batch([job]) < 1.15 * allocated + 2000


# ---- where layers run one after the other


@pytest.mark.usefixtures("shared_team")
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"dropout": 0.5}, {"dropout_key": (1,)}),
        ({}, {"lengths": [T] * (B - 1) + [T - 1]}),
        ({}, {"trace": True}),
        ({}, {"hold": {"f": 1.0}}),
        ({"bidirectional": True, "merge": "sum"}, {}),
        ({"num_layers": 1}, {}),
        ({"kernel": "reference"}, {}),
        ({"hidden_size": [64, 64], "sizes": (D, T, 16)}, {}),  # samples are rows
        ({"hidden_size": 3, "num_layers": MOST + 1, "sizes": (D, 1, 40)}, {}),
    ],
    ids=str,
)
def test_where_layers_cannot_run_together_they_run_one_by_one(options, arguments):
    case = Case(**options)
    cache = case.layer.forward(case.x, **arguments)[2]
    assert "together" not in cache
    case.layer.backward(cache, None, case.dstate)


@pytest.mark.usefixtures("shared_team")
def test_dropout_without_a_key_and_a_truncated_pass_run_together():
    case = Case(dropout=0.5)
    assert "together" in case.forward()[2]
    y, final, cache = case.layer.forward(case.x, truncation=(7, 13))
    assert all("together" in own for _, own in cache["segments"])
    found = list(flat([y, final, case.layer.backward(cache, case.dy)]))
    case.layer._together = None
    y, final, cache = case.layer.forward(case.x, truncation=(7, 13))
    assert same_bits(found, flat([y, final, case.layer.backward(cache, case.dy)]))


@pytest.mark.usefixtures("shared_team")
def test_a_worker_is_told_of_as_many_layers_as_may_run_together():
    deep = Case(hidden_size=30, num_layers=MOST, sizes=(D, 2, 60))
    assert same_bits(deep.one_by_one(), undisturbed(deep))


@pytest.mark.usefixtures("shared_team")
def test_kernels_that_were_put_in_the_place_of_others_are_used(monkeypatch):
    case = Case()
    other = lstm_np.Recurrent(20, 20, backend=case.layer.backend, kernel="reference").singles[0].kernel
    case.layer.singles[1].kernel = other
    cache = case.forward()[2]
    assert "together" not in cache
    assert type(cache["saved"][1]).__name__ == "Saved"


@pytest.mark.usefixtures("shared_team")
def test_a_part_of_a_stack_hears_that_it_was_overtaken():
    job = Case().layer._together._stacks(T, Cut(((0, 40),), 1), True)[0]
    assert isinstance(job, Stack)
    made = stack_part.StackPart(job)
    assert made.overtaken is part.nobody
    made.overtaken = lambda: True
    assert all(one.overtaken() for one in made._parts)


@pytest.mark.usefixtures("shared_team")
def test_a_cut_that_another_thread_forgets_meanwhile_is_known_all_the_same():
    class Forgetting(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            self.clear()

    stack = Case().layer._together
    expected = stack.takes(T, B, True)
    stack._known = Forgetting()
    assert stack.takes(T, B, True) is expected is True
