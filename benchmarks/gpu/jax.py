"""JAX on a GPU: the same Flax model as on a CPU."""

from __future__ import annotations

import time
from typing import Any

import jax

from benchmarks.peers import jax as peer
from benchmarks.workloads import Batch, Case, Weights, batches_of_images


class Jax(peer.Jax):
    """Flax and optax, jitted, on the GPU; the batch lies on the device."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        if jax.default_backend() != "gpu":
            raise RuntimeError(f"this JAX runs on {jax.default_backend()}, not on a GPU")
        jax.config.update("jax_default_matmul_precision", "highest")

    def describe(self) -> dict[str, Any]:
        """Versions and settings."""
        described = super().describe()
        return {**described, "settings": described["settings"].partition(", cores")[0] + ", strict float32"}

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """As on a CPU, on the images that the others have as bytes."""
        super().build(case, weights, batches_of_images(case, batches), adam)

    def seconds(self, steps: int) -> list[float]:
        """Mean duration of steps that follow each other without waiting."""
        last = self.batches[0][0]
        jax.block_until_ready(self.params)
        started = time.perf_counter()
        for number in range(steps):
            last = self._train(number % 2) if self.training else self.logits(self.params, self.batches[number % 2][0])
        jax.block_until_ready((last, self.params))
        return [(time.perf_counter() - started) / steps]
