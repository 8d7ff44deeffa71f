"""The options of layers and models: what each is called, what it may be, what holds by default, and what it means.

This is the only list of them.  Constructors check what they are given with it, kernels learn from it what they must
know of a layer, and the settings of recipes, the flags of commands and the help of all of them are made from it.
Constructors spell out their signatures all the same, since people read them; a test compares them with this list.

To add an option: an entry here, a parameter of the constructors that take it, and the code that does it.
"""

from __future__ import annotations

import inspect
import math
import operator
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeVar

import numpy as np

from lstm_np.errors import LstmNpError
from lstm_np.other_names import with_hints

REQUIRED: Any = inspect.Parameter.empty  # the default of an option that has none
Dtype = str | type | np.dtype  # what a constructor takes as dtype


class OptionError(LstmNpError, ValueError):
    """A value that an option cannot have, or two that do not go together; one line: what was found and expected.

    >>> lstm_np.LSTM(3, 5, bidirectional="False")
    Traceback (most recent call last):
    lstm_np.options.OptionError: bidirectional must be true or false, found 'False'
    """


class OptionWarning(UserWarning):
    """An option that is allowed but does nothing; one line.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     layer = lstm_np.LSTM(3, 5, dropout=0.5)
    >>> print(caught[0].message)
    dropout 0.5 drops nothing: it acts between layers, and there is one layer; ...
    """


@dataclass(frozen=True)
class Option:
    """One option; the settings of a recipe that are no options of a model are described and checked in the same way.

    name, help     what it is called, and the sentence that explains it
    kind           bool, int, float, str, tuple (two numbers), list (numbers), dict (numbers by name), np.dtype, or
                   object for what is checked elsewhere
    default        REQUIRED where there is none
    optional       whether it may be None
    choices        the texts it may be; with kind bool: those that it may be besides true and false
    at_least, above, below   the range of its numbers, which are finite
    several        whether it may also be a list with a number for each layer
    kernel         whether a kernel must know it to run the layer, beyond what a `LayerSpec` says of every layer
    recipe         whether recipes say it, and hence flags
    private        choices that recipes and flags do not offer
    flag           the name of its flag where that is not its own
    """

    name: str
    help: str
    kind: type
    default: Any = REQUIRED
    optional: bool = False
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    several: bool = False
    kernel: bool = False
    recipe: bool = True
    private: tuple[str, ...] = ()
    flag: str | None = None

    def check(self, value: Any, called: str | None = None, none: str = "None") -> Any:
        """`value` as Python's own bool, int, float, str, pair, list or dict of floats; a dtype as its name.

        NumPy's scalars are numbers like any other.  `called` is what the user calls the option, `none` how no value is
        written there.  Raises OptionError.
        """
        called = called or self.name
        if self.several and isinstance(value, (list, tuple)) and value:
            return [self._one(each, called, none) for each in value]
        return self._one(value, called, none)

    def _one(self, value: Any, called: str, none: str) -> Any:
        if value is None and self.optional:
            return None
        plain: Any = _PLAIN[self.kind](value)
        if self.kind is bool and isinstance(value, str) and value in self.choices:
            return str(value)
        if plain is None:
            raise OptionError(f"{called} must be {self._expected(none)}, found {_short(value)}")
        if self.choices and self.kind is not bool and plain not in self.choices:
            raise OptionError(f"unknown {called} {plain!r}; there are: {', '.join(self.choices)}")
        for number in _numbers_of(self.kind, plain):
            if not self._in_range(number):
                expected = self._range() if self.kind is int or math.isfinite(number) else "finite"
                raise OptionError(f"{called} must be {expected}, found {number}")
        return plain

    def among(self, choices: Iterable[str]) -> Option:
        """The same option with these choices: for one whose choices can grow, and stand where they are defined."""
        return replace(self, choices=tuple(choices))

    def _expected(self, none: str) -> str:
        words = ["true", "false", *map('"{}"'.format, self.choices)] if self.kind is bool else [_WORDS[self.kind]]
        words += [none] if self.optional else []
        return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)

    def _in_range(self, number: float) -> bool:
        return (
            (isinstance(number, int) or math.isfinite(number))
            and (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def _range(self) -> str:
        limits = [("at least", self.at_least), ("above", self.above), ("below", self.below)]
        return " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)


def _numbers_of(kind: type, plain: Any) -> Iterable[float]:
    """The numbers in a value of that kind, whose range is checked."""
    if kind is dict:
        return plain.values()
    return plain if kind in (tuple, list) else (plain,) if kind in (int, float) else ()


def _short(value: object) -> str:
    """What was found, in a line: an array has a representation of many."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _bool(value: object) -> bool | None:
    return bool(value) if isinstance(value, (bool, np.bool_)) else None


def _int(value: Any) -> int | None:
    try:
        return None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        return None


def _float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer that no float can hold
        return math.inf


def _str(value: object) -> str | None:
    return str(value) if isinstance(value, str) else None


def _pair(value: object) -> tuple[float, ...] | None:
    parts = [_float(part) for part in value] if isinstance(value, (list, tuple)) and len(value) == 2 else []
    return tuple(part for part in parts if part is not None) if parts and None not in parts else None


def _list(value: Any) -> list[float] | None:
    plain = value.tolist() if isinstance(value, np.ndarray) else value
    numbers = [_float(part) for part in plain] if isinstance(plain, (list, tuple)) else []
    found = [number for number in numbers if number is not None]
    return found if found and len(found) == len(numbers) else None


def _mapping(value: Any) -> dict[str, float] | None:
    named = {_str(name): _float(number) for name, number in value.items()} if isinstance(value, Mapping) else {}
    plain = {name: number for name, number in named.items() if name is not None and number is not None}
    return plain if plain and len(plain) == len(named) else None


def _dtype(value: Any) -> str | None:
    if isinstance(value, str):
        return str(value)
    known = isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, (np.generic, float, complex)))
    return np.dtype(value).name if known else None


# kind -> what makes a value Python's own, or None where it is not of that kind; and what that kind is called
_PLAIN: dict[type, Callable[[Any], object]] = {
    bool: _bool, int: _int, float: _float, str: _str, tuple: _pair, list: _list, dict: _mapping, np.dtype: _dtype,
    object: lambda value: value,
}  # fmt: skip
_WORDS = {int: "a whole number", float: "a number", str: "text", tuple: "two numbers", list: "a list of numbers",
          np.dtype: "a dtype or its name", dict: 'numbers by name, like {"f": 1.0},', object: "something"}  # fmt: skip


def check_bool(name: str, value: Any) -> bool:
    """`value`, Python's or NumPy's, as a bool.  Raises OptionError for anything else, numbers and texts too."""
    return Option(name, "", bool).check(value)


def check_share(name: str, value: Any) -> float:
    """`value`, Python's or NumPy's, as a float of at least 0 and below 1.  Raises OptionError for anything else."""
    return Option(name, "", float, at_least=0, below=1).check(value)


RECURRENT_INITIALIZERS = ("keras", "torch", "tf1")
DENSE_INITIALIZERS = ("keras", "tf1", "torch", "normal", "truncated_normal", "small_truncated_normal")

OPTIONS: tuple[Option, ...] = (
    Option("input_size", "features per time step (D)", int, at_least=1, recipe=False),
    # choices of cell and kernel: lstm_np.layers.LAYERS and lstm_np.kernels.KERNELS, where they are defined
    Option("cell", "recurrent cell", str, "lstm"),
    Option("reset", "what the reset gate multiplies: the candidate's recurrent product (after), as cuDNN, PyTorch and "
           "Keras do, or the state before that product (before), as TensorFlow 1 does", str, "after",
           choices=("after", "before"), recipe=False),
    Option("nonlinearity", "what is applied to the pre-activation", str, "tanh", choices=("tanh", "relu"),
           recipe=False),
    Option("hidden_size", "units per layer (H); a list has those of each layer, and so their number", int, at_least=1,
           several=True),
    Option("num_classes", "classes (K); with loss=\"binary\" labels, each 0 or 1", int, at_least=1, recipe=False),
    Option("num_targets", "numbers that are predicted (M)", int, 1, at_least=1, recipe=False),
    Option("num_layers", "recurrent layers (L)", int, 1, at_least=1, flag="layers"),
    Option("bias", "one bias vector per layer and direction (true), none (false), or two that are added, both trained, "
           "as PyTorch has them (double)", bool, True, choices=("double",)),
    Option("bidirectional", "also read each sequence backwards", bool, False),
    Option("reverse", "read each sequence from its end alone; outputs have the order of the sequence", bool, False,
           recipe=False),
    Option("merge", "what a bidirectional layer makes of the outputs of its two directions: concatenated, summed, "
           "multiplied or averaged; none: the two as a pair", str, "concat",
           choices=("concat", "sum", "mul", "average", "none"), recipe=False),
    Option("batch_first", "whether arrays are (B, T, D); if not, (T, B, D); states are (layers, B, H) either way", bool,
           True, recipe=False),
    Option("dropout", "probability to drop an output in training", float, 0.0, at_least=0, below=1),
    Option("dropout_outputs", "which outputs dropout acts on: those between layers, or all, the top layer's included",
           str, "between", choices=("between", "all")),
    Option("dropout_mask", "how often a dropout mask is drawn: at every step, or once for a sequence", str, "step",
           choices=("step", "sequence")),
    Option("masked_outputs", "outputs at steps that a sequence does not have, behind its length or where its mask is "
           "false: zero, as in PyTorch and ONNX, or those of the step before (held), as in Keras", str, "zero",
           choices=("zero", "held"), recipe=False),
    Option("initializer", "initial weights as this system draws them", str, "keras", choices=RECURRENT_INITIALIZERS),
    Option("forget_bias", "initial bias of the forget gate; none: the initializer's own", float, None, optional=True),
    Option("forget_bias_at", "where the forget bias goes: into the trained bias (init), or added at every step (run)",
           str, "init",
           choices=("init", "run")),
    Option("cell_clip", "clip the cell state c to -X ... X at every step, as TensorFlow 1's LSTMCell(cell_clip=X) "
           "does; none: no clipping", float, None, optional=True, above=0, kernel=True),
    Option("initial_state", "the state before the first step, where none is given: zeros, or vectors of each layer and "
           "direction that are trained (learned), from zeros", str, "zeros", choices=("zeros", "learned")),
    Option("hold", "values of the cell that are held at a number at every step, in training too: f at 1 is an LSTM "
           "without a forget gate; none: nothing is held", dict, None, optional=True, kernel=True),
    Option("input_projection", "features of a dense layer before the cell; none: no such layer", int, None,
           optional=True, at_least=1),
    Option("input_projection_initializer", "initial weights of the input projection; none: as initializer", str, None,
           optional=True, choices=DENSE_INITIALIZERS),
    Option("input_projection_bias", "initial biases of the input projection; none: the initializer's own", float, None,
           optional=True),
    Option("readout_initializer", "initial weights of the read-out (the output layer); none: as initializer", str, None,
           optional=True, choices=DENSE_INITIALIZERS),
    Option("readout_bias", "initial biases of the read-out; none: the initializer's own", float, None, optional=True),
    Option("read_out", "what is read of the top layer: the state after the last step of each direction, the output at "
           "the last step, the mean or the maximum of the outputs over the steps that a sequence has (pooling over "
           "time), or the output at each of them, for a prediction at each (sequence labeling)", str, "final_state",
           choices=("final_state", "last_output", "mean", "max", "each_step"), private=("each_step",)),
    Option("loss", "loss function: cross-entropy of one of K classes (softmax), or of K labels that are 0 or 1 each "
           "(binary, for multi-label classification); softmax_twice is a published mistake, to study it", str,
           "softmax", choices=("softmax", "softmax_twice", "binary"), private=("binary",)),
    Option("class_weights", "what each of the K classes counts in the loss, at least 0; of binary labels: what their "
           "ones count; none: 1 each", list, None, optional=True, at_least=0, recipe=False),
    Option("label_smoothing", "share of each target that is spread evenly over all classes", float, 0.0, at_least=0,
           below=1),
    Option("ignored_label", "labels of this value count nothing; none: all count", int, None, optional=True,
           recipe=False),
    Option("huber_delta", "error up to which the Huber loss is squared; beyond it, it is absolute", float, 1.0, above=0,
           recipe=False),
    Option("stateful", "each batch goes on from the state in which the one before ended, sequence by sequence, within "
           "an epoch and within a call of predict or evaluate", bool, False, recipe=False),
    Option("dtype", "floating-point type of the parameters", np.dtype, "float32",
           choices=("float32", "float64", "complex128"), private=("complex128",)),
    Option("seed", "seed of the initial weights and of the dropout masks", int, 0, recipe=False),
    Option("kernel", "kernel that computes a layer; auto: the fastest one that supports it", str, "auto", recipe=False),
    Option("backend", "where to compute: numpy, cupy or a Backend", object, "numpy", recipe=False),
)  # fmt: skip
BY_NAME = {option.name: option for option in OPTIONS}

# options that are another thing for regressors than for classifiers
OF_REGRESSORS = {
    option.name: option
    for option in (
        Option("loss", "loss function: the squared, absolute or Huber loss of output minus target",
               str, "squared", choices=("squared", "absolute", "huber"), recipe=False),
    )
}  # fmt: skip


def of(constructor: Any) -> dict[str, Option]:
    """The options by name, as they are for a layer's or model's class: `own_options` of it take precedence."""
    return {**BY_NAME, **getattr(constructor, "own_options", {})}


def given(local_variables: Mapping[str, Any]) -> dict[str, Any]:
    """The options among the `locals()` of a constructor that has just been called, by name."""
    return {name: local_variables[name] for name in BY_NAME if name in local_variables}


def check(values: Mapping[str, Any], table: Mapping[str, Option] = BY_NAME) -> dict[str, Any]:
    """Options by name, each as Python's own value, in the order of the list; `table` as `of` gives it.

    Raises OptionError.
    """
    checked = {name: option.check(values[name]) for name, option in table.items() if name in values}
    if checked.get("bias") is False:
        if checked.get("forget_bias_at") == "run":
            raise OptionError("a forget bias added at run time needs a layer with a bias")
        if checked.get("forget_bias") is not None:
            raise OptionError(f"forget_bias is {checked['forget_bias']}, but the layer has no bias")
    sizes = checked.get("hidden_size")
    if isinstance(sizes, list):
        if checked.get("num_layers", 1) not in (1, len(sizes)):
            raise OptionError(f"hidden_size is {sizes}, for {len(sizes)} layers; num_layers is {checked['num_layers']}")
        checked |= {"hidden_size": sizes if len(set(sizes)) > 1 else sizes[0], "num_layers": len(sizes)}
    _check_directions(checked)
    if checked.get("num_classes") == 1 and checked.get("loss") != "binary":
        raise OptionError('num_classes must be at least 2, found 1; a single label of 0 or 1 is loss="binary"')
    return checked


def _check_directions(checked: Mapping[str, Any]) -> None:
    both, merge = checked.get("bidirectional", False), checked.get("merge", "concat")
    if checked.get("reverse") and both:
        raise OptionError("reverse reads sequences from their ends alone, bidirectional both ways; choose one")
    if merge != "concat" and not both:
        raise OptionError(f"merge is {merge!r}, but the layers read in one direction")
    if merge == "none" and checked.get("num_layers", 1) > 1:
        raise OptionError(
            "merge is 'none', but a layer above needs the outputs of both directions as one; stack layers"
        )


def check_count(name: str, value: object, at_least: int) -> int:
    """A whole number that is no option, such as a batch size, as Python's int; `name` is what errors call it.

    Raises OptionError unless it is one, Python's or NumPy's, of at least `at_least`.
    """
    return Option(name, "", int, at_least=at_least).check(value)


def taken_by(constructor: Callable[..., object]) -> tuple[str, ...]:
    """The names of the options that a layer's or model's constructor takes."""
    parameters = inspect.signature(constructor).parameters
    return tuple(name for name in BY_NAME if name in parameters)


def changed(values: Mapping[str, Any], table: Mapping[str, Option] = BY_NAME) -> dict[str, Any]:
    """Those of `values` that are options and not at their defaults; `table` as `of` gives it."""
    return {name: value for name, value in values.items() if name in table and value != table[name].default}


def of_kernel(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` that are not at their defaults and that a kernel must know, beyond what every layer has."""
    return {name: value for name, value in changed(values).items() if BY_NAME[name].kernel}


def as_call(name: str, values: Mapping[str, Any], table: Mapping[str, Option] = BY_NAME) -> str:
    """The call of `name` with these options, `LSTM(28, 128, num_layers=2)`; what is at its default is left out."""
    said = changed(values, table)
    sizes = [repr(value) for key, value in said.items() if table[key].default is REQUIRED]
    others = [f"{key}={value!r}" for key, value in said.items() if table[key].default is not REQUIRED]
    return f"{name}({', '.join(sizes + others)})"


def warn_if_nothing_is_dropped(values: Mapping[str, Any]) -> None:
    """OptionWarning, at the line outside this package, where dropout falls between layers and there is one layer."""
    if values["dropout"] > 0 and values["dropout_outputs"] == "between" and values["num_layers"] == 1:
        warnings.warn(
            f"dropout {values['dropout']:g} drops nothing: it acts between layers, and there is one layer; "
            'add a layer, or drop "all" outputs (dropout_outputs)',
            OptionWarning,
            stacklevel=depth_of_caller(),
        )


def warn_if_no_error_is_cut(values: Mapping[str, Any]) -> None:
    """OptionWarning, at the line outside this package, where the Huber loss has a delta and the loss is another."""
    delta = values.get("huber_delta")
    if delta is not None and delta != BY_NAME["huber_delta"].default and values["loss"] != "huber":
        warnings.warn(
            f'huber_delta {delta:g} changes nothing: the loss is {values["loss"]}; for Huber\'s choose loss="huber"',
            OptionWarning,
            stacklevel=depth_of_caller(),
        )


@contextmanager
def silent() -> Iterator[None]:
    """No OptionWarning: what is made meanwhile is a copy of something, or comes from a file, and it was said then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptionWarning)
        yield


def depth_of_caller() -> int:
    """The stack level, for a warning of the calling function, of the first frame outside lstm_np."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "lstm_np":
        frame, depth = frame.f_back, depth + 1
    return depth


Class = TypeVar("Class", bound=type)


def documented(cls: Class) -> Class:
    """Class decorator: after the docstring, the options that the constructor takes, as the list explains them.

    The constructor refuses what other libraries call such options in words (`lstm_np.other_names`).
    """
    with_hints(cls)
    lines = []
    for name in taken_by(cls):
        option = of(cls)[name]
        default = "" if option.default is REQUIRED else f" [{option.default}]"
        lines.append(
            textwrap.fill(option.help + default, 116, initial_indent=f"{name:<16} ", subsequent_indent=" " * 17)
        )
    if cls.__doc__ is not None:  # it is not there under python -OO
        cls.__doc__ = inspect.cleandoc(cls.__doc__) + "\n\nOptions, with their defaults:\n\n" + "\n".join(lines) + "\n"
    return cls
