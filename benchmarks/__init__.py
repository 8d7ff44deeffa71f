"""Races against other systems, and what they are measured with; `benchmarks/README.md` says how to use it.

Nothing here is part of the package: no room of `lstm_np` imports it.  Modules that run inside a peer's own interpreter
(`contestant`, `workloads`, `peer_*`) import the standard library, NumPy and that peer alone.
"""
