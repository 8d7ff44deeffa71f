"""What the pages for learners show as commands and code runs, in their order, and does what they say."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import lstm_np
from lstm_np.cells import CELLS
from tests.commands.conftest import invoke, mnist  # noqa: F401  fixtures
from tests.test_readme import WITHOUT

ROOT = Path(lstm_np.__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = ("learn.md", "from-frameworks.md", "check-your-cell.md", "own-data.md")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, content) of a page's fenced blocks, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_examples_of_heads_do_what_they_say(tmp_path, monkeypatch):
    """What a line prints stands behind it: a text that it contains, or a bound."""
    monkeypatch.chdir(tmp_path)
    told: list[object] = []
    names: dict[str, object] = {"print": told.append}
    expected: list[str] = []
    for language, content in blocks("heads.md"):
        assert language == "python"
        expected += re.findall(r"^print\(.*\)  # (.*)$", content, re.MULTILINE)
        exec(compile(content, "heads.md", "exec"), names)
    assert len(told) == len(expected) == 7
    for found, said in zip(told, expected, strict=True):
        sign, _, bound = said.partition(" ")
        if sign in "<>":
            assert bool(found < float(bound)) is (sign == "<"), (found, said)
        else:
            assert str(found).startswith(said)


@pytest.fixture
def own_cells():
    """What a test registers is gone after it."""
    before = dict(CELLS)
    yield
    CELLS.clear()
    CELLS.update(before)


def test_the_learners_path_from_top_to_bottom(invoke, mnist, tmp_path, monkeypatch, own_cells):  # noqa: F811
    """On a small set in MNIST's files: every command, every program, and the two edits of the cell."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSTM_NP_DATA", str(mnist))
    names: dict[str, object] = {}
    seen = []
    for language, content in blocks("learn.md"):
        if language == "python" and ("import torch" not in content or find_spec("torch")):
            exec(compile(content, "learn.md", "exec"), names)
        elif language == "diff":
            old, new = (re.search(rf"^{sign}(.*)$", content, re.MULTILINE)[1].strip() for sign in ("-", r"\+"))
            source = Path("my_lstm.py").read_text(encoding="utf-8")
            assert source.count(old) == 1, old
            Path("my_lstm.py").write_text(source.replace(old, new), encoding="utf-8")
        elif language == "sh":
            for line in content.splitlines():
                command, _, expected = line.partition("  # ")
                if command.startswith("cp "):
                    _, source, target = command.split()
                    shutil.copy(ROOT / source, target)
                    continue
                python, option, module, *arguments = command.split()
                assert (python, option) == ("python", "-m")
                if "--without" in arguments:  # it trains twelve models
                    arguments += WITHOUT.split()
                result = invoke(module.removeprefix("lstm_np."), *arguments)
                assert result.status == (1 if expected.startswith("FAIL") else 0), result
                assert expected in result.out
                seen.append(module)
    assert {"lstm_np.train", "lstm_np.gradcheck"} <= set(seen)
    if "theirs" in names:
        torch, x = names["torch"], names["x"]
        theirs = names["theirs"](torch.tensor(x).double())[0].detach().numpy()
        assert np.abs(names["ours"](x)[0] - theirs).max() <= 1e-12
        assert np.abs(theirs).max() > 0.1


def test_sequences_of_your_own_from_top_to_bottom(invoke, tmp_path, monkeypatch):  # noqa: F811
    """Programs and commands in their order, in one folder; commands with fewer epochs."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    seen = []
    for language, content in blocks("own-data.md"):
        if language == "python":
            exec(compile(re.sub(r"epochs=\d+", "epochs=1", content), "own-data.md", "exec"), names)
        for line in content.splitlines() if language == "sh" else ():
            python, option, module, *arguments = line.split()
            assert (python, option) == ("python", "-m")
            more = ("--epochs", 2, "--hidden-size", 8) if module == "lstm_np.train" else ()
            result = invoke(module.removeprefix("lstm_np."), *arguments, *more)
            assert (result.status, result.err) == (0, ""), result
            seen.append(module)
    assert [seen.count(f"lstm_np.{name}") for name in ("train", "evaluate", "predict")] == [4, 4, 4]
    assert [len(content.splitlines()) for _, content in blocks("own-data.md") if len(content.splitlines()) > 12] == []
    assert names["trace"].dx().shape[2] == 1


def test_the_table_of_shapes_is_what_the_command_prints():
    """The axes and their meaning; the numbers follow from the sizes."""
    from lstm_np.training.shapes import tensor_shapes

    shown = next(content for language, content in blocks("learn.md") if language == "text" and "logits" in content)
    assert tensor_shapes(lstm_np.SequenceClassifier(28, 128, 10), 28, 128).strip() in shown


def test_weights_come_over_from_torch():
    torch = pytest.importorskip("torch")
    code = next(content for language, content in blocks("from-frameworks.md") if "torch.nn.LSTM" in content)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(compile(code, "from-frameworks.md", "exec"), names)
    expected = names["theirs"](torch.from_numpy(names["x"]))[0].detach().numpy()
    assert np.abs(names["y"] - expected).max() <= 1e-6
    assert np.abs(expected).max() > 0.1


def functions(page: str) -> dict[str, object]:
    """The functions that a page defines in blocks of their own."""
    names: dict[str, object] = {"np": np, "lstm_np": lstm_np}
    for language, content in blocks(page):
        if language == "python" and content.startswith("def "):
            exec(compile(content, page, "exec"), names)
    return names


@pytest.mark.parametrize("name", ["from_keras", "from_tf1"])
def test_weights_come_over_from_keras_and_tensorflow_1(name):
    """Against one step of each, written out as its documentation has it."""
    D, H, B = 3, 4, 2
    rng = np.random.default_rng(3)
    x, h, c = (rng.standard_normal((B, n)) for n in (D, H, H))
    kernel, recurrent, bias = (rng.standard_normal(shape) for shape in ((D, 4 * H), (H, 4 * H), 4 * H))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    first, second, third, fourth = np.split(x @ kernel + h @ recurrent + bias, 4, axis=1)
    if name == "from_keras":  # i, f, c, o
        c_t = sigmoid(second) * c + sigmoid(first) * np.tanh(third)
        params = functions("from-frameworks.md")[name](kernel, recurrent, bias)
    else:  # i, j, f, o, with the forget bias added
        c_t = sigmoid(third + 1.0) * c + sigmoid(first) * np.tanh(second)
        params = functions("from-frameworks.md")[name](np.vstack((kernel, recurrent)), bias.copy(), D)
    h_t = sigmoid(fourth) * np.tanh(c_t)
    ours = lstm_np.LSTM(D, H, dtype="float64")
    ours.params.update(params)
    _, (h_n, c_n), _ = ours.forward(x[:, None], (h[None], c[None]))
    np.testing.assert_allclose(h_n[0], h_t, rtol=0, atol=1e-14)
    np.testing.assert_allclose(c_n[0], c_t, rtol=0, atol=1e-14)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (DOCS / target).exists(), target


def test_arguments_that_the_tables_name_exist():
    """In the second column: what stands before = or alone in backticks is an option of the layer."""
    text = (DOCS / "from-frameworks.md").read_text(encoding="utf-8")
    tables = text.split("argument by argument")[1:]
    options = set(lstm_np.options.BY_NAME) | {"state", "x", "lengths", "mask"}
    for row in re.findall(r"^\|[^|]+\|([^|]+)\|", "\n".join(tables).split("## The same program")[0], re.MULTILINE):
        for name in re.findall(r"`([a-z_]+)=", row):
            assert name in options, row
