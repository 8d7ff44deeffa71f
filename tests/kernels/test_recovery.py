"""What becomes of a worker changes how long a pass takes and not one bit, in every layout, with all or little kept."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_np
from lstm_np.kernels import Cut
from lstm_np.kernels.cpu import cut, remote
from lstm_np.kernels.cpu.fused import NumpyFusedKernel, NumpyLeanKernel
from lstm_np.kernels.cpu.part import Part
from lstm_np.workers import process
from lstm_np.workers.process import Team, Worker
from tests.kernels.test_numpy_fused import Case, same_bits

FOREVER = 1e3
CELLS = ("lstm", *(OTHERS := ("gru", "gru_reset_before", "rnn", "rnn_relu")))
LAYOUTS = {  # of two parts
    "columns": {"D": 5, "H": 20, "T": 30, "B": 101},
    "rows": {"D": 7, "H": 64, "T": 30, "B": 16},
    "rows packed together": {"D": 7, "H": 64, "T": 30, "B": 17},
    "sample": {"D": 1, "H": 20, "T": 70, "B": 2},
}
every_case = pytest.mark.parametrize("kernel_type", [NumpyFusedKernel, NumpyLeanKernel])
every_layout = pytest.mark.parametrize("layout", list(LAYOUTS))


def make_team():
    return Team(remote.serving.TARGET, remote.serving.PartServer.describe)


@pytest.fixture(scope="session")
def shared_team():
    """Workers for the tests that name this fixture: they do no worker any harm, and starting one takes a while."""
    team = make_team()
    yield team
    team.close()


@pytest.fixture(scope="session")
def struck_team():
    """Workers for the tests that name this fixture: they stop and kill them, and wait until they are ready again."""
    team = make_team()
    yield team
    team.close()


def recovered(team):
    """Workers that a test has left stopped continue, and none rests because it was late in a test before."""
    for worker in team._workers:
        go_on([worker.process.pid])
        worker._rest = 0.0


@pytest.fixture(autouse=True)
def _one_part_a_core(request, monkeypatch):
    """As many parts as cores, whatever the sizes, and a team of this test's own, or one of those that are shared."""

    def share_out(gates, D, H, T, B, cores, save):
        return Cut(cut.pieces(B, min(cores, B)), 1)

    monkeypatch.setattr(cut, "share_out", share_out)
    shared = next((name for name in ("shared_team", "struck_team") if name in request.fixturenames), None)
    team = request.getfixturevalue(shared) if shared else make_team()
    recovered(team)
    monkeypatch.setattr(remote, "TEAM", team)
    yield
    recovered(team)
    if not shared:
        team.close()


def make(layout, kernel_type, monkeypatch, **changes):
    if layout == "rows packed together":
        monkeypatch.setattr(remote, "WORTH_PACKING_TOGETHER", 0)
        monkeypatch.setattr(Worker, "awake", Worker.idle)  # it is waked for packing too
    return Case(kernel_type, **{**LAYOUTS[layout], "threads": 2, **changes})


@contextmanager
def waiting(seconds):
    """So long is waited for a worker, whatever the parent's own part took."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "SHORTEST", seconds)
        if seconds == 0:
            patch.setattr(remote, "PATIENCE", 0)
            patch.setattr(remote, "FIRST", 0)
            patch.setattr(process, "LONGEST_REST", 0)
        yield


def wait_until_ready(number):
    """Until so many workers take requests."""
    end = time.monotonic() + 60
    with remote.TEAM.lock:
        while None in remote.TEAM.available(number) and time.monotonic() < end:
            time.sleep(0.01)


def undisturbed(case):
    """The results with every part but the first from a worker."""
    wait_until_ready(case.kernel.backend.cores - 1)
    with waiting(FOREVER):
        expected = case.everything()
        kept_by = [part._kept_by for part in case.forward()[2].acquire()._remotes]
    assert kept_by
    assert not any(isinstance(keeper, Part) for keeper in kept_by)
    return expected


def pids():
    return [worker.process.pid for worker in remote.TEAM._workers]


def kill(number=signal.SIGKILL):
    for pid in pids():
        os.kill(pid, number)


def go_on(stopped):
    """Processes that were stopped continue, if they still are."""
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def struck_when_asked_for(what, number):
    """A signal to all workers as soon as one has been asked for a pass."""
    ask = remote.RemotePart._ask

    def asking(self, worker, do, arguments):
        ask(self, worker, do, arguments)
        if do == what:
            kill(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote.RemotePart, "_ask", asking)
        yield


# ---- killed, stopped, absent


@pytest.mark.usefixtures("struck_team")
@every_case
@every_layout
@pytest.mark.parametrize("when", ["before forward", "in forward", "between", "in backward"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_worker_that_is_killed_or_stopped_changes_no_bit(kernel_type, layout, when, number, monkeypatch):
    case = make(layout, kernel_type, monkeypatch)
    expected, struck = undisturbed(case), pids()
    if when == "before forward":
        kill(number)
    with struck_when_asked_for(when.removeprefix("in "), number):
        y, final, saved = case.forward()
        if when == "between":
            kill(number)
        dx, dstate, grads = case.backward(saved)
    assert same_bits([y, *final, dx, *dstate, *grads.values()], expected)
    if when in ("before forward", "between"):
        assert isinstance(saved.acquire()._remotes[0]._kept_by, Part)
    assert all(same_bits(case.everything(), expected) for _ in range(3))
    go_on(struck)
    assert all(same_bits(case.everything(), expected) for _ in range(3))


@pytest.mark.usefixtures("struck_team")
@every_case
@every_layout
def test_a_worker_that_comes_late_spoils_nothing(kernel_type, layout, monkeypatch):
    """It is stopped with requests of one batch and goes on while other batches are computed."""
    cases = [make(layout, kernel_type, monkeypatch, seed=seed) for seed in range(3)]
    for case in cases[1:]:
        case.kernel = cases[0].kernel  # the same buffers
    expected = [undisturbed(case) for case in cases]
    for _ in range(4):
        stopped = pids()
        saved = cases[0].forward()[2]
        with struck_when_asked_for("backward", signal.SIGSTOP):
            cases[0].backward(saved)
        assert same_bits(cases[1].everything(), expected[1])
        go_on(stopped)
        with waiting(0):
            for case, results in zip(cases, expected, strict=True):
                assert same_bits(case.everything(), results)
        assert same_bits(undisturbed(cases[2]), expected[2])


@pytest.mark.usefixtures("struck_team")
@every_case
@every_layout
def test_a_worker_that_was_overtaken_in_forward_is_not_asked_for_backward(kernel_type, layout, monkeypatch):
    """It is ready again, but has not computed what backward needs."""
    case = make(layout, kernel_type, monkeypatch)
    other = make(layout, kernel_type, monkeypatch, seed=1)
    other.kernel = case.kernel
    expected, stopped = undisturbed(case), pids()
    undisturbed(other)
    with struck_when_asked_for("forward", signal.SIGSTOP):
        saved = case.forward()[2]
    go_on(stopped)
    wait_until_ready(1)
    with waiting(FOREVER):
        assert same_bits(case.backward(saved)[2].values(), expected[-3:])


@every_case
@every_layout
def test_where_no_worker_can_be_started_the_bits_are_the_same(kernel_type, layout, monkeypatch, caplog):
    case = make(layout, kernel_type, monkeypatch)
    expected = undisturbed(case)
    remote.TEAM.close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    alone = make(layout, kernel_type, monkeypatch)
    assert all(same_bits(alone.everything(), expected) for _ in range(2))
    assert same_bits(case.everything(), expected)
    (record,) = caplog.records
    assert record.getMessage().startswith("working on one core: no worker process could be started (")


@pytest.mark.usefixtures("shared_team")
@every_case
@every_layout
@pytest.mark.parametrize(("threads", "cell"), [(2, "lstm"), (3, "lstm"), (5, "lstm"), *((2, cell) for cell in OTHERS)])
def test_whoever_is_first_the_bits_are_the_same(kernel_type, layout, threads, cell, monkeypatch):
    """With no patience the parent and the workers race for every part."""
    case = make(layout, kernel_type, monkeypatch, threads=threads, cell=cell)
    expected = undisturbed(case)
    with waiting(0):
        assert all(same_bits(case.everything(), expected) for _ in range(20))


sizes = st.fixed_dictionaries(
    {
        "D": st.integers(1, 9),
        "H": st.sampled_from([1, 3, 17, 40, 64, 72]),
        "T": st.integers(1, 40),
        "B": st.one_of(st.integers(2, 60), st.sampled_from([130, 300])),
        "threads": st.integers(2, 4),
        "dtype": st.sampled_from(["float32", "float64"]),
        "cell": st.sampled_from(CELLS),
    }
)


@pytest.mark.usefixtures("shared_team")
@settings(deadline=None, max_examples=60)
@given(sizes=sizes, lean=st.booleans(), seed=st.integers(0, 99))
def test_one_process_that_computes_all_parts_gives_the_bits_of_several(sizes, lean, seed):
    case = Case(NumpyLeanKernel if lean else NumpyFusedKernel, **sizes, seed=seed)
    expected, several = undisturbed(case), sizes["B"] > sizes["threads"]  # of one sample there are no parts
    alone = case.forward(save=False)[:2] if several else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote.TEAM, "available", lambda number: [None] * number)
        assert same_bits(case.everything(), expected)
        found = case.forward(save=False)[:2] if several else None
    assert not several or same_bits([found[0], *found[1]], [alone[0], *alone[1]])


@pytest.mark.usefixtures("shared_team")
@every_case
@every_layout
def test_parameters_that_lie_otherwise_in_memory_give_the_same_bits(kernel_type, layout, monkeypatch):
    case = make(layout, kernel_type, monkeypatch)
    expected = undisturbed(case)
    case.params = {name: np.asfortranarray(array) for name, array in case.params.items()}
    with waiting(0):
        assert all(same_bits(case.everything(), expected) for _ in range(5))


def test_a_worker_that_was_late_rests_and_is_asked_again(monkeypatch):
    case = make("columns", NumpyFusedKernel, monkeypatch)
    expected, (pid,) = undisturbed(case), pids()
    monkeypatch.setattr(process, "SHORTEST_REST", FOREVER)
    monkeypatch.setattr(process, "LONGEST_REST", FOREVER)
    with remote.TEAM.lock:
        (worker,) = remote.TEAM.available(1)
    asked, request = [], Worker.request

    def counting(self, *arguments, **options):
        asked.append(arguments[0])
        return request(self, *arguments, **options)

    monkeypatch.setattr(Worker, "request", counting)
    os.kill(pid, signal.SIGSTOP)
    assert same_bits(case.everything(), expected)
    go_on([pid])
    assert asked == ["forward"]
    assert worker.rests
    assert same_bits(case.everything(), expected)
    assert asked == ["forward"]
    monkeypatch.setattr(process, "LONGEST_REST", 0)
    worker.was_late()  # as when the rest is over
    wait_until_ready(1)
    with waiting(FOREVER):
        assert same_bits(case.everything(), expected)
    assert asked == ["forward", "forward", "backward"]


def asleep(worker):
    """Wait until a worker that has nothing to do sleeps."""
    end = time.monotonic() + 60
    while worker.awake and time.monotonic() < end:
        time.sleep(0.005)
    assert worker.idle


def test_one_that_sleeps_is_not_waked_to_pack_and_is_waited_for_longer(monkeypatch):
    monkeypatch.setattr(remote, "WORTH_PACKING_TOGETHER", 0)
    case = Case(NumpyFusedKernel, **LAYOUTS["rows packed together"], threads=2)
    expected, asked, request = undisturbed(case), [], Worker.request

    def noting(self, what, *arguments, **options):
        number = request(self, what, *arguments, **options)
        asked.append((what, self.waked, remote.patience(1.0, self)))
        return number

    (worker,) = remote.TEAM._workers
    with waiting(FOREVER):
        asleep(worker)
        monkeypatch.setattr(Worker, "request", noting)
        assert same_bits(case.everything(), expected)
    usual = FOREVER + remote.PATIENCE
    assert asked[0] == ("forward", True, usual + remote.WAKING)
    assert asked[-1][0] == "backward"
    assert all(patience == usual for _, waked, patience in asked if not waked)


def test_the_first_pass_of_each_kind_is_waited_for_longer(monkeypatch):
    case = make("columns", NumpyFusedKernel, monkeypatch)
    wait_until_ready(1)
    first, ask = [], remote.RemotePart._ask

    def noting(self, worker, do, flags):
        ask(self, worker, do, flags)
        first.append((do, self._first))

    monkeypatch.setattr(remote.RemotePart, "_ask", noting)
    with waiting(FOREVER):
        case.everything()
        case.everything()
    assert first == [("forward", True), ("backward", True), ("forward", False), ("backward", False)]


# ---- what else may happen


@pytest.mark.usefixtures("struck_team")
@pytest.mark.parametrize("do", ["pack", "pack_backward"])
@every_case
def test_weights_that_a_late_worker_may_still_pack_are_left_to_it(do, kernel_type, monkeypatch):
    """It is stopped when it is asked to pack, and goes on when other weights have taken the place of those."""
    case, other = (make("rows packed together", kernel_type, monkeypatch, seed=seed) for seed in range(2))
    expected, expected_other = undisturbed(case), undisturbed(other)
    other.kernel, stopped, request = case.kernel, pids(), Worker.request

    def stopping(self, what, arguments, memories=(), **options):
        number = request(self, what, arguments, memories, **options)
        if what == "pack" and arguments["do"] == do:
            kill(signal.SIGSTOP)
        return number

    with monkeypatch.context() as context:
        context.setattr(Worker, "request", stopping)
        saved = case.forward()[2]
        first = case.backward(saved)
    assert same_bits(first[2].values(), expected[-3:])
    assert same_bits(other.everything(), expected_other)
    go_on(stopped)
    with waiting(0):
        for _ in range(5):
            assert same_bits(case.everything(), expected)
            assert same_bits(other.everything(), expected_other)


def test_a_worker_that_fails_is_replaced_and_its_part_computed(monkeypatch, caplog):
    case = make("columns", NumpyFusedKernel, monkeypatch)
    expected = undisturbed(case)
    with waiting(FOREVER):
        saved = case.forward()[2]
        (part,) = saved.acquire()._remotes
        part._key, key = -1, part._key
        assert same_bits(case.backward(saved)[2].values(), expected[-3:])
    part._key = key
    assert same_bits(case.everything(), expected)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "has failed (KeyError: 'job')" in caplog.text


def test_buffers_for_a_part_of_a_worker_go_when_they_are_not_used_any_more(monkeypatch):
    case = make("columns", NumpyFusedKernel, monkeypatch)
    with waiting(FOREVER):
        case.everything()
        stopped = pids()
        kill(signal.SIGSTOP)
    saved = case.forward()[2]
    (part,) = saved.acquire()._remotes
    case.backward(saved)
    assert part._here is not None
    go_on(stopped)
    wait_until_ready(1)
    with waiting(FOREVER):
        for _ in range(remote.UNUSED + 3):
            case.everything()
    assert part._here is None


def test_a_killed_worker_costs_one_line_and_the_next_one_works(monkeypatch, caplog):
    case = make("columns", NumpyFusedKernel, monkeypatch)
    expected = undisturbed(case)
    (first,) = pids()
    kill()
    assert same_bits(case.everything(), expected)
    end = time.monotonic() + 60
    while time.monotonic() < end and (pids() in ([first], []) or not remote.TEAM._workers[0].done):
        assert same_bits(case.everything(), expected)
    assert pids() not in ([first], [])
    assert [record.getMessage() for record in caplog.records] == [
        "a worker process has ended (signal 9); its work is done here, and another one is started"
    ]


def test_values_kept_before_a_fork_are_refused_after_it(monkeypatch):
    case = make("columns", NumpyFusedKernel, monkeypatch)
    saved = case.forward()[2]
    expected = case.backward(saved)[2]
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="forked"):
        case.backward(saved)
    assert same_bits(case.everything()[-3:], expected.values())


# ---- a training run


def kill_after(pid, seconds):
    time.sleep(seconds)
    with suppress(ProcessLookupError):  # it was killed in the step before last, and that is noticed only now
        os.kill(pid, signal.SIGKILL)


def trained(kills, steps):
    """The parameters after a training run of two layers, during which so many workers are killed in mid-step."""
    rng = np.random.default_rng(5)
    x, labels = rng.normal(size=(40, 6, 5)).astype("float32"), rng.integers(0, 3, 40)
    backend = lstm_np.get_backend("numpy", threads=2)
    model = lstm_np.SequenceClassifier(5, 16, 3, backend=backend, num_layers=2, seed=1)
    step, killed = model.training_steps(lstm_np.Adam(model.params, lr=1e-2)).step, set()
    for number in range(1, steps + 1):
        if number % 2 == 0 and len(killed) < kills:
            wait_until_ready(1)
            (pid,) = pids()
            thread = threading.Thread(target=kill_after, args=(pid, rng.uniform(0, 2e-3)))
            thread.start()
            step((x, labels), number)
            thread.join()
            killed.add(pid)
        else:
            step((x, labels), number)
    return model.params.flat.copy(), killed


def test_a_training_run_whose_workers_are_killed_ends_with_the_same_bits(caplog):
    kills = int(os.environ.get("LSTM_NP_TEST_KILLS", "8"))
    steps = 2 * kills + 30
    found, killed = trained(kills, steps)
    assert len(killed) == kills
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["a worker process has ended (signal 9); its work is done here, and another one is started"] * kills
    assert np.array_equal(found, trained(0, steps)[0])
