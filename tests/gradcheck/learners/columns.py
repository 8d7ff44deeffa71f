"""A column is a sample: W (4H, D), U (4H, H), b (4H, 1), f i g o; the sequence is (T, D, B), with its own equations."""

import numpy as np


def sigma(a):
    return np.where(a.real > 0, 1 / (1 + np.exp(-a)), np.exp(a) / (1 + np.exp(a)))


def step_forward(x, h_prev, c_prev, W, U, b):
    f, i, g, o = np.split(W @ x + U @ h_prev + b, 4)
    f, i, g, o = sigma(f), sigma(i), np.tanh(g), sigma(o)
    c = f * c_prev + i * g
    tanh_c = np.tanh(c)
    h = o * tanh_c
    return h, c, dict(x=x, h_prev=h_prev, c_prev=c_prev, W=W, U=U, f=f, i=i, g=g, o=o, c=c, h=h, tanh_c=tanh_c)


def step_backward(dh, dc, cache):
    x, h_prev, c_prev, W, U = (cache[k] for k in ("x", "h_prev", "c_prev", "W", "U"))
    f, i, g, o, c, h, tanh_c = (cache[k] for k in ("f", "i", "g", "o", "c", "h", "tanh_c"))
    H = len(h)
    dc_total = dc + dh * o * (1 - tanh_c**2)
    df = dc_total * c_prev * f * (1 - f)
    di = dc_total * g * i * (1 - i)
    dg = dc_total * i * (1 - g * g)
    do = dh * tanh_c * o * (1 - o)
    da = np.vstack((df, di, dg, do))
    return {
        "dx": W.T @ da,
        "dh_prev": U.T @ da,
        "dc_prev": dc_total * f,
        "dW": da @ x.T,
        "dU": da @ h_prev.T,
        "db": da.sum(axis=1, keepdims=True),
    }


def sequence_forward(x, h0, c0, W, U, b):
    hs, cs, steps = [h0], [c0], []
    for t in range(len(x)):
        h, c, cache = step_forward(x[t], hs[-1], cs[-1], W, U, b)
        hs.append(h)
        cs.append(c)
        steps.append(cache)
    return np.array(hs[1:]), np.array(cs[1:]), steps


def sequence_backward(dh, dc, steps):
    T = len(steps)
    dx = [None] * T
    dW, dU, db = np.zeros_like(steps[0]["W"]), np.zeros_like(steps[0]["U"]), 0
    carried_h = np.zeros_like(dc)
    carried_c = dc
    for t in range(T - 1, -1, -1):
        back = step_backward(dh[t] + carried_h, carried_c, steps[t])
        dx[t] = back["dx"]
        carried_h = back["dh_prev"]
        carried_c = back["dc_prev"]
        dW += back["dW"]
        dU += back["dU"]
        db = db + back["db"]
    return np.array(dx), carried_h, carried_c, dW, dU, db
