"""As PyTorch names and arranges it: weight_ih (4H, D) used as x @ W.T, two biases, i f g o, the state as (h, c)."""

import numpy as np


def lstm_cell_forward(input, state, weight_ih, weight_hh, bias_ih, bias_hh):
    h, c = state
    gates = input @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh
    i, f, g, o = np.split(gates, 4, axis=1)
    i, f, g, o = 1 / (1 + np.exp(-i)), 1 / (1 + np.exp(-f)), np.tanh(g), 1 / (1 + np.exp(-o))
    c_next = f * c + i * g
    return (o * np.tanh(c_next), c_next), (input, h, c, weight_ih, weight_hh, i, f, g, o, c_next)


def lstm_cell_backward(dstate, cache):
    dh, dc = dstate
    input, h, c, weight_ih, weight_hh, i, f, g, o, c_next = cache
    dc = dc + dh * o * (1 - np.tanh(c_next) ** 2)
    da = np.hstack(
        (dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g**2), dh * np.tanh(c_next) * o * (1 - o))
    )
    return da @ weight_ih, (da @ weight_hh, dc * f), (da.T @ input, da.T @ h, da.sum(0), da.sum(0))
