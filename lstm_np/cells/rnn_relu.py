"""The plain recurrent cell with a rectifier: one time step, forward and backward.

A column is a sample: x_t is (D, B), h and a are (H, B).

Equations::

    (1)  a   = W x_t + U h_{t-1} + b       pre-activation (the kernel's matrix product)
    (2)  h_t = max(a, 0)                   hidden state; by the real part where a is complex

Derivatives, read backwards, where dv is the gradient of the loss with respect to v::

    (2')  da       = dh_t where a > 0, else 0
    (1')  dh_{t-1} = U^T da,  dx_t = W^T da,  dW = sum_t da x_t^T,  dU = sum_t da h_{t-1}^T,  db = sum_t da

Source: Le, Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear units",
arXiv:1504.00941.
"""

GATES = ("h",)
STATE = ("h",)


def forward(xp, a, state):
    """One step forward: a (H, B) gives (h_t,) of (H, B) and what backward needs; h_{t-1} has done its work in (1)."""
    h = xp.where(xp.real(a) > 0, a, xp.zeros_like(a))  # (2)
    return (h,), (h,)


def backward(xp, dstate, saved):
    """One step backward: (dh_t,) gives da (H, B); (h_{t-1},) is reached only through (1)."""
    (dh,) = dstate
    (h,) = saved
    return xp.where(xp.real(h) > 0, dh, xp.zeros_like(h)), (0,)  # undoes (2)
