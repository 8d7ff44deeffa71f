"""What all tests share; `python -m pytest -m quick` imports only files with quick tests, and needs few processes."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from lstm_np.backends.cores import usable_cores
from tests.terminal import take_signals


def pytest_configure() -> None:
    """Signals as a terminal's programs have them, and modules compiled once: the tests start hundreds of processes."""
    take_signals()
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # OpenBLAS' idle threads sleep, and leave the cores to others
    gc.disable()  # until all is collected: nothing that is made until then is garbage


def pytest_collection_finish() -> None:
    """Thousands of tests and all modules stay to the end: the garbage collector need not visit them each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _only_quick(config: pytest.Config) -> bool:
    return config.getoption("markexpr", "") == "quick"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a file without the mark, unimported."""
    if _only_quick(config) and collection_path.name.startswith("test_") and collection_path.suffix == ".py":
        return "mark.quick" not in collection_path.read_text(encoding="utf-8") or None
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One process more than cores, since many tests wait; few for quick tests, since each imports for a second."""
    return 2 if _only_quick(config) else usable_cores().number + 1
