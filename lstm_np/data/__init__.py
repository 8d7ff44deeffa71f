"""Data: IDX files, MNIST, the embedded digits, download, sequences of one's own, and batches for the engine."""

from lstm_np.data.batches import Batches
from lstm_np.data.dataset import Dataset, DatasetError, Split, sequence_view
from lstm_np.data.digits import load_digits
from lstm_np.data.download import DownloadError, fetch
from lstm_np.data.idx import IDXError, read_idx
from lstm_np.data.load import load_dataset
from lstm_np.data.mnist import load_mnist
from lstm_np.data.scaling import SequenceScaler
from lstm_np.data.sequences import SequenceImputer, Sequences, read_sequences

__all__ = [
    "Batches",
    "Dataset",
    "DatasetError",
    "DownloadError",
    "IDXError",
    "SequenceImputer",
    "SequenceScaler",
    "Sequences",
    "Split",
    "fetch",
    "load_dataset",
    "load_digits",
    "load_mnist",
    "read_idx",
    "read_sequences",
    "sequence_view",
]
