"""The GRU cell, reset before the product (TensorFlow 1): one time step, forward and backward.

A column is a sample: x_t is (D, B), h is (H, B), a is (3H, B) with its rows in the order r, z, n.  The candidate reads
what the reset gate leaves of the old state, through a product that can only be made once r is known: the kernel makes
it when the cell asks for it; U_n is (H, H).

Equations::

    (1)  a_r, a_z = W x_t + U h_{t-1} + b,   a_n = W_n x_t + b_n   pre-activations (the kernel's matrix product)
    (2)  r, z = sigmoid(a_r), sigmoid(a_z)                         reset and update gate
    (3)  s   = r * h_{t-1},   m = U_n s                            what is left of the state, and the inner product
    (4)  n   = tanh(a_n + m)                                       candidate
    (5)  h_t = (1 - z) * n + z * h_{t-1}                           hidden state

Derivatives, read backwards, where dv is the gradient of the loss with respect to v::

    (5')  dz      = dh_t * (h_{t-1} - n)       dn = dh_t * (1 - z)       dh_{t-1} = dh_t * z
    (4')  da_n    = dn * (1 - n^2)             dm = da_n
    (3')  ds      = U_n^T dm,   dU_n = sum_t dm s^T,   dr = ds * h_{t-1},   dh_{t-1} += ds * r
    (2')  da_r    = dr * r * (1 - r)           and the same for z
    (1')  dh_{t-1} += [U_r U_z]^T [da_r da_z],   dx_t = W^T da,   dW = sum_t da x_t^T,   db = sum_t da

TensorFlow 1 calls z "u"; Keras has this form with reset_after=False.  ``xp`` and ``hold`` are explained in
`lstm_np.cells.lstm`.

Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", arXiv:1406.1078v3, eq. 5 to 8.
"""

from lstm_np.cells.lstm import as_computed, sigmoid

GATES = ("r", "z", "n")
STATE = ("h",)
VALUES = ("r", "z", "s", "m", "n", "h")
PRODUCTS = {"m": ("n", None)}  # the kernel makes m with U_n, the rows of gate n, and adds no bias


def forward(xp, a, state, inner, hold=as_computed):
    """One step forward: a (3H, B), (h_{t-1},) of (H, B) and inner(q) = U_n q give (h_t,) and the VALUES by name."""
    (h_before,) = state
    H = h_before.shape[0]
    r = hold("r", sigmoid(xp, a[0 * H : 1 * H, :]))  # (2)
    z = hold("z", sigmoid(xp, a[1 * H : 2 * H, :]))  # (2)
    s = hold("s", r * h_before)  # (3)
    m = hold("m", inner(s))  # (3)
    n = hold("n", xp.tanh(a[2 * H : 3 * H, :] + m))  # (4)
    h = hold("h", (1 - z) * n + z * h_before)  # (5)
    return (h,), {"r": r, "z": z, "s": s, "m": m, "n": n, "h": h}


def backward(xp, dstate, state, values, undo_inner, hold=as_computed):
    """One step backward: (dh_t,), forward's state and values, and undo_inner(dm) = U_n^T dm give da (3H, B), what
    reaches (h_{t-1},) other than through a, and the gradients of the values by their names."""
    dh = hold("h", dstate[0])
    (h_before,) = state
    r, z, n = (values[name] for name in ("r", "z", "n"))
    dz, dn, dh_before = hold("z", dh * (h_before - n)), hold("n", dh * (1 - z)), dh * z  # undoes (5)
    da_n = dn * (1 - n * n)  # undoes (4)
    dm = hold("m", da_n)  # undoes (4)
    ds = hold("s", undo_inner(dm))  # undoes (3)
    dr, dh_before = hold("r", ds * h_before), dh_before + ds * r  # undoes (3)
    da_r, da_z = dr * r * (1 - r), dz * z * (1 - z)  # undoes (2)
    da = xp.concat((da_r, da_z, da_n), axis=0)
    return da, (dh_before,), {"r": dr, "z": dz, "s": ds, "m": dm, "n": dn, "h": dh}
