"""Text that is drawn: from the right distribution, the same for a seed, and as the model says of the whole text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.losses import log_softmax
from lstm_np.options import OptionError
from lstm_np.text import Sampler, Vocabulary, VocabularyError, make_model
from lstm_np.text.sampling import distribution, draw

VOCABULARY = Vocabulary.of("abcdefg\n")
LOGITS = st.lists(st.floats(-30, 30), min_size=2, max_size=9).map(np.array)


def model(seed=0, scale=2.0, **options):
    """A model with an opinion: parameters that are far from equal."""
    found = make_model(VOCABULARY, **{"hidden_size": 7, "dtype": "float64", **options})
    found.params.flat[...] = np.random.default_rng(seed).uniform(-scale, scale, found.params.flat.shape)
    return found


@given(LOGITS, st.floats(0.05, 20))
@settings(max_examples=60, deadline=None)
def test_the_distribution_is_the_softmax_of_logits_over_temperature(logits, temperature):
    expected = np.exp(log_softmax(np, (logits / temperature)[:, None]))[:, 0]
    np.testing.assert_allclose(distribution(logits, temperature), expected, rtol=1e-10, atol=1e-300)


@given(LOGITS, st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_the_most_probable_are_kept_and_no_more(logits, k):
    p, full = distribution(logits, 1.0, k), distribution(logits, 1.0)
    kept = np.flatnonzero(np.isin(np.arange(len(logits)), np.argsort(-logits, kind="stable")[:k]))
    assert (p > 0).sum() <= k
    np.testing.assert_allclose(p[kept], full[kept] / full[kept].sum(), rtol=1e-12)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert p[np.setdiff1d(np.arange(len(logits)), kept)].sum() == 0


def test_the_limits_of_the_temperature():
    logits = np.array([1.0, 3.0, 2.0, 3.0])
    assert distribution(logits, 0).tolist() == [0, 1, 0, 0]  # of equal ones the first
    np.testing.assert_allclose(distribution(logits, 1e-320), [0, 0.5, 0, 0.5])
    np.testing.assert_allclose(distribution(logits, 1e12), 0.25, rtol=1e-10)
    np.testing.assert_allclose(distribution(logits.astype("float32"), 1.0), distribution(logits, 1.0), rtol=1e-12)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda p: sum(p) > 1e-3), st.floats(0, 1, exclude_max=True)
)
@settings(max_examples=80, deadline=None)
def test_a_number_falls_on_what_it_lies_in(p, uniform):
    p = np.array(p) / sum(p)
    k = draw(p, uniform)
    assert p[k] > 0
    assert p[:k].sum() <= uniform + 1e-12
    assert uniform <= p[: k + 1].sum() + 1e-12
    assert p[draw(p, 1 - 2**-53)] > 0
    assert draw(p, 0.0) == np.flatnonzero(p)[0]


def test_a_number_between_two_falls_on_the_second():
    p = np.array([0, 0.25, 0, 0.75])
    assert [draw(p, one) for one in (0.0, 0.2499, 0.25, 0.999)] == [1, 1, 3, 3]


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 4)])
def test_characters_come_as_often_as_they_should(temperature, top_k):
    """Chi-square at a fixed seed: the first character of many texts is drawn from one distribution."""
    trained, N = model(), 4000
    sampler = Sampler(trained, VOCABULARY, temperature=temperature, top_k=top_k)
    p = sampler.probabilities()
    uniform = [Sampler(trained, VOCABULARY, seed=seed)._random() for seed in range(200)]
    assert len(set(uniform)) == 200
    numbers = np.array([sampler._random() for _ in range(N)])
    counts = np.bincount([draw(p, one) for one in numbers], minlength=len(p))
    expected = N * p
    assert counts[p == 0].sum() == 0
    seen = p > 0
    chi = ((counts - expected)[seen] ** 2 / expected[seen]).sum()
    freedom = seen.sum() - 1
    assert chi < freedom + 4 * np.sqrt(2 * freedom)
    others = distribution(np.log(np.maximum(p, 1e-300)), 1.6)  # such a temperature would be noticed
    assert ((counts - N * others)[seen] ** 2 / (N * others)[seen]).sum() > 2 * (freedom + 4 * np.sqrt(2 * freedom))


@pytest.mark.parametrize("options", [{}, {"cell": "gru", "num_layers": 2}, {"input_projection": 3}])
def test_each_character_is_drawn_from_what_the_model_says_of_the_whole_text(options):
    trained = model(**options)
    sampler, prompt = Sampler(trained, VOCABULARY, temperature=0.8, seed=5), "abba\ncab"
    sampler.read(prompt)
    text, said = prompt, []
    for one in sampler.characters(30):
        said.append(sampler._drawn)
        text += one
    assert said == list(range(1, 31))
    x = np.eye(VOCABULARY.size)[VOCABULARY.encode(text)][None]
    logits = trained.logits(x)[0]  # (T, V)
    again = Sampler(trained, VOCABULARY, temperature=0.8, seed=5)
    for t in range(len(prompt), len(text)):
        p = distribution(logits[t - 1], 0.8)
        assert VOCABULARY.characters[draw(p, again._random())] == text[t]
    sampler.read("")
    np.testing.assert_allclose(sampler.probabilities(), distribution(logits[-1], 0.8), rtol=1e-9)


def test_without_a_prompt_the_end_of_a_line_is_read_and_not_written():
    trained = model()
    one, other = (Sampler(trained, VOCABULARY, seed=2) for _ in range(2))
    assert one.write(12) == other.write(12, prompt="\n")
    assert Sampler(trained, VOCABULARY, seed=3).write(12) != Sampler(trained, VOCABULARY, seed=2).write(12)
    without = Vocabulary.of("xyz")
    other_model = make_model(without, hidden_size=4)
    other_model.params.flat[...] = np.random.default_rng(0).uniform(-2, 2, other_model.params.flat.shape)
    assert Sampler(other_model, without).write(9) == Sampler(other_model, without).write(9, prompt="x")
    other_model.notes["text"] = {"begins": "z"}
    assert Sampler(other_model, without).write(9) == Sampler(other_model, without).write(9, prompt="z")


def test_a_temperature_of_0_and_one_of_the_most_probable_are_the_same_for_every_seed():
    trained = model()
    texts = {Sampler(trained, VOCABULARY, temperature=0, seed=seed).write(20) for seed in range(3)}
    texts |= {Sampler(trained, VOCABULARY, temperature=9, top_k=1, seed=seed).write(20) for seed in range(3)}
    assert len(texts) == 1


def test_more_random_numbers_than_a_block_has():
    sampler = Sampler(model(), VOCABULARY, seed=1)
    whole = sampler.write(1100)
    parts = Sampler(model(), VOCABULARY, seed=1)
    assert whole == "".join(parts.write(n) for n in (1, 0, 1022, 2, 75))
    numbers = np.array([parts._random() for _ in range(3000)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert len(set(numbers)) == 3000


def test_what_is_refused_leaves_the_sampler_as_it_was():
    sampler = Sampler(model(), VOCABULARY)
    with pytest.raises(VocabularyError, match="at position 3"):
        sampler.write(5, prompt="abX")
    assert sampler.write(9) == Sampler(model(), VOCABULARY).write(9)
    with pytest.raises(OptionError, match="length must be at least 0"):
        sampler.write(-1)
    with pytest.raises(OptionError, match="temperature must be at least 0"):
        Sampler(model(), VOCABULARY, temperature=-0.1)
    with pytest.raises(OptionError, match="top_k must be at least 1"):
        Sampler(model(), VOCABULARY, top_k=0)
