"""The character model: one-hot characters -> recurrent layers -> at each step the logits of the next character.

An embedding is not needed: W x of a one-hot x is a column of W, so the first layer's W holds a vector of 4H numbers for
every character, which is what an embedding followed by a product would compute.  `input_projection=N` puts an embedding
of N features (with a bias) in front all the same, which makes models with thousands of characters smaller.
"""

from __future__ import annotations

import math
from typing import Any

from lstm_np.model import SequenceClassifier
from lstm_np.text.characters import Vocabulary, VocabularyError
from lstm_np.weights import WeightsError

READ_OUT = "each_step"


def make_model(vocabulary: Vocabulary, hidden_size: int | list[int] = 128, **options: Any) -> SequenceClassifier:
    """A stateful `SequenceClassifier` from characters to the next ones; its classes are those of the vocabulary.

    options  of `SequenceClassifier`

    Raises OptionError as the constructor does.
    """
    size = vocabulary.size
    model = SequenceClassifier(size, hidden_size, size, **{**options, "read_out": READ_OUT, "stateful": True})
    model.notes["classes"] = list(vocabulary.characters)
    return model


def vocabulary_of(model: SequenceClassifier, source: object = "this model") -> Vocabulary:
    """The vocabulary of a character model, from its notes; `source` is what an error calls the model.

    Raises WeightsError where it is none.
    """
    characters = model.notes.get("classes")
    try:
        if not isinstance(characters, list) or model.config["read_out"] != READ_OUT:
            raise VocabularyError("it has no vocabulary")
        vocabulary, sizes = Vocabulary(characters), {model.input_size, model.num_classes}
        if sizes != {vocabulary.size} or list(vocabulary.characters) != characters:
            raise VocabularyError("its sizes are not those of its vocabulary")
    except VocabularyError as error:
        raise WeightsError(
            f"{source}: no character model ({error}); expected one that python -m lstm_np.text train wrote"
        ) from None
    return vocabulary


def bits(loss: float) -> float:
    """Bits per character of a mean cross-entropy in nats.

    >>> lstm_np.text.bits(math.log(2))
    1.0
    """
    return loss / math.log(2)


def perplexity(loss: float) -> float:
    """exp of a mean cross-entropy: with so many equally likely characters one would be as unsure; inf beyond range."""
    return math.exp(loss) if loss < 700 else math.inf
