"""The plain recurrent cell with a rectifier: one time step, forward and backward.

A column is a sample: x_t is (D, B), h and a are (H, B).

Equations::

    (1)  a   = W x_t + U h_{t-1} + b       pre-activation (the kernel's matrix product)
    (2)  h_t = max(a, 0)                   hidden state; by the real part where a is complex

Derivatives, read backwards, where dv is the gradient of the loss with respect to v::

    (2')  da       = dh_t where a > 0, else 0
    (1')  dh_{t-1} = U^T da,  dx_t = W^T da,  dW = sum_t da x_t^T,  dU = sum_t da h_{t-1}^T,  db = sum_t da

``xp`` and ``hold`` are explained in `lstm_np.cells.lstm`.

Source: Le, Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear units",
arXiv:1504.00941.
"""

from lstm_np.cells.lstm import as_computed

GATES = ("h",)
STATE = ("h",)
VALUES = ("h",)


def forward(xp, a, state, hold=as_computed):
    """One step forward: a (H, B) gives (h_t,) of (H, B) and the VALUES by name; h_{t-1} has done its work in (1)."""
    h = hold("h", xp.where(xp.real(a) > 0, a, xp.zeros_like(a)))  # (2)
    return (h,), {"h": h}


def backward(xp, dstate, state, values, hold=as_computed):
    """One step backward: (dh_t,) and forward's values give da (H, B), what reaches (h_{t-1},) other than through a, and
    the gradients of the values by their names."""
    dh, h = hold("h", dstate[0]), values["h"]
    return xp.where(xp.real(h) > 0, dh, xp.zeros_like(h)), (0,), {"h": dh}  # undoes (2)
