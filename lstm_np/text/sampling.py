"""Text that a character model writes: each character is drawn from what the model says comes next, and read in turn.

    p_k  proportional to  exp(z_k / temperature)     over the `top_k` largest logits z, or all of them

A temperature of 0 takes the largest logit.  The random numbers are a function of the seed and of how many characters
have been drawn, so a seed gives the same text on both backends as long as the logits agree.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lstm_np import streams
from lstm_np.model import SequenceClassifier
from lstm_np.options import Option, check_count
from lstm_np.text.characters import Vocabulary

BLOCK = 1024  # random numbers that are drawn together
TEMPERATURE = Option("temperature", "what logits are divided by before a character is drawn: below 1 surer, above 1 "
                     "more varied; 0: always the most probable", float, 1.0, at_least=0)  # fmt: skip
TOP_K = Option("top_k", "draw among the N most probable characters only; none: among all", int, None, optional=True,
               at_least=1)  # fmt: skip


class Sampler:
    """Draws text from a character model, a step at a time (`model.stream()`).

    model        such as `lstm_np.text.make_model` gives; its parameters as they are now
    vocabulary   the model's
    temperature, top_k   see the module
    seed         of the random numbers

    It goes on where it stands: characters that `read` gets and `write` draws are one text.

    >>> written = lstm_np.text.example(2000)
    >>> vocabulary = lstm_np.text.Vocabulary.of(written)
    >>> model = lstm_np.text.make_model(vocabulary, hidden_size=8)
    >>> one, other = (lstm_np.text.Sampler(model, vocabulary, seed=3) for _ in range(2))
    >>> one.write(20) == other.write(8) + other.write(12)
    True

    Raises OptionError for a temperature below 0 or a `top_k` below 1.
    """

    def __init__(
        self,
        model: SequenceClassifier,
        vocabulary: Vocabulary,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> None:
        self.temperature: float = TEMPERATURE.check(temperature)
        self.top_k: int | None = TOP_K.check(top_k)
        self._model, self._vocabulary, self._seed = model, vocabulary, seed
        self._stream = model.stream()
        self._x = np.zeros(vocabulary.size, model.dtype)
        self._logits: np.ndarray | None = None
        self._drawn = 0
        self._uniform = np.empty(BLOCK)

    def read(self, text: str) -> None:
        """Let the model read characters.  Raises VocabularyError, and reads nothing, for any that it does not know."""
        for code in self._vocabulary.encode(text):
            self._step(int(code))

    def write(self, length: int, prompt: str = "") -> str:
        """The next `length` characters, after those of `prompt`.

        Raises VocabularyError as `read`, OptionError for a length below 0.
        """
        self.read(prompt)
        return "".join(self.characters(length))

    def characters(self, length: int) -> Iterator[str]:
        """The same one by one, each as soon as it is drawn.  Raises OptionError for a length below 0."""
        count = check_count("length", length, 0)
        return (self._next() for _ in range(count))

    def probabilities(self) -> np.ndarray:
        """(V,) float64: what the next character is drawn from."""
        if self._logits is None:
            self._step(self._vocabulary.characters.index(first_input(self._vocabulary, self._model.notes)))
        assert self._logits is not None
        return distribution(self._logits, self.temperature, self.top_k)

    def _next(self) -> str:
        code = draw(self.probabilities(), self._random())
        self._step(code)
        return self._vocabulary.characters[code]

    def _step(self, code: int) -> None:
        self._x[code] = 1
        self._logits = self._model.backend.to_host(self._stream.step(self._x))
        self._x[code] = 0

    def _random(self) -> float:
        """The next number in [0, 1)."""
        block, k = divmod(self._drawn, BLOCK)
        if k == 0:
            words = streams.raw(BLOCK, self._seed, "text", block)
            self._uniform[...] = (words >> np.uint64(11)) * 2.0**-53
        self._drawn += 1
        return float(self._uniform[k])


def first_input(vocabulary: Vocabulary, notes: object) -> str:
    """What a model reads before the first character where nothing is given to it: the end of a line, as texts have it,
    else the character that its text began with, else the first of the vocabulary."""
    began = notes.get("text", {}).get("begins") if isinstance(notes, dict) else None
    return "\n" if "\n" in vocabulary else str(began) if began in vocabulary else vocabulary.characters[0]


def distribution(logits: np.ndarray, temperature: float, top_k: int | None = None) -> np.ndarray:
    """(V,) float64 probabilities from logits (V,); of equal logits those that come first are among the `top_k`.

    >>> lstm_np.text.sampling.distribution(np.log([1.0, 2.0, 1.0]), 1.0).round(3).tolist()
    [0.25, 0.5, 0.25]
    >>> lstm_np.text.sampling.distribution(np.log([1.0, 2.0, 1.0]), 1.0, top_k=2).round(3).tolist()
    [0.333, 0.667, 0.0]
    """
    z = np.asarray(logits, np.float64)
    if temperature == 0:
        top_k = 1
    kept = np.ones(len(z), bool)
    if top_k is not None and top_k < len(z):
        kept[np.argsort(-z, kind="stable")[top_k:]] = False
    with np.errstate(over="ignore"):  # a temperature near 0: what overflows is minus infinity, and p is 0
        scaled = (z - z[kept].max()) / (temperature or 1.0)
    p = np.where(kept, np.exp(scaled), 0.0)
    return p / p.sum()


def draw(p: np.ndarray, uniform: float) -> int:
    """Which of the probabilities p (V,), laid end to end, a number in [0, 1) falls on."""
    ends = np.cumsum(p)
    return int(np.searchsorted(ends, uniform * ends[-1], side="right"))
