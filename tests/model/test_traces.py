"""Traces of models with every loss and all that is read; and views that refuse what they do not show."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from tests.model.cases import LENGTHS, READ_OUTS, B, H, K, T, inputs, make, targets

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all steps", "lengths"])
@pytest.mark.parametrize("both", [False, True], ids=["one direction", "both"])
@pytest.mark.parametrize("read_out", READ_OUTS)
def test_outputs_after_each_step_are_those_of_a_sequence_that_ends_there(read_out, both, lengths):
    """Of one direction. What is traced is what the model computes, and its gradients are those of its loss."""
    model = make("softmax", read_out=read_out, bidirectional=both)
    x, y = inputs(), targets("softmax", read_out == "each_step")
    trace = lstm_np.trace(model, x, y, lengths=lengths)
    logits = model.logits(x, lengths=lengths)
    real = np.ones((B, T), bool) if lengths is None else np.arange(T) < lengths[:, None]
    own = real if read_out == "each_step" else np.ones(B, bool)
    np.testing.assert_allclose(trace.logits[own], logits[own], rtol=1e-12)
    assert trace.loss == pytest.approx(model.loss_and_gradients(x, y, lengths=lengths)[0], rel=1e-12)
    assert trace.step_logits.shape == (B, T, K)
    for t in range(T):
        ends = np.minimum(LENGTHS if lengths is not None else T, t + 1)
        at = model.logits(x, lengths=np.broadcast_to(ends, B)) if not both else None
        if at is not None and read_out != "each_step":
            np.testing.assert_allclose(trace.step_logits[:, t], at, rtol=1e-10, err_msg=str(t))
    dx = trace.dx()
    eps = 1e-6
    for where in ((0, 0, 0), (3, 2, 1)):
        moved = [x.copy(), x.copy()]
        moved[0][where] += eps
        moved[1][where] -= eps
        up, down = (model.loss_and_gradients(one, y, lengths=lengths)[0] for one in moved)
        assert dx[where] == pytest.approx((up - down) / (2 * eps), rel=1e-6, abs=1e-10)


def test_a_regressor_is_traced_by_targets_and_by_output():
    model, x = make("huber", read_out="each_step"), inputs()
    y = targets("huber", True)
    trace = lstm_np.trace(model, x, y, lengths=LENGTHS)
    assert trace.gate("f").shape == (B, T, H)
    assert trace.loss == pytest.approx(model.loss_and_gradients(x, y, lengths=LENGTHS)[0], rel=1e-12)
    with pytest.raises(lstm_np.TraceError, match="probabilities"):
        _ = trace.probabilities
    chosen = lstm_np.trace(model, x, target=2, lengths=LENGTHS)
    moved = [x.copy(), x.copy()]
    moved[0][3, 1, 2] += 1e-6
    moved[1][3, 1, 2] -= 1e-6
    up, down = (np.nansum(model.logits(one, lengths=LENGTHS)[3, :, 2]) for one in moved)
    assert chosen.dx()[3, 1, 2] == pytest.approx((up - down) / 2e-6, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"read_out": "mean"}, "reads the mean of its outputs"),
        ({"read_out": "each_step"}, "reads each step"),
        ({"loss": "binary"}, "gives several labels at once"),
    ],
)
def test_views_refuse_what_they_do_not_show(options, found, tmp_path, capsys, monkeypatch):
    from lstm_np.explain.__main__ import main

    monkeypatch.chdir(tmp_path)
    model = lstm_np.SequenceClassifier(8, 4, 10, **options)
    model.notes = {"dataset": "digits", "view": "rows", "image_shape": [8, 8], "pixel_max": 16, "recipe": "own"}
    model.save("own.safetensors")
    for more in ([], ["--term"]):
        assert main(["own.safetensors", *more]) == 2
        assert f"own.safetensors: this model {found}, and what is shown here is one class" in capsys.readouterr().err
