"""Photographs of digits, made from images of a data set: light, noise, orientation marks, colours and file formats.

    python -m tests.data.photographs RUN [--count 500] [--data-dir FOLDER] [--seed 0] [--kinds KIND ...]

asks a trained model about every image as it is, and about a photograph of each under every kind of disturbance; the
table says how many of those that are right as clean images are right as photographs.  Everything is drawn from a seed.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
MARKS = {0: 1, 90: 8, 180: 3, 270: 6}  # EXIF's mark for a picture that was stored turned by so many degrees clockwise
Random = np.random.Generator


@dataclass(frozen=True)
class Scene:
    """How a photograph is taken.

    size     (rows, columns) in pixels
    share    of the shorter side that the digit's frame takes
    place    where the frame lies in what is left: (down, right), each 0 ... 1
    paper, ink   red, green and blue, each 0 ... 1
    light    the share of the light that is lost from one end of the picture to the other, and the direction in degrees
    noise    standard deviation, white being 1
    turn     degrees clockwise by which the picture is stored turned, with the mark that says so
    form     "png", "jpeg", "png16", "palette", "alpha", "1-bit", "tiff16", "webp"
    """

    size: tuple[int, int] = (600, 600)
    share: float = 0.6
    place: tuple[float, float] = (0.5, 0.5)
    paper: tuple[float, float, float] = (0.9, 0.9, 0.9)
    ink: tuple[float, float, float] = (0.15, 0.15, 0.15)
    light: float = 0.0
    direction: float = 0.0
    noise: float = 0.0
    turn: int = 0
    form: str = "png"

    @property
    def suffix(self) -> str:
        return {"jpeg": ".jpg", "tiff16": ".tif", "webp": ".webp"}.get(self.form, ".png")


def photograph(digit: np.ndarray, scene: Scene, rng: Random) -> bytes:
    """The file of a photograph of a digit (rows, columns) with values 0 ... 1, 1 being ink."""
    ink = lay_out(digit, scene)
    rows, columns = scene.size
    towards = np.deg2rad(scene.direction)
    way = np.cos(towards) * np.arange(columns) / columns + np.sin(towards) * np.arange(rows)[:, None] / rows
    light = 1 - scene.light * (way - way.min()) / (way.max() - way.min())
    paper, pen = (np.array(colour, np.float32) for colour in (scene.paper, scene.ink))
    seen = (paper + (pen - paper) * ink[..., None]) * light[..., None].astype(np.float32)
    if scene.noise:
        seen += rng.normal(0, scene.noise, seen.shape).astype(np.float32)
    return stored(np.rot90(seen, -scene.turn // 90), np.rot90(ink, -scene.turn // 90), scene)


def lay_out(digit: np.ndarray, scene: Scene) -> np.ndarray:
    """How much ink, 0 ... 1, is at each pixel of the picture, float32."""
    side = max(round(scene.share * min(scene.size)), 8)
    large = Image.fromarray(digit.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    ink = np.zeros(scene.size, np.float32)
    top, left = (round(part * (extent - side)) for part, extent in zip(scene.place, scene.size, strict=True))
    ink[top : top + side, left : left + side] = np.clip(np.asarray(large), 0, 1)
    return ink


def stored(seen: np.ndarray, ink: np.ndarray, scene: Scene) -> bytes:
    """A picture (rows, columns, 3) with values 0 ... 1 as a file; `ink` is what stays where the form is transparent."""
    seen = np.clip(seen, 0, 1)
    file, exif = io.BytesIO(), Image.Exif()
    exif[ORIENTATION] = MARKS[scene.turn]
    picture = Image.fromarray((seen * 255).round().astype(np.uint8))
    match scene.form:
        case "png" | "webp":
            picture.save(file, scene.form, exif=exif)
        case "jpeg":
            picture.save(file, "jpeg", exif=exif, quality=85)
        case "palette":
            picture.quantize(32).save(file, "png", exif=exif)
        case "1-bit":
            picture.convert("L").convert("1").save(file, "png", exif=exif)
        case "alpha":
            rgba = np.dstack([np.broadcast_to(np.array(scene.ink), seen.shape), ink])
            Image.fromarray((rgba * 255).round().astype(np.uint8)).save(file, "png", exif=exif)
        case "png16" | "tiff16":
            grey = seen @ [0.299, 0.587, 0.114]
            deep = Image.fromarray((grey * 65535).round().astype(np.uint16))
            deep.save(file, scene.form.removesuffix("16"), exif=exif)
        case _:
            raise ValueError(f"unknown form {scene.form!r}")
    return file.getvalue()


def usual(rng: Random) -> Scene:
    """Dark ink on light paper in even light, the digit anywhere in a picture of a few hundred pixels."""
    paper, ink = rng.uniform(0.75, 0.97), rng.uniform(0.05, 0.35)
    rows, columns = (int(side) for side in rng.integers(400, 800, 2))
    return Scene(
        size=(rows, columns),
        share=rng.uniform(0.35, 0.9),
        place=tuple(rng.uniform(0, 1, 2)),
        paper=(paper,) * 3,
        ink=(ink,) * 3,
        direction=rng.uniform(0, 360),
    )


def sized(rng: Random, low: int, high: int) -> Scene:
    rows = int(np.exp(rng.uniform(np.log(low), np.log(high))))
    return replace(usual(rng), size=(rows, int(np.clip(rows * rng.uniform(0.75, 1.33), low, high))))


def dark(rng: Random) -> Scene:
    paper, ink = rng.uniform(0.03, 0.25), rng.uniform(0.65, 0.97)
    return replace(usual(rng), paper=(paper,) * 3, ink=(ink,) * 3)


def coloured(rng: Random) -> Scene:
    """Blue, red, green or black ink on paper that is white, yellow, pink or grey."""
    inks = [(0.1, 0.15, 0.6), (0.7, 0.1, 0.1), (0.05, 0.4, 0.15), (0.1, 0.1, 0.1)]
    papers = [(0.95, 0.95, 0.93), (0.95, 0.9, 0.6), (0.95, 0.8, 0.8), (0.75, 0.75, 0.75)]
    return replace(usual(rng), ink=inks[rng.integers(4)], paper=papers[rng.integers(4)])


def everything(rng: Random) -> Scene:
    """All at once: any size, either way of ink and paper, light that falls by up to a half, noise, a turn, any form."""
    scene = [sized(rng, 200, 3000), dark(rng), coloured(rng)][rng.integers(3)]
    return replace(
        scene,
        size=sized(rng, 200, 3000).size,
        light=rng.uniform(0, 0.5),
        noise=rng.uniform(0, 0.06),
        turn=int(rng.choice([0, 90, 180, 270])),
        form=str(rng.choice(["png", "jpeg", "png16", "palette", "webp"])),
    )


KINDS: dict[str, Callable[[Random], Scene]] = {
    "even light": usual,
    "light falls by 10 %": lambda rng: replace(usual(rng), light=0.1),
    "light falls by 20 %": lambda rng: replace(usual(rng), light=0.2),
    "light falls by 30 %": lambda rng: replace(usual(rng), light=0.3),
    "light falls by 40 %": lambda rng: replace(usual(rng), light=0.4),
    "light falls by 50 %": lambda rng: replace(usual(rng), light=0.5),
    "noise 0.02": lambda rng: replace(usual(rng), noise=0.02),
    "noise 0.05": lambda rng: replace(usual(rng), noise=0.05),
    "noise 0.10": lambda rng: replace(usual(rng), noise=0.10),
    "turned, with the mark": lambda rng: replace(usual(rng), turn=int(rng.choice([90, 180, 270])), form="jpeg"),
    "200 to 400 pixels": lambda rng: sized(rng, 200, 400),
    "1,500 to 3,000 pixels": lambda rng: sized(rng, 1500, 3000),
    "light on dark": dark,
    "light on dark, light falls by 50 %": lambda rng: replace(dark(rng), light=0.5),
    "colours": coloured,
    "16 bits": lambda rng: replace(usual(rng), form="png16"),
    "a palette": lambda rng: replace(usual(rng), form="palette"),
    "transparent paper": lambda rng: replace(usual(rng), form="alpha"),
    "light ink, transparent paper": lambda rng: replace(dark(rng), form="alpha"),
    "one bit": lambda rng: replace(usual(rng), form="1-bit"),
    "everything at once": everything,
}


def write_photographs(folder: Path, digits: np.ndarray, kind: str, seed: int) -> list[Path]:
    """One photograph of each digit (N, rows, columns) with values 0 ... 1, as files in a folder."""
    paths = []
    for number, digit in enumerate(digits):
        rng = np.random.default_rng([seed, list(KINDS).index(kind), number])
        scene = KINDS[kind](rng)
        path = folder / f"{kind.replace(' ', '-')}-{number:04d}{scene.suffix}"
        path.write_bytes(photograph(digit, scene, rng))
        paths.append(path)
    return paths


def unreadable(rng: Random, rows: int = 240, columns: int = 320) -> dict[str, np.ndarray]:
    """Pictures (rows, columns) with values 0 ... 1 on which there is no digit, by what they are."""
    down, right = np.mgrid[0:rows, 0:columns] / [[[rows]], [[columns]]]
    distance = np.hypot(down - 0.5, right - 0.5)
    noise = rng.normal(0, 1, (rows, columns))
    return {
        "blank": np.full((rows, columns), 0.9),
        "black": np.zeros((rows, columns)),
        "a gradient": right,
        "a gradient of a half": 0.9 * (1 - 0.5 * down),
        "a gradient with noise": np.clip(0.9 * (1 - 0.5 * right) + 0.03 * noise, 0, 1),
        "darker corners": 0.9 * (1 - 0.8 * distance**2),
        "a spot of light": np.exp(-10 * distance**2),
        "a dark edge": np.where(right < 0.25, 0.3, 0.8),
        "little noise": np.clip(0.8 + 0.02 * noise, 0, 1),
        "much noise": np.clip(0.5 + 0.2 * noise, 0, 1),
        "nothing but noise": rng.random((rows, columns)),
        "grains": np.where(rng.random((rows, columns)) < 0.05, 0.0, 0.8),
        "one dot": np.where((down == down[rows // 2, 0]) & (right == right[0, columns // 3]), 0.0, 0.9),
    }


def main(argv: list[str] | None = None) -> int:
    """Print the table for a trained model."""
    from lstm_np.backends import get_backend
    from lstm_np.data.images import ImageError, read_pictures
    from lstm_np.training.trained import load_trained

    parser = argparse.ArgumentParser(prog="python -m tests.data.photographs", description=__doc__)
    parser.add_argument("run", help="run folder or weights file of a model that was trained on MNIST")
    parser.add_argument("--count", type=int, default=500, help="test images [500]")
    parser.add_argument("--data-dir", help="the folder with the MNIST files [$LSTM_NP_DATA, else the cache folder]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    arguments = parser.parse_args(argv)
    trained = load_trained(arguments.run, best=False, backend=get_backend("numpy"))
    dataset = trained.load_dataset(None, arguments.data_dir, True, lambda line: print(line, file=sys.stderr))
    images = dataset.test_images[: arguments.count] * np.float32(dataset.scale)
    labels = dataset.test_labels[: arguments.count]
    known = np.flatnonzero(trained.probabilities(images).argmax(axis=1) == labels)
    print(f"{len(known)} of {len(images)} test images are right as they are; of these, as photographs:")
    print(f"{'':36}{'right':>8}{'wrong':>8}{'refused':>8}")
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as folder:
            right = refused = 0
            paths = write_photographs(Path(folder), images[known], kind, arguments.seed)
            for number, path in zip(known, paths, strict=True):
                try:
                    (picture,) = read_pictures(path, trained.image_shape, trained.dataset)
                except ImageError:
                    refused += 1
                    continue
                right += int(trained.probabilities(picture.pixels[np.newaxis]).argmax() == labels[number])
        print(f"{kind:36}{right / len(known):8.1%}{len(known) - right - refused:8}{refused:8}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
