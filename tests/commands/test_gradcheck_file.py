"""gradcheck FILE: the report and its exit status, and one line for everything that keeps a cell from being checked."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.gradcheck.inserted import LEARNERS

SMALL = ("--hidden-size", 3, "--batch-size", 2, "--steps", 3)
STEP = ("--functions", "lstm_step_forward", "lstm_step_backward")
SOURCE = (LEARNERS / "cs231n.py").read_text(encoding="utf-8")


def write(*edits: tuple[str, str], source: str = SOURCE) -> str:
    """my_cell.py with edits made, in the folder of the test."""
    for old, new in edits:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    Path("my_cell.py").write_text(source, encoding="utf-8")
    return "my_cell.py"


def test_a_right_cell(invoke):
    result = invoke("gradcheck", write(), *SMALL)
    assert (result.status, result.err) == (0, "")
    assert result.out.count("Right: every gradient agrees.") == 2
    assert "its gates stand as i, f, o, g" in result.out


def test_a_wrong_cell(invoke):
    file = write(("df = dc * prev_c", "df = dc * next_c"))
    result = invoke("gradcheck", file, *SMALL, *STEP)
    assert (result.status, result.err) == (1, "")
    assert "Likely reason: c_t stands where (4') needs c_{t-1}." in result.out
    assert "in NumPy: df = dc * prev_c" in result.out
    result = invoke("gradcheck", file, *SMALL, *STEP, "--json")
    found = json.loads(result.out)
    assert (result.status, found["ok"], found["errors"]) == (1, False, [])
    assert found["reports"][0]["reasons"][0]["key"] == "df: c_t for c_{t-1}"


def test_what_the_file_prints_is_not_in_the_result(invoke):
    result = invoke("gradcheck", write(("import numpy as np", "import numpy as np\nprint('hello')")), *SMALL, "--json")
    assert json.loads(result.out)["ok"] is True
    assert "hello" in result.err


def test_a_neighbour_is_imported_and_nothing_is_written(invoke, tmp_path):
    Path("activations.py").write_text("import numpy as np\n\n\ndef sigmoid(x):\n    return 1 / (1 + np.exp(-x))\n")
    inner = "def sigmoid(x):\n    return 1 / (1 + np.exp(-x))\n"
    file = write((inner, "from activations import sigmoid\n"))
    try:
        assert invoke("gradcheck", file, *SMALL, *STEP).status == 0
    finally:
        del sys.modules["activations"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["activations.py", "my_cell.py"]


STOPPED = (
    # edits of the file, or its whole text, and what is said
    ("x = (", r"my_cell\.py line 1: '\(' was never closed"),
    ("import no_such_package\n", r"my_cell\.py line 1: ModuleNotFoundError: No module named 'no_such_package'"),
    ("print(1 / 0)\n", r"my_cell\.py line 1: ZeroDivisionError: division by zero"),
    ("import sys\nsys.exit(0)\n", r"my_cell\.py line 2: ends the program; keep what trains or prints under if .+"),
    ("def train():\n    pass\n", r"my_cell\.py: no pair of functions such as .+; there are: train \(--functions .+\)"),
    ("", r"my_cell\.py: no pair of functions such as .+; there are: none \(--functions .+\)"),
    ([("    return next_h, next_c, cache", "    pass")], "lstm_step_forward returned None: is it written yet\\?"),
    ([("    return dx, dprev_h, dprev_c, dWx, dWh, db\n\n\ndef lstm_f", "    pass\n\n\ndef lstm_f")],
     "lstm_step_backward returned None: is it written yet\\?"),
    ([("db = da.sum(axis=0)", "db = da.sum(axis=0)[:-1]")],
     r"lstm_step_backward returned db of shape \(11,\); b has shape \(12,\), and a gradient has the shape of .+"),
    ([("return dx, dprev_h, dprev_c, dWx, dWh, db\n\n\ndef", "return dx, dprev_h, 0 * dprev_c, dWx, db + 0\n\n\ndef")],
     "lstm_step_backward returned 5 values; expected 6: dx, dprev_h, dprev_c, dWx, dWh, db"),
    ([("db = da.sum(axis=0)", "db = da.sum(axis=0) / 0")], "lstm_step_backward returned (nan|inf) in db, for input .+"),
    ([("f = sigmoid(a[:, H : 2 * H])", "f = sigmoid(a[:, H : 3 * H])")],
     r"my_cell\.py line 17, in lstm_step_forward: ValueError: operands could not be broadcast .+"),
    ([("dc = dnext_c + dnext_h * o", "dnext_c += 1; dc = dnext_c + dnext_h * o")],
     r"my_cell\.py line 27, in lstm_step_backward: changes an array that it was given in place: .+; make a new .+"),
    ([("dx = da.dot(Wx.T)", "dx = da.dot(weights.T)")],
     "my_cell.py line 37, in lstm_step_backward: NameError: name 'weights' is not defined"),
    ([("prev_h, prev_c, Wx, Wh, b):\n    H", "prev_h, prev_c, Wx, Wh, b, foo):\n    H")],
     r"lstm_step_forward\(x, prev_h, .+, foo\): what is foo\? Say what it takes, in its order, by arguments=.+"),
)  # fmt: skip


@pytest.mark.parametrize(("content", "said"), STOPPED)
def test_one_line_and_no_traceback(invoke, content, said):
    file = write(source=content) if isinstance(content, str) else write(*content)
    result = invoke("gradcheck", file, *SMALL, *(() if isinstance(content, str) else STEP))
    assert (result.status, result.out) == (2, ""), result
    assert re.fullmatch(f"gradcheck: {said}\n", result.err), result.err


def test_files_that_are_none(invoke):
    assert invoke("gradcheck", "nowhere.py") == (2, "", "gradcheck: nowhere.py: No such file or directory\n")
    Path("cell.txt").write_text("")
    said = "gradcheck: cell.txt: a Python file is expected, one whose name ends in .py\n"
    assert invoke("gradcheck", "cell.txt") == (2, "", said)


def test_a_cell_for_the_engine_is_sent_to_its_flag(invoke):
    from lstm_np.cells import lstm

    result = invoke("gradcheck", write(source=Path(lstm.__file__).read_text(encoding="utf-8")))
    assert result.status == 2
    assert result.err.endswith("so it is a cell for lstm_np's own layers: --cell my_cell.py\n")


def test_of_several_pairs_those_that_can_be_checked_are(invoke):
    file = write(("    return dx, dprev_h, dWx, dWh, db", "    raise RuntimeError('not yet')"))
    result = invoke("gradcheck", file, *SMALL)
    assert result.status == 2
    assert result.out.startswith("lstm_step_forward, lstm_step_backward (my_cell.py)")
    assert "Right: every gradient agrees." in result.out
    assert re.fullmatch(r"gradcheck: my_cell\.py line 69, in lstm_backward: RuntimeError: not yet\n", result.err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("my_cell.py", "--layers", 2, "--backend", "cupy"), "--layers, --backend: for lstm_np's own layers; "),
        (("my_cell.py", "--configurations", 3), "--configurations: for lstm_np's own layers; my_cell.py has none"),
        (("--layout", "rows"), "--layout: for a file of your own, but there is no FILE"),
        (("--dtype", "float64", "--shape", "p=H"), "--shape, --dtype: for a file of your own, but there is no FILE"),
        (("my_cell.py", "--shape", "p"), "--shape takes a name and a shape in B, D, H such as p=H,1, found 'p'"),
        (("my_cell.py", "--functions", "one", "two"), "my_cell.py: has no function one"),
        (("my_cell.py", "--steps", 0), "steps must be at least 1, found 0"),
        (("my_cell.py", *STEP, "--arguments", "x h"), "lstm_step_forward takes 6 arguments (x, prev_h, prev_c, Wx, "),
    ],
)
def test_flags_that_do_not_fit(invoke, arguments, said):
    write()
    result = invoke("gradcheck", *arguments)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"gradcheck: {said}"), result.err
    assert result.err.count("\n") == 1
