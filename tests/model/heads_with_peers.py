"""Models with every loss and everything that is read, compared with PyTorch and Keras in float64.

    python -m tests.model.heads_with_peers [torch] [keras]

prints a table: the worst relative error of the loss, of all gradients, and of all parameters after ten steps (SGD with
momentum; each step from two batches, whose gradients are accumulated), an array's largest difference over its largest
entry, over sequences of unequal length and sample weights.  A peer that is not installed is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import lstm_np
from tests.model.cases import LOSSES, READ_OUTS, B, D, H, K, T, inputs, make, targets

LIMIT = 1e-12
STEPS, RATE, MOMENTUM = 10, 0.25, 0.875  # which float32 has exactly: Keras rounds them to it
LENGTHS = np.array([5, 1, 3, 4])
WEIGHTS = np.array([0.5, 2.0, 1.0, 0.25])
KINDS = [kind for kind in LOSSES if kind != "softmax, twice"]  # a mistake that no peer makes
KERAS_KINDS = ("softmax", "softmax, smoothed", "binary, plain", "squared", "absolute", "huber")


def relative(found: Any, expected: Any) -> float:
    """Largest difference over the largest entry."""
    expected = np.asarray(expected)
    return float(np.abs(np.asarray(found) - expected).max() / max(np.abs(expected).max(), 1e-300))


def gates(array: Any) -> np.ndarray:
    """Row blocks i, f, o, g as i, f, g, o, which PyTorch and Keras have, and back."""
    i, f, third, fourth = np.split(np.asarray(array), 4)
    return np.concatenate([i, f, fourth, third])


# ---- PyTorch


class Torch:
    """The model in PyTorch, with the same parameters."""

    def __init__(self, model: Any) -> None:
        self.torch = torch = importlib.import_module("torch")
        self.model, config = model, model.config
        self.lstm = torch.nn.LSTM(
            D, H, config["num_layers"], bidirectional=config["bidirectional"], batch_first=True, dtype=torch.float64
        )
        named = dict(self.lstm.named_parameters())
        self.own: dict[str, Any] = {}
        for name, array in model.params.items():
            if name.startswith("readout"):
                self.own[name] = torch.tensor(np.array(array), requires_grad=True)
                continue
            layer, _, short = name.partition(".")
            suffix = layer.replace("layer", "_l", 1)
            parameter = named[{"W": "weight_ih", "U": "weight_hh", "b": "bias_ih"}[short] + suffix]
            parameter.data.copy_(torch.tensor(gates(array)))
            named[f"bias_hh{suffix}"].data.zero_()
            named[f"bias_hh{suffix}"].requires_grad_(False)
            self.own[name] = parameter

    def outputs(self, x: np.ndarray, lengths: np.ndarray) -> Any:
        """(B, K) or (B, T, K)."""
        torch, rnn = self.torch, self.torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(torch.tensor(x), torch.tensor(lengths), True, enforce_sorted=False)
        y, (h, _) = self.lstm(packed)
        y, _ = rnn.pad_packed_sequence(y, True, total_length=x.shape[1])
        n, real = torch.tensor(lengths), torch.arange(x.shape[1])[None, :] < torch.tensor(lengths)[:, None]
        how = self.model.read_out
        if how == "final_state":
            read = torch.cat(list(h[-2:] if self.lstm.bidirectional else h[-1:]), dim=1)
        elif how == "last_output":
            read = y[torch.arange(len(x)), n - 1]
        elif how == "mean":
            read = y.sum(dim=1) / n[:, None]
        elif how == "max":
            read = y.masked_fill(~real[:, :, None], -torch.inf).amax(dim=1)
        else:
            read = y
        return read @ self.own["readout.W"].T + self.own["readout.b"]

    def loss(self, z: Any, y: np.ndarray, lengths: np.ndarray, s: np.ndarray) -> tuple[Any, Any]:
        """(sum of the weighted losses, sum of the weights)."""
        torch, F, config = self.torch, self.torch.nn.functional, self.model.config
        each = self.model.read_out == "each_step"
        real = np.arange(T) < lengths[:, None] if each else np.ones(len(s), bool)
        counts = torch.tensor(np.where(real, s[:, None] if each else s, 0.0))
        w, e = config.get("class_weights"), config.get("label_smoothing", 0.0)
        w = None if w is None else torch.tensor(w, dtype=torch.float64)
        name = config["loss"]
        if name in ("squared", "absolute", "huber"):
            functions = {"squared": F.mse_loss, "absolute": F.l1_loss}
            more = {"delta": config["huber_delta"]} if name == "huber" else {}
            losses = functions.get(name, F.huber_loss)(z, torch.tensor(y), reduction="none", **more).mean(dim=-1)
            return (losses * counts).sum(), counts.sum()
        if name == "binary":
            counts = counts[..., None] * torch.tensor((y != config["ignored_label"]) * 1.0)
            t = torch.tensor(np.where(y == config["ignored_label"], 0, y) * (1.0 - e) + 0.5 * e)
            losses = F.binary_cross_entropy_with_logits(z, t, reduction="none", pos_weight=w)
            return (losses * counts).sum(), counts.sum()
        if y.dtype.kind == "f":
            flat = F.cross_entropy(z.reshape(-1, K), torch.tensor(y).reshape(-1, K), weight=w, reduction="none")
            return (flat * counts.reshape(-1)).sum(), counts.sum()
        ignored = -100 if config["ignored_label"] is None else config["ignored_label"]
        labels = torch.tensor(y).reshape(-1)
        flat = F.cross_entropy(
            z.reshape(-1, K), labels, weight=w, ignore_index=ignored, label_smoothing=e, reduction="none"
        )
        counts = counts.reshape(-1) * (labels != ignored)
        of_labels = 1.0 if w is None else w[labels.clamp(min=0)]
        return (flat * counts).sum(), (counts * of_labels).sum()

    def gradients(self, x: np.ndarray, y: np.ndarray, lengths: np.ndarray, s: np.ndarray) -> tuple[float, Any]:
        """(mean loss, gradients by our names, in our order)."""
        total, weight = self.loss(self.outputs(x, lengths), y, lengths, s)
        loss = total / weight
        found = self.torch.autograd.grad(loss, list(self.own.values()))
        return loss.item(), {name: self.ours(name, g) for name, g in zip(self.own, found, strict=True)}

    def ours(self, name: str, tensor: Any) -> np.ndarray:
        """A tensor in our order of the gates."""
        array = tensor.detach().numpy()
        return array if name.startswith("readout") else gates(array)

    def train(self, batches: list[Any]) -> dict[str, np.ndarray]:
        """The parameters after steps that are made of two batches each."""
        optimizer = self.torch.optim.SGD(self.own.values(), lr=RATE, momentum=MOMENTUM)
        for _ in range(STEPS):
            optimizer.zero_grad()
            parts = [self.loss(self.outputs(x, n), y, n, s) for x, y, n, s in batches]
            whole = sum(weight for _, weight in parts)
            for total, _ in parts:
                (total / whole).backward()
            optimizer.step()
        return {name: self.ours(name, tensor) for name, tensor in self.own.items()}


# ---- Keras


class Keras:
    """The model in Keras, one direction, with the same parameters."""

    def __init__(self, model: Any) -> None:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self.keras, self.tf = importlib.import_module("keras"), importlib.import_module("tensorflow")
        self.model, p = model, model.params
        self.lstm = self.keras.layers.LSTM(H, return_sequences=True, dtype="float64")
        self.dense = self.keras.layers.Dense(K, dtype="float64")
        self.lstm.build((None, None, D))
        self.dense.build((None, H))
        self.lstm.set_weights([gates(p[f"layer0.{name}"]).T for name in ("W", "U", "b")])
        self.dense.set_weights([p["readout.W"].T, p["readout.b"]])
        self.variables = [*self.lstm.trainable_variables, *self.dense.trainable_variables]

    def loss(self, x: np.ndarray, y: np.ndarray, lengths: np.ndarray, s: np.ndarray) -> Any:
        """The weighted mean."""
        keras, tf, config = self.keras, self.tf, self.model.config
        mask = np.arange(T) < lengths[:, None]
        # a copy has no mask of Keras's, by which its losses would divide on their own
        h, how = tf.identity(self.lstm(tf.constant(x), mask=tf.constant(mask))), self.model.read_out
        if how in ("final_state", "last_output"):
            h = h[:, -1, :]  # Keras holds an output where there is no step
        elif how == "mean":
            h = keras.layers.GlobalAveragePooling1D(dtype="float64")(h, mask=tf.constant(mask))
        elif how == "max":
            h = tf.reduce_max(tf.where(mask[:, :, None], h, -np.inf), axis=1)
        z = self.dense(h)
        e, losses = config.get("label_smoothing", 0.0), keras.losses
        functions = {
            "softmax": lambda: losses.CategoricalCrossentropy(True, e, dtype="float64"),
            "binary": lambda: losses.BinaryCrossentropy(True, e, dtype="float64"),
            "squared": lambda: losses.MeanSquaredError(dtype="float64"),
            "absolute": lambda: losses.MeanAbsoluteError(dtype="float64"),
            "huber": lambda: losses.Huber(config["huber_delta"], dtype="float64"),
        }
        counts = np.where(mask, s[:, None], 0.0) if how == "each_step" else s
        y = np.eye(K)[y] if config["loss"] == "softmax" else y * 1.0
        # Keras divides by how many there are, also where they are weighted
        mean = functions[config["loss"]]()(tf.constant(y), z, sample_weight=tf.constant(counts))
        return mean * counts.size / counts.sum()

    def gradients(self, x: np.ndarray, y: np.ndarray, lengths: np.ndarray, s: np.ndarray) -> tuple[float, Any]:
        """As `Torch.gradients`."""
        with self.tf.GradientTape() as tape:
            loss = self.loss(x, y, lengths, s)
        found = tape.gradient(loss, [variable.value for variable in self.variables])
        return float(loss), self.named([self.tf.convert_to_tensor(g).numpy() for g in found])

    def named(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays of the variables by our names, in our order of the gates."""
        W, U, b, out, bias = arrays
        return {"layer0.W": gates(W.T), "layer0.U": gates(U.T), "layer0.b": gates(b), "readout.W": out.T,
                "readout.b": bias}  # fmt: skip

    def train(self, batches: list[Any]) -> dict[str, np.ndarray]:
        """As `Torch.train`, of the batches as one: Keras accumulates by means that are not weighted."""
        optimizer = self.keras.optimizers.SGD(RATE, MOMENTUM)
        x, y, lengths, s = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        for _ in range(STEPS):
            with self.tf.GradientTape() as tape:
                loss = self.loss(x, y, lengths, s)
            optimizer.apply(tape.gradient(loss, [v.value for v in self.variables]), self.variables)
        return self.named([variable.numpy() for variable in self.variables])


# ---- both


def batches_of(kind: str, each: bool) -> list[Any]:
    """Two batches of which the second has another order, as (x, y, lengths, weights)."""
    first = inputs(), targets(kind, each), LENGTHS, WEIGHTS
    return [first, (inputs(seed=5), targets(kind, each, seed=6), LENGTHS[::-1].copy(), WEIGHTS[::-1].copy())]


def model_of(kind: str, **options: Any) -> Any:
    """A model of `LOSSES`, or of one that Keras has."""
    if kind == "softmax, smoothed":
        return made_as(make("softmax", **options), lstm_np.SequenceClassifier(D, H, K, label_smoothing=0.1,
                       dtype="float64", **options))  # fmt: skip
    if kind == "binary, plain":
        return made_as(make("softmax", **options), lstm_np.SequenceClassifier(D, H, K, loss="binary",
                       label_smoothing=0.2, dtype="float64", **options))  # fmt: skip
    return make(kind, **options)


def made_as(model: Any, other: Any) -> Any:
    """`other` with the parameters of `model`."""
    other.params = model.params
    return other


def errors_of(peer: type[Any], kind: str, **options: Any) -> tuple[float, float, float]:
    """Of loss, gradients, and parameters after ten steps."""
    each = options["read_out"] == "each_step"
    batches = batches_of("softmax" if kind == "softmax, smoothed" else kind.replace(", plain", ""), each)
    if kind == "binary, plain":
        batches = [(x, np.where(y == 5, 1, y), n, s) for x, y, n, s in batches]
    model = model_of(kind, **options)
    x, y, lengths, s = batches[0]
    loss, grads = model.loss_and_gradients(x, y, lengths=lengths, sample_weight=s)
    theirs_loss, theirs = peer(model).gradients(x, y, lengths, s)
    of_gradients = max(relative(grads[name], theirs[name]) for name in theirs)
    trained = peer(model).train(batches)
    steps = model.training_steps(lstm_np.SGD(model.params, lr=RATE, momentum=MOMENTUM), accumulate=2)
    for number in range(1, STEPS + 1):
        steps.step(batches, number)
    return (
        relative(loss, theirs_loss),
        of_gradients,
        max(relative(model.params[name], trained[name]) for name in trained),
    )


def table(peers: list[str]) -> Iterator[str]:
    """Lines of Markdown; each row is the worst of all that can be read."""
    yield "| peer | loss | loss error | gradients | ten steps |"
    yield "|---|---|---|---|---|"
    shapes = {"": {}, ", both directions, two layers": {"bidirectional": True, "num_layers": 2}}
    for name, peer, kinds in (("torch", Torch, KINDS), ("keras", Keras, KERAS_KINDS)):
        if name not in peers:
            continue
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed", file=sys.stderr)
            continue
        version = importlib.import_module(name).__version__.partition("+")[0]
        for kind in kinds:
            for shape, options in shapes.items() if peer is Torch else [("", {})]:
                found = [errors_of(peer, kind, read_out=how, **options) for how in READ_OUTS]
                worst = [max(column) for column in zip(*found, strict=True)]
                cells = " | ".join(f"{error:.1e}" for error in worst)
                mark = "" if max(worst) <= LIMIT else " **beyond the limit**"
                yield f"| {name} {version} | {kind}{shape} | {cells} |{mark}"


if __name__ == "__main__":
    assert len(LENGTHS) == B
    for line in table(sys.argv[1:] or ["torch", "keras"]):
        print(line, flush=True)
