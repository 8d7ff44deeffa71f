"""A file with a size limit may hold only some units: which ones, and what the others contribute to every sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstm_np.model import SequenceClassifier
from lstm_np.trace import Trace

Ids = Mapping[str, np.ndarray]  # by layer and direction, "layer0" ...: the units that the file holds, in order
OPERANDS = {"m": {"gru": "h", "gru_reset_before": "s"}}  # what a cell's own product multiplies


def most_read(model: SequenceClassifier, count: int) -> dict[str, np.ndarray]:
    """The `count` units of each layer and direction that are read with the largest weights (their norm)."""
    stack, params, H = model.recurrent, model.params, model.recurrent.hidden_size
    found = {}
    for place, single in enumerate(stack.singles):
        layer, direction = divmod(place, stack.directions)
        readers = [f"{above.name}.W" for above in stack.singles_of(layer + 1)] or ["readout.W"]
        weights = np.concatenate([model.backend.to_host(params[name]) for name in readers])
        size = np.linalg.norm(weights[:, direction * H : (direction + 1) * H], axis=0)
        found[single.name] = np.sort(np.argsort(-size, kind="stable")[:count])
    return found


def inputs_of(model: SequenceClassifier, ids: Ids) -> dict[str, np.ndarray]:
    """By layer and direction: which of its inputs the file holds; of the first layer all."""
    stack, H = model.recurrent, model.recurrent.hidden_size
    found = {}
    for place, single in enumerate(stack.singles):
        layer = place // stack.directions
        below = (
            [direction * H + ids[one.name] for direction, one in enumerate(stack.singles_of(layer - 1))]
            if layer
            else []
        )
        found[single.name] = np.concatenate(below) if layer else np.arange(single.spec.input_size)
    return found


def weights_with(model: SequenceClassifier, ids: Ids) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of each layer and direction as its kernel multiplies them, of the read-out and the projection."""
    host, H, inputs = model.backend.to_host, model.recurrent.hidden_size, inputs_of(model, ids)
    found: dict[str, dict[str, np.ndarray]] = {}
    for single in model.recurrent.singles:
        kept, arrays = ids[single.name], {}
        for name, array in single.kernel_params().items():
            rows = host(array).reshape(-1, H, *array.shape[1:])[:, kept]
            rows = rows[..., inputs[single.name]] if name == "W" else rows[..., kept] if name == "U" else rows
            arrays[name] = rows.reshape(-1, *rows.shape[2:])
        found[single.name] = arrays
    stack = model.recurrent
    top = stack.singles_of(stack.num_layers - 1)
    columns = np.concatenate([direction * H + ids[single.name] for direction, single in enumerate(top)])
    found["readout"] = {"W": host(model.params["readout.W"])[:, columns], "b": host(model.params["readout.b"])}
    if "input_projection.W" in model.params:
        found["input_projection"] = {key: host(model.params[f"input_projection.{key}"]) for key in ("W", "b")}
    return found


def rest_of(model: SequenceClassifier, found: Trace, ids: Ids) -> dict[str, dict[str, np.ndarray]]:
    """What the units that the file does not hold add to each sum, by layer and direction and by what is summed.

    a      (T, gates * n) to the pre-activations          m     (T, n) to a product that the cell makes
    dh     (T, n) to the gradient of h                    ds    (T, n) to that of what such a product multiplies
    """
    host, stack, H, G = model.backend.to_host, model.recurrent, model.recurrent.hidden_size, len(found.gates)
    inputs, rest = inputs_of(model, ids), {}
    for place, single in enumerate(stack.singles):
        layer, reverse = divmod(place, stack.directions)
        where: dict[str, Any] = {"layer": layer, "reverse": bool(reverse)}
        params = {name: host(array).astype(np.float64) for name, array in single.kernel_params().items()}
        kept, others = ids[single.name], np.setdiff1d(np.arange(H), ids[single.name])
        unread = np.setdiff1d(np.arange(params["W"].shape[1]), inputs[single.name])
        W, U = params["W"].reshape(G, H, -1), params["U"].reshape(G, H, H)
        own = {product.gate: product.value for product in single.spec.cell.products}
        plain = [g for g, gate in enumerate(found.gates) if gate not in own]
        h, x = found.value("h", **where)[0], found.x(layer)[0]
        before = _shifted(h, 1 if not reverse else -1)
        a = np.einsum("ghk,tk->tgh", W[:, kept][..., unread], x[:, unread])
        a[:, plain] += np.einsum("ghk,tk->tgh", U[plain][:, kept][..., others], before[:, others])
        sums = {"a": a.reshape(len(h), -1)}
        operands = {value: OPERANDS.get(value, {}).get(single.spec.cell.name) for value in own.values()}
        for gate, value in own.items():
            if (name := operands[value]) is not None:
                operand = before if name == "h" else found.value(name, **where)[0]
                sums[value] = operand[:, others] @ U[found.gates.index(gate)][np.ix_(kept, others)].T
        if found.has_gradients:
            da = np.stack([found.pre_activation_gradient(gate, **where)[0] for gate in found.gates], axis=1)
            later = _shifted(da, -1 if not reverse else 1)
            dh = np.einsum("ghk,tgh->tk", U[plain][:, others][..., kept], later[:, plain][..., others])
            for gate, value in own.items():
                rows = U[found.gates.index(gate)][np.ix_(others, kept)]
                dm = found.gradient(value, **where)[0]
                if operands[value] == "h":
                    dh += _shifted(dm, -1 if not reverse else 1)[:, others] @ rows
                elif operands[value] is not None:
                    sums[f"d{operands[value]}"] = dm[:, others] @ rows
            for above in stack.singles_of(layer + 1):
                lost = np.setdiff1d(np.arange(H), ids[above.name])
                W_above = host(above.params["W"]).reshape(G, H, -1)[:, lost][..., int(reverse) * H + kept]
                way: dict[str, Any] = {"layer": layer + 1, "reverse": above.reverse}
                da_above = np.stack([found.pre_activation_gradient(gate, **way)[0] for gate in found.gates], axis=1)
                dh += np.einsum("ghk,tgh->tk", W_above, da_above[..., lost])
            sums["dh"] = dh
        rest[single.name] = {name: array.astype(model.dtype) for name, array in sums.items()}
    return rest


def _shifted(array: np.ndarray, by: int) -> np.ndarray:
    """Along the first axis, `by` 1 or -1 steps; zeros come in."""
    moved = np.zeros(array.shape, np.float64)
    if by > 0:
        moved[1:] = array[:-1]
    else:
        moved[:-1] = array[1:]
    return moved
