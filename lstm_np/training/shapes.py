"""The shape of every tensor of one forward pass, taken from a real one."""

from __future__ import annotations

from collections.abc import Iterator

from lstm_np.arrays import Array
from lstm_np.losses import log_softmax
from lstm_np.model import SequenceModel

LETTERS = """\
B samples, T steps, D inputs, P projected, H units, K classes,
L layers (twice as many where there are two directions)"""


def tensor_shapes(model: SequenceModel, steps: int, batch_size: int) -> str:
    """A table: name, axes, shape and meaning of each tensor when `batch_size` sequences of `steps` steps pass through.

    The shapes are not calculated: the layers run one after the other, and the shapes are those of the real arrays.
    """
    head = ("tensor", "axes", "shape", "")
    rows = [
        (name, axes, " x ".join(map(str, array.shape)), text)
        for name, axes, array, text in _pass(model, steps, batch_size)
    ]
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(3)]
    rule = ("-" * widths[0], "-" * widths[1], "-" * widths[2], "")
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True))
        for row in [head, rule, *rows]
    ]
    return "\n".join([*(line.rstrip() for line in lines), LETTERS])


def _pass(model: SequenceModel, T: int, B: int) -> Iterator[tuple[str, str, Array, str]]:
    """(name, axes, tensor, meaning), in the order of computation."""
    stack, xp, cell = model.recurrent, model.backend.xp, model.recurrent.cell
    own = {p.name: "(H,)" if p.blocks == 1 else f"({p.blocks}H,)" for p in cell.parameters}
    own |= {name: "(H,)" for single in stack.singles for name in single.learned}
    both, rows = stack.directions == 2, "H" if len(cell.gates) == 1 else f"{len(cell.gates)}H"
    x = xp.zeros((model.input_size, T, B), dtype=model.dtype)
    yield "x", "(B, T, D)", x.transpose(2, 1, 0), "a batch as you pass it"
    yield "x", "(D, T, B)", x, "internally, samples last"
    width = "D"
    if "input_projection.W" in model.params:
        yield "input_projection.W", "(P, D)", model.params["input_projection.W"], "the dense layer in front"
        yield "input_projection.b", "(P,)", model.params["input_projection.b"], ""
        x, width = model.project(x), "P"
        yield "projected", "(P, T, B)", x, "what the first layer reads"
    final: list[tuple[Array, ...]] = []
    for layer in range(stack.num_layers):
        outputs = []
        for single in stack.singles_of(layer):
            axes = {"W": f"({rows}, {width})", "U": f"({rows}, H)"} | own
            for name, array in single.params.items():
                yield f"{single.name}.{name}", axes.get(name, f"({rows},)"), array, ""
            params, state = single.kernel_params(), single.initial_state(B)
            a = params["W"] @ x[:, 0, :] + params["U"] @ state[0]
            a = a + params["b"][:, None] if "b" in params else a
            yield f"{single.name} a", f"({rows}, B)", a, f"pre-activations: {', '.join(cell.gates)}"
            _, one, _ = single.forward(x[:, :1, :], state, save=False)
            for name, part in zip(cell.state, one, strict=True):
                yield f"{single.name} {name}", "(H, B)", part, f"{name} after one step"
            y, last, _ = single.forward(x, state, save=False)
            outputs.append(y)
            final.append(last)
        x, width = (xp.concat(outputs, axis=0), "2H") if both else (outputs[0], "H")
        yield f"layer{layer} y", f"({width}, T, B)", x, "h after every step" + (", both ways" if both else "")
    state = stack.leave_state(final)
    for name, part in zip(cell.state, state if len(cell.state) > 1 else (state,), strict=True):
        yield f"{name}_n", "(L, B, H)", part, f"{name} after the last step"
    zeros = xp.zeros((model.input_size, T, B), dtype=model.dtype)
    logits, h, _ = model.run(zeros, save=False)
    yield "read out", f"({width}, B)", h, model.read_out.replace("_", " ")
    yield "readout.W", f"(K, {width})", model.params["readout.W"], "the dense layer on top"
    yield "readout.b", "(K,)", model.params["readout.b"], ""
    yield "logits", "(K, B)", logits, "before the softmax"
    yield "probabilities", "(B, K)", xp.exp(log_softmax(xp, logits)).T, "after the softmax"
