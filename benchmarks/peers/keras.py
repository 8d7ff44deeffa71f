"""Keras on TensorFlow on a CPU: `layers.LSTM`, `GRU` and `SimpleRNN`, a training step under `tf.function`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.contestant import BOTH, Contestant
from benchmarks.workloads import CLASSES, LEARNING_RATE, Batch, Case, Weights, mean_cross_entropy, reorder_gates

# cell -> (layer, its order of the gates, ours)
LAYERS = {
    "lstm": (keras.layers.LSTM, "ifgo", "ifog"),
    "gru": (keras.layers.GRU, "zrn", "rzn"),
    "rnn": (keras.layers.SimpleRNN, "h", "h"),
}
UNROLLED = 32  # time steps; unrolled graphs run faster, but longer ones take minutes to trace


def layer_weights(case: Case, weights: Weights, prefix: str) -> list[np.ndarray]:
    """Kernel (D, gates H), recurrent kernel (H, gates H) and bias of one layer and direction; of a GRU two biases."""
    _, order, own = LAYERS[case.cell]
    names = [name for name in ("W", "U", "b", "b_h") if f"{prefix}.{name}" in weights]
    W, U, *biases = (reorder_gates(weights[f"{prefix}.{name}"], order, own) for name in names)
    return [W.T, U.T, biases[0] if len(biases) == 1 else np.stack(biases)]


class Keras(Contestant):
    """`keras.layers.LSTM` + `Dense`, sparse cross-entropy from logits, `keras.optimizers.Adam`."""

    adam = ("hat", 1e-7)
    takes = frozenset({"train", "infer", "lstm", "gru", "rnn", BOTH})

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)

    def describe(self) -> dict[str, Any]:
        """Versions and settings."""
        return {
            "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
            "settings": f"TensorFlow backend, {self.threads} intra-op and inter-op threads, bare tf.function step "
            f"(no fit loop), unrolled up to T={UNROLLED}, XLA for inference at B=1, batch-major x",
        }

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """A model with these weights and a traced step."""
        form, eps = adam
        assert form == "hat"
        keras.backend.clear_session()
        self.training = case.mode == "train"
        unroll = case.T <= UNROLLED
        make = LAYERS[case.cell][0]
        layers = [make(case.H, return_sequences=n < case.L - 1, unroll=unroll) for n in range(case.L)]
        if case.directions == 2:
            layers = [keras.layers.Bidirectional(layer) for layer in layers]
        model = keras.Sequential([keras.Input((case.T, case.D)), *layers, keras.layers.Dense(CLASSES)])
        for number, layer in enumerate(layers):
            prefixes = [prefix for n, _, prefix in case.layers() if n == number]
            layer.set_weights([array for prefix in prefixes for array in layer_weights(case, weights, prefix)])
        model.layers[-1].set_weights([weights["readout.W"].T, weights["readout.b"]])
        optimizer = keras.optimizers.Adam(LEARNING_RATE, epsilon=eps)
        optimizer.build(model.trainable_variables)

        @tf.function
        def train(x: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                logits = model(x, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                loss = tf.reduce_mean(losses)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
            return loss

        self.train = train
        self.logits = tf.function(lambda x: model(x, training=False), jit_compile=case.B == 1)
        self.batches = [(tf.constant(x), tf.constant(labels)) for x, labels in batches]

    def step(self, batch: int) -> None:
        """A training step, or the logits."""
        if self.training:
            self.train(*self.batches[batch]).numpy()
        else:
            self.logits(self.batches[batch][0]).numpy()

    def loss(self, batch: int) -> float:
        """The loss on a batch."""
        x, labels = self.batches[batch]
        if self.training:
            return float(self.train(x, labels))
        return mean_cross_entropy(np.asarray(self.logits(x)), np.asarray(labels))
