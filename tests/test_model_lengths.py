"""Sequences of unequal length in models: reading out, prediction, evaluation, training, traces, what diverges."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.data import Batches
from lstm_np.loop import TrainingDivergedError
from lstm_np.training.evaluation import evaluate

N, T, D, K = 12, 6, 3, 4
LENGTHS = np.array([3, 6, 0, 1, 5, 2, 6, 4, 3, 2, 1, 5])
MODELS = {
    "final state": {},
    "both directions": {"bidirectional": True, "num_layers": 2},
    "last output": {"read_out": "last_output", "bidirectional": True, "dropout": 0.3, "dropout_outputs": "all"},
    "gru with projection": {"cell": "gru", "input_projection": 5, "bidirectional": True},
}


def made(kind="final state", **options):
    return lstm_np.SequenceClassifier(
        D, 5, K, **{"dtype": "float64", "kernel": "reference", "readout_bias": 0.3, **MODELS[kind], **options}
    )


def data(behind=0.0):
    """x, labels and a mask with holes; `behind` is what x has at steps that a sequence does not have."""
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((N, T, D)), rng.integers(0, K, N)
    mask = rng.random((N, T)) < 0.6
    mask[0], mask[1] = False, True
    return x, labels, mask


def behind(x, mask, value):
    return np.where(mask[:, :, None], x, value)


def of_lengths():
    return np.arange(T) < LENGTHS[:, None]


@pytest.mark.parametrize("kind", MODELS)
def test_each_sequence_is_classified_as_if_it_were_alone(kind):
    model = made(kind)
    x, labels, mask = data()
    for given, steps in (({"lengths": LENGTHS}, of_lengths()), ({"mask": mask}, mask)):
        logits = model.logits(x, **given)
        for b in range(N):
            if steps[b].any():
                alone = model.logits(x[b : b + 1, steps[b]])[0]
                np.testing.assert_allclose(logits[b], alone, rtol=1e-12, atol=1e-14)
            else:
                np.testing.assert_array_equal(logits[b], model.params["readout.b"])
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        p = exp / exp.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(model.predict_proba(x, **given, batch_size=5), p, rtol=1e-12)
        np.testing.assert_array_equal(model.predict(x, **given, batch_size=5), p.argmax(axis=1))
        metrics = model.evaluate(x, labels, **given, batch_size=5)
        assert metrics.loss == pytest.approx(-np.log(p[np.arange(N), labels]).mean(), rel=1e-12)
        assert metrics.accuracy == (p.argmax(axis=1) == labels).mean()


@pytest.mark.parametrize("kind", MODELS)
def test_gradients(kind):
    model = lstm_np.SequenceClassifier(2, 3, 3, kernel="reference", **MODELS[kind])
    mask = np.array([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], bool)
    for real in ({"lengths": [4, 0, 2, 5]}, {"mask": mask}):
        for key in (None, (3,)):
            report = lstm_np.gradcheck(model, batch_size=4, steps=5, entries=10, dropout_key=key, **real)
            assert report, report


@pytest.mark.parametrize("value", [np.nan, 1e30, np.inf])
@pytest.mark.parametrize("kind", MODELS)
def test_what_lies_behind_the_ends_changes_no_bit(kind, value):
    model = made(kind)
    x, labels, mask = data()
    for given, steps in (({"lengths": LENGTHS}, of_lengths()), ({"mask": mask}, mask)):
        other = behind(x, steps, value)
        loss, grads = model.loss_and_gradients(x, labels, **given)
        loss_other, grads_other = model.loss_and_gradients(other, labels, **given)
        assert loss == loss_other
        np.testing.assert_array_equal(grads.flat, grads_other.flat)
        np.testing.assert_array_equal(model.predict_proba(other, **given), model.predict_proba(x, **given))
        assert model.evaluate(other, labels, **given) == model.evaluate(x, labels, **given)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_within_a_sequence_is_refused(value):
    x, labels, _ = data()
    x[1, 5, 0] = value
    model = made()
    for call in (model.predict, model.logits, lambda *a, **k: model.evaluate(a[0], labels, **k),
                 lambda *a, **k: model.fit(a[0], labels, **k)):  # fmt: skip
        with pytest.raises(ValueError, match="not finite"):
            call(x, lengths=LENGTHS)
    assert model.predict(x, lengths=np.minimum(LENGTHS, 5)).shape == (N,)


def test_lists_are_padded_batches():
    x, labels, _ = data()
    sequences = [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    model = made("both directions")
    np.testing.assert_array_equal(model.predict_proba(sequences), model.predict_proba(x, lengths=LENGTHS))
    assert model.evaluate(sequences, labels) == model.evaluate(x, labels, lengths=LENGTHS)
    assert model.loss_and_gradients(sequences, labels)[0] == model.loss_and_gradients(x, labels, lengths=LENGTHS)[0]
    other = made("both directions")
    model.fit(sequences, labels, epochs=2, batch_size=5)
    other.fit(x, labels, lengths=LENGTHS, epochs=2, batch_size=5)
    np.testing.assert_array_equal(model.params.flat, other.params.flat)
    step = (sequences[:5], labels[:5])
    assert model.evaluate_batches([step]) == model.evaluate_batches([(x[:5], labels[:5], LENGTHS[:5])])


@pytest.mark.parametrize("bucket", [None, 2])
def test_training_reads_nothing_behind_the_ends_and_learns(bucket):
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 9, 300)
    x, labels = rng.standard_normal((300, 8, 2)), rng.integers(0, 2, 300)
    x[np.arange(300), lengths - 1, 0] = 4.0 * labels - 2.0  # the answer is at each sequence's own last step
    mask = np.arange(8) < lengths[:, None]
    models = [lstm_np.SequenceClassifier(2, 8, 2, kernel="reference") for _ in range(2)]
    for model, values in zip(models, (x, behind(x, mask, np.nan)), strict=True):
        optimizer = lstm_np.Adam(model.params, lr=0.02)
        validation = (values[250:], labels[250:], lengths[250:])
        history = model.fit(
            values[:250], labels[:250], lengths=lengths[:250], epochs=8, batch_size=50, bucket=bucket,
            optimizer=optimizer, validation_data=validation,
        )  # fmt: skip
        assert history[-1].validation.accuracy > 0.9
        assert model.evaluate(*validation[:2], mask=mask[250:]) == history[-1].validation
    np.testing.assert_array_equal(models[0].params.flat, models[1].params.flat)


def test_a_share_to_evaluate_on_keeps_its_lengths():
    x, labels, _ = data()
    models = [made() for _ in range(2)]
    first = models[0].fit(x, labels, lengths=LENGTHS, validation_split=0.25, batch_size=3)
    second = models[1].fit(
        x[:9], labels[:9], lengths=LENGTHS[:9], validation_data=(x[9:], labels[9:], LENGTHS[9:]), batch_size=3
    )
    assert first[0].validation == second[0].validation


def test_training_with_lengths_is_resumed_with_the_same_bits(tmp_path):
    x, labels, _ = data()
    arguments = {"lengths": LENGTHS, "epochs": 3, "batch_size": 4, "bucket": 2}

    def stop(epoch):
        if epoch.number == 2 if hasattr(epoch, "number") else True:
            raise KeyboardInterrupt

    whole, cut = made(), made()
    whole.fit(x, labels, **arguments)
    with pytest.raises(KeyboardInterrupt):
        cut.fit(x, labels, **arguments, checkpoints=tmp_path, on_epoch=stop)
    again = lstm_np.SequenceClassifier.resume(tmp_path, kernel="reference")
    with pytest.raises(ValueError, match="x and labels: others"):
        again.fit(x, labels, **{**arguments, "lengths": np.full(N, T - 1)}, checkpoints=tmp_path)
    again = lstm_np.SequenceClassifier.resume(tmp_path, kernel="reference")
    again.fit(x, labels, **arguments, checkpoints=tmp_path)
    np.testing.assert_array_equal(again.params.flat, whole.params.flat)


@pytest.mark.parametrize("kind", ["final state", "both directions", "last output"])
def test_a_trace_has_the_answer_of_each_sequence(kind):
    model = made(kind)
    x, labels, mask = data()
    trace = lstm_np.trace(model, behind(x, mask, np.nan), labels, mask=mask)
    loss, grads = model.loss_and_gradients(x, labels, mask=mask)
    assert trace.loss == loss
    np.testing.assert_array_equal(trace.logits, model.logits(x, mask=mask))
    np.testing.assert_array_equal(trace.step_logits[:, -1][mask.any(axis=1)], trace.logits[mask.any(axis=1)])
    np.testing.assert_allclose(trace.share("U"), grads["layer0.U"], rtol=1e-12, atol=1e-14)
    for b in np.flatnonzero(mask.any(axis=1)):
        alone = lstm_np.trace(model, x[b : b + 1, mask[b]])
        np.testing.assert_allclose(trace.step_logits[b, mask[b]], alone.step_logits[0], rtol=1e-11, atol=1e-13)
    assert "T" not in trace.summary().split("\n")[0] or trace.summary()


@pytest.mark.parametrize("kind", ["final state", "both directions"])
def test_what_diverges_is_named_by_the_batch_s_sample_and_step(kind):
    model = made(kind)
    x, labels, mask = data()
    steps = model.training_steps(lstm_np.SGD(model.params, lr=0.1))
    steps.step((behind(x, mask, np.nan), labels, mask), 1)
    sample, step = 5, int(np.flatnonzero(mask[5])[-1])
    bad = x.copy()
    bad[sample, step, 1] = np.inf
    before = model.params.flat.copy()
    with pytest.raises(TrainingDivergedError, match=f"sample 5 of the batch, first at time step {step}, feature 1"):
        steps.step((bad, labels, mask), 2)
    np.testing.assert_array_equal(model.params.flat, before)


@pytest.mark.parametrize("reverse", [False, True])
def test_what_diverges_on_the_way_is_named_by_the_batch_s_sample_and_step(reverse):
    model = made("both directions" if reverse else "final state", cell="rnn_relu", num_layers=1)
    x, labels, mask = data()
    sample, step = 5, int(np.flatnonzero(mask[5])[1])
    bad = np.where(mask[:, :, None], np.abs(x), np.nan)
    bad[sample, step] = 1e200
    model.params["layer0_reverse.W" if reverse else "layer0.W"][1] = 1e200
    steps = model.training_steps(lstm_np.SGD(model.params, lr=0.1))
    layer = "layer0_reverse" if reverse else "layer0"
    with pytest.raises(TrainingDivergedError, match=f"h of {layer} at time step {step}, in sample 5 of the batch;"):
        steps.step((bad, labels, mask), 1)


def test_holds_are_those_of_each_batch_s_samples():
    model = made()
    x, labels, mask = data()
    hold = lstm_np.Hold("f", np.random.default_rng(0).random((N, T, 5)), samples=slice(3, 9))
    whole = model.evaluate(x, labels, mask=mask, hold=hold)
    assert whole.loss == pytest.approx(model.evaluate(x, labels, mask=mask, hold=hold, batch_size=5).loss, rel=1e-12)
    assert whole != model.evaluate(x, labels, mask=mask)


def test_batches_with_lengths_go_where_batches_go():
    x, labels, _ = data()
    model = made()
    batches = Batches(x, labels, 5, lengths=LENGTHS, dtype="float64", bucket=2)
    measured = evaluate(model, batches.epoch(0))
    assert measured.loss == pytest.approx(model.evaluate(x, labels, lengths=LENGTHS).loss)
    assert model.evaluate_data(batches).loss == pytest.approx(model.evaluate(x, labels, lengths=LENGTHS).loss)
    steps = model.training_steps(lstm_np.Adam(model.params), batches)
    lstm_np.loop.train(steps, model.position, epochs=1)
    assert model.position.step == 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x, y: m.predict(x, lengths=[1]), r"lengths must have shape \(B,\), \(12,\)"),
        (lambda m, x, y: m.fit(x, y, lengths=[1]), r"lengths must have shape"),
        (lambda m, x, y: m.fit(x, y, bucket=3), "bucket 3 needs lengths or a mask"),
        (lambda m, x, y: m.fit(x, y, lengths=LENGTHS, bucket=0), "bucket 0"),
        (lambda m, x, y: m.evaluate(list(x[:, :3]) + [x[0]], y), "labels must be integers"),
        (lambda m, x, y: m.fit(x, y, validation_data=(x, y, LENGTHS[:3])), "validation_data: lengths must have shape"),
        (lambda m, x, y: m.trace(x, y, mask=np.ones((3, 3), bool)), "mask must have shape"),
        (lambda m, x, y: lstm_np.gradcheck(m, lengths=[1]), "lengths must have shape"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(call, words):
    x, labels, _ = data()
    with pytest.raises(ValueError, match=words) as caught:
        call(made(), x, labels)
    assert "\n" not in str(caught.value)
