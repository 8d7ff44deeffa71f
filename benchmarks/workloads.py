"""The work that is raced: its sizes, the initial weights and the batches, the same bits in every process.

B batch, T time steps, D input features, H hidden units, L layers, K classes.  A training step is forward, mean softmax
cross-entropy of a dense read-out of the last output, backward to all parameters, and an Adam update; inference is the
logits alone.  Everything is float32.
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
MODES = ("train", "infer")
LEARNING_RATE = 1e-3
BATCHES = 2  # which a race goes round in

Weights = dict[str, np.ndarray]
Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One case: a mode and its sizes."""

    mode: str
    B: int
    H: int
    T: int = 28
    L: int = 1
    D: int = FEATURES

    def __str__(self) -> str:
        layers = "" if self.L == 1 else f" L={self.L}"
        return f"{self.mode} B={self.B} H={self.H} T={self.T}{layers}"

    @property
    def flops(self) -> float:
        """Floating-point operations of the matrix products of one step (a multiplication and an addition are two)."""
        total = 0.0
        for layer in range(self.L):
            width = self.D if layer == 0 else self.H
            products = width + self.H  # forward: W x + U h
            if self.mode == "train":
                products += self.H + (width + self.H) + (width if layer else 0)  # dh, the weights' gradient, dx
            total += 8.0 * self.T * self.B * self.H * products
        return total

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a message or a file."""
        return asdict(self)


def both(**sizes: int) -> list[Case]:
    """A training and an inference case of the same sizes."""
    return [Case(mode, **sizes) for mode in MODES]


def quick_cases() -> list[Case]:
    """Four cases: a first impression in less than a minute."""
    return [Case("train", 128, 128), Case("infer", 128, 128), Case("train", 16, 64), Case("infer", 1, 128)]


def grid_cases() -> list[Case]:
    """B in 1, 16, 128, 512 and H in 32 ... 1024 at T=28 with one layer, training and inference."""
    return [c for H in (32, 64, 128, 256, 512, 1024) for B in (1, 16, 128, 512) for c in both(B=B, H=H)]


def longer_and_deeper_cases() -> list[Case]:
    """Chosen cases with longer sequences and with two layers."""
    return [
        *both(B=16, H=128, T=128),
        *both(B=128, H=128, T=128),
        *both(B=128, H=512, T=128),
        *both(B=1, H=128, T=784),
        *both(B=128, H=128, T=784),
        *both(B=128, H=128, L=2),
        *both(B=128, H=512, L=2),
    ]


def full_cases() -> list[Case]:
    """The grid and the chosen cases."""
    return grid_cases() + longer_and_deeper_cases()


def parse_case(text: str) -> list[Case]:
    """Cases from e.g. "B=128,H=256", "train,B=1,H=128,T=784,L=2"; both modes where none is named.

    Raises ValueError for another form.
    """
    sizes: dict[str, int] = {}
    modes: list[str] = []
    for part in text.split(","):
        match = re.fullmatch(r"([BHTL])=([1-9]\d{0,5})", part)
        if part in MODES:
            modes.append(part)
        elif match and match[1] not in sizes:
            sizes[match[1]] = int(match[2])
        else:
            raise ValueError(f"a case is written like train,B=128,H=256,T=28,L=1; found {part!r} in {text!r}")
    if not {"B", "H"} <= set(sizes):
        raise ValueError(f"a case needs at least B and H, as in B=128,H=256; found {text!r}")
    return [Case(mode, **sizes) for mode in modes or MODES]


def uniform(count: int, *key: object) -> np.ndarray:
    """float32 (count,) in [0, 1), the same bits under every version of NumPy (made from Philox's raw output)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return ((words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)).astype(np.float32)


def make_weights(case: Case) -> Weights:
    """Initial weights in our names and shapes, gates i, f, o, g: uniform in +-1/sqrt(H), as PyTorch starts."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(case.L):
        width = case.D if layer == 0 else case.H
        shapes |= {f"layer{layer}.W": (4 * case.H, width), f"layer{layer}.U": (4 * case.H, case.H)}
        shapes[f"layer{layer}.b"] = (4 * case.H,)
    shapes |= {"readout.W": (CLASSES, case.H), "readout.b": (CLASSES,)}
    bound = np.float32(case.H**-0.5)
    return {
        name: ((2 * uniform(int(np.prod(shape)), "weights", name, case.H) - 1) * bound).reshape(shape)
        for name, shape in shapes.items()
    }


def make_batches(case: Case) -> list[Batch]:
    """Batches x (B, T, D), labels int64 (B,); the labels can be learnt from x, so the loss moves."""
    batches = []
    for number in range(BATCHES):
        x = uniform(case.B * case.T * case.D, "x", number).reshape(case.B, case.T, case.D)
        labels = (uniform(case.B, "labels", number) * 3).astype(np.int64)
        x *= (1 + labels[:, None, None]).astype(np.float32) / 3
        batches.append((x, labels))
    return batches


def digest(weights: Weights, batches: Iterable[Batch]) -> str:
    """SHA-256 over all bits, to see that two processes made the same."""
    summed = hashlib.sha256()
    for array in [*weights.values(), *(array for batch in batches for array in batch)]:
        summed.update(np.ascontiguousarray(array).tobytes())
    return summed.hexdigest()


def reorder_gates(array: np.ndarray, order: str) -> np.ndarray:
    """Row blocks i, f, o, g of (4H, ...) in another order, such as "ifgo"."""
    blocks = dict(zip("ifog", np.split(array, 4), strict=True))
    return np.concatenate([blocks[gate] for gate in order])


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
