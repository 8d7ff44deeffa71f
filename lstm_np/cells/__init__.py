"""The gate math: one time step of each cell, forward and backward, as in the textbook.

A cell is a module with two pure, elementwise functions over a given array namespace ``xp``::

    forward(xp, a, state)        -> state, saved         a: pre-activations (len(GATES)*H, B); state: tuple of (H, B)
    backward(xp, dstate, saved)  -> da, dstate_before    what arrives at the step's state -> what leaves it

and two names: ``GATES``, the row blocks of ``a`` in order, and ``STATE``, the parts of the state (``h`` first).  The
matrix products and the loop over time belong to ``lstm_np.kernels``.

A cell whose last gate does not simply read h_{t-1} (the candidate of a GRU) names that gate ``INNER``.  Its rows of
``a`` come without the recurrent part; the cell chooses what they read, q (H, B), and asks for the product with one more
argument, a function that the kernel gives it::

    forward(xp, a, state, inner)            inner(q) = U_n q, plus the bias "b_n" (H,) where INNER_BIAS
    backward(xp, dstate, saved, undo_inner) undo_inner(dm) = U_n^T dm = dq, where dm is the gradient of inner(q)
"""

from types import ModuleType

from lstm_np.cells import gru, gru_reset_before, lstm, rnn, rnn_relu

CELLS: dict[str, ModuleType] = {
    "lstm": lstm,
    "gru": gru,
    "gru_reset_before": gru_reset_before,
    "rnn": rnn,
    "rnn_relu": rnn_relu,
}
