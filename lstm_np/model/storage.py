"""Copies, pickles, descriptions and files of models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from lstm_np import old_names, options, other_names
from lstm_np.backends import Backend
from lstm_np.cells import CELLS
from lstm_np.display.tables import html_table
from lstm_np.layers import dense
from lstm_np.model.network import MADE, Network
from lstm_np.optimizers import Adam
from lstm_np.weights import WeightsError, check_shapes, check_values, read_weights, write_weights

SUMMARY_COLUMNS = ("layer", "output shape", "parameters", "kernel")


class StoredNetwork(Network):
    """A model that is copied, described, written to a file and read from one.

    kinds  the classes that a file can be of, by their `size_option`, which only its configuration has
    """

    kinds: ClassVar[dict[str, type[StoredNetwork]]] = {}

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if "size_option" in vars(cls):
            StoredNetwork.kinds[cls.size_option] = cls

    def copy(self, **changes: Any) -> Self:
        """A model with the same parameter values, position and notes, and other settings (dtype, kernel, backend ...).

        >>> model = lstm_np.SequenceClassifier(3, 8, 2)
        >>> model.copy(dtype="float64", kernel="reference")
        SequenceClassifier(3, 8, 2, dtype='float64', kernel='reference')
        """
        with options.silent():
            other = type(self)(**{"backend": self.backend, **self.config, **changes})
        other.params.update(
            {n: other.backend.from_host(self.backend.to_host(a).astype(other.dtype)) for n, a in self.params.items()}
        )
        other.position, other.notes = self.position, dict(self.notes)
        if self._own_optimizer is not None:
            other._own_optimizer = Adam(other.params)
            other._own_optimizer.restore(self._own_optimizer.state())
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Options, arrays and the model's place in training; parameters and optimizer as the objects that they are, so
        that an optimizer which is copied or pickled together with the model goes on belonging to it."""
        return {
            "config": self.config,
            "backend": self.backend,
            "params": self._params,
            "position": self.position,
            "notes": self.notes,
            "optimizer": self._own_optimizer,
            "own": {name: value for name, value in vars(self).items() if name not in MADE},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        with options.silent():
            self._make({**state["config"], "backend": state["backend"]})
        self._params = state["params"]
        self.recurrent.params = self._params.leading(len(self.recurrent.params))
        self.position, self.notes, self._own_optimizer = state["position"], state["notes"], state["optimizer"]
        vars(self).update(state["own"])

    def __copy__(self) -> Self:
        return deepcopy(self)  # parameters that two models shared would train both

    if not TYPE_CHECKING:  # a type checker finds what is not there by itself

        def __getattr__(self, name: str) -> Any:
            raise other_names.no_attribute(self, name)

    def __repr__(self) -> str:
        table = options.of(type(self))
        return options.as_call(type(self).__name__, {**self.config, "backend": self.backend.name}, table)

    def _repr_html_(self) -> str:
        return html_table(repr(self), SUMMARY_COLUMNS, self._summary_rows(), self._size())

    def _size(self) -> str:
        return f"{self.params.flat.shape[0]:,} parameters, {self.dtype}, {self.backend.name} backend"

    def summary(self) -> str:
        """A table of layers, output shapes and parameter counts, from a real pass over one sequence of two steps.

        >>> print(lstm_np.SequenceClassifier(28, 128, 10, kernel="reference").summary())
        layer           output shape  parameters  kernel
        --------------  ------------  ----------  ---------
        input           (B, T, 28)
        lstm layer 0    (B, T, 128)       80,384  reference
        dense read-out  (B, 10)            1,290
        81,674 parameters, float32, numpy backend
        """
        rows = [SUMMARY_COLUMNS, *self._summary_rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        rows.insert(1, tuple("-" * width for width in widths))
        lines = [
            f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
        ]
        return "\n".join([*lines, self._size()])

    def _summary_rows(self) -> list[tuple[str, ...]]:
        stack, xp = self.recurrent, self.backend.xp
        x = xp.zeros((self.input_size, 2, 1), dtype=self.dtype)
        rows: list[tuple[str, ...]] = [("input", f"(B, T, {x.shape[0]})", "", "")]
        if self.config["input_projection"] is not None:
            x = self.project(x)
            count = sum(array.size for array in self.params.section("input_projection").values())
            rows.append(("dense input projection", f"(B, T, {x.shape[0]})", f"{count:,}", ""))
        for layer in range(stack.num_layers):
            singles = stack.singles_of(layer)
            x = xp.concat([single.forward(x, single.initial_state(1), save=False)[0] for single in singles], axis=0)
            count = sum(array.size for single in singles for array in single.params.values())
            label = f"{self.config['cell']} layer {layer}" + (", both directions" if len(singles) == 2 else "")
            rows.append((label, f"(B, T, {x.shape[0]})", f"{count:,}", singles[0].kernel.name))
        outputs = dense.forward(self.params.section("readout"), x[:, -1, :])
        count = sum(array.size for array in self.params.section("readout").values())
        steps = "T, " if self.head.per_step else ""
        rows.append(("dense read-out", f"(B, {steps}{outputs.shape[0]})", f"{count:,}", ""))
        return rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write configuration, `notes` and weights to one safetensors file, atomically (`lstm_np.weights`).

        >>> model = lstm_np.SequenceClassifier(3, 8, 2)
        >>> model.save("my-model.safetensors")
        >>> lstm_np.SequenceClassifier.load("my-model.safetensors")
        SequenceClassifier(3, 8, 2)

        Raises OSError; ValueError for notes that are no plain values, or the complex numbers of a derivative check.
        """
        tensors = {name: self.backend.to_host(array) for name, array in self.params.items()}
        write_weights(path, tensors, {"model": self.config, "notes": self.notes})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, backend: str | Backend = "numpy", kernel: str | None = None) -> Self:
        """The model that `save` wrote, on `backend`; `kernel` replaces the one it was made with.

        Its training starts anew, at position (0, 0, 0) with a fresh optimizer.  `lstm_np.load` reads a file of any
        kind of model: the file says which class it is of.

        >>> lstm_np.SequenceClassifier(3, 8, 2).save("my-model.safetensors")
        >>> model = lstm_np.SequenceClassifier.load("my-model.safetensors", kernel="reference")
        >>> model.predict(np.ones((4, 5, 3))).shape
        (4,)

        Raises WeightsError when the file is missing, damaged, of a newer version, not of such a model, of a cell that
        nobody registered, or has values that are not finite.
        """
        tensors, stored = read_weights(path)
        config, notes = stored.get("model"), stored.get("notes")
        if unknown := stored.keys() - {"model", "notes"}:
            raise _newer(path, f"it says {', '.join(sorted(unknown))}")
        if not isinstance(config, Mapping) or not isinstance(notes, Mapping):
            raise WeightsError(f"{path}: the file does not say which model its weights belong to")
        model = cls._of_file(path, config, tensors, backend, kernel)
        model.notes = dict(notes)
        return model

    @classmethod
    def _present_options(cls, path: str | os.PathLike[str], config: Mapping[str, Any]) -> dict[str, Any]:
        """The options in a file's configuration by their present names.  Raises WeightsError for others."""
        try:
            values = old_names.options(config)
        except ValueError as error:
            raise WeightsError(f"{path}: the model it describes cannot be made ({error})") from error
        for name in values:
            if name not in options.taken_by(cls):
                raise _newer(path, f"its model has {name!r}")
        return values

    @classmethod
    def _of_file(
        cls,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray],
        backend: str | Backend,
        kernel: str | None,
    ) -> Self:
        """The model that a file describes, with the values of its tensors.  Raises WeightsError."""
        kinds = StoredNetwork.kinds
        kind: type[Any] = next((kind for option, kind in kinds.items() if option in config), kinds["num_classes"])
        if not issubclass(kind, cls) and not issubclass(cls, kind):
            raise WeightsError(f"{path}: is of a {kind.__name__}, not of a {cls.__name__}; lstm_np.load reads either")
        made: Any = cls if issubclass(cls, kind) else kind
        config = made._present_options(path, config)
        cell = config.get("cell")
        if isinstance(cell, str) and cell not in CELLS:  # and no file is run because another names it
            raise WeightsError(
                f"{path}: its cell {cell!r} is not known here; register it first: "
                f"lstm_np.register_cell({cell!r}, ...), or --cell {cell}.py on the command line"
            )
        values = sum(array.size for array in tensors.values())
        for name, power, limit in (
            ("hidden_size", 2, values),
            ("input_size", 1, values),
            ("input_projection", 1, values),
            ("num_classes", 1, values),
            ("num_targets", 1, values),
            ("num_layers", 1, len(tensors)),
        ):  # nothing is allocated on the word of a file alone
            given = config.get(name)
            for size in given if isinstance(given, list) else (given,):
                if isinstance(size, int) and size**power > limit:
                    raise WeightsError(f"{path}: {name} {size} needs more than the {values:,} values of its tensors")
        try:
            with options.silent():
                model = made(**{**config, "kernel": kernel or "auto"}, backend=backend)
        except (TypeError, ValueError, MemoryError) as error:
            raise WeightsError(f"{path}: the model it describes cannot be made ({error})") from error
        model.load_weights(tensors, path)
        return model

    def load_weights(self, tensors: Mapping[str, np.ndarray], source: str | os.PathLike[str]) -> None:
        """Take the values of named NumPy arrays, old names included; `source` is what errors call them.

        >>> model, other = lstm_np.SequenceClassifier(3, 8, 2), lstm_np.SequenceClassifier(3, 8, 2, seed=1)
        >>> other.load_weights(model.params.to_host(), "the other model")
        >>> (other.params.flat == model.params.flat).all()
        np.True_

        Raises WeightsError, and changes nothing, when names or shapes differ or a value is not finite.
        """
        try:
            tensors = old_names.parameters(tensors)
        except ValueError as error:
            raise WeightsError(f"{source}: {error}") from error
        check_shapes(source, tensors, self.params.shapes)
        check_values(source, tensors)
        self.params.update({name: self.backend.from_host(array.astype(self.dtype)) for name, array in tensors.items()})


def _newer(path: str | os.PathLike[str], reason: str) -> WeightsError:
    return WeightsError(f"{path}: written by a newer version of lstm_np ({reason}); update lstm_np")
