"""The notebooks under docs/ run as they stand, and print what is stored in them but for numbers."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

import lstm_np

nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
FOLDER = Path(lstm_np.__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def seen(book: Any) -> list[tuple[str, list[list[str]]]]:
    """What each cell of code gives: printed words without their numbers, and the kinds of everything else."""
    found = []
    for cell in book.cells:
        if cell["cell_type"] == "code":
            printed = "".join(out["text"] for out in cell["outputs"] if out["output_type"] == "stream")
            kinds = [sorted(out["data"]) for out in cell["outputs"] if "data" in out]
            found.append((re.sub(r"\d\S*", "#", printed), kinds))
    return found


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["gates", "gradients"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_what_is_stored(path, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    stored = nbformat.read(path, as_version=4)
    book = nbformat.read(path, as_version=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's own parts
        nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
    assert seen(book) == seen(stored)
    assert any("image/png" in kind for _, kinds in seen(stored) for kind in kinds)
    assert path.stat().st_size < 600_000
