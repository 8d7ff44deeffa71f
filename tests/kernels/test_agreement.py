"""What is read is what runs: a fast kernel notices that the cell it stands for was edited, and gives way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lstm_np
from lstm_np.backends import get_backend
from lstm_np.cells import CELLS, get_cell, lstm
from lstm_np.kernels import KERNELS, KernelWarning, LayerSpec, agreement, choose_kernel
from lstm_np.kernels.cpu.fused import NumpyFusedKernel, NumpyLeanKernel
from lstm_np.kernels.gpu.fused import CudaFusedKernel
from lstm_np.kernels.reference import ReferenceKernel
from tests.cells.test_gru_rnn import FAULTS
from tests.faults import with_faults
from tests.test_gradcheck import CELL_FAULTS

PACKAGE = Path(lstm_np.__file__).parent
# the forget gate taken out, rightly in both directions
NO_FORGET_GATE = (
    ("f * c_before + i * g)", "c_before + i * g)"),
    ('hold("f", dc * c_before)', 'hold("f", 0 * dc)'),
    ("(0, dc * f)", "(0, dc)"),
)
EDITS = {
    **{fault: ("other gradients", CELL_FAULTS[fault]) for fault in CELL_FAULTS},
    "no forget gate": ("other outputs", ("f * c_before + i * g)", "c_before + i * g)")),
    "coupled gates": ("other outputs", ("i * g)  #", "(1 - f) * g)  #")),
    "candidate with a sigmoid": ("other outputs", ('hold("g", xp.tanh(', 'hold("g", sigmoid(xp, ')),
    "h without tanh": ("other outputs", ('hold("tanh_c", xp.tanh(c))', 'hold("tanh_c", c)')),
    "another sigmoid": ("other outputs", ("xp.tanh(a / 2)", "xp.tanh(a / 2.0001)")),
    "gates in another order": ("other outputs", ("a[0 * H : 1 * H, :]", "a[3 * H : 4 * H, :]")),
    "c cut off at 10": ("other outputs", ("f * c_before + i * g)", "xp.clip(f * c_before + i * g, -10, 10))")),
    "c cut off at 500": ("other outputs", ("f * c_before + i * g)", "xp.clip(f * c_before + i * g, -500, 500))")),
    "dh cut off at 5": ("other gradients", ('hold("h", dstate[0])', 'hold("h", xp.clip(dstate[0], -5, 5))')),
    "another name": ("other gates, state or parameters", ('("i", "f", "o", "g")\nS', '("i", "f", "o", "n")\nS')),
}


@pytest.fixture
def edited(monkeypatch):
    """Put an edited cells/lstm.py in place of the one that is read."""

    def edit(*changes: tuple[str, str]) -> None:
        monkeypatch.setitem(CELLS, "lstm", with_faults(lstm, *changes))

    return edit


@pytest.mark.parametrize("kernel", [NumpyFusedKernel, NumpyLeanKernel, CudaFusedKernel])
def test_nothing_was_edited(kernel):
    assert agreement.difference(kernel, get_cell("lstm")) is None


def test_the_numbers_that_stand_with_the_gpu_kernels_are_those_of_the_cell():
    expected = agreement.step_results(ReferenceKernel, get_cell("lstm"), agreement.HOST)
    np.testing.assert_allclose(CudaFusedKernel.computes[0].results, expected, rtol=1e-12)
    assert (np.abs(expected) > 1e-4).all()  # relative errors mean something


@pytest.mark.parametrize("kernel", [NumpyFusedKernel, CudaFusedKernel])
@pytest.mark.parametrize("edit", list(EDITS))
def test_every_edit_is_noticed(edit, kernel, edited):
    expected, change = EDITS[edit]
    edited(change)
    assert agreement.difference(kernel, get_cell("lstm")) == expected


@pytest.mark.parametrize(
    "change",
    [
        ("    do, dtanh_c = ", "    # a remark\n    do, dtanh_c = "),
        ("f * c_before + i * g)", "i * g + f * c_before)"),
        ("(1 - tanh_c * tanh_c)", "(1 - tanh_c) * (1 + tanh_c)"),
    ],
)
def test_the_same_equations_written_otherwise_are_the_same(change, edited):
    edited(change)
    assert lstm_np.LSTM(3, 4).kernel_names == ("fused",)


def test_a_function_that_the_cell_calls_counts_as_well(monkeypatch):
    assert lstm_np.LSTM(3, 4).kernel_names == ("fused",)
    monkeypatch.setattr(lstm, "sigmoid", lambda xp, a: (1 + xp.tanh(a)) / 2)
    with pytest.warns(KernelWarning):
        assert lstm_np.LSTM(3, 4).kernel_names == ("reference",)
    monkeypatch.undo()
    assert lstm_np.LSTM(3, 4).kernel_names == ("fused",)


def test_auto_gives_way_and_says_so(edited):
    edited(*NO_FORGET_GATE)
    with pytest.warns(KernelWarning) as said:
        layer = lstm_np.LSTM(3, 4, num_layers=2)
    line = "cell 'lstm' as it is now is not the one in kernel 'fused' (other outputs): kernel 'reference' runs it"
    assert {str(warning.message) for warning in said} == {line}
    assert layer.kernel_names == ("reference", "reference")


@pytest.mark.parametrize("kernel", ["fused", "lean"])
def test_a_kernel_that_is_asked_for_is_refused(edited, kernel):
    edited(*NO_FORGET_GATE)
    message = (
        f"cell 'lstm' as it is now is not the one in kernel '{kernel}' \\(other outputs\\); use --kernel reference"
    )
    with pytest.raises(ValueError, match=message):
        lstm_np.SequenceClassifier(3, 4, 2, kernel=kernel)


def test_other_cells_are_no_matter_of_an_edit(edited):
    edited(*NO_FORGET_GATE)
    assert lstm_np.GRU(3, 4).kernel_names == ("fused",)


# what was edited in other cells: the faults of their gradients that their own test inserts, and other outputs
OTHER_EDITS = {
    **{(name, fault): ("other gradients", FAULTS[name][fault]) for name in FAULTS for fault in FAULTS[name]},
    ("gru", "z keeps the new state"): ("other outputs", FAULTS["gru"]["z keeps the new state"]),
    ("gru", "r and z swapped"): ("other outputs", ("a[0 * H : 1 * H, :]", "a[1 * H : 2 * H, :]")),
    ("gru", "another name"): ("other gates, state or parameters", ('("r", "z", "n")\nS', '("q", "z", "n")\nS')),
    ("gru", "no reset of the bias"): ("other outputs", ("H, :] + r * m)", "H, :] + m)")),
    ("gru_reset_before", "the reset gate twice"): ("other outputs", ("r * h_before)  #", "r * r * h_before)  #")),
    ("rnn", "another nonlinearity"): ("other outputs", ("xp.tanh(a)", "xp.sin(a)")),
    ("rnn_relu", "leaky"): ("other outputs", ("xp.zeros_like(a))", "0.01 * a)")),
}


@pytest.mark.parametrize("cell", list(FAULTS))
def test_nothing_was_edited_in_other_cells(cell):
    assert agreement.difference(NumpyFusedKernel, get_cell(cell)) is None


@pytest.mark.parametrize(("cell", "edit"), list(OTHER_EDITS))
def test_every_edit_of_another_cell_is_noticed(cell, edit, monkeypatch):
    expected, change = OTHER_EDITS[cell, edit]
    monkeypatch.setitem(CELLS, cell, with_faults(CELLS[cell], change))
    assert agreement.difference(NumpyFusedKernel, get_cell(cell)) == expected


@pytest.mark.filterwarnings("ignore::lstm_np.kernels.KernelWarning")
def test_the_gradient_check_of_an_edited_cell(edited):
    edited(*NO_FORGET_GATE)
    report = lstm_np.gradcheck(lstm_np.LSTM(3, 4))
    assert report.ok, str(report)
    edited(*NO_FORGET_GATE[:2])
    report = lstm_np.gradcheck(lstm_np.LSTM(3, 4))
    assert not report.ok
    assert report.same_cell
    assert "c_0" in {tensor.name for tensor in report.tensors if not tensor.ok}
    assert "FAIL: at least one gradient is wrong" in str(report)


def test_the_gradient_check_of_a_kernel_that_computes_another_cell(monkeypatch):
    """One that was not noticed when the layer was made: its loss says so, and its gradients are not blamed."""

    class Other(NumpyFusedKernel):
        computes = CudaFusedKernel.computes

        def forward(self, params, x, state, **flags):
            return super().forward(params, 1.01 * x, state, **flags)

    module = type(sys)("other")
    module.Other = Other
    monkeypatch.setitem(sys.modules, "other_kernels", module)
    monkeypatch.setitem(KERNELS, "fused", ("other_kernels", "Other"))
    report = lstm_np.gradcheck(lstm_np.LSTM(3, 4))
    assert not report.ok
    assert not report.same_cell
    assert "FAIL: this kernel computes another cell than the one that is read" in str(report)
    assert all(len(line) <= 80 for line in str(report).splitlines())
    assert lstm_np.gradcheck(lstm_np.LSTM(3, 4, kernel="reference")).ok


def test_nan_is_no_other_cell(edited):
    edited(("f * c_before + i * g)", "f * c_before + i * g * float('nan'))"))
    with pytest.warns(KernelWarning):
        report = lstm_np.gradcheck(lstm_np.LSTM(3, 4))
    assert report.same_cell
    assert not report.ok


def test_it_starts_no_worker_and_needs_no_large_layer():
    spec = LayerSpec(get_cell("lstm"), agreement.D, agreement.H, True, "float64")
    kernel = NumpyFusedKernel(spec, agreement.HOST)
    state = (np.zeros((agreement.H, agreement.B)),) * 2
    _, _, saved = kernel.forward(
        {"W": np.zeros((8, 1)), "U": np.zeros((8, 2)), "b": np.zeros(8)}, np.zeros((1, 1, agreement.B)), state
    )
    assert len(saved.acquire().cut.parts) == 1
    assert choose_kernel("auto", spec, get_backend("numpy")).name == "fused"


# ---- as a student does it: the file itself is edited, and the commands are run


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Three copies of the package: as it is, with a right edit, and with a wrong one."""
    folder = tmp_path_factory.mktemp("student")
    for name, changes in (("untouched", ()), ("right", NO_FORGET_GATE), ("wrong", NO_FORGET_GATE[:2])):
        shutil.copytree(PACKAGE, folder / name / "lstm_np", ignore=shutil.ignore_patterns("__pycache__"))
        path = folder / name / "lstm_np" / "cells" / "lstm.py"
        text = path.read_text(encoding="utf-8")
        for old, new in changes:
            assert text.count(old) == 1
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    return folder


def run(tree: Path, command: str, *flags: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-P", "-m", f"lstm_np.{command}", *flags]
    return subprocess.run(arguments, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def test_an_edited_file_is_what_trains(copies):
    flags = ["--dataset", "digits", "--epochs", "1", "--hidden-size", "8", "--threads", "1", "--json"]
    flags += ["--limit-train", "200"]
    before, after = (run(copies / name, "train", *flags) for name in ("untouched", "right"))
    assert (before.returncode, after.returncode) == (0, 0), after.stderr
    losses = [json.loads(result.stdout)["test_loss"] for result in (before, after)]
    assert losses[0] != losses[1]
    line = (
        "train: cell 'lstm' as it is now is not the one in kernel 'fused' (other outputs): kernel 'reference' runs it"
    )
    assert line in after.stderr.splitlines()
    assert "is not the one in kernel" not in before.stderr
    refused = run(copies / "right", "train", *flags, "--kernel", "fused")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        "train: cell 'lstm' as it is now is not the one in kernel 'fused' (other outputs); "
        "use --kernel reference or auto"
    )


def test_an_edited_file_is_what_is_checked(copies):
    right, wrong = (run(copies / name, "gradcheck", "--threads", "1") for name in ("right", "wrong"))
    assert right.returncode == 0, right.stdout
    assert right.stderr.count("kernel 'reference' runs it") == 1
    assert right.stdout.count("PASS: every gradient agrees") == 2
    assert wrong.returncode == 1
    assert "FAIL: at least one gradient is wrong" in wrong.stdout
    wrong_ones = {line.split()[0] for line in wrong.stdout.splitlines() if line.endswith("WRONG")}
    assert {"c_0", "layer0.W", "x"} <= wrong_ones
