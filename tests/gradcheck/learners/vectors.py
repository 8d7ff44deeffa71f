"""One sample at a time: x (D,), W_xf (H, D), W_hf (H, H), b_f (H,) for each gate, in the order of the paper."""

import numpy as np


def sig(a):
    return 0.5 * (1 + np.tanh(0.5 * a))


def lstm_step_forward(x, h_prev, c_prev, W_xi, W_hi, b_i, W_xf, W_hf, b_f, W_xg, W_hg, b_g, W_xo, W_ho, b_o):
    i = sig(W_xi @ x + W_hi @ h_prev + b_i)
    f = sig(W_xf @ x + W_hf @ h_prev + b_f)
    g = np.tanh(W_xg @ x + W_hg @ h_prev + b_g)
    o = sig(W_xo @ x + W_ho @ h_prev + b_o)
    c = f * c_prev + i * g
    h = o * np.tanh(c)
    return h, c, (x, h_prev, c_prev, i, f, g, o, c, (W_xi, W_xf, W_xg, W_xo), (W_hi, W_hf, W_hg, W_ho))


def lstm_step_backward(dh, dc, cache):
    x, h_prev, c_prev, i, f, g, o, c, Wx, Wh = cache
    dc = dc + dh * o * (1 - np.tanh(c) ** 2)
    da = [dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g**2), dh * np.tanh(c) * o * (1 - o)]
    dx = sum(W.T @ d for W, d in zip(Wx, da))
    dh_prev = sum(W.T @ d for W, d in zip(Wh, da))
    grads = [part for d in da for part in (np.outer(d, x), np.outer(d, h_prev), d)]
    return (dx, dh_prev, dc * f, *grads)
