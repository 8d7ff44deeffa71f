"""Pictures of traces: what is drawn is what is in the trace."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

import lstm_np
from lstm_np import extras

matplotlib = pytest.importorskip("matplotlib")


def take(**settings):
    model = lstm_np.SequenceClassifier(3, 6, 4, dtype="float64", **settings)
    rng = np.random.default_rng(0)
    model.params.flat[:] += 0.5 * rng.standard_normal(model.params.flat.shape)
    return lstm_np.trace(model, rng.standard_normal((2, 7, 3)), [1, 3])


def drawn(figure):
    """It can be drawn; its axes without those of colour bars."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    assert content.getvalue().startswith(b"\x89PNG")
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>" and axes.axison]


@pytest.mark.parametrize("settings", [{}, {"cell": "gru"}, {"cell": "rnn"}, {"bidirectional": True, "num_layers": 2}])
def test_maps_are_the_values(settings):
    trace = take(**settings)
    where = {"layer": trace.about["layers"] - 1, "reverse": trace.about["directions"] == 2}
    panels = drawn(lstm_np.plot.gate_maps(trace, sample=1, units=[4, 0, 5], **where))
    names = [axes.get_title(loc="left") for axes in panels]
    assert names == list(dict.fromkeys((*trace.gates, *reversed(trace.states))))
    for axes, name in zip(panels, names, strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), trace.value(name, **where)[1][:, [4, 0, 5]].T)
        low, high = image.get_clim()
        assert (low, high) == (0, 1) or low == -high
        assert low <= image.get_array().min() <= image.get_array().max() <= high
        assert [label.get_text() for label in axes.get_yticklabels()] == ["4", "0", "5"]


def test_maps_of_gradients_are_around_zero():
    trace = take()
    (axes,) = drawn(lstm_np.plot.gate_maps(trace, ["f"], gradients=True))
    (image,) = axes.images
    state = trace.state("c")[0]
    units = np.argsort(-(state.max(axis=0) - state.min(axis=0)), kind="stable")
    np.testing.assert_array_equal(image.get_array(), trace.gradient("f")[0][:, units].T)
    assert image.get_clim()[0] == -image.get_clim()[1] == -np.abs(trace.gradient("f")[0]).max()


@pytest.mark.parametrize("reverse", [False, True])
def test_the_flow_of_gradients(reverse):
    trace = take(bidirectional=True)
    (axes,) = drawn(lstm_np.plot.gradient_flow(trace, reverse=reverse))
    h, c, path = (line.get_ydata() for line in axes.lines)
    np.testing.assert_allclose(h, np.linalg.norm(trace.gradient("h", reverse=reverse), axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(c, np.linalg.norm(trace.gradient("c", reverse=reverse), axis=(0, 2)), rtol=1e-12)
    f, dc, expected = trace.gate("f", reverse=reverse), trace.gradient("c", reverse=reverse), np.empty((2, 7, 6))
    order = list(range(7)) if reverse else list(range(6, -1, -1))
    left = dc[:, order[0]]
    for t, later in zip(order, [None, *order], strict=False):
        left = left if later is None else left * f[:, later]
        expected[:, t] = left
    np.testing.assert_allclose(lstm_np.plot.direct_path(trace, reverse=reverse), expected, rtol=1e-12)
    np.testing.assert_allclose(path, np.linalg.norm(expected, axis=(0, 2)), rtol=1e-12)
    assert [text.get_text() for text in axes.texts] == ["h", "c", "c, direct path"]


def test_several_cells_are_compared():
    traces = {"with gates": take(), "without": take(cell="rnn")}
    (axes,) = drawn(lstm_np.plot.gradient_flow(traces, sample=1, direct=False))
    assert [text.get_text() for text in axes.texts] == ["with gates h", "with gates c", "without h"]
    expected = np.linalg.norm(traces["without"].gradient("h")[1], axis=1)
    np.testing.assert_allclose(axes.lines[2].get_ydata(), expected, rtol=1e-12)
    assert axes.lines[0].get_color() != axes.lines[2].get_color()


def test_saturation_is_counted_for_each_unit():
    trace = take()
    panels = drawn(lstm_np.plot.saturation(trace))
    assert [axes.get_title(loc="left") for axes in panels] == ["i", "f", "o"]
    f = trace.gate("f")
    expected = np.stack([(f > 0.9).mean(axis=(0, 1)), (f < 0.1).mean(axis=(0, 1))], axis=1)
    np.testing.assert_allclose(panels[1].collections[0].get_offsets(), expected)


def test_what_there_is_not():
    trace = take(cell="rnn")
    with pytest.raises(lstm_np.TraceError, match="no gate of a rnn cell lies within"):
        lstm_np.plot.saturation(trace)
    with pytest.raises(lstm_np.TraceError, match=r"units are 0 \.\.\. 5, found 6"):
        lstm_np.plot.gate_maps(trace, units=[6])
    with pytest.raises(lstm_np.TraceError, match="a rnn cell has no 'f' here"):
        lstm_np.plot.gate_maps(trace, ["f"])


def test_without_matplotlib_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(extras.MissingPackageError, match=r'pictures need matplotlib, .*pip install "lstm_np\[plot\]"'):
        lstm_np.plot.saturation(take())
