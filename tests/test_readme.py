"""What the README shows as Python is what runs, or what stands in the file that it quotes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lstm_np

ROOT = Path(lstm_np.__file__).parents[1]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize("code", [block for block in BLOCKS if "import lstm_np" in block])
def test_a_program_runs_as_printed(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "digits.safetensors").exists()
    assert (tmp_path / "history.png").exists()


@pytest.mark.parametrize("code", [block for block in BLOCKS if "import lstm_np" not in block])
def test_a_quotation_stands_in_the_gate_math(code):
    source = (ROOT / "lstm_np" / "cells" / "lstm.py").read_text(encoding="utf-8")
    for line in code.splitlines():
        assert line.strip() in source, line


def test_there_is_one_of_each():
    assert sorted("import lstm_np" in block for block in BLOCKS) == [False, True]
