"""Other systems as contestants, a module each.

A module runs inside the interpreter that has the system's packages, and imports those, the standard library, NumPy and
`benchmarks.contestant` and `benchmarks.workloads` alone.
"""
