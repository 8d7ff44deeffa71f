"""Paths as people write them and shells read them, files written whole or not at all, and streams that have failed."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import shlex
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import TextIO

TEMPORARY = ".part"  # what the name of a file ends in until it is whole


def expand(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ~ or ~user replaced by that home folder; as in shells, an unknown ~user is a name.

    Every path that comes in goes through here.  Raises ValueError where the user's own home folder is not known, and
    for an empty path, which would mean the current folder.
    """
    written = os.fspath(path)
    if not written:
        raise ValueError("found an empty path, expected the name of a file or folder; is a shell variable not set?")
    expanded = os.path.expanduser(written)
    if expanded == written and Path(written).parts[:1] == ("~",):
        raise ValueError(f"{path}: no home folder is known for ~; write the path out")
    return Path(expanded)


def quoted(path: str | os.PathLike[str]) -> str:
    """A path as an argument of a command that is printed to be pasted into a shell (on Windows: cmd.exe)."""
    text = os.fspath(path)
    text = os.path.join(os.curdir, text) if text.startswith("-") else text  # it would be read as a flag
    if os.name == "nt":
        return subprocess.list2cmdline([text])
    if text.isprintable():
        return shlex.quote(text)
    # a line feed, or bytes that are no text: bash, zsh, ksh and POSIX 2024's sh read them so
    return "$'" + "".join(map(_escaped, os.fsencode(text))) + "'"


def _escaped(byte: int) -> str:
    character = chr(byte)
    return character if character.isascii() and character.isprintable() and character not in "\\'" else f"\\x{byte:02x}"


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part.

    Where the path is a symbolic link, the file that it points to is written, and the link stays.  What is no file (a
    device, a pipe) is written to as it is.  Raises OSError, which names this path; ValueError for a ~ without a home.
    """
    path = expand(path)
    try:
        if _is_special(path):
            with path.open("wb") as stream:
                stream.write(content)
            return
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        _write_and_replace(target, content)
        sync_folder(target.parent)
    except OSError as error:  # some are of the temporary file, which is nobody's business
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder durable, where the system can (POSIX; on Windows a folder cannot be opened)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_special(path: Path) -> bool:
    """Whether the path, links followed, is something that exists and is neither a regular file nor a folder."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def append_durably(path: str | os.PathLike[str], content: bytes) -> None:
    """Add to the end of a file, and on to the disk, all of `content`; where that fails the file is as it was.

    Raises OSError, which names this path.
    """
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        handle = os.open(path, flags, 0o666)
        try:
            before = os.fstat(handle).st_size
            try:
                _write_all(handle, content)
                os.fsync(handle)
            except BaseException:
                os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def remove_temporary(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left in a folder that nobody else writes to."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def _write_and_replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
    try:
        try:
            _write_all(handle, content)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write_all(handle: int, content: bytes) -> None:
    """Write all of it: a system may take less than it is given at once, as on a disk that is nearly full."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def discard_buffered(stream: TextIO) -> None:
    """Let what a text stream still holds, and what is written to it later, go nowhere.

    For one that cannot be written any more: the interpreter would complain when it flushes it at its end.
    """
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class UncachedSource(importlib.machinery.SourceFileLoader):
    """Loads a Python file as it stands: bytecode is neither read nor written.

    Python takes cached bytecode for that of a file with the same size and the same second of its last change, so an
    edit such as - for + right after a run would change nothing.
    """

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file.  Raises OSError and SyntaxError."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def module_of(name: str, path: Path) -> tuple[ModuleType, Callable[[], None]]:
    """A module of a Python file, and what runs the file in it, as it stands now (`UncachedSource`)."""
    absolute = os.path.abspath(path)  # it stands in tracebacks, whatever the current folder is by then
    loader = UncachedSource(name, absolute)
    spec = importlib.machinery.ModuleSpec(name, loader, origin=absolute)
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    return module, lambda: loader.exec_module(module)
