"""What this tree computes, as SHA-256 sums: `python benchmarks/probe.py --kernel auto --threads 2`.

`python -m benchmarks compare` runs it in two trees.  It trains every recipe for some steps, then small models and
single layers of the kinds that no recipe has, and prints a JSON line for each as it goes::

    {"name": "recipe best", "parameters": "1f...", "optimizer": "c3...", "losses": "07...", "outputs": "9a..."}

Sums are over bits in order, never over names: two trees that call a parameter differently still agree.  The first line
says which `lstm_np` it was and what it read; the last one is {"done": true}.

This file is the only one that a tree with another training API has to adapt: its flags and the form of its lines stay.
It uses `lstm_np`, NumPy and the standard library alone, and what it needs beyond the public names is in `train_recipe`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

import lstm_np

STEPS = 50
HELD = 200  # images for validation at most: they cost time, and are evaluated as the test images are
K = 5  # classes of the small models
NESTEROV = {"momentum": 0.9, "nesterov": True}
Record = dict[str, str]

# name -> (arguments of SequenceClassifier, B, optimizer and its arguments, clip_norm)
MODELS: dict[str, tuple[dict[str, Any], int, tuple[str, dict[str, Any]], float | None]] = {
    "gru": ({"cell": "gru"}, 20, ("Adam", {}), None),
    "gru reset before": ({"cell": "gru_reset_before"}, 20, ("Adam", {"form": "hat"}), None),
    "rnn": ({"cell": "rnn"}, 20, ("RMSProp", {}), None),
    "rnn relu": ({"cell": "rnn_relu"}, 20, ("SGD", {"momentum": 0.9}), 1.0),
    "stacked, both directions": ({"num_layers": 3, "bidirectional": True, "dropout": 0.3}, 20, ("Adam", {}), 0.5),
    "gru both directions": ({"cell": "gru", "bidirectional": True, "num_layers": 2}, 20, ("Adam", {}), None),
    "rnn stacked, dropout": ({"cell": "rnn", "num_layers": 2, "dropout": 0.5}, 7, ("Adam", {}), None),
    "double bias": ({"bias": "double"}, 20, ("Adam", {}), None),
    "gru double bias": ({"cell": "gru", "bias": "double"}, 20, ("Adam", {}), None),
    "dropout of all outputs": (
        {"dropout": 0.4, "dropout_outputs": "all", "dropout_mask": "sequence", "read_out": "last_output"},
        20, ("RMSProp", {"form": "keras", "momentum": 0.5}), None,
    ),
    "both directions, last output": ({"bidirectional": True, "read_out": "last_output"}, 20, ("Adam", {}), None),
    "projection": ({"input_projection": 7, "input_projection_bias": 0.1}, 20, ("SGD", NESTEROV), 0.1),
    "forget bias at run": ({"forget_bias": 1.0, "forget_bias_at": "run"}, 20, ("Adam", {}), None),
    "softmax twice": ({"loss": "softmax_twice"}, 20, ("SGD", {}), None),
    "double precision": ({"dtype": "float64", "num_layers": 2}, 20, ("Adam", {}), None),
    "one sample": ({"num_layers": 2}, 1, ("Adam", {}), None),
    "one sample, both directions": ({"bidirectional": True}, 1, ("Adam", {}), None),
}  # fmt: skip

# (class, its arguments): single layers, with an initial state and gradients at every output
LAYERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("LSTM", {}),
    ("LSTM", {"bias": False}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "bias": "double"}),
    ("LSTM", {"dtype": "float64"}),
    ("GRU", {}),
    ("GRU", {"reset": "before", "bias": False}),
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "bias": "double", "bidirectional": True}),
)
SHAPES = ((1, 6, 5, 7), (3, 6, 5, 8), (24, 4, 3, 33), (40, 5, 9, 16))  # B, T, D, H of all of them
# of the LSTM alone: those for which a fast kernel may cut the batch, or choose another layout
LARGE = ((1, 12, 28, 128), (16, 8, 28, 512), (128, 28, 28, 128), (130, 5, 28, 100), (64, 4, 28, 512), (128, 300, 1, 32))


def digest(arrays: Iterable[Any]) -> str:
    """SHA-256 (hex) over the kind and the bits of arrays, in order; of what they are called and shaped nothing."""
    summed = hashlib.sha256()
    for array in map(np.asarray, arrays):
        summed.update(f"{array.dtype.str} {array.size};".encode())
        summed.update(np.ascontiguousarray(array).tobytes())
    return summed.hexdigest()


def optimizer_state(optimizer: Any) -> list[Any]:
    """What an optimizer has gathered: its vectors in order, how many steps it made, and its learning rate now."""
    return [*optimizer.slots.values(), np.int64(optimizer.steps), np.float64(optimizer.lr)]


# ---- recipes: the one place that needs more than the public names


@contextlib.contextmanager
def optimizers_made() -> Iterator[list[Any]]:
    """The optimizers that are made meanwhile: a run does not hand out its own."""
    from lstm_np.optimizers import Optimizer

    made, original = [], Optimizer.__init__

    def remember(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        made.append(self)

    Optimizer.__init__ = remember  # type: ignore[method-assign]
    try:
        yield made
    finally:
        Optimizer.__init__ = original  # type: ignore[method-assign]


def train_recipe(name: str, steps: int, backend: Any, kernel: str, data_dir: str | None) -> Record:
    """Train a recipe for `steps` steps on the data in a folder, or on the digits that scikit-learn has."""
    from lstm_np.training import Place, load_recipe, run
    from lstm_np.training.reporters import Reporter

    class Listener(Reporter):
        def note(self, text: str) -> None:
            pass

        def model(self, model: Any, *_: Any) -> None:
            self.trained = model
            self.losses: list[Any] = []

        def step(self, step: Any) -> None:
            self.losses += [step.loss, step.correct]

    recipe = load_recipe(name)
    changes: dict[str, dict[str, Any]] = {
        "train": {"max_steps": steps, "epochs": steps},
        "data": {"dataset": "digits" if data_dir is None else "mnist", "validation": min(recipe.data.validation, HELD)},
    }
    listener = Listener()
    with tempfile.TemporaryDirectory(prefix="lstm_np-probe-") as folder, optimizers_made() as made:
        place = Place(backend, kernel, data_dir=data_dir, offline=True, explicit=True, out=f"{folder}/run")
        outcome = run(recipe.changed(changes), place, listener)
    epochs = outcome.epochs
    measured = [outcome.test, *(epoch.train for epoch in epochs), *(epoch.validation for epoch in epochs)]
    return {
        "parameters": digest(listener.trained.params.values()),
        "optimizer": digest(optimizer_state(made[-1])),
        "losses": digest(listener.losses),
        "outputs": digest(np.array([m.loss, m.correct], np.float64) for m in measured if m is not None),
    }


def recipe_names() -> list[str]:
    """The recipes of this tree."""
    from lstm_np.training import recipe_names

    return recipe_names()


# ---- what no recipe has


def numbers(*key: int) -> np.random.Generator:
    """Random numbers of their own for each thing that is tried."""
    return np.random.default_rng([2026, *key])


def train_model(name: str, backend: Any, kernel: str) -> Record:
    """Fit a small model for a few epochs of whole and short batches, and classify with it."""
    settings, B, (rule, arguments), clip_norm = MODELS[name]
    T, D, H = 6, 4, 10
    rng = numbers(list(MODELS).index(name))
    model = lstm_np.SequenceClassifier(D, H, K, kernel=kernel, backend=backend, seed=3, **settings)
    dtype = settings.get("dtype", "float32")
    x, labels = rng.normal(size=(3 * B - B // 3, T, D)).astype(dtype), rng.integers(0, K, 3 * B - B // 3)
    optimizer = getattr(lstm_np, rule)(model.params, 0.01, **arguments)
    epochs = model.fit(x, labels, epochs=4, batch_size=B, optimizer=optimizer, clip_norm=clip_norm)
    return {
        "parameters": digest(model.params.values()),
        "optimizer": digest(optimizer_state(optimizer)),
        "losses": digest(np.array([e.train.loss, e.train.correct], np.float64) for e in epochs),
        "outputs": digest([model.predict_proba(x, batch_size=B)]),
    }


def run_layer(kind: str, settings: dict[str, Any], shape: tuple[int, ...], backend: Any, kernel: str) -> Record:
    """A layer's forward and backward pass from a state that is not zero, twice: the second from changed weights."""
    B, T, D, H = shape
    dtype = settings.get("dtype", "float32")
    layer = getattr(lstm_np, kind)(D, H, kernel=kernel, backend=backend, seed=5, **settings)
    directions = 2 if settings.get("bidirectional") else 1
    states = settings.get("num_layers", 1) * directions
    rng = numbers(*shape)

    def draw(*sizes: int) -> np.ndarray:
        return rng.normal(size=sizes).astype(dtype)

    def draw_state() -> Any:
        return (draw(states, B, H), draw(states, B, H)) if kind == "LSTM" else draw(states, B, H)

    def parts(state: Any) -> list[Any]:
        return list(state) if isinstance(state, tuple) else [state]

    outputs, gradients = [], []
    for _ in range(2):
        y, final, cache = layer.forward(draw(B, T, D), draw_state())
        dx, dstate, grads = layer.backward(cache, draw(B, T, directions * H), draw_state())
        outputs += [np.array(a) for a in (y, *parts(final))]
        gradients += [np.array(a) for a in (dx, *parts(dstate), *grads.values())]
        for name, array in layer.params.items():
            array -= np.asarray(0.01 * grads[name], array.dtype)
    return {"parameters": digest(layer.params.values()), "outputs": digest(outputs), "gradients": digest(gradients)}


def everything(arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Record]]]:
    """What is tried, by name."""
    backend, kernel = lstm_np.get_backend("numpy", threads=arguments.threads), arguments.kernel
    for name in recipe_names():
        yield f"recipe {name}", partial(train_recipe, name, arguments.steps, backend, kernel, arguments.data_dir)
    for name in MODELS:
        yield f"model {name}", partial(train_model, name, backend, kernel)
    layers = [(kind, settings, shape, kernel) for kind, settings in LAYERS for shape in SHAPES]
    layers += [("LSTM", {}, shape, kernel) for shape in LARGE]
    if kernel == "auto":
        layers += [("LSTM", {}, shape, "lean") for shape in (*SHAPES, *LARGE)]
    for kind, settings, shape, own in layers:
        words = [kind, *(f"{key} {value}" for key, value in settings.items()), *([own] if own == "lean" else [])]
        sizes = "B={} T={} D={} H={}".format(*shape)
        yield f"layer {', '.join(words)}, {sizes}", partial(run_layer, kind, settings, shape, backend, own)


def main(argv: list[str] | None = None) -> int:
    """Print the sums; the exit status."""
    parser = argparse.ArgumentParser(prog="probe", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--kernel", choices=("auto", "reference"), default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each recipe")
    parser.add_argument("--data-dir", help="folder with files of MNIST's form; without it scikit-learn's digits")
    parser.add_argument("--only", help="only what has this text in its name")
    arguments = parser.parse_args(argv)
    sys.modules.setdefault("matplotlib", None)  # type: ignore[arg-type]  # no curves are wanted
    print(json.dumps({"lstm_np": lstm_np.__file__, "data": arguments.data_dir or "digits"}), flush=True)
    for name, compute in everything(arguments):
        if arguments.only is not None and arguments.only not in name:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                record = compute()
            except Exception as error:  # what one tree cannot do is a finding, and the others go on
                record = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        print(json.dumps({"name": name, **record}), flush=True)
    print(json.dumps({"done": True}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
