"""A layer on a CPU, one time step at a time: as few calls of NumPy as the equations of its cell need.

A step of a small layer costs what its calls cost, some 0.15 to 0.3 microseconds each.  So there are few, on buffers
that are made once; none allocates.  z = [x_t; 1; h_{t-1}] is one vector, and what it is multiplied with one matrix,
[W b U] with rows and columns scaled by powers of two, by which no number is rounded::

    LSTM   product    of z with 2 h_{t-1} in the place of h_{t-1}: a_i/2, a_f/2, a_o/2 and a_g              (1)
           tanh       of all 4H: sigmoid(a) = (1 + tanh(a/2)) / 2, so that is 2i - 1, 2f - 1, 2o - 1 and g  (3)
           add        1 to the first three: 2i, 2f, 2o                                                      (2)
           multiply   [2i 2f] and [g c_{t-1}], which lie side by side                                       (4)
           product    c_t = [1/2 1/2] times these two rows                                                  (4)
           tanh       of c_t                                                                                (5)
           multiply   by 2o: 2 h_t, in the place in z where the next step reads it                          (5)

    GRU    product    a_r/2, a_z/2, a_n and m/2                                                             (1), (3)
           tanh, add  2r, 2z                                                                                (2)
           multiply   2r and m/2, add a_n, tanh: n                                                          (4)
           subtract   h_{t-1} - n, multiply by 2z                                                           (5)
           product    h_t = [1 1/2] times the rows n and 2z (h_{t-1} - n), in its place in z                (5)

    RNN    product, and tanh or the rectifier into the place of h_t in z

A GRU whose reset gate acts before the product makes 2s = 2r * h_{t-1} and m = U_n s by a second product.

The bits are not those of the whole sequence in `lstm_np.kernels.cpu.fused`, where the sums have another order; tests
hold the difference to the bound that every kernel has against the reference kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from lstm_np.arrays import Array, Params, State
from lstm_np.backends.blas_threads import SERIAL_PRODUCT, blas_threads
from lstm_np.backends.numpy_backend import aligned
from lstm_np.kernels.protocol import LayerSpec


class FusedStepper:
    """A `lstm_np.kernels.steps.Stepper` of one layer in float32 or float64: what all cells have.

    One sequence is a vector, a batch has a column for each.  `threads` is for products that BLAS would share out.
    """

    __slots__ = ("_biases", "_h", "_out", "_sizes", "_z", "advance", "read", "x")

    advance: Callable[[], None]
    read: Callable[[Array], object]

    def __init__(self, spec: LayerSpec, params: Params, batch: tuple[int, ...], threads: int) -> None:
        D, ones, H, B = spec.input_size, int(spec.bias), spec.hidden_size, math.prod(batch)
        z = self._z = self.buffer(D + ones + H, spec.dtype, B)
        z[D : D + ones] = 1
        x, h = z[:D], z[D + ones :]
        self._sizes, self._h, self._biases = (H, B), h, ones
        if B > 1:
            self.x, self._out = x.T, h.T
        else:
            self.x, self._out = x.reshape(*batch, D), h.reshape(*batch, H)
        self.read = partial(np.positive, self._out)
        multiply_adds = [0]
        step = self.make(params, multiply_adds)
        self.advance = step if multiply_adds[0] <= SERIAL_PRODUCT else _limited(step, blas_threads(threads))

    def buffer(self, rows: int, dtype: str, B: int | None = None) -> Array:
        """(rows,) or, of a batch of B, (rows, B): zeros."""
        B = self._sizes[1] if B is None else B
        made = aligned((rows, B) if B > 1 else (rows,), dtype)
        made[...] = 0
        return made

    def gates(self, count: int) -> Array:
        """(count, H * B), zeros: gates or other values of a step, one after the other."""
        H, B = self._sizes
        return self.buffer(count * H, self._z.dtype.name).reshape(count, H * B)

    def product(self, weights: Array, factor: Array, out: Array, multiply_adds: list[int]) -> Callable[[], object]:
        """A call that computes weights (R, K) times factor (K,) or (K, B) into out, some rows of `gates`.

        A vector is multiplied from the left, by the transposed weights, which BLAS reads faster.
        """
        weights = np.asarray(weights, factor.dtype)
        multiply_adds[0] = max(multiply_adds[0], weights.size * self._sizes[1])
        if factor.ndim > 1:
            return partial(np.ascontiguousarray(weights).dot, factor, out.reshape(len(weights), -1))
        turned = aligned(weights.T.shape, factor.dtype)
        turned[...] = weights.T
        return partial(factor.dot, turned, out.reshape(-1))

    def rows(self, params: Params, gates: slice, bias: str = "b", *, inputs: float = 1, state: float = 1) -> Array:
        """Some gates' rows of [W b U], W and b scaled by `inputs` and U by `state`."""
        H = self._sizes[0]
        part = slice(gates.start * H, gates.stop * H)
        biases = [inputs * params[bias][part, None]] if self._biases else []
        return np.concatenate([inputs * params["W"][part], *biases, state * params["U"][part]], axis=1)

    def make(self, params: Params, multiply_adds: list[int]) -> Callable[[], None]:
        """The step, with all that it needs at hand; `multiply_adds` is told of its largest product."""
        raise TypeError(f"{type(self).__name__} has no step")

    def state(self) -> State:
        """As `Stepper.state`."""
        return (self._h.copy().reshape(self._sizes),)

    def put(self, state: State) -> None:
        """As `Stepper.put`."""
        self._h[...] = state[0].reshape(self._h.shape)


class LstmStepper(FusedStepper):
    """The equations are numbered in `lstm_np.cells.lstm`; z holds 2 h."""

    __slots__ = ("_c",)

    def make(self, params: Params, multiply_adds: list[int]) -> Callable[[], None]:
        """As `FusedStepper.make`."""
        tanh, add, multiply = np.tanh, np.add, np.multiply
        weights = [self.rows(params, slice(0, 3), inputs=0.5, state=0.25), self.rows(params, slice(3, 4), state=0.5)]
        rows = self.gates(5)  # i, f, o, g, c
        product = self.product(np.concatenate(weights), self._z, rows[:4], multiply_adds)
        a, ifo, i_f, g_c = (part.reshape(-1) for part in (rows[:4], rows[:3], rows[:2], rows[3:]))
        o, c, h, tanh_c, i_f_rows = rows[2], rows[4], self._h.reshape(-1), self.gates(1)[0], rows[:2]
        one, halves = np.ones_like(ifo), np.full(2, 0.5, a.dtype).dot
        self._c = c.reshape(self._h.shape)
        self.read = partial(multiply, self._out, np.array(0.5, a.dtype))

        def step() -> None:
            product()  # (1)
            tanh(a, a)  # (3), and tanh(a/2) for (2)
            add(ifo, one, ifo)  # (2)
            multiply(i_f, g_c, i_f)
            halves(i_f_rows, c)  # (4)
            tanh(c, tanh_c)
            multiply(o, tanh_c, h)  # (5)

        return step

    def state(self) -> State:
        """As `Stepper.state`."""
        return (0.5 * self._h).reshape(self._sizes), self._c.copy().reshape(self._sizes)

    def put(self, state: State) -> None:
        """As `Stepper.put`."""
        h, c = state
        self._h[...], self._c[...] = 2 * h.reshape(self._h.shape), c.reshape(self._h.shape)


class GruStepper(FusedStepper):
    """The equations are numbered in `lstm_np.cells.gru`."""

    __slots__ = ()

    def make(self, params: Params, multiply_adds: list[int]) -> Callable[[], None]:
        """As `FusedStepper.make`."""
        tanh, add, multiply, subtract = np.tanh, np.add, np.multiply, np.subtract
        H, D = self._sizes[0], params["W"].shape[1]
        inner = self.rows({**params, "b": np.tile(params["b_n"], 3)} if self._biases else params, slice(2, 3))
        inner[:, :D] = 0
        candidate = self.rows(params, slice(2, 3))
        candidate[:, -H:] = 0
        weights = [self.rows(params, slice(0, 2)) * 0.5, candidate, inner * 0.5]
        a, pair = self.gates(4), self.gates(2)  # r, z, a_n, m/2 and n, 2z (h - n)
        product = self.product(np.concatenate(weights), self._z, a, multiply_adds)
        rz, (r, z, a_n, m), (n, d) = a[:2].reshape(-1), a, pair
        one, h, mixed = np.ones_like(rz), self._h.reshape(-1), np.array([1, 0.5], a.dtype).dot

        def step() -> None:
            product()  # (1), (3)
            tanh(rz, rz)
            add(rz, one, rz)  # (2)
            multiply(r, m, m)
            add(a_n, m, n)
            tanh(n, n)  # (4)
            subtract(h, n, d)
            multiply(z, d, d)
            mixed(pair, h)  # (5)

        return step


class GruResetBeforeStepper(FusedStepper):
    """The equations are numbered in `lstm_np.cells.gru_reset_before`."""

    __slots__ = ()

    def make(self, params: Params, multiply_adds: list[int]) -> Callable[[], None]:
        """As `FusedStepper.make`."""
        tanh, add, multiply, subtract = np.tanh, np.add, np.multiply, np.subtract
        H = self._sizes[0]
        candidate = self.rows(params, slice(2, 3))
        candidate[:, -H:] = 0
        weights = [self.rows(params, slice(0, 2)) * 0.5, candidate]
        a, pair, m = self.gates(3), self.gates(2), self.gates(1)  # r, z, a_n and n, 2z (h - n) and m
        product = self.product(np.concatenate(weights), self._z, a, multiply_adds)
        factor = self.buffer(H, a.dtype.name)  # 2s
        inner = self.product(0.5 * params["U"][2 * H :], factor, m, multiply_adds)
        rz, (r, z, a_n), (n, d), s, m = a[:2].reshape(-1), a, pair, factor.reshape(-1), m[0]
        one, h, mixed = np.ones_like(rz), self._h.reshape(-1), np.array([1, 0.5], a.dtype).dot

        def step() -> None:
            product()  # (1)
            tanh(rz, rz)
            add(rz, one, rz)  # (2)
            multiply(r, h, s)
            inner()  # (3)
            add(a_n, m, n)
            tanh(n, n)  # (4)
            subtract(h, n, d)
            multiply(z, d, d)
            mixed(pair, h)  # (5)

        return step


class RnnStepper(FusedStepper):
    """The equations are numbered in `lstm_np.cells.rnn`."""

    __slots__ = ()

    def make(self, params: Params, multiply_adds: list[int]) -> Callable[[], None]:
        """As `FusedStepper.make`."""
        tanh, a, h = np.tanh, self.gates(1), self._h.reshape(-1)
        product = self.product(self.rows(params, slice(0, 1)), self._z, a, multiply_adds)
        a = a[0]

        def step() -> None:
            product()  # (1)
            tanh(a, h)  # (2)

        return step


class RnnReluStepper(FusedStepper):
    """The equations are numbered in `lstm_np.cells.rnn_relu`."""

    __slots__ = ()

    def make(self, params: Params, multiply_adds: list[int]) -> Callable[[], None]:
        """As `FusedStepper.make`."""
        larger, a, h = np.fmax, self.gates(1), self._h.reshape(-1)  # of NaN and 0 it is 0, as `a > 0` has it
        product = self.product(self.rows(params, slice(0, 1)), self._z, a, multiply_adds)
        a, zero = a[0], np.zeros_like(h)

        def step() -> None:
            product()  # (1)
            larger(a, zero, h)  # (2)

        return step


def _limited(step: Callable[[], None], limit: blas_threads) -> Callable[[], None]:
    """The step with a limit of BLAS's threads."""

    def limited() -> None:
        with limit:
            step()

    return limited


# by the name of the cell
STEPPERS: dict[str, type[FusedStepper]] = {
    "lstm": LstmStepper,
    "gru": GruStepper,
    "gru_reset_before": GruResetBeforeStepper,
    "rnn": RnnStepper,
    "rnn_relu": RnnReluStepper,
}
