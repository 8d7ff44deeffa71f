"""A GRU, reset before the product, a matrix each: columns, z takes the new; backward is handed what it reads."""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def gru_step_forward(x, h_prev, Wz, Uz, bz, Wr, Ur, br, Wh, Uh, bh):
    z = sigmoid(Wz @ x + Uz @ h_prev + bz)
    r = sigmoid(Wr @ x + Ur @ h_prev + br)
    h_hat = np.tanh(Wh @ x + Uh @ (r * h_prev) + bh)
    h = (1 - z) * h_prev + z * h_hat
    return h, z, r, h_hat


def gru_step_backward(dh, x, h_prev, z, r, h_hat, Wz, Uz, Wr, Ur, Wh, Uh):
    da_h = dh * z * (1 - h_hat**2)
    ds = Uh.T @ da_h
    da_r = ds * h_prev * r * (1 - r)
    da_z = dh * (h_hat - h_prev) * z * (1 - z)
    dx = Wz.T @ da_z + Wr.T @ da_r + Wh.T @ da_h
    dh_prev = dh * (1 - z) + ds * r + Uz.T @ da_z + Ur.T @ da_r
    dWz, dUz, dbz = da_z @ x.T, da_z @ h_prev.T, da_z.sum(1, keepdims=True)
    dWr, dUr, dbr = da_r @ x.T, da_r @ h_prev.T, da_r.sum(1, keepdims=True)
    dWh, dUh, dbh = da_h @ x.T, da_h @ (r * h_prev).T, da_h.sum(1, keepdims=True)
    return dx, dh_prev, dWz, dUz, dbz, dWr, dUr, dbr, dWh, dUh, dbh
