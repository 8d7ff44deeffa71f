"""A stateful model: batches that go on from one another, in training, evaluation and prediction."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.loop import train
from lstm_np.steps import TrainingBatch

pytestmark = pytest.mark.quick

T, D, B = 4, 3, 5


def filled(owner, seed=0):
    """The layer or model with no parameter at zero."""
    rng = np.random.default_rng(seed)
    for name, array in owner.params.items():
        owner.params[name] = rng.uniform(-0.6, 0.6, array.shape)
    return owner


def data(batches=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batches * B, T, D)), rng.integers(0, 2, batches * B)


def make(**options):
    return filled(lstm_np.SequenceClassifier(D, 6, 2, stateful=True, **{"dtype": "float64", **options}))


def in_one_piece(x):
    """The long sequences (B, batches * T, D) that the batches are cut from."""
    return np.concatenate([x[k : k + B] for k in range(0, len(x), B)], axis=1)


@pytest.mark.parametrize(
    "options", [{}, {"cell": "gru", "num_layers": 2}, {"initial_state": "learned"}, {"dtype": "float32"}]
)
def test_prediction_goes_on_from_batch_to_batch(options):
    model, (x, labels) = make(**options), data()
    found = model.predict_proba(x, batch_size=B)
    long = in_one_piece(x)
    for k in range(4):
        expected = model.predict_proba(long[:, : (k + 1) * T], batch_size=B)
        np.testing.assert_allclose(
            found[k * B : (k + 1) * B], expected, rtol=1e-10 if model.dtype == "float64" else 1e-5
        )
    np.testing.assert_array_equal(model.predict(x, batch_size=B), found.argmax(axis=1))
    p = found[np.arange(len(x)), labels]
    metrics = model.evaluate(x, labels, batch_size=B)
    assert metrics.loss == pytest.approx(-np.log(p).mean(), rel=1e-6)
    again = model.evaluate_batches((x[k : k + B], labels[k : k + B]) for k in range(0, 20, B))
    assert again == metrics == model.evaluate(x, labels, batch_size=B)  # each call begins from the initial state


def test_sequences_that_begin_again_do_so_alone():
    model, (x, labels) = make(initial_state="learned"), data()
    resets = np.zeros(20, bool)
    resets[[6, 13]] = True
    found, plain = model.predict_proba(x, batch_size=B, resets=resets), model.predict_proba(x, batch_size=B)
    differs = np.abs(found - plain).max(axis=1) > 1e-9
    assert np.flatnonzero(differs).tolist() == [6, 11, 13, 16, 18]  # column 1 from batch 1 on, column 3 from batch 2 on
    alone = model.copy(stateful=False)
    np.testing.assert_allclose(found[6], alone.predict_proba(x[6:7])[0], rtol=1e-12)
    np.testing.assert_allclose(found[11], alone.predict_proba(np.concatenate(x[[6, 11]])[None])[0], rtol=1e-12)
    assert model.evaluate(x, labels, batch_size=B, resets=resets) != model.evaluate(x, labels, batch_size=B)


@pytest.mark.parametrize("resets", [None, [6, 13, 14]])
@pytest.mark.parametrize("options", [{}, {"initial_state": "learned", "num_layers": 2}, {"cell": "rnn"}])
def test_training_is_gradient_steps_from_carried_states(options, resets):
    """fit against a loop of one's own over a layer's public methods."""
    model, (x, labels) = make(**options), data()
    where = None
    if resets:
        where = np.zeros(20, bool)
        where[resets] = True
    own = model.copy(stateful=False)
    optimizer = lstm_np.SGD(own.params, lr=0.1)
    for _ in range(2):
        state = None
        for k in range(0, 20, B):
            some = None if where is None else where[k : k + B]
            y, state, cache = own.recurrent.forward(x[k : k + B], state, resets=some)
            logits = y[:, -1] @ own.params["readout.W"].T + own.params["readout.b"]
            p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            dlogits = (p - np.eye(2)[labels[k : k + B]]) / B
            dy = np.zeros_like(y)
            dy[:, -1] = dlogits @ own.params["readout.W"]
            _, _, grads = own.recurrent.backward(cache, dy)
            both = own.params.empty_like()
            both.update(grads, **{"readout.W": dlogits.T @ y[:, -1], "readout.b": dlogits.sum(axis=0)})
            optimizer.step(both)
    options = {"batch_size": B, "shuffle": False, "optimizer": lstm_np.SGD(model.params, lr=0.1)}
    history = model.fit(x, labels, epochs=2, resets=where, **options)
    np.testing.assert_allclose(model.params.flat, own.params.flat, rtol=1e-10, atol=1e-13)
    assert [epoch.steps for epoch in history] == [4, 8]


def test_ten_calls_are_one_and_a_resumed_run_has_the_bits_of_an_unbroken_one(tmp_path):
    (x, labels), fit = data(), {"batch_size": B, "shuffle": False, "clip_norm": 1.0}
    resets = np.arange(20) % 7 == 6
    whole, parts = make(initial_state="learned"), make(initial_state="learned")
    whole.fit(x, labels, epochs=4, resets=resets, **fit)
    for _ in range(4):
        parts.fit(x, labels, resets=resets, **fit)
    np.testing.assert_array_equal(whole.params.flat, parts.params.flat)

    class Stop(Exception):
        pass

    broken, seen = make(initial_state="learned"), []

    def on_epoch(epoch):
        seen.append(epoch)
        if len(seen) == 3:
            raise Stop

    keep = {"checkpoints": tmp_path, "checkpoint_every": "3", "keep_checkpoints": 50, "resets": resets, **fit}
    with pytest.raises(Stop):
        broken.fit(x, labels, epochs=4, on_epoch=on_epoch, **keep)
    for path in sorted(tmp_path.glob("*.safetensors"))[2:]:  # back to step 3, in the middle of an epoch
        path.unlink()
    resumed = lstm_np.SequenceClassifier.resume(tmp_path)
    assert (resumed.position.batch, resumed.stateful) == (3, True)
    with pytest.raises(ValueError, match="with the same arguments; resets: others"):
        resumed.fit(x, labels, epochs=4, **{**keep, "resets": ~resets})
    resumed.fit(x, labels, epochs=4, **keep)
    np.testing.assert_array_equal(resumed.params.flat, whole.params.flat)


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_run_is_entered_at_any_step(stop):
    x, labels = data()
    batches = lstm_np.data.Batches(x, labels, B, shuffle=False, dtype="float64")
    whole, other = make(), make()
    train(whole.training_steps(lstm_np.Adam(whole.params), batches), epochs=2)
    first = other.training_steps(lstm_np.Adam(other.params), batches)
    train(first, epochs=2, max_steps=stop)
    state, position, again = first.state(), other.position, other.copy()
    second = again.training_steps(lstm_np.Adam(again.params), batches)
    second.restore(state)
    train(second, position, epochs=2)
    np.testing.assert_array_equal(again.params.flat, whole.params.flat)


def test_sequences_of_unequal_length_go_on_from_their_own_ends():
    model, (x, labels) = make(cell="gru", num_layers=2, kernel="reference"), data(2)
    lengths = np.array([4, 1, 0, 3, 2, 4, 4, 4, 4, 4])
    found = model.predict_proba(x, lengths=lengths, batch_size=B)
    for k in range(B):
        joined = np.concatenate([x[k, : lengths[k]], x[B + k]])
        np.testing.assert_allclose(found[B + k], model.predict_proba(joined[None])[0], rtol=1e-10)
    one, other = model.copy(), model.copy()
    fit = {"batch_size": B, "shuffle": False, "epochs": 2}
    one.fit(x, labels, lengths=lengths, **fit)
    other.fit(np.where(np.arange(T)[None, :, None] < lengths[:, None, None], x, 1e30), labels, lengths=lengths, **fit)
    np.testing.assert_array_equal(one.params.flat, other.params.flat)


def test_batches_by_hand_go_on_until_they_are_reset():
    model, (x, labels) = make(), data()
    steps = model.training_steps(lstm_np.SGD(model.params, lr=0.0))
    pairs = [(x[k : k + B], labels[k : k + B]) for k in range(0, 20, B)]
    losses = [steps.step(pair, number)[0].item() for number, pair in enumerate(pairs, 1)]
    assert steps.step(pairs[0], 5)[0].item() != losses[0]
    steps.reset()
    assert steps.step(pairs[0], 6)[0].item() == losses[0]
    steps.reset([0, 2])
    kept = steps.carried
    resets = np.isin(np.arange(B), [0, 2])
    one = steps.step(pairs[1], 7)[0].item()
    steps.carried = kept
    assert one == steps.step(TrainingBatch(*pairs[1], resets=resets), 8)[0].item() != losses[1]
    with pytest.raises(ValueError, match="this batch has 2 of them, the one before 5"):
        steps.step((x[:2], labels[:2]), 9)


def test_validation_does_not_disturb_training():
    x, labels = data()
    plain, looked = make(), make()
    fit = {"epochs": 3, "batch_size": B, "shuffle": False}
    plain.fit(x, labels, **fit)
    history = looked.fit(x, labels, validation_data=(x[:10], labels[:10]), **fit)
    np.testing.assert_array_equal(plain.params.flat, looked.params.flat)
    assert history[-1].validation == looked.evaluate(x[:10], labels[:10], batch_size=B)


def test_a_step_that_diverges_carries_nothing_on():
    model, (x, labels) = make(), data()
    steps = model.training_steps(lstm_np.Adam(model.params))
    steps.step((x[:B], labels[:B]), 1)
    kept = [part.copy() for part in steps.carried[0]]
    bad = x[:B].copy()
    bad[0, 1] = np.inf
    with pytest.raises(lstm_np.TrainingDivergedError, match="training diverged at step 2"):
        steps.step((bad, labels[:B]), 2)
    for one, other in zip(kept, steps.carried[0], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": B}, "pass shuffle=False, and no bucket"),
        ({"batch_size": 8, "shuffle": False}, "20 sequences are no multiple of batch_size 8"),
        ({"batch_size": B, "shuffle": False, "resets": [True]}, r"resets must be booleans \(20,\)"),
        ({"batch_size": B, "shuffle": False, "resets": np.ones(20)}, r"resets must be booleans \(20,\), found float64"),
        ({"batch_size": B, "shuffle": False, "validation_split": 0.1}, "18 sequences are no multiple of batch_size 5"),
    ],
)
def test_what_cannot_go_on_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make().fit(*data(), **arguments)


def test_what_else_cannot_be():
    x, labels = data()
    for act in (lambda: make().predict(x, batch_size=7), lambda: make().evaluate(x, labels, batch_size=7)):
        with pytest.raises(ValueError, match="20 sequences are no multiple of batch_size 7"):
            act()
    with pytest.raises(lstm_np.OptionError, match="bidirectional and stateful cannot go together"):
        lstm_np.SequenceClassifier(D, 6, 2, stateful=True, bidirectional=True)
    plain = lstm_np.SequenceClassifier(D, 6, 2)
    for act in (
        lambda: plain.fit(x, labels, resets=np.ones(20, bool)),
        lambda: plain.predict(x, resets=np.ones(20, bool)),
        lambda: plain.training_steps(lstm_np.Adam(plain.params), resets=np.ones(20, bool)),
    ):
        with pytest.raises(ValueError, match="resets are those of a model with stateful=True"):
            act()


def test_it_is_saved_and_loaded(tmp_path):
    model, (x, _) = make(), data()
    model.save(tmp_path / "model.safetensors")
    loaded = lstm_np.load(tmp_path / "model.safetensors")
    assert loaded.stateful
    np.testing.assert_array_equal(loaded.predict_proba(x, batch_size=B), model.predict_proba(x, batch_size=B))


def test_predictions_are_those_of_a_stateful_keras_model():
    keras = pytest.importorskip("keras")
    model, (x, _) = make(), data()
    layer = keras.layers.LSTM(6, stateful=True, dtype="float64")
    inputs = keras.Input(batch_shape=(B, T, D), dtype="float64")
    peer = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", dtype="float64")(layer(inputs)))
    rows = np.concatenate([np.arange(0, 12), np.arange(18, 24), np.arange(12, 18)])  # i, f, o, g -> i, f, c, o
    p = model.params
    layer.set_weights([p["layer0.W"][rows].T, p["layer0.U"][rows].T, p["layer0.b"][rows]])
    peer.layers[-1].set_weights([p["readout.W"].T, p["readout.b"]])
    found = np.concatenate([np.asarray(peer(x[k : k + B])) for k in range(0, 20, B)])
    np.testing.assert_allclose(model.predict_proba(x, batch_size=B), found, rtol=1e-9)
    layer.reset_state()
    np.testing.assert_allclose(model.predict_proba(x[:B], batch_size=B), np.asarray(peer(x[:B])), rtol=1e-9)
