"""Commands as processes: signals, pipes, terminals that can show little, and the first line of the README."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lstm_np

# with validation images the test images are looked at only at the end, which an interrupted run never comes to
LONG = ("--dataset", "digits", "--validation", 100, "--hidden-size", 16, "--epochs", 1_000_000, "--out", "run")


def wait_for_epoch(process):
    """Read a command's lines until its first epoch is over."""
    for line in process.stdout:
        if line.strip().startswith("1/"):
            return
    pytest.fail(f"no epoch: {process.stderr.read()}")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_training_with_everything_saved(start, number, status):
    process = start("train", *LONG)
    wait_for_epoch(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == status
    line, command = err.splitlines()
    assert line.startswith("train: interrupted after ")
    assert line.endswith(" steps; to go on from there:")
    assert command == "python -m lstm_np.train --resume run"
    steps = int(line.split()[3].replace(",", ""))
    model = lstm_np.SequenceClassifier.load("run/weights.safetensors")
    assert model.notes["steps"] == steps
    with open("run/metrics.jsonl") as file:
        records = [json.loads(record) for record in file]
    assert records[-1]["steps"] == steps
    assert len(records) == model.notes["epoch"]
    assert "test    accuracy" not in out


def test_a_signal_to_the_whole_group_of_processes_ends_training_with_everything_saved(start):
    """As systemd and Slurm send it: the workers get it too."""
    flags = ("--hidden-size", 128, "--batch-size", 128, "--threads", min(2, os.cpu_count() or 1))
    environment = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    process = start("train", *LONG, *flags, start_new_session=True, env=environment)
    wait_for_epoch(process)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 143
    line, command = err.splitlines()
    assert line.startswith("train: interrupted after ")
    assert command == "python -m lstm_np.train --resume run"
    assert lstm_np.SequenceClassifier.load("run/weights.safetensors").notes["epoch"] >= 1


def test_a_signal_while_the_result_is_asked_for_as_json(start):
    process = start("train", *LONG, "--json", stderr=subprocess.STDOUT)
    wait_for_epoch(process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    summary = next(json.loads(line) for line in out.splitlines() if line.startswith("{"))
    assert summary["interrupted"] == signal.SIGINT
    assert summary["test_accuracy"] is None
    assert summary["test_images"] == 0


def test_a_signal_before_training(start, tmp_path):
    """A named pipe in the place of a data file is refused, so reading is made slow by a module that waits."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'sklearn':\n"
        "            print('loading', flush=True)\n"
        "            time.sleep(30)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    root = str(lstm_np.__file__).rsplit("/", 2)[0]
    process = start("train", *LONG, env={"PYTHONPATH": f"{tmp_path}:{root}"})
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 143
    assert err == "train: interrupted\n"
    assert not (tmp_path / "run").exists()


def test_a_second_signal_stops_at_once(start, tmp_path):
    """Saving is made to hang; the second signal still ends the process."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "fsync = os.fsync\n"
        "def slow(handle):\n"
        "    if os.readlink(f'/proc/self/fd/{handle}').rpartition('/')[2].startswith('.weights'):\n"
        "        print('saving', flush=True)\n"
        "        time.sleep(30)\n"
        "    fsync(handle)\n"
        "os.fsync = slow\n"
    )
    root = str(lstm_np.__file__).rsplit("/", 2)[0]
    process = start("train", *LONG, env={"PYTHONPATH": f"{tmp_path}:{root}"})
    wait_for_epoch(process)
    process.send_signal(signal.SIGINT)
    assert any(line == "saving\n" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    (line,) = err.splitlines()
    assert re.fullmatch(
        r"train: interrupted: at once; to go on from step \d+: python -m lstm_np\.train --resume run", line
    )
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert "weights.safetensors" not in files
    assert not any(name.endswith(".part") for name in files)
    assert lstm_np.SequenceClassifier.load("run/best.safetensors").notes["epoch"] >= 1


def test_training_outlives_the_reader_of_its_lines(start, curves):
    process = start("train", "--dataset", "digits", "--hidden-size", 16, "--epochs", 3, "--out", "run")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == ""
    assert lstm_np.SequenceClassifier.load("run/weights.safetensors").notes["epoch"] == 3
    assert Path("run/curves.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_into_a_closed_pipe_is_quiet(start, trained):
    process = start("evaluate", trained)
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr.read() == ""


def test_a_terminal_that_knows_ascii_only(start, trained):
    process = start("predict", trained, "--index", 0, env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out.isascii()
    assert "####" in out
    assert "@" in out


def test_nothing_but_its_own_packages_is_imported_to_show_help():
    """A command answers at once: neither matplotlib nor scikit-learn nor Pillow is loaded before it is needed."""
    code = (
        "import sys, lstm_np.train, lstm_np.evaluate, lstm_np.predict, lstm_np.gradcheck.__main__, lstm_np.__main__\n"
        "assert {'train', 'data', 'text'} <= dict(lstm_np.__main__.commands()).keys()\n"
        "print([name for name in ('matplotlib', 'sklearn', 'PIL', 'cupy', 'torch') if name in sys.modules])"
    )
    root = str(lstm_np.__file__).rsplit("/", 2)[0]
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": root}, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
