"""A right cell is never accused: every convention, order of the gates, seed, size and dtype."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import lstm_np
from lstm_np.gradcheck.own_cell.file import check_file
from tests.gradcheck.inserted import LEARNERS

FILES = sorted(path.name for path in LEARNERS.glob("*.py"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "settings", [{}, {"dtype": "float32"}, {"batch_size": 2, "steps": 3, "hidden_size": 3, "input_size": 4, "seed": 1}]
)
def test_every_convention(name, settings):
    checked = check_file(LEARNERS / name, **settings)
    assert checked.status == 0, [str(report) for report in checked.reports if not report]
    assert all(report.standard for report in checked.reports)
    assert all(line.error <= 1e-7 for report in checked.reports for line in report.gradients) or settings.get("dtype")


def lstm(order, *, joint=None, inward=True, time=None):
    """A right LSTM with its gates in an order, batch-first or columns, W and U or one matrix on [h, x] or [x, h]."""

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    def turn(array):
        return array if inward else array.T  # within, a row is a sample

    def step_forward(x, h, c, W, U, b):
        x, h, c = turn(x), turn(h), turn(c)
        a = dict(zip(order, np.split(x @ turn(W) + h @ turn(U) + turn(b), 4, axis=1), strict=True))
        i, f, o, g = sigmoid(a["i"]), sigmoid(a["f"]), sigmoid(a["o"]), np.tanh(a["g"])
        c_t = f * c + i * g
        return turn(o * np.tanh(c_t)), turn(c_t), (x, h, c, W, U, i, f, o, g, c_t)

    def step_backward(dh, dc, cache):
        x, h, c, W, U, i, f, o, g, c_t = cache
        dh, tanh_c = turn(dh), np.tanh(c_t)
        dc = turn(dc) + dh * o * (1 - tanh_c**2)
        da = {
            "i": dc * g * i * (1 - i),
            "f": dc * c * f * (1 - f),
            "o": dh * tanh_c * o * (1 - o),
            "g": dc * i * (1 - g * g),
        }
        da = np.hstack([da[gate] for gate in order])
        db = da.sum(axis=0) if inward else da.sum(axis=0)[:, None]
        dx, dh_prev = da @ turn(W).T, da @ turn(U).T
        return turn(dx), turn(dh_prev), turn(dc * f), turn(x.T @ da), turn(h.T @ da), db

    def split(W, n):
        first, second = np.split(turn(W), [n])
        return (turn(first), turn(second)) if joint == "xh" else (turn(second), turn(first))

    def joint_forward(x, h, c, W, b):
        D, H = (x.shape[1], h.shape[1]) if inward else (len(x), len(h))
        return step_forward(x, h, c, *split(W, D if joint == "xh" else H), b)

    def joint_backward(dh, dc, cache):
        dx, dh_prev, dc_prev, dW, dU, db = step_backward(dh, dc, cache)
        parts = (dW, dU) if joint == "xh" else (dU, dW)
        return dx, dh_prev, dc_prev, np.concatenate(parts, axis=0 if inward else 1), db

    return (joint_forward, joint_backward) if joint else (step_forward, step_backward)


ORDERS = ["".join(order) for order in itertools.permutations("ifog")]


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_the_gates_is_found(order):
    k = ORDERS.index(order)
    forward, backward = lstm(order, joint=(None, "hx", "xh")[k % 3], inward=k % 2 == 0)
    report = lstm_np.check_cell(forward, backward, hidden_size=3, steps=1, batch_size=2, seed=k)
    assert report.ok, str(report)
    assert f"its gates stand as {', '.join(order)}" in report.forward
    if k % 3:
        assert ("its inputs stand as h, x", "its inputs stand as x, h")[k % 3 - 1] in report.arrays


@pytest.mark.parametrize("seed", range(10))
def test_seeds(seed):
    forward, backward = lstm("ifog")
    assert lstm_np.check_cell(forward, backward, hidden_size=4, steps=2, batch_size=2, seed=seed).ok


def peephole_forward(x, h, c, W, U, b, p):
    """No LSTM of lstm_np: f sees c, and i is 1 - f."""
    f, g, o = np.split(W @ x + U @ h + b, 3)
    f, g, o = 1 / (1 + np.exp(-(f + p * c))), np.tanh(g), 1 / (1 + np.exp(-o))
    c_t = f * c + (1 - f) * g
    return o * np.tanh(c_t), c_t, (x, h, c, W, U, p, f, g, o, c_t)


def peephole_backward(dh, dc, cache):
    x, h, c, W, U, p, f, g, o, c_t = cache
    dc = dc + dh * o * (1 - np.tanh(c_t) ** 2)
    da_f = dc * (c - g) * f * (1 - f)
    da = np.vstack((da_f, dc * (1 - f) * (1 - g**2), dh * np.tanh(c_t) * o * (1 - o)))
    dp = (da_f * c).sum(axis=1, keepdims=True)
    return W.T @ da, U.T @ da, dc * f + da_f * p, da @ x.T, da @ h.T, da.sum(axis=1, keepdims=True), dp


def test_a_cell_of_one_s_own_is_checked_against_its_own_derivative():
    report = lstm_np.check_cell(peephole_forward, peephole_backward, shapes={"p": ("H", "1")})
    assert report.ok
    assert not report.standard
    assert report.forward.startswith("not the standard LSTM")
    assert "checked against its own derivative" in report.forward


def test_a_wrong_gradient_of_such_a_cell_is_located():
    def backward(dh, dc, cache):
        dx, dh_prev, dc_prev, dW, dU, db, dp = peephole_backward(dh, dc, cache)
        H = len(dp)
        dU = dU.copy()
        dU[H : 2 * H] *= 1.01
        return dx, dh_prev, dc_prev, dW, dU, 3 * db, dp

    report = lstm_np.check_cell(peephole_forward, backward, shapes={"p": ("H", "1")})
    wrong = {line.name: line.where for line in report.gradients if not line.ok}
    assert wrong == {"dU": "block 2 of 3, every step", "db": "every block, every step"}
    assert [reason.text for reason in report.reasons] == ["db is 3 times what it should be."]
    assert report.unexplained == ("dU",)


def test_forward_that_takes_no_complex_numbers_is_checked_by_differences():
    forward, backward = lstm("ifog")

    def real_forward(x, h, c, W, U, b):
        result = np.empty((2, *h.shape))
        result[0], result[1], cache = forward(x, h, c, W, U, b)
        return result[0], result[1], cache

    report = lstm_np.check_cell(real_forward, backward, hidden_size=3, steps=1)
    assert report.ok
    assert report.method == "central differences"
    assert "forward takes no complex numbers: test_right_cells.py line" in report.checked


def test_a_forward_that_drops_the_imaginary_part_is_noticed():
    forward, backward = lstm("ifog")

    def dropping(x, h, c, W, U, b):
        h_t, c_t, cache = forward(x.real, h, c, W, U, b)
        return h_t, c_t, cache

    report = lstm_np.check_cell(dropping, backward, hidden_size=3, steps=1)
    assert report.ok
    assert report.method == "central differences"


def test_a_forward_that_rounds_to_float32_inside_is_not_accused():
    forward, backward = lstm("ifog")

    def rounding(x, h, c, W, U, b):
        h_t, c_t, _ = forward(*(array.astype(np.float32) for array in (x, h, c, W, U, b)))
        return h_t.astype(float), c_t.astype(float), forward(x, h, c, W, U, b)[2]

    report = lstm_np.check_cell(rounding, backward, hidden_size=3, steps=2)
    assert report.ok, str(report)
    assert "it computes in float32" in report.checked


def test_names_can_be_declared():
    forward, backward = lstm("ogif")

    def mine(alpha, beta, gamma, one, two, three):
        return forward(alpha, beta, gamma, one, two, three)

    def mine_back(first, second, third):
        return backward(first, second, third)

    names = {"arguments": "x h c W U b", "results": "h c cache", "upstream": "dh dc cache"}
    assert lstm_np.check_cell(mine, mine_back, **names, gradients="dx dh dc dW dU db", hidden_size=3, steps=1).ok
    with pytest.raises(lstm_np.CheckError, match="what is alpha, beta, gamma, one, two, three"):
        lstm_np.check_cell(mine, mine_back)


def test_results_in_another_order_are_right_but_noted():
    forward, backward = lstm("ifog")

    def swapped(dh, dc, cache):
        dx, dh_prev, dc_prev, dW, dU, db = backward(dh, dc, cache)
        return dx, dc_prev, dh_prev, dW, dU, db

    report = lstm_np.check_cell(forward, swapped, hidden_size=3, steps=1)
    assert report.ok
    assert "dx, dc, dh, dW, dU, db: another order than forward's" in report.notes[0]
