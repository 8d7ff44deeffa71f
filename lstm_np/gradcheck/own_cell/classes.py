"""A cell written as a class, as two functions.

Several books write a layer as a class that is made from its parameters, keeps what backward needs in itself, and leaves
the parameters' gradients in `grads`, in the order of the parameters::

    class LSTM:
        def __init__(self, Wx, Wh, b): ...
        def forward(self, x, h_prev, c_prev): ...      # -> h_next, c_next
        def backward(self, dh_next, dc_next): ...      # -> dx, dh_prev, dc_prev, and fills in self.grads
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from lstm_np.gradcheck.own_cell import names as naming
from lstm_np.gradcheck.own_cell.user_code import CheckError


def is_cell_class(item: Any) -> bool:
    """Whether it is a class with forward and backward."""
    return isinstance(item, type) and all(callable(getattr(item, name, None)) for name in ("forward", "backward"))


def is_made_from_parameters(cell: Any) -> bool:
    """Whether a class is made from matrices and biases, by their names."""
    try:
        names = naming.argument_names(cell.__init__)[1:]
    except (TypeError, ValueError):
        return False
    return bool(names and naming.read_parameters(names))


def has_static_functions(cell: Any) -> bool:
    """Whether a class is only a name for two functions, which take no self."""
    return all(isinstance(inspect.getattr_static(cell, name), staticmethod) for name in ("forward", "backward"))


def as_functions(cell: Any) -> tuple[Callable[..., Any], Callable[..., Any], dict[str, list[str]]]:
    """forward(x, h_prev, c_prev, Wx, Wh, b) and backward(dh_next, dc_next, cache), and what their results are called.

    The cache is the cell itself.  Raises CheckError where the class is not made from matrices and biases.
    """
    if not is_made_from_parameters(cell):
        raise CheckError(
            f"{cell.__name__}: a class is checked if it is made from its parameters, such as {cell.__name__}(Wx, Wh, "
            "b), and backward leaves their gradients in self.grads; or give two functions"
        )
    takes, parameters, upstream = (
        naming.argument_names(function)[1:] for function in (cell.forward, cell.__init__, cell.backward)
    )

    def forward(*arguments: Any) -> Any:
        made = cell(*arguments[len(takes) :])
        return (*_tuple(made.forward(*arguments[: len(takes)])), made)

    def backward(*arguments: Any) -> Any:
        made = arguments[-1]
        found, gradients = _tuple(made.backward(*arguments[:-1])), getattr(made, "grads", None)
        if gradients is None:
            raise CheckError(f"{cell.__name__}.backward leaves no gradients of {', '.join(parameters)} in self.grads")
        named = gradients if isinstance(gradients, dict) else dict(zip(parameters, gradients, strict=False))
        return (*found, *(named.get(name, named.get(f"d{name}")) for name in parameters))

    _call_it(forward, f"{cell.__name__}.forward", [*takes, *parameters], cell.forward)
    _call_it(backward, f"{cell.__name__}.backward", [*upstream, "cache"], cell.backward)
    gradients = naming.returned_names(cell.backward)
    names = {
        "results": [*naming.returned_names(cell.forward), "cache"],
        "gradients": [*gradients, *(f"d{name}" for name in parameters)] if gradients else [],
    }
    return forward, backward, names


def _call_it(function: Any, name: str, arguments: Sequence[str], written: Any) -> None:
    """Give a function the name, the arguments and the file that messages speak of."""
    kind = inspect.Parameter.POSITIONAL_ONLY
    function.__name__ = name
    function.__signature__ = inspect.Signature([inspect.Parameter(argument, kind) for argument in arguments])
    function.__wrapped__ = written


def _tuple(found: Any) -> tuple[Any, ...]:
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)
