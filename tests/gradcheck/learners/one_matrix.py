"""One matrix for everything, its first row the bias: W (1 + D + H, 4H), time first; gates i f o g; (c, h) returned."""

import numpy as np


def forward(X, W, c0, h0):
    T, B, D = X.shape
    H = h0.shape[1]
    cache, h, c = [], h0, c0
    for t in range(T):
        z = np.concatenate((np.ones((B, 1)), X[t], h), axis=1)
        a = z @ W
        i, f, o = (1 / (1 + np.exp(-a[:, k * H : (k + 1) * H])) for k in range(3))
        g = np.tanh(a[:, 3 * H :])
        c_prev, c = c, f * c + i * g
        h = o * np.tanh(c)
        cache.append((z, i, f, o, g, c_prev, c, h))
    return np.array([step[6] for step in cache]), np.array([step[7] for step in cache]), (cache, W, D)


def backward(dhs, dc, cache):
    cache, W, D = cache
    dX, dW, carried = [], 0, 0
    for dh, (z, i, f, o, g, c_prev, c, h) in zip(reversed(list(dhs)), reversed(cache)):
        dh = dh + carried
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        da = np.hstack(
            (dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dh * np.tanh(c) * o * (1 - o), dc * i * (1 - g**2))
        )
        dz = da @ W.T
        dX.insert(0, dz[:, 1 : 1 + D])
        carried = dz[:, 1 + D :]
        dW = dW + z.T @ da
        dc = dc * f
    return np.array(dX), dW, dc, carried
