"""Races against other systems, and what they are measured with; `benchmarks/README.md` says how to use it.

Nothing here is part of the package: `lstm_np` imports none of it.  Modules that run inside a peer's own interpreter
(`contestant`, `workloads`, `peers`) import the standard library, NumPy and that peer alone.
"""
