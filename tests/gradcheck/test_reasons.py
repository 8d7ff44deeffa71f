"""Inserted mistakes are named or located: a short version of the table in docs/check-your-cell.md, and the report."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

import lstm_np
from lstm_np.gradcheck.own_cell.file import check_file
from tests.gradcheck.inserted import CONVENTIONS, LEARNERS, NAMED, OTHERS, check, verdict

DOCS = Path(lstm_np.__file__).parents[1] / "docs" / "check-your-cell.md"
SIZES = {"batch_size": 2, "steps": 4, "hidden_size": 4}


def name_of(inserted):
    return inserted.name


def test_there_are_as_many_as_the_table_says():
    assert (len(NAMED), len(OTHERS), len(CONVENTIONS)) == (12, 20, 3)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("inserted", NAMED, ids=name_of)
def test_a_known_mistake_is_named(inserted, convention):
    report = check(inserted, convention, 0)
    assert verdict(inserted, convention, report) == "named", str(report)
    assert not report.unexplained
    assert not report.ok


@pytest.mark.parametrize("number", range(len(OTHERS)), ids=[inserted.name for inserted in OTHERS])
def test_another_mistake_is_located_and_not_misnamed(number):
    """Each in one of the conventions, in turn; the table has all of them."""
    inserted, convention = OTHERS[number], list(CONVENTIONS)[number % len(CONVENTIONS)]
    report = check(inserted, convention, 0)
    assert verdict(inserted, convention, report) in ("named", "located"), str(report)


def test_a_step_s_reason_is_tried_first_for_the_sequence_that_calls_it(tmp_path):
    source = (LEARNERS / "cs231n.py").read_text(encoding="utf-8").replace("df = dc * prev_c", "df = dc * next_c")
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    checked = check_file(tmp_path / "mine.py", **SIZES)
    assert [[reason.key for reason in report.reasons] for report in checked.reports] == [["df: c_t for c_{t-1}"]] * 2
    assert checked.status == 1


def test_the_report_in_the_docs_is_the_report(tmp_path):
    text = DOCS.read_text(encoding="utf-8")
    old, new = re.search(r"```diff\n-(.+)\n\+(.+)\n```", text).groups()
    shown = re.search(r"```text\n(lstm_step_forward.+?)```", text, re.DOTALL)[1]
    source = (LEARNERS / "cs231n.py").read_text(encoding="utf-8")
    assert source.count(old.strip()) == 1
    (tmp_path / "my_cell.py").write_text(source.replace(old.strip(), new.strip()), encoding="utf-8")
    checked = check_file(tmp_path / "my_cell.py", functions=("lstm_step_forward", "lstm_step_backward"))
    assert _without_errors(str(checked.reports[0])) == _without_errors(shown.strip())


def _without_errors(text):
    """Rounding differs from machine to machine."""
    return re.sub(r"\d\.\de[+-]\d\d(?=  |\n|$)", "error", text)


def test_the_program_in_the_docs_runs():
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    names: dict[str, object] = {}
    exec(compile(code, str(DOCS), "exec"), names)
    assert names["report"].ok is False


def test_a_sum_over_steps_that_is_set_is_so_named_where_h_0_is_0(tmp_path):
    """dWh then has the first step's share alone, which is 0."""
    source = (LEARNERS / "scratch_class.py").read_text(encoding="utf-8")
    assert source.count("total += grad") == 1
    (tmp_path / "mine.py").write_text(source.replace("total += grad", "total[...] = grad"), encoding="utf-8")
    reports = check_file(tmp_path / "mine.py", **SIZES).reports
    assert [[(reason.key, reason.gradients) for reason in report.reasons] for report in reports] == [
        [],
        [("= for +=", ("dWx", "dWh", "db"))],
    ]


GRU = LEARNERS / "gru_after.py"
GRU_MISTAKES = {
    "da_n * m * r": ("da_n * r", "dr: without m"),
    "dnext_h * z + dah @ Wh.T": ("dah @ Wh.T", "dh_prev: without dh_t * z"),
    "(prev_h - n)": ("(n - prev_h)", "dz: dh_t * (h_{t-1} - n) with the wrong sign"),
}


@pytest.mark.parametrize("right", GRU_MISTAKES)
def test_mistakes_in_a_gru_are_named(right, tmp_path):
    wrong, key = GRU_MISTAKES[right]
    source = GRU.read_text(encoding="utf-8")
    assert source.count(right) == 1
    (tmp_path / "mine.py").write_text(source.replace(right, wrong), encoding="utf-8")
    report = check_file(tmp_path / "mine.py", functions=("gru_step_forward", "gru_step_backward"), **SIZES).reports[0]
    assert [reason.key for reason in report.reasons] == [key], str(report)


def test_a_report_has_80_columns_and_the_same_as_json():
    report = check(NAMED[0], "per_gate", 1)
    assert max(map(len, str(report).splitlines())) <= 80
    found = report.as_json()
    assert found["ok"] is False
    assert found["reasons"][0]["key"] == NAMED[0].keys_in("per_gate")[0]
    assert set(found["gradients"]) == {line.name for line in report.gradients}


def test_a_right_backward_for_another_forward_says_that_forward_differs():
    code = textwrap.dedent(
        """
        import numpy as np
        from tests.gradcheck.inserted import learner

        right = learner("cs231n")

        def step_forward(x, prev_h, prev_c, Wx, Wh, b):
            h, c, cache = right.lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b)
            o = cache[7]
            return o * c, c, cache

        step_backward = right.lstm_step_backward
        """
    )
    names: dict[str, object] = {}
    exec(compile(code, "mine.py", "exec"), names)
    report = lstm_np.check_cell(names["step_forward"], names["step_backward"], **SIZES)
    assert not report.ok
    assert [reason.key for reason in report.reasons] == ["forward differs"]
    assert "h_t = o * c_t in (5), without the tanh" in report.forward
