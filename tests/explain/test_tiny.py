"""The worked example: the page is what it prints, every line is arithmetic that is right, and stands where it says."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

import lstm_np
from lstm_np.cells import lstm
from lstm_np.explain import tiny
from tests.commands.conftest import invoke  # noqa: F401  a fixture

PACKAGE = Path(lstm_np.__file__).parent
PAGE = PACKAGE.parent / "docs" / "worked-example.md"
NAMES = {"sigmoid": lambda a: 1 / (1 + math.exp(-a)), "tanh": math.tanh}


@pytest.fixture(scope="module")
def text():
    return tiny.worked_example()


def test_the_page_is_what_is_printed(text):
    """After a change: python -m lstm_np.explain --tiny > docs/worked-example.md."""
    assert PAGE.read_text(encoding="utf-8") == f"{text}\n"


def test_the_command_prints_it(text, invoke):  # noqa: F811
    assert invoke("explain", "--tiny") == (0, f"{text}\n", "")
    said = "explain: --tiny has numbers of its own and takes no RUN, found runs/1\n"
    assert invoke("explain", "runs/1", "--tiny") == (2, "", said)


def test_it_fits_a_terminal(text):
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80


def results(text):
    """(left side, number) of every line of arithmetic, long sums in one piece."""
    found: list[tuple[str, float]] = []
    pending = ""
    for line in text.splitlines():
        match = re.fullmatch(r" {8,}(?:[a-z_]+ \d(?:, h \d)?: )?(.+?)(?: = (-?\d+\.\d{4}))?", line)
        if match is None or not re.match(r"[\d(+]|sigmoid|tanh", match[1]):
            continue
        pending += match[1] + " "
        if match[2]:
            found.append((pending, float(match[2])))
            pending = ""
    assert not pending
    return found


def test_every_line_of_arithmetic_is_right(text):
    found = results(text)
    assert len(found) == 2 * (8 + 14) + 1 + 2 + 2 * (22 + 3) + 32
    for left, right in found:
        value = eval(left.replace("^", "**"), NAMES)
        assert abs(value - right) <= 4e-4, f"{left} = {value}, not {right}"


def test_every_line_stands_where_it_says(text):
    source = (PACKAGE / "cells" / "lstm.py").read_text(encoding="utf-8").splitlines()
    found = re.findall(r"^    \((\d'?)\)  (\w+) = (.+?) +cells/lstm\.py:(\d+)$", text, re.MULTILINE)
    assert len(found) == 2 * 7 + 2 * 11
    for number, target, right, place in found:
        code, comment = source[int(place) - 1].split("#", 1)
        assert f"({number[0]})" in comment
        assert ("undoes" in comment) == number.endswith("'")
        assert ("before" if target == "dc_before" else target) in code
        inner = re.sub(r"(sigmoid|tanh)\(.*", r"\1(", right)  # of an activation, its name
        assert inner in code.replace("(xp, ", "(").replace("xp.", "")


def test_what_is_printed_is_what_the_code_says(monkeypatch):
    """A cell with another equation gives another text, or none if its gradient is wrong."""
    forward, backward = lstm.forward, lstm.backward

    def wrong(xp, dstate, state, values, **hold):
        da, before, gradients = backward(xp, dstate, state, values, **hold)
        return 1.001 * da, before, gradients

    monkeypatch.setattr(lstm, "backward", wrong)
    with pytest.raises(ValueError, match=r"the gradient of W\[0, 0\] is .*, not .*"):
        tiny.worked_example()
    monkeypatch.undo()
    assert (lstm.forward, lstm.backward) == (forward, backward)
    monkeypatch.setitem(tiny.PARAMS, "b", (0.5, *tiny.PARAMS["b"][1:]))
    assert "+ 0.5 = 1.0000" in tiny.worked_example()
