"""A trained model reading one sample, as text: the prediction after every step, a map of one gate, the sums behind one
value, and every tensor of the pass, for a terminal of any width, with or without colours, in ASCII on request.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from rich.color import Color
from rich.style import Style
from rich.text import Text

from lstm_np.data import sequence_view
from lstm_np.explain.arithmetic import Sum, backward_sums, forward_sums
from lstm_np.explain.samples import SEQUENCES, Sample, step_of
from lstm_np.trace import Trace
from lstm_np.training.trained import Trained

RAMP = " .:-=+*#%@"  # from low to high
UNITS = 20  # at most so many in a map
CHANGES = 8  # predictions that are listed one by one; of more only the last is named
LINES = 40  # of a table over time; longer sequences show every second step, every third, and so on
WIDEST_ROW = 40  # steps with more features are not drawn
LONGEST_NAME, SHORTEST_NAME = 16, 6  # of a class, in a table; and where less would be left, the input is not drawn
# colours from low to high, safe for red-green colour blindness
SEQUENTIAL = ((68, 1, 84), (33, 145, 140), (253, 231, 37))
DIVERGING = ((33, 102, 172), (247, 247, 247), (178, 24, 43))


@dataclass(frozen=True)
class Look:
    """What the terminal can show: its width in characters, block characters or ASCII only, and colours."""

    width: int = 80
    blocks: bool = True
    colour: bool = False


@dataclass(frozen=True)
class Choice:
    """What to show of a trace: layer and direction, the gate to draw as a map, and the value whose sums are printed."""

    layer: int = 0
    reverse: bool = False
    gate: str | None = None
    value: str | None = None
    t: int | None = None
    unit: int | None = None


def terminal_view(trained: Trained, sample: Sample, trace: Trace, choice: Choice, look: Look) -> list[Text]:
    """All lines about one sample; `trace` is that of the sample alone.

    Raises TraceError for a layer, gate or value that does not exist, ValueError for a step or unit out of range.
    """
    gate = choice.gate or ("f" if "f" in trace.gates and "f" in trace.values else trace.values[0])
    unit_map = _map(trace, gate, choice, step_of(trained), look)
    sums = _sums(trained, trace, choice, look) if choice.value is not None else _hint(gate, trace.steps)
    sections = (_reading(trained, sample, trace, look), unit_map, sums, _flow(trained, trace))
    lines = _heading(trained, sample, trace, look)
    for section in sections:
        lines += [Text(), *section]
    for line in () if look.colour else lines:  # a space may have a colour
        line.rstrip()
    return lines


# ---- the prediction after every step


def _heading(trained: Trained, sample: Sample, trace: Trace, look: Look) -> list[Text]:
    p = trace.probabilities[0, -1]
    guess = int(p.argmax())
    verdict = ""
    if sample.label is not None:
        verdict = f"; {'right' if guess == sample.label else 'wrong'}, the label is {trained.class_name(sample.label)}"
    return _wrapped(f"{sample.name}: predicted {trained.class_name(guess)} ({p[guess]:.2%}){verdict}", look, "bold")


def _reading(trained: Trained, sample: Sample, trace: Trace, look: Look) -> list[Text]:
    """A line for each step: its input, and what the read-out predicts from the state after it."""
    p, step = trace.probabilities[0], step_of(trained)
    names = [trained.class_name(k) for k in range(p.shape[1])]
    x = sequence_view(sample.image[np.newaxis], trained.view)[0].astype(float)
    first, width = max(len(step), len(str(trace.steps - 1))), max(x.shape[1], len("input"))
    low, high, colours = _scale(x) if trained.dataset == SEQUENCES else (0.0, 1.0, SEQUENTIAL)
    space = look.width - (first + 2 + 2 * len(" 100.00%") + 4)  # for the input, two names and a bar
    longest = min(LONGEST_NAME, max(map(len, names)))
    drawn = x.shape[1] <= WIDEST_ROW and width + 2 + 2 * min(longest, SHORTEST_NAME) <= space
    space -= width + 2 if drawn else 0
    name = max(1, min(longest, space // 2))
    names = [one[:name] for one in names]
    bar = max(0, min(24, space - 2 * name))
    head = f"{step:>{first}}  " + (f"{'input':<{width}}  " if drawn else "")
    lines = [Text(f"{head}{'prediction':<{name + 12 + bar}}second", style="bold")]
    every = -(-trace.steps // LINES)
    for t in range(trace.steps):
        if t % every and t != trace.steps - 1:
            continue
        order = np.argsort(-p[t], kind="stable")
        best, second = int(order[0]), int(order[1])
        line = Text(f"{t:>{first}}  ")
        if drawn:
            line.append_text(_cells(x[t], low, high, colours, 1, look))
            line.append(" " * (width - len(x[t]) + 2))
        block = "█" if look.blocks else "#"
        line.append(f"{names[best]:>{name}} {p[t, best]:7.2%}  {block * round(bar * float(p[t, best])):<{bar}}  ")
        line.append(f"{names[second]:>{name}} {p[t, second]:7.2%}")
        lines.append(line)
    if every > 1:
        lines.append(Text(f"(every {every} {step}s, and the last)"))
    told = predictions_in_words([trained.class_name(k) for k in p.argmax(axis=1).tolist()], step)
    lines += _wrapped(f"Prediction, {step}s counted from 0: {told}.", look)
    probe = f"The read-out was trained on the state after the last {step} only; earlier predictions are a probe."
    if trace.about["directions"] == 2 and trained.model.read_out == "final_state":
        probe += f" It reads both directions, each after the same number of {step}s."
    return lines + _wrapped(probe, look)


def predictions_in_words(answers: Sequence[int | str], step: str) -> str:
    """ "5 until row 16, 8 from row 17, 3 at the last row" from the prediction after every step."""
    runs = [(answer, len(list(group))) for answer, group in groupby(answers)]
    if len(runs) == 1:
        return f"{runs[0][0]} from the first {step} on"
    if len(runs) > CHANGES:
        return f"{answers[-1]} from {step} {len(answers) - runs[-1][1]} on, after {len(runs) - 1} changes"
    words, start = [], 0
    for answer, length in runs:
        last = start + length - 1
        if start == 0:
            words.append(f"{answer} until {step} {last}")
        elif last == len(answers) - 1:
            words.append(f"{answer} at the last {step}" if length == 1 else f"{answer} from {step} {start} on")
        else:
            words.append(f"{answer} at {step} {start}" if length == 1 else f"{answer} from {step} {start}")
        start += length
    return ", ".join(words)


# ---- a map of one value: time to the right, units down


def _map(trace: Trace, name: str, choice: Choice, step: str, look: Look) -> list[Text]:
    array = trace.value(name, layer=choice.layer, reverse=choice.reverse)[0].astype(float)  # (T, H)
    order = np.argsort(array.min(axis=0) - array.max(axis=0), kind="stable")[:UNITS].tolist()
    low, high, colours = _scale(array)
    T = len(array)
    label = max(4, len(str(array.shape[1] - 1)))
    binned, size = _binned(array[:, order], look.width - label - 1)
    wide = max(1, (look.width - label - 1) // len(binned))
    where = f"layer {choice.layer}" + (" reverse" if choice.reverse else "")
    which = f"the {len(order)} of {array.shape[1]} that vary most" if array.shape[1] > UNITS else "all of them"
    lines = _wrapped(f"{name} of {where}: time to the right, one line per unit, {which}", look, "bold")
    lines.append(_legend(low, high, colours, look))
    for k, unit in enumerate(order):
        line = Text(f"{unit:>{label}} ")
        lines.append(line.append_text(_cells(binned[:, k], low, high, colours, wide, look)))
    lines.append(Text(" " * (label + 1) + _axis(len(binned), size, wide)))
    per = f"; each column is the mean of up to {size} {step}s" if size > 1 else ""
    return [*lines, *_wrapped(f"{step}s 0 to {T - 1}{per}", look)]


def _scale(array: np.ndarray) -> tuple[float, float, tuple[tuple[int, int, int], ...]]:
    """The range of a map and its colours: 0 ... 1 if all values are in it, else symmetric about 0."""
    low, high = float(array.min()), float(array.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0, SEQUENTIAL
    most = 1.0 if max(-low, high) <= 1 else float(np.ceil(max(-low, high)))
    return -most, most, DIVERGING


def _binned(array: np.ndarray, space: int) -> tuple[np.ndarray, int]:
    """(columns, units) with at most `space` columns, and the number of steps that each column averages."""
    size = -(-len(array) // space)
    return np.stack([array[start : start + size].mean(axis=0) for start in range(0, len(array), size)]), size


def _cells(
    values: np.ndarray, low: float, high: float, colours: Sequence[tuple[int, int, int]], wide: int, look: Look
) -> Text:
    """A line of cells, `wide` characters each: denser characters, or a background colour, for higher values."""
    shares = np.clip((values - low) / (high - low), 0.0, 1.0)
    if look.colour:
        return Text.assemble(*((" " * wide, _background(float(share), colours)) for share in shares))
    return Text("".join(RAMP[min(int(share * len(RAMP)), len(RAMP) - 1)] * wide for share in shares))


def _background(share: float, colours: Sequence[tuple[int, int, int]]) -> Style:
    place = share * (len(colours) - 1)
    k = min(int(place), len(colours) - 2)
    red, green, blue = (round(a + (b - a) * (place - k)) for a, b in zip(colours[k], colours[k + 1], strict=True))
    return Style(bgcolor=Color.from_rgb(red, green, blue))


def _legend(low: float, high: float, colours: Sequence[tuple[int, int, int]], look: Look) -> Text:
    line = Text(f"scale: {low:g} ")
    line.append_text(_cells(np.linspace(low, high, len(RAMP)), low, high, colours, 1, look))
    return line.append(f" {high:g}")


def _axis(columns: int, size: int, wide: int) -> str:
    """The numbers of the steps under their columns, spaced so that they do not touch."""
    apart = -(-(len(str(columns * size)) + 1) // wide)
    apart = next(nice for nice in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, apart) if nice >= apart)
    return "".join(f"{column * size:<{apart * wide}}" for column in range(0, columns, apart))[: columns * wide]


# ---- the sums behind one value


def _hint(gate: str, steps: int) -> list[Text]:
    return [Text(f"To see the sums behind one value, add: --value {gate} --step {min(5, steps - 1)} --unit 0")]


def _sums(trained: Trained, trace: Trace, choice: Choice, look: Look) -> list[Text]:
    t, unit = choice.t, choice.unit
    name = choice.value
    assert name is not None
    assert t is not None
    assert unit is not None
    where: dict[str, Any] = {"layer": choice.layer, "reverse": choice.reverse, "t": t, "unit": unit}
    layer = f"layer {choice.layer}" + (" reverse" if choice.reverse else "")
    lines = [Text(f"{name} of unit {unit} at {step_of(trained)} {t}, {layer}: forward", style="bold")]
    for each in forward_sums(trained.model, trace, name, **where):
        lines += _sum(each, look)
    if trace.has_gradients:
        lines += [Text(), Text("backward: the gradient of this sample's loss", style="bold")]
        for each in backward_sums(trained.model, trace, name, **where):
            lines += _sum(each, look)
    return lines


def _sum(found: Sum, look: Look) -> list[Text]:
    """The equation, every term, and the engine's number beside the sum of what is printed."""
    many = len(found.terms) > 4
    lines = _wrapped(found.title, look)
    if many:
        lines += _wrapped("  one term each: weight * value = product", look)
    words = [f"{term.label}{':' if many else ' ='} {_factors(term.factors)}" for term in found.terms]
    if many:
        each = max(map(len, words))
        columns = max(1, look.width // (each + 2))
        for start in range(0, len(words), columns):
            lines.append(Text("".join(f"  {word:<{each}}" for word in words[start : start + columns])))
    else:
        lines += [Text(f"  {word}") for word in words]
    what = f"sum of {len(words)} terms" if len(words) > 1 else "computed here"
    what = what if found.function is None else f"{found.function} of {'it' if len(words) == 1 else 'the sum'}"
    summed = f"  {what}: {found.total:+.9g}" if words else "  no terms: nothing comes after this step"
    lines += _wrapped(
        f"{summed}, the engine's {found.result} = {found.engine:+.9g}, rounding {found.engine - found.total:+.1e}", look
    )
    return lines


def _factors(factors: Sequence[float]) -> str:
    if len(factors) == 1:
        return f"{factors[0]:+.6f}"
    product = float(np.prod(factors)) + 0.0  # no -0
    return " * ".join(f"{factor:+.4f}" for factor in factors) + f" = {product:+.6f}"


# ---- every tensor of the pass


def _flow(trained: Trained, trace: Trace) -> list[Text]:
    """Every tensor of the recorded pass in the order of computation: shape, bytes and range."""
    head = ("tensor", "shape", "bytes", "min", "mean", "max")
    rows: list[tuple[str, ...]] = [head]
    for name, array in _tensors(trained, trace):
        numbers = [f"{float(number):.4f}" for number in (array.min(), array.mean(), array.max())]
        rows.append((name, " x ".join(map(str, array.shape)), f"{array.nbytes:,}", *numbers))
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = [
        Text("  ".join(f"{cell:{'<' if k < 2 else '>'}{widths[k]}}" for k, cell in enumerate(row))) for row in rows
    ]
    lines[0].stylize("bold")
    title = Text(f"From the input to the probabilities: one sample, {trace.about['dtype']}; > marks parameters", "bold")
    return [title, *lines]


def _tensors(trained: Trained, trace: Trace) -> Iterator[tuple[str, np.ndarray]]:
    model = trained.model
    host = model.backend.to_host
    params = {name: host(array) for name, array in model.params.items()}

    def of(section: str) -> Iterator[tuple[str, np.ndarray]]:
        return ((f"> {name}", array) for name, array in params.items() if name.startswith(f"{section}."))

    yield "x", trace.x()[0]
    if "input_projection.W" in params:
        yield from of("input_projection")
        yield "projected", trace.x(0)[0]
    for layer, reverse in trace.layers:
        single = f"layer{layer}" + ("_reverse" if reverse else "")
        yield from of(single)
        a = [trace.pre_activation(gate, layer=layer, reverse=reverse)[0] for gate in trace.gates]
        yield f"{single} a", np.concatenate(a, axis=1)
        for name in trace.values:
            yield f"{single} {name}", trace.value(name, layer=layer, reverse=reverse)[0]
    yield from of("readout")
    assert trace.logits is not None
    yield "logits", trace.logits[0]
    yield "probabilities", trace.probabilities[0, -1]


def _wrapped(text: str, look: Look, style: str = "") -> list[Text]:
    """Text wrapped at the width of the terminal, with a hanging indent."""
    lead = len(text) - len(text.lstrip())
    made = textwrap.wrap(
        text.strip(), look.width, initial_indent=" " * lead, subsequent_indent=" " * (lead + 2), break_long_words=False
    )
    return [Text(line, style=style) for line in made]
