"""`python -m benchmarks page`: how large the page of a run is, how long it takes to make, and how fast it answers.

In a headless Chromium, from disk.  Digits are drawn by pointer events (`benchmarks.drawn`), and what the page makes of
them is compared with the engine; so are random holds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import lstm_np
from benchmarks.drawn import drawn
from benchmarks.processes import ROOT
from lstm_np.backends import get_backend
from lstm_np.training.trained import load_trained

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

# milliseconds from a click in a map to the card, all laid out
CLICK = """
() => {
  const maps = [...document.querySelectorAll("canvas.grid[data-rows]")].map((canvas) => canvas.parentElement);
  const times = [];
  for (let k = 0; k < 60; k++) {
    const plot = maps[k % 4], box = plot.getBoundingClientRect();
    const [x, y] = [((k * 37) % 100) / 100, ((k * 53) % 100) / 100];
    const place = { bubbles: true, clientX: box.left + box.width * x, clientY: box.top + box.height * y };
    const began = performance.now();
    plot.dispatchEvent(new MouseEvent("click", place));
    document.body.offsetHeight;
    times.push(performance.now() - began);
  }
  return times;
}
"""

# milliseconds from a movement of the pen to the frame in which all maps have answered
STROKE = """
async () => {
  const pad = document.getElementById("pad"), box = pad.getBoundingClientRect(), times = [];
  const send = (name, k) => pad.dispatchEvent(new PointerEvent(name, {
    bubbles: true, pointerId: 1, clientX: box.left + 60 + 3 * k, clientY: box.top + 50 + 4 * k }));
  pad.setPointerCapture = () => {};
  pad.hasPointerCapture = () => true;
  send("pointerdown", 0);
  for (let k = 1; k < 30; k++) {
    const began = performance.now();
    send("pointermove", k);
    await new Promise((done) => requestAnimationFrame(() => { document.body.offsetHeight; done(); }));
    times.push(performance.now() - began);
  }
  delete pad.setPointerCapture;
  delete pad.hasPointerCapture;
  return times;
}
"""

TABLE = """
(panel) => {
  const root = document.getElementById("panel-" + panel);
  root.querySelector("details").open = true;
  if (!root.querySelector("table")) root.querySelector("details button").click();
  const rows = [...root.querySelectorAll("tbody tr")];
  return rows.map((row) => [...row.cells].slice(1).map((cell) => Number(cell.textContent)));
}
"""

FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; one JSON object at the end."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise ValueError('the page is measured in a browser: pip install "lstm_np[test]", and a Chromium') from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "explain.html"
        began = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "lstm_np.explain",
            arguments.run,
            "--index",
            "0",
            "18",
            "247",
            "--out",
            str(file),
        ]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        seconds, content = time.perf_counter() - began, file.read_bytes()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        found: dict[str, Any] = {"bytes": len(content), "seconds": seconds, "same bytes": content == file.read_bytes()}
        trained = load_trained(arguments.run, best=False, backend=get_backend("numpy"))
        with sync_playwright() as playwright:
            system = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
            browser = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
            tab = browser.new_page(viewport={"width": 1440, "height": 900})
            tab.goto(file.as_uri())
            tab.wait_for_selector("html[data-ready]", state="attached")
            found["usable"] = tab.evaluate("performance.getEntriesByName('ready')[0].startTime")
            found["click"] = _worst(tab.evaluate(CLICK))
            found["what if"] = _holds(tab, trained, arguments.holds)
            tab.locator("#draw").click()
            found["stroke"] = _worst(tab.evaluate(STROKE))
            found |= _digits(tab, trained, arguments.digits)
            browser.close()
    print(f"file                  {found['bytes']:,} bytes, made in {found['seconds']:.2f} s (the whole command)")
    print(f"same bytes again      {'yes' if found['same bytes'] else 'NO'}")
    print(f"usable after          {found['usable']:.0f} ms")
    for what, count in (("click", 60), ("stroke", 29)):
        median, worst = found[what]["median"], found[what]["worst"]
        print(f"a {what:<20}is answered in {median:.1f} ms, the slowest of {count} in {worst:.1f} ms")
    print(f"drawn digits          {found['recognised']} of {found['digits']} recognised; page and engine differ by "
          f"{found['drawn difference']:.1e} at most")  # fmt: skip
    print(f"held values           {arguments.holds}; page and engine differ by {found['what if']:.1e} at most")
    print(json.dumps(found))
    return 0


def _worst(times: list[float]) -> dict[str, float]:
    return {"median": float(np.median(times)), "worst": float(max(times))}


def _read(tab: Any, trained: Any) -> tuple[np.ndarray, np.ndarray]:
    """(what the model reads (T, D), probabilities after every step (T, K)) as the page's tables have them."""
    p = np.array(tab.evaluate(TABLE, "p"))
    return np.array(tab.evaluate(TABLE, "image")), p[:, : trained.model.num_classes]


def _digits(tab: Any, trained: Any, count: int) -> dict[str, Any]:
    """Draw digits, and compare the page's probabilities with the engine's for the pixels that the page made."""
    rng, recognised, difference = np.random.default_rng(0), 0, 0.0
    for number in range(count):
        tab.locator("#clear").click()
        box = tab.locator("#pad").bounding_box()
        for stroke in drawn(number % 10, rng):
            points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
            tab.mouse.move(*points[0])
            tab.mouse.down()
            for point in points[1:]:
                tab.mouse.move(*point)
            tab.mouse.up()
        tab.evaluate(FRAMES)
        x, page = (
            np.array(tab.evaluate(TABLE, "image")),
            np.array(tab.evaluate(TABLE, "p"))[:, : trained.model.num_classes],
        )
        engine = lstm_np.trace(trained.model, x[np.newaxis]).probabilities[0]
        difference = max(difference, float(np.abs(page - engine).max()))
        recognised += int(engine[-1].argmax()) == number % 10
    return {"digits": count, "recognised": recognised, "drawn difference": difference}


def _holds(tab: Any, trained: Any, count: int) -> float:
    """Hold random values, and compare the page's probabilities with the engine's."""
    rng, difference, stack = np.random.default_rng(1), 0.0, trained.model.recurrent
    for _ in range(count):
        name = stack.cell.values[rng.integers(len(stack.cell.values))]
        unit = None if rng.random() < 0.5 else int(rng.integers(stack.hidden_size))
        to, start = float(np.round(rng.normal(), 2)), int(rng.integers(0, 20))
        text = f"layer0,{name},{'all' if unit is None else unit},{to},{start + 1}"
        tab.evaluate(
            "(hash) => { const moved = new Promise((done) => addEventListener('hashchange', done, { once: true })); "
            "location.hash = hash; return moved; }",
            f"#s=18&hold={text}",
        )
        page, x = (
            np.array(tab.evaluate(TABLE, "p"))[:, : trained.model.num_classes],
            np.array(tab.evaluate(TABLE, "image")),
        )
        hold = lstm_np.Hold(name, to, layer=0, reverse=False, units=unit, steps=slice(start, None))
        engine = lstm_np.trace(trained.model, x[np.newaxis], hold=[hold]).probabilities[0]
        difference = max(difference, float(np.abs(page - engine).max()))
    tab.evaluate("location.hash = '#s=18'")
    return difference
