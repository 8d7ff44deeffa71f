"""Packages that only some features need: imported when they are needed, with one clear line where that fails."""

from __future__ import annotations

import importlib
from typing import Any

from lstm_np.errors import LstmNpError


class MissingPackageError(LstmNpError, ImportError):
    """A feature needs a package that is missing or broken; one line: which, why, and how to install it.

    >>> history = lstm_np.History([lstm_np.Epoch(1, 10, lstm_np.Metrics(0.5, 0.8, 10, 8), None, seconds=0.1)])
    >>> try:
    ...     figure = history.plot()
    ... except lstm_np.MissingPackageError as error:
    ...     print(error)  # curves need matplotlib, which is not installed: pip install "lstm_np[plot]"
    """


def load(module: str, extra: str, purpose: str, package: str | None = None) -> Any:
    """The module `module`, imported; `purpose` begins the error's sentence, as in "pictures need".

    `extra` is the extra of lstm_np that installs it ("" for a package that lstm_np itself depends on); `package` is its
    name for pip, where that differs from the module's.  Raises MissingPackageError where it is not installed, or is
    installed and fails to import (another version of what it needs, a missing system library).
    """
    package = package or module.partition(".")[0]
    install = f'pip install "lstm_np[{extra}]"' if extra else f"pip install {package}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and module.startswith(error.name):
            raise MissingPackageError(f"{purpose} {package}, which is not installed: {install}") from None
        reason: Exception = error
    except Exception as error:  # a broken installation fails in any way; each means the same to a user
        reason = error
    text = " ".join(str(reason).split())[:200] or type(reason).__name__
    broken = f"{purpose} {package}, which is installed but cannot be imported ({text})"
    raise MissingPackageError(f"{broken}; repair it: {install} --force-reinstall") from reason
