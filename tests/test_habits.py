"""What people from NumPy, PyTorch, Keras or scikit-learn expect: copies, pickles, lists, calls, `repr`, `fit`."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import re
import subprocess
import sys
from types import FunctionType, ModuleType

import numpy as np
import pytest

import lstm_np
from lstm_np import Position, SequenceClassifier, other_names
from lstm_np.data import Batches
from lstm_np.display import tables
from lstm_np.layers import recurrent
from lstm_np.optimizers import OPTIMIZERS
from tests.cells.own_cells import CIFG

RNG = np.random.default_rng(0)
X, LABELS = RNG.standard_normal((20, 4, 3)), RNG.integers(0, 3, 20)

LAYERS = {
    "lstm": lambda: lstm_np.LSTM(3, 5, num_layers=2, bidirectional=True, dropout=0.25, seed=3),
    "double bias": lambda: lstm_np.LSTM(3, 5, bias="double", forget_bias_at="run", dtype="float64"),
    "gru": lambda: lstm_np.GRU(3, 5, reset="before"),
    "rnn": lambda: lstm_np.RNN(3, 5, nonlinearity="relu", bias=False),
    "any cell": lambda: lstm_np.Recurrent(3, 5, cell="gru", kernel="reference"),
    "two cores": lambda: lstm_np.LSTM(3, 5, backend=lstm_np.get_backend("numpy", threads=2)),
}
WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "oldest pickle": lambda thing: pickle.loads(pickle.dumps(thing, protocol=2)),
}


class Small(lstm_np.LSTM):
    """A class of one's own, whose constructor has other arguments."""

    def __init__(self):
        super().__init__(3, 5)


def own_cell():
    module = ModuleType("own")
    exec(CIFG, vars(module))
    return module


@pytest.fixture(params=list(WAYS))
def again(request):
    """Each way to copy a thing."""
    return WAYS[request.param]


def trained(**options):
    model = SequenceClassifier(3, 5, 3, num_layers=2, dropout=0.5, seed=2, **options)
    model.fit(X, LABELS, epochs=2, batch_size=8)
    model.notes = {"classes": ["a", "b", "c"]}
    return model


# ---- copies and pickles


@pytest.mark.parametrize("name", list(LAYERS))
def test_a_layer_is_copied(name, again):
    layer = LAYERS[name]()
    layer.params.flat[...] = RNG.standard_normal(layer.params.flat.shape)
    layer.remark = ["mine"]
    other = again(layer)
    assert type(other) is type(layer)
    assert other.config == layer.config
    assert other.remark == ["mine"]
    assert other.backend.cores == layer.backend.cores
    assert list(other.params) == list(layer.params)
    np.testing.assert_array_equal(other.params.flat, layer.params.flat)
    for single in other.singles:  # the views are those of the one vector
        assert all(np.shares_memory(array, other.params.flat) for array in single.params.values())
    y, _, cache = layer.forward(X)
    y_other, _, cache_other = other.forward(X)
    np.testing.assert_array_equal(y_other, y)
    for one, same in zip(layer.backward(cache, y)[2].values(), other.backward(cache_other, y)[2].values(), strict=True):
        np.testing.assert_array_equal(one, same)
    other.params.flat[...] = 0
    assert (layer.params.flat != 0).all()


def test_a_copied_model_goes_on_as_the_model_does(again):
    model = trained()
    model.remark = "mine"
    other = again(model)
    assert (other.config, other.notes, other.remark) == (model.config, model.notes, "mine")
    assert other.position == model.position == Position(2, 0, 6)
    assert np.shares_memory(other.recurrent.params.flat, other.params.flat)
    histories = [one.fit(X, LABELS, epochs=2, batch_size=8) for one in (model, other)]
    assert histories[0] == histories[1]
    np.testing.assert_array_equal(other.params.flat, model.params.flat)
    other.params.flat[...] = 0
    assert (model.params["readout.W"] != 0).any()


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "oldest pickle"])
@pytest.mark.parametrize("kind", list(OPTIMIZERS))
def test_an_optimizer_stays_its_models(kind, way):
    model = trained()
    settings = {"betas": (0.8, 0.9)} if kind.startswith("adam") else {"momentum": 0.5}
    optimizer = OPTIMIZERS[kind](model.params, lr=0.01, **settings)
    model.fit(X, LABELS, batch_size=8, optimizer=optimizer)
    other, others = WAYS[way]((model, optimizer))
    assert others.params is other.params
    assert repr(others) == repr(optimizer)
    for one, its in ((model, optimizer), (other, others)):
        one.fit(X, LABELS, batch_size=8, optimizer=its)
    np.testing.assert_array_equal(other.params.flat, model.params.flat)
    for name, slot in optimizer.slots.items():
        np.testing.assert_array_equal(others.slots[name], slot)
        assert others.slots[name] is not slot


def test_an_optimizer_that_is_copied_alone_updates_parameters_of_its_own(again):
    layer = LAYERS["lstm"]()
    optimizer = lstm_np.Adam(layer.params)
    before, other = layer.params.flat.copy(), again(optimizer)
    other.step(other.params.like(np.ones_like(before)))
    assert (other.steps, optimizer.steps) == (1, 0)
    if again is not copy.copy:  # which shares what it refers to, as everywhere in Python
        np.testing.assert_array_equal(layer.params.flat, before)


def test_parameters_are_copied(again):
    params = LAYERS["gru"]().params
    other = again(params)
    assert type(other) is lstm_np.Parameters
    assert other.shapes == params.shapes
    np.testing.assert_array_equal(other.flat, params.flat)
    other["layer0.b"] = 7.0
    assert (other.flat == 7).sum() == 15
    assert not (params.flat == 7).any()
    assert other.backend is params.backend or other.backend.name == params.backend.name


def test_a_model_of_a_cell_of_ones_own_is_unpickled_where_the_cell_is_known():
    lstm_np.register_cell("cifg", own_cell())
    try:
        model = SequenceClassifier(3, 5, 3, cell="cifg")
        pickled = pickle.dumps(model)
        np.testing.assert_array_equal(pickle.loads(pickled).logits(X), model.logits(X))
    finally:
        del lstm_np.cells.CELLS["cifg"]
    with pytest.raises(lstm_np.LstmNpError, match="unknown cell 'cifg'"):
        pickle.loads(pickled)


def test_a_pickle_is_read_by_another_process(tmp_path):
    model = trained()
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "x.npy", X)
    code = (
        "import pickle, numpy as np; model = pickle.load(open('model.pickle', 'rb')); "
        "np.save('logits.npy', model.logits(np.load('x.npy'))); print(model.position)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Position(epoch=2, batch=0, step=6)\n", "")
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), model.logits(X))


def test_what_a_constructor_makes_is_made_anew():
    """All other attributes are kept as they are, so only what a copy must not share has to be listed."""
    assert set(vars(LAYERS["lstm"]())) >= recurrent.MADE
    assert set(vars(SequenceClassifier(3, 5, 3))) >= lstm_np.model.network.MADE
    model = trained()
    for thing in (model, model.recurrent):
        others = copy.deepcopy(thing)
        for name in vars(thing):
            own, other = getattr(thing, name), getattr(others, name)
            if not isinstance(own, (int, float, str, tuple, type(None), type(len), lstm_np.Backend, Position)):
                assert (own is other) is isinstance(own, FunctionType), name


def test_a_class_of_ones_own_is_copied(again):
    layer = Small()
    other = again(layer)
    assert type(other) is Small
    np.testing.assert_array_equal(other(X)[0], layer(X)[0])


def test_batches_and_a_backend_are_copied(again):
    batches = Batches(X, LABELS, 8, seed=5)
    other = again(batches)
    for (x, labels), (same, those) in zip(batches.epoch(3), other.epoch(3), strict=True):
        np.testing.assert_array_equal(x, same)
        np.testing.assert_array_equal(labels, those)
    backend = lstm_np.get_backend("numpy", threads=3)
    assert again(backend).cores == 3
    assert copy.deepcopy(backend) is backend


def test_a_history_and_a_report_are_copied(again):
    history = trained().fit(X, LABELS, validation_split=0.25)
    assert again(history) == history
    report = lstm_np.gradcheck(lstm_np.RNN(2, 3), entries=2)
    assert again(report) == report


# ---- what a thing is called


CALLS = {
    "LSTM(3, 5, num_layers=2, bidirectional=True, dropout=0.25, seed=3)": LAYERS["lstm"],
    "LSTM(3, 5, bias='double', forget_bias_at='run', dtype='float64')": LAYERS["double bias"],
    "GRU(3, 5, reset='before')": LAYERS["gru"],
    "RNN(3, 5, nonlinearity='relu', bias=False)": LAYERS["rnn"],
    "Recurrent(3, 5, cell='gru', kernel='reference')": LAYERS["any cell"],
    "SequenceClassifier(3, 5, 4)": lambda: SequenceClassifier(3, 5, np.int64(4)),
    "SequenceClassifier(3, 5, 4, cell='gru', input_projection=2)": lambda: SequenceClassifier(
        3, 5, 4, cell="gru", input_projection=2
    ),
}


@pytest.mark.parametrize("call", list(CALLS))
def test_repr_is_the_call_that_makes_it(call):
    made = CALLS[call]()
    assert repr(made) == call
    assert eval(call, vars(lstm_np)).config == made.config


def test_repr_says_what_a_thing_is():
    model = SequenceClassifier(3, 5, 3)
    assert repr(model.params).splitlines()[0] == "Parameters of 198 values, float32, numpy backend"
    assert "  readout.W  (3, 5)" in repr(model.params).splitlines()
    assert repr(lstm_np.RMSProp(model.params, momentum=0.5)) == (
        "RMSProp(lr=0.01, alpha=0.99, eps=1e-08, momentum=0.5, form='torch') over 198 values, 0 steps made"
    )
    assert repr(model.recurrent.singles[0]) == "<layer0: lstm(3, 5), float32, kernel fused>"
    assert repr(Batches(X, LABELS, 8)) == "<3 batches of 8, shuffle, of float64 (20, 4, 3) as float32>"
    assert repr(lstm_np.get_backend("numpy", threads=2)).startswith("<numpy backend: 2 cores (the user), kernels ")
    report = lstm_np.gradcheck(lstm_np.RNN(2, 3), entries=2)
    assert repr(report) == str(report)


def test_no_public_thing_is_an_address():
    model = trained()
    history = model.fit(X, LABELS)
    things = [
        model, model.recurrent, model.params, model.backend, model.position, history, history[0], history[0].train,
        lstm_np.Adam(model.params), lstm_np.register_cell("own", own_cell()), lstm_np.data.load_digits(),
        Batches(X, LABELS, 8), lstm_np.gradcheck(lstm_np.RNN(2, 3), entries=2), model.recurrent.singles[0],
    ]  # fmt: skip
    del lstm_np.cells.CELLS["own"]
    for thing in things:
        assert not re.search(r" at 0x|<function|object at", repr(thing)), type(thing)
        assert len(repr(thing)) < 2000


SHOWN = {"model": trained, "layer": LAYERS["lstm"], "history": lambda: trained().fit(X, LABELS)}


@pytest.mark.parametrize("name", list(SHOWN))
def test_a_notebook_shows_a_table(name):
    thing = SHOWN[name]()
    html = thing._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 1
    assert html.count("<tr>") == html.count("</tr>") > 1
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    assert len({row.count("</t") for row in rows}) == 1  # as many entries in each
    if not isinstance(thing, lstm_np.History):
        assert repr(thing).replace("'", "&#x27;") in html


def test_html_is_escaped():
    html = tables.html_table("<b>", ["a", "b"], [["<script>", "&"]], note="1 < 2")
    assert "<script>" not in html
    assert '<td style="text-align:left">&lt;script&gt;</td>' in html
    assert "1 &lt; 2" in html


def test_full_signatures():
    for layer in (lstm_np.LSTM, lstm_np.GRU, lstm_np.RNN, lstm_np.Recurrent, SequenceClassifier):
        kinds = {parameter.kind for parameter in inspect.signature(layer).parameters.values()}
        assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
        assert "hidden_size" in inspect.signature(layer).parameters


# ---- calls


@pytest.mark.parametrize("name", list(LAYERS))
def test_calling_a_layer_gives_y_and_state(name):
    layer = LAYERS[name]()
    y, state, cache = layer.forward(X)
    y_called, state_called = layer(X)
    tolerance = 1e-12 if layer.dtype == "float64" else 1e-6
    np.testing.assert_allclose(y_called, y, rtol=tolerance, atol=tolerance)
    y_next, _ = layer(X, state)
    np.testing.assert_allclose(y_next, layer.forward(X, state_called)[0], rtol=tolerance, atol=tolerance)
    assert cache is not None


def test_nothing_is_kept_where_no_backward_follows():
    layer = LAYERS["lstm"]()
    y, _, cache = layer.forward(X, save=False)
    assert cache is None
    np.testing.assert_allclose(y, layer.forward(X)[0], rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"^backward takes the cache of a forward pass, found None, as a forward with"):
        layer.backward(cache, y)
    with pytest.raises(ValueError, match=r"found a ndarray$"):
        layer.backward(y, y)
    with pytest.raises(ValueError, match="save must be true or false, found 1"):
        layer.forward(X, save=1)


# ---- numbers and lists


def test_lists_are_arrays():
    layer, model = lstm_np.LSTM(3, 5, dtype="float64"), SequenceClassifier(3, 5, 3, dtype="float64")
    y, (h, c), cache = layer.forward(X)
    np.testing.assert_array_equal(layer.forward(X.tolist(), [h.tolist(), c.tolist()])[0], layer.forward(X, (h, c))[0])
    assert layer.backward(cache, y.tolist(), [h.tolist(), None])[0].shape == X.shape
    x, labels = X.tolist(), LABELS.tolist()
    for method in ("predict", "predict_proba", "logits"):
        np.testing.assert_array_equal(getattr(model, method)(x), getattr(model, method)(X))
    assert model.evaluate(x, labels) == model.evaluate(X, LABELS)
    assert model.loss_and_gradients(x, labels)[0] == model.loss_and_gradients(X, LABELS)[0]
    model.params["readout.b"] = [1, 2, 3]
    model.params = {name: array.tolist() for name, array in model.params.items()}
    assert model.params["readout.b"].tolist() == [1, 2, 3]
    optimizer = lstm_np.SGD(model.params, lr=1.0)
    optimizer.step({name: np.ones(shape).tolist() for name, shape in model.params.shapes.items()})
    assert model.params["readout.b"].tolist() == [0, 1, 2]
    assert len(Batches(x, labels, 8)) == 3


@pytest.mark.parametrize("cell", [lstm_np.GRU, lstm_np.RNN])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_state_of_one_part_in_all_its_forms(cell, layers):
    layer = cell(3, 5, num_layers=layers)
    h = RNG.standard_normal((layers, 20, 5))
    expected = layer.forward(X, h)[0]
    for state in ((h,), [h], h.tolist(), [h.tolist()], (h.tolist(),)):
        np.testing.assert_array_equal(layer.forward(X, state)[0], expected)
    _, _, cache = layer.forward(X)
    assert layer.backward(cache, None, [None])[0].shape == X.shape


def test_numbers_of_numpy_are_numbers():
    params = SequenceClassifier(3, 5, 3).params
    for optimizer in (
        lstm_np.Adam(params, lr=np.float32(0.5), betas=[np.float64(0.5), 0], eps=np.float32(0.25)),
        lstm_np.SGD(params, np.int64(1), momentum=np.float32(0.5), nesterov=np.True_),
        lstm_np.RMSProp(params, lr=np.float64(0.1), alpha=np.float32(0.5), momentum=np.int8(0)),
    ):
        for name in ("lr", *optimizer.settings):
            value = getattr(optimizer, name)
            parts = value if isinstance(value, tuple) else (value,)
            assert all(type(part) in (float, bool, str) for part in parts), name
        optimizer.lr = np.float32(0.125)
        assert type(optimizer.lr) is float
    assert lstm_np.get_backend("numpy", threads=np.int64(2)).cores == 2
    assert Batches(X, LABELS, np.int32(8)).batch_size == 8
    report = lstm_np.gradcheck(lstm_np.RNN(2, 3), batch_size=np.int64(2), steps=np.int8(3), entries=np.uint8(2))
    assert report.ok


def test_truth_values_are_classes():
    model = SequenceClassifier(3, 5, 2)
    assert model.evaluate(X, LABELS > 0) == model.evaluate(X, (LABELS > 0).astype(int))


NO_ARRAYS = {
    "x must be numbers, found text, such as ['a']": [[["a", "b", "c"]]],
    "x must be numbers, found an array of dtype object": [[[None, 1, 2]]],
    "x is a list of unequal lengths": [[[1, 2, 3]], [[1, 2]]],
    "sequence 1 is a list of unequal lengths": [[[1, 2, 3]], [[1, 2], [4, 5, 6]]],
    "x is a masked array with 1 masked entries, whose mask would be lost": np.ma.masked_invalid([[[np.nan, 1.0, 2.0]]]),
    "x must be numbers, found a NoneType": None,
    "x must be numbers, found a dict": {},
    "x must have shape (B, T, 3) with B, T >= 1, found ()": 3.0,
    "x must have shape (B, T, 3) with B, T >= 1, found (0,)": [],
    "x must have shape (B, T, 3) with B, T >= 1, found (3,)": X[0, 0],
}


@pytest.mark.parametrize("message", list(NO_ARRAYS))
@pytest.mark.parametrize("method", ["forward", "logits", "predict", "evaluate", "fit", "loss_and_gradients"])
def test_what_is_no_array_is_refused_in_words(method, message):
    subject = lstm_np.LSTM(3, 5) if method == "forward" else SequenceClassifier(3, 5, 3)
    labels = (LABELS[:1],) if method in ("evaluate", "fit", "loss_and_gradients") else ()
    with pytest.raises(ValueError) as refused:
        getattr(subject, method)(NO_ARRAYS[message], *labels)
    assert str(refused.value).replace(", or (T, 3)", "").startswith(message)
    assert "\n" not in str(refused.value)


def test_a_mask_that_hides_nothing_is_no_mask():
    assert lstm_np.LSTM(3, 5)(np.ma.masked_invalid(X))[0].shape == (20, 4, 5)


PARAMS = SequenceClassifier(3, 5, 3).params
REFUSED = {
    "lr must be a number, found '0.1'": lambda: lstm_np.Adam(PARAMS, lr="0.1"),
    "lr must be a number, found True": lambda: lstm_np.SGD(PARAMS, lr=True),
    "lr must be at least 0, found -1": lambda: setattr(lstm_np.SGD(PARAMS), "lr", -1),
    "lr must be at least 0, found nan": lambda: setattr(lstm_np.SGD(PARAMS), "lr", float("nan")),
    "betas must be two numbers, found 0.9": lambda: lstm_np.Adam(PARAMS, betas=0.9),
    "betas[1] must be a number, found None": lambda: lstm_np.Adam(PARAMS, betas=(0.9, None)),
    "nesterov must be true or false, found 'yes'": lambda: lstm_np.SGD(PARAMS, momentum=0.9, nesterov="yes"),
    "threads must be a whole number of at least 1, found '2'": lambda: lstm_np.get_backend("numpy", threads="2"),
    "threads must be a whole number of at least 1, found 1.5": lambda: lstm_np.get_backend("numpy", threads=1.5),
    "batch_size must be a whole number, found 2.5": lambda: lstm_np.gradcheck(lstm_np.RNN(2, 3), batch_size=2.5),
    "found batch size 2.5, expected a whole number of at least 1": lambda: Batches(X, LABELS, 2.5),
    "labels must be numbers, found text, such as ['a']": lambda: SequenceClassifier(3, 5, 3).evaluate(X, ["a"] * 20),
    "parameter 'readout.b' must be numbers, found a dict": lambda: PARAMS.update({"readout.b": {}}),
    "parameter 'readout.b' is float32, found complex numbers": lambda: PARAMS.update({"readout.b": [1j, 0, 0]}),
    "parameter 'readout.b' has shape (3,), found (1,)": lambda: PARAMS.update({"readout.b": [1.0]}),
    "the gradient of readout.b must be numbers, found a NoneType": lambda: lstm_np.SGD(PARAMS).step(
        {**PARAMS, "readout.b": None}
    ),
}


@pytest.mark.parametrize("message", list(REFUSED))
def test_what_is_refused(message):
    with pytest.raises(ValueError) as refused:
        REFUSED[message]()
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.fit(X, LABELS, optimizer="adam"), r"optimizer must be one such as lstm_np.Adam\(model.params"),
        (lambda m: m.fit(X, LABELS, on_epoch=3), "on_epoch must be a function of an Epoch, found 3"),
        (lambda m: setattr(m, "params", [1, 2]), "params must be arrays by name, found list"),
    ],
)
def test_what_is_of_another_kind_altogether(call, message):
    model = SequenceClassifier(3, 5, 3)
    with pytest.raises(TypeError, match=message):
        call(model)
    assert model.position == Position()


# ---- names of other libraries


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (make, name)
        for make in (lstm_np.LSTM, lstm_np.GRU, lstm_np.RNN, SequenceClassifier)
        for name in other_names.ARGUMENTS
        if (make, name) != (SequenceClassifier, "stateful")  # which it has
    ],
)
def test_an_argument_of_another_library_is_refused_with_a_hint(make, name):
    if name in inspect.signature(make).parameters:
        return  # it is an option of layers, though not of models
    sizes = (3, 5, 2)[: 3 if make is SequenceClassifier else 2]
    with pytest.raises(TypeError) as refused:
        make(*sizes, **{name: True})
    assert str(refused.value) == f"{make.__name__} has no argument {name!r}: {other_names.ARGUMENTS[name]}"
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        make(*sizes, no_such=True)


@pytest.mark.parametrize("name", ["num_classes", "class_weight", "class_weights", "label_smoothing", "ignored_label"])
def test_an_argument_of_the_other_kind_of_models_is_refused_with_a_hint(name):
    with pytest.raises(TypeError, match=f"^SequenceRegressor has no argument '{name}': it is "):
        lstm_np.SequenceRegressor(3, 5, **{name: [1, 2]})


@pytest.mark.parametrize("method", ["fit", "evaluate", "loss_and_gradients"])
@pytest.mark.parametrize("name", list(other_names.OF_METHODS))
def test_an_argument_of_a_method_in_another_library_is_refused_with_a_hint(method, name):
    model = SequenceClassifier(3, 5, 3)
    with pytest.raises(TypeError) as refused:
        getattr(model, method)(X, **{name: LABELS})
    assert str(refused.value) == f"{method} has no argument {name!r}: {other_names.OF_METHODS[name]}"
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        getattr(model, method)(X, LABELS, no_such=True)
    for other in re.findall(r"it is called (\w+)", other_names.OF_METHODS[name]):
        assert other in inspect.signature(getattr(model, method)).parameters


@pytest.mark.parametrize("make", [lambda: lstm_np.LSTM(3, 5), lambda: SequenceClassifier(3, 5, 2)])
@pytest.mark.parametrize("name", list(other_names.ATTRIBUTES))
def test_an_attribute_of_another_library_is_refused_with_a_hint(make, name):
    with pytest.raises(AttributeError) as refused:
        getattr(make(), name)
    assert str(refused.value).endswith(f"has no attribute {name!r}: {other_names.ATTRIBUTES[name]}")
    assert not hasattr(make(), "no_such")
    with pytest.raises(AttributeError, match=r"object has no attribute 'parms'$"):
        _ = make().parms


def test_hints_name_what_there_is():
    """Names of ours within the hints exist."""
    layer, model = lstm_np.LSTM(3, 5), SequenceClassifier(3, 5, 2)
    for hint in (*other_names.ARGUMENTS.values(), *other_names.ATTRIBUTES.values()):
        for name in re.findall(r"it is called (\w+)", hint):
            assert name in lstm_np.options.BY_NAME, hint
        for name in re.findall(r"\b(copy|params|fit|forward|backward)\b", hint):
            assert hasattr(model, name) or hasattr(layer, name), hint
    assert lstm_np.load == lstm_np.model.SequenceModel.load


# ---- fit as in Keras


def test_the_last_part_is_held_out_unshuffled():
    split, given = SequenceClassifier(3, 5, 3), SequenceClassifier(3, 5, 3)
    history = split.fit(X, LABELS, epochs=2, batch_size=4, validation_split=0.3)
    expected = given.fit(X[:14], LABELS[:14], epochs=2, batch_size=4, validation_data=(X[14:], LABELS[14:]))
    assert history == expected
    assert history[-1].validation.count == 6
    np.testing.assert_array_equal(split.params.flat, given.params.flat)


def test_the_parts_are_those_of_keras():
    """floor(N (1 - split)) samples are trained on: the numbers that keras.Model.fit gives."""
    cases = [(20, 0.1, 18), (10, 0.33, 6), (7, 0.5, 3), (3, 0.01, 2), (9, np.float32(0.5), 4)]
    for samples, split, trained_on in cases:
        model = SequenceClassifier(3, 5, 3)
        (epoch,) = model.fit(X[:samples], LABELS[:samples], validation_split=split)
        assert (epoch.train.count, epoch.validation.count) == (trained_on, samples - trained_on)


BAD_SPLITS = {
    "validation_split must be at least 0 and below 1, found 1.0": {"validation_split": 1.0},
    "validation_split must be at least 0 and below 1, found -0.1": {"validation_split": -0.1},
    "validation_split must be a number, found '0.1'": {"validation_split": "0.1"},
    "validation_split must be a number, found True": {"validation_split": True},
    "validation_split 0.99 of 20 samples leaves none on one side": {"validation_split": 0.99},
    "give validation_data or validation_split, not both": {
        "validation_split": 0.5,
        "validation_data": (X, LABELS),
    },
    'verbose must be "auto", 0, 1 or 2, found 3': {"verbose": 3},
    "verbose must be \"auto\", 0, 1 or 2, found 'yes'": {"verbose": "yes"},
    'verbose must be "auto", 0, 1 or 2, found None': {"verbose": None},
    "shuffle must be true or false, found 'False'": {"shuffle": "False"},
}


@pytest.mark.parametrize("message", list(BAD_SPLITS))
def test_bad_arguments_of_fit_are_refused_before_any_work(message):
    model = SequenceClassifier(3, 5, 3)
    with pytest.raises(ValueError) as refused:
        model.fit(X, LABELS, **BAD_SPLITS[message])
    assert str(refused.value) == message
    assert model.position == Position()


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Notebook(io.StringIO):
    __module__ = "ipykernel.iostream"


def shown(monkeypatch, stream, **how):
    """What `fit` writes to a stream."""
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(tables, "SECONDS_BETWEEN_DRAWINGS", 0.0)
    model = SequenceClassifier(3, 5, 3)
    history = model.fit(X, LABELS, epochs=2, batch_size=8, **how)
    monkeypatch.undo()
    return history, stream.getvalue()


@pytest.mark.parametrize("split", [0.0, 0.4])
@pytest.mark.parametrize("verbose", [1, 2, True, np.int64(2)])
def test_a_line_per_epoch(monkeypatch, verbose, split):
    history, text = shown(monkeypatch, io.StringIO(), verbose=verbose, validation_split=split)
    assert text == f"{history}\n"


def test_a_terminal_shows_where_the_epoch_stands(monkeypatch):
    history, text = shown(monkeypatch, Terminal(), verbose="auto")
    assert re.search(r"\repoch 1/2   batch 2/3   loss \d\.\d{4}   accuracy \d+\.\d\d%", text)
    left = [line.split("\r")[-1] for line in text.split("\n")]  # what is on the screen in the end
    assert "\n".join(left) == f"{history}\n"
    assert all(len(part) < 80 for part in re.split("[\r\n]", text))
    assert shown(monkeypatch, Terminal(), verbose=2)[1].count("\r") == 0


@pytest.mark.parametrize(("stream", "lines"), [(Notebook, 4), (io.StringIO, 0)])
def test_who_watches_is_shown_it_and_nobody_else(monkeypatch, stream, lines):
    assert shown(monkeypatch, stream())[1].count("\n") == lines
    assert shown(monkeypatch, stream(), verbose=0)[1] == ""
    assert shown(monkeypatch, stream(), verbose=False)[1] == ""


def test_what_is_shown_changes_no_bit(monkeypatch):
    models = []
    for verbose in (0, 1):
        monkeypatch.setattr(sys, "stdout", Terminal())
        models.append(SequenceClassifier(3, 5, 3))
        models[-1].fit(X, LABELS, epochs=2, batch_size=8, verbose=verbose)
        monkeypatch.undo()
    np.testing.assert_array_equal(models[0].params.flat, models[1].params.flat)


def test_training_goes_on_without_a_reader(monkeypatch):
    class Full(Terminal):
        def write(self, text):
            raise OSError(28, "No space left on device")

    for stream in (Full(), None):
        monkeypatch.setattr(sys, "stdout", stream)
        history = SequenceClassifier(3, 5, 3).fit(X, LABELS, epochs=2, verbose=1)
        monkeypatch.undo()
        assert len(history) == 2


def test_the_line_is_taken_away_when_training_fails(monkeypatch):
    model, stream = SequenceClassifier(3, 5, 3), Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(tables, "SECONDS_BETWEEN_DRAWINGS", 0.0)

    def fail(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABELS, batch_size=8, on_epoch=fail)
    monkeypatch.undo()
    assert stream.getvalue().split("\n")[-1].split("\r")[-1] == ""
