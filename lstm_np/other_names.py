"""What other libraries call what is here, so that who types it from habit is told in one line what it is called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

# arguments of layers and models in PyTorch and Keras, and of one kind of models that others do not have
ARGUMENTS = {
    "activation": "activations are part of a cell: RNN has nonlinearity, and register_cell takes a cell of your own",
    "batch_first": "arrays of a model are batch-first, (B, T, D), always; a layer has the option",
    "class_weight": "it is called class_weights, an option of a SequenceClassifier: a list, a number for each class",
    "class_weights": "it is an option of a SequenceClassifier; sample_weight, in fit, is for all models",
    "device": "it is called backend: backend='cupy' is a GPU",
    "go_backwards": "it is called reverse; outputs keep the order of the sequence",
    "huber_delta": "it is an option of a SequenceRegressor with loss='huber'",
    "ignored_label": "it is an option of a SequenceClassifier; a sample_weight of 0, in fit, is for all models",
    "input_shape": "say input_size, the features of a time step; a batch may have any number of steps",
    "label_smoothing": "it is an option of a SequenceClassifier, whose targets are classes or labels",
    "layout": "it is called batch_first",
    "merge_mode": "it is called merge",
    "kernel_initializer": "it is called initializer, for all of a layer's weights",
    "num_classes": "it is an option of a SequenceClassifier; a SequenceRegressor has num_targets",
    "num_targets": "it is an option of a SequenceRegressor; a SequenceClassifier has num_classes",
    "proj_size": "there is no projection of the state; input_projection of a model is a dense layer before the cell",
    "recurrent_activation": "activations are part of a cell; register_cell takes a cell of your own",
    "recurrent_dropout": "dropout acts on outputs only (dropout_outputs, dropout_mask), never on the state",
    "return_sequences": "a layer gives the outputs of all steps, and the final state",
    "return_state": "a layer gives the outputs of all steps, and the final state",
    "stateful": "pass the final state to the next call: y, state = layer(x, state); a SequenceClassifier has stateful",
    "unit_forget_bias": "it is called forget_bias, which is 1 by default",
    "units": "it is called hidden_size",
    "use_bias": "it is called bias",
    "zero_output_for_mask": "it is called masked_outputs: zero, the default, or held",
}

_CLASS_WEIGHTS = "class_weights=[...] is an option of SequenceClassifier, given where the model is made"
# arguments of fit, evaluate and loss_and_gradients in Keras, scikit-learn and earlier versions
OF_METHODS = {
    "X": "it is called x",
    "class_weight": _CLASS_WEIGHTS,
    "class_weights": _CLASS_WEIGHTS,
    "initial_epoch": "training goes on where the model stands (position)",
    "labels": "it is called y",
    "learning_rate": "it is the optimizer's: optimizer=lstm_np.Adam(model.params, lr=...)",
    "loss": "it is an option of the model, given where it is made",
    "lr": "it is the optimizer's: optimizer=lstm_np.Adam(model.params, lr=...)",
    "sample_weights": "it is called sample_weight",
    "targets": "it is called y",
}

# attributes of modules in PyTorch and of models in Keras
ATTRIBUTES = {
    "compile": "pass the optimizer to fit; the loss is an option of the model",
    "cpu": "copy(backend='numpy') is the same thing on the CPU",
    "cuda": "copy(backend='cupy') is the same thing on a GPU",
    "double": "copy(dtype='float64') is the same thing in float64",
    "eval": "dropout acts in fit, or where forward is given a dropout_key, and nowhere else",
    "get_weights": "params.to_host() gives the parameters as NumPy arrays by name",
    "load_state_dict": "params.update(arrays) sets parameters by name",
    "named_parameters": "params.items() gives names and arrays",
    "parameters": "params is a dict of arrays; optimizers take it whole",
    "reset_state": "each epoch and each call begins from the initial state; a stream has reset",
    "reset_states": "each epoch and each call begins from the initial state; a stream has reset",
    "set_weights": "params.update(arrays) sets parameters by name",
    "state_dict": "params is a dict of arrays by name; params.to_host() gives NumPy arrays of their own",
    "to": "copy(backend=..., dtype=...) is the same thing elsewhere",
    "train": "fit trains a model; dropout acts there, or where forward is given a dropout_key",
    "trainable_variables": "params is a dict of arrays; optimizers take it whole",
    "weights": "params is a dict of arrays by name",
    "zero_grad": "gradients are results of backward, and are never added up",
}


def with_hints(cls: type) -> None:
    """Let the constructor of `cls` refuse arguments of other libraries with a line that says what they are here."""
    constructor: Callable[..., None] = cls.__init__  # type: ignore[misc]
    own = inspect.signature(constructor).parameters

    @functools.wraps(constructor)
    def init(self: Any, *arguments: Any, **options: Any) -> None:
        for name in options:
            if name in ARGUMENTS and name not in own:
                raise TypeError(f"{cls.__name__} has no argument {name!r}: {ARGUMENTS[name]}")
        constructor(self, *arguments, **options)

    cls.__init__ = init  # type: ignore[misc]


Method = TypeVar("Method", bound=Callable[..., Any])


def with_hints_of_method(method: Method) -> Method:
    """Decorator: as `with_hints`, of a method and the names of `OF_METHODS`."""
    own = inspect.signature(method).parameters

    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        for name in options:
            if name in OF_METHODS and name not in own:
                raise TypeError(f"{method.__name__} has no argument {name!r}: {OF_METHODS[name]}")
        return method(*arguments, **options)

    return cast(Method, call)


def no_attribute(owner: object, name: str) -> AttributeError:
    """What to raise for an attribute that `owner` does not have."""
    hint = f": {ATTRIBUTES[name]}" if name in ATTRIBUTES else ""
    return AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=owner)
