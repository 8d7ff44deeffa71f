"""A worked example: an LSTM of two units reads two steps, forward and backward, with every number on paper.

The numbers are those that the reference kernel computes with `cells/lstm.py` in float64.  The lines are read from the
code that ran: each assignment of the cell's two functions that carries an equation's number, with numbers in place of
its names.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from lstm_np.backends import get_backend
from lstm_np.cells import get_cell
from lstm_np.kernels.protocol import LayerSpec
from lstm_np.kernels.reference import ReferenceKernel

T, D, H, B = 2, 1, 2, 1
X = ((1.0, 0.5),)  # (D, T)
PARAMS = {  # rows i, f, o, g, two of each
    "W": ((0.5,), (-0.3,), (0.2,), (0.4,), (0.6,), (0.1,), (0.8,), (-0.7,)),
    "U": ((0.1, -0.2), (0.3, 0.2), (0.2, 0.1), (-0.1, 0.4), (0.4, -0.3), (0.1, 0.2), (0.3, 0.5), (-0.4, 0.1)),
    "b": (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0),
}
TARGET = (1.0, -1.0)  # of h after the last step
STEP = 1e-30  # of the complex step
CHECKED_TO = 1e-12
WIDTH = 80
UNITS = tuple(range(H))
KERNEL = "kernels/reference.py"  # has the products of (1)

Numbers = Mapping[str, Any]


class Line(NamedTuple):
    """One assignment: target = expression, its equation's number, and where it stands."""

    number: str
    target: str
    expression: ast.expr
    place: str


def worked_example() -> str:
    """The example as text that is Markdown too, 80 columns of ASCII; docs/worked-example.md is this text.

    Raises ValueError where the gradients are not the complex-step derivatives, to 1e-12.
    """
    example = _Example()
    parts = [*_paragraphs(_HEAD.format(given=example.given())), *example.forward(), *example.backward()]
    return "\n".join(parts).rstrip()


class _Example:
    """The pass of the reference kernel, and its lines as text."""

    def __init__(self) -> None:
        self.cell, self.kernel = get_cell("lstm"), _kernel("float64")
        self.params = {name: np.array(value) for name, value in PARAMS.items()}
        self.x = np.array(X)[:, :, None]
        zero = np.zeros((H, B))
        _, (h, _), saved = self.kernel.forward(self.params, self.x, (zero, zero), sequence=False)
        assert saved is not None
        self.saved, self.dh = saved, h - np.array(TARGET)[:, None]
        self.loss = float((self.dh**2).sum()) / 2
        self.back = list(self.kernel.steps_back(self.params, saved, None, (self.dh, zero)))
        _, _, self.grads = self.kernel.backward(self.params, saved, None, (self.dh, zero))

    def given(self) -> str:
        """W, U and b, a row per gate and unit."""
        lines = [f"{'':8}{'W':>6}{'U':>10}{'':6}{'b':>6}"]
        for row, (gate, unit) in enumerate(self.rows()):
            W, U, b = (self.params[name][row] for name in ("W", "U", "b"))
            lines.append(f"{gate} unit {unit + 1}{W[0]:6.1f}{U[0]:8.1f}{U[1]:6.1f}{b:8.1f}")
        return "\n".join(f"    {line}" for line in lines)

    def rows(self) -> list[tuple[str, int]]:
        """(gate, unit) of each row of W."""
        return [(gate, unit) for gate in self.cell.gates for unit in UNITS]

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self) -> Iterator[str]:
        """The two steps, and the loss."""
        yield "## Forward"
        for t in range(T):
            a = self.pre_activations(t)
            numbers = {"c_before": self.saved.states[t][1], **self.saved.values[t]}
            numbers |= {f"a_{gate}": a[k * H : (k + 1) * H] for k, gate in enumerate(self.cell.gates)}
            yield from ("", f"### Step {t + 1}", "")
            yield from self.sums(t, a)
            for line in _lines(self.cell.forward):
                yield from _written(line, numbers, numbers[line.target])
        yield from ("", "### The loss", "")
        yield from _block("L = ((h_1 - target_1)^2 + (h_2 - target_2)^2) / 2, of the last h", "")
        inner = " + ".join(f"({_paper(h)} - {_paper(want)})^2" for h, want in zip(self.h(T - 1), TARGET, strict=True))
        yield _result(f"({inner}) / 2", self.loss)

    def pre_activations(self, t: int) -> np.ndarray:
        """a (4H, B) of a step, by the kernel's own product."""
        weights = np.concatenate((self.params["W"], self.params["U"], self.params["b"][:, None]), axis=1)
        return weights @ self.saved.inputs[t]

    def h(self, t: int) -> list[float]:
        """h_t of each unit, t from 0."""
        return [float(value) for value in self.saved.values[t]["h"][:, 0]]

    def sums(self, t: int, a: np.ndarray) -> Iterator[str]:
        """(1), every term."""
        x, h_before = self.x[0, t, 0], self.saved.states[t][0][:, 0]
        yield from _block("(1)  a = W x + U h_before + b", KERNEL)
        for row, (gate, unit) in enumerate(self.rows()):
            W, U, b = (self.params[name][row] for name in ("W", "U", "b"))
            terms = [f"{_short(W[0])} * {_short(x)}"]
            terms += [f"{_short(weight)} * {_paper(h)}" for weight, h in zip(U, h_before, strict=True)]
            yield _result(" + ".join([*terms, _short(b)]), a[row, 0], f"a_{gate} {unit + 1}: ")

    # ------------------------------------------------------------------------------------------------------- backward

    def backward(self) -> Iterator[str]:
        """The two steps in reverse, the sums over them, and the check."""
        yield from ("", *_paragraphs(_BACK))
        yield from _block("dh = h - target, of the last step", "")
        for unit, (h, want) in enumerate(zip(self.h(T - 1), TARGET, strict=True)):
            yield _result(f"{_paper(h)} - {_paper(want)}", self.dh[unit, 0], f"unit {unit + 1}: ")
        arriving = (self.dh, np.zeros((H, B)))
        for step in self.back:
            yield from ("", f"### Step {step.t + 1}, backward", "")
            numbers: dict[str, Any] = {"dh": arriving[0], "dc": arriving[1], "c_before": self.saved.states[step.t][1]}
            numbers |= self.saved.values[step.t]
            found = {f"d{name}": value for name, value in step.gradients.items()}
            found |= {f"da_{gate}": step.da[k * H : (k + 1) * H] for k, gate in enumerate(self.cell.gates)}
            found["dc_before"] = step.dstate[1]
            for line in _lines(self.cell.backward):
                yield from _written(line, numbers, found[line.target])
                numbers[line.target] = found[line.target]
            yield from self.products(step)
            arriving = step.dstate
        yield from ("", *_paragraphs(_SUMS))
        yield from self.gradients()
        yield from ("", *_paragraphs(_CHECK.format(count=self.check(), limit=CHECKED_TO)))

    def products(self, step: Any) -> Iterator[str]:
        """(1'), the two products that leave the step."""
        das = step.da[:, 0]
        yield from _block("(1')  dh_before = U^T da", KERNEL)
        for unit in UNITS:
            yield from _sum(zip(self.params["U"][:, unit], das, strict=True), step.dstate[0][unit, 0], unit)
        yield from _block("(1')  dx = W^T da", KERNEL)
        yield from _sum(zip(self.params["W"][:, 0], das, strict=True), step.dx[0, 0], None)

    def gradients(self) -> Iterator[str]:
        """(1') summed over steps, every number of dW, dU and db."""
        das = {step.t: step.da[:, 0] for step in self.back}
        reads: dict[str, tuple[str, list[tuple[str, list[float] | None]]]] = {
            "dW = sum over steps of da x": ("W", [("", [self.x[0, t, 0] for t in range(T)])]),
            "dU = sum over steps of da h_before": (
                "U",
                [(f", h {j + 1}", [self.saved.states[t][0][j, 0] for t in range(T)]) for j in UNITS],
            ),
            "db = sum over steps of da": ("b", [("", None)]),
        }
        for text, (name, columns) in reads.items():
            yield from _block(f"(1')  {text}", KERNEL)
            for row, (gate, unit) in enumerate(self.rows()):
                for column, (label, operands) in enumerate(columns):
                    terms = [
                        _paper(das[t][row]) + ("" if operands is None else f" * {_paper(operands[t])}")
                        for t in range(T)
                    ]
                    value = self.grads[name].reshape(len(das[0]), -1)[row, column]
                    yield _result(" + ".join(terms), value, f"{gate} {unit + 1}{label}: ")

    def check(self) -> int:
        """How many gradients are the complex-step derivatives of the loss.  Raises ValueError where one is not."""
        kernel, count = _kernel("complex128"), 0
        arrays = {**self.params, "x": self.x}
        dxs: list[Any] = [step.dx for step in reversed(self.back)]
        found = {**self.grads, "x": np.stack(dxs, axis=1)}
        for name, array in arrays.items():
            for where in np.ndindex(array.shape):
                moved = {key: value.astype(complex) for key, value in arrays.items()}
                moved[name][where] += 1j * STEP
                x = moved.pop("x")
                _, (h, _), _ = kernel.forward(moved, x, (np.zeros((H, B), complex),) * 2, sequence=False, save=False)
                exact = float((((h - np.array(TARGET)[:, None]) ** 2).sum() / 2).imag / STEP)
                if not abs(found[name][where] - exact) <= CHECKED_TO:
                    raise ValueError(f"the gradient of {name}{list(where)} is {found[name][where]}, not {exact}")
                count += 1
        return count


def _kernel(dtype: str) -> ReferenceKernel:
    return ReferenceKernel(LayerSpec(get_cell("lstm"), D, H, True, dtype), get_backend("numpy"))


# ------------------------------------------------------------------------------------------------ lines of the code


def _lines(function: Callable[..., Any]) -> Iterator[Line]:
    """The assignments of a cell's function that carry the number of an equation, in order."""
    source, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(source))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    for node in tree.body:
        comment = re.search(r"# (undoes )?\((\d)\)", source[node.lineno - 1])
        if not isinstance(node, ast.Assign) or comment is None:
            continue
        number = f"({comment[2]}')" if comment[1] else f"({comment[2]})"
        place = _file_line(function, first + node.lineno - 1)
        for target, value in _pairs(node):
            inner = value.args[1] if isinstance(value, ast.Call) and ast.unparse(value.func) == "hold" else value
            yield Line(number, target, _Readable(target).visit(inner), place)


def _pairs(node: ast.Assign) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of an assignment, one by one; of `before`, what reaches c_{t-1}."""
    target = node.targets[0]
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
        yield from zip(map(ast.unparse, target.elts), node.value.elts, strict=True)
    elif isinstance(node.value, ast.Tuple):
        yield "dc_before", node.value.elts[1]
    else:
        yield ast.unparse(target), node.value


class _Readable(ast.NodeTransformer):
    """sigmoid(xp, a[0 * H : 1 * H, :]) as sigmoid(a_i), xp.tanh(c) as tanh(c)."""

    def __init__(self, target: str) -> None:
        self.target = target

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Without the namespace."""
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        arguments = [argument for argument in node.args if ast.unparse(argument) != "xp"]
        return ast.Call(ast.Name(name), arguments, [])

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """The rows of a gate."""
        return ast.Name(f"a_{self.target}")


class _Numbers(ast.NodeTransformer):
    """A unit's numbers in place of the names."""

    def __init__(self, numbers: Numbers, unit: int) -> None:
        self.numbers, self.unit = numbers, unit

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """sigmoid and tanh stay."""
        if node.id not in self.numbers:
            return node
        return ast.Name(_paper(self.numbers[node.id][self.unit, 0]))


def _file_line(function: Callable[..., Any], number: int) -> str:
    package = function.__module__.split(".", 1)[1].replace(".", "/")
    return f"{package}.py:{number}"


# ---------------------------------------------------------------------------------------------------------- as text


def _written(line: Line, numbers: Numbers, result: np.ndarray) -> Iterator[str]:
    """The line of code, and below it the same with numbers, for each unit."""
    yield from _block(f"{line.number}  {line.target} = {ast.unparse(line.expression)}", line.place)
    for unit in UNITS:
        copy = ast.parse(ast.unparse(line.expression), mode="eval").body
        text = ast.unparse(_Numbers(numbers, unit).visit(copy))
        yield _result(text, result[unit, 0], f"unit {unit + 1}: ")


def _sum(terms: Any, result: float, unit: int | None) -> Iterator[str]:
    """A long sum, a line for each gate."""
    texts = [f"{_short(weight)} * {_paper(da)}" for weight, da in terms]
    name = "" if unit is None else f"unit {unit + 1}: "
    lines = [" + ".join(texts[k : k + H]) for k in range(0, len(texts), H)]
    yield f"        {name}{lines[0]}"
    yield from (f"        {' ' * len(name)}+ {line}" for line in lines[1:-1])
    yield _result(f"+ {lines[-1]}", result, " " * len(name))


def _block(text: str, place: str) -> Iterator[str]:
    yield f"    {text:<48}{place:>28}".rstrip()


def _result(text: str, value: float, name: str = "") -> str:
    text = re.sub(r"\(\((-[\d.]+)\)\)", r"(\1)", text)  # tanh((-0.7000))
    return f"        {name}{text} = {_plain(value)}"


def _plain(value: float) -> str:
    return f"{round(float(value), 4) + 0.0:.4f}"


def _paper(value: float) -> str:
    """Four decimals; below zero in parentheses."""
    text = _plain(value)
    return f"({text})" if text.startswith("-") else text


def _short(value: float) -> str:
    text = f"{float(value):g}"
    return f"({text})" if text.startswith("-") else text


def _paragraphs(text: str) -> list[str]:
    """Filled to the width; blocks that are indented stay as they are."""
    parts = []
    for part in text.strip("\n").split("\n\n"):
        keep = part.startswith(("    ", "#"))
        parts += [*(part.split("\n") if keep else textwrap.wrap(part, WIDTH, break_on_hyphens=False)), ""]
    return parts


_HEAD = """\
# A worked example

An LSTM of two units reads two numbers. Every number of the forward and of the backward pass stands here, with the
number of its equation, which is that of lstm_np/cells/lstm.py and docs/gate-math.md, and the line of the code that
computes it. This text is what `python -m lstm_np.explain --tiny` prints.

T = 2 steps, D = 1 feature, H = 2 units, one sample. The input is x = 1.0 at step 1 and 0.5 at step 2; h and c begin
with 0. W (8, 1), U (8, 2) and b (8,) have the rows of i, f, o and g below each other, and the forget gate starts with a
bias of 1:

{given}

The loss is half the squared distance of the last h from the target (1, -1). Numbers are rounded to four decimals where
they are printed, nowhere else.
"""

_BACK = """\
## Backward

dv is the derivative of the loss with respect to v. Only the last h is in the loss, and nothing arrives at the last c:
dc begins with 0. Each line undoes the forward line of its number. dc is written twice: what arrives from the step
after, and then with what comes through h.
"""

_SUMS = """\
## The gradients

The parameters are the same at both steps, so their gradients are sums over the steps.
"""

_CHECK = """\
## Checked

All {count} gradients of W, U, b and x above are the complex-step derivatives of the loss, to {limit:.0e}. Check a cell
of your own in the same way: docs/check-your-cell.md.
"""
