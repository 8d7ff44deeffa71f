"""The list of options: signatures, choices and documentation agree with it, and it says in one line what is wrong."""

from __future__ import annotations

import inspect
import json
import warnings

import numpy as np
import pytest

import lstm_np
from lstm_np import cells, initializers, losses, options
from lstm_np.backends import get_backend
from lstm_np.kernels import LayerSpec, choose_kernel, kernel_class
from lstm_np.layers import GRU, LAYERS, LSTM, RNN, Recurrent, make_layers
from lstm_np.model import SequenceClassifier, SequenceRegressor
from lstm_np.options import BY_NAME, OPTIONS, REQUIRED, Option, OptionError, OptionWarning

pytestmark = pytest.mark.quick

CONSTRUCTORS = (LSTM, GRU, RNN, Recurrent, SequenceClassifier, SequenceRegressor)
HINTS = {bool: "bool", int: "int", float: "float", str: "str", np.dtype: "Dtype", object: "str | Backend",
         dict: "Mapping[str, float]", list: "Sequence[float]"}  # fmt: skip


@pytest.mark.parametrize("constructor", CONSTRUCTORS)
def test_a_signature_says_what_the_list_says(constructor):
    parameters = inspect.signature(constructor).parameters
    for name, parameter in parameters.items():
        option = options.of(constructor)[name]
        assert parameter.default == option.default, name
        assert type(parameter.default) is type(option.default), name
        said_by_place = option.default is REQUIRED or name == "num_targets"
        assert (parameter.kind is parameter.KEYWORD_ONLY) is not said_by_place, name
        hint = HINTS[option.kind] + (" | str" if option.kind is bool and option.choices else "")
        hint += " | Sequence[int]" if option.several else ""
        assert parameter.annotation == hint + (" | None" if option.optional else ""), name


def test_every_option_is_taken_by_someone():
    taken = {name for constructor in CONSTRUCTORS for name in options.taken_by(constructor)}
    assert taken == set(BY_NAME)
    assert len(BY_NAME) == len(OPTIONS)


def test_every_layer_that_has_an_option_of_layers_gets_it_from_the_model():
    own = {"reset", "nonlinearity"}  # said by the name of the cell
    own |= {"masked_outputs", "batch_first", "reverse", "merge"}  # of layers alone
    of_layers = {name for constructor in (LSTM, GRU, RNN) for name in options.taken_by(constructor)}
    assert of_layers - own <= set(options.taken_by(SequenceClassifier)) & set(options.taken_by(SequenceRegressor))


def test_choices_are_the_names_of_what_there_is():
    assert BY_NAME["initializer"].choices == tuple(initializers.RECURRENT)
    assert BY_NAME["readout_initializer"].choices == tuple(initializers.DENSE)
    assert BY_NAME["loss"].choices == (*losses.LOSSES, "binary")
    assert options.of(SequenceRegressor)["loss"].choices == tuple(losses.ERRORS)
    assert tuple(LAYERS) == tuple(cells.CELLS) == cells.BUILT_IN
    for option in OPTIONS:
        assert option.default is REQUIRED or option.check(option.default) == option.default


@pytest.mark.parametrize("constructor", CONSTRUCTORS)
def test_help_explains_every_option(constructor):
    text = " ".join(constructor.__doc__.split())
    for name in options.taken_by(constructor):
        assert f"{name} {options.of(constructor)[name].help}" in text
    assert all(len(line) <= 120 for line in constructor.__doc__.splitlines())


# ---- what is taken, and what is refused


def test_numbers_of_numpy_are_numbers():
    labels = np.array([0, 1, 2])
    model = SequenceClassifier(
        np.int64(3),
        np.uint8(5),
        labels.max() + 1,
        num_layers=np.int32(2),
        bidirectional=np.bool_(True),
        dropout=np.float32(0.25),
        forget_bias=np.float64(2.0),
        readout_bias=np.int64(1),
        input_projection=np.array(4),
        dtype=np.float64,
        seed=np.int64(7),
        cell=np.str_("lstm"),
    )
    plain = SequenceClassifier(
        3, 5, 3, num_layers=2, bidirectional=True, dropout=0.25, forget_bias=2.0, readout_bias=1, input_projection=4,
        dtype="float64", seed=7,
    )  # fmt: skip
    assert model.config == plain.config
    assert {name: type(value) for name, value in model.config.items()} == {
        name: type(value) for name, value in plain.config.items()
    }
    assert type(model.config["readout_bias"]) is float
    np.testing.assert_array_equal(model.params.flat, plain.params.flat)
    json.dumps(model.config)


def test_a_model_of_numpy_numbers_is_saved_and_read(tmp_path):
    model = SequenceClassifier(3, 5, 2, seed=np.int64(3), dropout=np.float32(0.5), num_layers=np.int8(2))
    model.save(tmp_path / "w")
    assert SequenceClassifier.load(tmp_path / "w").config == model.config


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32"), np.dtype("float32").type])
def test_a_dtype_in_all_its_forms(dtype):
    layer = GRU(3, 4, dtype=dtype)
    assert layer.dtype == layer.config["dtype"] == "float32"
    assert layer.params["layer0.W"].dtype == np.float32


REFUSED = {
    "bias must be true, false or \"double\", found 1": {"bias": 1},
    "bias must be true, false or \"double\", found 'both'": {"bias": "both"},
    "bias must be true, false or \"double\", found None": {"bias": None},
    "bidirectional must be true or false, found 'False'": {"bidirectional": "False"},
    "bidirectional must be true or false, found 0": {"bidirectional": 0},
    "dropout must be a number, found '0.5'": {"dropout": "0.5"},
    "dropout must be a number, found True": {"dropout": True},
    "dropout must be a number, found None": {"dropout": None},
    "dropout must be finite, found nan": {"dropout": float("nan")},
    "dropout must be at least 0 and below 1, found -0.1": {"dropout": -0.1},
    "hidden_size must be a whole number, found True": {"hidden_size": True},
    "hidden_size must be a whole number, found np.True_": {"hidden_size": np.bool_(True)},
    "hidden_size must be a whole number, found '5'": {"hidden_size": "5"},
    "hidden_size must be a whole number, found 5.0": {"hidden_size": 5.0},
    "hidden_size must be a whole number, found np.float64(5.0)": {"hidden_size": np.float64(5)},
    "hidden_size must be a whole number, found array([5])": {"hidden_size": np.array([5])},
    "hidden_size must be a whole number, found array([[1., 1.], [1., 1.]])": {"hidden_size": np.ones((2, 2))},
    "hidden_size must be at least 1, found 0": {"hidden_size": list(range(1000))},
    "hidden_size must be a whole number, found [1]": {"hidden_size": [[1], [2]]},
    "num_classes must be at least 2, found 1": {"num_classes": 1},
    "seed must be a whole number, found 1.5": {"seed": 1.5},
    "forget_bias must be a number or None, found '1'": {"forget_bias": "1"},
    "forget_bias must be finite, found inf": {"forget_bias": np.inf},
    "forget_bias must be finite": {"forget_bias": 10**400},
    "readout_bias must be a number or None, found array([1.])": {"readout_bias": np.ones(1)},
    "input_projection must be a whole number or None, found 'none'": {"input_projection": "none"},
    "initializer must be text, found 3": {"initializer": 3},
    "unknown initializer 'he'; there are: keras, torch, tf1": {"initializer": "he"},
    "unknown cell 'peephole'; there are: lstm, gru": {"cell": "peephole"},
    "dtype must be a dtype or its name, found <class 'int'>": {"dtype": int},
    "dtype must be a dtype or its name, found 32": {"dtype": 32},
    "unknown dtype 'float16'; there are: float32, float64, complex128": {"dtype": np.float16},
    "unknown read_out 'first'; there are: final_state, last_output, mean, max, each_step": {"read_out": "first"},
    "kernel must be text, found None": {"kernel": None},
    'hold must be numbers by name, like {"f": 1.0}, or None, found \'f=1\'': {"hold": "f=1"},
    'hold must be numbers by name, like {"f": 1.0}, or None, found {}': {"hold": {}},
    "hold must be numbers by name, like {\"f\": 1.0}, or None, found {'f': '1'}": {"hold": {"f": "1"}},
    "hold must be finite, found nan": {"hold": {"f": float("nan")}},
}  # fmt: skip


@pytest.mark.parametrize("message", list(REFUSED))
def test_what_is_refused(message):
    given = {"input_size": 3, "hidden_size": 4, "num_classes": 5} | REFUSED[message]
    with pytest.raises(OptionError) as refused:
        SequenceClassifier(**given)
    assert isinstance(refused.value, ValueError)
    assert isinstance(refused.value, lstm_np.LstmNpError)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200
    (name,) = REFUSED[message]
    if name in options.taken_by(LSTM):
        del given["num_classes"]
        with pytest.raises(ValueError) as refused:
            LSTM(**given)
        assert str(refused.value).startswith(message)


def test_an_option_of_another_cell_is_refused():
    for options_of_lstm in ({"forget_bias": 1.0}, {"forget_bias_at": "run"}):
        (name, value), *_ = options_of_lstm.items()
        for cell in set(LAYERS) - {"lstm"}:
            with pytest.raises(ValueError, match=f"{name} is {value}, but {cell} layers have no {name}"):
                SequenceClassifier(3, 4, 2, cell=cell, **options_of_lstm)
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            GRU(3, 4, **options_of_lstm)
    assert make_layers("gru", {"input_size": 3, "hidden_size": 4, "forget_bias": None}).cell.name == "gru"


# ---- dropout where nothing is dropped


def test_dropout_that_drops_nothing_is_said_once_at_the_users_line():
    for make in (lambda: LSTM(3, 4, dropout=0.5), lambda: SequenceClassifier(3, 4, 2, cell="gru", dropout=0.5)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            subject = make()
            subject.copy(dtype="float64")
        (warning,) = caught
        assert warning.category is OptionWarning
        assert warning.filename == __file__
        assert str(warning.message).startswith("dropout 0.5 drops nothing: it acts between layers, and there is one")


def test_dropout_that_drops_something_is_not():
    for more in ({"num_layers": 2}, {"dropout_outputs": "all"}, {"dropout": 0.0}):
        LSTM(3, 4, **{"dropout": 0.5, **more})


def test_a_file_does_not_say_it_again(tmp_path):
    with pytest.warns(OptionWarning):
        SequenceClassifier(3, 4, 2, dropout=0.5).save(tmp_path / "w")
    SequenceClassifier.load(tmp_path / "w")


# ---- kernels


@pytest.fixture
def invented(monkeypatch):
    """An option that kernels must know, and none of them does."""
    option = Option("invented", "something new", float, None, optional=True, kernel=True)
    monkeypatch.setitem(options.BY_NAME, "invented", option)
    return option


def test_what_a_kernel_must_know_is_what_is_marked_and_not_at_its_default(invented):
    assert options.of_kernel({"hidden_size": 3, "bias": "double", "invented": None}) == {}
    assert options.of_kernel({"hidden_size": 3, "bias": "double", "invented": 2.0}) == {"invented": 2.0}


@pytest.mark.parametrize("name", get_backend("numpy").kernels)  # those of a GPU: tests/gpu/test_kernels_on_host.py
@pytest.mark.parametrize("cell", list(cells.CELLS))
def test_every_kernel_refuses_an_option_that_it_does_not_know(name, cell):
    spec = LayerSpec(cells.get_cell(cell), 3, 4, True, "float32", {"invented": 2.0})
    assert not kernel_class(name).supports(spec, get_backend("numpy"))


def test_no_kernel_at_all_is_said_in_words():
    spec = LayerSpec(cells.get_cell("lstm"), 3, 4, True, "float32", {"invented": 2.0})
    layer = r"a lstm layer of 4 units in float32, invented 2\.0 on the numpy backend"
    with pytest.raises(ValueError, match=f"no kernel runs {layer}"):
        choose_kernel("auto", spec, get_backend("numpy"))
    with pytest.raises(ValueError, match=f"kernel 'fused' does not run {layer}; use --kernel auto"):
        choose_kernel("fused", spec, get_backend("numpy"))


def test_the_public_layers_are_those():
    assert (lstm_np.LSTM, lstm_np.GRU, lstm_np.RNN) == (LSTM, GRU, RNN)
