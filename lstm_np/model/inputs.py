"""What people pass to a model as x, targets, lengths and weights: read, checked, and entered on the backend.

`Entered` data lie on the backend in the engine's layout, a column a sample; a `DataSet` is a whole one, on the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends import Backend, as_array, as_numbers
from lstm_np.layers import Recurrent
from lstm_np.model.heads import Head, Targets
from lstm_np.packing import Packing, Real, as_mask, check, named, read
from lstm_np.steps import TrainingBatch

CHECKED_AT_ONCE = 1 << 20  # values of a whole data set that are converted together to see whether they are finite


class DataSet(NamedTuple):
    """Checked NumPy arrays.

    x        (N, T, D)
    targets  as `lstm_np.model.heads.Head.read` gives them, (N, ...)
    real     lengths (N,) or a mask (N, T); None: all steps are real
    weights  (N,), or (N, T) of a model that reads each step; None: 1 each
    """

    x: np.ndarray
    targets: np.ndarray
    real: Real | None = None
    weights: np.ndarray | None = None

    def part(self, start: int | None, stop: int | None) -> DataSet:
        """The samples from `start` to before `stop`."""
        return DataSet(*(None if array is None else array[start:stop] for array in self))  # type: ignore[arg-type]

    def arrays(self) -> list[np.ndarray]:
        """Those that there are."""
        return [array for array in self if array is not None]


class SequenceInputs:
    """A model's checks of what comes in."""

    backend: Backend
    config: dict[str, Any]
    dtype: str
    input_size: int
    recurrent: Recurrent
    head: Head

    def _check_shape(self, x: Array) -> None:
        D, shape = self.input_size, tuple(x.shape)
        if len(shape) != 3 or shape[2] != D or 0 in shape:
            raise ValueError(f"x must have shape (B, T, {D}) with B, T >= 1, found {shape}")

    def _read(self, x: Any, lengths: Any, mask: Any) -> tuple[Array, Real | None]:
        """(x (N, T, D) of its own dtype, which steps are real) of what people pass, their shapes checked."""
        x, real = read(x, lengths, mask, self.backend.to_host)
        x = as_array(x, "x")
        self._check_shape(x)
        if real is not None:
            check(real, *x.shape[:2])
        return x, real

    def _parts(self, batch: tuple[Any, ...]) -> tuple[Array, Array, Real | None, Any]:
        """x, targets, which steps are real, and weights, of a batch of two to four such parts, or a `TrainingBatch`."""
        x, y, real, weights, *_ = TrainingBatch(*batch)
        x, real = read(x, **named(real), to_host=self.backend.to_host)
        return x, y, real, weights

    def _convert(self, x: Array, real: Real | None = None) -> tuple[Array, Packing | None]:
        """x (B, T, D) -> (D, T, B) on the backend, in the model's dtype; its values are not looked at.

        They are 0 at steps that are not real where an input projection reads all of them.
        """
        x = as_numbers(self.backend, x, "x")
        self._check_shape(x)
        if x.dtype.kind == "c" and self.dtype != "complex128":
            raise ValueError(f"x is complex, the model is {self.dtype}")
        if x.dtype != self.dtype:
            with np.errstate(over="ignore"):
                x = x.astype(self.dtype)
        packing = self.recurrent.packing(real, x.shape[0], x.shape[1])
        x = x.transpose(2, 1, 0)
        reads_all = packing is not None and self.config["input_projection"] is not None
        return packing.cleaned(x) if packing is not None and reads_all else x, packing

    def _is_finite(self, array: Array) -> bool:
        """Whether all values are finite numbers; waits for a device."""
        return bool(self.backend.to_host(self.backend.xp.isfinite(array).all()))

    def _enter(self, x: Any, lengths: Any = None, mask: Any = None) -> tuple[Array, Packing | None]:
        """`_enter_real` of what people pass."""
        return self._enter_real(*read(x, lengths, mask, self.backend.to_host))

    def _enter_real(self, x: Array, real: Real | None) -> tuple[Array, Packing | None]:
        """x (B, T, D) -> (D, T, B) on the backend, in the model's dtype, and finite in it where steps are real."""
        x = as_numbers(self.backend, x, "x")
        entered, packing = self._convert(x, real)
        if packing is not None:
            entered = packing.cleaned(entered)
        if x.dtype.kind in "fc" and not self._is_finite(entered):
            self._refuse_values(self._is_finite(x if packing is None else packing.cleaned(x.transpose(2, 1, 0))))
        return entered, packing

    def _refuse_values(self, finite_before: bool) -> None:
        if finite_before:
            raise ValueError(
                f"x has values beyond the range of {self.dtype}, the model's dtype, in which they are infinite; "
                "scale or clean the data before it enters"
            )
        raise ValueError("x has values that are not finite (NaN or infinity); clean the data before it enters")

    def _check_data(
        self, x: Any, y: Any, lengths: Any = None, mask: Any = None, weights: Any = None, of: str = ""
    ) -> DataSet:
        """A whole data set as checked NumPy arrays; `of` goes before an error.  Without y (None) x alone is checked."""
        try:
            x, real = self._read(x, lengths, mask)
            x = self.backend.to_host(x)
            x = x.astype(np.uint8) if x.dtype.kind == "b" else x
            N, T = x.shape[:2]
            targets = np.zeros(N, np.int64) if y is None else self.head.read(y, N, T, real)
            own_weights = self.head.read_weights(weights, N, T)
            rows = max(1, CHECKED_AT_ONCE // (x.shape[1] * x.shape[2]))
            for start in range(0, len(x), rows) if x.dtype.kind == "f" else ():
                with np.errstate(over="ignore"):
                    own = x[start : start + rows]
                    if real is not None:
                        own = np.where(as_mask(real[start : start + rows], x.shape[1])[:, :, None], own, 0)
                    part = own.astype(self.dtype, copy=False)
                if not np.isfinite(part).all():
                    self._refuse_values(bool(np.isfinite(own).all()))
        except ValueError as error:
            raise ValueError(f"{of}{error}") from None
        return DataSet(x, targets, real, own_weights)

    def _enter_targets(
        self, y: Any, B: int, T: int, real: Real | None = None, weights: Any = None, *, whole: bool = False
    ) -> Targets:
        """Targets of a batch on the backend, checked; `whole`: it is all the data there are."""
        if real is not None:
            check(real, B, T)
        own_weights = self.head.read_weights(weights, B, T)
        return self.head.enter(self.head.read(y, B, T, real, whole=whole), T, real, own_weights)

    def _enter_target(self, target: Any, B: int) -> Array:
        """Integers (B,) on the backend from an output for all samples (a class), or one for each, checked."""
        K, found = self.head.size, np.asarray(self.backend.to_host(target))
        chosen = np.full(B, found) if found.ndim == 0 else found
        if chosen.shape != (B,) or chosen.dtype.kind not in "iu" or chosen.min() < 0 or chosen.max() >= K:
            what = "a class" if self.head.classifies else "an output"
            raise ValueError(f"target must be {what}, 0 ... {K - 1}, or one for each of {B} samples; found {target!r}")
        return self.backend.from_host(chosen.astype(np.int64))


def parts_of(array: np.ndarray, real: Real | None, T: int) -> list[np.ndarray]:
    """Of predictions (N, T, ...) the steps that each sequence has: a list of arrays (T_i, ...)."""
    mask = np.ones((len(array), T), bool) if real is None else as_mask(real, T)
    return [row[steps] for row, steps in zip(array, mask, strict=True)]


def without_missing(array: np.ndarray, real: Real | None, T: int) -> np.ndarray:
    """Predictions (N, T, ...), NaN at steps that a sequence does not have."""
    if real is None:
        return array
    mask = as_mask(real, T).reshape(len(array), T, *(1,) * (array.ndim - 2))
    return np.where(mask, array, np.nan).astype(array.dtype)
