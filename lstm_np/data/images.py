"""Images of the user's own, from picture or NumPy files, converted to what a model was trained on.

1. A picture is rotated as its EXIF orientation says, colours become grey (ITU-R 601-2 luma), what is transparent is
   paper.
2. Brightness is scaled to 0 ... 1.
3. An image of the model's size with a black background is used as it is, one with a white background is inverted (the
   data sets have light ink on dark).  In any other image the ink is located (`lstm_np.data.ink`), resized by area so
   that its longer side fills the same share of the frame as in the data set (20 of 28 pixels in MNIST), and centred by
   its centre of mass, as in MNIST.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lstm_np.data.ink import NoInkError, find_ink
from lstm_np.errors import LstmNpError
from lstm_np.extras import MissingPackageError, load
from lstm_np.files import expand

if TYPE_CHECKING:
    from PIL import Image

INK_SHARE = {"digits": 1.0}  # share of the frame's side that the ink fills; in the digits data set, all of it
MNIST_INK_SHARE = 20 / 28
BLACK = 0.1  # a background no brighter than this is black
LARGEST_SIDE = 8192  # pixels; no photograph of a digit needs more
ENOUGH_SIDE = 1024  # pixels; larger pictures are averaged over squares first
ROUNDING = 1e-5  # tolerance for fractions outside 0 ... 1
ORIENTATION = 0x0112  # the Exif tag Orientation


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

    A .npy file holds one image (rows, columns), several (N, rows, columns), the same with a last axis of 1, 3 or 4
    channels, or images of the model's size laid out as rows, (N, rows * columns).  Whole numbers are 0 and 1, 0 ... 255
    or, of 16 bits, 0 ... 65535; other numbers are fractions 0 ... 1.  Anything else is read by Pillow and holds one; of
    several frames the first is taken.  Raises ImageError.
    """
    name = str(expand(path))
    if name.lower().endswith(".npy"):
        images, story = _read_npy(name, size)
    else:
        images, story = _read_with_pillow(name)
    several = len(images) > 1
    return [_fit(f"{name}[{k}]" if several else name, image, story, size, dataset) for k, image in enumerate(images)]


def _read_npy(name: str, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """Images (N, rows, columns) with values 0 ... 1, and what was done to them."""
    try:
        # mapped, not read: a file whose header claims more than it holds costs nothing, and pickles are refused
        array = np.load(name, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such image file") from None
    except (OSError, ValueError, EOFError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ImageError(f"{name}: not a NumPy file of an image ({reason})") from None
    expected = "expected numbers (rows, columns) or (N, rows, columns)"
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif" or array.size == 0:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ImageError(f"{name}: found {found}, {expected}")
    story: list[str] = []
    shape = array.shape
    flat = size[0] * size[1]
    if shape[-1] == flat and (array.ndim == 1 or (array.ndim == 2 and shape[0] != flat)):
        array = array.reshape(-1, *size)
        story.append(f"a row of {flat}")
    colours = array.ndim in (3, 4) and array.shape[-1] in (3, 4) and min(array.shape[-3:-1]) > 4
    if array.ndim in (3, 4) and array.shape[-1] == 1:
        array = array[..., 0]
    elif array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in ((3, 4) if colours else (2, 3)):
        raise ImageError(f"{name}: found {array.dtype} {shape}, {expected}")
    sides = array.shape[-3:-1] if colours else array.shape[-2:]
    _check_sides(name, sides)
    images = _unit(name, np.asarray(array), deep=array.dtype.kind == "u" and array.dtype.itemsize == 2)
    if colours:
        images = images[..., :3] @ np.array([0.299, 0.587, 0.114])
    return images.reshape(-1, *sides), [f"{sides[0]}x{sides[1]}", *story]


def _read_with_pillow(name: str) -> tuple[np.ndarray, list[str]]:
    """The picture in a file, (1, rows, columns) with values 0 ... 1, and what was done to it."""
    if not os.path.exists(name):
        raise ImageError(f"{name}: no such image file")
    if os.path.isdir(name):
        raise ImageError(f"{name}: a folder; expected an image file")
    try:
        Image = load("PIL.Image", "png", "pictures need", "Pillow")
    except MissingPackageError as error:
        raise ImageError(f"{name}: {error}") from None
    story: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # from a stream: a raw TIFF opened by name is mapped with the sides that it has after being turned
            with open(name, "rb") as stream, Image.open(stream) as picture:
                _check_sides(name, picture.size[::-1])
                if (frames := getattr(picture, "n_frames", 1)) > 1:
                    picture.seek(0)
                    story.append(f"frame 1 of {frames}")
                # Pillow turns a TIFF file itself when it is loaded, and its mark is gone then
                noted = _orientation(picture)
                picture.load()
                mark = _orientation(picture)
                image = _upright(_grey(name, picture), mark)
                story.insert(0, "{1}x{0}".format(*(picture.size if mark < 5 else picture.size[::-1])))
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        hint = "; save it as JPEG" if name.lower().endswith((".heic", ".heif")) else ""
        kinds = "expected PNG, JPEG ... or a .npy file"
        raise ImageError(f"{name}: not a picture that Pillow can read; {kinds}{hint}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: damaged picture ({' '.join(str(error).split())})") from None
    if (noted, mark) != (1, 1):
        story.append("rotated as its EXIF orientation says")
    return image[np.newaxis], story


def _grey(name: str, picture: Image.Image) -> np.ndarray:
    """A Pillow picture as grey values (rows, columns), 0 ... 1, what is transparent being paper."""
    if picture.mode.startswith(("I", "F")):
        return _unit(name, np.asarray(picture), deep=picture.mode.startswith("I"))
    if not (picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info):
        return _unit(name, np.asarray(_reduced(picture.convert("RGB").convert("L"))))
    colours = _reduced(picture.convert("RGBA"))
    luma = np.asarray(colours.convert("RGB").convert("L"), np.float64) / 255
    opaque = np.asarray(colours.getchannel("A"), np.float64) / 255
    if opaque.max() == 0:
        raise ImageError(f"{name}: everything is transparent; expected a digit")
    shown = float((luma * opaque).sum() / opaque.sum())
    if opaque.mean() > 0.5:  # a photograph with transparent corners: fill them with the brightness of the rest
        paper = float(np.median(luma[opaque > 0.5])) if (opaque > 0.5).any() else shown
    else:
        paper = 0.0 if shown > 0.5 else 1.0  # ink on a transparent background: use white, or black if the ink is light
    return luma * opaque + paper * (1 - opaque)


def _reduced(picture: Image.Image) -> Image.Image:
    """A Pillow picture, downsampled by averaging if it is much larger than needed."""
    factor = max(picture.size) // ENOUGH_SIDE
    return picture.reduce(factor) if factor > 1 else picture


def _orientation(picture: Image.Image) -> int:
    """The Exif orientation of a picture, 1 ... 8; 1 if there is none that can be read."""
    try:
        mark = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged Exif data may raise anything, and the picture itself is fine
        return 1
    return mark if mark in range(1, 9) else 1


def _upright(image: np.ndarray, mark: int) -> np.ndarray:
    """An image (rows, columns) as it is to be seen; itself where mark is 1.  Source: Exif 2.32, tag Orientation."""
    if mark == 1:
        return image
    if mark >= 5:
        image = image.T
    if mark in (3, 4, 7, 8):
        image = image[::-1]
    if mark in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def _unit(name: str, array: np.ndarray, *, deep: bool = False) -> np.ndarray:
    """Numbers scaled to 0 ... 1 according to their type and range; `deep`: whole numbers may have 16 bits.

    Raises ImageError for numbers that mean no brightness.
    """
    values = np.array(array, np.float64)
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: has values that are not finite (NaN or infinity)")
    low, high = values.min(), values.max()
    limit, kind = 1.0, "fractions"
    if array.dtype.kind in "ui":
        # whole numbers 0 and 1 are a mask; bytes are often stored in wider integers
        limit, kind = 1.0 if high <= 1 else 65535.0 if deep and high > 255 else 255.0, "whole numbers"
    if low < -ROUNDING or high > limit + ROUNDING:
        raise ImageError(f"{name}: values from {low:g} to {high:g}, expected {kind} from 0 to {limit:g}")
    return np.clip(values / limit, 0, 1)


def _check_sides(name: str, sides: tuple[int, ...]) -> None:
    if max(sides) > LARGEST_SIDE:
        raise ImageError(f"{name}: {sides[0]}x{sides[1]} pixels, expected at most {LARGEST_SIDE} a side; scale it down")


def _fit(name: str, image: np.ndarray, story: list[str], size: tuple[int, int], dataset: str) -> Picture:
    """An image (rows, columns) with values 0 ... 1 as a model wants it.  Raises ImageError where it shows no digit."""
    share = INK_SHARE.get(dataset, MNIST_INK_SHARE)
    if np.ptp(image) == 0:
        raise ImageError(f"{name}: every pixel is alike; expected a digit")
    if image.shape == size:
        inverted = np.median(_border(image)) > 0.5
        upright = 1.0 - image if inverted else image
        if share == 1 or np.median(_border(upright)) <= BLACK:  # ink that fills the frame leaves no background to see
            return Picture(name, upright, ", ".join([*story, *(["dark on light: inverted"] if inverted else [])]))
    try:
        ink = find_ink(image)
    except NoInkError as error:
        raise ImageError(f"{name}: {error}") from None
    crop, done = ink.amount, [*story, *(["dark on light: inverted"] if ink.dark else [])]
    scale = share * min(size[0] / crop.shape[0], size[1] / crop.shape[1])
    inner = tuple(min(max(round(scale * extent), 1), limit) for extent, limit in zip(crop.shape, size, strict=True))
    small = _area_weights(crop.shape[0], inner[0]) @ crop @ _area_weights(crop.shape[1], inner[1]).T
    small = small / small.max()
    done.append(f"ink scaled to {inner[0]}x{inner[1]} and centred in {size[0]}x{size[1]}")
    framed = np.zeros(size)
    corner = []
    for axis in (0, 1):
        weight = small.sum(axis=1 - axis)
        middle = float(weight @ (np.arange(inner[axis]) + 0.5) / weight.sum())
        corner.append(min(max(round(size[axis] / 2 - middle), 0), size[axis] - inner[axis]))
    framed[corner[0] : corner[0] + inner[0], corner[1] : corner[1] + inner[1]] = small
    return Picture(name, framed, ", ".join(done))


def _border(image: np.ndarray) -> np.ndarray:
    """The values at the four sides of an image."""
    return np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])


def _area_weights(before: int, after: int) -> np.ndarray:
    """(after, before): row k holds the share of each old pixel in new pixel k, the mean over the area it covers."""
    edges = np.arange(after + 1) * (before / after)
    old = np.arange(before)
    overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return np.clip(overlap, 0, None) * (after / before)
