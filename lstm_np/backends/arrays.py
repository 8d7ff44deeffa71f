"""What people pass as arrays, read as arrays of numbers: arrays of any library and nested lists, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstm_np.backends.base import Backend

NUMBERS = "buifc"  # kinds of dtype: booleans, integers, floating-point and complex numbers


def as_numbers(backend: Backend, value: Any, name: str) -> Any:
    """`value` as an array of numbers on `backend`, of its own dtype; one that is there already is not copied.

    Arguments and errors as for `as_array`.
    """
    return backend.from_host(as_array(value, name))


def as_array(value: Any, name: str) -> Any:
    """`value` as an array of numbers of its own dtype: of NumPy, or of a backend where it is one already.

    value  an array, anything that NumPy reads as one, or a nested list of numbers
    name   what errors call it

    Raises ValueError, in one line, for texts and other objects, lists of unequal lengths, and arrays whose mask hides
    an entry.
    """
    if type(value) is not np.ndarray:
        value = _plain(value, name)
    if value.dtype.kind not in NUMBERS:
        raise ValueError(f"{name} must be numbers, found {_words(value)}")
    return value


def _plain(value: Any, name: str) -> Any:
    """`value` as it is where a backend can take it, else as a NumPy array."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        hidden = int(np.ma.getmaskarray(value).sum())
        raise ValueError(
            f"{name} is a masked array with {hidden:,} masked entries, whose mask would be lost; fill them first"
        )
    if hasattr(value, "dtype") and not isinstance(value, (np.ndarray, np.generic)) and hasattr(value.dtype, "kind"):
        return value  # of a backend, which knows its own arrays
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        if isinstance(value, (list, tuple)) and isinstance(error, ValueError):
            reason = "is a list of unequal lengths; every step needs the same number of features"
        else:
            reason = f"cannot be read as an array: {' '.join(str(error).split())}"
        raise ValueError(f"{name} {reason}") from None


def _words(array: Any) -> str:
    """What an array of no numbers holds."""
    if array.dtype.kind in "US":
        return f"text, such as {array.reshape(-1)[:1].tolist()}" if array.size else "text"
    if array.ndim == 0:
        return f"a {type(array.item()).__name__}"
    return f"an array of dtype {array.dtype}"
