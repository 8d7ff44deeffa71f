"""The work that is raced: its sizes, the initial weights and the batches, the same bits in every process.

B batch, T time steps, D input features, H hidden units, L layers, K classes.  A training step is forward, mean softmax
cross-entropy of a dense read-out of the last output, backward to all parameters, and an Adam update; inference is the
logits alone; a step of a stream is one time step of the recurrent layer from the state before it.  All is float32.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

CLASSES = 10
FEATURES = 28
MODES = {"train": "training", "infer": "inference", "stream": "one step at a time"}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
DIRECTIONS = ("forward", "reverse")
LEARNING_RATE = 1e-3
BATCHES = 2  # which a race goes round in

Weights = dict[str, np.ndarray]
Batch = tuple[np.ndarray, ...]  # x, labels and, of sequences of unequal length, their lengths


@dataclass(frozen=True)
class Case:
    """One case: a mode, its sizes, the recurrent cell, and in how many directions the layers read.

    lengths  whether sequences have lengths of their own, drawn uniformly from 1 ... T
    """

    mode: str
    B: int
    H: int
    T: int = 28
    L: int = 1
    D: int = FEATURES
    cell: str = "lstm"
    directions: int = 1
    lengths: bool = False

    def __str__(self) -> str:
        cell = "" if self.cell == "lstm" else f" {self.cell}"
        layers = "" if self.L == 1 else f" L={self.L}"
        width = "" if self.D == FEATURES else f" D={self.D}"
        both = "" if self.directions == 1 else " both directions"
        lengths = " lengths 1 ... T" if self.lengths else ""
        return f"{self.mode}{cell} B={self.B} H={self.H} T={self.T}{width}{layers}{both}{lengths}"

    @property
    def flops(self) -> float:
        """Floating-point operations of the matrix products of one step (a multiplication and an addition are two)."""
        total = 0.0
        for layer in range(self.L):
            width = self.layer_input(layer)
            products = width + self.H  # forward: W x + U h
            if self.mode == "train":
                products += self.H + (width + self.H) + (width if layer else 0)  # dh, the weights' gradient, dx
            steps = 1.0 if self.mode == "stream" else (self.T + 1) / 2 if self.lengths else self.T
            total += 2.0 * GATES[self.cell] * self.directions * steps * self.B * self.H * products
        return total

    def layer_input(self, layer: int) -> int:
        """Features that a layer reads."""
        return self.D if layer == 0 else self.directions * self.H

    def layers(self) -> list[tuple[int, str, str]]:
        """(layer, direction, what its weights' names begin with) of all layers and directions."""
        suffixes = dict(zip(DIRECTIONS, ("", "_reverse"), strict=True))
        pairs = [(layer, direction) for layer in range(self.L) for direction in DIRECTIONS[: self.directions]]
        return [(layer, direction, f"layer{layer}{suffixes[direction]}") for layer, direction in pairs]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a message or a file."""
        return asdict(self)


def both(**sizes: Any) -> list[Case]:
    """A training and an inference case of the same sizes."""
    return [Case(mode, **sizes) for mode in ("train", "infer")]


def quick_cases() -> list[Case]:
    """Four cases: a first impression in about a minute."""
    return [Case("train", 128, 128), Case("infer", 128, 128), Case("train", 16, 64), Case("infer", 1, 128)]


def grid_cases() -> list[Case]:
    """B in 1, 16, 128, 512 and H in 32 ... 1024 at T=28 with one layer, training and inference."""
    return [c for H in (32, 64, 128, 256, 512, 1024) for B in (1, 16, 128, 512) for c in both(B=B, H=H)]


def longer_and_deeper_cases() -> list[Case]:
    """Chosen cases with longer sequences, pixel by pixel, with several layers, and in both directions."""
    return [
        *both(B=16, H=128, T=128),
        *both(B=128, H=128, T=128),
        *both(B=128, H=512, T=128),
        *both(B=1, H=128, T=784),
        *both(B=128, H=128, T=784),
        *both(B=1, H=64, T=784, D=1),
        *both(B=16, H=64, T=784, D=1),
        *both(B=128, H=128, T=784, D=1),
        *both(B=128, H=128, L=2),
        *both(B=128, H=512, L=2),
        *both(B=64, H=200, L=3),
        *both(B=128, H=128, directions=2),
        *both(B=128, H=96, L=2, directions=2),
    ]


def other_layer_cases() -> list[Case]:
    """GRU and plain RNN."""
    return [
        *both(B=1, H=128, cell="gru"),
        *both(B=128, H=128, cell="gru"),
        *both(B=64, H=200, L=3, cell="gru"),
        *both(B=1, H=128, cell="rnn"),
        *both(B=128, H=128, cell="rnn"),
    ]


def stream_cases() -> list[Case]:
    """One sequence, a time step as it comes."""
    return [Case("stream", 1, H) for H in (16, 40, 128)]


def full_cases() -> list[Case]:
    """The grid and all chosen cases."""
    return grid_cases() + longer_and_deeper_cases() + other_layer_cases() + stream_cases()


def parse_case(text: str) -> list[Case]:
    """Cases from e.g. "B=128,H=256", "train,gru,B=1,H=128,T=784,L=2,D=1,both,lengths"; both modes where none is named.

    Raises ValueError for another form.
    """
    sizes: dict[str, Any] = {}
    modes: list[str] = []
    for part in text.split(","):
        match = re.fullmatch(r"([BHTLD])=([1-9]\d{0,5})", part)
        if part in MODES:
            modes.append(part)
        elif part in GATES and "cell" not in sizes:
            sizes["cell"] = part
        elif part == "both":
            sizes["directions"] = 2
        elif part == "lengths":
            sizes["lengths"] = True
        elif match and match[1] not in sizes:
            sizes[match[1]] = int(match[2])
        else:
            raise ValueError(
                f"a case is written like train,B=128,H=256,T=28,L=1,D=28,gru,both,lengths; found {part!r} in {text!r}"
            )
    if not {"B", "H"} <= set(sizes):
        raise ValueError(f"a case needs at least B and H, as in B=128,H=256; found {text!r}")
    found = [Case(mode, **sizes) for mode in modes or ("train", "infer")]
    if any(case.mode == "stream" and case != Case("stream", 1, case.H, case.T, D=case.D) for case in found):
        raise ValueError(f"a stream is one sequence through one LSTM layer, as in stream,B=1,H=128; found {text!r}")
    return found


def uniform(count: int, *key: object) -> np.ndarray:
    """float32 (count,) in [0, 1), the same bits under every version of NumPy (made from Philox's raw output)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return ((words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)).astype(np.float32)


def make_weights(case: Case) -> Weights:
    """Initial weights in our names and shapes: uniform in +-1/sqrt(H), as PyTorch starts.

    Gates are in the order i, f, o, g, or r, z, n.  A GRU has a second bias "b_h", which PyTorch and Keras train too.
    """
    rows = GATES[case.cell] * case.H
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, _, prefix in case.layers():
        shapes |= {f"{prefix}.W": (rows, case.layer_input(layer)), f"{prefix}.U": (rows, case.H)}
        shapes |= {f"{prefix}.{bias}": (rows,) for bias in (("b", "b_h") if case.cell == "gru" else ("b",))}
    shapes |= {"readout.W": (CLASSES, case.directions * case.H), "readout.b": (CLASSES,)}
    bound = np.float32(case.H**-0.5)
    return {
        name: ((2 * uniform(int(np.prod(shape)), "weights", name, case.H) - 1) * bound).reshape(shape)
        for name, shape in shapes.items()
    }


def make_batches(case: Case) -> list[Batch]:
    """Batches x (B, T, D), labels int64 (B,); the labels can be learnt from x, so the loss moves."""
    batches: list[Batch] = []
    for number in range(BATCHES):
        x = uniform(case.B * case.T * case.D, "x", number).reshape(case.B, case.T, case.D)
        labels = (uniform(case.B, "labels", number) * 3).astype(np.int64)
        x *= (1 + labels[:, None, None]).astype(np.float32) / 3
        lengths = 1 + (uniform(case.B, "lengths", number) * case.T).astype(np.int64)
        batches.append((x, labels, lengths) if case.lengths else (x, labels))
    return batches


def digest(weights: Weights, batches: Iterable[Batch]) -> str:
    """SHA-256 over all bits, to see that two processes made the same."""
    summed = hashlib.sha256()
    for array in [*weights.values(), *(array for batch in batches for array in batch)]:
        summed.update(np.ascontiguousarray(array).tobytes())
    return summed.hexdigest()


def reorder_gates(array: np.ndarray, order: str, own: str = "ifog") -> np.ndarray:
    """Row blocks, one per gate in the order `own`, of (4H, ...) in another order, such as "ifgo"."""
    blocks = dict(zip(own, np.split(array, len(own)), strict=True))
    return np.concatenate([blocks[gate] for gate in order])


def read_out(weights: Weights, h: np.ndarray) -> np.ndarray:
    """Logits (B, K) of a last output h (B, directions * H), for what has no read-out of its own."""
    return h @ weights["readout.W"].T + weights["readout.b"]


def mean_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The loss of logits (B, K) in float64."""
    z = logits.astype(np.float64)
    z = z - z.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(labels)), labels]))


def as_images(batches: list[Batch]) -> Batch:
    """The batches' samples one after the other as uint8 (N, T * D), which 1/255 scales, and labels (N,)."""
    x = np.concatenate([batch[0] for batch in batches])
    return np.rint(x.reshape(len(x), -1) * 255).astype(np.uint8), np.concatenate([batch[1] for batch in batches])


def batches_of_images(case: Case, batches: list[Batch]) -> list[Batch]:
    """The batches as `as_images` has them, as float32 (B, T, D) again: for those who take no bytes."""
    images, labels = as_images(batches)
    x = (images * np.float32(1 / 255)).reshape(-1, case.T, case.D)
    return [(x[k : k + case.B], labels[k : k + case.B]) for k in range(0, len(x), case.B)]
