"""Lines, bars, drawings and plots: what a person sees, on terminals of every kind."""

from __future__ import annotations

import io
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from lstm_np import data
from lstm_np.data.images import read_pictures
from lstm_np.data.progress import download_bars
from lstm_np.display import text
from lstm_np.display.tables import loss_in_words
from lstm_np.loop import Epoch, History, Metrics, Position, Step
from lstm_np.training import curves, reporters
from lstm_np.training.lines import clock
from lstm_np.training.recipes import load_recipe, recipe_names
from lstm_np.training.records import Best, Outcome, Plan


@pytest.fixture
def plan():
    return Plan(
        recipe=load_recipe(),
        dataset=data.load_digits(),
        held_out="test",
        train_images=60_000,
        held_out_images=10_000,
        steps_per_epoch=469,
        sequence=(28, 28),
        parameters=81_674,
        backend="numpy",
        kernels=("reference",),
        folder=Path("runs/mnist-lstm128-001"),
    )


def record(number, accuracy=0.95, validation=True, steps=None, looks=()):
    train = Metrics(0.5 / number, accuracy, 60_000, 0)
    held = Metrics(0.4 / number, accuracy - 0.01, 10_000, 0) if validation else None
    share = 1.0 if steps is None else steps / 469 - (number - 1)
    return Epoch(number, steps or 469 * number, train, held, 12.5, share, looks)


class Terminal(io.StringIO):
    """A terminal of 80 columns that remembers what was written to it."""

    encoding = "utf-8"

    def isatty(self):
        return True


def visible(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.fixture
def screen(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


def step_of(number, running):
    epoch, batch = divmod(number - 1, 469)
    return Step(Position(epoch, batch + 1, number), 128, np.float32(1.0), np.int64(64), running)


@pytest.mark.parametrize(
    ("loss", "accuracy", "count", "width"), [(0.1234, 0.9876, 2_000, 77), (12.3456, 1.0, 10**6, 80)]
)
def test_the_bar_fits_80_columns(plan, screen, monkeypatch, loss, accuracy, count, width):
    clock = iter(np.arange(0.0, 1e6, 0.0625))
    monkeypatch.setattr(reporters.time, "perf_counter", lambda: float(next(clock)))
    reporter = reporters.LineReporter(screen)
    reporter.start(plan)
    running = SimpleNamespace(read=lambda: Metrics(loss, accuracy, count, 0))
    for number in range(1, 40):
        reporter.step(step_of(number, running))
    reporter.close()
    drawn = [line for line in re.split(r"[\r\n]", visible(screen.getvalue())) if f"loss {loss}" in line]
    assert drawn
    assert max(map(len, drawn)) <= width
    numbers = rf"epoch 1/10 \S+ +loss {loss}  accuracy {accuracy:.2%}  [\d,]+/s  [\d.:]+( s)? left$"
    assert all(re.search(numbers, line.rstrip()) for line in drawn)


def test_the_bar_is_drawn_at_most_ten_times_a_second_and_reads_only_then(plan, screen, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(reporters.time, "perf_counter", lambda: now[0])
    reporter = reporters.LineReporter(screen)
    reporter.start(plan)
    reads = []
    running = SimpleNamespace(read=lambda: reads.append(now[0]) or Metrics(1.0, 0.5, 100, 50))
    for number in range(1, 401):
        now[0] = number * 0.005
        reporter.step(step_of(number, running))
    reporter.close()
    assert 18 <= len(reads) <= 20  # two seconds
    assert min(np.diff(reads)) >= 0.1 - 1e-9


def test_a_line_per_epoch_and_no_bar_where_nobody_watches(plan):
    stream = io.StringIO()
    reporter = reporters.LineReporter(stream)
    reporter.start(plan)
    reporter.step(step_of(1, SimpleNamespace(read=lambda: pytest.fail("nothing is drawn, so nothing is read"))))
    reporter.epoch(record(1))
    reporter.epoch(record(2, validation=False))
    lines = stream.getvalue().splitlines()
    assert lines[-2].split() == ["1/10", "0.5000", "95.00%", "0.4000", "94.00%", "4,800", "12.5", "s"]
    assert lines[-1].split() == ["2/10", "0.2500", "95.00%", "-", "-", "4,800", "12.5", "s"]
    assert "\x1b" not in stream.getvalue()
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("loss", [999.99994, 1e3, 12345.6, 1e30, 3.4e38, float("inf"), float("nan")])
def test_a_loss_of_any_size_fits_its_column(plan, loss):
    stream = io.StringIO()
    reporter = reporters.LineReporter(stream)
    reporter.start(plan)
    reporter.step(replace(step_of(1, None), loss=np.float32(loss)))
    huge = Metrics(loss, 0.1, 60_000, 0)
    reporter.epoch(replace(record(10), train=huge, validation=huge))
    usual = io.StringIO()
    reporters.LineReporter(usual).epoch(record(10))
    row = stream.getvalue().splitlines()[-1]
    assert len(row) == len(usual.getvalue().rstrip("\n"))
    assert row.split()[1] == row.split()[3] == loss_in_words(loss)
    assert float(row.split()[1]) == pytest.approx(loss, rel=5e-3, nan_ok=True)
    table = str(History([replace(record(1), train=huge, validation=huge), record(2)])).splitlines()
    assert len(table[-1]) == len(table[-2])


@pytest.mark.parametrize(
    ("folder", "data_dir", "more"),
    [
        ("runs/a-001", None, "runs/a-001"),
        ("my runs/it's", None, "'my runs/it'\"'\"'s'"),
        ("-x", None, "./-x"),
        ("run", "/data/m n", "run --data-dir '/data/m n'"),
        ("run", "-data", "run --data-dir ./-data"),
        ("run\nline", None, r"$'run\x0aline'"),
        pytest.param(os.fsdecode(b"r\xff'\\"), None, r"$'r\xff\x27\x5c'", id="no text"),
    ],
)
def test_the_next_commands_can_be_pasted(plan, folder, data_dir, more):
    stream = io.StringIO()
    plan = replace(plan, folder=Path(folder), data_dir=None if data_dir is None else Path(data_dir))
    reporters.LineReporter(stream).finish(Outcome(plan, (record(1),), None, None, 1.0, None))
    *_, evaluate, predict = (line for line in stream.getvalue().splitlines() if "python" in line)
    assert evaluate == f"next    python -m lstm_np.evaluate {more}"
    assert predict == f"        python -m lstm_np.predict {more} --index 0 1 2"
    argv = subprocess.run(
        ["bash", "-c", evaluate.replace("next    python -m lstm_np.evaluate", r"printf '%s\0'")],
        stdout=subprocess.PIPE, check=True,
    ).stdout.split(b"\0")  # fmt: skip
    assert os.path.normpath(os.fsdecode(argv[0])) == folder
    assert data_dir is None or os.path.normpath(os.fsdecode(argv[2])) == data_dir


def test_colours_that_are_forced_draw_no_bar_into_a_file(plan, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    reporter = reporters.LineReporter(stream)
    reporter.start(plan)
    reporter.step(step_of(1, SimpleNamespace(read=lambda: pytest.fail("no bar is drawn, so nothing is read"))))
    reporter.close()
    assert visible(stream.getvalue()).splitlines()[-1].split()[0] == "epoch"
    with download_bars() as show:
        show("train-images", 1, 2)
    for written in (stream.getvalue(), capsys.readouterr().err):
        assert not re.search(r"\x1b\[[0-9;?]*[A-LN-Za-ln-z]", written)  # colours end in m; all else moves the cursor


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_told_in_80_columns(plan, name):
    stream, recipe = io.StringIO(), load_recipe(name)
    plan = replace(plan, recipe=recipe, parameters=1_620_610, kernels=("fused", "reference"))
    test, first = Metrics(0.5, 0.9, 10_000, 9_000), Metrics(0.5, 0.875, 128, 112)
    reporter = reporters.LineReporter(stream)
    reporter.start(plan)
    outcome = Outcome(plan, (record(1),), None, test, 1.0, None, None, ((7, 7),) * 10, first)
    reporter.result(outcome)
    reporter.finish(outcome)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "        accuracy 87.50% on the first 128" in lines
    assert any("published" in line for line in lines) == (recipe.published is not None)


def test_the_head_says_what_is_not_as_usual(plan):
    def head(name):
        stream = io.StringIO()
        reporters.LineReporter(stream).start(replace(plan, recipe=load_recipe(name)))
        return stream.getvalue()

    assert "model   1 x lstm(128)\n" in head("mnist-lstm128")
    assert "batch 128, adam, learning rate 0.001, seed 0\n" in head("mnist-lstm128")
    assert "model   dense(128), 1 x lstm(128)\n" in head("tf1-projection")
    assert "model   3 x gru_reset_before(200), dropout 0.5 of all outputs\n" in head("tf1-gru3")
    assert "learning rate 0.0001, softmax twice, seed 0\n" in head("tf1-lstm100")
    best = " ".join(head("best").split())
    for words in (
        "of 28, moved, turned, zoomed",
        "2 x lstm(96), both directions, dropout 0.2 between layers",
        "0.003, cosine, 200 steps of warm-up, gradients clipped to 1, seed 0",
    ):
        assert words in best


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1:00"), (3599.6, "1:00:00"), (3727, "1:02:07")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_the_best_epoch():
    first, better, equal = (Best.candidate(record(n, accuracy), "validation") for n, accuracy in
                            ((1, 0.9), (2, 0.95), (3, 0.95)))  # fmt: skip
    assert first.beats(None)
    assert better.beats(first)
    assert not equal.beats(better)
    assert not first.beats(better)
    assert (better.by, better.epoch) == ("validation accuracy", 2)
    assert Best.candidate(record(3, 0.5), "test").beats(Best.candidate(record(2, 0.9), "test"))  # a smaller loss
    assert Best.candidate(record(1), "test").by == "training loss"
    nothing = Best(1, "training loss", float("nan"))
    assert better.beats(nothing)
    assert not nothing.beats(better)


# ------------------------------------------------------------------------------------------------------------ drawings


def corner(size):
    """An image with its upper left quarter bright."""
    image = np.zeros((size, size))
    image[: size // 2, : size // 2] = 1.0
    return image


def console(**options):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=options.pop("encoding", "utf-8"))
    return Console(file=stream, highlight=False, **options)


def test_half_blocks():
    image = corner(16)
    image[8] = 1.0
    lines = [line.plain for line in text.drawing(image, console())]
    assert lines == ["█" * 8 + " " * 8] * 4 + ["▀" * 16] + [" " * 16] * 3


def test_an_odd_number_of_rows():
    image = np.zeros((17, 16))
    image[16] = 1.0
    lines = [line.plain for line in text.drawing(image, console())]
    assert lines[-1] == "▀" * 16
    assert len(lines) == 9


def test_small_images_are_enlarged():
    lines = [line.plain for line in text.drawing(corner(8), console())]
    assert lines == ["█" * 8 + " " * 8] * 4 + [" " * 16] * 4


def test_ascii_where_the_encoding_has_no_blocks():
    image = np.linspace(0, 1, 16)[None].repeat(16, axis=0)
    lines = [line.plain for line in text.drawing(image, console(encoding="ascii"))]
    assert len(set(lines)) == 1
    assert lines[0][0] == " "
    assert lines[0][-1] == "@"
    assert [text._RAMP.index(character) for character in lines[0]] == sorted(
        text._RAMP.index(character) for character in lines[0]
    )
    assert text.bars([0.25, 0.75], console(encoding="latin-1"), width=4)[1].plain == "1 ###   75.00%"


def test_grey_shades_where_there_are_colours():
    lines = text.drawing(corner(16) * 0.5, console(force_terminal=True, color_system="truecolor"))
    assert lines[0].plain == "▀" * 16
    shades = [str(span.style) for span in lines[0].spans]
    assert shades == ["rgb(128,128,128) on rgb(128,128,128)"] * 8 + ["rgb(0,0,0) on rgb(0,0,0)"] * 8


def test_blocks_side_by_side():
    lines = text.side_by_side(text.drawing(corner(16), console()), text.bars([1.0], console(), width=2))
    assert [line.plain for line in lines][3] == "████████            0 ██ 100.00%"
    assert lines[0].plain == "████████"


# -------------------------------------------------------------------------------------------------------------- images


def one(tmp_path, image, size=(28, 28), dataset="mnist"):
    np.save(tmp_path / "image.npy", image)
    (picture,) = read_pictures(tmp_path / "image.npy", size, dataset)
    return picture


def test_the_longer_side_of_the_ink_gets_its_share_of_the_frame(tmp_path):
    image = np.zeros((200, 150))
    image[20:120, 30:60] = 1.0
    picture = one(tmp_path, image)
    rows, columns = np.flatnonzero(picture.pixels.any(axis=1)), np.flatnonzero(picture.pixels.any(axis=0))
    assert (len(rows), len(columns)) == (20, 6)
    assert (rows[0], columns[0]) == (4, 11)
    assert picture.story == "200x150, ink scaled to 20x6 and centred in 28x28"
    assert picture.pixels.max() == pytest.approx(1.0)


def test_the_centre_of_mass_is_in_the_middle(tmp_path):
    image = np.zeros((100, 100))
    image[10:90, 10:20] = 1.0
    image[10:90, 20:50] = 0.3
    pixels = one(tmp_path, image).pixels
    middle = (pixels.sum(axis=0) @ (np.arange(28) + 0.5)) / pixels.sum()
    assert middle == pytest.approx(14, abs=0.5)
    assert (np.flatnonzero(pixels.any(axis=0)).mean() + 0.5) > 14.5  # so its box is not


def test_dark_on_light_is_inverted_and_the_right_size_left_alone(tmp_path):
    image = np.ones((28, 28))
    image[10:20, 12:15] = 0.25
    picture = one(tmp_path, image)
    np.testing.assert_array_equal(picture.pixels, 1 - image)
    assert picture.story == "28x28, dark on light: inverted"
    np.testing.assert_array_equal(one(tmp_path, 1 - image).pixels, 1 - image)


def test_scaling_keeps_the_mean(tmp_path):
    from lstm_np.data.images import _area_weights

    for before, after in ((100, 20), (7, 20), (33, 10), (5, 5)):
        weights = _area_weights(before, after)
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        np.testing.assert_allclose(weights.sum(axis=0), after / before)


# ------------------------------------------------------------------------------------------------------------- curves


@pytest.mark.parametrize("epochs", [1, 12])
def test_curves(plan, epochs):
    means = np.stack([np.linspace(1, 0.5, 20), np.linspace(0.1, 0.9, 20)], axis=1)
    history = History(record(n, looks=tuple(map(tuple, means / (n, 1)))) for n in range(1, epochs + 1))
    content = curves.draw_curves(history, plan.held_out, curves.title_of(plan))
    from matplotlib import image

    pixels = image.imread(io.BytesIO(content))
    assert pixels.shape[1] > 1200
    held = np.abs(pixels[..., :3] - np.array([0x0B, 0x6E, 0x99]) / 255).max(axis=2) < 0.02
    assert held.sum() > 200  # the curve of what was held back is there
    right = pixels[:, pixels.shape[1] // 2 :, :3]
    trained = (np.abs(right - np.array([0x9A, 0xA5, 0xB1]) / 255).max(axis=2) < 0.02).any(axis=0)
    assert trained.sum() > 400  # accuracy in training is a curve, not a point, after one epoch too


def test_curves_of_an_epoch_that_was_cut_short(plan):
    cut_short = record(2, validation=False, steps=480, looks=((2.2, 0.2),))
    assert curves.draw_curves(History([record(1, looks=((2.3, 0.1),)), cut_short]), plan.held_out, "")
