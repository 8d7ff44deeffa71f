"""The plain recurrent cell with tanh: one time step, forward and backward.

A column is a sample: x_t is (D, B), h and a are (H, B).

Equations::

    (1)  a   = W x_t + U h_{t-1} + b       pre-activation (the kernel's matrix product)
    (2)  h_t = tanh(a)                     hidden state

Derivatives, read backwards, where dv is the gradient of the loss with respect to v::

    (2')  da       = dh_t * (1 - h_t^2)
    (1')  dh_{t-1} = U^T da,  dx_t = W^T da,  dW = sum_t da x_t^T,  dU = sum_t da h_{t-1}^T,  db = sum_t da

Source: Elman, "Finding structure in time", Cognitive Science 14(2), 1990.
"""

GATES = ("h",)
STATE = ("h",)


def forward(xp, a, state):
    """One step forward: a (H, B) gives (h_t,) of (H, B) and what backward needs; h_{t-1} has done its work in (1)."""
    h = xp.tanh(a)  # (2)
    return (h,), (h,)


def backward(xp, dstate, saved):
    """One step backward: (dh_t,) gives da (H, B); (h_{t-1},) is reached only through (1)."""
    (dh,) = dstate
    (h,) = saved
    return dh * (1 - h * h), (0,)  # undoes (2)
