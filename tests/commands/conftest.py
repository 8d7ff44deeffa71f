"""Commands in this process and in others, and a small data set in MNIST's files."""

from __future__ import annotations

import gzip
import importlib
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import lstm_np
from lstm_np.training import curves as curve_pictures

ROOT = Path(lstm_np.__file__).parents[1]
UNDRAWN = f"{Path(__file__).parent / 'undrawn'}{os.pathsep}{ROOT}"  # as PYTHONPATH: a command that draws no curves


class Result(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _one_core():
    """Models as small as these lose more to threads than they gain, above all where other work goes on."""
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Every test in an empty folder, and with no data set but the one it names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LSTM_NP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _curves_are_drawn_only_where_asked_for(request, monkeypatch):
    """Drawing takes longer than the small trainings of these tests."""
    if "curves" not in request.fixturenames:
        monkeypatch.setattr(curve_pictures, "draw_curves", lambda *_: b"")


@pytest.fixture
def curves():
    """Draw them in this test."""


@pytest.fixture
def broken(monkeypatch):
    """broken("PIL.Image", ...): modules that are installed and fail to be imported, as those of another NumPy do."""

    def call(*names: str) -> None:
        import_module = importlib.import_module

        def importing(name: str, package: str | None = None):
            if name in names:
                raise ValueError("it is of\nanother NumPy")
            return import_module(name, package)

        monkeypatch.setattr("lstm_np.extras.importlib.import_module", importing)

    return call


@pytest.fixture
def invoke(capsys):
    """Run a command in this process: invoke("train", "--epochs", 1) -> Result."""

    def call(name: str, *arguments: object) -> Result:
        module = importlib.import_module(f"lstm_np.{name}")
        main = importlib.import_module(
            f"lstm_np.{name}.__main__" if hasattr(module, "__path__") else module.__name__
        ).main
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        return Result(status, *capsys.readouterr())

    return call


@pytest.fixture
def start(request):
    """Start a command in a process of its own, which draws curves only where asked for; it is ended with the test."""
    started, path = [], str(ROOT) if "curves" in request.fixturenames else UNDRAWN

    def call(name: str, *arguments: object, **options: object) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
        command = [sys.executable, "-m", f"lstm_np.{name}", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **{**pipes, **options}))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


def idx(array: np.ndarray) -> bytes:
    """An IDX file of uint8."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path):
    """A folder with 60 + 20 images under MNIST's names, each class a bright row of its own."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("train", 60), ("t10k", 20)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 40, (count, 28, 28))
        images[np.arange(count), 2 * labels + 4] += 200
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a run on the digits, trained well enough to recognise most of them."""
    from lstm_np.train import main

    folder = tmp_path_factory.mktemp("trained") / "run"
    arguments = "--dataset digits --epochs 12 --batch-size 32 --hidden-size 48 --learning-rate 0.01 --validation 200"
    assert main([*arguments.split(), "--threads", "1", "--quiet", "--out", str(folder)]) == 0
    return folder
