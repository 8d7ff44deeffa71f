"""Find the ink of a digit in a picture, however it is lit: what is paper, what is ink, and how much of it is where.

1. The paper's brightness is a smooth surface over the picture, at most quadratic, fitted so that ink counts for little.
   The picture divided by it, or less it where the paper is dark, has no uneven light any more.
2. What stands out to the stronger side is ink: darker than the paper or lighter.
3. Ink and paper are told apart by the threshold that separates the brightness of both best (Otsu, "A threshold
   selection method from gray-level histograms", IEEE Trans. SMC 9, 1979), at least as far from the paper as its noise
   reaches; what hangs together with ink is ink from a lower threshold on.
4. Pieces of ink (8-connected) that are small beside the largest are specks, and those at the picture's border belong to
   something else, if anything is within.
5. The same once more in the part of the picture where the ink is, now large enough to be seen well.

Where nothing stands out, or what does is everywhere or in many pieces, there is no digit: NoInkError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

WORKING_SIDE = 256  # pixels; the longer side of what is looked at, larger pictures are averaged over squares
FAINTEST = 0.06  # ink that differs less from the paper (white being 1) cannot be told from stains
NOISE = 4.0  # standard deviations that ink is above the paper's noise
MOST_INK = 0.45  # of the pixels
SPECK = 0.08  # of the area of the largest piece
MOST_PIECES = 6
SMALLEST = 12  # pixels that a digit has at least
AT_THE_BORDER = 0.2  # contrast of ink at the picture's border; what is fainter is a darker corner
WHOLE_SIDE = 0.98  # what covers so much of a side of the picture is no stroke
SHARPNESS = 5.5  # how often, at the least, the way from paper to ink fits into the digit's longer side
MARGIN = 0.35  # around the ink, of its longer side, that the second look takes in
EDGE = 0.2  # of full ink: where a stroke begins


class NoInkError(ValueError):
    """No digit can be made out; one line says why."""


@dataclass(frozen=True)
class Ink:
    """How much ink there is at each pixel (rows, columns), 0 ... 1, cut to where there is any; and of which kind."""

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
    """How far each pixel stands out of the paper, 1 being full ink; where the digit's strokes are; is it dark?"""

    amount: np.ndarray
    strokes: np.ndarray
    dark: bool


def _look(brightness: np.ndarray, dark: bool | None = None) -> _Seen:
    """What is paper and what is ink; `dark` says which kind of ink it is, None: whichever stands out more."""
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
    # strokes go on where they are faint, as far as they hang together with what is surely ink
    labels = _labelled((amount > EDGE) & (stands_out > noise) | pieces)
    return _Seen(amount, np.isin(labels, np.unique(labels[pieces])), dark)


def _pieces(ink: np.ndarray) -> np.ndarray:
    """The pixels of the pieces that make up the digit, a mask (rows, columns).  Raises NoInkError for too many."""
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
    """How often the way from no ink to full ink, as steep as at the edges, fits into the longer side of the ink."""
    rows, columns = _extent(pieces)
    framed = np.pad(amount, 1, mode="edge")
    slope = np.hypot(framed[2:, 1:-1] - framed[:-2, 1:-1], framed[1:-1, 2:] - framed[1:-1, :-2]) / 2
    edge = (amount > 0.2) & (amount < 0.8) & _grown(pieces, max(max(pieces.shape) // 50, 1))
    side = max(rows[1] - rows[0], columns[1] - columns[0]) + 1
    return float(np.median(slope[edge]) * side) if edge.any() else np.inf


def _labelled(mask: np.ndarray) -> np.ndarray:
    """(rows, columns): the same number for all pixels of a mask that hang together, also by corners; -1 elsewhere.

    Every pixel takes the largest number among its neighbours', then the number which that pixel has by now, and so on:
    the way to the largest is halved each time.
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
    """The brightness of the paper at every pixel: a constant, a plane or a quadratic surface, whichever more pixels
    are on, the simplest of equals.  Each is fitted with less weight, in the end with none, where it is far off.
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
    """The means over squares of whole pixels, so that no side is longer than `side`; what is left over is left out."""
    factor = -(-max(image.shape) // side)
    if factor <= 1:
        return image
    rows, columns = (max(extent // factor, 1) for extent in image.shape)
    cut = image[: rows * factor, : columns * factor]
    factors = (cut.shape[0] // rows, cut.shape[1] // columns)
    return cut.reshape(rows, factors[0], columns, factors[1]).mean(axis=(1, 3))


def _blurred(image: np.ndarray) -> np.ndarray:
    """Each pixel with its neighbours, weighted 1, 2, 1 along both sides."""
    framed = np.pad(image, 1, mode="edge")
    across = (framed[:, :-2] + 2 * framed[:, 1:-1] + framed[:, 2:]) / 4
    return (across[:-2] + 2 * across[1:-1] + across[2:]) / 4


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask and what is within so many pixels of it, along the sides."""
    for _ in range(pixels):
        framed = np.pad(mask, 1)
        across = framed[:, :-2] | framed[:, 1:-1] | framed[:, 2:]
        mask = across[:-2] | across[1:-1] | across[2:]
    return mask


def _extent(mask: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """(first and last row, first and last column) with anything in them."""
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
