"""The tables of README.md and the documents, rendered from the committed results: no figure there is typed by hand."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import characters, results
from benchmarks.figures import geometric_mean, in_words
from benchmarks.processes import ROOT
from benchmarks.results import ResultError
from benchmarks.tasks import document as tasks
from benchmarks.workloads import FEATURES, MODES, Case

BEGIN, END = "<!-- benchmarks:cpu -->", "<!-- /benchmarks:cpu -->"
README, RACE = ROOT / "README.md", ROOT / "docs" / "race.md"
TASKS, TEXT = ROOT / "docs" / "tasks.md", ROOT / "docs" / "text.md"
MORE_PEERS = results.FOLDER / "more-peers"
# folder with a race of chosen cases -> the document that shows all of them
CHOSEN = {
    results.FOLDER / "lengths": ROOT / "docs" / "lengths.md",
}
FIRST = [Case("train", 128, 128), Case("infer", 128, 128)]  # on the README's page, with the means of all cases
TITLES = {
    "torch": "PyTorch", "jax": "JAX", "keras": "Keras", "thinc": "Thinc", "onnxruntime": "ONNX Runtime",
    "reference": "our reference kernel", "torch-padded": "PyTorch, padded",
}  # fmt: skip
CELLS = {"lstm": "", "gru": "GRU, ", "rnn": "RNN, "}


def render(document: dict[str, Any], shown: Sequence[Case] | None = None, *, means: bool = True) -> str:
    """Markdown: the cases `shown` (None: all), the geometric means, and a line or two about how, where and when."""
    peers = [name for name in document["contestants"] if name != "ours"]
    by_case = {results.case_of(record): record for record in document["cases"]}
    bounded = any(results.bound_of(record) is not None for record in document["cases"])
    more = ["lower bound"] if bounded else []
    head = ["", "ours", *more, *(_title(name, document) for name in peers)]
    lines = [_row(head), _row(["---", *["---:"] * (len(head) - 1)])]
    for case in by_case if shown is None else shown:
        if case in by_case:
            record = by_case[case]
            ours = in_words(results.time_of(record, "ours", "median"))
            limits = [_bound(record)] if bounded else []
            lines.append(_row([_words(case), ours, *limits, *(_entry(record, name) for name in peers)]))
    for of in results.GROUPS if means else ():
        summaries = [_summary_of(document, name, of) for name in peers]
        if known := [summary["cases"] for summary in summaries if summary is not None]:
            entries = [_summary(summary, max(known)) for summary in summaries]
            limits = [_mean_share(document, of)] if bounded else []
            lines.append(_row([f"geometric mean, {of}, {max(known)} cases (worst)", "", *limits, *entries]))
    lines += ["", _caption(document)]
    for name in peers:
        if document["contestants"][name]["remark"]:
            lines.append(f"\\* {_title(name, document)}: {document['contestants'][name]['remark']}.")
    return "\n".join(lines)


def _caption(document: dict[str, Any]) -> str:
    machine = document["machine"]
    disturbed = sum(bool(record["disturbed"]) for record in document["cases"])
    bounded = any(results.bound_of(record) is not None for record in document["cases"])
    bound = "Lower bound: the products and tanhs alone, at the speed measured for their shapes, and our share of it. "
    bound = bound if bounded else ""
    return (
        "Time per step and, for the others, how many times ours that is (above 1 we are faster): **of the medians** / "
        "of the best rounds. Each system in processes of its own, taking turns; theirs is the better of its times with "
        "the C library's allocator as it comes and tuned, ours the one as it comes. Loss curves were compared first. "
        f"{bound}"
        f"{document['date'][:10]}, {machine['cpu']}, {document['threads']} cores for each, float32, "
        f"commit {document['commit'][:9]}; {disturbed} of {len(document['cases'])} cases were disturbed."
    )


def rendered_results() -> dict[Path, str]:
    """What belongs into each document: two cases and the means into README.md, all cases into docs/race.md.

    Where more peers were raced in some cases, docs/race.md has a second table; races of CHOSEN have theirs elsewhere,
    without means.  The results of tasks and characters go into docs/tasks.md and docs/text.md.
    """
    document = results.read("cpu")
    tables = [render(document)]
    if (MORE_PEERS / "cpu.json").exists():
        tables.append(render(results.read("cpu", MORE_PEERS)))
    rendered = {README: render(document, FIRST), RACE: "\n\n".join(tables)}
    for folder, path in CHOSEN.items():
        rendered[path] = render(results.read("cpu", folder), means=False)
    for kind, path, one in (("tasks", TASKS, tasks.render), ("characters", TEXT, characters.render)):
        if (results.FOLDER / f"{kind}.json").exists():
            rendered[path] = one(results.read(kind))
    return rendered


def _title(name: str, document: dict[str, Any]) -> str:
    version = next(iter(document["contestants"][name]["versions"].values()))
    return f"{TITLES.get(name, name)} {version.partition('+')[0]}"


def _words(case: Case) -> str:
    features = "" if case.D == FEATURES else f", D={case.D}"
    layers = "" if case.L == 1 else f", {case.L} layers"
    both = "" if case.directions == 1 else ", both directions"
    both += ", lengths 1 ... T" if case.lengths else ""
    sizes = f"H={case.H}" if case.mode == "stream" else f"B={case.B}, T={case.T}, H={case.H}"
    return f"{MODES[case.mode]}, {CELLS[case.cell]}{sizes}{features}{layers}{both}"


def _bound(record: dict[str, Any]) -> str:
    """The lower bound, and our share of its speed."""
    bound = results.bound_of(record)
    return "-" if bound is None else f"{in_words(bound)} ({bound / results.time_of(record, 'ours', 'median'):.0%})"


def _mean_share(document: dict[str, Any], of: str) -> str:
    """The geometric mean of our share of the lower bound over a group of cases."""
    chosen = results.of_mode_and_cells(*results.GROUPS[of])
    pairs = [(results.bound_of(r), results.time_of(r, "ours", "median")) for r in document["cases"]
             if chosen(results.case_of(r))]  # fmt: skip
    shares = [bound / ours for bound, ours in pairs if bound is not None]
    return f"{geometric_mean(shares):.0%}" if shares else "-"


def _entry(record: dict[str, Any], name: str) -> str:
    result = record["results"].get(name, {"refused": ""})
    if "refused" in result:
        return "-"
    mark = "\\*" if result["wrong_gradients"] else ""
    ratio, seconds = result["ratio"], results.time_of(record, name, "median")
    return f"{in_words(seconds)} (**{ratio['median']:.2f}** / {ratio['best']:.2f}{mark})"


def _summary_of(document: dict[str, Any], name: str, of: str) -> dict[str, Any] | None:
    return next((entry for entry in document["summary"] if (entry["peer"], entry["of"]) == (name, of)), None)


def _summary(summary: dict[str, Any] | None, cases: int) -> str:
    if summary is None:
        return "-"
    fewer = "" if summary["cases"] == cases else f", {summary['cases']} cases"
    return f"**{summary['median']:.2f}** / {summary['best']:.2f} ({summary['worst']:.2f}{fewer})"


def _row(entries: list[str]) -> str:
    return "| " + " | ".join(entries) + " |"


def shown_in(text: str) -> str:
    """What stands between a document's markers.  Raises ResultError where they are not there once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ResultError(f"a document with a table needs the markers {BEGIN} and {END}, once each, in this order")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip("\n")


def insert(text: str, rendered: str) -> str:
    """A document with the table between its markers replaced.  Raises ResultError where they are missing."""
    shown_in(text)
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{rendered}\n{END}{rest.partition(END)[2]}"


def run(arguments: argparse.Namespace) -> int:
    """Print the whole table, or write all; the exit status."""
    rendered = rendered_results()
    if not arguments.write:
        print(rendered[RACE])
        return 0
    texts = {path: insert(path.read_text(encoding="utf-8"), table) for path, table in rendered.items()}
    for path, text in texts.items():  # both are complete before one is written
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}")
    return 0
