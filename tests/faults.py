"""Inserted faults: source text of the engine, changed on purpose, as a module."""

from __future__ import annotations

import inspect
from types import ModuleType


def with_faults(module: ModuleType, *changes: tuple[str, str]) -> ModuleType:
    """`module` made again from its source; each first text, which must occur once, is replaced by the second."""
    source = inspect.getsource(module)
    for line, fault in changes:
        assert source.count(line) == 1, f"{line!r} occurs {source.count(line)} times in {module.__name__}"
        source = source.replace(line, fault)
    broken = ModuleType(module.__name__)
    broken.__file__ = module.__file__
    exec(compile(source, f"{module.__name__} with a fault", "exec"), broken.__dict__)
    return broken


def with_fault(module: ModuleType, line: str, fault: str) -> ModuleType:
    """`with_faults` for one change."""
    return with_faults(module, (line, fault))
