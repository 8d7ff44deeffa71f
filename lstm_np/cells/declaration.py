"""What a cell declares, as one structure that kernels, layers, initializers and the gradient check read.

A cell is a module, or any object, with two pure, elementwise functions over a given array namespace ``xp``::

    forward(xp, a, state, ...)            -> state, values                     a: pre-activations (len(GATES) * H, B)
    backward(xp, dstate, state, values, ...) -> da, dstate_before, gradients   what arrives at the step's state -> what
                                                                               leaves it other than through a

`state` is a tuple of arrays (H, B), in backward that which forward was given; `values` and `gradients` are dicts, the
values of the equations (H, B) by name and the gradient of the loss with respect to each.  The gradient of h_{t-1} is 0
where it is reached only through a.  Declared, as names of the module:

    GATES       the row blocks of a, in order
    STATE       the parts of the state; the first is h, which the kernel multiplies with U and hands on as output
    VALUES      the names of the values, in the order in which forward computes them
    PARAMETERS  the cell's own parameters beside W, U and b, with their shapes: {"p_i": ("H",)}; none if not declared
    BIASES      those of them that are biases: a layer without a bias has none of these
    PRODUCTS    values that are a matrix product inside the step: {"m": ("n", "b_n")}, see below

More arguments follow `state` in forward and `values` in backward, in this order:

  - For each of PRODUCTS, a function.  The value m of {"m": (gate, bias)} is U_n q plus that own parameter (None: plus
    nothing), where U_n (H, H) are the rows of U of the gate; `a` comes without U h_{t-1} in that gate's rows.  forward
    gets inner(q) = m, and backward undo_inner(dm) = U_n^T dm = dq.  Such gates are the last of GATES.
  - If there are parameters that no product adds, a dict of them, each as a column (H, 1) that broadcasts over samples.
    backward's gradients then have their names too, each per sample, (H, B): the kernel sums over samples and steps.
  - `hold`, by that name, where an experiment may hold values: hold(name, value) is the value to go on with, in forward
    for each of VALUES as it is computed, in backward for the gradient of each before it is used.  A cell without it
    works, but no value of it can be held.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lstm_np.arrays import Array
from lstm_np.errors import LstmNpError

State = tuple[Array, ...]
Values = Mapping[str, Array]
Hold = Callable[[str, Array], Array]

REQUIRED = ("GATES", "STATE", "VALUES", "forward", "backward")
OPTIONAL: dict[str, Any] = {"PARAMETERS": {}, "BIASES": (), "PRODUCTS": {}}  # what holds if not declared
LAYER_PARAMETERS = ("W", "U", "b", "b_h")  # names that an own parameter cannot have


class CellError(LstmNpError, ValueError):
    """A cell that cannot be used; one line: which cell, what was found, what was expected.

    >>> lstm_np.Recurrent(3, 5, cell="peephole")
    Traceback (most recent call last):
    lstm_np.cells.declaration.CellError: unknown cell 'peephole'; there are: lstm, gru, ...
    """


class Parameter(NamedTuple):
    """A cell's own parameter: a vector of `blocks` * H values."""

    name: str
    blocks: int
    bias: bool


class Product(NamedTuple):
    """A value that the kernel makes inside the step: U_g q, with the rows of U of `gate`, plus the parameter `bias`."""

    value: str
    gate: str
    bias: str | None


@dataclass(frozen=True)
class Cell:
    """A cell's two functions and what it declares; the module's docstring says what each is.

    holds  whether its functions take `hold`
    """

    name: str
    gates: tuple[str, ...]
    state: tuple[str, ...]
    values: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    products: tuple[Product, ...]
    forward: Callable[..., tuple[State, Values]] = field(repr=False)
    backward: Callable[..., tuple[Array, State, Values]] = field(repr=False)
    holds: bool

    @property
    def biases(self) -> tuple[str, ...]:
        """The names of the own parameters that are biases."""
        return tuple(parameter.name for parameter in self.parameters if parameter.bias)

    @property
    def handed(self) -> tuple[Parameter, ...]:
        """The own parameters that the cell's functions read, since no product adds them."""
        added = {product.bias for product in self.products}
        return tuple(parameter for parameter in self.parameters if parameter.name not in added)


def read_cell(name: str, source: object) -> Cell:
    """The cell called `name` that a module or object declares now.

    Raises CellError where something is missing or of the wrong kind.
    """
    there = dir(source)
    missing = [item for item in REQUIRED if item not in there]
    if missing:
        raise CellError(
            f"cell {name!r} has no {' and no '.join(missing)}: a cell declares {', '.join(REQUIRED[:3])} and has the "
            "functions forward and backward (lstm_np/cells/lstm.py is one)"
        )
    declared = OPTIONAL | {item: getattr(source, item) for item in (*REQUIRED, *OPTIONAL) if item in there}
    gates, state, values = (_names(name, item, declared[item]) for item in ("GATES", "STATE", "VALUES"))
    if state[0] != "h":
        raise CellError(f"cell {name!r}: the first part of STATE must be 'h', the hidden state; found {state[0]!r}")
    parameters = _parameters(name, declared["PARAMETERS"], declared["BIASES"])
    products = _products(name, declared["PRODUCTS"], gates, values, parameters)
    forward, backward = (_function(name, item, declared[item]) for item in ("forward", "backward"))
    holds = all("hold" in inspect.signature(function).parameters for function in (forward, backward))
    return Cell(name, gates, state, values, parameters, products, forward, backward, holds)


def _function(cell: str, item: str, found: object) -> Callable[..., Any]:
    if not callable(found):
        raise CellError(f"cell {cell!r}: {item} must be a function, found {found!r}")
    return found


def _names(cell: str, item: str, found: Any) -> tuple[str, ...]:
    good = isinstance(found, (tuple, list)) and all(isinstance(part, str) and part for part in found)
    if not good or not found or len(set(found)) < len(found):
        raise CellError(f"cell {cell!r}: {item} must be a tuple of different names, found {found!r}")
    return tuple(found)


def _parameters(cell: str, shapes: object, biases: object) -> tuple[Parameter, ...]:
    if not isinstance(shapes, Mapping) or not isinstance(biases, (tuple, list)) or not set(biases) <= set(shapes):
        raise CellError(
            f"cell {cell!r}: PARAMETERS must be a dict of names and shapes, BIASES a tuple of some of the names; "
            f"found {shapes!r} and {biases!r}"
        )
    parameters = []
    for name, shape in shapes.items():
        whole = shape[0] if isinstance(shape, (tuple, list)) and len(shape) == 1 else None
        match = re.fullmatch(r"([1-9]\d*)?H", whole) if isinstance(whole, str) else None
        if match is None or not isinstance(name, str) or not name.isidentifier() or name in LAYER_PARAMETERS:
            raise CellError(
                f"cell {cell!r}: an own parameter is a vector with a name other than {', '.join(LAYER_PARAMETERS)} and "
                f'a shape like ("H",) or ("2H",), found {name!r}: {shape!r}'
            )
        parameters.append(Parameter(name, int(match[1] or 1), name in biases))
    return tuple(parameters)


def _products(
    cell: str, declared: Any, gates: tuple[str, ...], values: tuple[str, ...], parameters: tuple[Parameter, ...]
) -> tuple[Product, ...]:
    biases = {parameter.name for parameter in parameters if parameter.bias and parameter.blocks == 1}
    products = []
    for value, pair in declared.items() if isinstance(declared, Mapping) else [(None, declared)]:
        gate, bias = pair if isinstance(pair, (tuple, list)) and len(pair) == 2 else (None, None)
        if value not in values or gate not in gates or not (bias is None or bias in biases):
            raise CellError(
                f"cell {cell!r}: PRODUCTS must be a dict like {{'m': ('n', 'b_n')}}, a value, the gate whose rows of "
                f"U make it, and a bias (H,) among the own parameters or None; found {value!r}: {pair!r}"
            )
        products.append(Product(value, gate, bias))
    own = tuple(product.gate for product in products)
    if own != gates[len(gates) - len(own) :]:
        raise CellError(f"cell {cell!r}: the gates with products of their own must be the last of GATES, found {own}")
    return tuple(products)
