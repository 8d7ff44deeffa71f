"""An LSTM engine to read, check, see inside and race.

A layer computes outputs and gradients; arrays are batch-first, (batch, time, features):

>>> import numpy as np
>>> import lstm_np
>>> lstm = lstm_np.LSTM(28, 128)
>>> y, (h_n, c_n), cache = lstm.forward(np.ones((32, 10, 28)))
>>> dx, (dh_0, dc_0), grads = lstm.backward(cache, np.ones_like(y))
>>> y.shape, dx.shape, sorted(grads)
((32, 10, 128), (32, 10, 28), ['layer0.U', 'layer0.W', 'layer0.b'])

A model learns to tell sequences apart:

>>> rng = np.random.default_rng(0)
>>> x, labels = rng.standard_normal((200, 10, 3)), rng.integers(0, 2, 200)
>>> x[labels == 1, 0] += 3  # the classes differ in the first of ten steps
>>> model = lstm_np.SequenceClassifier(3, 16, 2)
>>> history = model.fit(x, labels, epochs=30, batch_size=20, optimizer=lstm_np.Adam(model.params, lr=0.01))
>>> model.evaluate(x, labels).accuracy > 0.9
True

And every gradient can be checked against exact derivatives:

>>> bool(lstm_np.gradcheck(lstm_np.LSTM(3, 5, num_layers=2)))
True

Read `lstm_np/cells/lstm.py` first: the gate math of one time step, forward and backward.  The commands are
`python -m lstm_np.train`, `evaluate`, `predict`, `gradcheck`, `recipes`, `text` and `data`.  All other examples in the
documentation begin with the two imports above.
"""

import lstm_np.startup  # noqa: F401  before all else, since it acts where a command starts

# isort: split

from importlib.metadata import PackageNotFoundError, version

from lstm_np import data, plot, text
from lstm_np.backends import Backend, BackendError, get_backend
from lstm_np.callbacks import Callback, EarlyStopping, ReduceLROnPlateau
from lstm_np.cells import CellError, register_cell
from lstm_np.errors import LstmNpError
from lstm_np.extras import MissingPackageError
from lstm_np.gradcheck import GradientReport, gradcheck
from lstm_np.gradcheck.own_cell.check import CellReport, CheckError, check_cell
from lstm_np.holds import Hold, HoldError
from lstm_np.kernels import KernelWarning
from lstm_np.layers import GRU, LSTM, RNN, Parameters, Recurrent, Stream
from lstm_np.loop import Epoch, History, NonFiniteLossError, Position, TrainingDivergedError
from lstm_np.metrics import Metrics, RegressionMetrics
from lstm_np.model import SequenceClassifier, SequenceModel, SequenceRegressor
from lstm_np.optimizers import SGD, Adam, AdamW, Optimizer, RMSProp
from lstm_np.options import OptionError, OptionWarning
from lstm_np.packing import Packed, pack, pad, unpad
from lstm_np.trace import Trace, TraceError, trace
from lstm_np.weights import WeightsError

load = SequenceModel.load

try:
    __version__ = version("lstm_np")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+checkout"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Adam",
    "AdamW",
    "Backend",
    "BackendError",
    "Callback",
    "CellError",
    "CellReport",
    "CheckError",
    "EarlyStopping",
    "Epoch",
    "GradientReport",
    "History",
    "Hold",
    "HoldError",
    "KernelWarning",
    "LstmNpError",
    "Metrics",
    "MissingPackageError",
    "NonFiniteLossError",
    "Optimizer",
    "OptionError",
    "OptionWarning",
    "Packed",
    "Parameters",
    "Position",
    "RMSProp",
    "Recurrent",
    "ReduceLROnPlateau",
    "RegressionMetrics",
    "SequenceClassifier",
    "SequenceModel",
    "SequenceRegressor",
    "Stream",
    "Trace",
    "TraceError",
    "TrainingDivergedError",
    "WeightsError",
    "check_cell",
    "data",
    "get_backend",
    "gradcheck",
    "load",
    "pack",
    "pad",
    "plot",
    "register_cell",
    "text",
    "trace",
    "unpad",
]
