"""How large the parts of a GPU run are: as they are for, or so small that each takes a moment."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.race import Pace
from benchmarks.workloads import Case

# shorter slots would catch clocks that are still rising; a step takes some 50 us at least
PACE = Pace(rounds=5, slot=0.2, most=5000)
GRAPHED = ("gpu-torch-graph", "gpu-torch-graph-tf32")
PEERS = (*GRAPHED, "gpu-torch", "gpu-torch-tf32", "gpu-jax")


def _first_cases() -> tuple[Case, ...]:
    """Eight that say the most: the main one, larger and smaller layers and batches, a long sequence."""
    sizes = ((128, 128, 28), (128, 256, 28), (128, 512, 28), (32, 128, 28), (512, 128, 28), (1, 128, 28),
             (128, 128, 784), (128, 1024, 28))  # fmt: skip
    return tuple(Case("train", B, H, T) for B, H, T in sizes)


def _other_cases() -> tuple[Case, ...]:
    """The grid without them, and inference."""
    grid = [Case("train", B, H, T) for T in (28, 784) for B in (128, 32, 512, 1) for H in (128, 512, 256, 64, 1024)]
    infer = [Case("infer", B, H) for B in (1, 128) for H in (128, 512)]
    first = _first_cases()
    return tuple(infer + [case for case in grid if case not in first])


@dataclass(frozen=True)
class PartSizes:
    """What each part measures.

    shapes    (D, H, T, B) of the conformance checks that come first; `more_shapes` the others
    curves    (B, H, T) of the device step's loss curves
    steps     (B, H, T) of the steps whose launches are timed one by one
    variants  (B, H, T) of the one-launch kernels whose mappings are compared, and how many of each direction
    checked   (B, H, T) of the steps that run under a sanitizer
    mnist     epochs, H, B, and images where there is no data
    race      cases that are raced first, and their peers; `rest` the others
    repeats   launches of a kernel between two events
    """

    # the main one; H = 2 mod 4; a large H
    shapes: tuple[tuple[int, int, int, int], ...] = ((28, 128, 28, 128), (5, 6, 3, 4), (28, 512, 3, 16))
    more_shapes: tuple[tuple[int, int, int, int], ...] = (
        # more samples than blocks; H = 2 mod 4; odd ones; ones; larger than is best; a long sequence
        (7, 100, 5, 300), (28, 126, 6, 40), (28, 129, 4, 17), (28, 64, 7, 33), (3, 5, 2, 1), (1, 1, 1, 1),
        (28, 256, 6, 32), (28, 128, 200, 8),
    )  # fmt: skip
    curves: tuple[tuple[int, int, int], ...] = ((128, 128, 28), (32, 64, 28), (33, 102, 11), (16, 256, 28))
    steps: tuple[tuple[int, int, int], ...] = tuple((128, H, 28) for H in (128, 64, 256, 512, 1024))
    variants: tuple[tuple[int, int, int, int], ...] = ((128, 128, 28, 8), (128, 64, 28, 6))
    checked: tuple[tuple[int, int, int], ...] = ((5, 128, 4), (5, 6, 3), (5, 160, 3))
    mnist: tuple[int, int, int, int] = (10, 128, 128, 60_000)
    race: tuple[Case, ...] = _first_cases()
    race_peers: tuple[str, ...] = GRAPHED
    rest: tuple[Case, ...] = _other_cases()
    rest_peers: tuple[str, ...] = PEERS
    pace: Pace = PACE
    repeats: int = 50


FULL = PartSizes()
SMALL = PartSizes(
    shapes=((3, 6, 2, 3),),
    more_shapes=((1, 5, 1, 1),),
    curves=((6, 6, 3),),
    steps=((3, 6, 2),),
    variants=((3, 6, 2, 2),),
    checked=((3, 6, 2),),
    mnist=(1, 4, 20, 50),
    race=(Case("train", 2, 6, 2),),
    race_peers=("images-reference", "gpu-torch-graph"),
    rest=(Case("infer", 2, 6, 2),),
    rest_peers=("images-reference",),
    pace=Pace(rounds=3, slot=0.02),
    repeats=2,
)
