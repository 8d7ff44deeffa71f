"""Names that options and parameters had in earlier versions: files written with them stay readable.

This is the only list of them, used wherever something is read: weights files, recipe files, results of comparisons, and
flags.  Python's own calls take the present names alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lstm_np.arrays import Array


class Renamed(NamedTuple):
    """An option that was renamed; `values`: what its values became, where they changed as well."""

    new: str
    values: Mapping[Any, Any] | None = None


OPTIONS: dict[str, Renamed] = {
    "double_bias": Renamed("bias", {False: True, True: "double"}),
    "projection_initializer": Renamed("input_projection_initializer"),
    "projection_bias": Renamed("input_projection_bias"),
}
# what stands before the dot of a parameter's name
SECTIONS = {"projection": "input_projection"}


def options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, those with an old name under the present one; other names stay as they are.

    Raises ValueError where both are given, or for a value that the old option could not have.
    """
    translated = {name: value for name, value in values.items() if name not in OPTIONS}
    for name, (new, became) in OPTIONS.items():
        if name not in values:
            continue
        if new in translated:
            raise ValueError(f"{name} is called {new} now, and both are given")
        value = values[name]
        if became is not None:  # a value of True and False alone so far
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, found {value!r}")
            value = became[value]
        translated[new] = value
    return translated


def parameters(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Parameters by name, those with an old name under the present one.  Raises ValueError where both are given."""
    translated = {}
    for name, array in arrays.items():
        section, dot, rest = name.rpartition(".")
        present = f"{SECTIONS.get(section, section)}{dot}{rest}"
        if present in translated or (present != name and present in arrays):
            raise ValueError(f"{name} is called {present} now, and both are given")
        translated[present] = array
    return translated
