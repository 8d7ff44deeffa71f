"""A page in headless Chromium, from disk and without a network, and what a person would read off it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# what the browser is asked for: go to an address of the page, unfold every sum, and read what the card says.  The page
# is told of the address at once, since a browser takes three times as long to go there as the page to show it
READ_CARD = """
(hashes) => JSON.stringify(hashes.map((hash) => {
  if (location.hash !== hash) {
    history.replaceState(null, "", hash);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }
  const card = document.getElementById("card");
  for (let k = 0; k < 40; k++) {
    const button = card.querySelector('tr.fold button[aria-expanded="false"]');
    if (!button) break;
    button.click();
  }
  const text = (node) => node === null ? null : node.textContent;
  const engine = (root) => Object.fromEntries(
    [...root.querySelectorAll("[data-engine]")].map((n) => [n.dataset.engine, n.textContent]));
  return {
    title: text(card.querySelector("h2")),
    chips: Object.fromEntries([...card.querySelectorAll("[data-value]")].map((n) => (
      [n.dataset.value, n.querySelector(".number").textContent]))),
    engine: engine(card.querySelector("#tab-body")),
    sums: [...card.querySelectorAll("table.sum")].map((table) => ({
      caption: text(table.caption),
      total: text(table.querySelector("tfoot [data-engine]")),
      sum: text(table.querySelector("[data-sum]")),
      rest: text(table.querySelector("[data-rest]")),
      terms: [...table.querySelectorAll("tr")].filter((row) => row.querySelector("[data-term]")).map((row) => (
        ["th", "[data-left]", "[data-right]", "[data-term]"].map((part) => text(row.querySelector(part))))),
    })),
    python: text(card.querySelector("footer code")),
  };
}))
"""

# colours of a map as they are on the canvas, and of its legend
READ_MAP = """
(id) => {
  const read = (canvas) => Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
  const panel = document.getElementById("panel-" + id);
  const grid = panel.querySelector("canvas.grid"), legend = panel.querySelector(".legend canvas");
  return { width: grid.width, height: grid.height, rows: grid.dataset.rows, pixels: read(grid), legend: read(legend),
    low: legend.dataset.low, high: legend.dataset.high, root: legend.dataset.root === "1" };
}
"""

# the texts of the table behind a panel's picture, row by row, opened as its button opens it
READ_TABLE = """
(id) => {
  const panel = document.getElementById("panel-" + id);
  if (!panel.querySelector("table"))
    [...panel.querySelectorAll("button")].find((button) => button.textContent === "table").click();
  return JSON.stringify([...panel.querySelectorAll("tbody tr")].map((row) => (
    [...row.cells].map((cell) => cell.textContent))));
}
"""


def launch(playwright: Any) -> Any:
    """A headless Chromium: the system's, or else the one that Playwright has installed.  Skips where there is none."""
    system = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    try:
        return playwright.chromium.launch(executable_path=system, args=["--no-sandbox", "--disable-gpu"])
    except Exception as error:  # what Playwright raises depends on what is missing
        pytest.skip(f"no Chromium here ({str(error).splitlines()[0]})")


class Tabs:
    """Tabs of a browser, each in a context of its own.

    One without options is taken again when its page was closed: a page keeps nothing, and a new context takes longer
    than the page.
    """

    def __init__(self, browser: Any) -> None:
        self._browser, self._free = browser, []

    def take(self, options: Mapping[str, Any]) -> Any:
        """A tab that shows nothing."""
        return self._free.pop() if self._free and not options else self._browser.new_context(**options).new_page()

    def give_back(self, tab: Any, options: Mapping[str, Any]) -> None:
        """Nobody uses it any more, and it has no listeners."""
        if options:
            tab.context.close()
        else:
            tab.unroute_all()
            tab.goto("about:blank")
            self._free.append(tab)


class Page:
    """A file open in a browser, with everything that it asked for and complained about."""

    def __init__(self, tabs: Tabs, path: Path, *, hash: str = "", **options: Any) -> None:
        self._tabs, self._options = tabs, options
        self.path, self.requests, self.complaints = path, [], []
        self.tab = tabs.take(options)
        self.tab.route("**/*", self._answer)
        self._listeners = {
            "console": lambda message: message.type in ("error", "warning") and self._complain(message.text),
            "pageerror": lambda error: self._complain(str(error)),
            "dialog": lambda dialog: (self._complain(f"dialog {dialog.message}"), dialog.dismiss()),
        }
        for event, listener in self._listeners.items():
            self.tab.on(event, listener)
        self.tab.goto(path.as_uri() + hash)
        self.tab.wait_for_selector("html[data-ready]", state="attached", timeout=20_000)

    def _answer(self, route: Any) -> None:
        url = route.request.url.split("#")[0]
        if url == self.path.as_uri():
            route.continue_()
        else:
            self.requests.append(url)
            route.abort()

    def _complain(self, text: str) -> None:
        self.complaints.append(text)

    def card(self, **where: Any) -> dict[str, Any]:
        """What the card says at an address, every sum unfolded."""
        return self.cards([where])[0]

    def cards(self, addresses: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What the card says at each address; the browser draws nothing in between, so many take little time."""
        hashes = ["#" + "&".join(f"{key}={value}" for key, value in where.items()) for where in addresses]
        found: list[dict[str, Any]] = json.loads(self.tab.evaluate(READ_CARD, hashes))
        return found

    def go(self, **where: Any) -> None:
        """Show an address, and wait until it is drawn."""
        self.card(**where)
        self.tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def map(self, name: str) -> dict[str, Any]:
        """The pixels of a map and of its legend."""
        return self.tab.evaluate(READ_MAP, name)

    def table(self, name: str) -> list[list[str]]:
        """What the table behind a panel's picture says, without its head."""
        found: list[list[str]] = json.loads(self.tab.evaluate(READ_TABLE, name))
        return found

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.tab.locator(selector).first.inner_text()

    def close(self) -> None:
        """Close it, once; its tab may show another."""
        if self._listeners:
            for event in list(self._listeners):
                self.tab.remove_listener(event, self._listeners.pop(event))
            self._tabs.give_back(self.tab, self._options)


def data_of(path: Path) -> dict[str, Any]:
    """The JSON in a page."""
    text = path.read_text(encoding="utf-8")
    start = text.index('<script type="application/json" id="data">') + len('<script type="application/json" id="data">')
    return json.loads(text[start : text.index("</script>", start)])
