"""Recipe files and settings: what is read, what is inherited, what is refused, and in which words."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

from lstm_np.cli import flags
from lstm_np.options import BY_NAME, REQUIRED
from lstm_np.training import recipes
from lstm_np.training.optimizer import arguments
from lstm_np.training.recipes import DEFAULT, RecipeError, load_recipe, recipe_names, settings

ABOUT = 'title = "T"\ndescription = "D"\n'


@pytest.fixture
def write(tmp_path):
    def call(text, name="mine"):
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return str(path)

    return call


def test_the_default_recipe_names_every_setting_that_has_no_default_elsewhere():
    document = recipes._read(recipes.FOLDER / f"{DEFAULT}.toml")
    for table in settings.TABLES:
        own = set(settings.settings_of(table))
        if table == "optimizer":  # arguments of other optimizers have no default here, nor one that all have
            own -= {"momentum", "nesterov", "alpha", "weight_decay"}
        elif table == "model":  # those of options stand in their list
            own = {name for name, option in settings.settings_of(table).items() if option.default is REQUIRED} | {
                "cell"
            }
        assert set(document[table]) == own


def test_what_no_recipe_says_of_the_model_is_the_default_of_its_option():
    model = dataclasses.asdict(load_recipe().model)
    assert list(model) == list(settings.settings_of("model"))
    for name in set(model) - {"cell", "hidden_size"}:
        assert model[name] == BY_NAME[name].default


def test_an_old_name_is_read_as_the_present_one(write):
    recipe = load_recipe(write(f"{ABOUT}[model]\ndouble_bias = true\n"))
    assert recipe.model.bias == "double"
    assert load_recipe(write(f"{ABOUT}[model]\ndouble_bias = false\n")).model.bias is True
    text = '[model]\nprojection_initializer = "normal"\nprojection_bias = 0.25\ninput_projection = 3\n'
    model = load_recipe(write(ABOUT + text)).model
    assert (model.input_projection_initializer, model.input_projection_bias) == ("normal", 0.25)
    default = write(f'{ABOUT}based_on = "tf1-projection"\n[model]\nprojection_initializer = "none"\n')
    assert load_recipe(default).model.input_projection_initializer is None


def test_old_flags_are_read_as_the_present_ones():
    assert parse("--double-bias")["model"] == {"bias": "double"}
    assert parse("--no-double-bias")["model"] == {"bias": True}
    assert parse("--bias", "false")["model"] == {"bias": False}
    assert parse("--projection-bias", 0.5)["model"] == {"input_projection_bias": 0.5}
    assert parse("--projection-initializer", "none")["model"] == {"input_projection_initializer": None}
    with pytest.raises(ValueError, match="unknown --input-projection-initializer 'he'; there are: keras"):
        parse("--projection-initializer", "he")


def test_the_default_recipe():
    recipe = load_recipe()
    assert recipe_names()[0] == recipe.name == "mnist-lstm128"
    assert (recipe.model.cell, recipe.model.hidden_size, recipe.train.epochs) == ("lstm", 128, 10)
    assert arguments(recipe.optimizer) == {
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "form": "paper",
        "weight_decay": 0.0,
    }
    assert (recipe.data.dataset, recipe.data.validation, recipe.data.limit_train) == ("mnist", 0, None)


def test_what_a_recipe_does_not_say_is_the_default_recipes(write):
    recipe = load_recipe(write(f"{ABOUT}[model]\nhidden_size = 5\n[optimizer]\nlearning_rate = 0.5\n"))
    default = load_recipe()
    assert recipe.name == "mine"
    assert recipe.model == dataclasses.replace(default.model, hidden_size=5)
    assert recipe.optimizer == dataclasses.replace(default.optimizer, learning_rate=0.5)
    assert (recipe.data, recipe.train) == (default.data, default.train)


def test_another_optimizer_inherits_nothing(write):
    recipe = load_recipe(write(f'{ABOUT}[optimizer]\nname = "sgd"\nmomentum = 0.9\n'))
    assert arguments(recipe.optimizer) == {"lr": 1e-3, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0}


def test_weight_decay_by_key_and_by_flag(write):
    recipe = load_recipe(write(f'{ABOUT}[optimizer]\nname = "adamw"\n'))
    assert arguments(recipe.optimizer)["weight_decay"] == 0.01  # AdamW's own
    assert arguments(recipe.changed(parse("--weight-decay", 0.1)).optimizer)["weight_decay"] == 0.1
    assert arguments(load_recipe().changed(parse("--weight-decay", 0.1)).optimizer)["weight_decay"] == 0.1
    with pytest.raises(RecipeError, match=r"\[optimizer\] weight_decay must be at least 0, found -1"):
        load_recipe(write(f"{ABOUT}[optimizer]\nweight_decay = -1\n"))


def test_a_recipe_that_an_earlier_version_kept_is_read():
    state = load_recipe().state()
    del state["optimizer"]["weight_decay"], state["model"]["cell_clip"]
    assert recipes.Recipe.from_state(state) == load_recipe()


def test_a_view_without_rows_starts_from_images_that_are_not_moved(write):
    recipe = load_recipe(write(f'{ABOUT}based_on = "best"\n[data]\nview = "pixels"\nzoom = 0.2\n'))
    assert (recipe.data.shift, recipe.data.rotate, recipe.data.zoom) == (0, 0.0, 0.2)
    changed = load_recipe("best").changed(parse("--view", "permuted"))
    assert changed.changes == ("view permuted", "shift 0", "rotate 0.0", "zoom 0.0")
    assert load_recipe("best").changed(parse("--view", "columns")).changes == ("view columns",)


def test_a_recipe_based_on_another(write, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    original = (recipes.Path(recipes.__file__).parent / f"{DEFAULT}.toml").read_text()
    write(original, DEFAULT)
    write(f'{ABOUT}fault = "F"\n[model]\nhidden_size = 7\nnum_layers = 2\n', "one")
    write(f'{ABOUT}based_on = "one"\nfix = "X"\n[model]\nnum_layers = 3\n', "two")
    write(f'{ABOUT}based_on = "loop"\n', "loop")
    recipe = load_recipe("two")
    assert (recipe.model.hidden_size, recipe.model.num_layers) == (7, 3)
    assert (recipe.fault, recipe.fix) == (None, "X")
    assert recipe_names() == [DEFAULT, "loop", "one", "two"]
    with pytest.raises(RecipeError, match="the recipe is based on itself"):
        load_recipe("loop")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = ", "not a TOML file (Invalid value (at end of document))"),
        ('title = "T"\n', 'the recipe has no description; expected description = "..."'),
        (f"{ABOUT}colour = 1\n", "unknown key 'colour' in the recipe; there are: "),
        (f"{ABOUT}[modle]\n", "unknown key 'modle' in the recipe; did you mean 'model'?"),
        (f"{ABOUT}[model]\nhiden_size = 5\n", "unknown key 'hiden_size' in [model]; did you mean 'hidden_size'?"),
        (f"{ABOUT}[model]\nhidden_size = 0\n", "[model] hidden_size must be at least 1, found 0"),
        (f"{ABOUT}[model]\nhidden_size = 5.0\n", "[model] hidden_size must be a whole number, found 5.0"),
        (f"{ABOUT}[model]\nhidden_size = true\n", "[model] hidden_size must be a whole number, found True"),
        (f"{ABOUT}[model]\nhidden_size = \"none\"\n", "[model] hidden_size must be a whole number, found 'none'"),
        (f"{ABOUT}[model]\nbidirectional = 1\n", "[model] bidirectional must be true or false, found 1"),
        (f"{ABOUT}[model]\nbias = 1\n", "[model] bias must be true, false or \"double\", found 1"),
        (f'{ABOUT}[model]\ndouble_bias = "yes"\n', "[model] double_bias must be true or false, found 'yes'"),
        (f'{ABOUT}[model]\ndouble_bias = true\nbias = true\n',
         "[model] double_bias is called bias now, and both are given"),
        (f'{ABOUT}[model]\ndtype = "complex128"\n', "unknown [model] dtype 'complex128'; there are: float32, float64"),
        (f'{ABOUT}[model]\ncell = "lstn"\n', "unknown [model] cell 'lstn'; there are: lstm"),
        (f'{ABOUT}[train]\nmax_steps = "all"\n', "[train] max_steps must be a whole number or \"none\", found 'all'"),
        (f"{ABOUT}[optimizer]\nbetas = [0.9]\n", '[optimizer] betas must be two numbers or "none", found [0.9]'),
        (f"{ABOUT}[optimizer]\nlearning_rate = nan\n", "[optimizer] learning_rate must be finite, found nan"),
        (f"{ABOUT}model = 3\n", "model must be a table, [model], found 3"),
        ("title = 3\n", "title must be text, found 3"),
        (f'{ABOUT}based_on = "nothing"\n', "unknown recipe 'nothing' in based_on; there are: "),
        (f"{ABOUT}[published]\naccuracy = 1\n", "[published] must say accuracy, test_images, source, and nothing else"),
        (f'{ABOUT}[published]\naccuracy = "good"\ntest_images = 1\nsource = "s"\n',
         "[published] accuracy cannot be 'good'"),
        (f'{ABOUT}[published]\naccuracy = 98.5\ntest_images = 1\nsource = "s"\n',
         "[published] accuracy must be a share from 0 to 1, found 98.5"),
        (f'{ABOUT}[published]\naccuracy = 0.9\ntest_images = 0\nsource = "s"\n',
         "[published] test_images must be at least 1, found 0"),
        (f'{ABOUT}[published]\naccuracy = 0.9\ntest_images = true\nsource = "s"\n',
         "[published] test_images cannot be True"),
    ],
)  # fmt: skip
def test_what_is_refused(write, text, reason):
    path = write(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message


def parse(*given):
    parser = argparse.ArgumentParser()
    flags.add_settings_flags(parser)
    return flags.settings_from_flags(parser.parse_args([str(part) for part in given]))


def test_every_setting_is_a_flag_and_a_flag_that_is_not_given_changes_nothing():
    assert parse() == {table: {} for table in settings.TABLES}
    recipe = load_recipe()
    assert recipe.changed(parse()) == recipe
    given = []
    for table, values in recipe.tables.items():
        for name, value in values.items():
            flag = flags.flag_of(table, name)
            kind = settings.settings_of(table)[name].kind
            if name == "bias":
                given += [flag, str(value).lower()]
            elif isinstance(value, bool) or (value is None and kind is bool):
                given.append(flag if value else flag.replace("--", "--no-", 1))
            elif isinstance(value, tuple):
                given += [flag, *value]
            elif value is not None:
                given += [flag, value]
            elif kind is not tuple:
                given += [flag, "none"]
    found = parse(*given)
    assert found["optimizer"].pop("nesterov") is False  # the flag says no, the recipe says nothing
    assert recipe.changed(found) == recipe


def test_flags_replace_one_setting_each():
    changed = load_recipe().changed(parse("--layers", 2, "--clip-norm", 1, "--bidirectional", "--betas", 0.5, 0.9))
    assert (changed.model.num_layers, changed.model.bidirectional) == (2, True)
    assert changed.train.clip_norm == 1.0
    assert changed.optimizer.betas == (0.5, 0.9)
    assert changed.optimizer.eps == 1e-8
    assert changed.model.hidden_size == 128


def test_a_changed_recipe_says_what_is_not_the_files_any_more():
    changed = load_recipe().changed(parse("--layers", 2, "--clip-norm", 1, "--bidirectional", "--betas", 0.5, 0.9))
    assert changed.changes == ("layers 2", "bidirectional True", "betas (0.5, 0.9)", "clip_norm 1.0")
    assert changed.changed(parse("--layers", 3, "--seed", 7)).changes[0] == "layers 3"
    assert load_recipe().changed(parse("--seed", 7, "--layers", 1)).changes == ()
    assert load_recipe().changed(parse("--optimizer", "sgd", "--momentum", 0.9)).changes == (
        "optimizer sgd",
        "momentum 0.9",
    )
