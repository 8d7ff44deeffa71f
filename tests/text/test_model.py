"""The character model: streams of a text are read as a whole sequence is, and what it learns it keeps."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

import lstm_np
from lstm_np import loop
from lstm_np.text import TextBatches, Vocabulary, bits, example, make_model, vocabulary_of
from lstm_np.text.model import perplexity

TEXT = example(4000)
VOCABULARY = Vocabulary.of(TEXT)


def filled(**options):
    model = make_model(VOCABULARY, **{"hidden_size": 6, "dtype": "float64", **options})
    model.params.flat[...] = np.random.default_rng(0).uniform(-0.7, 0.7, model.params.flat.shape)
    return model


@pytest.mark.parametrize("options", [{}, {"cell": "gru", "num_layers": 2}, {"initial_state": "learned"}])
def test_windows_of_streams_are_read_as_the_whole_streams(options):
    codes, model = VOCABULARY.encode(TEXT[:331]), filled(**options)
    B, L = 3, 110
    windows = model.evaluate_batches(TextBatches(codes, VOCABULARY.size, B, 7, dtype="float64").epoch(0))
    whole = model.evaluate_batches(TextBatches(codes, VOCABULARY.size, B, L, dtype="float64").epoch(0))
    assert windows.count == whole.count == B * L
    assert windows.correct == whole.correct
    assert windows.loss == pytest.approx(whole.loss, rel=1e-12)
    forgetful = model.evaluate_batches(
        (x, labels) for x, labels in TextBatches(codes[:78], VOCABULARY.size, 11, 7, dtype="float64").epoch(0)
    )
    assert abs(forgetful.loss - whole.loss) > 1e-5  # where every window begins anew


def test_the_loss_is_that_of_every_character_after_those_before_it():
    model, text = filled(), TEXT[:40]
    codes, stream, total = VOCABULARY.encode(text), model.stream(), 0.0
    for code, following in pairwise(codes):
        logits = stream.step(np.eye(VOCABULARY.size)[code])
        total += np.log(np.exp(logits).sum()) - logits[following]
    measured = model.evaluate_batches(TextBatches(codes, VOCABULARY.size, 1, 5, dtype="float64").epoch(0))
    assert measured.loss == pytest.approx(total / 39, rel=1e-10)
    assert bits(measured.loss) == pytest.approx(total / 39 / math.log(2), rel=1e-10)
    assert perplexity(measured.loss) == pytest.approx(math.exp(total / 39), rel=1e-10)
    assert perplexity(1e6) == math.inf


def test_the_gradient_of_a_window_is_that_of_its_own_loss_from_the_state_before_it():
    """Truncated backpropagation with k1 = k2 = T: central differences of the loss of the second window alone."""
    model = filled()
    batches = [(x.copy(), labels) for x, labels in TextBatches(
        VOCABULARY.encode(TEXT[:41]), VOCABULARY.size, 2, 10, dtype="float64").epoch(0)]  # fmt: skip
    steps = model.training_steps(lstm_np.SGD(model.params, lr=0.0))
    steps.step(batches[0], 1)
    carried = [tuple(part.copy() for part in state) for state in steps.carried]

    def gradients():
        return steps.gradients(lstm_np.steps.TrainingBatch(*batches[1], state=carried), 2)

    found = gradients().grads.flat.copy()
    rng = np.random.default_rng(1)
    for _ in range(4):
        direction, before, e = rng.standard_normal(found.shape), model.params.flat.copy(), 1e-6
        losses = []
        for sign in (1, -1):
            model.params.flat[...] = before + sign * e * direction
            losses.append(float(gradients().loss))
        model.params.flat[...] = before
        assert (losses[0] - losses[1]) / (2 * e) == pytest.approx(found @ direction, rel=1e-6)


def test_it_learns_more_than_how_often_characters_come():
    codes = VOCABULARY.encode(TEXT)
    model = make_model(VOCABULARY, hidden_size=24)
    steps = model.training_steps(lstm_np.Adam(model.params, lr=0.01), TextBatches(codes, VOCABULARY.size, 8, 25))
    history = loop.train(steps, epochs=8)
    p = np.bincount(codes) / len(codes)
    entropy = -(p * np.log2(p)).sum()
    assert bits(history[-1].train.loss) < entropy - 1.5
    assert history[-1].train.count == (len(codes) - 1) // 8 * 8


def test_the_vocabulary_is_kept_in_the_file(tmp_path):
    model = make_model(VOCABULARY, hidden_size=4)
    model.save(tmp_path / "m.safetensors")
    loaded = lstm_np.load(tmp_path / "m.safetensors")
    assert vocabulary_of(loaded).characters == VOCABULARY.characters
    assert loaded.stateful


@pytest.mark.parametrize(
    "spoil",
    [
        lambda notes: notes.pop("classes"),
        lambda notes: notes.update(classes="abc"),
        lambda notes: notes.update(classes=[1, 2]),
        lambda notes: notes["classes"].pop(),
        lambda notes: notes["classes"].reverse(),
    ],
)
def test_a_model_without_its_vocabulary_is_refused(spoil):
    model = make_model(VOCABULARY, hidden_size=4)
    spoil(model.notes)
    with pytest.raises(lstm_np.WeightsError, match=r"^m: no character model \(.*\); .*text train wrote$"):
        vocabulary_of(model, "m")
    with pytest.raises(lstm_np.WeightsError, match="no character model"):
        vocabulary_of(lstm_np.SequenceClassifier(3, 4, 3))
