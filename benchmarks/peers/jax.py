"""JAX on a CPU: Flax's `OptimizedLSTMCell` under `nn.RNN`, optax's Adam, one jitted step."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks.contestant import Contestant
from benchmarks.workloads import CLASSES, LEARNING_RATE, Batch, Case, Weights, mean_cross_entropy


class Classifier(nn.Module):
    """LSTM layers and a dense read-out of the last output; x (T, B, D)."""

    H: int
    L: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (B, K)."""
        for layer in range(self.L):
            x = nn.RNN(nn.OptimizedLSTMCell(self.H, name=f"layer{layer}"), time_major=True)(x)
        return nn.Dense(CLASSES, name="readout")(x[-1])


def to_flax(weights: Weights, L: int) -> dict[str, Any]:
    """Our weights as Flax names them: per gate a kernel (features in, features out); the bias is on the h side."""
    params: dict[str, Any] = {
        "readout": {"kernel": jnp.asarray(weights["readout.W"].T), "bias": jnp.asarray(weights["readout.b"])}
    }
    for layer in range(L):
        W, U, b = (np.split(weights[f"layer{layer}.{name}"], 4) for name in "WUb")
        gates: dict[str, Any] = {}
        for k, gate in enumerate("ifog"):
            gates[f"i{gate}"] = {"kernel": jnp.asarray(W[k].T)}
            gates[f"h{gate}"] = {"kernel": jnp.asarray(U[k].T), "bias": jnp.asarray(b[k])}
        params[f"layer{layer}"] = gates
    return {"params": params}


class Jax(Contestant):
    """Flax and optax, jitted."""

    def describe(self) -> dict[str, Any]:
        """Versions and settings."""
        return {
            "versions": {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__},
            "settings": f"{jax.default_backend()}, OptimizedLSTMCell, step jitted, buffers donated, time-major x, "
            f"cores limited to {self.threads} by affinity",
        }

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """Parameters with these weights, a jitted step, batches on the device."""
        form, eps = adam
        assert form == "paper"
        self.training = case.mode == "train"
        model, optimizer = Classifier(case.H, case.L), optax.adam(LEARNING_RATE, eps=eps)

        def mean_loss(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), labels).mean()

        @partial(jax.jit, donate_argnums=(0, 1))
        def train(params: Any, state: Any, x: jax.Array, labels: jax.Array) -> Any:
            loss, grads = jax.value_and_grad(mean_loss)(params, x, labels)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state, loss

        self.params = to_flax(weights, case.L)
        self.state, self.train = optimizer.init(self.params), train
        self.logits = jax.jit(model.apply)
        self.batches = [(jnp.asarray(x.transpose(1, 0, 2)), jnp.asarray(labels)) for x, labels in batches]

    def _train(self, batch: int) -> jax.Array:
        self.params, self.state, loss = self.train(self.params, self.state, *self.batches[batch])
        return loss

    def step(self, batch: int) -> None:
        """A training step, or the logits."""
        if self.training:
            jax.block_until_ready((self._train(batch), self.params))
        else:
            self.logits(self.params, self.batches[batch][0]).block_until_ready()

    def loss(self, batch: int) -> float:
        """The loss on a batch."""
        if self.training:
            return float(self._train(batch))
        x, labels = self.batches[batch]
        return mean_cross_entropy(np.asarray(self.logits(self.params, x)), np.asarray(labels))
