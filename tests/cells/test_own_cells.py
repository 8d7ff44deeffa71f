"""Cells of one's own: what is taken, that everything works with them, and what is refused in which words."""

from __future__ import annotations

import os
import py_compile
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import lstm_np
from lstm_np.cells import BUILT_IN, CELLS, FILES, get_cell, register_cell_file
from lstm_np.gradcheck.own_cell.user_code import load_file
from tests.cells.own_cells import CIFG, PEEPHOLE, TWO_PRODUCTS, changed
from tests.kernels.test_named_values import LIMIT, make_case, worst_error

pytestmark = pytest.mark.quick

OWN = {"cifg": CIFG, "peephole": PEEPHOLE, "two_products": TWO_PRODUCTS}


def module_of(text: str) -> ModuleType:
    module = ModuleType("own")
    exec(compile(text, "own.py", "exec"), module.__dict__)
    return module


@pytest.fixture(autouse=True)
def _no_cell_stays_known():
    yield
    for name in [name for name in CELLS if name not in BUILT_IN]:
        del CELLS[name]
        FILES.pop(name, None)


@pytest.mark.parametrize("bias", [True, False, "double"])
@pytest.mark.parametrize("name", list(OWN))
def test_every_gradient_of_a_layer(name, bias):
    lstm_np.register_cell(name, module_of(OWN[name]))
    layer = lstm_np.Recurrent(3, 4, cell=name, num_layers=2, bidirectional=True, bias=bias, initializer="torch")
    report = lstm_np.gradcheck(layer, steps=3, entries=10)
    assert report.ok, str(report)
    assert report.subject.startswith(f"Recurrent ({name}): D=3 H=4 L=2, bidirectional, ")
    assert {"layer1_reverse.W", "x", "h_0"} <= {tensor.name for tensor in report.tensors}


@pytest.mark.parametrize("initializer", ["keras", "torch", "tf1"])
@pytest.mark.parametrize("name", list(OWN))
def test_a_model_is_checked_trained_saved_and_loaded(name, initializer, tmp_path):
    lstm_np.register_cell(name, module_of(OWN[name]))
    model = lstm_np.SequenceClassifier(3, 4, 2, cell=name, seed=1, initializer=initializer)
    assert lstm_np.gradcheck(model, entries=10).ok
    assert f"{name} layer 0" in model.summary()
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 5, 3)), rng.integers(0, 2, 40)
    x[labels == 1] += 1
    epochs = model.fit(x, labels, epochs=30, optimizer=lstm_np.Adam(model.params, lr=0.02))
    assert epochs[-1].train.loss < 0.7 * epochs[0].train.loss
    model.save(tmp_path / "own.safetensors")
    loaded = lstm_np.SequenceClassifier.load(tmp_path / "own.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))
    assert loaded.config == {**model.config, "kernel": "auto"}


@pytest.mark.parametrize("name", ["peephole"])
def test_the_gradients_of_named_values(name):
    lstm_np.register_cell(name, module_of(OWN[name]))
    assert worst_error(make_case(name)) <= LIMIT


def test_parameters_of_its_own():
    lstm_np.register_cell("peephole", module_of(PEEPHOLE))
    lstm_np.register_cell("two_products", module_of(TWO_PRODUCTS))
    layer = lstm_np.Recurrent(3, 4, cell="peephole")
    assert layer.params.shapes == {
        "layer0.W": (16, 3), "layer0.U": (16, 4), "layer0.b": (16,),
        "layer0.p_i": (4,), "layer0.p_f": (4,), "layer0.p_o": (4,), "layer0.shift": (4,),
    }  # fmt: skip
    assert (layer.params["layer0.shift"] == 0).all()
    assert (layer.params["layer0.p_i"] != 0).all()
    assert (layer.params["layer0.b"] == np.repeat([0, 1, 0, 0], 4)).all()
    without = lstm_np.Recurrent(3, 4, cell="peephole", bias=False)
    assert list(without.params) == [f"layer0.{name}" for name in ("W", "U", "p_i", "p_f", "p_o")]
    assert lstm_np.Recurrent(3, 4, cell="two_products").params["layer0.gain"].shape == (8,)
    double = lstm_np.Recurrent(3, 4, cell="two_products", bias="double")
    assert list(double.params) == [f"layer0.{name}" for name in ("W", "U", "b", "b_h", "gain")]


def test_any_object_can_be_a_cell():
    module = module_of(CIFG)
    names = ("GATES", "STATE", "VALUES", "forward", "backward")
    cell = lstm_np.register_cell("cifg", SimpleNamespace(**{name: vars(module)[name] for name in names}))
    assert (cell.name, cell.gates, cell.state, cell.holds) == ("cifg", ("f", "o", "g"), ("h", "c"), False)

    class Own:
        GATES, STATE, VALUES = module.GATES, module.STATE, module.VALUES
        forward, backward = staticmethod(module.forward), staticmethod(module.backward)

    lstm_np.register_cell("cifg", Own)
    assert lstm_np.gradcheck(lstm_np.Recurrent(3, 4, cell="cifg"), entries=8).ok


def test_a_name_of_ones_own_may_be_registered_again():
    lstm_np.register_cell("cifg", module_of(CIFG))
    before = lstm_np.Recurrent(2, 3, cell="cifg", kernel="reference")
    lstm_np.register_cell("cifg", module_of(changed(CIFG, ("h = o * xp.tanh(c)", "h = o * xp.tanh(c) * 0 + 7"))))
    after = lstm_np.Recurrent(2, 3, cell="cifg")
    x = np.ones((1, 2, 2))
    assert (before.forward(x)[0] < 1).all()
    assert (after.forward(x)[0] == 7).all()


def test_a_wrong_cell_fails_its_check_by_name():
    lstm_np.register_cell("cifg", module_of(changed(CIFG, ("(0, dc * f)", "(0, dc)"))))
    report = lstm_np.gradcheck(lstm_np.Recurrent(3, 4, cell="cifg"))
    assert not report.ok
    assert not next(tensor for tensor in report.tensors if tensor.name == "c_0").ok


def test_a_file_that_names_an_unknown_cell_is_refused_and_nothing_is_imported(tmp_path, monkeypatch):
    (tmp_path / "cifg.py").write_text(CIFG + "\nimport pathlib\npathlib.Path('was_run').touch()\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    lstm_np.register_cell("cifg", module_of(CIFG))
    lstm_np.SequenceClassifier(3, 4, 2, cell="cifg").save("own.safetensors")
    del CELLS["cifg"]
    with pytest.raises(lstm_np.WeightsError, match="its cell 'cifg' is not known here; register it first: "):
        lstm_np.SequenceClassifier.load("own.safetensors")
    assert not (tmp_path / "was_run").exists()
    assert "cifg" not in sys.modules
    register_cell_file("cifg.py")
    assert (tmp_path / "was_run").exists()
    assert lstm_np.SequenceClassifier.load("own.safetensors").config["cell"] == "cifg"


def test_an_unknown_cell_is_refused():
    with pytest.raises(ValueError, match=r"unknown cell 'mine'; there are: lstm, gru, .*lstm_np\.register_cell"):
        lstm_np.Recurrent(3, 4, cell="mine")
    with pytest.raises(ValueError, match="unknown cell 'mine'; there are: lstm, gru, "):
        lstm_np.SequenceClassifier(3, 4, 2, cell="mine")
    with pytest.raises(TypeError, match="unexpected keyword argument 'cell'"):
        lstm_np.LSTM(3, 4, cell="gru")
    assert lstm_np.Recurrent(3, 4).cell.name == "lstm"


def test_the_names_of_lstm_np_are_taken():
    for name in BUILT_IN:
        with pytest.raises(lstm_np.CellError, match=f"'{name}' is a cell of lstm_np; choose another name"):
            lstm_np.register_cell(name, module_of(CIFG))
    for name in ("my cell", "", 3, "1st"):
        with pytest.raises(lstm_np.CellError, match="a cell's name must be a Python identifier such as 'my_lstm'"):
            lstm_np.register_cell(name, module_of(CIFG))


BAD = {
    "has no VALUES: a cell declares GATES, STATE, VALUES": (CIFG, ("VALUES = ", "VALUE = ")),
    "has no forward: ": (CIFG, ("def forward(", "def forwards(")),
    "GATES must be a tuple of different names, found ('f', 'f', 'g')": (CIFG, (
        'GATES = ("f", "o", "g")', 'GATES = ("f", "f", "g")')),
    "GATES must be a tuple of different names, found 3": (CIFG, ('GATES = ("f", "o", "g")', "GATES = 3")),
    "the first part of STATE must be 'h', the hidden state; found 'c'": (CIFG, ('("h", "c")', '("c", "h")')),
    "forward must be a function, found 3": (CIFG, ("def backward(", "forward = 3\n\n\ndef backward(")),
    "an own parameter is a vector with a name other than W, U, b, b_h": (PEEPHOLE, ('"p_i": ("H",),', '"W": ("H",),')),
    "and a shape like (\"H\",) or (\"2H\",), found 'p_i': ('D',)": (PEEPHOLE, ('"p_i": ("H",),', '"p_i": ("D",),')),
    "BIASES a tuple of some of the names; found": (PEEPHOLE, ('BIASES = ("shift",)', 'BIASES = ("b",)')),
    "PRODUCTS must be a dict like {'m': ('n', 'b_n')}": (TWO_PRODUCTS, ('("n", "b_v")}', '("k", "b_v")}')),
    "found 'v': ('n', 'gain')": (TWO_PRODUCTS, ('("n", "b_v")}', '("n", "gain")}')),
    "must be the last of GATES, found ('m', 'n')": (TWO_PRODUCTS, ('("z", "m", "n")', '("m", "n", "z")')),
    "forward failed: NameError: name 'oops' is not defined": (CIFG, ("h = o * xp.tanh(c)", "h = oops")),
    "forward must return (state, values), that is tuple, dict; found ndarray, ndarray": (CIFG, (
        'return (h, c), {"f": f, "o": o, "g": g, "c": c, "h": h}', "return h, c")),
    "forward must give the state in the parts of STATE, h, c; found 1 parts": (CIFG, (
        "return (h, c),", "return (h,),")),
    "forward must give the values of f, o, g, c, h; found f, o, g, c": (CIFG, (
        '"g": g, "c": c, "h": h}', '"g": g, "c": c}')),
    "forward must give the state h as float32 (3, 2), found float32 (2,)": (CIFG, (
        "return (h, c),", "return (h[0], c),")),
    "forward must give the state c as float32 (3, 2), found float64 (3, 2)": (CIFG, (
        "return (h, c),", 'return (h, c.astype("float64")),')),
    "forward must give the value f as float32 (3, 2), found a int": (CIFG, ('{"f": f, "o": o', '{"f": 1, "o": o')),
    "backward must return (da, dstate_before, gradients), that is ndarray, tuple, dict; found ndarray, tuple": (CIFG, (
        '(0, dc * f), {"f": df, "o": do, "g": dg, "c": dc, "h": dh}', "(0, dc * f)")),
    "backward must give the array da as float32 (9, 2), found float32 (6, 2)": (CIFG, (
        ", dg * (1 - g * g)), axis=0)", "), axis=0)")),
    "backward must give the gradient of the state before, c as float32 (3, 2), found a int": (CIFG, (
        "return da, (0, dc * f)", "return da, (0, 0)")),
    "backward must give the state in the parts of STATE, h, c; found 1 parts": (CIFG, ("(0, dc * f)", "(dc * f,)")),
    "backward must give the gradients of f, o, g, c, h; found f, o": (CIFG, (
        '{"f": df, "o": do, "g": dg, "c": dc, "h": dh}', '{"f": df, "o": do}')),
    "backward must give the gradients of i, f, o, g, c, h, p_i, p_f, p_o, shift; found i": (PEEPHOLE, (
        ', "shift": dc}', "}")),
    "backward must give the gradient of gain as float32 (6, 2), found float32 (3, 2)": (TWO_PRODUCTS, (
        '"gain": dgain', '"gain": dv')),
    "forward must make each of PRODUCTS once, found 1 calls": (TWO_PRODUCTS, ("u = times_u(xp.tanh(v))", "u = v * 1")),
    "forward takes hold, but g of VALUES and what goes through hold are not the same": (PEEPHOLE, (
        'g = hold("g", xp.tanh(a_g))', "g = xp.tanh(a_g)")),
}  # fmt: skip


@pytest.mark.parametrize("message", list(BAD))
def test_bad_cells_are_refused_in_one_line(message):
    text, *changes = BAD[message]
    with pytest.raises(lstm_np.CellError) as refused:
        lstm_np.register_cell("mine", module_of(changed(text, *changes)))
    assert str(refused.value).startswith("cell 'mine'")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "mine" not in CELLS


def test_an_edited_cell_of_lstm_np_is_refused_in_words_when_a_layer_is_made(monkeypatch):
    monkeypatch.setattr(CELLS["lstm"], "forward", lambda xp, a, state: (state, {}))
    with pytest.raises(
        lstm_np.CellError, match="cell 'lstm': forward must give the values of i, f, o, g, c, tanh_c, h"
    ):
        lstm_np.LSTM(3, 4)


def test_a_file_is_registered_under_its_name(tmp_path):
    path = tmp_path / "cifg.py"
    path.write_text("from __future__ import annotations\nimport dataclasses\n" + CIFG, encoding="utf-8")
    assert register_cell_file(path).name == "cifg"
    assert FILES["cifg"] == path
    assert get_cell("cifg").gates == ("f", "o", "g")
    lstm_np.register_cell("cifg", module_of(CIFG))
    assert "cifg" not in FILES


@pytest.mark.parametrize(("load", "module"), [(register_cell_file, "lstm_np_cell_cifg"), (load_file, "checked_cifg")])
def test_an_edit_of_the_same_second_and_size_is_seen(tmp_path, monkeypatch, load, module):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path, found = tmp_path / "cifg.py", []
    for number in (1, 2):
        path.write_text(f"NUMBER = {number}\n" + CIFG, encoding="utf-8")
        os.utime(path, (1e9, 1e9))
        if number == 1:  # as an import of the file leaves it
            py_compile.compile(os.fspath(path))
        load(path)
        found.append(sys.modules[module].NUMBER)
    assert found == [1, 2]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cifg.txt", CIFG, r"cifg\.txt: no such Python file; a cell is one like "),
        ("cifg.py", "def forward(:\n", r"cifg\.py: the file does not run \(SyntaxError: .*line 1"),
        ("cifg.py", "import nothing_of_that_name\n", r"the file does not run \(ModuleNotFoundError: No module named"),
        ("cifg.py", "raise SystemExit(3)\n", r"the file does not run \(SystemExit: 3\)"),
        ("my-cell.py", CIFG, "a cell's name must be a Python identifier such as 'my_lstm', found 'my-cell'"),
        ("lstm.py", CIFG, "'lstm' is a cell of lstm_np; choose another name for your own"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(lstm_np.CellError, match=message) as refused:
        register_cell_file(tmp_path / name)
    assert "\n" not in str(refused.value)
    with pytest.raises(lstm_np.CellError, match="no such Python file"):
        register_cell_file(tmp_path / "other.py")
