"""Named parameters over one contiguous vector."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Self

from lstm_np.arrays import Array
from lstm_np.backends import Backend, as_numbers


class Parameters(dict[str, Any]):
    """A dict of arrays that are views of one contiguous vector, `flat`.

    The names serve whoever reads or sets a tensor; the vector serves an optimizer, which updates all of them in a few
    passes; `backend` is where both live, `xp` its array namespace.  Assigning to a name writes into the view, so the
    two never part; names cannot be removed.  A copy, a deep copy and an unpickled one have a vector of their own.

    >>> params = lstm_np.LSTM(2, 3).params
    >>> params
    Parameters of 72 values, float32, numpy backend
      layer0.W  (12, 2)
      layer0.U  (12, 3)
      layer0.b  (12,)
    >>> params["layer0.b"] = 0.5  # or an array or a list of its shape
    >>> params.flat[-3:]
    array([0.5, 0.5, 0.5], dtype=float32)

    Raises, on assignment, KeyError for another name, and ValueError for another shape or what are no real numbers.
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
        self._sections: dict[str, dict[str, Array]] = {}

    @classmethod
    def from_host(cls, backend: Backend, arrays: Mapping[str, Array], dtype: str) -> Parameters:
        """Parameters on `backend` with the values of NumPy arrays, as `dtype`.

        >>> arrays = {"W": np.ones((2, 3)), "b": np.zeros(2)}
        >>> lstm_np.Parameters.from_host(lstm_np.get_backend("numpy"), arrays, "float32").flat.tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
        """
        shapes = {name: array.shape for name, array in arrays.items()}
        params = cls(backend, backend.empty_vector(sum(map(prod, shapes.values())), dtype), shapes)
        params.update({name: backend.from_host(array.astype(dtype)) for name, array in arrays.items()})
        return params

    def to_host(self) -> dict[str, Any]:
        """The values as NumPy arrays of their own, by name.

        >>> arrays = lstm_np.LSTM(2, 3).params.to_host()
        >>> np.savez("my-weights.npz", **arrays)
        """
        return {name: self.backend.to_host(array).copy() for name, array in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_host, (self.backend, self.to_host(), self.flat.dtype.name)

    def __copy__(self) -> Self:
        return self.copy()

    def __repr__(self) -> str:
        width = max((len(name) for name in self), default=0)
        size, dtype = self.flat.shape[0], self.flat.dtype
        head = f"{type(self).__name__} of {size:,} values, {dtype}, {self.backend.name} backend"
        return "\n".join([head, *(f"  {name:<{width}}  {shape}" for name, shape in self.shapes.items())])

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, in the order of the vector."""
        return {name: array.shape for name, array in self.items()}

    def like(self, flat: Array) -> Self:
        """The same names and shapes over another vector of the same length (gradients, moments).

        >>> params = lstm_np.LSTM(2, 3).params
        >>> params.like(0.5 * params.flat)["layer0.b"].shape
        (12,)
        """
        return type(self)(self.backend, flat, self.shapes)

    def empty_like(self) -> Self:
        """The same names and shapes over a vector that is not yet written.

        >>> list(lstm_np.LSTM(2, 3).params.empty_like())
        ['layer0.W', 'layer0.U', 'layer0.b']
        """
        return self.like(self.empty_vector())

    def empty_vector(self) -> Array:
        """A vector of the same length and dtype that is not yet written.

        >>> lstm_np.LSTM(2, 3).params.empty_vector().shape
        (72,)
        """
        return self.backend.empty_vector(self.flat.shape[0], self.flat.dtype)

    def section(self, prefix: str) -> dict[str, Array]:
        """The views whose names start with `prefix` and a dot, without it.

        >>> list(lstm_np.LSTM(2, 3).params.section("layer0"))
        ['W', 'U', 'b']
        """
        found = self._sections.get(prefix)
        if found is None:
            start = prefix + "."
            found = {name[len(start) :]: array for name, array in self.items() if name.startswith(start)}
            self._sections[prefix] = found
        return found.copy()

    def leading(self, count: int) -> Parameters:
        """The first `count` parameters, sharing the vector.

        >>> list(lstm_np.LSTM(2, 3).params.leading(2))
        ['layer0.W', 'layer0.U']
        """
        shapes = dict(list(self.shapes.items())[:count])
        return Parameters(self.backend, self.flat[: sum(prod(shape) for shape in shapes.values())], shapes)

    def __setitem__(self, name: str, value: Array) -> None:
        if name not in self:
            raise KeyError(f"no parameter {name!r}; there are: {', '.join(self)}")
        own, value = self[name], as_numbers(self.backend, value, f"parameter {name!r}")
        if value.ndim and tuple(value.shape) != tuple(own.shape):  # one number is for all of its values
            raise ValueError(f"parameter {name!r} has shape {own.shape}, found {tuple(value.shape)}")
        if value.dtype.kind == "c" and own.dtype.kind != "c":
            raise ValueError(f"parameter {name!r} is {own.dtype}, found complex numbers")
        own[...] = value

    def update(self, *others: Any, **values: Any) -> None:
        """Write several parameters, each as by assignment; one that is its own view is written already.

        >>> one, other = lstm_np.LSTM(2, 3), lstm_np.LSTM(2, 3, seed=1)
        >>> one.params.update(other.params)
        >>> (one.params.flat == other.params.flat).all()
        np.True_
        """
        for name, value in dict(*others, **values).items():
            if value is not self.get(name):
                self[name] = value

    def _fixed(self, *_: Any, **__: Any) -> Any:
        raise TypeError("the names of a layer's parameters are fixed; assign to an existing one")

    __delitem__ = pop = popitem = clear = setdefault = __ior__ = _fixed

    def copy(self) -> Self:
        """The same names and values over a vector of their own.

        >>> params = lstm_np.LSTM(2, 3).params
        >>> best = params.copy()
        >>> params["layer0.b"] = 0.0
        >>> best["layer0.b"].sum()
        np.float32(3.0)
        """
        other = self.empty_like()
        other.flat[...] = self.flat
        return other


def merge(prefixed: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """{"layer0": {"W": ...}} -> {"layer0.W": ...}."""
    return {f"{prefix}.{name}": array for prefix, arrays in prefixed.items() for name, array in arrays.items()}
