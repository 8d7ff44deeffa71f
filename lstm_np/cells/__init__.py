"""The gate math: one time step of each cell, forward and backward, as in the textbook.

Read `lstm_np.cells.lstm` first.  `lstm_np.cells.declaration` says what a cell is and declares, for one of your own;
`register_cell` makes it known.  The matrix products and the loop over time belong to `lstm_np.kernels`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lstm_np.cells import gru, gru_reset_before, lstm, rnn, rnn_relu
from lstm_np.cells.declaration import Cell, CellError, Parameter, Product, read_cell
from lstm_np.cells.trial import try_step
from lstm_np.files import module_of

__all__ = [
    "BUILT_IN",
    "CELLS",
    "FILES",
    "Cell",
    "CellError",
    "Parameter",
    "Product",
    "get_cell",
    "register_cell",
    "register_cell_file",
]

# name -> the module or object that has the cell's functions and declarations; those of one's own come after these
CELLS: dict[str, object] = {
    "lstm": lstm,
    "gru": gru,
    "gru_reset_before": gru_reset_before,
    "rnn": rnn,
    "rnn_relu": rnn_relu,
}
BUILT_IN = tuple(CELLS)
FILES: dict[str, Path] = {}  # name -> the file that a cell of one's own was registered from


def get_cell(name: str) -> Cell:
    """The cell called `name`, as its module is at this moment.

    Raises CellError for a name that nobody registered, or a cell whose declarations or step are wrong.
    """
    if name not in CELLS:
        raise CellError(
            f"unknown cell {name!r}; there are: {', '.join(CELLS)}; one of your own is made known by "
            "lstm_np.register_cell, or by --cell FILE on the command line"
        )
    cell = read_cell(name, CELLS[name])
    try_step(cell)
    return cell


def register_cell(name: str, source: object) -> Cell:
    """Make a cell of your own known as `name`: layers, models, the gradient check and weights files take it from there.

    source  a module or object with the declarations and functions that `lstm_np.cells.declaration` describes

    A name of your own may be registered again, which replaces the cell for layers that are made from then on.

    >>> class Leaky:  # h_t = (h_{t-1} + tanh(a)) / 2
    ...     GATES, STATE, VALUES = ("n",), ("h",), ("n", "h")
    ...     @staticmethod
    ...     def forward(xp, a, state):
    ...         n = xp.tanh(a)
    ...         h = (state[0] + n) / 2
    ...         return (h,), {"n": n, "h": h}
    ...     @staticmethod
    ...     def backward(xp, dstate, state, values):
    ...         dh = dstate[0]
    ...         dn = dh / 2
    ...         return dn * (1 - values["n"] ** 2), (dh / 2,), {"n": dn, "h": dh}
    >>> cell = lstm_np.register_cell("leaky", Leaky)
    >>> layer = lstm_np.Recurrent(3, 5, cell="leaky")
    >>> bool(lstm_np.gradcheck(layer))
    True

    Raises CellError for a name that is taken by lstm_np or no identifier, and for a cell that lacks a declaration or
    whose step, tried on a few numbers, gives other shapes or names than it declares.
    """
    _check_name(name)
    cell = read_cell(name, source)
    try_step(cell)
    CELLS[name] = source
    FILES.pop(name, None)
    return cell


def register_cell_file(path: str | os.PathLike[str]) -> Cell:
    """Run a Python file and register what it declares under the file's name: my_lstm.py gives the cell "my_lstm".

    Raises CellError as `register_cell` does, and where the file is missing or does not run.
    """
    path = Path(path).expanduser()
    name = path.stem
    if path.suffix != ".py" or not path.is_file():
        raise CellError(f"{path}: no such Python file; a cell is one like lstm_np/cells/lstm.py")
    _check_name(name)
    module, run = module_of(f"lstm_np_cell_{name}", path)
    sys.modules[module.__name__] = module  # as an import does: some definitions look their own module up there
    try:
        run()
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CellError(f"{path}: the file does not run ({reason})") from error
    cell = register_cell(name, module)
    FILES[name] = path
    return cell


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise CellError(f"a cell's name must be a Python identifier such as 'my_lstm', found {name!r}")
    if name in BUILT_IN:
        raise CellError(f"{name!r} is a cell of lstm_np; choose another name for your own")
