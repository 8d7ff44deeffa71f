"""Layers: recurrent stacks, dense, dropout.  They hold parameters; a forward returns its cache, a backward takes it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lstm_np import options
from lstm_np.cells import CELLS
from lstm_np.layers.recurrent import GRU, LSTM, RNN, Recurrent
from lstm_np.layers.single import Single
from lstm_np.layers.stream import ClassifierStream, Stream
from lstm_np.parameters import Parameters

__all__ = [
    "GRU", "LAYERS", "LSTM", "RNN", "ClassifierStream", "Parameters", "Recurrent", "Single", "Stream", "make_layers",
]  # fmt: skip

# the name of a cell -> what makes a stack of it; of a cell of one's own that is `Recurrent`
LAYERS: dict[str, Callable[..., Recurrent]] = {
    "lstm": LSTM,
    "gru": GRU,
    "gru_reset_before": partial(GRU, reset="before"),
    "rnn": RNN,
    "rnn_relu": partial(RNN, nonlinearity="relu"),
}


def make_layers(cell: str, values: Mapping[str, Any]) -> Recurrent:
    """The stack of `cell` with those of the options `values` that its layers take.

    Raises OptionError for an unknown cell, for an option that only other cells have (unless it is at its default), and
    for what the layers themselves refuse.
    """
    cell = options.BY_NAME["cell"].among(CELLS).check(cell)
    make = LAYERS.get(cell, Recurrent)
    taken, others = options.taken_by(make), {name for other in LAYERS.values() for name in options.taken_by(other)}
    for name, value in options.changed(values).items():
        if name in others and name not in taken:
            raise options.OptionError(f"{name} is {value}, but {cell} layers have no {name}")
    values = {**values, "cell": cell}
    return make(**{name: values[name] for name in taken if name in values})
