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
from lstm_np.data import digits
from tests.commands.conftest import UNDRAWN
from tests.commands.test_processes import LONG, wait_for_epoch

SHORT = ("--dataset", "digits", "--limit-train", 200, "--hidden-size", 16, "--epochs", 2, "--out", "run")
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
    assert err.endswith("python -m lstm_np.train --resume run\n")
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
@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "gradcheck", "recipes", "data"])
def test_help_that_cannot_be_printed_is_one_line(start, name):
    with FULL.open("w") as full:
        process = start(name, "--help", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == f"{name}: standard output: No space left on device; the result could not be printed\n"


def test_help_into_a_closed_pipe_is_quiet(start):
    process = start("train", "--help")
    process.stdout.close()
    assert process.wait(timeout=30) in (0, 141)  # the text may have been taken by the pipe before
    assert process.stderr.read() == ""


@needs_full
def test_notes_that_cannot_be_written_stop_nothing(start, trained, mnist):
    with FULL.open("w") as full:
        process = start("train", "--data-dir", mnist, "--epochs", 1, "--hidden-size", 4, "--out", "run", stderr=full)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "test    accuracy" in out
        process = start("evaluate", "run", "--data-dir", mnist, stderr=full)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "accuracy" in out
        flags = ("--seeds", 1, "--max-steps", 1, "--data-dir", mnist)
        process = start("recipes", "compare", "mnist-lstm128", *flags, stderr=full)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "mnist-lstm128" in out


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
    command = f"{sys.executable} -m lstm_np.train {' '.join(map(str, SHORT))} {closed}"
    environment = {**os.environ, "PYTHONPATH": UNDRAWN}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (b"test    accuracy" in done.stdout) == (closed in ("2>&-", "<&-"))
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
        "evaluate: run: this run did not end, so it has no weights.safetensors; --best takes its best.safetensors, "
        "python -m lstm_np.train --resume run goes on with it\n"
    )
    assert invoke("evaluate", "run", "--best").status == 0
    Path("runs").mkdir()
    Path("run").rename("runs/it")
    result = invoke("evaluate")
    assert (result.status, result.err) == (
        2,
        "evaluate: no run under runs/ has ended; --best takes runs/it/best.safetensors, "
        "python -m lstm_np.train --resume goes on with the newest\n",
    )  # fmt: skip
    assert invoke("evaluate", "--best").status == 0


@pytest.mark.parametrize("command", [("evaluate",), ("predict", "--index", 0), ("evaluate", "--json")])
def test_a_picture_that_cannot_be_written_comes_after_the_result(invoke, trained, command, tmp_path):
    name, *flags = command
    plain = invoke(name, trained, *flags)
    result = invoke(name, trained, *flags, "--picture", "nowhere/c.png")
    line = "nowhere/c.png: cannot be written (No such file or directory); name another file with --picture"
    assert (result.status, result.err) == (2, f"{name}: {line}\n")
    assert result.out.splitlines()[-1][:40] == plain.out.splitlines()[-1][:40]


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_a_picture_is_asked_for_where_there_is_no_matplotlib(invoke, trained, broken, monkeypatch, name):
    """It is found before the work: nothing is measured."""
    flags = ("--index", 0) if name == "predict" else ()
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "matplotlib.figure", raising=False)
        patch.setitem(sys.modules, "matplotlib", None)
        result = invoke(name, trained, *flags, "--picture", "c.png")
    line = f'{name}: pictures need matplotlib, which is not installed: pip install "lstm_np[plot]"\n'
    assert result == (2, "", line)
    broken("matplotlib.figure")
    result = invoke(name, trained, *flags, "--picture", "c.png")
    assert (result.status, result.out) == (2, "")
    assert "which is installed but cannot be imported (it is of another NumPy); repair it: pip install" in result.err
    assert result.err.count("\n") == 1


def test_packages_that_cannot_be_imported_are_one_line(invoke, trained, broken, tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "_from_file", lambda: None)
    (tmp_path / "image.png").write_bytes(b"")
    broken("PIL.Image", "sklearn.datasets", "tensorboardX")
    for command, package in (
        (("predict", trained, "--image", "image.png"), "Pillow"),
        (("train", "--dataset", "digits"), "scikit-learn"),
        (("train", "--log", "tensorboard"), "tensorboardX"),
    ):
        result = invoke(*command)
        assert (result.status, result.out) == (2, "")
        assert f"need {package}, which is installed but cannot be imported (it is of another NumPy)" in result.err
        assert result.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@needs_full
def test_event_files_on_a_full_disk_do_not_stop_the_run(start, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", reason='tensorboardX is not installed: pip install "lstm_np[tensorboard]"')
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins\n"
        "open_file = builtins.open\n"
        "def full(path, *more, **options):\n"
        "    return open_file('/dev/full' if 'tfevents' in str(path) else path, *more, **options)\n"
        "builtins.open = full\n"
    )
    root = str(lstm_np.__file__).rsplit("/", 2)[0]
    process = start("train", *SHORT, "--log", "tensorboard", env={"PYTHONPATH": f"{tmp_path}:{root}"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    (line,) = err.splitlines()
    assert line == ("train: the event files cannot be written (No space left on device); the run goes on without them")
    assert "test    accuracy" in out
    assert epochs_of() == 2


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


@pytest.mark.parametrize("package", ["rich", "safetensors", "numpy"])
def test_a_package_that_cannot_be_imported_is_found_before_the_work(start, tmp_path, package):
    (tmp_path / f"{package}.py").write_text("raise ValueError('made for\\nanother Python')\n")
    root = str(lstm_np.__file__).rsplit("/", 2)[0]
    process = start("train", *SHORT, env={"PYTHONPATH": f"{tmp_path}:{root}"})
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert err == (
        f"train: needs {package}, which is installed but cannot be imported (made for another Python); "
        f"repair it: pip install --force-reinstall {package}\n"
    )


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


@pytest.mark.parametrize("module", ["importlib.metadata", "numpy", "lstm_np.model"])
def test_ctrl_c_during_the_imports_is_silent(start, tmp_path, module):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}:\n"
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
