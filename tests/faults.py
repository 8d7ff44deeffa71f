"""Planted faults: source text of the engine, changed on purpose, as a module."""

from __future__ import annotations

import inspect
from types import ModuleType


def with_fault(module: ModuleType, line: str, fault: str) -> ModuleType:
    """`module` made again from its source with `line`, which must occur exactly once, replaced by `fault`."""
    source = inspect.getsource(module)
    assert source.count(line) == 1, f"{line!r} occurs {source.count(line)} times in {module.__name__}"
    broken = ModuleType(module.__name__)
    broken.__file__ = module.__file__
    exec(compile(source.replace(line, fault), f"{module.__name__} with a fault", "exec"), broken.__dict__)
    return broken
