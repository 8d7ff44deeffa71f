"""Sequences of unequal length, merges and directions, compared with PyTorch, Keras, ONNX Runtime and ONNX's own tests.

    python -m tests.layers.lengths_with_peers

prints a table: how many cases there are with each peer, and the worst relative error, an array's largest difference
over its largest entry.  A peer that is not installed is left out.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import lstm_np

Errors = dict[str, float]  # by what was compared
Case = tuple[str, Callable[[], Errors]]

CELLS = {"lstm": lstm_np.LSTM, "gru": lstm_np.GRU, "rnn": lstm_np.RNN}
LIMITS = {"torch": 1e-12, "keras": 2e-6, "onnxruntime": 2e-6, "onnx": 2e-6}  # all but PyTorch compute in float32
# our row blocks in the peer's order, and back: an LSTM's are i, f, o, g, a GRU's r, z, n
TORCH = {"lstm": [0, 1, 3, 2], "gru": [0, 1, 2], "rnn": [0]}
KERAS = {"lstm": [0, 1, 3, 2], "gru": [1, 0, 2], "rnn": [0]}
ONNX = {"lstm": [0, 2, 1, 3], "gru": [1, 0, 2], "rnn": [0]}
BACK = {order: {cell: list(np.argsort(blocks)) for cell, blocks in table.items()}
        for order, table in (("torch", TORCH), ("keras", KERAS), ("onnx", ONNX))}  # fmt: skip


def blocks(array: np.ndarray, order: list[int]) -> np.ndarray:
    """Blocks of rows in another order."""
    parts = np.split(array, len(order))
    return np.concatenate([parts[k] for k in order])


def error(found: Any, expected: Any) -> float:
    """The largest difference over the largest entry."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-300))


def made(cell: str, D: int, H: int, seed: int, **options: Any) -> Any:
    """A layer with random parameters."""
    layer = CELLS[cell](D, H, **{"bias": "double", "dtype": "float64", "kernel": "reference", **options})
    rng = np.random.default_rng(seed)
    for name, array in layer.params.items():
        layer.params[name] = 0.6 * rng.standard_normal(array.shape)
    return layer


def parts_of(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


# ---- PyTorch, packed sequences


def torch_cases() -> Iterator[Case]:
    """Outputs, final states and every gradient of packed sequences in any order, in float64."""
    for cell in CELLS:
        for layers in (1, 2, 3):
            for both in (False, True):
                for seed in range(4):
                    name = f"{cell}, {layers} layers{', both directions' if both else ''}, {seed}"
                    yield name, lambda a=(cell, layers, both, seed): torch_errors(*a)


def torch_errors(cell: str, layers: int, both: bool, seed: int) -> Errors:
    """Ours against `torch.nn` on a PackedSequence."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    rng = np.random.default_rng([seed, layers, both])
    D, H = rng.choice(np.arange(1, 9), 2, replace=False).tolist()
    B, T = int(rng.integers(2, 7)), int(rng.integers(3, 9))
    lengths = rng.integers(1, T + 1, B)
    ours = made(cell, D, H, seed, num_layers=layers, bidirectional=both)
    theirs = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell](
        D, H, layers, batch_first=True, bidirectional=both, dtype=torch.float64
    )
    named = dict(theirs.named_parameters())
    names = {"W": "weight_ih", "U": "weight_hh", "b": "bias_ih", "b_h": "bias_hh"}
    their_name = {n: names[n.rpartition(".")[2]] + n.rpartition(".")[0].replace("layer", "_l", 1) for n in ours.params}
    with torch.no_grad():
        for name, array in ours.params.items():
            named[their_name[name]].copy_(torch.from_numpy(blocks(array, TORCH[cell])))
    x, dy = rng.standard_normal((B, T, D)), rng.standard_normal((B, T, ours.output_size))
    parts = len(ours.cell.state)
    state, dstate = rng.standard_normal((2, parts, len(ours.singles), B, H))
    y, final, cache = ours.forward(x, tuple(state), lengths=lengths)
    dx, dstate_0, grads = ours.backward(cache, dy, tuple(dstate))

    tx, *tstate = (torch.from_numpy(value.copy()).requires_grad_() for value in (x, *state))
    packed = pack_padded_sequence(tx, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False)
    packed_y, tfinal = theirs(packed, tuple(tstate) if parts > 1 else tstate[0])
    ty, _ = pad_packed_sequence(packed_y, batch_first=True, total_length=T)
    tfinal = tfinal if parts > 1 else (tfinal,)
    loss = (ty * torch.from_numpy(dy)).sum()
    sum((loss, *((p * torch.from_numpy(d)).sum() for p, d in zip(tfinal, dstate, strict=True)))).backward()
    found = {"y": error(y, ty.detach()), "dx": error(dx, tx.grad)}
    for k in range(parts):
        found[f"final {k}"] = error(parts_of(final)[k], tfinal[k].detach())
        found[f"dstate_0 {k}"] = error(parts_of(dstate_0)[k], tstate[k].grad)
    for name, grad in grads.items():
        found[f"d{name}"] = error(blocks(grad, TORCH[cell]), named[their_name[name]].grad)
    return found


# ---- Keras, masks


def keras_cases() -> Iterator[Case]:
    """Outputs and states under masks with holes and padding on both sides; products are made in float32 there."""
    for cell in (*CELLS, "gru reset before"):
        for held in (True, False):
            # around Bidirectional outputs are always zero there
            for form in ("forward", "reverse") + (() if held else ("concat", "sum", "mul", "average", "none")):
                for seed in range(2):
                    name = f"{cell}, {form}, outputs {'held' if held else 'zero'}, {seed}"
                    yield name, lambda a=(cell, held, form, seed): keras_errors(*a)


def keras_errors(cell: str, held: bool, form: str, seed: int) -> Errors:
    """Ours against keras.layers, with an initial state where the layer has one direction."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    rng = np.random.default_rng([seed, held])
    kind, before = cell.split()[0], "before" in cell
    D, H, B, T = 3, 4, 5, 7
    mask = rng.random((B, T)) < 0.6
    mask[0] = True
    mask[1, 4:], mask[1, :4] = False, True
    mask[2, :3], mask[2, 3:] = False, True
    mask[3] = seed == 0  # a sequence without steps, in the second draw
    one = form in ("forward", "reverse")
    options: dict[str, Any] = {"bias": "double" if kind == "gru" and not before else True}
    options |= {"reset": "before"} if before else {}
    options |= {"reverse": form == "reverse"} if one else {"bidirectional": True, "merge": form}
    ours = made(kind, D, H, seed, masked_outputs="held" if held else "zero", **options)
    settings: dict[str, Any] = {"return_sequences": True, "return_state": True, "zero_output_for_mask": not held}
    settings |= {"dtype": "float64", "use_cudnn": False} if kind != "rnn" else {"dtype": "float64"}
    settings |= {"reset_after": not before} if kind == "gru" else {}
    make = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}[kind]
    theirs = make(H, **settings, go_backwards=form == "reverse")
    merges = {"average": "ave", "none": None}
    theirs = theirs if one else keras.layers.Bidirectional(theirs, merge_mode=merges.get(form, form), dtype="float64")
    theirs.build((B, T, D))
    weights = []
    for single in ours.singles:
        p = {name: blocks(array, KERAS[kind]) for name, array in single.params.items()}
        bias = np.stack([p["b"], p["b_h"]]) if "b_h" in p else p["b"]
        weights += [p["W"].T, p["U"].T, bias]
    theirs.set_weights(weights)
    x = rng.standard_normal((B, T, D))
    state = rng.standard_normal((len(ours.cell.state), len(ours.singles), B, H))
    y, final = ours(x, tuple(state), mask=mask)
    initial = [part[k] for k in range(len(ours.singles)) for part in state]
    found = theirs(keras.ops.convert_to_tensor(x, "float64"), mask=keras.ops.convert_to_tensor(mask),
                   initial_state=[keras.ops.convert_to_tensor(part, "float64") for part in initial])  # fmt: skip
    found = [keras.ops.convert_to_numpy(part) for part in found]
    outputs = parts_of(y)
    if form == "reverse":  # there outputs come in the order in which they are made
        found[0] = found[0][:, ::-1]
    errors = {f"y {k}": error(one, found[k]) for k, one in enumerate(outputs)}
    states = [part[k] for k in range(len(ours.singles)) for part in parts_of(final)]
    for k, (own, their) in enumerate(zip(states, found[len(outputs) :], strict=True)):
        errors[f"state {k}"] = error(own, their)
    return errors


# ---- ONNX Runtime, and the node tests of ONNX


def onnxruntime_cases() -> Iterator[Case]:
    """Outputs and final states with sequence_lens, in float32."""
    for cell in CELLS:
        for direction in ("forward", "reverse", "bidirectional"):
            for seed in range(4):
                yield f"{cell}, {direction}, {seed}", lambda a=(cell, direction, seed): onnxruntime_errors(*a)


def onnxruntime_errors(cell: str, direction: str, seed: int) -> Errors:
    """Ours, time first, against one node in ONNX Runtime."""
    import onnx
    import onnxruntime

    rng = np.random.default_rng([seed, len(direction)])
    D, H, B, T = 3, 5, 6, 7
    lengths = rng.integers(1, T + 1, B).astype(np.int32)
    layer = made(cell, D, H, seed, dtype="float32", batch_first=False, **direction_options(direction))
    directions = len(layer.singles)

    def rows(name: str) -> np.ndarray:
        return np.stack([blocks(single.params[name], ONNX[cell]) for single in layer.singles])

    x = rng.standard_normal((T, B, D)).astype("float32")
    state = rng.standard_normal((len(layer.cell.state), directions, B, H)).astype("float32")
    inputs = {"X": x, "W": rows("W"), "R": rows("U"), "B": np.concatenate([rows("b"), rows("b_h")], axis=1),
              "sequence_lens": lengths, "initial_h": state[0]}  # fmt: skip
    inputs |= {"initial_c": state[1]} if cell == "lstm" else {}
    outputs = ["Y", "Y_h", "Y_c"][: 2 + (cell == "lstm")]
    more = {"linear_before_reset": 1} if cell == "gru" else {}
    node = onnx.helper.make_node(cell.upper(), list(inputs), outputs, hidden_size=H, direction=direction, **more)
    types = {np.dtype("float32"): onnx.TensorProto.FLOAT, np.dtype("int32"): onnx.TensorProto.INT32}
    given = [onnx.helper.make_tensor_value_info(n, types[a.dtype], a.shape) for n, a in inputs.items()]
    wanted = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "one", given, wanted), opset_imports=[onnx.helper.make_opsetid("", 14)]
    )
    model.ir_version = 8
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(outputs, inputs)
    y, final = layer(x, tuple(state), lengths=lengths)
    own = [np.stack(parts_of(y), axis=1), *parts_of(final)]
    return {name: error(a, b) for name, a, b in zip(outputs, own, found, strict=True)}


def direction_options(direction: str) -> dict[str, Any]:
    """What ONNX calls direction."""
    both = direction == "bidirectional"
    return {"reverse": direction == "reverse", "bidirectional": both, "merge": "none" if both else "concat"}


def onnx_cases() -> Iterator[Case]:
    """The tests that ONNX has of its nodes LSTM, GRU and RNN, but for peepholes, which no cell here has."""
    for cell in CELLS:
        module = importlib.import_module(f"onnx.backend.test.case.node.{cell}")
        suite = getattr(module, cell.upper())
        for name in sorted(vars(suite)):
            if name.startswith("export_") and name != "export_peepholes":
                yield f"{cell} {name.removeprefix('export_')}", lambda a=(module, suite, name): onnx_errors(*a)


def onnx_errors(module: Any, suite: Any, name: str) -> Errors:
    """One of them, through the public API."""
    seen: list[dict[str, Any]] = []
    expect = module.expect
    module.expect = lambda node, **given: seen.append({"node": node, **given})
    try:
        getattr(suite, name)()
    finally:
        module.expect = expect
    (case,) = seen
    node = case["node"]
    outputs = run_node(node, dict(zip(node.input, case["inputs"], strict=True)))
    wanted = [output for output in node.output if output]
    return {key: error(outputs[key], array) for key, array in zip(wanted, case["outputs"], strict=True)}


def run_node(node: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a node, by a layer."""
    import onnx

    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    cell, direction = node.op_type.lower(), attributes.get("direction", b"forward").decode()
    H, batch_first = attributes["hidden_size"], bool(attributes.get("layout", 0))
    options: dict[str, Any] = {"bias": "double" if "B" in given else False, "batch_first": batch_first}
    if cell == "gru":
        options["reset"] = "after" if attributes.get("linear_before_reset", 0) else "before"
    D = given["W"].shape[2]
    layer = CELLS[cell](D, H, **direction_options(direction), **options)
    for k, single in enumerate(layer.singles):
        arrays = {"W": given["W"][k], "U": given["R"][k]}
        if "B" in given:
            arrays |= dict(zip(("b", "b_h"), np.split(given["B"][k], 2), strict=True))
        for name, array in arrays.items():
            layer.params[f"{single.name}.{name}"] = blocks(array, BACK["onnx"][cell])
    initial = tuple(given.get(name) for name in ("initial_h", "initial_c")[: len(layer.cell.state)])
    y, final = layer(given["X"], initial, lengths=given.get("sequence_lens"))
    y = np.stack(parts_of(y), axis=2 if batch_first else 1)  # (B, T, directions, H), or (T, directions, B, H)
    states = [part.swapaxes(0, 1) if batch_first else part for part in parts_of(final)]
    return dict(zip(("Y", "Y_h", "Y_c"), (y, *states), strict=False))


PEERS: dict[str, tuple[str, Callable[[], Iterator[Case]]]] = {
    "torch": ("PyTorch, packed sequences", torch_cases),
    "keras": ("Keras, masks", keras_cases),
    "onnxruntime": ("ONNX Runtime, sequence_lens", onnxruntime_cases),
    "onnx": ("ONNX, its own node tests", onnx_cases),
}
NEEDS = {"torch": ("torch",), "keras": ("keras", "torch"), "onnxruntime": ("onnxruntime", "onnx"), "onnx": ("onnx",)}


def main() -> int:
    """Print the table."""
    failed = False
    print("| peer | cases | arrays | worst relative error | dtype |\n|---|---|---|---|---|")
    for peer, (words, cases) in PEERS.items():
        try:
            versions = [importlib.import_module(name).__version__ for name in NEEDS[peer]]
        except ImportError:
            continue
        found = {name: run() for name, run in cases()}
        worst = max(max(errors.values()) for errors in found.values())
        failed |= not worst <= LIMITS[peer]
        dtype = "float64" if peer == "torch" else "float32"
        arrays = sum(map(len, found.values()))
        print(f"| {words} ({versions[0]}) | {len(found)} | {arrays} | {worst:.1e} | {dtype} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
