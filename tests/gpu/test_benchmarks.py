"""The GPU run itself, on the stand-in: every part, from the command to the file."""

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import results
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import clock, machine_code, nvrtc, race, sanitizer
from benchmarks.gpu.clock import ClockLog
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.sizes import FULL
from benchmarks.processes import ROOT, ContestantError, Racer, family, python_path
from benchmarks.race import Pace
from benchmarks.workloads import Case
from tests.gpu.support import needs_compiler

AS_CUPY = Path(__file__).parent / "as_cupy"
SANITIZER = """#!/bin/sh
tool=$2
while [ "$1" != "%s" ]; do shift; done
[ $tool != memcheck ] || "$@" && echo "========= ERROR SUMMARY: 0 errors"
"""  # the steps are made once, which is enough here


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """`import cupy` gives the stand-in, here and in processes; results go nowhere near the repository's."""
    monkeypatch.delitem(sys.modules, "cupy", raising=False)  # the real one, where another test has imported it
    monkeypatch.syspath_prepend(str(AS_CUPY))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(AS_CUPY), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(results, "FOLDER", tmp_path / "repository")
    monkeypatch.delenv("LSTM_NP_DATA", raising=False)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "compute-sanitizer").write_text(SANITIZER % sys.executable)
    (tools / "compute-sanitizer").chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tools), os.environ["PATH"]]))
    yield
    sys.modules.pop("cupy", None)


@needs_compiler
def test_the_whole_run(stand_in, tmp_path, capsys, monkeypatch):
    for name in PARTS:  # the CPU is slower
        monkeypatch.setitem(PARTS, name, 300)
    assert command.main(["--small", "--out", str(tmp_path / "out")]) == 0
    document = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert document == json.loads((tmp_path / "repository" / "gpu.json").read_text())
    assert list(document["parts"]) == list(PARTS)
    found = document["parts"]
    assert list(found) == list(PARTS)
    assert {part["status"] for part in found.values()} == {"done"}
    for name, part in found.items():
        assert part["records"], name
        assert all(record.get("ok", True) for record in part["records"]), name
    assert [record["tool"] for record in found["sanitizer"]["records"]] == list(sanitizer.TOOLS)
    assert {record["errors"] for record in found["sanitizer"]["records"]} == {0}
    stages = [record["stage"] for record in found["launches"]["records"]]
    assert stages[:4] == ["gather", "W x", "forward", "read-out and loss"]
    assert stages[-1] == "whole step"
    (case,) = (record["case"] for record in found["race"]["records"] if "case" in record)
    assert case["results"]["images-reference"]["ratio"]["median"] > 0
    missing = {record["contestant"] for record in found["race"]["records"] if "missing" in record}
    assert missing == {"gpu-torch-graph"}  # a CPU's PyTorch finds no device
    said = capsys.readouterr().out
    assert "stand-in" in said
    assert "geometric mean" in said
    assert "planned" in said


@needs_compiler
def test_each_record_is_written_when_it_comes(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "BETWEEN_WRITES", 0.0)
    seen = []
    write = results.write

    def spy(document, folder):
        path = write(document, folder)
        if folder is not None:
            part = json.loads(path.read_text())["parts"].get("latencies", {})
            seen.append((part.get("status"), len(part.get("records", []))))
        return path

    monkeypatch.setattr(results, "write", spy)
    assert command.main(["--small", "--parts", "latencies", "--out", str(tmp_path / "out")]) == 0
    assert seen[:4] == [(None, 0), ("running", 1), ("running", 2), ("running", 3)]
    assert seen[-1] == ("done", 12)


@needs_compiler
def test_a_folder_that_cannot_be_written(stand_in, tmp_path, monkeypatch, capsys):
    """A read-only checkout costs nothing where --out is given; without any folder nothing is measured."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(results, "FOLDER", tmp_path / "file")
    assert command.main(["--small", "--parts", "latencies", "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "gpu.json").read_text())["parts"]["latencies"]["status"] == "done"
    assert capsys.readouterr().err.startswith(f"benchmarks.gpu: only {tmp_path}/out is written (")
    for argv in (["--parts", "latencies"], ["--parts", "latencies", "--out", str(tmp_path / "file")]):
        assert command.main(argv) == 2
        told = capsys.readouterr()
        assert (told.err.count("\n"), told.out) == (1, "")


def test_two_minutes_reach_the_microseconds_of_each_launch():
    names = list(PARTS)
    assert sum(PARTS[name] for name in names[: names.index("launches") + 1]) <= 120
    main = (FULL.shapes[0][1:3], FULL.curves[0][1:], FULL.steps[0][1:], FULL.variants[0][1:3])
    assert {*main, (FULL.race[0].H, FULL.race[0].T)} == {(128, 28)}, "of each part what says most comes first"
    assert {H % 4 for _, H, _, _ in FULL.shapes} >= {0, 2}
    assert [H for _, H, _ in FULL.steps] == [128, 64, 256, 512, 1024]


def runs(pid):
    """Whether a process is there and not only waits to be forgotten."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_compiler
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not list processes in /proc")
def test_a_run_that_is_ended_says_what_it_has(stand_in, tmp_path):
    """SIGTERM: the part's process ends too, and the file and the table are there."""
    arguments = ["--parts", "race,rest", "--out", str(tmp_path)]
    code = (
        "import sys; from pathlib import Path; from benchmarks import results\n"
        "from benchmarks.gpu.__main__ import main\n"
        f"results.FOLDER = Path({str(tmp_path / 'repository')!r}); sys.exit(main(sys.argv[1:]))"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": python_path()},
    )  # fmt: skip
    ends, children = time.monotonic() + 60, []
    while not children:
        assert run.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.1)
        children = [pid for pid in family(run.pid)[1:] if b"--part" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    time.sleep(0.2)  # until the run knows its part's process
    run.terminate()
    said, _ = run.communicate(timeout=30)
    assert run.returncode == 143
    assert "race: running" in said
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"]["race"]["status"] == "running"
    assert not [pid for pid in children if runs(pid)]


def test_out_of_time(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "LEAST", 10**6)
    assert command.main(["--small", "--parts", "race", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"]["race"]["status"] == "out of time"


# ---- contestants


class Slow:
    """A contestant that answers after a while, or not at all."""

    def __init__(self, name, threads, *, gpu, patience):
        self.name, self.alive, self.told, self.closed = name, True, 0.0, False
        Slow.made.append(self)

    def tell(self, do):
        self.told = time.monotonic()

    def answer(self, do, timeout):
        if "hangs" in self.name:
            self.alive = False
            raise ContestantError(f"{self.name}: no answer to {do} within {timeout:.0f} s; ended")
        return {"versions": {}}

    def close(self):
        self.closed = True


def test_contestants_start_together_and_a_hanging_one_is_dropped(monkeypatch):
    Slow.made = []
    monkeypatch.setattr(race, "Racer", Slow)
    asked = []

    def one_case(case, ours, peers, pace):
        asked.append([peer.name for peer in peers])
        if len(asked) == 1:
            peers[0].default.alive = False
            raise ContestantError("late: no answer to time within 60 s; ended")
        return {"results": {}}

    monkeypatch.setattr(race, "race_case", one_case)
    cases = [Case("train", 1, 1), Case("train", 2, 2)]
    records = list(race.race(100.0, cases, ("hangs", "late", "good"), Pace()))
    told = [racer.told for racer in Slow.made]
    assert max(told) - min(told) < 0.5
    assert [record["contestant"] for record in records[:4]] == ["gpu-ours", "hangs", "late", "good"]
    assert "no answer to describe within" in records[1]["missing"]
    assert asked == [["late", "good"], ["good"], ["good"]]  # the first case once more, without the one that hung
    assert [("case" in record) for record in records[4:]] == [False, True, True]
    assert all(racer.closed for racer in Slow.made)


def test_a_peer_that_fails_is_left_out_of_that_case_alone(monkeypatch):
    Slow.made, asked = [], []
    monkeypatch.setattr(race, "Racer", Slow)

    def one_case(case, ours, peers, pace):
        asked.append([peer.name for peer in peers])
        if len(asked) == 1:
            raise ContestantError("large: time: OutOfMemoryError: it needs more")
        return {"results": {}}

    monkeypatch.setattr(race, "race_case", one_case)
    cases = [Case("train", 1, 1), Case("train", 2, 2)]
    records = list(race.race(100.0, cases, ("large", "good"), Pace()))
    assert asked == [["large", "good"], ["good"], ["large", "good"]]
    assert records[3] == {"left_out": "train B=1 H=1 T=28", "reason": "large: time: OutOfMemoryError: it needs more"}


def test_a_slot_holds_as_many_fast_steps_as_its_time_takes():
    assert FULL.pace.steps(1e-4) == (2000, 250)
    assert (FULL.pace.slot, FULL.pace.rounds) == (0.2, 5)


def test_without_ourselves_there_is_no_race(monkeypatch):
    Slow.made = []
    monkeypatch.setattr(
        race, "Racer", lambda name, *a, **k: Slow(f"{name} hangs" if name == "gpu-ours" else name, *a, **k)
    )
    records = list(race.race(100.0, [Case("train", 1, 1)], ("good",), Pace()))
    assert len(records) == 2


def test_a_racer_is_as_patient_as_it_was_told():
    with Racer("reference", 1, patience=0.01) as racer, pytest.raises(ContestantError, match="within 0 s; ended"):
        racer.ask("describe")


def test_no_time_left_is_said_of_each_case(monkeypatch):
    Slow.made = []
    monkeypatch.setattr(race, "Racer", Slow)
    records = list(race.race(0.0, [Case("train", 1, 1)], (), Pace()))
    assert records[-1] == {"left_out": "train B=1 H=1 T=28", "reason": "no time left"}


# ---- the clock, the sanitizer, the table


def test_the_clock_is_read_all_the_time(monkeypatch):
    monkeypatch.setattr(clock, "EVERY", 0.005)
    given = iter([1200, None, *[1980] * 10_000])
    log = ClockLog(lambda: next(given))
    time.sleep(0.2)
    log.close()
    found = log.since_last()
    assert (found["least"], found["median"], found["most"]) == (1200, 1980, 1980)
    log._thread.join()
    log._samples.clear()
    assert log.since_last() is None


def test_the_clock_comes_from_the_driver(monkeypatch):
    def clock_of(device, kind, out):
        assert kind == clock.SM
        out._obj.value = 1755
        return 0

    library = SimpleNamespace(
        nvmlInit_v2=lambda: 0, nvmlDeviceGetHandleByIndex_v2=lambda index, out: index, nvmlDeviceGetClockInfo=clock_of
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc")
    assert clock._read_by_nvml()() == 1755
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(OSError, match="cannot be used"):
        clock._read_by_nvml()


def test_without_a_driver_there_is_no_clock():
    log = ClockLog()
    assert log.since_last() is None
    log.close()


def test_a_sanitizer_that_finds_something_is_quoted(monkeypatch, tmp_path):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text("#!/bin/sh\necho '========= Invalid __global__ read of size 4'\n"
                    "echo '========= ERROR SUMMARY: 2 errors'\nexit 9\n")  # fmt: skip
    tool.chmod(0o755)
    monkeypatch.setattr(sanitizer, "find", lambda: str(tool))
    record = next(sanitizer.runs(60.0))
    assert (record["tool"], record["errors"], record["ok"]) == ("memcheck", 2, False)
    assert "Invalid __global__ read" in record["said"][0]
    assert list(sanitizer.runs(1.0)) == [{"tool": tool, "skipped": "no time left"} for tool in sanitizer.TOOLS]
    tool.write_text("#!/bin/sh\nsleep 30\n")
    monkeypatch.setattr(sanitizer, "LIMIT", 0.2)
    assert sanitizer._run([str(tool)], 0.2) == {"skipped": "not over within 0 s"}


def test_without_a_sanitizer_it_is_said(monkeypatch):
    monkeypatch.setattr(sanitizer, "find", lambda: None)
    (record,) = sanitizer.runs(60.0)
    assert "not installed" in record["skipped"]


def test_the_table_of_the_machine_code_needs_its_tools(monkeypatch, capsys):
    monkeypatch.setattr(nvrtc, "disassembler", lambda: None)
    assert machine_code.main() == 2
    assert capsys.readouterr().err.count("\n") == 1
