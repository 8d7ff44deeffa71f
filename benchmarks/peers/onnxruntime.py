"""ONNX Runtime on a CPU: what one would deploy a trained model with; it does not train.

The graph is made here, from the initial weights: the operators LSTM, GRU and RNN, and a Gemm for the read-out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.contestant import BOTH, Contestant
from benchmarks.workloads import CLASSES, Batch, Case, Weights, mean_cross_entropy, read_out, reorder_gates

OPSET, IR_VERSION = 21, 10
# cell -> (operator, its order of the gates, ours)
OPERATORS = {"lstm": ("LSTM", "iofg", "ifog"), "gru": ("GRU", "zrn", "rzn"), "rnn": ("RNN", "h", "h")}


def layer_weights(case: Case, weights: Weights, layer: int) -> list[np.ndarray]:
    """W (directions, gates H, D), R (directions, gates H, H), B (directions, 2 gates H), as the operators take them."""
    _, order, own = OPERATORS[case.cell]
    found: list[list[np.ndarray]] = [[], [], []]
    for number, _, prefix in case.layers():
        if number == layer:
            W, U, b = (reorder_gates(weights[f"{prefix}.{name}"], order, own) for name in ("W", "U", "b"))
            b_h = weights.get(f"{prefix}.b_h")
            second = np.zeros_like(b) if b_h is None else reorder_gates(b_h, order, own)
            for kind, array in zip(found, (W, U, np.concatenate([b, second])), strict=True):
                kind.append(array)
    return [np.stack(kind) for kind in found]


def make_model(case: Case, weights: Weights) -> onnx.ModelProto:
    """Logits (B, K) from x (T, B, D); for a stream h and c from x (1, 1, D) and the h and c before."""
    operator = OPERATORS[case.cell][0]
    nodes, constants = [], []

    def constant(name: str, array: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def of(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    options: dict[str, Any] = {"hidden_size": case.H}
    options["direction"] = "bidirectional" if case.directions == 2 else "forward"
    if case.cell == "gru":
        options["linear_before_reset"] = 1
    T = 1 if case.mode == "stream" else case.T
    x, h = "x", ""
    for layer in range(case.L):
        names = [constant(f"{n}{layer}", a) for n, a in zip("WRB", layer_weights(case, weights, layer), strict=True)]
        y, h = f"y{layer}", f"h{layer}"
        if case.mode == "stream":
            nodes.append(helper.make_node(operator, [x, *names, "", "h", "c"], ["", "h_next", "c_next"], **options))
            break
        above = layer < case.L - 1
        nodes.append(helper.make_node(operator, [x, *names], [y if above else "", h], **options))
        if above:  # (T, directions, B, H) -> (T, B, directions * H)
            nodes.append(helper.make_node("Transpose", [y], [f"{y}_turned"], perm=[0, 2, 1, 3]))
            shape = constant(f"shape{layer}", np.array([case.T, case.B, case.directions * case.H], np.int64))
            x = f"{y}_joined"
            nodes.append(helper.make_node("Reshape", [f"{y}_turned", shape], [x]))
    inputs = [of("x", T, case.B, case.D)]
    if case.mode == "stream":
        inputs += [of("h", 1, 1, case.H), of("c", 1, 1, case.H)]
        outputs = [of("h_next", 1, 1, case.H), of("c_next", 1, 1, case.H)]
    else:  # (directions, B, H) -> (B, directions * H)
        nodes.append(helper.make_node("Transpose", [h], ["last_turned"], perm=[1, 0, 2]))
        shape = constant("shape", np.array([case.B, case.directions * case.H], np.int64))
        nodes.append(helper.make_node("Reshape", ["last_turned", shape], ["last"]))
        read = [constant("readout_W", weights["readout.W"]), constant("readout_b", weights["readout.b"])]
        nodes.append(helper.make_node("Gemm", ["last", *read], ["logits"], transB=1))
        outputs = [of("logits", case.B, CLASSES)]
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


class OnnxRuntime(Contestant):
    """An `InferenceSession` that reads and writes arrays of NumPy in place (I/O binding: faster than `run`)."""

    takes = frozenset({"infer", "stream", "lstm", "gru", "rnn", BOTH})

    def describe(self) -> dict[str, Any]:
        """Versions and settings."""
        return {
            "versions": {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__},
            "settings": "all graph optimizations, sequential execution, I/O binding, time-major x",
        }

    def build(self, case: Case, weights: Weights, batches: list[Batch], adam: tuple[str, float]) -> None:
        """A session with these weights, and time-major batches bound to it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        model = make_model(case, weights).SerializeToString()
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.mode, self.weights, self.number = case.mode, weights, 0
        if case.mode == "stream":
            x, self.labels = batches[0]
            self.inputs = [np.ascontiguousarray(x[:, t : t + 1]) for t in range(case.T)]
            self.x = np.zeros_like(self.inputs[0])
            a, b = ([np.zeros((1, 1, case.H), np.float32) for _ in "hc"] for _ in range(2))  # by turns before and after
            self.bound: list[tuple[Any, np.ndarray]] = [
                (self._bind({"x": self.x, "h": old[0], "c": old[1]}, {"h_next": new[0], "c_next": new[1]}), new[0])
                for old, new in ((a, b), (b, a))
            ]
            return
        self.bound, self.all_labels = [], [labels for _, labels in batches]
        for x, _ in batches:
            logits = np.zeros((case.B, CLASSES), np.float32)
            self.bound.append(
                (self._bind({"x": np.ascontiguousarray(x.transpose(1, 0, 2))}, {"logits": logits}), logits)
            )

    def _bind(self, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> Any:
        """The session's reads and writes: these arrays' own memory."""
        binding = self.session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        return binding

    def _advance(self) -> np.ndarray:
        """h after the next time step, (1, 1, H)."""
        np.copyto(self.x, self.inputs[self.number % len(self.inputs)])
        binding, h = self.bound[self.number % 2]
        self.session.run_with_iobinding(binding)
        self.number += 1
        return h

    def step(self, batch: int) -> None:
        """The logits, or a time step."""
        if self.mode == "stream":
            self._advance()
        else:
            self.session.run_with_iobinding(self.bound[batch][0])

    def loss(self, batch: int) -> float:
        """The loss on a batch, or after a time step."""
        if self.mode == "stream":
            return mean_cross_entropy(read_out(self.weights, self._advance()[0]), self.labels)
        self.step(batch)
        return mean_cross_entropy(self.bound[batch][1], self.all_labels[batch])
