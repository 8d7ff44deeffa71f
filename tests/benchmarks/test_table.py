"""The tables of README.md and docs/race.md are the committed result file's, and nothing else's."""

import argparse

import pytest

from benchmarks import race, results, table
from tests.benchmarks.test_race import document


@pytest.mark.parametrize("document", [table.README, table.RACE, table.TEXT, table.TASKS], ids=lambda path: path.name)
def test_a_document_shows_what_was_measured(document):
    """`python -m benchmarks table --write` makes them equal."""
    assert table.shown_in(document.read_text(encoding="utf-8")) == table.rendered_results()[document]


def test_the_readme_has_the_means_and_the_largest_table_has_all_cases():
    short, long = table.rendered_results()[table.README], table.rendered_results()[table.RACE]
    rows = {text: [row for row in text.splitlines() if row.startswith("|")] for text in (short, long)}
    assert set(rows[short]) < set(rows[long])
    means = [row for row in rows[long] if row.startswith("| geometric mean")]
    assert means == rows[short][-len(means) :]
    assert len(rows[short]) == 2 + len(table.FIRST) + len(means)


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


def test_a_table_has_the_lower_bounds_that_were_measured():
    made = document()
    made["cases"][1]["lower_bound"] = {"products": 6e-4, "tanh": 1e-4, "total": 7e-4}
    rendered = table.render(made)
    assert "| ours | lower bound |" in rendered.splitlines()[0]
    assert "| training, B=128, T=28, H=128 | 1.00 ms | 700 µs (70%) | 500 µs (**0.50** / 0.50) |" in rendered
    assert "2 cases (worst) |  | 70% | **1.00** / 1.00 (0.50) |" in rendered
    assert "Lower bound: the products and tanhs alone" in rendered


def test_refused_and_marked_entries_are_shown_as_such():
    made = document()
    made["cases"][1]["results"]["torch"]["wrong_gradients"] = True
    made["contestants"]["torch"]["remark"] = "its gradients are wrong"
    assert "(**0.50** / 0.50\\*)" in table.render(made)
    assert "its gradients are wrong." in table.render(made)
    made["cases"][1]["results"]["torch"] = {"refused": "the loss curves differ"}
    assert "H=128 | 1.00 ms | - |" in table.render(made)


def test_only_the_part_between_the_markers_changes(tmp_path, monkeypatch):
    readme, race_page, chosen = tmp_path / "README.md", tmp_path / "race.md", tmp_path / "chosen.md"
    for path in (readme, race_page, chosen):
        path.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    results.write(document(), tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(table, "MORE_PEERS", tmp_path / "more")
    monkeypatch.setattr(table, "README", readme)
    monkeypatch.setattr(table, "RACE", race_page)
    monkeypatch.setattr(table, "CHOSEN", {tmp_path / "chosen": chosen})
    results.write(document(), tmp_path / "chosen")
    assert table.run(argparse.Namespace(write=True)) == 0
    assert "geometric mean" not in chosen.read_text()
    assert "| training, B=4, T=3, H=8 | " in chosen.read_text()
    for path, shown in ((readme, table.FIRST), (race_page, None)):
        text = path.read_text()
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")
        assert table.shown_in(text) == table.render(document() | {"date": results.read("cpu")["date"]}, shown)
        assert table.insert(text, table.rendered_results()[path]) == text
    results.write(document(), tmp_path / "more")
    assert table.rendered_results()[race_page].count("geometric mean, training") == 2
    assert table.rendered_results()[readme].count("geometric mean, training") == 1


def test_nothing_is_written_where_a_document_lacks_its_markers(tmp_path, monkeypatch):
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text(f"{table.BEGIN}\nold\n{table.END}\n")
    bad.write_text("no markers")
    monkeypatch.setattr(table, "README", good)
    monkeypatch.setattr(table, "RACE", bad)
    with pytest.raises(results.ResultError):
        table.run(argparse.Namespace(write=True))
    assert "old" in good.read_text()


@pytest.mark.parametrize("text", ["", table.BEGIN, f"{table.END}{table.BEGIN}", f"{table.BEGIN * 2}{table.END}"])
def test_a_readme_without_markers_is_refused(text):
    with pytest.raises(results.ResultError, match="markers"):
        table.insert(text, "x")
