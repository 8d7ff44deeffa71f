"""The terminal view, as golden files and in its parts.

GOLDEN=write in the environment writes the files anew; what changed is then to be looked at.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import lstm_np
from lstm_np.explain.samples import trace_of
from lstm_np.explain.terminal import RAMP, Choice, Look, predictions_in_words, terminal_view
from tests.explain.support import digit, make_trained

GOLDEN = Path(__file__).parent / "golden"
MODELS = {
    "lstm": (make_trained, {"hidden_size": 24}, Choice(value="f", t=5, unit=3)),
    "gru": (
        make_trained,
        {"cell": "gru", "num_layers": 2, "bidirectional": True},
        Choice(layer=1, reverse=True, gate="z", value="h", t=2, unit=0),
    ),
    "pixels": (make_trained, {"view": "pixels", "cell": "rnn", "hidden_size": 5}, Choice()),
}
LOOKS = {
    "80-plain": Look(80),
    "120-plain": Look(120),
    "80-ascii": Look(80, blocks=False),
    "80-colour": Look(80, colour=True),
    "120-colour": Look(120, colour=True),
}


def rendered(model: str, look: Look) -> str:
    make, settings, choice = MODELS[model]
    trained = make(**settings)
    sample = digit(3)
    lines = terminal_view(trained, sample, trace_of(trained, sample), choice, look)
    assert max(len(line.plain) for line in lines) <= look.width
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=look.width,
        force_terminal=look.colour,
        color_system="truecolor" if look.colour else None,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )
    for line in lines:
        if look.colour:
            console.print(line, soft_wrap=True)
        else:
            stream.write(line.plain + "\n")
    return stream.getvalue()


def without_rounding(text: str) -> str:
    """What rounding amounts to depends on the order in which a processor adds."""
    return re.sub(r"rounding\s+[+-]\d\.\de[+-]\d\d", "rounding", text)


@pytest.mark.parametrize("look", list(LOOKS))
@pytest.mark.parametrize("model", list(MODELS))
def test_golden(model, look):
    path, found = GOLDEN / f"term-{model}-{look}.txt", rendered(model, LOOKS[look])
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert without_rounding(found) == without_rounding(path.read_text(encoding="utf-8"))
    if "ascii" in look:
        assert found.isascii()
    assert ("\x1b[" in found) is LOOKS[look].colour


NARROW, NOTHING = Look(), Choice()


def view_of(trained, look=NARROW, choice=NOTHING, index=0):
    sample = digit(index)
    return [line.plain for line in terminal_view(trained, sample, trace_of(trained, sample), choice, look)]


def test_the_map_is_the_gate():
    """Each character, read back, is the gate's value to half a step of the scale."""
    trained = make_trained(hidden_size=24)
    lines, trace = view_of(trained), trace_of(trained, digit(0))
    start = next(k for k, line in enumerate(lines) if line.startswith("f of layer 0: time to the right"))
    start = next(k for k, line in enumerate(lines) if k > start and line.startswith("scale: 0 "))
    rows = lines[start + 1 : start + 21]
    f = trace.gate("f")[0]
    units = [int(row[:4]) for row in rows]
    ranges = f.max(axis=0) - f.min(axis=0)
    assert units == np.argsort(-ranges, kind="stable")[:20].tolist()
    wide = (80 - 5) // 8
    for row, unit in zip(rows, units, strict=True):
        cells = row[5:].ljust(wide * 8)
        for t in range(8):
            shown = (RAMP.index(cells[t * wide]) + 0.5) / len(RAMP)
            assert abs(shown - f[t, unit]) <= 0.5 / len(RAMP) + 1e-12


def test_the_probabilities_are_those_of_every_step():
    trained = make_trained()
    lines, p = view_of(trained), trace_of(trained, digit(0)).probabilities[0]
    start = next(k for k, line in enumerate(lines) if "prediction" in line)
    for t in range(8):
        words = lines[start + 1 + t].split()
        assert words[0] == str(t)
        best, second = np.argsort(-p[t], kind="stable")[:2]
        assert words[-2:] == [str(second), f"{p[t, second]:.2%}"]
        assert f"{best} {p[t, best]:7.2%}" in lines[start + 1 + t]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([5] * 17 + [8] * 10 + [3], "5 until row 16, 8 from row 17, 3 at the last row"),
        ([3, 3], "3 from the first row on"),
        ([1, 2, 2], "1 until row 0, 2 from row 1 on"),
        ([1, 1, 2, 1, 1], "1 until row 1, 2 at row 2, 1 from row 3 on"),
        ([1, 2] * 10 + [3, 3], "3 from row 20 on, after 20 changes"),
    ],
)
def test_predictions_in_words(answers, words):
    assert predictions_in_words(answers, "row") == words


def test_the_tensors_are_those_of_the_pass():
    lines = view_of(make_trained(input_projection=5))
    start = next(k for k, line in enumerate(lines) if line.startswith("From the input"))
    rows = {line[: line.index("  ")]: line.split() for line in lines[start + 2 :]}
    assert list(rows) == ["x", "> input_projection.W", "> input_projection.b", "projected", "> layer0.W", "> layer0.U",
                          "> layer0.b", "layer0 a", "layer0 i", "layer0 f", "layer0 o", "layer0 g", "layer0 c",
                          "layer0 tanh_c", "layer0 h", "> readout.W", "> readout.b", "logits",
                          "probabilities"]  # fmt: skip
    assert rows["layer0 f"][2:6] == ["8", "x", "6", "384"]
    assert rows["> layer0.U"][2:6] == ["24", "x", "6", "1,152"]


def test_an_image_without_a_label_has_no_gradients():
    trained = make_trained()
    sample = replace(digit(0), label=None, name="mine")
    lines = [
        line.plain
        for line in terminal_view(trained, sample, trace_of(trained, sample), Choice(value="c", t=0, unit=0), Look())
    ]
    assert lines[0].startswith("mine: ")
    assert "label" not in lines[0]
    assert not any(line.startswith("backward") for line in lines)


def test_what_there_is_not():
    trained = make_trained()
    with pytest.raises(lstm_np.TraceError, match="a lstm cell has no 'z' here"):
        view_of(trained, choice=Choice(gate="z"))
    with pytest.raises(lstm_np.TraceError, match="no layer 1"):
        view_of(trained, choice=Choice(layer=1))
    with pytest.raises(ValueError, match="found step 8"):
        view_of(trained, choice=Choice(value="f", t=8, unit=0))
