"""Truncated backpropagation through time, against its definition: each window a function of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_np
from lstm_np.layers.truncation import segments_of, windows_of

STEP = 1e-30


def filled(owner, seed=0):
    """The layer or model with no parameter at zero."""
    rng = np.random.default_rng(seed)
    for name, array in owner.params.items():
        owner.params[name] = rng.uniform(-0.6, 0.6, array.shape)
    return owner


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def parts_of(state):
    return state if isinstance(state, tuple) else (state,)


def windows_by_definition(T, k1, k2):
    """(first step that counts, steps whose outputs count) of each look back, from the words of the definition."""
    found, begun = [], 0
    for t in range(1, T + 1):
        if t % k1 == 0 or t == T:
            found.append((max(0, t - k2), range(begun, t)))
            begun = t
    return found


def by_definition(layer, x, state, dy, dstate, k1, k2):
    """The gradients by complex steps: for each window the loss is a function of the values from its first step on, the
    state before it a constant."""
    T = x.shape[1]
    exact = layer.copy(dtype="complex128", kernel="reference")
    values = {name: array.astype(complex) for name, array in layer.params.items()} | {"x": x.astype(complex)}
    values |= {f"state{k}": part.astype(complex) for k, part in enumerate(parts_of(state))}
    before = {}  # the state before a window's first step

    def form(parts):
        return tuple(parts) if len(parts) > 1 else parts[0]

    def loss(values, first, outputs, last):
        for name in exact.params:
            exact.params[name] = values[name]
        start = form([values[f"state{k}"] for k, _ in enumerate(parts_of(state))]) if first == 0 else before[first]
        y, final = exact(values["x"][:, first : outputs.stop], start)
        total = (y[:, outputs.start - first :] * dy[:, outputs.start : outputs.stop]).sum()
        if last:
            total = total + sum((a * b).sum() for a, b in zip(parts_of(final), parts_of(dstate), strict=True))
        return total

    grads = {name: np.zeros(value.shape) for name, value in values.items()}
    for first, outputs in windows_by_definition(T, k1, k2):
        if first:
            before[first] = tuple(part.astype(complex) for part in parts_of(layer(x[:, :first], state)[1]))
            before[first] = form(before[first])
        for name, value in values.items():
            for index in np.ndindex(value.shape):
                moved = value.copy()
                moved[index] += 1j * STEP
                found = loss({**values, name: moved}, first, outputs, outputs.stop == T)
                grads[name][index] += found.imag / STEP
    return grads


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (1, 3), (2, 2), (2, 5), (3, 4), (4, 9), (5, 5)])
@pytest.mark.parametrize(
    ("cell", "L", "kernel"),
    [("lstm", 1, "fused"), ("lstm", 2, "lean"), ("lstm", 1, "reference"), ("gru", 2, "auto"), ("rnn", 1, "auto")],
)
def test_gradients_are_those_of_the_definition(cell, L, kernel, k1, k2):
    B, T, D, H = 2, 5, 2, 3
    layer = filled(lstm_np.Recurrent(D, H, cell=cell, num_layers=L, kernel=kernel, dtype="float64"))
    x, dy = normal(B, T, D), normal(B, T, H, seed=2)
    state, dstate = (tuple(normal(L, B, H, seed=s + k) for k, _ in enumerate(layer.cell.state)) for s in (3, 5))
    state, dstate = (form if len(form) > 1 else form[0] for form in (state, dstate))
    y, final, cache = layer.forward(x, state, truncation=(k1, k2))
    whole, expected_final = layer(x, state)
    np.testing.assert_allclose(y, whole, rtol=1e-12)
    for one, other in zip(parts_of(final), parts_of(expected_final), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    dx, dstate_0, grads = layer.backward(cache, dy, dstate)
    expected = by_definition(layer, x, state, dy, dstate, k1, k2)
    found = {**grads, "x": dx} | {f"state{k}": part for k, part in enumerate(parts_of(dstate_0))}
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        assert np.abs(found[name] - grad).max() <= 1e-12 * max(1.0, np.abs(grad).max()), name


@settings(max_examples=40, deadline=None)
@given(T=st.integers(1, 9), k1=st.integers(1, 10), more=st.integers(0, 6), cell=st.sampled_from(["lstm", "gru"]))
def test_without_a_cut_it_is_backpropagation_through_all_steps(T, k1, more, cell):
    layer = filled(lstm_np.Recurrent(2, 3, cell=cell, dtype="float64", initial_state="learned"))
    x, dy = normal(2, T, 2), normal(2, T, 3, seed=2)
    _, _, cache = layer.forward(x)
    _, _, whole = layer.backward(cache, dy)
    _, _, cache = layer.forward(x, truncation=(k1, T + more + k1))
    _, _, grads = layer.backward(cache, dy)
    for name, grad in whole.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-10, atol=1e-13)


@settings(max_examples=100, deadline=None)
@given(T=st.integers(1, 30), k1=st.integers(1, 12), more=st.integers(0, 12))
def test_windows_are_those_of_the_definition(T, k1, more):
    windows = windows_of(T, k1, k1 + more)
    assert [(w.start, range(w.outputs, w.stop)) for w in windows] == windows_by_definition(T, k1, k1 + more)
    segments = segments_of(T, windows)
    assert [segment.start for segment in segments] == [0, *(segment.stop for segment in segments[:-1])]
    assert segments[-1].stop == T


def test_a_truncated_step_is_not_the_whole_one_and_keeps_less():
    model = filled(lstm_np.SequenceClassifier(3, 8, 2, dtype="float64"))
    x, labels = normal(4, 20, 3), [0, 1, 1, 0]
    loss, whole = model.loss_and_gradients(x, labels)
    for k2 in (1, 5):
        cut_loss, cut = model.loss_and_gradients(x, labels, truncation=(1, k2))
        assert cut_loss == pytest.approx(loss, rel=1e-13)
        assert np.abs(cut["layer0.U"] - whole["layer0.U"]).max() > 1e-6
        tail = lstm_np.LSTM(3, 8, dtype="float64")  # the last k2 steps, from the state before them
        tail.params.update({name: model.params[name] for name in tail.params})
        _, state = tail(x[:, :-k2])
        _, _, cache = tail.forward(x[:, -k2:], state)
        p = model.predict_proba(x)
        dlogits = (p - np.eye(2)[labels]) / 4
        dh = dlogits @ model.params["readout.W"]
        expected = tail.backward(cache, None, (dh[None], None))[2]
        for name, grad in expected.items():
            np.testing.assert_allclose(cut[name], grad, rtol=1e-10, atol=1e-14)
    same = model.loss_and_gradients(x, labels, truncation=(7, 20))[1]
    np.testing.assert_allclose(same.flat, whole.flat, rtol=1e-12, atol=1e-15)


def test_fit_follows_gradients_as_far_as_it_is_told():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((40, 12, 3)), rng.integers(0, 2, 40)
    found = {}
    for truncation in (None, (1, 12), (1, 3)):
        model = lstm_np.SequenceClassifier(3, 6, 2, dtype="float64")
        model.fit(x, labels, epochs=2, batch_size=10, truncation=truncation)
        found[truncation] = model.params.flat.copy()
    np.testing.assert_allclose(found[1, 12], found[None], rtol=1e-9)
    assert np.abs(found[1, 3] - found[None]).max() > 1e-4


@pytest.mark.parametrize(
    ("truncation", "message"),
    [
        (3, "two whole numbers"),
        ((1, 2, 3), "two whole numbers"),
        ("ab", "two whole numbers"),
        ((0, 3), "k1 of truncation must be at least 1"),
        ((2.5, 3), "k1 of truncation must be a whole number"),
        ((1, None), "k2 of truncation must be a whole number"),
        ((4, 3), r"needs k2 >= k1, found \(4, 3\)"),
    ],
)
def test_another_truncation_is_refused(truncation, message):
    x, labels = np.ones((4, 6, 3)), [0, 1, 0, 1]
    layer, model = lstm_np.LSTM(3, 4), lstm_np.SequenceClassifier(3, 4, 2)
    for act in (
        lambda: layer.forward(x, truncation=truncation),
        lambda: model.loss_and_gradients(x, labels, truncation=truncation),
        lambda: model.fit(x, np.array(labels), truncation=truncation),
    ):
        with pytest.raises(lstm_np.OptionError, match=message):
            act()


def test_a_reverse_direction_holds_and_traces_are_refused_in_words():
    x, labels = np.ones((4, 6, 3)), np.array([0, 1, 0, 1])
    both = lstm_np.LSTM(3, 4, bidirectional=True)
    model = lstm_np.SequenceClassifier(3, 4, 2, bidirectional=True)
    for act in (
        lambda: both.forward(x, truncation=(1, 2)),
        lambda: model.loss_and_gradients(x, labels, truncation=(1, 2)),
        lambda: model.fit(x, labels, truncation=(1, 2)),
    ):
        with pytest.raises(ValueError, match="truncated backpropagation needs layers that read forwards"):
            act()
    layer = lstm_np.LSTM(3, 4)
    for act in (
        lambda: layer.forward(x, truncation=(1, 2), lengths=[6, 5, 4, 3]),
        lambda: lstm_np.SequenceClassifier(3, 4, 2).fit(x, labels, truncation=(1, 2), lengths=[6, 5, 4, 3]),
    ):
        with pytest.raises(ValueError, match="takes sequences of one length"):
            act()
    for more in ({"trace": True}, {"hold": {"f": 1.0}}):
        with pytest.raises(ValueError, match="a truncated pass cannot be traced"):
            layer.forward(x, truncation=(1, 2), **more)


def test_dropout_between_layers_is_that_of_each_segment():
    layer = filled(lstm_np.LSTM(3, 4, num_layers=2, dropout=0.5, dtype="float64"))
    x, dy = normal(2, 6, 3), normal(2, 6, 4)
    _, _, cache = layer.forward(x, truncation=(2, 2), dropout_key=(1,))
    y, _, again = layer.forward(x, truncation=(2, 2), dropout_key=(1,))
    np.testing.assert_array_equal(layer.backward(cache, dy)[0], layer.backward(again, dy)[0])
    assert np.abs(y - layer(x)[0]).max() > 1e-3
