"""Cells as users write them, for the tests: each is the text of a file."""

CIFG = '''"""Coupled input and forget gate: what is not kept is written anew.  No hold."""

from lstm_np.cells.lstm import sigmoid

GATES = ("f", "o", "g")
STATE = ("h", "c")
VALUES = ("f", "o", "g", "c", "h")


def forward(xp, a, state):
    c_before = state[1]
    H = c_before.shape[0]
    f, o, g = sigmoid(xp, a[:H]), sigmoid(xp, a[H : 2 * H]), xp.tanh(a[2 * H :])
    c = f * c_before + (1 - f) * g
    h = o * xp.tanh(c)
    return (h, c), {"f": f, "o": o, "g": g, "c": c, "h": h}


def backward(xp, dstate, state, values):
    (dh, dc), c_before = dstate, state[1]
    f, o, g, c = (values[name] for name in ("f", "o", "g", "c"))
    do, dc = dh * xp.tanh(c), dc + dh * o * (1 - xp.tanh(c) ** 2)
    df, dg = dc * (c_before - g), dc * (1 - f)
    da = xp.concat((df * f * (1 - f), do * o * (1 - o), dg * (1 - g * g)), axis=0)
    return da, (0, dc * f), {"f": df, "o": do, "g": dg, "c": dc, "h": dh}
'''

PEEPHOLE = '''"""An LSTM whose gates see the cell state, by weights of their own, and whose candidate has a gain."""

from lstm_np.cells.lstm import as_computed, sigmoid

GATES = ("i", "f", "o", "g")
STATE = ("h", "c")
VALUES = ("i", "f", "o", "g", "c", "h")
PARAMETERS = {"p_i": ("H",), "p_f": ("H",), "p_o": ("H",), "shift": ("H",)}
BIASES = ("shift",)


def forward(xp, a, state, own, hold=as_computed):
    c_before = state[1]
    a_i, a_f, a_o, a_g = (a[k * c_before.shape[0] : (k + 1) * c_before.shape[0]] for k in range(4))
    i = hold("i", sigmoid(xp, a_i + own["p_i"] * c_before))
    f = hold("f", sigmoid(xp, a_f + own["p_f"] * c_before))
    g = hold("g", xp.tanh(a_g))
    c = hold("c", f * c_before + i * g + own["shift"])
    o = hold("o", sigmoid(xp, a_o + own["p_o"] * c))
    h = hold("h", o * xp.tanh(c))
    return (h, c), {"i": i, "f": f, "o": o, "g": g, "c": c, "h": h}


def backward(xp, dstate, state, values, own, hold=as_computed):
    (dh, dc), c_before = dstate, state[1]
    dh = hold("h", dh)
    i, f, o, g, c = (values[name] for name in ("i", "f", "o", "g", "c"))
    do = hold("o", dh * xp.tanh(c))
    da_o = do * o * (1 - o)
    dc = hold("c", dc + dh * o * (1 - xp.tanh(c) ** 2) + da_o * own["p_o"])
    di, df, dg = hold("i", dc * g), hold("f", dc * c_before), hold("g", dc * i)
    da_i, da_f, da_g = di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g)
    dc_before = dc * f + da_i * own["p_i"] + da_f * own["p_f"]
    gradients = {"i": di, "f": df, "o": do, "g": dg, "c": dc, "h": dh}
    gradients |= {"p_i": da_i * c_before, "p_f": da_f * c_before, "p_o": da_o * c, "shift": dc}
    return xp.concat((da_i, da_f, da_o, da_g), axis=0), (0, dc_before), gradients
'''

TWO_PRODUCTS = '''"""Two candidates, each with a product of its own, and a parameter of 2H values."""

GATES = ("z", "m", "n")
STATE = ("h",)
VALUES = ("m", "n", "v", "u", "h")
PARAMETERS = {"b_v": ("H",), "gain": ("2H",)}
BIASES = ("b_v",)
PRODUCTS = {"u": ("m", None), "v": ("n", "b_v")}


def forward(xp, a, state, times_u, times_v, own):
    (h_before,) = state
    H = h_before.shape[0]
    m, n = a[H : 2 * H], a[2 * H :]
    v = times_v(h_before * own["gain"][:H])
    u = times_u(xp.tanh(v))
    h = xp.tanh(a[:H] + u * m + v + n * own["gain"][H:])
    return (h,), {"m": m, "n": n, "v": v, "u": u, "h": h}


def backward(xp, dstate, state, values, undo_u, undo_v, own):
    (dh,), (h_before,) = dstate, state
    m, n, v, u, h = (values[name] for name in VALUES)
    H = h.shape[0]
    dsum = dh * (1 - h * h)
    du, dm, dn = dsum * m, dsum * u, dsum * own["gain"][H:]
    dv = dsum + undo_u(du) * (1 - xp.tanh(v) ** 2)
    ds = undo_v(dv)
    dgain = xp.concat((ds * h_before, dsum * n), axis=0)
    da = xp.concat((dsum, dm, dn), axis=0)
    return da, (ds * own["gain"][:H],), {"m": dm, "n": dn, "v": dv, "u": du, "h": dh, "gain": dgain}
'''


def changed(text: str, *pairs: tuple[str, str]) -> str:
    """A cell with something in its text, which must occur once, replaced."""
    for old, new in pairs:
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        text = text.replace(old, new)
    return text
