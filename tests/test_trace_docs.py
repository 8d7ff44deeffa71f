"""docs/see-inside.md: its programs run as printed, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import lstm_np

DOCUMENT = Path(lstm_np.__file__).parents[1] / "docs" / "see-inside.md"


def test_the_programs_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    names: dict = {}
    for block in blocks:
        exec(compile(block, DOCUMENT.name, "exec"), names)
    assert "lstm, 1 layer of 128 units" in capsys.readouterr().out
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["flow.png", "gates.png", "pass.npz", "pass.safetensors", "saturation.png"]
    assert (names["held"].gate("f")[:, 14:, [3, 17]] == 1).all()


def test_every_method_that_it_names_exists():
    for name in re.findall(r"trace\.(\w+)", DOCUMENT.read_text(encoding="utf-8")):
        assert hasattr(lstm_np.Trace, name), name
