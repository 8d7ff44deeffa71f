"""The cases of `lengths_with_peers` with each peer that is installed."""

from __future__ import annotations

import os

import pytest

from tests.layers.lengths_with_peers import LIMITS, NEEDS, PEERS


@pytest.mark.parametrize("peer", PEERS)
def test_agrees_in_every_case(peer):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    for name in NEEDS[peer]:
        pytest.importorskip(name, reason=f"{name} is not installed")
    count = 0
    for name, run in PEERS[peer][1]():
        for what, error in run().items():
            assert error <= LIMITS[peer], f"{name}: {what} is off by {error:.1e}"
        count += 1
    assert count == {"torch": 72, "keras": 72, "onnxruntime": 36, "onnx": 17}[peer]
