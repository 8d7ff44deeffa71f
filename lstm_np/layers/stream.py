"""Sequences that arrive a time step at a time: what `Recurrent.stream` and `stream` of a model give.

A stream keeps the state between steps, and the parameters as they were when it was made.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from lstm_np import options
from lstm_np.arrays import Array, Namespace, State
from lstm_np.backends import Backend
from lstm_np.kernels.steps import Stepper, make_stepper
from lstm_np.layers import dense
from lstm_np.layers.single import Single


class Layers(Protocol):
    """What a stream needs of a stack of recurrent layers."""

    backend: Backend
    dtype: str
    input_size: int
    singles: tuple[Single, ...]

    def enter(self, array: Array, name: str) -> Array:
        """As `lstm_np.layers.Recurrent.enter`."""
        ...

    def enter_state(self, state: Any, B: int, *, unbatched: bool = False) -> list[tuple[Any, ...]]:
        """As `lstm_np.layers.Recurrent.enter_state`."""
        ...

    def leave_state(self, state: list[tuple[Array, ...]], unbatched: bool = False) -> Any:
        """As `lstm_np.layers.Recurrent.leave_state`."""
        ...


def refuse_reverse(layers: Layers, what: str) -> None:
    """Raises ValueError where a layer reads from the end of the sequence, which `what` does not have."""
    if any(single.reverse for single in layers.singles):
        raise ValueError(
            f"{what} needs layers that read forwards: a reverse direction begins at a sequence's last step, which is "
            "not there yet; collect the steps and pass the whole sequence"
        )


class Stream:
    """One sequence, or a batch of them, of which a time step comes at a time; `layer.stream()` makes it.

    layers      a stack of recurrent layers that read forwards
    batch_size  how many sequences advance together, x_t (B, D); None: one, x_t (D,)
    state       where it begins, as `save` gives it; None: the initial state

    It computes with the parameters as they were when it was made: `refresh` reads them again.  A step has the bits of
    the whole sequence where the reference kernel runs (`kernel="reference"`, and cells without a fast kernel).  The
    fast CPU kernel sums in another order in a step than over a sequence: there the two are equal to rounding.  A stream
    belongs to one thread.

    >>> lstm = lstm_np.LSTM(3, 5)
    >>> stream = lstm.stream()
    >>> y = [stream.step(x_t) for x_t in np.ones((4, 3))]
    >>> np.allclose(y, lstm(np.ones((1, 4, 3)))[0][0], atol=1e-6)
    True

    Raises ValueError for a reverse direction, OptionError for a batch_size below 1.
    """

    def __init__(self, layers: Layers, batch_size: int | None = None, state: Any = None) -> None:
        refuse_reverse(layers, "a stream")
        B = 1 if batch_size is None else options.check_count("batch_size", batch_size, 1)
        self.batch_size = batch_size if batch_size is None else B
        self._layers, self._B, self._batch = layers, B, () if batch_size is None else (B,)
        self._shape = (*self._batch, layers.input_size)
        self._output_shape = (*self._batch, layers.singles[-1].spec.hidden_size)
        self._make([tuple(single.initial_state(B)) for single in layers.singles])
        self.restore(state)

    def _make(self, state: Sequence[State]) -> None:
        """The steppers of the present parameters, at this state."""
        self._steppers = [
            make_stepper(single.kernel, single.kernel_params(), self._batch, first=k == 0)
            for k, single in enumerate(self._layers.singles)
        ]
        self._put(state)
        self._initial = [single.initial_state(1) for single in self._layers.singles]
        self._advance = _advance(self._steppers)
        self._step = self._make_step()

    def _put(self, state: Sequence[State]) -> None:
        for stepper, parts in zip(self._steppers, state, strict=True):
            stepper.put(parts)

    def _make_step(self) -> Callable[[Array, Array | None], Array]:
        """`step`, with all that it needs at hand: its lines cost as much as the calls of a small layer."""
        xp, dtype, shape, output_shape = self._layers.backend.xp, None, self._shape, self._output_shape
        ndarray, empty, enter, check_out = xp.ndarray, xp.empty, self._enter, self._check_out
        x, advance, read = self._steppers[0].x, self._advance, self._steppers[-1].read
        dtype = x.dtype

        def step(x_t: Array, out: Array | None = None) -> Array:
            if type(x_t) is not ndarray or x_t.dtype is not dtype or x_t.shape != shape:
                x_t = enter(x_t)
            if out is None:
                out = empty(output_shape, dtype)
            elif type(out) is not ndarray or out.dtype is not dtype or out.shape != output_shape:
                check_out(out)
            x[...] = x_t
            advance()
            read(out)
            return out

        return step

    def step(self, x_t: Array, out: Array | None = None) -> Array:
        """y_t: the output of the top layer after one more step, (H,) from x_t (D,), or (B, H) from (B, D).

        x_t  the next time step, of any numbers, converted to the layer's dtype
        out  an array of y_t's shape and dtype to write it to: a step of the fast CPU kernel then allocates nothing;
             None: y_t is a new array

        >>> stream, y_t = lstm_np.LSTM(3, 5).stream(batch_size=2), np.empty((2, 5), "float32")
        >>> stream.step(np.ones((2, 3)), out=y_t) is y_t
        True

        Raises ValueError when a shape does not fit, or for what are no numbers; the state is then as it was.
        """
        return self._step(x_t, out)

    def _enter(self, x_t: Array) -> Array:
        """x_t as an array of the backend in the layer's dtype."""
        x_t = self._layers.enter(x_t, "x_t")
        if tuple(x_t.shape) != self._shape:
            raise ValueError(f"x_t must have shape {self._shape}, found {tuple(x_t.shape)}")
        return x_t

    def _check_out(self, out: Any) -> None:
        dtype, shape = self._steppers[0].x.dtype, self._output_shape
        found, found_shape = getattr(out, "dtype", type(out).__name__), tuple(getattr(out, "shape", ()))
        if (found, found_shape) != (dtype, shape):
            raise ValueError(f"out must be an array of {dtype} {shape}, found {found} {found_shape}")

    # ---- the state

    def save(self, samples: Sequence[int] | int | None = None) -> Any:
        """The state, in the form of `Recurrent.forward`, as arrays of the caller's: `restore` goes on from there.

        samples  which sequences of a batch, integers; None: all

        Parts are (L, B, H), or of a stream of one sequence (L, H); of an LSTM (h, c), of cells without a cell state h.

        >>> stream = lstm_np.LSTM(3, 5).stream()
        >>> before = stream.save()
        >>> one = stream.step(np.ones(3))
        >>> stream.restore(before)
        >>> (stream.step(np.ones(3)) == one).all()
        np.True_

        Raises ValueError for samples that it does not have.
        """
        chosen = self._chosen(samples)
        parts = [tuple(part[:, chosen] for part in stepper.state()) for stepper in self._steppers]
        return self._layers.leave_state(parts, self.batch_size is None)

    def restore(self, state: Any, samples: Sequence[int] | int | None = None) -> None:
        """Go on from a state that `save` gave, or `forward`; None: the initial state.

        samples  which sequences of a batch, integers, the state's in their order; None: all.  The others are as before

        >>> lstm = lstm_np.LSTM(3, 5)
        >>> y, state = lstm(np.ones((2, 7, 3)))
        >>> stream = lstm.stream(batch_size=2)
        >>> stream.restore(state)  # goes on behind the seven steps

        Raises ValueError when a shape does not fit, or for samples that it does not have; the state is then as it was.
        """
        chosen = self._chosen(samples)
        alone = self.batch_size is None
        entered = self._initial
        if state is not None:
            entered = self._layers.enter_state(state, len(chosen), unbatched=alone)
        parts = [tuple(part.copy() for part in stepper.state()) for stepper in self._steppers]
        for one, other in zip(parts, entered, strict=True):
            for part, values in zip(one, other, strict=True):
                part[:, chosen] = values
        self._put(parts)

    def reset(self, samples: Sequence[int] | int | None = None) -> None:
        """Back to the initial state: the next step is the first of a sequence.

        samples  which sequences of a batch, integers: those that have ended, say; None: all

        >>> stream = lstm_np.GRU(3, 5).stream(batch_size=4)
        >>> y = stream.step(np.ones((4, 3)))
        >>> stream.reset([1, 3])
        >>> np.abs(stream.save()).sum(axis=(0, 2)) > 0
        array([ True, False,  True, False])

        Raises ValueError for samples that it does not have.
        """
        self.restore(None, samples)

    def refresh(self) -> None:
        """Read the layer's parameters again, as they are now; the state stays.

        >>> lstm = lstm_np.LSTM(3, 5)
        >>> stream = lstm.stream()
        >>> lstm.params["layer0.W"] = 0.5  # or a step of training
        >>> stream.refresh()
        """
        self._make([stepper.state() for stepper in self._steppers])

    def _chosen(self, samples: Sequence[int] | int | None) -> list[int]:
        """Indices of samples, each once and not below 0."""
        if samples is None:
            return list(range(self._B))
        if self.batch_size is None:
            raise ValueError("samples are those of a batch, and this stream has one sequence")
        found: list[Any] = list(samples) if hasattr(samples, "__iter__") else [samples]
        chosen = [options.check_count("a sample", sample, 0) for sample in found]
        if any(sample >= self._B for sample in chosen) or len(set(chosen)) < len(chosen):
            raise ValueError(f"samples must be different numbers from 0 to {self._B - 1}, found {found}")
        return chosen

    def __repr__(self) -> str:
        kernels = ", ".join(dict.fromkeys(single.kernel.name for single in self._layers.singles))
        sequences = "one sequence" if self.batch_size is None else f"{self._B} sequences"
        return f"<{type(self).__name__} of {sequences} through {self._layers!r}, kernel {kernels}>"


class OutputStream(Stream):
    """A `Stream` through a model, whose outputs are those of its read-out after each step; `model.stream()` makes it.

    >>> model = lstm_np.SequenceRegressor(3, 5)
    >>> stream = model.stream()
    >>> y = [stream.step(x_t) for x_t in np.ones((4, 3))]
    >>> np.allclose(y[-1], model.predict(np.ones((1, 4, 3)))[0], atol=1e-6)
    True

    What is read after a step is what the model would read if the sequence ended there.
    """

    def __init__(
        self,
        layers: Layers,
        batch_size: int | None,
        state: Any,
        *,
        readout: Mapping[str, Array],
        projection: Mapping[str, Array] | None,
    ) -> None:
        """`readout` and `projection`: the parameters of the dense layers after and before the recurrent ones."""
        self._readout, self._projection = readout, projection
        super().__init__(layers, batch_size, state)
        if projection is not None:
            self._shape = (*self._batch, projection["W"].shape[1])

    def _make(self, state: Sequence[State]) -> None:
        super()._make(state)
        backend, (K, H) = self._layers.backend, self._readout["W"].shape
        self._h = backend.xp.zeros((H, self._B), dtype=self._layers.dtype)
        self._dense_out = {name: array.copy() for name, array in self._readout.items()}
        if self._projection is not None:
            self._dense_in = {name: array.copy() for name, array in self._projection.items()}
        self._output_shape = (*self._batch, K)

    def _make_step(self) -> Callable[[Array, Array | None], Array]:
        return self._outputs_after

    def _outputs_after(self, x_t: Array, out: Array | None = None) -> Array:
        x_t, backend, B = self._enter(x_t), self._layers.backend, self._B
        if not bool(backend.to_host(backend.xp.isfinite(x_t).all())):
            raise ValueError("x_t has values that are not finite (NaN or infinity); the state is as before this step")
        if out is not None:
            self._check_out(out)
        if self._projection is not None:
            with backend.one_blas_thread(x_t.size * self._layers.input_size):
                x_t = dense.forward(self._dense_in, x_t.reshape(B, -1).T).T
        stepper = self._steppers[0]
        stepper.x[...] = x_t.reshape(stepper.x.shape)
        self._advance()
        self._steppers[-1].read(self._h.T if self._batch else self._h[:, 0])
        with backend.one_blas_thread(self._h.size * math.prod(self._output_shape)):
            outputs = dense.forward(self._dense_out, self._h).T.reshape(self._output_shape)
        if out is None:
            return outputs
        out[...] = outputs
        return out

    def step(self, x_t: Array, out: Array | None = None) -> Array:
        """The outputs after one more step, (K,) from x_t (D,), or (B, K) from (B, D): of a classifier the logits.

        Arguments as for `Stream.step`; `out` has the shape and dtype of the outputs.
        Raises ValueError when a shape does not fit, and for x_t that is not finite; the state is then as it was.
        """
        return self._step(x_t, out)


class ClassifierStream(OutputStream):
    """An `OutputStream` through a classifier, whose outputs are the logits after each step; `model.stream()` makes it.

    >>> model = lstm_np.SequenceClassifier(3, 5, 2)
    >>> stream = model.stream()
    >>> logits = [stream.step(x_t) for x_t in np.ones((4, 3))]
    >>> np.allclose(logits[-1], model.logits(np.ones((1, 4, 3)))[0], atol=1e-6)
    True
    """

    def __init__(
        self,
        layers: Layers,
        batch_size: int | None,
        state: Any,
        *,
        probabilities: Callable[[Namespace, Array], Array],
        **settings: Any,
    ) -> None:
        """`probabilities`: those of logits (K, B); `settings` as for `OutputStream`."""
        self._probabilities = probabilities
        super().__init__(layers, batch_size, state, **settings)

    def predict_proba(self, x_t: Array) -> Array:
        """The probability of each class after one more step, (K,) or (B, K), an array of the backend.

        >>> model = lstm_np.SequenceClassifier(3, 5, 2)
        >>> np.allclose(model.stream().predict_proba(np.ones(3)).sum(), 1)
        True

        Raises ValueError as `step`.
        """
        logits = self.step(x_t).reshape(self._B, -1)
        return self._probabilities(self._layers.backend.xp, logits.T).T.reshape(self._output_shape)


def _advance(steppers: Sequence[Stepper]) -> Callable[[], None]:
    """A step of all layers, each of which reads the output of the one below."""
    if len(steppers) == 1:
        return steppers[0].advance
    first, pairs = steppers[0].advance, itertools.pairwise(steppers)
    calls = [(lower.read, upper.x, upper.advance) for lower, upper in pairs]

    def advance() -> None:
        first()
        for read, x, one in calls:
            read(x)
            one()

    return advance
