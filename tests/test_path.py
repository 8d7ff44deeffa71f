"""docs/architecture.md says through which functions a batch goes; one training step under a profiler says it too."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import lstm_np
from lstm_np.data import load_dataset
from lstm_np.train import main
from lstm_np.training import curves

PACKAGE = Path(lstm_np.__file__).parent
DOCUMENT = PACKAGE.parent / "docs" / "architecture.md"
GATE_MATH = {
    "reference": (("cells/lstm.py", "forward"), ("cells/lstm.py", "backward")),
    "fused": (("kernels/cpu/lstm.py", "Passes.forward"), ("kernels/cpu/lstm.py", "Passes.backward")),
}
# when a layer is made, its cell is tried on a step, and the kernel's step is compared with the cell's
TRIALS = {("cells/trial.py", "try_step"), ("kernels/__init__.py", "choose_kernel")}
Function = tuple[str, str]  # file and qualified name

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="code objects have no qualified name")


def listed(kernel: str) -> list[Function]:
    """The functions in the section "The path of x", those of other kernels left out."""
    section = DOCUMENT.read_text(encoding="utf-8").split("## The path of x\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\S+\.py) \| (\S+) \| (\w*) ?\|", section, flags=re.MULTILINE)
    return [(file, function) for file, function, which in rows if which in ("", kernel)]


class Profiler:
    """The functions of lstm_np in the order of their first calls, each with the functions that it was called from."""

    def __init__(self) -> None:
        self.stacks: dict[Function, list[Function]] = {}
        self._names: dict[CodeType, Function | None] = {}
        self._trials = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        function = self.name_of(frame.f_code)
        if function in TRIALS:
            self._trials += {"call": 1, "return": -1}.get(event, 0)
        elif function and event == "call" and not self._trials and function not in self.stacks:
            self.stacks[function] = self.callers_of(frame)

    def name_of(self, code: CodeType) -> Function | None:
        if code not in self._names:
            path, name = Path(code.co_filename), code.co_qualname.replace(".<locals>", "")
            ours = path.is_relative_to(PACKAGE)
            self._names[code] = (path.relative_to(PACKAGE).as_posix(), name) if ours else None
        return self._names[code]

    def callers_of(self, frame: FrameType | None) -> list[Function]:
        found = []
        while frame is not None:
            found.append(self.name_of(frame.f_code))
            frame = frame.f_back
        return [function for function in reversed(found) if function is not None]


@pytest.fixture(params=list(GATE_MATH))
def step(request, tmp_path, monkeypatch):
    """(kernel, profiler) after one training step."""
    monkeypatch.setattr(curves, "draw_curves", lambda *_: b"")
    load_dataset("digits", None, True, print)  # imports a lot, which would take long under the profiler
    sizes = ["--hidden-size", "8", "--batch-size", "16", "--threads", "1"]
    flags = ["--dataset", "digits", "--max-steps", "1", *sizes, "--kernel", request.param, "--quiet"]
    profiler, before = Profiler(), sys.getprofile()
    sys.setprofile(profiler)
    try:
        assert main([*flags, "--out", str(tmp_path / "run")]) == 0
    finally:
        sys.setprofile(before)
    return request.param, profiler


def test_the_path_of_x_is_what_runs(step):
    kernel, profiler = step
    path = listed(kernel)
    assert len(path) > 20
    assert [function for function in profiler.stacks if function in path] == path
    for gate_math in GATE_MATH[kernel]:
        assert gate_math in path
        between = [function for function in profiler.stacks[gate_math] if function not in path]
        assert not between, f"on the way to {gate_math}, but not listed in {DOCUMENT.name}: {between}"
