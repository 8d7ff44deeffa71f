"""A person's own image, from a picture file or a NumPy file, made into what a model was trained on.

1. Colours become grey (ITU-R 601-2 luma); what is transparent is white.
2. Brightness is scaled to 0 ... 1.
3. A bright border means dark ink on light paper: the image is inverted, since the data sets have light ink on dark.
4. An image of the model's size is then left alone.  Any other is cropped to its ink, scaled by area so that the ink's
   longer side has the share of the frame that it has in the data set (20 of 28 pixels in MNIST), and placed with its
   centre of mass in the middle, as the makers of MNIST did.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import numpy as np

from lstm_np.errors import LstmNpError
from lstm_np.files import expand

INK_SHARE = {"digits": 1.0}  # of the frame's side that the ink takes; the digits' authors scaled the ink to all of it
MNIST_INK_SHARE = 20 / 28
INK = 0.2  # what is brighter counts as ink when the crop is sought
LARGEST_SIDE = 8192  # pixels; no photograph of a digit needs more


class ImageError(LstmNpError, ValueError):
    """An image that cannot be used; one line: which file, what was found, what was expected."""


@dataclass(frozen=True)
class Picture:
    """An image (rows, columns) with values 0 ... 1 in the size of a model; `story` says what was done to it."""

    name: str
    pixels: np.ndarray
    story: str


def read_pictures(path: str | os.PathLike[str], size: tuple[int, int], dataset: str) -> list[Picture]:
    """The images of a file as a model that was trained on `dataset`, with images of `size`, wants them.

    A .npy file holds one image (rows, columns) or several (N, rows, columns): whole numbers 0 ... 255 or fractions
    0 ... 1.  Anything else is read by Pillow and holds one.  Raises ImageError.
    """
    name = str(expand(path))
    images = _read_npy(name) if name.endswith(".npy") else _read_with_pillow(name)[np.newaxis]
    several = len(images) > 1
    return [_fit(f"{name}[{k}]" if several else name, image, size, dataset) for k, image in enumerate(images)]


def _read_npy(name: str) -> np.ndarray:
    try:
        # mapped, not read: a file whose header claims more than it holds costs nothing, and pickles are refused
        array = np.load(name, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such image file") from None
    except (OSError, ValueError, EOFError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ImageError(f"{name}: not a NumPy file of an image ({reason})") from None
    usable = isinstance(array, np.ndarray) and array.dtype.kind in "buif" and array.size > 0
    if not usable or array.ndim not in (2, 3):
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ImageError(f"{name}: found {found}, expected numbers (rows, columns) or (N, rows, columns)")
    _check_sides(name, array.shape[-2:])
    images = np.array(array, np.float64).reshape(-1, *array.shape[-2:])
    if not np.isfinite(images).all():
        raise ImageError(f"{name}: has values that are not finite (NaN or infinity)")
    limit = 255.0 if array.dtype.kind in "ui" else 1.0
    if images.min() < 0 or images.max() > limit:
        expected = f"{'whole numbers' if limit == 255 else 'fractions'} from 0 to {limit:g}"
        raise ImageError(f"{name}: values from {images.min():g} to {images.max():g}, expected {expected}")
    return images / limit


def _read_with_pillow(name: str) -> np.ndarray:
    if not os.path.exists(name):
        raise ImageError(f"{name}: no such image file")
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ImageError(f'{name}: pictures need Pillow, which is not installed: pip install "lstm_np[png]"') from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(name) as picture:
                _check_sides(name, picture.size)
                colours = picture.convert("RGBA")
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture that Pillow can read; expected PNG, JPEG ... or a .npy file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: damaged picture ({' '.join(str(error).split())})") from None
    paper = Image.new("RGBA", colours.size, "white")
    return np.asarray(Image.alpha_composite(paper, colours).convert("L"), np.float64) / 255.0


def _check_sides(name: str, sides: tuple[int, ...]) -> None:
    if max(sides) > LARGEST_SIDE:
        raise ImageError(f"{name}: {sides[0]}x{sides[1]} pixels, expected at most {LARGEST_SIDE} a side; scale it down")


def _fit(name: str, image: np.ndarray, size: tuple[int, int], dataset: str) -> Picture:
    done = [f"{image.shape[0]}x{image.shape[1]}"]
    if np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])) > 0.5:
        image = 1.0 - image
        done.append("dark on light: inverted")
    if image.shape == size:
        return Picture(name, image, ", ".join(done))
    image = image - image.min()
    ink = image > INK * image.max()
    if not ink.any():
        raise ImageError(f"{name}: every pixel is alike; expected a digit")
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    crop = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / image.max()
    scale = INK_SHARE.get(dataset, MNIST_INK_SHARE) * min(size[0] / crop.shape[0], size[1] / crop.shape[1])
    inner = tuple(min(max(round(scale * extent), 1), limit) for extent, limit in zip(crop.shape, size, strict=True))
    small = _area_weights(crop.shape[0], inner[0]) @ crop @ _area_weights(crop.shape[1], inner[1]).T
    done.append(f"ink scaled to {inner[0]}x{inner[1]} and centred in {size[0]}x{size[1]}")
    framed = np.zeros(size)
    corner = []
    for axis in (0, 1):
        weight = small.sum(axis=1 - axis)
        middle = float(weight @ (np.arange(inner[axis]) + 0.5) / weight.sum())
        corner.append(min(max(round(size[axis] / 2 - middle), 0), size[axis] - inner[axis]))
    framed[corner[0] : corner[0] + inner[0], corner[1] : corner[1] + inner[1]] = small
    return Picture(name, framed, ", ".join(done))


def _area_weights(before: int, after: int) -> np.ndarray:
    """(after, before): row k holds the share of each old pixel in new pixel k, the mean over the area it covers."""
    edges = np.arange(after + 1) * (before / after)
    old = np.arange(before)
    overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return np.clip(overlap, 0, None) * (after / before)
