"""Text, character by character: a model that says what comes next, its training, and texts that it writes.

`python -m lstm_np.text train FILE` trains one and `python -m lstm_np.text sample RUN` lets it write (docs/text.md).
From Python:

>>> from lstm_np import text
>>> written = text.example(3000)
>>> vocabulary = text.Vocabulary.of(written)
>>> model = text.make_model(vocabulary, hidden_size=16)
>>> batches = text.TextBatches(vocabulary.encode(written), vocabulary.size, batch_size=8, steps=20)
>>> history = lstm_np.loop.train(model.training_steps(lstm_np.Adam(model.params, lr=0.01), batches), epochs=2)
>>> text.bits(history[-1].train.loss) < text.bits(history[0].train.loss)
True
>>> len(text.Sampler(model, vocabulary, seed=1).write(80, prompt="let "))
80
"""

from lstm_np.text.batches import TextBatches
from lstm_np.text.characters import TextError, Vocabulary, VocabularyError, read_text
from lstm_np.text.example import example
from lstm_np.text.model import bits, make_model, vocabulary_of
from lstm_np.text.sampling import Sampler

__all__ = [
    "Sampler",
    "TextBatches",
    "TextError",
    "Vocabulary",
    "VocabularyError",
    "bits",
    "example",
    "make_model",
    "read_text",
    "vocabulary_of",
]
