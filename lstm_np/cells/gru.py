"""The GRU cell, reset after the product (cuDNN, PyTorch, Keras): one time step, forward and backward.

A column is a sample: x_t is (D, B), h is (H, B), a is (3H, B) with its rows in the order r, z, n.  The candidate reads
the old state through a product of its own, m, which the kernel makes when the cell asks for it: U_n is (H, H).

Equations::

    (1)  a_r, a_z = W x_t + U h_{t-1} + b,   a_n = W_n x_t + b_n   pre-activations (the kernel's matrix product)
    (2)  r, z = sigmoid(a_r), sigmoid(a_z)                         reset and update gate
    (3)  m   = U_n h_{t-1} + c_n                                   the inner product; c_n is the parameter "b_n"
    (4)  n   = tanh(a_n + r * m)                                   candidate
    (5)  h_t = (1 - z) * n + z * h_{t-1}                           hidden state

Derivatives, read backwards, where dv is the gradient of the loss with respect to v::

    (5')  dz      = dh_t * (h_{t-1} - n)       dn = dh_t * (1 - z)       dh_{t-1} = dh_t * z
    (4')  da_n    = dn * (1 - n^2)             dr = da_n * m             dm = da_n * r
    (3')  dh_{t-1} += U_n^T dm,   dU_n = sum_t dm h_{t-1}^T,   dc_n = sum_t dm
    (2')  da_r    = dr * r * (1 - r)           and the same for z
    (1')  dh_{t-1} += [U_r U_z]^T [da_r da_z],   dx_t = W^T da,   dW = sum_t da x_t^T,   db = sum_t da

Since r multiplies the product and not the state, c_n is not the same as b_n: both are trained.

Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", arXiv:1406.1078, in the arrangement of
its first version, where z keeps the old state.
"""

from lstm_np.cells.lstm import sigmoid

GATES = ("r", "z", "n")
STATE = ("h",)
INNER = "n"
INNER_BIAS = True


def forward(xp, a, state, inner):
    """One step forward: a (3H, B), (h_{t-1},) of (H, B) and inner(h_{t-1}) give (h_t,) and what backward needs."""
    (h_before,) = state
    H = h_before.shape[0]
    r = sigmoid(xp, a[0 * H : 1 * H, :])  # (2)
    z = sigmoid(xp, a[1 * H : 2 * H, :])  # (2)
    m = inner(h_before)  # (3)
    n = xp.tanh(a[2 * H : 3 * H, :] + r * m)  # (4)
    h = (1 - z) * n + z * h_before  # (5)
    return (h,), (r, z, n, m, h_before)


def backward(xp, dstate, saved, undo_inner):
    """One step backward: (dh_t,) gives da (3H, B) and what reaches (h_{t-1},) other than through a."""
    (dh,) = dstate
    r, z, n, m, h_before = saved
    dz, dn, dh_before = dh * (h_before - n), dh * (1 - z), dh * z  # undoes (5)
    da_n = dn * (1 - n * n)  # undoes (4)
    dr, dm = da_n * m, da_n * r  # undoes (4)
    dh_before = dh_before + undo_inner(dm)  # undoes (3)
    da_r, da_z = dr * r * (1 - r), dz * z * (1 - z)  # undoes (2)
    return xp.concat((da_r, da_z, da_n), axis=0), (dh_before,)
