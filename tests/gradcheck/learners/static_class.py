"""Functions in a class that is only a name for them, and one matrix: bias row last, (T, B, D), c_0 and h_0 optional."""

import numpy as np


class LSTM:
    @staticmethod
    def forward(X, WLSTM, c0=None, h0=None):
        T, B, D = X.shape
        H = WLSTM.shape[1] // 4
        c = np.zeros((B, H)) if c0 is None else c0
        h = np.zeros((B, H)) if h0 is None else h0
        Hout, steps = [], []
        for t in range(T):
            z = np.hstack((X[t], h, np.ones((B, 1))))
            i, f, o, g = np.split(z @ WLSTM, 4, axis=1)
            i, f, o, g = 1 / (1 + np.exp(-i)), 1 / (1 + np.exp(-f)), 1 / (1 + np.exp(-o)), np.tanh(g)
            before, c = c, f * c + i * g
            h = o * np.tanh(c)
            Hout.append(h)
            steps.append((z, i, f, o, g, before, c))
        Hout = np.stack(Hout)
        return Hout, c, h, (steps, WLSTM)

    @staticmethod
    def backward(dHout, cache, dcn=None, dhn=None):
        steps, WLSTM = cache
        T, B, H = dHout.shape
        D = len(WLSTM) - H - 1
        dX, dWLSTM = np.zeros((T, B, D)), np.zeros_like(WLSTM)
        dh = np.zeros((B, H)) if dhn is None else dhn
        dc = np.zeros((B, H)) if dcn is None else dcn
        for t in reversed(range(T)):
            z, i, f, o, g, before, c = steps[t]
            dh = dh + dHout[t]
            dc = dc + dh * o * (1 - np.tanh(c) ** 2)
            da = np.hstack(
                (dc * g * i * (1 - i), dc * before * f * (1 - f), dh * np.tanh(c) * o * (1 - o), dc * i * (1 - g**2))
            )
            dWLSTM += z.T @ da
            dz = da @ WLSTM.T
            dX[t], dh, dc = dz[:, :D], dz[:, D : D + H], dc * f
        return dX, dWLSTM, dc, dh
