"""The README's table is the committed result file's, and nothing else's."""

import argparse

import pytest

from benchmarks import race, results, table
from tests.benchmarks.test_race import document


def test_the_readme_shows_what_was_measured():
    """`python -m benchmarks table --write` makes them equal."""
    assert table.shown_in(table.README.read_text(encoding="utf-8")) == table.rendered_results()


@pytest.fixture(autouse=True)
def _nobody_else(monkeypatch):
    monkeypatch.setattr(race, "cpu_times", lambda: None)


def test_a_table_has_ratios_means_machine_and_date():
    made = document()
    rendered = table.render(made)
    assert "| training, B=128, T=28, H=128 | 1.00 ms | 500 µs (**0.50** / 0.50) |" in rendered
    assert "| geometric mean, training, LSTM, 2 cases (worst) |  | **1.00** / 1.00 (0.50) |" in rendered
    assert made["date"][:10] in rendered
    assert made["machine"]["cpu"] in rendered


def test_refused_and_marked_entries_are_shown_as_such():
    made = document()
    made["cases"][1]["results"]["torch"]["wrong_gradients"] = True
    made["contestants"]["torch"]["remark"] = "its gradients are wrong"
    assert "(**0.50** / 0.50\\*)" in table.render(made)
    assert "its gradients are wrong." in table.render(made)
    made["cases"][1]["results"]["torch"] = {"refused": "the loss curves differ"}
    assert "H=128 | 1.00 ms | - |" in table.render(made)


def test_only_the_part_between_the_markers_changes(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    results.write(document(), tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(table, "MORE_PEERS", tmp_path / "more")
    assert table.run(argparse.Namespace(write=True), readme) == 0
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert table.shown_in(text) == table.render(document() | {"date": results.read("cpu")["date"]})
    assert table.insert(text, table.rendered_results()) == text
    results.write(document(), tmp_path / "more")
    assert table.rendered_results().count("geometric mean, training") == 2


@pytest.mark.parametrize("text", ["", table.BEGIN, f"{table.END}{table.BEGIN}", f"{table.BEGIN * 2}{table.END}"])
def test_a_readme_without_markers_is_refused(text):
    with pytest.raises(results.ResultError, match="markers"):
        table.insert(text, "x")
