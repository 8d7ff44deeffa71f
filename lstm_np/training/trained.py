"""A model that was trained, together with how its images have to be given to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lstm_np.backends import Backend
from lstm_np.data import Dataset, DatasetError, load_dataset, sequence_view
from lstm_np.data.dataset import VIEWS
from lstm_np.data.download import Progress
from lstm_np.model import SequenceClassifier, SequenceModel
from lstm_np.training.run_folder import weights_path
from lstm_np.weights import WeightsError


@dataclass(frozen=True)
class Trained:
    """A model from a weights file, and what `train` noted in it.

    classes, features  what they are called; None: by their numbers
    """

    path: Path
    model: SequenceClassifier
    dataset: str
    view: str
    image_shape: tuple[int, int]
    pixel_max: int
    classes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None

    def class_name(self, number: int) -> str:
        """What a class is called."""
        return str(number) if self.classes is None else self.classes[number]

    def load_dataset(
        self,
        name: str | None,
        data_dir: str | os.PathLike[str] | None,
        offline: bool,
        say: Callable[[str], None],
        progress: Progress | None = None,
    ) -> Dataset:
        """The named data set, else the one it was trained on.  Raises DatasetError where its images do not fit."""
        wanted = name or ("digits" if self.dataset == "digits" else "mnist")
        dataset = load_dataset(wanted, data_dir, offline, say, explicit=True, progress=progress)
        if dataset.image_shape != self.image_shape or dataset.num_classes != self.model.num_classes:
            raise DatasetError(
                f"{self.path}: trained on images of {_size(self.image_shape)} in {self.model.num_classes} classes, "
                f"{dataset.name} has {_size(dataset.image_shape)} in {dataset.num_classes}"
            )
        return dataset

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """(N, K) from images (N, rows, columns) with values 0 ... 1."""
        return self.model.predict_proba(sequence_view(images, self.view))


def load_trained(
    run: str | os.PathLike[str] | None,
    *,
    best: bool,
    backend: Backend,
    kernel: str | None = None,
    cell: str | None = None,
) -> Trained:
    """The model of images in a run folder or weights file; arguments and errors as for `load_model`, `of_images`."""
    return of_images(*load_model(run, best=best, backend=backend, kernel=kernel, cell=cell))


def load_model(
    run: str | os.PathLike[str] | None,
    *,
    best: bool,
    backend: Backend,
    kernel: str | None = None,
    cell: str | None = None,
) -> tuple[Path, SequenceModel]:
    """(path, model) of a run folder or weights file; None: of the newest run under runs/.

    cell   what the model's cell must be, where somebody said it

    Raises RunFolderError when there is none, WeightsError when the file cannot be used.
    """
    path = weights_path(run, best=best)
    model = SequenceModel.load(path, backend=backend, kernel=kernel)
    if cell is not None and cell != model.config["cell"]:
        raise WeightsError(f"{path}: its cell is {model.config['cell']!r}, --cell gives {cell!r}")
    return path, model


def of_images(path: Path, model: SequenceModel) -> Trained:
    """The same as a model that `train` has trained on images.  Raises WeightsError for any other."""
    notes: Mapping[str, Any] = model.notes
    if "reading" in notes:
        raise WeightsError(f"{path}: has learnt from sequences of your own, not from images")
    if not isinstance(model, SequenceClassifier):
        raise WeightsError(f"{path}: predicts numbers, expected a classifier of images")
    shape, view, pixel_max = notes.get("image_shape"), notes.get("view"), notes.get("pixel_max")
    good_shape = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and 0 < n <= 4096 for n in shape)
    if not good_shape or view not in VIEWS or type(pixel_max) is not int or pixel_max < 1:
        raise WeightsError(f"{path}: does not say how its images are read; expected weights that train wrote")
    shape = (int(shape[0]), int(shape[1]))  # type: ignore[index]
    features = sequence_view(np.empty((1, *shape), np.uint8), view).shape[2]
    if features != model.input_size:
        raise WeightsError(
            f"{path}: images of {_size(shape)} read as {view} are sequences of {features} values, "
            f"the model expects {model.input_size}"
        )
    return Trained(path, model, str(notes.get("dataset")), view, shape, pixel_max)


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"
