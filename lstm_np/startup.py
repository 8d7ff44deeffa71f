"""What must happen before anything else is imported when a command starts (`python -m lstm_np.train`).

Nothing is imported at the top but what every interpreter has loaded, or nearly: until `prepare` has run, Ctrl-C prints
a traceback.
"""

from __future__ import annotations

import itertools
import signal
import sys

COMMANDS_NEED = ("numpy", "rich", "safetensors", "threadpoolctl")  # the engine itself needs NumPy alone


def command_name(arguments: list[str]) -> str | None:
    """The command that an interpreter's command line starts: "train" for [python, -m, lstm_np.train, ...]."""
    for flag, module in itertools.pairwise(arguments):
        if flag == "-m":
            return module.removeprefix("lstm_np.") if module.startswith("lstm_np.") else None
    return None


def prepare() -> None:
    """Where a command starts: Ctrl-C during the imports ends it without a traceback, and a package that is missing, or
    is there and cannot be imported, is one line.

    Raises SystemExit with status 2 for such a package.  Does nothing where a program imports lstm_np.
    """
    name = command_name(sys.orig_argv)
    if name is None or sys.argv[:1] != ["-m"]:  # which Python replaces when the command's own module begins to run
        return
    take_default(signal.default_int_handler, signal.SIG_DFL)
    import importlib.util

    missing = [package for package in COMMANDS_NEED if importlib.util.find_spec(package) is None]
    if missing:
        fail(f"{name}: needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    for package in COMMANDS_NEED:
        try:
            importlib.import_module(package)
        except Exception as error:  # a broken installation fails in any way
            found = " ".join(str(error).split())[:200] or type(error).__name__
            cure = f"pip install --force-reinstall {package}"
            fail(f"{name}: needs {package}, which is installed but cannot be imported ({found}); repair it: {cure}")


def fail(line: str) -> None:
    """End the command with status 2 and one line on stderr: raises SystemExit."""
    import contextlib

    with contextlib.suppress(OSError, AttributeError):  # it may be closed, or not be there
        print(line, file=sys.stderr)
    raise SystemExit(2)


def take_default(of: object, handler: object) -> None:
    """Set SIGINT's handler, if it is `of` now: nobody else's handler is replaced.

    Outside the main thread, which alone may set handlers, nothing is done.
    """
    try:
        if signal.getsignal(signal.SIGINT) is of:
            signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]
    except ValueError:
        return  # another thread


prepare()
