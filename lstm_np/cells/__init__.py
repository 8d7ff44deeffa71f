"""The gate math: one time step of each cell, forward and backward, as in the textbook.

A cell is a module with two pure, elementwise functions over a given array namespace ``xp``::

    forward(xp, a, state)        -> state, saved         a: pre-activations (len(GATES)*H, B); state: tuple of (H, B)
    backward(xp, dstate, saved)  -> da, dstate_before    what arrives at the step's state -> what leaves it

and two names: ``GATES``, the row blocks of ``a`` in order, and ``STATE``, the parts of the state (``h`` first).  The
matrix products and the loop over time belong to ``lstm_np.kernels``.
"""

from types import ModuleType

from lstm_np.cells import lstm

CELLS: dict[str, ModuleType] = {"lstm": lstm}
