"""The LSTM cell: one time step, forward and backward.

A column is a sample: x_t is (D, B), h and c are (H, B), a is (4H, B) with its rows in the order i, f, o, g.  ``xp`` is
the library that computes with these arrays, NumPy on a CPU or CuPy on a GPU: its functions have the same names.

Equations::

    (1)  a   = W x_t + U h_{t-1} + b                             pre-activations (the kernel's matrix product)
    (2)  i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)      input, forget and output gate
    (3)  g   = tanh(a_g)                                         candidate
    (4)  c_t = f * c_{t-1} + i * g                               cell state
    (5)  h_t = o * tanh(c_t)                                     hidden state

Derivatives, read backwards, where dv is the gradient of the loss with respect to v::

    (5')  do      = dh_t * tanh(c_t)           dtanh_c = dh_t * o           dc_t += dtanh_c * (1 - tanh(c_t)^2)
    (4')  df      = dc_t * c_{t-1}             dc_{t-1} = dc_t * f
          di      = dc_t * g                   dg       = dc_t * i
    (3')  da_g    = dg * (1 - g^2)
    (2')  da_i    = di * i * (1 - i)           and the same for f and o
    (1')  dh_{t-1} = U^T da,  dx_t = W^T da,  dW = sum_t da x_t^T,  dU = sum_t da h_{t-1}^T,  db = sum_t da

``hold(name, value)`` is the value itself, unless an experiment holds it at another; then no gradient goes through it.

Sources: Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; the forget gate: Gers,
Schmidhuber and Cummins, "Learning to forget", Neural Computation 12(10), 2000.
"""

GATES = ("i", "f", "o", "g")
STATE = ("h", "c")
VALUES = ("i", "f", "o", "g", "c", "tanh_c", "h")


def sigmoid(xp, a):
    """1 / (1 + exp(-a)), any shape, as (1 + tanh(a/2)) / 2: it cannot overflow, and it is analytic for complex a."""
    return (1 + xp.tanh(a / 2)) / 2


def as_computed(name, value):
    """What `hold` is where nothing is held."""
    return value


def forward(xp, a, state, hold=as_computed):
    """One step forward: a (4H, B) and (h_{t-1}, c_{t-1}), each (H, B), give (h_t, c_t) and the VALUES by name."""
    _, c_before = state  # h_{t-1} has done its work in (1)
    H = c_before.shape[0]
    i = hold("i", sigmoid(xp, a[0 * H : 1 * H, :]))  # (2)
    f = hold("f", sigmoid(xp, a[1 * H : 2 * H, :]))  # (2)
    o = hold("o", sigmoid(xp, a[2 * H : 3 * H, :]))  # (2)
    g = hold("g", xp.tanh(a[3 * H : 4 * H, :]))  # (3)
    c = hold("c", f * c_before + i * g)  # (4)
    tanh_c = hold("tanh_c", xp.tanh(c))  # (5)
    h = hold("h", o * tanh_c)  # (5)
    return (h, c), {"i": i, "f": f, "o": o, "g": g, "c": c, "tanh_c": tanh_c, "h": h}


def backward(xp, dstate, state, values, hold=as_computed):
    """One step backward: (dh_t, dc_t), and forward's state and values, give da (4H, B), what reaches (h_{t-1}, c_{t-1})
    other than through a, and the gradients of the values by their names."""
    dh, dc = hold("h", dstate[0]), dstate[1]
    _, c_before = state
    i, f, o, g, tanh_c = (values[name] for name in ("i", "f", "o", "g", "tanh_c"))
    do, dtanh_c = hold("o", dh * tanh_c), hold("tanh_c", dh * o)  # undoes (5)
    dc = hold("c", dc + dtanh_c * (1 - tanh_c * tanh_c))  # undoes (5)
    di, df, dg = hold("i", dc * g), hold("f", dc * c_before), hold("g", dc * i)  # undoes (4)
    da_g = dg * (1 - g * g)  # undoes (3)
    da_i, da_f, da_o = di * i * (1 - i), df * f * (1 - f), do * o * (1 - o)  # undoes (2)
    da = xp.concat((da_i, da_f, da_o, da_g), axis=0)
    before = (0, dc * f)  # undoes (4); h_{t-1} is reached only through (1)
    return da, before, {"i": di, "f": df, "o": do, "g": dg, "c": dc, "tanh_c": dtanh_c, "h": dh}
