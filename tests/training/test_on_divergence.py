"""A run whose steps diverge: it ends, leaves batches out, or goes back to a checkpoint; and the state of gates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lstm_np
from lstm_np import TrainingDivergedError, get_backend
from lstm_np.checkpoints import Every
from lstm_np.data import load
from lstm_np.kernels.reference import ReferenceKernel
from lstm_np.steps import ModelSteps
from lstm_np.training import Place, curves, run
from lstm_np.training.gate_health import LayerHealth, gate_health
from lstm_np.training.run import Care
from tests.training.stopped import Stopping, go_on, kept, once_loaded, small, spoilt_batches


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(curves, "draw_curves", lambda *_: b"")
    monkeypatch.setattr(load, "load_digits", once_loaded)


@pytest.fixture
def bad(monkeypatch):
    return spoilt_batches(monkeypatch)


def trained(out, policy, every="1000000", recipe=None, **stop):
    from lstm_np.training.interruption import Interruption

    interruption = Interruption()
    reporter = Stopping(interruption, **stop)
    place = Place(get_backend("numpy", threads=1), out=Path(out))
    outcome = run(recipe or small(), place, reporter, interruption, care=Care(Every.parse(every), 3, policy))
    return outcome, reporter.notes


RICH = small(model={"num_layers": 2, "dropout": 0.2}, data={"shift": 1}, train={"clip_norm": 1.0})


def test_raise_ends_the_run_with_what_was_before(bad):
    bad.add((1, 2))
    with pytest.raises(
        TrainingDivergedError, match=r"^training diverged at step 7: .*; the weights before it are in run/"
    ):
        trained("run", "raise")
    assert np.isfinite(lstm_np.SequenceClassifier.load("run/weights.safetensors").params.flat).all()


def test_skip_leaves_the_batch_out_and_says_so(bad):
    bad.update({(0, 1), (1, 2), (1, 3)})
    outcome, notes = trained("run", "skip", recipe=RICH)
    assert [epoch.steps for epoch in outcome.epochs] == [3, 5, 9]
    assert len(notes) == 3
    assert notes[0].startswith("train: training diverged at step 2: ")
    assert notes[0].endswith("; batch 1 of epoch 1 is left out (1 in a row)")
    assert notes[2].endswith("; batch 3 of epoch 2 is left out (2 in a row)")
    expected = kept(Path("run"))
    trained("stopped", "skip", recipe=RICH, step=4)  # between the two of the second epoch's start and its end
    go_on(Path("stopped"))
    assert kept(Path("stopped")) == expected


def test_skip_gives_up_after_five_in_a_row(bad):
    bad.update({(0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)})
    with pytest.raises(TrainingDivergedError, match=r"^training diverged at step 3: "):
        trained("run", "skip")
    bad.discard((0, 2))
    outcome, notes = trained("again", "skip")
    assert (outcome.steps, len(notes)) == (7, 5)


def test_skip_cannot_be_had_where_steps_do_not_wait():
    pretended = replace(get_backend("numpy"), reads_are_free=False)
    with pytest.raises(ValueError, match=r"take rollback instead of skip$"):
        run(small(), Place(pretended, out="run"), care=Care(on_divergence="skip"))
    assert not Path("run").exists()


def test_rollback_goes_on_from_the_checkpoint_without_the_batch(bad):
    bad.update({(0, 3), (2, 1)})
    outcome, notes = trained("run", "rollback", every="2", recipe=RICH)
    assert len(notes) == 2
    assert notes[0].endswith("; back at step 2, batch 3 of epoch 1 left out (1 of 3 times)")
    assert notes[1].endswith("; back at step 8, batch 1 of epoch 3 left out (2 of 3 times)")
    assert [epoch.steps for epoch in outcome.epochs] == [3, 7, 10]
    trained("skipped", "skip", recipe=RICH)
    assert kept(Path("run")) == kept(Path("skipped"))  # it makes no difference how the batch was left out
    for step in (2, 3, 5, 9):
        out = Path(f"stopped {step}")
        trained(out, "rollback", every="2", recipe=RICH, step=step)
        _, notes = go_on(out, every="2")
        assert kept(out) == kept(Path("run")), step


def test_rollback_gives_up_after_three_times(bad):
    bad.update({(0, k) for k in range(4)})
    with pytest.raises(
        TrainingDivergedError, match=r"^training diverged at step 1: .*; the weights before it are in run/"
    ):
        trained("run", "rollback")


def test_rollback_on_a_device_leaves_out_all_since_the_checkpoint(monkeypatch):
    """Its steps notice nothing by themselves; a look at the epoch's sums does, some steps later."""
    pretended = replace(get_backend("numpy"), reads_are_free=False)
    step, spoilt = ModelSteps.step, []

    def spoiling(self, batch, number):
        made = step(self, batch, number)
        if self.model.position.epoch == 1 and self.model.position.batch == 1 and not spoilt:
            spoilt.append(number)
            self.model.params.flat[:] = np.nan
        return made

    monkeypatch.setattr(ModelSteps, "step", spoiling)
    notes = []
    reporter = Stopping(None)
    reporter.note = notes.append
    outcome = run(small(), Place(pretended, out="run"), reporter, care=Care(Every.parse("3"), 3, "rollback"))
    assert spoilt == [6]
    (line,) = notes
    assert line.endswith("; back at step 3, all from batch 3 of epoch 1 to batch 1 of epoch 2 left out (1 of 3 times)")
    assert outcome.epochs[-1].train.count > 0
    assert np.isfinite(lstm_np.SequenceClassifier.load("run/weights.safetensors").params.flat).all()


# ---- the state of the gates


def test_gate_health_is_what_the_gates_do():
    model = lstm_np.SequenceClassifier(3, 4, 2, dtype="float64")
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((6, 7, 3)), rng.integers(0, 2, 6)
    model.params["layer0.b"][4:8] = 40.0  # the forget gate is 1
    model.params["layer0.b"][8] = -40.0  # unit 0 never shows itself
    (health,) = gate_health(model, x, labels)
    assert health.saturated["f"] == 1.0
    assert health.saturated["o"] >= 0.25
    assert (health.dead, health.units) == (1, 4)
    assert health.forget == pytest.approx(1.0)
    seen, copy = {}, model.copy(kernel="reference")

    class Spy(ReferenceKernel):
        def steps_back(self, *given, **more):
            for step in super().steps_back(*given, **more):
                seen[step.t] = np.linalg.norm(step.gradients["h"])
                yield step

    copy.recurrent.singles[0].kernel = Spy(copy.recurrent.singles[0].spec, copy.backend)
    copy.loss_and_gradients(x, labels)
    assert (health.first, health.last) == (seen[0], seen[6])
    assert health.last > 0
    model.params["layer0.b"][4:8] = 0.0
    model.params["layer0.W"][...] = 0.0
    model.params["layer0.U"][...] = 0.0
    (health,) = gate_health(model, x, labels)
    assert (health.forget, health.half_life) == (0.5, pytest.approx(1.0))
    assert health.saturated["f"] == 0.0


def test_both_directions_and_cells_without_a_forget_gate():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((6, 7, 3)), rng.integers(0, 2, 6)
    found = gate_health(lstm_np.SequenceClassifier(3, 4, 2, cell="gru", bidirectional=True), x, labels)
    assert [layer.layer for layer in found] == ["layer0", "layer0_reverse"]
    assert found[0].forget is found[0].half_life is None
    assert found[1].first > found[1].last  # it reads the first step last
    relu = gate_health(lstm_np.SequenceClassifier(3, 4, 2, cell="rnn_relu"), 5 * x, labels)
    assert 0 < relu[0].saturated["h"] < 1


def test_the_line():
    health = LayerHealth("layer0", {"i": 0.12, "f": 0.3}, 3, 128, 0.93, 9.55, 1.2e-5, 3.1e-3)
    assert health.line() == (
        "layer0: saturated i 12%, f 30%; 3 of 128 units dead; mean f 0.930, half-life 9.6 steps; "
        "|dh| 1.2e-05 at the first step, 3.1e-03 at the last"
    )
    assert replace(health, half_life=float("inf")).plain()["half_life"] is None


def test_gate_health_is_told_and_kept(capsys):
    from lstm_np.train import main

    flags = (
        "--dataset digits --recipe mnist-lstm128 --limit-train 60 --hidden-size 4 --epochs 2 --threads 1 --gate-health"
    )
    assert main([*flags.split(), "--out", "whole"]) == 0
    out = capsys.readouterr().out
    assert out.count("layer0: saturated i ") == 2
    assert max(map(len, out.splitlines())) <= 80
    lines = [json.loads(line) for line in Path("whole/metrics.jsonl").read_text().splitlines()]
    assert [line["gates"][0]["layer"] for line in lines] == ["layer0", "layer0"]
    assert main([*flags.split(), "--out", "run", "--max-steps", "1"]) == 0
    assert main(["--resume", "run", "--max-steps", "none"]) == 0  # the flag is remembered
    assert kept(Path("run")) == kept(Path("whole"))
