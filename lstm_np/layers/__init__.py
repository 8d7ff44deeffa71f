"""Layers: recurrent stacks, dense, dropout.  They hold parameters; a forward returns its cache, a backward takes it."""

from lstm_np.layers.parameters import Parameters
from lstm_np.layers.recurrent import LSTM, Recurrent

__all__ = ["LAYERS", "LSTM", "Parameters", "Recurrent"]

LAYERS: dict[str, type[Recurrent]] = {layer.cell_name: layer for layer in (LSTM,)}
