"""What all commands share: how they parse, how they fail, and how they end when they are interrupted.

A mistake of the user or a failure of the machine gives one line on stderr and exit status 2; a bug keeps its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TextIO

from threadpoolctl import threadpool_limits

from lstm_np import startup
from lstm_np.backends import Backend, get_backend
from lstm_np.errors import LstmNpError
from lstm_np.files import discard_buffered, expand
from lstm_np.kernels import KernelWarning
from lstm_np.loop import TrainingDivergedError
from lstm_np.options import OptionWarning
from lstm_np.training.interruption import Interrupted

OUR_WARNINGS = (OptionWarning, KernelWarning)
EXIT_STATUS = "Exit status: 0 done, 1 {one}, 2 bad input or a fault of the machine, 129, 130 and 143 interrupted."


class Parser(argparse.ArgumentParser):
    """Refuses bad flags in one line, and takes no abbreviated ones: a later flag must not change their meaning."""

    def __init__(self, name: str, usage: str, description: str, *, one: str) -> None:
        super().__init__(
            prog=f"python -m lstm_np.{name}",
            usage=f"python -m lstm_np.{name} {usage}",
            description=description,
            epilog=EXIT_STATUS.format(one=one),
            allow_abbrev=False,
        )
        self.name = name

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the flags, in one line, and exit with status 2."""
        self.exit(2, f"{self.name}: {message} (--help lists the flags)\n")


def run_command(parser: Parser, argv: list[str] | None, body: Callable[[argparse.Namespace], int]) -> int:
    """Parse, run `body`, and return the exit status; errors that a user can act on become one line on stderr.

    With the environment variable LSTM_NP_DEBUG set to anything but 0, the traceback of such an error comes first.
    """
    startup.take_default(signal.SIG_DFL, signal.default_int_handler)
    open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # characters that the terminal cannot encode are escaped
    try:
        arguments = _parsed(parser, argv)
        with _warnings_in_a_line(parser):
            return body(arguments)
    except (
        BrokenPipeError
    ):  # the reader of our output has closed the pipe, as `head` does; there is nobody to report it to
        discard_buffered(sys.stdout)
        return 141
    except SystemExit:  # --help was printed, or a flag was refused
        raise
    except BaseException as error:
        outcome = explain(error)
        if outcome is None:
            raise
        if os.environ.get("LSTM_NP_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        message, status = outcome
        if isinstance(error, OutputError):
            discard_buffered(sys.stdout)
        return _fail(parser, message, status)


def _parsed(parser: Parser, argv: list[str] | None) -> argparse.Namespace:
    try:
        return parser.parse_args(argv)
    except SystemExit:
        flush()  # the text of --help
        raise


def explain(error: BaseException) -> tuple[str, int] | None:
    """(one line, exit status) for an error that a user can act on; None for a fault of the program itself."""
    match error:
        case KeyboardInterrupt():
            number = error.number if isinstance(error, Interrupted) else signal.SIGINT
            return f"interrupted{_detail(error)}", 128 + number
        case TrainingDivergedError():
            return str(error), 1
        case MemoryError():
            return f"not enough memory{_detail(error)}; choose a smaller model or batch", 2
        case OSError() if error.errno is not None:
            return f"{error.filename or 'input or output'}: {error.strerror}", 2
        case LstmNpError() | OSError() | ValueError():
            return str(error), 2
    return None


class OutputError(LstmNpError, OSError):
    """Standard output cannot be written, and what was to be written there is the command's result."""


def emit(text: str) -> None:
    """Print a command's result.  Raises OutputError where it cannot be written (a full disk behind `>`)."""
    flush(f"{text}\n")


def flush(text: str = "") -> None:
    """Flush standard output.  Raises as `emit`."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror}; the result could not be printed") from error


def open_missing_streams() -> None:
    """Replace missing standard streams (`>&-`, pythonw) by ones that discard everything.

    Their file descriptors are occupied too; otherwise the next file opened would get descriptor 1 and every print.
    """
    with contextlib.suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


@contextlib.contextmanager
def _warnings_in_a_line(parser: Parser) -> Iterator[None]:
    """Show our own warnings as one line on stderr, once each, without the source location."""
    with warnings.catch_warnings():
        for ours in OUR_WARNINGS:
            warnings.simplefilter("always", ours)
        others, said = warnings.showwarning, set[str]()

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, OUR_WARNINGS):
                if str(message) not in said:
                    say(f"{parser.name}: {message}")
                said.add(str(message))
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


@contextlib.contextmanager
def backend_of(arguments: argparse.Namespace) -> Iterator[Backend]:
    """The backend that --backend and --threads ask for; the linear algebra library keeps to its cores meanwhile."""
    backend = get_backend(arguments.backend, threads=arguments.threads)
    with threadpool_limits(limits=backend.cores if backend.reads_are_free else arguments.threads):
        yield backend


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """RUN and --best: which weights."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="run folder or weights file [the newest run under runs/]")
    parser.add_argument("--best", action="store_true", help="the run's best.safetensors instead of its final weights")


@contextlib.contextmanager
def naming_another(path: str, flag: str) -> Iterator[None]:
    """Where the file that a flag names cannot be written, say so, and that another can be named."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror}); name another file with {flag}") from error


def check_writable(path: str, flag: str) -> None:
    """Refuse, before any work is done, a file that a flag names and that cannot be written.  Raises OSError."""
    with naming_another(path, flag):
        file = expand(path)
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not file.absolute().parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        special = file.exists() and not file.is_file()  # a device or a pipe, which is written to as it is
        if not os.access(file if special else Path(os.path.realpath(file)).parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def say(text: str) -> None:
    """A note for the user, on stderr, if that can be written."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
        print(text, file=sys.stderr, flush=True)


def _detail(error: BaseException) -> str:
    text = str(error)
    return f": {text}" if text else ""


def _fail(parser: Parser, message: str, status: int) -> int:
    say(f"{parser.name}: {' '.join(message.split())}")
    return status
