"""Initial weights: the bounds, moments and fixed values that each system's formula promises."""

from __future__ import annotations

import numpy as np
import pytest

from lstm_np import initializers, streams
from lstm_np.cells import get_cell
from lstm_np.layers import LSTM
from lstm_np.model import SequenceClassifier

pytestmark = pytest.mark.quick

gru, gru_reset_before, lstm, rnn = map(get_cell, ("gru", "gru_reset_before", "lstm", "rnn"))


def is_uniform(values, bound):
    """Whether the values look uniform in +-bound: within it, close to it, and with its deviation."""
    size = values.size
    deviation = values.std() / (bound / np.sqrt(3))
    return np.abs(values).max() <= bound * (1 + 1e-12) and abs(deviation - 1) < 4 / np.sqrt(size)


def draw(name, cell=lstm, D=28, H=128, bias=True, forget_bias=None, at="init"):
    return initializers.recurrent(
        name, cell, D, H, bias=bias, forget_bias=forget_bias, forget_bias_at=at, seed=0, purpose="layer0"
    )


def dense(name, D, K, bias=None):
    return initializers.dense(name, D, K, seed=0, purpose="d", bias=bias)


def test_keras():
    drawn = draw("keras")
    assert is_uniform(drawn["W"], np.sqrt(6 / (28 + 512)))
    np.testing.assert_allclose(drawn["U"].T @ drawn["U"], np.eye(128), atol=1e-13)  # the whole (H, 4H), not its blocks
    assert not np.allclose(drawn["U"][:128].T @ drawn["U"][:128], np.eye(128), atol=0.1)
    assert (drawn["b"] == np.repeat([0, 1, 0, 0], 128)).all()


def test_torch():
    drawn = draw("torch", bias="double")
    assert list(drawn) == ["W", "U", "b", "b_h"]
    assert all(is_uniform(values, 1 / np.sqrt(128)) for values in drawn.values())
    assert not np.array_equal(drawn["b"], drawn["b_h"])
    assert is_uniform(draw("torch", gru)["b_n"], 1 / np.sqrt(128))


@pytest.mark.parametrize(("D", "H", "bound"), [(128, 128, 0.08839), (28, 128, 0.09477), (28, 100, 0.10660)])
def test_tf1_lstm_has_one_kernel_over_input_and_state(D, H, bound):
    drawn = draw("tf1", D=D, H=H)
    assert np.sqrt(6 / (D + 5 * H)) == pytest.approx(bound, abs=5e-6)
    assert is_uniform(drawn["W"], np.sqrt(6 / (D + 5 * H)))
    assert is_uniform(drawn["U"], np.sqrt(6 / (D + 5 * H)))
    assert (drawn["b"] == np.repeat([0, 1, 0, 0], H)).all()
    assert (draw("tf1", D=D, H=H, at="run")["b"] == 0).all()


def test_tf1_gru_has_two_kernels_and_gates_that_start_open():
    for D, gates, candidate in ((28, 0.09775, 0.11840), (200, 0.08660, 0.1)):
        drawn = draw("tf1", gru_reset_before, D=D, H=200)
        assert (np.sqrt(6 / (D + 600)), np.sqrt(6 / (D + 400))) == pytest.approx((gates, candidate), abs=5.1e-6)
        for name in ("W", "U"):
            assert is_uniform(drawn[name][:400], np.sqrt(6 / (D + 600)))
            assert is_uniform(drawn[name][400:], np.sqrt(6 / (D + 400)))
        assert (drawn["b"] == np.repeat([1, 1, 0], 200)).all()
        assert list(drawn) == ["W", "U", "b"]


@pytest.mark.parametrize("name", list(initializers.RECURRENT))
@pytest.mark.parametrize("cell", [lstm, gru, gru_reset_before, rnn])
def test_every_initializer_draws_every_cell(name, cell):
    rows = len(cell.gates) * 4
    assert draw(name, cell, 3, 4)["W"].shape == (rows, 3)
    assert list(draw(name, cell, 3, 4, bias=False)) == ["W", "U"]
    assert draw(name, cell, 3, 4, bias="double")["b_h"].shape == (rows,)
    assert ("b_n" in draw(name, cell, 3, 4)) == (cell is gru)
    one, again = draw(name, cell, 3, 4), draw(name, cell, 3, 4)
    assert all(np.array_equal(one[key], again[key]) for key in one)


def test_dense():
    assert is_uniform(dense("keras", 128, 100)["W"], np.sqrt(6 / 228))
    torch = dense("torch", 128, 100)
    assert is_uniform(torch["W"], 1 / np.sqrt(128))
    assert is_uniform(torch["b"], 1 / np.sqrt(128))
    normal = dense("normal", 128, 100)
    assert normal["W"].std() == pytest.approx(1, abs=0.03)
    assert normal["b"].std() == pytest.approx(1, abs=0.3)
    assert (dense("normal", 128, 10, bias=0.1)["b"] == 0.1).all()
    assert (dense("tf1", 128, 10)["b"] == 0).all()


def test_the_truncated_normal_is_cut_at_two_deviations():
    drawn = initializers.truncated_normal(streams.generator(0, "t"), (300, 300), 0.1)
    assert 0.1999 < np.abs(drawn).max() <= 0.2
    assert drawn.std() == pytest.approx(0.08796, abs=3e-4)
    assert abs(drawn.mean()) < 1e-3
    for name, stddev in (("truncated_normal", 0.1), ("small_truncated_normal", 0.01)):
        layer = dense(name, 300, 300)
        assert layer["W"].std() == pytest.approx(0.8796 * stddev, rel=4e-3)
        assert not layer["b"].any()


def test_bad_requests():
    with pytest.raises(ValueError, match="unknown initializer 'xavier'; there are: keras, torch, tf1"):
        LSTM(3, 4, initializer="xavier")
    with pytest.raises(ValueError, match="unknown readout_initializer 'he'; there are: keras, tf1, torch, normal"):
        SequenceClassifier(3, 4, 2, readout_initializer="he")
    with pytest.raises(ValueError, match=r"forget_bias is 1.0, but this cell has no forget gate: r, z, n"):
        draw("keras", gru, forget_bias=1.0)
    for table, drawer in ((initializers.RECURRENT, draw), (initializers.DENSE, lambda name: dense(name, 3, 4))):
        with pytest.raises(ValueError, match=f"unknown initializer 'he'; there are: {', '.join(table)}"):
            drawer("he")


def test_adding_options_does_not_move_the_draws():
    """The weights of a seed are part of every recorded result."""
    plain = LSTM(3, 4, initializer="torch", seed=5)
    double = LSTM(3, 4, initializer="torch", seed=5, bias="double")
    for name in plain.params:
        np.testing.assert_array_equal(plain.params[name], double.params[name])
    model = SequenceClassifier(3, 4, 2, seed=5)
    named = SequenceClassifier(3, 4, 2, seed=5, readout_initializer="keras", readout_bias=0.5)
    np.testing.assert_array_equal(model.params["readout.W"], named.params["readout.W"])
    assert (named.params["readout.b"] == 0.5).all()
