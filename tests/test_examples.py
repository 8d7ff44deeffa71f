"""Every public docstring has an example, and every example in a docstring runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import lstm_np
from lstm_np.cells import BUILT_IN, CELLS

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# of these classes every public method has an example, too; of the others the class
WITH_METHODS = {"LSTM", "GRU", "RNN", "Recurrent", "SequenceClassifier", "SequenceRegressor", "Parameters", "Optimizer",
                "SGD", "Adam", "RMSProp", "Stream", "History", "Epoch", "Position", "Batches", "Dataset"}  # fmt: skip
# what serves other packages of lstm_np, or classes of one's own that take the place of ours
INSIDE = {
    "Recurrent.enter", "Recurrent.enter_state", "Recurrent.leave_state", "Recurrent.run", "Recurrent.run_backward",
    "Recurrent.singles_of", "Recurrent.last_mask", "Recurrent.cuts", "Recurrent.enter_resets",
    "Recurrent.packing",
    *(f"{model}.{method}" for model in ("SequenceClassifier", "SequenceRegressor") for method in (
        "run", "run_on", "backpropagate", "loss", "project", "batch_gradients", "new_sums", "read_holds",
        "not_finite_before", "not_finite_in", "not_finite_within",
    )),
}  # fmt: skip


def modules():
    """Every module of the package that can be imported here, but for the commands."""
    yield lstm_np
    for found in pkgutil.walk_packages(lstm_np.__path__, "lstm_np."):
        if not found.name.endswith("__main__") and "gpu" not in found.name:
            yield importlib.import_module(found.name)


def examples():
    """The docstrings with examples, by name."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in modules():
        for test in finder.find(module, module.__name__, extraglobs={"np": np, "lstm_np": lstm_np}):
            if test.examples:
                yield test


EXAMPLES = list(examples())


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name.removeprefix("lstm_np."))
def test_an_example_runs(test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    out: list[str] = []
    runner.run(test, out=out.append)
    for name in set(CELLS) - set(BUILT_IN):
        del CELLS[name]
    assert not runner.failures, "".join(out)


def public():
    """The public names, and the public methods of the classes among them."""
    for module in (lstm_np, lstm_np.data):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.ismodule(thing):
                continue
            yield name, thing
            if name in WITH_METHODS:
                own = [part for part in thing.__mro__ if part.__module__.startswith("lstm_np.model")] or [thing]
                for method, member in [item for part in own for item in vars(part).items()]:
                    function = getattr(member, "__func__", member)
                    if inspect.isfunction(function) and function.__name__ == method and not method.startswith("_"):
                        yield f"{thing.__name__}.{method}", function


@pytest.mark.parametrize("name", sorted({name for name, _ in public()} - INSIDE))
def test_every_public_docstring_has_an_example(name):
    thing = dict(public())[name]
    assert ">>>" in inspect.getdoc(thing), f"{name} has no example"


def test_what_is_inside_exists():
    assert {name for name, _ in public()} >= INSIDE


def test_help_opens_with_an_example():
    text = inspect.getdoc(lstm_np)
    assert text.index(">>> import lstm_np") < 200
