"""The gradient check: every gradient of a layer or model against two independent derivatives.

Complex step     df/dv = Im f(v + i eps) / eps with eps = 1e-30: no difference is taken, so nothing cancels and the
                 derivative is exact to rounding.  It needs the forward pass alone, run in complex128.
                 (Squire and Trapp, SIAM Review 40(1), 1998; Martins, Sturdza and Alonso, ACM TOMS 29(3), 2003)
central          (f(v + eps) - f(v - eps)) / (2 eps) with eps = 1e-5 * max(1, |v|): the classic check, good to about
                 1e-9, and independent of complex arithmetic.

The exact derivative is that of the cell that is read, by the reference kernel.  So a kernel whose loss is another one
computes another cell, and that is said instead of blaming its gradients.

The loss of a layer is the sum of its outputs and its final state weighted with random numbers; that of a model is its
own.  Everything is random and non-zero: inputs, initial state, biases, upstream gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_np import options, streams
from lstm_np.cells import Cell
from lstm_np.layers import Recurrent
from lstm_np.model import SequenceModel
from lstm_np.options import check_count
from lstm_np.packing import as_real, check

COMPLEX_STEP_LIMIT = 1e-12
SAME_LOSS_LIMIT = 1e-9
CENTRAL_LIMIT = 1e-7
COMPLEX_STEP = 1e-30
CENTRAL_STEP = 1e-5


@dataclass(frozen=True)
class TensorCheck:
    """One tensor's worst errors, relative to its gradient's largest entry, over `checked` of its `size` entries."""

    name: str
    shape: tuple[int, ...]
    size: int
    checked: int
    complex_step: float
    central: float

    @property
    def ok(self) -> bool:
        """Whether both errors are within their limits (nan is not)."""
        return self.complex_step <= COMPLEX_STEP_LIMIT and self.central <= CENTRAL_LIMIT


@dataclass(frozen=True)
class GradientReport:
    """The result of a gradient check: `ok`, the largest errors, and a line per tensor; `print` shows a table.

    loss_error  how far the loss of the kernel under test is from that of the cell that is read, relative to it

    >>> report = lstm_np.gradcheck(lstm_np.RNN(2, 3))
    >>> bool(report), report.worst_complex_step < 1e-12
    (True, True)
    """

    subject: str
    tensors: tuple[TensorCheck, ...]
    loss_error: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it is the same loss and every tensor passes."""
        return self.same_cell and all(tensor.ok for tensor in self.tensors)

    @property
    def same_cell(self) -> bool:
        """Whether the kernel under test computes the loss of the cell that is read (nan is not)."""
        return self.loss_error <= SAME_LOSS_LIMIT

    @property
    def worst_complex_step(self) -> float:
        """The largest relative error against the complex step."""
        return _worst(tensor.complex_step for tensor in self.tensors)

    @property
    def worst_central(self) -> float:
        """The largest relative error against central differences."""
        return _worst(tensor.central for tensor in self.tensors)

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        width = max(len("gradient of"), *(len(tensor.name) for tensor in self.tensors))
        lines = [self.subject, f"{'gradient of':<{width}}  {'shape':<14} {'checked':>11}  complex step   central"]
        for t in self.tensors:
            shape = "x".join(map(str, t.shape))
            checked = f"{t.checked}/{t.size}"
            verdict = "ok" if t.ok else "WRONG"
            lines.append(
                f"{t.name:<{width}}  {shape:<14} {checked:>11}  {t.complex_step:12.1e} {t.central:9.1e}  {verdict}"
            )
        limits = f"limit {COMPLEX_STEP_LIMIT:.0e} and {CENTRAL_LIMIT:.0e}, relative to each gradient's largest entry"
        verdict = "PASS: every gradient agrees" if self.ok else "FAIL: at least one gradient is wrong"
        if not self.same_cell:
            verdict = (
                f"FAIL: this kernel computes another cell than the one that is read: its loss\n"
                f"is off by {self.loss_error:.1e}; --kernel reference checks the cell"
            )
        worst = f"worst {self.worst_complex_step:.1e} (complex step), {self.worst_central:.1e} (central)"
        return "\n".join([*lines, verdict, worst, limits])


def gradcheck(
    subject: Recurrent | SequenceModel,
    *,
    batch_size: int = 3,
    steps: int = 4,
    seed: int = 0,
    entries: int | None = None,
    lengths: Any = None,
    mask: Any = None,
    dropout_key: Sequence[int | str] | None = None,
) -> GradientReport:
    """Check every gradient of a layer or model, in float64, whatever dtype it has; the report is true when all agree.

    The gradients checked are those of `subject`'s own kernel and backend.  Its parameters are not touched: the check
    runs on copies whose values are random and non-zero (weights as they are, biases redrawn).

    batch_size, steps  B and T of the random batch
    seed               of everything random here
    entries            check at most so many entries of each tensor, evenly spread (None: all of them)
    lengths, mask      (B,) or (B, T): the steps that the sequences have, as for `LSTM.forward` (None: all)
    dropout_key        hold the dropout masks of this key fixed (None: no dropout)

    >>> print(lstm_np.gradcheck(lstm_np.LSTM(2, 3, kernel="reference"), entries=4))  # doctest: +ELLIPSIS
    LSTM: D=2 H=3 L=1, B=3 T=4, kernel reference, numpy
    gradient of  shape              checked  complex step   central
    layer0.W     12x2                  4/24  ...  ok
    ...
    PASS: every gradient agrees
    ...

    Raises ValueError for a batch_size, steps or entries below 1, or lengths that do not fit them, TypeError for
    anything that is no layer or model.
    """
    batch_size, steps = check_count("batch_size", batch_size, 1), check_count("steps", steps, 1)
    entries = None if entries is None else check_count("entries", entries, 1)
    real = as_real(lengths, mask)
    if real is not None:
        check(real, batch_size, steps)
    given = {"lengths": lengths, "mask": mask, "dropout_key": dropout_key}
    if isinstance(subject, SequenceModel):
        problem: _Problem = _ModelProblem(subject, batch_size, steps, seed, given)
    elif isinstance(subject, Recurrent):
        problem = _LayerProblem(subject, batch_size, steps, seed, given)
    else:
        raise TypeError(f"gradcheck takes a layer or a model, found {type(subject).__name__}")
    analytic = problem.gradients()
    tensors = tuple(_check(name, problem, analytic[name], entries) for name in problem.values)
    loss, exact = problem.loss(problem.values), problem.complex_loss(problem.values).real
    both_nan = loss != loss and exact != exact
    loss_error = 0.0 if both_nan else abs(loss - exact) / max(abs(exact), 1e-3)  # a sum of random terms may come near 0
    return GradientReport(problem.describe(), tensors, loss_error)


def _check(name: str, problem: _Problem, analytic: np.ndarray, entries: int | None) -> TensorCheck:
    value = problem.values[name]
    count = value.size if entries is None else min(entries, value.size)
    picked = np.unique(np.linspace(0, value.size - 1, count).round().astype(int))
    exact, central = np.empty(picked.size), np.empty(picked.size)
    for k, index in enumerate(picked):
        where = np.unravel_index(index, value.shape)

        def moved(step: complex, where: tuple[np.intp, ...] = where) -> dict[str, np.ndarray]:
            changed = value.astype(np.result_type(value, type(step)))
            changed[where] += step
            return {**problem.values, name: changed}

        exact[k] = problem.complex_loss(moved(1j * COMPLEX_STEP)).imag / COMPLEX_STEP
        step = CENTRAL_STEP * max(1.0, abs(float(value[where])))
        central[k] = (problem.loss(moved(step)) - problem.loss(moved(-step))) / (2 * step)
    found = analytic.reshape(-1)[picked]
    scale = max(float(np.abs(analytic).max()), float(np.abs(exact).max()), np.finfo(np.float64).tiny)
    # a difference of two losses carries their rounding, about 1e-11 of a loss per step, however small the gradient is
    coarse = max(scale, 1e-3 * abs(problem.loss(problem.values)))
    return TensorCheck(
        name,
        value.shape,
        value.size,
        picked.size,
        float(np.abs(found - exact).max()) / scale,
        float(np.abs(found - central).max()) / coarse,
    )


class _Problem:
    """A scalar function of named NumPy arrays (`values`), its analytic gradient, and its complex extension."""

    values: dict[str, np.ndarray]

    def __init__(self, subject: Any, cell: Cell, seed: int, given: Mapping[str, Any]) -> None:
        self.real = subject.copy(dtype="float64")
        self.complex = subject.copy(dtype="complex128", kernel="reference", backend="numpy")
        self.rng = streams.generator(seed, "gradcheck")
        self.given = given  # lengths or mask, and the key of dropout masks
        self._set: dict[int, dict[str, np.ndarray]] = {id(owner): {} for owner in (self.real, self.complex)}
        to_host = self.real.backend.to_host
        self.values = {name: to_host(array).copy() for name, array in self.real.params.items()}
        own = {parameter.name for parameter in cell.parameters}  # of which peepholes, say, may start from 0
        own |= {f"{part}_0" for part in cell.state}  # trained initial states do
        for name, value in self.values.items():
            if name.rpartition(".")[2] in {"b", "b_h", *own}:
                value[:] = 0.5 * self.normal(*value.shape)

    def normal(self, *shape: int) -> np.ndarray:
        """Random numbers, none of them zero."""
        return self.rng.standard_normal(shape)

    def set_params(self, owner: Any, values: dict[str, np.ndarray]) -> None:
        """Give `owner` the parameters among `values`, except arrays that it was given last: nobody writes to those."""
        last, backend = self._set[id(owner)], owner.backend
        changed = {name: values[name] for name in owner.params if values[name] is not last.get(name)}
        owner.params.update({name: backend.from_host(value.astype(owner.dtype)) for name, value in changed.items()})
        last |= changed

    def evaluate(self, owner: Any, values: dict[str, np.ndarray]) -> Any:
        """The loss, computed by `owner` in its own dtype."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def loss(self, values: dict[str, np.ndarray]) -> float:
        """The loss in float64, by the kernel under test."""
        return float(self.evaluate(self.real, values))

    def complex_loss(self, values: dict[str, np.ndarray]) -> complex:
        """The loss in complex128, by the reference kernel."""
        return complex(self.evaluate(self.complex, values))

    def gradients(self) -> dict[str, np.ndarray]:
        """The analytic gradient of every value, by the kernel under test."""
        raise TypeError(f"{type(self).__name__} has no gradients")

    def describe(self) -> str:
        """One line: what is checked."""
        raise TypeError(f"{type(self).__name__} has no description")


class _LayerProblem(_Problem):
    def __init__(self, layer: Recurrent, B: int, T: int, seed: int, given: Mapping[str, Any]) -> None:
        super().__init__(layer, layer.cell, seed, given)
        self.B, self.T = B, T
        rows, sizes = len(layer.kernel_names), [single.spec.hidden_size for single in layer.singles]
        self.same = len(set(sizes)) == 1  # otherwise a part of the state is a list
        self.parts = layer.cell.state
        self.state = () if layer.learned else self.parts  # a trained initial state takes effect where none is given
        outer = (B, T) if layer.config["batch_first"] else (T, B)
        self.values["x"] = self.normal(*outer, layer.input_size)
        for part in self.state:
            if self.same:
                self.values[f"{part}_0"] = 0.5 * self.normal(rows, B, layer.hidden_size)
            else:
                self.values |= {f"{part}_0[{k}]": 0.5 * self.normal(B, H) for k, H in enumerate(sizes)}
        shape = (*outer, layer.output_size)
        pair = layer.config["merge"] == "none"
        self.dy: Any = (self.normal(*shape), self.normal(*shape)) if pair else self.normal(*shape)
        self.dstate = tuple(
            self.normal(rows, B, layer.hidden_size) if self.same else [self.normal(B, H) for H in sizes]
            for _ in self.parts
        )

    def _forward(self, owner: Recurrent, values: dict[str, np.ndarray]) -> Any:
        self.set_params(owner, values)
        names = range(len(owner.singles))
        state = tuple(
            values[f"{part}_0"] if self.same else [values[f"{part}_0[{k}]"] for k in names] for part in self.state
        )
        return owner.forward(values["x"], state or None, **self.given)

    def evaluate(self, owner: Recurrent, values: dict[str, np.ndarray]) -> Any:
        y, final, _ = self._forward(owner, values)
        final = final if len(self.parts) > 1 else (final,)
        to_host = owner.backend.to_host
        outputs, weights = (y, self.dy) if isinstance(self.dy, tuple) else ((y,), (self.dy,))
        total = sum((to_host(part) * weight).sum() for part, weight in zip(outputs, weights, strict=True))
        if not self.same:
            flat = [array for part in final for array in part], [array for part in self.dstate for array in part]
            return total + sum((to_host(part) * weight).sum() for part, weight in zip(*flat, strict=True))
        return total + sum((to_host(part) * weight).sum() for part, weight in zip(final, self.dstate, strict=True))

    def gradients(self) -> dict[str, np.ndarray]:
        to_host = self.real.backend.to_host
        _, _, cache = self._forward(self.real, self.values)
        dx, dstate_0, grads = self.real.backward(cache, self.dy, self.dstate)
        dstate_0 = dstate_0 if len(self.parts) > 1 else (dstate_0,)
        found = {name: to_host(array) for name, array in grads.items()}
        found["x"] = to_host(dx)
        for part, d in zip(self.state, dstate_0, strict=False):
            if self.same:
                found[f"{part}_0"] = to_host(d)
            else:
                found |= {f"{part}_0[{k}]": to_host(array) for k, array in enumerate(d)}
        return found

    def describe(self) -> str:
        layer = self.real
        H = layer.config["hidden_size"]
        both = ", bidirectional" if layer.directions == 2 else ", reverse" if layer.config["reverse"] else ""
        own = f" ({layer.cell.name})" if "cell" in layer.config else ""
        return (
            f"{type(layer).__name__}{own}: D={layer.input_size} H={H} L={layer.num_layers}{both}, "
            f"B={self.B} T={self.T}, kernel {'/'.join(sorted(set(layer.kernel_names)))}, {layer.backend.name}"
        )


class _ModelProblem(_Problem):
    def __init__(self, model: SequenceModel, B: int, T: int, seed: int, given: Mapping[str, Any]) -> None:
        super().__init__(model, model.recurrent.cell, seed, given)
        self.B, self.T, self.head = B, T, model.head
        self.x = self.normal(B, T, model.input_size)
        self.y = model.head.drawn(self.rng, B, T)

    def evaluate(self, owner: SequenceModel, values: dict[str, np.ndarray]) -> Any:
        self.set_params(owner, values)
        xp, from_host = owner.backend.xp, owner.backend.from_host
        x = from_host(self.x.astype(owner.dtype)).transpose(2, 1, 0)
        real = as_real(self.given["lengths"], self.given["mask"])
        packing = owner.recurrent.packing(real, self.B, self.T)
        x = x if packing is None else packing.cleaned(x)
        outputs, _, _ = owner.run(x, packing=packing, save=False, dropout_key=self.given["dropout_key"])
        return owner.backend.to_host(owner.loss(xp, outputs, owner.head.enter(self.y, self.T, real, None))[0])

    def gradients(self) -> dict[str, np.ndarray]:
        self.set_params(self.real, self.values)
        _, grads = self.real.loss_and_gradients(self.x, self.y, **self.given)
        return {name: self.real.backend.to_host(array) for name, array in grads.items()}

    def describe(self) -> str:
        stack = self.real.recurrent
        H, (letter, size) = stack.config["hidden_size"], (self.head.letter, self.head.size)
        read = f" reading {self.real.read_out}," if self.real.read_out != "final_state" else ""
        loss = f" loss {self.head.name}," if options.changed({"loss": self.head.name}, options.of(self.real)) else ""
        return (
            f"{type(self.real).__name__} ({self.real.config['cell']}):{read}{loss} D={self.real.input_size} H={H} "
            f"L={stack.num_layers} {letter}={size}, B={self.B} T={self.T}, "
            f"kernel {'/'.join(sorted(set(stack.kernel_names)))}, {self.real.backend.name}"
        )


def _worst(errors: Iterable[float]) -> float:
    found = list(errors)
    return float("nan") if any(error != error for error in found) else max(found)
