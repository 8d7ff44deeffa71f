"""The regressor: numbers for sequences, or for each of their steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lstm_np import options
from lstm_np.arrays import Array, Namespace
from lstm_np.backends import Backend
from lstm_np.model.fitting import SequenceModel
from lstm_np.model.heads import Head, Numbers
from lstm_np.options import Dtype


@options.documented
class SequenceRegressor(SequenceModel):
    """A model that predicts M numbers for a sequence (T, D): recurrent layers and a dense read-out.

    params, position, config, notes   as for `SequenceClassifier`; "readout.W" is (M, H), "readout.b" (M,)

    With read_out="each_step" each step of a sequence has numbers of its own; "mean" and "max" are pooling over time.
    `fit` says how targets are passed.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((200, 5, 3))
    >>> y = x[:, :, 0].mean(axis=1)
    >>> model = lstm_np.SequenceRegressor(3, 16)
    >>> history = model.fit(x, y, epochs=20, batch_size=20, optimizer=lstm_np.Adam(model.params, lr=0.01))
    >>> model.evaluate(x, y).r2 > 0.9
    True
    >>> model.predict(x[:4]).shape
    (4, 1)

    Raises as `SequenceClassifier`.
    """

    own_options = options.OF_REGRESSORS
    size_option = "num_targets"

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_targets: int = 1,
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
        loss: str = "squared",
        huber_delta: float = 1.0,
        stateful: bool = False,
        dtype: Dtype = "float32",
        seed: int = 0,
        kernel: str = "auto",
        backend: str | Backend = "numpy",
    ) -> None:
        self._make(options.given(locals()))

    def _make_head(self, config: Mapping[str, Any]) -> Head:
        return Numbers(config, config["num_targets"], self.backend)

    @property
    def num_targets(self) -> int:
        """M: numbers that are predicted.

        >>> lstm_np.SequenceRegressor(3, 8).num_targets
        1
        """
        return self.head.size

    def predict(
        self, x: Array, *, lengths: Any = None, mask: Any = None, batch_size: int = 512, resets: Array | None = None
    ) -> Any:
        """The numbers for each sequence, a NumPy array (N, M), from x (N, T, D) or a list of arrays (T_i, D).

        A model that reads each step gives (N, T, M), NaN at steps that a sequence does not have, or, where x is a list,
        a list of arrays (T_i, M).

        `lengths` (N,) or a `mask` (N, T): the steps that the sequences have, as for `LSTM.forward`.  `resets`, of a
        stateful model, as for `fit`.

        >>> lstm_np.SequenceRegressor(3, 8, 2).predict(np.ones((4, 5, 3))).shape
        (4, 2)

        Raises ValueError for a bad x, lengths or resets, a batch_size below 1, and for a stateful model one that does
        not divide N.
        """
        return self._predicted(x, lengths, mask, batch_size, resets, _as_they_are)


def _as_they_are(_: Namespace, outputs: Array) -> Array:
    return outputs
