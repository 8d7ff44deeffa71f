"""lstm_np: an LSTM engine to read, check, see inside and race.  Start with `lstm_np/cells/lstm.py`."""

from importlib.metadata import PackageNotFoundError, version

import lstm_np.startup  # noqa: F401  first, since it acts where a command starts
from lstm_np import data, plot
from lstm_np.backends import Backend, BackendError, get_backend
from lstm_np.cells import CellError, register_cell
from lstm_np.errors import LstmNpError
from lstm_np.gradcheck import GradientReport, gradcheck
from lstm_np.gradcheck.own_cell.check import CellReport, CheckError, check_cell
from lstm_np.holds import Hold, HoldError
from lstm_np.layers import GRU, LSTM, RNN, Parameters, Recurrent
from lstm_np.loop import Epoch, History, Metrics, NonFiniteLossError, Position, TrainingDivergedError
from lstm_np.model import SequenceClassifier
from lstm_np.optimizers import SGD, Adam, RMSProp
from lstm_np.options import OptionError, OptionWarning
from lstm_np.trace import Trace, TraceError, trace
from lstm_np.weights import WeightsError

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
    "Backend",
    "BackendError",
    "CellError",
    "CellReport",
    "CheckError",
    "Epoch",
    "GradientReport",
    "History",
    "Hold",
    "HoldError",
    "LstmNpError",
    "Metrics",
    "NonFiniteLossError",
    "OptionError",
    "OptionWarning",
    "Parameters",
    "Position",
    "RMSProp",
    "Recurrent",
    "SequenceClassifier",
    "Trace",
    "TraceError",
    "TrainingDivergedError",
    "WeightsError",
    "check_cell",
    "data",
    "get_backend",
    "gradcheck",
    "plot",
    "register_cell",
    "trace",
]
