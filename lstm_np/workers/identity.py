"""What two processes must have in common to compute the same bits: the Python, and the files that both have loaded."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def digests(folder: Path) -> dict[str, str]:
    """A digest of the content of every Python file below a folder, by its name there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
        for path in sorted(folder.rglob("*.py"))
    }


# taken when the package is loaded: its files may be changed later, and a worker that starts then reads others
AT_IMPORT = digests(PACKAGE)


def loaded_files() -> dict[str, str]:
    """The digests of the package's files that this process has loaded, by their names in the package."""
    start = f"{__name__.partition('.')[0]}."
    files = [module.__file__ for name, module in sys.modules.items() if name.startswith(start)]
    paths = [Path(file) for file in files if file]
    names = [path.relative_to(PACKAGE).as_posix() for path in paths if path.is_relative_to(PACKAGE)]
    return {name: AT_IMPORT[name] for name in names if name in AT_IMPORT}


def identity(described: Mapping[str, object]) -> dict[str, Any]:
    """Of this process, as plain values; `described` is what else must be the same."""
    return {"python": sys.version, **described, "files": loaded_files()}


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """What differs between this process and a worker, each with its `identity`, in words; None where nothing does."""
    for name, value in ours.items():
        if name != "files" and theirs.get(name) != value:
            return f"{name}: {theirs.get(name)} there, {value} here"
    changed = [name for name, digest in theirs.get("files", {}).items() if AT_IMPORT.get(name) != digest]
    return f"{changed[0]} has changed since it was loaded here" if changed else None
