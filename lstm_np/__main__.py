"""The commands by name: python -m lstm_np."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import lstm_np
from lstm_np.cli.command import Parser, emit, open_missing_streams
from lstm_np.files import discard_buffered


def commands() -> Iterator[tuple[str, Parser]]:
    """Each command's name, and its parser: modules with a `make_parser`, or packages with such a __main__.

    Other modules are read and not imported: they may need packages that no command needs.
    """
    for module in pkgutil.iter_modules(lstm_np.__path__):
        name = f"lstm_np.{module.name}"
        if module.ispkg:
            name += ".__main__"
        spec = None if module.name == "__main__" else importlib.util.find_spec(name)
        if spec is not None and spec.origin and b"\ndef make_parser(" in Path(spec.origin).read_bytes():
            yield module.name, importlib.import_module(name).make_parser()


def main(argv: list[str] | None = None) -> int:
    """Print the commands; the exit status: 2 where one was asked for here."""
    open_missing_streams()
    found = dict(commands())
    asked = [word for word in (sys.argv[1:] if argv is None else argv) if word not in ("-h", "--help")]
    if asked:
        name = asked[0].replace("-", "_")
        there_are = f"python -m lstm_np.{name}" if name in found else f"there are: {', '.join(found)}"
        print(f"lstm_np: no command is started here; {there_are}", file=sys.stderr)
        return 2
    width = max(map(len, found))
    try:
        for name, parser in found.items():
            summary = re.split(r"[.:,] ", parser.description or "")[0].rstrip(".")
            emit(f"python -m lstm_np.{name:<{width}}  {summary}")
        emit("\nEach has --help.  From Python: import lstm_np; help(lstm_np)")
    except BrokenPipeError:  # as `head` does
        discard_buffered(sys.stdout)
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
