"""The gradients of models with every loss and everything that is read, against the complex step: exact to rounding.

Along a direction that is random in all entries of a parameter, the derivative is an inner product with its gradient, so
that one complex forward pass checks all entries of it at once.
"""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.model import readout
from tests.model.cases import LENGTHS, LOSSES, READ_OUTS, B, T, inputs, make, targets

pytestmark = pytest.mark.quick

EPS = 1e-30
SHAPES = {"plain": {}, "both directions, two layers": {"bidirectional": True, "num_layers": 2}}


def worst_error(model, x, y, *, lengths=None, mask=None, sample_weight=None, dropout_key=None):
    """Over all parameters, relative to the sum of the sizes of what is added up."""
    real = lengths if mask is None else mask
    loss, grads = model.loss_and_gradients(
        x, y, lengths=lengths, mask=mask, sample_weight=sample_weight, dropout_key=dropout_key
    )
    exact = model.copy(dtype="complex128", kernel="reference")
    packing = exact.recurrent.packing(real, len(x), T)
    entered = x.astype(complex).transpose(2, 1, 0)
    read = exact.head.read(y, len(x), T, real)
    wanted = exact.head.enter(read, T, real, exact.head.read_weights(sample_weight, len(x), T))

    def loss_of():
        outputs, _, _ = exact.run(entered, packing=packing, save=False, dropout_key=dropout_key)
        return exact.loss(np, outputs, wanted)[0]

    assert loss == pytest.approx(loss_of().real, rel=1e-12)
    rng, worst = np.random.default_rng(9), 0.0
    for name, array in exact.params.items():
        kept, direction = array.copy(), rng.standard_normal(array.shape)
        array[...] = kept + 1j * EPS * direction
        expected = loss_of().imag / EPS
        array[...] = kept
        terms = grads[name] * direction
        worst = max(worst, abs(terms.sum() - expected) / max(np.abs(terms).sum(), 1e-3))
    return worst


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("read_out", READ_OUTS)
@pytest.mark.parametrize("kind", LOSSES)
def test_every_gradient_is_exact(kind, read_out, shape):
    model = make(kind, read_out=read_out, **SHAPES[shape])
    x, y = inputs(), targets(kind, read_out == "each_step")
    weights = np.array([0.5, 2.0, 1.0, 0.25])
    for given in ({}, {"lengths": LENGTHS, "sample_weight": weights}):
        assert worst_error(model, x, y, **given) <= 1e-12, given


@pytest.mark.parametrize("read_out", READ_OUTS)
def test_masks_with_holes_an_empty_sequence_and_dropout_of_all_outputs(read_out):
    mask = np.random.default_rng(4).random((B, T)) < 0.6
    mask[0] = False
    for dropout in ("step", "sequence"):
        model = make("softmax", read_out=read_out, dropout=0.4, dropout_outputs="all", dropout_mask=dropout)
        y = targets("softmax", read_out == "each_step")
        assert worst_error(model, inputs(), y, mask=mask, dropout_key=(3,)) <= 1e-12


@pytest.mark.parametrize("options", [{"cell": "gru"}, {"cell": "rnn"}, {"input_projection": 2}, {"bias": "double"}])
def test_other_layers(options):
    for read_out in ("mean", "max", "each_step"):
        model = make("squared", read_out=read_out, **options)
        assert worst_error(model, inputs(), targets("squared", read_out == "each_step"), lengths=LENGTHS) <= 1e-12


def test_gradcheck_takes_every_entry_of_every_model():
    for model in (
        lstm_np.SequenceRegressor(2, 3, 2, loss="huber", read_out="mean"),
        lstm_np.SequenceClassifier(2, 3, 2, read_out="each_step", bidirectional=True),
        lstm_np.SequenceClassifier(2, 3, 2, loss="binary", read_out="max"),
    ):
        report = lstm_np.gradcheck(model, batch_size=2, steps=3, lengths=[3, 2])
        assert report, report
        assert report.worst_complex_step <= 1e-12
    assert "SequenceClassifier (lstm): reading max, loss binary, D=2 H=3 L=1 K=2, B=2 T=3" in str(report)
    assert "SequenceRegressor (gru): D=2 H=3 L=1 M=1" in str(
        lstm_np.gradcheck(lstm_np.SequenceRegressor(2, 3, cell="gru"), entries=1)
    )


@pytest.mark.parametrize("read_out", ["mean", "max", "each_step", "last_output"])
def test_an_error_in_what_is_read_is_found(read_out, monkeypatch):
    right = readout.backward

    def wrong(*given):
        dy = right(*given)
        dy[0, 0, 0] += 1e-9
        return dy

    monkeypatch.setattr(readout, "backward", wrong)
    x, y = inputs(), targets("softmax", read_out == "each_step")
    model = make("softmax", read_out=read_out, bidirectional=True)
    assert worst_error(model, x, y) > 1e-12


def test_truncated_backpropagation_follows_what_is_read_of_each_window():
    """With windows as long as the sequence it is the whole gradient; with shorter ones it is another."""
    for read_out in READ_OUTS:
        model, x = make("squared", read_out=read_out), inputs()
        y = targets("squared", read_out == "each_step")
        _, whole = model.loss_and_gradients(x, y)
        _, same = model.loss_and_gradients(x, y, truncation=(T, T))
        _, short = model.loss_and_gradients(x, y, truncation=(2, 2))
        np.testing.assert_allclose(same.flat, whole.flat, rtol=1e-12, atol=1e-15)
        assert np.abs(short["layer0.U"] - whole["layer0.U"]).max() > 1e-4
        np.testing.assert_allclose(short["readout.W"], whole["readout.W"], rtol=1e-12)
