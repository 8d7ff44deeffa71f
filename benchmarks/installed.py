"""How much disk packages take with all that they need: ``python -m benchmarks.installed torch`` prints JSON.

Counted are the files that installed distributions list (RECORD), without compiled bytecode, each once; of a package
that is installed in editable form its folder.  Run by the interpreter that has the packages.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

try:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
except ImportError:  # pip has its own copy
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]
    from pip._vendor.packaging.utils import canonicalize_name  # type: ignore[assignment]

LEFT_OUT = (".pyc", ".pyo")


def needed(names: Iterable[str]) -> tuple[dict[str, Distribution], list[str]]:
    """(the distributions and all that they require here, by name; what is required and not installed)."""
    found: dict[str, Distribution] = {}
    missing: list[str] = []
    waiting = [Requirement(name) for name in names]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = distribution(requirement.name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        for text in found[name].requires or []:
            wanted = Requirement(text)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append(wanted)
    return found, missing


def files_of(name: str, installed: Distribution) -> set[Path]:
    """The files of a distribution."""
    where = json.loads(installed.read_text("direct_url.json") or "{}")
    if where.get("dir_info", {}).get("editable"):
        spec = importlib.util.find_spec(name.replace("-", "_"))
        folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or []]
        return {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    return {Path(str(path.locate())).resolve() for path in installed.files or []}


def measure(names: Iterable[str]) -> dict[str, Any]:
    """{"bytes", "distributions": {name: {"version", "bytes"}}, "missing"} of packages with all that they need."""
    found, missing = needed(names)
    sizes: dict[str, dict[str, Any]] = {}
    counted: set[Path] = set()
    for name, installed in sorted(found.items()):
        own = {path for path in files_of(name, installed) - counted if path.suffix not in LEFT_OUT and path.is_file()}
        counted |= own
        sizes[name] = {"version": installed.version, "bytes": sum(path.stat().st_size for path in own)}
    total = sum(size["bytes"] for size in sizes.values())
    return {"bytes": total, "distributions": sizes, "missing": sorted(missing)}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1:])))
