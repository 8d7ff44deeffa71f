"""Bits per character beside PyTorch and min-char-rnn: the same losses as the one, the right gradients of the other."""

from __future__ import annotations

import json

import numpy as np
import pytest

import lstm_np
from benchmarks import characters
from lstm_np.text import TextBatches, Vocabulary, example, make_model


def test_all_of_them_on_a_short_text(tmp_path, capsys):
    pytest.importorskip("torch")
    arguments = ["--limit", "2400", "--epochs", "1", "--seeds", "3", "--threads", "1", "--out", str(tmp_path)]
    assert characters.main(arguments) == 0
    found = json.loads((tmp_path / "characters.json").read_text())
    assert found["first_losses_apart"] < 1e-5
    ours, torch, rnn = (found["contestants"][name][0] for name in ("ours", "torch", "min-char-rnn"))
    assert ours["bits"] == pytest.approx(torch["bits"], rel=1e-4)
    assert ours["parameters"] == torch["parameters"]
    assert 2 < rnn["bits"][0] < 6
    assert "| PyTorch, LSTM(128) |" in capsys.readouterr().out
    assert characters.main(["--table", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == characters.table(found)[2:]
    assert characters.main(arguments) == 0  # nothing is missing
    assert json.loads((tmp_path / "characters.json").read_text()) == found
    assert "epoch" not in capsys.readouterr().out
    assert characters.main(["none.txt"]) == 2
    assert capsys.readouterr().err == "benchmarks.characters: [Errno 2] No such file or directory: 'none.txt'\n"


def test_the_plain_rnn_of_the_recipe_is_ours():
    """Its loss and gradients are those of our own RNN from the same weights."""
    text = example(200)
    vocabulary = Vocabulary.of(text)
    codes, N, H = vocabulary.encode(text)[:26], vocabulary.size, characters.RNN_UNITS
    model, rng = make_model(vocabulary, H, cell="rnn", dtype="float64"), np.random.default_rng(0)
    model.params.flat[...] = rng.uniform(-0.3, 0.3, model.params.flat.shape)
    names = {"W": "layer0.W", "U": "layer0.U", "b": "layer0.b", "V": "readout.W", "d": "readout.b"}
    params = {name: model.params[ours] for name, ours in names.items()}
    batches = TextBatches(codes, N, 1, 25, dtype="float64")
    ((x, labels),) = batches.epoch(0)
    loss, grads = model.loss_and_gradients(x, labels)
    assert characters.rnn_loss(params, batches) == pytest.approx(loss, rel=1e-12)
    found, h = characters.rnn_gradients(params, codes[:-1], codes[1:], np.zeros(H))
    for name, ours in names.items():
        np.testing.assert_allclose(found[name] / 25, grads[ours], rtol=1e-9, atol=1e-14)
    layer = lstm_np.RNN(N, H, dtype="float64")
    layer.params.update({name: model.params[name] for name in layer.params})
    np.testing.assert_allclose(h, layer(x)[1][0, 0], rtol=1e-12)
