"""An LSTM layer on a CPU, one time step at a time: as few calls of NumPy as the equations of `lstm_np.cells.lstm` need.

A step of a small layer costs what its calls cost, some 0.3 to 0.5 microseconds each, so there are seven of them, on
buffers that are made once; none allocates.

    product    z = [x_t; 1; 2 h_{t-1}] and one matrix, [W b U/2] with the rows of i, f and o halved: a_i/2, a_f/2, a_o/2
               and a_g
    tanh       over all 4H: sigmoid(a) = (1 + tanh(a/2)) / 2, so that is 2i - 1, 2f - 1, 2o - 1 and g       (3)
    add        1 to the first three: 2i, 2f, 2o                                                             (2)
    multiply   [2i 2f] and [g c_{t-1}], which lie side by side                                              (4)
    product    c_t = [1/2 1/2] times these two rows                                                         (4)
    tanh       of c_t                                                                                       (5)
    multiply   by 2o: 2 h_t, in the place in z where the next step reads it                                 (5)

All factors are powers of two, so no number is rounded because of them.  The bits are not those of the whole sequence in
`lstm_np.kernels.cpu.fused`, which adds W x_t + b and U h_{t-1} as two sums; the difference is that of another order of
summation, and tests hold it to the bound that every kernel has against the reference kernel.
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


class LstmStepper:
    """A `lstm_np.kernels.steps.Stepper` of one LSTM layer in float32 or float64.

    One sequence is a vector, a batch has a column for each.  `threads` is for products that BLAS would share out.
    """

    __slots__ = ("_c", "_h", "_sizes", "advance", "read", "x")

    advance: Callable[[], None]
    read: Callable[[Array], object]

    def __init__(self, spec: LayerSpec, params: Params, batch: tuple[int, ...], threads: int) -> None:
        D, ones, H, dtype = spec.input_size, int(spec.bias), spec.hidden_size, spec.dtype
        B = math.prod(batch)
        columns = (B,) if B > 1 else ()
        weights = np.concatenate([params["W"], *([params["b"][:, None]] if ones else []), params["U"] * 0.5], axis=1)
        weights[: 3 * H] *= 0.5
        z, gates = aligned((D + ones + H, *columns), dtype), aligned((5, H, *columns), dtype)  # i, f, o, g, c
        z[...], gates[...] = 0, 0
        z[D : D + ones] = 1
        x, h = z[:D], z[D + ones :]
        self._sizes, self._h, self._c = (H, B), h, gates[4]
        if B > 1:
            self.x, out = x.T, h.T
        else:
            self.x, out = x.reshape(*batch, D), h.reshape(*batch, H)
        self.read = partial(np.multiply, out, np.array(0.5, dtype))
        shared = blas_threads(threads) if weights.size * B > SERIAL_PRODUCT else None
        self.advance = _advance(weights.astype(dtype), z, gates, h, shared)

    def state(self) -> State:
        """As `Stepper.state`."""
        return (0.5 * self._h).reshape(self._sizes), self._c.copy().reshape(self._sizes)

    def put(self, state: State) -> None:
        """As `Stepper.put`."""
        h, c = state
        self._h[...], self._c[...] = 2 * h.reshape(self._h.shape), c.reshape(self._c.shape)


def _advance(weights: Array, z: Array, gates: Array, h: Array, shared: blas_threads | None) -> Callable[[], None]:
    """The step, with all that it needs at hand: [W b U/2] (4H, K), z (K, B), the gates and c (5, H, B), h within z."""
    tanh, add, multiply = np.tanh, np.add, np.multiply
    one, half_times = np.ones(3 * h.size, h.dtype), np.full(2, 0.5, h.dtype).dot
    i_f_rows, tanh_c, h = gates[:2].reshape(2, -1), aligned((h.size,), h.dtype), h.reshape(-1)
    a, ifo, i_f, g_c, o, c = (
        part.reshape(-1) for part in (gates[:4], gates[:3], gates[:2], gates[3:], gates[2], gates[4])
    )
    if z.ndim == 1:
        times, factor, a_out = z.dot, aligned(weights.T.shape, weights.dtype), a
        factor[...] = weights.T
    else:
        times, factor, a_out = weights.dot, z, a.reshape(len(weights), -1)

    def advance() -> None:
        times(factor, a_out)  # (1)
        tanh(a, a)  # (3), and tanh(a/2) for (2)
        add(ifo, one, ifo)  # (2)
        multiply(i_f, g_c, i_f)
        half_times(i_f_rows, c)  # (4)
        tanh(c, tanh_c)
        multiply(o, tanh_c, h)  # (5)

    if shared is None:
        return advance
    limit = shared

    def advance_shared() -> None:
        with limit:
            advance()

    return advance_shared


STEPPERS = {"lstm": LstmStepper}  # by the name of the cell
