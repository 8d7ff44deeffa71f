"""`python -m benchmarks.characters`: bits per character of a character LSTM here, in PyTorch, and of min-char-rnn.

All three read the same text, each character of its training part as often, and are measured on the same held-out part.

    ours       `lstm_np.text`: B streams side by side, T characters per step, truncated backpropagation, Adam
    torch      `nn.LSTM` + `nn.Linear`, the same initial weights, the same batches, Adam, the state handed on
    min-char-rnn   Karpathy's recipe (2015): a plain RNN of 100 units, one stream, 25 characters per step, weights drawn
               with standard deviation 0.01, Adagrad with rate 0.1, each element of the gradients clipped to -5 ... 5
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import lstm_np
from benchmarks import machine, results
from benchmarks.flags import Parser, at_least_one
from lstm_np import loop, text
from lstm_np.errors import LstmNpError
from lstm_np.text.records import Source
from lstm_np.text.run import cut
from lstm_np.text.settings import defaults

KIND = "characters"
COMPARED = 20  # steps whose losses are compared one by one
RNN_UNITS, RNN_STEPS, RNN_RATE, RNN_CLIP, RNN_SCALE = 100, 25, 0.1, 5.0, 0.01


@dataclass(frozen=True)
class Setup:
    """What all of them learn from: the settings are the text command's own defaults, but for the epochs."""

    source: Source
    epochs: int
    seed: int
    threads: int
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None:
            object.__setattr__(self, "source", Source(self.source.path, self.source.text[: self.limit]))

    @property
    def settings(self) -> Any:
        """Those of the run."""
        return defaults().changed({"train": {"epochs": self.epochs, "seed": self.seed}})

    def parts(self) -> tuple[text.Vocabulary, text.TextBatches, text.TextBatches]:
        """The vocabulary, the batches to learn from, and those that are held out."""
        vocabulary = text.Vocabulary.of(self.source.text)
        train, held_out = cut(self.source, vocabulary, self.settings)
        assert held_out is not None
        return vocabulary, train, held_out

    def model(self, vocabulary: text.Vocabulary) -> lstm_np.SequenceClassifier:
        """The model of the text command, untrained."""
        backend = lstm_np.get_backend("numpy", threads=self.threads)
        return text.make_model(vocabulary, self.settings.model.hidden_size, seed=self.seed, backend=backend)


Say = Callable[[str], None]


def ours(setup: Setup, say: Say) -> dict[str, Any]:
    """{"losses": of the first steps, "bits": on what is held out after each epoch, "seconds", "parameters"}."""
    vocabulary, train, held_out = setup.parts()
    model, settings = setup.model(vocabulary), setup.settings
    optimizer = lstm_np.Adam(model.params, lr=settings.optimizer.learning_rate)
    steps = model.training_steps(optimizer, train, clip_norm=settings.train.clip_norm)
    losses, bits = list[float](), list[float]()

    def on_step(step: loop.Step) -> None:
        if step.number <= COMPARED:
            losses.append(float(step.loss))

    def on_epoch(record: loop.Epoch) -> None:
        assert record.validation is not None
        bits.append(text.bits(record.validation.loss))
        say(f"epoch {record.number}/{setup.epochs}: {bits[-1]:.4f} bits per character")

    history = loop.train(
        steps,
        epochs=setup.epochs,
        validate=lambda: model.evaluate_batches(held_out.epoch(0)),
        on_step=on_step,
        on_epoch=on_epoch,
    )
    return {"losses": losses, "bits": bits, "seconds": sum(record.seconds for record in history),
            "parameters": int(model.params.flat.size)}  # fmt: skip


def torch(setup: Setup, say: Say) -> dict[str, Any]:
    """The same by PyTorch."""
    import torch as pytorch
    from torch.nn.functional import cross_entropy

    from benchmarks.peers.torch import Classifier

    pytorch.set_num_threads(setup.threads)
    vocabulary, train, held_out = setup.parts()
    settings, V = setup.settings, vocabulary.size
    module = Classifier(V, settings.model.hidden_size, V)
    module.copy_weights(setup.model(vocabulary).params.to_host())
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = pytorch.optim.Adam(trained, lr=settings.optimizer.learning_rate, fused=True)

    def loss_of(x: np.ndarray, labels: np.ndarray, state: Any) -> tuple[Any, Any]:
        y, state = module.recurrent(pytorch.from_numpy(np.ascontiguousarray(x.transpose(1, 0, 2))), state)
        truth = pytorch.from_numpy(np.ascontiguousarray(labels.T))
        return cross_entropy(module.readout(y).reshape(-1, V), truth.reshape(-1)), state

    losses, bits, seconds = list[float](), list[float](), 0.0
    for epoch in range(setup.epochs):
        began, state = time.perf_counter(), None
        for x, labels in train.epoch(epoch):
            optimizer.zero_grad(set_to_none=True)
            loss, state = loss_of(x, labels, state)
            loss.backward()
            pytorch.nn.utils.clip_grad_norm_(trained, settings.train.clip_norm)
            optimizer.step()
            state = tuple(part.detach() for part in state)
            losses.append(loss.item())
        seconds += time.perf_counter() - began
        total, count, state = 0.0, 0, None
        with pytorch.inference_mode():
            for x, labels in held_out.epoch(0):
                loss, state = loss_of(x, labels, state)
                total, count = total + loss.item() * labels.size, count + labels.size
        bits.append(text.bits(total / count))
        say(f"epoch {epoch + 1}/{setup.epochs}: {bits[-1]:.4f} bits per character")
    parameters = sum(parameter.numel() for parameter in trained)
    return {"losses": losses[:COMPARED], "bits": bits, "seconds": seconds, "parameters": parameters}


def min_char_rnn(setup: Setup, say: Say) -> dict[str, Any]:
    """The recipe in NumPy: h_t = tanh(W x_t + U h_t-1 + b), logits V h_t + d; the text is read as one stream."""
    vocabulary, _, held_out = setup.parts()
    N, H, rng = vocabulary.size, RNN_UNITS, np.random.default_rng(setup.seed)
    shapes = {"W": (H, N), "U": (H, H), "b": (H,), "V": (N, H), "d": (N,)}
    params = {
        name: RNN_SCALE * rng.standard_normal(shape) if len(shape) == 2 else np.zeros(shape)
        for name, shape in shapes.items()
    }
    squares = {name: np.zeros(shape) for name, shape in shapes.items()}
    codes = vocabulary.encode(setup.source.text)
    codes = codes[: len(codes) - round(len(codes) * setup.settings.text.validation)]
    bits, seconds = list[float](), 0.0
    for epoch in range(setup.epochs):
        began, h = time.perf_counter(), np.zeros(H)
        for start in range(0, len(codes) - RNN_STEPS - 1, RNN_STEPS):
            read = codes[start : start + RNN_STEPS + 1]
            grads, h = rnn_gradients(params, read[:-1], read[1:], h)
            for name, grad in grads.items():
                np.clip(grad, -RNN_CLIP, RNN_CLIP, out=grad)
                squares[name] += grad * grad
                params[name] -= RNN_RATE * grad / np.sqrt(squares[name] + 1e-8)
        seconds += time.perf_counter() - began
        bits.append(text.bits(rnn_loss(params, held_out)))
        say(f"epoch {epoch + 1}/{setup.epochs}: {bits[-1]:.4f} bits per character")
    return {"bits": bits, "seconds": seconds, "parameters": sum(math.prod(shape) for shape in shapes.values())}


def rnn_gradients(
    params: dict[str, np.ndarray], read: np.ndarray, wanted: np.ndarray, h: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Gradients of the summed cross-entropy of characters `wanted` (T,) after `read` (T,), and the state after them."""
    states = [h]
    for code in read:
        states.append(np.tanh(params["W"][:, code] + params["U"] @ states[-1] + params["b"]))
    after = np.stack(states[1:], axis=1)  # (H, T)
    logits = params["V"] @ after + params["d"][:, None]
    p = np.exp(logits - logits.max(axis=0))
    p /= p.sum(axis=0)
    p[wanted, np.arange(len(wanted))] -= 1
    grads = {"V": p @ after.T, "d": p.sum(axis=1), "W": np.zeros_like(params["W"])}
    from_above, dh, das = params["V"].T @ p, np.zeros_like(h), np.empty_like(after)
    for t in reversed(range(len(read))):
        das[:, t] = (1 - after[:, t] ** 2) * (from_above[:, t] + dh)
        dh = params["U"].T @ das[:, t]
    np.add.at(grads["W"].T, read, das.T)
    grads["U"], grads["b"] = das @ np.stack(states[:-1], axis=1).T, das.sum(axis=1)
    return grads, states[-1]


def rnn_loss(params: dict[str, np.ndarray], batches: text.TextBatches) -> float:
    """The mean cross-entropy (nats) over batches, the state handed on from each to the next."""
    total, count, h = 0.0, 0, np.zeros((RNN_UNITS, batches.batch_size))
    for x, labels in batches.epoch(0):
        for t in range(labels.shape[1]):
            h = np.tanh(params["W"] @ x[:, t].T + params["U"] @ h + params["b"][:, None])
            logits = params["V"] @ h + params["d"][:, None]
            top = logits.max(axis=0)
            chosen = logits[labels[:, t], np.arange(len(labels))]
            total += float((top + np.log(np.exp(logits - top).sum(axis=0)) - chosen).sum())
            count += len(labels)
    return total / count


CONTESTANTS: dict[str, Callable[[Setup, Say], dict[str, Any]]] = {
    "ours": ours,
    "torch": torch,
    "min-char-rnn": min_char_rnn,
}
NAMES = {"ours": "lstm_np, LSTM({H})", "torch": "PyTorch, LSTM({H})", "min-char-rnn": f"min-char-rnn, RNN({RNN_UNITS})"}


def render(document: dict[str, Any]) -> str:
    """The table with what it was measured on, as docs/text.md has it."""
    source, settings = document["source"], document["settings"]
    which = "the generated example" if source["path"] is None else source["path"]
    apart = document.get("first_losses_apart")
    said = (
        f"{which[0].upper()}{which[1:]}, {source['characters']:,} characters, of which "
        f"{document['train_characters']:,} are read {document['epochs']} times and "
        f"{document['held_out_characters']:,} are held out to measure on. LSTMs: "
        f"{settings['train']['batch_size']} streams, {settings['text']['sequence_length']} characters per step, Adam, "
        f"learning rate {settings['optimizer']['learning_rate']:g}, gradients clipped to "
        f"{settings['train']['clip_norm']:g}. Seconds are those of training."
    )
    first = (
        [f"The first {COMPARED} losses of the two LSTMs differ by {apart:.1g} of themselves at most."] if apart else []
    )
    return "\n".join([*table(document), "", " ".join([said, *first, machine.in_words(document)])])


def table(document: dict[str, Any]) -> list[str]:
    """The results as a Markdown table: bits per character of each seed after the last epoch."""
    lines = [
        "| model | parameters | bits per character, each seed | mean | perplexity | seconds |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for name, runs in document["contestants"].items():
        last = [run["bits"][-1] for run in runs]
        mean = sum(last) / len(last)
        lines.append(
            f"| {NAMES[name].format(H=document['settings']['model']['hidden_size'])} | {runs[0]['parameters']:,} | "
            f"{', '.join(f'{value:.4f}' for value in last)} | **{mean:.4f}** | {2**mean:.3f} | "
            f"{sum(run['seconds'] for run in runs) / len(runs):.1f} |"
        )
    return lines


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m benchmarks.characters", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", metavar="FILE", help="a text (default: the generated example)")
    parser.add_argument("--epochs", type=at_least_one, default=10, help="(default 10)")
    parser.add_argument("--seeds", nargs="+", type=at_least_one, default=[1, 2, 3], help="(default 1 2 3)")
    parser.add_argument("--threads", type=at_least_one, default=2, help="CPU cores for everybody (default 2)")
    parser.add_argument("--limit", type=at_least_one, help="only the first N characters")
    parser.add_argument("--out", help="folder for characters.json (default: benchmarks/results)")
    parser.add_argument("--table", action="store_true", help="print the table of the results, train nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train all, print, write the result file; the exit status."""
    arguments = make_parser().parse_args(argv)
    try:
        if arguments.table:
            print("\n".join(table(results.read(KIND, arguments.out))))
            return 0
        print(
            "\n".join(
                [*table(compare(arguments)), f"written: {results.FOLDER if arguments.out is None else arguments.out}"]
            )
        )
    except (LstmNpError, results.ResultError, OSError) as error:
        print(f"benchmarks.characters: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train each contestant with each seed; the result document, which is written after each of them.

    Results of the same text and settings that the file has already are kept.
    """
    source = Source.read(arguments.file)
    setups = [Setup(source, arguments.epochs, seed, arguments.threads, arguments.limit) for seed in arguments.seeds]
    _, train, held_out = setups[0].parts()
    settings = setups[0].settings.changed({"train": {"seed": 0}}).tables
    where = None if source.path is None else source.path.name
    about = {
        "source": {**setups[0].source.state(), "path": where}, "settings": settings, "epochs": arguments.epochs,
        "train_characters": train.length * train.batch_size, "versions": {"torch": machine.version_of("torch")},
        "held_out_characters": held_out.length * held_out.batch_size,
    }  # fmt: skip
    document = {
        **machine.header(KIND, arguments.threads),
        **about,
        "contestants": _kept(about, arguments.threads, arguments.out),
    }
    for name, trainer in CONTESTANTS.items():
        if name == "torch" and importlib.util.find_spec("torch") is None:
            continue
        runs = document["contestants"].setdefault(name, [])
        for setup in setups:
            if any(run["seed"] == setup.seed for run in runs):
                continue

            def say(line: str, title: str = f"{name}, seed {setup.seed}") -> None:
                print(f"{title}, {line}", flush=True)

            runs.append({"seed": setup.seed, **trainer(setup, say)})
            document["first_losses_apart"] = _apart(document["contestants"])
            results.write(document, arguments.out)
    return document


def _kept(about: dict[str, Any], threads: int, folder: str | None) -> dict[str, Any]:
    """What a result file of the same text, settings, threads and engine has by now."""
    try:
        found = results.read(KIND, folder)
    except results.ResultError:
        return {}
    plain = {**json.loads(json.dumps(about)), "threads": threads}
    same = all(found.get(name) == value for name, value in plain.items()) and machine.unchanged(found["commit"])
    return dict(found["contestants"]) if same else {}


def _apart(contestants: dict[str, Any]) -> float | None:
    """By which share of them at most the first losses of the two LSTMs differ; None where one of them has none."""
    pairs = [
        (mine["losses"], theirs["losses"])
        for mine in contestants.get("ours", [])
        for theirs in contestants.get("torch", [])
        if mine["seed"] == theirs["seed"]
    ]
    apart = [abs(one - other) / other for pair in pairs for one, other in zip(*pair, strict=True)]
    return max(apart, default=None)


if __name__ == "__main__":
    sys.exit(main())
