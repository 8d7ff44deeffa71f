"""What README and docs show is what runs: every program, every command line, every file, extra and picture they name.

Commands that train run with the flags of LIMITS behind their own, which make them small; those of PARSED are only
parsed, with the reason.
"""

from __future__ import annotations

import configparser
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lstm_np
from lstm_np.cells import BUILT_IN, CELLS, FILES
from lstm_np.training import curves

ROOT = Path(lstm_np.__file__).parents[1]
DOCUMENTS = [
    "README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))),
]  # fmt: skip
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "lstm_np").rglob("*.py")))

# what is appended to a command of lstm_np: the last of two equal flags counts
LIMITS = {
    "train": "--dataset digits --validation 0 --hidden-size 4 --epochs 1 --max-steps 2 --threads 1",
    "evaluate": "--threads 1",
    "predict": "--threads 1",
    "gradcheck": "--threads 1",
    "recipes": "",
    "explain": "",
    "text": "--threads 1",
}
WITHOUT = "--dataset digits --hidden-size 4 --epochs 1 --seeds 1 --limit-train 64 --memory-steps 14 --threads 1"
MORE_LIMITS = {
    "explain --without": WITHOUT,
    "explain --term --index 0 --value f": "--unit 3",  # the run that the tests train has four
    "gradcheck --configurations": "--configurations 1",
    "text train": "--hidden-size 4 --max-steps 2 --sample-length 5 --validation 0.02",
    "text sample": "--length 5",
    "recipes compare": "torch-lstm128 --data-dir mnist --seeds 1 --max-steps 1 --threads 1",
}
PARSED = {
    "data": "it downloads 11 MB",
}
PLACEHOLDERS = {"FILE": "walks.csv", "RUN": "run", "NAME": "tf1-sgd", "N": "3", "COMMIT": "HEAD", "FOLDER": "folder"}
TOOLS = ("ruff check", "ruff format", "mypy", "pre-commit install", ".ci/run", "python -m venv",
         "peers/bin/pip install", "tensorboard --logdir", "python FILE")  # fmt: skip
COMMAND = re.compile(
    r"^(python|pip|ruff|mypy|pre-commit|tensorboard --|peers/bin/|\.ci/run)\b"
    r"|^(train|evaluate|predict|gradcheck|recipes|explain) (--|RUN)"
)


def text_of(document):
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(document), re.DOTALL | re.MULTILINE)


def commands(document):
    """The command lines of a document: those of its shell blocks, and those within its sentences and tables."""
    text = text_of(document)
    lines = [line for block in blocks(document, "sh") for line in block.replace("\\\n", " ").splitlines()]
    indented = re.sub(r" *\\\n +", " ", text)
    lines += [re.split(r"  +", line.strip())[0] for line in indented.splitlines() if line.startswith("    ")]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    for block in blocks(document, "toml"):
        lines += re.findall(r"^# \w+\.toml: (.*)$", block, re.MULTILINE)
    found = []
    for line in lines:
        for part in line.partition("  #")[0].split("&&"):
            if COMMAND.match(part.strip()):
                found.append(part.strip())
    return list(dict.fromkeys(found))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder in which the commands of a document run, with what they speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(curves, "draw_curves", lambda *_: b"")  # it takes longer than all else
    monkeypatch.delenv("LSTM_NP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "my_lstm.py").write_text((ROOT / "lstm_np" / "cells" / "lstm.py").read_text(encoding="utf-8"))
    own_functions = ROOT / "tests" / "gradcheck" / "learners" / "columns.py"
    (tmp_path / "my_cell.py").write_text(own_functions.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "book.txt").write_text(lstm_np.text.example(3000))
    digits = lstm_np.data.load_digits()
    paper = Image.fromarray(np.pad(255 - digits.test_images[0] * 15, 3, constant_values=255))
    paper.resize((400, 400), Image.Resampling.BICUBIC).save(tmp_path / "digit.jpg")
    steps = "".join(f"p{n},{t},{n % 2}.5,{'ab'[n % 2]}\n" for n in range(20) for t in range(3))
    (tmp_path / "walks.csv").write_text(f"id,time,speed,label\n{steps}", encoding="utf-8")
    (tmp_path / "mnist").mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 200), ("t10k", 20)):
        for kind, array in (
            ("images-idx3", rng.integers(0, 256, (count, 28, 28), np.uint8)),
            ("labels-idx1", np.arange(count, dtype=np.uint8) % 10),
        ):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            (tmp_path / "mnist" / f"{part}-{kind}-ubyte").write_bytes(content)
    yield tmp_path
    for name in set(CELLS) - set(BUILT_IN):
        del CELLS[name]
        FILES.pop(name, None)


def command_of(name):
    """The module of a command, which has `main` and `make_parser`."""
    module = importlib.import_module(f"lstm_np.{name}")
    return importlib.import_module(f"lstm_np.{name}.__main__") if hasattr(module, "__path__") else module


def run(name, arguments):
    """Run a command of lstm_np as a document shows it, made small."""
    line = " ".join([name, *arguments])
    more = next((flags for start, flags in MORE_LIMITS.items() if line.startswith(start)), "")
    if name in PARSED or "--help" in arguments:
        command_of(name).make_parser().parse_args([word for word in arguments if word != "--help"])
        return
    assert name in LIMITS, f"python -m lstm_np.{line}: say in LIMITS how to make it small"
    limits = LIMITS[name]
    if "--data" in arguments:
        limits = limits.replace(
            "--dataset digits --validation 0", "--out own"
        )  # `explain` takes the newest under runs/
    if line.startswith("gradcheck my_cell.py") or "--resume" in arguments:  # no machine to choose; limits of their own
        limits = ""
    assert command_of(name).main([*arguments, *limits.split(), *more.split()]) == 0, line


def check_benchmark(module, arguments):
    """Benchmarks are parsed: they measure for minutes."""
    if module == "benchmarks":
        from benchmarks.__main__ import make_parser

        make_parser().parse_args(arguments or ["cpu"])
        return
    if module in ("benchmarks.tasks", "benchmarks.characters"):
        main = f"{module}.__main__" if module == "benchmarks.tasks" else module
        importlib.import_module(main).make_parser().parse_args(arguments)
        return
    assert importlib.util.find_spec(module) is not None
    source = (ROOT / "benchmarks" / "gpu" / "__main__.py").read_text(encoding="utf-8")
    for flag in [word for word in arguments if word.startswith("--")]:
        assert f'"{flag}"' in source, flag


def check(command):
    """Run a command line, or see whether what it names is there."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)]
    if words[:2] == ["pip", "install"]:
        check_extras(words[2:])
    elif words[:2] == ["python", "-m"] and words[2] == "pytest":
        for word in words[3:]:
            assert not word.startswith("tests") or (ROOT / word.partition("::")[0]).exists(), word
    elif words[:2] == ["python", "-m"] and words[2].startswith("lstm_np."):
        run(words[2].removeprefix("lstm_np."), words[3:])
    elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks"):
        check_benchmark(words[2], words[3:])
    elif words[:2] == ["python", "-m"] and words[2].startswith("tests."):
        assert importlib.util.find_spec(words[2]) is not None
    elif words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).exists() or Path(words[1]).exists(), command
    elif words[0] in LIMITS:
        run(words[0], words[1:])
    else:
        assert any(command.startswith(tool) for tool in TOOLS), command


def check_extras(words):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    known = set(config["options.extras_require"])
    for word in words:
        if match := re.fullmatch(r"(?:\.|lstm_np)\[(.*)\]", word):
            assert set(match[1].split(",")) <= known, word


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if document != "docs/own-data.md"])
def test_every_command_line_runs(document, folder):
    found = commands(document)
    for block in blocks(document, "toml"):
        (folder / re.match(r"# (\w+\.toml)", block)[1]).write_text(block, encoding="utf-8")
    if any(" RUN" in command for command in found) and not any("--out run" in command for command in found):
        run("train", ["--out", "run", "--quiet"])
    if any(command.endswith("--resume") for command in found):  # the newest run
        run("train", ["--quiet"])
    for command in found:
        check(command)


def is_quotation(code):
    """Whether every line stands in lstm_np's source."""
    return all(line.strip() in SOURCES for line in code.splitlines())


# the programs of these read what their commands wrote, or write what these read: tests/test_docs.py runs both in order
IN_ORDER = ("docs/learn.md", "docs/own-data.md")
WITH_PROGRAMS = [document for document in DOCUMENTS if blocks(document, "python") and document not in IN_ORDER]


@pytest.mark.parametrize("document", WITH_PROGRAMS)
def test_every_program_runs_as_printed(document, folder):
    """The programs of a document one after the other, as a reader types them; the rest are quotations of the source."""
    names: dict[str, object] = {}
    for number, code in enumerate(blocks(document, "python")):
        if not is_quotation(code):
            path = folder / f"program{number}.py"  # so that its functions have a source to be read
            path.write_text(code, encoding="utf-8")
            exec(compile(code, path, "exec"), names)


def test_the_gate_math_is_quoted_as_it_is():
    """README's first quotation is the LSTM's step, line by line and complete."""
    code = next(block for block in blocks("README.md", "python") if is_quotation(block))
    source = (ROOT / "lstm_np" / "cells" / "lstm.py").read_text(encoding="utf-8")
    step = source[source.index("    i = hold(") : source.index("    return (h, c), {")]
    assert [line.strip() for line in code.splitlines()] == [line.strip() for line in step.splitlines()]


def test_the_readme_shows_both():
    assert len({is_quotation(block) for block in blocks("README.md", "python")}) == 2


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document):
    home = (ROOT / document).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = home / path if path else ROOT / document
        assert linked.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target
