"""The classifier of sequences, or of their steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lstm_np import options
from lstm_np.arrays import Array
from lstm_np.backends import Backend
from lstm_np.layers.stream import ClassifierStream
from lstm_np.model.fitting import SequenceModel
from lstm_np.model.heads import Classes, Head, Labels
from lstm_np.options import Dtype


@options.documented
class SequenceClassifier(SequenceModel):
    """A classifier of sequences (T, D) into K classes: recurrent layers, a dense read-out, softmax cross-entropy.

    params   `Parameters`: the recurrent layers' ("layer0.W" ...), with an input projection "input_projection.W"
             (P, D) and "input_projection.b" (P,), and "readout.W" (K, H), "readout.b" (K,).  Assigning a mapping with
             the same names writes its values into them
    position where training stands: `Position` (0, 0, 0) at first; `fit` goes on from it, and a copy has it too
    config   the options that it was made with, but for the backend, as plain values
    notes    plain values of your own, which its file keeps

    With read_out="each_step" each step of a sequence has a class of its own (sequence labeling), and with loss="binary"
    there are K labels that are 0 or 1 each (multi-label classification): `fit` says how targets are passed.  "mean" and
    "max" are pooling over time.  The final state and the last output differ only for a bidirectional model.  With
    dropout of all outputs, what is read are outputs like the others.

    A model can be copied and pickled: options, parameters, position, `notes`, its own optimizer and attributes of your
    own go along.  Where it is unpickled, a cell of your own has to be registered first.

    >>> rng = np.random.default_rng(0)
    >>> x, labels = rng.standard_normal((200, 5, 3)), rng.integers(0, 2, 200)
    >>> x[labels == 1, 2] += 2  # what distinguishes the two classes happens in the middle
    >>> model = lstm_np.SequenceClassifier(3, 16, 2)
    >>> history = model.fit(x, labels, epochs=20, batch_size=20, optimizer=lstm_np.Adam(model.params, lr=0.01))
    >>> model.evaluate(x, labels).accuracy > 0.9
    True
    >>> model.predict(x[:4]).shape, model.predict_proba(x[:4]).shape
    ((4,), (4, 2))

    Raises OptionError for a value that an option cannot have, or one that the cell does not have; BackendError when the
    backend cannot be used.
    """

    size_option = "num_classes"

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_classes: int,
        *,
        cell: str = "lstm",
        num_layers: int = 1,
        bias: bool | str = True,
        bidirectional: bool = False,
        dropout: float = 0.0,
        dropout_outputs: str = "between",
        dropout_mask: str = "step",
        initializer: str = "keras",
        forget_bias: float | None = None,
        forget_bias_at: str = "init",
        cell_clip: float | None = None,
        initial_state: str = "zeros",
        hold: Mapping[str, float] | None = None,
        input_projection: int | None = None,
        input_projection_initializer: str | None = None,
        input_projection_bias: float | None = None,
        readout_initializer: str | None = None,
        readout_bias: float | None = None,
        read_out: str = "final_state",
        loss: str = "softmax",
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ignored_label: int | None = None,
        stateful: bool = False,
        dtype: Dtype = "float32",
        seed: int = 0,
        kernel: str = "auto",
        backend: str | Backend = "numpy",
    ) -> None:
        self._make(options.given(locals()))

    def _make_head(self, config: Mapping[str, Any]) -> Head:
        return (Labels if config["loss"] == "binary" else Classes)(config, config["num_classes"], self.backend)

    @property
    def num_classes(self) -> int:
        """K: classes, or labels that are 0 or 1.

        >>> lstm_np.SequenceClassifier(3, 8, 2).num_classes
        2
        """
        return self.head.size

    def predict_proba(
        self, x: Array, *, lengths: Any = None, mask: Any = None, batch_size: int = 512, resets: Array | None = None
    ) -> Any:
        """The probability of each class, a NumPy array (N, K), from x (N, T, D) or a list of arrays (T_i, D).

        A model that reads each step gives (N, T, K), NaN at steps that a sequence does not have, or, where x is a list,
        a list of arrays (T_i, K).

        `lengths` (N,) or a `mask` (N, T): the steps that the sequences have, as for `LSTM.forward`.  `resets`, of a
        stateful model, as for `fit`.

        >>> p = lstm_np.SequenceClassifier(3, 8, 2).predict_proba(np.ones((4, 5, 3)))
        >>> p.shape, np.allclose(p.sum(axis=1), 1)
        ((4, 2), True)

        Raises ValueError for a bad x, lengths or resets, a batch_size below 1, and for a stateful model one that does
        not divide N.
        """
        return self._predicted(x, lengths, mask, batch_size, resets, self.head.probabilities)

    def predict(
        self, x: Array, *, lengths: Any = None, mask: Any = None, batch_size: int = 512, resets: Array | None = None
    ) -> Any:
        """The most probable class for each sequence, integers (N,); with loss="binary" 0 or 1 for each label, (N, K).

        A model that reads each step gives them for each step, (N, T) or (N, T, K), -1 at steps that a sequence does not
        have, or, where x is a list, a list of arrays (T_i,) or (T_i, K).  Arguments as for `predict_proba`.

        >>> lstm_np.SequenceClassifier(3, 8, 2).predict(np.ones((4, 5, 3))).shape
        (4,)

        Raises ValueError as `predict_proba`.
        """
        head = self.head
        return self._predicted(x, lengths, mask, batch_size, resets, head.probabilities, head.decide)

    def stream(self, batch_size: int | None = None, state: Any = None) -> ClassifierStream:
        """What classifies sequences whose time steps arrive one by one: logits after each step.

        batch_size  how many sequences advance together; None: one, whose arrays have no batch axis
        state       where they begin, as `ClassifierStream.save` gives it; None: the initial state

        >>> model = lstm_np.SequenceClassifier(3, 8, 2)
        >>> stream = model.stream()
        >>> for x_t in np.ones((5, 3)):
        ...     logits = stream.step(x_t)
        >>> np.allclose(logits, model.logits(np.ones((1, 5, 3)))[0], atol=1e-6)
        True

        Raises ValueError for a bidirectional model, one that reads a mean or maximum over the steps, or a state whose
        shape does not fit; OptionError for a batch_size below 1.
        """
        settings = {**self._stream_settings(), "probabilities": self.head.probabilities}
        return ClassifierStream(self.recurrent, batch_size, state, **settings)
