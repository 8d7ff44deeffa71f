"""Every sum that is printed is the engine's number, for every value of every cell, forward and backward."""

from __future__ import annotations

import pytest

import lstm_np
from lstm_np.explain import arithmetic
from lstm_np.explain.arithmetic import NoArithmeticError, backward_sums, forward_sums
from lstm_np.explain.samples import trace_of
from tests.explain.support import digit, make_trained
from tests.faults import with_fault

CASES = {
    "lstm": {},
    "gru": {"cell": "gru"},
    "gru, reset before": {"cell": "gru_reset_before"},
    "rnn": {"cell": "rnn"},
    "rnn, relu": {"cell": "rnn_relu"},
    "stack in both directions": {"num_layers": 2, "bidirectional": True},
    "stack of GRU, last output": {
        "cell": "gru",
        "num_layers": 2,
        "bidirectional": True,
        "read_out": "last_output",
        "bias": "double",
    },
    "input projection": {"input_projection": 5},
    "no bias": {"bias": False, "cell": "gru"},
}


def worst(trained, module=arithmetic) -> float:
    """The largest difference of a sum from the engine's number, relative to the sum of the absolute values."""
    trace, found = trace_of(trained, digit(1)), 0.0
    for layer, reverse in trace.layers:
        for name in trace.values:
            for t in range(trace.steps):
                where = {"layer": layer, "reverse": reverse, "t": t, "unit": t % trace.units}
                sums = module.forward_sums(trained.model, trace, name, **where)
                assert sums[-1].engine == trace.value(name, layer=layer, reverse=reverse)[0, t, where["unit"]]
                back = module.backward_sums(trained.model, trace, name, **where)
                assert back[0].engine == trace.gradient(name, layer=layer, reverse=reverse)[0, t, where["unit"]]
                for each in [*sums, *back]:
                    found = max(found, abs(each.total - each.engine) / max(each.size, 1e-12))
    return found


@pytest.mark.parametrize("case", list(CASES))
def test_every_sum_is_the_engines_number(case):
    assert worst(make_trained(**CASES[case])) < 1e-13


FAULTS = {
    "c from the new state": ("lstm", '("f * c_{t-1}", value("f"), self.before("c"))', '("", value("f"), value("c"))'),
    "h of this step in a pre-activation": (
        "lstm",
        '[0, self.t + int(self.reverse)]\n            terms += _products("h[#]"',
        '[0, self.t + 1 - int(self.reverse)]\n            terms += _products("h[#]"',
    ),
    "dc of this step": ("lstm", 'self.gradient("c", self.next), self', 'self.gradient("c"), self'),
    "nothing from the read-out": ("lstm", "if self.t != read:", "if True:"),
    "rows of U for columns": ("rnn", "U[rows : rows + H, unit], da", "U[rows + unit, :], da"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_inserted_in_the_sums_is_found(fault):
    case, text, changed = FAULTS[fault]
    assert not worst(make_trained(**CASES[case]), with_fault(arithmetic, text, changed)) < 1e-6


def test_all_terms_are_there():
    trained = make_trained()
    trace = trace_of(trained, digit(0))
    summed, applied = forward_sums(trained.model, trace, "f", t=3, unit=2)
    assert len(summed.terms) == 8 + 6 + 1
    assert (summed.title, applied.title) == ("a_f = W_f x_t + U_f h_{t-1} + b_f", "f = sigmoid(a_f)")
    assert [term.label for term in summed.terms[:2]] == ["x[0]", "x[1]"]
    first, second = backward_sums(trained.model, trace, "f", t=3, unit=2)
    assert (first.title, second.title) == ("df = dc * c_{t-1}", "da_f = df * f * (1 - f)")
    (of_h,) = backward_sums(trained.model, trace, "h", t=3, unit=2)
    assert len(of_h.terms) == 4 * 6
    (last,) = backward_sums(trained.model, trace, "h", t=7, unit=2)
    assert (last.title, len(last.terms)) == ("dh = W_out^T dlogits", 10)


def test_what_is_not_written_out_is_said_in_a_line():
    trained = make_trained()
    trace = trace_of(trained, digit(0))
    with pytest.raises(NoArithmeticError, match=r"steps are 0 \.\.\. 7 and units 0 \.\.\. 5, found step 8 and unit 0"):
        forward_sums(trained.model, trace, "f", t=8, unit=0)
    with pytest.raises(lstm_np.TraceError, match="a lstm cell has no 'q' here"):
        forward_sums(trained.model, trace, "q", t=0, unit=0)
    for settings in ({"cell_clip": 1.0}, {"hold": {"f": 1.0}}):
        other = make_trained(**settings)
        with pytest.raises(NoArithmeticError, match="whose values are held or clipped is not written out"):
            forward_sums(other.model, trace_of(other, digit(0)), "f", t=0, unit=0)
