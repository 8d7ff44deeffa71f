"""The cells that the fused CPU kernel computes: what its buffers, layouts and loops have to know of each.

The passes over memory are in a file for each cell, by its name; all else is the same for all.

A cell has G row blocks of W and U, one a gate.  The product that makes its pre-activations reads [x_t; 1; h_{t-1}] for
all of them at once, but for a last gate with a product of its own (a GRU's n)::

    a_n = W_n x_t + b_n        of some steps at once, since it waits for nothing
    m   = U_n h_{t-1} + c_n    inner "h": reads [1; h_{t-1}], where the 1 is a second one
    m   = U_n s                inner "s": reads s = r * h_{t-1}, which the step itself makes
"""

from __future__ import annotations

from typing import NamedTuple

from lstm_np.cells import Parameter, Product
from lstm_np.kernels.protocol import LSTM, Computes

GRU = Computes("gru", ("r", "z", "n"), ("h",), (Parameter("b_n", 1, True),), (Product("m", "n", "b_n"),))
GRU_RESET_BEFORE = Computes("gru_reset_before", ("r", "z", "n"), ("h",), (), (Product("m", "n", None),))
RNN, RNN_RELU = Computes("rnn", ("h",), ("h",)), Computes("rnn_relu", ("h",), ("h",))


class Description(NamedTuple):
    """A cell, seen from what is around its passes.

    computes   its name, gates and so on
    sigmoids   how many of its gates, from the first on, are sigmoids: their rows of the weights are halved
    inner      what the last gate multiplies in a product of its own: "h", "s", or "" where it has none
    kept       values per unit, step and sample that forward keeps for backward, beside h_t
    at_once    values per unit, step and sample of the steps that forward takes together, those that are kept left out
    carried    values per unit and sample that backward has beside da
    inferring  values per unit and sample that inference has of a step, but for a_n
    """

    computes: Computes
    sigmoids: int
    inner: str
    kept: int
    at_once: int
    carried: int
    inferring: int

    @property
    def gates(self) -> int:
        """G, the row blocks of W, U and b."""
        return len(self.computes.gates)

    @property
    def joint(self) -> int:
        """How many gates, from the first on, one product of [x_t; 1; h_{t-1}] makes."""
        return self.gates - bool(self.inner)

    @property
    def blocks(self) -> int:
        """Those of da in a step: one a gate and, where it is not that of m as well, a_n's as the last."""
        return self.gates + (self.inner == "h")

    @property
    def reading(self) -> int:
        """How many blocks of da, from the first on, U^T takes to dh_{t-1}; that of "s" goes through ds."""
        return self.joint if self.inner == "s" else self.gates

    @property
    def state(self) -> tuple[str, ...]:
        """The names of the state's parts."""
        return self.computes.state

    @property
    def ones(self) -> int:
        """How many 1 there are between x_t and h_{t-1} where there are biases: one for each vector of them."""
        return 1 + sum(product.bias is not None for product in self.computes.products)


DESCRIPTIONS = {
    of.computes.name: of
    for of in (
        Description(LSTM, sigmoids=3, inner="", kept=6, at_once=9, carried=3, inferring=6),
        Description(GRU, sigmoids=2, inner="h", kept=5, at_once=6, carried=2, inferring=4),
        Description(GRU_RESET_BEFORE, sigmoids=2, inner="s", kept=5, at_once=6, carried=4, inferring=4),
        Description(RNN, sigmoids=0, inner="", kept=0, at_once=0, carried=2, inferring=1),
        Description(RNN_RELU, sigmoids=0, inner="", kept=0, at_once=0, carried=2, inferring=1),
    )
}
