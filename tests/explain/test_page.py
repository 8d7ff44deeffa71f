"""The page in a browser: it opens from disk, and what a person reads is what the engine computed, to the bit."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import lstm_np
from lstm_np.data import sequence_view
from lstm_np.explain.export import page_data, record
from lstm_np.explain.page import page, page_of_sequences, page_within
from lstm_np.explain.samples import Sample

from .browser import data_of
from .conftest import COMMAND, FACTS, random_model

RUNS = {
    "lstm": {},
    "gru": {"cell": "gru"},
    "gru_reset_before": {"cell": "gru_reset_before"},
    "rnn": {"cell": "rnn"},
    "rnn_relu": {"cell": "rnn_relu", "hidden_size": 12},
    "8x8": {"shape": (8, 8)},
    "columns": {"view": "columns"},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True, "hidden_size": 14},
    "last output": {"bidirectional": True, "read_out": "last_output", "hidden_size": 14},
    "projection": {"input_projection": 9},
    "double bias": {"cell": "gru", "bias": "double"},
    "no bias": {"bias": False},
    "cell clip": {"cell_clip": 0.7},
    "float64": {"dtype": "float64", "hidden_size": 16},
}


@pytest.fixture(params=list(RUNS), scope="module")
def case(request, make_case):
    """A model of each kind; of this scope, since pytest then runs all tests of a case in a row."""
    return make_case(**RUNS[request.param])


def traces_of(case):
    """One trace of the engine for each sample."""
    found = []
    for sample in case.samples:
        x = sequence_view(sample.image[np.newaxis], case.trained.view)
        found.append(lstm_np.trace(case.trained.model, x, np.array([sample.label])))
    return found


def number(text: str, dtype: str) -> np.generic:
    """The engine's number that a text stands for."""
    return np.dtype(dtype).type(float(text))


def places(case, rng, count):
    """Random (sample, layer, reverse, t, unit, value), what one picture of the page shows together."""
    stack = case.trained.model.recurrent
    T = sequence_view(case.samples[0].image[np.newaxis], case.trained.view).shape[1]
    found = []
    for _ in range(count):
        single = rng.integers(len(stack.singles))
        layer, reverse = divmod(int(single), stack.directions)
        value = stack.cell.values[rng.integers(len(stack.cell.values))]
        sample, t, unit = (int(rng.integers(size)) for size in (len(case.samples), T, stack.hidden_size))
        found.append((sample, layer, bool(reverse), t, unit, value))
    return sorted(found)


def address(layer, reverse, t, unit, value, sample, tab):
    name = f"layer{layer}" + ("_reverse" if reverse else "")
    return {"s": sample, "t": t + 1, "u": unit, "v": value, "layer": name, "tab": tab}


def with_cards(shown, found, tab):
    """Each of `places` with its card; the page shows them in one go."""
    addresses = [
        address(layer, reverse, t, unit, value, sample, tab) for sample, layer, reverse, t, unit, value in found
    ]
    return zip(found, shown.cards(addresses), strict=True)


def check_sum(table, total, dtype):
    """The printed terms add up to the printed total, and each term is the product of its printed factors."""
    terms = [float(term) for *_, term in table["terms"]]
    size = sum(map(abs, terms))
    bound = (1e-6 if dtype == "float32" else 1e-8) * max(size, 1e-30)
    assert math.isclose(sum(terms), float(total), rel_tol=0, abs_tol=bound), table["caption"]
    for name, left, right, term in table["terms"]:
        product = float(left) * (1.0 if right is None else float(right))
        # a printed float32 is its shortest text, which is as near as 6e-8
        assert math.isclose(product, float(term), rel_tol=2e-7, abs_tol=1e-300), name


def test_it_opens_from_disk_without_a_network(case, shared_page):
    shown = shared_page(case.path)
    assert shown.requests == []
    assert shown.complaints == []
    assert shown.text("#title").startswith(("An ", "A "))
    assert shown.text("#verdict").startswith("Its answer: ")


def test_every_number_of_a_card_is_the_engines(case, shared_page, how_many):
    shown, traces, rng = shared_page(case.path), traces_of(case), np.random.default_rng(1)
    dtype, values = case.trained.model.dtype, case.trained.model.recurrent.cell.values
    count = how_many if case.trained.model.config["cell"] == "lstm" else max(how_many // 3, 8)
    for (sample, layer, reverse, t, unit, value), card in with_cards(shown, places(case, rng, count), "forward"):
        trace, where = traces[sample], {"layer": layer, "reverse": reverse}
        for name in values:
            assert number(card["chips"][name], dtype) == trace.value(name, **where)[0, t, unit], (name, card["title"])
        if value in trace.gates:
            expected = trace.pre_activation(value, **where)[0, t, unit]
            assert number(card["engine"][f"a.{value}"], dtype) == expected
            check_sum(card["sums"][0], expected, dtype)
        elif value == "m":
            check_sum(card["sums"][0], trace.value("m", **where)[0, t, unit], dtype)
        # the line of Python in the card gives the same number
        assert eval(card["python"], {"trace": trace}) == trace.value(value, **where)[0, t, unit]


def test_every_gradient_of_a_card_is_the_engines(case, shared_page, how_many):
    shown, traces, rng = shared_page(case.path), traces_of(case), np.random.default_rng(2)
    dtype, values = case.trained.model.dtype, case.trained.model.recurrent.cell.values
    found = places(case, rng, max(how_many // 3, 8))
    for (sample, layer, reverse, t, unit, value), card in with_cards(shown, found, "backward"):
        trace, where = traces[sample], {"layer": layer, "reverse": reverse}
        for name in values:
            expected = trace.gradient(name, **where)[0, t, unit]
            assert number(card["engine"][f"d.{name}"], dtype) == expected, (name, card["title"])
        for gate in trace.gates:
            expected = trace.pre_activation_gradient(gate, **where)[0, t, unit]
            assert number(card["engine"][f"d.a.{gate}"], dtype) == expected, (gate, card["title"])
        check_sum(card["sums"][0], trace.gradient("h", **where)[0, t, unit], dtype)
        assert eval(card["python"], {"trace": trace}) == trace.gradient(value, **where)[0, t, unit]


def test_the_terms_are_the_weights_times_what_they_multiply(make_case, shared_page):
    case = make_case()
    shown, (trace, *_), params = shared_page(case.path), traces_of(case), case.trained.model.params
    card = shown.card(**address(0, False, 9, 5, "f", 0, "forward"))
    found = {name.replace(" ", ""): (left, right) for name, left, right, _ in card["sums"][0]["terms"]}
    H, row = 30, 30 + 5
    for k in range(28):
        left, right = found[f"W[{row},{k}]·x{k}"]
        assert np.float32(left) == params["layer0.W"][row, k]
        assert np.float32(right) == trace.x()[0, 9, k]
    for j in range(H):
        left, right = found[f"U[{row},{j}]·h{j}"]
        assert np.float32(left) == params["layer0.U"][row, j]
        assert np.float32(right) == trace.value("h")[0, 8, j]
    assert np.float32(found[f"b[{row}]"][0]) == params["layer0.b"][row]


def test_before_the_first_step_the_state_is_zero(make_case, shared_page):
    case = make_case()
    card = shared_page(case.path).card(**address(0, False, 0, 5, "f", 0, "forward"))
    recurrent = [term for term in card["sums"][0]["terms"] if term[0].startswith("U")]
    assert len(recurrent) == 30
    assert all(float(term[3]) == 0 for term in recurrent)


def test_the_colours_of_maps_are_the_values(case, shared_page, how_many):
    shown, traces, rng = shared_page(case.path), traces_of(case), np.random.default_rng(3)
    model = case.trained.model
    top = {"layer": model.recurrent.num_layers - 1}
    shown.go(s=0, layer=f"layer{top['layer']}")
    for name in model.recurrent.cell.values:
        seen = shown.map(name)
        pixels = np.array(seen["pixels"], float).reshape(seen["height"], seen["width"], 4)
        legend = np.array(seen["legend"], float).reshape(256, 4)
        units = seen["rows"].split(",")
        expected, high = traces[0].value(name, **top)[0], float(seen["high"])
        assert seen["width"] == expected.shape[0]
        for _ in range(how_many):
            row, t = int(rng.integers(len(units))), int(rng.integers(seen["width"]))
            if units[row] == "":
                assert pixels[row, t, 3] == 0
                continue
            index = int(np.abs(legend - pixels[row, t]).sum(axis=1).argmin())
            value = float(expected[t, int(units[row])])
            share = abs(value) / high
            share = math.sqrt(share) if seen["root"] else share
            place = (1 + math.copysign(share, value)) / 2 if float(seen["low"]) < 0 else share
            assert abs(255 * place - index) <= 0.5 + 1e-4, (name, units[row], t)


def test_the_image_lies_on_its_side(make_case, shared_page):
    case = make_case()
    shown = shared_page(case.path)
    shown.go(s=0)
    seen = shown.map("image")
    pixels = np.array(seen["pixels"]).reshape(28, 28, 4)[:, :, 0]
    ink = case.samples[0].image
    for t, k in ((3, 4), (12, 9), (20, 25)):
        assert abs((255 - (255 - 26) * ink[t, k] / ink.max()) - pixels[27 - k, t]) < 1.5
    turned = np.rot90(ink)  # to the left: its first row is the first column
    np.testing.assert_allclose(255 - pixels, 229 * turned / ink.max(), atol=1.5)


def test_probabilities_and_the_change_of_mind_in_words(make_case, open_page):
    case = make_case()
    shown, (trace, *_) = open_page(case.path), traces_of(case)
    shown.tab.locator("#panel-p summary").click()
    shown.tab.locator("#panel-p button", has_text="table").click()
    rows = shown.tab.locator("#panel-p tbody tr").all_inner_texts()
    printed = np.array([[np.float32(cell) for cell in row.split("\t")[1:11]] for row in rows])
    np.testing.assert_array_equal(printed, trace.probabilities[0])
    answers = trace.probabilities[0].argmax(axis=1)
    words = shown.text("#verdict")
    assert str(answers[-1]) in words or "undecided from" in words
    strip = shown.tab.locator("#panel-p .run").all_inner_texts()
    sure = trace.probabilities[0].max(axis=1) >= np.float32(0.3)
    runs = [str(k) if certain else "?" for k, certain in zip(answers, sure, strict=True)]
    assert strip == [run for k, run in enumerate(runs) if k == 0 or run != runs[k - 1]]


# clicks on the three dots and on "table" of every panel in sight; how many rows each table then has
OPEN_TABLES = """
() => [...document.querySelectorAll(".panel")].filter((panel) => panel.checkVisibility()).map((panel) => {
  panel.querySelector("summary").click();
  [...panel.querySelectorAll("button")].find((button) => button.textContent.includes("table")).click();
  return panel.querySelectorAll("tbody tr").length;
})
"""


def test_tables_stand_behind_all_pictures(case, shared_page):
    shown = shared_page(case.path)
    rows = shown.tab.evaluate(OPEN_TABLES)
    assert len(rows) >= 5
    assert min(rows) > 1
    assert shown.complaints == []


def test_the_address_survives_a_reload(make_case, open_page):
    case = make_case()
    address = "#s=1&t=7&v=o&u=11&tab=backward&order=index&units=all&target=3"
    shown = open_page(case.path, hash=address)
    before = [shown.text("#card"), shown.text("#title"), shown.text("#now")]
    assert "output gate · unit 11 · row 7" in before[0]
    shown.tab.reload()
    shown.tab.wait_for_selector("html[data-ready]", state="attached")
    assert [shown.text("#card"), shown.text("#title"), shown.text("#now")] == before
    assert shown.tab.evaluate("location.hash") == address


@pytest.mark.parametrize(
    "address", ["#s=99&t=0&v=zzz&u=-1&tab=x&order=y", "#t=1e9&u=3.5", "#%%%", "#hold=layer0,f,all,NaN,3"]
)
def test_an_address_that_means_nothing_is_let_be(make_case, open_page, address):
    shown = open_page(make_case().path, hash=address)
    assert shown.complaints == []
    assert "row 28" in shown.text("#card h2")


def test_everything_by_keyboard(make_case, open_page):
    case = make_case()
    shown = open_page(case.path, hash="#s=0&t=10&v=f&u=3")
    tab, keyboard = shown.tab, shown.tab.keyboard

    def where():
        return dict(re.findall(r"(\w+)=([^&]*)", tab.evaluate("location.hash")))

    keyboard.press("ArrowRight")
    keyboard.press("ArrowRight")
    keyboard.press("ArrowLeft")
    assert where()["t"] == "11"
    keyboard.press("2")
    assert where()["v"] == "i"
    keyboard.press("b")
    assert where()["tab"] == "backward"
    keyboard.press("n")
    assert where()["s"] == "1"
    keyboard.press("p")
    assert where()["s"] == "0"
    keyboard.press("a")
    assert where()["units"] == "all"
    keyboard.press("a")
    tab.locator("#panel-o .plot").focus()
    keyboard.press("ArrowDown")
    after = where()["u"]
    assert after != "3"
    keyboard.press("ArrowUp")
    assert where()["u"] == "3"
    keyboard.press("Home")
    assert where()["t"] == "1"
    keyboard.press("End")
    assert where()["t"] == "28"
    keyboard.press("Enter")
    assert where()["v"] == "o"
    assert re.fullmatch(r"output gate, unit 3, row 28: \S+", tab.locator("#live").inner_text())
    keyboard.press(" ")
    assert tab.locator("#play").inner_text() == "pause"
    keyboard.press(" ")
    # each control and each panel is reached with the tab key, and every stop has a name
    reached = set()
    tab.evaluate("document.activeElement.blur()")
    for _ in range(120):
        keyboard.press("Tab")
        reached.add(tab.evaluate("(document.activeElement.closest('[id]') || document.body).id"))
    assert {"play", "slider", "order", "target", "all", "draw", "theme", "copy", "panel-f", "panel-c"} <= reached
    assert shown.complaints == []


def test_a_click_opens_the_card_of_what_was_clicked(make_case, open_page):
    case = make_case()
    shown = open_page(case.path)
    shown.tab.locator("#panel-c .plot").scroll_into_view_if_needed()
    box = shown.tab.locator("#panel-c .plot").bounding_box()
    units = shown.map("c")["rows"].split(",")
    row, t = 4, 13
    shown.tab.mouse.click(box["x"] + box["width"] * (t + 0.5) / 28, box["y"] + box["height"] * (row + 0.5) / len(units))
    assert shown.text("#card h2") == f"cell state · unit {units[row]} · row {t + 1}"
    assert shown.text("#tip").startswith(f"c, unit {units[row]}, row {t + 1}: ")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(make_case, open_page, theme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    shown = open_page(make_case().path, color_scheme=theme, viewport={"width": width, "height": 900})
    shown.tab.locator("#panel-f summary").click()
    shown.tab.locator("#panel-f button", has_text="table").click()
    for tab in ("forward", "backward", "time", "table"):
        shown.tab.locator(f"#tab-{tab}").click()
        # the whole page once: a tab changes the card alone, and axe is there then
        checker, where = (axe.Axe(), None) if tab == "forward" else (axe.Axe("axe.version"), "#card")
        found = checker.run(shown.tab, where, {"resultTypes": ["violations"]})
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [390, 1024, 1600])
def test_nothing_sticks_out_sideways(make_case, open_page, width):
    shown = open_page(make_case().path, viewport={"width": width, "height": 900})
    assert shown.tab.evaluate("document.documentElement.scrollWidth") <= width


HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "'\"><svg onload=alert(1)>",
    "javascript:alert(1)",
    "\u2028\u2029 \u202e reversed \x00 nul",
    "${alert(1)} $title &lt;b&gt;",
    "--><!-- <!--<script>",
)


def test_hostile_names_stay_inert(make_case, open_page, tmp_path):
    case = make_case(samples=1)
    for name in HOSTILE:
        recording = record(case.trained, Sample(name, case.samples[0].image, 3, 0))
        data = page_data(case.trained, [recording], [(name, name)], name)
        file = tmp_path / "page.html"
        file.write_text(page(data), encoding="utf-8")
        shown = open_page(file)
        assert shown.complaints == []
        assert shown.requests == []
        assert shown.tab.evaluate("document.scripts.length") == 2
        assert name.replace("\x00", "") in shown.tab.evaluate("document.body.textContent").replace("\x00", "")
        shown.close()


def test_the_same_data_give_the_same_bytes(make_case):
    case = make_case()
    made = [
        page(page_data(case.trained, [record(case.trained, one) for one in case.samples], FACTS, COMMAND))
        for _ in range(2)
    ]
    assert made[0] == made[1]


TRIMMED = {
    "lstm": {"units": 7},
    "gru": {"cell": "gru", "units": 7},
    "gru_reset_before": {"cell": "gru_reset_before", "units": 7},
    "rnn": {"cell": "rnn", "units": 7},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True, "hidden_size": 14, "units": 5},
}


@pytest.mark.parametrize("name", list(TRIMMED))
def test_a_file_with_some_units_alone_is_exact_about_them(name, make_case, open_page, how_many):
    case = make_case(**TRIMMED[name])
    shown, traces, rng = open_page(case.path), traces_of(case), np.random.default_rng(4)
    ids, found = data_of(case.path)["ids"], []
    for sample, layer, reverse, t, _, value in places(case, rng, max(how_many // 3, 8)):
        kept = ids[f"layer{layer}" + ("_reverse" if reverse else "")]
        found.append((sample, layer, reverse, t, int(kept[rng.integers(len(kept))]), value))
    for (sample, layer, reverse, t, unit, value), card in with_cards(shown, found, "forward"):
        trace, where = traces[sample], {"layer": layer, "reverse": reverse}
        assert f"unit {unit} " in card["title"]
        assert np.float32(card["chips"][value]) == trace.value(value, **where)[0, t, unit]
        if value in trace.gates:
            check_sum(card["sums"][0], trace.pre_activation(value, **where)[0, t, unit], "float32")
            assert any("the other" in term[0] for term in card["sums"][0]["terms"])
        elif value == "m":
            check_sum(card["sums"][0], trace.value("m", **where)[0, t, unit], "float32")
    for (sample, layer, reverse, t, unit, _), card in with_cards(shown, found, "backward"):
        trace, where = traces[sample], {"layer": layer, "reverse": reverse}
        check_sum(card["sums"][0], trace.gradient("h", **where)[0, t, unit], "float32")
        if 'gradient("s' in card["python"]:
            check_sum(card["sums"][1], trace.gradient("s", **where)[0, t, unit], "float32")
    assert "left out" in shown.text("#left-out")
    assert shown.tab.locator("#draw").is_hidden()
    assert shown.complaints == []


def test_a_file_keeps_within_its_limit(make_case):
    case = make_case()
    recordings = [record(case.trained, one) for one in case.samples]
    whole, units = page_within(case.trained, recordings, FACTS, COMMAND, limit=10_000_000)
    assert units == 30
    limit = len(whole.encode()) - 150_000
    text, units = page_within(case.trained, recordings, FACTS, COMMAND, limit=limit)
    assert 1 <= units < 30
    assert len(text.encode()) <= limit
    larger = page(page_data(case.trained, recordings, FACTS, COMMAND, units=units + 1))
    assert len(larger.encode()) > limit


def test_pictures_are_saved(make_case, open_page):
    shown = open_page(make_case().path)
    for kind, start in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        for panel in ("f", "p"):
            shown.tab.locator(f"#panel-{panel} details").evaluate("(node) => (node.open = true)")
            with shown.tab.expect_download() as saved:
                shown.tab.locator(f"#panel-{panel} button", has_text=kind).click()
            content = saved.value.path().read_bytes()
            assert content.startswith(start)
            assert len(content) > 2000


def test_it_reads_without_javascript(make_case, open_page, browser):
    case = make_case()
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(case.path.as_uri())
    assert tab.locator("noscript table").count() in (0, len(case.samples))  # a browser may not expose its children
    assert "class probabilities after every row" in tab.content()
    context.close()
    stored = data_of(case.path)["passes"][0]["probabilities"]
    assert stored["shape"] == [28, 10]


def test_sequences_that_are_no_images_are_drawn_as_curves(open_page, tmp_path):
    model, rng = random_model(3, hidden_size=12), np.random.default_rng(0)
    x = rng.normal(size=(2, 40, 3)).astype(np.float32)
    (tmp_path / "page.html").write_text(page_of_sequences(model, x, np.array([3, 4])), encoding="utf-8")
    shown = open_page(tmp_path / "page.html", hash="#t=17&u=5&v=g")
    assert shown.tab.locator("#panel-image polyline").count() == 3
    assert shown.tab.locator("#upright").is_hidden()
    trace = lstm_np.trace(model, x[:1], np.array([3]))
    assert np.float32(shown.card(t=17, u=5, v="g")["chips"]["g"]) == trace.value("g")[0, 16, 5]
    assert shown.complaints == []
    with pytest.raises(ValueError, match="x must have shape"):
        page_of_sequences(model, x[0])


def test_784_steps(make_case, open_page):
    case = make_case(view="pixels", samples=1, hidden_size=8)
    shown, (trace,) = open_page(case.path), traces_of(case)
    card = shown.card(**address(0, False, 400, 3, "c", 0, "forward"))
    assert np.float32(card["chips"]["c"]) == trace.value("c")[0, 400, 3]
    assert "pixel 401" in card["title"]
    assert shown.complaints == []


def test_without_a_label_there_are_no_gradients(make_case, open_page, tmp_path):
    case = make_case()
    recording = record(case.trained, Sample("unknown", case.samples[0].image))
    (tmp_path / "page.html").write_text(page(page_data(case.trained, [recording], FACTS, COMMAND)), encoding="utf-8")
    shown = open_page(tmp_path / "page.html", hash="#tab=backward")
    assert "goes forward only" in shown.text("#tab-body")
    assert shown.complaints == []
