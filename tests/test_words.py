"""The project speaks the field's own language: words that it once made up for things which have a name are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lstm_np

pytestmark = pytest.mark.quick

ROOT = Path(lstm_np.__file__).parents[1]
SUFFIXES = {".py", ".md", ".toml", ".cfg", ".cff", ".cu", ".cuh", ".cpp", ".h"}
FOLDERS = ("lstm_np", "benchmarks", "tests", "docs")

# a regular expression -> what to say instead
INSTEAD = {
    r"optimis(e|es|ed|er|ers|ing|ation)": "optimize, optimizer: as the names in the code",
    r"initialis(e|es|ed|er|ers|ing|ation)": "initialize, initializer: as the names in the code",
    r"what (\w+ )?(it |they )?(is|are|was|were) taken for( what)?": "confusion matrix, predicted class",
    r"(leave|leaves|left) the numbers": "training diverged",
    r"planted( \w+)?": "inserted fault",
    r"(the|a) (law|law's)": "the reference kernel",
    r"(public |back |front )?doors?": "public API",
    r"twins?": "copy",
    r"(data|test|engine) rooms?": "package",
    r"faces?": "command, package, or API",
    r"houses?": "package",
    r"(the|a|ground) floor": "level, or lower bound",
    r"certificates? (of|for) (a|all|every|the) \w+": "gradient check",
    r"(is|are) the book": "is the gate math",
    r"(keeps?|breach of|breaches) the contract": "what arrays or values must be like, in words",
    r"(on )?the way back": "the backward pass",
    r"worked off": "executed, processed",
    r"oracles?": "reference",
    r"left (to|for) later": "say when, or leave it out",
}
# where such a word is the right one
ALLOWED = {"tests/test_words.py"}


def documents():
    """Every text of the project."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*.cfg"), *(p for name in FOLDERS for p in (ROOT / name).rglob("*"))]:
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in SUFFIXES and name not in ALLOWED and "__pycache__" not in name:
            yield name, path


def found_in(text, expression):
    """Lines of a text in which the expression stands as words; of a name in the code each part is a word."""
    pattern = re.compile(rf"(?<![A-Za-z]){expression}(?![A-Za-z(])", re.IGNORECASE)
    return [number for number, line in enumerate(text.split("\n"), 1) if pattern.search(line.replace("_", " "))]


TEXTS = {name: path.read_text(encoding="utf-8") for name, path in documents()}


@pytest.mark.parametrize("expression", list(INSTEAD))
def test_a_made_up_word_stands_nowhere(expression):
    places = [f"{name}:{line}" for name, text in TEXTS.items() for line in found_in(text, expression)]
    assert not places, f"{', '.join(places)}: better {INSTEAD[expression]}"


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (r"twins?", "the layer's twin"),
        (r"(public |back |front )?doors?", "a_door_of = 1"),
        (r"planted( \w+)?", "Planted fault"),
    ],
)
def test_words_are_found(expression, text):
    assert found_in(text, expression) == [1]
    assert not found_in("outdoors, twinned, math.floor(x), implanted", expression)


def test_every_text_is_read():
    assert {"README.md", "lstm_np/cells/lstm.py", "docs/recipes.md", "tests/test_model.py"} <= set(TEXTS)
