"""Images and bars as text: each character shows two pixels, one above the other, so that pixels are about square."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.style import Style
from rich.text import Text

_HALVES = " ▄▀█"  # which of the two pixels is bright: none, the lower, the upper, both
_RAMP = " .:-=+*#%@"  # from dark to bright, for terminals without half-blocks
_BRIGHT = 0.4  # without colours, a pixel at least this bright is drawn
_SMALLEST = 16  # pixels a side; smaller images are enlarged by a whole factor


def drawing(image: np.ndarray, console: Console) -> list[Text]:
    """Lines that show an image (rows, columns) with values 0 ... 1 as well as this console can.

    In colours: grey half-blocks.  In Unicode without colours: black and white half-blocks.  Else: ASCII of more or less
    ink, each character the mean of its two pixels.
    """
    factor = -(-_SMALLEST // max(image.shape))
    image = np.clip(np.kron(image, np.ones((factor, factor))), 0.0, 1.0)
    if len(image) % 2:
        image = np.concatenate([image, np.zeros((1, image.shape[1]))])
    upper, lower = image[0::2], image[1::2]
    if not can_show(_HALVES, console):
        levels = np.minimum((upper + lower) / 2 * len(_RAMP), len(_RAMP) - 1).astype(int)
        return [Text("".join(_RAMP[level] for level in row)) for row in levels]
    if console.is_terminal and console.color_system not in (None, "standard"):
        return [
            Text.assemble(*(("▀", _grey(top, bottom)) for top, bottom in zip(*pair, strict=True)))
            for pair in zip(upper, lower, strict=True)
        ]
    index = 2 * (upper > _BRIGHT) + (lower > _BRIGHT)
    return [Text("".join(_HALVES[k] for k in row)) for row in index]


def bars(shares: Sequence[float], console: Console, *, width: int = 24) -> list[Text]:
    """A line per class: its number, a bar as long as its share, and the share in per cent; the largest one in bold."""
    block = "█" if can_show("█", console) else "#"
    best = int(np.argmax(shares))
    return [
        Text(f"{k} {block * round(share * width):<{width}} {share:7.2%}", style="bold" if k == best else "")
        for k, share in enumerate(shares)
    ]


def side_by_side(left: Sequence[Text], right: Sequence[Text], gap: int = 4) -> list[Text]:
    """The lines of two blocks next to each other, the shorter one in the middle of the longer one's height."""
    height, width = max(len(left), len(right)), max((len(line) for line in left), default=0)
    columns = []
    for block in (left, right):
        above = (height - len(block)) // 2
        columns.append([Text()] * above + list(block) + [Text()] * (height - len(block) - above))
    lines = []
    for one, other in zip(*columns, strict=True):
        line = one.copy()
        line.append(" " * (width - len(one) + gap))
        line.append_text(other)
        line.rstrip()
        lines.append(line)
    return lines


def can_show(characters: str, console: Console) -> bool:
    """Whether the console's encoding has these characters."""
    try:
        characters.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _grey(upper: float, lower: float) -> Style:
    top, bottom = round(255 * upper), round(255 * lower)
    return Style(color=f"rgb({top},{top},{top})", bgcolor=f"rgb({bottom},{bottom},{bottom})")
