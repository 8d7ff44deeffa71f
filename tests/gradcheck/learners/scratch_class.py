"""As a class that is made from its parameters and leaves their gradients in grads; a step, f g i o, and a layer."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class LSTM:
    def __init__(self, Wx, Wh, b):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(p) for p in self.params]

    def forward(self, x, h_prev, c_prev):
        Wx, Wh, b = self.params
        f, g, i, o = np.hsplit(x @ Wx + h_prev @ Wh + b, 4)
        f, g, i, o = sigmoid(f), np.tanh(g), sigmoid(i), sigmoid(o)
        c_next = f * c_prev + g * i
        h_next = o * np.tanh(c_next)
        self.cache = (x, h_prev, c_prev, f, g, i, o, c_next)
        return h_next, c_next

    def backward(self, dh_next, dc_next):
        Wx, Wh, b = self.params
        x, h_prev, c_prev, f, g, i, o, c_next = self.cache
        tanh_c = np.tanh(c_next)
        ds = dc_next + dh_next * o * (1 - tanh_c**2)
        df, dg, di, do = (
            ds * c_prev * f * (1 - f),
            ds * i * (1 - g**2),
            ds * g * i * (1 - i),
            dh_next * tanh_c * o * (1 - o),
        )
        da = np.hstack((df, dg, di, do))
        for grad, value in zip(self.grads, (x.T @ da, h_prev.T @ da, da.sum(axis=0)), strict=True):
            grad[...] = value
        return da @ Wx.T, da @ Wh.T, ds * f


class TimeLSTM:
    def __init__(self, Wx, Wh, b):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(p) for p in self.params]

    def forward(self, xs):
        N, T, D = xs.shape
        H = self.params[1].shape[0]
        hs, h, c, self.steps = [], np.zeros((N, H)), np.zeros((N, H)), []
        for t in range(T):
            step = LSTM(*self.params)
            h, c = step.forward(xs[:, t, :], h, c)
            self.steps.append(step)
            hs.append(h)
        return np.stack(hs, axis=1)

    def backward(self, dhs):
        dxs, dh, dc = np.empty((*dhs.shape[:2], len(self.params[0]))), 0, 0
        for t in reversed(range(dhs.shape[1])):
            dxs[:, t, :], dh, dc = self.steps[t].backward(dhs[:, t, :] + dh, dc)
            for total, grad in zip(self.grads, self.steps[t].grads, strict=True):
                total += grad
        return dxs
