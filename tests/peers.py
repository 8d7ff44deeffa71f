"""The mark of tests that compare with PyTorch, which is not loaded to find out whether it is there."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_torch = pytest.mark.skipif(
    find_spec("torch") is None, reason='PyTorch is not installed: pip install "lstm_np[peers]"'
)
