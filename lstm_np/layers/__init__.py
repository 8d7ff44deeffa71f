"""Layers: recurrent stacks, dense, dropout.  They hold parameters; a forward returns its cache, a backward takes it."""

from collections.abc import Callable
from functools import partial

from lstm_np.layers.recurrent import GRU, LSTM, RNN, Recurrent
from lstm_np.parameters import Parameters

__all__ = ["GRU", "LAYERS", "LSTM", "RNN", "Parameters", "Recurrent"]

# the name of a cell -> what makes a stack of it
LAYERS: dict[str, Callable[..., Recurrent]] = {
    "lstm": LSTM,
    "gru": GRU,
    "gru_reset_before": partial(GRU, reset="before"),
    "rnn": RNN,
    "rnn_relu": partial(RNN, nonlinearity="relu"),
}
