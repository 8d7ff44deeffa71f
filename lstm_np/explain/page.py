"""The page of `python -m lstm_np.explain`: one HTML file that shows every number of a model reading a sample.

The file needs no server, no network and no other file.  Its script and style are those in `assets`; what is shown comes
as JSON from `lstm_np.explain.export`, in which no character can end the element that holds it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from lstm_np.explain.export import Other, Recording, page_data, record, unpacked
from lstm_np.explain.samples import SEQUENCES, Sample
from lstm_np.model import SequenceClassifier
from lstm_np.training.trained import Trained

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("numbers", "dom", "cells", "passes", "data", "sums", "score", "diagram", "card", "model", "whatif", "draw",
           "gradients", "reports", "compare", "page")  # fmt: skip


def page(data: Mapping[str, Any]) -> str:
    """The whole file from what `lstm_np.explain.export.page_data` gives; the same data give the same text."""
    parts = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{parts}}})();\n'
    style = _asset("page.css")
    policy = "; ".join(
        ("default-src 'none'", f"script-src {_hash(script)}", f"style-src {_hash(style)}", "img-src data: blob:")
    )
    return Template(_asset("page.html")).substitute(
        policy=html.escape(policy, quote=False),
        title=html.escape(title_of(data)),
        style=style,
        script=script,
        tables="\n".join(_table(data, one) for one in data["passes"]),
        data=safe_json(data),
    )


def page_of_sequences(
    model: SequenceClassifier,
    x: np.ndarray,
    labels: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    *,
    limit: int = 2_000_000,
) -> str:
    """The page of sequences x (N, T, D) that are no images, which it draws as curves.

    labels   integers (N,); without them there are no gradients
    names    what each sequence is called; None: sequence 0, sequence 1 ...
    limit    largest size of the file in bytes; if all units need more, it holds only some

    Raises ValueError for an x or labels that do not fit the model.
    """
    x = np.asarray(x)
    if x.ndim != 3 or x.shape[2] != model.input_size or 0 in x.shape:
        raise ValueError(f"x must have shape (N, T, {model.input_size}) with N, T >= 1, found {x.shape}")
    if labels is not None and np.shape(labels) != (len(x),):
        raise ValueError(f"labels must be integers ({len(x)},), found {np.shape(labels)}")
    names = [f"sequence {k}" for k in range(len(x))] if names is None else names
    as_read = Trained(Path("model"), model, SEQUENCES, "rows", x.shape[1:], 1)
    given = [None] * len(x) if labels is None else [int(label) for label in labels]
    samples = [Sample(name, one, label, k) for k, (name, one, label) in enumerate(zip(names, x, given, strict=True))]
    recordings = [record(as_read, sample) for sample in samples]
    return page_within(as_read, recordings, [], "lstm_np.explain.page.page_of_sequences", limit=limit)[0]


def page_within(
    trained: Trained,
    recordings: Sequence[Recording],
    provenance: Sequence[tuple[str, str]],
    command: str,
    reports: Mapping[str, Any] | None = None,
    others: Sequence[Other] = (),
    *,
    limit: int,
) -> tuple[str, int]:
    """(the file, how many units of each layer it holds): all, or as many as keep it within `limit` bytes, at least 1.

    The arguments are those of `page_data`.
    """
    H = trained.model.recurrent.hidden_size

    def made(units: int) -> str:
        return page(page_data(trained, recordings, provenance, command, reports, others, units=units))

    whole = made(H)
    if len(whole.encode()) <= limit:
        return whole, H
    fits, too_many = 1, H
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if len(made(middle).encode()) <= limit else (fits, middle)
    return made(fits), fits


def title_of(data: Mapping[str, Any]) -> str:
    """What the page is called."""
    name = data["model"]["cellName"]
    article = "An" if name[0] in "AEIOL" or name == "RNN" else "A"
    return f"{article} {name} reads {', '.join(one['name'] for one in data['passes'])}"


def safe_json(value: Any) -> str:
    """JSON in ASCII that can stand inside a script element: without <, >, & and '."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&'":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _table(data: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    """The class probabilities after every step, for readers without JavaScript."""
    raw = unpacked(one["probabilities"])
    classes = data["model"]["classes"] or range(raw.shape[1])
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in classes)
    rows = "".join(
        f'<tr><th scope="row">{t + 1}</th>' + "".join(f"<td>{p:.4f}</td>" for p in row) + "</tr>"
        for t, row in enumerate(raw)
    )
    caption = f"{html.escape(one['name'])}: class probabilities after every {html.escape(data['model']['step'])}"
    return f'<table><caption>{caption}</caption><tr><th scope="col">step</th>{head}</tr>{rows}</table>'
