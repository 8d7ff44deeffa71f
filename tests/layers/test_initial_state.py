"""The state before the first step: trained initial states, and sequences of a batch that begin from it again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_np
from lstm_np.cells import CELLS


def filled(owner, seed=0):
    """The layer or model with no parameter at zero."""
    rng = np.random.default_rng(seed)
    for name, array in owner.params.items():
        owner.params[name] = rng.uniform(-0.6, 0.6, array.shape)
    return owner


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("bias", [True, "double", False])
@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_before", "rnn", "rnn_relu"])
def test_the_gradient_check_passes(cell, bias, both):
    options = {"cell": cell, "bias": bias, "bidirectional": both, "num_layers": 2, "initial_state": "learned"}
    layer = lstm_np.Recurrent(3, 4, **options)
    report = lstm_np.gradcheck(layer, entries=6, seed=1)
    assert report, report
    assert {"layer1.h_0", "layer0.h_0"} <= {tensor.name for tensor in report.tensors}
    model = lstm_np.SequenceClassifier(3, 4, 2, **options, input_projection=2)
    report = lstm_np.gradcheck(model, entries=6, seed=1)
    assert report, report


@pytest.mark.parametrize("kernel", ["fused", "lean", "reference"])
def test_every_kernel_and_a_clipped_cell_pass(kernel):
    assert lstm_np.gradcheck(lstm_np.LSTM(3, 4, initial_state="learned", kernel=kernel), entries=6)
    if kernel == "reference":
        assert lstm_np.gradcheck(lstm_np.LSTM(3, 4, initial_state="learned", cell_clip=0.4), entries=6)


@pytest.mark.parametrize("both", [False, True])
def test_sequences_of_unequal_length_pass(both):
    layer = lstm_np.GRU(3, 4, bidirectional=both, initial_state="learned", kernel="reference")
    assert lstm_np.gradcheck(layer, entries=6, batch_size=4, lengths=[2, 4, 0, 1])
    model = lstm_np.SequenceClassifier(3, 4, 2, bidirectional=both, initial_state="learned", kernel="reference")
    mask = [[True, False, True, True], [False, True, True, False], [True] * 4]
    assert lstm_np.gradcheck(model, entries=6, mask=mask)


def test_the_check_finds_a_wrong_gradient(monkeypatch):
    from lstm_np.layers.single import Single

    right = Single._initial_gradients

    def wrong(self, dstate_0, began, grads):
        given, grads = right(self, dstate_0, began, grads)
        return given, {name: 1.001 * grad if name == "c_0" else grad for name, grad in grads.items()}

    monkeypatch.setattr(Single, "_initial_gradients", wrong)
    report = lstm_np.gradcheck(lstm_np.LSTM(3, 4, initial_state="learned"), entries=6)
    assert [tensor.name for tensor in report.tensors if not tensor.ok] == ["layer0.c_0"]


def test_it_is_the_state_that_was_given_and_its_gradient_the_sum_over_samples():
    learned = filled(lstm_np.LSTM(3, 4, num_layers=2, bidirectional=True, initial_state="learned", dtype="float64"))
    plain = lstm_np.LSTM(3, 4, num_layers=2, bidirectional=True, dtype="float64")
    names = [single.name for single in plain.singles]
    plain.params.update({name: learned.params[name] for name in plain.params})
    x, dy = normal(5, 6, 3), normal(5, 6, 8, seed=2)
    state = tuple(
        np.stack([np.tile(learned.params[f"{name}.{part}_0"], (5, 1)) for name in names]) for part in ("h", "c")
    )
    y, _, cache = learned.forward(x)
    expected, _, expected_cache = plain.forward(x, state)
    np.testing.assert_array_equal(y, expected)
    dx, dstate_0, grads = learned.backward(cache, dy)
    expected_dx, expected_dstate_0, expected_grads = plain.backward(expected_cache, dy)
    np.testing.assert_array_equal(dx, expected_dx)
    for name, grad in expected_grads.items():
        np.testing.assert_array_equal(grads[name], grad)
    for part, found, d in zip(("h", "c"), dstate_0, expected_dstate_0, strict=True):
        np.testing.assert_array_equal(found, d)
        for k, name in enumerate(names):
            np.testing.assert_allclose(grads[f"{name}.{part}_0"], d[k].sum(axis=0), rtol=1e-13)
    assert list(grads) == list(learned.params)


def test_a_state_that_is_given_takes_its_place_part_by_part():
    layer = filled(lstm_np.LSTM(3, 4, initial_state="learned", dtype="float64"))
    x, h_0 = normal(2, 3, 3), normal(1, 2, 4, seed=3)
    _, _, cache = layer.forward(x, (h_0, None))
    _, (dh_0, dc_0), grads = layer.backward(cache, normal(2, 3, 4))
    assert not grads["layer0.h_0"].any()
    np.testing.assert_allclose(grads["layer0.c_0"], dc_0[0].sum(axis=0), rtol=1e-13)
    assert dh_0.any()
    _, _, cache = layer.forward(x, (h_0, h_0))
    assert not layer.backward(cache, normal(2, 3, 4))[2]["layer0.c_0"].any()


def test_untrained_it_is_the_zero_state_to_the_bit():
    x = normal(4, 6, 3).astype("float32")
    for cell in ("lstm", "gru", "rnn"):
        plain, learned = (lstm_np.Recurrent(3, 5, cell=cell, initial_state=s) for s in ("zeros", "learned"))
        np.testing.assert_array_equal(plain(x)[0], learned(x)[0])
        assert not np.any(learned.params["layer0.h_0"])


def test_it_is_trained_saved_loaded_copied_and_streamed(tmp_path):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((60, 4, 3)), rng.integers(0, 2, 60)
    model = lstm_np.SequenceClassifier(3, 5, 2, initial_state="learned")
    model.fit(x, labels, epochs=2, batch_size=20)
    assert model.params["layer0.h_0"].all()
    assert model.params["layer0.c_0"].all()
    model.save(tmp_path / "model.safetensors")
    loaded = lstm_np.SequenceClassifier.load(tmp_path / "model.safetensors")
    assert loaded.config["initial_state"] == "learned"
    for other in (loaded, model.copy(), model.copy(kernel="reference")):
        np.testing.assert_allclose(other.logits(x), model.logits(x), atol=1e-5)
    np.testing.assert_array_equal(loaded.params.flat, model.params.flat)
    stream = model.stream()
    for t in range(4):
        logits = stream.step(x[0, t])
    np.testing.assert_allclose(logits, model.logits(x[:1])[0], atol=1e-6)
    stream.reset()
    np.testing.assert_array_equal(stream.save()[0][0], model.params["layer0.h_0"])
    step = model.recurrent.step(x[0, 0].astype("float32"))[0]
    np.testing.assert_allclose(step, model.recurrent(x[:1, :1])[0][0, 0], atol=1e-7)


def test_a_trace_of_it_has_its_values():
    model = filled(lstm_np.SequenceClassifier(3, 5, 2, initial_state="learned"))
    trace = lstm_np.trace(model, normal(2, 4, 3), [0, 1])
    np.testing.assert_array_equal(trace.state("c")[:, 0], np.tile(model.params["layer0.c_0"], (2, 1)))
    _, grads = model.loss_and_gradients(normal(2, 4, 3), [0, 1])
    np.testing.assert_allclose(trace.state_gradient("c")[:, 0].sum(axis=0), grads["layer0.c_0"], rtol=1e-4)
    with pytest.raises(lstm_np.TraceError, match="no parameter 'c_0'"):
        trace.factors("c_0")


def test_a_cell_with_a_parameter_of_that_name_is_refused():
    class Named:
        GATES, STATE, VALUES, PARAMETERS = ("n",), ("h",), ("h",), {"h_0": ("H",)}

        @staticmethod
        def forward(xp, a, state, own):
            h = xp.tanh(a) * own["h_0"]
            return (h,), {"h": h}

        @staticmethod
        def backward(xp, dstate, state, values, own):
            dh = dstate[0]
            return dh * own["h_0"], (0,), {"h": dh, "h_0": dh}

    lstm_np.register_cell("named", Named)
    try:
        lstm_np.Recurrent(3, 4, cell="named")
        with pytest.raises(ValueError, match="has a parameter 'h_0', the name of the trained initial state"):
            lstm_np.Recurrent(3, 4, cell="named", initial_state="learned")
    finally:
        del CELLS["named"]


# ---- sequences that begin again


@settings(max_examples=40, deadline=None)
@given(
    resets=st.lists(st.booleans(), min_size=1, max_size=5),
    L=st.integers(1, 2),
    cell=st.sampled_from(["lstm", "gru", "rnn"]),
    learned=st.booleans(),
    both=st.booleans(),
)
def test_a_sequence_that_begins_again_is_one_without_a_state(resets, L, cell, learned, both):
    B, where = len(resets), np.array(resets)
    options = {"initial_state": "learned" if learned else "zeros", "bidirectional": both, "dtype": "float64"}
    layer = filled(lstm_np.Recurrent(3, 4, cell=cell, num_layers=L, **options))
    parts = [normal(L * (2 if both else 1), B, 4, seed=k) for k, _ in enumerate(layer.cell.state)]
    state = tuple(parts) if len(parts) > 1 else parts[0]
    x, dy = normal(B, 4, 3), normal(B, 4, layer.output_size, seed=7)
    y, _, cache = layer.forward(x, state, resets=resets)
    _, dstate_0, grads = layer.backward(cache, dy)
    dstate_0 = dstate_0 if isinstance(dstate_0, tuple) else (dstate_0,)
    total = {name: np.zeros_like(grad) for name, grad in grads.items()}
    for fresh in (True, False):
        rows = np.flatnonzero(where == fresh)
        if not rows.size:
            continue
        given = tuple(part[:, rows] for part in parts)
        given = None if fresh else given if len(given) > 1 else given[0]
        alone, _, one = layer.forward(x[rows], given)
        np.testing.assert_allclose(y[rows], alone, rtol=1e-12, atol=1e-14)
        _, d, g = layer.backward(one, dy[rows])
        for name, grad in g.items():
            total[name] += grad
        for found, expected in zip(dstate_0, d if isinstance(d, tuple) else (d,), strict=True):
            np.testing.assert_allclose(found[:, rows], 0 * expected if fresh else expected, rtol=1e-11, atol=1e-13)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, total[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("resets", [[True], [1, 0], [[True, False]], "ab", [True, False, True]])
def test_other_resets_are_refused(resets):
    with pytest.raises(ValueError, match="resets must be"):
        lstm_np.LSTM(3, 4).forward(np.ones((2, 3, 3)), resets=resets)


def test_gradients_of_h_0_and_c_0_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    layer = filled(lstm_np.LSTM(3, 4, num_layers=2, initial_state="learned", dtype="float64"))
    peer = torch.nn.LSTM(3, 4, num_layers=2, batch_first=True, dtype=torch.float64)
    rows = np.concatenate([np.arange(0, 8), np.arange(12, 16), np.arange(8, 12)])  # i, f, o, g -> i, f, g, o
    with torch.no_grad():
        for k in range(2):
            for theirs, ours in (("weight_ih", "W"), ("weight_hh", "U"), ("bias_ih", "b")):
                array = layer.params[f"layer{k}.{ours}"][rows]
                getattr(peer, f"{theirs}_l{k}").copy_(torch.from_numpy(array))
            getattr(peer, f"bias_hh_l{k}").zero_()
    trained = {
        part: torch.nn.Parameter(torch.from_numpy(np.stack([layer.params[f"layer{k}.{part}_0"] for k in range(2)])))
        for part in ("h", "c")
    }
    x, dy = normal(5, 6, 3), normal(5, 6, 4, seed=2)
    y, _ = peer(
        torch.from_numpy(x), tuple(trained[part][:, None, :].expand(2, 5, 4).contiguous() for part in ("h", "c"))
    )
    (y * torch.from_numpy(dy)).sum().backward()
    found, _, cache = layer.forward(x)
    _, _, grads = layer.backward(cache, dy)
    np.testing.assert_allclose(found, y.detach().numpy(), rtol=1e-12)
    for part in ("h", "c"):
        for k in range(2):
            expected = trained[part].grad[k].numpy()
            np.testing.assert_allclose(grads[f"layer{k}.{part}_0"], expected, rtol=1e-11, atol=1e-13)
