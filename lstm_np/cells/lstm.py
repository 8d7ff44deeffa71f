"""The LSTM cell: one time step, forward and backward.

A column is a sample: x_t is (D, B), h and c are (H, B), a is (4H, B) with its rows in the order i, f, o, g.

Equations::

    (1)  a   = W x_t + U h_{t-1} + b                             pre-activations (the kernel's matrix product)
    (2)  i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)      input, forget and output gate
    (3)  g   = tanh(a_g)                                         candidate
    (4)  c_t = f * c_{t-1} + i * g                               cell state
    (5)  h_t = o * tanh(c_t)                                     hidden state

Derivatives, read backwards, where dv is the gradient of the loss with respect to v::

    (5')  do      = dh_t * tanh(c_t)           dc_t   += dh_t * o * (1 - tanh(c_t)^2)
    (4')  df      = dc_t * c_{t-1}             dc_{t-1} = dc_t * f
          di      = dc_t * g                   dg       = dc_t * i
    (3')  da_g    = dg * (1 - g^2)
    (2')  da_i    = di * i * (1 - i)           and the same for f and o
    (1')  dh_{t-1} = U^T da,  dx_t = W^T da,  dW = sum_t da x_t^T,  dU = sum_t da h_{t-1}^T,  db = sum_t da

Sources: Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; the forget gate: Gers,
Schmidhuber and Cummins, "Learning to forget", Neural Computation 12(10), 2000.
"""

GATES = ("i", "f", "o", "g")
STATE = ("h", "c")


def sigmoid(xp, a):
    """1 / (1 + exp(-a)), any shape, as (1 + tanh(a/2)) / 2: it cannot overflow, and it is analytic for complex a."""
    return (1 + xp.tanh(a / 2)) / 2


def forward(xp, a, state):
    """One step forward: a (4H, B) and (h_{t-1}, c_{t-1}), each (H, B), give (h_t, c_t) and what backward needs."""
    _, c_before = state  # h_{t-1} has done its work in (1)
    H = c_before.shape[0]
    i = sigmoid(xp, a[0 * H : 1 * H, :])  # (2)
    f = sigmoid(xp, a[1 * H : 2 * H, :])  # (2)
    o = sigmoid(xp, a[2 * H : 3 * H, :])  # (2)
    g = xp.tanh(a[3 * H : 4 * H, :])  # (3)
    c = f * c_before + i * g  # (4)
    tanh_c = xp.tanh(c)
    h = o * tanh_c  # (5)
    return (h, c), (i, f, o, g, c_before, tanh_c)


def backward(xp, dstate, saved):
    """One step backward: (dh_t, dc_t) give da (4H, B) and what reaches (h_{t-1}, c_{t-1}) other than through a."""
    dh, dc = dstate
    i, f, o, g, c_before, tanh_c = saved
    do = dh * tanh_c  # undoes (5)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)  # undoes (5)
    di, df, dg = dc * g, dc * c_before, dc * i  # undoes (4)
    da_g = dg * (1 - g * g)  # undoes (3)
    da_i, da_f, da_o = di * i * (1 - i), df * f * (1 - f), do * o * (1 - o)  # undoes (2)
    return xp.concat((da_i, da_f, da_o, da_g), axis=0), (0, dc * f)  # h_{t-1}: only through (1)
