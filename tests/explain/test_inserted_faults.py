"""Faults inserted into what the page is made of: each is noticed by the comparison that the other tests make."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import lstm_np
from lstm_np.explain import export, units
from lstm_np.explain import page as page_module
from tests.faults import with_fault

from .conftest import COMMAND, FACTS
from .test_in_the_page import SEVEN, draw, drawn_pixels, printed_probabilities
from .test_page import address, check_sum, traces_of

VALUES = "found.value(name, **where)[0][:, kept] for"
GRADIENTS = "found.gradient(name, **where)[0][:, kept]"
ROWS = "arrays[name] = rows.reshape(-1, *rows.shape[2:])"
PARAMETERS = "for name, array in single.kernel_params().items():"
LABEL = "label = from_host(np.array([sample.label]))"
BITS = 'plain = np.ascontiguousarray(array, dtype=f"<{kind}")'

EXPORT = {
    "pre-activations of another gate": (export, "found.pre_activation(gate, ", "found.pre_activation(found.gates[0], "),
    "values a step late": (export, VALUES, "np.roll(found.value(name, **where)[0][:, kept], 1, axis=0) for"),
    "two gates exchanged": (export, VALUES, VALUES.replace("(name", "({'i': 'f', 'f': 'i'}.get(name, name)")),
    "units in another order": (export, VALUES, "found.value(name, **where)[0][:, kept[::-1]] for"),
    "half the precision": (export, BITS, BITS.replace("array, ", "np.asarray(array).astype(np.float16), ")),
    "another label": (export, LABEL, LABEL.replace("sample.label", "(sample.label + 1) % 10")),
    "values' gradients for pre-activations'": (export, "found.pre_activation_gradient(", "found.gradient("),
    "the image transposed": (export, "packed(found.x()[0])", "packed(found.x()[0].T)"),
    "probabilities a step early": (
        export, "packed(found.probabilities[0])", "packed(np.roll(found.probabilities[0], -1, axis=0))"),
    "U transposed": (units, ROWS, f"rows = rows.swapaxes(1, 2) if name == 'U' else rows; {ROWS}"),
    "the bias left out": (units, PARAMETERS, f"{PARAMETERS}\n            array = array * (name != 'b')"),
    "gradients a step late": (export, GRADIENTS, f"np.roll({GRADIENTS}, 1, axis=0)"),
}  # fmt: skip

RECURRENT = "sum += dot(U, row * H, before.h, 0, H);"
PAGE = {
    "sigmoid without the half": ("numbers", "(1 + Math.tanh(a / 2)) / 2", "(1 + Math.tanh(a)) / 2"),
    "c is not carried on": ("model", "before = now;", "before = { ...now, c: before.c };"),
    "the bias left out of the read-out": ("model", "let sum = b[k];", "let sum = 0;"),
    "gates in another order": ("model", "const row = g * H + j;", "const row = (gates.length - 1 - g) * H + j;"),
    "U transposed": ("model", RECURRENT, "for (let k = 0; k < H; k++) sum += U[(g * H + k) * H + j] * before.h[k];"),
    "h without the output gate": ("cells", '[["o", "tanh_c"]]', '[["tanh_c"]]'),
    "the image off its centre": ("draw", "Math.round(size / 2 - middle(axis))", "Math.round(size / 3 - middle(axis))"),
}  # fmt: skip


def compare(shown, case):
    """What the tests of the page compare, at a few places."""
    (trace, *_), rng = traces_of(case), np.random.default_rng(0)
    places = [(int(rng.integers(2, 28)), int(rng.integers(30)), "ifog"[rng.integers(4)]) for _ in range(6)]
    wanted = [
        address(0, False, row, unit, value, 0, tab)
        for t, unit, value in places
        for row, tab in ((t, "forward"), (t, "backward"), (27, "backward"))
    ]
    cards = iter(shown.cards(wanted))
    for t, unit, value in places:
        forward, backward, last = next(cards), next(cards), next(cards)
        for name in trace.values:
            assert np.float32(forward["chips"][name]) == trace.value(name)[0, t, unit]
        assert np.float32(forward["engine"][f"a.{value}"]) == trace.pre_activation(value)[0, t, unit]
        check_sum(forward["sums"][0], trace.pre_activation(value)[0, t, unit], "float32")
        for name in trace.values:
            assert np.float32(backward["engine"][f"d.{name}"]) == trace.gradient(name)[0, t, unit]
        assert np.float32(backward["engine"][f"d.a.{value}"]) == trace.pre_activation_gradient(value)[0, t, unit]
        check_sum(last["sums"][0], trace.gradient("h")[0, 27, unit], "float32")
    np.testing.assert_array_equal(printed_probabilities(shown).astype(np.float32), trace.probabilities[0])


def draw_and_compare(shown, case):
    """What the tests of drawn digits compare."""
    shown.tab.locator("#draw").click()
    draw(shown, SEVEN)
    x = drawn_pixels(shown)
    trace = lstm_np.trace(case.trained.model, x[np.newaxis])
    np.testing.assert_allclose(printed_probabilities(shown), trace.probabilities[0], atol=1e-5)
    for axis in (0, 1):
        weight = x.sum(axis=1 - axis)
        assert abs((weight * (np.arange(28) + 0.5)).sum() / weight.sum() - 14) <= 0.5 + 1e-6


def test_without_a_fault_nothing_is_noticed(make_case, open_page):
    case = make_case(samples=1)
    shown = open_page(case.path)
    compare(shown, case)
    draw_and_compare(shown, case)


@pytest.mark.parametrize("name", list(EXPORT))
def test_a_fault_in_the_exporter_is_noticed(name, make_case, open_page, tmp_path, monkeypatch):
    case = make_case(samples=1)
    module, line, fault = EXPORT[name]
    broken = with_fault(module, line, fault)
    if module is units:
        monkeypatch.setattr(export, "weights_with", broken.weights_with)
        broken = export
    recordings = [broken.record(case.trained, sample) for sample in case.samples]
    file = tmp_path / "page.html"
    file.write_text(page_module.page(broken.page_data(case.trained, recordings, FACTS, COMMAND)), encoding="utf-8")
    with pytest.raises(AssertionError):
        compare(open_page(file), case)


@pytest.mark.parametrize("name", list(PAGE))
def test_a_fault_in_the_pages_own_pass_is_noticed(name, make_case, open_page, tmp_path, monkeypatch):
    case = make_case(samples=1)
    part, line, fault = PAGE[name]
    assets = tmp_path / "assets"
    shutil.copytree(page_module.ASSETS, assets)
    source = (assets / f"{part}.js").read_text(encoding="utf-8")
    assert source.count(line) == 1
    (assets / f"{part}.js").write_text(source.replace(line, fault), encoding="utf-8")
    monkeypatch.setattr(page_module, "ASSETS", assets)
    recordings = [export.record(case.trained, sample) for sample in case.samples]
    file = tmp_path / "page.html"
    file.write_text(page_module.page(export.page_data(case.trained, recordings, FACTS, COMMAND)), encoding="utf-8")
    with pytest.raises(AssertionError):
        draw_and_compare(open_page(file), case)
