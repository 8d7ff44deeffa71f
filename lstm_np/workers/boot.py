"""What a worker process runs first, as a script: `python -I -S boot.py START`.

START is JSON: "package" the folder of the parent's lstm_np, "path" the parent's search path, "target" what the worker
does as "module:class", "connection" and "memory" the file descriptors of the channel, "bytecode" whether compiled files
may be written.

The interpreter is isolated (-I, -S), so that neither the current folder nor environment variables decide what is
imported.  Its own standard library comes first, then the parent's folders.  The package is loaded from where the parent
has it; its `__init__.py` is not run, as it would load much that a worker has no use for.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import signal
import sys
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def leave_signals_to_the_parent() -> None:
    """What is sent to a whole group of processes ends the parent in order, and the workers with it."""
    for name in SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def prepare(start: dict[str, Any]) -> None:
    """Make the parent's package, and what it uses, the ones that are imported."""
    sys.dont_write_bytecode = not start["bytecode"]
    sys.path.extend(start["path"])
    spec = importlib.machinery.ModuleSpec("lstm_np", None, is_package=True)
    spec.submodule_search_locations = [start["package"]]
    sys.modules["lstm_np"] = importlib.util.module_from_spec(spec)


def main(text: str) -> None:
    """The life of a worker process."""
    leave_signals_to_the_parent()
    start = json.loads(text)
    prepare(start)
    serve = importlib.import_module("lstm_np.workers.serve")
    serve.serve(start["connection"], start["memory"], start["target"])


if __name__ == "__main__":
    main(sys.argv[1])
