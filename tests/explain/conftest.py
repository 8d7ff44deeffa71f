"""Models with random weights, their pages, and a browser that is started once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import lstm_np
from lstm_np.explain.export import page_data, record, report
from lstm_np.explain.page import page
from lstm_np.explain.samples import Sample
from lstm_np.training.trained import Trained

from .browser import Page, Tabs, launch

FACTS, COMMAND = [("run", "made for a test")], "python -m lstm_np.explain"


class Case(NamedTuple):
    """A model, samples, and the file of their page."""

    trained: Trained
    samples: list[Sample]
    path: Path


def random_model(features: int, seed: int = 3, **options: Any) -> lstm_np.SequenceClassifier:
    """A classifier with weights large enough that gates differ and answers change."""
    model = lstm_np.SequenceClassifier(features, options.pop("hidden_size", 30), 10, **options)
    rng = np.random.default_rng(seed)
    for name, array in model.params.items():
        array[...] = rng.normal(0, 0.5 if name.endswith("W") or name.endswith("U") else 0.8, array.shape)
    return model


def strokes(shape: tuple[int, int], count: int, seed: int = 0) -> np.ndarray:
    """Images (count, rows, columns) of bytes with a few bright lines, empty at the margin as MNIST's are."""
    rng, (rows, columns) = np.random.default_rng(seed), shape
    images = np.zeros((count, rows, columns), np.uint8)
    for image in images:
        for _ in range(4):
            ends = rng.uniform(0.2, 0.8, (2, 2)) * (rows - 1, columns - 1)
            for share in np.linspace(0, 1, 40):
                r, c = np.rint(ends[0] + share * (ends[1] - ends[0])).astype(int)
                image[r, c] = max(image[r, c], rng.integers(120, 256))
    return images


@pytest.fixture(scope="session")
def make_case(tmp_path_factory):
    """make_case("gru", shape=(8, 8), view="rows", ...) -> Case, made once for the same arguments."""
    made: dict[str, Case] = {}

    def make(
        cell: str = "lstm", *, shape=(28, 28), view: str = "rows", samples: int = 2, units: int | None = None, **options
    ) -> Case:
        key = repr((cell, shape, view, samples, units, sorted(options.items())))
        if key not in made:
            features = {"rows": shape[1], "columns": shape[0], "pixels": 1, "permuted": 1}[view]
            model = random_model(features, cell=cell, **options)
            folder = tmp_path_factory.mktemp("page")
            trained = Trained(folder / "weights.safetensors", model, "mnist", view, shape, 255)
            images = strokes(shape, 40) * np.float32(1 / 255)
            labels = np.arange(40) % 10
            given = [Sample(f"test image {k}", images[k], int(labels[k]), k) for k in range(samples)]
            recordings = [record(trained, sample) for sample in given]
            data = page_data(trained, recordings, FACTS, COMMAND, report(trained, images, labels), units=units)
            text = page(data)
            (folder / "explain.html").write_text(text, encoding="utf-8")
            made[key] = Case(trained, given, folder / "explain.html")
        return made[key]

    return make


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as running:
        found = launch(running)
        yield found
        found.close()


@pytest.fixture(scope="session")
def tabs(browser):
    """Its tabs."""
    return Tabs(browser)


@pytest.fixture
def open_page(tabs):
    """open_page(path, hash="", **options of the browser's context) -> Page, closed with the test."""
    opened = []

    def call(path: Path, **options: Any) -> Page:
        opened.append(Page(tabs, path, **options))
        return opened[-1]

    yield call
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def shared_pages(tabs):
    """The page that was opened last, for `shared_page`."""
    kept: list[Page] = []
    yield kept
    for one in kept:
        one.close()


@pytest.fixture
def shared_page(tabs, shared_pages):
    """shared_page(path) -> Page, as tests before have left it: opened once for all tests in a row that ask for it.

    For tests that say by an address what they look at, or look at what no test changes: opening takes a second.
    """

    def call(path: Path) -> Page:
        if not shared_pages or shared_pages[0].path != path:
            while shared_pages:
                shared_pages.pop().close()
            shared_pages.append(Page(tabs, path))
        return shared_pages[0]

    return call


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--explain-values", type=int, default=40, help="random values of each page that are compared [40]")


@pytest.fixture
def how_many(request) -> int:
    """How many random values a test compares."""
    return request.config.getoption("--explain-values", default=40)
