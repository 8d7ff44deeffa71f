"""What the page computes itself, from the weights in the file: drawn digits, held gates."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.data import sequence_view
from lstm_np.explain.export import Other, page_data, record
from lstm_np.explain.page import page

from .conftest import COMMAND, FACTS, random_model
from .test_page import RUNS

COMPUTED = [name for name in RUNS if name != "columns"]


@pytest.fixture(params=COMPUTED, scope="module")
def computed(request, make_case):
    """A case that the page computes itself; of this scope, since pytest then runs all tests of a case in a row."""
    return make_case(**RUNS[request.param])


def drawn_pixels(shown):
    """What the model reads of the drawing, (T, D), from the table behind the image."""
    return np.array([row[1:] for row in shown.table("image")], float)


def printed_probabilities(shown):
    """(T, K) from the table behind the curves."""
    return np.array([row[1:11] for row in shown.table("p")], float)


def draw(shown, strokes):
    """Strokes, lists of points with values 0 ... 1, by pointer."""
    box = shown.tab.locator("#pad").bounding_box()
    for stroke in strokes:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        shown.tab.mouse.move(*points[0])
        shown.tab.mouse.down()
        for point in points[1:]:
            shown.tab.mouse.move(*point)
        shown.tab.mouse.up()
    shown.tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


SEVEN = [[(0.2, 0.2), (0.5, 0.2), (0.8, 0.22), (0.6, 0.5), (0.45, 0.85)], [(0.35, 0.5), (0.7, 0.52)]]


def test_a_drawn_digit_is_read_as_the_engine_reads_it(computed, shared_page):
    shown = shared_page(computed.path)
    shown.tab.locator("#draw").click()
    draw(shown, SEVEN)
    x, printed = drawn_pixels(shown), printed_probabilities(shown)
    assert x.max() == 1
    trace = lstm_np.trace(computed.trained.model, x[np.newaxis])
    np.testing.assert_allclose(printed, trace.probabilities[0], atol=1e-5)
    assert "computed in the page" in shown.text("#about")
    assert shown.complaints == []


def test_ink_is_scaled_and_centred_as_in_mnist(make_case, open_page):
    shown = open_page(make_case().path)
    shown.tab.locator("#draw").click()
    draw(shown, [[(0.1, 0.1), (0.2, 0.3)]])
    x = drawn_pixels(shown)
    rows, columns = np.flatnonzero(x.max(axis=1) > 0.2), np.flatnonzero(x.max(axis=0) > 0.2)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
    for axis in (0, 1):
        weight = x.sum(axis=1 - axis)
        assert abs((weight * (np.arange(28) + 0.5)).sum() / weight.sum() - 14) <= 0.5 + 1e-6
    shown.tab.locator("#clear").click()
    shown.tab.locator("#fitted").wait_for(state="hidden")
    assert "Draw a digit" in shown.text("#fit-words")


def test_a_digit_is_drawn_by_keyboard(make_case, open_page):
    shown = open_page(make_case().path)
    shown.tab.locator("#draw").focus()
    shown.tab.keyboard.press("Enter")
    shown.tab.keyboard.press(" ")
    for _ in range(15):
        shown.tab.keyboard.press("ArrowDown")
    shown.tab.keyboard.press(" ")
    assert "pen up" in shown.tab.locator("#live").inner_text()
    assert drawn_pixels(shown).max() == 1
    assert "your digit" in shown.text("#about")


def test_held_values_are_those_of_the_engine(computed, shared_page):
    case = computed
    model, rng = case.trained.model, np.random.default_rng(5)
    stack = model.recurrent
    shown = shared_page(case.path)
    for _ in range(4):
        single = stack.singles[rng.integers(len(stack.singles))]
        value = stack.cell.values[rng.integers(len(stack.cell.values))]
        unit = None if rng.random() < 0.5 else int(rng.integers(stack.hidden_size))
        to, start = float(np.round(rng.normal(), 2)), int(rng.integers(2, 7))
        text = f"{single.name},{value},{'all' if unit is None else unit},{to},{start + 1}"
        shown.card(s=0, hold=text)
        layer, reverse = divmod(stack.singles.index(single), stack.directions)
        hold = lstm_np.Hold(value, to, layer=layer, reverse=bool(reverse), units=unit, steps=slice(start, None))
        x = sequence_view(case.samples[0].image[np.newaxis], case.trained.view)
        trace = lstm_np.trace(model, x, hold=[hold])
        np.testing.assert_allclose(printed_probabilities(shown), trace.probabilities[0], atol=2e-5, err_msg=text)
        assert "held at" in shown.text("#held")
    shown.tab.locator("#let-go").click()
    assert shown.tab.locator("#held").is_hidden()
    np.testing.assert_array_equal(
        printed_probabilities(shown).astype(model.dtype), lstm_np.trace(model, x).probabilities[0]
    )


def test_a_hold_is_made_in_the_card(make_case, open_page):
    case = make_case()
    shown = open_page(case.path, hash="#t=6&v=f&u=3")
    shown.tab.locator(".hold select").select_option("all")
    shown.tab.locator(".hold button[type=submit]").click()
    assert "f of all units held at 1 from row 6 on" in shown.text("#held")
    assert "hold=layer0" in shown.tab.evaluate("location.hash")
    assert shown.card(t=10, v="f", u=4, hold="layer0,f,all,1,6")["chips"]["f"] == "1"


def test_weights_before_training_are_compared_with(make_case, open_page, tmp_path):
    case = make_case()
    before = random_model(28, seed=9)
    recordings = [record(case.trained, one) for one in case.samples]
    data = page_data(case.trained, recordings, FACTS, COMMAND, others=[Other("before training", before)])
    (tmp_path / "page.html").write_text(page(data), encoding="utf-8")
    shown = open_page(tmp_path / "page.html", hash="#s=0&t=10&v=f&u=4&with=weights before training")
    x = case.samples[0].image[np.newaxis]
    this, that = (lstm_np.trace(model, x) for model in (case.trained.model, before))
    small = [float(text) for text in shown.tab.locator(".chip .other").all_inner_texts()]
    np.testing.assert_allclose(small, [that.value(name)[0, 9, 4] for name in that.values], atol=2e-6)
    seen = shown.map("o")
    pixels, legend = np.array(seen["pixels"]).reshape(seen["height"], 28, 4), np.array(seen["legend"]).reshape(256, 4)
    units = [int(unit) if unit else None for unit in seen["rows"].split(",")]
    difference = (this.value("o") - that.value("o"))[0]
    for row, unit in enumerate(units):
        if unit is not None:
            share = difference[:, unit] / float(seen["high"])
            places = 255 * (1 + np.sign(share) * np.sqrt(np.minimum(np.abs(share), 1))) / 2
            found = np.abs(legend[None] - pixels[row][:, None]).sum(axis=2).argmin(axis=1)
            assert np.abs(places - found).max() <= 0.6
    assert "Compared with test image 0, before training" in shown.text("#compared")
    assert shown.complaints == []


def test_two_samples_are_compared(make_case, open_page):
    case = make_case()
    shown = open_page(case.path, hash="#s=0&t=10&v=f&u=4")
    shown.tab.locator("#with").select_option("sample test image 1")
    other = lstm_np.trace(case.trained.model, case.samples[1].image[np.newaxis])
    small = [np.float32(text) for text in shown.tab.locator(".chip .other").all_inner_texts()]
    assert small == [other.value(name)[0, 9, 4] for name in other.values]
    shown.tab.locator("#with").select_option("")
    assert shown.tab.locator("#compared").is_hidden()
