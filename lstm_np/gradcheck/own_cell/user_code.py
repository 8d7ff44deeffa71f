"""Run user code, and turn any exception in it into one line that says where it happened."""

from __future__ import annotations

import contextlib
import inspect
import linecache
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lstm_np.errors import LstmNpError
from lstm_np.files import module_of


class CheckError(LstmNpError, ValueError):
    """A cell that cannot be checked; one line: what was found, where, and what is expected.

    >>> lstm_np.check_cell(print, print, layout="diagonal")
    Traceback (most recent call last):
    lstm_np.gradcheck.own_cell.user_code.CheckError: layout must be one of rows, ..., found 'diagonal'
    """


class NotComplexError(Exception):
    """A forward pass that does not take complex numbers; the text says where it stops."""


def load_file(path: str | os.PathLike[str]) -> ModuleType:
    """Run a Python file, as `python FILE` would but not as __main__, and give its module.

    What it prints goes to stderr.  Raises CheckError, with the line, where it does not run, and OSError where there is
    no such file.
    """
    path = Path(path).expanduser()
    if path.suffix != ".py":
        raise CheckError(f"{path}: a Python file is expected, one whose name ends in .py")
    with path.open("rb"):
        pass  # a file that is not there or cannot be read is an OSError that says so
    module, run = module_of(f"checked_{path.stem}", path)
    sys.modules[module.__name__] = module  # as an import does: some definitions look their own module up there
    folder, no_bytecode = str(path.resolve().parent), sys.dont_write_bytecode
    sys.path.insert(0, folder)  # its neighbours can be imported, as when it is run
    sys.dont_write_bytecode = True
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
    except SyntaxError as error:
        raise CheckError(f"{Path(error.filename or path).name} line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise CheckError(f"{_where(error, [str(path.absolute())]) or path}: {_kind(error)}") from error
    finally:
        sys.dont_write_bytecode = no_bytecode
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
    return module


def call(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """What the function returns.  Raises CheckError, with the line, for whatever it raises."""
    try:
        return function(*arguments)
    except CheckError:
        raise
    except (Exception, SystemExit) as error:
        raise CheckError(told(function, error)) from error


def call_complex(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """What the function returns for complex arrays; raises NotComplexError where it does not take them.

    To be called where NumPy's ComplexWarning is an error: entering that each time would take as long as many a call.
    """
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise NotComplexError(_where(error, [file_of(function)]) or name_of(function)) from error


@contextlib.contextmanager
def quietly(stdout: Any = None) -> Iterator[None]:
    """While somebody's code runs: NumPy's and Python's warnings are ignored, prints go to stderr (or to `stdout`)."""
    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stdout(stdout or sys.stderr):
        warnings.simplefilter("ignore")
        yield


def reached(function: Callable[..., Any], error: BaseException) -> int:
    """The line of `function`'s file in which it stopped (how far it came); 0 where that is not known."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file_of(function)]
    return (frames[0].lineno or 0) if frames else 0


def name_of(function: Callable[..., Any]) -> str:
    """What messages call it."""
    name = str(getattr(function, "__name__", None) or type(function).__name__)
    inside = getattr(function, "__qualname__", name).rpartition("<locals>.")[2]
    return inside if inside.endswith(f".{name}") else name


def file_of(function: Callable[..., Any]) -> str:
    """The file in which it is written; "" where there is none."""
    inner = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(inner, "__code__", None)
    return str(code.co_filename) if code else ""


def told(function: Callable[..., Any], error: BaseException) -> str:
    """One line: where in `function`'s file it stopped, and why."""
    where = _where(error, [file_of(function)])
    place = f"{where}, in {name_of(function)}" if where else name_of(function)
    if isinstance(error, ValueError) and "read-only" in str(error):
        line = _source_line(function, error)
        shown = f": {line}" if line else ""
        return f"{place}: changes an array that it was given in place{shown}; make a new array instead (dc = dc + ...)"
    return f"{place}: {_kind(error)}"


def _kind(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "ends the program; keep what trains or prints under if __name__ == '__main__':"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _where(error: BaseException, files: Sequence[str]) -> str:
    """ "my_cell.py line 12": the last line of these files that the error went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f"{Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""


def _source_line(function: Callable[..., Any], error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file_of(function)]
    return linecache.getline(frames[-1].filename, frames[-1].lineno or 0).strip() if frames else ""


# ------------------------------------------------------------------------------------------------------------ arrays


def arrays_in(value: Any, depth: int = 6) -> list[np.ndarray]:
    """Every array in nested tuples, lists, dicts and objects."""
    if isinstance(value, np.ndarray):
        return [value]
    if depth == 0:
        return []
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, (tuple, list)):
        parts = list(value)
    elif hasattr(value, "__dict__") and not callable(value) and not isinstance(value, ModuleType):
        parts = [part for name, part in vars(value).items() if not name.startswith("grad")]  # backward fills these in
    else:
        return []
    return [array for part in parts for array in arrays_in(part, depth - 1)]


def is_single(array: np.ndarray) -> bool:
    """Whether an array has only float32's precision, whatever its dtype is: every number in it is one of float32."""
    return array.dtype == np.float32 or bool((array == array.astype(np.float32)).all())


@contextlib.contextmanager
def read_only(*values: Any) -> Iterator[None]:
    """Make all arrays among the values read-only meanwhile: NumPy raises at the line that writes to one."""
    arrays = [array for value in values for array in arrays_in(value) if array.flags.writeable]
    for array in arrays:
        array.flags.writeable = False
    try:
        yield
    finally:
        for array in sorted(arrays, key=lambda array: array.base is not None):  # a view only after what it is a view of
            with contextlib.suppress(ValueError):
                array.flags.writeable = True
