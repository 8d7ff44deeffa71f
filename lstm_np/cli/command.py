"""What all commands share: how they parse, how they fail, and how they end when they are interrupted.

A user's mistake or a machine's fault is one line on stderr and exit status 2; a bug keeps its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from threadpoolctl import threadpool_limits

from lstm_np.backends import Backend, BackendError, get_backend
from lstm_np.loop import NonFiniteLossError
from lstm_np.training.interruption import Interrupted

EXIT_STATUS = "Exit status: 0 done, 1 {one}, 2 bad input or a fault of the machine, 130 and 143 interrupted."


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
    """Parse, run `body`, and return the exit status; errors that a user can act on become one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character shows its number
    arguments = parser.parse_args(argv)
    try:
        status = body(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read our output has gone, as `head` does: nobody is left to be told
        abandon_stdout()
        return 141
    except KeyboardInterrupt as interrupt:
        number = interrupt.number if isinstance(interrupt, Interrupted) else 2
        return _fail(parser, f"interrupted{_detail(interrupt)}", 128 + number)
    except NonFiniteLossError as error:
        return _fail(parser, str(error), 1)
    except MemoryError as error:
        return _fail(parser, f"not enough memory{_detail(error)}; choose a smaller model or batch", 2)
    except OSError as error:
        known = error.errno is not None
        return _fail(parser, f"{error.filename or 'a file'}: {error.strerror}" if known else str(error), 2)
    except (ValueError, BackendError) as error:
        return _fail(parser, str(error), 2)


def abandon_stdout() -> None:
    """Let what is still written to stdout go nowhere (else the interpreter complains when it flushes at its end)."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def backend_of(arguments: Any) -> Iterator[Backend]:
    """The backend that --backend and --threads ask for; the linear algebra library keeps to the threads meanwhile."""
    backend = get_backend(arguments.backend, threads=arguments.threads)
    with threadpool_limits(limits=arguments.threads):
        yield backend


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """RUN and --best: which weights."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="run folder or weights file [the newest run under runs/]")
    parser.add_argument("--best", action="store_true", help="the run's best.safetensors instead of its final weights")


def say(text: str) -> None:
    """A note for the user, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _detail(error: BaseException) -> str:
    text = str(error)
    return f": {text}" if text else ""


def _fail(parser: Parser, message: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(f"{parser.name}: {' '.join(message.split())}", file=sys.stderr)
    return status
