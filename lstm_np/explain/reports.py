"""What the page says beyond single values: gradients of every logit, integrated gradients, the test set, saturation.

Sources: integrated gradients: Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017; the
limits of saturation: Karpathy, Johnson and Li, "Visualizing and understanding recurrent networks", arXiv:1506.02078.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_np.layers import dense
from lstm_np.model import SequenceClassifier
from lstm_np.trace import Trace, trace

SHUT, OPEN, FLAT = 0.1, 0.9, 0.99
STILL = 0.01  # a unit counts as still if its standard deviation over steps and images is below this
PATH_POINTS = 64
KEEPERS = {
    "lstm": ("c", "f"),
    "gru": ("h", "z"),
    "gru_reset_before": ("h", "z"),
}  # state, and the gate that multiplies it


def norms_of(model: SequenceClassifier, traces: Sequence[Trace]) -> dict[str, dict[str, np.ndarray]]:
    """By layer and direction: norms over units of the gradient of each part of the state, (targets, T).

    traces   of one sample, one for each target, with gradients

    "direct" is the part of the last step's gradient that flows back along the state alone, through its gate.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for single, (layer, reverse) in zip(model.recurrent.singles, traces[0].layers, strict=True):
        where: dict[str, Any] = {"layer": layer, "reverse": reverse}
        parts: dict[str, list[np.ndarray]] = {}
        for one in traces:
            for name in single.spec.cell.state:
                if name in one.values:
                    parts.setdefault(name, []).append(np.linalg.norm(one.gradient(name, **where)[0], axis=1))
            if single.spec.cell.name in KEEPERS:
                state, gate = KEEPERS[single.spec.cell.name]
                gradient, kept = one.gradient(state, **where)[0], one.value(gate, **where)[0]
                parts.setdefault("direct", []).append(_direct_path(gradient, kept, reverse))
        found[single.name] = {name: np.stack(rows).astype(model.dtype) for name, rows in parts.items()}
    return found


def _direct_path(gradient: np.ndarray, kept: np.ndarray, reverse: bool) -> np.ndarray:
    """(T,) norms from (T, H): the last step's gradient times the product of the gates of all later steps."""
    if reverse:
        gradient, kept = gradient[::-1], kept[::-1]
    later = np.cumprod(np.concatenate([np.ones_like(kept[:1]), kept[:0:-1]]), axis=0)[::-1]
    norms = np.linalg.norm(gradient[-1] * later, axis=1)
    return norms[::-1] if reverse else norms


def integrated_gradients(model: SequenceClassifier, x: np.ndarray, target: int) -> tuple[np.ndarray, float]:
    """(values (T, D), what their sum misses of the change of the logit) from x (1, T, D) and a black image.

    The mean gradient of the logit at `PATH_POINTS` points between the two, the middles of equal parts, times x.
    """
    points = ((np.arange(PATH_POINTS) + 0.5) / PATH_POINTS).astype(model.dtype)
    along = trace(model, points[:, None, None] * x, target=target)
    values = along.dx().mean(axis=0, dtype=np.float64) * x[0]
    ends = model.backend.to_host(model.logits(np.concatenate([np.zeros_like(x), x])))[:, target].astype(np.float64)
    return values.astype(model.dtype), float(ends[1] - ends[0] - values.sum())


def accuracy_by_step(
    model: SequenceClassifier, x: np.ndarray, labels: np.ndarray, batch_size: int = 500
) -> dict[str, Any]:
    """How many of N sequences are classified correctly after every step, and when their predictions became final.

    x (N, T, D), labels (N,).  `correct` (T,): right answers if the read-out is asked then.  `settled` (K, T): sequences
    of each label whose answer is the last one from that step on, and was not before.
    """
    count, T, K = len(x), x.shape[1], model.num_classes
    correct, settled = np.zeros(T, np.int64), np.zeros((K, T), np.int64)
    for start in range(0, count, batch_size):
        truth = labels[start : start + batch_size]
        answers = _answers(model, x[start : start + batch_size])
        correct += (answers == truth[:, None]).sum(axis=0)
        changes = np.flatnonzero  # the step after the last one at which the answer was another
        others = answers != answers[:, -1:]
        first = np.array([found[-1] + 1 if len(found := changes(row)) else 0 for row in others])
        np.add.at(settled, (truth, first), 1)
    return {"count": count, "correct": correct.tolist(), "settled": settled.tolist()}


def _answers(model: SequenceClassifier, x: np.ndarray) -> np.ndarray:
    """(B, T): the most probable class after every step of x (B, T, D), read as `Trace.probabilities` says."""
    backend, xp, stack, H = model.backend, model.backend.xp, model.recurrent, model.recurrent.hidden_size
    entered = backend.from_host(np.ascontiguousarray(x.transpose(2, 1, 0), dtype=model.dtype))
    if model.config["input_projection"] is not None:
        entered = model.project(entered)
    y, _, _ = stack.run(entered, save=False)
    if stack.directions == 2 and model.read_out == "final_state":
        y = xp.concat((y[:H], y[H:, ::-1, :]), axis=0)
    logits = dense.forward(model.params.section("readout"), y.reshape(y.shape[0], -1))
    return backend.to_host(logits).reshape(model.num_classes, *y.shape[1:]).argmax(axis=0).T


def saturation(model: SequenceClassifier, x: np.ndarray) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """By layer and direction, value and kind: shares over the steps of x (N, T, D), one for each unit (H,).

    shut, open   of a gate within 0 ... 1: how often it is below 0.1 and above 0.9
    flat         of a value within -1 ... 1: how often its size is above 0.99
    still        1 where the unit hardly moves
    """
    taken, found = trace(model, x), {}
    for single, (layer, reverse) in zip(model.recurrent.singles, taken.layers, strict=True):
        found[single.name] = {
            name: _shares(taken.value(name, layer=layer, reverse=reverse), name in taken.gates) for name in taken.values
        }
    return found


def _shares(values: np.ndarray, is_gate: bool) -> dict[str, np.ndarray]:
    """The kinds of `saturation` from (N, T, H)."""
    over = (0, 1)
    shares = {"still": values.std(axis=over, dtype=np.float64) < STILL}
    low, high = values.min(), values.max()
    if is_gate and low >= 0 and high <= 1:
        shares |= {"shut": (values < SHUT).mean(axis=over), "open": (values > OPEN).mean(axis=over)}
    elif low >= -1 and high <= 1:
        shares["flat"] = (np.abs(values) > FLAT).mean(axis=over)
    return {kind: share.astype(np.float32) for kind, share in shares.items()}
