"""Sequences of unequal length: what lengths and masks mean stands in this file alone.

A batch is an array (B, T, D) together with the steps that each sequence has: the first `lengths[b]`, or those where
`mask[b]` is true, which may begin late (padding on the left) and have holes.  **A sequence is its steps, one after the
other, and nothing else of the array is read.**  A second direction reads the same steps from the last to the first.

`Packing` turns that into indices, and no code beside it asks about lengths or masks again.  The steps of each sequence
are moved to the front, and the sequences are ordered by their lengths, the longest first.  A kernel then makes step t
for the first `batch_sizes[t]` columns and leaves the others as they are: the cost follows the sum of the lengths, a
final state is the one after a sequence's own last step, and a gradient enters where its sequence ends.  (The form is
that of PyTorch's PackedSequence, and of the variable-length recurrences of cuDNN.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np

from lstm_np.arrays import Array
from lstm_np.backends import Backend, as_array

ToHost = Callable[[Any], np.ndarray]  # what makes an array of wherever it lies one of NumPy
Real = np.ndarray  # which steps are real: lengths, integers (N,), or a mask, booleans (N, T)


@dataclass(frozen=True, eq=False)
class Packing:
    """Which steps of a batch are computed, and in which order, for one direction.

    backend   where the arrays lie that it packs
    lengths   (B,) steps of each sample, NumPy integers
    steps     (T, B): the step of the batch that sample b makes as its t-th; behind its length the steps that it has not
    reverse   whether the samples' steps are read from the last to the first
    in_place  whether steps[t, b] is t, so that samples change places but steps do not
    held      whether outputs at steps that a sample does not have are the one before (in the order of reading), as in
              Keras; otherwise they are 0, as in PyTorch and ONNX.  Before the first step they are 0 either way
    """

    backend: Backend
    lengths: np.ndarray
    steps: np.ndarray
    reverse: bool = False
    in_place: bool = False
    held: bool = False

    @classmethod
    def of(cls, real: Real | None, B: int, T: int, backend: Backend, *, held: bool = False) -> Self | None:
        """From lengths or a mask as `read` gives them; None where every sample has all T steps.

        Raises ValueError where they do not fit B and T.
        """
        if real is None:
            return None
        check(real, B, T)
        if real.ndim == 1:
            lengths, steps, in_place = real, np.broadcast_to(np.arange(T)[:, None], (T, B)), True
        else:
            lengths, steps = real.sum(axis=1), np.argsort(~real.T, axis=0, kind="stable")
            in_place = bool((steps == np.arange(T)[:, None]).all())
        if (lengths == T).all():
            return None
        return cls(backend, lengths.astype(np.int64), steps, in_place=in_place, held=held)

    # ---- the indices

    @property
    def T(self) -> int:
        """Steps of the batch."""
        return self.steps.shape[0]

    @property
    def B(self) -> int:
        """Samples."""
        return self.steps.shape[1]

    @cached_property
    def order(self) -> np.ndarray:
        """(B,) which sample each column is: the longest first, and of equal ones the first."""
        return np.argsort(-self.lengths, kind="stable")

    @cached_property
    def batch_sizes(self) -> tuple[int, ...]:
        """How many columns make each of the T steps; never more than before, and 0 behind the longest sample."""
        return tuple((self.lengths[None, :] > np.arange(self.T)[:, None]).sum(axis=1).tolist())

    @cached_property
    def reversed(self) -> Packing:
        """The same samples, each read from its last step to its first."""
        t, steps = np.arange(self.T)[:, None], self.steps
        mirrored = np.where(t < self.lengths, self.lengths - 1 - t, t)
        return replace(
            self, steps=np.take_along_axis(steps, mirrored, axis=0), reverse=not self.reverse, in_place=False
        )

    @cached_property
    def real(self) -> np.ndarray:
        """(T, B) booleans: whether the sample has the step."""
        real = np.zeros((self.T, self.B), bool)
        np.put_along_axis(real, self.steps, np.arange(self.T)[:, None] < self.lengths, axis=0)
        return real

    @cached_property
    def last(self) -> np.ndarray:
        """(B,) the last step that each sample has, in the order of the batch; 0 for one that has none."""
        return np.where(self.lengths > 0, self.T - 1 - np.argmax(self.real[::-1], axis=0), 0)

    @cached_property
    def _indices(self) -> dict[str, Array]:
        """On the backend: the columns' samples and back, and the places (T * B) of packed values and back."""
        order, put = self.order, self.backend.from_host
        back = np.empty_like(order)
        back[order] = np.arange(self.B)
        indices = {"order": put(order), "back": put(back)}
        if not self.in_place:
            places = (self.steps[:, order] * self.B + order).reshape(-1)
            back = np.empty_like(places)
            back[places] = np.arange(places.size)
            indices |= {"places": put(places), "places_back": put(back)}
        return indices

    @cached_property
    def _in_order(self) -> bool:
        return bool((self.order == np.arange(self.B)).all())

    # ---- arrays of the backend, features first; None stays None

    def columns(self, array: Array | None) -> Array | None:
        """(H, B), a column a sample, in the order of the lengths."""
        return self._taken(array, "order", 1)

    def samples(self, array: Array | None) -> Array | None:
        """(H, B) back in the order of the batch."""
        return self._taken(array, "back", 1)

    def pack(self, array: Array | None) -> Array | None:
        """(F, T, B) with each sample's steps at the front, and its column where its length puts it.

        What lies behind a sample's length is what the batch has at other steps: it must not be read.
        """
        return self._taken(array, "order", 2) if self.in_place else self._moved(array, "places")

    def unpack(self, array: Array | None) -> Array | None:
        """(F, T, B) back in the order of the batch; what is 0 behind the lengths is 0 where a sample has no step."""
        return self._taken(array, "back", 2) if self.in_place else self._moved(array, "places_back")

    def _taken(self, array: Array | None, index: str, axis: int) -> Array | None:
        if array is None or self._in_order:
            return array
        on_host = isinstance(array, np.ndarray)
        if axis == 2 and on_host and array.T.flags.c_contiguous:  # as a batch (B, T, F) lies: whole samples are copied
            return self.backend.xp.take(array.T, self._indices[index], axis=0).T
        return self.backend.xp.take(array, self._indices[index], axis=axis)

    def _moved(self, array: Array | None, index: str) -> Array | None:
        if array is None:
            return None
        xp, flat = self.backend.xp, (array.shape[0], self.T * self.B)
        return xp.reshape(xp.take(xp.reshape(array, flat), self._indices[index], axis=1), array.shape)

    def packed_host(self, array: np.ndarray) -> np.ndarray:
        """(T, F, B), packed, from an array of NumPy's (B, T, F)."""
        packed = array[self.order[None, :], self.steps[:, self.order]]  # (T, B, F)
        return np.ascontiguousarray(packed.transpose(0, 2, 1))

    # ---- outputs at steps that a sample does not have

    def outputs(self, y: Array | None) -> Array | None:
        """The outputs (H, T, B) of the batch from packed ones, 0 behind the lengths."""
        y = self.unpack(y)
        return y if y is None or not self.held else self.carried(y)

    def output_gradients(self, dy: Array | None) -> Array | None:
        """The gradient of `outputs`'s argument from that of its result; what lies at steps of no sample is not read,
        unless it is held there."""
        return self.pack(dy if dy is None or not self.held else self._gathered(dy))

    def carried(self, array: Array, start: Array | None = None) -> Array:
        """(H, T, B) of the batch, where a sample has a step, and elsewhere what it had at the step read before.

        start   (H, B), what there is before the first step; None: 0
        """
        xp, real = self.backend.xp, self._real_columns
        value = xp.zeros_like(array[:, 0, :]) if start is None else start
        found: list[Array] = [None] * self.T
        for t in self._reading:
            found[t] = value = xp.where(real[t], array[:, t, :], value)
        return xp.stack(found, axis=1)

    def _gathered(self, dy: Array) -> Array:
        """The gradient of what was carried from that of all places that it was carried to."""
        xp, real = self.backend.xp, self._real_columns
        nothing = value = xp.zeros_like(dy[:, 0, :])
        found: list[Array] = [None] * self.T
        for t in reversed(self._reading):
            value = value + dy[:, t, :]
            found[t] = xp.where(real[t], value, nothing)
            value = xp.where(real[t], nothing, value)
        return xp.stack(found, axis=1)

    @property
    def _reading(self) -> range:
        """The steps of the batch in the order of reading."""
        return range(self.T)[::-1] if self.reverse else range(self.T)

    @cached_property
    def _real_columns(self) -> list[Array]:
        return [self.backend.from_host(np.ascontiguousarray(row)[None, :]) for row in self.real]

    def cleaned(self, array: Array) -> Array:
        """(F, T, B) of the batch with 0 at the steps that a sample does not have, for sums over all steps."""
        xp = self.backend.xp
        return xp.where(self.backend.from_host(self.real[None]), array, xp.zeros_like(array))

    def mirrored(self, array: Array) -> Array:
        """(F, T, B) of the batch with the steps of each sample in reverse."""
        xp, flat = self.backend.xp, (array.shape[0], self.T * self.B)
        return xp.reshape(xp.take(xp.reshape(array, flat), self._opposite, axis=1), array.shape)

    @cached_property
    def _opposite(self) -> Array:
        """(T * B) for each place the one as far from the other end of its sample; that of no step is itself."""
        opposite = np.empty_like(self.steps)
        np.put_along_axis(opposite, self.steps, self.reversed.steps, axis=0)
        return self.backend.from_host((opposite * self.B + np.arange(self.B)).reshape(-1))

    # ---- the last step of each sample

    def at_last(self, array: Array) -> Array:
        """(F, B): what (F, T, B) has at each sample's last step; 0 for a sample without steps."""
        xp, B = self.backend.xp, self.B
        places = self.backend.from_host(self.last * B + np.arange(B))
        found = xp.take(xp.reshape(array, (array.shape[0], self.T * B)), places, axis=1)
        return xp.where(self.backend.from_host(self.lengths > 0)[None, :], found, xp.zeros_like(found))

    def from_last(self, gradient: Array) -> Array:
        """(F, T, B): `gradient` (F, B) at each sample's last step, 0 at all others."""
        xp = self.backend.xp
        nothing = xp.zeros((gradient.shape[0], self.T, self.B), dtype=gradient.dtype)
        return xp.where(self.is_last, gradient[:, None, :], nothing)

    @cached_property
    def is_last(self) -> Array:
        """(1, T, B) booleans of the backend: whether it is the sample's last step."""
        at = (np.arange(self.T)[:, None] == self.last) & (self.lengths > 0)
        return self.backend.from_host(at[None])

    def step_of(self, t: int, column: int) -> tuple[int, int]:
        """(step of the batch, sample) of what a column computes as its t-th step."""
        sample = int(self.order[column])
        return int(self.steps[t, sample]), sample


# ---- what people pass


class Packed(NamedTuple):
    """Sequences without padding, as PyTorch's PackedSequence has them.

    data         (sum of the lengths, D): all first steps, longest sequence first, then all second steps ...
    batch_sizes  how many sequences have a first step, a second step ...
    order        which sequence comes first, second ... in every step (PyTorch's sorted_indices)

    >>> lstm_np.pad(lstm_np.pack([np.ones((1, 2)), np.ones((3, 2))]))[1]
    array([1, 3])
    """

    data: np.ndarray
    batch_sizes: tuple[int, ...]
    order: np.ndarray


def pad(sequences: Any, *, value: float = 0.0, left: bool = False, steps: int | None = None) -> tuple[Any, np.ndarray]:
    """(x (B, T, D), lengths (B,)) of sequences (T_i, D), which may be empty, or of what `pack` gave.

    value  what stands where a sequence has no step
    left   the sequences end together at step T instead of beginning together; a layer then needs the mask
           `np.arange(T) >= T - lengths[:, None]`
    steps  T; None: that of the longest sequence

    >>> x, lengths = lstm_np.pad([np.ones((3, 2)), np.ones((5, 2))])
    >>> x.shape, lengths
    ((2, 5, 2), array([3, 5]))

    Raises ValueError for no sequences, or ones that are no arrays (T_i, D) of the same D, or longer than `steps`.
    """
    return _pad(sequences, np.asarray, value, left, steps)


def _pad(
    sequences: Any, to_host: ToHost, value: float = 0.0, left: bool = False, steps: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(sequences, Packed):
        sequences = _unpacked(sequences)
    if not isinstance(sequences, (list, tuple)) or not sequences:
        raise ValueError(f"pad takes a list of arrays (T_i, D), found {_kind(sequences)}")
    arrays = [to_host(as_array(one, f"sequence {k}")) for k, one in enumerate(sequences)]
    for k, array in enumerate(arrays):
        if array.ndim != 2 or array.shape[1] != arrays[0].shape[1]:
            raise ValueError(
                f"sequences must be arrays (T_i, D) of the same D; sequence 0 is {arrays[0].shape}, "
                f"sequence {k} is {array.shape}"
            )
    lengths = np.array([len(array) for array in arrays])
    longest = int(lengths.max())
    T = longest if steps is None else steps
    if longest > T:
        raise ValueError(f"sequence {int(lengths.argmax())} has {longest} steps, more than steps={T}")
    x = np.full((len(arrays), T, arrays[0].shape[1]), value, np.result_type(*arrays))
    for row, array in zip(x, arrays, strict=True):
        row[T - len(array) if left else 0 :][: len(array)] = array
    return x, lengths


def targets_of_steps(
    targets: Any,
    N: int,
    T: int,
    real: Real | None,
    called: str = "targets",
    *,
    each_step: bool = True,
    to_host: ToHost = np.asarray,
) -> Any:
    """Targets of each step that are a list, an entry for each of N sequences, as one array (N, T, ...).

    An entry has a target for each step that its sequence has, in their order; it is put where that step lies, and
    elsewhere there is 0.  Entries that all have T targets, and anything but such a list, come back as they are.

    called     what errors call the targets
    each_step  whether it is known that each step has a target; otherwise entries of one length, which is not that of
               their sequences, may be vectors, and come back as they are

    >>> from lstm_np.packing import targets_of_steps
    >>> targets_of_steps([[1, 2], [3]], 2, 3, np.array([[True, False, True], [False, False, True]])).tolist()
    [[1, 0, 2], [0, 0, 3]]

    Raises ValueError for an entry that has more or fewer targets than its sequence has steps, and for entries that
    differ in more than that.
    """
    if not isinstance(targets, (list, tuple)) or not targets or len(targets) != N:
        return targets
    if not all(isinstance(one, (list, tuple)) or getattr(one, "ndim", 0) for one in targets):
        return targets
    mask = np.ones((N, T), bool) if real is None else as_mask(real, T)
    found, steps = [len(one) for one in targets], mask.sum(axis=1).tolist()
    if found == [T] * N or (found != steps and not each_step and len(set(found)) == 1):
        return targets
    if found != steps:
        k = next(k for k in range(N) if found[k] != steps[k])
        raise ValueError(f"{called} of sequence {k} are of {found[k]} steps, but it has {steps[k]}, each with a target")
    arrays = [to_host(as_array(one, f"{called} of sequence {k}")) for k, one in enumerate(targets)]
    there = [k for k in range(N) if steps[k]] or [0]  # an empty list says nothing of shape and dtype
    inner = arrays[there[0]].shape[1:]
    for k in there:
        if arrays[k].shape[1:] != inner:
            raise ValueError(
                f"{called} of sequence {k} have shape {arrays[k].shape}, those of sequence {there[0]} "
                f"{arrays[there[0]].shape}; they may differ in the number of steps alone"
            )
    placed = np.zeros((N, T, *inner), np.result_type(*(arrays[k] for k in there)))
    placed[mask] = np.concatenate([arrays[k] for k in there])
    return placed


def unpad(x: Any, lengths: Any = None, *, mask: Any = None) -> list[Any]:
    """The sequences of an array (B, T, ...), each with its own steps alone: arrays (T_i, ...), which are copies.

    >>> [one.shape for one in lstm_np.unpad(np.ones((2, 5, 3)), [3, 5])]
    [(3, 3), (5, 3)]

    Raises ValueError where lengths or mask do not fit x.
    """
    x = as_array(x, "x")
    if x.ndim < 2:
        raise ValueError(f"x must have shape (B, T, ...), found {tuple(x.shape)}")
    real = as_real(lengths, mask)
    if real is None:
        raise ValueError("unpad needs lengths (B,) or a mask (B, T)")
    check(real, *x.shape[:2])
    chosen = [slice(int(one)) for one in real] if real.ndim == 1 else list(real)
    return [row[steps].copy() for row, steps in zip(x, chosen, strict=True)]


def pack(x: Any, lengths: Any = None, *, mask: Any = None) -> Packed:
    """`Packed` sequences, from a list of arrays (T_i, D) or an array (B, T, D) with its lengths or mask.

    `pad` undoes it, and layers and models take them as they take lists.

    >>> packed = lstm_np.pack([np.ones((3, 2)), np.ones((5, 2))])
    >>> packed.data.shape, packed.batch_sizes, packed.order
    ((8, 2), (2, 2, 2, 1, 1), array([1, 0]))

    Raises ValueError where they do not fit.
    """
    sequences = x if isinstance(x, (list, tuple)) and lengths is None and mask is None else unpad(x, lengths, mask=mask)
    padded, lengths = pad(list(sequences))
    order = np.argsort(-lengths, kind="stable")
    sizes = [int((lengths > t).sum()) for t in range(padded.shape[1])]
    data = [padded[order[:size], t] for t, size in enumerate(sizes)]
    return Packed(np.concatenate(data) if data else padded.reshape(0, padded.shape[2]), tuple(sizes), order)


def read(x: Any, lengths: Any = None, mask: Any = None, to_host: ToHost = np.asarray) -> tuple[Any, Real | None]:
    """(x, which steps are real) of what people pass as x, `lengths` and `mask`; a list of sequences is padded.

    x that is no list of sequences (T_i, D), and not `Packed`, comes back as it is, and None where all steps are real as
    far as this can be told.  Raises ValueError for lengths or a mask of the wrong kind, or beside a list.
    """
    if not is_list(x):
        return x, as_real(lengths, mask, to_host)
    if lengths is not None or mask is not None:
        given = "lengths" if mask is None else "mask"
        raise ValueError(
            f"x is a list of sequences, which has lengths of its own; {given} goes with an array (B, T, D)"
        )
    x, found = _pad(x, to_host)
    if x.shape[1] == 0:
        x = np.zeros((len(x), 1, x.shape[2]), x.dtype)  # sequences without steps, all of them
    return x, found


def is_list(x: Any) -> bool:
    """Whether it is a list of sequences, which may differ in length, rather than one array in whatever form."""
    if isinstance(x, Packed):
        return True
    if not isinstance(x, (list, tuple)) or not x:
        return False
    if all(getattr(one, "ndim", None) == 2 for one in x):
        return len({one.shape[0] for one in x}) > 1 or x[0].shape[0] == 0
    plain = all(isinstance(one, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in one) for one in x)
    return plain and len({len(one) for one in x}) > 1


def is_list_of_sequences(x: Any) -> bool:
    """As `is_list`, and also for a list of arrays (T, D) of equal length, which could be read as one array."""
    arrays = isinstance(x, (list, tuple)) and bool(x) and all(getattr(one, "ndim", None) == 2 for one in x)
    return arrays or is_list(x)


def as_real(lengths: Any = None, mask: Any = None, to_host: ToHost = np.asarray) -> Real | None:
    """Lengths (N,) or a mask (N, T), as NumPy has them; None where neither is given.

    Raises ValueError for both, or for the wrong kind.
    """
    if lengths is None and mask is None:
        return None
    if lengths is not None and mask is not None:
        raise ValueError("give lengths or a mask, not both")
    name, kinds, words = ("lengths", "ui", "whole numbers (B,)") if mask is None else ("mask", "b", "booleans (B, T)")
    found = to_host(as_array(lengths if mask is None else mask, name))
    if found.ndim != (1 if mask is None else 2) or found.dtype.kind not in kinds:
        raise ValueError(f"{name} must be {words}, found {found.dtype} {found.shape}")
    return found


def named(real: Any) -> dict[str, Any]:
    """What a batch (x, labels, real) has as its third part, as arguments: a mask where it has two axes."""
    if real is None:
        return {}
    return {"mask" if (real.ndim if hasattr(real, "ndim") else np.ndim(real)) == 2 else "lengths": real}


def as_mask(real: Real, T: int) -> np.ndarray:
    """Booleans (N, T), of lengths too."""
    return real if real.ndim == 2 else np.arange(T) < real[:, None]


def check(real: Real, B: int, T: int) -> None:
    """Raises ValueError unless lengths or a mask fit B sequences of T steps."""
    if real.ndim == 2 and real.shape != (B, T):
        raise ValueError(f"mask must have shape (B, T), {(B, T)} for this x; found {real.shape}")
    if real.ndim == 1 and real.shape != (B,):
        raise ValueError(f"lengths must have shape (B,), {(B,)} for this x; found {real.shape}")
    if real.ndim == 1 and B and (real.min() < 0 or real.max() > T):
        raise ValueError(f"lengths must be 0 ... {T}, the steps of x; found {real.min()} ... {real.max()}")


def _unpacked(packed: Packed) -> Sequence[np.ndarray]:
    """The sequences, in the order in which they were packed."""
    sizes, order = packed.batch_sizes, packed.order
    starts = np.cumsum((0, *sizes[:-1])) if sizes else np.zeros(0, int)
    found: list[np.ndarray] = [packed.data[:0]] * len(order)
    for place, sample in enumerate(order):
        found[sample] = packed.data[[start + place for start, size in zip(starts, sizes, strict=True) if size > place]]
    return found


def _kind(found: Any) -> str:
    return "an empty list" if isinstance(found, (list, tuple)) else f"a {type(found).__name__}"
