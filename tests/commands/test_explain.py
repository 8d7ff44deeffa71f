"""explain: the views as commands."""

from __future__ import annotations

import json

import pytest

import lstm_np


def test_a_test_image_in_the_terminal(invoke, trained):
    result = invoke("explain", trained, "--term", "--index", 0, 5)
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    model, digits = lstm_np.SequenceClassifier.load(trained / "weights.safetensors"), lstm_np.data.load_digits()
    guess = model.predict(digits.test_images[:1] / 16)[0]
    assert lines[0].startswith(f"test image 0: predicted {guess} (")
    assert sum(line.startswith("test image 5: ") for line in lines) == 1
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.out
    assert "--value f --step 5 --unit 0" in result.out


def test_the_sums_of_a_value(invoke, trained):
    out = invoke("explain", trained, "--term", "--value", "f", "--step", 5, "--unit", 42, "--ascii").out
    assert "f of unit 42 at row 5, layer 0: forward" in out
    assert "a_f = W_f x_t + U_f h_{t-1} + b_f" in out
    assert out.count(" h[") + out.count("\n  h[") >= 48
    assert "da_f = df * f * (1 - f)" in out
    assert out.isascii()


def test_wider(invoke, trained, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lines = invoke("explain", trained, "--term").out.splitlines()
    assert 80 < max(map(len, lines)) <= 120


def test_without_a_run_it_says_how_to_train_one(invoke):
    result = invoke("explain", "--term")
    assert result.status == 2
    assert result.err.endswith("this trains one in half a minute: python -m lstm_np.train --dataset digits\n")
    assert result.err.count("\n") == 1


ONE_LAYER = "there are layers 0 ... 0, one direction, reverse=False"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--term", "--index", 500], "--index must be 0 to 499, the test images of digits; found 500"),
        (["--term", "--gate", "z"], "a lstm cell has no 'z' here; there are: i, f, o, g, c, tanh_c, h"),
        (["--term", "--layer", 1], f"no layer 1 with reverse=False; {ONE_LAYER}"),
        (["--term", "--value", "f", "--step", 8], "steps are 0 ... 7 and units 0 ... 47, found step 8 and unit 0"),
        (["--without", "z"], "a lstm cell has no value 'z' to do without; there are: i, f, o, g, c, tanh_c, h"),
        (["--without", "f", "--seeds", 0], "--seeds must be at least 1, found 0"),
        (["--without", "f", "--memory-steps", 2], "--memory-steps must be at least 12, found 2"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(flags, line, invoke, trained):
    result = invoke("explain", trained, *flags)
    assert (result.status, result.out, result.err) == (2, "", f"explain: {line}\n")


QUICK = [
    "--dataset",
    "digits",
    "--hidden-size",
    6,
    "--epochs",
    1,
    "--seeds",
    2,
    "--limit-train",
    60,
    "--memory-steps",
    14,
]


def test_without_a_gate(invoke):
    result = invoke("explain", "--without", "f", *QUICK)
    assert result.status == 0
    assert result.err.count("\n") == 8
    assert "lstm of 6 units, with f learnt and with f held at 1" in result.out
    assert sum(line.startswith(("rows ", "memory ")) for line in result.out.splitlines()) == 4
    found = json.loads(invoke("explain", "--without", "z", "--cell", "gru", *QUICK, "--json").out)
    assert found["hold"] == {"z": 0.0}
    assert len(found["results"]) == 8
