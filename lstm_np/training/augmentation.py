"""Data augmentation: training images are randomly shifted, rotated and zoomed a little; labels stay the same.

The random draw for a sample is a function of (seed, steps made before, index in the batch), so any batch of a run can
be reproduced.
Source: Simard, Steinkraus and Platt, "Best practices for convolutional neural networks", ICDAR 2003.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lstm_np import streams
from lstm_np.data import Batches

MOVABLE = ("rows", "columns")  # the views whose sequences are still images
NOT_MOVED = {"shift": 0, "rotate": 0.0, "zoom": 0.0}


class Augmented:
    """The batches of `batches` with every image moved by up to `shift` whole pixels along each side, turned by up to
    `rotate` degrees and zoomed by a factor within 1 +- `zoom`, all uniformly at random; pixels from outside are black.

    The sequences must be images read by rows or columns.  Like `Batches` it gives transposed views of (D, T, B).
    """

    def __init__(self, batches: Batches, shift: int, rotate: float, zoom: float, seed: int) -> None:
        self.batches, self.shift, self.rotate, self.zoom, self.seed = batches, shift, rotate, zoom, seed
        self.samples, self.sizes = batches.samples, batches.sizes
        self.indices = batches.indices

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0, *, step: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches of one epoch, from batch `start` on; see `Batches.epoch`.

        `step`: how many steps the run has made before; None: as many as whole epochs and `start` make.
        """
        first = epoch * len(self) + start if step is None else step
        for number, (x, labels) in enumerate(self.batches.epoch(epoch, start), first):
            yield self._move(x.transpose(2, 1, 0), number).transpose(2, 1, 0), labels

    def _move(self, images: np.ndarray, number: int) -> np.ndarray:
        """(D, T, B) from (D, T, B), each of the B images resampled between its pixels (bilinear)."""
        D, T, B = images.shape
        unit = streams.raw(4 * B, self.seed, "augment", number).reshape(4, B) / 2.0**63 - 1.0  # -1 ... 1
        angle, scale = np.deg2rad(self.rotate) * unit[0], 1.0 / (1.0 + self.zoom * unit[1])
        along, across = scale * np.cos(angle), scale * np.sin(angle)
        whole = np.rint((self.shift + 0.5) * unit[2:]).clip(-self.shift, self.shift)
        d, t = (np.arange(size)[:, None] - (size - 1) / 2 for size in (D, T))
        # where in the old image a new pixel comes from, counted in a frame of one black pixel on each side
        u = ((d * along + whole[0] + (D + 1) / 2)[:, None, :] + (t * across)[None, :, :]).clip(0, D + 1 - 1e-6)
        v = ((t * along + whole[1] + (T + 1) / 2)[None, :, :] - (d * across)[:, None, :]).clip(0, T + 1 - 1e-6)
        framed = np.zeros((D + 2, T + 2, B), images.dtype)
        framed[1:-1, 1:-1] = images
        i, j = u.astype(np.intp), v.astype(np.intp)
        u, v = (u - i).astype(images.dtype), (v - j).astype(images.dtype)
        corner, pixels, row = (i * (T + 2) + j) * B + np.arange(B), framed.reshape(-1), (T + 2) * B
        upper = pixels.take(corner) * (1 - v) + pixels.take(corner + B) * v
        lower = pixels.take(corner + row) * (1 - v) + pixels.take(corner + row + B) * v
        return upper * (1 - u) + lower * u
