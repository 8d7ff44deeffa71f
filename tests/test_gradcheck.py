"""The gradient check passes what is right and fails what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np import options
from lstm_np.cells import CELLS, lstm
from lstm_np.gradcheck import COMPLEX_STEP_LIMIT
from lstm_np.kernels import reference
from tests.faults import with_fault

CONFIGURATIONS = 60


def random_layer(case: int) -> tuple[lstm_np.LSTM, dict]:
    """A random configuration: sizes with D != H, B >= 2, T >= 3, options and a dropout key."""
    rng = np.random.default_rng(case)
    D, H = rng.choice(np.arange(1, 7), 2, replace=False).tolist()
    dropping = bool(rng.random() < 0.3)
    with options.silent():  # where there is one layer and dropout between layers
        layer = lstm_np.LSTM(
            D,
            H,
            num_layers=int(rng.integers(1, 4)),
            bias=bool(rng.random() < 0.8),
            bidirectional=bool(rng.random() < 0.4),
            dropout=0.4 if dropping else 0.0,
            dropout_outputs=str(rng.choice(["between", "all"])),
            dropout_mask=str(rng.choice(["step", "sequence"])),
            initializer=str(rng.choice(["keras", "torch"])),
            seed=case,
        )
    shape = {"batch_size": int(rng.integers(2, 4)), "steps": int(rng.integers(3, 6)), "seed": case, "entries": 12}
    return layer, shape | ({"dropout_key": (case,)} if dropping else {})


@pytest.mark.parametrize("case", range(CONFIGURATIONS))
def test_random_configurations_of_the_layer(case):
    layer, settings = random_layer(case)
    report = lstm_np.gradcheck(layer, **settings)
    assert report.ok, str(report)
    assert report.worst_complex_step <= 1e-12


@pytest.mark.parametrize("kernel", ["reference", "auto"])
@pytest.mark.parametrize("read_out", ["final_state", "last_output"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_whole_model(kernel, read_out, bidirectional):
    model = lstm_np.SequenceClassifier(
        5, 3, 4, num_layers=2, bidirectional=bidirectional, read_out=read_out, kernel=kernel
    )
    report = lstm_np.gradcheck(model, steps=3)
    assert report.ok, str(report)
    assert [tensor.name for tensor in report.tensors] == list(model.params)


CELL_FAULTS = {
    "do from the wrong factor": ("dh * tanh_c)", "dh * c_before)"),
    "dh does not reach c": ("dc + dtanh_c * (1", "dc + 0 * dtanh_c * (1"),
    "dc of the later steps dropped": ("dc + dtanh_c * (1", "dtanh_c * (1"),
    "tanh derivative of c without the square": ("(1 - tanh_c * tanh_c)", "(1 - tanh_c)"),
    "dtanh_c through the forget gate": ("dh * o)", "dh * f)"),
    "df with c_t for c_{t-1}": ("dc * c_before", "dc * (f * c_before + i * g)"),
    "di and dg swapped": ("di, df, dg = hold", "dg, df, di = hold"),
    "sigmoid's derivative for g": ("dg * (1 - g * g)", "dg * g * (1 - g)"),
    "input gate's derivative missing": ("da_i, da_f, da_o = di * i * (1 - i)", "da_i, da_f, da_o = di"),
    "forget gate's derivative halved": ("df * f * (1 - f)", "df * f * (1 - f) / 2"),
    "output gate's derivative with the forget gate": ("do * o * (1 - o)", "do * f * (1 - f)"),
    "gates i and f swapped": ("(da_i, da_f, da_o, da_g)", "(da_f, da_i, da_o, da_g)"),
    "gates o and g swapped": ("(da_i, da_f, da_o, da_g)", "(da_i, da_f, da_g, da_o)"),
    "dc passed on without the forget gate": ("(0, dc * f)", "(0, dc)"),
    "dc passed on through the input gate": ("(0, dc * f)", "(0, dc * i)"),
    "dc not passed on": ("(0, dc * f)", "(0, 0 * dc)"),
}

KERNEL_FAULTS = {
    "h_t for h_{t-1} in dU": (
        "xp.concat(saved.inputs, axis=1).T",
        "xp.concat(saved.inputs[1:] + saved.inputs[:1], axis=1).T",
    ),
    "bias gradient missing": ('grads["b"] = dweights[:, D + H]', 'grads["b"] = 0 * dweights[:, D + H]'),
    "upstream dy ignored": ("if dy is not None:", "if False:"),
    "only the last dy counts": ("if dy is not None:", "if dy is not None and t == dy.shape[1] - 1:"),
    "gradient of the final state ignored": ("nothing if part is None else part", "nothing"),
    "nothing flows back through U": ("before[0] + own.U.T @ da", "before[0] + 0 * (own.U.T @ da)"),
    "steps in forward order": ("for t in reversed(range(len(saved.inputs)))", "for t in range(len(saved.inputs))"),
    "dx of the step before": ("das[step.t], dxs[step.t]", "das[step.t], dxs[step.t - 1]"),
    "the state of the step after": ("saved.states[t], saved.values[t]", "saved.states[t - 1], saved.values[t]"),
}


def report_of_a_small_layer() -> lstm_np.GradientReport:
    return lstm_np.gradcheck(lstm_np.LSTM(3, 2, kernel="reference"), entries=8)


@pytest.mark.parametrize("fault", list(CELL_FAULTS))
def test_a_fault_inserted_in_the_cell_fails_the_check(fault, monkeypatch):
    monkeypatch.setitem(CELLS, "lstm", with_fault(lstm, *CELL_FAULTS[fault]))
    assert not report_of_a_small_layer().ok


@pytest.mark.parametrize("fault", list(KERNEL_FAULTS))
def test_a_fault_inserted_in_the_kernel_fails_the_check(fault, monkeypatch):
    broken = with_fault(reference, *KERNEL_FAULTS[fault])
    monkeypatch.setattr(reference, "ReferenceKernel", broken.ReferenceKernel)
    assert not report_of_a_small_layer().ok


def test_without_a_fault_the_same_layer_is_green():
    assert report_of_a_small_layer().ok


def test_the_report_says_which_tensor_is_wrong(monkeypatch):
    monkeypatch.setitem(CELLS, "lstm", with_fault(lstm, "(0, dc * f)", "(0, dc)"))
    report = report_of_a_small_layer()
    text = str(report)
    assert "FAIL" in text
    assert "WRONG" in next(line for line in text.splitlines() if line.startswith("c_0"))
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_nan_gradient_is_not_green(monkeypatch):
    monkeypatch.setitem(CELLS, "lstm", with_fault(lstm, "(0, dc * f)", "(0, dc * f * float('nan'))"))
    assert not report_of_a_small_layer().ok


def test_the_limits_are_those_promised():
    assert COMPLEX_STEP_LIMIT == 1e-12


def test_the_subject_is_not_touched():
    model = lstm_np.SequenceClassifier(3, 2, 2)
    before = model.params.flat.copy()
    lstm_np.gradcheck(model)
    np.testing.assert_array_equal(model.params.flat, before)


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"steps": 0}, {"entries": 0}])
def test_sizes_below_one_are_refused(bad):
    with pytest.raises(ValueError, match="at least 1, found 0"):
        lstm_np.gradcheck(lstm_np.LSTM(3, 2), **bad)


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="a layer or a model, found str"):
        lstm_np.gradcheck("lstm")
