"""Segment a handwritten digit in a photograph under any lighting: which pixels are ink, and how much ink each has.

1. The brightness of the paper is modelled as a constant, linear or quadratic surface, fitted robustly so that ink has
   little influence.  Dividing by it (subtracting, for dark paper) removes uneven lighting.
2. Ink is either darker or lighter than the paper, whichever has the stronger contrast.
3. Otsu's threshold separates ink from paper ("A threshold selection method from gray-level histograms", IEEE Trans.
   SMC 9, 1979), but is never below the noise of the paper; pixels connected to ink need only a lower threshold.
4. Connected components of ink (8-connected) much smaller than the largest are specks.  Those touching the border of the
   picture are ignored if there are others of some size.
5. All of this is repeated on the part of the picture around the ink, at a higher resolution.

If nothing stands out, or what does is most of the picture or has too many components, there is no digit: NoInkError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

WORKING_SIDE = 256  # pixels; longer pictures are reduced by averaging over squares
FAINTEST = 0.06  # lowest contrast of ink (white is 1); anything fainter may be a stain
NOISE = 4.0  # ink is this many standard deviations above the paper's noise
MOST_INK = 0.45  # largest share of the pixels that ink may cover
SPECK = 0.08  # components with less than this share of the largest one's area are specks
MOST_PIECES = 6
SMALLEST = 12  # fewest pixels of a digit
AT_THE_BORDER = 0.2  # lowest contrast of ink that touches the border; anything fainter is vignetting
WHOLE_SIDE = 0.98  # a component that covers more than this share of a side is no stroke
SHARPNESS = 5.5  # lowest ratio of the digit's longer side to the width of its edges
MARGIN = 0.35  # crop margin for the second pass, as a share of the ink's longer side
EDGE = 0.2  # share of full ink at which a stroke begins


class NoInkError(ValueError):
    """No digit was found; one line says why."""


@dataclass(frozen=True)
class Ink:
    """`amount` of ink per pixel (rows, columns), 0 ... 1, cropped to the ink; `dark` if it is darker than the paper."""

    amount: np.ndarray
    dark: bool


def find_ink(brightness: np.ndarray) -> Ink:
    """The ink in a picture (rows, columns) with values from 0, black.  Raises NoInkError."""
    brightness = np.asarray(brightness, np.float64)
    if np.ptp(brightness) == 0:
        raise NoInkError("every pixel is alike; expected a digit")
    brightness = brightness / brightness.max()
    seen = _look(_averaged(brightness, WORKING_SIDE))
    scale = max(-(-max(brightness.shape) // WORKING_SIDE), 1)
    rows, columns = (slice(first * scale, (last + 1) * scale) for first, last in _extent(seen.strokes))
    part = brightness[_widened(rows, columns, brightness.shape)]
    if part.size < 0.5 * brightness.size:
        seen = _look(_averaged(part, WORKING_SIDE), seen.dark)
    rows, columns = (slice(first, last + 1) for first, last in _extent(seen.strokes))
    return Ink((np.clip(seen.amount, 0, 1) * _grown(seen.strokes, 1))[rows, columns], seen.dark)


class _Seen(NamedTuple):
    """Contrast of each pixel with the paper (1 is full ink), the mask of the strokes, and whether the ink is dark."""

    amount: np.ndarray
    strokes: np.ndarray
    dark: bool


def _look(brightness: np.ndarray, dark: bool | None = None) -> _Seen:
    """Separate ink from paper; `dark` says whether the ink is dark, None takes the stronger contrast."""
    smooth = _blurred(brightness) if max(brightness.shape) >= 64 else brightness
    paper = _paper(smooth)
    difference = paper - smooth
    if dark is None:
        dark = bool((difference**3).sum() > 0)
    stands_out = difference / np.maximum(paper, 0.2) if dark else -difference
    below = -stands_out[stands_out < 0]
    noise = NOISE * 1.4826 * float(np.median(below)) if below.size else 0.0
    threshold = max(_otsu(stands_out), noise, FAINTEST / 2)
    ink = stands_out > threshold
    if not ink.any() or stands_out[ink].mean() < FAINTEST:
        raise NoInkError("nothing stands out of the background; expected a digit")
    if ink.mean() > MOST_INK:
        raise NoInkError("no background can be made out; expected a digit on paper")
    pieces = _pieces(ink)
    if pieces.sum() < SMALLEST:
        raise NoInkError("only specks stand out of the background; expected a digit")
    whole_side = max(side.mean() for side in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1])) > WHOLE_SIDE
    if whole_side or (_at_border(pieces).any() and stands_out[pieces].mean() < AT_THE_BORDER):
        raise NoInkError("only the light changes over the picture; expected a digit")
    amount = stands_out / np.median(stands_out[pieces])
    if _sharpness(amount, pieces) < SHARPNESS:
        raise NoInkError("what stands out of the background has no edges; expected a digit")
    # faint pixels count as strokes if they are connected to definite ink
    labels = _labelled((amount > EDGE) & (stands_out > noise) | pieces)
    return _Seen(amount, np.isin(labels, np.unique(labels[pieces])), dark)


def _pieces(ink: np.ndarray) -> np.ndarray:
    """A mask (rows, columns) of the components that make up the digit.  Raises NoInkError if there are too many."""
    labels = _labelled(ink)
    names, areas = np.unique(labels[ink], return_counts=True)
    inside = ~np.isin(names, _at_border(labels))
    if inside.any() and areas[inside].max() > SPECK * areas.max():
        names, areas = names[inside], areas[inside]
    kept = names[areas > SPECK * areas.max()]
    if len(kept) > MOST_PIECES:
        raise NoInkError(f"found {len(kept)} pieces of ink, as of noise or of many things; expected one digit")
    return np.isin(labels, kept) & ink


def _at_border(image: np.ndarray) -> np.ndarray:
    """The values (n,) at the four sides of an image."""
    return np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])


def _sharpness(amount: np.ndarray, pieces: np.ndarray) -> float:
    """The longer side of the ink divided by the width of its edges: 1 / (median slope at the edges) pixels."""
    rows, columns = _extent(pieces)
    framed = np.pad(amount, 1, mode="edge")
    slope = np.hypot(framed[2:, 1:-1] - framed[:-2, 1:-1], framed[1:-1, 2:] - framed[1:-1, :-2]) / 2
    edge = (amount > 0.2) & (amount < 0.8) & _grown(pieces, max(max(pieces.shape) // 50, 1))
    side = max(rows[1] - rows[0], columns[1] - columns[0]) + 1
    return float(np.median(slope[edge]) * side) if edge.any() else np.inf


def _labelled(mask: np.ndarray) -> np.ndarray:
    """Label the connected components (8-connected) of a mask: (rows, columns), one number per component, -1 elsewhere.

    Every pixel takes the largest label among its neighbours, then the current label of the pixel with that number
    (pointer jumping), until nothing changes.
    """
    numbers = np.where(mask, np.arange(mask.size).reshape(mask.shape), -1)
    while True:
        framed = np.pad(numbers, 1, constant_values=-1)
        rows, columns = mask.shape
        near = np.max([framed[i : i + rows, j : j + columns] for i in range(3) for j in range(3)], axis=0)
        following = np.where(mask, near, -1)
        following = np.where(mask, following.reshape(-1)[following], -1)
        if np.array_equal(following, numbers):
            return numbers
        numbers = following


def _paper(brightness: np.ndarray) -> np.ndarray:
    """The brightness of the paper at every pixel: a constant, plane or quadratic surface, whichever fits most pixels; a
    more complex one has to fit clearly more.  Fitted by reweighted least squares that finally drops outliers.
    """
    small = _averaged(brightness, 64)
    values, noise = small.reshape(-1), np.median(np.abs(np.diff(small))) if small.shape[1] > 1 else 0.0
    near = max(0.01, 2.5 * float(noise))
    best, surface = -1.0, brightness
    for terms in (1, 3, 6):
        design = _quadratic(small.shape)[:, :terms]
        weights = np.ones_like(values)
        for step in range(20):
            weighted = design * weights[:, None]
            coefficients = np.linalg.lstsq(weighted.T @ design, weighted.T @ values, rcond=None)[0]
            off = np.abs(values - design @ coefficients)
            spread = max(1.4826 * float(np.median(off)), 1e-3)
            weights = 1 / np.maximum(off, 1e-3) if step < 8 else (off < 2.5 * spread).astype(float)
        on = float((off < near).mean())
        if on > best + 0.02:
            best, surface = on, (_quadratic(brightness.shape)[:, :terms] @ coefficients).reshape(brightness.shape)
    return surface


def _quadratic(shape: tuple[int, ...]) -> np.ndarray:
    """(pixels, 6): 1, x, y, x^2, xy, y^2 at the middle of each pixel of a picture, -1 ... 1 along each side."""
    y, x = ((2 * np.arange(extent) + 1) / extent - 1 for extent in shape)
    x, y = (part.reshape(-1) for part in np.meshgrid(x, y))
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def _otsu(values: np.ndarray) -> float:
    """The threshold that leaves the least variance within the two classes, of 256 between the extremes."""
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * middles)
    above, rest = below[-1] - below, sums[-1] - sums
    between = below * above * (sums / np.maximum(below, 1) - rest / np.maximum(above, 1)) ** 2
    return float(edges[1 + np.argmax(between)])


def _averaged(image: np.ndarray, side: int) -> np.ndarray:
    """Downsample by averaging over squares until no side exceeds `side`; incomplete squares at the end are dropped."""
    factor = -(-max(image.shape) // side)
    if factor <= 1:
        return image
    rows, columns = (max(extent // factor, 1) for extent in image.shape)
    cut = image[: rows * factor, : columns * factor]
    factors = (cut.shape[0] // rows, cut.shape[1] // columns)
    return cut.reshape(rows, factors[0], columns, factors[1]).mean(axis=(1, 3))


def _blurred(image: np.ndarray) -> np.ndarray:
    """Blur with the kernel (1, 2, 1) / 4 along both axes."""
    framed = np.pad(image, 1, mode="edge")
    across = (framed[:, :-2] + 2 * framed[:, 1:-1] + framed[:, 2:]) / 4
    return (across[:-2] + 2 * across[1:-1] + across[2:]) / 4


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask dilated by so many pixels, with a 3 x 3 square."""
    for _ in range(pixels):
        framed = np.pad(mask, 1)
        across = framed[:, :-2] | framed[:, 1:-1] | framed[:, 2:]
        mask = across[:-2] | across[1:-1] | across[2:]
    return mask


def _extent(mask: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """The bounding box of a mask: (first and last row), (first and last column)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


def _widened(rows: slice, columns: slice, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns with a margin around them, within a picture."""
    margin = round(MARGIN * max(rows.stop - rows.start, columns.stop - columns.start))
    down, right = (
        slice(max(part.start - margin, 0), min(part.stop + margin, extent))
        for part, extent in zip((rows, columns), shape, strict=True)
    )
    return down, right
