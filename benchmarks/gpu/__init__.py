"""Checks and races on a GPU: `python -m benchmarks.gpu`."""
