"""The types that stand for arrays.  NumPy, CuPy and array_api_strict share no class that a checker could look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Array: TypeAlias = Any  # of a backend
Namespace: TypeAlias = Any  # the module that computes with them, called xp
Params = Mapping[str, Array]
State = tuple[Array, ...]
