"""Named parameters over one contiguous vector."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from lstm_np.arrays import Array
from lstm_np.backends import Backend


class Parameters(dict):
    """A dict of arrays that are views of one contiguous vector, `flat`.

    The names serve whoever reads or sets a tensor; the vector serves an optimiser, which updates all of them in a few
    passes; `backend` is where both live, `xp` its array namespace.  Assigning to a name writes into the view (shape
    checked), so the two never part; names cannot be removed.
    """

    def __init__(self, backend: Backend, flat: Array, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.backend, self.xp, self.flat = backend, backend.xp, flat
        start = 0
        views = {}
        for name, shape in shapes.items():
            views[name] = flat[start : start + prod(shape)].reshape(shape)
            start += prod(shape)
        if start != flat.shape[0]:
            raise ValueError(f"the shapes name {start} values, the vector has {flat.shape[0]}")
        super().__init__(views)

    @classmethod
    def from_host(cls, backend: Backend, arrays: Mapping[str, Array], dtype: str) -> Parameters:
        """Parameters on `backend` with the values of NumPy arrays, as `dtype`."""
        shapes = {name: array.shape for name, array in arrays.items()}
        params = cls(backend, backend.empty_vector(sum(map(prod, shapes.values())), dtype), shapes)
        params.update({name: backend.from_host(array.astype(dtype)) for name, array in arrays.items()})
        return params

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, in the order of the vector."""
        return {name: array.shape for name, array in self.items()}

    def like(self, flat: Array) -> Parameters:
        """The same names and shapes over another vector of the same length (gradients, moments)."""
        return Parameters(self.backend, flat, self.shapes)

    def empty_like(self) -> Parameters:
        """The same names and shapes over a vector that is not yet written."""
        return self.like(self.empty_vector())

    def empty_vector(self) -> Array:
        """A vector of the same length and dtype that is not yet written."""
        return self.backend.empty_vector(self.flat.shape[0], self.flat.dtype)

    def section(self, prefix: str) -> dict[str, Array]:
        """The views whose names start with `prefix` and a dot, without it: section("layer0") has "W", "U", "b"."""
        start = prefix + "."
        return {name[len(start) :]: array for name, array in self.items() if name.startswith(start)}

    def leading(self, count: int) -> Parameters:
        """The first `count` parameters, sharing the vector."""
        shapes = dict(list(self.shapes.items())[:count])
        return Parameters(self.backend, self.flat[: sum(prod(shape) for shape in shapes.values())], shapes)

    def __setitem__(self, name: str, value: Array) -> None:
        if name not in self:
            raise KeyError(f"no parameter {name!r}; there are: {', '.join(self)}")
        if tuple(value.shape) != tuple(self[name].shape):
            raise ValueError(f"parameter {name!r} has shape {self[name].shape}, found {tuple(value.shape)}")
        self[name][...] = value

    def update(self, *others: Any, **values: Any) -> None:
        """Write several parameters, each as by assignment; one that is its own view is written already."""
        for name, value in dict(*others, **values).items():
            if value is not self.get(name):
                self[name] = value

    def _fixed(self, *_: Any, **__: Any) -> Any:
        raise TypeError("the names of a layer's parameters are fixed; assign to an existing one")

    __delitem__ = pop = popitem = clear = setdefault = __ior__ = _fixed

    def copy(self) -> Parameters:
        """The same names and values over a vector of their own."""
        other = self.empty_like()
        other.flat[...] = self.flat
        return other


def merge(prefixed: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """{"layer0": {"W": ...}} -> {"layer0.W": ...}."""
    return {f"{prefix}.{name}": array for prefix, arrays in prefixed.items() for name, array in arrays.items()}
