"""A stand-in for a GPU: arrays that refuse to meet host arrays and refuse to become host values unasked.

A `DeviceArray` computes with NumPy inside, but it can be combined only with other device arrays and Python numbers; it
has no `__array__`, no `float()`, no `bool()`, no `len()`.  What works with it never mixes host and device and never
waits for the device unless it says so with `to_host`.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from lstm_np.backends import Backend


class MixingError(TypeError):
    """A host array or scalar met a device array, or a device array was turned into a host value unasked."""


class DeviceArray:
    """An array that only its own namespace may touch."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    T = property(lambda self: DeviceArray(self._array.T))

    def __getitem__(self, key: Any) -> DeviceArray:
        return wrap(self._array[unwrap(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._array[unwrap(key)] = unwrap(value)

    def __repr__(self) -> str:
        return f"DeviceArray{self.shape}"


def _refuse(*_: Any, **__: Any) -> Any:
    raise MixingError("a device array was turned into a host value without to_host")


for _name in ("__array__", "__float__", "__int__", "__bool__", "__complex__", "__index__", "__len__", "__iter__"):
    setattr(DeviceArray, _name, _refuse)


def unwrap(value: Any) -> Any:
    """The NumPy arrays inside; a host array or NumPy scalar is refused."""
    if isinstance(value, DeviceArray):
        return value._array
    if isinstance(value, (np.ndarray, np.generic)):
        raise MixingError(f"a host {type(value).__name__} met device arrays")
    if isinstance(value, (tuple, list)):
        return type(value)(unwrap(part) for part in value)
    return value


def wrap(value: Any) -> Any:
    """NumPy results as device arrays, 0-dimensional ones too."""
    if isinstance(value, (np.ndarray, np.generic)):
        return DeviceArray(np.asarray(value))
    if isinstance(value, (tuple, list)):
        return type(value)(wrap(part) for part in value)
    return value


def _binary(function: Any, swapped: bool = False) -> Any:
    def method(self: DeviceArray, other: Any) -> Any:
        a, b = unwrap(self), unwrap(other)
        return wrap(function(b, a) if swapped else function(a, b))

    return method


def _in_place(function: Any) -> Any:
    def method(self: DeviceArray, other: Any) -> DeviceArray:
        self._array = function(self._array, unwrap(other))
        return self

    return method


for _name in ("add", "sub", "mul", "truediv", "matmul", "pow", "and", "or", "floordiv", "mod"):
    _operator = getattr(operator, f"__{_name}__")
    setattr(DeviceArray, f"__{_name}__", _binary(_operator))
    setattr(DeviceArray, f"__r{_name}__", _binary(_operator, swapped=True))
for _name in ("iadd", "isub", "imul", "itruediv"):
    setattr(DeviceArray, f"__{_name}__", _in_place(getattr(operator, f"__{_name}__")))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(DeviceArray, f"__{_name}__", _binary(getattr(operator, f"__{_name}__")))
for _name in ("neg", "abs", "invert"):
    _operator = getattr(operator, f"__{_name}__")
    setattr(DeviceArray, f"__{_name}__", lambda self, _of=_operator: wrap(_of(self._array)))
for _name in ("transpose", "reshape", "astype", "copy", "sum", "all", "any", "max", "min", "argmax", "mean"):
    setattr(
        DeviceArray,
        _name,
        lambda self, *args, _name=_name, **kwargs: wrap(
            getattr(self._array, _name)(*unwrap(args), **{key: unwrap(value) for key, value in kwargs.items()})
        ),
    )


class Namespace:
    """NumPy's functions over device arrays."""

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(np, name)
        if isinstance(attribute, type) or not callable(attribute):
            return attribute

        def function(*args: Any, **kwargs: Any) -> Any:
            out = kwargs.get("out")
            result = attribute(*unwrap(args), **{key: unwrap(value) for key, value in kwargs.items()})
            return out if out is not None else wrap(result)

        return function


def from_host(array: Any) -> DeviceArray:
    """A copy of a NumPy array on the device; a device array as it is."""
    if isinstance(array, DeviceArray):
        return array
    if not isinstance(array, np.ndarray):
        raise MixingError(f"from_host takes a NumPy array, found {type(array).__name__}")
    return DeviceArray(array.copy())


def to_host(array: Any) -> np.ndarray:
    """A NumPy copy of a device array (CuPy, too, lets NumPy arrays and numbers pass)."""
    return array._array.copy() if isinstance(array, DeviceArray) else np.asarray(array)


STRICT = Backend(
    name="strict",
    xp=Namespace(),
    from_host=from_host,
    to_host=to_host,
    synchronize=lambda: None,
    kernels=("reference",),
)
