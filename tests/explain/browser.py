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


def launch(playwright: Any) -> Any:
    """A headless Chromium: the system's, or else the one that Playwright has installed.  Skips where there is none."""
    system = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    try:
        return playwright.chromium.launch(executable_path=system, args=["--no-sandbox", "--disable-gpu"])
    except Exception as error:  # what Playwright raises depends on what is missing
        pytest.skip(f"no Chromium here ({str(error).splitlines()[0]})")


class Page:
    """A file open in a browser, with everything that it asked for and complained about."""

    def __init__(self, browser: Any, path: Path, *, hash: str = "", **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.path, self.requests, self.complaints = path, [], []
        self.tab = self.context.new_page()
        self.tab.route("**/*", self._answer)
        self.tab.on("console", lambda message: message.type in ("error", "warning") and self._complain(message.text))
        self.tab.on("pageerror", lambda error: self._complain(str(error)))
        self.tab.on("dialog", lambda dialog: (self._complain(f"dialog {dialog.message}"), dialog.dismiss()))
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

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.tab.locator(selector).first.inner_text()

    def close(self) -> None:
        """Close it; the context goes with it."""
        self.context.close()


def data_of(path: Path) -> dict[str, Any]:
    """The JSON in a page."""
    text = path.read_text(encoding="utf-8")
    start = text.index('<script type="application/json" id="data">') + len('<script type="application/json" id="data">')
    return json.loads(text[start : text.index("</script>", start)])
