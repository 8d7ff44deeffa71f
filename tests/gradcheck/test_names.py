"""What arguments are, from the names that courses and books give them."""

from __future__ import annotations

import pytest

from lstm_np.gradcheck.own_cell.names import (
    Value,
    argument_names,
    match_gradient,
    read_arguments,
    read_upstream,
    returned_names,
    state_kind,
    without_d,
)


def kinds(names, shapes=()):
    readings, unknown = read_arguments(names.split(), list(shapes))
    assert not unknown
    return " ".join(value.kind + value.gate for value in readings[0])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("x prev_h prev_c Wx Wh b", "x h c W U b"),
        ("x h0 Wx Wh b", "x h W U b"),
        ("xt a_prev c_prev parameters", "x h c parameters"),
        ("x h_prev C_prev Wf Wi WC Wo bf bi bC bo", "x h c WUf WUi WUc WUo bf bi bc bo"),
        ("x h c W b", "x h c WU b"),
        ("X W c0 h0", "x WU c h"),
        ("x_t h_prev Wzx Wzh bz Wrx Wrh br Whx Whh bh", "x h Wz Uz bz Wr Ur br Wh Uh bh"),
        ("X h Wz Uz bz Wr Ur br Wh Uh bh", "x h Wz Uz bz Wr Ur br Wh Uh bh"),
        ("x prev_h Wx Wh bx bh", "x h W U b b2"),
        ("xt a_prev Wax Waa Wya ba by", "x h W U Wy b by"),
        ("x hprev Wxh Whh Why bh by", "x h W U Wy b by"),
        ("input state weight_ih weight_hh bias_ih bias_hh", "x state W U b b2"),
        ("x h c W_ii W_if W_ig W_io W_hi W_hf W_hg W_ho b_i b_f b_g b_o", "x h c Wi Wf Wg Wo Ui Uf Ug Uo bi bf bg bo"),
        ("xs Wx Wh b", "x W U b"),
    ],
)
def test_arguments(names, expected):
    assert kinds(names) == expected


def test_u_and_w_are_read_both_ways():
    readings, _ = read_arguments(["x", "h", "c", "U", "W", "b"], [])
    assert [[value.kind for value in reading] for reading in readings] == [
        ["x", "h", "c", "U", "W", "b"],
        ["x", "h", "c", "W", "U", "b"],
    ]


def test_a_declared_shape_makes_an_argument_known():
    assert kinds("x h c W U b p", ["p"]) == "x h c W U b other"
    assert read_arguments(["x", "h", "c", "W", "U", "b", "p"], [])[1] == ["p"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("prev_h", "h"),
        ("a_next", "h"),
        ("h0", "h"),
        ("C_prev", "c"),
        ("cell_state", "c"),
        ("x_t", "x"),
        ("Wx", ""),
        ("b", ""),
    ],
)
def test_states(name, kind):
    assert state_kind(name) == kind


@pytest.mark.parametrize(
    ("name", "inner"), [("dWx", "Wx"), ("dprev_h", "prev_h"), ("d_Wx", "Wx"), ("grad_h", "h"), ("Wx_grad", "Wx")]
)
def test_without_d(name, inner):
    assert without_d(name) == inner


@pytest.mark.parametrize(
    ("names", "forward", "results", "expected"),
    [
        ("dnext_h dnext_c cache", "", "", "dh dc cache"),
        ("da caches", "", "", "dh cache"),
        ("dhs dc steps", "", "", "dh dc cache"),
        ("dstate cache", "", "", "dstate cache"),
        ("dh dhn cache", "", "", "dh dh_last cache"),
        ("dh x h_prev f W", "x h_prev W", "h f", "dh argument argument result argument"),
    ],
)
def test_upstream(names, forward, results, expected):
    values, unknown = read_upstream(names.split(), forward.split(), results.split())
    assert not unknown
    assert " ".join(value.kind for value in values) == expected


def test_two_unknown_arguments_of_backward_are_named():
    assert read_upstream(["dh", "foo", "bar"], [], [])[1] == ["foo", "bar"]


def test_gradients_find_their_arguments():
    arguments = [Value("xt", "x"), Value("a_prev", "h"), Value("Wf", "WU", "f"), Value("bf", "b", "f")]
    found = {name: match_gradient(name, arguments) for name in ("dxt", "dx", "da_prev", "dh0", "dW_f", "bf", "dWz")}
    assert {name: value.name for name, value in found.items() if value} == {
        "dxt": "xt",
        "dx": "xt",
        "da_prev": "a_prev",
        "dh0": "a_prev",
        "dW_f": "Wf",
        "bf": "bf",
    }


def test_names_in_code():
    def function(x, h, b=0):
        result = x + h + b
        return result, h

    assert argument_names(function) == ["x", "h"]
    assert returned_names(function) == ["result", "h"]
    assert returned_names(len) == []
    with pytest.raises(ValueError, match="takes \\*args, which does not say what it gets"):
        argument_names(lambda *args: args)
