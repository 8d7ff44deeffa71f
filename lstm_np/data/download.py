"""Download the four MNIST files: two mirrors, pinned length and SHA-256, never a half or wrong file."""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lstm_np.data.folders import files_in
from lstm_np.data.idx import IDXError, looks_like_web_page, read_idx
from lstm_np.data.limits import Limits
from lstm_np.data.mnist import FILES, PinnedFile, is_published
from lstm_np.errors import LstmNpError
from lstm_np.files import expand, sync_folder

if TYPE_CHECKING:
    from http.client import HTTPResponse

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")

Progress = Callable[[str, int, int], None]  # (file name, bytes so far, bytes in all)

_CHUNK = 1 << 16
_PART = ".part"
_STALE_SECONDS = 3600.0  # no download lives that long (see Limits.total), so its writer was killed


class DownloadError(LstmNpError, OSError):
    """The files could not be fetched; `str()` is one line.

    `causes` holds one line for each attempt, "mirror: what went wrong"; `help()` says how to do it by hand.

    >>> lstm_np.data.fetch("some-folder", mirrors=[])
    Traceback (most recent call last):
    lstm_np.data.download.DownloadError: no mirror is given to download from
    """

    def __init__(
        self, message: str, folder: Path, causes: Sequence[str] = (), files: Sequence[PinnedFile] = FILES
    ) -> None:
        self.message, self.folder, self.causes, self.files = message, folder, tuple(causes), tuple(files)
        listed = f" ({'; '.join(dict.fromkeys(self.causes))})" if self.causes else ""
        super().__init__(" ".join(f"{message}{listed}".splitlines()))

    def __reduce__(self):
        return type(self), (self.message, self.folder, self.causes, self.files)

    def help(self) -> str:
        """How to put the files there by hand: several lines.

        >>> print(lstm_np.data.DownloadError("no network", "some-folder").help())
        To do it by hand, put these files into some-folder:
          train-images-idx3-ubyte.gz  9912422 bytes  sha256 ...
        """
        rows = "\n".join(f"  {file.name}  {file.size} bytes  sha256 {file.sha256}" for file in self.files)
        addresses = " or ".join(MIRRORS)
        return f"To do it by hand, put these files into {self.folder}:\n{rows}\nfor instance from {addresses}"


class _MirrorError(Exception):
    """What one mirror sent instead of the file."""


class _FolderError(Exception):
    """The folder cannot be written: no mirror can help."""


def fetch(
    folder: str | os.PathLike[str],
    mirrors: Sequence[str] = MIRRORS,
    progress: Progress | None = None,
    *,
    files: Sequence[PinnedFile] = FILES,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
) -> list[Path]:
    """Make sure that `folder` (created where missing) holds the files, whole and verified; returns their paths.

    A file that is there with the pinned length and SHA-256 is kept and costs no network access.  Any other file
    is downloaded from the mirrors in turn, with retries, into a temporary file that is renamed only once it is verified
    and flushed to disk: an interruption, a crash or another process doing the same never leaves a partial file under
    that name. `progress(name, done, total)` is called as bytes arrive.  Damaged files are replaced; where the folder
    holds whole files of another set, nothing is.

    >>> try:
    ...     lstm_np.data.fetch("mnist", mirrors=["file:///not/there"])
    ... except lstm_np.data.DownloadError as error:
    ...     print(len(error.causes) > 0)
    True

    Raises DownloadError with the cause at each mirror.
    """
    root = expand(folder)
    paths = [root / file.name for file in files]
    missing = [file for file in files if not is_valid(root / file.name, file)]
    if not missing:
        return paths
    if other := _another_set(root, files):
        raise DownloadError(f"{other} belongs to another set, which is kept; name another folder", root, files=files)
    if not mirrors:
        raise DownloadError("no mirror is given to download from", root, files=files)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_stale_parts(root)
    except OSError as error:
        raise DownloadError(f"cannot write to {root}: {error.strerror}", root, files=files) from None
    order = list(mirrors)
    for file in missing:
        good = _fetch_file(root, file, order, progress, limits, files)
        order.sort(key=lambda mirror: mirror != good)  # from now on, try the mirror that answered first
    return paths


def _another_set(folder: Path, files: Sequence[PinnedFile]) -> str | None:
    """The path of an intact file here with one of the set's names but other content; None if there is none."""
    for path in files_in(str(folder)):
        with suppress(IDXError):
            array = read_idx(path)
            if not any(is_published(array, file) for file in files):
                return path
    return None


def is_valid(path: Path, file: PinnedFile) -> bool:
    """True where this is a readable file with the pinned length and SHA-256."""
    try:
        if path.stat().st_size != file.size:
            return False
        with path.open("rb") as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == file.sha256


def reachable(mirrors: Sequence[str] = MIRRORS, file: PinnedFile = FILES[-1], seconds: float = 3.0) -> bool:
    """True once one of the mirrors answers for a file; False when all have failed, or after `seconds`.

    The mirrors are tried in parallel, in threads that are abandoned at the time limit: a DNS lookup cannot be
    interrupted and may take far longer without a network.
    """
    from lstm_np.data import transport

    answered = threading.Event()
    finished = threading.Semaphore(0)

    def ask(mirror: str) -> None:
        limits = Limits(connect=seconds, read=seconds)
        try:
            with transport.open_url(_join(mirror, file.name), limits, time.monotonic() + seconds, method="HEAD"):
                answered.set()
        except transport.FAILURES:
            pass
        finally:
            finished.release()

    deadline = time.monotonic() + seconds
    for mirror in mirrors:
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    for _ in mirrors:
        if answered.is_set() or not finished.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            break
    return answered.is_set()


def _fetch_file(
    root: Path,
    file: PinnedFile,
    mirrors: Sequence[str],
    progress: Progress | None,
    limits: Limits,
    files: Sequence[PinnedFile],
) -> str:
    """Fetch one file and return the mirror that served it; DownloadError if none does."""
    from lstm_np.data import transport

    deadline = time.monotonic() + limits.total
    attempts = [mirror for _ in range(limits.rounds) for mirror in mirrors]
    failures = (_MirrorError, *transport.FAILURES)
    causes = []
    for number, mirror in enumerate(attempts):
        if number and number % len(mirrors) == 0:
            remaining = max(deadline - time.monotonic(), 0.0)
            time.sleep(min(limits.pause * random.uniform(0.5, 1.5), remaining))
        now = time.monotonic()
        if now >= deadline:
            causes.append(f"gave up after {limits.total:g} s")
            break
        # A slow mirror gets at most half of the remaining time, so that the next one can be tried.
        share = deadline if number == len(attempts) - 1 else now + (deadline - now) / 2
        try:
            _download(_join(mirror, file.name), root / file.name, file, progress, limits, share)
        except _FolderError as fault:
            raise DownloadError(f"cannot write to {root}: {fault}", root, files=files) from None
        except failures as error:
            causes.append(f"{mirror}: {transport.describe(error)}")
        else:
            return mirror
    raise DownloadError(f"could not download {file.name}", root, causes, files)


def _download(
    url: str, path: Path, file: PinnedFile, progress: Progress | None, limits: Limits, deadline: float
) -> None:
    """Read one file from one address, verify it, and put it in place."""
    from lstm_np.data import transport

    with closing(transport.open_url(url, limits, deadline)) as response:
        announced = response.headers.get("Content-Length")
        if announced is not None and announced != str(file.size):
            page = " (a web page)" if response.headers.get_content_type() == "text/html" else ""
            raise _MirrorError(f"announces {announced} bytes{page}, expected {file.size}")
        part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(6)}{_PART}")
        with _local():
            stream = part.open("xb")
        try:
            with stream:
                _receive(response, stream, file, progress)
                with _local():
                    stream.flush()
                    os.fsync(stream.fileno())
            with _local():
                os.replace(part, path)
        except BaseException:  # also KeyboardInterrupt: the partial file is always removed
            with suppress(OSError):
                part.unlink()
            raise
    with _local():
        sync_folder(path.parent)


def _receive(response: HTTPResponse, stream: BinaryIO, file: PinnedFile, progress: Progress | None) -> None:
    """Copy the body of a response, at most one byte more than the file has; _MirrorError unless it is the file."""
    digest = hashlib.sha256()
    done = 0
    while chunk := response.read1(min(_CHUNK, file.size + 1 - done)):
        if done == 0 and looks_like_web_page(chunk):
            raise _MirrorError("sent a web page instead of the file")
        done += len(chunk)
        if done > file.size:
            raise _MirrorError(f"sent more than the {file.size} bytes of the file")
        digest.update(chunk)
        with _local():
            stream.write(chunk)
        if progress is not None:
            progress(file.name, done, file.size)
    if done < file.size:
        raise _MirrorError(f"sent {done} of {file.size} bytes")
    if digest.hexdigest() != file.sha256:
        raise _MirrorError(f"sent a file with sha256 {digest.hexdigest()}, expected {file.sha256}")


@contextmanager
def _local() -> Iterator[None]:
    """For work on the local disk, so that its errors are not mistaken for network errors."""
    try:
        yield
    except OSError as error:
        raise _FolderError(error.strerror) from None


def _remove_stale_parts(folder: Path) -> None:
    """Remove partial files of downloads that were killed long ago; running ones, in any process, are left alone."""
    oldest = time.time() - _STALE_SECONDS
    for part in folder.glob(f".*{_PART}"):
        with suppress(OSError):
            if part.stat().st_mtime < oldest:
                part.unlink()


def _join(mirror: str, name: str) -> str:
    return f"{mirror.rstrip('/')}/{name}"
