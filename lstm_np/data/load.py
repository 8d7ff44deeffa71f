"""Find a data set by name: on disk, else by download, else the embedded digits (not if MNIST was asked for)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from lstm_np.data.dataset import Dataset, DatasetError
from lstm_np.data.digits import load_digits
from lstm_np.data.download import MIRRORS, DownloadError, Progress, fetch, is_valid, reachable
from lstm_np.data.folders import DOWNLOAD
from lstm_np.data.idx import IDXError
from lstm_np.data.mnist import FILES, load_mnist
from lstm_np.files import expand

DATASETS = ("mnist", "digits")
ENVIRONMENT = "LSTM_NP_DATA"


def _say(line: str) -> None:
    with suppress(OSError, ValueError):  # nobody can be told
        print(line, file=sys.stderr)


def load_dataset(
    name: str = "mnist",
    data_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    say: Callable[[str], None] = _say,
    *,
    explicit: bool = False,
    mirrors: Sequence[str] = MIRRORS,
    progress: Progress | None = None,
) -> Dataset:
    """The Dataset "mnist" or "digits".

    MNIST is read from `data_dir`, else from the folder that LSTM_NP_DATA names, else from the user's cache folder
    (`cache_folder()`).  A folder that somebody named is used as it is: if it is missing or holds damaged files, that is
    an error.  The cache folder is filled by download unless `offline`; where that fails too, `say` is given one line
    and the digits are returned, unless the user asked for MNIST by name (`explicit`).

    >>> lstm_np.data.load_dataset("digits").name
    'digits'

    Raises IDXError for a named folder that does not hold the set, DownloadError where MNIST was asked for by name and
    cannot be had, DatasetError for another name, or where the digits are needed and scikit-learn is missing.
    """
    if name == "digits":
        if data_dir is not None:
            say(f"note: the digits come with scikit-learn; {data_dir} is not read")
        return load_digits()
    if name != "mnist":
        raise DatasetError(f"unknown data set {name!r}, expected one of: {', '.join(DATASETS)}")
    named = named_folder(data_dir)
    if named is not None:
        dataset = load_mnist(named)
    else:
        try:
            dataset = _cached_mnist(offline, mirrors, progress)
        except (DownloadError, IDXError) as error:
            if explicit:
                raise
            return _fallback(error, say)
    if not dataset.verified:
        say(f"note: {dataset.source}; it is used all the same")
    return dataset


def named_folder(data_dir: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """The folder that the user named, as an argument or else in the environment; None where there is none."""
    return data_dir if data_dir is not None else os.environ.get(ENVIRONMENT) or None


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder MNIST belongs in: the argument, else LSTM_NP_DATA, else `cache_folder()`.  Raises ValueError as it."""
    named = named_folder(data_dir)
    return cache_folder() if named is None else expand(named)


def cache_folder() -> Path:
    """The user's own folder for MNIST: $XDG_CACHE_HOME/lstm_np/mnist, by default ~/.cache/lstm_np/mnist.

    Raises ValueError where no home folder is known.
    """
    return expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lstm_np" / "mnist"


def is_complete(folder: Path) -> bool:
    """True where the folder holds the four published files, whole (SHA-256)."""
    return all(is_valid(folder / file.name, file) for file in FILES)


def _cached_mnist(offline: bool, mirrors: Sequence[str], progress: Progress | None) -> Dataset:
    """The published MNIST from the cache folder, downloaded where it is not there; DownloadError where it cannot be."""
    try:
        folder = cache_folder()
    except ValueError as error:
        raise DownloadError(f"MNIST has no folder to be kept in ({error})", Path()) from None
    with suppress(IDXError):
        dataset = load_mnist(folder)
        if dataset.verified:
            return dataset
    if offline:
        raise DownloadError(f"MNIST is not in {folder}, and --offline forbids to download it", folder)
    if not reachable(mirrors):
        raise DownloadError(f"MNIST is not in {folder}, and no mirror can be reached", folder)
    fetch(folder, mirrors, progress)
    return load_mnist(folder)


def _fallback(error: Exception, say: Callable[[str], None]) -> Dataset:
    """The digits, after one line that says why, and how to get MNIST."""
    how = f"{DOWNLOAD} downloads MNIST, --data-dir or LSTM_NP_DATA names a folder that holds it"
    try:
        digits = load_digits()
    except DatasetError as missing:
        raise DatasetError(f"{error}; {missing}; {how}") from None
    say(f"{error}: using scikit-learn's 8x8 digits instead; {how}")
    return digits
