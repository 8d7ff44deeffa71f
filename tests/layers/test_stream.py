"""Single steps and streams: the numbers of whole sequences, state saved, restored and reset, and what is refused."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_np
from lstm_np.cells import CELLS
from lstm_np.kernels.cpu.step import STEPPERS
from lstm_np.kernels.steps import make_stepper

BOUNDS = {"float32": 1e-5, "float64": 1e-12}  # relative to the norm, as kernels have against the reference
CELL_NAMES = ("lstm", "gru", "gru_reset_before", "rnn", "rnn_relu")


def alone(state):
    """The state of a batch of one as that of one sequence."""
    return tuple(part[:, 0] for part in state) if isinstance(state, tuple) else state[:, 0]


class Decaying:
    """A cell of one's own: three parts of state, an own parameter, and a product within the step."""

    GATES, STATE, VALUES = ("u", "n"), ("h", "c", "s"), ("u", "m", "n", "c", "s", "h")
    PARAMETERS, BIASES, PRODUCTS = {"p": ("H",), "b_n": ("H",)}, ("b_n",), {"m": ("n", "b_n")}

    @staticmethod
    def forward(xp, a, state, inner, own):
        h_before, c_before, s_before = state
        H = h_before.shape[0]
        u, m = xp.tanh(a[:H, :]), inner(h_before)
        n = xp.tanh(a[H:, :] + u * m)
        c = c_before * 0.5 + n * own["p"]
        s = s_before * 0.25 + c
        h = xp.tanh(s)
        return (h, c, s), {"u": u, "m": m, "n": n, "c": c, "s": s, "h": h}

    @staticmethod
    def backward(xp, dstate, state, values, undo_inner, own):
        dh, dc, ds = dstate
        u, m, n, h = (values[name] for name in ("u", "m", "n", "h"))
        ds = ds + dh * (1 - h * h)
        dc = dc + ds
        dn, dp = dc * own["p"], dc * n
        da_n = dn * (1 - n * n)
        dm, du = da_n * u, da_n * m
        da = xp.concat((du * (1 - u * u), da_n), axis=0)
        gradients = {"u": du, "m": dm, "n": dn, "c": dc, "s": ds, "h": dh, "p": dp}
        return da, (undo_inner(dm), dc * 0.5, ds * 0.25), gradients


@pytest.fixture(autouse=True)
def decaying():
    lstm_np.register_cell("decaying", Decaying)
    yield
    del CELLS["decaying"]


def filled(layer, seed=0):
    """The layer with no parameter at zero."""
    rng = np.random.default_rng(seed)
    for name, array in layer.params.items():
        layer.params[name] = rng.uniform(-0.6, 0.6, array.shape)
    return layer


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def parts_of(state):
    return state if isinstance(state, tuple) else (state,)


def assert_near(found, expected, dtype):
    assert np.linalg.norm(found - expected) <= BOUNDS[dtype] * max(1.0, np.linalg.norm(expected))


@settings(max_examples=60, deadline=None)
@given(
    B=st.one_of(st.none(), st.integers(1, 5)),
    T=st.integers(1, 6),
    D=st.integers(1, 6),
    H=st.integers(1, 9),
    L=st.integers(1, 3),
    bias=st.sampled_from([True, False, "double"]),
    cell=st.sampled_from((*CELL_NAMES, "decaying")),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_a_stream_is_the_whole_sequence(B, T, D, H, L, bias, cell, dtype):
    layer = filled(lstm_np.Recurrent(D, H, cell=cell, num_layers=L, bias=bias, dtype=dtype))
    x = normal(B or 1, T, D).astype(dtype)
    whole, final = layer(x)
    stream, y, out = layer.stream(B), [], np.empty((H,) if B is None else (B, H), dtype)
    for t in range(T):
        x_t = x[0, t] if B is None else x[:, t]
        y.append(stream.step(x_t).copy() if t % 2 else stream.step(x_t, out=out).copy())
        assert (y[-1].shape, y[-1].dtype) == (out.shape, np.dtype(dtype))
    assert_near(np.stack(y, axis=0 if B is None else 1), whole[0] if B is None else whole, dtype)
    for found, expected in zip(parts_of(stream.save()), parts_of(final), strict=True):
        assert found.shape == ((L, H) if B is None else (L, B, H))
        assert_near(found, expected[:, 0] if B is None else expected, dtype)


@pytest.mark.parametrize("B", [None, 1, 2, 7])
@pytest.mark.parametrize("sizes", [(3, 5), (28, 40), (17, 64)])
@pytest.mark.parametrize("cell", [*CELL_NAMES, "decaying"])
def test_on_the_reference_kernel_steps_have_the_bits_of_the_whole_sequence(cell, sizes, B):
    D, H = sizes
    for dtype in ("float32", "float64"):
        layer = filled(lstm_np.Recurrent(D, H, cell=cell, num_layers=2, kernel="reference", dtype=dtype))
        x, rows = normal(B or 1, 5, D).astype(dtype), 1 if B is None else B
        state = tuple(normal(2, rows, H, seed=k).astype(dtype) for k, _ in enumerate(layer.cell.state))
        state = state if len(state) > 1 else state[0]
        for begin in (None, state):
            whole, final = layer(x, begin)
            given = begin if B is not None or begin is None else alone(begin)
            stream, stepped = layer.stream(B, given), given
            for t in range(5):
                x_t = x[0, t] if B is None else x[:, t]
                expected = whole[0, t] if B is None else whole[:, t]
                np.testing.assert_array_equal(stream.step(x_t), expected)
                y_t, stepped = layer.step(x_t, stepped)
                np.testing.assert_array_equal(y_t, expected)
            expected = final if B is not None else alone(final)
            for found in (stream.save(), stepped):
                for one, other in zip(parts_of(found), parts_of(expected), strict=True):
                    np.testing.assert_array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(
    B=st.one_of(st.none(), st.integers(1, 5)),
    D=st.integers(1, 6),
    H=st.integers(1, 9),
    bias=st.sampled_from([True, False, "double"]),
    cell=st.sampled_from(CELL_NAMES),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_the_fast_steps_of_each_cell_are_those_of_the_reference(B, D, H, bias, cell, dtype):
    layer = filled(lstm_np.Recurrent(D, H, cell=cell, bias=bias, dtype=dtype, kernel="reference"))
    single, batch = layer.singles[0], () if B is None else (B,)
    fast = STEPPERS[cell](single.spec, single.kernel_params(), batch, 1)
    exact = make_stepper(single.kernel, single.kernel_params(), batch, first=True)
    begin = tuple(normal(H, B or 1, seed=k).astype(dtype) for k, _ in enumerate(layer.cell.state))
    for stepper in (fast, exact):
        stepper.put(begin)
    for found, expected in zip(fast.state(), begin, strict=True):
        np.testing.assert_array_equal(found, expected)
    found, expected = np.empty((*batch, H), dtype), np.empty((*batch, H), dtype)
    for x_t in normal(4, *batch, D).astype(dtype):
        for stepper, out in ((fast, found), (exact, expected)):
            stepper.x[...] = x_t
            stepper.advance()
            stepper.read(out)
        assert_near(found, expected, dtype)
    for one, other in zip(fast.state(), exact.state(), strict=True):
        assert one.shape == (H, B or 1)
        assert_near(one, other, dtype)


def test_a_rectifier_makes_nothing_of_a_nan_in_both():
    layer = filled(lstm_np.RNN(3, 4, nonlinearity="relu", kernel="reference"))
    single, x_t, found = layer.singles[0], np.array([1, np.nan, 1], "float32"), []
    params = single.kernel_params()
    for stepper in (STEPPERS["rnn_relu"](single.spec, params, (), 1), make_stepper(single.kernel, params, (), True)):
        stepper.x[...] = x_t
        stepper.advance()
        found.append(stepper.state()[0])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    "options", [{"hidden_size": [5, 7]}, {"hidden_size": [4, 9], "cell": "gru"}, {"batch_first": False}]
)
def test_layers_of_other_sizes_and_orders_have_streams(options):
    layer = filled(lstm_np.Recurrent(3, num_layers=2, dtype="float64", **{"hidden_size": 6, **options}))
    x = normal(2, 4, 3)
    y = layer(x)[0] if layer.config["batch_first"] else layer(x.transpose(1, 0, 2))[0].transpose(1, 0, 2)
    batch, one, state, alone = layer.stream(2), layer.stream(), None, None
    for t in range(4):
        y_t, state = layer.step(x[:, t], state)
        one_t, alone = layer.step(x[0, t], alone)
        for found, expected in ((batch.step(x[:, t]), y[:, t]), (y_t, y[:, t]), (one.step(x[0, t]), y[0, t])):
            np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_allclose(one_t, y[0, t], rtol=1e-12)
    kept, after = batch.save(samples=[1]), batch.step(x[:, 0])
    batch.restore(kept, samples=[0])
    np.testing.assert_allclose(batch.step(x[[1, 1], 0])[0], after[1], rtol=1e-12)
    one.restore(alone)
    np.testing.assert_allclose(one.step(x[0, 0]), layer.step(x[0, 0], alone)[0], rtol=1e-12)


@pytest.mark.parametrize("options", [{"cell_clip": 0.3}, {"hold": {"f": 0.5}}, {"forget_bias_at": "run"}])
def test_what_the_options_of_a_layer_do_is_in_its_steps(options):
    layer = filled(lstm_np.LSTM(3, 4, dtype="float64", **options))
    x = 3 * normal(2, 6, 3)
    stream = layer.stream(2)
    y = np.stack([stream.step(x[:, t]) for t in range(6)], axis=1)
    np.testing.assert_allclose(y, layer(x)[0], rtol=1e-12)
    plain = lstm_np.LSTM(3, 4, dtype="float64")
    plain.params.update(layer.params)
    assert not np.allclose(y, plain(x)[0], rtol=1e-3)


def test_a_step_of_large_layers_shares_its_product_and_is_the_same():
    layer, x = lstm_np.LSTM(20, 300), normal(3, 20).astype("float32")
    assert 4 * 300 * 321 > 1 << 18
    stream = layer.stream()
    y = [stream.step(x_t) for x_t in x]
    np.testing.assert_allclose(y, layer(x[None])[0][0], rtol=0, atol=2e-6)


def test_a_step_with_out_allocates_nothing():
    layer = lstm_np.LSTM(28, 128)
    stream, x, y = layer.stream(), normal(50, 28).astype("float32"), np.empty(128, "float32")
    steps = list(x)
    for x_t in steps:
        stream.step(x_t, out=y)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for x_t in steps:
            stream.step(x_t, y)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now - before < 200  # the loop's own: no array of 28 float32 has so few bytes for object and values
    assert peak - before < 600, "less than h_t, of 512 bytes, with the array that holds it"


def test_results_are_the_callers_own():
    stream = lstm_np.LSTM(3, 4).stream()
    first = stream.step(np.ones(3))
    kept, saved = first.copy(), stream.save()
    copies = [part.copy() for part in saved]
    stream.step(-np.ones(3))
    np.testing.assert_array_equal(first, kept)
    for part, copy in zip(saved, copies, strict=True):
        np.testing.assert_array_equal(part, copy)
    stream.restore(saved)
    saved[0][...] = 7.0
    again = stream.step(-np.ones(3))
    stream.restore(tuple(copies))
    np.testing.assert_array_equal(again, stream.step(-np.ones(3)))


@pytest.mark.parametrize("cell", ["lstm", "gru", "decaying"])
def test_state_of_single_samples(cell):
    layer = filled(lstm_np.Recurrent(3, 4, cell=cell, num_layers=2, dtype="float64"))
    x = normal(6, 5, 3)
    one, apart = layer.stream(5), layer.stream(5)
    for t in range(3):
        one.step(x[t])
    saved = one.save(samples=[3, 1])
    assert all(part.shape == (2, 2, 4) for part in parts_of(saved))
    apart.restore(saved, samples=[0, 4])
    one.step(x[3])
    one.reset(samples=(1, 2))
    np.testing.assert_array_equal(parts_of(one.save([1, 2]))[-1], 0)
    y = one.step(x[4])
    fresh = layer.stream(5).step(x[4])
    np.testing.assert_allclose(y[[1, 2]], fresh[[1, 2]], rtol=1e-13)
    assert (np.abs(y - fresh).max(axis=1) > 1e-6).tolist() == [True, False, False, True, True]
    moved = apart.step(np.stack([x[3, 3], x[3, 0], x[3, 0], x[3, 0], x[3, 1]]))
    again = layer.stream(5)
    for t in range(4):
        expected = again.step(x[t])
    np.testing.assert_allclose(moved[[0, 4]], expected[[3, 1]], rtol=1e-13)
    one.restore(None, 3)
    np.testing.assert_array_equal(parts_of(one.save(3))[0], 0)


def test_a_stream_has_the_parameters_that_it_was_made_with_until_it_reads_them_again():
    layer = lstm_np.LSTM(3, 4)
    stream, x_t = layer.stream(), np.ones(3)
    first = stream.step(x_t)
    layer.params["layer0.W"] = 0.7
    stream.reset()
    np.testing.assert_array_equal(stream.step(x_t), first)
    state = stream.save()
    stream.refresh()
    np.testing.assert_array_equal(stream.save()[1], state[1])
    expected = layer(np.ones((1, 3)), state)[0][0]
    np.testing.assert_allclose(stream.step(x_t), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("x_t", "message"),
    [
        (np.ones(4), r"x_t must have shape \(3,\), found \(4,\)"),
        (np.ones((1, 3)), r"x_t must have shape \(3,\), found \(1, 3\)"),
        (1.0, r"x_t must have shape \(3,\), found \(\)"),
        (["a", "b", "c"], "x_t must be numbers"),
        (np.ones(3, complex), "x_t is complex"),
        (None, "x_t must be numbers"),
    ],
)
def test_a_bad_step_is_refused_and_the_state_stays(x_t, message):
    stream = lstm_np.LSTM(3, 4).stream()
    stream.step(np.ones(3))
    before = stream.save()
    with pytest.raises(ValueError, match=message):
        stream.step(x_t)
    for one, other in zip(before, stream.save(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("out", [np.empty(4), np.empty(5, "float32"), np.empty((1, 4), "float32"), [0, 0, 0, 0]])
def test_a_bad_out_is_refused_and_the_state_stays(out):
    stream = lstm_np.LSTM(3, 4).stream()
    with pytest.raises(ValueError, match=r"out must be an array of float32 \(4,\)"):
        stream.step(np.ones(3), out)
    assert not np.any(stream.save()[0])


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda s: s.reset([0, 4]), "samples must be different numbers from 0 to 3"),
        (lambda s: s.reset([1, 1]), "samples must be different numbers"),
        (lambda s: s.reset(-1), "a sample must be at least 0"),
        (lambda s: s.reset([0.5]), "a sample must be a whole number"),
        (lambda s: s.restore((np.ones((1, 2, 4)), None)), r"state part h must have shape \(1, 4, 4\)"),
        (lambda s: s.restore((np.ones((1, 4, 4)), None), [1]), r"state part h must have shape \(1, 1, 4\)"),
        (lambda s: s.restore(np.ones((1, 4, 4))), "the state has the parts h, c; found 1"),
    ],
)
def test_a_bad_state_is_refused_and_the_state_stays(do, message):
    stream = lstm_np.LSTM(3, 4).stream(batch_size=4)
    stream.step(np.ones((4, 3)))
    before = stream.save()
    with pytest.raises(ValueError, match=message):
        do(stream)
    for one, other in zip(before, stream.save(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_sequence_has_no_samples_and_no_batch_axis():
    stream = lstm_np.LSTM(3, 4).stream()
    with pytest.raises(ValueError, match="this stream has one sequence"):
        stream.reset(0)
    with pytest.raises(ValueError, match=r"must have shape \(1, 4\), found \(1, 1, 4\)"):
        stream.restore((np.zeros((1, 1, 4)), None))
    with pytest.raises(ValueError, match=r"must have shape \(1, 4\), found \(4,\)"):
        lstm_np.GRU(3, 4).step(np.ones(3), np.zeros(4))


def test_a_reverse_direction_is_refused_in_words():
    layer, back = lstm_np.LSTM(3, 4, bidirectional=True), lstm_np.GRU(3, 4, reverse=True)
    model = lstm_np.SequenceClassifier(3, 4, 2, bidirectional=True)
    for act in (back.stream, layer.stream, lambda: layer.step(np.ones(3)), model.stream):
        with pytest.raises(ValueError, match="reverse direction begins at a sequence's last step"):
            act()


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "2", True])
def test_a_bad_batch_size_is_refused(batch_size):
    with pytest.raises(lstm_np.OptionError, match="batch_size must be"):
        lstm_np.LSTM(3, 4).stream(batch_size)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), max_size=3),
    batched=st.booleans(),
    text=st.booleans(),
)
def test_any_step_is_taken_or_refused_with_a_value_error(shape, batched, text):
    layer = lstm_np.LSTM(3, 2)
    x_t = np.full(shape, "a") if text else np.ones(shape)
    good = not text and tuple(shape) == ((2, 3) if batched else (3,))
    stream = layer.stream(2 if batched else None)
    if good:
        stream.step(x_t)
        return
    with pytest.raises(ValueError, match="x_t"):
        stream.step(x_t)


@pytest.mark.parametrize("projection", [None, 4])
@pytest.mark.parametrize("cell", ["lstm", "gru", "decaying"])
@pytest.mark.parametrize("B", [None, 3])
def test_a_models_stream_gives_what_the_model_says_of_the_sequence_so_far(B, cell, projection):
    model = lstm_np.SequenceClassifier(
        5, 6, 3, cell=cell, num_layers=2, input_projection=projection, dtype="float64", dropout=0.5
    )
    filled(model)
    x = normal(B or 1, 7, 5)
    stream, shown, out = model.stream(B), model.stream(B), np.empty((3,) if B is None else (B, 3))
    for t in range(7):
        x_t, so_far = x[0, t] if B is None else x[:, t], x[:, : t + 1]
        rows = 0 if B is None else slice(None)
        logits = stream.step(x_t, out if t % 2 else None)
        assert logits.shape == out.shape
        np.testing.assert_allclose(logits, model.logits(so_far)[rows], rtol=1e-10)
        np.testing.assert_allclose(shown.predict_proba(x_t), model.predict_proba(so_far)[rows], rtol=1e-10)


def test_a_models_stream_on_the_reference_kernel_has_the_models_bits():
    model = filled(lstm_np.SequenceClassifier(5, 6, 3, kernel="reference"))
    x = normal(4, 7, 5).astype("float32")
    stream = model.stream(4)
    for t in range(7):
        np.testing.assert_array_equal(stream.step(x[:, t]), model.logits(x[:, : t + 1]))


def test_a_models_stream_refuses_what_is_not_finite_and_keeps_its_state():
    model = lstm_np.SequenceClassifier(3, 4, 2)
    stream = model.stream()
    stream.step(np.ones(3))
    before = stream.save()
    for bad in (np.nan, np.inf, 1e300):
        with pytest.raises(ValueError, match="not finite"), np.errstate(over="ignore"):
            stream.step(np.array([1.0, bad, 1.0]))
    with pytest.raises(ValueError, match=r"out must be an array of float32 \(2,\)"):
        stream.step(np.ones(3), np.empty(4, "float32"))
    for one, other in zip(before, stream.save(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_says_what_it_is():
    assert repr(lstm_np.LSTM(3, 4).stream()) == "<Stream of one sequence through LSTM(3, 4), kernel fused>"
    assert "3 sequences" in repr(lstm_np.SequenceClassifier(3, 4, 2, cell="gru").stream(3))
