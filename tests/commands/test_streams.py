"""Commands whose output cannot be written, or which miss a package: what is seen may fail, the work may not."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lstm_np
from tests.commands.test_processes import LONG, wait_for_epoch

SHORT = ("--dataset", "digits", "--hidden-size", 16, "--epochs", 2, "--out", "run")
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")


def epochs_of(path="run/weights.safetensors"):
    return lstm_np.SequenceClassifier.load(path).notes["epoch"]


def test_a_closed_terminal_ends_training_with_everything_saved(start):
    process = start("train", *LONG)
    wait_for_epoch(process)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGHUP
    assert "weights and metrics are in run" in err
    assert epochs_of() >= 1


def test_under_nohup_a_closed_terminal_ends_nothing(start):
    process = start("train", *SHORT, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 0
    assert epochs_of() == 2


@needs_full
def test_a_full_disk_behind_the_lines_of_a_run(start):
    with FULL.open("w") as full:
        process = start("train", *SHORT, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    (line,) = err.splitlines()
    assert (
        line == "train: the lines about this run cannot be written (No space left on device); it goes on without them"
    )
    assert epochs_of() == 2


@needs_full
@pytest.mark.parametrize("flag", [(), ("--json",)])
def test_a_result_that_cannot_be_printed_is_an_error(start, trained, flag):
    with FULL.open("w") as full:
        process = start("evaluate", trained, *flag, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "evaluate: standard output: No space left on device; the result could not be printed\n"


@needs_full
def test_json_that_cannot_be_printed_loses_no_run(start):
    with FULL.open("w") as full:
        process = start("train", *SHORT, "--json", "--quiet", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "train: standard output: No space left on device; the result could not be printed\n"
    assert epochs_of() == 2


def test_a_terminal_that_is_gone(start):
    """Reads and writes of a terminal whose other end was closed fail with EIO."""
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm", "COLUMNS": "80"}
    process = start("train", *LONG[:-4], "--epochs", 3, "--out", "run", stdout=theirs, env=environment)
    os.close(theirs)
    assert os.read(ours, 10)
    os.close(ours)
    assert process.wait(timeout=60) == 0
    (line,) = process.stderr.read().splitlines()
    assert "cannot be written" in line
    assert epochs_of() == 3


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams(closed):
    root = str(lstm_np.__file__).rsplit("/", 2)[0]
    command = f"{sys.executable} -m lstm_np.train {' '.join(map(str, SHORT))} --quiet {closed}"
    done = subprocess.run(command, shell=True, env={**os.environ, "PYTHONPATH": root}, timeout=60)
    assert done.returncode == 0
    assert epochs_of() == 2
    for path in Path("run").rglob("*"):  # no descriptor of a closed stream became a file of the run
        assert path.suffix != ".json" or json.loads(path.read_text())


def test_a_run_that_was_killed_can_be_looked_at(start, invoke):
    process = start("train", *LONG)
    wait_for_epoch(process)
    process.kill()
    process.wait()
    result = invoke("evaluate", "run")
    assert result.status == 2
    assert result.err == (
        "evaluate: run: this run did not end, so it has no weights.safetensors; --best takes its best.safetensors\n"
    )
    assert invoke("evaluate", "run", "--best").status == 0


def test_a_traceback_for_those_who_ask(invoke, monkeypatch):
    assert "Traceback" not in invoke("evaluate", "nowhere").err
    monkeypatch.setenv("LSTM_NP_DEBUG", "1")
    result = invoke("evaluate", "nowhere")
    assert result.status == 2
    assert result.err.startswith("Traceback")
    assert result.err.splitlines()[-1] == "evaluate: nowhere: no such run folder or weights file"


def without(tmp_path, *packages):
    """An environment in which these packages are not found."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name.partition('.')[0] in {packages!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: "
        f"None if name.partition('.')[0] in {packages!r} else find(name, package)\n"
    )
    root = str(lstm_np.__file__).rsplit("/", 2)[0]
    return {"PYTHONPATH": f"{tmp_path}:{root}"}


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "gradcheck", "recipes"])
def test_a_command_without_its_packages_is_one_line(start, tmp_path, name):
    process = start(name, env=without(tmp_path, "rich", "threadpoolctl"))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert err == f"{name}: needs rich and threadpoolctl: pip install rich threadpoolctl\n"


def test_the_engine_computes_with_numpy_alone(tmp_path):
    code = (
        "import lstm_np, numpy as np\n"
        "model = lstm_np.SequenceClassifier(3, 4, 2)\n"
        "model.fit(np.ones((4, 5, 3)), [0, 1, 0, 1], epochs=1)\n"
        "try:\n"
        "    model.save('x.safetensors')\n"
        "except lstm_np.LstmNpError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, **without(tmp_path, "rich", "threadpoolctl", "safetensors", "matplotlib", "sklearn")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "weights files need safetensors, which is not installed: pip install safetensors\n", (
        done.stderr
    )


def test_ctrl_c_during_the_imports_is_silent(start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'lstm_np.model':\n"
        "            print('importing', flush=True)\n"
        "            time.sleep(30)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    root = str(lstm_np.__file__).rsplit("/", 2)[0]
    process = start("train", *LONG, env={"PYTHONPATH": f"{tmp_path}:{root}"})
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT  # what a shell shows as 130
    assert err == ""
