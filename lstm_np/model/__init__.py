"""Models: recurrent layers, what is read of the top one, a dense read-out, a loss; and their training and evaluation.

classifier.py, regressor.py   the public classes
fitting.py      training: `SequenceModel`, all that both share
evaluation.py   metrics and predictions
storage.py      copies, files, descriptions
network.py      parameters, forward and backward, traces
inputs.py       x, lengths, masks and weights, checked and entered
heads.py        targets, losses and metrics of classes, labels and numbers
readout.py      what is read: the last output, a mean, a maximum, each step
"""

from lstm_np.model.classifier import SequenceClassifier
from lstm_np.model.fitting import SequenceModel
from lstm_np.model.regressor import SequenceRegressor

__all__ = ["SequenceClassifier", "SequenceModel", "SequenceRegressor"]
