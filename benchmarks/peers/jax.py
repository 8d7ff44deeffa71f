"""JAX on a CPU: Flax's `OptimizedLSTMCell` or `SimpleCell` under `nn.RNN`, optax's Adam, one jitted step."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks.contestant import BOTH, Contestant
from benchmarks.workloads import CLASSES, LEARNING_RATE, Batch, Case, Weights, mean_cross_entropy


class Classifier(nn.Module):
    """LSTM layers and a dense read-out of the last output; x (T, B, D)."""

    case: Case

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (B, K)."""
        make = nn.OptimizedLSTMCell if self.case.cell == "lstm" else nn.SimpleCell
        outputs: list[jax.Array] = []
        for _, direction, prefix in self.case.layers():
            if direction == "forward":
                x, outputs = jnp.concatenate(outputs, -1) if outputs else x, []
            back = {"reverse": direction == "reverse", "keep_order": True}
            outputs.append(nn.RNN(make(self.case.H, name=prefix), time_major=True, **back)(x))
        last = [y[0 if number else -1] for number, y in enumerate(outputs)]  # after the last step that each has read
        return nn.Dense(CLASSES, name="readout")(jnp.concatenate(last, -1))


def to_flax(weights: Weights, case: Case) -> dict[str, Any]:
    """Our weights as Flax names them, per gate a kernel (features in, out); an LSTM's bias is on the h side."""
    params: dict[str, Any] = {
        "readout": {"kernel": jnp.asarray(weights["readout.W"].T), "bias": jnp.asarray(weights["readout.b"])}
    }
    for _, _, prefix in case.layers():
        W, U, b = (weights[f"{prefix}.{name}"] for name in "WUb")
        gates: dict[str, Any] = {}
        if case.cell == "rnn":
            gates = {"i": {"kernel": jnp.asarray(W.T), "bias": jnp.asarray(b)}, "h": {"kernel": jnp.asarray(U.T)}}
        else:
            parts = zip("ifog", np.split(W, 4), np.split(U, 4), np.split(b, 4), strict=True)
            for gate, W_k, U_k, b_k in parts:
                gates[f"i{gate}"] = {"kernel": jnp.asarray(W_k.T)}
                gates[f"h{gate}"] = {"kernel": jnp.asarray(U_k.T), "bias": jnp.asarray(b_k)}
        params[prefix] = gates
    return {"params": params}


class Jax(Contestant):
    """Flax and optax, jitted; not the GRU, of which Flax's has fewer biases."""

    takes = frozenset({"train", "infer", "lstm", "rnn", BOTH})

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
        model, optimizer = Classifier(case), optax.adam(LEARNING_RATE, eps=eps)

        def mean_loss(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), labels).mean()

        @partial(jax.jit, donate_argnums=(0, 1))
        def train(params: Any, state: Any, x: jax.Array, labels: jax.Array) -> Any:
            loss, grads = jax.value_and_grad(mean_loss)(params, x, labels)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state, loss

        self.params = to_flax(weights, case)
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
