"""Pictures of digits as people take and store them: the digit is read, or the picture is refused in one line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lstm_np.data import load_digits
from lstm_np.data.images import ImageError, read_pictures
from lstm_np.data.ink import NoInkError, find_ink
from tests.data import photographs
from tests.data.photographs import KINDS, Scene, photograph, unreadable, write_photographs

SIZE = (28, 28)


@pytest.fixture(scope="module")
def digits():
    """Four digits with values 0 ... 1 in frames with a margin."""
    pytest.importorskip("sklearn", reason="scikit-learn (extra `data`) is missing")
    images = load_digits().test_images[[0, 1, 4, 7]] / 16
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))


def read(path, size=SIZE):
    (picture,) = read_pictures(path, size, "mnist")
    return picture


def stored(tmp_path, digit, scene, seed=0):
    path = tmp_path / f"digit{scene.suffix}"
    path.write_bytes(photograph(digit, scene, np.random.default_rng(seed)))
    return path


def alike(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_photographs_are_read_as_the_digit_that_is_on_them(tmp_path, digits, kind):
    """One of each kind; `python -m tests.data.photographs RUN` asks a model about hundreds."""
    number = list(KINDS).index(kind) % len(digits)
    digit = digits[number : number + 1]
    (path,) = write_photographs(tmp_path, digit, kind, 1)
    assert alike(read(path).pixels, read(stored(tmp_path, digit[0], Scene(size=(300, 300)))).pixels) > 0.9


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_an_orientation_mark_is_followed(tmp_path, digits, turn):
    for form in ("jpeg", "png", "png16", "tiff16", "webp"):
        scene = Scene(size=(300, 400), form=form)
        upright, turned = (
            read(stored(tmp_path, digits[0], scene)),
            stored(tmp_path, digits[0], replace(scene, turn=turn)),
        )
        assert alike(read(turned).pixels, upright.pixels) > 0.98
        assert "300x400, rotated as its EXIF orientation says" in read(turned).story
        assert "turned" not in upright.story


@pytest.mark.parametrize("mark", range(1, 9))
def test_every_orientation_mark_is_what_pillow_takes_it_for(tmp_path, mark):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[photographs.ORIENTATION] = mark
    array = np.zeros((28, 28), np.uint8)
    array[8:20, 10:12], array[8:10, 10:18] = 255, 200
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture)) / 255
    np.testing.assert_allclose(read(tmp_path / "a.png").pixels, expected)


PICTURES = unreadable(np.random.default_rng(0))


@pytest.mark.parametrize("size", [(28, 28), (60, 80), (240, 320)], ids=str)
@pytest.mark.parametrize("what", PICTURES)
def test_unreadable_pictures_are_refused_in_one_line(tmp_path, what, size):
    np.save(tmp_path / "a.npy", unreadable(np.random.default_rng(0), *size)[what])
    with pytest.raises(ImageError) as caught:
        read(tmp_path / "a.npy", (27, 27))
    assert str(caught.value).startswith(f"{tmp_path}/a.npy: ")
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_small_photograph_of_the_models_size_is_not_taken_as_it_is(tmp_path, digits):
    scene = Scene(size=SIZE, share=1.0, paper=(0.75,) * 3, light=0.4)
    picture = read(stored(tmp_path, digits[0], scene))
    assert "dark on light: inverted, ink scaled to" in picture.story
    assert np.median(picture.pixels) == 0
    assert alike(picture.pixels, read(stored(tmp_path, digits[0], Scene())).pixels) > 0.9


def test_specks_and_a_dark_edge_are_no_part_of_the_digit(tmp_path, digits):
    scene = Scene(size=(300, 300), share=0.5)
    with Image.open(stored(tmp_path, digits[2], scene)) as picture:
        seen = np.array(picture.convert("L")) / 255
    seen[20:24, 20:24] = seen[280:283, 150:153] = 0.1
    seen[:, 290:] = 0.2
    np.save(tmp_path / "a.npy", seen)
    assert alike(read(tmp_path / "a.npy").pixels, read(stored(tmp_path, digits[2], scene)).pixels) > 0.98


def test_many_things_are_no_digit():
    seen = np.full((240, 320), 0.9)
    for row in range(20, 220, 40):
        seen[row : row + 20, 20:300:40] = seen[row : row + 20, 21:300:40] = seen[row : row + 20, 22:300:40] = 0.1
    with pytest.raises(NoInkError, match="found 35 pieces of ink"):
        find_ink(seen)


# ---- what files hold


def image_of(digit, levels=255):
    return (np.kron(digit, np.ones((10, 10))) * levels).round()


def numbers(digit):
    return {
        "bytes": image_of(digit).astype(np.uint8),
        "bytes in larger numbers": image_of(digit).astype(np.int64),
        "16 bits": image_of(digit, 65535).astype(np.uint16),
        "16 bits of a 12-bit camera": image_of(digit, 4095).astype(np.uint16),
        "fractions": image_of(digit) / 255,
        "fractions, rounded": (image_of(digit) / 255 + 1e-7).astype(np.float32),
        "a channel at the end": image_of(digit).astype(np.uint8)[..., None],
        "a channel first": image_of(digit).astype(np.uint8)[None, None],
        "three channels": np.repeat(image_of(digit).astype(np.uint8)[..., None], 3, axis=2),
    }


@pytest.mark.parametrize("what", numbers(np.eye(12)))
def test_numpy_files(tmp_path, digits, what):
    np.save(tmp_path / "a.npy", numbers(digits[0])[what])
    np.save(tmp_path / "b.npy", numbers(digits[0])["fractions"])
    np.testing.assert_allclose(read(tmp_path / "a.npy").pixels, read(tmp_path / "b.npy").pixels, atol=0.02)


@pytest.mark.parametrize("kind", ["bool", "uint8", "int64", "uint16"])
def test_zeros_and_ones_are_black_and_white(tmp_path, digits, kind):
    mask = np.zeros(SIZE, kind)
    mask[4:24, 12:16] = 1
    np.save(tmp_path / "a.npy", mask)
    np.testing.assert_array_equal(read(tmp_path / "a.npy").pixels, mask.astype(float))
    if kind != "int64":
        Image.fromarray(mask).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read(tmp_path / "a.png").pixels, mask.astype(float))


def test_rows_of_pixels_are_images_of_the_models_size(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, *SIZE), np.uint8)
    images[:, [0, -1]] = images[:, :, [0, -1]] = 0
    for name, array in (
        ("five", images.reshape(5, 784)),
        ("one", images[:1].reshape(1, 784)),
        ("flat", images[0].ravel()),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        pictures = read_pictures(tmp_path / f"{name}.npy", SIZE, "mnist")
        np.testing.assert_allclose([p.pixels for p in pictures], images[: len(pictures)] / 255)
        assert len(pictures) == (5 if name == "five" else 1)
        assert pictures[0].story == "28x28, a row of 784"
    square = np.zeros((784, 784))
    square[100:600, 300:400] = 1
    np.save(tmp_path / "square.npy", square)
    assert read(tmp_path / "square.npy").story.startswith("784x784, ink scaled")


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.full((9, 9), 300, np.int64), "values from 300 to 300, expected whole numbers from 0 to 255"),
        (np.array([[-1, 5]] * 9), "values from -1 to 5, expected whole numbers from 0 to 255"),
        (np.full((9, 9), 255.0), "values from 255 to 255, expected fractions from 0 to 1"),
        (np.zeros((2, 9, 9, 7)), "expected numbers (rows, columns) or (N, rows, columns)"),
        (np.zeros(SIZE), "every pixel is alike; expected a digit"),
    ],
)
def test_numbers_that_are_no_image(tmp_path, array, text):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ImageError) as caught:
        read(tmp_path / "a.npy")
    assert text in str(caught.value)


def test_float_tiff(tmp_path, digits):
    fractions = (image_of(digits[0]) / 255).astype(np.float32)
    Image.fromarray(fractions).save(tmp_path / "a.tif")
    np.save(tmp_path / "a.npy", fractions)
    np.testing.assert_allclose(read(tmp_path / "a.tif").pixels, read(tmp_path / "a.npy").pixels)
    Image.fromarray(fractions * 255).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="values from 0 to 255, expected fractions from 0 to 1"):
        read(tmp_path / "a.tif")


def test_16_bits_of_the_models_size(tmp_path):
    deep = np.zeros(SIZE, np.uint16)
    deep[4:24, 12:16] = 40_000
    Image.fromarray(deep).save(tmp_path / "a.png")
    np.testing.assert_allclose(read(tmp_path / "a.png").pixels, deep / 65535)


def test_several_frames(tmp_path, digits):
    frames = [Image.fromarray(image_of(digit).astype(np.uint8)) for digit in digits]
    for name in ("a.gif", "a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        picture = read(tmp_path / name)
        assert picture.story.startswith("120x120, frame 1 of 4")
        np.save(tmp_path / "a.npy", image_of(digits[0]).astype(np.uint8))
        np.testing.assert_allclose(picture.pixels, read(tmp_path / "a.npy").pixels, atol=0.02)


def test_a_folder_and_a_picture_of_a_telephone(tmp_path):
    with pytest.raises(ImageError, match="a folder; expected an image file"):
        read(tmp_path)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ImageError, match="save it as JPEG"):
        read(tmp_path / "a.heic")


def test_a_picture_of_nothing_but_transparency(tmp_path):
    Image.new("RGBA", (60, 60), (0, 0, 0, 0)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="everything is transparent; expected a digit"):
        read(tmp_path / "a.png")
