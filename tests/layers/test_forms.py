"""Forms of layers and arrays: one sequence, time first, reverse alone, merges, layers of different sizes."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.options import OptionError
from tests.strict_backend import STRICT, from_host, to_host

D, H, B, T = 3, 4, 5, 6
CELLS = {"lstm": lstm_np.LSTM, "gru": lstm_np.GRU, "rnn": lstm_np.RNN}


def made(cell="lstm", hidden_size=H, seed=0, **options):
    layer = CELLS[cell](D, hidden_size, **{"dtype": "float64", **options})
    rng = np.random.default_rng(seed)
    for name, array in layer.params.items():
        layer.params[name] = 0.6 * rng.standard_normal(array.shape)
    return layer


def same_parameters(of, **options):
    layer = type(of)(**{**of.config, **options})
    layer.params.update(of.params)
    return layer


def drawn(layer, batch_size=B, seed=1):
    """x, h_0 (and c_0), dy, dstate."""
    rng = np.random.default_rng(seed)
    states = (len(layer.singles), batch_size, layer.hidden_size)
    parts = len(layer.cell.state)
    return (
        rng.standard_normal((batch_size, T, D)),
        tuple(rng.standard_normal(states) for _ in range(parts)),
        rng.standard_normal((batch_size, T, layer.output_size)),
        tuple(rng.standard_normal(states) for _ in range(parts)),
    )


def parts(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_one_sequence_has_no_axis_of_samples(cell, batch_first):
    layer = made(cell, num_layers=2, bidirectional=True, batch_first=batch_first)
    batched = made(cell, num_layers=2, bidirectional=True)
    x, state, dy, dstate = drawn(batched, 1)
    y, final, cache = batched.forward(x, state)
    dx, dstate_0, grads = batched.backward(cache, dy, dstate)
    own_y, own_final, own_cache = layer.forward(x[0], tuple(part[:, 0] for part in state))
    own_dx, own_dstate_0, own_grads = layer.backward(own_cache, dy[0], tuple(part[:, 0] for part in dstate))
    np.testing.assert_array_equal(own_y, y[0])
    np.testing.assert_array_equal(own_dx, dx[0])
    for found, expected in zip(
        (*parts(own_final), *parts(own_dstate_0)), (*parts(final), *parts(dstate_0)), strict=True
    ):
        assert found.shape == (4, H)
        np.testing.assert_array_equal(found, expected[:, 0])
    for name, grad in grads.items():
        np.testing.assert_array_equal(own_grads[name], grad)
    np.testing.assert_array_equal(layer(x[0].tolist())[0], batched(x)[0][0])


def test_one_sequence_with_the_state_as_a_nested_list():
    layer = made("gru")
    x, (h,), _, _ = drawn(layer, 1)
    expected, _ = layer(x[0], h[:, 0])
    for form in (h[:, 0].tolist(), [h[:, 0]], (h[:, 0],)):
        np.testing.assert_array_equal(layer(x[0], form)[0], expected)


@pytest.mark.parametrize("real", [{}, {"lengths": [3, 6, 0, 2, 5]}, {"mask": np.arange(30).reshape(5, 6) % 3 > 0}])
def test_time_first(real):
    layer = made(bidirectional=True, kernel="reference")
    other = same_parameters(layer, batch_first=False)
    x, state, dy, dstate = drawn(layer)
    y, final, cache = layer.forward(x, state, **real)
    dx, dstate_0, grads = layer.backward(cache, dy, dstate)
    turned = {name: np.array(value).T if name == "mask" else value for name, value in real.items()}
    own_y, own_final, own_cache = other.forward(x.swapaxes(0, 1), state, **turned)
    own_dx, own_dstate_0, own_grads = other.backward(own_cache, dy.swapaxes(0, 1), dstate)
    np.testing.assert_array_equal(own_y.swapaxes(0, 1), y)
    np.testing.assert_array_equal(own_dx.swapaxes(0, 1), dx)
    for found, expected in zip((*own_final, *own_dstate_0), (*final, *dstate_0), strict=True):
        np.testing.assert_array_equal(found, expected)
    for name, grad in grads.items():
        np.testing.assert_array_equal(own_grads[name], grad)
    y, _ = other([np.ones((2, D)), np.ones((T, D))])
    assert y.shape == (T, 2, 2 * H)


@pytest.mark.parametrize("equal", [True, False], ids=["equal lengths", "unequal lengths"])
def test_a_list_is_of_sequences_in_a_time_first_layer_too(equal):
    layer, x = made(batch_first=False), np.random.default_rng(2).standard_normal((B, 6, D))
    lengths = np.full(B, 6) if equal else np.array([6, 3, 4, 1, 2])
    listed = [row[:n] for row, n in zip(x, lengths, strict=True)]
    y, (h, _) = layer(listed)
    expected, (expected_h, _) = layer(x.swapaxes(0, 1), lengths=lengths)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(h, expected_h)


@pytest.mark.parametrize("kernel", ["auto", "reference"])
@pytest.mark.parametrize("cell", CELLS)
def test_reverse_alone_is_the_second_direction(cell, kernel):
    both, alone = made(cell, bidirectional=True, kernel=kernel), made(cell, reverse=True, kernel=kernel)
    assert list(alone.params) == [name for name in both.params if "_reverse" in name]
    alone.params.update({name: both.params[name] for name in alone.params})
    x, state, dy, dstate = drawn(both)
    y, final, cache = both.forward(x, state)
    _, dstate_0, grads = both.backward(cache, dy, dstate)
    own_y, own_final, own_cache = alone.forward(x, tuple(part[1:] for part in state))
    own_dx, own_dstate_0, own_grads = alone.backward(own_cache, dy[:, :, H:], tuple(part[1:] for part in dstate))
    np.testing.assert_array_equal(own_y, y[:, :, H:])
    for found, expected in zip(
        (*parts(own_final), *parts(own_dstate_0)), (*parts(final), *parts(dstate_0)), strict=True
    ):
        np.testing.assert_array_equal(found[0], expected[1])
    for name, grad in own_grads.items():
        np.testing.assert_array_equal(grad, grads[name])
    turned = made(cell, kernel=kernel)
    turned.params.update({name.replace("_reverse", ""): array for name, array in alone.params.items()})
    np.testing.assert_array_equal(turned(x[:, ::-1])[0][:, ::-1], alone(x)[0])
    assert own_dx.shape == x.shape


def test_what_is_seen_in_a_layer_that_reads_from_the_end():
    layer = made(reverse=True)
    x, state, dy, dstate = drawn(layer)
    y, final, cache = layer.forward(x, state, trace=True)
    dx, _, grads = layer.backward(cache, dy, dstate)
    trace = cache["trace"]
    assert trace.layers == ((0, True),)
    np.testing.assert_allclose(trace.value("h", reverse=True), y, rtol=1e-12)
    np.testing.assert_array_equal(trace.state("c", reverse=True)[:, -1], state[1][0])
    np.testing.assert_allclose(trace.state("c", reverse=True)[:, 0], final[1][0], rtol=1e-12)
    np.testing.assert_allclose(trace.dx(), dx, rtol=1e-11)
    np.testing.assert_allclose(trace.share("U", reverse=True), grads["layer0_reverse.U"], rtol=1e-11)
    with pytest.raises(lstm_np.TraceError, match="one direction, reverse=True"):
        trace.value("h")
    assert "from the end" in trace.summary()
    y, _ = layer(x, hold=lstm_np.Hold("o", 0.0, reverse=True, steps=[0]))
    assert not y[:, 0].any()
    with pytest.raises(lstm_np.HoldError, match="reverse is False"):
        layer(x, hold=lstm_np.Hold("o", 0.0, reverse=False))


MERGES = {"sum": np.add, "mul": np.multiply, "average": lambda a, b: (a + b) / 2}


@pytest.mark.parametrize("merge", MERGES)
def test_merges(merge):
    concatenated = made(bidirectional=True)
    layer = same_parameters(concatenated, merge=merge)
    x, state, _, _ = drawn(concatenated)
    y, final, cache = layer.forward(x, state, trace=True)
    both, expected, _ = concatenated.forward(x, state)
    np.testing.assert_allclose(y, MERGES[merge](both[:, :, :H], both[:, :, H:]), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(final[0], expected[0], rtol=1e-12)
    assert cache["trace"].difference < 1e-13
    assert layer.output_size == H
    stacked = made(bidirectional=True, merge=merge, num_layers=3, bias="double")
    assert stacked.params["layer1.W"].shape == (4 * H, H)


def test_no_merge_is_a_pair():
    concatenated = made("gru", bidirectional=True)
    layer = same_parameters(concatenated, merge="none")
    x, state, dy, dstate = drawn(concatenated)
    y, _, cache = concatenated.forward(x, state)
    dx, _, _ = concatenated.backward(cache, dy, dstate)
    (ahead, back), _, cache = layer.forward(x, state)
    np.testing.assert_array_equal(np.concatenate([ahead, back], axis=2), y)
    np.testing.assert_array_equal(layer.backward(cache, (dy[:, :, :H], dy[:, :, H:]), dstate)[0], dx)
    half = layer.backward(cache, (None, dy[:, :, H:]))[0]
    _, _, cache = concatenated.forward(x, state)
    np.testing.assert_array_equal(
        half, concatenated.backward(cache, np.concatenate([0 * dy[:, :, :H], dy[:, :, H:]], axis=2))[0]
    )
    with pytest.raises(ValueError, match="dy must be a pair"):
        layer.backward(layer.forward(x)[2], dy)


@pytest.mark.parametrize("cell", CELLS)
def test_layers_of_different_sizes(cell):
    layer = made(cell, [5, 2, 4], bidirectional=True, kernel="reference")
    assert layer.num_layers == 3
    assert (layer.hidden_size, layer.hidden_sizes) == (4, (5, 2, 4))
    x = np.random.default_rng(0).standard_normal((B, T, D))
    state = [np.random.default_rng(k).standard_normal((B, n)) for k, n in enumerate((5, 5, 2, 2, 4, 4))]
    state = tuple(state for _ in layer.cell.state)
    y, final = layer(x, state if len(state) > 1 else state[0])
    assert y.shape == (B, T, 8)
    assert [array.shape for array in parts(final)[0]] == [(B, n) for n in (5, 5, 2, 2, 4, 4)]
    # layer by layer
    below, reads = x, D
    for k, n in enumerate((5, 2, 4)):
        one = CELLS[cell](reads, n, bidirectional=True, dtype="float64", kernel="reference")
        one.params.update({name.replace("layer0", f"layer{k}").replace(f"layer{k}", "layer0"):
                           layer.params[name.replace("layer0", f"layer{k}")] for name in one.params})  # fmt: skip
        h = tuple(np.stack(part[2 * k : 2 * k + 2]) for part in state)
        below, last = one(below, h if len(h) > 1 else h[0])
        reads = 2 * n
        for found, expected in zip(parts(final), parts(last), strict=True):
            np.testing.assert_array_equal(np.stack(found[2 * k : 2 * k + 2]), expected)
    np.testing.assert_array_equal(y, below)
    y, final, cache = layer.forward(x, trace=True, hold=lstm_np.Hold("h", np.full(5, 0.5), layer=0))
    assert cache["trace"].value("h", layer=0).shape == (B, T, 5)
    assert "5, 2, 4 units" in cache["trace"].summary()
    one_sequence, final = layer(x[0])
    assert parts(final)[0][2].shape == (2,)
    np.testing.assert_allclose(one_sequence, layer(x)[0][0], rtol=1e-12)
    again = layer.copy()
    np.testing.assert_array_equal(again(x)[0], layer(x)[0])


def test_the_same_size_in_a_list_is_that_of_all():
    layer = lstm_np.LSTM(D, [H, H])
    assert layer.config["hidden_size"] == H
    assert layer.num_layers == 2
    assert repr(lstm_np.LSTM(D, [4, 3])) == "LSTM(3, [4, 3], num_layers=2)"


def test_a_model_of_layers_of_different_sizes(tmp_path):
    model = lstm_np.SequenceClassifier(D, [5, 3], 2, dtype="float64", bidirectional=True)
    x, labels = np.random.default_rng(0).standard_normal((8, T, D)), [0, 1] * 4
    model.fit(x, labels, epochs=2)
    model.save(tmp_path / "w")
    np.testing.assert_array_equal(lstm_np.load(tmp_path / "w").predict_proba(x), model.predict_proba(x))
    assert "(B, T, 10)" in model.summary()
    assert lstm_np.gradcheck(model, entries=8)
    held = model.evaluate(x, labels, hold=lstm_np.Hold("f", np.ones(5), layer=0))
    assert held == model.evaluate(x, labels, hold=lstm_np.Hold("f", 1.0, layer=0), batch_size=8)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_first": False, "bidirectional": True},
        {"reverse": True, "num_layers": 2},
        {"bidirectional": True, "merge": "sum", "num_layers": 2},
        {"bidirectional": True, "merge": "mul", "num_layers": 2},
        {"bidirectional": True, "merge": "average", "num_layers": 2, "dropout": 0.3},
        {"bidirectional": True, "merge": "none", "batch_first": False},
        {"hidden_size": [4, 2], "bidirectional": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients(cell, options):
    layer = CELLS[cell](2, **{"hidden_size": 3, **options})
    report = lstm_np.gradcheck(layer, entries=8, dropout_key=(1,))
    assert report, report
    layer = layer.copy(kernel="reference")
    lengths = {"lengths": [4, 0, 2]}
    report = lstm_np.gradcheck(layer, entries=8, dropout_key=(1,), **lengths)
    assert report, report


def test_on_a_device():
    for options in ({"merge": "mul"}, {"merge": "none", "batch_first": False}, {"hidden_size": [3, 2]}):
        here = made("gru", **{"hidden_size": H, "bidirectional": True, "kernel": "reference", **options})
        there = made("gru", backend=STRICT, **{"hidden_size": H, "bidirectional": True, **options})
        there.params.update({name: from_host(array) for name, array in here.params.items()})
        x = np.random.default_rng(0).standard_normal((T, D))
        y, _ = here(x)
        found, _ = there(from_host(x))
        for a, b in zip(
            y if isinstance(y, tuple) else (y,), found if isinstance(found, tuple) else (found,), strict=True
        ):
            np.testing.assert_allclose(to_host(b), a, rtol=1e-13)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reverse": True, "bidirectional": True}, "choose one"),
        ({"merge": "sum"}, "merge is 'sum', but the layers read in one direction"),
        ({"merge": "none", "bidirectional": True, "num_layers": 2}, "merge is 'none'"),
        ({"merge": "max", "bidirectional": True}, "unknown merge 'max'; there are: concat, sum, mul, average, none"),
        ({"hidden_size": [3, 4], "num_layers": 3}, r"hidden_size is \[3, 4\], for 2 layers; num_layers is 3"),
        ({"hidden_size": [3, 0]}, "hidden_size must be at least 1, found 0"),
        ({"hidden_size": []}, r"hidden_size must be a whole number, found \[\]"),
        ({"batch_first": 1}, "batch_first must be true or false"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    with pytest.raises(OptionError, match=words):
        lstm_np.LSTM(3, **{"hidden_size": 4, **options})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: made()(np.ones((T, D + 1))), r"x must have shape \(B, T, 3\) with B, T >= 1, or \(T, 3\)"),
        (lambda: made(batch_first=False)(np.ones((T, B, D + 1))), r"x must have shape \(T, B, 3\)"),
        (lambda: made()(np.ones((T, D)), lengths=[3]), "go with a batch"),
        (lambda: made()(np.ones((T, D)), (np.ones((1, 1, H)), np.ones((1, 1, H)))), r"must have shape \(1, 4\)"),
        (lambda: made("lstm", [3, 4])(np.ones((B, T, D)), (np.ones((2, B, 3)), None)), "must be a list of 2 arrays"),
        (
            lambda: made("lstm", [3, 4])(np.ones((B, T, D)), ([np.ones((B, 3)), np.ones((B, 3))], None)),
            r"must have shape \(5, 4\) in this layer",
        ),
        (lambda: made(batch_first=False).backward(made(batch_first=False).forward(np.ones((T, B, D)))[2],
                                                  np.ones((B, T, H))), r"dy must have shape \(6, 5, 4\)"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_stream_through_layers_of_different_sizes():
    layer = made("lstm", [5, 3], kernel="reference")
    x = np.random.default_rng(0).standard_normal((2, T, D))
    y, final = layer(x)
    stream = layer.stream(batch_size=2)
    for t in range(T):
        np.testing.assert_allclose(stream.step(x[:, t]), y[:, t], rtol=1e-12)
    saved = stream.save()
    assert [part.shape for part in saved[0]] == [(2, 5), (2, 3)]
    np.testing.assert_allclose(saved[1][1], final[1][1], rtol=1e-12)
    one = layer.stream(state=tuple([part[0] for part in parts] for parts in final))
    np.testing.assert_allclose(one.step(x[0, 0]), stream.step(x[:, 0])[0], rtol=1e-12)
    _, state = layer.step(x[0, 0], one.save())
    assert state[0][0].shape == (5,)
