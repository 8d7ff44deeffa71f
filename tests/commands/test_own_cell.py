"""--cell FILE: a cell of one's own through all commands."""

from __future__ import annotations

import json

import pytest

from lstm_np.cells import BUILT_IN, CELLS, FILES
from tests.cells.own_cells import CIFG, changed

TRAIN = ["--dataset", "digits", "--epochs", "1", "--max-steps", "3", "--hidden-size", "6", "--threads", "1"]


@pytest.fixture(autouse=True)
def _no_cell_stays_known():
    yield
    forget_all()


def forget_all():
    """As in a new process."""
    for name in [name for name in CELLS if name not in BUILT_IN]:
        del CELLS[name]
        FILES.pop(name, None)


def test_check_train_evaluate_predict(invoke, tmp_path):
    path = tmp_path / "my cells" / "cifg.py"
    path.parent.mkdir()
    path.write_text(CIFG, encoding="utf-8")
    checked = invoke("gradcheck", "--cell", path)
    assert checked.status == 0
    assert "Recurrent (cifg): D=4 H=5 L=1, B=3 T=4, kernel reference, numpy" in checked.out
    assert "SequenceClassifier (cifg): " in checked.out
    trained = invoke("train", *TRAIN, "--cell", path, "--out", "run")
    assert trained.status == 0, trained.err
    assert f"next    python -m lstm_np.evaluate run --cell '{path}'\n" in trained.out
    assert (tmp_path / "run" / "cifg.py").read_text(encoding="utf-8") == CIFG
    forget_all()
    for command, flags in (("evaluate", ()), ("predict", ("--index", 0))):
        refused = invoke(command, "run", *flags)
        assert refused.status == 2
        assert refused.err == (
            f"{command}: run/weights.safetensors: its cell 'cifg' is not known here; register it first: "
            "lstm_np.register_cell('cifg', ...), or --cell cifg.py on the command line\n"
        )
        assert "cifg" not in CELLS
        result = invoke(command, "run", *flags, "--cell", "run/cifg.py", "--json")
        assert result.status == 0, result.err
        assert json.loads(result.out)
        forget_all()


def test_the_cell_of_other_weights(invoke, trained, tmp_path):
    (tmp_path / "cifg.py").write_text(CIFG, encoding="utf-8")
    result = invoke("evaluate", trained, "--cell", "cifg.py")
    assert result.status == 2
    assert result.err == f"evaluate: {trained}/weights.safetensors: its cell is 'lstm', --cell gives 'cifg'\n"


def test_a_wrong_cell_is_found(invoke, tmp_path):
    wrong = changed(CIFG, ("dg = dc * (c_before - g)", "dg = dc * g"))
    (tmp_path / "cifg.py").write_text(wrong, encoding="utf-8")
    result = invoke("gradcheck", "--cell", "cifg.py", "--configurations", 2)
    assert result.status == 1
    assert "the worst of 2 random configurations, 2 of which fail" in result.out


@pytest.mark.parametrize("command", ["train", "gradcheck", "evaluate", "predict"])
def test_bad_cells_are_refused_in_one_line(invoke, command, tmp_path):
    (tmp_path / "cifg.py").write_text(CIFG.replace("VALUES", "NAMES"), encoding="utf-8")
    more = ("--index", 0) if command == "predict" else ()
    for cell, message in (
        ("cifg.py", "cell 'cifg' has no VALUES: a cell declares GATES, STATE, VALUES and has the functions forward and "
         "backward (lstm_np/cells/lstm.py is one)"),
        ("other.py", "other.py: no such Python file; a cell is one like lstm_np/cells/lstm.py"),
        ("other", "must be one of lstm, gru, gru_reset_before, rnn, rnn_relu or a .py file, found 'other'"),
    ):  # fmt: skip
        result = invoke(command, "--cell", cell, *more)
        assert result.status == 2
        assert result.out == ""
        assert result.err == f"{command}: argument --cell: {message} (--help lists the flags)\n"
