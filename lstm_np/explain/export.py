"""What the page of `python -m lstm_np.explain` shows, as plain values: weights, and traces of single samples.

Every array is the engine's, bit for bit: {"type": "f4" or "f8", "shape": [...], "data": digits to the base 85}.
Stored are pre-activations, values and states, and the gradient of the loss with respect to each; the terms of sums are
products of these and of the weights, and the page makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np.data import sequence_view
from lstm_np.data.images import INK_SHARE, MNIST_INK_SHARE
from lstm_np.explain.reports import PATH_POINTS, accuracy_by_step, integrated_gradients, norms_of, saturation
from lstm_np.explain.samples import SEQUENCES, Sample, step_of, trace_of
from lstm_np.explain.units import Ids, most_read, rest_of, weights_with
from lstm_np.model import SequenceClassifier
from lstm_np.trace import Trace, trace
from lstm_np.training.trained import Trained

CELL_NAMES = {"lstm": "LSTM", "gru": "GRU", "gru_reset_before": "GRU", "rnn": "RNN", "rnn_relu": "RNN"}
# the digits of the base 85: characters that neither JSON nor HTML has to escape
DIGITS = np.array([code for code in range(33, 127) if chr(code) not in "\"&'<>\\"][:85], np.uint8)
TEST_STEPS = 280_000  # steps of test images that are read for the curve of accuracy: 10,000 images of 28 rows
SATURATION_STEPS = 2_800


@dataclass(frozen=True)
class Recording:
    """A sample, its sequence x (1, T, D), its trace, and what is known beyond: gradients of every logit, norms ..."""

    sample: Sample
    x: np.ndarray
    trace: Trace
    more: Mapping[str, Any]


def record(trained: Trained, sample: Sample) -> Recording:
    """Trace one sample; without a label it has no gradients."""
    x = sequence_view(sample.image[np.newaxis], trained.view).astype(trained.model.dtype)
    found = trace_of(trained, sample)
    return Recording(sample, x, found, _gradients(trained.model, x, sample, found) if found.has_gradients else {})


@dataclass(frozen=True)
class Other:
    """A second set of weights of the same model, and what it is called: "before training"."""

    title: str
    model: SequenceClassifier


def report(trained: Trained, images: np.ndarray, labels: np.ndarray, others: Sequence[Other] = ()) -> dict[str, Any]:
    """What is said about many images (N, rows, columns) with values 0 ... 1 and labels (N,)."""
    model, x = trained.model, sequence_view(images, trained.view)
    count, some = (max(1, min(len(x), steps // x.shape[1])) for steps in (TEST_STEPS, SATURATION_STEPS))
    models = [("this model", model), *((other.title, other.model) for other in others)]
    return {
        "test": accuracy_by_step(model, x[:count], labels[:count]),
        "saturation": [
            {"title": title, "count": some, "layers": packed_all(saturation(one, x[:some].astype(model.dtype)))}
            for title, one in models
        ],
    }


def page_data(
    trained: Trained,
    recordings: Sequence[Recording],
    provenance: Sequence[tuple[str, str]],
    command: str,
    reports: Mapping[str, Any] | None = None,
    others: Sequence[Other] = (),
    *,
    units: int | None = None,
) -> dict[str, Any]:
    """All that the page needs, as plain values for JSON.

    reports   from `report`
    others    weights to compare with; in a file that does not hold all units they are left out
    units     how many units of each layer the file holds, those that are read with the largest weights; None: all
    """
    model, H = trained.model, trained.model.recurrent.hidden_size
    ids = most_read(model, H if units is None else units)
    kept = len(next(iter(ids.values())))
    kernels, difference = (
        ", ".join(model.recurrent.kernel_names),
        max(one.trace.difference or 0.0 for one in recordings),
    )
    data = {
        "format": 1,
        "model": describe(trained, recordings[0].trace.steps, recordings[0].x.shape[2]) | {"H": kept},
        "weights": packed_all(weights_with(model, ids)),
        "passes": [_stored(model, one, ids, whole=kept == H) for one in recordings],
        "provenance": [
            *map(list, provenance),
            ["kernel", f"{kernels}; the values are the reference kernel's, which differs by {difference:.1e} at most"],
        ],
        "command": command,
    }  # fmt: skip
    if kept == H:
        data["others"] = [{"title": one.title, "weights": packed_all(weights_with(one.model, ids))} for one in others]
    else:
        data["ids"] = {name: found.tolist() for name, found in ids.items()}
    return data | dict(reports or {})


def _stored(model: SequenceClassifier, recording: Recording, ids: Ids, *, whole: bool) -> dict[str, Any]:
    """What of a recording is in the file."""
    found, sample = recording.trace, recording.sample
    assert found.logits is not None  # a model's trace has them
    stored: dict[str, Any] = {
        "name": sample.name,
        "index": sample.index,
        "label": sample.label,
        "image": packed(sample.image.astype(model.dtype)),
        "x": packed(found.x()[0]),
        "logits": packed(found.logits[0]),
        "probabilities": packed(found.probabilities[0]),
        "layers": {},
        **recording.more,
    }
    if sample.raw is not None and np.isfinite(sample.raw).all():
        stored["raw"] = packed(sample.raw)
    if model.config["input_projection"] is not None:
        stored["projected"] = packed(found.x(0)[0])
    for single, (layer, reverse) in zip(model.recurrent.singles, found.layers, strict=True):
        stored["layers"][single.name] = _layer(found, {"layer": layer, "reverse": reverse}, ids[single.name])
    if not whole:
        for name, sums in rest_of(model, found, ids).items():
            stored["layers"][name]["rest"] = packed_all(sums)
    return stored


def describe(trained: Trained, steps: int, features: int) -> dict[str, Any]:
    """The model and how it reads a sample."""
    model, stack = trained.model, trained.model.recurrent
    step = step_of(trained)
    return {
        "cell": model.config["cell"],
        "cellName": CELL_NAMES.get(model.config["cell"], model.config["cell"]),
        "gates": list(stack.cell.gates),
        "values": list(stack.cell.values),
        "T": steps,
        "D": features,
        "H": stack.hidden_size,
        "units": stack.hidden_size,
        "K": model.num_classes,
        "products": {product.value: product.gate for product in stack.cell.products},
        "layers": stack.num_layers,
        "directions": stack.directions,
        "names": [single.name for single in stack.singles],
        "type": "f8" if model.dtype == "float64" else "f4",
        "readOut": model.read_out,
        "projection": model.config["input_projection"],
        "clip": model.config["cell_clip"],
        "view": trained.view if trained.dataset != SEQUENCES else "sequence",
        "shape": list(trained.image_shape),
        "step": step,
        "steps": f"{step}s",
        "isImage": trained.dataset != SEQUENCES,
        "samples": "test images" if trained.dataset != SEQUENCES else f"sequences of {steps} steps",
        "classes": None if trained.classes is None else list(trained.classes),
        "features": None if trained.features is None else list(trained.features),
        "inkShare": INK_SHARE.get(trained.dataset, MNIST_INK_SHARE),
    }


def _layer(found: Trace, where: Mapping[str, Any], kept: np.ndarray) -> dict[str, Any]:
    """One layer in one direction: pre-activations (T, gates * n), values (T, n), and the gradients of both."""
    arrays: dict[str, Any] = {
        "a": np.concatenate([found.pre_activation(gate, **where)[0][:, kept] for gate in found.gates], axis=1),
        "values": {name: found.value(name, **where)[0][:, kept] for name in found.values},
    }
    if found.has_gradients:
        da = [found.pre_activation_gradient(gate, **where)[0][:, kept] for gate in found.gates]
        arrays["da"] = np.concatenate(da, axis=1)
        arrays["gradients"] = {name: found.gradient(name, **where)[0][:, kept] for name in found.values}
    return packed_all(arrays)


def _gradients(model: SequenceClassifier, x: np.ndarray, sample: Sample, found: Trace) -> dict[str, Any]:
    """Gradients of the loss and of every logit: dlogits (K,), dx (T, D), of the logits (K, T, D), and norms."""
    from_host, answer = model.backend.from_host, int(found.logits[0].argmax())  # type: ignore[index]
    label = from_host(np.array([sample.label]))
    _, dlogits, _ = model.loss(model.backend.xp, from_host(np.ascontiguousarray(found.logits.T)), label)  # type: ignore[union-attr]
    of_logits = [trace(model, x, target=k) for k in range(model.num_classes)]
    path, gap = integrated_gradients(model, x, answer)
    return {
        "dlogits": packed(model.backend.to_host(dlogits)[:, 0]),
        "dx": packed(found.dx()[0]),
        "dxOfLogits": packed(np.concatenate([one.dx() for one in of_logits])),
        "norms": packed_all(norms_of(model, [found, *of_logits])),
        "integrated": {"of": answer, "steps": PATH_POINTS, "gap": gap, "values": packed(path)},
    }


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array as text that keeps its bits: each 32 bits as five digits to the base 85, the highest first."""
    kind = "f8" if array.dtype == np.float64 else "f4"
    plain = np.ascontiguousarray(array, dtype=f"<{kind}")
    words = plain.reshape(-1).view("<u4").astype(np.int64)
    digits = words[:, None] // 85 ** np.arange(4, -1, -1) % 85
    return {"type": kind, "shape": list(array.shape), "data": DIGITS[digits].tobytes().decode()}


def unpacked(stored: Mapping[str, Any]) -> np.ndarray:
    """The array that `packed` was given."""
    places = np.zeros(128, np.int64)
    places[DIGITS] = np.arange(85)
    digits = places[np.frombuffer(stored["data"].encode(), np.uint8)].reshape(-1, 5)
    words = (digits * 85 ** np.arange(4, -1, -1)).sum(axis=1).astype("<u4")
    return words.view(f"<{stored['type']}").reshape(stored["shape"])


def packed_all(arrays: Any) -> Any:
    """Nested dicts of arrays, each packed."""
    if isinstance(arrays, Mapping):
        return {name: packed_all(part) for name, part in arrays.items()}
    return packed(arrays)
