"""Sequences of unequal length in layers: each is as if it were alone, and nothing behind it is read."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.cells import CELLS, FILES, register_cell_file
from lstm_np.layers import Recurrent
from tests.cells.own_cells import PEEPHOLE
from tests.strict_backend import STRICT, from_host, to_host

D, H, B, T = 3, 4, 6, 7
LENGTHS = np.array([4, 0, 7, 2, 4, 1])
STACKS = {
    "one layer": {},
    "two layers": {"num_layers": 2, "bias": "double"},
    "both directions": {"bidirectional": True},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
}
KERNEL = {"kernel": "reference", "dtype": "float64"}


@pytest.fixture
def peephole(tmp_path):
    """A registered cell of one's own."""
    path = tmp_path / "peephole_lstm.py"
    path.write_text(PEEPHOLE)
    yield register_cell_file(path).name
    del CELLS["peephole_lstm"], FILES["peephole_lstm"]


def make(cell="lstm", seed=0, **options):
    """A layer with random parameters, none zero."""
    layer = Recurrent(D, H, cell=cell, **{**KERNEL, **options})
    rng = np.random.default_rng(seed)
    for name, array in layer.params.items():
        layer.params[name] = 0.6 * rng.standard_normal(array.shape)
    return layer


def draw(layer, seed=1):
    """x, the initial state, and the gradients of outputs and final state."""
    rng = np.random.default_rng(seed)
    states = (len(layer.singles), B, layer.hidden_size)
    parts = len(layer.cell.state)
    return (
        rng.standard_normal((B, T, D)),
        tuple(0.5 * rng.standard_normal(states) for _ in range(parts)),
        rng.standard_normal((B, T, layer.output_size)),
        tuple(rng.standard_normal(states) for _ in range(parts)),
    )


def drawn_mask(seed=3):
    """(B, T) booleans with holes, padding on the left, a sequence without steps and one with all."""
    mask = np.random.default_rng(seed).random((B, T)) < 0.6
    mask[1], mask[2] = False, True
    mask[3, :3] = False
    return mask


def parts_of(state):
    return state if isinstance(state, tuple) else (state,)


def results(layer, x, state, dy, dstate, **real):
    """Everything that forward and backward return, by name."""
    y, final, cache = layer.forward(x, state, **real)
    dx, dstate_0, grads = layer.backward(cache, dy, dstate)
    found = {"y": y, "dx": dx, **{f"d{name}": grad for name, grad in grads.items()}}
    for k, (part, d) in enumerate(zip(parts_of(final), parts_of(dstate_0), strict=True)):
        found |= {f"final {k}": part, f"dstate_0 {k}": d}
    return found


def one_by_one(layer, x, state, dy, dstate, mask):
    """The same from each sequence alone; gradients of parameters are summed."""
    found = {"y": np.zeros(dy.shape), "dx": np.zeros(x.shape)}
    found |= {f"d{name}": np.zeros(array.shape) for name, array in layer.params.items()}
    for k in range(len(state)):
        found |= {f"final {k}": state[k].copy(), f"dstate_0 {k}": dstate[k].copy()}
    for b, steps in enumerate(mask):
        if not steps.any():
            continue
        own = slice(b, b + 1)
        alone = results(
            layer, x[own, steps], tuple(s[:, own] for s in state), dy[own, steps], tuple(d[:, own] for d in dstate)
        )
        for name, array in alone.items():
            if name in ("y", "dx"):
                found[name][own, steps] = array
            elif name.startswith(("final", "dstate_0")):
                found[name][:, own] = array
            else:
                found[name] += array
    return found


def worst(found, expected):
    """The largest difference, relative to each array's largest entry."""
    return max(np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max() for name in expected)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_before", "rnn", "rnn_relu", "peephole_lstm"])
def test_each_sequence_is_as_if_it_were_alone(cell, stack, peephole):
    options = STACKS[stack] if cell != peephole else {**STACKS[stack], "bias": True}
    layer = make(cell, **options)
    given, mask = draw(layer), np.arange(T) < LENGTHS[:, None]
    assert worst(results(layer, *given, lengths=LENGTHS), one_by_one(layer, *given, mask)) < 1e-13
    holes = drawn_mask()
    assert worst(results(layer, *given, mask=holes), one_by_one(layer, *given, holes)) < 1e-13


def test_a_mask_that_says_lengths_gives_the_same_bits():
    layer = make(**STACKS["two layers, both directions"])
    given = draw(layer)
    by_mask = results(layer, *given, mask=np.arange(T) < LENGTHS[:, None])
    for name, array in results(layer, *given, lengths=LENGTHS).items():
        np.testing.assert_array_equal(array, by_mask[name])


@pytest.mark.parametrize("behind", [np.nan, 1e30, -np.inf])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_lies_behind_the_ends_changes_no_bit(cell, behind):
    layer = make(cell, **STACKS["two layers, both directions"])
    x, state, dy, dstate = draw(layer)
    for real, mask in (({"lengths": LENGTHS}, np.arange(T) < LENGTHS[:, None]), ({"mask": drawn_mask()}, drawn_mask())):
        expected = results(layer, x, state, dy, dstate, **real)
        x_other, dy_other = (np.where(mask[:, :, None], array, behind) for array in (x, dy))
        for name, array in results(layer, x_other, state, dy_other, dstate, **real).items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
        assert (expected["y"][~mask] == 0).all()
        assert (expected["dx"][~mask] == 0).all()


def test_lengths_that_are_all_the_whole_change_no_bit():
    layer = make(kernel="auto", dtype="float32")
    given = draw(layer)
    without = results(layer, *given)
    for real in ({"lengths": np.full(B, T)}, {"mask": np.ones((B, T), bool)}):
        for name, array in results(layer, *given, **real).items():
            np.testing.assert_array_equal(array, without[name])


def test_held_outputs_are_those_of_the_step_before_in_the_order_of_reading():
    layer = make(masked_outputs="held", bidirectional=True)
    zero = make(bidirectional=True)
    x, state, _, _ = draw(layer)
    mask = drawn_mask()
    (y, final), (given, final_zero) = layer(x, state, mask=mask), zero(x, state, mask=mask)
    np.testing.assert_array_equal(final, final_zero)
    expected = np.zeros_like(y)
    for b in range(B):
        for half, order in ((slice(0, H), range(T)), (slice(H, None), reversed(range(T)))):
            value = np.zeros(H)
            for t in order:
                value = given[b, t, half] if mask[b, t] else value
                expected[b, t, half] = value
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("masked_outputs", ["zero", "held"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_before", "rnn", "rnn_relu", "peephole_lstm"])
def test_gradients(cell, masked_outputs, peephole):
    options = {"bidirectional": True, "num_layers": 2, "masked_outputs": masked_outputs}
    layer = Recurrent(2, 3, cell=cell, kernel="reference", **options)
    for real in ({"lengths": [4, 0, 2, 5]}, {"mask": drawn_mask()[2:, 2:]}):
        report = lstm_np.gradcheck(layer, batch_size=4, steps=5, entries=12, **real)
        assert report, report
        assert report.worst_complex_step < 1e-12


def test_dropout_and_cell_clip_with_lengths():
    layer = lstm_np.LSTM(2, 3, num_layers=2, dropout=0.4, dropout_outputs="all", cell_clip=0.4, bidirectional=True)
    report = lstm_np.gradcheck(layer, batch_size=3, steps=5, entries=12, lengths=[2, 5, 3], dropout_key=(1,))
    assert report, report


@pytest.mark.parametrize("masked_outputs", ["zero", "held"])
def test_on_a_device(masked_outputs):
    """Nothing meets a host array, and nothing waits for the device."""
    options = {**STACKS["two layers, both directions"], "masked_outputs": masked_outputs}
    here, there = make("gru", **options), make("gru", backend=STRICT, **options)
    there.params.update({name: from_host(array) for name, array in here.params.items()})
    x, state, dy, dstate = draw(here)
    for real in ({"lengths": LENGTHS}, {"mask": drawn_mask()}):
        expected = results(here, x, state, dy, dstate, **real)
        put = [tuple(from_host(part) for part in one) if isinstance(one, tuple) else from_host(one)
               for one in (x, state, dy, dstate)]  # fmt: skip
        for name, array in results(there, *put, **real).items():
            np.testing.assert_allclose(to_host(array), expected[name], rtol=1e-13, atol=1e-14)


def test_a_list_is_a_padded_batch_with_its_lengths():
    layer = make(bidirectional=True)
    x, *_ = draw(layer)
    sequences = [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    expected, final = layer(x, lengths=LENGTHS)
    for form in (sequences, [one.tolist() for one in sequences if len(one)], lstm_np.pack(sequences)):
        y, state = layer(form)
        rows = LENGTHS > 0 if len(form) < B and isinstance(form, list) else np.ones(B, bool)
        np.testing.assert_array_equal(y, expected[rows])
        for part, whole in zip(state, final, strict=True):
            np.testing.assert_array_equal(part, whole[:, rows])
    same = [np.ones((T, D))] * 2
    np.testing.assert_array_equal(layer(same)[0], layer(np.ones((2, T, D)))[0])
    y, _ = layer([np.ones((0, D))] * 2)
    assert y.shape == (2, 1, 2 * H)
    assert not y.any()


def test_states_that_go_on():
    """Two calls, the second from the states of the first, are one: also for a sequence that ended in the first."""
    layer = make()
    x, state, _, _ = draw(layer)
    whole, final = layer(x, state, lengths=LENGTHS)
    first, between = layer(x[:, :3], state, lengths=np.minimum(LENGTHS, 3))
    second, after = layer(x[:, 3:], between, lengths=np.maximum(LENGTHS - 3, 0))
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(after, final, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("real", "words"),
    [
        ({"lengths": [1, 2]}, r"lengths must have shape \(B,\), \(6,\) for this x; found \(2,\)"),
        ({"lengths": [1, 2, 3, 4, 5, 8]}, "lengths must be 0 ... 7, the steps of x; found 1 ... 8"),
        ({"lengths": [1, 2, 3, 4, 5, -1]}, "found -1 ... 5"),
        ({"lengths": [1.0] * 6}, "lengths must be whole numbers"),
        ({"mask": np.ones((6, 7))}, "mask must be booleans"),
        ({"mask": np.ones((7, 6), bool)}, "mask must have shape"),
        ({"mask": np.ones(6, bool)}, "mask must be booleans"),
        ({"mask": np.ones((6, 7), bool), "lengths": [1] * 6}, "give lengths or a mask, not both"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(real, words):
    with pytest.raises(ValueError, match=words) as caught:
        make()(np.ones((B, T, D)), **real)
    assert "\n" not in str(caught.value)


def test_lists_that_do_not_fit_are_refused_in_a_line():
    layer = make()
    for x, words in (
        ([np.ones((2, D)), np.ones((3, D + 1))], "sequence 1 is"),
        ([np.ones((2, D + 1)), np.ones((3, D + 1))], r"x must have shape \(B, T, 3\)"),
        ([[[1.0, 2.0, 3.0]], [[1.0, 2.0], [1.0, 2.0, 3.0]]], "unequal lengths"),
    ):
        with pytest.raises(ValueError, match=words):
            layer(x)
    with pytest.raises(ValueError, match="lengths of its own"):
        layer([np.ones((2, D)), np.ones((3, D))], lengths=[1, 1])


def test_a_kernel_that_takes_no_lengths_gives_way_with_a_warning(monkeypatch):
    layer = lstm_np.LSTM(D, H, kernel="fused", dtype="float64", bidirectional=True)
    given = draw(layer)
    expected = results(layer.copy(kernel="reference"), *given, lengths=LENGTHS)
    monkeypatch.setattr(type(layer.singles[0].kernel), "packs", False)
    with pytest.warns(lstm_np.KernelWarning, match="kernel 'fused' takes no sequences of unequal length"):
        found = results(layer, *given, lengths=LENGTHS)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])


class TestTraces:
    def test_what_is_seen_of_a_sequence_is_what_is_seen_of_it_alone(self):
        layer = make("gru", bidirectional=True, num_layers=2)
        x, state, dy, dstate = draw(layer)
        mask = drawn_mask()
        x = np.where(mask[:, :, None], x, np.nan)
        _, _, cache = layer.forward(x, state, mask=mask, trace=True)
        _, _, grads = layer.backward(cache, dy, dstate)
        trace = cache["trace"]
        np.testing.assert_array_equal(trace.mask, mask)
        for b in np.flatnonzero(mask.any(axis=1)):
            own, steps = slice(b, b + 1), mask[b]
            _, _, alone = layer.forward(x[own, steps], tuple(s[:, own] for s in state), trace=True)
            layer.backward(alone, dy[own, steps], tuple(d[:, own] for d in dstate))
            for name, array in alone["trace"].arrays.items():
                found = trace.arrays[name][b]
                if ".state" in name:  # (T + 1, H): what lies between the steps that it has
                    found = np.concatenate([found[1:][steps], found[-1:]] if "reverse" in name else
                                           [found[:1], found[1:][steps]])  # fmt: skip
                    if "reverse" in name:
                        found = np.concatenate([trace.arrays[name][b][:-1][steps], trace.arrays[name][b][-1:]])
                else:
                    found = found[steps]
                np.testing.assert_allclose(found, array[0], rtol=1e-12, atol=1e-14, err_msg=name)
        for single in layer.singles:
            for parameter in ("W", "b"):
                share = trace.share(parameter, layer=int(single.name[5]), reverse=single.reverse)
                np.testing.assert_allclose(share, grads[f"{single.name}.{parameter}"], rtol=1e-12, atol=1e-13)

    def test_states_are_carried_over_steps_that_a_sequence_does_not_have(self):
        layer = make(bidirectional=True)
        x, state, dy, dstate = draw(layer)
        mask = drawn_mask()
        _, final, cache = layer.forward(x, state, mask=mask, trace=True)
        layer.backward(cache, dy, dstate)
        c, c_reverse = (cache["trace"].state("c", reverse=reverse) for reverse in (False, True))
        np.testing.assert_array_equal(c[:, 0], state[1][0])
        np.testing.assert_array_equal(c[:, -1], final[1][0])
        np.testing.assert_array_equal(c_reverse[:, -1], state[1][1])
        np.testing.assert_array_equal(c_reverse[:, 0], final[1][1])
        np.testing.assert_array_equal(c[:, 1:][~mask], c[:, :-1][~mask])
        np.testing.assert_array_equal(c_reverse[:, :-1][~mask], c_reverse[:, 1:][~mask])
        np.testing.assert_array_equal(cache["trace"].state_gradient("c")[1], np.repeat(dstate[1][0, 1:2], T + 1, 0))

    def test_values_are_held_at_the_steps_of_the_batch(self):
        layer = make(bidirectional=True)
        x, state, _, _ = draw(layer)
        mask = drawn_mask()
        hold = lstm_np.Hold("f", 0.25, steps=[2, 3], samples=[0, 2, 4])
        _, _, cache = layer.forward(x, state, mask=mask, trace=True, hold=hold)
        held = np.zeros((B, T), bool)
        held[np.ix_([0, 2, 4], [2, 3])] = True
        for reverse in (False, True):
            f = cache["trace"].gate("f", reverse=reverse)
            assert (f[held & mask] == 0.25).all()
            assert (f[~held & mask] != 0.25).all()
            assert (f[~mask] == 0).all()
