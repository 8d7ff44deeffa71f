"""gradcheck: the table, the verdict, and that a wrong gradient is found."""

from __future__ import annotations

import importlib
import json

import pytest

import lstm_np


def test_one_layer_and_one_model(invoke):
    result = invoke("gradcheck", "--hidden-size", 3, "--input-size", 2, "--layers", 2, "--bidirectional")
    assert result.status == 0
    assert "LSTM: D=2 H=3 L=2, bidirectional, B=3 T=4" in result.out
    assert "SequenceClassifier (lstm): D=2 H=3 L=2 K=10" in result.out
    assert result.out.count("PASS: every gradient agrees") == 2
    assert "layer1_reverse.U" in result.out


@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_other_cells(invoke, cell):
    result = invoke("gradcheck", "--cell", cell, "--json")
    summary = json.loads(result.out)
    assert result.status == 0
    assert summary["ok"] is True
    assert summary["reports"][1]["subject"].startswith(f"SequenceClassifier ({cell})")
    assert summary["reports"][0]["tensors"]["x"]["checked"] == 48


def test_every_option_of_a_model_is_a_flag(invoke):
    flags = ("--bias", "double", "--input-projection", 6, "--dropout", 0.3, "--layers", 2, "--readout-bias", 0.5)
    result = invoke("gradcheck", *flags, "--json")
    layer, model = json.loads(result.out)["reports"]
    assert (result.status, result.err) == (0, "")
    assert "layer1.b_h" in layer["tensors"]
    assert "layer1.b_h" in model["tensors"]
    assert model["tensors"]["layer0.W"]["shape"] == [20, 6]
    result = invoke("gradcheck", "--cell", "gru", "--forget-bias", 1)
    assert result == (2, "", "gradcheck: forget_bias is 1.0, but gru layers have no forget_bias\n")


def test_options_that_are_given_hold_in_random_configurations(invoke):
    result = invoke("gradcheck", "--configurations", 4, "--bias", "false", "--layers", 2, "--json")
    for report in json.loads(result.out)["reports"]:
        assert " L=2" in report["subject"]
        assert not any(name.startswith("layer") and name.endswith(".b") for name in report["tensors"])


def test_random_configurations(invoke):
    result = invoke("gradcheck", "--cell", "lstm", "--configurations", 6, "--json")
    assert result.status == 0
    reports = json.loads(result.out)["reports"]
    assert len(reports) == 6
    assert len({report["subject"] for report in reports}) == 6
    assert {report["subject"].split()[0] for report in reports} == {"LSTM:", "SequenceClassifier"}
    again = invoke("gradcheck", "--cell", "lstm", "--configurations", 6, "--json")
    assert again == result


def test_a_wrong_gradient(invoke, monkeypatch):
    from lstm_np.cells import lstm

    backward = lstm.backward

    def faulty(xp, dstate, state, values):
        da, before, gradients = backward(xp, dstate, state, values)
        return da * 1.000001, before, gradients

    monkeypatch.setattr(lstm, "backward", faulty)
    result = invoke("gradcheck", "--kernel", "reference")
    assert result.status == 1
    assert "FAIL: at least one gradient is wrong" in result.out
    result = invoke("gradcheck", "--kernel", "reference", "--cell", "lstm", "--configurations", 3)
    assert result.status == 1
    assert "FAIL" in result.out
    assert "the worst of 3 random configurations, 3 of which fail" in result.out


def test_the_function_stays_callable_after_the_command_was_imported():
    importlib.import_module("lstm_np.gradcheck.__main__")
    assert lstm_np.gradcheck(lstm_np.LSTM(2, 3)).ok
