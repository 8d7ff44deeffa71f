"""Statistics and workloads."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import figures, workloads
from benchmarks.workloads import Case

positive = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30)


@settings(deadline=None, max_examples=50)
@given(positive)
def test_quartiles_are_numpys(values):
    found = figures.spread(values)
    assert np.allclose([found.q1, found.median, found.q3], np.quantile(values, [0.25, 0.5, 0.75]))
    assert found.best == min(values)


@settings(deadline=None, max_examples=50)
@given(positive, st.floats(1e-3, 1e3))
def test_the_geometric_mean_follows_a_factor_and_lies_between(values, factor):
    mean = figures.geometric_mean(values)
    assert min(values) * (1 - 1e-9) <= mean <= max(values) * (1 + 1e-9)
    assert math.isclose(figures.geometric_mean([factor * v for v in values]), factor * mean, rel_tol=1e-9)


def test_the_exponent_of_a_power_is_found():
    sizes = [32, 64, 128, 1024]
    assert math.isclose(figures.exponent(sizes, [3e-3 * size**1.7 for size in sizes]), 1.7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: figures.quantile([], 0.5), "no measurements"),
        (lambda: figures.geometric_mean([1.0, 0.0]), "positive"),
        (lambda: figures.exponent([128, 128], [1.0, 1.1]), "two different sizes"),
        (lambda: workloads.parse_case("B=128"), "at least B and H"),
        (lambda: workloads.parse_case("B=128,H=0"), "'H=0'"),
        (lambda: workloads.parse_case("B=1,B=2,H=3"), "'B=2'"),
        (lambda: workloads.parse_case("B=1,H=2,gru,rnn"), "'rnn'"),
        (lambda: workloads.parse_case("stream,B=2,H=2"), "one sequence"),
    ],
)
def test_bad_input_is_one_clear_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_times_in_words():
    assert [figures.in_words(s) for s in (1.5, 0.01234, 3.2e-4, 5e-8)] == ["1.50 s", "12.3 ms", "320 µs", "50 ns"]


def test_a_case_is_parsed_and_the_grid_is_whole():
    assert workloads.parse_case("train,B=16,H=64,T=7,L=2") == [Case("train", 16, 64, 7, 2)]
    assert workloads.parse_case("B=1,H=2") == [Case("train", 1, 2), Case("infer", 1, 2)]
    assert workloads.parse_case("infer,gru,both,B=1,H=2,D=1") == [Case("infer", 1, 2, D=1, cell="gru", directions=2)]
    assert workloads.parse_case("stream,B=1,H=2") == [Case("stream", 1, 2)]
    assert len(set(workloads.grid_cases())) == 2 * 4 * 6
    assert len(workloads.quick_cases()) == 4
    everything = workloads.full_cases()
    assert len(set(everything)) == len(everything)
    for mode in ("train", "infer"):
        others = [case for case in everything if case.mode == mode and case not in workloads.grid_cases()]
        assert {"gru", "rnn"} < {case.cell for case in others}
        assert {1, 2} == {case.directions for case in others}
        assert {(784, 1), (784, 28)} < {(case.T, case.D) for case in others}
        assert any(case.L == 2 for case in others)
    assert {case.H for case in everything if case.mode == "stream"} == {16, 40, 128}


def test_flops_are_the_textbooks():
    T, B, H, D = 28, 128, 128, 28
    assert Case("train", B, H).flops == 8 * T * B * H * (3 * H + 2 * D)
    assert Case("infer", B, H).flops == 8 * T * B * H * (D + H)
    assert Case("infer", B, H, cell="gru", directions=2).flops == 2 * 6 * T * B * H * (D + H)
    assert Case("infer", B, H, L=2, directions=2).flops == 2 * 8 * T * B * H * (D + H + 2 * H + H)
    assert Case("stream", 1, H).flops == 8 * H * (D + H)


def test_weights_and_batches_are_the_same_bits_each_time():
    case = Case("train", 3, 5, 2, 2)
    first, second = (workloads.digest(workloads.make_weights(case), workloads.make_batches(case)) for _ in range(2))
    assert first == second
    weights = workloads.make_weights(case)
    assert weights["layer1.W"].shape == (20, 5)
    both = workloads.make_weights(Case("train", 3, 5, 2, 2, cell="gru", directions=2))
    assert both["layer1_reverse.W"].shape == (15, 10)
    assert both["layer0.b_h"].shape == (15,)
    assert both["readout.W"].shape == (10, 10)
    assert all(a.dtype == np.float32 and np.abs(a).max() <= 5**-0.5 for a in weights.values())
    # the first words of Philox under this key, whatever the version of NumPy
    assert workloads.uniform(2, "pinned").tolist() == [0.997205376625061, 0.1767544150352478]


def test_gates_are_reordered():
    assert workloads.reorder_gates(np.arange(8), "ifgo").tolist() == [0, 1, 2, 3, 6, 7, 4, 5]
    assert workloads.reorder_gates(np.arange(3), "zrn", "rzn").tolist() == [1, 0, 2]
