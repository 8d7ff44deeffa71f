"""`python -m pytest -m quick`: only the files that have quick tests are imported, and a few processes are enough."""

from __future__ import annotations

from pathlib import Path

import pytest


def _only_quick(config: pytest.Config) -> bool:
    return config.getoption("markexpr", "") == "quick"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a file without the mark, unimported."""
    if _only_quick(config) and collection_path.name.startswith("test_") and collection_path.suffix == ".py":
        return "mark.quick" not in collection_path.read_text(encoding="utf-8") or None
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Each process imports for a second before it tests anything."""
    return 2 if _only_quick(config) else None
