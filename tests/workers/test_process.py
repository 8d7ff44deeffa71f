"""Worker processes: they run the parent's code, are missed by nobody when they are late or dead, and end with it."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lstm_np
from lstm_np.workers import identity, process
from lstm_np.workers.memory import SharedMemory
from tests.workers.servers import Small

PACKAGE = Path(lstm_np.__file__).parent
SMALL = "tests.workers.servers:Small"
LONG = 60.0


@pytest.fixture
def team():
    team = process.Team(SMALL, Small.describe)
    yield team
    team.close()


def wait_for(worker, number):
    worker.look(LONG)
    assert worker.done == number


def tell(worker, key=1):
    """What a worker says of itself."""
    memory = SharedMemory(1 << 16)
    wait_for(worker, worker.request("tell", {"key": key}, [memory], limit=LONG))
    return json.loads(bytes(memory.mapping).rstrip(b"\0"))


def gone(pid):
    """Whether a process has ended, within some time."""
    stat, end = Path(f"/proc/{pid}/stat"), time.monotonic() + 20
    while time.monotonic() < end:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


# ---- requests


def test_workers_start_together_and_answer(team):
    with team.lock:
        workers = team.available(3)
        assert len({tell(worker)["pid"] for worker in workers}) == 3
        numbers = [worker.request("sleep", {"seconds": 0.2}, limit=LONG) for worker in workers]
        assert not any(worker.idle for worker in workers)
        assert team.available(3) == [None] * 3
        for worker, number in zip(workers, numbers, strict=True):
            wait_for(worker, number)
        assert team.available(2) == workers[:2]


def test_starting_several_takes_little_longer_than_starting_one(team, monkeypatch):
    """No worker is waited for before the next one has been started."""
    started = []
    make = process.Worker.__init__

    def noted(self, target):
        started.append("start")
        make(self, target)

    look = process.Worker.look
    monkeypatch.setattr(process.Worker, "__init__", noted)
    monkeypatch.setattr(process.Worker, "look", lambda self, seconds=0.0: started.append("look") or look(self, seconds))
    with team.lock:
        team.available(4)
    assert started[:4] == ["start"] * 4


def test_waiting_has_an_end_and_a_late_answer_is_no_answer_to_the_next_request(team):
    with team.lock:
        (worker,) = team.available(1)
        late = worker.request("sleep", {"seconds": 0.3}, limit=LONG)
        began = time.perf_counter()
        worker.look(0.05)
        assert time.perf_counter() - began < 0.25
        assert worker.busy_with(late)
        worker.look(LONG)
        assert (worker.done, worker.idle) == (late, True)
        wait_for(worker, worker.request("sleep", {"seconds": 0}, limit=LONG))


@pytest.fixture
def late(team, monkeypatch):
    """A worker, and what makes it late: it rests until a function of the time says otherwise, which the tests move."""
    with team.lock:
        (worker,) = team.available(1)
        now, queued = time.perf_counter(), 0.0
        worker._queue_at = now, queued  # it may have taken any time to start
        monkeypatch.setattr(process.time, "perf_counter", lambda: now)
        monkeypatch.setattr(process, "seconds_in_queue", lambda pid: queued)

        def rests_for(seconds, in_queue):
            """It is late, having waited so long for a core, and rests for that long."""
            nonlocal now, queued
            worker.was_late()
            queued += in_queue
            now += seconds - 1e-6
            resting = worker.rests
            now += 2e-6
            return resting and not worker.rests

        yield worker, rests_for


def test_the_rest_grows_with_lateness_and_shrinks_slowly(late):
    """Where another program has the core one answer in time does not say that it is free: the rest is long again."""
    worker, rests_for = late
    assert all(rests_for(seconds, 2e-3) for seconds in (0.04, 0.08, 0.16))
    worker.was_in_time()
    assert rests_for(0.288, 2e-2)
    for _ in range(40):
        worker.was_in_time()
    assert not worker.late
    assert not worker.rests


def test_who_is_late_though_nobody_else_wants_the_core_rests_shortly(late):
    _, rests_for = late
    assert all(rests_for(0.02, 1e-5) for _ in range(5))
    assert rests_for(0.04, 2e-3)


def test_where_it_is_not_known_why_a_worker_is_late_the_rest_grows(late):
    _, rests_for = late
    assert all(rests_for(seconds, math.inf) for seconds in (0.04, 0.08))


def test_a_waked_worker_begins_slowly_unless_another_program_wants_its_core(late):
    worker, rests_for = late
    worker.waked = True
    assert rests_for(0.02, 0)
    assert worker.slow_to_begin
    assert rests_for(0.04, 1e-2)
    assert not worker.slow_to_begin
    for _ in range(40):
        worker.was_in_time()
    assert worker.slow_to_begin


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="Linux tells it there")
def test_how_long_a_process_has_waited_for_a_core():
    assert 0 <= process.seconds_in_queue(os.getpid()) <= process.seconds_in_queue(os.getpid()) < 1e6
    assert process.seconds_in_queue(2**30) == math.inf


def test_it_is_known_whether_a_worker_sleeps(team):
    with team.lock:
        (worker,) = team.available(1)
        end = time.monotonic() + LONG
        while worker.awake and time.monotonic() < end:
            time.sleep(0.005)
        assert worker.idle
        assert not worker.awake
        number = worker.request("sleep", {"seconds": 0}, limit=LONG)
        assert worker.waked
        wait_for(worker, number)


def test_work_that_is_not_wanted_any_more_ends_early(team):
    with team.lock:
        (worker,) = team.available(1)
        number = worker.request("work", {}, limit=LONG)
        worker.look(0.02)
        assert worker.busy_with(number)
        worker.refuse()
        worker.look(LONG)
        assert worker.idle
        assert worker.done != number
        wait_for(worker, worker.request("sleep", {"seconds": 0}, limit=LONG))


def test_what_is_not_needed_any_more_is_forgotten(team):
    with team.lock:
        (worker,) = team.available(1)
        assert tell(worker, 1)["known"] == [1]
        assert tell(worker, 2)["known"] == [1, 2]
    team.forget(worker, 1)
    with team.lock:
        assert available_again(team, 1) == [worker]
        assert tell(worker, 3)["known"] == [2, 3]


def test_thousands_of_things_can_be_forgotten(team):
    with team.lock:
        (worker,) = team.available(1)
        for key in range(1_000_000, 1_004_000):
            worker.forget(key)
        for _ in range(9):
            wait_for(worker, worker.request("sleep", {"seconds": 0}, limit=LONG))
        assert not worker.has_something_to_forget


# ---- trouble


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda worker: os.kill(worker.process.pid, signal.SIGKILL), "has ended (signal 9)"),
        (lambda worker: worker.request("end", {}, limit=LONG), "has ended (exit status 7)"),
        (
            lambda worker: worker.request("fail", {"a": 1}, limit=LONG),
            "has failed (ValueError: as told {'a': 1})",
        ),
    ],
    ids=["killed", "ended", "failed"],
)
def test_a_worker_that_is_lost_costs_one_line_and_is_replaced(team, caplog, what, words):
    with team.lock:
        (first,) = team.available(1)
        wait_for(first, first.request("sleep", {"seconds": 0}, limit=LONG))
        what(first)
        end = time.monotonic() + LONG
        while first.ended is None and time.monotonic() < end:
            first.request("sleep", {"seconds": 0}, limit=LONG) if first.idle else first.look(0.1)
        (second,) = available_again(team, 1)
        assert second is not first
        wait_for(second, second.request("sleep", {"seconds": 0}, limit=LONG))
    assert [record.getMessage() for record in caplog.records] == [
        f"a worker process {words}; its work is done here, and another one is started"
    ]


def available_again(team, number):
    """Ask until as many workers are ready."""
    end = time.monotonic() + LONG
    while None in (workers := team.available(number)) and time.monotonic() < end:
        time.sleep(0.01)
    return workers


def test_a_worker_that_does_not_answer_within_its_limit_is_replaced(team, caplog):
    with team.lock:
        (first,) = team.available(1)
        wait_for(first, first.request("sleep", {"seconds": 0}, limit=LONG))
        os.kill(first.process.pid, signal.SIGSTOP)
        first.request("sleep", {"seconds": 0}, limit=0.2)
        assert team.available(1) == [None]
        time.sleep(0.25)
        (second,) = available_again(team, 1)
    assert second is not first
    assert first.process.returncode == -signal.SIGKILL
    assert "has not answered for too long" in caplog.text
    assert len(caplog.records) == 1


def test_nobody_waits_longer_than_the_limit_of_a_request(team):
    with team.lock:
        (worker,) = team.available(1)
        os.kill(worker.process.pid, signal.SIGSTOP)
        worker.request("sleep", {"seconds": 0}, limit=0.1)
        worker.look(1000 * LONG)
    assert worker.ended == "has not answered for too long"


def test_nobody_waits_for_the_start_of_a_worker_that_replaces_another(team):
    with team.lock:
        (first,) = team.available(1)
        first.end("is ended by a test")
        first.done = 1
        began = time.perf_counter()
        assert team.available(1) == [None]
        assert time.perf_counter() - began < process.FIRST_WAIT / 4


def test_workers_that_are_never_ready_are_given_up(caplog, monkeypatch):
    monkeypatch.setattr(process, "PAUSE", 0.01)
    team = process.Team("tests.workers.servers:Broken", Small.describe)
    with team.lock:
        end = time.monotonic() + LONG
        while team._may_start and time.monotonic() < end:
            assert team.available(2) == [None] * 2
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == process.UNREADY
    assert lines[0].startswith("a worker process has failed (ImportError: no such library)")
    assert lines[-1].startswith(
        "working on one core: 3 worker processes in a row were never ready; the last one has failed"
    )
    assert team.available(2) == [None] * 2
    assert len(caplog.records) == process.UNREADY
    team.close()


def test_where_none_can_be_started_there_is_one_line(team, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with team.lock:
        assert team.available(2) == [None, None]
        assert team.available(2) == [None, None]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("working on one core: no worker process could be started (")


@pytest.mark.parametrize("fault", [("memfd_create", 24, "Too many open files"), ("ftruncate", 27, "File too large")])
def test_a_memory_without_a_descriptor_is_memory_all_the_same(monkeypatch, fault):
    """Too many files are open, or none may be so large (`ulimit -f`)."""
    name, *reason = fault

    def failing(*_):
        raise OSError(*reason)

    monkeypatch.setattr(os, name, failing, raising=False)
    memory = SharedMemory(100)
    assert not memory.shareable
    memory.mapping[:5] = b"hello"
    assert memory.mapping[:6] == b"hello\0"


# ---- the parent's code


def test_a_worker_that_would_not_compute_the_same_gets_no_request(caplog):
    team = process.Team("tests.workers.servers:Different", Small.describe)
    with team.lock:
        assert team.available(1) == [None]
        assert team.available(1) == [None]
    team.close()
    (record,) = caplog.records
    assert record.getMessage() == (
        "working on one core: a worker process would not compute the same (example: 2 there, 1 here)"
    )


@pytest.mark.parametrize("changed", ["workers/serve.py", "workers/channel.py"])
def test_a_file_that_has_changed_since_it_was_loaded_is_noticed(team, caplog, monkeypatch, changed):
    monkeypatch.setitem(identity.AT_IMPORT, changed, "of another version")
    with team.lock:
        assert team.available(1) == [None]
    assert f"({changed} has changed since it was loaded here)" in caplog.text


def test_a_file_that_no_worker_loads_may_change(team, monkeypatch):
    monkeypatch.setitem(identity.AT_IMPORT, "train.py", "of another version")
    with team.lock:
        assert team.available(1) != [None]


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
{paths}
import json, os
import numpy
from lstm_np.workers import process
from tests.workers.test_process import SMALL, Small, tell
{more}
team = process.Team(SMALL, Small.describe)
with team.lock:
    (worker,) = team.available(1)
    print(json.dumps(tell(worker)))
team.close()
"""


def misleading(folder):
    """A folder with another checkout of the engine, and files that are called as others of the standard library."""
    shutil.copytree(PACKAGE, folder / "lstm_np", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("random.py", "json.py", "socket.py", "numpy.py", "signal.py"):
        (folder / name).write_text("raise RuntimeError('a file of the user was imported')\n")
    return folder


@pytest.mark.parametrize(
    ("flags", "variable", "more"),
    [
        ([], False, ""),
        ([], False, "os.chdir('elsewhere')"),
        ([], False, "sys.path.insert(0, os.getcwd())"),
        (["-P"], False, ""),
        (["-I"], True, ""),
        (["-S"], False, ""),
        (["-E"], True, ""),
        (["-O"], False, ""),
    ],
    ids=str,
)
def test_a_worker_runs_the_parents_files(tmp_path, flags, variable, more):
    """Whatever the current folder and PYTHONPATH name, wherever the parent has gone to, however it was started."""
    if flags == ["-P"] and sys.version_info < (3, 11):
        pytest.skip("this Python has no -P")
    folder = misleading(tmp_path / "user")
    misleading(folder / "elsewhere")
    script = tmp_path / "script.py"
    site = str(Path(np.__file__).parents[1])
    paths = "".join(f"sys.path.append({path!r})\n" for path in {site, *map(str, map(Path, sys.path[1:]))} if path)
    script.write_text(SCRIPT.format(root=str(PACKAGE.parent), paths=paths, more=more))
    environment = {**os.environ, "PYTHONPATH": str(folder) if variable else ""}
    done = subprocess.run(
        [sys.executable, *flags, str(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["engine"] == str(PACKAGE / "workers/serve.py")
    assert told["numpy"] == np.__file__
    assert Path(told["random"]).parent == Path(os.__file__).parent
    assert told["optimize"] == len([flag for flag in flags if flag == "-O"])


# ---- signals and ends

PARENT = """if True:
    import os, sys
    from lstm_np.workers import process
    from tests.workers.test_process import SMALL, Small
    team = process.Team(SMALL, Small.describe)
    team.lock.acquire()
    workers = team.available(2)
    print(*[worker.process.pid for worker in workers], flush=True)
"""


def start_parent(code):
    return subprocess.Popen(
        [sys.executable, "-c", PARENT + code],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_left_to_the_parent(team, number):
    with team.lock:
        (worker,) = team.available(1)
        os.kill(worker.process.pid, number)
        time.sleep(0.05)
        wait_for(worker, worker.request("sleep", {"seconds": 0}, limit=LONG))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("end", ["", "    os.kill(os.getpid(), 9)\n", "    os._exit(0)\n", "    1 / 0\n"], ids=repr)
def test_workers_end_with_their_parent_however_it_ends(end):
    parent = start_parent(end)
    out, err = parent.communicate(timeout=LONG)
    pids = [int(word) for word in out.split()]
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)
    assert ("ZeroDivisionError" in err) == ("1 / 0" in end)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_worker_that_is_stopped_does_not_keep_its_parent_from_ending():
    parent = start_parent("    os.kill(workers[0].process.pid, 19)\n")
    out, err = parent.communicate(timeout=LONG)
    assert (parent.returncode, err) == (0, "")
    assert all(gone(int(pid)) for pid in out.split())


def test_workers_that_were_closed_start_again(team):
    with team.lock:
        first = team.available(2)
        team.close()
        assert [worker.process.returncode for worker in first] == [0, 0]
        second = team.available(2)
    assert None not in second
    assert not set(first) & set(second)


def test_one_that_is_of_no_use_again_and_again_is_started_less_often(team, monkeypatch, caplog):
    started, now = [], [0.0]
    monkeypatch.setattr(process.time, "monotonic", lambda: now[0])
    make = process.Worker.__init__
    monkeypatch.setattr(process.Worker, "__init__", lambda self, target: started.append(now[0]) or make(self, target))
    with team.lock:
        while len(started) < 7:
            for worker in team.available(1):
                if worker is not None:
                    worker.end("is ended by a test before it has done anything")
            now[0] += 0.1
            if team._workers and team._workers[0].ended is None:
                team._workers[0].look(LONG)
    pauses = [late - early for early, late in itertools.pairwise(started)]
    assert all(0.9 * 2**n <= pause / process.PAUSE <= 1.5 * 2**n for n, pause in enumerate(pauses))
