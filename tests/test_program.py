"""docs/program.py, a user's program: it runs, as a program and in a notebook, and mypy --strict finds nothing in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lstm_np

ROOT = Path(lstm_np.__file__).parents[1]
PROGRAM = ROOT / "docs" / "program.py"
PRINTS = [r"\d\d\.\d% right after 300 steps", "True True", "True", "True"]


def assert_printed(text):
    lines = text.splitlines()
    assert len(lines) == len(PRINTS), text
    for line, pattern in zip(lines, PRINTS, strict=True):
        assert re.fullmatch(pattern, line), line
    assert float(lines[0].split("%")[0]) > 90


def test_it_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert_printed(done.stdout)


def test_strict_types(request, tmp_path):
    """Every name of ours that it uses has a type; errors within lstm_np do not show, as for an installed package."""
    pytest.importorskip("mypy")
    cache = request.config.cache.mkdir("mypy-strict")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent"]
    command += ["--cache-dir", cache, PROGRAM]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "Success: no issues found in 1 source file"), done


def test_it_runs_in_a_notebook(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = re.split(r"^# %% ", PROGRAM.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"# {cell}".strip()) for cell in cells])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute(cwd=str(tmp_path), env=environment)
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    tables = [output.data["text/html"] for output in outputs if output.output_type == "execute_result"]
    assert_printed("\n".join(line for line in printed.splitlines() if not line.startswith((" ", "epoch"))))
    assert "LSTM(3, 8, num_layers=2, bidirectional=True)" in tables[0]
    assert tables[1].count("<tr>") == 21
    assert sum(line.startswith(" ") for line in printed.splitlines()) >= 20  # `fit` shows its epochs there
