"""A GRU, reset after the product, stacked r z n with two biases, rows; a step and a sequence."""

import numpy as np


def gru_step_forward(x, prev_h, Wx, Wh, bx, bh):
    H = prev_h.shape[1]
    ax, ah = x @ Wx + bx, prev_h @ Wh + bh
    r = 1 / (1 + np.exp(-ax[:, :H] - ah[:, :H]))
    z = 1 / (1 + np.exp(-ax[:, H : 2 * H] - ah[:, H : 2 * H]))
    m = ah[:, 2 * H :]
    n = np.tanh(ax[:, 2 * H :] + r * m)
    next_h = (1 - z) * n + z * prev_h
    return next_h, (x, prev_h, Wx, Wh, r, z, n, m)


def gru_step_backward(dnext_h, cache):
    x, prev_h, Wx, Wh, r, z, n, m = cache
    da_n = dnext_h * (1 - z) * (1 - n**2)
    da_z = dnext_h * (prev_h - n) * z * (1 - z)
    da_r = da_n * m * r * (1 - r)
    dax = np.hstack((da_r, da_z, da_n))
    dah = np.hstack((da_r, da_z, da_n * r))
    dprev_h = dnext_h * z + dah @ Wh.T
    return dax @ Wx.T, dprev_h, x.T @ dax, prev_h.T @ dah, dax.sum(axis=0), dah.sum(axis=0)


def gru_forward(x, h0, Wx, Wh, bx, bh):
    h, cache = [h0], []
    for t in range(x.shape[1]):
        next_h, cache_t = gru_step_forward(x[:, t], h[-1], Wx, Wh, bx, bh)
        h.append(next_h)
        cache.append(cache_t)
    return np.stack(h[1:], axis=1), cache


def gru_backward(dh, cache):
    dx, totals, carried = [], None, 0
    for t in range(len(cache) - 1, -1, -1):
        dx_t, carried, *grads = gru_step_backward(dh[:, t] + carried, cache[t])
        dx.append(dx_t)
        totals = grads if totals is None else [total + grad for total, grad in zip(totals, grads)]
    return (np.stack(dx[::-1], axis=1), carried, *totals)
