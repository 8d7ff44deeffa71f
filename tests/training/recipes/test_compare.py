"""Recipes as data, and recipes side by side: the list, the page, the comparison that goes on where it stopped."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from lstm_np.backends import get_backend
from lstm_np.recipes import main
from lstm_np.training import Place, load_recipe, recipe_names
from lstm_np.training.recipes import DEFAULT, DIGITS, Published
from lstm_np.training.recipes.compare import RESULTS, CompareError, Result, _find, _read, columns, compare, markdown

TUTORIALS = ("tf1-projection", "keras-lstm128", "tf1-sgd", "tf1-lstm100", "torch-lstm128", "tf1-gru3")


def small(name="mnist-lstm128", **train):
    """A recipe made small: the 8x8 digits, few units, few steps."""
    changes = {
        "data": {"dataset": "digits", "validation": 0, "shift": 0, "rotate": 0.0, "zoom": 0.0},
        "model": {"hidden_size": 6, "input_projection": 5 if load_recipe(name).model.input_projection else None},
        "train": {"epochs": 1, "max_steps": 3, "warmup_steps": 0, **train},
    }
    return load_recipe(name).changed(changes)


@pytest.fixture
def place():
    return Place(get_backend("numpy"), offline=True, explicit=True)


@pytest.mark.parametrize("name", TUTORIALS)
def test_every_system_is_there_with_its_corrected_twin(name):
    original, fixed = load_recipe(name), load_recipe(f"{name}-fixed")
    assert original.fault
    assert original.fix is None
    assert fixed.fault
    assert fixed.fix
    assert fixed.published == original.published or fixed.published is None
    assert fixed.tables != original.tables


def test_the_systems_are_what_they_were():
    """The numbers of the originals, which no cleaning-up may change."""
    s = {name: load_recipe(name) for name in TUTORIALS}
    assert {name: recipe.train.batch_size for name, recipe in s.items()} == dict(
        zip(TUTORIALS, (128, 128, 128, 50, 64, 64), strict=True)
    )
    assert {name: recipe.model.hidden_size for name, recipe in s.items()} == dict(
        zip(TUTORIALS, (128, 128, 128, 100, 128, 200), strict=True)
    )
    assert {name: recipe.optimizer.learning_rate for name, recipe in s.items()} == dict(
        zip(TUTORIALS, (1e-3, 1e-3, 1e-3, 1e-4, 1e-2, 1e-3), strict=True)
    )
    assert [s[name].optimizer.form for name in TUTORIALS] == ["hat", "hat", None, "hat", "paper", "tf1"]
    assert s["keras-lstm128"].optimizer.eps == 1e-7
    assert (s["tf1-gru3"].optimizer.alpha, s["tf1-gru3"].optimizer.eps) == (0.9, 1e-10)
    assert [s[name].train.max_steps for name in TUTORIALS] == [782, None, 10000, None, None, None]
    assert [s[name].train.epochs for name in TUTORIALS] == [2, 10, 24, 6, 1, 3]
    assert {name for name in TUTORIALS if s[name].data.order == "tf1"} == {name for name in TUTORIALS if "tf1" in name}
    assert {name for name in TUTORIALS if s[name].data.validation == 5000} == {n for n in TUTORIALS if "tf1" in n}
    assert s["tf1-lstm100"].model.loss == "softmax_twice"
    assert s["torch-lstm128"].model.bias == "double"
    assert s["tf1-gru3"].model.dropout_outputs == "all"
    assert all(s[name].train.schedule == "constant" and s[name].train.clip_norm is None for name in TUTORIALS)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains(name, place, tmp_path):
    results = compare([small(name)], [1], tmp_path, place, lambda _: None)
    assert [(result.recipe, result.seed, result.steps) for result in results] == [(name, 1, 3)]
    assert 0 <= results[0].test_accuracy <= 1
    assert results[0].test_images == 500


def test_a_comparison_goes_on_where_it_stopped(place, tmp_path):
    said: list[str] = []
    recipes = [small(), small("tf1-lstm100")]
    compare(recipes[:1], [1], tmp_path, place, said.append)
    first = json.loads((tmp_path / RESULTS).read_text())
    results = compare(recipes, [1, 2], tmp_path, place, said.append)
    assert [(r.recipe, r.seed) for r in results] == [
        ("mnist-lstm128", 1), ("mnist-lstm128", 2), ("tf1-lstm100", 1), ("tf1-lstm100", 2),
    ]  # fmt: skip
    assert len(said) == 4
    assert json.loads((tmp_path / RESULTS).read_text())[0] == first[0]
    assert not list(tmp_path.glob(".run-*"))
    assert compare(recipes, [1, 2], tmp_path, place, said.append) == results
    assert len(said) == 4


def test_a_recipe_that_has_changed_is_run_again(place, tmp_path):
    said: list[str] = []
    compare([small()], [1], tmp_path, place, said.append)
    compare([small(max_steps=2)], [1], tmp_path, place, said.append)
    assert [result["steps"] for result in json.loads((tmp_path / RESULTS).read_text())] == [2]


def test_the_original_images_are_measured_too(place, tmp_path):
    recipe = replace(small(), published=Published(0.5, 37, "here"))
    (result,) = compare([recipe], [1], tmp_path, place, lambda _: None)
    assert result.published_images == 37
    assert result.published_accuracy * 37 == pytest.approx(round(result.published_accuracy * 37))
    assert "| the first 37 | 1 | |" in markdown([recipe], [result])


def test_no_more_images_are_claimed_than_were_measured(place, tmp_path):
    recipe = replace(small(), published=Published(0.5, 10_000, "here"))  # the digits have 500
    (result,) = compare([recipe], [1], tmp_path, place, lambda _: None)
    assert (result.published_images, result.published_accuracy) == (500, result.test_accuracy)
    assert "the first" not in markdown([recipe], [result])


def test_the_table_says_mean_deviation_and_range():
    result = Result("mnist-lstm128", 1, {}, 0.5, 100, None, None, 3, 2.0, "numpy", ["reference"])
    results = [replace(result, seed=seed, test_accuracy=a) for seed, a in ((1, 0.5), (2, 0.7), (3, 0.6))]
    table = markdown([load_recipe(), load_recipe("tf1-sgd")], results)
    assert "| mnist-lstm128 | - | 0.6000 ± 0.1000 (0.5000 to 0.7000) | 100 | 3 | 2 |" in table
    assert "| tf1-sgd | 0.875 on 128 | not run | | | |" in table


def test_the_table_of_a_terminal_has_80_columns():
    result = Result("tf1-projection-fixed", 1, {}, 0.5, 10_000, None, None, 3, 1234.0, "numpy", ["reference"])
    sgd = replace(result, recipe="tf1-sgd", test_accuracy=0.86, published_accuracy=0.87, published_images=128)
    results = [replace(result, seed=seed, test_accuracy=a) for seed, a in ((1, 0.5), (2, 0.7), (3, 0.6))]
    recipes = [load_recipe(name) for name in ("tf1-projection-fixed", "tf1-sgd", "tf1-lstm100")]
    lines = columns(recipes, [*results, sgd]).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[1:]] == [
        ["tf1-projection-fixed", "-", "0.6000", "0.1000", "0.5000", "0.7000", "10,000", "3", "1,234"],
        ["tf1-sgd", "-", "0.8600", "-", "0.8600", "0.8600", "10,000", "1", "1,234"],
        ["0.875", "0.8700", "-", "0.8700", "0.8700", "128", "1"],  # what was published, beside the images it was of
        ["tf1-lstm100", "0.9281", "not", "run"],
    ]
    ends = [[match.end() for match in re.finditer(r"\S+", line)] for line in lines[:3]]
    assert ends[0][1:] == ends[1][1:] == ends[2][1:]  # numbers stand below the ends of their heads


def test_recipes_of_one_name_and_a_file_for_a_folder_are_refused(place, tmp_path):
    with pytest.raises(CompareError, match="two of these recipes are called 'mnist-lstm128'"):
        compare([small(), small(max_steps=2)], [1], tmp_path, place, lambda _: None)
    (tmp_path / "file").touch()
    with pytest.raises(CompareError, match="file: a file, where the folder of results should be"):
        compare([small()], [1], tmp_path / "file", place, lambda _: None)


NO_MODEL = json.dumps([dict.fromkeys(field.name for field in fields(Result)) | {"settings": {"data": {}}}])


@pytest.mark.parametrize("content", ["[{}]", "{", '{"a": 1}', "[1]", NO_MODEL])
def test_a_results_file_that_is_none_is_refused(content, place, tmp_path):
    (tmp_path / RESULTS).write_text(content)
    with pytest.raises(CompareError, match=r"results.json: not the results of a comparison .*; choose another --out"):
        compare([small()], [1], tmp_path, place, lambda _: None)
    assert (tmp_path / RESULTS).read_text() == content


def test_the_list_names_every_recipe(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(recipe_names())]] == recipe_names()
    assert main(["list", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == recipe_names()


def test_the_page_of_a_recipe_says_what_was_wrong(capsys):
    assert main(["show", "tf1-lstm100-fixed"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    for words in (
        "What is wrong: Softmax applied twice",
        "What is done here:",
        'loss = "softmax"',
        "hidden_size = 100 *",
    ):
        assert words in page


@pytest.mark.parametrize("name", recipe_names())
def test_a_page_fits_80_columns_and_shows_what_the_optimizer_takes(name, capsys):
    assert main(["show", name]) == 0
    *lines, path = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert Path(path).is_file()
    assert Path(path).name == f"{name}.toml"
    shown = "\n".join(lines).split("[optimizer]\n")[1].split("\n\n")[0]
    assert ("betas" in shown) == (load_recipe(name).optimizer.name == "adam")
    assert "none" not in shown


def test_the_page_of_an_own_recipe_names_its_own_file(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('based_on = "tf1-sgd"\ntitle = "t"\ndescription = "d"\n[optimizer]\nmomentum = 0.5\n')
    assert main(["show", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(path)
    assert "  momentum = 0.5   *" in lines


def test_the_command_compares(capsys, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'title = "t"\ndescription = "d"\n[data]\ndataset = "digits"\n[model]\nhidden_size = 4\n[train]\nepochs = 1\n'
    )
    flags = ["compare", "--seeds", "2", "--max-steps", "2", "--threads", "1"]
    command = [*flags, str(recipe), "--out", str(tmp_path / "out")]  # a name may stand between the flags
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert (tmp_path / "out" / "results.md").read_text().startswith("| recipe | published | here: ")
    assert [line.split()[0] for line in out.splitlines()] == ["recipe", "tiny"]
    assert "2/2 tiny, seed 2" in err
    assert main([*command, str(recipe)]) == 0  # named twice, it counts once
    assert capsys.readouterr().out == out
    assert main([*command, "--json"]) == 0
    assert [result["seed"] for result in json.loads(capsys.readouterr().out)] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show"], "recipes: show needs the name of a recipe; there are: mnist-lstm128"),
        (["list", "best"], "recipes: list takes no names"),
        (["show", "bset"], "recipes: unknown recipe 'bset'; did you mean 'best'?"),
        (["show", "tf1_sgd"], "recipes: unknown recipe 'tf1_sgd'; did you mean 'tf1-sgd'?"),
        (["compare", "best", "--seeds", "0"], "recipes: --seeds must be at least 1, found 0"),
        (["compare", "best", "--max-steps", "0"], "recipes: --max-steps must be at least 1, found 0"),
        (["compare", "best", "--data-dir", "nowhere"], "recipes: "),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_results_of_an_earlier_version_still_count():
    """Those of the documentation were written before options were named anew."""
    path = Path(__file__).parents[3] / "benchmarks" / "results" / "recipes" / "results.json"
    assert "double_bias" in path.read_text(encoding="utf-8")
    results = _read(path)
    for name in set(recipe_names()) - {DEFAULT, DIGITS}:
        for seed in (1, 2, 3):
            assert _find(results, load_recipe(name).changed({"train": {"seed": seed}})) is not None
